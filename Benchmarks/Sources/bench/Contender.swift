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
    /// Of the target, where the contender watched it.
    var watchedCPUPerRequest: Double?
    var latency: Latency

    enum CodingKeys: String, CodingKey {
        case requests, errors, iops
        case cpuPerRequest = "cpu_us_per_request"
        case watchedCPUPerRequest = "watched_cpu_us_per_request"
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

/// How a contender is run, and what it can do.
struct ContenderKind {
    let name: String
    /// Words in braces are filled in, see ``Options/usage``.
    let command: String
    /// Runs only where it is named.
    var isOptional = false
    var digests: [Digests] = [.none]
    var mixes = true
    var writes = true
    /// It opens as many sessions as it is told, not one.
    var opensSessions = true
    /// The fewest seconds that it can be told to run.
    var leastSeconds = 0.01

    func canDo(_ load: Load) -> Bool {
        digests.contains(load.digests) && (writes || load.writePercent == 0)
            && (mixes || load.writePercent == 0 || load.writePercent == 100)
    }

    static let known: [ContenderKind] = {
        let all = Digests.allCases
        return [
            ContenderKind(
                name: "libiscsi", command: "{programs}/libiscsi-client {flags} {urls}", digests: [.none, .header]),
            ContenderKind(name: "mpio-queue", command: "{programs}/mpio-client {flags} {config}", digests: all),
            ContenderKind(
                name: "mpio-async", command: "{programs}/mpio-client {flags} --api async {config}", isOptional: true,
                digests: all),
            ContenderKind(
                name: "mpio-async-elsewhere", command: "{programs}/mpio-client {flags} --api async-elsewhere {config}",
                isOptional: true, digests: all),
            ContenderKind(name: "mpio-mcs", command: "{programs}/mpio-client {flags} {mcs-config}", digests: all),
            ContenderKind(
                name: "iscsi-perf", command: "{programs}/iscsi-perf-client {flags} {urls}", isOptional: true,
                writes: false, opensSessions: false, leastSeconds: 1),
            ContenderKind(
                name: "qemu-img", command: "{programs}/qemu-client {flags} {urls}", mixes: false, opensSessions: false),
            ContenderKind(name: "tcp-floor", command: "{programs}/tcp-floor-client {flags} {portals}"),
        ]
    }()

    /// The command `mpio bench`.
    static func mpio(_ path: String, _ load: Load) -> ContenderKind {
        var command = "\(path) bench bench --config {config} --depth {depth} --block-size {block-size}"
        command += " --time {seconds}s --json"
        if load.writePercent == 100 { command += " --write" }
        if load.isSequential { command += " --sequential" }
        return ContenderKind(name: "mpio", command: command, digests: Digests.allCases, mixes: false)
    }
}
