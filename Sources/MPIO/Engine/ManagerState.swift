import AsyncIO
import Foundation
import ISCSI
import Multipath
public import SCSI
import Timebase

/// A disk that is open, as the reactor hands it out.
struct OpenDisk: @unchecked Sendable {
    var engine: DiskEngine
    var device: DeviceDescription
}

/// The units that one configured session leads to.
public struct TargetInventory: Sendable {
    public var target: String
    public var portal: String
    /// The units, or why there is no answer.
    public var units: Result<[Unit], PathTroubleError>

    public struct Unit: Sendable {
        public var lun: LogicalUnitNumber
        /// Nil where the unit could not be asked.
        public var device: DeviceDescription?
    }
}

/// A ``PathTrouble`` as an error.
public struct PathTroubleError: Error, Hashable, Sendable, CustomStringConvertible {
    public var trouble: PathTrouble
    public var description: String { trouble.description }
}

/// All that a ``PathManager`` owns on its reactor: sessions and open disks. Confined to the reactor's
/// thread, but for what the lock guards.
final class ManagerState: @unchecked Sendable {
    /// What is configured now.
    private(set) var configuration: Configuration {
        didSet { lock.withLock { published = configuration } }
    }
    let host: EngineHost
    let sessions: SessionPool
    /// What the inspector shows as the holder.
    let command: String
    let log = EventLog()
    var modules = DSMRegistry()
    private(set) var disks: [DiskEngine] = []
    /// For each open disk, by its name, which of its paths is where.
    var places: [String: [PathPlace: PathIndex]] = [:]
    /// Disks that are open because something uses them, by their names; others are merely kept open.
    private var used: Set<String> = []
    /// What an opening waits for; nil: what the LUN's timers say.
    private let openingLimits: DiskOpening.Limits?
    /// Sessions that the reactor has room for.
    private let sessionLimit: Int
    /// Told of each new configuration.
    private var followers: [@Sendable (Configuration) -> Void] = []
    /// The policy file by its absolute name, also where the process has gone to another folder since.
    let policyFile: String?
    private var isShutDown = false
    private lazy var sampler = RateSampler(port: host.port) { [weak self] in self?.disks ?? [] }
    private var endings: [() -> Void] = []

    private let lock = Lock()
    private var published: Configuration
    private var handles: [String: MultipathDisk] = [:]
    private var server: ControlServer?

    init(configuration: Configuration, host: EngineHost, sessions: SessionPool, command: String,
        openingLimits: DiskOpening.Limits? = nil, sessionLimit: Int
    ) {
        self.openingLimits = openingLimits
        self.configuration = configuration
        published = configuration
        self.sessionLimit = sessionLimit
        policyFile = configuration.file.map { URL(fileURLWithPath: $0).path }
        self.host = host
        self.sessions = sessions
        self.command = command
    }

    // MARK: Opening

    /// - Parameter isUsed: false where the disk is merely to be kept open; it may then be taken out of the configuration.
    func open(_ name: String, isUsed: Bool, report: @escaping (Result<OpenDisk, PathManagerError>) -> Void) {
        guard !isShutDown else { return report(.failure(.shutDown)) }
        guard let lun = configuration.lun(named: name) else {
            return report(.failure(.unknownLUN(name, known: configuration.luns.map(\.name))))
        }
        if isUsed { used.insert(name) }
        let engine: DiskEngine
        if let known = disks.first(where: { $0.name == lun.name }) {
            if let device = known.device { return report(.success(OpenDisk(engine: known, device: device))) }
            engine = known
        } else {
            engine = makeDisk(lun)
            disks.append(engine)
            sampler.start()
        }
        let next = engine.opening
        engine.opening = DiskOpening(engine, limits: openingLimits ?? .use(lun.settings.timers)) { [self] outcome in
            next?.check()
            switch outcome {
            case .opened(let device): report(.success(OpenDisk(engine: engine, device: device)))
            case .failed(let paths):
                forget(engine)
                engine.close { report(.failure(.noUsablePath(lun: lun.name, paths: paths))) }
            }
        }
        engine.opening?.check()
        host.runDirtyDisks()
    }

    private func makeDisk(_ lun: LUNConfiguration) -> DiskEngine {
        let engine = DiskEngine(name: lun.name, settings: lun.settings, modules: modules, log: log, host: host)
        if case .identity(let wanted) = lun.identification { engine.lun.pin(wanted) }
        for path in configuration.effectivePaths(of: lun) { add(path, to: engine, lun: lun) }
        return engine
    }

    /// No disk that is open any more. It may still have to end what it does.
    private func forget(_ engine: DiskEngine) {
        disks.removeAll { $0 === engine }
        places[engine.name] = nil
        used.remove(engine.name)
        lock.withLock { handles[engine.name] = nil }
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
            engine.addPath(path.settings, transport: .session(reference), load: inventory.path.load)
        case .device(let file):
            let device = DevicePath(path: file, vouchedIdentity: identity, port: host.port)
            engine.addPath(path.settings, transport: .device(device), load: device.load)
        }
    }

    /// The one public object of an open disk.
    func disk(for opened: OpenDisk, reactor: LibaioReactor) -> MultipathDisk {
        lock.withLock {
            if let handle = handles[opened.engine.name], handle.engine.engine === opened.engine { return handle }
            let handle = MultipathDisk(
                name: opened.engine.name, device: opened.device,
                engine: EngineReference(engine: opened.engine, reactor: reactor))
            handles[opened.engine.name] = handle
            return handle
        }
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

    func shutDown(_ done: @escaping () -> Void) {
        endings.append(done)
        guard !isShutDown else { return finishIfDone() }
        isShutDown = true
        sampler.stop()
        sessions.stopProofs()
        for disk in disks {
            disk.close { [self] in
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

    // MARK: Changes

    /// What is configured now; from any thread.
    var currentConfiguration: Configuration { lock.withLock { published } }

    /// Calls `body` with each new configuration, on the reactor's thread.
    func follow(_ body: @escaping @Sendable (Configuration) -> Void) { followers.append(body) }

    func isUsed(_ name: String) -> Bool { used.contains(name) }

    var hasRoomForSessions: Int { sessionLimit }

    /// Makes `new` what is configured, for the sessions first.
    func adopt(_ new: Configuration) {
        configuration = new
        sessions.adopt(new)
        for follower in followers { follower(new) }
    }

    /// Gives up a disk that nobody uses.
    func giveUp(_ engine: DiskEngine) {
        forget(engine)
        engine.close {}
    }

    // MARK: Control

    func startControlServer(directory: String, reactor: LibaioReactor) throws {
        let server = try ControlServer(
            handler: ManagerControl(state: self, reactor: reactor), directory: directory)
        lock.withLock { self.server = server }
    }

    func stopControlServer() {
        let server = lock.withLock {
            defer { self.server = nil }
            return self.server
        }
        server?.stop()
    }
}

extension LUNConfiguration {
    /// The unit's number on a target, where the policy file says it for the whole LUN.
    fileprivate func number(onTarget name: String) -> LogicalUnitNumber? {
        if case .location(name, let lun) = identification { return lun }
        return nil
    }
}
