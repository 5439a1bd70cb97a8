public import Timebase

/// The path whose transport has the fewest requests outstanding, all LUNs counted; ties rotate.
public struct LeastQueueDepth: LoadBalancePolicy {
    private var members: [Int32] = []
    private var next = 0

    /// It has no options.
    public init() {}

    /// `least-queue-depth`
    public var name: String { PolicyKind.leastQueueDepth.rawValue }

    /// See ``LoadBalancePolicy/candidatesChanged(_:at:)``.
    public mutating func candidatesChanged(_ table: CandidateTable, at now: Instant) {
        members = table.eligible()
        if next >= members.count { next = 0 }
    }

    /// See ``LoadBalancePolicy/select(_:from:at:)``.
    public mutating func select(
        _ request: PolicyRequest, from table: CandidateTable, at now: Instant
    ) -> Selection {
        let count = members.count
        if count == 0 { return .none }
        let found = members.withUnsafeBufferPointer {
            LeastLoad.find($0, startingAt: next, table) { $0.pointee.requests }
        }
        if found.place < 0 { return .noRoom }
        next = found.place + 1 == count ? 0 : found.place + 1
        return Selection(index: members[found.place], reason: found.reason(count) {
            .fewestRequests(count: $0, next: $1)
        })
    }
}

/// The least loaded of a list, ties to the first from a place that rotates.
struct LeastLoad {
    var place = -1
    var value = Int.max
    var second = Int.max
    var equals: Int32 = 0

    @inline(__always)
    static func find(
        _ members: UnsafeBufferPointer<Int32>, startingAt start: Int, _ table: CandidateTable,
        _ load: (UnsafeMutablePointer<LoadCounters>) -> Int
    ) -> LeastLoad {
        var found = LeastLoad()
        var place = start
        for _ in 0..<members.count {
            let row = table.rows + Int(members[place])
            if row.pointee.hasRoom {
                let value = load(row.pointee.load)
                if value < found.value {
                    found.second = found.value
                    found.value = value
                    found.place = place
                    found.equals = 1
                } else {
                    if value == found.value { found.equals += 1 }
                    if value < found.second { found.second = value }
                }
            }
            place = place + 1 == members.count ? 0 : place + 1
        }
        return found
    }

    @inline(__always)
    func reason(_ count: Int, _ least: (Int, Int) -> SelectionReason) -> SelectionReason {
        if count == 1 { return .onlyOne }
        if equals > 1 { return .tie(count: value, of: equals) }
        return least(value, second == .max ? -1 : second)
    }
}
