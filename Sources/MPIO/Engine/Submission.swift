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

/// How one request ended: nil is success.
package struct IOCompletion {
    package var token: UInt64
    package var error: DiskError?
}

/// Where completions go, gathered over a turn and then delivered in one call.
///
/// **Lifetime.** A sink is registered with a ``DiskEngine`` and stays alive until the engine is closed,
/// so that requests can name it without a reference count.
/// **Threads.** ``append(_:)`` and ``flush()`` are called on the reactor's thread.
package class CompletionSink {
    private(set) final var pending: [IOCompletion] = []
    /// Whether the sink is in its engine's list of sinks to flush.
    final var isDirty = false

    package init() { pending.reserveCapacity(256) }

    final func append(_ completion: IOCompletion) { pending.append(completion) }

    final func flush() {
        // A delivery may submit, and so complete, further requests; those belong to the next flush.
        let batch = takePending()
        batch.withUnsafeBufferPointer { deliver($0) }
        recycle(batch)
    }

    private func takePending() -> [IOCompletion] {
        var batch = spare
        spare = []
        swap(&batch, &pending)
        return batch
    }

    private func recycle(_ batch: consuming [IOCompletion]) {
        batch.removeAll(keepingCapacity: true)
        spare = batch
    }

    private final var spare: [IOCompletion] = []

    /// Takes completions; the buffer is valid during the call only.
    package func deliver(_ completions: UnsafeBufferPointer<IOCompletion>) {
        preconditionFailure("a CompletionSink must override deliver")
    }
}
