import AsyncIO
import Multipath
import SCSI
import Timebase

/// What a ``PathManager`` owns on one of its reactors: the LUNs that live there, and the sessions that they use. No two
/// reactors share a session or an ISID. Confined to the reactor's thread; ``ManagerState`` says what is to be done.
final class ManagerShard: @unchecked Sendable {
    let reactor: LibaioReactor
    let host: EngineHost
    let sessions: SessionPool
    private let lease: ISIDLease
    private let log: EventLog
    /// What is configured now, as the manager last said.
    private(set) var configuration: Configuration
    private(set) var disks: [DiskEngine] = []
    /// LUNs that were not closed in order, by this process or one before it, and have not been since.
    private var inherited: Set<String> = []
    /// Of disks that were closed while writes of theirs were still feared, by their names.
    private var remainingWrites: [String: [(path: String, writes: [RemainingWrite])]] = [:]
    /// For each open disk, by its name, which of its paths is where.
    var places: [String: [PathPlace: PathIndex]] = [:]
    /// What an opening waits for; nil: what the LUN's timers say.
    private let openingLimits: OpeningLimits?
    private var isShutDown = false
    private lazy var sampler = RateSampler(port: host.port) { [weak self] in self?.disks ?? [] }
    private var endings: [() -> Void] = []

    init(
        reactor: LibaioReactor, host: EngineHost, lease: ISIDLease, configuration: Configuration, log: EventLog,
        openingLimits: OpeningLimits?
    ) {
        self.reactor = reactor
        self.host = host
        self.lease = lease
        self.configuration = configuration
        self.log = log
        self.openingLimits = openingLimits
        sessions = SessionPool(
            configuration: configuration, initiatorName: lease.initiatorName, lease: lease, host: host)
    }

    /// Whether the LUN was on this reactor's sessions, perhaps in a process that was killed, and may have left writes in them.
    /// Any thread.
    func mayHoldWrites(of lun: String) -> Bool { lease.isNoted(lun) }

    // MARK: Opening

    /// Opens a LUN, or one of its lanes. Calls `report` once: when it is open, when it can't be, or when `ticket` is cancelled.
    func open(
        _ lun: LUNConfiguration, as lane: Lane, events: EventBroadcast, modules: DSMRegistry, ticket: CancellationFlag,
        report: @escaping (Result<OpenLane, PathManagerError>) -> Void
    ) {
        guard !isShutDown else { return report(.failure(.shutDown)) }
        guard !ticket.value else { return report(.failure(.cancelled)) }
        let engine: DiskEngine
        if let known = disks.first(where: { $0.name == lun.name }) {
            // Before it was handed out, whoever comes second waits for the same as the first.
            if known.isHandedOut, let device = known.device { return report(.success(handOut(known, device))) }
            engine = known
        } else {
            if lease.isNoted(lun.name) { inherited.insert(lun.name) }
            // Before the first login: whoever comes after this process has to know.
            lease.note(lun.name)
            engine = makeDisk(lun, lane, events, modules)
            disks.append(engine)
            sampler.start()
        }
        let timers = lun.settings.timers
        DiskOpening(engine, limits: openingLimits ?? (inherited.contains(lun.name) ? .takeOver(timers) : .use(timers)), ticket: ticket) { [self] outcome in
            switch outcome {
            case .opened(let device): report(.success(handOut(engine, device)))
            case .failed(let paths): fail(engine, .noUsablePath(lun: lun.name, paths: paths), report)
            case .ended(let error):
                report(.failure(error))
                if !isShutDown, !engine.isHandedOut, engine.openings.isEmpty { giveUp(engine) }
            }
        }
        host.runDirtyDisks()
    }

    private func handOut(_ engine: DiskEngine, _ device: DeviceDescription) -> OpenLane {
        engine.isHandedOut = true
        return OpenLane(engine: engine, reactor: reactor, device: device)
    }

    /// Whoever waits for it waits in vain.
    private func fail(
        _ engine: DiskEngine, _ error: PathManagerError, _ report: @escaping (Result<OpenLane, PathManagerError>) -> Void
    ) {
        forget(engine)
        close(engine) { report(.failure(error)) }
        for opening in engine.openings { opening.end(error) }
    }

    /// Ends one opening; the disk is given up with the last one that waits for it.
    func cancelOpening(_ ticket: CancellationFlag) {
        for engine in disks {
            guard let opening = engine.openings.first(where: { $0.ticket === ticket }) else { continue }
            opening.end(.cancelled)
            return host.runDirtyDisks()
        }
    }

    private func makeDisk(_ lun: LUNConfiguration, _ lane: Lane, _ events: EventBroadcast, _ modules: DSMRegistry) -> DiskEngine {
        let engine = DiskEngine(
            name: lun.name, settings: lun.settings, modules: modules, log: log, host: host, lane: lane, events: events)
        if case .identity(let wanted) = lun.identification { engine.lun.pin(wanted) }
        for path in configuration.effectivePaths(of: lun) { add(path, to: engine, lun: lun) }
        engine.inherit(remainingWrites.removeValue(forKey: lun.name) ?? [])
        return engine
    }

    /// No disk that is open any more. It may still have to end what it does.
    private func forget(_ engine: DiskEngine) {
        disks.removeAll { $0 === engine }
        places[engine.name] = nil
    }

