import ISCSI

/// What a logical unit's operation does with its backend, step by step.
enum OperationKind {
    case read
    /// `byteCount` bytes of data-out to `offset`; then a flush where FUA asks for it.
    case write
    /// Data-out compared with the medium.
    case compare
    case compareAndWrite
    /// The medium's blocks OR data-out, back to the medium.
    case orWrite
    /// `pattern` over `byteCount` bytes, a piece at a time.
    case fill
    /// `byteCount` bytes of zeroes, by a backend that can do it without being sent them.
    case zero
    /// COMPARE AND WRITE by a backend that can do it itself.
    case swap
    /// One range.
    case deallocate
    /// UNMAP: `byteCount` descriptors of data-out, one after the other.
    case unmap
    case synchronize
    /// GET LBA STATUS: `wantedByteCount` is what the initiator takes.
    case listExtents
}

/// One command that uses the backend, from its start until the backend no longer touches its memory.
struct Operation {
    var command: DeviceCommand
    var kind: OperationKind
    /// In bytes.
    var offset: UInt64
    var byteCount: UInt64
    /// What the CDB asked of data-out, in bytes; residuals are counted against it.
    var wantedByteCount: Int
    /// Bytes (`fill`) or descriptors (`unmap`) that are done.
    var done: UInt64 = 0
    var step = 0
    var buffer: TargetBuffer
    var synchronizes = false
    var isAborted = false
    var isPending = false
    /// Tells a late completion of an earlier user of the slot apart.
    var isUsed = true
}

/// Operations under way in one logical unit: plain structs in one block of memory, free slots in a list.
struct OperationTable: ~Copyable {
    private var slots: UnsafeMutablePointer<Operation>
    private var free: [Int32] = []
    private var used = 0
    private(set) var capacity: Int
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        slots = .allocate(capacity: capacity)
        free.reserveCapacity(capacity)
    }

    deinit { slots.deallocate() }

    mutating func insert(_ operation: Operation) -> Int {
        count += 1
        if let index = free.popLast() {
            slots[Int(index)] = operation
            return Int(index)
        }
        if used == capacity { grow() }
        (slots + used).initialize(to: operation)
        used += 1
        return used - 1
    }

    mutating func remove(_ index: Int) {
        slots[index].isUsed = false
        free.append(Int32(index))
        count -= 1
    }

    subscript(index: Int) -> Operation {
        _read { yield slots[index] }
        nonmutating _modify { yield &slots[index] }
    }

    /// Indexes that were ever used, free ones among them.
    var indices: Range<Int> { 0..<used }

    // Only until it has room for all sessions' commands; then never again.
    private mutating func grow() {
        let larger = UnsafeMutablePointer<Operation>.allocate(capacity: capacity * 2)
        larger.moveInitialize(from: slots, count: used)
        slots.deallocate()
        slots = larger
        capacity *= 2
    }
}
