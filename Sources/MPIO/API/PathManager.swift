public import AsyncIO
import Cryptography
import Foundation
public import Multipath
public import SCSI

/// Opens the logical units of a policy file, each over all its paths, and looks after them.
///
/// A manager has one reactor, or as many as ``Options/reactors`` says: threads, on one of which each disk lives with its
/// sessions, its policy and its requests. Make one manager for a program, keep it, and end it with ``shutdown()``; one that is merely
/// dropped shuts down by itself, and its disks with it.
///
/// **Threads.** Every method may be called from any thread or task.
public final class PathManager: Sendable {
    /// What is configured now: as it was given, and as it was changed since.
    public var configuration: Configuration { state.currentConfiguration }
    /// The name under which this process logs in.
    public let initiatorName: String

    let state: ManagerState

    /// The first reactor, or the only one.
    package var reactor: LibaioReactor { state.home }

    /// Starts the reactors and leases ISIDs. Logs in nowhere yet: ``open(_:)`` does.
    ///
    /// - Parameters:
    ///   - configuration: what there is to open; read from a policy file, as a rule.
    ///   - options: how the manager behaves beside what the policy file says.
    /// - Throws: ``PathManagerError``.
    public init(configuration: Configuration, options: Options = Options()) async throws(PathManagerError) {
        let log = EventLog()
        let units = UnitRegister()
        var shards: [ManagerShard] = []
        do {
            initiatorName = try Self.initiatorName(of: configuration)
            let count = try Self.reactorCount(configuration, options)
            for number in 0..<count {
                shards.append(try Self.shard(number, configuration, initiatorName, options, log, units))
            }
        } catch {
            for shard in shards.reversed() { shard.reactor.stop() }
            throw .cannotStart("\(error)")
        }
        state = ManagerState(
            configuration: configuration, shards: shards, log: log, command: options.command,
            room: SessionRoom(for: configuration, spareSessionCount: options.spareSessionCount))
        guard options.isInspectable else { return }
        do {
            try state.startControlServer(directory: options.runtimeDirectory)
        } catch {
            state.stopReactors()
            throw .cannotStart("\(error)")
        }
    }

    private static func reactorCount(_ configuration: Configuration, _ options: Options) throws(PathManagerError) -> Int {
        let count = options.reactors ?? configuration.reactors
        guard Configuration.reactorRange.contains(count) else {
            let range = Configuration.reactorRange
            throw .cannotStart("\(count) reactors are asked for; there can be \(range.lowerBound) to \(range.upperBound)")
        }
        // Who looks has nothing to spread, and who shares a reactor's thread with the disks needs all of them there.
        return options.onlyLooks || options.sharesReactor ? 1 : count
    }

    /// Starts one reactor.
    private static func shard(
        _ number: Int, _ configuration: Configuration, _ initiatorName: String, _ options: Options, _ log: EventLog,
        _ units: UnitRegister
    ) throws -> ManagerShard {
        // One for each: sessions of two reactors to one portal are two sessions of the target's.
        let lease = try Self.lease(initiatorName, options)
        var reactorOptions = LibaioReactor.Options(
            for: configuration, spareSessionCount: options.spareSessionCount, hostsTarget: options.hostsTarget)
        reactorOptions.socketCapacity = min(
            reactorOptions.socketCapacity + max(options.hostedSocketCount, 0), LibaioReactor.Options.largestSocketCapacity)
        reactorOptions.setPolling(configuration.busyPoll, options)
        let reactor = try LibaioReactor(options: reactorOptions)
        try reactor.start(threadName: number == 0 ? "mpio-io" : "mpio-io-\(number)")
        let host = EngineHost(
            port: reactor, cryptography: SystemCryptography(), crc32c: systemCRC32C,
            coalescingLimit: options.receiveCoalescing, reactorNumber: number)
        return ManagerShard(
            reactor: reactor, host: host, lease: lease, configuration: configuration, log: log, units: units,
            openingLimits: options.onlyLooks ? options.lookLimits : nil)
    }

    private static func lease(_ initiatorName: String, _ options: Options) throws(ISIDLeaseError) -> ISIDLease {
        // Whoever looks meddles with nobody's sessions: neither a live holder's nor those that a killed one left.
        guard !options.onlyLooks else { return .unleased(initiatorName: initiatorName, directory: options.runtimeDirectory) }
        return try ISIDLease.acquire(initiatorName: initiatorName, directory: options.runtimeDirectory)
    }

