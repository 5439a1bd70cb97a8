import Foundation
import MPIO
import Multipath
import Testing
import TestSupport

/// A write that was sent over a path that was then lost, and that the target executes late: with the guard the newer
/// data stands; the same without it shows the corruption.
@Suite(.serialized)
struct StaleWriteTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("stale") }

    private struct Outcome {
        var pattern: UInt8?
        var newerTook: Double
        var fence: String
        var events: [MultipathEvent]

        /// Whether the first path's old write was found to be dead, by whatever step.
        var wasCleared: Bool {
            events.contains { if case .guardCleared(PathIndex(0), copies: 1, _) = $0 { true } else { false } }
        }
    }

    /// The first path's write is held in the target, the path is cut; the blocks are overwritten, and the held write is
    /// let go once the newer one is done, or after `patience` if it waits.
    private func lateWrite(
        tags: [UInt16], isGuarded: Bool, timers: String = "", patience: Duration = .seconds(3),
        afterCut: (EmbeddedArray) throws -> Void = { _ in }
    ) async throws -> Outcome {
        let array = try EmbeddedArray(tags: tags)
        let disk = try await WatchedDisk(over: array.portals, timers: timers, isGuarded: isGuarded, in: directory)
        if tags[0] == tags[1] { #expect(try await disk.provenNexuses() == [.shared, .shared]) }
        try array.hold(Hold(Hold.writes, portal: 0))
        async let older: Void = disk.write(1)
        #expect(try await eventually { try array.heldCount == 1 })
        try array.setPortal(0, enabled: false)
        try await older
        let start = ContinuousClock.now
        let took = Locked<Double?>(nil)
        let newer = Task {
            try await disk.write(2)
            took.withLock { $0 = start.seconds }
        }
        try await Task.sleep(for: .milliseconds(20))
        let fence = await disk.manager.report().luns[0].fence
        try afterCut(array)
        _ = try await eventually(within: patience) { took.withLock { $0 != nil } }
        try array.releaseAll()
        try await newer.value
        let pattern = try await disk.pattern()
        let events = disk.events
        try await disk.close()
        try array.stop()
        return Outcome(pattern: pattern, newerTook: took.withLock { $0 } ?? -1, fence: fence, events: events)
    }

    @Test func theNexusIsReinstatedThroughAnotherPortalOfItsGroupAndTheNewerDataStands() async throws {
        let outcome = try await lateWrite(tags: [1, 1], isGuarded: true)
        #expect(outcome.pattern == 2)
        #expect(outcome.events.contains(.guardCleared(PathIndex(0), copies: 1, .taskSetAborted)), "\(outcome.events)")
        #expect(outcome.newerTook < 1, "\(outcome.newerTook) s")
        // The path itself stays lost.
        #expect(!outcome.events.contains(.pathRegained(PathIndex(0))))
        print("stale write, another portal of the group: newer write took \(outcome.newerTook) s")
    }

    @Test func withoutTheGuardTheSameCorrupts() async throws {
        let outcome = try await lateWrite(tags: [1, 1], isGuarded: false)
        #expect(outcome.pattern == 1, "the late write undid the newer one")
        #expect(outcome.newerTook < 1)
    }

    @Test func withNoOtherPortalTheNewerWriteWaitsForThePathOrTheTime() async throws {
        let outcome = try await lateWrite(
            tags: [1, 2], isGuarded: true, timers: "quiesce-time: 5s", patience: .milliseconds(1500))
        #expect(outcome.pattern == 2)
        #expect(outcome.newerTook > 1.5, "\(outcome.newerTook) s")
        #expect(outcome.fence.hasPrefix("raised by 127.") && outcome.fence.contains("(1 write, "), "\(outcome.fence)")
        print("stale write, no other portal: newer write took \(outcome.newerTook) s, fence '\(outcome.fence)'")
    }

    @Test func whenItsPortalIsBackTheOldNexusIsReinstatedThere() async throws {
        let outcome = try await lateWrite(tags: [1, 2], isGuarded: true, patience: .seconds(5)) {
            // The newer write may take the path that is back: only the old one is held.
            try $0.with { $0.filter = nil }
            try $0.setPortal(0, enabled: true)
        }
        #expect(outcome.pattern == 2)
        #expect(outcome.newerTook < 5, "\(outcome.newerTook) s")
        #expect(outcome.events.contains(.guardCleared(PathIndex(0), copies: 1, .taskSetAborted)), "\(outcome.events)")
        print("stale write, own portal back: newer write took \(outcome.newerTook) s")
    }

    @Test func aCompareAndWriteWhosePathIsLostHasAnUnknownOutcome() async throws {
        let array = try EmbeddedArray(tags: [1, 1])
        let disk = try await WatchedDisk(over: array.portals, in: directory)
        #expect(try await disk.provenNexuses() == [.shared, .shared])
        try array.hold(Hold(Hold.compareAndWrite, portal: 0))
        let swap = IOBuffer(byteCount: 1024)
        memset(swap.bytes.baseAddress! + 512, 7, 512)
        let swapped = Task { try await disk.disk.compareAndWrite(swap, at: 0) }
        #expect(try await eventually { try array.heldCount == 1 })
        try array.setPortal(0, enabled: false)
        await #expect(throws: DiskError.outcomeUnknown) { try await swapped.value }
        // What it may still do bars later writes all the same.
        try await disk.write(2)
        try array.releaseAll()
        #expect(try await disk.pattern() == 2)
        #expect(disk.events.contains(.guardCleared(PathIndex(0), copies: 1, .taskSetAborted)), "\(disk.events)")
        try await disk.close()
        try array.stop()
    }

    // MARK: Real tgtd

    /// tgtd's first process gets a write and stands still; the blocks are overwritten through the second; it goes on.
    private func stoppedServer(isGuarded: Bool) async throws -> Outcome {
        let (first, second) = try TgtServer.dualController(byteCount: 8 << 20, portalCount: 1, in: directory)
        let disk = try await WatchedDisk(
            over: first.portals + second.portals, of: first.targetName, lun: 1, timers: "silence-timeout: 500ms",
            isGuarded: isGuarded, in: directory)
        // One name and one tag, but each process knows its own sessions only.
        #expect(try await disk.provenNexuses() == [.single, .single])
        try await disk.write(0)
        try first.stop()
        try await disk.write(1)
        return try await outcome(disk, isGuarded) { try first.cont() }
    }

    /// The bytes of a write are held by the network, in front of tgtd.
    private func heldByTheNetwork(isGuarded: Bool) async throws -> Outcome {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 2, in: directory)
        let link = try FaultyLink(to: server.portals[0])
        let disk = try await WatchedDisk(
            over: [link.portal, server.portals[1]], of: server.targetName, lun: 1, timers: "silence-timeout: 500ms",
            isGuarded: isGuarded, in: directory)
        #expect(try await disk.provenNexuses() == [.shared, .shared])
        try await disk.write(0)
        link.hold(.toTarget)
        try await disk.write(1)
        return try await outcome(disk, isGuarded) { link.release() }
    }

    /// Overwrites, lets the old write go once that is done or waits, and looks.
    private func outcome(_ disk: WatchedDisk, _ isGuarded: Bool, release: () throws -> Void) async throws -> Outcome {
        let start = ContinuousClock.now
        let took = Locked<Double?>(nil)
        let newer = Task {
            try await disk.write(2)
            took.withLock { $0 = start.seconds }
        }
        _ = try await eventually(within: .seconds(1)) { took.withLock { $0 != nil } }
        let fence = await disk.manager.report().luns[0].fence
        try release()
        try await newer.value
        // The late write lands a moment after its release. With the guard its session may have been dropped meanwhile.
        if !isGuarded { _ = try await disk.first { if case .pathResumed = $0 { true } else { false } } }
        _ = try await eventually(within: .seconds(1)) { try await disk.pattern() == 1 }
        let pattern = try await disk.pattern()
        let events = disk.events
        try await disk.close()
        return Outcome(pattern: pattern, newerTook: took.withLock { $0 } ?? -1, fence: fence, events: events)
    }

    @Test(arguments: [true, false])
    func aStoppedTgtdExecutesItsOldWriteAndOnlyTheGuardKeepsTheNewerData(_ isGuarded: Bool) async throws {
        let outcome = try await stoppedServer(isGuarded: isGuarded)
        #expect(outcome.pattern == (isGuarded ? 2 : 1), "\(outcome.events)")
        #expect(outcome.wasCleared == isGuarded, "\(outcome.events)")
        // Nothing that the other process answers may end the wait: it knows nothing of the old write.
        if isGuarded { #expect(outcome.newerTook > 0.9, "\(outcome.newerTook) s; released after 1 s") }
        print("stopped tgtd, guard \(isGuarded): newer write took \(outcome.newerTook) s, fence '\(outcome.fence)'")
    }

    @Test(arguments: [true, false])
    func aWriteThatTheNetworkHeldLandsLateAndOnlyTheGuardKeepsTheNewerData(_ isGuarded: Bool) async throws {
        let outcome = try await heldByTheNetwork(isGuarded: isGuarded)
        #expect(outcome.pattern == (isGuarded ? 2 : 1), "\(outcome.events)")
        #expect(outcome.wasCleared == isGuarded, "\(outcome.events)")
        print("held by the network, guard \(isGuarded): newer write took \(outcome.newerTook) s, fence '\(outcome.fence)'")
    }
}
