import SCSI
import Testing
import Timebase

@testable import Multipath

/// Which session an old copy is held against, and whose word ends it.
@Suite struct GuardedSessionTests {
    private static let other = Harness.device(identity: .naa6(high: 0x6001_4050_0000_0002, low: 2))

    /// Two paths under fail-over-only; a write on the first, with what it left there.
    private func write(_ change: (inout LUNSettings) -> Void = { _ in }) -> (Harness, RequestIndex, Harness.Copy) {
        let harness = Harness(policy: .failOverOnly, paths: 2, change)
        let write = harness.write(100)!
        return (harness, write, harness.inFlight[0])
    }

    private func show(_ harness: Harness, _ path: Int, _ device: DeviceDescription = Harness.device()) {
        harness.lun.pathConnected(PathIndex(path), PathReport(device: device), at: harness.now)
        harness.drain()
    }

    private func logIn(_ harness: Harness, _ path: Int) {
        harness.lun.pathLoggedIn(PathIndex(path), at: harness.now)
        harness.drain()
    }

    private func answerAbort(_ harness: Harness, _ path: Int, _ result: FenceResult) {
        harness.lun.fenceResult(PathIndex(path), .abortTaskSet, result, at: harness.now)
        harness.drain()
    }

    private func takeOut(_ harness: Harness, _ path: Int) {
        harness.lun.takeOut(PathIndex(path), .fail, at: harness.now)
        harness.drain()
    }

    private func remove(_ harness: Harness, _ path: Int) {
        harness.lun.removePath(PathIndex(path), at: harness.now)
        harness.drain()
    }

    // MARK: A session and what one before it left

    @Test func aPathThatStalledBeforeItsSessionEndedDoesNotPayForThatWithTheNext() {
        let (harness, first, _) = write()
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        harness.complete(first)
        // The copy is as old as the stall, but its quiesce time begins with the end of the session.
        harness.advance(.seconds(60))
        harness.down(PathIndex(0), .silent)
        harness.advance(.seconds(1))
        harness.reinstate(PathIndex(0), .failed)
        harness.advance(.seconds(1))
        let later = harness.write(100)
        #expect(harness.route(1) == "a")
        harness.advance(.seconds(27))
        #expect(harness.path(of: later) == nil)
        harness.advance(.seconds(1))
        #expect(harness.path(of: later) == PathIndex(0))
        #expect(harness.drops.isEmpty)
    }

    @Test func whatTheLivingSessionHoldsIsStillHeldAgainstIt() {
        let (harness, first, _) = write()
        harness.down(PathIndex(0))
        harness.complete(first)
        harness.reinstate(PathIndex(0), .failed)
        harness.advance(.seconds(1))
        let second = harness.write(200)
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        harness.complete(second)
        let older = harness.write(100)
        harness.advance(.seconds(5))
        #expect(harness.drops.isEmpty, "the write waits for what the session before this one left")
        harness.write(200)
        #expect(harness.drops == [PathIndex(0)])
        harness.advance(.seconds(24))
        #expect(harness.path(of: older) == PathIndex(1))
    }

    // MARK: Taken out, and ABORT TASK SET is refused

    @Test func aPathTakenOutThatRefusesToAbortIsEndedOnceAndNotLoggedInToAgain() {
        let (harness, first, _) = write()
        harness.connects.removeAll()
        takeOut(harness, 0)
        answerAbort(harness, 0, .failed)
        #expect(harness.drops == [PathIndex(0)])
        harness.down(PathIndex(0), .silent)
        #expect(harness.fences.map(\.step) == [.abortTaskSet])
        // Another LUN of the session has it made anew.
        logIn(harness, 0)
        #expect(harness.fences.map(\.step) == [.abortTaskSet])
        #expect(harness.drops.count == 1 && harness.disconnects.last == PathIndex(0))
        harness.complete(first)
        let later = harness.write(100)
        harness.advance(.seconds(29))
        #expect(harness.path(of: later) == nil)
        harness.advance(.seconds(1))
        #expect(harness.path(of: later) == PathIndex(1))
        #expect(harness.connects.isEmpty)
        harness.lun.restore(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.connects == [PathIndex(0)])
        harness.up(PathIndex(0))
        #expect(harness.route(1) == "a")
    }

