public import AsyncIO
public import Cryptography
public import ISCSI
import SCSI
import Timebase

public enum EmbeddedTargetError: Error, Hashable, Sendable {
    case noPortal
    case duplicatePortal(SocketAddress)
    case duplicateUnit(number: Int)
    case twoUnitsOfOneIdentity(number: Int, other: Int)
    case badNode(TargetNodeProblem)
    case cannotListen(on: SocketAddress, IOError)
    case cannotOpen(unit: Int, IOError)
    /// The unit is on a disk of the caller's own, who gave no backend for it.
    case noBackend(unit: Int)
    case alreadyStarted
}

/// What went wrong in a target that runs.
public enum TargetProblem: Error, Hashable, Sendable {
    /// After a loss of power the unit's persistent reservations could not be read back. It is not ready, so that nobody
    /// gets past a reservation that may exist; TEST UNIT READY tries again.
    case reservationsUnreadable(unit: Int, IOError)
}

/// An iSCSI target in the process, on any ``IOPort``.
///
/// Every method, `init` included, is called on the port's thread; the class may be handed there from
/// elsewhere, which is all that its sendability means. Same calls and same input, same behaviour: it has no
/// thread, clock or randomness of its own but the `cryptography` that it is given.
public final class EmbeddedTarget: @unchecked Sendable {
    public let configuration: TargetConfiguration
    /// The first device: that of the configuration's own units.
    public var node: TargetNode { devices[0] }
    public let service: TargetService
    /// A stage of the caller's own between the protocol and the device server.
    @exclusivity(unchecked) public var filter: (any CommandFilter)?
    /// Told of what goes wrong in the target itself, and which no initiator is told in so many words.
    public var onProblem: ((TargetProblem) -> Void)?
    /// Only while a fault is set.
    @exclusivity(unchecked) var faults: FaultSchedule?
    var faultRandom: FaultRandom
    var lastFaultID = 0
    let port: any IOPort
    let pool: TargetBufferPool
    /// SCSI devices; each has units of its own.
    let devices: [TargetNode]
    /// iSCSI nodes, in the order of the configuration; several may lead to one device.
    let accessPoints: [AccessPoint]
    @exclusivity(unchecked) var portals: [Portal]
    private var isStarted = false
    @exclusivity(unchecked) var sessions: [SessionEntry?] = []
    var held: [HeldCommand] = []
    var waits: [ManagementWait?] = []
    /// Nil: commands are taken as they come.
    @exclusivity(unchecked) private var gathering: CommandGathering?
    @exclusivity(unchecked) var executedCount = 0
    /// Data of these commands, in bytes.
    @exclusivity(unchecked) var executedByteCount = 0
    /// For what the protocol half does by the clock.
    @exclusivity(unchecked) var alarmTimer: TimerID?
    var alarmDeadline = Instant.distantFuture

    struct AccessPoint {
        let name: String
        let alias: String
        let authentication: TargetAuthentication
        let device: TargetNode
        let portals: [Int]
    }

    struct Portal {
        let address: SocketAddress
        let groupTag: UInt16
        /// The iSCSI nodes that it leads to.
        let nodes: [String]
        /// With the port that the kernel chose, once it listened.
        var boundAddress: SocketAddress
        var listener: ListenerID?
        var isEnabled = true
        var isSilent = false
        /// Its node has no power.
        var isDown = false
        /// In the order of arrival.
        var sockets: [TargetSocket] = []
        /// By LUN index.
        var counters: [TargetCounters] = []
        var acceptedCount: UInt64 = 0
    }

    struct SessionEntry {
        let session: TargetSession
        let device: TargetNode
        let nexus: NexusIndex
        let portGroup: Int
    }

    struct HeldCommand {
        var command: DeviceCommand
        var unit: LogicalUnit
        var outlivesSession: Bool
    }

    /// A task management function that waits for units to let go of commands.
    struct ManagementWait {
        let session: TargetSession
        let request: TargetManagementRequest
        var unitCount: Int
    }

    /// Opens the units' files; the portals open at ``start()``.
    public convenience init(
        configuration: TargetConfiguration, port: any IOPort,
        cryptography: any CryptographicServices = SystemCryptography()
    ) throws(EmbeddedTargetError) {
        try self.init(configuration: configuration, port: port, cryptography: cryptography) { _ in nil }
    }

