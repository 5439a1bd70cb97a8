public import SCSI

/// A task management request that a session cannot answer by itself.
public struct TargetManagementRequest: Sendable {
    /// Names it in ``TargetSession/finishManagement(_:response:)``, within its session.
    public var token: UInt32
    public var function: TaskManagementFunction
    public var lun: LogicalUnitNumber
    /// ABORT TASK: the command's tag; see ``TargetSession/executingSlot(ofTag:)``.
    public var referencedTaskTag: UInt32
}

/// What a session hands to the device server.
public enum TargetSessionAction {
    /// Execute the command in this slot; its fields are read through the slot until it is completed.
    case command(Int)
    case management(TargetManagementRequest)
}

/// A normal or discovery session at the target (RFC 7143 section 4.4): its command window, its tasks, and
/// the connections that carry them. At ErrorRecoveryLevel 0.
///
/// The device server takes commands by ``nextAction()``, which gives slots, and answers by
/// ``complete(_:status:sense:senseFormat:dataOutByteCount:data:buffer:)``. One thread.
public final class TargetSession {
    /// Counts sessions: a name for messages.
    public let number: UInt32
    public let tsih: UInt16
    public let identity: TargetLoginIdentity
    public internal(set) var parameters: NegotiatedParameters
    public let portalGroupTag: UInt16
    /// For the owner: where it keeps what it knows of the session.
    public var ownerIndex = -1
    public private(set) var isEnded = false
    private(set) var wasStarted = false

    let service: TargetService
    private var connections: [(id: UInt16, connection: TargetConnection)] = []

    // Tasks: `capacity` slots, of which `queueDepth` may be outstanding in the window. The rest is for
    // immediate commands and for results that wait to be sent.
    let tasks: UnsafeMutablePointer<TargetTask>
    let capacity: Int
    private var freeHead: Int32 = 0
    private var freeCount: Int
    private var tags: TargetTagTable
    /// Slots that count against the window.
    private var outstanding = 0
    /// Slots that the device server has.
    public private(set) var executingCount = 0

    private(set) var expCmdSN: UInt32
    private(set) var maxCmdSN: UInt32
    /// What came ahead of its turn, by CmdSN modulo the window: a slot, `skipped`, or an index of `early`.
    private var held: [Int32]
    private var heldCount = 0
    private static let nothing: Int32 = -1
    private static let skipped: Int32 = -2
    private static let firstEarly: Int32 = -3
    /// Requests other than commands that came ahead of their turn.
    private var early: [EarlyRequest?] = []

    private struct EarlyRequest {
        var pdu: PDU
        var connection: TargetConnection
    }

    // What the device server is to do, in order: slots, and markers for management requests. The ring
    // has room for all there can be.
    private let readyCapacity: Int
    private static let managementCapacity = 64
    private static let managementMarker: Int32 = -1
    private let ready: UnsafeMutablePointer<Int32>
    private var readyFirst = 0
    private var readyCount = 0
    private var management: [TargetManagementRequest] = []
    private var pendingManagement: [PendingManagement] = []
    private var lastManagement: UInt32 = 0

    private struct PendingManagement {
        var token: UInt32
        var initiatorTaskTag: UInt32
        var connection: UInt16
    }

    init(
        service: TargetService, number: UInt32, tsih: UInt16, identity: TargetLoginIdentity,
        parameters: NegotiatedParameters, portalGroupTag: UInt16
    ) {
        self.service = service
        self.number = number
        self.tsih = tsih
        self.identity = identity
        self.parameters = parameters
        self.portalGroupTag = portalGroupTag
        let depth = identity.sessionType == .discovery ? 1 : service.settings.queueDepth
        queueDepth = depth
        capacity = 2 * depth + 16
        tasks = .allocate(capacity: capacity)
        tasks.initialize(repeating: TargetTask(), count: capacity)
        for index in 0..<capacity - 1 { tasks[index].next = Int32(index + 1) }
        freeCount = capacity
        tags = TargetTagTable(capacity: capacity)
        readyCapacity = capacity + Self.managementCapacity
        ready = .allocate(capacity: readyCapacity)
        expCmdSN = identity.cmdSN
        maxCmdSN = identity.cmdSN &+ UInt32(depth) &- 1
        held = Array(repeating: Self.nothing, count: depth)
    }

    deinit {
        for index in 0..<capacity where tasks[index].state != .free {
            service.pool.release(tasks[index].buffer)
            service.pool.release(tasks[index].dataBuffer)
        }
        tasks.deallocate()
        ready.deallocate()
    }

