/// How long commands may lie before they are received together.
///
/// An initiator that sends each command by a call of its own is otherwise answered one by one, and most of what a small command
/// costs a target is the calls for it: gathered, several arrive, and are answered, in one. Waiting must not make the
/// initiator slower, and whether it does can only be measured: where it has many commands out, it goes on meanwhile; where
/// it has few, it waits as well. So commands are counted in stretches, of which now and then one is spent with a longer or a
/// shorter wait, and the time that a stretch takes decides.
///
/// What comes after a pause is never kept waiting: the wait counts from the turn before. Nor is anything where commands move
/// so much each that the calls hardly count.
///
/// Pure: counts and moments go in, a span comes out.
struct CommandGathering {
    /// Commands in a stretch.
    static let stretch = 512
    /// One stretch in so many is a trial: soon at first and after one that paid, so that a short connection profits too, and
    /// each that did not pay puts the next one off for twice as long.
    static let (shortestPeriod, longestPeriod) = (2, 32)
    static let highestLevel = 4
    /// Nothing gathers where a stretch takes longer: 25,000 commands a second are one in 40 µs.
    static let slowestStretch: UInt64 = 512 * 40_000
    /// Nor where commands move more on average, in bytes.
    static let largestMeanByteCount = 32 << 10

    /// Doublings of the wait; 0: none.
    private(set) var level = 0
    /// What had proved best before a pause, until it was tried again.
    private var remembered = 0
    private var trial: Int?
    private var goesUpNext = true
    private var period = Self.shortestPeriod
    private var stretchesUntilTrial = Self.shortestPeriod
    private var count = 0
    private var byteCount = 0
    private var began: UInt64?
    /// Nanoseconds of the last stretch that was no trial.
    private var usual: UInt64 = 0

    /// The wait from one turn to the next, in nanoseconds: 0, or 20 to 160 µs.
    var nanoseconds: UInt64 {
        let level = trial ?? self.level
        return level == 0 ? 0 : 10_000 << UInt64(level)
    }

    /// So many commands came in a turn at `now`, in nanoseconds, and moved, or will, so many bytes. True: ``nanoseconds`` may
    /// be another one.
    @inline(__always)
    mutating func received(_ commandCount: Int, byteCount: Int, at now: UInt64) -> Bool {
        count += commandCount
        self.byteCount &+= byteCount
        guard count >= Self.stretch else { return false }
        endStretch(at: now)
        return true
    }

    private mutating func endStretch(at now: UInt64) {
        let duration = began.map { ($0 <= now ? now - $0 : 0) / UInt64(count) * UInt64(Self.stretch) }
        let isSmall = byteCount / count <= Self.largestMeanByteCount
        began = now
        count = 0
        byteCount = 0
        // The first one says nothing: nobody knows when it began.
        guard let duration else { return }
        guard duration <= Self.slowestStretch, isSmall else { return pause() }
        guard let tried = trial else {
            usual = duration
            stretchesUntilTrial -= 1
            if stretchesUntilTrial <= 0 { beginTrial() }
            return
        }
        trial = nil
        guard isBetter(tried, duration) else {
            stretchesUntilTrial = period
            period = min(2 * period, Self.longestPeriod)
            return
        }
        // Perhaps there is more to be had the same way.
        stretchesUntilTrial = 1
        period = Self.shortestPeriod
        goesUpNext = tried > level
        level = tried
        usual = duration
    }

    private mutating func pause() {
        if level > 0, trial == nil { remembered = level }
        (level, trial, goesUpNext) = (0, nil, true)
        (period, stretchesUntilTrial) = (Self.shortestPeriod, Self.shortestPeriod)
    }

    /// A longer wait has to cost nothing, a shorter one has to bring more than noise would.
    private func isBetter(_ tried: Int, _ duration: UInt64) -> Bool {
        tried > level ? duration <= usual &+ usual / 50 : duration < usual &- usual / 20
    }

    private mutating func beginTrial() {
        if level == 0, remembered > 0 {
            trial = remembered
            remembered = 0
            return
        }
        let isUp = level == 0 || goesUpNext && level < Self.highestLevel
        trial = isUp ? level + 1 : level - 1
        goesUpNext = !isUp
    }
}
