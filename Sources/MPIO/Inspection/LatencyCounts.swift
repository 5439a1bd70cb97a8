/// How many requests took how long since a path was added: a ``LatencyHistogram`` for other processes. The difference of two
/// tells the latencies of the time between them, however short.
public struct LatencyCounts: Codable, Hashable, Sendable {
    /// Nanoseconds, the middles of the histogram's buckets, each at most 1/32 off; ascending.
    public var nanoseconds: [UInt64]
    /// How many of each.
    public var counts: [UInt64]

    enum CodingKeys: String, CodingKey {
        case nanoseconds = "ns"
        case counts
    }

    /// Nothing, where nothing is given. What is in only one of the two is not counted.
    public init(nanoseconds: [UInt64] = [], counts: [UInt64] = []) {
        self.nanoseconds = nanoseconds
        self.counts = counts
    }

    /// The latencies of what was recorded since `earlier`, in microseconds; nil where nothing was.
    public func summary(since earlier: LatencyCounts) -> LatencySummary? {
        let new = difference(earlier)
        let total = new.reduce(UInt64(0)) { $0 &+ $1.count }
        guard total > 0, let longest = new.last?.nanoseconds else { return nil }
        func percentile(_ share: Double) -> Double {
            let rank = max(1, (share * Double(total)).rounded(.up))
            var seen = 0.0
            for bucket in new {
                seen += Double(bucket.count)
                if seen >= rank { return Double(bucket.nanoseconds) / 1000 }
            }
            return Double(longest) / 1000
        }
        return LatencySummary(p50: percentile(0.5), p99: percentile(0.99), max: Double(longest) / 1000)
    }

    /// What each bucket has more than it had. Buckets that were halved since, which keeps them from overflowing, are left out.
    private func difference(_ earlier: LatencyCounts) -> [(nanoseconds: UInt64, count: UInt64)] {
        var old = zip(earlier.nanoseconds, earlier.counts).makeIterator()
        var next = old.next()
        var new: [(nanoseconds: UInt64, count: UInt64)] = []
        for (moment, count) in zip(nanoseconds, counts) {
            while let bucket = next, bucket.0 < moment { next = old.next() }
            let before = next.map { $0.0 == moment ? $0.1 : 0 } ?? 0
            if count > before { new.append((moment, count - before)) }
        }
        return new
    }
}
