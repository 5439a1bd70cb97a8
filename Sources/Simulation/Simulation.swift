import AsyncIO
import CAio
import ISCSI
import ISCSITarget
import MPIO
import Multipath
import SCSI
import Timebase

/// One seed's world: the shipped engine and the shipped target over a simulated network and clock, from the
/// opening of the disk to its close.
public final class Simulation {
    public let seed: UInt64
    public let bug: PlantedBug?
    /// Sessions have several connections.
    public let hasConnections: Bool
    /// The disk has several lanes.
    public let hasLanes: Bool
    private let world: SimulatedWorld
    private let network: SimulatedNetwork
    private let scenario: Scenario
    private let verdict: Verdict
    private let counts = FaultCounts()
    private let pathOracle: PathOracle
    private let targetOracle: TargetOracle
    private let wireOracle: WireOracle
    private let model: BlockModel
    private let port: SimulatedIO
    private let host: EngineHost
    /// One for each lane; one, mostly.
    private var engines: [DiskEngine] = []
    /// The first lane's, whose choices are watched.
    private var engine: DiskEngine { engines[0] }
    /// How the blocks are dealt to the lanes, where there are several.
    private let striping: Striping?
    /// Of all lanes, those of the first one first.
    private var paths: [ISCSIPath] = []
    private var watchers: [PathWatcher] = []
    private var targets: [SimulatedTarget] = []
    private var workload: Workload!
    private var faults: FaultMaker!

    /// `connections`: sessions have several connections; `lanes`: the disk has several lanes, each with an engine and sessions of its
    /// own; the seed's world is another one then. `print` gets each step as a line.
    public init(
        seed: UInt64, bug: PlantedBug? = nil, connections: Bool = false, lanes: Bool = false, print: ((String) -> Void)? = nil
    ) {
        self.seed = seed
        hasConnections = connections
        hasLanes = lanes
        self.bug = bug
        let random = SeededRandom(seed: seed)
        world = SimulatedWorld(random: random.fork())
        world.trace.print = print
        let drawn = Scenario(
            random: random.fork(), bug: bug,
            connectionRandom: connections ? SeededRandom(seed: seed &* 0xD134_2543_DE82_EF95 ^ 0x5EED_C011) : nil)
        scenario = drawn
        network = SimulatedNetwork(world: world)
        verdict = Verdict(trace: world.trace)
        model = BlockModel(blockCount: scenario.blockCount, blockSize: scenario.blockSize)
        let harmless = scenario.plan.isHarmlessToPaths || scenario.sparesPathsByConnections
        pathOracle = PathOracle(
            bug: bug, verdict: verdict, trace: world.trace, sparedPath: scenario.plan.sparedPath, sparesAllPaths: harmless)
        targetOracle = TargetOracle(verdict: verdict, trace: world.trace, model: model, bug: bug)
        wireOracle = WireOracle(
            verdict: verdict, watchesArrival: connections, show: print == nil ? nil : { [world] in world.trace.show($0) },
            now: { [world] in world.now }
        ) {
            drawn.targetOfPath[$0.path]
        }
        network.observer = wireOracle
        port = SimulatedIO(
            name: "initiator", address: Self.source(0), network: network, turnDelay: scenario.turnDelay,
            readLimit: scenario.readLimit)
        port.misbehaviour.leaksSockets = bug == .socketLeaked
        port.misbehaviour.breaksCmdSN = bug == .wrongCmdSN && !scenario.usesDigests && !connections
        host = EngineHost(port: port, cryptography: SimulatedCryptography(random: random.fork())) {
            mpio_crc32c($0, $1, $2)
        }
        var modules = DSMRegistry()
        modules.register(CheckedDSM.self)
        let laneRandom = SeededRandom(seed: seed &* 0x9E6C_63D0_876A_9A99 ^ 0x1A9E_5EED)
        let laneCount = lanes ? laneRandom.pick([2, 2, 3]) : 1
        let stripe = scenario.blockSize * laneRandom.pick([1, 2, 4, 8])
        striping = lanes ? Striping(laneCount: laneCount, blockSize: scenario.blockSize, stripeLimitByteCount: stripe) : nil
        for lane in 0..<laneCount {
            engines.append(
                DiskEngine(
                    name: "disk", settings: scenario.settings, modules: lane == 0 ? modules : DSMRegistry(), host: host,
                    lane: Lane(number: lane, count: laneCount, stripeLimitByteCount: stripe)))
        }
        engine.pseudoLUN.plantedMistake = bug?.mistake
        world.trace.note("seed \(seed): \(scenario.words)")
        let trace = world.trace
        for (lane, engine) in engines.enumerated() {
            let words = lanes ? "lane \(lane) event" : "event"
            engine.eventTap = { trace.note("\(words) \($0.event)") }
        }
        connectLanes()
    }

