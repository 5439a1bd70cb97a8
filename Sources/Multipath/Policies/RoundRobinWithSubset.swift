public import Timebase

/// Primary paths rotate and standby paths wait. Each primary that is missing is replaced by one standby,
/// which waits again as soon as that primary is back (or, Windows' way, all standbys rotate once no
/// primary is left).
///
/// A primary of a lesser access state than the best on offer counts as missing: it carries nothing.
public struct RoundRobinWithSubset: LoadBalancePolicy {
    private var rotation: Rotation
    private let activateStandby: ActivateStandby
    /// For each row, the standby that stands in for it, or -1.
    private var standIns: [Int32] = []

    /// With the length of a turn, and when standbys are called in.
    public init(
        switchAfter: SwitchAfter = .requests(1), activateStandby: ActivateStandby = .perFailedPrimary
    ) {
        rotation = Rotation(switchAfter: switchAfter)
        self.activateStandby = activateStandby
    }

    /// `round-robin-with-subset`
    public var name: String { PolicyKind.roundRobinWithSubset.rawValue }

    /// See ``LoadBalancePolicy/candidatesChanged(_:at:)``.
    public mutating func candidatesChanged(_ table: CandidateTable, at now: Instant) {
        let eligible = table.eligible()
        let primaries = eligible.filter { table[$0].role == .primary }
        let standbys = eligible.filter { table[$0].role == .standby }
        switch activateStandby {
        case .whenNoneLeft:
            rotation.setMembers(primaries.isEmpty ? standbys : primaries)
        case .perFailedPrimary:
            let called = assignStandIns(primaries: primaries, standbys: standbys, table)
            var members = primaries + standbys.filter(called.contains)
            // All paths are configured as standbys: one of them must carry the data all the same.
            if members.isEmpty, let first = standbys.first { members = [first] }
            rotation.setMembers(members)
        }
    }

    /// Keeps each stand-in with its primary for as long as both facts hold, then fills the gaps in order.
    private mutating func assignStandIns(
        primaries: [Int32], standbys: [Int32], _ table: CandidateTable
    ) -> [Int32] {
        while standIns.count < table.count { standIns.append(-1) }
        var called: [Int32] = []
        var uncovered: [Int32] = []
        for row in Self.configuredPrimaries(table) {
            let current = standIns[Int(row)]
            if primaries.contains(row) {
                standIns[Int(row)] = -1
            } else if current >= 0, standbys.contains(current) {
                called.append(current)
            } else {
                standIns[Int(row)] = -1
                uncovered.append(row)
            }
        }
        for row in uncovered {
            guard let free = standbys.first(where: { !called.contains($0) }) else { break }
            standIns[Int(row)] = free
            called.append(free)
        }
        return called
    }

    private static func configuredPrimaries(_ table: CandidateTable) -> [Int32] {
        (0..<Int32(table.count)).filter { table[$0].role == .primary && !table[$0].isRemoved }
            .sorted { table[$0].order < table[$1].order }
    }

    /// See ``LoadBalancePolicy/select(_:from:at:)``.
    public mutating func select(
        _ request: PolicyRequest, from table: CandidateTable, at now: Instant
    ) -> Selection {
        if rotation.members.isEmpty { return .none }
        let (index, continues) = rotation.take(byteCount: request.byteCount, from: table)
        if index < 0 { return .noRoom }
        if table.rows[Int(index)].role == .standby, !continues {
            return Selection(index: index, reason: .standInTurn(of: Int32(rotation.members.count)))
        }
        return Selection(index: index, reason: rotation.reason(continues: continues))
    }
}
