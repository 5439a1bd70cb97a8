import Foundation
import TestSupport

/// What a contender prints: the keys of `mpio bench --json` that every one of them has.
struct Measurement: Codable {
    struct Latency: Codable {
        var p50: Double
        var p99: Double
    }

    var requests: Double
    var errors: Double
    var iops: Double
    var cpuPerRequest: Double
    var latency: Latency

    enum CodingKeys: String, CodingKey {
        case requests, errors, iops
        case cpuPerRequest = "cpu_us_per_request"
        case latency = "latency_us"
    }
}

/// A program that asks for blocks as fast as it can and says what that cost it.
struct Contender {
    let name: String
    /// Program and arguments, ready to run.
    let command: [String]

    enum Failure: Error, CustomStringConvertible {
        case failed(name: String, how: String, output: String)
        case notJSON(name: String, output: String)
        case requestsFailed(name: String, count: Int)
        case nothingDone(name: String)

        var description: String {
            switch self {
            case .failed(let name, let how, let output): "\(name) failed (\(how))\n\(output)"
            case .notJSON(let name, let output): "\(name) printed no JSON with the keys that count:\n\(output)"
            case .requestsFailed(let name, let count): "\(name): \(count) requests failed; its numbers mean nothing"
            case .nothingDone(let name): "\(name) finished no request"
            }
        }
    }

    /// Runs it once on `processor` (nil: wherever).
    func measure(processor: Int?, timeout: Duration) throws -> Measurement {
        let pinned = processor.map { ["taskset", "-c", "\($0)"] } ?? []
        let line = pinned + command
        let result = try CommandRunner.runBlocking(line[0], Array(line.dropFirst()), timeout: timeout)
        guard result.succeeded else {
            throw Failure.failed(
                name: name, how: "\(result.end)", output: result.standardOutput + result.standardError)
        }
        // In one line, or in several as `mpio bench --json` prints it.
        guard let start = result.standardOutput.firstIndex(of: "{"),
            let measurement = try? JSONDecoder().decode(Measurement.self, from: Data(result.standardOutput[start...].utf8))
        else { throw Failure.notJSON(name: name, output: result.standardOutput + result.standardError) }
        guard measurement.errors == 0 else {
            throw Failure.requestsFailed(name: name, count: Int(measurement.errors))
        }
        guard measurement.requests > 0 else { throw Failure.nothingDone(name: name) }
        return measurement
    }
}

/// The target, the bare responder, and what a contender has to be told of them.
struct Arena {
    let target: TgtServer
    let responder: ChildProcess
    let responderPortals: [LoopbackPortal]
    let directory: TemporaryDirectory
    let options: Options

    /// The directory of this program, where its fellows are.
    static let programs: String = {
        let link = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "./bench"
        return (link as NSString).deletingLastPathComponent
    }()

    /// Target and clients on processors of their own, where there are two.
    static let isPinned = sysconf(Int32(_SC_NPROCESSORS_ONLN)) > 1
    static var targetProcessor: Int? { isPinned ? 0 : nil }
    static var clientProcessor: Int? { isPinned ? 1 : nil }

    init(_ options: Options) throws {
        self.options = options
        directory = try TemporaryDirectory("bench")
        var configuration = TgtConfiguration(
            portals: try LoopbackPortal.unused(count: options.sessionCount),
            targetName: "iqn.2026-11.org.example:bench",
            logicalUnits: [.init(backing: .null, scsiID: "bec40001", serial: "bec40001")])
        configuration.parameters = [
            ("MaxRecvDataSegmentLength", "262144"), ("MaxXmitDataSegmentLength", "262144"),
            ("MaxBurstLength", "262144"), ("FirstBurstLength", "262144"), ("InitialR2T", "No"),
            ("ImmediateData", "Yes"), ("MaxConnections", "\(options.sessionCount)"),
        ]
        configuration.processor = Self.targetProcessor
        target = try TgtServer(configuration)

        responderPortals = try LoopbackPortal.unused(count: options.sessionCount)
        let pinned = try Self.targetProcessor.map { [try Tool.path("taskset"), "-c", "\($0)"] } ?? []
        let line = pinned + [Self.programs + "/tcp-floor-server"] + responderPortals.map(\.description)
        responder = try ChildProcess(executable: line[0], arguments: Array(line.dropFirst()))
        try awaitResponder()
        try Data(policyFile(portals: sessions).utf8).write(to: URL(fileURLWithPath: configurationPath))
        try Data(policyFile(portals: connections).utf8).write(to: URL(fileURLWithPath: connectionsPath))
    }

