import Multipath
import Testing

/// What a caller that takes a request back may be told.
@Suite struct CancelTests {
    private let harness = Harness()

    @Test func aRequestThatWasNeverHandedToAPathIsCancelled() {
        let path = harness.add("a")
        harness.up(path)
        harness.down(path)
        let write = harness.write()
        #expect(harness.lun.cancel(slot: write!.slot, at: harness.now))
        harness.drain()
        #expect(harness.result(of: write) == .failed(.cancelled))
    }

    @Test func aWriteWhosePathWasLostMayHaveBeenDone() {
        let path = harness.add("a")
        harness.up(path)
        let write = harness.write(0)
        let read = harness.read(64)
        #expect(harness.path(of: write) == path)
        harness.down(path)
        for request in [write, read] { harness.lun.cancel(slot: request!.slot, at: harness.now) }
        harness.drain()
        #expect(harness.result(of: write) == .failed(.outcomeUnknown))
        #expect(harness.result(of: read) == .failed(.cancelled))
    }

    @Test func aWriteThatTheTargetTurnedAwayWasNotDone() {
        let path = harness.add("a")
        harness.up(path)
        let write = harness.write(0)
        harness.complete(write, .status(.taskSetFull, nil))
        #expect(harness.path(of: write) == nil)
        #expect(harness.lun.cancel(slot: write!.slot, at: harness.now))
        harness.drain()
        #expect(harness.result(of: write) == .failed(.cancelled))
    }

    @Test func aRequestInFlightGoesOn() {
        let path = harness.add("a")
        harness.up(path)
        let write = harness.write()
        #expect(!harness.lun.cancel(slot: write!.slot, at: harness.now))
        harness.complete(write)
        #expect(harness.result(of: write) == .done)
    }
}
