import Multipath
import SCSI

/// What the engine keeps of a request beside what ``PseudoLUN`` knows: whose it is, where its data lies,
/// and what still touches that memory. Indexed by `RequestIndex.slot`.
struct RequestRecord {
    var submission: IOSubmission
    /// The current attempt.
    var index: RequestIndex
    /// When the current attempt was issued, in nanoseconds of the port's clock.
    var issuedAt: UInt64 = 0
    /// Attempts that a device still works on with the caller's memory, the current one included.
    var borrowers: Int32 = 0
    /// The request is over, but a withdrawn attempt still holds the memory.
    var isOver = false
    var result = RequestResult.done
    /// A parameter list or a block of zeroes, sent instead of the caller's memory.
    var parameters: UnsafeMutableRawBufferPointer?
    /// The whole that this is a part of, or -1.
    var parent: Int32 = -1
}

/// Records in preallocated memory, one for each slot of the pseudo-LUN's table.
struct RequestTable: ~Copyable {
    private let records: UnsafeMutablePointer<RequestRecord>
    let capacity: Int

    init(capacity: Int) {
        self.capacity = capacity
        records = .allocate(capacity: capacity)
    }

    deinit { records.deallocate() }

    @inline(__always)
    subscript(_ index: RequestIndex) -> UnsafeMutablePointer<RequestRecord> {
        precondition(index.slot < UInt32(truncatingIfNeeded: capacity), "a request of another table")
        return records + Int(index.slot)
    }

    @inline(__always)
    subscript(slot slot: UInt32) -> UnsafeMutablePointer<RequestRecord>? {
        slot < UInt32(truncatingIfNeeded: capacity) ? records + Int(slot) : nil
    }
}

/// A request that was larger than the target takes at once, while its parts are under way.
struct SplitRequest {
    var submission: IOSubmission
    /// Bytes from its start that were submitted as parts.
    var submittedByteCount: Int
    var partsUnderWay: Int
    /// The first part's failure that came.
    var error: DiskError?
}

/// Split requests, few at a time; places are reused.
struct SplitRequestTable {
    private var entries: [SplitRequest?] = []

    mutating func add(_ request: SplitRequest) -> Int32 {
        if let free = entries.firstIndex(where: { $0 == nil }) {
            entries[free] = request
            return Int32(free)
        }
        entries.append(request)
        return Int32(entries.count - 1)
    }

    subscript(_ index: Int32) -> SplitRequest {
        get {
            guard let request = entries[Int(index)] else { preconditionFailure("no such split request") }
            return request
        }
        set { entries[Int(index)] = newValue }
    }

    mutating func remove(_ index: Int32) { entries[Int(index)] = nil }
}
