public import Timebase

/// Requests rotate over all paths of the best grade, `switch-after` at a time.
public struct RoundRobin: LoadBalancePolicy {
    private var rotation: Rotation

    public init(switchAfter: SwitchAfter = .requests(1)) { rotation = Rotation(switchAfter: switchAfter) }

    public var name: String { PolicyKind.roundRobin.rawValue }

    public mutating func candidatesChanged(_ table: CandidateTable, at now: Instant) {
        rotation.setMembers(table.eligible())
    }

    public mutating func select(
        _ request: PolicyRequest, from table: CandidateTable, at now: Instant
    ) -> Selection {
        if rotation.members.isEmpty { return .none }
        let (index, continues) = rotation.take(byteCount: request.byteCount, from: table)
        return index < 0 ? .noRoom : Selection(index: index, reason: rotation.reason(continues: continues))
    }
}
