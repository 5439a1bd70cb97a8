import Glibc
import Synchronization

extension LibaioReactor: TaskExecutor {
    /// Runs async code on the loop's thread: `Task(executorPreference: reactor) { … }` or
    /// `withTaskExecutorPreference(reactor) { … }`. A continuation that a handler resumes then goes on in
    /// the same turn, without a change of thread.
    ///
    /// After ``stop()`` jobs run on the thread that queues them, so that a task which was waiting can
    /// still come to its end; it must not use the port any more.
    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if !post(.executor(job)) { run(job) }
    }

    func run(_ job: UnownedJob) {
        job.runSynchronously(on: asUnownedTaskExecutor())
    }

    /// Calls the handler once, when a turn has handed all that it has to the kernel and the loop may sleep: for what makes
    /// other threads run, which then delay nothing. Loop thread.
    package func scheduleAtEnd(_ handler: any TurnHandler) {
        checkThread()
        endHandlers.append(handler)
    }

    @inline(__always)
    func endTurn() {
        guard !endHandlers.isEmpty else { return }
        swap(&endHandlers, &runningEndHandlers)
        for handler in runningEndHandlers { handler.turn() }
        runningEndHandlers.removeAll(keepingCapacity: true)
    }

    /// Runs `body` on the loop's thread and waits for what it returns; runs it at once where the caller
    /// is on that thread already. For set-up and tear-down, outside Swift concurrency, after ``start(threadName:)``.
    /// - Throws: what `body` throws; ``ReactorStopped`` where the loop does not run any more.
    public func performAndWait<Value>(_ body: @escaping () throws -> Value) throws -> Value {
        if isOnReactorThread { return try body() }
        let handOver = HandOver<Value>(body)
        guard enqueue({ handOver.run() }) else { throw ReactorStopped() }
        return try handOver.wait()
    }

    private final class HandOver<Value>: @unchecked Sendable {
        private let body: () throws -> Value
        private var result: Result<Value, any Error>?
        private let semaphore: UnsafeMutablePointer<sem_t>

        init(_ body: @escaping () throws -> Value) {
            self.body = body
            semaphore = .allocate(capacity: 1)
            sem_init(semaphore, 0, 0)
        }

        deinit {
            sem_destroy(semaphore)
            semaphore.deallocate()
        }

        func run() {
            result = Result { try body() }
            sem_post(semaphore)
        }

        func wait() throws -> Value {
            while sem_wait(semaphore) != 0 {}
            return try result!.get()
        }
    }
}

/// The reactor's loop has ended.
public struct ReactorStopped: Error, Hashable, Sendable, CustomStringConvertible {
    public var description: String { "the reactor was stopped" }
}