    let queueDepth: Int
    public var isNormal: Bool { identity.sessionType == .normal }

    // MARK: connections

    public var connectionCount: Int { connections.count }

    func connection(_ id: UInt16) -> TargetConnection? {
        // One connection is the rule; no table is faster.
        for entry in connections where entry.id == id { return entry.connection }
        return nil
    }

    func add(_ connection: TargetConnection, connectionID: UInt16) {
        connections.append((connectionID, connection))
        connection.joined(self, connectionID: connectionID)
    }

    func started() {
        guard !wasStarted else { return }
        wasStarted = true
        if isNormal { service.post(.sessionStarted(self)) }
    }

    /// A connection is gone: at level 0 its commands end with it, and the session with its last connection.
    func remove(_ connection: TargetConnection) {
        connections.removeAll { $0.connection === connection }
        for slot in 0..<capacity where tasks[slot].state != .free && tasks[slot].connection == connection.connectionID {
            drop(slot)
        }
    }

    func connectionLost(_ connection: TargetConnection, _ reason: TargetSessionEnd) {
        guard !isEnded else { return }
        remove(connection)
        if connections.isEmpty { service.end(self, reason) }
    }

    func takeConnections() -> [TargetConnection] {
        let all = connections.map(\.connection)
        connections = []
        return all
    }

    func end() {
        isEnded = true
        while let action = nextAction() {
            if case .command(let slot) = action { free(slot) }
        }
        for slot in 0..<capacity where tasks[slot].state != .free && tasks[slot].state != .executing { free(slot) }
        early = []
        pendingManagement = []
    }

    /// Its first connection, for what belongs to the session: asynchronous messages.
    public var leadingConnection: TargetConnection? { connections.first?.connection }

    /// All its connections, in the order of their logins.
    public var allConnections: [TargetConnection] { connections.map(\.connection) }

    // MARK: slots

    private func allocate() -> Int? {
        guard freeCount > 0 else { return nil }
        let slot = Int(freeHead)
        freeHead = tasks[slot].next
        freeCount -= 1
        return slot
    }

    /// Gives a slot and its memory back.
    func free(_ slot: Int) {
        let task = tasks + slot
        // The decoder may be placing data into the buffer.
        if task.pointee.state == .receiving { connection(task.pointee.connection)?.forget(slot) }
        if task.pointee.state == .receiving || task.pointee.state == .executing { leaveWindow(slot) }
        if task.pointee.state == .executing { executingCount -= 1 }
        service.pool.release(task.pointee.buffer)
        service.pool.release(task.pointee.dataBuffer)
        tags.remove(task.pointee.initiatorTaskTag)
        let generation = task.pointee.generation &+ 1
        task.pointee.buffer = .none
        task.pointee.dataBuffer = .none
        task.pointee.state = .free
        task.pointee.generation = generation
        task.pointee.next = freeHead
        freeHead = Int32(slot)
        freeCount += 1
    }

    private func leaveWindow(_ slot: Int) {
        if !tasks[slot].isImmediate { outstanding -= 1 }
    }

    /// Drops a task without an answer. What the device server has stays its until it lets go.
    private func drop(_ slot: Int) {
        switch tasks[slot].state {
        case .free, .executing: return
        case .receiving, .responding:
            skipIfHeld(slot)
            free(slot)
        }
    }

    /// Drops a task whose connection goes on. A command of which only a part is here has its turn all the same: what
    /// is still to come of it finds no task, and nobody would count it.
    private func abandon(_ slot: Int) {
        let task = tasks[slot]
        let isNext = task.state == .receiving && !task.isImmediate && !task.isDelivered && task.cmdSN == expCmdSN
        drop(slot)
        if isNext { advance() }
    }

    /// A command that never will be delivered must not stop those behind it.
    private func skipIfHeld(_ slot: Int) {
        guard !tasks[slot].isDelivered, !tasks[slot].isImmediate else { return }
        let place = Int(tasks[slot].cmdSN % UInt32(held.count))
        if held[place] == Int32(slot) { held[place] = Self.skipped }
    }

    /// A window's worth of results waits to be sent: no more commands should be taken.
    var isCongested: Bool { capacity - freeCount - outstanding > queueDepth }

    // MARK: window

