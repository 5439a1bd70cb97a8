package import AsyncIO
import Foundation
import Multipath
import SCSI
import Timebase

/// One disk on its reactor: takes requests, carries out what its ``PseudoLUN`` decides, and tells whoever
/// asked. It decides nothing itself. Confined to the port's thread.
package final class DiskEngine {
    package let name: String
    /// Which part of the disk it is; mostly all of it.
    package let lane: Lane
    /// Once the disk's blocks are known.
    private(set) var striping: Striping?
    /// Tells the disk's other lanes, where there are any.
    package var tellOtherLanes: ((LaneNews) -> Void)?
    let host: EngineHost
    let lun: PseudoLUN
    // Exclusivity is not checked where every request passes: one thread owns the disk.
    @exclusivity(unchecked) private(set) var paths: [DiskPath] = []
    /// The same by index, not counted.
    @exclusivity(unchecked) private var pathTable: UnsafeMutableBufferPointer<Unmanaged<DiskPath>>
    /// What the first usable path said; nil until then.
    @exclusivity(unchecked) private(set) var device: DeviceDescription? {
        didSet { capacityByteCount = device?.capacity }
    }
    /// Of ``device``; by itself, because looking into a description copies its strings.
    @exclusivity(unchecked) private var capacityByteCount: UInt64?
    @exclusivity(unchecked) private(set) var limits = TransferLimits()
    /// Of all lanes of the disk.
    let events: EventBroadcast
    /// Told of each event at once, on the port's thread.
    package var eventTap: ((DiskEvent) -> Void)?
    /// For the inspector; filled by the ``RateSampler``.
    var rates = PathRates()
    private let log: EventLog

    @exclusivity(unchecked) private var records: RequestTable
    private var splits = SplitRequestTable()
    /// Writes that overlap what a split one has not submitted yet, or one of these; in their order.
    private var followers: [IOSubmission] = []
    @exclusivity(unchecked) private var mayFollowersGo = false
    @exclusivity(unchecked) private var loans = LoanBook()
    /// Requests for which the table had no slot, oldest first.
    @exclusivity(unchecked) private var waiting = FIFO<WaitingSubmission>()
    private var sinks: [CompletionSink] = []
    @exclusivity(unchecked) private var dirtySinks: [CompletionSink] = []
    @exclusivity(unchecked) private var timer: (id: TimerID, deadline: Instant)?
    @exclusivity(unchecked) private var isDirty = false
    @exclusivity(unchecked) private var isClosed = false
    /// Requests under way that the host counts.
    @exclusivity(unchecked) private var countedRequests = 0
    private var closings: [() -> Void] = []
    private var closingDeadline = Instant.distantFuture
    /// Paths that go once what they carry has ended.
    @exclusivity(unchecked) var departures: [PathDeparture] = []
    /// Who waits for the disk to be usable for the first time.
    var openings: [DiskOpening] = []
    /// Whether somebody was given it as open.
    var isHandedOut = false

    package static let requestCapacity = 1024

    init(
        name: String, settings: LUNSettings, modules: DSMRegistry, log: EventLog, host: EngineHost, lane: Lane = .only,
        events: EventBroadcast = EventBroadcast()
    ) {
        self.name = name
        self.lane = lane
        self.events = events
        self.log = log
        self.host = host
        lun = PseudoLUN(name: name, settings: settings, registry: modules, requestCapacity: Self.requestCapacity)
        records = RequestTable(capacity: Self.requestCapacity)
        pathTable = .allocate(capacity: 0)
    }

    deinit { pathTable.deallocate() }

    var now: Instant { host.port.now }

    /// Requests for which the table has no room yet.
    var waitingCount: Int { waiting.count + followers.count }

    // MARK: Paths

    /// Adds a path and begins to connect it. `mayHoldUnknownWrites`: a process that was killed may have left some on its nexus.
    func addPath(_ settings: PathSettings, transport: DiskPath.Transport, load: PathLoad, mayHoldUnknownWrites: Bool = false) {
        let index = lun.addPath(settings, load: load, transport: transport.kind, at: now)
        precondition(index.index == paths.count, "paths are numbered in the order of their addition")
        paths.append(DiskPath(index: index, name: settings.name, transport: transport, disk: self))
        pathTable.deallocate()
        pathTable = .allocate(capacity: paths.count)
        _ = pathTable.initialize(from: paths.lazy.map { Unmanaged.passUnretained($0) })
        if mayHoldUnknownWrites { lun.expectUnknownWrites(on: index) }
        touch()
    }

    /// What is still feared, by the name of the path.
    var remainingWrites: [(path: String, writes: [RemainingWrite])] {
        paths.map { ($0.name, lun.remainingWrites(on: $0.index)) }.filter { !$0.writes.isEmpty }
    }

    /// Takes over what an earlier opening left: where its path is gone, any other will do to wait for the quiesce time.
    func inherit(_ left: [(path: String, writes: [RemainingWrite])]) {
        guard !paths.isEmpty else { return }
        for (name, writes) in left {
            if let path = paths.first(where: { $0.name == name }) {
                lun.inherit(writes, on: path.index, at: now)
            } else {
                let end = now + lun.settings.timers.quiesceTime
                lun.inherit(writes.map { $0.ended(by: end) }, on: paths[0].index, at: now)
            }
        }
        touch()
    }

    // MARK: Requests

    /// Registers who is told of completions; kept until the disk is closed.
    package func register(_ sink: CompletionSink) { sinks.append(sink) }

    /// Takes a batch of requests; each ends in one completion, delivered in a later step or, for a request
    /// that is refused outright, at the end of this one.
    package func submit(_ batch: UnsafeBufferPointer<IOSubmission>) {
        if lane.count == 1 {
            for submission in batch { enter(submission) }
        } else {
            for submission in batch { if submission.isStriped { enterStriped(submission) } else { enter(submission) } }
        }
        touch()
        host.runDirtyDisks()
    }

    /// The same for an ``IOQueue``'s requests, as they are.
    func submit(_ batch: UnsafeBufferPointer<IORequest>, sink: Unmanaged<CompletionSink>) {
        for request in batch { enter(IOSubmission(request, sink: sink)) }
        touch()
        host.runDirtyDisks()
    }

    private func enter(_ submission: IOSubmission) {
        if let error = refusal(of: submission) { return complete(submission, error) }
        if submission.byteCount == 0, submission.operation != .flush { return complete(submission, nil) }
        if hasToFollow(submission) { return followers.append(submission) }
        let limit = limits.byteCount(for: submission.operation)
        // Zeroes always: a refused WRITE SAME is done anew by writes, and nothing that overlaps may come between.
        if submission.byteCount > limit || submission.operation == .writeZeroes { return split(submission, outer: -1) }
        guard waiting.isEmpty, admit(submission, parent: -1) else {
            waiting.append(WaitingSubmission(submission: submission, parent: -1))
            return
        }
    }

    /// A request of which this lane has to do its stripes only.
    private func enterStriped(_ submission: IOSubmission) {
        if let error = refusal(of: submission) { return complete(submission, error) }
        guard submission.operation != .compareAndWrite else {
            return complete(
                submission,
                .crossesStripe(offset: submission.offset, byteCount: submission.byteCount, stripeByteCount: striping!.stripeByteCount))
        }
        if hasToFollow(submission) { return followers.append(submission) }
        let whole = splits.add(SplitRequest(submission: submission, outer: -1))
        submitParts(of: whole)
        if splits[whole].partsUnderWay == 0 { endSplit(whole) }
    }

    // MARK: Order of split writes

    /// The pseudo-LUN keeps the order of the writes that it has; of a split one it has only the parts that were submitted.
    @inline(__always)
    private func hasToFollow(_ submission: IOSubmission) -> Bool {
        // The last split one may be over, and its followers still here.
        (splits.count > 0 || !followers.isEmpty) && overlapsEarlier(submission)
    }

    private func overlapsEarlier(_ submission: IOSubmission) -> Bool {
        guard submission.operation.changesBlocks else { return false }
        return splits.contains { $0.hasToGoBefore(submission) }
            || followers.contains { $0.offset < submission.offset + UInt64(submission.byteCount)
                && submission.offset < $0.offset + UInt64($0.byteCount) }
    }

    /// Lets writes go that nothing is before any more.
    private func letFollowersGo() {
        mayFollowersGo = false
        let all = followers
        followers.removeAll()
        for submission in all { if submission.isStriped { enterStriped(submission) } else { enter(submission) } }
    }

    private func refusal(of submission: IOSubmission) -> DiskError? {
        guard !isClosed, let capacity = capacityByteCount else { return .closed }
        let blockSize = UInt64(limits.blockSize)
        guard submission.byteCount >= 0, submission.offset % blockSize == 0, submission.byteCount % Int(blockSize) == 0 else {
            return .misaligned(
                offset: submission.offset, byteCount: submission.byteCount, blockSize: Int(blockSize))
        }
        guard submission.offset <= capacity, UInt64(submission.byteCount) <= capacity - submission.offset else {
            return .outOfRange(offset: submission.offset, byteCount: submission.byteCount, capacityByteCount: capacity)
        }
        guard limits.supports(submission.operation, byteCount: submission.byteCount) else { return .unsupported }
        return nil
    }

    /// Parts are submitted a few at a time, so that one giant request does not fill the table. `outer` is the split request
    /// that this is itself a part of, or -1.
    private func split(_ submission: IOSubmission, outer: Int32) {
        submitParts(of: splits.add(SplitRequest(submission: submission, outer: outer)))
    }

    private static let partsAtOnce = 8

    private func submitParts(of parent: Int32) {
        defer {
            if !followers.isEmpty {
                mayFollowersGo = true
                touch()
            }
        }
        while true {
            let whole = splits[parent]
            guard whole.error == nil, whole.partsUnderWay < Self.partsAtOnce, var part = nextPart(of: whole) else { return }
            let start = Int(part.offset - whole.submission.offset)
            part.byteCount = min(part.byteCount, limits.byteCount(for: part.operation))
            part.memory = part.memory.map { $0 + start }
            part.isStriped = false
            splits[parent].submittedByteCount = start + part.byteCount
            splits[parent].partsUnderWay += 1
            if !(waiting.isEmpty && admit(part, parent: parent)) { waiting.append(WaitingSubmission(submission: part, parent: parent)) }
        }
    }

    /// What was not submitted yet, in one piece; `memory` is that of the whole. Nil: all was.
    private func nextPart(of whole: SplitRequest) -> IOSubmission? {
        var part = whole.submission
        part.offset += UInt64(whole.submittedByteCount)
        part.byteCount -= whole.submittedByteCount
        guard part.isStriped, let striping else { return part.byteCount > 0 ? part : nil }
        guard let piece = striping.piece(ofLane: lane.number, from: part.offset, rest: part.byteCount) else { return nil }
        part.offset += UInt64(piece.skipped)
        part.byteCount = piece.byteCount
        return part
    }

    private func admit(_ submission: IOSubmission, parent: Int32) -> Bool {
        guard let index = lun.admit(descriptor(of: submission), at: now) else { return false }
        records.set(RequestRecord(submission: submission, index: index, zeroing: limits.zeroing, parent: parent))
        return true
    }

    private func descriptor(of submission: IOSubmission) -> RequestDescriptor {
        let blocks = submission.byteCount / limits.blockSize
        return RequestDescriptor(
            kind: submission.operation.requestKind,
            lba: submission.offset / UInt64(limits.blockSize), blockCount: UInt32(truncatingIfNeeded: blocks),
            byteCount: submission.operation.transferByteCount(of: submission.byteCount, blockSize: limits.blockSize),
            options: submission.forceUnitAccess ? .forceUnitAccess : [])
    }

    /// Ends the request with this token if it was not sent yet; otherwise it goes on.
    package func cancel(token: UInt64, sink: CompletionSink) {
        let target = Unmanaged.passUnretained(sink)
        cancel { $0.belongs(to: target, token: token) }
    }

    /// The same for the one request that matches.
    func cancel(where matches: (IOSubmission) -> Bool) {
        if let entry = waiting.removeFirst(where: { $0.parent < 0 && matches($0.submission) }) {
            complete(entry.submission, .cancelled)
        } else if let slot = records.slot(where: { $0.parent < 0 && matches($0.submission) }) {
            lun.cancel(slot: slot, at: now)
        } else if let index = followers.firstIndex(where: matches) {
            complete(followers.remove(at: index), .cancelled)
            mayFollowersGo = true
        } else if let whole = splits.index(where: { $0.outer < 0 && matches($0.submission) }) {
            cancelOnlyPart(of: whole)
        }
        touch()
        host.runDirtyDisks()
    }

    /// A request of several parts goes on: some may be done.
    private func cancelOnlyPart(of whole: Int32) {
        let byteCount = splits[whole].submission.byteCount
        if waiting.removeFirst(where: { $0.parent == whole && $0.submission.byteCount == byteCount }) != nil {
            partEnded(whole, .cancelled)
        } else if let slot = records.slot(where: { $0.parent == whole && $0.submission.byteCount == byteCount }) {
            lun.cancel(slot: slot, at: now)
        }
    }

    // MARK: Steps

    /// Notes that this disk has something to do in this step.
    func touch() {
        guard !isDirty else { return }
        isDirty = true
        host.markDirty(self)
    }

    /// Carries out the pseudo-LUN's decisions and delivers completions.
    func settle() {
        isDirty = false
        if !departures.isEmpty { letPathsGo() }
        if mayFollowersGo { letFollowersGo() }
        while let action = lun.nextAction() { perform(action) }
        admitWaiting()
        flushSinks()
        rearmTimer()
        let count = lun.requestCount
        host.changeInFlight(by: count - countedRequests)
        countedRequests = count
        if !openings.isEmpty { for opening in openings { opening.check() } }
        finishClosing()
    }

    private func admitWaiting() {
        while let first = waiting.first {
            // The unit may have refused WRITE SAME since, and a single WRITE takes less.
            if first.submission.byteCount > limits.byteCount(for: first.submission.operation) {
                waiting.removeFirst()
                split(first.submission, outer: first.parent)
                continue
            }
            guard admit(first.submission, parent: first.parent) else { return }
            waiting.removeFirst()
            performActions()
        }
    }

    /// Carries out what is wished for now, so that its events are told while ``EngineHost/actor`` is known.
    func performActions() {
        while let action = lun.nextAction() { perform(action) }
    }

    private func perform(_ action: PseudoLUNAction) {
        switch action {
        case .issue(let request, let path): issue(request, on: path)
        case .finish(let request, let result): finish(request, result)
        case .withdraw(let request, let path): paths[path.index].withdraw(request, records[request])
        case .abort(let request, let path): paths[path.index].abort(request)
        case .connect(let path): paths[path.index].connect()
        case .probe(let path, let reason): paths[path.index].probe(reason)
        case .disconnect(let path): paths[path.index].disconnect()
        case .drop(let path): paths[path.index].drop(PathFailure(.silent, detail: "a write waited for what it still held"))
        case .fence(let path, let step): paths[path.index].fence(step)
        case .setTargetPortGroup(let path, let change): paths[path.index].setTargetPortGroup(change)
        case .event(let event): handle(event)
        }
    }

    private func issue(_ request: RequestIndex, on path: PathIndex) {
        let record = records[request]
        record.pointee.index = request
        record.pointee.issuedAt = now.nanoseconds
        precondition(path.index >= 0 && path.index < pathTable.count, "a path of another disk")
        let failure = pathTable[path.index]._withUnsafeGuaranteedRef { $0.issue(request, record, limits: limits) }
        if let failure {
            completed(request, on: path, outcome: .returned(wasSent: false, failure))
        }
    }

    @inline(__always)
    func completed(_ request: RequestIndex, on path: PathIndex, outcome: PathOutcome) {
        lun.completed(request, on: path, outcome: outcome, at: now)
        touch()
    }

    /// The record of a request's slot, for a completion that names it; nil for a slot that never was.
    @inline(__always)
    func record(slot: UInt32) -> UnsafeMutablePointer<RequestRecord>? { records[slot: slot] }

    // MARK: Ends

    private func finish(_ request: RequestIndex, _ result: RequestResult) {
        let record = records[request]
        record.pointee.isLive = false
        if !loans.isEmpty, loans.hold(record.pointee, slot: request.slot, result) { return }
        release(record.pointee, result)
    }

    /// Gives the caller's memory back: nothing may touch it from here on.
    private func release(_ ended: RequestRecord, _ result: RequestResult) {
        ended.parameters?.deallocate()
        if changesZeroing(ended, result) { return split(ended.submission, outer: ended.parent) }
        let error = DiskError(result)
        guard ended.parent >= 0 else { return complete(ended.submission, error) }
        partEnded(ended.parent, error)
    }

    /// A unit without WRITE SAME says so at the first try; from then on zeroes are written.
    private func changesZeroing(_ ended: RequestRecord, _ result: RequestResult) -> Bool {
        guard ended.submission.operation == .writeZeroes, ended.zeroing == .writeSame,
            case .failed(.status(_, let sense?)) = result, sense.key == .illegalRequest
        else { return false }
        limits.zeroing = .writes
        return true
    }

    // MARK: Loans

    /// A device may still work on a withdrawn attempt with the caller's memory.
    func lend(_ request: RequestIndex) { loans.add(request) }

    /// A withdrawn attempt ended.
    func returned(_ request: RequestIndex) {
        guard let held = loans.end(request) else { return }
        release(held.record, held.result)
        host.runDirtyDisks()
    }

    private func partEnded(_ parent: Int32, _ error: DiskError?) {
        splits[parent].partsUnderWay -= 1
        if let error, splits[parent].error == nil { splits[parent].error = error }
        submitParts(of: parent)
        guard splits[parent].partsUnderWay == 0 else { return touch() }
        endSplit(parent)
    }

    private func endSplit(_ parent: Int32) {
        let whole = splits[parent]
        splits.remove(parent)
        guard whole.outer >= 0 else { return complete(whole.submission, whole.error) }
        partEnded(whole.outer, whole.error)
    }

    private func complete(_ submission: IOSubmission, _ error: DiskError?) {
        complete(submission.sink, IOCompletion(token: submission.token, error: error))
    }

    /// Hands a completion out with the others of this step: also one of a request that ended here last, after its other lanes.
    func complete(_ sink: Unmanaged<CompletionSink>, _ completion: IOCompletion) {
        sink._withUnsafeGuaranteedRef { sink in
            sink.append(completion)
            guard !sink.isDirty else { return }
            sink.isDirty = true
            dirtySinks.append(sink)
        }
        touch()
    }

    /// ``PlantedMistake/doubleCompletion``
    func completeTwice(_ record: RequestRecord) { complete(record.submission, .timedOut) }

    private func flushSinks() {
        while let sink = dirtySinks.popLast() {
            sink.isDirty = false
            sink.flush()
        }
    }

    // MARK: What paths report

    /// Tells of something that happened below the pseudo-LUN.
    func report(_ event: MultipathEvent) { handle(event) }

    private func handle(_ event: MultipathEvent) {
        switch event {
        case .defined(let device, _):
            define(device)
        case .capacityChanged(_, _, let blocks):
            device?.blockCount = blocks
            tellOtherLanes?(.capacityChanged)
        default: break
        }
        let shown = DiskEvent(
            at: Date(), disk: name, event: event, actor: event.isChange ? host.actor : nil,
            lane: lane.count > 1 ? lane.number : nil, pathNames: paths.map(\.name))
        log.append(shown)
        eventTap?(shown)
        events.send(shown)
    }

    private func define(_ device: DeviceDescription) {
        self.device = device
        limits = TransferLimits(device)
        striping = Striping(laneCount: lane.count, blockSize: limits.blockSize, stripeLimitByteCount: lane.stripeLimitByteCount)
    }

    /// Something that happened on another lane of the disk.
    package func heard(_ news: LaneNews) {
        guard !isClosed else { return }
        switch news {
        case .unitWasReset: lun.commandsMayBeCleared(at: now)
        // It tells again when it has seen so itself; whoever knows already does not.
        case .capacityChanged: lun.capacityMayHaveChanged(at: now)
        }
        touch()
        host.runDirtyDisks()
    }

    // MARK: Closing

    /// How long requests under way may take to end before their sessions are dropped.
    static let closingPatience = Duration.seconds(2)

    /// Fails what waits, lets what is in flight end, gives the paths up, then calls `done`.
    package func close(_ done: @escaping () -> Void) {
        closings.append(done)
        if !isClosed {
            isClosed = true
            while let entry = waiting.removeFirst() {
                if entry.parent < 0 { complete(entry.submission, .closed) } else { partEnded(entry.parent, .closed) }
            }
            for submission in followers { complete(submission, .closed) }
            followers.removeAll()
            lun.close(at: now)
            closingDeadline = now + Self.closingPatience
            _ = host.port.setTimer(at: closingDeadline, handler: self, token: 0)
        }
        touch()
        host.runDirtyDisks()
    }

    private func finishClosing() {
        guard isClosed, lun.requestCount == 0, !closings.isEmpty else { return }
        for path in paths { path.leave() }
        if let timer { host.port.cancelTimer(timer.id) }
        timer = nil
        events.finish(lane.number)
        tellOtherLanes = nil
        let ready = closings
        closings.removeAll()
        for closing in ready { closing() }
    }
}

extension DiskEngine: TimerHandler {
    package func timerFired(_ timer: TimerID, token: UInt64) {
        if self.timer?.id == timer { self.timer = nil }
        if isClosed, now >= closingDeadline, lun.requestCount > 0 {
            for path in paths { path.drop(PathFailure(.takenOut)) }
        }
        lun.timerFired(at: now)
        touch()
        host.runDirtyDisks()
    }

    /// One timer, set no later than needed; see ``ISCSIPath``.
    private func rearmTimer() {
        let deadline = lun.nextDeadline
        if let timer {
            guard deadline < timer.deadline else { return }
            host.port.cancelTimer(timer.id)
            self.timer = nil
        }
        guard !isClosed, deadline < .distantFuture else { return }
        timer = (host.port.setTimer(at: deadline, handler: self, token: 0), deadline)
    }
}
