/// Sizes, durations and whole numbers as people write them in the policy file and on the command line.
public enum Units {
    /// A byte count: digits, then nothing, `k`, `M`, `G`, `T` or `P` (binary, in either case, with an optional `iB` or `B`).
    /// `4k` is 4096. Nil where it is something else or does not fit 64 bits.
    public static func parseSize(_ text: String) -> UInt64? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard !digits.isEmpty, let number = UInt64(digits) else { return nil }
        var unit = text.dropFirst(digits.count).lowercased()
        if unit.hasSuffix("ib") { unit.removeLast(2) } else if unit.hasSuffix("b") { unit.removeLast() }
        let shift: UInt64
        switch unit {
        case "": shift = 0
        case "k": shift = 10
        case "m": shift = 20
        case "g": shift = 30
        case "t": shift = 40
        case "p": shift = 50
        default: return nil
        }
        let (product, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        // "4iB" has a prefix's suffix without the prefix.
        if shift == 0 && text.lowercased().hasSuffix("ib") { return nil }
        return overflow ? nil : product
    }

    /// A duration: a number, with up to nine decimals, and `us`, `ms`, `s`, `m` (or `min`), `h` or `d`; or a bare `0`.
    /// Nil where it is something else or longer than 292 years.
    public static func parseDuration(_ text: String) -> Duration? {
        if text == "0" { return .zero }
        let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let nanosecondsPerUnit: UInt64
        switch text.dropFirst(number.count) {
        case "us", "µs": nanosecondsPerUnit = 1000
        case "ms": nanosecondsPerUnit = 1_000_000
        case "s": nanosecondsPerUnit = 1_000_000_000
        case "m", "min": nanosecondsPerUnit = 60_000_000_000
        case "h": nanosecondsPerUnit = 3_600_000_000_000
        case "d": nanosecondsPerUnit = 86_400_000_000_000
        default: return nil
        }
        let parts = number.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let whole = UInt64(parts[0]) else { return nil }
        var (total, overflow) = whole.multipliedReportingOverflow(by: nanosecondsPerUnit)
        if parts.count == 2 {
            guard (1...9).contains(parts[1].count), let fraction = UInt64(parts[1]) else { return nil }
            var scale: UInt64 = 1
            for _ in 0..<parts[1].count { scale *= 10 }
            // Whole and remainder apart: fraction × unit alone may pass 64 bits.
            let part = fraction * (nanosecondsPerUnit / scale) + fraction * (nanosecondsPerUnit % scale) / scale
            let (sum, carried) = total.addingReportingOverflow(part)
            total = sum
            overflow = overflow || carried
        }
        guard !overflow, total <= UInt64(Int64.max) else { return nil }
        return .nanoseconds(Int64(total))
    }

    /// The shortest exact way to write a duration that ``parseDuration(_:)`` reads back.
    public static func format(_ duration: Duration) -> String {
        let nanoseconds = max(0, duration.wholeNanoseconds)
        for (unit, size) in [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)]
            as [(String, Int64)]
        where nanoseconds != 0 && nanoseconds % size == 0 {
            return "\(nanoseconds / size)\(unit)"
        }
        if nanoseconds == 0 { return "0" }
        let fraction = String(nanoseconds % 1000)
        let decimals = nanoseconds % 1000 == 0 ? "" : "." + String(repeating: "0", count: 3 - fraction.count) + fraction
        return "\(nanoseconds / 1000)\(decimals)us"
    }
}
