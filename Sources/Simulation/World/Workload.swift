import Glibc
import MPIO
import Multipath
import SCSI
import Timebase

/// A program that uses the disk: several requests at a time, on few blocks so that they meet, each one's end held
/// against what may be.
final class Workload {
    struct Settings {
        var depth: Int
        /// Requests altogether.
        var count: Int
        /// Mean time from a request's end to the next one.
        var thinkTime: Duration
        var largestBlockCount: Int
        /// Blocks most requests go to.
        var hotBlockCount: Int
        var writePercent: Int
        var hasRareOperations: Bool
        var cancelPercent: Int
        var swapsWrites: Bool
        var sharesStripes = false
    }

    private enum Kind {
        case read(floors: [Int])
        case write(BlockModel.Write)
        case compareAndWrite(BlockModel.Write, expected: BlockModel.Generation)
        case flush
    }

    private struct Request {
        var kind: Kind
        var operation: IOOperation
        var lba: Int
        var count: Int
        var buffer: UnsafeMutableRawBufferPointer?
        var since: Instant
    }

    private let settings: Settings
    private let world: SimulatedWorld
    private let port: SimulatedIO
    /// One for each lane.
    private let engines: [DiskEngine]
    private let striping: Striping?
    private let model: BlockModel
    private let verdict: Verdict
    private let target: TargetOracle
    private let random: SeededRandom
    private let sinks: [ClosureSink]
    /// Requests that several lanes do: those that have not ended theirs, and the first failure.
    private var joint: [UInt64: (lanesLeft: Int, error: DiskError?)] = [:]
    private var requests: [UInt64: Request] = [:]
    private var nextToken: UInt64 = 0
    private(set) var submittedCount = 0
    private(set) var failures: [(String, Int)] = []
    private var idle: [UnsafeMutableRawBufferPointer] = []
    private let bufferByteCount: Int
    private(set) var isStopped = false
    /// Whether an error may be: nil where it may.
    var forbids: (DiskError, IOOperation) -> String? = { _, _ in nil }
    var afterEnd: (() -> Void)?

    init(
        settings: Settings, world: SimulatedWorld, port: SimulatedIO, engines: [DiskEngine], striping: Striping?, model: BlockModel,
        verdict: Verdict, target: TargetOracle
    ) {
        self.settings = settings
        self.world = world
        self.port = port
        self.engines = engines
        self.striping = striping
        sinks = engines.map { _ in ClosureSink() }
        self.model = model
        self.verdict = verdict
        self.target = target
        random = world.random.fork()
        bufferByteCount = max(settings.largestBlockCount, 8) * model.blockSize
        for (engine, sink) in zip(engines, sinks) {
            engine.register(sink)
            sink.body = { [unowned self] in partEnded($0) }
        }
    }

    deinit {
        for buffer in idle { buffer.deallocate() }
        for (_, request) in requests { request.buffer?.deallocate() }
    }

    var outstandingCount: Int { requests.count }
    var bufferCount: Int { idle.count }
    /// The oldest request that has not ended.
    var oldest: String {
        guard let (token, request) = requests.min(by: { $0.key < $1.key }) else { return "none" }
        return "request \(token), a \(request.operation) of \(request.count) blocks at \(request.lba), since \((world.now - request.since) / .seconds(1)) s"
    }

    // MARK: Issuing

    func start() {
        for _ in 0..<settings.depth { think() }
    }

    func stop() { isStopped = true }

    private func think() {
        guard !isStopped, submittedCount < settings.count else { return }
        world.after(random.duration(.zero...(settings.thinkTime * 2))) { [weak self] in
            self?.port.perform { self?.issue() }
        }
    }

    private func issue() {
        guard !isStopped, submittedCount < settings.count, verdict.violation == nil else { return }
        let roll = random.below(100)
        if roll < settings.writePercent {
            if random.chance(percent: 8) { return issueOverlappingWrites() }
            submit([makeWrite(.write)])
        } else if settings.hasRareOperations, roll < settings.writePercent + 12 {
            switch random.below(4) {
            case 0: submit([makeRequest(.flush, .flush, lba: 0, count: 0, buffer: nil)])
            case 1: submit([makeWrite(.unmap)])
            case 2: submit([makeWrite(.writeZeroes)])
            default: submit([makeCompareAndWrite()])
            }
        } else {
            let (lba, count) = range()
            submit([makeRead(lba, count)])
        }
    }