    /// As reactors do: by jobs, which come a little later.
    private func connectLanes() {
        guard hasLanes else { return }
        for (lane, engine) in engines.enumerated() {
            engine.tellOtherLanes = { [unowned self] news in
                for (number, other) in engines.enumerated() where number != lane {
                    world.after(.microseconds(50)) { [weak self] in self?.port.perform { other.heard(news) } }
                }
            }
        }
    }

    private static func source(_ path: Int, _ connection: Int = 0) -> SocketAddress {
        .ipv4(address: 0x0A00_0005 + UInt32(path) << 8 + UInt32(connection) << 16, port: 0)
    }
    private static func portal(_ path: Int, _ connection: Int = 0) -> SocketAddress {
        .ipv4(address: 0x0A00_000A + UInt32(path) << 8 + UInt32(connection) << 16, port: 3260)
    }
    /// Portals of each path.
    private var portalCount: Int { scenario.connections?.portalCount ?? 1 }

    // MARK: Building

    private func build() {
        let store = BackingStore(byteCount: scenario.blockCount * scenario.blockSize)
        for index in 0..<scenario.pathCount { network.add(makeLink(index, of: index), to: Self.portal(index)) }
        for path in 0..<scenario.pathCount {
            for connection in 1..<max(portalCount, 1) {
                network.add(makeLink(network.links.count, of: path), to: Self.portal(path, connection))
            }
        }
        for index in 0..<scenario.targetCount {
            let filter = TargetFilter(
                world: world, oracle: targetOracle, longestHold: scenario.longestHold, counts: counts)
            filter.ordered = { [unowned self] session, cmdSN, isRead in
                wireOracle.reachedUnit(
                    WireOracle.SessionKey(target: index, isid: session.identity.isid.rawValue, tsih: session.tsih),
                    cmdSN: cmdSN, isRead: isRead)
            }
            let portals = (0..<scenario.pathCount).filter { scenario.targetOfPath[$0] == index }.flatMap { path in
                network.links(of: path).enumerated().map { connection, link in
                    SimulatedTarget.Portal(
                        path: path, link: link.index,
                        configuration: TargetPortalConfiguration(
                            address: Self.portal(path, connection), groupTag: scenario.groupTags[path]))
                }
            }
            let operational = scenario.targetOperational
            let target = SimulatedTarget(
                index: index, name: "iqn.2026-11.org.example:array-\(index)", portals: portals, world: world,
                network: network, store: store, blockSize: scenario.blockSize, filter: filter,
                turnDelay: scenario.turnDelay, readLimit: scenario.readLimit, diskDelay: scenario.diskDelay
            ) { $0 = operational($0) }
            target.unitNumber = unitNumber
            targets.append(target)
            target.start()
        }
        // A path that is taken out by hand leaves its session alive for a while, and its requests go elsewhere all the same.
        targetOracle.interruptions = { [unowned self] in
            watchers.reduce(pathOracle.lossCount) { $0 + $1.interruptionCount }
        }
    }

    private var unitNumber: Int { scenario.connections?.unitNumber ?? 0 }

    private func makeLink(_ index: Int, of path: Int) -> Link {
        let random = world.random
        let latency = random.spreadDuration(.microseconds(20)...(.milliseconds(20)))
        let rate = random.pick([2_000_000, 100_000_000, 1_000_000_000])
        let way = LinkDirection(
            latency: latency, jitter: random.chance(percent: 50) ? .zero : latency / 2, bytesPerSecond: rate)
        let link = Link(
            index: index, path: path, directions: [way, way], segmentByteCount: random.pick(scenario.blockSize == 512 ? [200, 1448, 16_384] : [1448, 16_384]),
            bufferByteCount: random.pick([4096, 32_768, 262_144]))
        link.mayCorrupt = { [unowned self] endpoint in
            guard scenario.usesDigests else { return false }
            return hasConnections || hasLanes ? wireOracle.isFullFeature(endpoint) : paths[path].isLoggedIn
        }
        return link
    }

