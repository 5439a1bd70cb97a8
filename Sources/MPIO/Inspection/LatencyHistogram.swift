/// Counts of latencies in log-linear buckets: recording is O(1) and allocation-free, a percentile is one
/// scan of 896 counters.
///
/// Buckets are 64 ns wide up to 4 µs; above it each doubling has 32, so a percentile is at most 1/32 too
/// high or low. Latencies of 137 s and more share the last bucket; ``maximum`` stays exact.
///
/// Not synchronised: one thread owns it (the reactor of the path it measures). 3.5 KiB.
public struct LatencyHistogram: ~Copyable {
    private static var unitShift: UInt64 { 6 }
    private static var halfCount: Int { 32 }
    private static var bucketCount: Int { 896 }

    private let counts: UnsafeMutablePointer<UInt32>
    /// Latencies recorded since the last ``reset()``.
    public private(set) var count: UInt64
    /// The longest recorded latency in nanoseconds; 0 where none was.
    public private(set) var maximum: UInt64

    /// An empty one. Its buckets are allocated here, and never again.
    public init() {
        counts = .allocate(capacity: Self.bucketCount)
        counts.initialize(repeating: 0, count: Self.bucketCount)
        count = 0
        maximum = 0
    }

    deinit {
        counts.deallocate()
    }

    /// Counts one latency. Allocates nothing.
    public mutating func record(nanoseconds: UInt64) {
        let slot = counts + Self.bucket(of: nanoseconds)
        // Halving every counter keeps the shape; wrapping one would lose it.
        if slot.pointee == .max { halve() }
        slot.pointee &+= 1
        count &+= 1
        if nanoseconds > maximum { maximum = nanoseconds }
    }

    /// The latency, in nanoseconds, that `percent` (0…100, clamped) of the recorded ones do not exceed; 0 where
    /// none was recorded. The middle of its bucket, never above ``maximum``.
    public func percentile(_ percent: Double) -> UInt64 {
        var total: UInt64 = 0
        for index in 0..<Self.bucketCount { total &+= UInt64(counts[index]) }
        guard total > 0 else { return 0 }
        let share = percent.isNaN ? 0 : min(max(percent, 0), 100) / 100
        if share >= 1 { return maximum }
        let rank = max(1, UInt64((share * Double(total)).rounded(.up)))
        var seen: UInt64 = 0
        for index in 0..<Self.bucketCount {
            seen &+= UInt64(counts[index])
            if seen >= rank { return min(Self.middle(ofBucket: index), maximum) }
        }
        return maximum
    }

    /// What was recorded so far, to be compared with later.
    func marked() -> LatencyMark { LatencyMark(counts: Array(UnsafeBufferPointer(start: counts, count: Self.bucketCount))) }

    /// The latency, in nanoseconds, that `percents` of those recorded since `mark` do not exceed; nil where there are none.
    /// Middles of buckets.
    func percentiles(_ percents: [Double], since mark: LatencyMark) -> [UInt64]? {
        // Counters that were halved since say nothing about the difference.
        var total: UInt64 = 0
        for index in 0..<Self.bucketCount where counts[index] > mark.counts[index] {
            total &+= UInt64(counts[index] - mark.counts[index])
        }
        guard total > 0 else { return nil }
        return percents.map { percent in
            let rank = max(1, UInt64((min(max(percent, 0), 100) / 100 * Double(total)).rounded(.up)))
            var seen: UInt64 = 0
            for index in 0..<Self.bucketCount where counts[index] > mark.counts[index] {
                seen &+= UInt64(counts[index] - mark.counts[index])
                if seen >= rank { return min(Self.middle(ofBucket: index), maximum) }
            }
            return maximum
        }
    }

    /// What was recorded so far, without the buckets that have nothing.
    var latencyCounts: LatencyCounts {
        var found = LatencyCounts()
        for index in 0..<Self.bucketCount where counts[index] > 0 {
            found.nanoseconds.append(Self.middle(ofBucket: index))
            found.counts.append(UInt64(counts[index]))
        }
        return found
    }

    /// Adds what `other` recorded.
    public mutating func merge(_ other: borrowing LatencyHistogram) {
        for index in 0..<Self.bucketCount {
            var (sum, overflow) = counts[index].addingReportingOverflow(other.counts[index])
            while overflow {
                halve()
                (sum, overflow) = counts[index].addingReportingOverflow(other.counts[index])
            }
            counts[index] = sum
        }
        count &+= other.count
        maximum = max(maximum, other.maximum)
    }

    /// Forgets everything.
    public mutating func reset() {
        counts.update(repeating: 0, count: Self.bucketCount)
        count = 0
        maximum = 0
    }

    private mutating func halve() {
        for index in 0..<Self.bucketCount { counts[index] /= 2 }
    }

    @inline(__always)
    static func bucket(of nanoseconds: UInt64) -> Int {
        let units = nanoseconds >> unitShift
        if units < 64 { return Int(units) }
        let exponent = 58 - units.leadingZeroBitCount
        return min(exponent * halfCount + Int(units >> UInt64(exponent)), bucketCount - 1)
    }

    static func middle(ofBucket index: Int) -> UInt64 {
        if index < 64 { return UInt64(index) << unitShift + (1 << unitShift) / 2 }
        let exponent = UInt64(index / halfCount - 1)
        let low = UInt64(index) - exponent * UInt64(halfCount)
        return (low << exponent) << unitShift + ((1 << exponent) << unitShift) / 2
    }
}

/// A histogram's counters at one moment.
struct LatencyMark {
    fileprivate var counts: [UInt32]
}
