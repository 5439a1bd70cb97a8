// How it grows: up to a thousand LUNs of four paths in one process, against the embedded target in another. Prints a table
// in Markdown.
import Foundation
import MPIO
import Measuring
import TestSupport

struct ScaleOptions {
    var lunCounts = [1, 10, 100, 1000]
    var pathCount = 4
    var depth = 64
    var seconds = 2.0
    var mpio = Place.programs + "/mpio"
    var isJSON = false

    static let usage = """
        usage: scale [options]
          --luns N,N            numbers of LUNs to open (1,10,100,1000)
          --paths N             sessions, which are paths of every LUN, 1 to 8 (4)
          --depth N             requests outstanding over all LUNs, 4 KiB random reads (64)
          --seconds S           that count, each time (2)
          --quick               half a second each time
          --mpio PATH           the mpio command, which serves the LUNs and is timed as mpio paths
          --json                one line of JSON instead of the table
        """
}

struct Misused: Error {
    let words: String
}

extension ScaleOptions {
    init(_ arguments: [String]) throws {
        var rest = arguments[...]
        while let option = rest.popFirst() {
            if option == "--help" || option == "-h" {
                print(Self.usage)
                exit(0)
            }
            if option == "--json" { isJSON = true; continue }
            if option == "--quick" { seconds = 0.5; continue }
            guard let value = rest.popFirst() else { throw Misused(words: "\(option) needs a value") }
            func number(_ range: ClosedRange<Int>) throws -> Int {
                guard let number = Int(value), range.contains(number) else {
                    throw Misused(words: "\(option): \(value) is not a number from \(range.lowerBound) to \(range.upperBound)")
                }
                return number
            }
            switch option {
            case "--luns":
                lunCounts = value.split(separator: ",").compactMap { Int($0) }.filter { (1...4096).contains($0) }
                guard !lunCounts.isEmpty else { throw Misused(words: "--luns: \(value) names no number from 1 to 4096") }
            case "--paths": pathCount = try number(1...8)
            case "--depth": depth = try number(1...1024)
            case "--seconds":
                guard let number = Double(value), number > 0, number <= 3600 else { throw Misused(words: "--seconds: \(value)?") }
                seconds = number
            case "--mpio": mpio = value
            default: throw Misused(words: "unknown option \(option)\n\(Self.usage)")
            }
        }
    }
}

enum Place {
    /// The directory of this program.
    static let programs: String = {
        let link = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "./scale"
        return (link as NSString).deletingLastPathComponent
    }()
    /// The target on the one, everything else on the other, where there are two.
    static let isPinned = sysconf(Int32(_SC_NPROCESSORS_ONLN)) > 1
}

/// One number of LUNs.
struct ScaleResult: Codable {
    var lunCount: Int
    var pathCount: Int
    var openSeconds: Double
    var openCPUSeconds: Double
    var residentByteCount: Int
    var residentAfterLoadByteCount: Int
    var targetByteCount: Int
    var iops: Double
    var cpuPerRequest: Double
    var pathsSeconds: Double
    var pathsJSONSeconds: Double
    var closeSeconds: Double
}

func seconds(_ body: () async throws -> Void) async rethrows -> Double {
    let began = ContinuousClock.now
    try await body()
    return (ContinuousClock.now - began) / .seconds(1)
}

func policyFile(_ options: ScaleOptions, _ portals: [LoopbackPortal], _ target: String, lunCount: Int) -> String {
    var text = "initiator:\n  name: iqn.2026-11.org.example:bench-client\ntargets:\n  - name: \(target)\n    portals:\n"
    for portal in portals { text += "      - {address: \"\(portal)\"}\n" }
    text += "luns:\n"
    for number in 0..<lunCount { text += "  - {name: lun-\(number), identity: {target: \"\(target)\", lun: \(number)}, policy: round-robin}\n" }
    return text
}

/// Serves so many null LUNs behind `portals`.
func startTarget(_ options: ScaleOptions, _ portals: [LoopbackPortal], _ name: String, lunCount: Int) throws -> ChildProcess {
    let pinned = Place.isPinned ? [try Tool.path("taskset"), "-c", "0"] : []
    let line = pinned + [options.mpio, "target", "--quiet", "--name", name] + portals.flatMap { ["--listen", "\($0)"] }
        + (0..<lunCount).flatMap { ["--lun", "\($0)=null,size=1G"] }
    let child = try ChildProcess(executable: line[0], arguments: Array(line.dropFirst()))
    let deadline = ContinuousClock.now + .seconds(30)
    while TCPTableEntry.sockets(of: child.identifier).filter(\.isListening).count < portals.count {
        guard child.isRunning, ContinuousClock.now < deadline else { throw Misused(words: "the target does not listen: \(line.prefix(4))") }
        usleep(5_000)
    }
    return child
}

