import Foundation
import Testing
import TestSupport

/// The network that fails on command, between QEMU and a real tgtd.
@Suite(.serialized)
struct FaultyLinkTests {
    let directory: TemporaryDirectory
    let server: TgtServer
    let link: FaultyLink
    let disk: QemuIO

    init() throws {
        directory = try TemporaryDirectory("link")
        server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 1, in: directory)
        link = try FaultyLink(to: server.portals[0])
        disk = QemuIO("iscsi://\(link.portal)/\(server.targetName)/1")
    }

    @Test func relaysBothWaysAndCounts() async throws {
        try await disk.write(pattern: 0x11, at: 0, byteCount: 1 << 20)
        try await disk.verify(pattern: 0x11, at: 0, byteCount: 1 << 20)
        #expect(link.byteCount(.toTarget) > 1 << 20)
        #expect(link.byteCount(.fromTarget) > 1 << 20)
        // One session a program: an orderly end reaches the target.
        #expect(link.acceptedCount == 2)
        #expect(try await eventually { try link.connectionCount == 0 && server.connections().isEmpty })
    }

    @Test func refusesWhileItIsCut() async throws {
        link.cut()
        #expect(link.portal.isFree)
        await #expect(throws: CommandFailure.self) { try await disk.verify(pattern: 0, at: 0, byteCount: 512) }
        try link.restore()
        try await disk.verify(pattern: 0, at: 0, byteCount: 512)
    }

    @Test func anAnswerThatIsHeldArrivesOnceItIsReleased() async throws {
        link.hold(.fromTarget)
        async let answered: Void = disk.verify(pattern: 0, at: 0, byteCount: 512)
        #expect(try await eventually { link.heldByteCount(.fromTarget) > 0 })
        link.release()
        try await answered
        #expect(link.heldByteCount(.fromTarget) == 0)
    }

    /// The late write that the stale-write guard is there for: sent, held by the network, its sender gone, executed
    /// afterwards over newer data.
    @Test func aHeldWriteLandsAfterItsSenderIsGone() async throws {
        let initiator = try ChildProcess(
            executable: Tool.path("qemu-io"),
            arguments: ["-f", "raw", "-c", "read 0 1M", "-c", "sleep 3000", "-c", "write -P 1 0 4k", disk.location])
        // The read is through, and with it all that comes before: the write is next.
        #expect(try await eventually { link.byteCount(.fromTarget) > 1 << 20 })
        link.hold(.toTarget)
        #expect(try await eventually { link.heldByteCount(.toTarget) >= 4096 })
        initiator.killAndWait()
        let direct = QemuIO(server.url())
        try await direct.write(pattern: 2, at: 0, byteCount: 4096)
        try await direct.verify(pattern: 2, at: 0, byteCount: 4096)
        link.release()
        #expect(try await eventually { (try? await direct.verify(pattern: 1, at: 0, byteCount: 4096)) != nil })
    }

    @Test func resetEndsEveryConnectionAtBothEnds() async throws {
        let initiator = try ChildProcess(
            executable: Tool.path("qemu-io"), arguments: ["-f", "raw", "-c", "sleep 20000", disk.location])
        #expect(try await eventually { try server.sessions().count == 1 })
        let first = try #require(try server.connections()[server.portals[0]]?.first)
        link.reset()
        // QEMU logs in again at once: it is the old connection that must be gone.
        #expect(try await eventually { try server.connections()[server.portals[0]]?.contains(first) != true })
        #expect(try await eventually { link.acceptedCount >= 2 })
        initiator.killAndWait()
        try await disk.verify(pattern: 0, at: 0, byteCount: 512)
    }

    @Test func aFlippedBitIsSeenWhereNoDigestGuards() async throws {
        try await QemuIO(server.url()).write(pattern: 0xff, at: 0, byteCount: 1 << 20)
        async let reading = CommandRunner.run(
            "qemu-io",
            ["-f", "raw", "-c", "read -P 0xff 0 1M", "-c", "sleep 1000", "-c", "read -P 0xff 0 64k", disk.location])
        #expect(try await eventually { link.byteCount(.fromTarget) > 1 << 20 })
        // Several: a piece may be a header, whose last byte QEMU does not look at.
        link.corrupt(.fromTarget, pieces: 8)
        let output = try await reading.standardOutput
        #expect(output.contains("Pattern verification failed at offset 0, 65536 bytes"))
        #expect(!output.contains("1048576 bytes\nPattern"))
    }
}
