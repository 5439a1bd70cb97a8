/// Where a request is.
enum SlotState: UInt8 {
    case free
    /// Waits for earlier overlapping writes, or for their old copies.
    case blocked
    /// In the ready queue: wants a path.
    case ready
    case inFlight
    /// Waits for its retry time.
    case delayed
    /// Over; free as soon as the engine has taken the `.finish`.
    case finished
}

/// One admitted request; plain data in the LUN's slab. Links are slots, -1 for none.
struct RequestSlot {
    var descriptor = RequestDescriptor(kind: .other)
    var state = SlotState.free
    /// The path in use, or the last one.
    var path: Int32 = -1
    /// Where a retry should go, or should not go; -1 for no wish.
    var wanted: Int32 = -1
    var avoided: Int32 = -1
    var attempt: UInt32 = 0
    /// An attempt was lost, or ended in a way that leaves open whether it was carried out.
    var mayHaveRun = false
    var retries: UInt16 = 0
    var freeRetries: UInt16 = 0
    /// Overlapping earlier writes and old copies still to go.
    var blockers: Int32 = 0
    /// Place in the heap of delayed requests.
    var heapPlace: Int32 = -1
    var previous: Int32 = -1
    var next: Int32 = -1
    var older: Int32 = -1
    var younger: Int32 = -1
    var previousWriter: Int32 = -1
    var nextWriter: Int32 = -1
    /// Admission number: original order.
    var sequence: UInt64 = 0
    var startedAt = 0 as UInt64
    var dueAt = 0 as UInt64
}

typealias Slots = UnsafeMutablePointer<RequestSlot>

/// A doubly linked list through `previous` and `next`: the ready queue, or what is in flight on a path.
struct SlotQueue {
    var head: Int32 = -1
    var tail: Int32 = -1
    var count: Int32 = 0

    @inline(__always)
    mutating func append(_ slot: Int32, _ slots: Slots) {
        slots[Int(slot)].previous = tail
        slots[Int(slot)].next = -1
        if tail >= 0 { slots[Int(tail)].next = slot } else { head = slot }
        tail = slot
        count += 1
    }

    @inline(__always)
    mutating func remove(_ slot: Int32, _ slots: Slots) {
        let before = slots[Int(slot)].previous
        let after = slots[Int(slot)].next
        if before >= 0 { slots[Int(before)].next = after } else { head = after }
        if after >= 0 { slots[Int(after)].previous = before } else { tail = before }
        count -= 1
    }

    /// Puts a slot where its admission number belongs, looking from the tail, where it mostly is.
    mutating func insertInOrder(_ slot: Int32, _ slots: Slots) {
        var before = tail
        while before >= 0, slots[Int(before)].sequence > slots[Int(slot)].sequence {
            before = slots[Int(before)].previous
        }
        insert(slot, after: before, slots)
    }

    /// Merges slots sorted by admission number.
    mutating func merge(_ sorted: UnsafeMutableBufferPointer<Int32>, _ slots: Slots) {
        var after = head
        for slot in sorted {
            while after >= 0, slots[Int(after)].sequence < slots[Int(slot)].sequence {
                after = slots[Int(after)].next
            }
            insert(slot, after: after >= 0 ? slots[Int(after)].previous : tail, slots)
        }
    }

    private mutating func insert(_ slot: Int32, after before: Int32, _ slots: Slots) {
        let after = before >= 0 ? slots[Int(before)].next : head
        slots[Int(slot)].previous = before
        slots[Int(slot)].next = after
        if before >= 0 { slots[Int(before)].next = slot } else { head = slot }
        if after >= 0 { slots[Int(after)].previous = slot } else { tail = slot }
        count += 1
    }
}

/// Delayed requests by due time: a binary heap in preallocated memory.
struct DelayHeap {
    private let places: UnsafeMutablePointer<Int32>
    private(set) var count = 0

    init(capacity: Int) {
        places = .allocate(capacity: max(capacity, 1))
    }

    func deallocate() { places.deallocate() }

    var first: Int32 { count > 0 ? places[0] : -1 }

    mutating func insert(_ slot: Int32, _ slots: Slots) {
        count += 1
        put(slot, at: count - 1, slots)
        rise(count - 1, slots)
    }

    mutating func remove(_ slot: Int32, _ slots: Slots) {
        let place = Int(slots[Int(slot)].heapPlace)
        slots[Int(slot)].heapPlace = -1
        count -= 1
        guard place < count else { return }
        put(places[count], at: place, slots)
        rise(place, slots)
        sink(place, slots)
    }

    private mutating func put(_ slot: Int32, at place: Int, _ slots: Slots) {
        places[place] = slot
        slots[Int(slot)].heapPlace = Int32(place)
    }

    /// Due time first, then admission order, so that equal times are not left to chance.
    private func precedes(_ left: Int, _ right: Int, _ slots: Slots) -> Bool {
        let (first, second) = (slots + Int(places[left]), slots + Int(places[right]))
        if first.pointee.dueAt != second.pointee.dueAt { return first.pointee.dueAt < second.pointee.dueAt }
        return first.pointee.sequence < second.pointee.sequence
    }

    private mutating func swap(_ left: Int, _ right: Int, _ slots: Slots) {
        let (first, second) = (places[left], places[right])
        put(second, at: left, slots)
        put(first, at: right, slots)
    }

    private mutating func rise(_ start: Int, _ slots: Slots) {
        var place = start
        while place > 0, precedes(place, (place - 1) / 2, slots) {
            swap(place, (place - 1) / 2, slots)
            place = (place - 1) / 2
        }
    }

    private mutating func sink(_ start: Int, _ slots: Slots) {
        var place = start
        while true {
            var least = place
            for child in [2 * place + 1, 2 * place + 2] where child < count {
                if precedes(child, least, slots) { least = child }
            }
            if least == place { return }
            swap(place, least, slots)
            place = least
        }
    }
}
