public import Timebase

/// An iSCSI session as its initiator (RFC 7143), without sockets and without a clock: bytes and time go
/// in, bytes and results come out.
///
/// The owner opens transports, moves the bytes that ``output(_:into:)`` and ``input(_:)`` name, calls
/// ``timerFired(at:transport:)`` at ``nextDeadline``, and after each call empties ``nextCompletion()`` and
/// ``nextEvent()``. The session never retries a command: when it fails, what was open is handed back,
/// and a new session is made (with the same ISID it reinstates this one).
///
/// **Buffers.** A command's memory is the session's from `.accepted` until its completion is handed out.
/// Where ``state`` has become `.failed`, close every transport first and then empty the queues: the
/// kernel may still be sending from, or receiving into, the buffers of the commands they name.
///
/// Owned by one thread. Nothing is allocated per command.
public struct InitiatorSession: ~Copyable {
    private(set) var settings: SessionSettings
    let cryptography: any CryptographicServices
    let crc32c: CRC32CFunction
    private(set) var timing: SessionTiming

    // Shared by all connections.
    var table: CommandTable
    var bursts: BurstTable
    var completions: CompletionRing
    let completionLimit: Int
    var events = EventQueue()
    /// Of the next non-immediate request.
    var cmdSN: UInt32 = 0
    var expCmdSN: UInt32 = 0
    /// The last CmdSN that the target takes.
    var maxCmdSN: UInt32 = 0
    var tsih: UInt16 = 0
    var limits = TransferLimits()
    /// When the oldest command's age is next worth a look.
    var overdueCheckAt = Instant.distantFuture
    /// A command was refused for want of room; `windowOpened` is owed.
    var refusedCommand = false
    /// Whether the target takes commands at all.
    var windowWatch = WindowWatch()
    /// When the requests without a CmdSN are next looked at.
    var answerCheckAt = Instant.distantFuture
    /// Connections that were given up because such a request was not answered.
    var unansweredCount = 0
    /// The state is `.loggedIn`. Kept beside `state` for the hot path.
    var isFullFeature = false
    /// A discovery session takes no commands (RFC 7143 section 4.3).
    let isNormal: Bool
    /// Failed or logged out.
    var isOver = false
    var text: TextExchange?
    var logoutSlot: Int?
    /// Connections with a ``InitiatorConnection/recovery``.
    var recoveryCount = 0
    /// Connections in phase `.leaving`.
    var leavingCount = 0
    /// What a connection's loss may mean at the negotiated ErrorRecoveryLevel, at this target.
    var lossHandling = LossHandling.endsSession
    /// CmdSNs that no command has any more, and that the target may wait for.
    var openNumbers: [OpenNumber] = []
    /// Tags of requests that ended while PDUs of theirs may be on their way. None is used again for 65,535 requests.
    var lateTags: [LateTag] = []
    /// By slot, at ErrorRecoveryLevel 1 and above: what is needed to send a command's PDU once more.
    var retained: UnsafeMutablePointer<RetainedCommand>?
    /// For the simulator alone.
    package var plantedMistake: PlantedConnectionMistake?
    /// Where the search for a connection for the next reassigned task begins.
    var nextCarrier = 0

    /// Fixed at creation; those that were not opened are closed.
    let connections: UnsafeMutablePointer<InitiatorConnection>
    let connectionCount: Int
    var nextConnectionID: UInt16 = 0

    /// Where the session is in its life.
    public internal(set) var state = SessionState.free

    /// - Parameters:
    ///   - settings: `login.operational.maxConnections` is how many connections are made room for;
    ///     MaxOutstandingR2T is asked for up to 64, which bounds memory.
    ///   - crc32c: for digests; ``CRC32C/table`` where there is nothing faster.
    public init(settings: SessionSettings, cryptography: any CryptographicServices, crc32c: @escaping CRC32CFunction) {
        self.init(settings: settings, cryptography: cryptography, crc32c: crc32c, memory: SessionMemory(settings))
    }

    init(
        settings: SessionSettings, cryptography: any CryptographicServices, crc32c: @escaping CRC32CFunction,
        memory: consuming SessionMemory
    ) {
        var settings = settings
        settings.login.operational.maxOutstandingR2T = settings.maxOutstandingR2T
        self.settings = settings
        timing = SessionTiming(settings)
        isNormal = settings.login.sessionType == .normal
        self.cryptography = cryptography
        self.crc32c = crc32c
        completionLimit = settings.completionCapacity
        connectionCount = settings.connectionCapacity
        connections = .allocate(capacity: connectionCount)
        for index in 0..<connectionCount {
            let output = (memory.outputs + index).move()
            (connections + index).initialize(to: InitiatorConnection(output: output, crc32c: crc32c))
        }
        memory.outputs.deallocate()
        table = memory.table
        bursts = memory.bursts
        completions = memory.completions
        retained = memory.retained
    }

