import AsyncIO
import Synchronization

/// Brings the requests of a disk with several lanes to them, and what a request's lanes answered together.
///
/// A request that lies in one stripe goes to its lane as it is. One that reaches over several goes to each lane concerned, which
/// does its own stripes, a few at a time; it ends when the last lane has, with the first failure that came. Such a request costs
/// an allocation.
///
/// **Threads.** Any. On a lane's own reactor a request for that lane goes straight in; all others go through the lane's
/// ``SubmissionGate``.
final class LaneRouter: @unchecked Sendable {
    let striping: Striping
    let gates: [SubmissionGate]
    /// Where the parts of a request end, for each lane.
    private let joints: [JointSink]

    init(_ lanes: [EngineReference], gates: [SubmissionGate], blockSize: Int) {
        precondition(lanes.count == gates.count, "a gate for each lane")
        striping = Striping(laneCount: lanes.count, blockSize: blockSize)
        self.gates = gates
        joints = lanes.enumerated().map { JointSink($0, $1) }
        for (lane, joint) in zip(lanes, joints) { lane.reactor.enqueue { lane.engine.register(joint) } }
    }

    /// The lane on whose reactor this thread is; nil on any other.
    var own: Int? { gates.firstIndex { $0.reference.reactor.isOnReactorThread } }

    /// The lane that has all of a request; nil where several have.
    @inline(__always)
    func lane(of operation: IOOperation, _ offset: UInt64, _ byteCount: Int) -> Int? {
        operation == .flush || striping.stripeCount(offset, byteCount) > 1 ? nil : striping.lane(at: offset)
    }

    // MARK: One request

    /// Submits a request that no lane has all of. `sinks` are those of the submitter, one for each lane.
    func submit(_ submission: IOSubmission, endingIn sinks: LaneSinks) {
        submit(submission, .sinks(sinks, token: submission.token))
    }

    /// The same; `call` is called once, on the thread of one of the lanes.
    func submit(_ submission: IOSubmission, then call: @escaping @Sendable (DiskError?) -> Void) { submit(submission, .call(call)) }

    /// Submits a request that no lane has all of and waits for its end, also where its task is cancelled: a part may be on its way.
    func perform(
        _ operation: IOOperation, offset: UInt64, byteCount: Int, memory: UnsafeMutableRawPointer?, forceUnitAccess: Bool
    ) async -> DiskError? {
        await RequestWait.wait { token in
            let submission = IOSubmission(
                operation: operation, forceUnitAccess: forceUnitAccess, offset: offset, byteCount: byteCount, memory: memory,
                token: token, sink: Unmanaged.passUnretained(joints[0]))
            submit(submission) { RequestWait.resume(IOCompletion(token: token, error: $0)) }
        }
    }

    private func submit(_ submission: IOSubmission, _ end: JointRequest.End) {
        var whole = submission
        if submission.operation == .flush { return flush(whole, end) }
        whole.isStriped = true
        // Two stripes in a row are on two lanes.
        let stripes = striping.stripeCount(whole.offset, whole.byteCount)
        var concerned = Int(min(stripes, UInt64(striping.laneCount)))
        let first = striping.lane(at: whole.offset)
        if whole.operation == .compareAndWrite { concerned = 1 }
        let joint = Unmanaged.passRetained(JointRequest(end, laneCount: concerned))
        whole.token = UInt64(UInt(bitPattern: joint.toOpaque()))
        for number in 0..<concerned { enter(whole, (first + number) % striping.laneCount) }
    }

    /// SYNCHRONIZE CACHE is about the logical unit's cache, through whichever nexus the data came there (SBC-4, SYNCHRONIZE CACHE;
    /// SAM-5: one device server for all I_T nexuses), so one lane is enough for every write that was acknowledged, as one path is for
    /// those of the others. Where that lane has no path left, the next one is asked.
    private func flush(_ submission: IOSubmission, _ end: JointRequest.End) {
        let joint = JointRequest(end, laneCount: 1)
        var submission = submission
        submission.token = UInt64(UInt(bitPattern: Unmanaged.passRetained(joint).toOpaque()))
        joint.flushesLeft = striping.laneCount - 1
        joint.next = { [unowned self] lane in enter(submission, (lane + 1) % striping.laneCount) }
        enter(submission, own ?? 0)
    }

    private func enter(_ submission: IOSubmission, _ lane: Int) {
        var submission = submission
        submission.sink = Unmanaged.passUnretained(joints[lane])
        let reference = gates[lane].reference
        if reference.reactor.isOnReactorThread {
            gates[lane].handOverWaiting()
            withUnsafePointer(to: &submission) { reference.engine.submit(UnsafeBufferPointer(start: $0, count: 1)) }
        } else {
            gates[lane].enqueue(CollectionOfOne(submission))
        }
    }

    // MARK: Batches

    /// So many are sorted by lanes at once, in memory of the stack.
    private static let batchCount = 16

