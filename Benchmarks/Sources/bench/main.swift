// Our numbers beside others', as ratios of runs that took turns on one machine.
import Foundation

struct Row: Codable {
    struct Spread: Codable {
        var median: Double
        var least: Double
        var most: Double
    }

    var name: String
    var iops: Double
    var cpu: Double
    var p50: Double
    var p99: Double
    var iopsRatio: Spread
    var cpuRatio: Spread

    enum CodingKeys: String, CodingKey {
        case name, iops, p50, p99
        case cpu = "cpu_us_per_request"
        case iopsRatio = "iops_ratio"
        case cpuRatio = "cpu_ratio"
    }
}

func spread(_ values: [Double]) -> Row.Spread {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    let median = sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    return Row.Spread(median: median, least: sorted[0], most: sorted[sorted.count - 1])
}

func row(_ name: String, _ own: [Measurement], baseline: [Measurement]) -> Row {
    let pairs = zip(own, baseline)
    return Row(
        name: name, iops: spread(own.map(\.iops)).median, cpu: spread(own.map(\.cpuPerRequest)).median,
        p50: spread(own.map(\.latency.p50)).median, p99: spread(own.map(\.latency.p99)).median,
        iopsRatio: spread(pairs.map { $0.iops / $1.iops }),
        cpuRatio: spread(pairs.map { $0.cpuPerRequest / $1.cpuPerRequest }))
}

func table(_ rows: [Row], baseline: String) -> String {
    func cell(_ value: Double, _ digits: Int, _ width: Int) -> String {
        let text = String(format: "%.\(digits)f", value)
        return String(repeating: " ", count: max(0, width - text.count)) + text
    }
    func ratio(_ spread: Row.Spread) -> String {
        "\(cell(spread.median, 3, 8)) (\(cell(spread.least, 3, 5))…\(cell(spread.most, 3, 5)))"
    }
    let heading = "contender         iops  cpu µs/req  p50 µs   p99 µs     iops ÷ \(baseline)        cpu ÷ \(baseline)"
    let lines = rows.map { row in
        row.name.padding(toLength: max(12, row.name.count), withPad: " ", startingAt: 0) + cell(row.iops, 0, 10)
            + cell(row.cpu, 3, 12) + cell(row.p50, 1, 8) + cell(row.p99, 1, 9) + " " + ratio(row.iopsRatio) + "  "
            + ratio(row.cpuRatio)
    }
    return ([heading] + lines).joined(separator: "\n")
}

func run(_ options: Options) throws {
    let arena = try Arena(options)
    let contenders = arena.contenders()
    guard contenders.contains(where: { $0.name == options.baseline }) else {
        throw UsageError.badValue(option: "--baseline", value: options.baseline, expected: "one of the contenders")
    }
    var measurements: [String: [Measurement]] = [:]
    let limit = Duration.seconds(options.seconds + options.rampSeconds + 30)
    for round in 0..<options.roundCount {
        // Forward, then backward: a machine that slowly gets faster or slower favours nobody.
        for contender in round % 2 == 0 ? contenders : contenders.reversed() {
            let measurement = try contender.measure(processor: Arena.clientProcessor, timeout: limit)
            measurements[contender.name, default: []].append(measurement)
        }
        if isatty(2) == 1 { FileHandle.standardError.write(Data("\rround \(round + 1) of \(options.roundCount)".utf8)) }
    }
    if isatty(2) == 1 { FileHandle.standardError.write(Data("\r\u{1b}[K".utf8)) }
    let rows = contenders.map {
        row($0.name, measurements[$0.name] ?? [], baseline: measurements[options.baseline] ?? [])
    }
    if options.isJSON {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        print(String(decoding: try encoder.encode(rows), as: UTF8.self))
    } else {
        let pattern = options.isSequential ? "sequential" : "random"
        let pinning = Arena.isPinned ? "target on processor 0, clients on 1" : "one processor for target and clients"
        print(
            """
            \(options.blockByteCount)-byte \(pattern) requests, \(options.writePercent)% writes, \
            depth \(options.depth) over \(options.sessionCount) sessions; \
            medians of \(options.roundCount) rounds of \(options.seconds) s; \(pinning)
            """)
        print(table(rows, baseline: options.baseline))
    }
    try check(rows, options.limits)
}

struct LimitExceeded: Error, CustomStringConvertible {
    let description: String
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
