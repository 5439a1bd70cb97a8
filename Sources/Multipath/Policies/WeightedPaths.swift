public import Timebase

/// Traffic in proportion to the paths' weights, interleaved as smoothly as the weights allow: every path
/// earns its weight at each choice, the richest is chosen and pays what all earned together. With
/// `priority` the lowest weight carries all, as Windows ships it.
public struct WeightedPaths: LoadBalancePolicy {
    private struct Share {
        var row: Int32
        var weight: UInt16
        var credit: Int64
    }

    private let meaning: WeightMeaning
    private var shares: [Share] = []

    /// With what weights mean.
    public init(meaning: WeightMeaning = .proportional) { self.meaning = meaning }

    /// `weighted-paths`
    public var name: String { PolicyKind.weightedPaths.rawValue }

    /// See ``LoadBalancePolicy/candidatesChanged(_:at:)``.
    public mutating func candidatesChanged(_ table: CandidateTable, at now: Instant) {
        let eligible = table.eligible()
        let same =
            eligible.count == shares.count
            && zip(eligible, shares).allSatisfy { $0 == $1.row && table[$0].weight == $1.weight }
        // Credits mean something only among the paths that earned them together.
        if !same { shares = eligible.map { Share(row: $0, weight: max(table[$0].weight, 1), credit: 0) } }
    }

    /// See ``LoadBalancePolicy/select(_:from:at:)``.
    public mutating func select(
        _ request: PolicyRequest, from table: CandidateTable, at now: Instant
    ) -> Selection {
        if shares.isEmpty { return .none }
        return meaning == .priority ? lowest(table) : richest(table)
    }

    private func lowest(_ table: CandidateTable) -> Selection {
        var best = shares[0]
        for share in shares where share.weight < best.weight { best = share }
        guard table.rows[Int(best.row)].hasRoom else { return .noRoom }
        return Selection(index: best.row, reason: .lowestWeight(best.weight))
    }

    private mutating func richest(_ table: CandidateTable) -> Selection {
        shares.withUnsafeMutableBufferPointer { shares in
            var total: Int64 = 0
            var best = -1
            for place in shares.indices where table.rows[Int(shares[place].row)].hasRoom {
                shares[place].credit += Int64(shares[place].weight)
                total += Int64(shares[place].weight)
                if best < 0 || shares[place].credit > shares[best].credit { best = place }
            }
            guard best >= 0 else { return .noRoom }
            shares[best].credit -= total
            return Selection(
                index: shares[best].row,
                reason: shares.count == 1
                    ? .onlyOne : .weightShare(weight: shares[best].weight, of: UInt32(total)))
        }
    }
}
