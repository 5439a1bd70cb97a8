import SCSI
import Testing
import Timebase

@testable import Multipath

@Suite struct StaleWriteGuardTests {
    /// Two paths under fail-over-only; a write on the first, which is then lost. It is re-driven.
    private func lostWrite(_ change: (inout LUNSettings) -> Void = { _ in }) -> (Harness, RequestIndex) {
        let harness = Harness(policy: .failOverOnly, paths: 2, change)
        let write = harness.write(100)!
        harness.down(PathIndex(0))
        return (harness, write)
    }

    @Test func theWriteIsRedrivenAtOnceAndOnlyLaterOverlappingOnesWait() {
        let (harness, first) = lostWrite()
        #expect(harness.path(of: first) == PathIndex(1))
        harness.complete(first)
        #expect(harness.result(of: first) == .done)
        let overlapping = harness.write(104)
        let unmap = harness.admit(RequestDescriptor(kind: .unmap, lba: 96, blockCount: 32))
        let apart = harness.write(500)
        let read = harness.read(100)
        #expect(harness.path(of: overlapping) == nil)
        #expect(harness.path(of: unmap) == nil)
        #expect(harness.path(of: apart) != nil)
        #expect(harness.path(of: read) != nil)
    }

    @Test func readsLeaveNoCopies() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.read(100)
        harness.down(PathIndex(0))
        #expect(harness.lun.guardState == .clear)
        #expect(harness.fences.isEmpty)
    }

    @Test func aWriteThatWasNeverSentBarsNothing() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.write(100)
        let copy = harness.inFlight[0]
        harness.complete(copy, .returned(wasSent: false, .connectionReset))
        harness.down(PathIndex(0))
        #expect(harness.lun.guardState == .clear)
    }

    @Test func thatItWasNeverSentMayBeToldAfterTheLoss() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let first = harness.write(100)
        let old = harness.inFlight[0]
        harness.down(PathIndex(0))
        harness.complete(first)
        let later = harness.write(100)
        #expect(harness.path(of: later) == nil)
        harness.lun.completed(
            old.request, on: old.path, outcome: .returned(wasSent: false, .connectionReset), at: harness.now)
        harness.drain()
        #expect(harness.path(of: later) != nil)
        #expect(harness.events.contains(.guardCleared(PathIndex(0), copies: 1, .neverSent)))
    }

    @Test func reinstatementAndAbortTaskSetEndTheCopy() {
        let (harness, first) = lostWrite()
        #expect(harness.fences.map(\.step) == [.reinstateNexus])
        harness.complete(first)
        let later = harness.write(100)
        harness.up(PathIndex(0))
        #expect(harness.fences.map(\.step) == [.reinstateNexus, .abortTaskSet])
        #expect(harness.path(of: later) == nil, "a login alone is no fence")
        harness.lun.fenceResult(PathIndex(0), .abortTaskSet, .done, at: harness.now)
        harness.drain()
        #expect(harness.path(of: later) != nil)
        #expect(harness.lun.guardState == .clear)
    }

    @Test func aReturningPathCarriesNothingUntilItsOldTaskSetIsAborted() {
        let (harness, first) = lostWrite()
        harness.complete(first)
        harness.advance(.seconds(1))
        harness.lun.pathLoggedIn(PathIndex(0), at: harness.now)
        harness.drain()
        harness.lun.pathConnected(PathIndex(0), PathReport(device: Harness.device()), at: harness.now)
        harness.drain()
        // ABORT TASK SET would hit new commands of the same nexus.
        #expect(harness.lun.pathState(PathIndex(0)) == .connecting)
        #expect(harness.route(1) == "b")
        harness.lun.fenceResult(PathIndex(0), .abortTaskSet, .done, at: harness.now)
        harness.drain()
        #expect(harness.route(1) == "a")
    }

    @Test func whereAbortTaskSetIsRefusedThePathReturnsAndTheCopyWaitsForTheQuiesceTime() {
        let (harness, first) = lostWrite()
        harness.complete(first)
        harness.reinstate(PathIndex(0), .failed)
        #expect(harness.route(1) == "a")
        let later = harness.write(100)
        #expect(harness.path(of: later) == nil)
        harness.advance(.seconds(29))
        #expect(harness.path(of: later) == nil)
        harness.advance(.seconds(1))
        #expect(harness.path(of: later) != nil)
        #expect(harness.events.contains(.guardCleared(PathIndex(0), copies: 1, .quiesceTimePassed)))
        #expect(harness.drops.isEmpty, "the session that is there holds nothing of it")
    }

    @Test func theUnitIsResetOnlyWhereAllowedAndOnlyWhenAWriteWaits() {
        let (harness, first) = lostWrite { $0.staleWriteGuard.allowsLogicalUnitReset = true }
        harness.lun.fenceResult(PathIndex(0), .reinstateNexus, .failed, at: harness.now)
        harness.drain()
        harness.complete(first)
        #expect(harness.fences.count == 1)
        let flying = harness.read(4096)
        let later = harness.write(100)
        #expect(harness.fences.last?.step == .logicalUnitReset(via: PathIndex(1)))
        #expect(harness.path(of: later) == nil)
        // Nothing is issued while the reset is out: it might be hit.
        let held = harness.read(8192)
        #expect(harness.path(of: held) == nil)
        harness.issued.removeAll()
        harness.lun.fenceResult(
            PathIndex(0), .logicalUnitReset(via: PathIndex(1)), .done, at: harness.now)
        harness.drain()
        #expect(harness.issued.map(\.request.slot) == [later, held].map { $0!.slot })
        #expect(harness.lun.guardState == .clear)
        // The reset may have ended the read in flight without a word, or never met it: it is asked back.
        #expect(harness.aborted.map(\.request.slot) == [flying!.slot])
        harness.complete(flying, .status(.taskAborted, nil))
        #expect(harness.path(of: flying) == PathIndex(1))
    }

    @Test func withoutPermissionTheUnitIsNeverReset() {
        let (harness, first) = lostWrite()
        harness.lun.fenceResult(PathIndex(0), .reinstateNexus, .failed, at: harness.now)
        harness.complete(first)
        harness.write(100)
        #expect(harness.fences.map(\.step) == [.reinstateNexus])
    }

    @Test func aRefusedResetIsNotRepeatedAndEverythingGoesOn() {
        let (harness, first) = lostWrite { $0.staleWriteGuard.allowsLogicalUnitReset = true }
        harness.lun.fenceResult(PathIndex(0), .reinstateNexus, .unsupported, at: harness.now)
        harness.complete(first)
        let later = harness.write(100)
        harness.lun.fenceResult(
            PathIndex(0), .logicalUnitReset(via: PathIndex(1)), .failed, at: harness.now)
        harness.drain()
        #expect(harness.fences.count == 2)
        #expect(harness.route(2) == "bb")
        harness.advance(.seconds(30))
        #expect(harness.path(of: later) != nil)
    }

    @Test func aResetPathThatIsLostHoldsNothingUp() {
        let (harness, first) = lostWrite { $0.staleWriteGuard.allowsLogicalUnitReset = true }
        harness.up(harness.add("c"))
        harness.lun.fenceResult(PathIndex(0), .reinstateNexus, .failed, at: harness.now)
        harness.complete(first)
        harness.write(100)
        #expect(harness.fences.last?.step == .logicalUnitReset(via: PathIndex(1)))
        harness.down(PathIndex(1))
        #expect(harness.fences.last?.step == .logicalUnitReset(via: PathIndex(2)))
        harness.lun.fenceResult(
            PathIndex(0), .logicalUnitReset(via: PathIndex(2)), .done, at: harness.now)
        harness.drain()
        #expect(harness.route(1) == "c")
    }

    @Test func aResetThatIsNotAnsweredHoldsNothingUpForEver() {
        let (harness, first) = lostWrite { $0.staleWriteGuard.allowsLogicalUnitReset = true }
        harness.up(harness.add("c"))
        harness.lun.fenceResult(PathIndex(0), .reinstateNexus, .failed, at: harness.now)
        harness.complete(first)
        let later = harness.write(100)
        let reset = FenceStep.logicalUnitReset(via: PathIndex(1))
        #expect(harness.fences.last?.step == reset)
        let held = harness.read(8192)
        harness.advance(.seconds(29))
        #expect(harness.path(of: held) == nil && harness.drops.isEmpty)
        harness.advance(.seconds(2))
        #expect(harness.drops == [PathIndex(1)])
        #expect(harness.path(of: held) == PathIndex(2))
        #expect(harness.path(of: later) == PathIndex(2))
        #expect(harness.events.contains(.fenceFailed(PathIndex(0), reset, .failed)))
        #expect(harness.fences.last?.step == reset, "no second reset")
        // An answer after all is of no use any more.
        harness.lun.fenceResult(PathIndex(0), reset, .done, at: harness.now)
        harness.drain()
        #expect(harness.path(of: held) == PathIndex(2))
    }

    @Test func aStalledPathKeepsItsSessionAndALateAnswerEndsTheCopy() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let first = harness.write(100)
        let old = harness.inFlight[0]
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.withdrawn == [old])
        #expect(harness.path(of: first) == PathIndex(1))
        harness.complete(first)
        let later = harness.write(100)
        #expect(harness.path(of: later) == nil)
        #expect(harness.fences.isEmpty && harness.disconnects.isEmpty)
        harness.lun.pathResumed(PathIndex(0), at: harness.now)
        harness.lun.completed(old.request, on: old.path, outcome: .good, at: harness.now)
        harness.drain()
        #expect(harness.path(of: later) == PathIndex(0))
        #expect(harness.events.contains(.guardCleared(PathIndex(0), copies: 1, .answered)))
        #expect(harness.finishCount == 1)
    }

    @Test func aStalledSessionThatKeepsAWriteWaitingIsDroppedAndItsQuiesceTimeBeginsThen() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let first = harness.write(100)
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        harness.complete(first)
        // What waits in a socket is carried out whenever it arrives: time alone ends nothing while the session lives.
        harness.advance(.seconds(300))
        #expect(harness.drops.isEmpty)
        let later = harness.write(100)
        #expect(harness.drops == [PathIndex(0)])
        #expect(harness.path(of: later) == nil)
        harness.down(PathIndex(0), .silent)
        #expect(harness.fences.map(\.step) == [.reinstateNexus])
        harness.lun.fenceResult(PathIndex(0), .reinstateNexus, .failed, at: harness.now)
        harness.drain()
        harness.advance(.seconds(29))
        #expect(harness.path(of: later) == nil)
        harness.advance(.seconds(1))
        #expect(harness.path(of: later) == PathIndex(1))
        #expect(harness.drops.count == 1)
    }

    @Test func aStalledSessionIsGivenOneMoreSilenceTimeout() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let first = harness.write(100)
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        harness.complete(first)
        harness.write(100)
        harness.advance(.milliseconds(1999))
        #expect(harness.drops.isEmpty)
        harness.advance(.milliseconds(1))
        #expect(harness.drops == [PathIndex(0)])
    }

    @Test func aWriteThatTimesOutOnAGoodPathIsAskedBackAndBarsUntilItAnswers() {
        let harness = Harness(policy: .failOverOnly, paths: 1)
        let first = harness.write(100)
        let old = harness.inFlight[0]
        harness.advance(.seconds(60))
        #expect(harness.result(of: first) == .failed(.timedOut))
        #expect(harness.aborted == [old])
        let later = harness.write(100)
        #expect(harness.path(of: later) == nil)
        harness.lun.completed(old.request, on: old.path, outcome: .status(.taskAborted, nil), at: harness.now)
        harness.drain()
        #expect(harness.path(of: later) == PathIndex(0))
        #expect(harness.drops.isEmpty)
    }

    @Test func aSessionThatDoesNotAnswerItsAbortIsDroppedForTheWriteThatWaits() {
        let harness = Harness(policy: .failOverOnly, paths: 1)
        harness.write(100)
        harness.advance(.seconds(60))
        harness.write(100)
        harness.advance(.seconds(29))
        #expect(harness.drops.isEmpty)
        harness.advance(.seconds(1))
        #expect(harness.drops == [PathIndex(0)])
    }

    @Test func anAbortTaskSetThatIsNeverAnsweredDoesNotKeepThePathAway() {
        let (harness, first) = lostWrite()
        harness.complete(first)
        harness.advance(.seconds(1))
        harness.up(PathIndex(0))
        #expect(harness.fences.last?.step == .abortTaskSet)
        harness.advance(.seconds(30))
        #expect(harness.drops == [PathIndex(0)])
        harness.down(PathIndex(0), .silent)
        harness.advance(.seconds(5))
        harness.up(PathIndex(0))
        #expect(harness.route(1) == "a")
    }

    @Test func aFenceWhoseSessionEndedIsNotWaitedFor() {
        let (harness, first) = lostWrite()
        harness.complete(first)
        harness.up(PathIndex(0))
        // The copies end by time while ABORT TASK SET is out; then the session goes, and its answer with it.
        harness.advance(.milliseconds(29_500))
        harness.advance(.milliseconds(499))
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.advance(.milliseconds(1))
        harness.down(PathIndex(0))
        harness.advance(.seconds(5))
        harness.up(PathIndex(0))
        #expect(harness.route(1) == "a")
    }

    @Test func aResetEndsNothingOnASessionThatLives() {
        let harness = Harness(policy: .failOverOnly, paths: 3) { $0.staleWriteGuard.allowsLogicalUnitReset = true }
        let first = harness.write(100)
        let second = harness.write(200)
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.path(of: first) == PathIndex(1))
        harness.complete(first)
        harness.complete(second)
        // Another path's copy, of a session that is over.
        let third = harness.write(300)
        harness.down(PathIndex(1))
        harness.complete(third)
        harness.lun.fenceResult(PathIndex(1), .reinstateNexus, .failed, at: harness.now)
        harness.drain()
        let (waits, goes) = (harness.write(100), harness.write(300))
        harness.lun.fenceResult(PathIndex(1), .logicalUnitReset(via: PathIndex(2)), .done, at: harness.now)
        harness.drain()
        #expect(harness.path(of: goes) == PathIndex(2))
        #expect(harness.path(of: waits) == nil)
    }

    @Test func aRemovedPathIsGivenUpOnceItsWritesAreFenced() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let first = harness.write(100)
        harness.lun.removePath(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.fences.map(\.step) == [.abortTaskSet])
        #expect(harness.disconnects.isEmpty)
        harness.complete(first)
        let later = harness.write(100)
        #expect(harness.path(of: later) == nil)
        harness.lun.fenceResult(PathIndex(0), .abortTaskSet, .done, at: harness.now)
        harness.drain()
        #expect(harness.disconnects == [PathIndex(0)])
        #expect(harness.path(of: later) == PathIndex(1))
    }

    @Test func aStalledPathThatFailsIsFencedLikeALostOne() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.write(100)
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        harness.down(PathIndex(0), .silent)
        #expect(harness.fences.map(\.step) == [.reinstateNexus])
    }

    @Test func withNowhereElseToGoAStalledPathIsWaitedFor() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.down(PathIndex(1))
        let first = harness.write(100)
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.path(of: first) == PathIndex(0))
        let second = harness.read(8)
        #expect(harness.path(of: second) == nil)
        harness.advance(.seconds(25))
        #expect(harness.result(of: first) == nil && harness.result(of: second) == nil)
        harness.up(PathIndex(1))
        #expect(harness.path(of: first) == PathIndex(1))
        #expect(harness.path(of: second) == PathIndex(1))
    }

    @Test func compareAndWriteIsNeverRepeatedOnceSent() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let swap = harness.admit(RequestDescriptor(kind: .compareAndWrite, lba: 0, blockCount: 1, byteCount: 1024))
        harness.down(PathIndex(0))
        #expect(harness.result(of: swap) == .failed(.outcomeUnknown))
        // What it may still do bars later writes all the same.
        #expect(harness.path(of: harness.write(0)) == nil)
    }

    @Test func compareAndWriteThatWasNotSentIsSentElsewhere() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let swap = harness.admit(RequestDescriptor(kind: .compareAndWrite, lba: 0, blockCount: 1))
        harness.complete(swap, .returned(wasSent: false, .connectionReset))
        #expect(harness.path(of: swap) == PathIndex(1))
    }

    @Test func compareAndWriteOnAStalledPathStaysThere() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let swap = harness.admit(RequestDescriptor(kind: .compareAndWrite, lba: 0, blockCount: 1))
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.path(of: swap) == PathIndex(0))
        harness.complete(swap)
        #expect(harness.result(of: swap) == .done)
    }

    @Test func compareAndWriteIsRetriedWhereItCertainlyDidNotRun() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let swap = harness.admit(RequestDescriptor(kind: .compareAndWrite, lba: 0, blockCount: 1))
        harness.complete(swap, .sense(.unitAttention, 0x29, 0))
        #expect(harness.path(of: swap) == PathIndex(0))
        harness.complete(swap, .sense(.abortedCommand, 0, 0))
        #expect(harness.result(of: swap) != nil)
    }

    @Test func aWriteRedrivenTwiceLeavesTwoCopies() {
        let harness = Harness(policy: .failOverOnly, paths: 3)
        let first = harness.write(100)
        harness.down(PathIndex(0))
        harness.down(PathIndex(1))
        harness.complete(first)
        let later = harness.write(100)
        harness.reinstate(PathIndex(0))
        #expect(harness.path(of: later) == nil)
        harness.reinstate(PathIndex(1))
        #expect(harness.path(of: later) != nil)
        let isEmpty = { harness.lun.ranges.isEmpty }
        harness.completeAll()
        #expect(isEmpty())
    }

    @Test func aWriteThatWaitedBehindTheRedrivenOneWaitsForItsCopyToo() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let first = harness.write(100)
        let second = harness.write(100)
        harness.down(PathIndex(0))
        harness.complete(first)
        #expect(harness.path(of: second) == nil)
        harness.reinstate(PathIndex(0))
        #expect(harness.path(of: second) != nil)
    }

    @Test func theSnapshotSaysWhatTheGuardWaitsFor() {
        let (harness, _) = lostWrite()
        let clearAt = harness.now + .seconds(30)
        func raised(_ stage: GuardedPath.Stage) -> GuardState {
            .raised([GuardedPath(path: PathIndex(0), copies: 1, stage: stage, clearAt: clearAt)])
        }
        #expect(harness.lun.snapshot().guardState == raised(.reinstating))
        harness.up(PathIndex(0))
        #expect(harness.lun.snapshot().guardState == raised(.aborting))
        harness.lun.fenceResult(PathIndex(0), .abortTaskSet, .failed, at: harness.now)
        #expect(harness.lun.snapshot().guardState == raised(.waiting))
        #expect(harness.lun.snapshot().paths[0].staleCopies == 1)
    }

    /// A disk of one block behind two paths, whose first may execute a write after the path is lost.
    private func finalContent(guarded: Bool) -> Int {
        let harness = Harness(policy: .failOverOnly, paths: 2) { $0.staleWriteGuard.isEnabled = guarded }
        var disk = 0
        harness.write(0, blocks: 1)
        let late = harness.inFlight[0]
        harness.down(PathIndex(0))
        disk = 1
        harness.complete(harness.inFlight[0])

        let newer = harness.write(0, blocks: 1)
        func landNewer() {
            disk = 2
            harness.complete(newer)
        }
        if harness.path(of: newer) != nil { landNewer() }
        // The target gets round to the old copy only now; the abort that the guard asks for comes after.
        _ = late
        disk = 1
        harness.reinstate(PathIndex(0))
        if harness.path(of: newer) != nil { landNewer() }
        #expect(harness.result(of: newer) == .done)
        return disk
    }

    @Test func theGuardKeepsALateWriteFromUndoingANewerOneAndWithoutItTheDataIsLost() {
        #expect(finalContent(guarded: true) == 2)
        #expect(finalContent(guarded: false) == 1)
    }
}