    private static func initiatorName(of configuration: Configuration) throws(PathManagerError) -> String {
        if let name = configuration.initiatorName ?? InitiatorNameSource.defaultName() { return name }
        throw .cannotStart("the policy file names no initiator and this machine has no name to derive one from; add initiator: {name: iqn.…}")
    }

    /// How a manager behaves beside what the policy file says.
    public struct Options: Sendable {
        /// Where lock files and the control socket are; made if missing.
        public var runtimeDirectory = RuntimeDirectory.defaultPath()
        /// Whether `mpio paths` of the same user may ask this process.
        public var isInspectable = true
        /// What `mpio paths` shows as the holder.
        public var command = CommandLine.arguments.first.map { URL(fileURLWithPath: $0).lastPathComponent } ?? "?"
        /// Threads over which the disks are spread, 1…64; nil: what the policy file says (`reactors`, 1 by default). A disk
        /// lives on one of them, the one with the fewest disks when it is opened, and stays there; or on as many as
        /// ``LUNConfiguration/reactors`` says, with a lane on each. Each reactor has sessions of its own. More of them than
        /// processors are of no use.
        public var reactors: Int?
        /// Look for completions this long before sleeping: less latency at low queue depth, for a busy core for each
        /// reactor. Zero: as the policy file says (``Configuration/busyPoll``).
        public var busyPoll: Duration = .zero
        /// At low queue depth, look for completions so long before sleeping while that is measured to cost hardly more
        /// processor time than sleeping and being woken: answers of a fast target come almost twice as fast. Zero: never.
        public var adaptivePolling: Duration = .microseconds(50)
        /// With eight requests or more under way, answers may lie so long, and at most for half of what a
        /// request takes, until they are received together: it halves what a small request costs. Where
        /// that makes requests slower, which is measured as they run, the wait is shortened. Zero: never.
        public var receiveCoalescing: Duration = .microseconds(200)
        /// Room for so many sessions more than are configured at the beginning, for portals that are added while the
        /// manager works (``PathManager/reload(_:dryRun:)``). The kernel keeps memory for each.
        public var spareSessionCount = 16
        /// Nothing is written: it does without a lease, and the first path that is up need not wait long for others.
        package var onlyLooks = false
        /// How long is waited where ``onlyLooks``.
        package var lookLimits = OpeningLimits(patience: .milliseconds(100), total: .seconds(1))
        /// An embedded target will share the reactor: a gateway.
        package var hostsTarget = false
        /// Sockets and listeners of others that will share the reactor: an NBD server.
        package var hostedSocketCount = 0
        /// Others work with the disks on the reactor's own thread.
        fileprivate var sharesReactor: Bool { hostsTarget || hostedSocketCount > 0 }

        /// One reactor, the default runtime folder, inspectable.
        public init() {}
    }

    // MARK: Disks

    /// Opens a logical unit by its name in the policy file: connects its paths, makes sure that they lead
    /// to one unit, and returns once at least one is usable and the others had a moment to follow.
    ///
    /// Paths that cannot be used yet keep being tried. Opening a disk that is open returns the same one. Where the task is
    /// cancelled meanwhile it returns at once, and logs out again what nobody else waits for.
    /// - Throws: ``PathManagerError/unknownLUN(_:known:)``, ``PathManagerError/noUsablePath(lun:paths:)``,
    ///   ``PathManagerError/sameUnit(lun:openAs:identity:)``, ``PathManagerError/writesFeared(lun:leftBy:identity:)``,
    ///   ``PathManagerError/lanesDiffer(lun:words:)``,
    ///   ``PathManagerError/cancelled``, ``PathManagerError/shutDown``.
    public func open(_ name: String) async throws(PathManagerError) -> MultipathDisk {
        try await open(name, isUsed: true)
    }

    /// The same for a disk that is merely kept open: it goes when it is taken out of the configuration.
    package func hold(_ name: String) async throws(PathManagerError) -> MultipathDisk {
        try await open(name, isUsed: false)
    }