    /// Submits a batch, in order. `sinks` are those of the submitter.
    func submit(_ requests: UnsafeBufferPointer<IORequest>, _ sinks: LaneSinks) {
        let own = own
        if let own, requests.allSatisfy({ lane(of: $0) == own }) {
            gates[own].handOverWaiting()
            return gates[own].reference.engine.submit(requests, sink: sinks[own])
        }
        var rest = UnsafeBufferPointer(rebasing: requests[...])
        while !rest.isEmpty {
            let some = UnsafeBufferPointer(rebasing: rest.prefix(Self.batchCount))
            sort(some, sinks, own)
            rest = UnsafeBufferPointer(rebasing: rest.dropFirst(Self.batchCount))
        }
    }

    private func lane(of request: IORequest) -> Int? {
        if case .flush = request.operation { return nil }
        return striping.stripeCount(request.offset, request.byteCount) > 1 ? nil : striping.lane(at: request.offset)
    }

    /// Each lane gets what is its own in the order of the batch, what reaches over several lanes included.
    private func sort(_ requests: UnsafeBufferPointer<IORequest>, _ sinks: LaneSinks, _ own: Int?) {
        var start = requests.startIndex
        for (index, request) in requests.enumerated() where lane(of: request) == nil {
            dealOut(UnsafeBufferPointer(rebasing: requests[start..<index]), sinks, own)
            submit(IOSubmission(request, sink: sinks[0]), endingIn: sinks)
            start = index + 1
        }
        dealOut(UnsafeBufferPointer(rebasing: requests[start...]), sinks, own)
    }

    /// Requests of one lane each.
    private func dealOut(_ requests: UnsafeBufferPointer<IORequest>, _ sinks: LaneSinks, _ own: Int?) {
        guard !requests.isEmpty else { return }
        withUnsafeTemporaryAllocation(of: IOSubmission.self, capacity: Self.batchCount) { some in
            for number in gates.indices {
                var count = 0
                for request in requests where lane(of: request) == number {
                    some.initializeElement(at: count, to: IOSubmission(request, sink: sinks[number]))
                    count += 1
                }
                guard count > 0 else { continue }
                let batch = UnsafeBufferPointer(rebasing: some[..<count])
                guard number == own else {
                    gates[number].enqueue(batch)
                    continue
                }
                gates[number].handOverWaiting()
                gates[number].reference.engine.submit(batch)
            }
        }
    }
}

/// Who is told of completions on each lane.
final class LaneSinks: @unchecked Sendable {
    private let sinks: [CompletionSink]

    init(_ sinks: [CompletionSink]) { self.sinks = sinks }

    subscript(_ lane: Int) -> Unmanaged<CompletionSink> { Unmanaged.passUnretained(sinks[lane]) }
}

/// A request that several lanes do, or one of them for all; its address is the token of its parts. It holds itself until the last has ended.
private final class JointRequest: @unchecked Sendable {
    enum End {
        case sinks(LaneSinks, token: UInt64)
        case call(@Sendable (DiskError?) -> Void)
    }

    let end: End
    private let lanesLeft: Atomic<Int>
    private let lock = Lock()
    private var error: DiskError?
    /// Lanes that a flush has not tried. It is on one lane at a time.
    var flushesLeft = 0
    /// Tries the lane after this one.
    var next: ((Int) -> Void)?

    init(_ end: End, laneCount: Int) {
        self.end = end
        lanesLeft = Atomic(laneCount)
    }

    /// Whether this was the last one.
    func ended(_ failure: DiskError?) -> Bool {
        if let failure { lock.withLock { error = error ?? failure } }
        return lanesLeft.subtract(1, ordering: .acquiringAndReleasing).newValue == 0
    }

    /// Once it is over.
    var result: DiskError? { lock.withLock { error } }

    /// Whether a flush goes on elsewhere: the lane has no path.
    func goesOn(_ failure: DiskError?, after lane: Int) -> Bool {
        guard failure == .noPathsAvailable, flushesLeft > 0, let next else { return false }
        flushesLeft -= 1
        next(lane)
        return true
    }
}

/// Where the parts of joint requests end on one lane.
private final class JointSink: CompletionSink, @unchecked Sendable {
    private let lane: Int
    private let reference: EngineReference

    init(_ lane: Int, _ reference: EngineReference) {
        self.lane = lane
        self.reference = reference
    }

    override func deliver(_ completions: UnsafeBufferPointer<IOCompletion>) {
        for completion in completions {
            let joint = Unmanaged<JointRequest>.fromOpaque(UnsafeRawPointer(bitPattern: UInt(completion.token))!)
            let request = joint.takeUnretainedValue()
            if request.goesOn(completion.error, after: lane) { continue }
            guard request.ended(completion.error) else { continue }
            hand(request)
            joint.release()
        }
    }

    private func hand(_ request: JointRequest) {
        switch request.end {
        case .call(let call): call(request.result)
        case .sinks(let sinks, let token):
            let completion = IOCompletion(token: token, error: request.result)
            // A reactor that has ended delivers no more: then whoever submitted is answered by its own thread.
            guard reference.reactor.isOnReactorThread else {
                return withUnsafePointer(to: completion) {
                    sinks[lane].takeUnretainedValue().deliver(UnsafeBufferPointer(start: $0, count: 1))
                }
            }
            reference.engine.complete(sinks[lane], completion)
        }
    }
}
