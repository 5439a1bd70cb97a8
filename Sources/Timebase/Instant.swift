/// A moment of a monotonic clock, in nanoseconds since an origin that the clock's owner chose.
///
/// The pure modules never read a clock: every event carries the moment at which it happened, and this
/// is that moment's type. The reactor fills it from `CLOCK_MONOTONIC`; the simulator from its own time.
/// 64 bits of nanoseconds last 584 years, so arithmetic saturates rather than wraps.
@frozen
public struct Instant: Hashable, Comparable, Sendable {
    public var nanoseconds: UInt64

    @inlinable
    public init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    @inlinable public static var zero: Instant { Instant(nanoseconds: 0) }
    /// Later than any moment that happens; a deadline that never comes.
    @inlinable public static var distantFuture: Instant { Instant(nanoseconds: .max) }

    @inlinable
    public static func < (left: Instant, right: Instant) -> Bool {
        left.nanoseconds < right.nanoseconds
    }

    /// The moment `duration` later, at most ``distantFuture`` and at least ``zero``.
    @inlinable
    public static func + (instant: Instant, duration: Duration) -> Instant {
        let step = duration.wholeNanoseconds
        if step >= 0 {
            let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(UInt64(step))
            return Instant(nanoseconds: overflow ? .max : sum)
        }
        let (difference, overflow) = instant.nanoseconds.subtractingReportingOverflow(step.magnitude)
        return Instant(nanoseconds: overflow ? 0 : difference)
    }

    /// The time from `right` to `left`; negative where `right` is the later one.
    @inlinable
    public static func - (left: Instant, right: Instant) -> Duration {
        if left >= right { return .nanoseconds(Int64(clamping: left.nanoseconds - right.nanoseconds)) }
        return .nanoseconds(-Int64(clamping: right.nanoseconds - left.nanoseconds))
    }

    /// Nanoseconds from `earlier` to this moment, 0 where `earlier` is not earlier. For hot paths, where
    /// the 128-bit arithmetic of `Duration` shows.
    @inlinable
    public func nanosecondsSince(_ earlier: Instant) -> UInt64 {
        nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0
    }
}

extension Duration {
    /// This duration in whole nanoseconds, clamped to what 64 bits hold (292 years).
    @inlinable
    public var wholeNanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        if overflow { return seconds < 0 ? .min : .max }
        let (sum, carried) = scaled.addingReportingOverflow(attoseconds / 1_000_000_000)
        if carried { return seconds < 0 ? .min : .max }
        return sum
    }
}
