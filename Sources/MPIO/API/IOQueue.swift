import AsyncIO

/// A request for an ``IOQueue``: plain data.
public struct IORequest {
    /// What a request does to its blocks.
    public enum Operation: Sendable {
        /// Blocks into ``IORequest/memory``.
        case read
        /// ``IORequest/memory`` into blocks.
        case write
        /// See ``MultipathDisk/flush()``.
        case flush
        /// See ``MultipathDisk/unmap(at:byteCount:)``.
        case unmap
        /// See ``MultipathDisk/writeZeroes(at:byteCount:)``.
        case writeZeroes
        /// `memory` holds twice `byteCount`: what is expected, then what to write. See
        /// ``MultipathDisk/compareAndWrite(_:at:)``.
        case compareAndWrite
    }

    /// What is to be done.
    public var operation: Operation
    /// In bytes, a multiple of the block size.
    public var offset: UInt64
    /// In bytes, a multiple of the block size.
    public var byteCount: Int
    /// Where data goes to or comes from; ignored by operations that carry none. Must stay valid, and for a write
    /// unchanged, until the completion.
    public var memory: UnsafeMutableRawPointer?
    /// Returned with the completion; its meaning is the caller's.
    public var token: UInt64
    /// How a write is to be carried out; nothing for other operations.
    public var options: WriteOptions

    /// A request for `byteCount` bytes from `offset`, both multiples of the block size. `token` comes back with its completion.
    public init(
        _ operation: Operation, offset: UInt64, byteCount: Int, memory: UnsafeMutableRawPointer? = nil,
        token: UInt64, options: WriteOptions = []
    ) {
        self.operation = operation
        self.offset = offset
        self.byteCount = byteCount
        self.memory = memory
        self.token = token
        self.options = options
    }
}

/// The end of one request of an ``IOQueue``; no error is success.
public struct IORequestCompletion {
    /// The token of the request that ended.
    public var token: UInt64
    /// Why it did not succeed; nil: it did.
    public var error: DiskError?
}

/// Requests in batches, completions in batches, without the concurrency runtime: the least that a
/// request can cost.
///
/// **Threads.** Requests may be submitted from any thread; a batch enters the reactor once. The
/// completion handler runs on the thread of the disk's reactor, must not block it, and may submit. Handlers of disks that
/// live on different reactors (``PathManager/Options/reactors``) run at the same time; and so does the one handler of a disk
/// with several lanes (``MultipathDisk/laneCount``), which is called on the reactor of the lane that did a request: for a request
/// over several stripes that of the lane which ended last. A program with a thread for each lane (``MultipathDisk/run(onLane:_:)``)
/// that asks there for that lane's blocks gets the answers there, without a change of threads.
/// **Lifetime.** The queue must live until its last completion came; the disk keeps it until it is
/// closed.
public final class IOQueue: @unchecked Sendable {
    private let reference: EngineReference
    private let gate: SubmissionGate
    private let sink: QueueSink
    /// Where the disk has several lanes: those, and this queue's sinks on them.
    private let router: LaneRouter?
    private let sinks: LaneSinks

    /// A queue on `disk`. `onCompletions` gets each batch; the buffer is valid during the call only.
    public init(
        disk: MultipathDisk, onCompletions: @escaping @Sendable (UnsafeBufferPointer<IORequestCompletion>) -> Void
    ) {
        reference = disk.engine
        gate = disk.gate
        let sink = QueueSink(onCompletions)
        self.sink = sink
        router = disk.router
        var sinks = [sink]
        for _ in disk.gates.dropFirst() { sinks.append(QueueSink(sharing: sink)) }
        self.sinks = LaneSinks(sinks)
        for (gate, sink) in zip(disk.gates, sinks) {
            let reference = gate.reference
            reference.reactor.enqueue { reference.engine.register(sink) }
        }
    }

    /// Submits a batch, in order.
    public func submit(_ requests: UnsafeBufferPointer<IORequest>) {
        if let router { return router.submit(requests, sinks) }
        let target = Unmanaged<CompletionSink>.passUnretained(sink)
        if reference.reactor.isOnReactorThread {
            gate.handOverWaiting()
            reference.engine.submit(requests, sink: target)
        } else {
            gate.enqueue(requests.lazy.map { IOSubmission($0, sink: target) })
        }
    }

    /// Submits a batch, in order. The array is not needed once the call returns; the memory that it names is.
    public func submit(_ requests: [IORequest]) {
        requests.withUnsafeBufferPointer { submit($0) }
    }
}

private final class QueueSink: CompletionSink, @unchecked Sendable {
    private let onCompletions: @Sendable (UnsafeBufferPointer<IORequestCompletion>) -> Void

    init(_ onCompletions: @escaping @Sendable (UnsafeBufferPointer<IORequestCompletion>) -> Void) {
        self.onCompletions = onCompletions
    }

    /// Another lane's, of the same queue.
    convenience init(sharing other: QueueSink) { self.init(other.onCompletions) }

    override func deliver(_ completions: UnsafeBufferPointer<IOCompletion>) {
        onCompletions(completions)
    }
}

extension IOSubmission {
    @inline(__always)
    init(_ request: IORequest, sink: Unmanaged<CompletionSink>) {
        let operation: IOOperation =
            switch request.operation {
            case .read: .read
            case .write: .write
            case .flush: .flush
            case .unmap: .unmap
            case .writeZeroes: .writeZeroes
            case .compareAndWrite: .compareAndWrite
            }
        self.init(
            operation: operation, forceUnitAccess: request.options.contains(.forceUnitAccess), offset: request.offset,
            byteCount: request.byteCount, memory: request.memory, token: request.token, sink: sink)
    }
}
