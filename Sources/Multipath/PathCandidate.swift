public import SCSI
public import Timebase

/// How good a candidate is, worst first. Only the best grade that any candidate has carries data.
@frozen
public enum PathGrade: UInt8, Hashable, Comparable, Sendable {
    /// Failed, standby, unavailable, stalled, drained, refused: never chosen.
    case unusable
    /// Works, but failed so often lately that it is taken only when nothing else is left.
    case marginal
    case nonOptimized
    case optimized
    /// Optimized, and the array would rather have it used than others that are.
    case preferred

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
    public var grade: PathGrade
    public var role: PathRole
    public var weight: UInt16
    /// Whether it was ever lost: only what was lost can "return" (fail-back).
    public var wasLost: Bool
    /// Taken out of the configuration; the row stays because indices are never reused.
    public var isRemoved: Bool
    /// The place in the configured order, 0 first; no two rows share one.
    public var order: Int32
    /// What this owner has outstanding here, and how much it may have.
    public var inFlight: Int32
    public var depthLimit: Int32
    public var usableSince: Instant
    /// Shared with every owner that uses the same transport.
    public var load: UnsafeMutablePointer<LoadCounters>

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

    @inlinable public var hasRoom: Bool { inFlight < depthLimit }
}

/// The rows a policy chooses from. A view: whoever made the table owns the memory.
@frozen
public struct CandidateTable {
    public var rows: UnsafeMutablePointer<PathCandidate>
    public var count: Int

    @inlinable
    public init(rows: UnsafeMutablePointer<PathCandidate>, count: Int) {
        self.rows = rows
        self.count = count
    }

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
    public var lba: UInt64
    public var blockCount: UInt32
    public var byteCount: UInt32
    /// Whether data comes from the LUN.
    public var isRead: Bool

    @inlinable
    public init(lba: UInt64 = 0, blockCount: UInt32 = 0, byteCount: UInt32 = 0, isRead: Bool = true) {
        self.lba = lba
        self.blockCount = blockCount
        self.byteCount = byteCount
        self.isRead = isRead
    }
}
