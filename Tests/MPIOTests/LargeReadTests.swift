import Foundation
import TestSupport
import Testing

@testable import MPIO

/// Reads of many segments over a real socket, where the loop waits for much of a PDU at once.
@Suite(.serialized, .timeLimit(.minutes(2))) struct LargeReadTests {
    private static let byteCount = 1 << 20

    /// One path through `portal`, which leads to the target's first one.
    private func manager(of target: TargetWithUnits, through portal: LoopbackPortal, digests: String) async throws -> PathManager {
        let text = target.yaml(units: [0])
            .replacingOccurrences(of: "    portals:", with: "    digests: {header: \(digests), data: \(digests)}\n    portals:")
            .replacingOccurrences(of: "\"\(target.portals[0])\"", with: "\"\(portal)\"")
        let file = try target.directory.file("large.yaml", contents: Array(text.utf8))
        return try await PathManager(configuration: Configuration(contentsOf: file), options: target.options)
    }

    private static func fill(_ disk: MultipathDisk) async throws {
        let buffer = IOBuffer(byteCount: byteCount)
        for piece in 0..<4 {
            let words = buffer.bytes.bindMemory(to: UInt64.self)
            for index in words.indices { words[index] = UInt64(piece) << 32 | UInt64(index) }
            try await disk.write(buffer, at: UInt64(piece * byteCount))
        }
    }

    /// Reads `rounds` times all of the disk, its four parts at once; the words that were not as written.
    private static func readAll(_ disk: MultipathDisk, rounds: Int) async throws -> Int {
        try await withThrowingTaskGroup(of: Int.self) { group in
            for piece in 0..<4 {
                group.addTask {
                    let buffer = IOBuffer(byteCount: byteCount)
                    var mismatches = 0
                    for _ in 0..<rounds {
                        memset(buffer.bytes.baseAddress!, 0xA5, byteCount)
                        try await disk.read(into: buffer, at: UInt64(piece * byteCount))
                        let words = buffer.bytes.bindMemory(to: UInt64.self)
                        for index in words.indices where words[index] != UInt64(piece) << 32 | UInt64(index) { mismatches += 1 }
                    }
                    return mismatches
                }
            }
            return try await group.reduce(0, +)
        }
    }

    @Test(arguments: ["none", "crc32c"])
    func largeReadsAreWhole(digests: String) async throws {
        let target = try TargetWithUnits(units: 1, portals: 1)
        let manager = try await manager(of: target, through: target.portals[0], digests: digests)
        let disk = try await manager.open(TargetWithUnits.lunName(0))
        try await Self.fill(disk)
        #expect(try await Self.readAll(disk, rounds: 10) == 0)
        try await manager.shutdown()
        try target.stop()
    }

    /// Whatever the threshold, what came is seen, and so is that no more comes.
    @Test func aPathThatStopsInTheMiddleOfADataInIsStalledAndGoesOn() async throws {
        let target = try TargetWithUnits(units: 1, portals: 1)
        let link = try FaultyLink(to: target.portals[0])
        let manager = try await manager(of: target, through: link.portal, digests: "crc32c")
        let disk = try await manager.open(TargetWithUnits.lunName(0))
        try await Self.fill(disk)
        let begin = link.byteCount(.fromTarget)
        async let mismatches = Self.readAll(disk, rounds: 8)
        #expect(try await eventually { link.byteCount(.fromTarget) > begin + 3 << 20 })
        link.hold(.fromTarget)
        #expect(try await eventually(within: .seconds(60)) { try await disk.paths.first?.state == .stalled })
        link.release()
        #expect(try await mismatches == 0)
        #expect(link.acceptedCount == 1, "the session was kept")
        #expect(try await eventually { try await disk.paths.first?.state == .activeOptimized })
        try await manager.shutdown()
        try target.stop()
    }
}
