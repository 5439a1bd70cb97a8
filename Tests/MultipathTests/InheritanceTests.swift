import Multipath
import Testing
import Timebase

/// What a LUN takes over from an earlier opening of it, and what it leaves to a later one.
@Suite struct InheritanceTests {
    private let write = RequestDescriptor(kind: .write, lba: 100, blockCount: 8, byteCount: 4096)

    /// What `a` leaves that was cut with a write in flight.
    private func left() -> [RemainingWrite] {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.write(100)
        harness.down(PathIndex(0))
        return harness.lun.remainingWrites(on: PathIndex(0))
    }

    @Test func laterWritesWaitForWhatTheEarlierOpeningFeared() {
        let left = left()
        #expect(left.count == 1 && left[0].lba == 100 && left[0].blockCount == 8)
        let harness = Harness(LUNSettings(policy: PolicySettings(.failOverOnly)))
        let (a, b) = (harness.add("a"), harness.add("b"))
        harness.lun.inherit(left, on: a, at: harness.now)
        harness.up(b)
        #expect(harness.events.contains(.guardRaised(a, copies: 1)))
        let elsewhere = harness.write(200)
        let barred = harness.write(100)
        #expect(harness.path(of: elsewhere) == b && harness.path(of: barred) == nil)
        harness.up(a)
        #expect(harness.lun.pathState(a) == .connecting)
        harness.lun.fenceResult(a, .abortTaskSet, .done, at: harness.now)
        harness.drain()
        #expect(harness.path(of: barred) != nil)
        #expect(harness.lun.remainingWrites(on: a).isEmpty)
    }

    @Test func wherePathAndSessionAreGoneTheQuiesceTimeEndsIt() {
        let harness = Harness(LUNSettings(policy: PolicySettings(.failOverOnly)))
        let (a, b) = (harness.add("a"), harness.add("b"))
        harness.up(b)
        harness.lun.inherit(left().map { $0.ended(by: harness.now + .seconds(30)) }, on: a, at: harness.now)
        harness.drain()
        let barred = harness.write(100)
        harness.advance(.seconds(29))
        #expect(harness.path(of: barred) == nil)
        harness.advance(.seconds(1))
        #expect(harness.path(of: barred) == b)
    }

    @Test(arguments: [FenceResult.done, .failed]) func aNexusOfAKilledProcessIsFencedBeforeItsPathCarriesData(result: FenceResult) {
        let harness = Harness(LUNSettings(policy: PolicySettings(.failOverOnly)))
        let (a, b) = (harness.add("a"), harness.add("b"))
        harness.lun.expectUnknownWrites(on: a)
        harness.up(a)
        harness.up(b)
        #expect(harness.fences.map(\.path) == [a] && harness.fences[0].step == .abortTaskSet)
        #expect(harness.route(1) == "b")
        harness.lun.fenceResult(a, .abortTaskSet, result, at: harness.now)
        harness.drain()
        #expect(harness.lun.pathState(a) == .activeOptimized && harness.lun.guardState == .clear)
        // Once is enough.
        harness.down(a)
        harness.advance(.seconds(2))
        harness.up(a)
        #expect(harness.lun.pathState(a) == .activeOptimized)
    }

    @Test func aSessionThatIsLostBeforeItsTaskSetIsAbortedIsFencedAgain() {
        let harness = Harness(LUNSettings(policy: PolicySettings(.failOverOnly)))
        let a = harness.add("a")
        harness.lun.expectUnknownWrites(on: a)
        harness.up(a)
        harness.down(a)
        harness.advance(.seconds(2))
        harness.up(a)
        #expect(harness.lun.pathState(a) == .connecting)
        harness.lun.fenceResult(a, .abortTaskSet, .done, at: harness.now)
        harness.drain()
        #expect(harness.lun.pathState(a) == .activeOptimized)
    }

    /// A kernel device keeps what it took for as long as it likes, and says when it has let go.
    @Test func aWithdrawnWriteOfAKernelDeviceIsFearedUntilTheDeviceAnswers() {
        let harness = Harness(LUNSettings(policy: PolicySettings(.failOverOnly)))
        let device = harness.add("device", transport: .kernelDevice)
        let other = harness.add("b")
        harness.up(device)
        harness.up(other)
        let first = harness.write(100)
        #expect(harness.path(of: first) == device)
        harness.lun.takeOut(device, .fail, at: harness.now)
        harness.drain()
        let redriven = harness.inFlight.last!
        #expect(redriven.path == other)
        harness.complete(redriven)
        let later = harness.write(100)
        harness.advance(.seconds(50))
        #expect(harness.path(of: later) == nil)
        harness.lun.completed(first!, on: device, outcome: .returned(wasSent: true, .taskLost), at: harness.now)
        harness.drain()
        #expect(harness.path(of: later) == other)
    }
}
