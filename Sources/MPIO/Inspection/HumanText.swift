public import Foundation

/// Numbers as people read them in a table. Pure functions; no locale.
public enum HumanText {
    /// `512 B`, `10.0 GiB`.
    public static func size(_ byteCount: UInt64) -> String {
        if byteCount < 1024 { return "\(byteCount) B" }
        var value = Double(byteCount)
        var unit = 0
        while value >= 1023.95, unit < 6 {
            value /= 1024
            unit += 1
        }
        return "\(fixed(value, 1)) \(["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][unit])"
    }

    /// `0`, `873`, `41.2k`, `1.35M`.
    public static func rate(_ perSecond: Double) -> String {
        guard perSecond.isFinite, perSecond > 0 else { return "0" }
        if perSecond < 9.95 && perSecond.rounded() != perSecond { return fixed(perSecond, 1) }
        if perSecond < 999.5 { return fixed(perSecond, 0) }
        if perSecond < 999_950 { return fixed(perSecond / 1000, 1) + "k" }
        return fixed(perSecond / 1_000_000, 2) + "M"
    }

    /// Millions of bytes per second: `161.0`.
    public static func megabytes(_ bytesPerSecond: Double) -> String {
        guard bytesPerSecond.isFinite, bytesPerSecond > 0 else { return "0.0" }
        return fixed(bytesPerSecond / 1_000_000, 1)
    }

    /// `9.3µs`, `180µs`, `1.24ms`, `12.3ms`, `1.20s`.
    public static func latency(microseconds: Double) -> String {
        guard microseconds.isFinite, microseconds >= 0 else { return "–" }
        if microseconds < 9.95 { return fixed(microseconds, 1) + "µs" }
        if microseconds < 999.5 { return fixed(microseconds, 0) + "µs" }
        if microseconds < 9995 { return fixed(microseconds / 1000, 2) + "ms" }
        if microseconds < 999_500 { return fixed(microseconds / 1000, 1) + "ms" }
        return fixed(microseconds / 1_000_000, 2) + "s"
    }

    /// `12 s`, `5 min`, `3 h`, `2 d`; less than a second as `0.4 s`.
    public static func span(seconds: Double) -> String {
        guard seconds.isFinite, seconds >= 0.05 else { return "0 s" }
        if seconds < 0.95 { return fixed(seconds, 1) + " s" }
        if seconds < 119.5 { return fixed(seconds, 0) + " s" }
        if seconds < 7170 { return fixed(seconds / 60, 0) + " min" }
        if seconds < 172_000 { return fixed(seconds / 3600, 0) + " h" }
        return fixed(seconds / 86_400, 0) + " d"
    }

    /// Text of a device or peer without what would steer a terminal.
    public static func printable(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned: result.append("?")
            default: result.append(scalar)
            }
        }
        return String(result)
    }

    static func fixed(_ value: Double, _ decimals: Int) -> String {
        String(format: "%.\(decimals)f", value)
    }
}

/// Moments as the reports write them: RFC 3339 in UTC, with milliseconds.
public enum Timestamp {
    /// `2026-11-21T09:30:00.125Z`.
    public static func format(_ date: Date) -> String {
        date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }

    /// Nil where the text is no moment.
    public static func parse(_ text: String) -> Date? {
        (try? Date(text, strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true)))
            ?? (try? Date(text, strategy: Date.ISO8601FormatStyle()))
    }
}