    @Test func aPathTakenOutWhoseSessionEndsAtEachProbeIsLoggedInToOnce() {
        let (harness, _, _) = write()
        takeOut(harness, 0)
        harness.down(PathIndex(0))
        #expect(harness.fences.map(\.step) == [.abortTaskSet, .reinstateNexus])
        logIn(harness, 0)
        harness.down(PathIndex(0), .connectionClosed)
        #expect(harness.fences.count == 2)
        #expect(harness.disconnects == [PathIndex(0)])
        harness.advance(.seconds(30))
        #expect(harness.lun.guardState == .clear)
    }

    @Test func aRefusalSaysNothingOfWhatIsLeftLater() {
        let (harness, first, _) = write()
        harness.down(PathIndex(0))
        harness.complete(first)
        harness.reinstate(PathIndex(0), .failed)
        let second = harness.write(200)
        #expect(harness.path(of: second) == PathIndex(0))
        takeOut(harness, 0)
        #expect(harness.fences.last?.step == .abortTaskSet)
        harness.down(PathIndex(0))
        #expect(harness.fences.last?.step == .reinstateNexus)
    }

    @Test func aSessionThatHoldsNothingIsLeftToOtherLUNs() {
        let (harness, first, _) = write()
        harness.down(PathIndex(0))
        harness.complete(first)
        logIn(harness, 0)
        takeOut(harness, 0)
        show(harness, 0)
        #expect(harness.fences.last?.step == .abortTaskSet)
        answerAbort(harness, 0, .failed)
        #expect(harness.drops.isEmpty)
        #expect(harness.disconnects == [PathIndex(0)])
    }

    // MARK: Whose answer it is

    @Test func whatAnotherUnitWouldAbortEndsNothing() {
        let (harness, first, _) = write()
        harness.down(PathIndex(0))
        harness.complete(first)
        let later = harness.write(100)
        logIn(harness, 0)
        #expect(harness.fences.map(\.step) == [.reinstateNexus], "who would answer is not known yet")
        show(harness, 0, Self.other)
        #expect(harness.lun.snapshot().paths[0].state.name == "refused")
        #expect(harness.fences.map(\.step) == [.reinstateNexus])
        harness.advance(.seconds(29))
        #expect(harness.path(of: later) == nil)
        harness.advance(.seconds(1))
        #expect(harness.path(of: later) == PathIndex(1))
        #expect(harness.drops.isEmpty)
    }

    @Test func onceTheNumberLeadsToTheUnitAgainItsTaskSetIsAborted() {
        let (harness, first, _) = write()
        harness.down(PathIndex(0))
        harness.complete(first)
        let later = harness.write(100)
        logIn(harness, 0)
        show(harness, 0, Self.other)
        harness.advance(.seconds(10))
        #expect(harness.probes.last?.reason == .connected)
        show(harness, 0)
        #expect(harness.fences.last?.step == .abortTaskSet)
        answerAbort(harness, 0, .done)
        #expect(harness.path(of: later) == PathIndex(0))
    }

    @Test func aProbeThatFailsLeavesTheCopyToTheQuiesceTime() {
        let (harness, first, _) = write()
        harness.down(PathIndex(0))
        harness.complete(first)
        let later = harness.write(100)
        logIn(harness, 0)
        harness.lun.probeFinished(PathIndex(0), .connected, .failed(PathFailure(.notReady)), at: harness.now)
        harness.drain()
        #expect(harness.fences.map(\.step) == [.reinstateNexus])
        harness.advance(.seconds(30))
        #expect(harness.path(of: later) == PathIndex(1))
    }

    @Test func aSessionWhoseUnitHasChangedIsAskedNothingAndItsLateAnswersCount() {
        let (harness, first, old) = write()
        harness.complete(harness.read(500), .sense(.unitAttention, 0x3F, 0x0E))
        #expect(harness.probes.last?.reason == .recheck)
        show(harness, 0, Self.other)
        #expect(harness.path(of: first) == PathIndex(1))
        #expect(harness.fences.isEmpty)
        harness.complete(first)
        let later = harness.write(100)
        #expect(harness.path(of: later) == nil)
        harness.lun.completed(old.request, on: old.path, outcome: .good, at: harness.now)
        harness.drain()
        #expect(harness.path(of: later) == PathIndex(1))
    }

