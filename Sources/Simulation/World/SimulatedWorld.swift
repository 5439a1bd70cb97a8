import Timebase

/// Virtual time and what is to happen in it. Events of one moment happen in the order in which they were
/// planned.
final class SimulatedWorld {
    private(set) var now = Instant(nanoseconds: 1_000_000_000)
    let random: SeededRandom
    let trace = Trace()
    private var events = EventQueue()
    private(set) var eventCount = 0

    init(random: SeededRandom) {
        self.random = random
        trace.now = now
    }

    func at(_ moment: Instant, _ body: @escaping () -> Void) {
        events.plan(at: max(moment, now).nanoseconds, body)
    }

    func after(_ delay: Duration, _ body: @escaping () -> Void) { at(now + delay, body) }

    /// Runs until `isDone` or `deadline`; false where the deadline came first. Nothing left to happen counts
    /// as the deadline.
    func run(until deadline: Instant, isDone: () -> Bool) -> Bool {
        while !isDone() {
            guard let first = events.first, first <= deadline.nanoseconds else {
                now = max(now, deadline)
                trace.now = now
                return false
            }
            let event = events.removeFirst()
            now = Instant(nanoseconds: event.at)
            trace.now = now
            eventCount += 1
            event.body()
        }
        return true
    }

    /// Drops what is still planned, and with it the references that it holds.
    func end() { events.removeAll() }
}
