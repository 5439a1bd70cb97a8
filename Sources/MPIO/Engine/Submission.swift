import ISCSI
import SCSI

/// What a request does.
package enum IOOperation: UInt8, Sendable {
    case read, write, flush, unmap, writeZeroes, compareAndWrite
}

/// One request as it enters the engine: plain data, so that handing over a batch copies bytes only.
package struct IOSubmission {
    package var operation: IOOperation
    package var forceUnitAccess: Bool
    /// It goes to every lane that has a stripe of it, and each does its own.
    package var isStriped = false
    /// Tells apart requests that one task made one after the other, for who cancels one; 0 where nobody does.
    package var serial: UInt32 = 0
    /// In bytes, a multiple of the block size.
    package var offset: UInt64
    /// In bytes, a multiple of the block size. COMPARE AND WRITE: of one of the two halves.
    package var byteCount: Int
    /// Where data comes from or goes to; the submitter keeps it alive until the completion.
    package var memory: UnsafeMutableRawPointer?
    /// Returned with the completion. Unique among a sink's requests under way.
    package var token: UInt64
    /// Who is told. The engine holds no reference: see ``CompletionSink``.
    package var sink: Unmanaged<CompletionSink>

    func belongs(to other: Unmanaged<CompletionSink>, token: UInt64) -> Bool {
        self.token == token && sink.toOpaque() == other.toOpaque()
    }
}

/// A request, or a part of one, that waits for a slot in the table.
struct WaitingSubmission {
    var submission: IOSubmission
    /// The split request that it is a part of, or -1.
    var parent: Int32
}

/// How one request ended. What an ``IOQueue`` hands out, so that nothing is copied on the way.
package typealias IOCompletion = IORequestCompletion

/// Where completions go, gathered over a turn and then delivered in one call.
///
/// **Lifetime.** A sink is registered with a ``DiskEngine`` and stays alive until the engine is closed,
/// so that requests can name it without a reference count.
/// **Threads.** ``append(_:)`` and ``flush()`` are called on the reactor's thread.
package class CompletionSink {
    @exclusivity(unchecked) private final var pending = CompletionBuffer(capacity: 64)
    @exclusivity(unchecked) private final var delivered = CompletionBuffer(capacity: 64)
    /// Whether the sink is in its engine's list of sinks to flush.
    @exclusivity(unchecked) final var isDirty = false

    package init() {}

    deinit {
        pending.deallocate()
        delivered.deallocate()
    }

    @inline(__always)
    final func append(_ completion: IOCompletion) { pending.append(completion) }

    final func flush() {
        // A delivery may submit, and so complete, further requests; those belong to the next flush.
        swap(&pending, &delivered)
        deliver(delivered.contents)
        delivered.removeAll()
    }

    /// Takes completions; the buffer is valid during the call only.
    package func deliver(_ completions: UnsafeBufferPointer<IOCompletion>) {
        preconditionFailure("a CompletionSink must override deliver")
    }
}

/// Completions in memory that grows to the largest batch ever and is used again.
private struct CompletionBuffer {
    private var elements: UnsafeMutablePointer<IOCompletion>
    private var capacity: Int
    private var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        elements = .allocate(capacity: capacity)
    }

    func deallocate() { elements.deallocate() }

    var contents: UnsafeBufferPointer<IOCompletion> { UnsafeBufferPointer(start: elements, count: count) }

    @inline(__always)
    mutating func append(_ completion: IOCompletion) {
        if count == capacity { grow() }
        (elements + count).initialize(to: completion)
        count += 1
    }

    mutating func removeAll() {
        elements.deinitialize(count: count)
        count = 0
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<IOCompletion>.allocate(capacity: capacity * 2)
        larger.moveInitialize(from: elements, count: count)
        elements.deallocate()
        elements = larger
        capacity *= 2
    }
}
