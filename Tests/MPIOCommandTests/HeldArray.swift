import Foundation
import MPIO
import TestSupport
import Testing

@testable import MPIOCommand

/// Targets that lead to one unit, each with a portal, and a policy file; `mpio` commands run in its folder.
final class HeldArray {
    static let identity = "naa.6001405abcdef01234567890abcdef01"
    let folder = Folder()
    let target: ServedTarget
    private(set) var holder: ChildProcess?

    var portals: [String] { target.portals.map(\.description) }

    init(portalCount: Int = 3, used: Int = 2) throws {
        target = try ServedTarget(
            portalCount: portalCount, luns: ["0=memory,size=16M,identity=\(Self.identity)", "1=null,size=16M"], in: folder)
        try write(policy(used: used))
    }

    func policy(used: Int, lun: String = "", more: String = "") -> String {
        """
        initiator: {name: iqn.2026-11.org.example:host-\(getpid())}
        targets:
          - name: \(ServedTarget.name)
            portals:                     # both switches
        \(portals.prefix(used).map { "      - \"\($0)\"   # one" }.joined(separator: "\n"))
        luns:
          - name: vm-store   # machines
            identity: {target: "\(ServedTarget.name)", lun: 0}
        \(lun)\(more)
        """
    }

    func write(_ text: String) throws { try folder.write(text, to: "mpio.yaml") }
    func read() throws -> String { try String(contentsOfFile: folder.path + "/mpio.yaml", encoding: .utf8) }

    func run(_ arguments: String...) async throws -> CommandResult {
        try await CommandRunner.run(
            Mpio.binary, arguments, environment: ["XDG_RUNTIME_DIR": folder.path, "HOME": folder.path, "MPIO_CONFIG": folder.path + "/mpio.yaml"])
    }

    /// Starts `mpio hold` and waits until it holds the LUN.
    func hold(_ arguments: [String] = [], environment: [String: String] = [:]) async throws {
        let file = folder.path + "/mpio.yaml"
        holder = try ChildProcess(
            executable: Mpio.binary, arguments: ["hold", "--config", file] + arguments,
            environment: ["XDG_RUNTIME_DIR": folder.path].merging(environment) { $1 },
            standardOutput: .file(folder.path + "/hold.out"), standardError: .file(folder.path + "/hold.err"))
        try #require(try await eventually(within: .seconds(60)) { try await self.run("policy", "vm-store").succeeded }, "\(log)")
    }

    var log: String { (try? String(contentsOfFile: folder.path + "/hold.err", encoding: .utf8)) ?? "" }

    func paths() async throws -> [String] {
        let result = try await run("paths", "--json", "vm-store")
        return try JSONDecoder().decode(PathsReport.self, from: Data(result.standardOutputBytes)).luns[0].paths.map(\.id)
    }

    func events() async throws -> [EventRecord] {
        try await run("events", "--json").standardOutput.split(separator: "\n").map {
            try JSONDecoder().decode(EventRecord.self, from: Data($0.utf8))
        }
    }
}
