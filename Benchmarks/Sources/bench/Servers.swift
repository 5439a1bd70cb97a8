import Foundation

/// The embedded target against tgtd as a server: one client, libiscsi, asks them by turns; what counts is what the server
/// takes, and how much the client gets.
struct ServerComparison: Codable {
    struct Case: Codable {
        var load: Load
        var tgtdIOPS: Double
        var embeddedIOPS: Double
        var tgtdCPU: Double
        var embeddedCPU: Double
        var iopsRatio: Spread
        var cpuRatio: Spread
    }

    var cases: [Case] = []

    static func loads(_ timing: Timing) -> [Load] {
        [(4096, 32, 1, 0), (4096, 32, 4, 0), (4096, 32, 1, 100), (4096, 32, 4, 100), (4096, 1, 1, 0), (256 << 10, 8, 1, 0), (256 << 10, 8, 1, 100)]
            .map { size, depth, sessions, writes in
                var load = Load()
                load.blockByteCount = size
                load.depth = depth
                load.sessionCount = sessions
                load.writePercent = writes
                load.seconds = timing.seconds
                load.rampSeconds = timing.rampSeconds
                return load
            }
    }

    /// - Parameter client: the contender that asks; it has to understand `--watch`.
    init(_ options: Options, client: String = "libiscsi") throws {
        let timing = options.timing(.servers)
        let tgtd = try Arena(options, target: .tgtdNull, portalCount: 4)
        let embedded = try Arena(options, target: .embedded, portalCount: 4)
        tgtd.watchesTarget = true
        embedded.watchesTarget = true
        for load in Self.loads(timing) {
            ProgressLine.show("servers: \(load.words)")
            let kind = tgtd.kinds(load).first { $0.name == client }
            guard let kind, let one = try tgtd.contender(kind, load), let other = try embedded.contender(kind, load) else {
                throw UsageError.badValue(option: "--client", value: client, expected: "a contender that can do this load")
            }
            let rounds = try Rounds(
                [Contender(name: "tgtd", command: one.command), Contender(name: "embedded", command: other.command)], load,
                count: timing.roundCount)
            let (theirs, ours) = (rounds["tgtd"], rounds["embedded"])
            func cpu(_ list: [Measurement]) throws -> [Double] {
                try list.map {
                    guard let cpu = $0.watchedCPUPerRequest, cpu > 0 else {
                        throw UsageError.badValue(option: "--client", value: client, expected: "a program that watches the target")
                    }
                    return cpu
                }
            }
            cases.append(
                Case(
                    load: load, tgtdIOPS: Spread(theirs.map(\.iops)).median, embeddedIOPS: Spread(ours.map(\.iops)).median,
                    tgtdCPU: Spread(try cpu(theirs)).median, embeddedCPU: Spread(try cpu(ours)).median,
                    iopsRatio: Spread(of: ours.map(\.iops), dividedBy: theirs.map(\.iops)),
                    cpuRatio: Spread(of: try cpu(ours), dividedBy: try cpu(theirs))))
        }
        ProgressLine.end()
    }

    var markdown: String {
        let rows = cases.map { item in
            let (size, sessions) = (item.load.blockByteCount >> 10, item.load.sessionCount)
            let name = "\(size) KiB \(item.load.writePercent == 0 ? "read" : "write"), depth \(item.load.depth), "
                + "\(sessions == 1 ? "one session" : "\(sessions) sessions")"
            return [
                name, String(format: "%.1f", item.tgtdCPU), String(format: "%.1f", item.embeddedCPU),
                item.cpuRatio.words(2), String(format: "%.0f", item.tgtdIOPS / 1000),
                String(format: "%.0f", item.embeddedIOPS / 1000), item.iopsRatio.words(2),
            ]
        }
        return Markdown.table(
            ["case", "tgtd CPU µs", "ours CPU µs", "CPU, ours ÷ tgtd", "tgtd k/s", "ours k/s", "requests/s, ours ÷ tgtd"], rows)
    }
}

enum Markdown {
    static func table(_ heading: [String], _ rows: [[String]]) -> String {
        func line(_ cells: [String]) -> String { "| " + cells.joined(separator: " | ") + " |" }
        return ([line(heading), "|" + String(repeating: "---|", count: heading.count)] + rows.map(line)).joined(separator: "\n")
    }
}
