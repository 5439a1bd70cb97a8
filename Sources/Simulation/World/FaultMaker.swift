import MPIO
import Multipath
import SCSI
import Timebase

/// Makes the faults of a plan while it lasts, and takes them all back.
final class FaultMaker {
    let plan: FaultPlan
    let scenario: Scenario
    private let world: SimulatedWorld
    let network: SimulatedNetwork
    private let targets: [SimulatedTarget]
    /// One for each lane.
    private let engines: [DiskEngine]
    let port: SimulatedIO
    private let counts: FaultCounts
    /// Whether healing tries every path at once. One that was taken out by hand is taken back in any case.
    private let restoresPaths: Bool
    /// The session's connections, where there are several to choose from.
    let paths: [ISCSIPath]
    let wireOracle: WireOracle
    private var takenOut: Set<Int> = []
    let random: SeededRandom
    private var isOver = false
    private var isAway: [Bool]
    private var disabledPortals: Set<Int> = []

    init(
        plan: FaultPlan, scenario: Scenario, world: SimulatedWorld, network: SimulatedNetwork, targets: [SimulatedTarget],
        engines: [DiskEngine], paths: [ISCSIPath], wireOracle: WireOracle, port: SimulatedIO, counts: FaultCounts,
        restoresPaths: Bool
    ) {
        self.paths = paths
        self.wireOracle = wireOracle
        self.plan = plan
        self.scenario = scenario
        self.world = world
        self.network = network
        self.targets = targets
        self.engines = engines
        self.port = port
        self.counts = counts
        self.restoresPaths = restoresPaths
        isAway = Array(repeating: false, count: targets.count)
        random = world.random.fork()
    }

    func start() { if !plan.kinds.isEmpty { plan(next: random.duration(.zero...plan.interval)) } }

    private func plan(next delay: Duration) {
        world.after(delay) { [weak self] in
            guard let self, !self.isOver else { return }
            self.make(self.random.pick(self.plan.kinds))
            self.plan(next: self.random.duration(.zero...(self.plan.interval * 2)))
        }
    }

    /// Something to happen later, unless all is healed by then.
    func later(_ delay: Duration, _ body: @escaping () -> Void) {
        world.after(delay) { [weak self] in if self?.isOver == false { body() } }
    }

    // MARK: Making

    private func make(_ kind: FaultKind) {
        guard isMade(kind) else { return }
        world.trace.record(.fault, UInt64(FaultKind.allCases.firstIndex(of: kind)!))
        world.trace.note("fault \(kind.rawValue)")
        // Those that commands meet are counted when one does.
        switch kind {
        case .busy, .taskSetFull, .unitAttention, .mediumError, .lateExecution: break
        default: counts.count(kind)
        }
    }

    private func isMade(_ kind: FaultKind) -> Bool {
        switch kind {
        case .busy, .taskSetFull, .unitAttention, .mediumError, .lateExecution: return beginEpisode(kind)
        case .slowDisk: return slowDisk()
        case .policyChange:
            let policy = Scenario.drawPolicy(random)
            port.perform { [engines] in for engine in engines { engine.changePolicy(policy) } }
            return true
        case .targetRestart, .targetStopped, .changedIdentity: return onTarget(kind)
        case _ where kind.isOfConnections: return onConnection(kind)
        default: return onPath(kind)
        }
    }

    private func beginEpisode(_ kind: FaultKind) -> Bool {
        let target = random.pick(targets)
        let percent = kind == .lateExecution ? random.pick([3, 20]) : random.pick([5, 30, 90])
        target.filter.begin(
            TargetFilter.Episode(
                kind: kind, percent: percent, end: world.now + random.spreadDuration(.milliseconds(10)...(.seconds(4)))))
        return true
    }

    private func slowDisk() -> Bool {
        let target = random.pick(targets)
        let usual = scenario.diskDelay
        target.diskDelay = .milliseconds(100)...(max(scenario.longestDiskDelay, .milliseconds(101)))
        later(random.duration(.milliseconds(100)...(.seconds(4)))) { target.diskDelay = usual }
        return true
    }

    private func onTarget(_ kind: FaultKind) -> Bool {
        let candidates = targets.filter { target in
            !isAway[target.index] && target.isRunning && !target.port.isStopped && !target.portals.contains { $0.path == plan.sparedPath }
        }
        guard !candidates.isEmpty else { return false }
        let target = random.pick(candidates)
        switch kind {
        case .targetStopped:
            target.stop()
            later(random.spreadDuration(.milliseconds(20)...scenario.longestStop)) { target.resume() }
        case .targetRestart, .changedIdentity:
            target.kill()
            isAway[target.index] = true
            let isForeign = kind == .changedIdentity
            later(random.spreadDuration(.milliseconds(1)...(.seconds(8)))) { [self] in
                isAway[target.index] = false
                target.start(foreign: isForeign)
                if isForeign { later(random.duration(.seconds(1)...(.seconds(6)))) { [self] in replace(target) } }
            }
        default: return false
        }
        return true
    }

