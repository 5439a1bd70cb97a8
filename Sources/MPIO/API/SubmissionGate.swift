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
    private var inbox: [IOSubmission] = []
    private var spare: [IOSubmission] = []
    private var isScheduled = false
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
        spare.reserveCapacity(256)
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

    private func cancel(_ serial: UInt32) {
        reference.reactor.enqueue { [self] in
            // It may still lie in the inbox, behind a job that comes after this one.
            handOver()
            let own = [sink, outbox].map { Unmanaged<CompletionSink>.passUnretained($0).toOpaque() }
            reference.engine.cancel { $0.serial == serial && own.contains($0.sink.toOpaque()) }
        }
    }
}