    /// The contenders in the order of the table.
    func contenders() -> [Contender] {
        var templates = [
            (name: "libiscsi", command: Self.programs + "/libiscsi-client {flags} {urls}"),
            (name: "mpio-queue", command: Self.programs + "/mpio-client {flags} {config}"),
            (name: "mpio-mcs", command: Self.programs + "/mpio-client {flags} {mcs-config}"),
            (name: "qemu-img", command: Self.programs + "/qemu-client {flags} {urls}"),
            (name: "tcp-floor", command: Self.programs + "/tcp-floor-client {flags} {portals}"),
        ]
        let beside = Self.programs + "/mpio"
        if let mpio = options.mpio ?? (FileManager.default.isExecutableFile(atPath: beside) ? beside : nil) {
            var command = "\(mpio) bench bench --config {config} --depth {depth} --block-size {block-size}"
            command += " --time {seconds}s --json"
            if options.writePercent == 100 { command += " --write" }
            if options.isSequential { command += " --sequential" }
            templates.append((name: "mpio", command: command))
        }
        templates += options.extra
        return templates.filter { options.only.isEmpty || options.only.contains($0.name) || $0.name == options.baseline }
            .map { Contender(name: $0.name, command: fillIn($0.command)) }
    }

    private func fillIn(_ command: String) -> [String] {
        let flags = [
            "--sessions", "\(options.sessionCount)", "--depth", "\(options.depth)", "--block-size",
            "\(options.blockByteCount)", "--write-percent", "\(options.writePercent)", "--seconds",
            "\(options.seconds)", "--ramp", "\(options.rampSeconds)",
        ]
        let lists = [
            "{flags}": flags + (options.isSequential ? ["--sequential"] : []),
            "{urls}": target.portals.indices.map { target.url(portal: $0) },
            "{portals}": responderPortals.map(\.description),
        ]
        let words = [
            "{config}": configurationPath, "{mcs-config}": connectionsPath, "{sessions}": "\(options.sessionCount)", "{depth}": "\(options.depth)",
            "{block-size}": "\(options.blockByteCount)", "{write-percent}": "\(options.writePercent)",
            "{seconds}": "\(options.seconds)", "{ramp}": "\(options.rampSeconds)",
        ]
        return command.split(separator: " ").flatMap { word -> [String] in
            if let list = lists[String(word)] { return list }
            return [words.reduce(String(word)) { $0.replacingOccurrences(of: $1.key, with: $1.value) }]
        }
    }

    private var configurationPath: String { directory.file("mpio.yaml") }

    private var connectionsPath: String { directory.file("mpio-mcs.yaml") }

    /// A session through each portal.
    private var sessions: String { target.portals.map { "      - {address: \"\($0)\"}\n" }.joined() }

    /// One session with a connection through each portal.
    private var connections: String {
        let list = target.portals.map { "{address: \"\($0)\"}" }.joined(separator: ", ")
        return "      - connections: [\(list)]\n"
    }

    private func policyFile(portals: String) -> String {
        """
        initiator:
          name: iqn.2026-11.org.example:bench-client
        targets:
          - name: \(target.targetName)
            portals:
        \(portals)luns:
          - name: bench
            identity: {target: "\(target.targetName)", lun: 1}
            policy: round-robin

        """
    }

    private func awaitResponder() throws {
        let deadline = ContinuousClock.now + .seconds(5)
        while ContinuousClock.now < deadline, responder.isRunning {
            let listening = TCPTableEntry.sockets(of: responder.identifier).filter(\.isListening)
            if listening.count == responderPortals.count { return }
            usleep(2_000)
        }
        throw Contender.Failure.failed(name: "tcp-floor-server", how: "does not listen", output: "")
    }
}