    /// For a PDU that is about to be sent: ExpCmdSN and MaxCmdSN as they now are. MaxCmdSN never goes back.
    @inline(__always)
    func windowNumbers() -> (expCmdSN: UInt32, maxCmdSN: UInt32) {
        let limit = expCmdSN &+ UInt32(max(0, min(queueDepth, queueDepth - outstanding + heldCount))) &- 1
        if SerialNumber.isBefore(maxCmdSN, limit) { maxCmdSN = limit }
        return (expCmdSN, maxCmdSN)
    }

    enum Arrival {
        /// It is its turn (or it is immediate).
        case now
        case early
        /// Outside of the window or a duplicate: to be ignored (RFC 7143 section 4.2.2.1).
        case ignored
    }

    func arrival(_ header: BasicHeaderSegment) -> Arrival {
        if header.isImmediate { return .now }
        let cmdSN = header.cmdSN
        if cmdSN == expCmdSN { return SerialNumber.isAtMost(cmdSN, maxCmdSN) ? .now : .ignored }
        guard SerialNumber.isBefore(expCmdSN, cmdSN), SerialNumber.isAtMost(cmdSN, maxCmdSN),
            held[Int(cmdSN % UInt32(held.count))] == Self.nothing
        else { return .ignored }
        return .early
    }

    /// A request other than a command that came too early, kept until its turn.
    func hold(_ pdu: PDU, from connection: TargetConnection) {
        let index = early.firstIndex { $0 == nil } ?? early.endIndex
        if index == early.endIndex { early.append(nil) }
        early[index] = EarlyRequest(pdu: pdu, connection: connection)
        held[Int(pdu.header.cmdSN % UInt32(held.count))] = Self.firstEarly - Int32(index)
        heldCount += 1
    }

    /// The request with CmdSN = ExpCmdSN is in, and what waited behind it takes its turn.
    func advance() {
        expCmdSN &+= 1
        deliverHeld()
    }

    /// The same for a request that is answered at once: `body` does it with ExpCmdSN already past it, so
    /// that the answer confirms it and opens the window.
    func advance(performing body: () -> Void) {
        expCmdSN &+= 1
        body()
        deliverHeld()
    }

    private func deliverHeld() {
        while heldCount > 0 {
            let place = Int(expCmdSN % UInt32(held.count))
            let entry = held[place]
            guard entry != Self.nothing else { return }
            held[place] = Self.nothing
            heldCount -= 1
            expCmdSN &+= 1
            if entry >= 0 {
                deliver(Int(entry))
            } else if entry <= Self.firstEarly {
                let index = Int(Self.firstEarly - entry)
                guard let request = early[index] else { continue }
                early[index] = nil
                request.connection.perform(request.pdu.header, request.pdu.data)
            }
        }
    }

    // MARK: commands

    /// A command's header came: its slot, or why there is none.
    enum Acceptance {
        case slot(Int)
        case ignored
        case rejected(RejectReason)
    }

    func accept(_ header: BasicHeaderSegment, on connection: TargetConnection) -> Acceptance {
        let arrival = arrival(header)
        if case .ignored = arrival { return .ignored }
        if tags.find(header.initiatorTaskTag) != nil { return .rejected(.taskInProgress) }
        guard let slot = allocate() else { return header.isImmediate ? .rejected(.immediateCommandReject) : .ignored }
        let task = tasks + slot
        let generation = task.pointee.generation
        task.pointee = TargetTask()
        task.pointee.generation = generation
        task.pointee.state = .receiving
        task.pointee.isImmediate = header.isImmediate
        task.pointee.connection = connection.connectionID
        task.pointee.initiatorTaskTag = header.initiatorTaskTag
        task.pointee.cmdSN = header.cmdSN
        task.pointee.lun = header.lun
        task.pointee.cdb = header.cdb
        task.pointee.attribute = header.taskAttribute ?? .simple
        let flags = header.commandFlags
        task.pointee.isRead = flags.contains(.read)
        task.pointee.isWrite = flags.contains(.write)
        task.pointee.expectedByteCount = header.expectedDataTransferByteCount
        tags.insert(header.initiatorTaskTag, slot: slot)
        if !header.isImmediate { outstanding += 1 }
        if case .early = arrival {
            held[Int(header.cmdSN % UInt32(held.count))] = Int32(slot)
            heldCount += 1
        }
        return .slot(slot)
    }

    /// The command PDU is whole.
    func commandArrived(_ slot: Int) {
        tasks[slot].isArrived = true
        if tasks[slot].isImmediate {
            deliver(slot)
        } else if tasks[slot].isDelivered {
            executeIfComplete(slot)
        } else if tasks[slot].cmdSN == expCmdSN {
            // Delivered before `advance`, which may deliver those behind it.
            deliver(slot)
            advance()
        }
    }

