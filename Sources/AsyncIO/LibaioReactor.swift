import CAio
import Glibc
import Synchronization
public import Timebase

/// The event loop: sockets, files, timers and jobs of other threads on one thread and one libaio context.
///
/// Each turn harvests completions, lets handlers and jobs run, gathers what the sockets have to send,
/// and hands everything to the kernel in one `io_submit`; it sleeps only when all of that left nothing to do.
///
/// **Life.** ``init(options:)`` takes the kernel's resources, ``start(threadName:)`` starts the thread,
/// ``stop()`` ends it and gives everything back. The methods of ``IOPort`` are for the loop's thread;
/// other threads reach it by ``enqueue(_:)-(()->Void)`` or ``performAndWait(_:)``.
public final class LibaioReactor: IOPort, @unchecked Sendable {
    let options: Options
    let context: AioContext

    // Loop thread only, all of it.
    let sockets: Slab<SocketSlot>
    let listeners: Slab<ListenerSlot>
    let files: Slab<FileSlot>
    let fileOperations: Slab<FileOperationSlot>
    @exclusivity(unchecked) var timers: TimerHeap
    @exclusivity(unchecked) public private(set) var now: Instant
    @exclusivity(unchecked) var counts = Counters()
    /// See ``coalesceReceives(nanoseconds:)``.
    @exclusivity(unchecked) private(set) var coalescing: UInt64 = 0
    /// When completions were last taken, in nanoseconds of the clock.
    @exclusivity(unchecked) private var lastHarvest: UInt64 = 0
    @exclusivity(unchecked) private var polling: AdaptivePolling

    /// Sockets with output to gather; each at most once (``SocketSlot/isSendQueued``).
    let sendQueue = IdentifierQueue()
    /// Sockets to arm a POLL for.
    let armQueue = IdentifierQueue()
    /// Sockets to read from without a POLL: their last read filled the buffers, or sending failed.
    let readyQueue = IdentifierQueue()
    /// Sockets whose connection ended before `connect` returned, one way or the other.
    let resolvedQueue = IdentifierQueue()
    /// Those among them for which there was no room.
    var refusedConnections: [UInt64: RefusedConnection] = [:]
    var refusedConnectionCount: UInt64 = 0
    let listenerQueue = IdentifierQueue()
    let fileQueue = IdentifierQueue()
    let refusedFileQueue = IdentifierQueue()
    /// Sockets to read from by PREADV, and how many of them the kernel has answered but nobody told.
    let submittedReceiveQueue = IdentifierQueue()
    var submittedReceivesOutstanding = 0
    /// Sockets that something was sent on and that perhaps owe an answer; each at most once.
    let awaitedQueue = IdentifierQueue()
    /// Sockets that are read after the next wait for answers to gather, without a POLL; see ``goesUnarmed(_:)``.
    let unarmedQueue = IdentifierQueue()
    /// Sockets whose POLL waits for more than a byte; each at most once. See ``fitReceiveThreshold(_:_:)``.
    let raisedQueue = IdentifierQueue()
    @exclusivity(unchecked) var thresholdReviewAt = UInt64.max
    @exclusivity(unchecked) var largePiecesUntil: UInt64 = 0
    @exclusivity(unchecked) var secondLookDelay = firstSecondLookDelay
    var fileOperationsInKernel = 0
    var fileOperationsWithWorkers = 0
    var acceptRetry: AcceptRetry?

    let spill: UnsafeMutableRawBufferPointer
    /// Spill buffers of a batch of submitted receives; empty in the other mode.
    let submittedSpills: [UnsafeMutableRawBufferPointer]
    let submittedReceiveParts: UnsafeMutablePointer<iovec>
    let segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>
    let parts: UnsafeMutablePointer<iovec>
    /// How much of `parts` the sends of the current batch use.
    var partsUsed = 0

    @exclusivity(unchecked) var localJobs: [Job] = []
    @exclusivity(unchecked) private var runningJobs: [Job] = []
    @exclusivity(unchecked) private var scheduled: [any TurnHandler] = []
    @exclusivity(unchecked) private var runningHandlers: [any TurnHandler] = []
    /// See ``scheduleAtEnd(_:)``.
    @exclusivity(unchecked) var endHandlers: [any TurnHandler] = []
    @exclusivity(unchecked) var runningEndHandlers: [any TurnHandler] = []

