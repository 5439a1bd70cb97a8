import CAio
import Glibc

/// One libaio context: a batch of operations that is collected over a turn, and the completions.
/// Belongs to the loop's thread but for ``destroy()`` and ``submitWakeUp(_:)``.
final class AioContext {
    static let batchCapacity = 512
    static let harvestCapacity = 256

    private var context: io_context_t?
    private var isDestroyed = false
    private let ringIsKnown: Bool
    private let batch: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>
    private(set) var batchCount = 0
    private var refusals: [(tag: UInt64, code: Int32)] = []
    let events: UnsafeMutablePointer<io_event>
    private(set) var submitCalls: UInt64 = 0
    private(set) var submittedOperations: UInt64 = 0

    /// - Throws: `EAGAIN` where the system-wide limit `fs.aio-max-nr` is used up.
    init(capacity: Int, usesMappedRing: Bool) throws(IOError) {
        let code = io_setup(Int32(clamping: capacity), &context)
        guard code == 0 else {
            let hint = code == -EAGAIN ? " (the system-wide limit fs.aio-max-nr is used up)" : ""
            throw IOError(code: -code, operation: "set up \(capacity) asynchronous operations\(hint)")
        }
        ringIsKnown = usesMappedRing && mpio_ring_is_known(context)
        batch = .allocate(capacity: Self.batchCapacity)
        batch.initialize(repeating: nil, count: Self.batchCapacity)
        events = .allocate(capacity: Self.harvestCapacity)
        events.initialize(repeating: io_event(), count: Self.harvestCapacity)
    }

    deinit {
        destroy()
        batch.deallocate()
        events.deallocate()
    }

    /// Takes 30–40 ms even when nothing is pending: never on the loop.
    func destroy() {
        // The handle stays: a late wake-up of another thread then gets an error from the kernel.
        if !isDestroyed { io_destroy(context) }
        isDestroyed = true
    }

    var batchIsFull: Bool { batchCount == Self.batchCapacity }

    /// Adds to the batch; its memory must stay until it was submitted or withdrawn.
    @inline(__always)
    func add(_ operation: UnsafeMutablePointer<iocb>) {
        batch[batchCount] = operation
        batchCount += 1
    }

    /// Takes back operations that were not submitted yet.
    func withdraw(_ isUnwanted: (UnsafeMutablePointer<iocb>) -> Bool) {
        var kept = 0
        for position in 0..<batchCount where !isUnwanted(batch[position]!) {
            batch[kept] = batch[position]
            kept += 1
        }
        batchCount = kept
    }

    /// Submits the batch. What the kernel has no room for stays in it; an operation that the kernel
    /// refuses (a batch stops there) is taken out and reported, and the rest goes on.
    func submit(refused: (_ tag: UInt64, _ code: Int32) -> Void) {
        var first = 0
        while first < batchCount {
            submitCalls += 1
            let taken = Int(io_submit(context, batchCount - first, batch + first))
            if taken > 0 {
                first += taken
                submittedOperations += UInt64(taken)
                continue
            }
            let code = Int32(clamping: -taken)
            if code == EINTR { continue }
            if code == EAGAIN { break }
            let tag = Self.tag(batch[first]!.pointee.data)
            first += 1
            refusals.append((tag, code == 0 ? EIO : code))
        }
        for position in first..<batchCount { batch[position - first] = batch[position] }
        batchCount -= first
        guard !refusals.isEmpty else { return }
        // Only now: whoever is told may close sockets, and so withdraw what is left in the batch.
        let reported = refusals
        refusals = []
        for (tag, code) in reported { refused(tag, code) }
    }

    /// Moves completions into ``events`` without waiting.
    @inline(__always)
    func harvest() -> Int {
        if ringIsKnown {
            return Int(mpio_ring_harvest(context, events, UInt32(Self.harvestCapacity)))
        }
        return wait(nanoseconds: 0)
    }

    /// Moves completions into ``events``, waiting for `least` of them at most so long; `UInt64.max` waits for ever.
    func wait(nanoseconds: UInt64, atLeast least: Int = 1) -> Int {
        var timeout = timespec()
        let bounded = nanoseconds != .max
        if bounded {
            timeout.tv_sec = Int(nanoseconds / 1_000_000_000)
            timeout.tv_nsec = Int(nanoseconds % 1_000_000_000)
        }
        let count = withUnsafeMutablePointer(to: &timeout) {
            io_getevents(
                context, nanoseconds == 0 ? 0 : least, Self.harvestCapacity, events, bounded ? $0 : nil)
        }
        // EINTR comes even with SA_RESTART; the loop just turns once more.
        guard count > 0 else { return 0 }
        return Int(count)
    }

    /// Looks at the ring for up to `nanoseconds`; true as soon as an event is there.
    func spin(nanoseconds: UInt64, until stop: () -> Bool) -> Bool {
        guard ringIsKnown else { return false }
        let end = mpio_clock() &+ nanoseconds
        repeat {
            if mpio_ring_spin(context, 32) { return true }
            if stop() { return false }
        } while mpio_clock() < end
        return false
    }

    /// Any thread: makes the loop's wait return, by an operation that completes at once. False where the
    /// kernel had no room for it.
    func submitWakeUp(_ operation: UnsafeMutablePointer<iocb>) -> Bool {
        var list: UnsafeMutablePointer<iocb>? = operation
        return io_submit(context, 1, &list) == 1
    }

    @inline(__always)
    static func tag(_ data: UnsafeMutableRawPointer?) -> UInt64 { UInt64(UInt(bitPattern: data)) }

    @inline(__always)
    static func data(_ tag: UInt64) -> UnsafeMutableRawPointer? {
        UnsafeMutableRawPointer(bitPattern: UInt(tag))
    }
}
