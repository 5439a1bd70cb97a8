import Foundation

/// What a request costs over the depth of the queue, its size, and the number of paths.
struct Sweep: Codable {
    enum Axis: String, Codable, CaseIterable {
        case depth, size, paths
    }

    /// One contender at one place of one axis.
    struct Point: Codable {
        var axis: Axis
        var value: Int
        var isWrite: Bool
        /// A name of ``Sweep/series``.
        var series: String
        var iops: Spread
        var cpu: Spread
        var p50: Double
        var p99: Double
        /// To libiscsi in the same rounds, where it ran.
        var iopsRatio: Spread?
        var cpuRatio: Spread?

        enum CodingKeys: String, CodingKey {
            case axis, value, series, iops, p50, p99
            case isWrite = "write"
            case cpu = "cpu_us_per_request"
            case iopsRatio = "iops_ratio"
            case cpuRatio = "cpu_ratio"
        }
    }

    var target: TargetKind
    var date: String
    var machine: Machine
    var roundCount: Int
    var seconds: Double
    var points: [Point]

    /// A contender with the options that it is compared under.
    struct Series {
        var name: String
        var contender: String
        var axes: [Axis]
        var digests = Digests.none
        var switchAfter = 1
    }

    static let series = [
        Series(name: "mpio", contender: "mpio-queue", axes: [.depth, .size, .paths]),
        Series(name: "mpio, async", contender: "mpio-async", axes: [.depth]),
        Series(name: "mpio, switch-after 8", contender: "mpio-queue", axes: [.depth, .paths], switchAfter: 8),
        Series(name: "mpio, header and data digests", contender: "mpio-queue", axes: [.size], digests: .both),
        Series(name: "libiscsi", contender: "libiscsi", axes: [.depth, .size, .paths]),
        Series(name: "libiscsi, header digest", contender: "libiscsi", axes: [.size], digests: .header),
        Series(name: "iscsi-perf (one session)", contender: "iscsi-perf", axes: [.depth]),
        Series(name: "qemu-img (one session)", contender: "qemu-img", axes: [.depth, .size]),
        Series(name: "bare TCP", contender: "tcp-floor", axes: [.depth, .size, .paths]),
    ]

    static func values(_ axis: Axis, isQuick: Bool) -> [Int] {
        switch axis {
        case .depth: (0...8).map { 1 << $0 }
        case .size: isQuick ? [512, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20] : (9...20).map { 1 << $0 }
        case .paths: [1, 2, 4, 8]
        }
    }

    static func load(_ axis: Axis, _ value: Int, isWrite: Bool, _ timing: Timing) -> Load {
        var load = Load()
        load.seconds = timing.seconds
        load.rampSeconds = timing.rampSeconds
        load.writePercent = isWrite ? 100 : 0
        switch axis {
        case .depth: load.depth = value
        case .size: load.blockByteCount = value
        case .paths: load.sessionCount = value
        }
        return load
    }

    /// Runs all of it.
    init(_ options: Options, target: TargetKind) throws {
        let timing = options.timing(.sweep)
        self.target = target
        date = today()
        machine = .current
        roundCount = timing.roundCount
        seconds = timing.seconds
        points = []
        let arena = try Arena(options, target: target, portalCount: 8)
        for axis in Axis.allCases {
            for value in Self.values(axis, isQuick: options.isQuick) {
                for isWrite in [false, true] {
                    ProgressLine.show("\(target.rawValue): \(axis.rawValue) \(value), \(isWrite ? "writes" : "reads")")
                    points += try Self.measure(arena, axis, value, isWrite: isWrite, timing)
                }
            }
        }
        ProgressLine.end()
    }

    private static func measure(
        _ arena: Arena, _ axis: Axis, _ value: Int, isWrite: Bool, _ timing: Timing
    ) throws -> [Point] {
        var contenders: [Contender] = []
        let plain = load(axis, value, isWrite: isWrite, timing)
        for series in series where series.axes.contains(axis) {
            var load = plain
            load.digests = series.digests
            load.switchAfter = series.switchAfter
            guard let kind = arena.kinds(load).first(where: { $0.name == series.contender }),
                let contender = try arena.contender(kind, load)
            else { continue }
            contenders.append(Contender(name: series.name, command: contender.command))
        }
        let rounds = try Rounds(contenders, plain, count: timing.roundCount)
        let baseline = rounds["libiscsi"]
        return contenders.map { contender in
            let own = rounds[contender.name]
            return Point(
                axis: axis, value: value, isWrite: isWrite, series: contender.name, iops: Spread(own.map(\.iops)),
                cpu: Spread(own.map(\.cpuPerRequest)), p50: Spread(own.map(\.latency.p50)).median,
                p99: Spread(own.map(\.latency.p99)).median,
                iopsRatio: Spread(of: own.map(\.iops), dividedBy: baseline.map(\.iops)),
                cpuRatio: Spread(of: own.map(\.cpuPerRequest), dividedBy: baseline.map(\.cpuPerRequest)))
        }
    }
}