    @Test func aSessionWhoseUnitHasChangedIsEndedForAWriteThatWaits() {
        let (harness, first, _) = write { $0.timers.commandTimeout = .seconds(300) }
        harness.complete(harness.read(500), .sense(.unitAttention, 0x3F, 0x0E))
        show(harness, 0, Self.other)
        harness.complete(first)
        let later = harness.write(100)
        harness.advance(.seconds(30))
        #expect(harness.drops == [PathIndex(0)])
        harness.down(PathIndex(0), .silent)
        harness.advance(.seconds(30))
        #expect(harness.path(of: later) == PathIndex(1))
    }

    @Test func aUnitThatMayHaveChangedIsAskedNothingBeforeItHasShownItself() {
        let (harness, _, _) = write()
        harness.complete(harness.read(500), .sense(.unitAttention, 0x3F, 0x0E))
        harness.lun.probeFinished(PathIndex(0), .recheck, .failed(PathFailure(.notReady)), at: harness.now)
        harness.drain()
        #expect(harness.fences.isEmpty)
        harness.advance(.seconds(1))
        show(harness, 0)
        #expect(harness.fences.map(\.step) == [.abortTaskSet])
    }

    @Test func anAnswerThatCameAfterTheUnitWasAnotherOneDoesNotCount() {
        let (harness, first, _) = write()
        harness.lun.probeFinished(PathIndex(0), .verify, .failed(PathFailure(.notReady)), at: harness.now)
        harness.drain()
        #expect(harness.fences.map(\.step) == [.abortTaskSet])
        harness.complete(first)
        let later = harness.write(100)
        harness.advance(.seconds(1))
        show(harness, 0, Self.other)
        answerAbort(harness, 0, .done)
        #expect(harness.path(of: later) == nil)
        harness.advance(.seconds(10))
        show(harness, 0)
        answerAbort(harness, 0, .done)
        #expect(harness.path(of: later) == PathIndex(0))
    }

    @Test(arguments: [true, false])
    func aPathTakenOutShowsItsUnitBeforeItsTaskSetIsAborted(_ isSameUnit: Bool) {
        let (harness, first, _) = write()
        takeOut(harness, 0)
        harness.down(PathIndex(0))
        harness.complete(first)
        let later = harness.write(100)
        #expect(harness.fences.map(\.step) == [.abortTaskSet, .reinstateNexus])
        logIn(harness, 0)
        #expect(harness.fences.count == 2 && harness.probes.last?.reason == .connected)
        show(harness, 0, isSameUnit ? Harness.device() : Self.other)
        #expect(harness.fences.count == (isSameUnit ? 3 : 2))
        answerAbort(harness, 0, .done)
        #expect(harness.path(of: later) == (isSameUnit ? PathIndex(1) : nil))
        harness.advance(.seconds(30))
        #expect(harness.path(of: later) == PathIndex(1))
        #expect(harness.lun.guardState == .clear)
        #expect(harness.disconnects == [PathIndex(0)])
    }

    @Test func aSessionThatIsThereAlreadyIsAskedForAndProbed() {
        let (harness, first, _) = write()
        harness.down(PathIndex(0))
        harness.complete(first)
        harness.connects.removeAll()
        harness.lun.fenceResult(PathIndex(0), .reinstateNexus, .done, at: harness.now)
        harness.drain()
        #expect(harness.connects == [PathIndex(0)])
        #expect(harness.fences.map(\.step) == [.reinstateNexus])
        harness.reinstate(PathIndex(0))
        #expect(harness.lun.guardState == .clear)
    }

    // MARK: Removed

    @Test func aStalledPathThatIsRemovedKeepsItsSessionForWhatItHolds() {
        let (harness, first, old) = write()
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        harness.complete(first)
        remove(harness, 0)
        #expect(harness.disconnects.isEmpty)
        let later = harness.write(100)
        harness.lun.completed(old.request, on: old.path, outcome: .good, at: harness.now)
        harness.drain()
        #expect(harness.path(of: later) == PathIndex(1))
        #expect(harness.disconnects == [PathIndex(0)])
    }

    @Test func whatAStalledPathHeldWhenItWasRemovedBarsNobodyForEver() {
        let (harness, first, _) = write()
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        harness.complete(first)
        remove(harness, 0)
        let later = harness.write(100)
        harness.advance(.seconds(2))
        #expect(harness.drops == [PathIndex(0)])
        harness.down(PathIndex(0), .silent)
        #expect(harness.disconnects == [PathIndex(0)])
        harness.advance(.seconds(30))
        #expect(harness.path(of: later) == PathIndex(1))
    }
}
