import Timebase

/// Virtual time and what is to happen in it. Events of one moment happen in the order in which they were
/// planned.
final class SimulatedWorld {
    private(set) var now = Instant(nanoseconds: 1_000_000_000)
    let random: SeededRandom
    let trace = Trace()
    private var heap: [Event] = []
    private var nextSequence: UInt64 = 0
    private(set) var eventCount = 0

    private struct Event {
        var at: UInt64
        var sequence: UInt64
        var body: () -> Void

        static func < (left: Event, right: Event) -> Bool {
            left.at != right.at ? left.at < right.at : left.sequence < right.sequence
        }
    }

    init(random: SeededRandom) {
        self.random = random
        trace.now = now
    }

    func at(_ moment: Instant, _ body: @escaping () -> Void) {
        nextSequence += 1
        push(Event(at: max(moment, now).nanoseconds, sequence: nextSequence, body: body))
    }

    func after(_ delay: Duration, _ body: @escaping () -> Void) { at(now + delay, body) }

    /// Runs until `isDone` or `deadline`; false where the deadline came first. Nothing left to happen counts
    /// as the deadline.
    func run(until deadline: Instant, isDone: () -> Bool) -> Bool {
        while !isDone() {
            guard let first = heap.first, first.at <= deadline.nanoseconds else {
                now = max(now, deadline)
                trace.now = now
                return false
            }
            let event = pop()
            now = Instant(nanoseconds: event.at)
            trace.now = now
            eventCount += 1
            event.body()
        }
        return true
    }

    /// Drops what is still planned, and with it the references that it holds.
    func end() { heap.removeAll() }

    private func push(_ event: Event) {
        heap.append(event)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child] < heap[parent] else { return }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private func pop() -> Event {
        let top = heap[0]
        let last = heap.removeLast()
        guard !heap.isEmpty else { return top }
        heap[0] = last
        var parent = 0
        while true {
            var least = parent
            let left = 2 * parent + 1
            if left < heap.count, heap[left] < heap[least] { least = left }
            if left + 1 < heap.count, heap[left + 1] < heap[least] { least = left + 1 }
            if least == parent { return top }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