    deinit {
        connections.deinitialize(count: connectionCount)
        connections.deallocate()
        retained?.deallocate()
    }

    /// Takes over the timers of other settings; what runs already is judged by them from now on.
    public mutating func adoptTimers(of other: SessionSettings) {
        settings.loginTimeout = other.loginTimeout
        settings.commandTimeout = other.commandTimeout
        settings.silenceTimeout = other.silenceTimeout
        settings.verifyPeriod = other.verifyPeriod
        settings.connectionRecoveryTimeout = other.connectionRecoveryTimeout
        timing = SessionTiming(settings)
    }

    // MARK: results

    /// The next finished command, in the order in which the commands ended.
    public mutating func nextCompletion() -> CommandCompletion? {
        if let completion = completions.removeFirst() { return completion }
        if refusedCommand { reportOpenWindow() }
        return nil
    }

    /// The session has failed or is logged out: ``state`` says which. Cheap enough to ask after every step.
    public var hasEnded: Bool { isOver }

    /// Whether ``nextCompletion()`` or ``nextEvent()`` may have something.
    public var hasResults: Bool { completions.count > 0 || refusedCommand || !events.isEmpty }

    /// Whether ``nextCompletion()`` or ``nextEvent()`` has something now: unlike ``hasResults``, not while the command
    /// window is closed to somebody.
    public var hasUntaken: Bool { completions.count > 0 || !events.isEmpty }

    /// The next event, in the order in which they happened.
    public mutating func nextEvent() -> SessionEvent? { events.removeFirst() }

    /// Commands without an outcome, over all connections.
    public var outstandingCommandCount: Int {
        var count = 0
        for index in 0..<connectionCount { count += connections[index].commandCount }
        return count
    }

    // MARK: life

    /// The SCSI commands without an outcome that a connection carries.
    public func outstandingCommandCount(on c: ConnectionIndex) -> Int { connections[c.rawValue].commandCount }

    /// Whether commands may be submitted on a connection.
    public func isOpen(_ c: ConnectionIndex) -> Bool {
        isFullFeature && c.rawValue >= 0 && c.rawValue < connectionCount && connections[c.rawValue].phase == .fullFeature
    }

    /// Whether a command's data or status came on a connection since its last login; also after its end, until the next login.
    public func hasServed(_ c: ConnectionIndex) -> Bool { connections[c.rawValue].hasServed }

    /// The CID that a connection has, or had last (RFC 7143 section 11.12.7).
    public func connectionID(of c: ConnectionIndex) -> UInt16 { connections[c.rawValue].connectionID }

    /// The transport of a connection is open: its login begins. The leading connection first; the others
    /// once the session is logged in, up to the negotiated MaxConnections, all at once if they like. One
    /// that was lost logs in again by the same call: with its old connection ID while that has tasks
    /// at the target (connection reinstatement, RFC 7143 section 6.3.4), as a new one after that.
    public mutating func connectionOpened(_ c: ConnectionIndex, at now: Instant) {
        precondition(c.rawValue >= 0 && c.rawValue < connectionCount, "no such connection")
        guard !isOver else { return }
        let connection = connections + c.rawValue
        precondition(connection.pointee.phase == .closed, "the connection is open already")
        var login = settings.login
        switch state {
        case .free:
            precondition(c == .leading, "the leading connection logs in first")
            state = .loggingIn
        case .loggedIn(let parameters):
            guard openConnectionCount < parameters.maxConnections, mayOpen(connection.pointee.recovery) else {
                events.append(.connectionFailed(c, .closedLocally))
                return
            }
            login.tsih = tsih
            login.cmdSN = cmdSN
            login.sessionParameters = parameters
        default:
            events.append(.connectionFailed(c, .closedLocally))
            return
        }
        if connection.pointee.needsFreshStream {
            connection.pointee.renewStream(crc32c: crc32c)
        }
        if let recovery = connection.pointee.recovery, recovery.isReinstating {
            login.connectionID = recovery.connectionID
        } else {
            // A login with the ID of a connection that lives would end that one.
            while isInUse(connectionID: nextConnectionID) { nextConnectionID &+= 1 }
            login.connectionID = nextConnectionID
            nextConnectionID &+= 1
        }
        connection.pointee.connectionID = login.connectionID
        connection.pointee.phase = .loggingIn
        connection.pointee.liveness = Liveness()
        connection.pointee.liveness.lastByteAt = now
        connection.pointee.liveness.phaseDeadline = now + timing.login
        connection.pointee.login = InitiatorLogin(settings: login, cryptography: cryptography)
        let action = connection.pointee.login!.start()
        perform(action, on: c, at: now)
    }

