public import SCSI
public import Timebase

/// How good a candidate is, worst first. Only the best grade that any candidate has carries data.
@frozen
public enum PathGrade: UInt8, Hashable, Comparable, Sendable {
    /// Failed, standby, unavailable, stalled, drained, refused: never chosen.
    case unusable
    /// Works, but failed so often lately that it is taken only when nothing else is left.
    case marginal
    /// Works, but the array would rather have it left alone (ALUA active/non-optimized).
    case nonOptimized
    /// Works (ALUA active/optimized, or a target without ALUA).
    case optimized
    /// Optimized, and the array would rather have it used than others that are.
    case preferred

    /// By how good they are; the best is the greatest.
    @inlinable
    public static func < (left: PathGrade, right: PathGrade) -> Bool { left.rawValue < right.rawValue }

    /// By the access state alone.
    public init(_ state: AccessState) {
        switch state {
        case .optimized, .lbaDependent: self = .optimized
        case .nonOptimized: self = .nonOptimized
        case .standby, .unavailable, .offline, .transitioning: self = .unusable
        }
    }
}

/// One row of the table that a policy chooses from: a path of a LUN, or a connection of a session.
@frozen
public struct PathCandidate {
    /// How good it is now.
    public var grade: PathGrade
    /// Primary or standby, for policies that tell them apart.
    public var role: PathRole
    /// 1…65,535, for policies that weigh.
    public var weight: UInt16
    /// Whether it was ever lost: only what was lost can "return" (fail-back).
    public var wasLost: Bool
    /// Taken out of the configuration; the row stays because indices are never reused.
    public var isRemoved: Bool
    /// The place in the configured order, 0 first; no two rows share one.
    public var order: Int32
    /// What this owner has outstanding here, and how much it may have.
    public var inFlight: Int32
    /// What it may have outstanding; see ``inFlight``.
    public var depthLimit: Int32
    /// Since when it is usable, where it is.
    public var usableSince: Instant
    /// Shared with every owner that uses the same transport.
    public var load: UnsafeMutablePointer<LoadCounters>

    /// A row. `load` has to outlive it.
    @inlinable
    public init(
        grade: PathGrade = .unusable, role: PathRole = .primary, weight: UInt16 = 1, order: Int32,
        load: UnsafeMutablePointer<LoadCounters>
    ) {
        self.grade = grade
        self.role = role
        self.weight = weight
        self.order = order
        self.load = load
        wasLost = false
        isRemoved = false
        inFlight = 0
        depthLimit = .max
        usableSince = .zero
    }

    /// Whether it may have one more request outstanding.
    @inlinable public var hasRoom: Bool { inFlight < depthLimit }
}

/// The rows a policy chooses from. A view: whoever made the table owns the memory.
@frozen
public struct CandidateTable {
    /// The first row.
    public var rows: UnsafeMutablePointer<PathCandidate>
    /// How many rows; removed paths keep theirs.
    public var count: Int

    /// A table over rows that somebody else owns.
    @inlinable
    public init(rows: UnsafeMutablePointer<PathCandidate>, count: Int) {
        self.rows = rows
        self.count = count
    }

    /// The row of a path, by its index, 0 ..< ``count``. Not checked in release builds.
    @inlinable public subscript(_ index: Int32) -> PathCandidate {
        unsafeAddress { UnsafePointer(rows + Int(index)) }
    }

    /// The best grade of all rows; `.unusable` where none can carry data.
    public var bestGrade: PathGrade {
        var best = PathGrade.unusable
        for index in 0..<count { best = max(best, rows[index].grade) }
        return best
    }

    /// The rows of the best grade in configured order. Control path: it allocates.
    public func eligible() -> [Int32] {
        let best = bestGrade
        guard best > .unusable else { return [] }
        return (0..<Int32(count)).filter { self[$0].grade == best }
            .sorted { self[$0].order < self[$1].order }
    }
}

/// What a policy may look at in a request.
@frozen
public struct PolicyRequest: Hashable, Sendable {
    /// The first block.
    public var lba: UInt64
    /// How many blocks.
    public var blockCount: UInt32
    /// How many bytes are carried, either way.
    public var byteCount: UInt32
    /// Whether data comes from the LUN.
    public var isRead: Bool

    /// A request as a policy sees it.
    @inlinable
    public init(lba: UInt64 = 0, blockCount: UInt32 = 0, byteCount: UInt32 = 0, isRead: Bool = true) {
        self.lba = lba
        self.blockCount = blockCount
        self.byteCount = byteCount
        self.isRead = isRead
    }
}
