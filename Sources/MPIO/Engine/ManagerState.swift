import AsyncIO
import Foundation
import Multipath
import SCSI

/// A disk that is open, as its reactor hands it out.
struct OpenDisk: @unchecked Sendable {
    var engine: DiskEngine
    var reactor: LibaioReactor
    var device: DeviceDescription
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
    /// Sessions that each reactor has room for.
    private let sessionLimit: Int
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
        /// The reactor, by its place among ``ManagerState/shards``.
        var shard: Int
        /// Counts openings of LUNs: tells this placement from a later one of the same LUN.
        var serial: Int
        /// Openings that were not answered yet.
        var pendingCount = 0
        var isOpen = false
    }

    init(configuration: Configuration, shards: [ManagerShard], log: EventLog, command: String, sessionLimit: Int) {
        precondition(!shards.isEmpty, "a manager has a reactor")
        self.configuration = configuration
        published = configuration
        self.shards = shards
        self.log = log
        self.sessionLimit = sessionLimit
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
        let placement = place(name)
        let modules = modules
        perform(on: shards[placement.shard]) { shard, answer in
            shard.open(lun, modules: modules, ticket: ticket) { answer($0) }
        } then: { [self] (result: Result<OpenDisk, PathManagerError>?) in
            let result = result ?? .failure(.shutDown)
            answered(name, placement.serial, result)
            report(result)
        }
    }

    /// Ends an opening that was asked for, or will be: its caller is told at once. Any thread.
    func cancelOpening(_ name: String, _ ticket: CancellationFlag) {
        ticket.value = true
        home.enqueue { [self] in
            // None: it is over, or sees for itself that it is cancelled.
            guard let placement = placements[name] else { return }
            perform(on: shards[placement.shard]) { shard, answer in
                answer(shard.cancelOpening(ticket))
            } then: { (_: Void?) in }
        }
    }

    /// The LUN's place; a new one has the reactor with the fewest LUNs. A LUN that was not closed in order, or that a killed
    /// process left behind, goes where the sessions take over from those that may still hold its writes.
    private func place(_ name: String) -> Placement {
        var placement = placements[name] ?? Placement(shard: shardForNew(name), serial: nextSerial)
        if placement.serial == nextSerial { nextSerial += 1 }
        placement.pendingCount += 1
        placements[name] = placement
        return placement
    }

    private func shardForNew(_ name: String) -> Int {
        if let heir = shards.firstIndex(where: { $0.mayHoldWrites(of: name) }) { return heir }
        var counts = Array(repeating: 0, count: shards.count)
        for placement in placements.values { counts[placement.shard] += 1 }
        return counts.indices.min { counts[$0] < counts[$1] } ?? 0
    }

    private func answered(_ name: String, _ serial: Int, _ result: Result<OpenDisk, PathManagerError>) {
        guard var placement = placements[name], placement.serial == serial else { return }
        placement.pendingCount -= 1
        if case .success = result { placement.isOpen = true }
        placements[name] = placement
        if !placement.isOpen, placement.pendingCount == 0 { forget(name) }
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
            if let handle = handles[opened.engine.name], handle.engine.engine === opened.engine { return handle }
            let handle = MultipathDisk(
                name: opened.engine.name, device: opened.device,
                engine: EngineReference(engine: opened.engine, reactor: opened.reactor))
            handles[opened.engine.name] = handle
            return handle
        }
    }

    /// The open LUNs, in the order in which they were opened.
    var openLUNs: [String] { placements.sorted { $0.value.serial < $1.value.serial }.map(\.key) }

    /// The reactor of a LUN, by its place among ``shards``; nil where it is not open.
    func shard(of lun: String) -> Int? { placements[lun]?.shard }

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

    var hasRoomForSessions: Int { sessionLimit }

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

    func startControlServer(directory: String) throws {
        let server = try ControlServer(handler: ManagerControl(state: self), directory: directory)
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