    // Shared with other threads.
    let queue = CrossThreadQueue()
    private let wakeUp: WakeUp
    private let threadIdentity = Atomic<UInt>(0)
    private let isStopping = Atomic<Bool>(false)
    private let life = Lock()
    // Guarded by `life`.
    private nonisolated(unsafe) var thread: pthread_t?
    private nonisolated(unsafe) var wasStarted = false
    private nonisolated(unsafe) var wasReleased = false
    private(set) var workers: BlockingWorkers!

    /// The kernel takes at most so many parts in one vectored operation (IOV_MAX).
    static let maximumParts = 1024
    static let partsPerBatch = 4 * maximumParts
    static let submittedReceiveBatch = 8

    /// - Throws: `EAGAIN` where `fs.aio-max-nr` is used up, `EMFILE` without a free descriptor.
    public init(options: Options = Options()) throws(IOError) {
        precondition(
            options.spillByteCount > 0 && (1...Options.largestSocketCapacity).contains(options.socketCapacity)
                && options.fileOperationsPerTurn > 0 && options.fileOperationsInFlight > 0
                && options.acceptsPerTurn > 0, "reactor options out of range")
        self.options = options
        polling = AdaptivePolling(
            limitNanoseconds: options.busyPoll > .zero ? 0 : UInt64(max(options.adaptivePolling.wholeNanoseconds, 0)))
        wakeUp = try WakeUp()
        // The kernel doubles what is asked for, so each socket has its POLL IN and POLL OUT at once.
        context = try AioContext(
            capacity: options.socketCapacity + options.fileOperationsInFlight + 64,
            usesMappedRing: options.usesMappedRing)
        sockets = Slab(capacity: options.socketCapacity)
        listeners = Slab(capacity: options.socketCapacity)
        files = Slab(capacity: 1 << 16)
        fileOperations = Slab(capacity: 1 << 18)
        timers = TimerHeap(capacity: 1 << 18)
        spill = .allocate(byteCount: options.spillByteCount, alignment: 4096)
        submittedSpills =
            options.receives == .systemCalls
            ? []
            : (0..<Self.submittedReceiveBatch).map { _ in
                .allocate(byteCount: options.spillByteCount, alignment: 4096)
            }
        submittedReceiveParts = .allocate(capacity: 2 * Self.submittedReceiveBatch)
        submittedReceiveParts.initialize(repeating: iovec(), count: 2 * Self.submittedReceiveBatch)
        segments = .allocate(capacity: Self.maximumParts)
        segments.initialize(repeating: UnsafeRawBufferPointer(start: nil, count: 0))
        parts = .allocate(capacity: Self.partsPerBatch)
        parts.initialize(repeating: iovec(), count: Self.partsPerBatch)
        now = Instant(nanoseconds: mpio_clock())
        workers = BlockingWorkers { [unowned self] id, result in
            _ = self.post(.fileResult(id, result))
        }
    }

    deinit {
        releaseResources()
        context.destroy()
        for queue in [
            sendQueue, armQueue, readyQueue, resolvedQueue, listenerQueue, fileQueue, refusedFileQueue,
            submittedReceiveQueue, awaitedQueue, unarmedQueue, raisedQueue,
        ] { queue.deallocate() }
        sockets.deallocate()
        listeners.deallocate()
        files.deallocate()
        fileOperations.deallocate()
        timers.deallocate()
        spill.deallocate()
        for buffer in submittedSpills { buffer.deallocate() }
        submittedReceiveParts.deallocate()
        segments.deallocate()
        parts.deallocate()
    }

    // MARK: Life

    /// Starts the loop's thread; once per reactor. The name shows in `ps -L`, cut to 15 bytes.
    /// - Throws: `EAGAIN` where no thread can be made.
    public func start(threadName: String = "mpio-io") throws(IOError) {
        try life.withLock { () throws(IOError) in
            precondition(!wasStarted, "a reactor is started once")
            let argument = Unmanaged.passRetained(ThreadArgument(reactor: self, name: threadName))
            var created = pthread_t()
            let code = pthread_create(
                &created, nil,
                { raw in
                    let argument = Unmanaged<ThreadArgument>.fromOpaque(raw!).takeRetainedValue()
                    argument.reactor.threadMain(name: argument.name)
                    return nil
                }, argument.toOpaque())
            guard code == 0 else {
                argument.release()
                throw IOError(code: code, operation: "start the reactor's thread")
            }
            thread = created
            wasStarted = true
        }
    }