    private func addPaths() {
        for lane in engines.indices { addPaths(ofLane: lane) }
    }

    private func addPaths(ofLane lane: Int) {
        for index in 0..<scenario.pathCount {
            var login = LoginSettings(
                initiatorName: "iqn.2026-11.org.example:host", targetName: targets[scenario.targetOfPath[index]].name,
                isid: .random(UInt32(7 + lane), qualifier: UInt16(bug == .sharedISID ? 1 : index + 1)))
            login.operational = scenario.operational
            var session = SessionSettings(login: login)
            let timers = scenario.settings.timers
            session.loginTimeout = timers.loginTimeout
            session.commandTimeout = timers.commandTimeout > .zero ? timers.commandTimeout : .seconds(100_000)
            session.silenceTimeout = timers.silenceTimeout
            session.verifyPeriod = timers.pathVerifyPeriod
            session.commandCapacity = scenario.commandCapacity
            session.connectionRecoveryTimeout = timers.silenceTimeout / 2
            var settings = ISCSIPathSettings(
                name: "path-\(index)", portal: Self.portal(index), source: Self.source(index), session: session)
            if let plan = scenario.connections {
                settings.connections = (0..<plan.asked).map {
                    let place = plan.hasOwnPortals ? $0 : 0
                    return ISCSIConnectionSettings(
                        portal: Self.portal(index, place), source: Self.source(index, place), role: plan.roles[$0],
                        weight: plan.weights[$0])
                }
                settings.connectionPolicy = plan.policy
                settings.timers = timers
                if bug == .connectionNeverRetried { settings.timers.pathRecoveryInterval = .seconds(100_000) }
                if bug == .connectionNeverRetried { settings.timers.pathRecoveryIntervalMaximum = .seconds(100_000) }
            }
            let path = ISCSIPath(settings: settings, host: host)
            path.plantConnectionMistake(bug?.connectionMistake)
            paths.append(path)
            watchers.append(PathWatcher(path, verdict))
            engines[lane].addPath(
                PathSettings(
                    name: "path-\(index)", role: scenario.roles[index], weight: scenario.weights[index], order: index),
                over: SessionInventory(path: path), lun: LogicalUnitNumber(index: unitNumber)!)
        }
    }

    // MARK: Running

    /// Runs the world to its end.
    public func run() -> RunResult {
        CurrentRun.$oracle.withValue(pathOracle) { live() }
        let result = RunResult(
            seed: seed, traceHash: world.trace.hash, violation: verdict.violation, faults: counts.byKind,
            requestCount: workload?.submittedCount ?? 0, failures: workload?.failures ?? [],
            virtualTime: world.now - .zero, eventCount: world.eventCount, pathLossCount: pathOracle.lossCount,
            redrivenCount: engines.reduce(0) { $0 + Int($1.pseudoLUN.redrivenCount) }, scenario: scenario.words, hasConnections: hasConnections, hasLanes: hasLanes,
            connectionLossCount: watchers.reduce(0) { $0 + $1.connectionLossCount })
        tearDown()
        return result
    }

    private func live() {
        build()
        guard open() else { return }
        phase("safety")
        workload.start()
        faults.start()
        let end = world.now + scenario.plan.duration
        _ = world.run(until: end) { verdict.violation != nil }
        workload.stop()
        guard verdict.violation == nil else { return }
        phase("liveness")
        faults.heal()
        guard drain("requests that were under way"), recover() else { return }
        phase("verification")
        port.perform { [self] in workload.verifyAll() }
        _ = world.run(until: world.now + .milliseconds(5)) { false }
        guard drain("the last reads") else { return }
        phase("close")
        close()
    }

    private func phase(_ name: String) {
        world.trace.record(.phase, UInt64(name.utf8.count))
        world.trace.note("phase \(name)")
    }

