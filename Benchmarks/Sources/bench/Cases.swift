import Foundation

/// The loads of the first table of docs/performance.md, each with all contenders.
struct CaseTable: Codable {
    struct Case: Codable {
        var load: Load
        var rows: [Row]
    }

    var target: TargetKind
    var cases: [Case] = []

    private static func loads(_ target: TargetKind, _ timing: Timing) -> [Load] {
        var list = [(4096, 32, 4, 0), (4096, 32, 4, 100), (4096, 32, 1, 0), (4096, 32, 1, 100), (4096, 1, 1, 0)]
        if target == .tgtdFile { list.removeLast(3) } else { list += [(256 << 10, 8, 1, 0), (256 << 10, 8, 1, 100)] }
        return list.map { size, depth, sessions, writes in
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

    init(_ options: Options, target: TargetKind) throws {
        self.target = target
        let timing = options.timing(.cases)
        let arena = try Arena(options, target: target, portalCount: 4)
        let wanted = ["libiscsi", "mpio-queue", "mpio-async", "mpio-async-elsewhere", "iscsi-perf", "qemu-img", "tcp-floor"]
        for load in Self.loads(target, timing) {
            ProgressLine.show("\(target.rawValue): \(load.words)")
            let contenders = try arena.kinds(load).filter { wanted.contains($0.name) }.compactMap {
                // It runs for whole seconds, which is too long where time is short; the sweep has it.
                options.isQuick && $0.leastSeconds > timing.seconds ? nil : try arena.contender($0, load)
            }
            let rounds = try Rounds(contenders, load, count: timing.roundCount)
            cases.append(
                Case(load: load, rows: contenders.map { Row($0.name, rounds[$0.name], baseline: rounds["libiscsi"]) }))
        }
        ProgressLine.end()
    }

    var markdown: String {
        let rows = cases.flatMap { item -> [[String]] in
            let libiscsi = item.rows.first { $0.name == "libiscsi" }
            return item.rows.filter { $0.name != "libiscsi" }.map { row in
                let size = item.load.blockByteCount >> 10
                return [
                    "\(size) KiB \(item.load.writePercent == 0 ? "read" : "write"), depth \(item.load.depth), "
                        + "\(item.load.sessionCount) session\(item.load.sessionCount == 1 ? "" : "s")",
                    row.name, String(format: "%.2f", libiscsi?.cpu ?? 0), String(format: "%.2f", row.cpu),
                    row.cpuRatio.words(2), row.iopsRatio.words(2), row.p50Ratio.words(2),
                ]
            }
        }
        return Markdown.table(
            ["case", "contender", "libiscsi CPU µs", "its CPU µs", "CPU ÷ libiscsi", "requests/s ÷ libiscsi", "p50 ÷ libiscsi"], rows)
    }
}