    private func range() -> (lba: Int, count: Int) {
        let count = random.chance(percent: 60) ? random.within(1...min(3, settings.largestBlockCount)) : random.within(1...settings.largestBlockCount)
        let span = random.chance(percent: 85) ? max(settings.hotBlockCount, count) : model.blockCount
        return (random.below(span - count + 1), count)
    }

    private func buffer() -> UnsafeMutableRawBufferPointer {
        idle.popLast() ?? .allocate(byteCount: bufferByteCount, alignment: 512)
    }

    private func makeRead(_ lba: Int, _ count: Int) -> (UInt64, IOSubmission) {
        let memory = buffer()
        memset(memory.baseAddress!, 0xEE, memory.count)
        return makeRequest(
            .read(floors: model.floors(lba: lba, count: count)), .read, lba: lba, count: count, buffer: memory)
    }

    private func makeWrite(_ operation: IOOperation, at place: (lba: Int, count: Int)? = nil) -> (UInt64, IOSubmission) {
        let (lba, count) = place ?? range()
        let write = model.beginWrite(lba: lba, count: count, zeroes: operation != .write)
        var memory: UnsafeMutableRawBufferPointer?
        if operation == .write {
            memory = buffer()
            target.submitted(write.generation)
            model.fill(
                UnsafeMutableRawBufferPointer(rebasing: memory![..<(count * model.blockSize)]), lba: lba,
                generation: write.generation)
        }
        return makeRequest(.write(write), operation, lba: lba, count: count, buffer: memory)
    }

    private func makeCompareAndWrite() -> (UInt64, IOSubmission) {
        let lba = random.below(settings.hotBlockCount)
        let expected = model.latest(lba)
        let write = model.beginWrite(lba: lba, count: 1, zeroes: false)
        let memory = buffer()
        let size = model.blockSize
        model.fill(UnsafeMutableRawBufferPointer(rebasing: memory[..<size]), lba: lba, generation: expected)
        model.fill(UnsafeMutableRawBufferPointer(rebasing: memory[size..<2 * size]), lba: lba, generation: write.generation)
        return makeRequest(
            .compareAndWrite(write, expected: expected), .compareAndWrite, lba: lba, count: 1, buffer: memory)
    }

    /// Two writes to the same blocks in one batch.
    private func issueOverlappingWrites() {
        let place = range()
        let first = makeWrite(.write, at: place)
        let second = makeWrite(.write, at: place)
        submit(settings.swapsWrites ? [second, first] : [first, second])
    }

    private func makeRequest(
        _ kind: Kind, _ operation: IOOperation, lba: Int, count: Int, buffer: UnsafeMutableRawBufferPointer?
    ) -> (UInt64, IOSubmission) {
        nextToken += 1
        submittedCount += 1
        requests[nextToken] = Request(
            kind: kind, operation: operation, lba: lba, count: count, buffer: buffer, since: world.now)
        world.trace.record(.submit, nextToken, UInt64(operation.rawValue), UInt64(lba << 16 | count))
        return (
            nextToken,
            IOSubmission(
                operation, offset: UInt64(lba * model.blockSize), byteCount: count * model.blockSize,
                memory: buffer?.baseAddress, token: nextToken,
                forceUnitAccess: operation == .write && random.chance(percent: 10), sink: sinks[0])
        )
    }

    private func submit(_ batch: [(UInt64, IOSubmission)]) {
        enter(batch)
        guard !isStopped, random.chance(percent: settings.cancelPercent) else { return }
        let token = batch[0].0
        world.after(random.spreadDuration(.zero...(.seconds(2)))) { [weak self] in
            self?.port.perform {
                guard let self, self.requests[token] != nil else { return }
                for (engine, sink) in zip(self.engines, self.sinks) where self.joint[token] == nil { engine.cancel(token: token, sink: sink) }
            }
        }
    }

