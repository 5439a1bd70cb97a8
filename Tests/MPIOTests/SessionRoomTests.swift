import AsyncIO
import Foundation
import TestSupport
import Testing

@testable import MPIO

/// What a reactor has room for: every connection that the configuration can have at once.
@Suite struct SessionRoomTests {
    /// A target with so many portals, and connections in each one's session.
    private func configuration(portals: [Int]) throws -> Configuration {
        let list = portals.enumerated().map { #"      - {address: "10.0.1.\#($0 + 1)", connections: \#($1)}"# }.joined(separator: "\n")
        return try Configuration(
            yaml: """
                targets:
                  - name: iqn.2026-11.test:room
                    portals:
                \(list)
                luns:
                  - name: a
                    identity: {target: "iqn.2026-11.test:room", lun: 0}

                """)
    }

    @Test func everyConnectionHasASocket() throws {
        // Each with a session that reinstates it; all of them once more for a proof, and one for its second login.
        #expect(SessionRoom.socketCount(of: try configuration(portals: [1, 1])) == 2 + 2 + 2 + 1)
        #expect(SessionRoom.socketCount(of: try configuration(portals: [16, 16, 16, 16])) == 64 + 4 + 64 + 16)
        #expect(SessionRoom.socketCount(of: try configuration(portals: [1, 8])) == 9 + 2 + 9 + 8)
        #expect(SessionRoom(for: try configuration(portals: [4]), spareSessionCount: -1).sessionCount == 1)
    }

    @Test func sparesAreForSessionsOfAnyTarget() throws {
        let room = SessionRoom(for: try configuration(portals: [2]), spareSessionCount: 3)
        #expect(room.sessionCount == 4)
        #expect(room.objection(to: try configuration(portals: [2, 2, 2, 2])) == nil)
        #expect(room.objection(to: try configuration(portals: [2, 2, 2, 2, 2]))?.contains("5 sessions are more than the 4") == true)
        #expect(room.objection(to: try configuration(portals: [16]))?.contains("more connections than") == true)
        // One session with more connections may take what others leave.
        #expect(room.objection(to: try configuration(portals: [3, 2])) == nil)
    }

    @Test func manySessionsOfManyConnectionsAllComeUp() async throws {
        let target = try TargetWithUnits(units: 1, portals: 4) { $0.maximumConnectionsPerSession = 16 }
        let yaml = target.yaml(units: [0]).replacingOccurrences(of: "    portals:\n", with: "    connections: 16\n    portals:\n")
        var options = target.options
        options.spareSessionCount = 0
        let manager = try await PathManager(configuration: Configuration(yaml: yaml), options: options)
        let disk = try await manager.open("a")
        #expect(try await eventually { try target.with { target in (0..<4).allSatisfy { target.connectionCount(portal: $0) == 16 } } })
        let buffer = IOBuffer(byteCount: TargetWithUnits.blockByteCount)
        try await disk.read(into: buffer, at: 0)
        try await manager.shutdown()
        try target.stop()
    }
}
