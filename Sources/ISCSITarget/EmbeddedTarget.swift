public import AsyncIO
public import Cryptography
public import ISCSI
import SCSI

public enum EmbeddedTargetError: Error, Hashable, Sendable {
    case noPortal
    case duplicatePortal(SocketAddress)
    case duplicateUnit(number: Int)
    case twoUnitsOfOneIdentity(number: Int, other: Int)
    case cannotListen(on: SocketAddress, IOError)
    case cannotOpen(unit: Int, IOError)
    case alreadyStarted
}

/// An iSCSI target in the process, on any ``IOPort``.
///
/// Every method, `init` included, is called on the port's thread; the class may be handed there from
/// elsewhere, which is all that its sendability means. Same calls and same input, same behaviour: it has no
/// thread, clock or randomness of its own but the `cryptography` that it is given.
public final class EmbeddedTarget: @unchecked Sendable {
    public let configuration: TargetConfiguration
    public let node: TargetNode
    public let service: TargetService
    /// Faults are played here.
    public var filter: (any CommandFilter)?
    let port: any IOPort
    private let pool: TargetBufferPool
    private var portals: [Portal]
    private var isStarted = false
    private var sessions: [SessionEntry?] = []
    private var held: [HeldCommand] = []
    private var waits: [ManagementWait?] = []

    private struct Portal {
        let address: SocketAddress
        let groupTag: UInt16
        let groupIndex: Int
        /// With the port that the kernel chose, once it listened.
        var boundAddress: SocketAddress
        var listener: ListenerID?
        var isEnabled = true
        var isSilent = false
        /// In the order of arrival.
        var sockets: [TargetSocket] = []
        /// By LUN index.
        var counters: [TargetCounters] = []
        var acceptedCount: UInt64 = 0
    }

    private struct SessionEntry {
        let session: TargetSession
        let nexus: NexusIndex
        let portGroup: Int
    }

    private struct HeldCommand {
        var command: DeviceCommand
        var unit: LogicalUnit
    }

    /// A task management function that waits for units to let go of commands.
    private struct ManagementWait {
        let session: TargetSession
        let token: UInt32
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
        guard !configuration.portals.isEmpty else { throw .noPortal }
        self.configuration = configuration
        self.port = port
        pool = TargetBufferPool(limitByteCount: configuration.bufferByteCount)
        let node = TargetNode(
            name: configuration.name, portGroupTags: configuration.portals.map(\.groupTag),
            allowsExplicitTransitions: configuration.allowsExplicitTransitions)
        self.node = node
        portals = configuration.portals.map {
            Portal(
                address: $0.address, groupTag: $0.groupTag, groupIndex: node.portGroupIndex(tag: $0.groupTag)!,
                boundAddress: $0.address)
        }
        service = TargetService(
            settings: configuration.serviceSettings, nodes: [], pool: pool, cryptography: cryptography,
            crc32c: systemCRC32C)
        try openUnits(backend)
    }

    private func openUnits(
        _ makeBackend: (LogicalUnitConfiguration) -> (any LogicalUnitBackend)?
    ) throws(EmbeddedTargetError) {
        for unit in configuration.logicalUnits {
            guard node.unit(unit.number) == nil else { throw .duplicateUnit(number: unit.number) }
            let backend: any LogicalUnitBackend
            if let given = makeBackend(unit) { backend = given } else { backend = try openStorage(unit) }
            let added = LogicalUnit(configuration: unit, backend: backend, node: node, pool: pool, client: self)
            if let other = node.units.first(where: { $0 !== added && $0.identity == added.identity }) {
                throw .twoUnitsOfOneIdentity(number: unit.number, other: other.number)
            }
        }
        let count = (node.units.last?.number ?? 0) + 1
        for index in portals.indices { portals[index].counters = Array(repeating: TargetCounters(), count: count) }
    }

