public import Timebase

/// Requests rotate over all paths of the best grade, `switch-after` at a time.
public struct RoundRobin: LoadBalancePolicy {
    private var rotation: Rotation

    /// With the length of a turn.
    public init(switchAfter: SwitchAfter = .requests(1)) { rotation = Rotation(switchAfter: switchAfter) }

    /// `round-robin`
    public var name: String { PolicyKind.roundRobin.rawValue }

    /// See ``LoadBalancePolicy/candidatesChanged(_:at:)``.
    public mutating func candidatesChanged(_ table: CandidateTable, at now: Instant) {
        rotation.setMembers(table.eligible())
    }

    /// See ``LoadBalancePolicy/select(_:from:at:)``.
    public mutating func select(
        _ request: PolicyRequest, from table: CandidateTable, at now: Instant
    ) -> Selection {
        if rotation.members.isEmpty { return .none }
        let (index, continues) = rotation.take(byteCount: request.byteCount, from: table)
        return index < 0 ? .noRoom : Selection(index: index, reason: rotation.reason(continues: continues))
    }
}
