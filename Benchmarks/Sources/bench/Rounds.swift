import Foundation

/// A median, and the extremes that it stands for.
struct Spread: Codable {
    var median: Double
    var least: Double
    var most: Double

    init(_ values: [Double]) {
        precondition(!values.isEmpty, "a median of nothing")
        let sorted = values.sorted()
        let middle = sorted.count / 2
        median = sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
        least = sorted[0]
        most = sorted[sorted.count - 1]
    }

    /// Of what stands at equal places.
    init(of values: [Double], dividedBy others: [Double]) {
        self.init(zip(values, others).map { $0 / $1 })
    }

    func words(_ digits: Int) -> String {
        String(format: "%.\(digits)f (%.\(digits)f…%.\(digits)f)", median, least, most)
    }
}

/// Contenders that take turns: every one runs once a round.
struct Rounds {
    private(set) var measurements: [String: [Measurement]] = [:]

    init(_ contenders: [Contender], _ load: Load, count: Int, progress: (Int) -> Void = { _ in }) throws {
        for round in 0..<count {
            // Forward, then backward: a machine that slowly gets faster or slower favours nobody.
            for contender in round % 2 == 0 ? contenders : contenders.reversed() {
                let limit = Duration.seconds(load.seconds + load.rampSeconds + 30)
                let measurement = try contender.measure(processor: Arena.clientProcessor, timeout: limit)
                measurements[contender.name, default: []].append(measurement)
            }
            progress(round + 1)
        }
    }

    subscript(name: String) -> [Measurement] { measurements[name] ?? [] }
}

/// A line of words that the next one overwrites; nothing where standard error is no terminal.
enum ProgressLine {
    static func show(_ words: String) {
        if isatty(2) == 1 { FileHandle.standardError.write(Data("\r\u{1b}[K\(words)".utf8)) }
    }

    static func end() { show("") }
}

/// One contender beside the baseline.
struct Row: Codable {
    var name: String
    var iops: Double
    var cpu: Double
    var p50: Double
    var p99: Double
    var iopsRatio: Spread
    var cpuRatio: Spread
    var p50Ratio: Spread

    enum CodingKeys: String, CodingKey {
        case name, iops, p50, p99
        case cpu = "cpu_us_per_request"
        case iopsRatio = "iops_ratio"
        case cpuRatio = "cpu_ratio"
        case p50Ratio = "p50_ratio"
    }

    init(_ name: String, _ own: [Measurement], baseline: [Measurement]) {
        self.name = name
        iops = Spread(own.map(\.iops)).median
        cpu = Spread(own.map(\.cpuPerRequest)).median
        p50 = Spread(own.map(\.latency.p50)).median
        p99 = Spread(own.map(\.latency.p99)).median
        iopsRatio = Spread(of: own.map(\.iops), dividedBy: baseline.map(\.iops))
        cpuRatio = Spread(of: own.map(\.cpuPerRequest), dividedBy: baseline.map(\.cpuPerRequest))
        p50Ratio = Spread(of: own.map(\.latency.p50), dividedBy: baseline.map(\.latency.p50))
    }

    static func table(_ rows: [Row], baseline: String) -> String {
        func cell(_ value: Double, _ digits: Int, _ width: Int) -> String {
            let text = String(format: "%.\(digits)f", value)
            return String(repeating: " ", count: max(0, width - text.count)) + text
        }
        func ratio(_ spread: Spread) -> String {
            "\(cell(spread.median, 3, 8)) (\(cell(spread.least, 3, 5))…\(cell(spread.most, 3, 5)))"
        }
        let heading =
            "contender         iops  cpu µs/req  p50 µs   p99 µs     iops ÷ \(baseline)        cpu ÷ \(baseline)"
        let lines = rows.map { row in
            row.name.padding(toLength: max(12, row.name.count), withPad: " ", startingAt: 0) + cell(row.iops, 0, 10)
                + cell(row.cpu, 3, 12) + cell(row.p50, 1, 8) + cell(row.p99, 1, 9) + " " + ratio(row.iopsRatio) + "  "
                + ratio(row.cpuRatio)
        }
        return ([heading] + lines).joined(separator: "\n")
    }
}
