import Foundation
import MPIO
import TestSupport

/// A policy file with one LUN named `disk`, made of the parts that a test varies.
struct DiskSetup {
    /// One session, and the path of the LUN that uses it.
    struct Path {
        var target: String
        var portal: LoopbackPortal
        /// Tells the target's side which path a session is.
        var source: String?
        /// More keys of the path: `role: standby`, `weight: 3`, `lun: 2`.
        var keys: String = ""
        /// The connections of the session where there are several, the portal's own included, as the policy file
        /// has them: `{address: "…", weight: 3}`.
        var connections: [String] = []
    }

    var paths: [Path] = []
    /// Files or devices that are paths as well.
    var devices: [String] = []
    /// Nil: the paths alone say it.
    var identity: String?
    var policy = "round-robin"
    /// More keys of a target, by its name: `digests: {…}`, `chap: {…}`.
    var targetKeys: [String: String] = [:]
    /// Short enough for a test to see a path come back, and never held out for failing often.
    var timers = [
        "path-recovery-interval": "50ms", "path-recovery-interval-maximum": "200ms", "login-timeout": "2s",
    ]
    var lunKeys = "marginal-paths: {loss-count: 1000}"
    var initiatorName = "iqn.2026-11.test:interop"

    /// LUN `lun` over all portals of one server, each from an address of its own.
    init(_ servers: TgtServer..., lun: Int = 1, policy: String = "round-robin") {
        self.init(servers, lun: lun, policy: policy)
    }

    init(_ servers: [TgtServer], lun: Int = 1, policy: String = "round-robin") {
        for server in servers {
            for portal in server.portals {
                paths.append(
                    Path(target: server.targetName, portal: portal, source: Self.source(number: paths.count, for: portal)))
            }
        }
        identity = servers.first.map { "{target: \"\($0.targetName)\", lun: \(lun)}" }
        self.policy = policy
    }

    /// An address in the portal's network that no portal has.
    static func source(number: Int, for portal: LoopbackPortal) -> String? {
        guard !portal.isIPv6 else { return nil }
        return portal.address.split(separator: ".").prefix(3).joined(separator: ".") + ".\(201 + number)"
    }

    var yaml: String {
        var lines = ["initiator: {name: \"\(initiatorName)\"}"]
        var targets: [String] = []
        for path in paths where !targets.contains(path.target) { targets.append(path.target) }
        if !targets.isEmpty { lines.append("targets:") }
        for target in targets {
            lines.append("  - name: \"\(target)\"")
            if let keys = targetKeys[target] { lines.append("    \(keys)") }
            lines.append("    portals:")
            for path in paths where path.target == target {
                guard path.connections.isEmpty else {
                    lines.append("      - connections: [\(path.connections.joined(separator: ", "))]")
                    continue
                }
                let source = path.source.map { ", from: \($0)" } ?? ""
                lines.append("      - {address: \"\(path.portal)\"\(source)}")
            }
        }
        lines.append("luns:")
        lines.append("  - name: disk")
        if let identity { lines.append("    identity: \(identity)") }
        lines.append("    policy: \(policy)")
        lines.append("    timers: {\(timers.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: ", "))}")
        if !lunKeys.isEmpty { lines.append("    \(lunKeys)") }
        lines.append("    paths:")
        for path in paths {
            let source = path.source.map { ", from: \($0)" } ?? ""
            let keys = path.keys.isEmpty ? "" : ", \(path.keys)"
            lines.append("      - {portal: \"\(path.portal)\", target: \"\(path.target)\"\(source)\(keys)}")
        }
        for device in devices { lines.append("      - {device: \"\(device)\"}") }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Opens the disk for `body`, and shuts down whatever comes of it. `folder` is where secret files are; locks and
    /// sockets go there as well.
    func withDisk<Value>(
        in folder: TemporaryDirectory, _ body: (MultipathDisk) async throws -> Value
    ) async throws -> Value {
        let manager = try await manager(in: folder)
        do {
            let value = try await body(try await manager.open("disk"))
            try await manager.shutdown()
            return value
        } catch {
            try? await manager.shutdown()
            throw error
        }
    }

    func manager(in folder: TemporaryDirectory) async throws -> PathManager {
        var options = PathManager.Options()
        // As `mpio` looks for it where XDG_RUNTIME_DIR is `run`.
        try FileManager.default.createDirectory(atPath: folder.file("run"), withIntermediateDirectories: true)
        options.runtimeDirectory = folder.file("run/mpio")
        let file = try folder.file("mpio.yaml", contents: Array(yaml.utf8))
        return try await PathManager(configuration: Configuration(contentsOf: file), options: options)
    }
}

extension TgtServer {
    /// `count` processes with one portal each, that export one file under one identity.
    static func controllers(_ count: Int, byteCount: UInt64 = 64 << 20, in directory: TemporaryDirectory) throws -> [TgtServer] {
        try (0..<count).map { _ in try withFile(byteCount: byteCount, portalCount: 1, in: directory) }
    }

    /// The file behind the only LUN.
    var backingFile: String {
        guard case .file(let path, _, _) = configuration.logicalUnits[0].backing else {
            preconditionFailure("the unit has no file")
        }
        return path
    }

    /// Commands of all sessions since they logged in.
    func commandCount(lun: Int = 1) throws -> UInt64 {
        try statistics().filter { $0.lun == lun }.reduce(0) { $0 + $1.readCommandCount + $1.writeCommandCount }
    }

    func writeCommandCount(lun: Int = 1) throws -> UInt64 {
        try statistics().filter { $0.lun == lun }.reduce(0) { $0 + $1.writeCommandCount }
    }
}

extension MultipathDisk {
    /// Requests that each path was given so far, in configured order.
    func requestCounts() async throws -> [UInt64] { try await paths.map(\.requests) }

    /// Waits until the paths are in these states.
    func waitForStates(_ states: [PathState], within limit: Duration = .seconds(40)) async throws -> Bool {
        try await eventually(within: limit) { try await paths.map(\.state) == states }
    }

    func waitForPath(_ index: Int, _ state: PathState, within limit: Duration = .seconds(40)) async throws -> Bool {
        try await eventually(within: limit) { try await paths[index].state == state }
    }
}

func differences(_ after: [UInt64], _ before: [UInt64]) -> [UInt64] { zip(after, before).map { $0 - $1 } }

func milliseconds(_ duration: Duration) -> Double { duration / .milliseconds(1) }
