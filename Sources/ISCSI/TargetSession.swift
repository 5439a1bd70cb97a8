public import SCSI

/// A task management request that a session cannot answer by itself.
public struct TargetManagementRequest: Sendable {
    /// Names it in ``TargetSession/finishManagement(_:response:)``, within its session.
    public var token: UInt32
    public var function: TaskManagementFunction
    public var lun: LogicalUnitNumber
    /// ABORT TASK: the command's tag; see ``TargetSession/executingSlot(ofTag:)``.
    public var referencedTaskTag: UInt32
    /// ABORT TASK SET: slots of commands that came on other connections before it and stand behind it in CmdSN order.
    public var sparedSlots: [Int] = []
}

/// What a session hands to the device server.
public enum TargetSessionAction {
    /// Execute the command in this slot; its fields are read through the slot until it is completed.
    case command(Int)
    case management(TargetManagementRequest)
}

/// A normal or discovery session at the target (RFC 7143 section 4.4): its command window, its tasks, and
/// the connections that carry them. At ErrorRecoveryLevel 0 to 2.
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
    @exclusivity(unchecked) public private(set) var isEnded = false
    private(set) var wasStarted = false
    /// Its connections are being ended.
    private(set) var isEnding = false

    let service: TargetService
    let queueDepth: Int
    /// In the order of their logins; ``TargetSession+Connections``.
    @exclusivity(unchecked) var connections: [TargetConnection] = []
    @exclusivity(unchecked) var lost: [LostConnection] = []
    var pendingLogouts: [PendingLogout] = []
    private var lastKey: UInt32 = 0

    // Tasks. Of the slots, two window's worths are for commands: one may be outstanding, the other holds results
    // that wait to be sent. The rest is for immediate commands, and for those that TASK REASSIGN brings back. Slots that
    // were never used are not touched: what a session might need is more than what most ever do.
    let tasks: UnsafeMutablePointer<TargetTask>
    let capacity: Int
    private static let immediateLimit = 16
    /// Results that were sent and not confirmed may come back, as many as a connection keeps: the window opens when a
    /// result leaves, so an initiator that hears of it on one connection can have any number open on another.
    let restoredLimit: Int
    @exclusivity(unchecked) private var freeHead: Int32 = -1
    @exclusivity(unchecked) private var freeCount: Int
    /// Slots from here on were never used.
    @exclusivity(unchecked) private(set) var usedCapacity = 0
    @exclusivity(unchecked) private var immediateCount = 0
    @exclusivity(unchecked) private var restoredCount = 0
    @exclusivity(unchecked) private var tags: TargetTagTable
    /// Slots that count against the window.
    @exclusivity(unchecked) private var outstanding = 0
    /// Slots that the device server has, or is about to get.
    @exclusivity(unchecked) public private(set) var executingCount = 0

    @exclusivity(unchecked) var window: TargetCommandWindow
    /// Requests other than commands that came ahead of their turn; entries of the window name them.
    private var early: [EarlyRequest?] = []
    private var earlyByteCount = 0
    /// Data of early requests, in bytes. Pings and texts that wait for a turn are few and short.
    static let earlyByteLimit = 64 << 10

    private struct EarlyRequest {
        var pdu: PDU
        var connection: TargetConnection
    }

    // What the device server is to do, in order: slots, and markers for management requests. The ring
    // has room for all there can be.
    private let readyCapacity: Int
    static let managementCapacity = 64
    private static let managementMarker: Int32 = -1
    private let ready: UnsafeMutablePointer<Int32>
    @exclusivity(unchecked) private var readyFirst = 0
    @exclusivity(unchecked) private var readyCount = 0
    @exclusivity(unchecked) private var management: [TargetManagementRequest] = []
    @exclusivity(unchecked) var pendingManagement: [PendingManagement] = []
    @exclusivity(unchecked) var postponedManagement: [PostponedManagement] = []
    @exclusivity(unchecked) var fences: [ResponseFence] = []
    var lastManagement: UInt32 = 0

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
        restoredLimit = identity.sessionType == .normal && parameters.errorRecoveryLevel >= 2
            ? TargetRetention.recordLimit(queueDepth: depth) : 0
        capacity = 2 * depth + Self.immediateLimit + restoredLimit
        tasks = .allocate(capacity: capacity)
        freeCount = capacity
        tags = TargetTagTable(capacity: capacity)
        readyCapacity = capacity + Self.managementCapacity
        ready = .allocate(capacity: readyCapacity)
        window = TargetCommandWindow(depth: depth, first: identity.cmdSN)
    }

    deinit {
        for index in 0..<usedCapacity where tasks[index].state != .free {
            service.pool.release(tasks[index].buffer)
            service.pool.release(tasks[index].dataBuffer)
        }
        tasks.deallocate()
        ready.deallocate()
    }

    public var isNormal: Bool { identity.sessionType == .normal }
    /// What is done about errors of connections; discovery sessions have too little to lose.
    var recoveryLevel: Int { isNormal ? parameters.errorRecoveryLevel : 0 }
    var expCmdSN: UInt32 { window.expCmdSN }

    // MARK: life

    func started() {
        guard !wasStarted else { return }
        wasStarted = true
        if isNormal { service.post(.sessionStarted(self)) }
    }

    func nextKey() -> UInt32 {
        lastKey &+= 1
        return lastKey
    }

    func takeConnections() -> [TargetConnection] {
        isEnding = true
        let all = connections
        connections = []
        return all
    }

    /// `ended` are the connections it had: what they still send stays in memory as long as they do.
    func end(_ ended: [TargetConnection]) {
        isEnded = true
        while let action = nextAction() {
            if case .command(let slot) = action { free(slot) }
        }
        for slot in 0..<usedCapacity where tasks[slot].state != .free && tasks[slot].state != .executing {
            if let connection = ended.first(where: { $0.key == tasks[slot].connection }) { adoptData(slot, connection) }
            free(slot)
        }
        for entry in lost { entry.retention?.removeAll() }
        lost = []
        early = []
        pendingManagement = []
        postponedManagement = []
        fences = []
        pendingLogouts = []
    }

    // MARK: slots

    func allocate(_ kind: TargetTaskKind) -> Int? {
        switch kind {
        case .command: break
        case .immediate: guard immediateCount < Self.immediateLimit else { return nil }
        case .restored: guard restoredCount < restoredLimit else { return nil }
        }
        guard freeCount > 0 else { return nil }
        freeCount -= 1
        let slot: Int
        if freeHead >= 0 {
            slot = Int(freeHead)
            freeHead = tasks[slot].next
        } else {
            slot = usedCapacity
            usedCapacity += 1
            (tasks + slot).initialize(to: TargetTask())
        }
        if kind == .immediate { immediateCount += 1 }
        if kind == .restored { restoredCount += 1 }
        return slot
    }

    /// Gives a slot and its memory back.
    func free(_ slot: Int) {
        let task = tasks + slot
        // The decoder may be placing data into the buffer.
        if task.pointee.state == .receiving { connection(key: task.pointee.connection)?.forget(slot) }
        if task.pointee.state == .receiving || task.pointee.state == .executing { leaveWindow(slot) }
        if task.pointee.state == .executing { executingCount -= 1 }
        if task.pointee.isRestored {
            restoredCount -= 1
        } else if task.pointee.isImmediate {
            immediateCount -= 1
        }
        service.pool.release(task.pointee.buffer)
        service.pool.release(task.pointee.dataBuffer)
        if !task.pointee.isUntagged { tags.remove(task.pointee.initiatorTaskTag) }
        let generation = task.pointee.generation &+ 1
        task.pointee.buffer = .none
        task.pointee.dataBuffer = .none
        task.pointee.state = .free
        task.pointee.generation = generation
        task.pointee.next = freeHead
        freeHead = Int32(slot)
        freeCount += 1
        if !pendingLogouts.isEmpty { answerPendingLogouts() }
    }

    private func leaveWindow(_ slot: Int) {
        if !tasks[slot].isImmediate { outstanding -= 1 }
    }

    /// Drops a task without an answer; its number counts as received, even if its PDU did not come whole. What the device
    /// server has stays its until it lets go.
    func drop(_ slot: Int) {
        switch tasks[slot].state {
        case .free: return
        case .executing: abandon(slot)
        case .receiving:
            giveUpTurn(slot, isReceived: true)
            free(slot)
        case .responding: free(slot)
        }
    }

    /// A command that never will be delivered must not stop those behind it.
    func giveUpTurn(_ slot: Int, isReceived: Bool) {
        guard !tasks[slot].isDelivered, !tasks[slot].isImmediate else { return }
        if isReceived {
            window.skip(tasks[slot].cmdSN, of: Int32(slot))
        } else {
            window.forget(tasks[slot].cmdSN, of: Int32(slot))
        }
    }

    /// Nobody will be told how it ends: the device server is asked to end it.
    private func abandon(_ slot: Int) {
        guard !tasks[slot].isAbandoned else { return }
        tasks[slot].isAbandoned = true
        if tasks[slot].isTaken { service.post(.commandAbandoned(self, slot: slot)) }
    }

    /// Data that may have been named to be sent, for a task that ends before it was.
    func adoptData(_ slot: Int, _ connection: TargetConnection) {
        guard tasks[slot].state == .responding else { return }
        connection.output.adopt(tasks[slot].dataBuffer)
        tasks[slot].dataBuffer = .none
    }

    // MARK: window

    /// For a PDU that is about to be sent: ExpCmdSN and MaxCmdSN as they now are.
    @inline(__always)
    func windowNumbers() -> (expCmdSN: UInt32, maxCmdSN: UInt32) {
        // Whoever is let in finds a slot: those that wait to be sent, or to be asked for, count.
        let used = capacity - freeCount - immediateCount - restoredCount
        let maxCmdSN = window.grant(min(queueDepth - outstanding, 2 * queueDepth - used))
        return (window.expCmdSN, maxCmdSN)
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
        guard window.isWanted(header.cmdSN) else { return .ignored }
        return header.cmdSN == window.expCmdSN ? .now : .early
    }

    /// A request other than a command that came too early, kept until its turn. Beyond what is kept it is rejected
    /// when its turn would be.
    func hold(_ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer, from connection: TargetConnection) {
        guard earlyByteCount + data.count <= Self.earlyByteLimit else {
            window.hold(header.cmdSN, TargetCommandWindow.skipped)
            return connection.reject(.longOperationReject, header)
        }
        earlyByteCount += data.count
        let index = early.firstIndex { $0 == nil } ?? early.endIndex
        if index == early.endIndex { early.append(nil) }
        early[index] = EarlyRequest(pdu: PDU(header: header, data: Array(data)), connection: connection)
        window.hold(header.cmdSN, TargetCommandWindow.firstEarly - Int32(index))
    }

    /// A request with CmdSN = ExpCmdSN that is answered at once: `body` does it with ExpCmdSN already past it, so
    /// that the answer confirms it and opens the window. Then what waited behind it takes its turn.
    func advance(performing body: () -> Void) {
        window.advance()
        body()
        deliverInTurn()
    }

    /// Delivers from ExpCmdSN on what came, up to the first number that is missing.
    func deliverInTurn() {
        while window.heldCount > 0, !isEnded {
            let entry = window.entry(window.expCmdSN)
            if entry >= 0 {
                guard tasks[Int(entry)].isArrived else { break }
                window.advance()
                deliver(Int(entry))
            } else if entry == TargetCommandWindow.nothing {
                break
            } else {
                window.advance()
                if entry <= TargetCommandWindow.firstEarly { performEarly(Int(TargetCommandWindow.firstEarly - entry)) }
            }
        }
        if !postponedManagement.isEmpty { managePostponed() }
    }

    private func performEarly(_ index: Int) {
        guard let request = early[index] else { return }
        early[index] = nil
        earlyByteCount -= request.pdu.data.count
        request.connection.perform(request.pdu.header, request.pdu.data)
    }

    // MARK: commands

    /// A command's header came: its slot, or why there is none.
    enum Acceptance {
        case slot(Int)
        case ignored
        case rejected(RejectReason)
    }

    func accept(_ header: BasicHeaderSegment, on connection: TargetConnection) -> Acceptance {
        let isImmediate = header.isImmediate
        if !isImmediate, !window.isWanted(header.cmdSN) { return .ignored }
        if let other = tags.find(header.initiatorTaskTag) {
            guard tasks[other].isAbandoned else { return .rejected(.taskInProgress) }
            tasks[other].isUntagged = true
            tags.remove(header.initiatorTaskTag)
        }
        guard let slot = allocate(isImmediate ? .immediate : .command) else {
            return isImmediate ? .rejected(.immediateCommandReject) : .ignored
        }
        let task = tasks + slot
        let generation = task.pointee.generation
        task.pointee = TargetTask()
        task.pointee.generation = generation
        task.pointee.state = .receiving
        task.pointee.isImmediate = isImmediate
        task.pointee.connection = connection.key
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
        if !isImmediate {
            outstanding += 1
            // From its header on: the same number on another connection is a duplicate.
            window.hold(header.cmdSN, Int32(slot))
        }
        return .slot(slot)
    }

    /// The command PDU is whole.
    func commandArrived(_ slot: Int) {
        tasks[slot].isArrived = true
        if tasks[slot].isImmediate {
            deliver(slot)
        } else if tasks[slot].cmdSN == window.expCmdSN {
            window.advance()
            deliver(slot)
            if window.heldCount > 0 || !postponedManagement.isEmpty { deliverInTurn() }
        }
    }

    /// The command PDU was damaged and thrown away: the initiator sends it again (RFC 7143 section 7.8).
    func commandDiscarded(_ slot: Int) {
        guard tasks[slot].state == .receiving else { return }
        // The decoder may be placing data into the buffer.
        connection(key: tasks[slot].connection)?.forget(slot)
        giveUpTurn(slot, isReceived: false)
        free(slot)
    }

    /// What a connection brought ahead of its turn is forgotten, as if it never came.
    func discardUnacknowledged(_ key: UInt32) {
        for slot in 0..<usedCapacity where tasks[slot].connection == key && !tasks[slot].isDelivered && !tasks[slot].isImmediate {
            commandDiscarded(slot)
        }
        for index in early.indices {
            guard let request = early[index], request.connection.key == key else { continue }
            early[index] = nil
            earlyByteCount -= request.pdu.data.count
            window.forget(request.pdu.header.cmdSN, of: TargetCommandWindow.firstEarly - Int32(index))
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

    func post(_ request: TargetManagementRequest) {
        management.append(request)
        post(Self.managementMarker)
    }

    /// Data-out that is not as it should be ends the command, not the connection (RFC 7143 section 11.4.7.2).
    /// What is still on the way for it finds no task and is thrown away.
    func fail(_ slot: Int, additional: AdditionalSense) {
        guard tasks[slot].state == .receiving else { return }
        giveUpTurn(slot, isReceived: true)
        tasks[slot].isDelivered = true
        tasks[slot].state = .executing
        executingCount += 1
        complete(slot, status: .checkCondition, sense: SenseData(key: .abortedCommand, additional: additional))
        deliverInTurn()
    }

    func slot(ofTag tag: UInt32) -> Int? { tags.find(tag) }

    // MARK: for the device server

    /// The next thing for the device server, in the order of arrival.
    @inline(__always)
    public func nextAction() -> TargetSessionAction? {
        while readyCount > 0 {
            let action = ready[readyFirst]
            readyFirst = readyFirst + 1 == readyCapacity ? 0 : readyFirst + 1
            readyCount -= 1
            guard action >= 0 else { return .management(management.removeFirst()) }
            let slot = Int(action)
            guard !tasks[slot].isAbandoned else {
                free(slot)
                continue
            }
            tasks[slot].isTaken = true
            return .command(slot)
        }
        return nil
    }

    public func lun(_ slot: Int) -> LogicalUnitNumber { tasks[slot].lun }
    /// The number by which a command has its place in the session's order; nil where it is immediate.
    public func orderedCmdSN(_ slot: Int) -> UInt32? { tasks[slot].isImmediate ? nil : tasks[slot].cmdSN }
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
    /// The connection that the command is allegiant to; nil where it is lost.
    public func connection(ofSlot slot: Int) -> TargetConnection? { connection(key: tasks[slot].connection) }

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
        let connection = isEnded ? nil : connection(key: task.pointee.connection)
        guard !task.pointee.isAbandoned, connection != nil || isAwaitingReassignment(task.pointee.connection) else {
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
        connection?.enqueueResponse(slot)
        return connection
    }

    /// Ends a command by a Reject of its PDU in place of a response (section 11.17), for tests of initiators.
    @discardableResult
    public func reject(_ slot: Int, _ reason: RejectReason) -> TargetConnection? {
        let task = tasks[slot]
        precondition(task.state == .executing, "only a command that executes is rejected")
        let connection = isEnded || task.isAbandoned ? nil : connection(key: task.connection)
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

    /// A task with a tag of its own again, from what was kept of it; nil without a slot for it.
    func restore(_ task: TargetTask) -> Int? {
        guard tags.find(task.initiatorTaskTag) == nil, let slot = allocate(.restored) else { return nil }
        let generation = tasks[slot].generation
        tasks[slot] = task
        tasks[slot].generation = generation
        tasks[slot].state = .responding
        tasks[slot].isRestored = true
        tasks[slot].isUntagged = false
        tasks[slot].buffer = .none
        tags.insert(task.initiatorTaskTag, slot: slot)
        return slot
    }
}

/// What a slot is used for; each use has its share of them.
enum TargetTaskKind {
    case command, immediate, restored
}
