import AsyncIO
import ISCSI
import ISCSITarget
import SCSI
import Timebase

/// One target process of the array: the shipped ``EmbeddedTarget`` on a simulated port, with what can be
/// done to it.
final class SimulatedTarget {
    /// One of its portals, which one path leads to, or one connection of it.
    struct Portal {
        var path: Int
        var link: Int
        var configuration: TargetPortalConfiguration
    }

    let index: Int
    let name: String
    let portals: [Portal]
    private let world: SimulatedWorld
    private let network: SimulatedNetwork
    private let random: SeededRandom
    private let store: BackingStore
    /// Another unit, that now and then answers in place of the right one.
    let foreignStore: BackingStore
    private let settings: (inout TargetConfiguration) -> Void
    private let blockSize: Int
    private(set) var port: SimulatedIO
    private(set) var target: EmbeddedTarget?
    private(set) var filter: TargetFilter
    private var backend: SimulatedBackend?
    private(set) var isForeign = false
    /// The access state of each portal's group, which outlives a restart.
    private var states: [UInt16: AccessState] = [:]
    var diskDelay: ClosedRange<Duration>
    private let turnDelay: ClosedRange<Duration>
    private let readLimit: Int
    var unitNumber = 0

    init(
        index: Int, name: String, portals: [Portal], world: SimulatedWorld, network: SimulatedNetwork, store: BackingStore,
        blockSize: Int, filter: TargetFilter, turnDelay: ClosedRange<Duration>, readLimit: Int,
        diskDelay: ClosedRange<Duration>, settings: @escaping (inout TargetConfiguration) -> Void
    ) {
        self.index = index
        self.name = name
        self.portals = portals
        self.world = world
        self.network = network
        self.store = store
        self.blockSize = blockSize
        self.filter = filter
        self.turnDelay = turnDelay
        self.readLimit = readLimit
        self.diskDelay = diskDelay
        self.settings = settings
        random = world.random.fork()
        foreignStore = BackingStore(byteCount: store.bytes.count)
        port = SimulatedIO(
            name: name, address: portals[0].configuration.address, network: network, turnDelay: turnDelay, readLimit: readLimit)
        filter.owner = self
    }

    var isRunning: Bool { target != nil }

    // MARK: Life

    func start(foreign: Bool = false) {
        precondition(target == nil, "it runs already")
        isForeign = foreign
        port = SimulatedIO(
            name: name, address: portals[0].configuration.address, network: network, turnDelay: turnDelay, readLimit: readLimit)
        port.perform { [weak self] in self?.boot() }
    }

    private func boot() {
        var unit = LogicalUnitConfiguration(number: unitNumber, storage: .memory, byteCount: UInt64(store.bytes.count), blockSize: blockSize)
        unit.serial = isForeign ? "foreign" : "simulated"
        var configuration = TargetConfiguration(
            name: name, portals: portals.map(\.configuration), logicalUnits: [unit])
        settings(&configuration)
        let backend = SimulatedBackend(
            store: isForeign ? foreignStore : store, blockSize: blockSize, port: port, random: random
        ) { [unowned self] in
            random.spreadDuration(diskDelay)
        }
        self.backend = backend
        do {
            let target = try EmbeddedTarget(
                configuration: configuration, port: port, cryptography: SimulatedCryptography(random: random)
            ) { _ in backend }
            target.filter = filter
            for (tag, state) in states.sorted(by: { $0.key < $1.key }) { target.node.setState(state, ofGroupTag: tag) }
            try target.start()
            self.target = target
        } catch {
            preconditionFailure("the simulated target does not start: \(error)")
        }
    }

    /// SIGKILL.
    func kill() {
        // One that is still starting dies as well.
        port.kill()
        backend?.kill()
        backend = nil
        // The port hears nothing of it any more; it lets go what refers to each other.
        target?.stop()
        target = nil
        filter.forgetHeld()
    }

    func stop() { port.setStopped(true) }
    func resume() { port.setStopped(false) }

    func setPortal(_ portal: Int, enabled: Bool) {
        port.perform { [weak self] in try? self?.target?.setPortal(portal, enabled: enabled) }
    }

    func requestLogout(portal: Int, connectionID: UInt16? = nil) {
        port.perform { [weak self] in
            self?.target?.sendAsyncMessage(.logoutRequested(withinSeconds: 3), portal: portal, connectionID: connectionID)
        }
    }

    /// Cuts the connections of a portal that have this CID, and leaves the others of their sessions. The message that
    /// says so goes out on a connection with the ID `told` before.
    func dropConnections(portal: Int, connectionID: UInt16, tellingAt teller: Int, on told: UInt16) {
        port.perform { [weak self] in
            guard let target = self?.target else { return }
            target.sendAsyncMessage(
                .connectionDrops(connectionID: connectionID, time2Wait: 0, time2Retain: 20), portal: teller, connectionID: told)
        }
        world.after(.milliseconds(2)) { [weak self] in
            self?.port.perform { [weak self] in self?.target?.dropConnections(portal: portal, connectionID: connectionID) }
        }
    }

    func setState(_ state: AccessState, portal: Int) {
        let tag = portals[portal].configuration.groupTag
        states[tag] = state
        port.perform { [weak self] in self?.target?.node.setState(state, ofGroupTag: tag) }
    }

    func release(_ token: UInt64, after delay: Duration) {
        let life = port
        world.after(delay) { [weak self] in
            life.perform { [weak self] in
                guard let self, self.port === life else { return }
                self.target?.release(token)
            }
        }
    }

    func releaseAll() {
        port.perform { [weak self] in
            guard let target = self?.target else { return }
            for token in target.heldTokens { target.release(token) }
        }
    }

    /// Nothing may be left of sessions and commands.
    var leftovers: String? {
        guard let target else { return nil }
        if target.sessionCount > 0 { return "\(target.sessionCount) sessions" }
        if target.lentByteCount > 0 { return "\(target.lentByteCount) bytes of buffers" }
        if !target.heldTokens.isEmpty { return "\(target.heldTokens.count) held commands" }
        if port.openSocketCount > 0 { return "\(port.openSocketCount) sockets" }
        if port.pendingTimerCount > 0 { return "\(port.pendingTimerCount) timers" }
        return nil
    }

    func end() {
        port.end()
        target = nil
        backend = nil
    }
}

/// No secret, only numbers that the seed decides.
struct SimulatedCryptography: CryptographicServices, @unchecked Sendable {
    let random: SeededRandom
    func randomBytes(count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) } }
    func digest(_ algorithm: CHAPAlgorithm, of bytes: [UInt8]) -> [UInt8]? { nil }
}
