import Foundation
import MPIO

/// What a picture shows of a LUN: rates of its paths over equal steps of time, and marks.
struct PlotModel: Sendable {
    /// One path, or those that are too many to have a colour each.
    struct Series: Sendable {
        var name: String
        /// By step; nil where nothing is known of the path.
        var requestsPerSecond: [Double?]
        var bytesPerSecond: [Double?]
        /// The highest of a step's samples; nil where nothing was carried.
        var p99Microseconds: [Double?]
    }

    var lun: String
    var policy: String
    /// When it begins.
    var start: Date
    var seconds: Double
    var stepCount: Int
    /// What lies between two samples, in the middle.
    var samplePeriodSeconds: Double
    var series: [Series]
    /// How many there are, those that share a series included.
    var pathCount: Int
    /// In the order of their moments.
    var marks: [PlotMark]

    var stepSeconds: Double { seconds / Double(stepCount) }

    static let maximumStepCount = 240
    static let maximumSeriesCount = 8
    /// Where there was no sample for so many times the usual, and at least so long, there is a gap.
    private static let gapFactor = 10.0
    private static let gapSeconds = 1.0

    /// Nil where there is nothing to draw: fewer than two samples of each path.
    init?(_ history: LUNHistory) {
        guard let span = history.span, span.end > span.start else { return nil }
        let periods = history.curves.flatMap { curve in
            zip(curve.points, curve.points.dropFirst()).map { $1.seconds - $0.seconds }
        }.filter { $0 > 0 }.sorted()
        guard !periods.isEmpty else { return nil }
        lun = history.name
        policy = history.policy
        seconds = span.end - span.start
        start = Date(timeIntervalSince1970: span.start + history.wallOffset)
        samplePeriodSeconds = periods[periods.count / 2]
        stepCount = Int(max(1, min(Double(Self.maximumStepCount), (seconds / samplePeriodSeconds).rounded())))
        let grid = Grid(
            start: span.start, step: seconds / Double(stepCount), count: stepCount,
            gap: max(Self.gapFactor * samplePeriodSeconds, Self.gapSeconds))
        var names: [String] = []
        var found: [String: Series] = [:]
        for curve in history.curves {
            let series = grid.series(curve)
            if let other = found[curve.path] {
                found[curve.path] = other.adding(series)
            } else {
                names.append(curve.path)
                found[curve.path] = series
            }
        }
        pathCount = names.count
        series = Self.condensed(names.map { found[$0]! })
        let duration = seconds
        marks = history.events.compactMap { event in
            // What came with the last sample may be a moment later.
            let moment = min(event.seconds - span.start, duration)
            guard moment >= 0, event.seconds - span.end < 1 else { return nil }
            return PlotMark(event, seconds: moment)
        }.sorted { $0.seconds < $1.seconds }
    }

    /// The busiest paths keep a place of their own, the others share one.
    private static func condensed(_ all: [Series]) -> [Series] {
        guard all.count > maximumSeriesCount else { return all }
        let busiest = Set(all.indices.sorted { (all[$0].total, $1) > (all[$1].total, $0) }.prefix(maximumSeriesCount - 1))
        let own = all.indices.filter(busiest.contains).map { all[$0] }
        let others = all.indices.filter { !busiest.contains($0) }.map { all[$0] }
        var rest = others.dropFirst().reduce(others[0]) { $0.adding($1) }
        rest.name = "\(others.count) other paths"
        return own + [rest]
    }
}

extension PlotModel.Series {
    fileprivate var total: Double { requestsPerSecond.reduce(0) { $0 + ($1 ?? 0) } }

    fileprivate func adding(_ other: PlotModel.Series) -> PlotModel.Series {
        func sum(_ a: Double?, _ b: Double?) -> Double? { a == nil && b == nil ? nil : (a ?? 0) + (b ?? 0) }
        var result = self
        result.requestsPerSecond = zip(requestsPerSecond, other.requestsPerSecond).map(sum)
        result.bytesPerSecond = zip(bytesPerSecond, other.bytesPerSecond).map(sum)
        result.p99Microseconds = zip(p99Microseconds, other.p99Microseconds).map { [$0, $1].compactMap { $0 }.max() }
        return result
    }
}

/// Equal steps of time, over which what lies between two samples is spread.
private struct Grid {
    var start: Double
    var step: Double
    var count: Int
    /// Samples that are further apart say nothing about the time between them.
    var gap: Double

    private func place(_ seconds: Double) -> Int {
        Int(max(0, min(Double(count - 1), ((seconds - start) / step).rounded(.down))))
    }

    func series(_ curve: LUNHistory.Curve) -> PlotModel.Series {
        var requests = [Double](repeating: 0, count: count)
        var bytes = requests, known = requests
        var p99 = [Double?](repeating: nil, count: count)
        for (from, to) in zip(curve.points, curve.points.dropFirst()) {
            let length = to.seconds - from.seconds
            // Counters that went back are another session of the same process id.
            guard length > 0, length <= gap, to.requests >= from.requests, to.bytes >= from.bytes else { continue }
            for index in place(from.seconds)...place(to.seconds) {
                let low = start + Double(index) * step
                let covered = min(to.seconds, low + step) - max(from.seconds, low)
                guard covered > 0 else { continue }
                requests[index] += Double(to.requests - from.requests) * covered / length
                bytes[index] += Double(to.bytes - from.bytes) * covered / length
                known[index] += covered
            }
            guard let latency = to.p99Microseconds else { continue }
            // The steps whose middles it covers, at least the one that its own middle is in.
            let middle = place((from.seconds + to.seconds) / 2)
            for index in place(from.seconds)...place(to.seconds) {
                let centre = start + (Double(index) + 0.5) * step
                guard index == middle || (from.seconds < centre && centre < to.seconds) else { continue }
                p99[index] = max(p99[index] ?? 0, latency)
            }
        }
        func rates(_ amounts: [Double]) -> [Double?] {
            zip(amounts, known).map { $1 > step / 4 ? $0 / $1 : nil }
        }
        return .init(name: curve.path, requestsPerSecond: rates(requests), bytesPerSecond: rates(bytes), p99Microseconds: p99)
    }
}