    /// Ends the loop and waits for it, then closes every socket (with a FIN) and file and gives the
    /// kernel's resources back. File operations under way are waited for and reported, and jobs already
    /// queued run; nothing is called any more once this returned. Does nothing the second time.
    /// Not from the loop's own thread.
    public func stop() {
        precondition(!isOnReactorThread, "a reactor cannot wait for itself")
        life.withLock {
            guard !wasReleased else { return }
            wasReleased = true
            if let thread {
                isStopping.store(true, ordering: .sequentiallyConsistent)
                _ = post(.closure {})
                pthread_join(thread, nil)
            }
            thread = nil
            releaseResources()
            context.destroy()
        }
    }

    private final class ThreadArgument {
        let reactor: LibaioReactor
        let name: String
        init(reactor: LibaioReactor, name: String) {
            self.reactor = reactor
            self.name = name
        }
    }

    private func threadMain(name: String) {
        mpio_prepare_loop_thread(name)
        threadIdentity.store(UInt(pthread_self()), ordering: .sequentiallyConsistent)
        while !isStopping.load(ordering: .relaxed) || fileOperations.count > 0 { turn() }
        // Jobs that came between the last turn and the closing of the queue still run here.
        while true {
            runJobs()
            if queue.isEmpty, localJobs.isEmpty { break }
        }
        localJobs = queue.close()
        while !localJobs.isEmpty { runLocalJobs() }
        endTurn()
        closeAll()
        threadIdentity.store(0, ordering: .sequentiallyConsistent)
    }

    private func releaseResources() {
        _ = queue.close()
        workers?.stop()
        closeAll()
        // Handlers know the reactor: kept, they would keep it.
        timers.removeAll()
        scheduled.removeAll()
    }

    private func closeAll() {
        forgetAllRefusals()
        sockets.forEach { id, slot in
            if slot.pointee.descriptor >= 0 { mpio_close_gracefully(slot.pointee.descriptor, slot.pointee.isTCP) }
            sockets.release(id)
        }
        listeners.forEach { id, slot in
            mpio_close_gracefully(slot.pointee.descriptor, false)
            listeners.release(id)
        }
        files.forEach { id, slot in
            Glibc.close(slot.pointee.descriptor)
            files.release(id)
        }
    }

    // MARK: Threads

    public var isOnReactorThread: Bool {
        threadIdentity.load(ordering: .relaxed) == UInt(pthread_self())
    }

    /// Runs `job` on the loop's thread, in the next step of the loop. Any thread. Jobs of one thread run
    /// in the order they were queued. False where the reactor was stopped: the job will not run.
    @discardableResult
    public func enqueue(_ job: @escaping @Sendable () -> Void) -> Bool {
        post(.closure(job))
    }

    /// Queues a job; false where the reactor has stopped.
    func post(_ job: Job) -> Bool {
        if isOnReactorThread {
            localJobs.append(job)
            return true
        }
        switch queue.push(job) {
        case .closed: return false
        case .queued: return true
        case .mustWake:
            wakeUp.signal(context)
            return true
        }
    }

    public func schedule(_ handler: any TurnHandler) {
        checkThread()
        scheduled.append(handler)
    }

    @inline(__always)
    func checkThread() {
        assert(isOnReactorThread, "the port is used on its own thread only")
    }

    // MARK: Time

    public func readClock() -> Instant { Instant(nanoseconds: mpio_clock()) }

    public func setTimer(at deadline: Instant, handler: any TimerHandler, token: UInt64) -> TimerID {
        checkThread()
        return timers.insert(deadline: deadline, handler: handler, token: token)
    }

    public func cancelTimer(_ timer: TimerID) {
        checkThread()
        timers.cancel(timer)
    }

    /// What the loop did so far. On the loop's thread.
    public var counters: Counters {
        var result = counts
        result.submitCalls = context.submitCalls
        result.submittedOperations = context.submittedOperations
        result.openSockets = sockets.count
        result.openListeners = listeners.count
        result.openFiles = files.count
        result.pendingTimers = timers.count
        result.fileOperationsInFlight = fileOperations.count
        return result
    }

    // MARK: The loop

