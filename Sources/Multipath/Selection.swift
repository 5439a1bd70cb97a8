/// Why a policy chose what it chose; plain data, put into words by ``Selection/words``.
@frozen
public enum SelectionReason: Hashable, Sendable {
    /// Nothing usable.
    case noCandidate
    /// Something is usable, but it has as many requests outstanding as it may have.
    case noRoom
    /// The only one of the best grade.
    case onlyOne
    /// First of the usable ones in configured order.
    case firstInOrder
    /// An earlier one is missing; this is the next usable in order.
    case failedOver
    /// An earlier one is back, but fail-back waits.
    case failBackPending
    /// Its turn, one of `of` that take turns.
    case turn(of: Int32)
    /// Its turn goes on until so many requests or bytes more have gone.
    case turnContinues(left: UInt64, inBytes: Bool)
    /// A standby's turn: it stands in for a missing primary.
    case standInTurn(of: Int32)
    /// The fewest requests outstanding: so many, where the next best has `next` (-1: there is none).
    case fewestRequests(count: Int, next: Int)
    /// The fewest bytes outstanding.
    case fewestBytes(count: Int, next: Int)
    /// Several are equal at this many; they take turns.
    case tie(count: Int, of: Int32)
    /// Its share of the weights.
    case weightShare(weight: UInt16, of: UInt32)
    /// The lowest weight carries all.
    case lowestWeight(UInt16)
    /// Continues a sequential stream whose last request went there.
    case sequentialStream
    /// A DSM's own rule.
    case deviceRule
    /// Asked once more where it failed, as the error table says.
    case retrySamePath
    /// Anywhere but where it failed, as the error table says.
    case retryOtherPath
}

/// A policy's answer: which row, and why.
@frozen
public struct Selection: Hashable, Sendable {
    /// The row, or -1 where none can take the request now.
    public var index: Int32
    /// Why this row, or why none.
    public var reason: SelectionReason

    /// A row and the reason for it.
    @inlinable
    public init(index: Int32, reason: SelectionReason) {
        self.index = index
        self.reason = reason
    }

    /// No row can ever take the request, as things are.
    @inlinable public static var none: Selection { Selection(index: -1, reason: .noCandidate) }
    /// Rows are usable, and all of them full.
    @inlinable public static var noRoom: Selection { Selection(index: -1, reason: .noRoom) }
    /// Whether a row was chosen.
    @inlinable public var isChosen: Bool { index >= 0 }
}

extension Selection {
    /// The reason as a phrase that follows a path's name, e.g. "has 3 outstanding, the next best 7".
    public var words: String {
        switch reason {
        case .noCandidate: "no path is usable"
        case .noRoom: "every eligible path has as many requests outstanding as it may have"
        case .onlyOne: "the only path of the best access state"
        case .firstInOrder: "first usable path in configured order"
        case .failedOver: "next usable path in configured order; an earlier one is missing"
        case .failBackPending: "carries on although an earlier path is usable again; fail-back is pending"
        case .turn(let count): "its turn among \(count)"
        case .turnContinues(let left, let inBytes):
            "its turn continues for \(left) more \(inBytes ? "bytes" : "requests")"
        case .standInTurn(let count): "its turn among \(count); a standby that stands in for a primary"
        case .fewestRequests(let count, let next):
            next < 0 ? "\(count) outstanding" : "\(count) outstanding, the next best has \(next)"
        case .fewestBytes(let count, let next):
            next < 0 ? "\(count) bytes outstanding" : "\(count) bytes outstanding, the next best has \(next)"
        case .tie(let count, let of): "equal with \(of - 1) more at \(count) outstanding; they take turns"
        case .weightShare(let weight, let of): "its share, \(weight) of \(of)"
        case .lowestWeight(let weight): "lowest weight (\(weight)) carries all"
        case .sequentialStream: "continues the sequential stream that it carried"
        case .deviceRule: "a rule of the device-specific module"
        case .retrySamePath: "a retry on the same path"
        case .retryOtherPath: "a retry on another path than before"
        }
    }
}