    /// The transport of a connection ended, or its owner gives it up. After a logout that is expected.
    public mutating func connectionClosed(_ c: ConnectionIndex, reason: ConnectionFailure, at now: Instant) {
        guard c.rawValue >= 0, c.rawValue < connectionCount, !isOver else { return }
        guard connections[c.rawValue].phase != .closed || state == .free else {
            return reinstatementFailed(c, reason, at: now)
        }
        failConnection(c, reason)
        if !isOver, connections[c.rawValue].phase == .closed { reinstatementFailed(c, reason, at: now) }
    }

    /// The owner gives the whole session up: everything open is handed back.
    public mutating func abandon(_ reason: SessionFailure) { failSession(reason) }

    /// Whether the command window and the command table take one more command. Where not, `windowOpened` follows.
    public mutating func hasRoomForCommand() -> Bool {
        if SerialNumber.isAtMost(cmdSN, maxCmdSN), table.hasRoomForCommand,
            completions.count + table.commandCount < completionLimit
        {
            return true
        }
        refusedCommand = true
        return false
    }

    private func isInUse(connectionID: UInt16) -> Bool {
        (0..<connectionCount).contains {
            connections[$0].recovery?.connectionID == connectionID
                || connections[$0].phase != .closed && connections[$0].connectionID == connectionID
        }
    }

    private var openConnectionCount: Int {
        var count = 0
        for index in 0..<connectionCount where connections[index].phase != .closed { count += 1 }
        return count
    }

    /// Whether this login is the one that makes the session.
    func isLeadingLogin(_ c: ConnectionIndex) -> Bool {
        switch state {
        case .free, .loggingIn: true
        default: false
        }
    }

    /// The first connection in full-feature phase other than `excluded`.
    func operationalConnection(except excluded: Int = -1) -> Int? {
        (0..<connectionCount).first { $0 != excluded && connections[$0].phase == .fullFeature }
    }

    mutating func perform(_ action: LoginAction, on c: ConnectionIndex, at now: Instant) {
        let connection = connections + c.rawValue
        switch action {
        case .send(let pdu):
            if !connection.pointee.enqueueControl(pdu.header, data: pdu.data) { failConnection(c, .violation(.flood)) }
        case .finished(let result):
            enterFullFeature(c, result, at: now)
        case .redirected(let redirection):
            if isLeadingLogin(c) { events.append(.redirected(redirection)) }
            failConnection(c, .redirected)
        case .failed(let failure):
            if isLeadingLogin(c) { events.append(.loginFailed(failure)) }
            failConnection(c, .login(failure))
        }
    }

    mutating func enterFullFeature(_ c: ConnectionIndex, _ result: LoginResult, at now: Instant) {
        let connection = connections + c.rawValue
        let parameters = result.parameters
        connection.pointee.login = nil
        connection.pointee.phase = .fullFeature
        connection.pointee.expStatSN = result.expStatSN
        connection.pointee.maxSendDataSegmentByteCount = max(parameters.maxSendDataSegmentByteCount, 512)
        connection.pointee.headerCRC = parameters.headerDigest == .crc32c ? crc32c : nil
        connection.pointee.dataCRC = parameters.dataDigest == .crc32c ? crc32c : nil
        connection.pointee.decoder.headerDigest = parameters.headerDigest == .crc32c
        connection.pointee.decoder.dataDigest = parameters.dataDigest == .crc32c
        connection.pointee.decoder.maxDataSegmentByteCount = parameters.maxRecvDataSegmentByteCount
        connection.pointee.recoversPDUs = parameters.errorRecoveryLevel >= 1
        connection.pointee.statusAskedUpTo = result.expStatSN
        connection.pointee.decoder.toleratesHeaderDigestErrors = connection.pointee.recoversPDUs
        connection.pointee.liveness = Liveness()
        connection.pointee.liveness.lastByteAt = now
        connection.pointee.hasServed = false
        guard isLeadingLogin(c) else {
            events.append(.connectionAdded(c))
            if connection.pointee.recovery != nil { reinstated(c, result, at: now) }
            return
        }
        limits = TransferLimits(parameters, maxOutstandingR2T: settings.login.operational.maxOutstandingR2T)
        tsih = result.tsih
        cmdSN = result.cmdSN
        expCmdSN = result.expCmdSN
        maxCmdSN = result.maxCmdSN
        lossHandling = LossHandling(result)
        windowWatch = WindowWatch(expCmdSN: expCmdSN, cmdSN: cmdSN, takenAt: now, letInAt: now, checkAt: now + timing.eighthCommand)
        if parameters.errorRecoveryLevel >= 1, retained == nil { retained = .allocate(capacity: table.capacity) }
        state = .loggedIn(parameters)
        isFullFeature = true
        events.append(.loggedIn(result))
    }