    private func open() -> Bool {
        var openings: [Bool] = []
        _ = world.run(until: world.now + .seconds(1)) { targets.allSatisfy(\.isRunning) }
        port.perform { [self] in
            addPaths()
            for engine in engines { engine.whenOpen(timers: scenario.settings.timers) { openings.append($0) } }
        }
        _ = world.run(until: world.now + .seconds(60)) { openings.count == engines.count || verdict.violation != nil }
        guard openings.count == engines.count, !openings.contains(false), verdict.violation == nil else {
            verdict.fail(.opening, "the disk does not open: \(pathStates)")
            return false
        }
        var settings = scenario.workload
        settings.sharesStripes = bug == .stripesShared
        workload = Workload(
            settings: settings, world: world, port: port, engines: engines, striping: striping, model: model, verdict: verdict,
            target: targetOracle)
        workload.forbids = { [unowned self] in forbidden($0, $1) }
        faults = FaultMaker(
            plan: scenario.plan, scenario: scenario, world: world, network: network, targets: targets, engines: engines,
            paths: paths, wireOracle: wireOracle, port: port, counts: counts, restoresPaths: bug != .pathNeverRetried)
        // The other paths may take a little longer than the first.
        _ = world.run(until: world.now + .milliseconds(500)) { verdict.violation != nil }
        return verdict.violation == nil
    }

    /// Why a request may not fail so; nil where it may.
    private func forbidden(_ error: DiskError, _ operation: IOOperation) -> String? {
        let plan = scenario.plan
        switch error {
        case .cancelled: return scenario.workload.cancelPercent > 0 ? nil : "nobody cancelled it"
        case .miscompare: return nil
        case .noPathsAvailable:
            return plan.sparedPath != nil || plan.isHarmlessToPaths ? "a path was well all the time" : nil
        case .outcomeUnknown where operation != .compareAndWrite:
            // Taken back while it waited to be repeated.
            return scenario.workload.cancelPercent > 0 ? nil : "it may be repeated"
        case .outcomeUnknown: return plan.isHarmlessToPaths ? "no path was lost" : nil
        case .target(.checkCondition, let sense?) where sense.key == .mediumError:
            return plan.has(.mediumError) ? nil : "the medium is well"
        case .target: return plan.kinds.isEmpty ? "there was no fault" : nil
        case .timedOut: return plan.kinds.isEmpty ? "there was no fault" : nil
        default: return "no such error was made"
        }
    }

    /// Lets what is under way end.
    private func drain(_ what: String) -> Bool {
        let isDone = world.run(until: world.now + scenario.patience) {
            workload.outstandingCount == 0 || verdict.violation != nil
        }
        if !isDone {
            verdict.fail(.liveness, "\(what) do not end: \(workload.outstandingCount) left, the oldest is \(workload.oldest); paths \(pathStates)")
        }
        return verdict.violation == nil
    }

    private var pathStates: String {
        engines.map { $0.pseudoLUN.snapshot().paths.map { "\($0.name) \($0.state.name)" }.joined(separator: ", ") }.joined(separator: " | ")
    }

    private func recover() -> Bool {
        // A target may have closed a connection while the network was silent. An idle session learns that from the
        // next NOP-Out, not before.
        _ = world.run(until: world.now + scenario.settings.timers.pathVerifyPeriod + .seconds(1)) { verdict.violation != nil }
        let isDone = world.run(until: world.now + scenario.patience) {
            verdict.violation != nil || arePathsWell && areConnectionsWell
        }
        if !isDone { verdict.fail(.liveness, "the paths do not come back: \(pathStates)\(connectionStates)") }
        return verdict.violation == nil
    }

    private var arePathsWell: Bool {
        engines.allSatisfy { engine in
            (0..<scenario.pathCount).allSatisfy { engine.pseudoLUN.pathState(PathIndex($0)) == .activeOptimized }
        }
    }

    private var areConnectionsWell: Bool {
        !hasConnections || paths.allSatisfy { $0.connectionStates.allSatisfy { $0 == "logged in" || $0 == "not granted" } }
    }

    private var connectionStates: String {
        hasConnections ? "; connections " + paths.map { "\($0.connectionStates)" }.joined(separator: ", ") : ""
    }

