import Multipath
import SCSI

/// What the engine keeps of a request beside what ``PseudoLUN`` knows: whose it is and where its data
/// lies. Indexed by `RequestIndex.slot`.
struct RequestRecord {
    var submission: IOSubmission
    /// The current attempt.
    var index: RequestIndex
    /// When the current attempt was issued, in nanoseconds of the port's clock.
    var issuedAt: UInt64 = 0
    /// A parameter list, sent instead of the caller's memory.
    var parameters: UnsafeMutableRawBufferPointer?
    var zeroing: TransferLimits.Zeroing
    /// The split request that this is a part of, or -1.
    var parent: Int32
    var isLive = true

    init(submission: IOSubmission, index: RequestIndex, zeroing: TransferLimits.Zeroing, parent: Int32) {
        self.submission = submission
        self.index = index
        self.zeroing = zeroing
        self.parent = parent
    }
}

/// Records in preallocated memory, one for each slot of the pseudo-LUN's table.
struct RequestTable: ~Copyable {
    private let records: UnsafeMutablePointer<RequestRecord>
    private let capacity: Int
    /// Slots from here on were never used, so that their records hold nothing.
    private var usedCount: UInt32 = 0

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

    /// The record of a slot that was used before; nil for any other number, which only a peer can have invented.
    @inline(__always)
    subscript(slot slot: UInt32) -> UnsafeMutablePointer<RequestRecord>? {
        slot < usedCount ? records + Int(slot) : nil
    }

    @inline(__always)
    mutating func set(_ record: RequestRecord) {
        self[record.index].initialize(to: record)
        if record.index.slot >= usedCount { usedCount = record.index.slot + 1 }
    }

    /// The slot of the first live record that matches.
    func slot(where matches: (RequestRecord) -> Bool) -> UInt32? {
        (0..<usedCount).first { records[Int($0)].isLive && matches(records[Int($0)]) }
    }
}

/// A request that was larger than the target takes at once, while its parts are under way.
struct SplitRequest {
    var submission: IOSubmission
    /// The split request that this is itself a part of, or -1.
    var outer: Int32
    /// Bytes from its start that were submitted as parts.
    var submittedByteCount = 0
    var partsUnderWay = 0
    /// The first part's failure that came.
    var error: DiskError?

    init(submission: IOSubmission, outer: Int32) {
        self.submission = submission
        self.outer = outer
    }

    /// Whether `later` changes blocks that this one will still change by parts which nobody else knows of yet. Any part of a
    /// WRITE SAME may become such parts, until the last one has ended.
    func hasToGoBefore(_ later: IOSubmission) -> Bool {
        let isZeroing = submission.operation == .writeZeroes
        guard error == nil || isZeroing, submission.operation.changesBlocks else { return false }
        let done = isZeroing ? 0 : submittedByteCount
        let end = submission.offset + UInt64(submission.byteCount)
        return submission.offset + UInt64(done) < later.offset + UInt64(later.byteCount) && later.offset < end
            && done < submission.byteCount
    }
}

/// Split requests, few at a time; places are reused.
struct SplitRequestTable {
    private var entries: [SplitRequest?] = []
    private(set) var count = 0

    func contains(where matches: (SplitRequest) -> Bool) -> Bool { entries.contains { $0.map(matches) ?? false } }

    func index(where matches: (SplitRequest) -> Bool) -> Int32? {
        entries.firstIndex { $0.map(matches) ?? false }.map(Int32.init)
    }

    mutating func add(_ request: SplitRequest) -> Int32 {
        count += 1
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

    mutating func remove(_ index: Int32) {
        entries[Int(index)] = nil
        count -= 1
    }
}

/// Withdrawn attempts whose device still works with the caller's memory, and requests that are over but
/// wait for them. Nearly always empty: only kernel devices cannot let go.
struct LoanBook {
    struct Held {
        var record: RequestRecord
        var result: RequestResult
        var attempts: [RequestIndex]
    }

    private var attempts: [RequestIndex] = []
    private var held: [Held] = []

    var isEmpty: Bool { attempts.isEmpty }

    mutating func add(_ attempt: RequestIndex) { attempts.append(attempt) }

    /// Keeps a finished request until its attempts end; false where it has none out.
    mutating func hold(_ record: RequestRecord, slot: UInt32, _ result: RequestResult) -> Bool {
        let own = attempts.filter { $0.slot == slot }
        guard !own.isEmpty else { return false }
        attempts.removeAll { $0.slot == slot }
        held.append(Held(record: record, result: result, attempts: own))
        return true
    }

    /// Ends an attempt; the request that waited for it alone, if there is one.
    mutating func end(_ attempt: RequestIndex) -> Held? {
        attempts.removeAll { $0 == attempt }
        guard let index = held.firstIndex(where: { $0.attempts.contains(attempt) }) else { return nil }
        held[index].attempts.removeAll { $0 == attempt }
        return held[index].attempts.isEmpty ? held.remove(at: index) : nil
    }
}
