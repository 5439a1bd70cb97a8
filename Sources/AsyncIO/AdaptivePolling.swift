/// Whether to look for completions for a moment before sleeping.
///
/// Where an answer takes some tens of microseconds, falling asleep and being woken costs about as much
/// processor time as looking for it, and comes later: the processor has to be interrupted. Where it takes
/// longer, or another program needs this processor to make the answer, looking is a waste. Which of the two it is
/// can only be measured: waits are counted in stretches, of which now and then one is spent the other way, and
/// the processor time per byte moved of the two decides.
///
/// Pure: outcomes and processor time go in, a decision comes out.
struct AdaptivePolling {
    /// Waits in a stretch.
    static let stretch = 64
    /// One stretch in so many is a trial of the other way.
    static let period = 64
    /// Looking that found nothing this often, and more often than not, ends a stretch before its time.
    static let patience = 12
    /// Polling may cost this much more than sleeping, in percent: what comes sooner is worth something.
    static let allowance: UInt64 = 10

    /// How long to look, in nanoseconds; 0: never.
    let limit: UInt64

    /// What the last comparison said.
    private(set) var prefersPolling = false
    private var isTrial = false
    /// The first trial comes early, so that a short-lived program profits too.
    private var stretchesUntilTrial = 2
    private var waits = 0
    private var misses = 0
    private var usedAtStart: UInt64 = 0
    private var bytesAtStart: UInt64 = 0
    /// Something else than waiting and working went on: this stretch says nothing.
    private var isDisturbed = false
    /// Nanoseconds per mebibyte of the last stretch that was no trial.
    private var usualCost: UInt64?

    init(limitNanoseconds: UInt64) { limit = limitNanoseconds }

    /// Whether to look before the next sleep.
    @inline(__always)
    var polls: Bool { limit > 0 && prefersPolling != isTrial }

    /// One wait is over; `found` says whether looking sufficed. True: the stretch is over, and ``endStretch(used:bytes:)``
    /// is to be called.
    @inline(__always)
    mutating func waited(found: Bool) -> Bool {
        waits += 1
        if !found { misses += 1 }
        return waits >= Self.stretch || polls && misses >= Self.patience && 2 * misses > waits
    }

    /// Requests were handled in the present stretch that it is not about.
    @inline(__always)
    mutating func disturb() { isDisturbed = true }

    /// - Parameters:
    ///   - used: processor time of the loop's thread so far, in nanoseconds.
    ///   - bytes: moved through sockets so far, both ways.
    mutating func endStretch(used: UInt64, bytes: UInt64) {
        let cost = Self.cost(used &- usedAtStart, bytes &- bytesAtStart)
        let wasInVain = polls && 2 * misses > waits
        usedAtStart = used
        bytesAtStart = bytes
        waits = 0
        misses = 0
        if isDisturbed {
            isDisturbed = false
            guard wasInVain else { return }
            prefersPolling = false
            if isTrial { stretchesUntilTrial = Self.period }
            isTrial = false
        } else if isTrial {
            judge(trialCost: cost, wasInVain: wasInVain)
            isTrial = false
            stretchesUntilTrial = Self.period
        } else {
            usualCost = cost
            if wasInVain { prefersPolling = false }
            stretchesUntilTrial -= 1
            isTrial = stretchesUntilTrial <= 0
        }
    }

    private mutating func judge(trialCost: UInt64?, wasInVain: Bool) {
        guard let trialCost, let usualCost, !wasInVain else {
            prefersPolling = false
            return
        }
        let (polling, sleeping) = prefersPolling ? (usualCost, trialCost) : (trialCost, usualCost)
        prefersPolling = polling <= sleeping &+ sleeping / 100 * Self.allowance
        self.usualCost = prefersPolling ? polling : sleeping
    }

    /// Nil where nothing was moved.
    private static func cost(_ nanoseconds: UInt64, _ bytes: UInt64) -> UInt64? {
        guard bytes > 0 else { return nil }
        let (high, low) = min(nanoseconds, 1 << 40).multipliedFullWidth(by: 1 << 20)
        return high < bytes ? bytes.dividingFullWidth((high, low)).quotient : .max / 256
    }
}
