import Foundation
import ISCSITarget
import MPIO
import Multipath
import Testing
import TestSupport

/// ErrorRecoveryLevel 1 and 2 over real sockets: what damage took is sent again within its connection, and nothing else
/// notices.
@Suite(.serialized)
struct ConnectionDigestTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("mcs-digests") }

    /// Verified load over two connections with digests; `damage` spoils something, again and again.
    private func load(
        level: Int, depth: Int, rounds: Int, damage: (EmbeddedArray, [FaultyLink], Int) async throws -> Void
    ) async throws -> (lost: [String], redriven: UInt64, longestPause: Duration) {
        let array = try EmbeddedArray.withConnections(level: level, tags: [1, 1])
        let links = try array.portals.map { try FaultyLink(to: $0) }
        var setup = DiskSetup(session: array, through: links.map(\.portal), level: level, digests: true)
        setup.timers["silence-timeout"] = "500ms"
        let result = try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(2))
            let load = VerifiedLoad(disk, .init(depth: depth, blockCount: 512))
            load.start()
            try await load.proceed(100)
            _ = load.takeLongestPause()
            for round in 0..<rounds {
                try await damage(array, links, round)
                try await load.proceed(40)
                if level == 0 { #expect(try await disk.waitForConnections(2)) }
            }
            let pause = load.takeLongestPause()
            try await load.stop()
            expectClean(load)
            try await load.verifyDisk()
            expectClean(load)
            #expect(try await disk.waitForConnections(2))
            let lost = try recentEvents(in: directory).filter { ["connection-lost", "path-lost"].contains($0.kind) }
            if level > 0 { #expect(links.map(\.acceptedCount) == [1, 1]) }
            return (lost.map(\.message), try await disk.redrivenCount, pause)
        }
        try array.stop()
        return result
    }

    private static let places = ["header", "data"]

    @Test(arguments: [1, 2], places) func whatTheTargetSendsDamaged(level: Int, place: String) async throws {
        let result = try await load(level: level, depth: 16, rounds: 40) { array, _, round in
            let fault = try FaultCommand(parsing: "digest-corruption=\(place):portal=\(round % 2)")
            _ = try array.with { try $0.setFault(fault) }
        }
        print("level \(level), 40 damaged \(place) digests of the target: longest pause \(result.longestPause)")
        #expect(result.lost.isEmpty && result.redriven == 0, "\(result)")
    }

    /// The last byte of a command's PDU: of its data's digest where it is a write, of its header's where it is a read.
    @Test(arguments: [1, 2]) func whatTheTargetGetsDamaged(level: Int) async throws {
        // Two at a time, so that a piece of the link is one PDU.
        let result = try await load(level: level, depth: 2, rounds: 24) { _, links, round in
            links[round % 2].corrupt(.toTarget)
        }
        print("level \(level), 24 damaged commands: longest pause \(result.longestPause)")
        #expect(result.lost.isEmpty && result.redriven == 0, "\(result)")
    }

    /// So that it is known that the damage above is none that nobody sees.
    @Test(arguments: places) func belowLevelOneItCostsTheConnection(place: String) async throws {
        let result = try await load(level: 0, depth: 16, rounds: 4) { array, _, round in
            let fault = try FaultCommand(parsing: "digest-corruption=\(place):portal=\(round % 2)")
            _ = try array.with { try $0.setFault(fault) }
        }
        #expect(result.lost.count == 4 && result.lost.allSatisfy { $0.contains("digest") }, "\(result.lost)")
    }
}