    /// Gives up a disk that nobody uses.
    func giveUp(_ engine: DiskEngine) {
        guard disks.contains(where: { $0 === engine }) else { return }
        forget(engine)
        close(engine) {}
    }

    /// Gives up a disk, or a lane of one, that was opened here; nothing where it is not, or is being closed anyway.
    func giveUp(_ name: String, _ done: @escaping () -> Void) {
        guard !isShutDown, let engine = disks.first(where: { $0.name == name }) else { return done() }
        forget(engine)
        close(engine, done)
    }

    private func close(_ engine: DiskEngine, _ done: @escaping () -> Void) {
        // What somebody left behind ends with a login by each ISID that may have it.
        let mayBeLeft = inherited.contains(engine.name) && !engine.reachesAllPaths
        engine.close { [self] in
            // Otherwise writes of it may still be in a lost session, which the next process's login has to end.
            if engine.lun.snapshot().guardState == .clear, !mayBeLeft,
                !disks.contains(where: { $0.name == engine.name && $0 !== engine })
            {
                lease.erase(engine.name)
                inherited.remove(engine.name)
            }
            let left = engine.remainingWrites
            if !left.isEmpty { remainingWrites[engine.name, default: []] += left }
            done()
        }
    }

    func add(_ path: PathConfiguration, to engine: DiskEngine, lun: LUNConfiguration) {
        var identity: LogicalUnitIdentity?
        if case .identity(let wanted) = lun.identification { identity = wanted }
        let place = configuration.place(of: path.transport)
        places[engine.name, default: [:]][place] = PathIndex(engine.paths.count)
        switch path.transport {
        case .portal(let target, _, let number):
            guard case .session(let session, _) = place, let key = sessions.key(session) else {
                preconditionFailure("a path of a configuration that the sessions have not seen")
            }
            let inventory = sessions.inventory(key, timers: lun.settings.timers)
            let reference = DiskPath.SessionReference(
                path: inventory.path, inventory: inventory, configuredLUN: number ?? lun.number(onTarget: configuration.targets[target].name),
                identity: identity, isCandidate: lun.paths.isEmpty)
            engine.addPath(
                path.settings, transport: .session(reference), load: inventory.path.load,
                mayHoldUnknownWrites: inherited.contains(engine.name))
        case .device(let file):
            let device = DevicePath(path: file, vouchedIdentity: identity, port: host.port)
            engine.addPath(path.settings, transport: .device(device), load: device.load)
        }
    }

    /// Makes `new` what is configured, for the sessions first.
    func adopt(_ new: Configuration) {
        configuration = new
        sessions.adopt(new)
    }

    // MARK: Inventory

    func takeInventory(_ report: @escaping ([TargetInventory]) -> Void) {
        var pending = 0
        var results: [(order: Int, TargetInventory)] = []
        var isStarted = false
        func finishIfDone() {
            guard isStarted, pending == 0 else { return }
            report(results.sorted { $0.order < $1.order }.map(\.1))
        }
        for settings in configuration.targets {
            for (portal, entry) in settings.portals.enumerated() {
                let order = pending
                pending += 1
                guard let key = sessions.key(SessionPlace(target: settings.name, settings.portals[portal])) else { continue }
                let inventory = sessions.inventory(key, timers: Timers())
                InventoryVisit.start(inventory) { result in
                    let units = result.mapError {
                        PathTroubleError(trouble: PathTrouble(name: entry.name, words: "\($0)"))
                    }.map { $0.map { TargetInventory.Unit(lun: $0.lun, device: $0.isCapacityKnown ? $0.device : nil) } }
                    results.append((order, TargetInventory(target: settings.name, portal: entry.name, units: units)))
                    pending -= 1
                    finishIfDone()
                }
            }
        }
        isStarted = true
        finishIfDone()
    }

    // MARK: The end

    /// Closes all disks and logs out; then calls `done`.
    func shutDown(_ done: @escaping () -> Void) {
        endings.append(done)
        guard !isShutDown else { return finishIfDone() }
        isShutDown = true
        sampler.stop()
        sessions.stopProofs()
        for disk in disks {
            for opening in disk.openings { opening.end(.shutDown) }
            close(disk) { [self] in
                disks.removeAll { $0 === disk }
                finishIfDone()
            }
        }
        finishIfDone()
    }

    private func finishIfDone() {
        guard isShutDown, disks.isEmpty else { return }
        if let path = sessions.paths.first(where: { !$0.isOver }) {
            // One after the other is enough: they all log out at the same time.
            return path.whenOver { [self] in finishIfDone() }
        }
        let waiting = endings
        endings.removeAll()
        for ending in waiting { ending() }
    }
}

extension DiskEngine {
    /// Every path has been logged in to and not been lost since.
    fileprivate var reachesAllPaths: Bool {
        lun.snapshot().paths.allSatisfy { $0.state.isUsable || $0.state.mayBecomeUsable || $0.state == .unavailable }
    }
}

extension LUNConfiguration {
    /// The unit's number on a target, where the policy file says it for the whole LUN.
    fileprivate func number(onTarget name: String) -> LogicalUnitNumber? {
        if case .location(name, let lun) = identification { return lun }
        return nil
    }
}
