/// How long answers may lie before they are received together.
///
/// A target that answers with one small write for each command would otherwise wake the loop for each of
/// them, and most of what a request costs is the calls for it: gathered, several leave and arrive in one
/// call. While the target has more queued than it can do, waiting costs nothing, because it never runs
/// dry; where each answer takes its time whatever the load, waiting makes requests slower. Which of the
/// two it is can only be measured: now and then a stretch is received eagerly, and the share of a
/// request's time that may be waited grows while that makes no difference, and shrinks when it does. At the
/// beginning, and after it shrank, the next such stretch comes soon.
///
/// Pure: latencies go in, a span comes out.
struct ReceiveCoalescing {
    /// With fewer requests under way there is nothing to gather.
    static let leastInFlight = 8
    /// The same where answers come in pieces, which gather as well.
    static let leastInFlightOfLargePieces = 2
    /// Of so many gathered stretches one is followed by an eager one, at the most and at the least.
    static let (shortestPeriod, longestPeriod) = (2, 32)
    /// In 64ths of the mean latency.
    static let initialShare: UInt64 = 16
    static let largestShare: UInt64 = 32

    /// Never longer than this, in nanoseconds; 0 turns it off.
    let limit: UInt64
    /// So many requests' mean latency is compared.
    private let stretch: Int

    private(set) var share = Self.initialShare
    private var isEager = false
    private var period = Self.shortestPeriod
    private var stretchesUntilEager = Self.shortestPeriod
    private var count = 0
    private var sum: UInt64 = 0
    /// Running mean in nanoseconds; 0 before the first request.
    private var mean: UInt64 = 0
    private var gatheredMean: UInt64 = 0

    init(limitNanoseconds: UInt64, stretch: Int = 512) {
        limit = limitNanoseconds
        self.stretch = stretch
    }

    /// One request ended well after `latency` nanoseconds.
    @inline(__always)
    mutating func finished(latency: UInt64) {
        guard limit > 0 else { return }
        // One that was held up for milliseconds says nothing about the rest.
        let bounded = mean == 0 ? latency : min(latency, mean &* 4)
        mean = mean == 0 ? bounded : mean &- mean / 64 &+ bounded / 64
        sum &+= bounded
        count += 1
        if count == stretch { endStretch() }
    }

    private mutating func endStretch() {
        let stretchMean = sum / UInt64(count)
        count = 0
        sum = 0
        if isEager {
            isEager = false
            judge(eagerMean: stretchMean)
            stretchesUntilEager = period
        } else {
            gatheredMean = stretchMean
            stretchesUntilEager -= 1
            isEager = stretchesUntilEager == 0
        }
    }

    private mutating func judge(eagerMean: UInt64) {
        // A twentieth is noise.
        guard gatheredMean > eagerMean &+ eagerMean / 20 else {
            share = min(share + 4, Self.largestShare)
            period = min(period * 2, Self.longestPeriod)
            return
        }
        let isMuchSlower = gatheredMean > eagerMean &+ eagerMean / 8
        share -= isMuchSlower ? (share + 1) / 2 : (share + 3) / 4
        period = Self.shortestPeriod
    }

    /// How long to gather while so many requests are under way.
    /// - Parameter arePiecesLarge: whether answers come that take several receives each.
    @inline(__always)
    func nanoseconds(inFlight: Int, arePiecesLarge: Bool = false) -> UInt64 {
        if isEager || inFlight < (arePiecesLarge ? Self.leastInFlightOfLargePieces : Self.leastInFlight) { return 0 }
        // Where hardly more than one answer comes in the longest wait there may be, it costs a timer and saves nothing.
        guard arePiecesLarge || 2 &* limit &* UInt64(inFlight) >= 3 &* mean else { return 0 }
        return min(limit, mean &* share / 64)
    }
}
