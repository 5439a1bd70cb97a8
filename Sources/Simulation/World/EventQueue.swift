/// What is planned, the earliest first; of one moment, in the order of planning.
///
/// The simulator spends a quarter of a debug build's time on its queue where that moves closures about in an array, so keys
/// are plain memory, moved into the hole that is left rather than swapped, and closures stay where they are.
struct EventQueue: ~Copyable {
    private struct Key {
        var at: UInt64
        var sequence: UInt64
        var slot: Int

        func isBefore(_ other: Key) -> Bool { at != other.at ? at < other.at : sequence < other.sequence }
    }

    private var keys: UnsafeMutablePointer<Key>
    private var capacity = 256
    private var count = 0
    private var bodies: [(() -> Void)?] = []
    private var freeSlots: [Int] = []
    private var nextSequence: UInt64 = 0

    init() { keys = .allocate(capacity: capacity) }

    deinit { keys.deallocate() }

    /// When the first of them happens.
    var first: UInt64? { count > 0 ? keys[0].at : nil }

    mutating func plan(at: UInt64, _ body: @escaping () -> Void) {
        nextSequence += 1
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = free
            bodies[slot] = body
        } else {
            slot = bodies.count
            bodies.append(body)
        }
        if count == capacity { grow() }
        let key = Key(at: at, sequence: nextSequence, slot: slot)
        var hole = count
        count += 1
        while hole > 0 {
            let parent = (hole - 1) / 2
            guard key.isBefore(keys[parent]) else { break }
            keys[hole] = keys[parent]
            hole = parent
        }
        keys[hole] = key
    }

    /// Takes the first out. There has to be one.
    mutating func removeFirst() -> (at: UInt64, body: () -> Void) {
        precondition(count > 0, "an empty queue has no first event")
        let top = keys[0]
        count -= 1
        if count > 0 { sink(keys[count]) }
        let body = bodies[top.slot]!
        bodies[top.slot] = nil
        freeSlots.append(top.slot)
        return (top.at, body)
    }

    mutating func removeAll() {
        count = 0
        bodies.removeAll()
        freeSlots.removeAll()
    }

    private func sink(_ key: Key) {
        var hole = 0
        while true {
            var child = 2 * hole + 1
            guard child < count else { break }
            if child + 1 < count, keys[child + 1].isBefore(keys[child]) { child += 1 }
            guard keys[child].isBefore(key) else { break }
            keys[hole] = keys[child]
            hole = child
        }
        keys[hole] = key
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Key>.allocate(capacity: 2 * capacity)
        larger.moveInitialize(from: keys, count: count)
        keys.deallocate()
        keys = larger
        capacity *= 2
    }
}