    private func enter(_ batch: [(UInt64, IOSubmission)]) {
        if let striping {
            for (token, submission) in batch { submit(submission, token, striping) }
        } else {
            batch.map(\.1).withUnsafeBufferPointer { engines[0].submit($0) }
        }
    }

    /// As `LaneRouter` does.
    private func submit(_ submission: IOSubmission, _ token: UInt64, _ striping: Striping) {
        let stripes = submission.operation == .flush ? 1 : Int(striping.stripeCount(submission.offset, submission.byteCount))
        let concerned = min(stripes, striping.laneCount)
        // A flush is any lane's.
        let isAnyones = submission.operation == .flush || settings.sharesStripes && stripes == 1
        let first = isAnyones ? Int(token) % striping.laneCount : striping.lane(at: submission.offset)
        if stripes > 1 { joint[token] = (concerned, nil) }
        for number in 0..<concerned {
            let lane = (first + number) % striping.laneCount
            var part = submission
            part.isStriped = stripes > 1
            part.sink = .passUnretained(sinks[lane])
            withUnsafePointer(to: part) { engines[lane].submit(UnsafeBufferPointer(start: $0, count: 1)) }
        }
    }

    private func partEnded(_ completion: IOCompletion) {
        guard let known = joint[completion.token] else { return ended(completion) }
        let error = known.error ?? completion.error
        joint[completion.token] = known.lanesLeft > 1 ? (known.lanesLeft - 1, error) : nil
        guard known.lanesLeft == 1 else { return }
        var whole = completion
        whole.error = error
        ended(whole)
    }

    // MARK: Ends

    private func ended(_ completion: IOCompletion) {
        world.trace.record(.complete, completion.token, completion.error == nil ? 0 : 1)
        guard let request = requests.removeValue(forKey: completion.token) else {
            return verdict.fail(.completion, "request \(completion.token) ended twice")
        }
        if let error = completion.error {
            world.trace.note("request \(completion.token) failed: \(error)")
            note(error)
            if let words = forbids(error, request.operation) { verdict.fail(.completion, "request \(completion.token), \(request.operation) of \(request.count) at \(request.lba): \(words): \(error)") }
        }
        judge(request, completion)
        if let buffer = request.buffer {
            // The memory is the program's again: whoever still sends from it sends this.
            memset(buffer.baseAddress!, 0xDD, buffer.count)
            idle.append(buffer)
        }
        afterEnd?()
        think()
    }

    private func note(_ error: DiskError) {
        let name = String("\(error)".prefix(while: { $0 != "(" && $0 != "," }))
        if let index = failures.firstIndex(where: { $0.0 == name }) { failures[index].1 += 1 } else { failures.append((name, 1)) }
    }

    private func judge(_ request: Request, _ completion: IOCompletion) {
        switch request.kind {
        case .flush: break
        case .write(let write): model.end(write, state(completion.error))
        case .read(let floors):
            guard completion.error == nil, let buffer = request.buffer else { return }
            let data = UnsafeRawBufferPointer(rebasing: buffer[..<(request.count * model.blockSize)])
            if let words = model.check(data, lba: request.lba, floors: floors) {
                verdict.fail(.data, "request \(completion.token): \(words)")
            }
        case .compareAndWrite(let write, let expected):
            if case .miscompare = completion.error, model.certainlyHeld(expected, before: write) {
                verdict.fail(.data, "request \(completion.token): compare-and-write of block \(write.lba) found other data than write \(expected), which was there")
            }
            model.end(write, state(completion.error))
        }
    }

    private func state(_ error: DiskError?) -> BlockModel.State {
        switch error {
        case nil: .acknowledged
        case .cancelled, .miscompare, .misaligned, .outOfRange, .unsupported, .crossesStripe: .void
        default: .unknown
        }
    }

    // MARK: The last look

    /// Reads all blocks, a write before each; all must succeed.
    func verifyAll() {
        forbids = { _, _ in "nothing is wrong any more" }
        var lba = 0
        while lba < model.blockCount {
            let count = min(settings.largestBlockCount, model.blockCount - lba)
            if random.chance(percent: 50) { submit([makeWrite(.write, at: (lba, count))]) }
            let (token, submission) = makeRead(lba, count)
            enter([(token, submission)])
            lba += count
        }
    }
}
