import AsyncIO
import Foundation
import Multipath
import SCSI

/// A disk that is open, or a lane of one, as its reactor hands it out.
struct OpenLane: @unchecked Sendable {
    var engine: DiskEngine
    var reactor: LibaioReactor
    var device: DeviceDescription

    var reference: EngineReference { EngineReference(engine: engine, reactor: reactor) }
}

/// A disk that is open.
struct OpenDisk: Sendable {
    /// In their order; one, mostly.
    var lanes: [OpenLane]
}

/// What a ``PathManager`` knows beyond its reactors: the configuration, the modules, and on which reactor each LUN lives.
/// It lives on the first reactor, the home, and reaches the others by jobs, which answer by jobs; with one reactor all of
/// that is done in one step. Confined to the home's thread, but for what the lock guards.
final class ManagerState: @unchecked Sendable {
    /// What is configured now.
    private(set) var configuration: Configuration {
        didSet { lock.withLock { published = configuration } }
    }
    /// One for each reactor, the home's first.
    let shards: [ManagerShard]
    /// What the inspector shows as the holder.
    let command: String
    let log: EventLog
    var modules = DSMRegistry()
    /// The LUNs that are open, or being opened, by their names.
    private var placements: [String: Placement] = [:]
    private var nextSerial = 0
    /// Disks that are open because something uses them, by their names; others are merely kept open.
    private var used: Set<String> = []
    /// What each reactor has room for.
    let room: SessionRoom
    /// Told of each new configuration.
    private var followers: [@Sendable (Configuration) -> Void] = []
    /// The policy file by its absolute name, also where the process has gone to another folder since.
    let policyFile: String?
    private var isShutDown = false
    private var unfinishedShards = 0
    private var endings: [() -> Void] = []
    /// Changes that wait for the one under way, oldest first.
    private var waitingChanges = FIFO<() -> Void>()
    private var isChanging = false

    private let lock = Lock()
    private var published: Configuration
    private var handles: [String: MultipathDisk] = [:]
    private var server: ControlServer?

    /// Where a LUN lives.
    private struct Placement {
        /// The reactor of each lane, by its place among ``ManagerState/shards``; ascending, so that a lane has the same ISIDs
        /// in the next process.
        var shards: [Int]
        /// Reactors that have to log in before the first write, since their sessions may hold writes of a process that was
        /// killed, and that are not needed otherwise.
        var reinstating: [Int]
        /// Of all lanes.
        var events: EventBroadcast
        /// Counts openings of LUNs: tells this placement from a later one of the same LUN.
        var serial: Int
        /// Openings that were not answered yet.
        var pendingCount = 0
        var isOpen = false
    }

    init(configuration: Configuration, shards: [ManagerShard], log: EventLog, command: String, room: SessionRoom) {
        precondition(!shards.isEmpty, "a manager has a reactor")
        self.configuration = configuration
        published = configuration
        self.shards = shards
        self.log = log
        self.room = room
        policyFile = configuration.file.map { URL(fileURLWithPath: $0).path }
        self.command = command
    }

    var home: LibaioReactor { shards[0].reactor }

    // MARK: Reactors

    /// Runs `body` on a shard's thread and hands what it reports to `then` here: at once for the home's own, else by a job
    /// each way. A reactor that has ended reports nothing: then `then` gets `nil`. Jobs of one shard run in the order in which
    /// they are asked for.
    private func perform<Value: Sendable>(
        on shard: ManagerShard, _ body: @escaping @Sendable (ManagerShard, @escaping @Sendable (Value) -> Void) -> Void,
        then: @escaping (Value?) -> Void
    ) {
        let answer = HomeCall(then)
        let home = home
        guard shard !== shards[0] else { return body(shard) { answer.body($0) } }
        let isQueued = shard.reactor.enqueue {
            // The home ends after the others, so it takes the answer.
            body(shard) { value in home.enqueue { answer.body(value) } }
        }
        if !isQueued { then(nil) }
    }

    /// Runs `body` on each shard's thread and calls `then` here with all that they returned, in the order of the shards.
    func gather<Value: Sendable>(_ body: @escaping @Sendable (ManagerShard) -> Value, then: @escaping ([Value]) -> Void) {
        var values: [Value?] = Array(repeating: nil, count: shards.count)
        var pending = shards.count
        // The home last: it answers at once.
        for index in shards.indices.reversed() {
            perform(on: shards[index]) { shard, answer in
                answer(body(shard))
            } then: { (value: Value?) in
                values[index] = value
                pending -= 1
                if pending == 0 { then(values.compactMap { $0 }) }
            }
        }
    }

