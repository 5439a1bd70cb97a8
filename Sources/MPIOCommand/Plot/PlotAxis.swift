import Foundation

/// The marks of an axis: few, and round.
struct PlotAxis: Equatable {
    struct Tick: Equatable {
        var value: Double
        var label: String
    }

    var lowest: Double
    var highest: Double
    var isLogarithmic = false
    var ticks: [Tick]

    /// Where a value lies, from 0 at the lower end to 1; clamped.
    func share(_ value: Double) -> Double {
        let share =
            isLogarithmic
            ? (log10(max(value, lowest)) - log10(lowest)) / (log10(highest) - log10(lowest))
            : (value - lowest) / (highest - lowest)
        return share.isFinite ? max(0, min(1, share)) : 0
    }

    /// 1, 2 or 5 times a power of ten, not less than `value`.
    static func round(up value: Double) -> Double {
        guard value.isFinite, value > 1e-12 else { return 1 }
        let power = pow(10, floor(log10(value)))
        for factor in [1.0, 2, 5, 10] where factor * power >= value * (1 - 1e-9) { return factor * power }
        return 10 * power
    }

    /// From 0 to a little above `maximum`.
    static func linear(maximum: Double, label: (Double) -> String) -> PlotAxis {
        let maximum = maximum.isFinite && maximum > 1e-12 ? min(maximum, 1e18) : 1
        let step = round(up: maximum / 4)
        let count = Int((maximum * 1.02 / step).rounded(.up))
        let highest = max(1, Double(count)) * step
        return PlotAxis(
            lowest: 0, highest: highest,
            ticks: (0...max(1, count)).map { Tick(value: Double($0) * step, label: label(Double($0) * step)) })
    }

    /// From 1, 2 or 5 times a power of ten to another that enclose the values; microseconds.
    static func latency(minimum: Double, maximum: Double) -> PlotAxis {
        let high = round(up: max(0.1, min(maximum, 1e12)) * 1.05)
        let low = max(0.1, min(max(minimum, 0.1), high)) * 0.95
        var values = [high]
        // 5, 2, 1, 0.5, … downwards.
        while values[values.count - 1] > low, values.count < 64 { values.append(below(values[values.count - 1])) }
        while values.count < 3 { values.append(below(values[values.count - 1])) }
        values.reverse()
        let (lowest, highest) = (values[0], values[values.count - 1])
        // Every decade where there are many, and every other where there are very many.
        if values.count > 7 { values = values.filter { isPowerOfTen($0) } }
        if values.count > 7 { values = values.enumerated().filter { $0.offset % 2 == 0 }.map(\.element) }
        return PlotAxis(
            lowest: lowest, highest: highest, isLogarithmic: true, ticks: values.map { Tick(value: $0, label: latencyText($0)) })
    }

    private static func isPowerOfTen(_ value: Double) -> Bool {
        let exponent = log10(value)
        return abs(exponent - exponent.rounded()) < 1e-6
    }

    private static func below(_ value: Double) -> Double {
        let power = pow(10, floor(log10(value) + 1e-9))
        let factor = (value / power).rounded()
        return factor > 4 ? 2 * power : factor > 1 ? power : power / 2
    }

    private static let timeSteps: [Double] = [
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200,
        14_400, 21_600, 43_200, 86_400, 172_800, 604_800,
    ]

    /// Seconds from 0 on; at most some ten ticks.
    static func time(seconds: Double) -> PlotAxis {
        let seconds = seconds.isFinite && seconds > 1e-6 ? seconds : 1e-6
        let step = timeSteps.first { seconds / $0 <= 10 } ?? round(up: seconds / 10)
        let count = Int((seconds / step).rounded(.down))
        return PlotAxis(
            lowest: 0, highest: seconds,
            ticks: (0...max(0, count)).map { Tick(value: Double($0) * step, label: timeText(Double($0) * step, step: step)) })
    }

    // MARK: Words

    /// `0`, `200`, `1.5k`, `20k`, `3M`.
    static func countText(_ value: Double) -> String {
        for (unit, size) in [("G", 1e9), ("M", 1e6), ("k", 1e3)] where value >= size * 0.9999 {
            return String(format: "%g", rounded(value / size)) + unit
        }
        return String(format: "%g", rounded(value))
    }

    static func latencyText(_ microseconds: Double) -> String {
        for (unit, size) in [(" s", 1e6), (" ms", 1e3)] where microseconds >= size * 0.9999 {
            return String(format: "%g", rounded(microseconds / size)) + unit
        }
        return String(format: "%g", rounded(microseconds)) + " µs"
    }

    /// `20 ms`, `1.5 s`, `2:30`, `1:00:00`.
    static func timeText(_ seconds: Double, step: Double) -> String {
        if step >= 60 || (seconds >= 120 && step >= 1) {
            let whole = Int(seconds.rounded())
            let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60)
            return hours > 0 ? String(format: "%d:%02d:%02d", hours, minutes, rest) : String(format: "%d:%02d", minutes, rest)
        }
        if step < 0.1 { return String(format: "%g", rounded(seconds * 1000)) + " ms" }
        return String(format: "%g", rounded(seconds)) + " s"
    }

    /// Without what binary fractions add.
    private static func rounded(_ value: Double) -> Double {
        guard value != 0, value.isFinite else { return 0 }
        let scale = pow(10, 6 - floor(log10(abs(value))))
        return (value * scale).rounded() / scale
    }
}