    private func turn() {
        counts.turns += 1
        let leavesAnswers = mayLeaveAnswers
        let count = leavesAnswers ? 0 : awaitCompletions()
        now = readClock()
        if !leavesAnswers { lastHarvest = now.nanoseconds }
        if count > 0 { dispatch(count) }
        if now.nanoseconds >= thresholdReviewAt { reviewThresholds() }
        if !leavesAnswers, !unarmedQueue.isEmpty { queueReadingUnarmed() }
        receiveFromReadySockets()
        deliverResolvedConnections()
        acceptFromReadyListeners()
        deliverRefusedFileOperations()
        fireTimers()
        runJobs()
        gatherSends()
        submitBatch()
        endTurn()
    }

    /// Completions that are there, or else the first that come, unless there is something to do before.
    private func awaitCompletions() -> Int {
        var count = coalescing > 0 && !hasWork ? gather() : 0
        if count == 0 { count = context.harvest() }
        if count == 0, !hasWork, unarmedQueue.isEmpty { count = sleep() }
        return count
    }

    /// Where answers gather, what other threads ask for meanwhile leaves at once, and the answers go on gathering: to
    /// receive the few that are there would cost as much as to receive all.
    private var mayLeaveAnswers: Bool {
        coalescing > 0 && !queue.isEmpty && !hasOwnWork && mpio_clock() &- lastHarvest < coalescing
    }

    /// Whether a turn has something to do before any completion comes.
    private var hasWork: Bool { hasOwnWork || !queue.isEmpty }

    private var hasOwnWork: Bool {
        !readyQueue.isEmpty || !sendQueue.isEmpty || !localJobs.isEmpty || !scheduled.isEmpty || !endHandlers.isEmpty
            || !resolvedQueue.isEmpty || !listenerQueue.isEmpty || !refusedFileQueue.isEmpty
            || !submittedReceiveQueue.isEmpty
            || (!fileQueue.isEmpty && fileOperationsInKernel < options.fileOperationsInFlight)
            || isStopping.load(ordering: .relaxed) && fileOperations.count == 0
    }

    public func coalesceReceives(nanoseconds: UInt64) {
        checkThread()
        coalescing = options.busyPoll > .zero ? 0 : nanoseconds
        if coalescing > 0 { polling.disturb() }
    }

    public var isReceivingLargePieces: Bool { now.nanoseconds < largePiecesUntil }

    /// Whether answers are to gather before the next are received.
    @inline(__always)
    var gathersNext: Bool { coalescing > 0 && !hasOwnWork }

    /// Lets completions gather until the last ones are long enough ago; how many came. Other threads do
    /// not end it: their jobs wait no longer than answers do.
    private func gather() -> Int {
        let moment = mpio_clock()
        let due = min(lastHarvest &+ coalescing, timers.nextDeadline)
        // Falling asleep and waking up costs about as much as turning a little too early.
        guard due > moment &+ 4000 else { return 0 }
        counts.sleeps += 1
        return context.wait(nanoseconds: due - moment, atLeast: AioContext.harvestCapacity)
    }

    /// Waits for a completion, the next deadline or another thread; how many completions came.
    private func sleep() -> Int {
        if options.busyPoll > .zero {
            if poll(nanoseconds: UInt64(options.busyPoll.wholeNanoseconds)) { return context.harvest() }
        } else if polling.limit > 0, coalescing == 0 {
            // Where answers gather there is nothing to be won by being early.
            let found = polling.polls && poll(nanoseconds: polling.limit)
            if polling.waited(found: found) {
                polling.endStretch(
                    used: mpio_thread_clock(), bytes: counts.receivedByteCount &+ counts.sentByteCount)
            }
            if found { return context.harvest() }
        }
        guard queue.beginSleep() else { return 0 }
        defer { queue.endSleep() }
        var patience = UInt64.max
        let deadline = timers.nextDeadline
        if deadline != .max {
            let moment = mpio_clock()
            guard deadline > moment else { return 0 }
            patience = deadline - moment
        }
        if thresholdReviewAt != .max {
            patience = min(patience, max(thresholdReviewAt, now.nanoseconds) - now.nanoseconds)
        }
        // The kernel had no room for a part of the batch: try again soon, whatever happens.
        if context.batchCount > 0 || !armQueue.isEmpty { patience = min(patience, 1_000_000) }
        let looksAgain =
            !awaitedQueue.isEmpty && secondLookDelay <= min(Self.lastSecondLookDelay, patience)
            && options.receives == .systemCalls
        if looksAgain { patience = secondLookDelay }
        counts.sleeps += 1
        let count = context.wait(nanoseconds: patience)
        if count == 0, looksAgain, queue.isEmpty { lookAgain() }
        return count
    }

