import Timebase

/// The pending timers of a reactor, the earliest first and equal deadlines in the order they were set.
/// A binary heap whose entries know their place, so that cancelling takes O(log n) and leaves nothing behind.
struct TimerHeap {
    struct Slot {
        let handler: any TimerHandler
        let token: UInt64
        fileprivate(set) var place: Int
    }

    private struct Entry {
        var deadline: UInt64
        var sequence: UInt64
        var id: UInt64

        func precedes(_ other: Entry) -> Bool {
            deadline != other.deadline ? deadline < other.deadline : sequence < other.sequence
        }
    }

    private let slots: Slab<Slot>
    private var heap: [Entry] = []
    private var nextSequence: UInt64 = 0

    init(capacity: Int) {
        slots = Slab(capacity: capacity)
        heap.reserveCapacity(64)
    }

    func deallocate() { slots.deallocate() }

    var count: Int { heap.count }

    /// Nanoseconds of the earliest deadline; `UInt64.max` where there is none.
    var nextDeadline: UInt64 { heap.first?.deadline ?? .max }

    mutating func insert(deadline: Instant, handler: any TimerHandler, token: UInt64) -> TimerID {
        guard let id = slots.allocate(Slot(handler: handler, token: token, place: heap.count)) else {
            preconditionFailure("more than \(slots.capacity) timers at once")
        }
        heap.append(Entry(deadline: deadline.nanoseconds, sequence: nextSequence, id: id))
        nextSequence += 1
        rise(from: heap.count - 1)
        return TimerID(rawValue: id)
    }

    mutating func cancel(_ timer: TimerID) {
        guard let slot = slots[timer.rawValue] else { return }
        remove(at: slot.pointee.place)
        slots.release(timer.rawValue)
    }

    /// Forgets all timers, and lets go of their handlers.
    mutating func removeAll() {
        for entry in heap { slots.release(entry.id) }
        heap.removeAll()
    }

    /// Takes the earliest timer whose deadline has come.
    mutating func popDue(at moment: Instant) -> (timer: TimerID, handler: any TimerHandler, token: UInt64)? {
        guard let first = heap.first, first.deadline <= moment.nanoseconds, let slot = slots[first.id] else {
            return nil
        }
        let handler = slot.pointee.handler
        let token = slot.pointee.token
        remove(at: 0)
        slots.release(first.id)
        return (TimerID(rawValue: first.id), handler, token)
    }

    private mutating func remove(at place: Int) {
        let last = heap.removeLast()
        guard place < heap.count else { return }
        put(last, at: place)
        rise(from: place)
        sink(from: slots[last.id]!.pointee.place)
    }

    private mutating func put(_ entry: Entry, at place: Int) {
        heap[place] = entry
        slots[entry.id]!.pointee.place = place
    }

    private mutating func rise(from start: Int) {
        let entry = heap[start]
        var place = start
        while place > 0 {
            let parent = (place - 1) / 2
            guard entry.precedes(heap[parent]) else { break }
            put(heap[parent], at: place)
            place = parent
        }
        put(entry, at: place)
    }

    private mutating func sink(from start: Int) {
        let entry = heap[start]
        var place = start
        while true {
            var child = place * 2 + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].precedes(heap[child]) { child += 1 }
            guard heap[child].precedes(entry) else { break }
            put(heap[child], at: place)
            place = child
        }
        put(entry, at: place)
    }
}
