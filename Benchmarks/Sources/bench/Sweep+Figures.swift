import Foundation

extension Sweep {
    /// The files to write: JSON, and a figure for each axis.
    func write(to directory: String) throws {
        try Self.write(Data(try rounded.json().utf8), to: "\(directory)/performance-\(target.rawValue).json")
        for axis in Axis.allCases {
            try Self.write(Data(figure(axis).svg().utf8), to: "\(directory)/performance-\(target.rawValue)-\(axis.rawValue).svg")
        }
    }

    /// A line for each point.
    private func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        func text(_ value: some Encodable) throws -> String { String(decoding: try encoder.encode(value), as: UTF8.self) }
        var head = self
        head.points = []
        let lines = try points.map { try text($0) }.joined(separator: ",\n")
        return try text(head).replacingOccurrences(of: "\"points\":[]", with: "\"points\":[\n\(lines)\n]") + "\n"
    }

    static func write(_ data: Data, to path: String) throws {
        try FileManager.default.createDirectory(
            atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try data.write(to: URL(fileURLWithPath: path))
    }

    /// Four digits are more than was measured.
    private var rounded: Sweep {
        func short(_ value: Double) -> Double { Double(String(format: "%.4g", value)) ?? value }
        func short(_ spread: inout Spread) {
            spread.median = short(spread.median)
            spread.least = short(spread.least)
            spread.most = short(spread.most)
        }
        var copy = self
        for index in copy.points.indices {
            short(&copy.points[index].iops)
            short(&copy.points[index].cpu)
            copy.points[index].p50 = short(points[index].p50)
            copy.points[index].p99 = short(points[index].p99)
            if copy.points[index].iopsRatio != nil { short(&copy.points[index].iopsRatio!) }
            if copy.points[index].cpuRatio != nil { short(&copy.points[index].cpuRatio!) }
        }
        return copy
    }

    func figure(_ axis: Axis) -> LinePlot {
        let (title, rest) = switch axis {
        case .depth: ("Queue depth", "4 KiB random requests, four sessions")
        case .size: ("Request size", "Random requests, depth 32, four sessions")
        case .paths: ("Paths", "4 KiB random requests, depth 32 over all sessions")
        }
        return LinePlot(
            title: "\(title): \(target.words)",
            subtitle: "\(rest). Medians of \(roundCount) rounds by turns, shaded from least to most. "
                + "\(machine.processorCount) processors, \(date).",
            panels: [false, true].map { isWrite in
                [
                    panel(axis, isWrite, "thousand requests/s") { Spread($0.iops, times: 0.001) },
                    panel(axis, isWrite, "CPU of the initiator, µs per request") { $0.cpu },
                ]
            })
    }

    private func panel(_ axis: Axis, _ isWrite: Bool, _ what: String, _ value: (Point) -> Spread) -> LinePlot.Panel {
        let own = points.filter { $0.axis == axis && $0.isWrite == isWrite }
        let lines = Self.series.compactMap { series -> LinePlot.Line? in
            let points = own.filter { $0.series == series.name }.sorted { $0.value < $1.value }
            guard !points.isEmpty else { return nil }
            return LinePlot.Line(
                name: series.name, look: Self.look(series.name),
                points: points.map { LinePlot.Point(x: Double($0.value), y: value($0)) })
        }
        return LinePlot.Panel(
            title: "\(isWrite ? "Writes" : "Reads"): \(what)", xTitle: Self.title(axis),
            xTicks: Set(own.map(\.value)).sorted().map { (Double($0), Self.label(axis, $0)) },
            isLogarithmic: axis != .paths, lines: lines)
    }

    private static func title(_ axis: Axis) -> String {
        switch axis {
        case .depth: "requests outstanding"
        case .size: "bytes per request"
        case .paths: "sessions"
        }
    }

    private static func label(_ axis: Axis, _ value: Int) -> String {
        guard axis == .size else { return "\(value)" }
        return value >= 1 << 20 ? "\(value >> 20)M" : value >= 1024 ? "\(value >> 10)k" : "\(value)"
    }

    private static func look(_ name: String) -> LinePlot.Look {
        switch name {
        case "mpio": .init(color: "#0072b2", mark: .circle, width: 2.8)
        case "mpio, async": .init(color: "#56b4e9", mark: .triangle)
        case "mpio, switch-after 8": .init(color: "#003f66", mark: .diamond, isDashed: true)
        case "mpio, header and data digests": .init(color: "#0072b2", mark: .diamond, isDashed: true)
        case "libiscsi": .init(color: "#d55e00", mark: .square)
        case "libiscsi, header digest": .init(color: "#d55e00", mark: .triangle, isDashed: true)
        case "iscsi-perf (one session)": .init(color: "#cc79a7", mark: .diamond)
        case "qemu-img (one session)": .init(color: "#009e73", mark: .triangle)
        default: .init(color: "#777777", mark: .cross, isDashed: true, width: 1.6)
        }
    }
}

extension Spread {
    init(_ spread: Spread, times factor: Double) {
        self.init([spread.least * factor, spread.median * factor, spread.most * factor])
    }
}