    /// With backends of the caller's own; where `backend` gives none, the configuration's storage is opened.
    public init(
        configuration: TargetConfiguration, port: any IOPort, cryptography: any CryptographicServices,
        backend: (LogicalUnitConfiguration) -> (any LogicalUnitBackend)?
    ) throws(EmbeddedTargetError) {
        let plan = try TargetPlan(configuration)
        self.configuration = configuration
        self.port = port
        pool = TargetBufferPool(limitByteCount: configuration.bufferByteCount)
        faultRandom = FaultRandom(seed: configuration.faultSeed)
        gathering = configuration.gathersCommands ? CommandGathering() : nil
        let devices = plan.devices.map {
            TargetNode(
                name: $0.name, ports: $0.ports, allowsExplicitTransitions: configuration.allowsExplicitTransitions)
        }
        for device in devices {
            for index in device.portGroups.indices {
                device.portGroups[index].state = configuration.accessStates[device.portGroups[index].tag] ?? .optimized
            }
        }
        self.devices = devices
        accessPoints = plan.nodes.map {
            AccessPoint(
                name: $0.node.name, alias: $0.node.alias, authentication: $0.node.authentication,
                device: devices[$0.device], portals: $0.portals)
        }
        portals = plan.portals.enumerated().map { index, portal in
            Portal(
                address: portal.address, groupTag: portal.groupTag,
                nodes: plan.nodes.filter { $0.portals.contains(index) }.map(\.node.name), boundAddress: portal.address)
        }
        service = TargetService(
            settings: configuration.serviceSettings, nodes: [], pool: pool, cryptography: cryptography,
            crc32c: systemCRC32C)
        for index in devices.indices { try openUnits(plan.devices[index].units, devices[index], backend) }
        let count = (devices.compactMap { $0.units.last?.number }.max() ?? 0) + 1
        for index in portals.indices { portals[index].counters = Array(repeating: TargetCounters(), count: count) }
    }

    private func openUnits(
        _ units: [LogicalUnitConfiguration], _ device: TargetNode,
        _ backend: (LogicalUnitConfiguration) -> (any LogicalUnitBackend)?
    ) throws(EmbeddedTargetError) {
        for unit in units {
            guard device.unit(unit.number) == nil else { throw .duplicateUnit(number: unit.number) }
            let own = backend(unit)
            let backend: any LogicalUnitBackend
            if let own { backend = own } else { backend = try openStorage(unit) }
            let added = LogicalUnit(
                configuration: unit, backend: backend, node: device, pool: pool, client: self,
                reservationStore: unit.reservationFile.map(ReservationFile.init))
            for other in devices.flatMap(\.units) where other !== added && other.identity == added.identity {
                throw .twoUnitsOfOneIdentity(number: unit.number, other: other.number)
            }
            do throws(IOError) { try added.restoreReservations() } catch { throw .cannotOpen(unit: unit.number, error) }
        }
    }

    private func openStorage(_ unit: LogicalUnitConfiguration) throws(EmbeddedTargetError) -> any LogicalUnitBackend {
        switch unit.storage {
        case .memory: return MemoryBackend(byteCount: unit.byteCount ?? 0)
        case .null: return NullBackend(byteCount: unit.byteCount ?? 0)
        case .disk: throw .noBackend(unit: unit.number)
        case .file(let path):
            do {
                return try FileBackend(
                    path: path, byteCount: unit.byteCount, blockSize: unit.blockSize,
                    isReadOnly: unit.isReadOnly, port: port)
            } catch {
                throw .cannotOpen(unit: unit.number, error)
            }
        }
    }

    // MARK: life

    /// Listens on all portals; where one cannot, on none.
    public func start() throws(EmbeddedTargetError) {
        guard !isStarted else { throw .alreadyStarted }
        for index in portals.indices where portals[index].isEnabled {
            do {
                try listen(index)
            } catch {
                for other in portals.indices { unlisten(other) }
                throw .cannotListen(on: portals[index].address, error)
            }
        }
        isStarted = true
        describeNodes()
    }

    private func listen(_ index: Int) throws(IOError) {
        let listener = try port.listen(on: portals[index].boundAddress, handler: self)
        portals[index].listener = listener
        portals[index].boundAddress = port.localAddress(of: listener) ?? portals[index].boundAddress
    }

    private func unlisten(_ index: Int) {
        if let listener = portals[index].listener { port.close(listener) }
        portals[index].listener = nil
    }

    /// Makes each portal listen or not, as its state says. Whether all that should listen do.
    @discardableResult
    func updateListening() -> Bool {
        var isDone = true
        for index in portals.indices {
            let portal = portals[index]
            let isRefusing = faults?.isRefusing(portal: index, group: portal.groupTag, nodes: portal.nodes) ?? false
            let wanted = isStarted && portal.isEnabled && !portal.isDown && !isRefusing
            if !wanted { unlisten(index) }
            if wanted, portal.listener == nil {
                do { try listen(index) } catch { isDone = false }
            }
        }
        return isDone
    }