    private func deliver(_ slot: Int) {
        tasks[slot].isDelivered = true
        executeIfComplete(slot)
    }

    func executeIfComplete(_ slot: Int) {
        let task = tasks + slot
        guard task.pointee.state == .receiving, task.pointee.isDelivered, task.pointee.isArrived,
            !task.pointee.expectsUnsolicited,
            task.pointee.isStarved || task.pointee.receivedByteCount >= task.pointee.wantedByteCount
        else { return }
        task.pointee.state = .executing
        executingCount += 1
        if task.pointee.isStarved {
            complete(slot, status: .taskSetFull)
            return
        }
        post(Int32(slot))
    }

    private func post(_ action: Int32) {
        ready[(readyFirst + readyCount) % readyCapacity] = action
        readyCount += 1
    }

    /// Data-out that is not as it should be ends the command, not the connection (RFC 7143 section 11.4.7.2).
    /// What is still on the way for it finds no task and is thrown away.
    func fail(_ slot: Int, additional: AdditionalSense) {
        guard tasks[slot].state == .receiving else { return }
        skipIfHeld(slot)
        tasks[slot].state = .executing
        executingCount += 1
        complete(slot, status: .checkCondition, sense: SenseData(key: .abortedCommand, additional: additional))
    }

    func slot(ofTag tag: UInt32) -> Int? { tags.find(tag) }

    // MARK: for the device server

    /// The next thing for the device server, in the order of arrival.
    @inline(__always)
    public func nextAction() -> TargetSessionAction? {
        guard readyCount > 0 else { return nil }
        let action = ready[readyFirst]
        readyFirst = readyFirst + 1 == readyCapacity ? 0 : readyFirst + 1
        readyCount -= 1
        return action >= 0 ? .command(Int(action)) : .management(management.removeFirst())
    }

    public func lun(_ slot: Int) -> LogicalUnitNumber { tasks[slot].lun }
    public func cdb(_ slot: Int) -> CommandDescriptorBlock { tasks[slot].cdb }
    public func attribute(_ slot: Int) -> TaskAttribute { tasks[slot].attribute }
    public func dataOut(_ slot: Int) -> UnsafeRawBufferPointer {
        // What came beyond the largest transfer was thrown away.
        UnsafeRawBufferPointer(
            start: tasks[slot].buffer.base, count: Int(min(tasks[slot].receivedByteCount, tasks[slot].wantedByteCount)))
    }
    /// How many bytes of data-in the initiator expects.
    public func expectedDataInByteCount(_ slot: Int) -> Int {
        tasks[slot].isRead ? Int(tasks[slot].expectedByteCount) : 0
    }

