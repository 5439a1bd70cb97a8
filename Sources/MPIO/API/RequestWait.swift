import AsyncIO
import Synchronization

/// How an async request's submission and its task's cancellation, which may come at any time and on any thread, find each
/// other: whoever comes second knows it, and has the request cancelled.
struct RequestProgress: ~Copyable, Sendable {
    private enum Mark { static let none: UInt8 = 0, submitted: UInt8 = 1, cancelled: UInt8 = 2 }
    private let mark = Atomic<UInt8>(Mark.none)

    /// The request was handed over. True: it is to be cancelled, because the task was cancelled before.
    func submitted() -> Bool { mark.exchange(Mark.submitted, ordering: .acquiringAndReleasing) == Mark.cancelled }

    /// The task was cancelled. True: the request was handed over before, and is to be cancelled.
    func cancelled() -> Bool { mark.exchange(Mark.cancelled, ordering: .acquiringAndReleasing) == Mark.submitted }
}

/// One async request under way: its token is its task's continuation, so that nothing has to be allocated, found or freed. A
/// task waits for one request at a time: no two under way have the same token.
enum RequestWait {
    private typealias Continuation = UnsafeContinuation<DiskError?, Never>

    // Not inlined: in this compiler's optimised builds a continuation inlined into a caller's loop can
    // crash on resume.
    @inline(never)
    static func wait(_ submit: (UInt64) -> Void) async -> DiskError? {
        await withUnsafeContinuation { (continuation: Continuation) in
            submit(UInt64(UInt(bitPattern: unsafeBitCast(continuation, to: UnsafeRawPointer.self))))
        }
    }

    /// There is exactly one completion for each token.
    static func resume(_ completion: IOCompletion) {
        let continuation = UnsafeRawPointer(bitPattern: UInt(completion.token))!
        unsafeBitCast(continuation, to: Continuation.self).resume(returning: completion.error)
    }
}

/// Resumes tasks that wait on the reactor's own thread: they go on in the same turn.
final class ResumingSink: CompletionSink, @unchecked Sendable {
    override func deliver(_ completions: UnsafeBufferPointer<IOCompletion>) {
        for completion in completions { RequestWait.resume(completion) }
    }
}

/// Resumes tasks that wait elsewhere, as a rule on Swift concurrency's pool.
///
/// To resume one wakes a thread of the pool where it sleeps, and on one processor the kernel lets that thread go before the
/// reactor's: it carries out the one task that there is and sleeps again, once for every request. So the reactor
/// resumes none before its turn is over and all output on its way; and whoever is woken and asks for more resumes, before its own
/// task waits, those that the reactor did not come to yet: they find that thread awake.
final class ResumptionOutbox: CompletionSink, @unchecked Sendable {
    private let reactor: LibaioReactor
    /// Not counted: it keeps this, and calls it.
    private unowned(unsafe) let engine: DiskEngine
    private let lock = Lock()
    /// Guarded by the lock.
    private var waiting = FIFO<IOCompletion>()
    private let hasWaiting = Atomic<Bool>(false)
    /// The reactor's thread only.
    private var isScheduled = false

    /// So many a helper resumes at most: an executor may run what it is given at once, on the same stack.
    private static let mostAtOnce = 64

    // The compiler's own would be taken for an endless recursion.
    @available(*, unavailable) override init() { preconditionFailure("an outbox belongs to an engine") }

    init(_ reference: EngineReference) {
        reactor = reference.reactor
        engine = reference.engine
        super.init()
    }

    override func deliver(_ completions: UnsafeBufferPointer<IOCompletion>) {
        // Where no other request is under way, there is nothing to wait for. And perhaps the reactor has ended.
        if !reactor.isOnReactorThread || completions.count == 1 && !isScheduled && engine.openRequestCount == 0 {
            for completion in completions { RequestWait.resume(completion) }
            return
        }
        lock.withLock {
            for completion in completions { waiting.append(completion) }
            hasWaiting.store(true, ordering: .relaxed)
        }
        guard !isScheduled else { return }
        isScheduled = true
        reactor.scheduleAtEnd(self)
    }

    /// Any thread.
    @inline(__always)
    func help() {
        guard hasWaiting.load(ordering: .relaxed) else { return }
        var rest = Self.mostAtOnce
        while rest > 0, let completion = next() {
            rest -= 1
            RequestWait.resume(completion)
        }
    }

    fileprivate func resumeAll() {
        isScheduled = false
        while let completion = next() { RequestWait.resume(completion) }
    }

    private func next() -> IOCompletion? {
        lock.withLock {
            let completion = waiting.removeFirst()
            if waiting.isEmpty { hasWaiting.store(false, ordering: .relaxed) }
            return completion
        }
    }
}

extension ResumptionOutbox: TurnHandler {
    /// The turn in which completions came is over.
    func turn() { resumeAll() }
}