    private func describeNodes() {
        service.nodes = accessPoints.map { point in
            TargetNodeDescription(
                name: point.name, alias: point.alias.isEmpty ? nil : point.alias,
                addresses: point.portals.compactMap {
                    TargetAddress(portals[$0].boundAddress, portalGroupTag: portals[$0].groupTag)
                }, authentication: point.authentication, portals: point.portals)
        }
    }

    /// Closes portals and connections, aborts what is under way, and closes the files when it is over.
    public func stop() {
        clearFaults()
        for index in portals.indices {
            unlisten(index)
            dropConnections(portal: index)
        }
        // Sessions that wait for a lost connection to be taken over.
        for session in service.sessions { service.end(session, .dropped) }
        handleEvents()
        cancelAlarm()
        abortHeld { _ in true }
        for unit in devices.flatMap(\.units) { unit.backend.close() }
        isStarted = false
    }

    /// A connection's input was dealt with.
    func noteInput() {
        guard executedCount > 0 else { return }
        if gathering?.received(executedCount, byteCount: executedByteCount, at: port.now.nanoseconds) == true {
            port.coalesceReceives(nanoseconds: gathering?.nanoseconds ?? 0)
        }
        executedCount = 0
        executedByteCount = 0
    }

    // MARK: looking in

    /// Where a portal listens, with the port that was chosen where the configuration says 0.
    public func address(ofPortal index: Int) -> SocketAddress { portals[index].boundAddress }

    /// Since the start, of one portal (all: nil) and one unit by its LUN index (all: nil).
    public func counters(portal: Int? = nil, unit: Int? = nil) -> TargetCounters {
        var sum = TargetCounters()
        for index in portals.indices where portal == nil || portal == index {
            for number in portals[index].counters.indices where unit == nil || unit == number {
                sum = sum + portals[index].counters[number]
            }
        }
        return sum
    }

    public func connectionCount(portal: Int) -> Int { portals[portal].sockets.count }
    public func acceptedCount(portal: Int) -> UInt64 { portals[portal].acceptedCount }
    public var sessionCount: Int { service.sessions.count }
    /// Bytes of data buffers that commands hold.
    public var lentByteCount: Int { pool.lentByteCount }

    // MARK: test controls

    /// Resets all connections of a portal (RST), or those with this CID; new ones are accepted.
    public func dropConnections(portal index: Int, connectionID: UInt16? = nil) {
        for socket in portals[index].sockets where connectionID == nil || socket.connection.connectionID == connectionID {
            drop(socket)
        }
    }

    func drop(_ socket: TargetSocket) {
        socket.close(.reset)
        pump(socket.connection)
    }

    /// A cut path: disabled, a portal refuses connections and has reset those it had.
    public func setPortal(_ index: Int, enabled: Bool) throws(EmbeddedTargetError) {
        guard enabled != portals[index].isEnabled else { return }
        portals[index].isEnabled = enabled
        if !enabled {
            updateListening()
            return dropConnections(portal: index)
        }
        guard isStarted, portals[index].listener == nil else { return }
        do {
            try listen(index)
        } catch {
            portals[index].isEnabled = false
            throw .cannotListen(on: portals[index].boundAddress, error)
        }
        // A fault may keep it closed all the same.
        updateListening()
    }

    /// Silent, a portal neither reads nor answers, while TCP below it still acknowledges.
    public func setSilent(portal index: Int, _ silent: Bool) {
        portals[index].isSilent = silent
        updateImpairments()
    }

    /// Sends an asynchronous message on every connection of a portal, or on those with this CID.
    public func sendAsyncMessage(_ message: AsyncMessage, portal index: Int, connectionID: UInt16? = nil) {
        for socket in portals[index].sockets where connectionID == nil || socket.connection.connectionID == connectionID {
            socket.connection.sendAsyncMessage(message)
            socket.requestSend()
        }
    }
}

extension EmbeddedTarget: ListenerHandler {
    public func listener(
        _ listener: ListenerID, accepted socket: SocketID, from peer: SocketAddress
    ) -> (any SocketHandler)? {
        guard let index = portals.firstIndex(where: { $0.listener == listener }) else { return nil }
        let local = port.localAddress(of: socket).flatMap { TargetAddress($0, portalGroupTag: portals[index].groupTag) }
        let connection = TargetConnection(
            service: service, portalGroupTag: portals[index].groupTag, portal: index, localAddress: local, at: port.now)
        let handler = TargetSocket(socket: socket, portal: index, connection: connection, target: self)
        portals[index].acceptedCount += 1
        portals[index].sockets.append(handler)
        handler.start()
        if faults != nil || portals[index].isSilent {
            handler.hangs =
                faults?.hangsLogins(portal: index, group: portals[index].groupTag, nodes: portals[index].nodes) ?? false
            handler.setImpairment(impairment(of: handler))
        }
        return handler
    }
}