    /// Ends a command, and returns the connection that now has something to send. `data` stays constant until `buffer` is given back to the pool, which the session
    /// sees to. `dataOutByteCount` is what the command asked of data-out.
    @discardableResult
    public func complete(
        _ slot: Int, status: SCSIStatus, sense: SenseData? = nil, senseFormat: SenseFormat = .fixed,
        dataOutByteCount: Int = 0,
        data: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0), buffer: TargetBuffer = .none
    ) -> TargetConnection? {
        let task = tasks + slot
        precondition(task.pointee.state == .executing, "only a command that executes is completed")
        guard !isEnded, let connection = connection(task.pointee.connection) else {
            service.pool.release(buffer)
            free(slot)
            return nil
        }
        leaveWindow(slot)
        executingCount -= 1
        service.pool.release(task.pointee.buffer)
        task.pointee.buffer = .none
        task.pointee.state = .responding
        task.pointee.status = status
        task.pointee.sense = sense
        task.pointee.usesDescriptorSense = senseFormat == .descriptor
        let expected = task.pointee.expectedByteCount
        let isGood = status != .checkCondition
        if task.pointee.isRead || (data.count > 0 && !task.pointee.isWrite) {
            let sent = task.pointee.isRead && isGood ? UInt32(min(data.count, Int(expected))) : 0
            task.pointee.data = UnsafeRawBufferPointer(start: data.baseAddress, count: Int(sent))
            task.pointee.dataByteCount = sent
            task.pointee.residual =
                data.count > Int(expected) ? .overflow(UInt32(clamping: data.count - Int(expected)))
                : sent < expected ? .underflow(expected - sent) : .none
        } else if isGood {
            let used = UInt32(clamping: dataOutByteCount)
            task.pointee.residual =
                used > expected ? .overflow(used - expected) : used < expected ? .underflow(expected - used) : .none
        }
        if task.pointee.dataByteCount > 0 { task.pointee.dataBuffer = buffer } else { service.pool.release(buffer) }
        connection.enqueueResponse(slot)
        return connection
    }

    /// Ends a command by a Reject of its PDU in place of a response (section 11.17), for tests of initiators.
    @discardableResult
    public func reject(_ slot: Int, _ reason: RejectReason) -> TargetConnection? {
        let task = tasks[slot]
        precondition(task.state == .executing, "only a command that executes is rejected")
        let connection = isEnded ? nil : connection(task.connection)
        var flags: SCSICommandFlags = [.final]
        if task.isRead { flags.insert(.read) }
        if task.isWrite { flags.insert(.write) }
        connection?.reject(
            reason,
            .scsiCommand(
                task.cdb, lun: task.lun, tag: task.initiatorTaskTag, flags: flags, attribute: task.attribute,
                expectedDataTransferByteCount: task.expectedByteCount, cmdSN: task.cmdSN, expStatSN: 0,
                isImmediate: task.isImmediate))
        free(slot)
        return connection
    }

    /// An aborted command is over; nothing is sent for it.
    public func aborted(_ slot: Int) {
        precondition(tasks[slot].state == .executing, "only a command that executes is aborted")
        free(slot)
    }

    /// The slot of a command that the device server has and has not finished.
    public func executingSlot(ofTag tag: UInt32) -> Int? {
        guard let slot = tags.find(tag), tasks[slot].state == .executing else { return nil }
        return slot
    }

    // MARK: task management (section 11.5)

    func manage(_ header: BasicHeaderSegment, on connection: TargetConnection) {
        guard let function = header.taskManagementFunction else {
            return connection.sendManagementResponse(.notSupported, tag: header.initiatorTaskTag)
        }
        switch function {
        case .abortTask:
            guard let slot = tags.find(header.referencedTaskTag), tasks[slot].lun == header.lun else {
                return connection.sendManagementResponse(.taskDoesNotExist, tag: header.initiatorTaskTag)
            }
            guard tasks[slot].state == .executing else {
                // Its status is on the way, and leaves before this answer.
                let isOver = tasks[slot].state == .responding
                if !isOver { abandon(slot) }
                return connection.sendManagementResponse(
                    isOver ? .taskDoesNotExist : .functionComplete, tag: header.initiatorTaskTag)
            }
        case .taskReassign:
            return connection.sendManagementResponse(.reassignmentNotSupported, tag: header.initiatorTaskTag)
        case .clearACA:
            return connection.sendManagementResponse(.notSupported, tag: header.initiatorTaskTag)
        case .abortTaskSet, .clearTaskSet, .logicalUnitReset, .targetWarmReset, .targetColdReset: break
        }
        guard pendingManagement.count < Self.managementCapacity else {
            return connection.sendManagementResponse(.rejected, tag: header.initiatorTaskTag)
        }
        // Now, not when the device server comes to it: commands behind this request are not affected.
        switch function {
        case .abortTaskSet, .clearTaskSet, .logicalUnitReset: dropUndelivered(lun: header.lun)
        case .targetWarmReset, .targetColdReset: dropUndelivered(lun: nil)
        default: break
        }
        lastManagement &+= 1
        let request = TargetManagementRequest(
            token: lastManagement, function: function, lun: header.lun,
            referencedTaskTag: header.referencedTaskTag)
        pendingManagement.append(
            PendingManagement(
                token: request.token, initiatorTaskTag: header.initiatorTaskTag, connection: connection.connectionID))
        management.append(request)
        post(Self.managementMarker)
    }

    /// Drops the commands for `lun` (nil: for any) that the device server does not have yet, in answer to a
    /// task management function of this or another nexus. Those handed over are its own to abort.
    public func dropUndelivered(lun: LogicalUnitNumber?) {
        for slot in 0..<capacity where tasks[slot].state == .receiving && (lun == nil || tasks[slot].lun == lun) {
            abandon(slot)
        }
    }

    /// Answers a task management request. After it was aborted itself (its session ended) nothing happens.
    @discardableResult
    public func finishManagement(_ token: UInt32, response: TaskManagementResponse) -> TargetConnection? {
        guard let index = pendingManagement.firstIndex(where: { $0.token == token }) else { return nil }
        let request = pendingManagement.remove(at: index)
        let connection = connection(request.connection)
        connection?.sendManagementResponse(response, tag: request.initiatorTaskTag)
        return connection
    }
}
