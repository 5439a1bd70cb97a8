/// A request of a client, from its header to the last byte of its answer.
struct RequestSlot {
    var command = CommandCode.read
    var flags: CommandFlags = []
    var cookie: UInt64 = 0
    var offset: UInt64 = 0
    var byteCount = 0
    var buffer: PooledBuffer?
    var isExecuting = false
    /// What is answered once the payload of a refused WRITE was skipped.
    var refusal: ReplyError?
    /// Of the answer: in the table's headers, and from `buffer`.
    var replyHeaderByteCount = 0
    var replyDataByteCount = 0
    var nextFree: Int32 = -1
}

/// A ring of slot numbers, with room for each of them once.
struct SlotRing {
    private let elements: UnsafeMutablePointer<UInt16>
    private let capacity: Int
    private var head = 0
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        elements = .allocate(capacity: capacity)
        elements.initialize(repeating: 0, count: capacity)
    }

    func deallocate() { elements.deallocate() }

    var isEmpty: Bool { count == 0 }
    var first: Int? { count == 0 ? nil : Int(elements[head]) }

    /// The element so many places behind the first.
    subscript(_ distance: Int) -> Int {
        precondition(distance >= 0 && distance < count, "past the end of the ring")
        return Int(elements[(head + distance) % capacity])
    }

    mutating func append(_ slot: Int) {
        precondition(count < capacity, "each slot is in the ring once")
        elements[(head + count) % capacity] = UInt16(slot)
        count += 1
    }

    mutating func popFirst() -> UInt16? {
        guard count > 0 else { return nil }
        defer {
            head = (head + 1) % capacity
            count -= 1
        }
        return elements[head]
    }
}

/// The requests of one session, in memory that is made once.
struct RequestTable {
    private let slots: UnsafeMutablePointer<RequestSlot>
    /// Where the headers of answers are written, and sent from.
    private let headers: UnsafeMutableRawPointer
    private let capacity: Int
    private var firstFree: Int32 = 0
    private(set) var usedCount = 0
    var executingCount = 0
    /// Of the buffers that its requests have.
    var lentByteCount = 0
    /// Understood, and not yet handed out.
    var begun: SlotRing
    /// To be sent, in this order.
    var replies: SlotRing

    init(capacity: Int) {
        self.capacity = capacity
        slots = .allocate(capacity: capacity)
        for index in 0..<capacity {
            var slot = RequestSlot()
            slot.nextFree = index + 1 < capacity ? Int32(index + 1) : -1
            (slots + index).initialize(to: slot)
        }
        headers = .allocate(byteCount: capacity * Session.replyHeaderStride, alignment: 8)
        headers.initializeMemory(as: UInt8.self, repeating: 0, count: capacity * Session.replyHeaderStride)
        begun = SlotRing(capacity: capacity)
        replies = SlotRing(capacity: capacity)
    }

    /// Memory that a disk may still work with is left alone.
    func deallocate(returningTo pool: BufferPool) {
        for index in 0..<capacity where !slots[index].isExecuting {
            if let buffer = slots[index].buffer { pool.release(buffer) }
        }
        slots.deallocate()
        headers.deallocate()
        begun.deallocate()
        replies.deallocate()
    }

    var hasFreeSlot: Bool { firstFree >= 0 }
    var isIdle: Bool { usedCount == 0 }

    subscript(_ slot: Int) -> UnsafeMutablePointer<RequestSlot> {
        @inline(__always) get {
            precondition(slot >= 0 && slot < capacity, "no such request")
            return slots + slot
        }
    }

    func replyHeader(_ slot: Int) -> UnsafeMutableRawPointer {
        precondition(slot >= 0 && slot < capacity, "no such request")
        return headers + slot * Session.replyHeaderStride
    }

    mutating func take() -> Int {
        precondition(firstFree >= 0, "the session looks before it takes a slot")
        let slot = Int(firstFree)
        firstFree = slots[slot].nextFree
        usedCount += 1
        return slot
    }

    /// The slot's buffer must have been given back.
    mutating func release(_ slot: Int) {
        slots[slot].nextFree = firstFree
        slots[slot].replyDataByteCount = 0
        slots[slot].refusal = nil
        firstFree = Int32(slot)
        usedCount -= 1
    }
}
