public import Timebase

/// When a lost path is tried again: after an interval that doubles with each failed try.
public struct RecoverySchedule: Hashable, Sendable {
    /// Tries since the path was last well.
    public private(set) var attempts: Int = 0

    /// No try yet.
    public init() {}

    /// The pause before the next try, which this counts.
    public mutating func nextPause(_ timers: Timers) -> Duration {
        var pause = max(timers.pathRecoveryInterval, .milliseconds(1))
        let maximum = max(timers.pathRecoveryIntervalMaximum, pause)
        for _ in 0..<min(attempts, 63) {
            if pause >= maximum { break }
            pause += pause
        }
        attempts += 1
        return min(pause, maximum)
    }

    /// The path is well: the next loss begins with the first pause.
    public mutating func reset() { attempts = 0 }
}

/// Tells a path that keeps failing from one that failed once.
public struct MarginalTracker: Hashable, Sendable {
    /// Losses that still count, oldest first; never more than the setting's count.
    private var losses: [Instant] = []
    private var holds: Int = 0
    private var lastLoss: Instant = .zero

    /// No loss yet.
    public init() {}

    /// Counts a loss; the hold that it earns, nil while the path is not marginal. Each loss while it is
    /// marginal doubles the hold; a time of `holdMaximum` without a loss forgives all.
    public mutating func lost(at now: Instant, _ settings: MarginalPathSettings) -> Duration? {
        if now - lastLoss > max(settings.holdMaximum, settings.window) {
            holds = 0
            losses.removeAll(keepingCapacity: true)
        }
        lastLoss = now
        losses.removeAll { now - $0 > settings.window }
        losses.append(now)
        let needed = max(settings.lossCount, 2)
        if losses.count > needed { losses.removeFirst(losses.count - needed) }
        guard losses.count >= needed || holds > 0 else { return nil }
        var hold = settings.firstHold
        for _ in 0..<min(holds, 63) {
            if hold >= settings.holdMaximum { break }
            hold += hold
        }
        holds += 1
        return min(hold, settings.holdMaximum)
    }
}
