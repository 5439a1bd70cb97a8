/// Slots at fixed addresses, named by identifiers that are never reused: 40 bits of generation over 20
/// bits of index. Memory is reserved for the whole capacity but touched only as far as it was used.
///
/// A handle on raw memory: copies name the same slab; the owner calls ``deallocate()`` once.
struct Slab<Element> {
    private struct Entry {
        /// The identifier while the slot is in use; 0 while it is free.
        var live: UInt64
        var generation: UInt64
        var nextFree: UInt32
    }

    private struct State {
        var count = 0
        /// Slots from here on were never used and hold no initialized entry.
        var highWater = 0
        var firstFree = UInt32.max
    }

    static var indexBits: UInt64 { 20 }
    let capacity: Int
    private let elements: UnsafeMutablePointer<Element>
    private let entries: UnsafeMutablePointer<Entry>
    private let state: UnsafeMutablePointer<State>

    init(capacity: Int) {
        precondition(capacity > 0 && capacity <= 1 << Int(Self.indexBits), "slab capacity out of range")
        self.capacity = capacity
        elements = .allocate(capacity: capacity)
        entries = .allocate(capacity: capacity)
        state = .allocate(capacity: 1)
        state.initialize(to: State())
    }

    func deallocate() {
        forEach { id, _ in release(id) }
        elements.deallocate()
        entries.deallocate()
        state.deallocate()
    }

    var count: Int { state.pointee.count }

    /// Takes a slot; nil when all are in use.
    func allocate(_ element: consuming Element) -> UInt64? {
        let index: Int
        if state.pointee.firstFree != .max {
            index = Int(state.pointee.firstFree)
            state.pointee.firstFree = entries[index].nextFree
        } else {
            guard state.pointee.highWater < capacity else { return nil }
            index = state.pointee.highWater
            state.pointee.highWater += 1
            (entries + index).initialize(to: Entry(live: 0, generation: 0, nextFree: .max))
        }
        entries[index].generation += 1
        let id = entries[index].generation << Self.indexBits | UInt64(index)
        entries[index].live = id
        (elements + index).initialize(to: element)
        state.pointee.count += 1
        return id
    }

    /// The slot of a live identifier; nil for one that was released.
    @inline(__always)
    subscript(id: UInt64) -> UnsafeMutablePointer<Element>? {
        let index = Int(truncatingIfNeeded: id & (1 << Self.indexBits - 1))
        guard index < state.pointee.highWater, entries[index].live == id, id != 0 else { return nil }
        return elements + index
    }

    @inline(__always)
    func contains(_ id: UInt64) -> Bool { self[id] != nil }

    func release(_ id: UInt64) {
        guard let element = self[id] else { return }
        let index = element - elements
        entries[index].live = 0
        entries[index].nextFree = state.pointee.firstFree
        state.pointee.firstFree = UInt32(index)
        state.pointee.count -= 1
        // Last: a handler that is destroyed here may call back into the owner.
        let taken = element.move()
        withExtendedLifetime(taken) {}
    }

    /// Visits every live slot; `body` may release it.
    func forEach(_ body: (UInt64, UnsafeMutablePointer<Element>) -> Void) {
        for index in 0..<state.pointee.highWater where entries[index].live != 0 {
            body(entries[index].live, elements + index)
        }
    }
}

/// A first-in first-out list of identifiers that grows to the largest number ever waiting and never
/// shrinks. A handle on raw memory, as ``Slab`` is.
struct IdentifierQueue {
    private struct State {
        var storage: UnsafeMutablePointer<UInt64>
        var capacity: Int
        var head = 0
        var count = 0
    }

    private let state: UnsafeMutablePointer<State>

    init(capacity: Int = 64) {
        state = .allocate(capacity: 1)
        state.initialize(to: State(storage: .allocate(capacity: capacity), capacity: capacity))
    }

    func deallocate() {
        state.pointee.storage.deallocate()
        state.deallocate()
    }

    @inline(__always) var count: Int { state.pointee.count }
    @inline(__always) var isEmpty: Bool { state.pointee.count == 0 }

    @inline(__always)
    func append(_ id: UInt64) {
        if state.pointee.count == state.pointee.capacity { grow() }
        var position = state.pointee.head + state.pointee.count
        if position >= state.pointee.capacity { position -= state.pointee.capacity }
        state.pointee.storage[position] = id
        state.pointee.count += 1
    }

    @inline(__always)
    func popFirst() -> UInt64? {
        guard state.pointee.count > 0 else { return nil }
        let id = state.pointee.storage[state.pointee.head]
        state.pointee.head += 1
        if state.pointee.head == state.pointee.capacity { state.pointee.head = 0 }
        state.pointee.count -= 1
        return id
    }

    private func grow() {
        let larger = state.pointee.capacity * 2
        let storage = UnsafeMutablePointer<UInt64>.allocate(capacity: larger)
        for offset in 0..<state.pointee.count {
            storage[offset] = state.pointee.storage[(state.pointee.head + offset) % state.pointee.capacity]
        }
        state.pointee.storage.deallocate()
        state.pointee.storage = storage
        state.pointee.capacity = larger
        state.pointee.head = 0
    }
}
