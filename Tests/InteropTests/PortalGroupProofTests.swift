import Foundation
import MPIO
import Multipath
import Testing
import TestSupport

/// Whether portals of one name and one tag share their sessions is found out, not believed.
@Suite(.serialized)
struct PortalGroupProofTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("proof") }

    private func accepted(_ array: EmbeddedArray) throws -> UInt64 {
        try array.with { target in array.portals.indices.reduce(0) { $0 + target.acceptedCount(portal: $1) } }
    }

    // MARK: The embedded target

    @Test func portalsOfOneTargetAreProvenByOneLoginEach() async throws {
        let array = try EmbeddedArray(tags: [1, 1, 1, 1])
        let disk = try await WatchedDisk(over: array.portals, in: directory)
        #expect(try await disk.provenNexuses() == [.shared, .shared, .shared, .shared])
        let paths = await disk.manager.report().luns[0].paths
        #expect(paths[0].nexusSharedWith == array.portals[1...].map { "\($0)" })
        // The sessions of the proof are gone again.
        #expect(try await eventually { try array.with { $0.sessionCount } == 4 })
        #expect(try accepted(array) == 8)
        try await disk.close()
        #expect(try await eventually { try array.with { $0.sessionCount } == 0 })
        try array.stop()
    }

    @Test func twoTargetsOfOneNameAndTagAreNot() async throws {
        let (first, second) = (try EmbeddedArray(tags: [1, 1]), try EmbeddedArray(tags: [1, 1]))
        let disk = try await WatchedDisk(
            over: [first.portals[0], second.portals[0], first.portals[1], second.portals[1]],
            timers: "silence-timeout: 500ms", in: directory)
        #expect(try await disk.provenNexuses() == [.shared, .shared, .shared, .shared])
        let paths = await disk.manager.report().luns[0].paths
        #expect(paths[0].nexusSharedWith == ["\(first.portals[1])"])
        #expect(paths[1].nexusSharedWith == ["\(second.portals[1])"])
        #expect(try accepted(first) + accepted(second) == 8)
        try await disk.close()
        try first.stop()
        try second.stop()
    }

    @Test func differentTagsAreNotCompared() async throws {
        let array = try EmbeddedArray(tags: [1, 2])
        let disk = try await WatchedDisk(over: array.portals, in: directory)
        try await Task.sleep(for: .seconds(1))
        #expect(await disk.nexuses == [.unproven, .unproven])
        #expect(try accepted(array) == 2)
        try await disk.close()
        try array.stop()
    }

    @Test func aPortalThatComesBackIsProvenAgain() async throws {
        let array = try EmbeddedArray(tags: [1, 1])
        let disk = try await WatchedDisk(
            over: array.portals, timers: "path-recovery-interval: 50ms", in: directory)
        #expect(try await disk.provenNexuses() == [.shared, .shared])
        try array.setPortal(0, enabled: false)
        #expect(try await disk.first { if case .pathLost = $0 { true } else { false } } != nil)
        // What is known of a lost path is what its guard needs.
        #expect(await disk.nexuses == [.shared, .shared])
        let before = try accepted(array)
        try array.setPortal(0, enabled: true)
        #expect(try await disk.first { $0 == .pathRegained(PathIndex(0)) } != nil)
        #expect(try await disk.provenNexuses() == [.shared, .shared])
        #expect(try accepted(array) == before + 3, "the path's own login and two of the proof")
        try await disk.close()
        try array.stop()
    }

    @Test func aDiskThatIsClosedLeavesNoProofBehind() async throws {
        let (first, second) = (try EmbeddedArray(tags: [1]), try EmbeddedArray(tags: [1]))
        let disk = try await WatchedDisk(
            over: first.portals + second.portals, timers: "silence-timeout: 5s", in: directory)
        // The proof has a session at each and waits for one to end.
        #expect(try await eventually {
            try first.with { $0.sessionCount } == 2 && second.with { $0.sessionCount } == 2
        })
        let start = ContinuousClock.now
        try await disk.close()
        #expect(start.seconds < 3, "\(start.seconds) s; the proof would have waited for 5 s")
        #expect(try first.with { $0.sessionCount } == 0 && second.with { $0.sessionCount } == 0)
        try first.stop()
        try second.stop()
    }

    @Test func aPortalThatFailsDuringItsProofIsNoProof() async throws {
        let (first, second) = (try EmbeddedArray(tags: [1]), try EmbeddedArray(tags: [1]))
        let disk = try await WatchedDisk(
            over: first.portals + second.portals, timers: "silence-timeout: 2s, path-recovery-interval: 50ms",
            in: directory)
        #expect(try await eventually { try second.with { $0.sessionCount } == 2 })
        // All of its sessions end, and with them the one that the proof waits for.
        try first.setPortal(0, enabled: false)
        #expect(try await disk.first { if case .pathLost = $0 { true } else { false } } != nil)
        #expect(await disk.nexuses == [.unproven, .unproven])
        #expect(try await eventually { try second.with { $0.sessionCount } <= 1 })
        try first.setPortal(0, enabled: true)
        #expect(try await disk.provenNexuses(within: .seconds(20)) == [.single, .single])
        try await disk.close()
        try first.stop()
        try second.stop()
    }

    // MARK: Real tgtd

    @Test func portalsOfOneTgtdAreProven() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 3, in: directory)
        let disk = try await WatchedDisk(over: server.portals, of: server.targetName, lun: 1, in: directory)
        let start = ContinuousClock.now
        #expect(try await disk.provenNexuses() == [.shared, .shared, .shared])
        print("one tgtd, three portals: proven after \(start.seconds) s")
        #expect(try await eventually { try server.sessions().count == 3 })
        try await disk.close()
        #expect(try await eventually { try server.sessions().isEmpty })
    }

    @Test func portalsOfTwoTgtdAreNot() async throws {
        let (first, second) = try TgtServer.dualController(byteCount: 8 << 20, portalCount: 2, in: directory)
        let disk = try await WatchedDisk(
            over: first.portals + second.portals, of: first.targetName, lun: 1, in: directory)
        let start = ContinuousClock.now
        #expect(try await disk.provenNexuses() == [.shared, .shared, .shared, .shared])
        print("two tgtd of two portals: proven after \(start.seconds) s")
        let paths = await disk.manager.report().luns[0].paths
        for (index, other) in [1, 0, 3, 2].enumerated() {
            #expect(paths[index].nexusSharedWith == [paths[other].id])
        }
        try await disk.close()
    }

    /// A portal behind which every second connection reaches another process: no login through it ends what went before.
    @Test func aPortalThatDoesNotReinstateProvesNothing() async throws {
        let (first, second) = try TgtServer.dualController(byteCount: 8 << 20, portalCount: 1, in: directory)
        let third = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 1, in: directory)
        let link = try FaultyLink(to: first.portals[0], alternatingWith: second.portals[0])
        let disk = try await WatchedDisk(
            over: [link.portal, third.portals[0]], of: first.targetName, lun: 1,
            timers: "silence-timeout: 500ms, quiesce-time: 3s, path-recovery-interval: 50ms", in: directory)
        #expect(try await disk.provenNexuses() == [.notReinstated, .single])
        try await disk.write(0)
        link.hold(.toTarget)
        async let older: Void = disk.write(1)
        #expect(try await eventually { link.heldByteCount(.toTarget) > 4096 })
        link.reset()
        link.release()
        try await older
        let start = ContinuousClock.now
        try await disk.write(2)
        #expect(start.seconds > 2, "\(start.seconds) s: only the quiesce-time may end the wait")
        #expect(disk.events.contains(.fenceFailed(PathIndex(0), .reinstateNexus, .unsupported)), "\(disk.events)")
        #expect(disk.events.contains(.guardCleared(PathIndex(0), copies: 1, .quiesceTimePassed)), "\(disk.events)")
        #expect(try await disk.pattern() == 2)
        try await disk.close()
    }
}