    // MARK: the end

    /// One connection can't go on. A login that would have added a connection ends alone. An established
    /// connection ends alone where the session can do without it (see ``loseConnection(_:_:)``); anything
    /// else ends the session (RFC 7143 section 7.1.4.4).
    mutating func failConnection(_ c: ConnectionIndex, _ reason: ConnectionFailure) {
        guard !isOver else { return }
        let connection = connections + c.rawValue
        if connection.pointee.phase == .loggingIn, !isLeadingLogin(c) {
            connection.pointee.phase = .closed
            connection.pointee.login = nil
            connection.pointee.needsFreshStream = true
            events.append(.connectionFailed(c, reason))
            // What that means for a recovery is seen to with the next look at the time.
            connection.pointee.recovery?.hasFailedLogin = true
            return
        }
        if case .loggingOut = state, logoutSlot.map({ Int(table.slots[$0].connection) }) != c.rawValue {
            // The target may end the others before it answers the logout.
            connection.pointee.phase = .closed
            return
        }
        if canLose(c, reason) { return loseConnection(c, reason) }
        failSession(reason)
    }

    mutating func failSession(_ reason: SessionFailure) {
        guard !isOver else { return }
        state = .failed(reason)
        abandonAll()
        events.append(.sessionFailed(reason))
    }

    /// Hands back everything open, in CmdSN order, and stops.
    private mutating func abandonAll() {
        isFullFeature = false
        isOver = true
        refusedCommand = false
        abandonText()
        while let slot = table.firstSlot {
            let task = table.slots + slot
            switch task.pointee.kind {
            case .draining: completions.append(task.pointee.completion)
            case .lost:
                events.append(.commandAbandoned(token: task.pointee.token, wasSent: task.pointee.lost != .unsent))
            default: events.append(.commandAbandoned(token: task.pointee.token, wasSent: wasSent(task)))
            }
            // The transport may still be sending from a detached command's copy: it goes with the table.
            let own = task.pointee.ownBuffer
            task.pointee.ownBuffer = nil
            table.release(slot)
            task.pointee.ownBuffer = own
        }
        for slot in 0..<table.usedCapacity {
            switch table.slots[slot].kind {
            case .taskManagement:
                if table.slots[slot].purpose == .owner {
                    events.append(.taskManagementAbandoned(token: table.slots[slot].token))
                }
                table.release(slot)
            case .ping, .control: table.release(slot)
            case .free, .command, .draining, .lost: break
            }
        }
        for index in 0..<connectionCount {
            connections[index].phase = .closed
            connections[index].commandCount = 0
            connections[index].owedCount = 0
            connections[index].drainingCount = 0
            connections[index].decoder.discard()
            connections[index].recovery = nil
        }
        recoveryCount = 0
        leavingCount = 0
        openNumbers = []
        lateTags = []
    }

    /// Whether a byte of the command's PDU was handed to the transport.
    func wasSent(_ task: UnsafeMutablePointer<TaskSlot>) -> Bool {
        task.pointee.wasSentBefore || connections[Int(task.pointee.connection)].output.offeredPosition > task.pointee.startPosition
    }

    /// The logout was answered.
    mutating func completeLogout() {
        state = .loggedOut
        abandonAll()
        events.append(.loggedOut)
    }
}

/// A tag that PDUs of one connection may still name.
struct LateTag {
    let tag: UInt32
    let connection: Int
}

/// What login agreed on, as the hot path needs it.
struct TransferLimits {
    var immediateData = false
    var initialR2T = true
    var firstBurstByteCount = 65_536
    var maxBurstByteCount = 262_144
    var maxOutstandingR2T = 1
    /// Data-In and R2T come in order of their offsets: within a sequence, and from one to the next.
    var dataPDUInOrder = true
    var dataSequenceInOrder = true

    init() {}

    init(_ parameters: NegotiatedParameters, maxOutstandingR2T limit: Int) {
        immediateData = parameters.immediateData
        initialR2T = parameters.initialR2T
        firstBurstByteCount = min(parameters.firstBurstByteCount, parameters.maxBurstByteCount)
        maxBurstByteCount = parameters.maxBurstByteCount
        maxOutstandingR2T = min(parameters.maxOutstandingR2T, limit)
        dataPDUInOrder = parameters.dataPDUInOrder
        dataSequenceInOrder = parameters.dataSequenceInOrder
    }
}
