// Our numbers beside others', as ratios of runs that took turns on one machine.
import Foundation
import TestSupport

func isExecutable(_ path: String) -> Bool { FileManager.default.isExecutableFile(atPath: path) }

struct LimitExceeded: Error, CustomStringConvertible {
    let description: String
}

/// One load, all contenders that can do it.
func runLoad(_ options: Options) throws {
    let (load, target) = (options.load, options.target ?? .tgtdNull)
    let arena = try Arena(options, target: target, portalCount: load.sessionCount)
    let wanted = arena.kinds(load).filter {
        options.only.isEmpty && !$0.isOptional || options.only.contains($0.name) || $0.name == options.baseline
    }
    let contenders = try wanted.compactMap { try arena.contender($0, load) }
    guard contenders.contains(where: { $0.name == options.baseline }) else {
        throw UsageError.badValue(
            option: "--baseline", value: options.baseline, expected: "one of the contenders that can do this load")
    }
    let count = options.timing(.load).roundCount
    let rounds = try Rounds(contenders, load, count: count) { ProgressLine.show("round \($0) of \(count)") }
    ProgressLine.end()
    let rows = contenders.map { Row($0.name, rounds[$0.name], baseline: rounds[options.baseline]) }
    if options.isJSON {
        try printJSON(rows)
    } else {
        print("\(load.words); \(target.words); medians of \(count) rounds of \(load.seconds) s; \(Arena.pinning)")
        print(Row.table(rows, baseline: options.baseline))
        let left = wanted.map(\.name).filter { name in !contenders.contains { $0.name == name } }
        if !left.isEmpty { print("left out, for they cannot do that: \(left.joined(separator: ", "))") }
    }
    try check(rows, options.limits)
}

func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    print(String(decoding: try encoder.encode(value), as: UTF8.self))
}

func check(_ rows: [Row], _ limits: [(name: String, ratio: Double)]) throws {
    for limit in limits {
        guard let row = rows.first(where: { $0.name == limit.name }) else {
            throw UsageError.badValue(option: "--limit", value: limit.name, expected: "a contender that runs; see --only")
        }
        guard row.cpuRatio.median <= limit.ratio else {
            throw LimitExceeded(
                description: String(format: "\(row.name) costs %.3f of the baseline's CPU, more than %.3f", row.cpuRatio.median, limit.ratio))
        }
    }
}

func runSweep(_ options: Options) throws {
    for target in options.target.map({ [$0] }) ?? [.tgtdNull, .embedded] {
        try Sweep(options, target: target).write(to: options.outputDirectory)
        print("\(options.outputDirectory)/performance-\(target.rawValue).json, and three plots beside it")
    }
}

func runServers(_ options: Options) throws {
    let comparison = try ServerComparison(options)
    if options.isJSON { try printJSON(comparison) } else { print(comparison.markdown) }
}

/// Becomes another program of this package.
func become(_ program: String, _ arguments: [String]) throws {
    let path = Arena.programs + "/" + program
    var pointers = ([path] + arguments).map { strdup($0) } + [nil]
    execv(path, &pointers)
    throw MissingProgram(name: program)
}

func run(_ options: Options) throws {
    if options.isUrgent { Priority.raise() }
    switch options.mode {
    case .load: try runLoad(options)
    case .sweep: try runSweep(options)
    case .servers: try runServers(options)
    case .all: try Report(options).write(to: options.outputDirectory)
    case .redraw(let file):
        let sweep = try JSONDecoder().decode(Sweep.self, from: Data(contentsOf: URL(fileURLWithPath: file)))
        try sweep.write(to: (file as NSString).deletingLastPathComponent)
    case .program(let name, let arguments): try become(name, arguments)
    }
}

do {
    try run(Options(Array(CommandLine.arguments.dropFirst())))
} catch UsageError.helpWanted {
    print(Options.usage)
} catch let error as UsageError {
    FileHandle.standardError.write(Data("bench: \(error)\n".utf8))
    exit(64)
} catch {
    FileHandle.standardError.write(Data("bench: \(error)\n".utf8))
    exit(1)
}