    /// Runs `body` in a later step of the home.
    func later(_ body: @escaping () -> Void) {
        let call = HomeCall<Void> { _ in body() }
        home.enqueue { call.body(()) }
    }

    // MARK: Opening

    /// - Parameters:
    ///   - isUsed: false where the disk is merely to be kept open; it may then be taken out of the configuration.
    ///   - ticket: what ``cancelOpening(_:_:)`` ends it by.
    func open(
        _ name: String, isUsed: Bool, ticket: CancellationFlag, report: @escaping (Result<OpenDisk, PathManagerError>) -> Void
    ) {
        guard !isShutDown else { return report(.failure(.shutDown)) }
        guard let lun = configuration.lun(named: name) else {
            return report(.failure(.unknownLUN(name, known: configuration.luns.map(\.name))))
        }
        if isUsed { used.insert(name) }
        let placement = place(lun)
        openLanes(of: lun, placement, ticket) { [self] result in
            answered(name, placement.serial, result)
            report(result)
        }
    }

    /// Opens all lanes, and what is to be reinstated, at the same time. Nobody has the disk to write to before all are open:
    /// so every lane is safe from what any of them inherited.
    private func openLanes(
        of lun: LUNConfiguration, _ placement: Placement, _ ticket: CancellationFlag,
        then: @escaping (Result<OpenDisk, PathManagerError>) -> Void
    ) {
        let members = placement.shards + placement.reinstating
        let laneCount = placement.shards.count
        let modules = modules
        var results: [Result<OpenLane, PathManagerError>] = Array(repeating: .failure(.shutDown), count: members.count)
        var pending = members.count
        for (index, shard) in members.enumerated() {
            let isLane = index < laneCount
            let lane = isLane ? Lane(number: index, count: laneCount) : .only
            let events = isLane ? placement.events : EventBroadcast()
            perform(on: shards[shard]) { shard, answer in
                shard.open(lun, as: lane, events: events, modules: modules, ticket: ticket) { answer($0) }
            } then: { (result: Result<OpenLane, PathManagerError>?) in
                results[index] = result ?? .failure(.shutDown)
                pending -= 1
                if pending == 0 { then(OpenDisk.joined(results, laneCount: laneCount, lun: lun.name)) }
            }
        }
    }

    private func giveUp(_ name: String, onShard shard: Int) {
        perform(on: shards[shard]) { shard, answer in
            shard.giveUp(name) { answer(true) }
        } then: { (_: Bool?) in }
    }

    /// Ends an opening that was asked for, or will be: its caller is told at once. Any thread.
    func cancelOpening(_ name: String, _ ticket: CancellationFlag) {
        ticket.value = true
        home.enqueue { [self] in
            // None: it is over, or sees for itself that it is cancelled.
            guard let placement = placements[name] else { return }
            for shard in placement.shards + placement.reinstating {
                perform(on: shards[shard]) { shard, answer in
                    answer(shard.cancelOpening(ticket))
                } then: { (_: Void?) in }
            }
        }
    }

    /// The LUN's place; a new one has the reactors with the fewest LUNs. A LUN that was not closed in order, or that a killed
    /// process left behind, goes where the sessions take over from those that may still hold its writes.
    private func place(_ lun: LUNConfiguration) -> Placement {
        var placement = placements[lun.name] ?? newPlacement(lun)
        if placement.serial == nextSerial { nextSerial += 1 }
        placement.pendingCount += 1
        placements[lun.name] = placement
        return placement
    }

    private func newPlacement(_ lun: LUNConfiguration) -> Placement {
        let laneCount = min(max(lun.reactors, 1), shards.count)
        let heirs = shards.indices.filter { shards[$0].mayHoldWrites(of: lun.name) }
        var counts = Array(repeating: 0, count: shards.count)
        for placement in placements.values { for shard in placement.shards { counts[shard] += 1 } }
        let others = shards.indices.filter { !heirs.contains($0) }.sorted { (counts[$0], $0) < (counts[$1], $1) }
        return Placement(
            shards: (heirs + others).prefix(laneCount).sorted(), reinstating: Array(heirs.dropFirst(laneCount)),
            events: EventBroadcast(laneCount: laneCount), serial: nextSerial)
    }