@Suite struct TakeOutTests {
    @Test func aDrainedPathFinishesWhatItHasAndGetsNothingNew() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let first = harness.read()
        harness.lun.takeOut(PathIndex(0), .drain, at: harness.now)
        harness.drain()
        #expect(harness.path(of: first) == PathIndex(0))
        #expect(harness.route(3) == "bbb")
        harness.complete(first)
        #expect(harness.lun.pathState(PathIndex(0)) == .drained)
        harness.lun.restore(PathIndex(0), at: harness.now)
        #expect(Set(harness.route(4)) == ["a", "b"])
    }

    @Test func aPathFailedByHandIsNotRecoveredUntilItIsRestored() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let first = harness.read()
        harness.connects.removeAll()
        harness.lun.takeOut(PathIndex(0), .fail, at: harness.now)
        harness.drain()
        #expect(harness.path(of: first) == PathIndex(1))
        #expect(harness.disconnects == [PathIndex(0)])
        harness.advance(.seconds(50))
        #expect(harness.connects.isEmpty)
        harness.complete(first)
        harness.lun.restore(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.connects == [PathIndex(0)])
        harness.up(PathIndex(0))
        #expect(Set(harness.route(4)) == ["a", "b"])
    }

    @Test func writesOfAPathFailedByHandAreAbortedBeforeItsSessionGoes() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.write()
        harness.lun.takeOut(PathIndex(0), .fail, at: harness.now)
        harness.drain()
        #expect(harness.fences.map(\.step) == [.abortTaskSet])
        #expect(harness.disconnects.isEmpty)
        harness.lun.fenceResult(PathIndex(0), .abortTaskSet, .done, at: harness.now)
        harness.drain()
        #expect(harness.disconnects == [PathIndex(0)])
    }

    @Test func aRemovedPathIsGoneAndItsRequestsGoOn() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let first = harness.read()
        harness.lun.removePath(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.path(of: first) == PathIndex(1))
        #expect(harness.lun.snapshot().paths.map(\.name) == ["b"])
        #expect(harness.lun.path(named: "a") == nil)
        harness.up(harness.add("c"))
        #expect(Set(harness.route(4)) == ["b", "c"])
    }

    @Test func manyPathsCanBeAddedUnderLoad() {
        let harness = Harness(policy: .roundRobin, paths: 1, capacity: 256)
        for index in 0..<70 {
            harness.read(UInt64(index) * 8)
            harness.up(harness.add("p\(index)"))
        }
        #expect(harness.lun.pathCount == 71)
        harness.completeAll()
        #expect(harness.finished.allSatisfy { $0.result == .done })
    }
}