    /// Looks for a completion or a job of another thread; true as soon as there is one.
    private func poll(nanoseconds: UInt64) -> Bool {
        let deadline = timers.nextDeadline
        let moment = mpio_clock()
        let limit = min(nanoseconds, deadline > moment ? deadline - moment : 0)
        counts.polls += 1
        guard context.spin(nanoseconds: limit, until: { !queue.isEmpty }) || !queue.isEmpty else { return false }
        counts.pollsThatFound += 1
        return true
    }

    private func dispatch(_ count: Int) {
        for position in 0..<count { dispatch(context.events[position]) }
    }

    @inline(__always)
    func dispatch(_ event: io_event) {
        let tag = AioContext.tag(event.data)
        let id = tag >> OperationKind.bits
        let result = Int(bitPattern: UInt(event.res))
        switch OperationKind(rawValue: UInt8(truncatingIfNeeded: tag & 0xF)) {
        case .pollIn: pollInCompleted(id)
        case .pollOut: pollOutCompleted(id)
        case .send: sendCompleted(id, result: result)
        case .receive: submittedReceiveCompleted(id, result: result)
        case .accept: acceptBecameReady(id)
        case .file: fileOperationCompleted(id, result: result)
        case .wakeUp:
            counts.wakeUps += 1
        case .wakeUpFallback:
            wakeUp.fallbackFired()
            counts.wakeUps += 1
        case nil:
            preconditionFailure("an event that nobody submitted")
        }
    }

    private func fireTimers() {
        // A timer set by a handler for a moment already past waits for the next turn.
        var remaining = timers.count
        while remaining > 0, let due = timers.popDue(at: now) {
            counts.timersFired += 1
            due.handler.timerFired(due.timer, token: due.token)
            remaining -= 1
        }
    }

    /// Runs jobs and turn handlers, and what those queue in turn, so that all of their output leaves in
    /// this turn; bounded, because sockets wait meanwhile.
    private func runJobs() {
        for _ in 0..<8 {
            if !queue.isEmpty {
                if localJobs.isEmpty {
                    queue.drain(into: &localJobs)
                } else {
                    var drained: [Job] = []
                    queue.drain(into: &drained)
                    localJobs.append(contentsOf: drained)
                }
            }
            guard !localJobs.isEmpty || !scheduled.isEmpty else { return }
            runLocalJobs()
            if !scheduled.isEmpty {
                swap(&scheduled, &runningHandlers)
                for handler in runningHandlers { handler.turn() }
                runningHandlers.removeAll(keepingCapacity: true)
            }
        }
    }

    private func runLocalJobs() {
        guard !localJobs.isEmpty else { return }
        swap(&localJobs, &runningJobs)
        counts.jobs += UInt64(runningJobs.count)
        for job in runningJobs {
            switch job {
            case .closure(let body): body()
            case .executor(let job): run(job)
            case .fileResult(let id, let result): workerCompleted(id, result: result)
            }
        }
        runningJobs.removeAll(keepingCapacity: true)
    }

    private func submitBatch() {
        armPolls()
        addFileOperations()
        if !context.batchIsFull, let fallback = wakeUp.fallbackToArm() { context.add(fallback) }
        flush()
    }

    /// Hands the batch to the kernel.
    func flush() {
        guard context.batchCount > 0 else { return }
        context.submit { tag, code in refuse(tag, code) }
        if context.batchCount == 0 { partsUsed = 0 }
    }

    private func refuse(_ tag: UInt64, _ code: Int32) {
        let id = tag >> OperationKind.bits
        switch OperationKind(rawValue: UInt8(truncatingIfNeeded: tag & 0xF)) {
        case .pollIn, .pollOut: pollRefused(id, code)
        case .send: sendRefused(id, code)
        case .receive: submittedReceiveRefused(id)
        case .accept: acceptRefused(id)
        case .file: fileOperationRefused(id, code)
        case .wakeUp, .wakeUpFallback: preconditionFailure("the wake-up's POLL was refused: \(code)")
        case nil: preconditionFailure("an operation that nobody made")
        }
    }
}

/// What a completion is for: the low bits of its tag, under the identifier of its slot.
enum OperationKind: UInt8 {
    static let bits: UInt64 = 4

    case wakeUp = 0
    case pollIn, pollOut, send, receive, accept, file, wakeUpFallback

    @inline(__always)
    func tagging(_ id: UInt64) -> UInt64 { id << Self.bits | UInt64(rawValue) }
}