    private func close() {
        wireOracle.checkGaps()
        pathOracle.isClosing = true
        var closed = 0
        port.perform { [self] in for engine in engines { engine.close { closed += 1 } } }
        let isDone = world.run(until: world.now + .seconds(60)) { closed == engines.count && paths.allSatisfy(\.isOver) }
        guard isDone else {
            return verdict.fail(.liveness, "the disk does not close: \(openRequestCount) requests are left")
        }
        // Timers that were not taken back end by themselves, and the last words reach the targets.
        _ = world.run(until: world.now + .seconds(70)) { false }
        checkLeaks()
    }

    private var openRequestCount: Int { engines.reduce(0) { $0 + $1.openRequestCount } }

    private func checkLeaks() {
        if port.openSocketCount > 0 { verdict.fail(.leak, "\(port.openSocketCount) sockets are open") }
        if port.pendingTimerCount > 0 { verdict.fail(.leak, "\(port.pendingTimerCount) timers are set") }
        for path in paths where path.load.counters.requests != 0 || path.load.counters.bytes != 0 {
            verdict.fail(.leak, "\(path.settings.name) counts \(path.load.counters.requests) requests as outstanding")
        }
        if openRequestCount > 0 { verdict.fail(.leak, "\(openRequestCount) requests are left in the engine") }
        for target in targets {
            if let words = target.leftovers { verdict.fail(.leak, "target \(target.index) has \(words) left") }
        }
    }

    private func tearDown() {
        workload = nil
        faults = nil
        port.end()
        for target in targets { target.end() }
        network.end()
        world.end()
    }
}

/// Counts what may make a command be sent twice.
final class PathWatcher: ISCSIPathClient {
    private(set) var interruptionCount = 0
    private(set) var connectionLossCount = 0
    private let verdict: Verdict

    init(_ path: ISCSIPath, _ verdict: Verdict) {
        self.verdict = verdict
        _ = path.addClient(self)
    }

    func pathLoggedIn(_ path: ISCSIPath) {}
    func path(_ path: ISCSIPath, completed completion: borrowing CommandCompletion) {}
    func path(_ path: ISCSIPath, abandoned token: UInt64, wasSent: Bool) {}
    func path(_ path: ISCSIPath, taskManagement token: UInt64, answered response: TaskManagementResponse?) {}
    func pathLost(_ path: ISCSIPath, failure: PathFailure) {
        interruptionCount += 1
        // A last resort, against targets with faults of their own: here it would hide one of ours.
        if failure == PathFailure(SessionFailure.commandNotTaken) {
            verdict.fail(.order, "\(path.settings.name) waited for a CmdSN that nobody sent")
        }
    }
    func path(_ path: ISCSIPath, liveness: PathLiveness) { interruptionCount += 1 }
    func path(_ path: ISCSIPath, asyncSense sense: SenseData?) {}
    func path(_ path: ISCSIPath, connection change: ConnectionChange) {
        guard case .lost = change else { return }
        connectionLossCount += 1
        interruptionCount += 1
    }
}

/// What one run showed.
public struct RunResult: Sendable {
    public var seed: UInt64
    public var traceHash: UInt64
    public var violation: Violation?
    public var faults: [(FaultKind, Int)]
    public var requestCount: Int
    /// Errors that requests ended with, and how many each.
    public var failures: [(String, Int)]
    public var virtualTime: Duration
    public var eventCount: Int
    public var pathLossCount: Int
    public var redrivenCount: Int
    public var scenario: String
    public var hasConnections: Bool
    public var hasLanes: Bool
    public var connectionLossCount: Int
}

extension Simulation {
    /// Runs a seed twice: what it found, and whether both runs were the same.
    public static func runTwice(seed: UInt64, bug: PlantedBug? = nil, connections: Bool = false, lanes: Bool = false) -> RunResult {
        var result = Simulation(seed: seed, bug: bug, connections: connections, lanes: lanes).run()
        let again = Simulation(seed: seed, bug: bug, connections: connections, lanes: lanes).run()
        if again.traceHash != result.traceHash, result.violation == nil {
            result.violation = Violation(
                oracle: .determinism, words: "two runs of the seed differ: \(result.traceHash) and \(again.traceHash)")
        }
        return result
    }
}