func measure(_ options: ScaleOptions, lunCount: Int, _ directory: TemporaryDirectory) async throws -> ScaleResult {
    let portals = try LoopbackPortal.unused(count: options.pathCount)
    let name = "iqn.2026-11.org.example:scale"
    let target = try startTarget(options, portals, name, lunCount: lunCount)
    let file = try directory.file("\(lunCount).yaml", contents: Array(policyFile(options, portals, name, lunCount: lunCount).utf8))
    let runtime = directory.file("run")
    mkdir(runtime, 0o700)
    let configuration = try Configuration(contentsOf: file)
    var managerOptions = PathManager.Options()
    managerOptions.runtimeDirectory = runtime + "/mpio"
    let manager = try await PathManager(configuration: configuration, options: managerOptions)
    let before = ProcessStat.current.residentByteCount
    let cpuBefore = cpu_seconds()
    var disks: [MultipathDisk] = []
    let openSeconds = try await seconds {
        for number in 0..<lunCount { disks.append(try await manager.open("lun-\(number)")) }
        try await awaitPaths(manager, count: lunCount * options.pathCount)
    }
    let openCPU = cpu_seconds() - cpuBefore
    let resident = ProcessStat.current.residentByteCount - before
    let load = SpreadLoad(disks, depth: options.depth, seconds: options.seconds)
    let outcome = await load.run()
    let after = ProcessStat.current.residentByteCount - before
    let environment = ["XDG_RUNTIME_DIR": runtime]
    func command(_ arguments: [String]) async throws -> Double {
        var best = Double.infinity
        for _ in 0..<3 {
            best = min(best, try await seconds {
                let result = try await CommandRunner.require(options.mpio, arguments + ["--config", file], environment: environment, timeout: .seconds(60))
                guard result.standardOutput.contains("lun-\(lunCount - 1)") else { throw Misused(words: "mpio paths does not show the last LUN:\n\(result.standardError)") }
            })
        }
        return best
    }
    let paths = try await command(["paths"])
    let json = try await command(["paths", "--json"])
    let targetBytes = ProcessStat(target.identifier)?.residentByteCount ?? 0
    disks = []
    let close = try await seconds { try await manager.shutdown() }
    return ScaleResult(
        lunCount: lunCount, pathCount: options.pathCount, openSeconds: openSeconds, openCPUSeconds: openCPU,
        residentByteCount: resident, residentAfterLoadByteCount: after, targetByteCount: targetBytes, iops: outcome.iops,
        cpuPerRequest: outcome.cpuPerRequest, pathsSeconds: paths, pathsJSONSeconds: json, closeSeconds: close)
}

/// Returns once so many paths are usable.
func awaitPaths(_ manager: PathManager, count: Int) async throws {
    let deadline = ContinuousClock.now + .seconds(120)
    while ContinuousClock.now < deadline {
        let report = await manager.report()
        let usable = report.luns.reduce(0) { $0 + $1.paths.count { $0.state == .activeOptimized } }
        if usable == count { return }
        try await Task.sleep(for: .milliseconds(20))
    }
    throw Misused(words: "not all paths are usable after two minutes")
}

func table(_ results: [ScaleResult]) -> String {
    func text(_ format: String, _ value: Double) -> String { String(format: format, value) }
    func kilobytes(_ bytes: Int, _ count: Int) -> String { text("%.0f", Double(bytes) / 1024 / Double(count)) }
    var lines = [
        "| LUNs × paths | CPU µs per request | thousand requests/s | open all, s | CPU of it, s | KiB per LUN (with its paths), open | after load | target, MiB | `mpio paths`, s | `--json`, s | close, s |",
        "|" + String(repeating: "---|", count: 11),
    ]
    for result in results {
        let cells = [
            "\(result.lunCount) × \(result.pathCount)", text("%.2f", result.cpuPerRequest), text("%.0f", result.iops / 1000),
            text("%.2f", result.openSeconds), text("%.2f", result.openCPUSeconds),
            kilobytes(result.residentByteCount, result.lunCount), kilobytes(result.residentAfterLoadByteCount, result.lunCount),
            text("%.0f", Double(result.targetByteCount) / 1_048_576), text("%.2f", result.pathsSeconds),
            text("%.2f", result.pathsJSONSeconds), text("%.2f", result.closeSeconds),
        ]
        lines.append("| " + cells.joined(separator: " | ") + " |")
    }
    return lines.joined(separator: "\n")
}

func run() async throws {
    let options = try ScaleOptions(Array(CommandLine.arguments.dropFirst()))
    let directory = try TemporaryDirectory("scale")
    // Before there is any other thread but those of the pool, which has none yet that works.
    if Place.isPinned { _ = run_on_processor(1) }
    var results: [ScaleResult] = []
    for count in options.lunCounts { results.append(try await measure(options, lunCount: count, directory)) }
    if options.isJSON {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        print(String(decoding: try encoder.encode(results), as: UTF8.self))
    } else {
        print(table(results))
    }
}

do {
    try await run()
} catch let error as Misused {
    FileHandle.standardError.write(Data("scale: \(error.words)\n".utf8))
    exit(64)
} catch {
    FileHandle.standardError.write(Data("scale: \(error)\n".utf8))
    exit(1)
}
