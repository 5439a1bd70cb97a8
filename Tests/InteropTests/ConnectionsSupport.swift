import Foundation
import MPIO
import Multipath
import Testing
import TestSupport

extension DiskSetup {
    /// LUN `lun` over sessions of several connections, each through a portal of its own.
    ///
    /// - Parameters:
    ///   - sessions: the portals of each session's connections.
    ///   - keys: more keys of each connection, the same in every session: `weight: 3`.
    ///   - targetKeys: more keys of the target, each a line of YAML: `iscsi: {error-recovery-level: 2}`.
    init(
        sessions: [[LoopbackPortal]], of target: String, lun: Int, connectionPolicy: String = "round-robin",
        keys: [String] = [], targetKeys: [String] = []
    ) {
        self.init()
        identity = "{target: \"\(target)\", lun: \(lun)}"
        for portals in sessions {
            var path = Path(target: target, portal: portals[0])
            path.connections = portals.enumerated().map { index, portal in
                "{address: \"\(portal)\"\(keys.indices.contains(index) ? ", \(keys[index])" : "")}"
            }
            paths.append(path)
        }
        self.targetKeys[target] = (["connection-policy: \(connectionPolicy)"] + targetKeys).joined(separator: "\n    ")
    }

    /// One session to a tgtd.
    init(
        session server: TgtServer, through portals: [LoopbackPortal]? = nil, policy: String = "round-robin", keys: [String] = []
    ) {
        self.init(
            sessions: [portals ?? server.portals], of: server.targetName, lun: 1, connectionPolicy: policy, keys: keys)
    }

    /// One session to an embedded target.
    init(
        session array: EmbeddedArray, through portals: [LoopbackPortal]? = nil, policy: String = "round-robin",
        keys: [String] = [], level: Int = 0, digests: Bool = false
    ) {
        self.init(
            sessions: [portals ?? array.portals], of: EmbeddedArray.name, lun: 0, connectionPolicy: policy, keys: keys,
            targetKeys: ["iscsi: {error-recovery-level: \(level)}"] + (digests ? ["digests: {header: crc32c, data: crc32c}"] : []))
    }
}

extension TgtServer {
    /// With `maxConnections` connections to a session, one LUN on a file, and four portals where not said otherwise.
    static func withConnections(
        _ maxConnections: Int = 4, portalCount: Int = 4, targetName: String = EmbeddedArray.name, in directory: TemporaryDirectory
    ) throws -> TgtServer {
        let unit = TgtConfiguration.LogicalUnit(
            backing: .file(path: directory.file("mcs.img"), byteCount: 64 << 20), scsiID: "beef0004", serial: "beef0004")
        return try TgtServer(
            TgtConfiguration(
                portals: LoopbackPortal.unused(count: portalCount), targetName: targetName, logicalUnits: [unit],
                parameters: [("MaxConnections", "\(maxConnections)")]))
    }

    /// SCSI Command PDUs of the only session so far, by connection ID.
    func commandsByConnection() throws -> [Int: UInt64] {
        let session = try sessions()[0].session
        let text = try administer(["--op", "stat", "--mode", "session", "--tid", "1", "--sid", "\(session)"])
        // sid cid rxdata_octets txdata_octets dataout_pdus datain_pdus cmd_pdus rsp_pdus
        var counts: [Int: UInt64] = [:]
        for line in text.split(separator: "\n") {
            let numbers = line.split(separator: " ").compactMap { UInt64($0) }
            if numbers.count == 8 { counts[Int(numbers[1])] = numbers[6] }
        }
        return counts
    }
}

extension EmbeddedArray {
    /// With one portal for each of `tags`, and as many connections to a session.
    static func withConnections(level: Int = 0, tags: [UInt16] = [1, 1, 1, 1]) throws -> EmbeddedArray {
        try EmbeddedArray(
            tags: tags,
            change: {
                $0.maximumConnectionsPerSession = tags.count
                $0.errorRecoveryLevel = level
                $0.defaultTime2Wait = 0
            })
    }

    /// Reads and writes that came through each portal.
    func commandCounts() throws -> [UInt64] {
        let indices = portals.indices
        return try with { target in
            indices.map {
                let counters = target.counters(portal: $0)
                return counters.reads + counters.writes
            }
        }
    }
}

extension MultipathDisk {
    /// Waits until so many connections of a path are logged in.
    func waitForConnections(_ count: Int, ofPath index: Int = 0, within limit: Duration = .seconds(10)) async throws -> Bool {
        try await eventually(within: limit) { try await paths[index].connections.count { $0.state == "logged in" } == count }
    }
}

/// Events of the process, as `mpio events` gets them.
func recentEvents(in directory: TemporaryDirectory) throws -> [EventRecord] {
    let client = try #require(ControlClient.discover(directories: [directory.file("run/mpio")], timeout: .seconds(2)).first)
    guard case .events(let events, _) = try client.request(.events(after: nil)) else { return [] }
    return events
}

/// The built `mpio`, which finds the disks that ``DiskSetup`` opened in this process.
@discardableResult
func mpio(
    in directory: TemporaryDirectory, _ arguments: String..., status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation
) async throws -> CommandResult {
    let program = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent(".build/debug/mpio").path
    let result = try await CommandRunner.run(
        program, arguments, environment: ["XDG_RUNTIME_DIR": directory.file("run"), "NO_COLOR": "1"], timeout: .seconds(30))
    #expect(
        result.exitStatus == status, "mpio \(arguments): \(result.end)\n\(result.standardOutput)\n\(result.standardError)",
        sourceLocation: sourceLocation)
    return result
}

/// In words, for the log of a test run.
func summary(_ pauses: [Duration]) -> String {
    let sorted = pauses.map(milliseconds).sorted()
    return String(format: "median %.1f ms, longest %.1f ms, of %d", sorted[sorted.count / 2], sorted[sorted.count - 1], sorted.count)
}
