public import Timebase

/// The path whose transport has the least data outstanding; ties rotate. With `sequential-affinity` a
/// request that begins where the last one on a path ended follows it there: reads always, writes while
/// the path has at most 1 MiB outstanding with them, so that one stream of writes does not pile up.
public struct LeastBlocks: LoadBalancePolicy {
    private static let writeAffinityByteLimit = 1 << 20

    private let sequentialAffinity: Bool
    private var members: [Int32] = []
    private var next = 0
    /// For each row, the block after its last request; `UInt64.max` before the first.
    private var streamEnds: [UInt64] = []

    /// With or without keeping a sequential stream on its path.
    public init(sequentialAffinity: Bool = false) { self.sequentialAffinity = sequentialAffinity }

    /// `least-blocks`
    public var name: String { PolicyKind.leastBlocks.rawValue }

    /// See ``LoadBalancePolicy/candidatesChanged(_:at:)``.
    public mutating func candidatesChanged(_ table: CandidateTable, at now: Instant) {
        members = table.eligible()
        if next >= members.count { next = 0 }
        while streamEnds.count < table.count { streamEnds.append(.max) }
    }

    /// See ``LoadBalancePolicy/select(_:from:at:)``.
    public mutating func select(
        _ request: PolicyRequest, from table: CandidateTable, at now: Instant
    ) -> Selection {
        let count = members.count
        if count == 0 { return .none }
        if sequentialAffinity, request.blockCount > 0, let row = stream(of: request, table) {
            streamEnds[Int(row)] = request.lba &+ UInt64(request.blockCount)
            return Selection(index: row, reason: .sequentialStream)
        }
        let found = members.withUnsafeBufferPointer {
            LeastLoad.find($0, startingAt: next, table) { $0.pointee.bytes }
        }
        if found.place < 0 { return .noRoom }
        next = found.place + 1 == count ? 0 : found.place + 1
        let row = members[found.place]
        if sequentialAffinity, request.blockCount > 0 {
            streamEnds[Int(row)] = request.lba &+ UInt64(request.blockCount)
        }
        return Selection(index: row, reason: found.reason(count) { .fewestBytes(count: $0, next: $1) })
    }

    private func stream(of request: PolicyRequest, _ table: CandidateTable) -> Int32? {
        for row in members where streamEnds[Int(row)] == request.lba {
            let candidate = table.rows + Int(row)
            guard candidate.pointee.hasRoom else { continue }
            let outstanding = candidate.pointee.load.pointee.bytes
            if request.isRead || outstanding + Int(request.byteCount) <= Self.writeAffinityByteLimit {
                return row
            }
        }
        return nil
    }
}