    private func open(_ name: String, isUsed: Bool) async throws(PathManagerError) -> MultipathDisk {
        let ticket = CancellationFlag()
        let result: Result<OpenDisk, PathManagerError> = await withTaskCancellationHandler {
            await state.ask(orWhenEnded: .failure(.shutDown)) { state, report in
                state.open(name, isUsed: isUsed, ticket: ticket) { report($0) }
            }
        } onCancel: {
            state.cancelOpening(name, ticket)
        }
        return state.disk(for: try result.get())
    }

    // MARK: Changes

    /// Takes over a policy file (nil: the one that the configuration was read from) while I/O runs: policies, timers,
    /// roles, weights, paths and portals, LUNs. All of it happens in one step, or nothing. LUNs that were added can be opened.
    ///
    /// Returns what was changed and what was left as it is, because it can't change while the process lives. A dry run
    /// changes nothing. Blocks no thread of the pool for longer than reading the file takes.
    /// - Throws: ``ControlFailure``; with a file that has mistakes, all of them.
    public func reload(_ file: String? = nil, dryRun: Bool = false) async throws(ControlFailure) -> [ConfigurationChange] {
        try await reload(file, dryRun: dryRun, as: "PathManager.reload").changes
    }

    package func reload(_ file: String?, dryRun: Bool, as reason: String) async throws(ControlFailure) -> ChangesReport {
        guard let file = file ?? state.policyFile else { throw ControlFailure(.invalid, "no policy file is known; name one") }
        let policy = try LoadedPolicy(contentsOf: file)
        let ending = ControlFailure(.unavailable, "the path manager was shut down")
        let result: ManagerState.ChangesResult = await state.ask(orWhenEnded: .failure(ending)) { state, report in
            state.reload(policy, expecting: nil, isDryRun: dryRun, by: .own(reason)) { report($0) }
        }
        return try result.get()
    }

    /// Each new configuration, from now on; the stream ends with the manager.
    package var configurations: AsyncStream<Configuration> {
        let (stream, continuation) = AsyncStream.makeStream(of: Configuration.self, bufferingPolicy: .bufferingNewest(1))
        let state = state
        let isQueued = reactor.enqueue { state.follow { continuation.yield($0) } }
        if !isQueued { continuation.finish() }
        return stream
    }

    /// The logical units that a portal's target offers, from every configured session: for tools.
    public func inventory() async -> [TargetInventory] {
        await state.ask(orWhenEnded: []) { state, report in state.shards[0].takeInventory { report($0) } }
    }

    /// Registers a device-specific module; the last one registered is asked first whether it claims a
    /// unit. Disks that are open keep theirs. With several reactors a module has objects on several threads.
    public func register(dsm module: any DeviceSpecificModule.Type) {
        let state = state
        reactor.enqueue { state.modules.register(module) }
    }

    /// Runs `body` on the first reactor's thread, where requests to the disks that live there cost least: no change of
    /// thread on the way in or out. `body` must not block it. See also ``MultipathDisk/run(_:)``.
    public func run<Value: Sendable>(_ body: @Sendable () async throws -> Value) async rethrows -> Value {
        try await withTaskExecutorPreference(reactor) { try await body() }
    }

    /// What `mpio paths` shows, for all open disks.
    public func report() async -> PathsReport {
        await state.ask(orWhenEnded: PathsReport()) { state, report in state.report(luns: []) { report($0) } }
    }

    /// The same for threads outside Swift concurrency; nil once the manager was shut down. Not on a reactor's thread.
    package func inspection() -> PathsReport? {
        state.wait(orWhenEnded: nil) { state, report in state.report(luns: []) { report($0) } }
    }

    /// What the reactors did so far, taken together.
    public func reactorCounters() async -> LibaioReactor.Counters {
        await state.ask(orWhenEnded: LibaioReactor.Counters()) { state, report in
            state.gather { $0.reactor.counters } then: { (all: [LibaioReactor.Counters]) in
                report(all.reduce(into: LibaioReactor.Counters()) { $0 += $1 })
            }
        }
    }

    // MARK: The end