    /// The right unit comes back.
    private func replace(_ target: SimulatedTarget) {
        guard target.isForeign, target.isRunning else { return }
        target.kill()
        target.start()
    }

    private func onPath(_ kind: FaultKind) -> Bool {
        let candidates = (0..<scenario.pathCount).filter { path in
            guard let spared = plan.sparedPath else { return true }
            if path == spared { return false }
            // An access state is the group's, and late commands are no matter of paths.
            return kind != .accessStates || scenario.groupTags[path] != scenario.groupTags[spared]
        }
        guard !candidates.isEmpty else { return false }
        let path = random.pick(candidates)
        let links = network.links(of: path)
        let lasting = random.spreadDuration(.milliseconds(50)...(.seconds(12)))
        switch kind {
        case .reset: for link in links { network.reset(link) }
        case .silence: for link in links { silence(link, [Link.toTarget, Link.toInitiator], lasting) }
        case .silenceToTarget: for link in links { silence(link, [Link.toTarget], lasting) }
        case .silenceToInitiator: for link in links { silence(link, [Link.toInitiator], lasting) }
        case .slowDrip:
            let direction = random.below(2)
            let rate = random.pick([500, 5000, 50_000])
            for link in links { link.directions[direction].dripBytesPerSecond = rate }
            later(lasting) { for link in links { link.directions[direction].dripBytesPerSecond = nil } }
        case .digestCorruption:
            let link = links.count == 1 ? links[0] : random.pick(links)
            link.directions[random.below(2)].corruptions += random.within(1...2)
        case .portalDown: return disablePortals(links, lasting)
        case .accessStates: return changeState(path, lasting)
        case .asyncLogout:
            let (target, _) = place(path)
            guard target.isRunning else { return false }
            for link in links { target.requestLogout(portal: place(link).1) }
        case .takenOut: takeOut(path, lasting)
        default: return false
        }
        return true
    }

    func silence(_ link: Link, _ directions: [Int], _ lasting: Duration) {
        for direction in directions { link.directions[direction].isSilent = true }
        later(lasting) { for direction in directions { link.directions[direction].isSilent = false } }
    }

    private func place(_ path: Int) -> (SimulatedTarget, Int) {
        let target = targets[scenario.targetOfPath[path]]
        return (target, target.portals.firstIndex { $0.path == path }!)
    }

    func place(_ link: Link) -> (SimulatedTarget, Int) {
        let target = targets[scenario.targetOfPath[link.path]]
        return (target, target.portals.firstIndex { $0.link == link.index }!)
    }

    func disablePortals(_ links: [Link], _ lasting: Duration) -> Bool {
        guard place(links[0]).0.isRunning, !links.contains(where: { disabledPortals.contains($0.index) }) else { return false }
        for link in links {
            let (target, portal) = place(link)
            disabledPortals.insert(link.index)
            target.setPortal(portal, enabled: false)
        }
        later(lasting) { [self] in
            for link in links {
                let (target, portal) = place(link)
                disabledPortals.remove(link.index)
                target.setPortal(portal, enabled: true)
            }
        }
        return true
    }

    private func changeState(_ path: Int, _ lasting: Duration) -> Bool {
        let (target, portal) = place(path)
        guard target.isRunning else { return false }
        let state = random.pick([AccessState.nonOptimized, .nonOptimized, .standby, .unavailable, .transitioning])
        if state == .transitioning {
            target.setState(.transitioning, portal: portal)
            let then = random.pick([AccessState.optimized, .nonOptimized, .standby])
            later(random.spreadDuration(.milliseconds(10)...(.seconds(3)))) { target.setState(then, portal: portal) }
        } else {
            target.setState(state, portal: portal)
        }
        later(lasting) { target.setState(.optimized, portal: portal) }
        return true
    }

    private func takeOut(_ path: Int, _ lasting: Duration) {
        let index = PathIndex(path)
        takenOut.insert(path)
        let how: TakeOut = random.chance(percent: 50) ? .fail : .drain
        port.perform { [engines] in for engine in engines { engine.takeOut(index, how) } }
        later(lasting) { [port, engines] in port.perform { for engine in engines { engine.restore(index) } } }
    }

    // MARK: Healing

    /// Everything is well from here on.
    func heal() {
        isOver = true
        for link in network.links {
            for direction in link.directions.indices {
                link.directions[direction].isSilent = false
                link.directions[direction].dripBytesPerSecond = nil
                link.directions[direction].corruptions = 0
                link.directions[direction].extraLatency = .zero
            }
        }
        for target in targets {
            target.filter.endEpisodes()
            target.diskDelay = scenario.diskDelay
            target.resume()
            if isAway[target.index] { target.start() } else { replace(target) }
            target.releaseAll()
            for portal in target.portals.indices {
                target.setPortal(portal, enabled: true)
                target.setState(.optimized, portal: portal)
            }
        }
        for path in 0..<scenario.pathCount where restoresPaths || takenOut.contains(path) {
            port.perform { [engines] in for engine in engines { engine.restore(PathIndex(path)) } }
        }
    }
}
