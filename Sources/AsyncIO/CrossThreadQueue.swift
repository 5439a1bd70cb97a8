import Synchronization

/// Work for the loop's thread.
enum Job {
    case closure(@Sendable () -> Void)
    case executor(UnownedJob)
    /// A blocking file operation ended: its slot, and a count or a negative error number.
    case fileResult(UInt64, Int)
}

/// Jobs from any thread to the loop. A producer wakes the loop only where it sleeps, and only one of
/// many producers does.
final class CrossThreadQueue: Sendable {
    private struct State {
        var jobs: [Job] = []
        var isClosed = false
    }

    private let lock = Lock()
    // Guarded by `lock`.
    private nonisolated(unsafe) var state = State()
    private let hasJobs = Atomic<Bool>(false)
    private let isSleeping = Atomic<Bool>(false)

    enum Outcome { case queued, mustWake, closed }

    func push(_ job: Job) -> Outcome {
        let isClosed = lock.withLock {
            if !state.isClosed { state.jobs.append(job) }
            return state.isClosed
        }
        if isClosed { return .closed }
        hasJobs.store(true, ordering: .sequentiallyConsistent)
        return isSleeping.exchange(false, ordering: .sequentiallyConsistent) ? .mustWake : .queued
    }

    @inline(__always)
    var isEmpty: Bool { !hasJobs.load(ordering: .acquiring) }

    /// Exchanges the waiting jobs for an empty array, whose storage is used again.
    func drain(into empty: inout [Job]) {
        hasJobs.store(false, ordering: .sequentiallyConsistent)
        lock.withLock { swap(&state.jobs, &empty) }
    }

    /// The loop is about to sleep. False where a job came first; then it must not.
    func beginSleep() -> Bool {
        isSleeping.store(true, ordering: .sequentiallyConsistent)
        guard !hasJobs.load(ordering: .sequentiallyConsistent) else {
            isSleeping.store(false, ordering: .sequentiallyConsistent)
            return false
        }
        return true
    }

    func endSleep() { isSleeping.store(false, ordering: .sequentiallyConsistent) }

    /// Takes no more jobs; those that wait are given back.
    func close() -> [Job] {
        lock.withLock {
            state.isClosed = true
            defer { state.jobs = [] }
            return state.jobs
        }
    }
}
