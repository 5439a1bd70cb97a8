import AsyncIO
import Synchronization

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
    // Guarded by the lock.
    private var inbox: [IOSubmission] = []
    private var isScheduled = false
    /// Something is in the inbox. Whoever was told of a request that is there finds it set: it is set before the request's submitter goes on.
    private let hasWaiting = Atomic<Bool>(false)
    /// Empty ones, to take the inbox's place in turn; a batch's completions may hand over the next one. The reactor's thread only.
    @exclusivity(unchecked) private var spares: [[IOSubmission]] = []
    /// Of tasks on the reactor's thread, and of tasks elsewhere.
    private let sink = ResumingSink()
    private let outbox: ResumptionOutbox
    private let lastSerial = Atomic<UInt32>(0)

    init(engine: EngineReference) {
        reference = engine
        outbox = ResumptionOutbox(engine)
        let (sink, outbox) = (sink, outbox)
        reference.reactor.enqueue {
            engine.engine.register(sink)
            engine.engine.register(outbox)
        }
        inbox.reserveCapacity(256)
        spares.reserveCapacity(8)
        for _ in 0..<2 {
            var spare: [IOSubmission] = []
            spare.reserveCapacity(256)
            spares.append(spare)
        }
    }

    /// Submits one request and waits for its end. Allocates nothing: what the request and its cancellation share lies in
    /// the task's own frame, and its token is the task's continuation.
    func perform(
        _ operation: IOOperation, offset: UInt64, byteCount: Int, memory: UnsafeMutableRawPointer?, forceUnitAccess: Bool
    ) async -> DiskError? {
        let serial = lastSerial.wrappingAdd(1, ordering: .relaxed).newValue
        let progress = RequestProgress()
        return await withTaskCancellationHandler {
            await RequestWait.wait { token in
                var submission = IOSubmission(
                    operation: operation, forceUnitAccess: forceUnitAccess, serial: serial, offset: offset,
                    byteCount: byteCount, memory: memory, token: token, sink: Unmanaged.passUnretained(sink))
                submit(&submission)
                if progress.submitted() { cancel(serial) }
            }
        } onCancel: {
            if progress.cancelled() { cancel(serial) }
        }
    }

    private func submit(_ submission: inout IOSubmission) {
        if reference.reactor.isOnReactorThread {
            handOverWaiting()
            withUnsafePointer(to: &submission) {
                reference.engine.submit(UnsafeBufferPointer(start: $0, count: 1))
            }
            return
        }
        submission.sink = Unmanaged.passUnretained(outbox)
        enqueue(CollectionOfOne(submission))
        outbox.help()
    }

    /// Takes requests from any thread; the first since the last hand-over schedules the next one.
    func enqueue(_ submissions: some Collection<IOSubmission>) {
        let mustSchedule = lock.withLock {
            inbox.append(contentsOf: submissions)
            hasWaiting.store(true, ordering: .relaxed)
            guard !isScheduled else { return false }
            isScheduled = true
            return true
        }
        guard mustSchedule else { return }
        let isQueued = reference.reactor.enqueue { [self] in handOver(asScheduled: true) }
        if !isQueued { refuseAll() }
    }

    /// To be called before anything is submitted on the reactor's thread: what other threads asked for earlier, and perhaps told
    /// of, goes first. One load where there is nothing.
    @inline(__always)
    func handOverWaiting() {
        if hasWaiting.load(ordering: .relaxed) { handOver(asScheduled: false) }
    }

    /// Hands the inbox over; perhaps from a completion handler inside of another hand-over, whose batch has entered by then.
    /// - Parameter asScheduled: this is the job that was scheduled for it; else it is still to come.
    private func handOver(asScheduled: Bool) {
        var batch = spares.popLast() ?? []
        lock.withLock {
            if asScheduled { isScheduled = false }
            hasWaiting.store(false, ordering: .relaxed)
            swap(&inbox, &batch)
        }
        if !batch.isEmpty { batch.withUnsafeBufferPointer { reference.engine.submit($0) } }
        batch.removeAll(keepingCapacity: true)
        spares.append(batch)
    }

    /// The reactor has ended, so nobody else will answer.
    private func refuseAll() {
        let refused = lock.withLock {
            isScheduled = false
            hasWaiting.store(false, ordering: .relaxed)
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

    private func cancel(_ serial: UInt32) {
        reference.reactor.enqueue { [self] in
            // It may still lie in the inbox, behind a job that comes after this one.
            handOverWaiting()
            let own = [sink, outbox].map { Unmanaged<CompletionSink>.passUnretained($0).toOpaque() }
            reference.engine.cancel { $0.serial == serial && own.contains($0.sink.toOpaque()) }
        }
    }
}
