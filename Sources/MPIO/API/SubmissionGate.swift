import AsyncIO

/// A disk's engine and the reactor that owns it, for code on other threads: the engine is touched only
/// from inside ``async(_:)``, ``call(_:)`` and jobs of the reactor.
struct EngineReference: @unchecked Sendable {
    let engine: DiskEngine
    let reactor: LibaioReactor

    /// Runs `body` on the reactor's thread.
    func call<Value: Sendable>(_ body: @escaping @Sendable (DiskEngine) -> Value) async throws(DiskError) -> Value {
        let reference = self
        let value: Value? = await withCheckedContinuation { continuation in
            let isQueued = reactor.enqueue { continuation.resume(returning: body(reference.engine)) }
            if !isQueued { continuation.resume(returning: nil) }
        }
        guard let value else { throw .closed }
        return value
    }
}

/// Where requests from any thread enter a disk. On the reactor's thread they enter at once; elsewhere
/// they gather, and a whole batch enters with one job.
final class SubmissionGate: @unchecked Sendable {
    let reference: EngineReference
    private let lock = Lock()
    private var inbox: [IOSubmission] = []
    private var spare: [IOSubmission] = []
    private var isScheduled = false
    private let sink = TicketSink()

    init(engine: EngineReference) {
        reference = engine
        let sink = sink
        reference.reactor.enqueue { engine.engine.register(sink) }
        inbox.reserveCapacity(256)
        spare.reserveCapacity(256)
    }

    /// Submits one request and waits for its end.
    func perform(
        _ operation: IOOperation, offset: UInt64, byteCount: Int, memory: UnsafeMutableRawPointer?, forceUnitAccess: Bool
    ) async -> DiskError? {
        let ticket = RequestTicket()
        return await withTaskCancellationHandler {
            await ticket.wait { token in
                var submission = IOSubmission(
                    operation: operation, forceUnitAccess: forceUnitAccess, offset: offset, byteCount: byteCount,
                    memory: memory, token: token, sink: Unmanaged.passUnretained(sink))
                submit(&submission)
                if ticket.isCancelled { cancel(ticket) }
            }
        } onCancel: {
            ticket.isCancelled = true
            cancel(ticket)
        }
    }

    private func submit(_ submission: inout IOSubmission) {
        if reference.reactor.isOnReactorThread {
            withUnsafePointer(to: &submission) {
                reference.engine.submit(UnsafeBufferPointer(start: $0, count: 1))
            }
            return
        }
        enqueue(CollectionOfOne(submission))
    }

    /// Takes requests from any thread; the first since the last hand-over schedules the next one.
    func enqueue(_ submissions: some Collection<IOSubmission>) {
        let mustSchedule = lock.withLock {
            inbox.append(contentsOf: submissions)
            guard !isScheduled else { return false }
            isScheduled = true
            return true
        }
        guard mustSchedule else { return }
        let isQueued = reference.reactor.enqueue { [self] in handOver() }
        if !isQueued { refuseAll() }
    }

    private func handOver() {
        lock.withLock {
            isScheduled = false
            swap(&inbox, &spare)
        }
        spare.withUnsafeBufferPointer { reference.engine.submit($0) }
        spare.removeAll(keepingCapacity: true)
    }

    /// The reactor has ended, so nobody else will answer.
    private func refuseAll() {
        let refused = lock.withLock {
            isScheduled = false
            defer { inbox.removeAll() }
            return inbox
        }
        for submission in refused {
            let completion = IOCompletion(token: submission.token, error: .closed)
            withUnsafePointer(to: completion) {
                submission.sink.takeUnretainedValue().deliver(UnsafeBufferPointer(start: $0, count: 1))
            }
        }
    }

    private func cancel(_ ticket: RequestTicket) {
        reference.reactor.enqueue { [self] in
            reference.engine.cancel(token: ticket.token, sink: sink)
        }
    }
}

/// One async request under way; its address is the request's token.
private final class RequestTicket: @unchecked Sendable {
    private var continuation: UnsafeContinuation<DiskError?, Never>?
    private let cancelled = CancellationFlag()

    var isCancelled: Bool {
        get { cancelled.value }
        set { cancelled.value = newValue }
    }

    var token: UInt64 { UInt64(UInt(bitPattern: Unmanaged.passUnretained(self).toOpaque())) }

    // Not inlined: in this compiler's optimised builds a continuation inlined into a caller's loop can
    // crash on resume.
    @inline(never)
    func wait(_ submit: (UInt64) -> Void) async -> DiskError? {
        await withUnsafeContinuation { continuation in
            self.continuation = continuation
            // Balanced by the completion, of which there is exactly one.
            submit(UInt64(UInt(bitPattern: Unmanaged.passRetained(self).toOpaque())))
        }
    }

    static func complete(_ completion: IOCompletion) {
        let ticket = Unmanaged<RequestTicket>.fromOpaque(UnsafeRawPointer(bitPattern: UInt(completion.token))!)
            .takeRetainedValue()
        ticket.continuation?.resume(returning: completion.error)
    }
}

/// Resumes the tasks that wait for a disk's completions.
private final class TicketSink: CompletionSink, @unchecked Sendable {
    override func deliver(_ completions: UnsafeBufferPointer<IOCompletion>) {
        for completion in completions { RequestTicket.complete(completion) }
    }
}
