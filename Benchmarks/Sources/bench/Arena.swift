import Foundation
import TestSupport

/// The targets, the bare responder, and what a contender has to be told of them.
final class Arena {
    let options: Options
    let portalCount: Int
    let directory: TemporaryDirectory
    /// Contenders tell the target's CPU time as well.
    var watchesTarget = false
    private let target: TargetKind
    private let responder: ChildProcess
    private let responderPortals: [LoopbackPortal]
    /// tgtd has to be told which digests it uses, so there is one for each choice, started when it is wanted.
    private var servers: [Digests: Server] = [:]

    /// The directory of this program, where its fellows are.
    static let programs: String = {
        let link = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "./bench"
        return (link as NSString).deletingLastPathComponent
    }()

    /// Target and clients on processors of their own, where there are two.
    static let isPinned = sysconf(Int32(_SC_NPROCESSORS_ONLN)) > 1
    static var targetProcessor: Int? { isPinned ? 0 : nil }
    static var clientProcessor: Int? { isPinned ? 1 : nil }
    static var pinning: String {
        isPinned ? "target on processor 0, clients on 1" : "one processor for target and clients"
    }

    /// - Parameter portalCount: the most sessions that a load will have.
    init(_ options: Options, target: TargetKind, portalCount: Int) throws {
        self.options = options
        self.target = target
        self.portalCount = portalCount
        directory = try TemporaryDirectory("bench")
        responderPortals = try LoopbackPortal.unused(count: portalCount)
        let pinned = try Self.targetProcessor.map { [try Tool.path("taskset"), "-c", "\($0)"] } ?? []
        let line = pinned + [Self.programs + "/tcp-floor-server"] + responderPortals.map(\.description)
        responder = try ChildProcess(executable: line[0], arguments: Array(line.dropFirst()))
        try responder.awaitListening(on: portalCount, name: "tcp-floor-server")
    }

    func server(_ digests: Digests) throws -> Server {
        // The embedded target takes whatever the initiator asks for.
        let key = target == .embedded ? Digests.none : digests
        if let server = servers[key] { return server }
        let server = try Server(
            target, portalCount: portalCount, digests: key, processor: Self.targetProcessor, mpio: options.mpioPath)
        servers[key] = server
        return server
    }

    /// All that there are, in the order of the table.
    func kinds(_ load: Load) -> [ContenderKind] {
        var kinds = ContenderKind.known
        if let mpio = options.mpioPath { kinds.append(.mpio(mpio, load)) }
        return kinds + options.extra.map { ContenderKind(name: $0.name, command: $0.command, digests: Digests.allCases) }
    }

    /// Ready to run; nil where it cannot do what the load asks for.
    func contender(_ kind: ContenderKind, _ load: Load) throws -> Contender? {
        guard kind.canDo(load) else { return nil }
        return Contender(name: kind.name, command: try fillIn(kind.command, load))
    }

    private func fillIn(_ command: String, _ load: Load) throws -> [String] {
        let server = try server(load.digests)
        var flags = [
            "--sessions", "\(load.sessionCount)", "--depth", "\(load.depth)", "--block-size", "\(load.blockByteCount)",
            "--write-percent", "\(load.writePercent)", "--seconds", "\(load.seconds)", "--ramp", "\(load.rampSeconds)",
        ]
        if watchesTarget { flags += ["--watch", "\(server.processIdentifier)"] }
        if load.isSequential { flags.append("--sequential") }
        if load.digests.header { flags.append("--header-digest") }
        let lists = [
            "{flags}": flags, "{urls}": (0..<load.sessionCount).map { server.url(portal: $0) },
            "{portals}": responderPortals.prefix(load.sessionCount).map(\.description),
        ]
        let words = [
            "{programs}": Self.programs, "{config}": try policyFile(server, load, isOneSession: false),
            "{mcs-config}": try policyFile(server, load, isOneSession: true), "{sessions}": "\(load.sessionCount)",
            "{depth}": "\(load.depth)", "{block-size}": "\(load.blockByteCount)",
            "{write-percent}": "\(load.writePercent)", "{seconds}": "\(load.seconds)", "{ramp}": "\(load.rampSeconds)",
        ]
        return command.split(separator: " ").flatMap { word -> [String] in
            if let list = lists[String(word)] { return list }
            return [words.reduce(String(word)) { $0.replacingOccurrences(of: $1.key, with: $1.value) }]
        }
    }

    /// A file with a session through each portal; or with one session that has a connection through each.
    private func policyFile(_ server: Server, _ load: Load, isOneSession: Bool) throws -> String {
        let addresses = server.portals.prefix(load.sessionCount).map { "{address: \"\($0)\"}" }
        let portals = isOneSession
            ? "      - connections: [\(addresses.joined(separator: ", "))]\n"
            : addresses.map { "      - \($0)\n" }.joined()
        func crc32c(_ isWanted: Bool) -> String { isWanted ? "crc32c" : "none" }
        let text = """
            initiator:
              name: iqn.2026-11.org.example:bench-client
            targets:
              - name: \(server.targetName)
                digests: {header: \(crc32c(load.digests.header)), data: \(crc32c(load.digests.data))}
                portals:
            \(portals)luns:
              - name: bench
                identity: {target: "\(server.targetName)", lun: 1}
                policy: round-robin
                switch-after: \(load.switchAfter)

            """
        let name = "\(load.sessionCount)-\(load.digests.rawValue)-\(load.switchAfter)\(isOneSession ? "-mcs" : "").yaml"
        let path = directory.file(name)
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        return path
    }
}