    private func openStorage(_ unit: LogicalUnitConfiguration) throws(EmbeddedTargetError) -> any LogicalUnitBackend {
        switch unit.storage {
        case .memory: return MemoryBackend(byteCount: unit.byteCount ?? 0)
        case .null: return NullBackend(byteCount: unit.byteCount ?? 0)
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
        describeNode()
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

    private func describeNode() {
        service.nodes = [
            TargetNodeDescription(
                name: configuration.name, alias: configuration.alias.isEmpty ? nil : configuration.alias,
                addresses: portals.compactMap { portal in
                    TargetAddress(portal.boundAddress, portalGroupTag: portal.groupTag)
                }, authentication: configuration.authentication)
        ]
    }

    /// Closes portals and connections, aborts what is under way, and closes the files when it is over.
    public func stop() {
        for index in portals.indices {
            unlisten(index)
            dropConnections(portal: index)
        }
        abortHeld { _ in true }
        for unit in node.units { unit.backend.close() }
        isStarted = false
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

    /// Resets all connections of a portal (RST); new ones are accepted.
    public func dropConnections(portal index: Int) {
        for socket in portals[index].sockets { drop(socket) }
    }

    private func drop(_ socket: TargetSocket) {
        socket.close(.reset)
        pump(socket.connection)
    }

    /// A cut path: disabled, a portal refuses connections and has reset those it had.
    public func setPortal(_ index: Int, enabled: Bool) throws(EmbeddedTargetError) {
        guard enabled != portals[index].isEnabled else { return }
        if enabled {
            if isStarted {
                do { try listen(index) } catch { throw .cannotListen(on: portals[index].boundAddress, error) }
            }
        } else {
            unlisten(index)
            dropConnections(portal: index)
        }
        portals[index].isEnabled = enabled
    }

    /// Silent, a portal neither reads nor answers, while TCP below it still acknowledges.
    public func setSilent(portal index: Int, _ silent: Bool) {
        portals[index].isSilent = silent
        for socket in portals[index].sockets { socket.setSilent(silent) }
    }

    /// Sends an asynchronous message on every connection of a portal.
    public func sendAsyncMessage(_ message: AsyncMessage, portal index: Int) {
        for socket in portals[index].sockets {
            socket.connection.sendAsyncMessage(message)
            socket.requestSend()
        }
    }

    // MARK: events and actions

    /// To be called after each call into a connection: does what came of it.
    func pump(_ connection: TargetConnection) {
        handleEvents()
        guard let session = connection.session else { return }
        while let action = session.nextAction() {
            switch action {
            case .command(let slot): execute(session, slot, connection)
            case .management(let request): manage(session, request)
            }
        }
        handleEvents()
    }

    private func handleEvents() {
        while let event = service.nextEvent() {
            switch event {
            case .sessionStarted(let session): sessionStarted(session)
            case .sessionEnded(let session, _): sessionEnded(session)
            case .connectionEnded(let connection, let reason):
                (connection.owner as? TargetSocket)?.connectionEnded(reason)
            }
        }
    }

    private func sessionStarted(_ session: TargetSession) {
        let group = node.portGroupIndex(tag: session.portalGroupTag)!
        let nexus = node.nexusStarted(
            NexusIdentity(
                initiatorName: session.identity.initiatorName, isid: session.identity.isid, portGroup: group))
        let entry = SessionEntry(session: session, nexus: nexus, portGroup: group)
        session.ownerIndex = sessions.firstIndex { $0 == nil } ?? sessions.endIndex
        if session.ownerIndex == sessions.endIndex {
            sessions.append(entry)
        } else {
            sessions[session.ownerIndex] = entry
        }
    }

    private func sessionEnded(_ session: TargetSession) {
        let index = session.ownerIndex
        guard index >= 0, let entry = sessions[index] else { return }
        if filter?.holdsOutliveSessions != true { abortHeld { $0.command.token >> 32 == UInt64(index) } }
        for unit in node.units { _ = unit.abort(.session(UInt32(index)), managementToken: LogicalUnit.nobodyWaits) }
        // A session that reinstated it is the same nexus, and has begun or is about to.
        let isReplaced = sessions.contains { $0 != nil && $0!.session !== session && $0!.nexus == entry.nexus }
        if !isReplaced { node.nexusEnded(entry.nexus) }
        forgetIfDrained(index)
    }

    /// A dead session's place is kept while the device server still has commands of it.
    private func forgetIfDrained(_ index: Int) {
        guard let session = sessions[index]?.session, session.isEnded, session.executingCount == 0 else { return }
        sessions[index] = nil
    }

    func forget(_ socket: TargetSocket) {
        portals[socket.portal].sockets.removeAll { $0 === socket }
    }

    // MARK: commands

    private func execute(_ session: TargetSession, _ slot: Int, _ connection: TargetConnection) {
        guard let entry = sessions[session.ownerIndex] else { return session.aborted(slot) }
        let command = DeviceCommand(
            token: UInt64(session.ownerIndex) << 32 | UInt64(slot), nexus: entry.nexus, portGroup: entry.portGroup,
            attribute: session.attribute(slot), cdb: session.cdb(slot), dataOut: session.dataOut(slot),
            expectedDataInByteCount: session.expectedDataInByteCount(slot))
        guard let number = session.lun(slot).index, let unit = node.unit(number) else {
            return executeWithoutUnit(command)
        }
        let portal = (connection.owner as? TargetSocket)?.portal ?? 0
        portals[portal].counters[number].count(command.cdb, blockSize: unit.blockSize)
        if let filter {
            switch filter.decide(command, unit: number, portal: portal) {
            case .execute: break
            case .hold: return held.append(HeldCommand(command: command, unit: unit))
            case .answer(let status, let sense):
                var result = DeviceResult.status(status)
                result.sense = sense
                return commandFinished(token: command.token, result: result)
            }
        }
        unit.execute(command)
    }

    /// SPC-4 clauses 5.9 and 6.4: what a LUN answers that no unit stands behind.
    private func executeWithoutUnit(_ command: DeviceCommand) {
        let result: DeviceResult
        switch command.cdb.operationCode {
        case OperationCode.inquiry: result = LogicalUnit.inquiryOfNothing(command, pool: pool)
        case OperationCode.reportLUNs: result = LogicalUnit.reportLUNs(command, node: node, pool: pool)
        case OperationCode.requestSense:
            result = LogicalUnit.answer(
                SenseData.unsupportedLogicalUnit.encode(format: .fixed), allocation: Int(command.cdb.bytes[4]), pool: pool)
        default: result = .check(.unsupportedLogicalUnit)
        }
        commandFinished(token: command.token, result: result)
    }

    /// Tokens of the commands that the filter holds, in the order of arrival.
    public var heldTokens: [UInt64] { held.map(\.command.token) }

    /// Executes a held command now.
    public func release(_ token: UInt64) {
        guard let index = held.firstIndex(where: { $0.command.token == token }) else { return }
        let command = held.remove(at: index)
        command.unit.execute(command.command)
    }

    private func abortHeld(_ matches: (HeldCommand) -> Bool) {
        guard !held.isEmpty else { return }
        let aborted = held.filter(matches)
        held.removeAll(where: matches)
        for command in aborted { commandAborted(token: command.command.token) }
    }

    // MARK: task management

    private func manage(_ session: TargetSession, _ request: TargetManagementRequest) {
        guard let entry = sessions[session.ownerIndex] else { return }
        let isWholeTarget = request.function == .targetWarmReset || request.function == .targetColdReset
        let units: [LogicalUnit]
        if isWholeTarget {
            units = node.units
        } else if let number = request.lun.index, let unit = node.unit(number) {
            units = [unit]
        } else {
            return answer(session, request.token, .lunDoesNotExist)
        }
        let scope: LogicalUnit.AbortScope
        switch request.function {
        case .abortTask:
            // It may have ended between the request's arrival and now.
            guard let slot = session.executingSlot(ofTag: request.referencedTaskTag) else {
                return answer(session, request.token, .taskDoesNotExist)
            }
            scope = .command(token: UInt64(session.ownerIndex) << 32 | UInt64(slot))
        case .abortTaskSet: scope = .nexus(entry.nexus)
        case .clearTaskSet, .logicalUnitReset, .targetWarmReset, .targetColdReset: scope = .all
        case .clearACA, .taskReassign: return answer(session, request.token, .notSupported)
        }
        if case .all = scope { dropOthers(request, units, entry.nexus) }
        let wait = waits.firstIndex { $0 == nil } ?? waits.endIndex
        if wait == waits.endIndex { waits.append(nil) }
        var pending = 0
        for unit in units {
            abortHeld { $0.unit === unit && LogicalUnit.matches($0.command, scope) }
            if !unit.abort(scope, managementToken: UInt64(wait)) { pending += 1 }
        }
        applyReset(request.function, units)
        guard pending > 0 else {
            finish(session, request)
            return
        }
        waits[wait] = ManagementWait(session: session, token: request.token, unitCount: pending)
    }

    /// CLEAR TASK SET and resets concern all nexuses: data on its way for their commands is for nothing.
    private func dropOthers(_ request: TargetManagementRequest, _ units: [LogicalUnit], _ own: NexusIndex) {
        let isWholeTarget = request.function == .targetWarmReset || request.function == .targetColdReset
        for case let other? in sessions where other.nexus != own && !other.session.isEnded {
            other.session.dropUndelivered(lun: isWholeTarget ? nil : request.lun)
        }
        // Whose commands were cleared by another nexus learns of it (SAM-5 clause 5.14, TAS 0).
        if request.function == .clearTaskSet {
            for unit in units { unit.raise(.commandsCleared, except: own) }
        }
    }

    private func applyReset(_ function: TaskManagementFunction, _ units: [LogicalUnit]) {
        switch function {
        case .logicalUnitReset: for unit in units { unit.reset(attention: .logicalUnitReset) }
        case .targetWarmReset, .targetColdReset: for unit in units { unit.reset(attention: .targetReset) }
        default: break
        }
    }

    private func finish(_ session: TargetSession, _ request: TargetManagementRequest) {
        answer(session, request.token, .functionComplete)
    }

    private func answer(_ session: TargetSession, _ token: UInt32, _ response: TaskManagementResponse) {
        let connection = session.finishManagement(token, response: response)
        (connection?.owner as? TargetSocket)?.requestSend()
    }
}

extension EmbeddedTarget: DeviceClient {
    public func commandFinished(token: UInt64, result: DeviceResult) {
        let index = Int(token >> 32)
        guard let session = sessions[index]?.session else { preconditionFailure("a command outlived its session's entry") }
        let connection = session.complete(
            Int(UInt32(truncatingIfNeeded: token)), status: result.status, sense: result.sense,
            senseFormat: result.senseFormat, dataOutByteCount: result.dataOutByteCount, data: result.data,
            buffer: result.buffer)
        if let owner = connection?.owner {
            unsafeDowncast(owner, to: TargetSocket.self).requestSend()
        } else {
            forgetIfDrained(index)
        }
    }

    public func commandAborted(token: UInt64) {
        let index = Int(token >> 32)
        sessions[index]?.session.aborted(Int(UInt32(truncatingIfNeeded: token)))
        forgetIfDrained(index)
    }

    public func taskManagementFinished(token: UInt64) {
        guard token != LogicalUnit.nobodyWaits, let index = Int(exactly: token), index < waits.count,
            var wait = waits[index]
        else { return }
        wait.unitCount -= 1
        guard wait.unitCount == 0 else {
            waits[index] = wait
            return
        }
        waits[index] = nil
        answer(wait.session, wait.token, .functionComplete)
    }
}

extension EmbeddedTarget: ListenerHandler {
    public func listener(
        _ listener: ListenerID, accepted socket: SocketID, from peer: SocketAddress
    ) -> (any SocketHandler)? {
        guard let index = portals.firstIndex(where: { $0.listener == listener }) else { return nil }
        let local = port.localAddress(of: socket).flatMap { TargetAddress($0, portalGroupTag: portals[index].groupTag) }
        let connection = TargetConnection(
            service: service, portalGroupTag: portals[index].groupTag, localAddress: local, at: port.now)
        let handler = TargetSocket(socket: socket, portal: index, connection: connection, target: self)
        portals[index].acceptedCount += 1
        portals[index].sockets.append(handler)
        handler.start()
        if portals[index].isSilent { handler.setSilent(true) }
        return handler
    }
}