    /// Closes all disks, lets requests under way end (for at most two seconds), logs out, and stops the
    /// reactors. Requests submitted later fail with ``DiskError/closed``. Calling it again does nothing.
    public func shutdown() async throws(PathManagerError) {
        let state = state
        await state.ask(orWhenEnded: ()) { state, report in state.shutDown { report(()) } }
        // Joining a loop's thread takes tens of milliseconds; not on the pool of Swift concurrency. Nor on a reactor's own thread, which
        // cannot join itself, and for whose answer a client of the control server may be waiting.
        await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                state.stopControlServer()
                state.stopReactors()
                continuation.resume()
            }
        }
    }

    /// Without ``shutdown()`` the same happens once the last reference is gone, and nobody waits for it: requests under way end, and the
    /// sessions are logged out.
    deinit {
        let state = state
        // Perhaps on a reactor's own thread; see above.
        Thread.detachNewThread {
            state.stopControlServer()
            state.wait(orWhenEnded: ()) { state, report in state.shutDown { report(()) } }
            state.stopReactors()
        }
    }
}

/// Why a ``PathManager`` could not do what it was asked for.
public enum PathManagerError: Error, Sendable, CustomStringConvertible {
    /// The policy file has no LUN of this name.
    case unknownLUN(String, known: [String])
    /// No path leads to the unit; each with its reason.
    case noUsablePath(lun: String, paths: [PathTrouble])
    /// The lanes of a LUN (``MultipathDisk/laneCount``) found different units, or sizes; in words.
    case lanesDiffer(lun: String, words: String)
    /// The unit that the LUN's paths lead to is open under another name. Each name would guard its own writes only, so that a
    /// late one of the one could undo a newer one of the other.
    case sameUnit(lun: String, openAs: String, identity: LogicalUnitIdentity)
    /// The unit that the LUN's paths lead to was closed under another name, and writes of that one may still come late. It can be
    /// opened once `quiesce-time` has passed; under the other name at any time.
    case writesFeared(lun: String, leftBy: String, identity: LogicalUnitIdentity)
    /// The reactors, the ISID lease or the control socket could not be had; in words.
    case cannotStart(String)
    /// The manager was shut down, or is being shut down.
    case shutDown
    /// The task that opened a disk was cancelled before it was open.
    case cancelled

    public var description: String {
        switch self {
        case .unknownLUN(let name, let known):
            "the policy file has no LUN '\(name)'; it has " + (known.isEmpty ? "none" : known.joined(separator: ", "))
        case .noUsablePath(let lun, let paths) where paths.isEmpty:
            "no path leads to \(lun): no target that answers has it; 'mpio discover PORTAL' tells what one has"
        case .noUsablePath(let lun, let paths):
            "no usable path to \(lun):\n" + paths.map { "  \($0)" }.joined(separator: "\n")
        case .lanesDiffer(let lun, let words): "the lanes of \(lun) lead to different units: \(words)"
        case .sameUnit(let lun, let other, let identity):
            "\(lun) and \(other) are one unit, \(identity), which is open as \(other): "
                + "two LUNs over one unit do not guard each other's writes; take one of them out of the policy file"
        case .writesFeared(let lun, let other, let identity):
            "\(lun) is \(identity), which was closed as \(other) while writes of it could still come late; "
                + "open it as \(other), or once quiesce-time has passed"
        case .cannotStart(let words): words
        case .shutDown: "the path manager was shut down"
        case .cancelled: "cancelled before the disk was open"
        }
    }
}

extension LibaioReactor.Options {
    /// The program's word goes before the policy file's.
    fileprivate mutating func setPolling(_ configured: BusyPoll, _ options: PathManager.Options) {
        guard options.busyPoll == .zero else {
            busyPoll = options.busyPoll
            return
        }
        switch configured {
        case .adaptive: adaptivePolling = options.adaptivePolling
        case .never: break
        case .always(let span): busyPoll = span
        }
    }

    /// As much as the policy file can need. The kernel reserves asynchronous operations for all of it, from
    /// 65,536 for the whole machine, which many processes share.
    fileprivate init(for configuration: Configuration, spareSessionCount: Int, hostsTarget: Bool) {
        self.init()
        socketCapacity = SessionRoom(for: configuration, spareSessionCount: spareSessionCount).socketCount + 8
        if hostsTarget {
            // The connections of its initiators; and it may have files.
            socketCapacity += 512
            return
        }
        let hasDevices = configuration.luns.contains { lun in
            lun.paths.contains { if case .device = $0.transport { true } else { false } }
        }
        if !hasDevices { fileOperationsInFlight = 8 }
    }
}
