extension LibaioReactor {
    /// How bytes move between a socket and memory.
    public enum TransferMode: Sendable {
        /// sendmsg and recvmsg.
        case systemCalls
        /// PWRITEV and PREADV operations, many sockets in one `io_submit`.
        case submitted
    }

    public struct Options: Sendable {
        public var sends: TransferMode = .systemCalls
        public var receives: TransferMode = .systemCalls
        /// Bytes read at once past what the handler wants placed directly.
        public var spillByteCount = 256 * 1024
        /// Sockets and listeners at once. Asynchronous operations are reserved for each from the
        /// system-wide `fs.aio-max-nr` (65,536 by default).
        public var socketCapacity = 1024
        /// The most that ``socketCapacity`` may be.
        package static var largestSocketCapacity: Int { 1 << 19 }
        /// How long to look for completions before sleeping: doubles the requests per second at queue
        /// depth 1 on a core that has nothing else to do, and burns that core.
        public var busyPoll: Duration = .zero
        /// How long to look for completions before sleeping while measuring shows that this costs hardly more
        /// processor time than sleeping does: see ``AdaptivePolling``. Zero: never. ``busyPoll`` replaces it.
        public var adaptivePolling: Duration = .zero
        /// File operations submitted in one turn: submitting them takes tens of microseconds each, in which
        /// no socket is served.
        public var fileOperationsPerTurn = 32
        /// File operations that the kernel holds at once; more wait in the reactor.
        public var fileOperationsInFlight = 256
        /// Whether completions are taken from the ring that the kernel maps into the process. Without it, and
        /// with a kernel whose ring has another layout, each look at it is a call of `io_getevents`.
        public var usesMappedRing = true
        /// Connections accepted from one listener in one turn.
        public var acceptsPerTurn = 64

        public init() {}
    }

    /// What the loop did since it started.
    public struct Counters: Hashable, Sendable {
        public var turns: UInt64 = 0
        /// Calls of `io_submit`, and the operations they carried.
        public var submitCalls: UInt64 = 0
        public var submittedOperations: UInt64 = 0
        public var receiveCalls: UInt64 = 0
        /// Receive calls that found nothing.
        public var emptyReceives: UInt64 = 0
        public var sendCalls: UInt64 = 0
        /// Calls that changed how many bytes a socket's POLL waits for.
        public var thresholdChanges: UInt64 = 0
        public var receivedByteCount: UInt64 = 0
        public var sentByteCount: UInt64 = 0
        /// Waits in `io_getevents`.
        public var sleeps: UInt64 = 0
        /// Looks for completions before a sleep, and those that made the sleep needless.
        public var polls: UInt64 = 0
        public var pollsThatFound: UInt64 = 0
        /// Sleeps that lasted so long that sockets which owe an answer were tried.
        public var secondLooks: UInt64 = 0
        /// Sleeps that another thread ended.
        public var wakeUps: UInt64 = 0
        public var jobs: UInt64 = 0
        public var timersFired: UInt64 = 0
        /// Objects open now.
        public var openSockets = 0
        public var openListeners = 0
        public var openFiles = 0
        public var pendingTimers = 0
        public var fileOperationsInFlight = 0

        public init() {}

        /// Adds what another reactor did.
        public static func += (sum: inout Counters, other: Counters) {
            sum.turns += other.turns
            sum.submitCalls += other.submitCalls
            sum.submittedOperations += other.submittedOperations
            sum.receiveCalls += other.receiveCalls
            sum.emptyReceives += other.emptyReceives
            sum.sendCalls += other.sendCalls
            sum.thresholdChanges += other.thresholdChanges
            sum.receivedByteCount += other.receivedByteCount
            sum.sentByteCount += other.sentByteCount
            sum.sleeps += other.sleeps
            sum.polls += other.polls
            sum.pollsThatFound += other.pollsThatFound
            sum.secondLooks += other.secondLooks
            sum.wakeUps += other.wakeUps
            sum.jobs += other.jobs
            sum.timersFired += other.timersFired
            sum.openSockets += other.openSockets
            sum.openListeners += other.openListeners
            sum.openFiles += other.openFiles
            sum.pendingTimers += other.pendingTimers
            sum.fileOperationsInFlight += other.fileOperationsInFlight
        }
    }
}
