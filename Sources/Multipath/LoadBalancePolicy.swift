public import Timebase

/// A rule that shares requests among candidates: paths of a LUN, or connections of a session.
///
/// A policy is a value: a copy of it answers "what would you choose?" without disturbing the original.
/// It keeps what it needs about the candidates in ``candidatesChanged(_:at:)`` (control path, may
/// allocate) so that ``select(_:from:at:)`` (once per request) need not.
public protocol LoadBalancePolicy: Sendable {
    /// The name that the inspector shows.
    var name: String { get }

    /// A grade, role, weight or order changed, or a row was added. Called before the next selection.
    mutating func candidatesChanged(_ table: CandidateTable, at now: Instant)

    /// Chooses a row for the request and counts it as chosen. Never returns a row that is unusable or
    /// has no room. Must not allocate.
    mutating func select(_ request: PolicyRequest, from table: CandidateTable, at now: Instant) -> Selection

    /// When the choice may change without any event; ``candidatesChanged(_:at:)`` is called then.
    var nextDeadline: Instant { get }

    /// Goes back to the preferred candidate at once, where the policy has one.
    mutating func failBack(_ table: CandidateTable, at now: Instant)
}

extension LoadBalancePolicy {
    /// Never: only events change the choice.
    public var nextDeadline: Instant { .distantFuture }
    /// Nothing: the policy has no preferred candidate.
    public mutating func failBack(_ table: CandidateTable, at now: Instant) {}
}

extension PolicySettings {
    /// The policy that these settings describe, at its beginning.
    public func makePolicy() -> any LoadBalancePolicy {
        switch kind {
        case .failOverOnly: FailOverOnly(failBack: options.failBack)
        case .roundRobin: RoundRobin(switchAfter: options.switchAfter)
        case .roundRobinWithSubset:
            RoundRobinWithSubset(switchAfter: options.switchAfter, activateStandby: options.activateStandby)
        case .leastQueueDepth: LeastQueueDepth()
        case .weightedPaths: WeightedPaths(meaning: options.weights)
        case .leastBlocks: LeastBlocks(sequentialAffinity: options.sequentialAffinity)
        }
    }
}
