public import Timebase

/// One choice of a path, for `mpio explain --last`.
@frozen
public struct Decision: Hashable, Sendable {
    /// When the path was chosen.
    public var at: Instant
    /// The request that it was chosen for.
    public var request: RequestDescriptor
    /// 1 for the first issue, more for retries and re-drives.
    public var tries: UInt16
    /// The path.
    public var path: PathIndex
    /// Why this one.
    public var reason: SelectionReason
}

/// The last decisions, in preallocated memory.
struct DecisionRing {
    private let storage: UnsafeMutablePointer<Decision>
    private let mask: Int
    private var total = 0

    init(capacity wanted: Int = 256) {
        var capacity = 1
        while capacity < wanted { capacity *= 2 }
        mask = capacity - 1
        storage = .allocate(capacity: capacity)
    }

    func deallocate() { storage.deallocate() }

    @inline(__always)
    mutating func record(_ decision: Decision) {
        (storage + (total & mask)).initialize(to: decision)
        total &+= 1
    }

    /// At most `count`, the newest last.
    func last(_ count: Int) -> [Decision] {
        let available = min(total, mask + 1, max(count, 0))
        return ((total - available)..<total).map { storage[$0 & mask] }
    }
}