    private func answered(_ name: String, _ serial: Int, _ result: Result<OpenDisk, PathManagerError>) {
        guard var placement = placements[name], placement.serial == serial else { return }
        placement.pendingCount -= 1
        if case .success(let opened) = result, !placement.isOpen {
            placement.isOpen = true
            connect(opened.lanes)
        }
        let reinstated = placement.reinstating
        // Whoever else opens it now waits for them too.
        if placement.pendingCount == 0 { placement.reinstating = [] }
        placements[name] = placement
        guard placement.pendingCount == 0 else { return }
        for shard in reinstated { giveUp(name, onShard: shard) }
        guard !placement.isOpen else { return }
        // Where a lane could not be opened, the others are not either.
        if placement.shards.count + reinstated.count > 1 { for shard in placement.shards { giveUp(name, onShard: shard) } }
        forget(name)
    }

    /// Has the lanes of a disk tell each other what concerns all.
    private func connect(_ lanes: [OpenLane]) {
        guard lanes.count > 1 else { return }
        for lane in lanes {
            let others = lanes.filter { $0.engine !== lane.engine }.map(LaneListener.init)
            lane.reactor.enqueue {
                lane.engine.tellOtherLanes = { news in for other in others { other.tell(news) } }
            }
        }
    }

    /// Not open any more.
    private func forget(_ name: String) {
        placements[name] = nil
        used.remove(name)
        lock.withLock { handles[name] = nil }
    }

    /// The one public object of an open disk.
    func disk(for opened: OpenDisk) -> MultipathDisk {
        lock.withLock {
            let first = opened.lanes[0]
            if let handle = handles[first.engine.name], handle.engine.engine === first.engine { return handle }
            let handle = MultipathDisk(name: first.engine.name, device: first.device, lanes: opened.lanes.map(\.reference))
            handles[first.engine.name] = handle
            return handle
        }
    }

    /// The open LUNs, in the order in which they were opened.
    var openLUNs: [String] { placements.sorted { $0.value.serial < $1.value.serial }.map(\.key) }

    /// The reactors of a LUN's lanes, by their places among ``shards``; nil where it is not open.
    func shards(of lun: String) -> [Int]? { placements[lun]?.shards }

    // MARK: The end

    func shutDown(_ done: @escaping () -> Void) {
        endings.append(done)
        guard !isShutDown else { return finishIfDone() }
        isShutDown = true
        unfinishedShards = shards.count
        for shard in shards.reversed() {
            perform(on: shard) { shard, answer in
                shard.shutDown { answer(true) }
            } then: { [self] (_: Bool?) in
                unfinishedShards -= 1
                finishIfDone()
            }
        }
    }

    private func finishIfDone() {
        guard isShutDown, unfinishedShards == 0 else { return }
        let waiting = endings
        endings.removeAll()
        for ending in waiting { ending() }
    }

    /// Ends the reactors' threads, the home's last: what the others answer still arrives. Not on any of them.
    func stopReactors() {
        for shard in shards.reversed() { shard.reactor.stop() }
    }

    // MARK: Changes

    /// What is configured now; from any thread.
    var currentConfiguration: Configuration { lock.withLock { published } }

    /// Calls `body` with each new configuration, on the home's thread.
    func follow(_ body: @escaping @Sendable (Configuration) -> Void) { followers.append(body) }

    func isUsed(_ name: String) -> Bool { used.contains(name) }

    /// Makes `new` what is configured. LUNs that it does not have are not open any more; the shards are told by the caller,
    /// before anything else is asked of them.
    func adopt(_ new: Configuration) {
        configuration = new
        for name in placements.keys where new.lun(named: name) == nil { forget(name) }
        for follower in followers { follower(new) }
    }

    /// Runs changes one after the other: each finds what the one before made. `body` calls what it is given when it is over.
    func change(_ body: @escaping (_ over: @escaping () -> Void) -> Void) {
        guard !isChanging else { return waitingChanges.append { [self] in change(body) } }
        isChanging = true
        body { [self] in
            isChanging = false
            waitingChanges.removeFirst()?()
        }
    }

