public import Timebase

/// One path carries everything: the first usable one, primaries before standbys, then in configured
/// order. When a path that was lost returns before it in that order, `fail-back` says when to return.
public struct FailOverOnly: LoadBalancePolicy {
    private let mode: FailBack
    private var current: Int32 = -1
    private var reason = SelectionReason.noCandidate
    /// When a path that is back will have been usable for long enough.
    public private(set) var nextDeadline = Instant.distantFuture

    /// With the way in which traffic goes back.
    public init(failBack: FailBack = .immediate) { mode = failBack }

    /// `fail-over-only`
    public var name: String { PolicyKind.failOverOnly.rawValue }

    /// See ``LoadBalancePolicy/candidatesChanged(_:at:)``.
    public mutating func candidatesChanged(_ table: CandidateTable, at now: Instant) {
        settle(table, at: now, forced: false)
    }

    /// See ``LoadBalancePolicy/failBack(_:at:)``.
    public mutating func failBack(_ table: CandidateTable, at now: Instant) {
        settle(table, at: now, forced: true)
    }

    private mutating func settle(_ table: CandidateTable, at now: Instant, forced: Bool) {
        nextDeadline = .distantFuture
        let eligible = table.eligible()
        guard let best = eligible.first(where: { table[$0].role == .primary }) ?? eligible.first else {
            current = -1
            return
        }
        let stays = current >= 0 && eligible.contains(current)
        if best == current || !stays || forced || !waits(table[best], at: now) {
            current = best
            reason = Self.standing(of: best, table)
        } else {
            reason = .failBackPending
        }
    }

    /// Whether going back to `best` has to wait; sets the deadline where it waits for a time.
    private mutating func waits(_ best: PathCandidate, at now: Instant) -> Bool {
        // At the start the first path may only have been slower to connect than the second.
        guard best.wasLost else { return false }
        switch mode {
        case .immediate: return false
        case .manual: return true
        case .after(let pause):
            let due = best.usableSince + pause
            if due <= now { return false }
            nextDeadline = due
            return true
        }
    }

    private static func standing(of row: Int32, _ table: CandidateTable) -> SelectionReason {
        let earlier = (0..<Int32(table.count)).contains {
            $0 != row && !table[$0].isRemoved && precedes(table[$0], table[row])
        }
        return earlier ? .failedOver : .firstInOrder
    }

    private static func precedes(_ left: PathCandidate, _ right: PathCandidate) -> Bool {
        left.role == right.role ? left.order < right.order : left.role == .primary
    }

    /// See ``LoadBalancePolicy/select(_:from:at:)``.
    public mutating func select(
        _ request: PolicyRequest, from table: CandidateTable, at now: Instant
    ) -> Selection {
        if current < 0 { return .none }
        // A full path is waited for: that it is busy is no failure.
        return table.rows[Int(current)].hasRoom ? Selection(index: current, reason: reason) : .noRoom
    }
}