    // MARK: Control

    /// - Parameter handler: nil: the manager's own.
    func startControlServer(directory: String, handler: (any ControlHandler)? = nil) throws {
        let server = try ControlServer(handler: handler ?? ManagerControl(state: self), directory: directory)
        lock.withLock { self.server = server }
    }

    func stopControlServer() {
        let server = lock.withLock {
            defer { self.server = nil }
            return self.server
        }
        server?.stop()
    }

    // MARK: From other threads

    /// Runs `body` on the home's thread and returns what it reports; `ended` where the reactors have.
    func ask<Value: Sendable>(
        orWhenEnded ended: Value, _ body: @escaping @Sendable (ManagerState, @escaping @Sendable (Value) -> Void) -> Void
    ) async -> Value {
        await withCheckedContinuation { continuation in
            let isQueued = home.enqueue { body(self) { continuation.resume(returning: $0) } }
            if !isQueued { continuation.resume(returning: ended) }
        }
    }

    /// The same for threads outside Swift concurrency, which it blocks: never a reactor's.
    func wait<Value: Sendable>(
        orWhenEnded ended: Value, for body: @escaping @Sendable (ManagerState, @escaping @Sendable (Value) -> Void) -> Void
    ) -> Value {
        precondition(!shards.contains { $0.reactor.isOnReactorThread }, "a reactor cannot wait for itself")
        let answer = AwaitedAnswer<Value>()
        guard home.enqueue({ body(self) { answer.give($0) } }) else { return ended }
        return answer.wait()
    }
}

extension OpenDisk {
    /// A disk from what its lanes, and those that were to be reinstated, answered.
    fileprivate static func joined(
        _ results: [Result<OpenLane, PathManagerError>], laneCount: Int, lun: String
    ) -> Result<OpenDisk, PathManagerError> {
        var lanes: [OpenLane] = []
        for (number, result) in results.enumerated() {
            switch result {
            case .success(let lane): if number < laneCount { lanes.append(lane) }
            case .failure(.noUsablePath(_, let paths)) where results.count > 1:
                let whose = number < laneCount ? "lane \(number) of \(laneCount)" : "the sessions that a killed process may have left writes in"
                return .failure(
                    .noUsablePath(lun: lun, paths: paths.map { PathTrouble(name: $0.name, words: "\($0.words) (\(whose))") }))
            case .failure(let error): return .failure(error)
            }
        }
        for lane in lanes.dropFirst() {
            guard let words = lane.device.difference(from: lanes[0].device) else { continue }
            return .failure(.lanesDiffer(lun: lun, words: "lane 0 found \(words.other), lane \(lane.engine.lane.number) \(words.own)"))
        }
        return .success(OpenDisk(lanes: lanes))
    }
}

extension DeviceDescription {
    /// What makes two lanes another disk; nil: they are one.
    fileprivate func difference(from other: DeviceDescription) -> (own: String, other: String)? {
        func words(_ device: DeviceDescription) -> String {
            "\(device.identity.map { "\($0)" } ?? "a unit without an identity") with \(device.blockCount) blocks of \(device.blockSize) bytes"
        }
        guard identity != other.identity || blockCount != other.blockCount || blockSize != other.blockSize else { return nil }
        return (words(self), words(other))
    }
}

/// A lane as another one knows it: it keeps no engine alive.
private final class LaneListener: @unchecked Sendable {
    private weak var engine: DiskEngine?
    private let reactor: LibaioReactor

    init(_ lane: OpenLane) {
        engine = lane.engine
        reactor = lane.reactor
    }

    func tell(_ news: LaneNews) {
        reactor.enqueue { [self] in engine?.heard(news) }
    }
}

/// A closure of the home's thread on its way through others, which neither call nor look into it.
private final class HomeCall<Value: Sendable>: @unchecked Sendable {
    let body: (Value?) -> Void
    init(_ body: @escaping (Value?) -> Void) { self.body = body }
}

/// Given once, by any thread, to the one that waits.
private final class AwaitedAnswer<Value: Sendable>: @unchecked Sendable {
    private let semaphore = DispatchSemaphore(value: 0)
    private var value: Value?

    func give(_ value: Value) {
        self.value = value
        semaphore.signal()
    }

    func wait() -> Value {
        semaphore.wait()
        return value!
    }
}
