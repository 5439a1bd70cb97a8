public import Timebase

/// A target node as discovery and login see it.
public struct TargetNodeDescription: Sendable {
    public var name: String
    public var alias: String?
    /// Where it is reached, each with its portal group tag.
    public var addresses: [TargetAddress]
    public var authentication: TargetAuthentication
    /// The portals through which it can be logged in to, by ``TargetConnection/portal``; nil: all of its groups.
    public var portals: [Int]?

    public init(
        name: String, alias: String? = nil, addresses: [TargetAddress], authentication: TargetAuthentication = .none,
        portals: [Int]? = nil
    ) {
        self.portals = portals
        self.name = name
        self.alias = alias
        self.addresses = addresses
        self.authentication = authentication
    }
}

/// Limits and offers of a ``TargetService``.
public struct TargetServiceSettings: Sendable {
    public var operational = OperationalSettings()
    /// Commands a session may have outstanding: the width of the CmdSN window, 1…4096.
    public var queueDepth = 128
    public var maximumSessions = 1024
    /// The most data-out that is taken of one command, in bytes.
    public var maximumTransferByteCount = 16 << 20
    /// nil: idle connections are not asked.
    public var pingInterval: Duration? = .seconds(30)
    public var loginTimeout: Duration = .seconds(15)
    /// What is done where a connection of a session is lost that has others, at levels 0 and 1.
    public var connectionLoss = ConnectionLossBehaviour.keepSession
    /// At level 1 and above: data of reads that is kept until its status is confirmed, in bytes, over all sessions.
    public var retainedByteLimit = 32 << 20
    /// At level 2: the longest that tasks of a lost connection are kept, whatever Time2Wait the initiator asks for.
    public var retentionLimit: Duration = .seconds(120)
    /// At level 1 and above: so long after a PDU was dropped, Data-Out that does not come is asked for again.
    public var transferTimeout: Duration = .seconds(1)
    /// What initiators must prove before SendTargets is answered.
    public var discoveryAuthentication = TargetAuthentication.none

    public init() {}
}

/// What targets do when one of several connections is lost at ErrorRecoveryLevel 0.
public enum ConnectionLossBehaviour: Hashable, Sendable {
    /// The session lives on with the others; the commands of the lost one are ended (tgtd's way).
    case keepSession
    /// The whole session ends after this time, unless the connection was reinstated (LIO's way: about 1.5 s).
    case endSession(after: Duration)
}

/// What happens to sessions, for the owner of the sockets and of the device server.
public enum TargetServiceEvent {
    /// Full-feature phase of a normal session's first connection.
    case sessionStarted(TargetSession)
    /// Commands that the device server has of it are to be aborted; none is answered.
    case sessionEnded(TargetSession, TargetSessionEnd)
    /// A command that the device server has, of a connection that is gone, is to be aborted; it is not answered.
    case commandAbandoned(TargetSession, slot: Int)
    /// Close its socket.
    case connectionEnded(TargetConnection, TargetConnectionEnd)
}

public enum TargetSessionEnd: Hashable, Sendable {
    case loggedOut
    case reinstated
    case connectionLost
    /// By the owner's wish, or by another session's TARGET COLD RESET.
    case dropped
    /// By a TARGET COLD RESET of its own, whose answer still goes out.
    case coldReset
}

public enum TargetConnectionEnd: Hashable, Sendable {
    case loggedOut
    case loginRefused(TargetLoginRefusal)
    case loginFailed(LoginFailure)
    case loginTimeout
    /// Its session was reinstated or dropped, or its connection ID taken by another.
    case replaced
    case protocolError(ProtocolError)
    /// Data-Out outside of what was asked for, a command that may not be, …
    case violation(RejectReason)
    case dataDigestMismatch
    case noAnswerToPing
    /// More answers were asked for than the peer takes.
    case overflow
    case peerClosed
    case dropped
    case coldReset

    /// Everything queued (a refusal, a logout's answer) is to go out first.
    public var isGraceful: Bool {
        switch self {
        case .loggedOut, .loginRefused, .violation, .coldReset: true
        default: false
        }
    }
}

/// The sessions of the target nodes that one device server serves (RFC 7143 section 6.3): who may log
/// in, which session a login reinstates or joins, session handles. No I/O; one thread.
public final class TargetService {
    public let settings: TargetServiceSettings
    public var nodes: [TargetNodeDescription]
    public let pool: TargetBufferPool
    let cryptography: any CryptographicServices
    let crc32c: CRC32CFunction
    /// In the order of their logins.
    public private(set) var sessions: [TargetSession] = []
    @exclusivity(unchecked) private var events: [TargetServiceEvent] = []
    @exclusivity(unchecked) private var nextEventIndex = 0
    /// Bytes of data that is kept for SNACK and reassignment.
    public internal(set) var retainedByteCount = 0
    @exclusivity(unchecked) private var alarms: [Alarm] = []
    private var lastTSIH: UInt16 = 0
    private var lastNumber: UInt32 = 0

    public init(
        settings: TargetServiceSettings, nodes: [TargetNodeDescription], pool: TargetBufferPool,
        cryptography: any CryptographicServices, crc32c: CRC32CFunction
    ) {
        precondition((1...4096).contains(settings.queueDepth))
        self.settings = settings
        self.nodes = nodes
        self.pool = pool
        self.cryptography = cryptography
        self.crc32c = crc32c
    }

    /// The next thing that happened, in order; to be called after each call into a connection or session.
    public func nextEvent() -> TargetServiceEvent? {
        guard nextEventIndex < events.count else {
            if nextEventIndex > 0 {
                events.removeAll(keepingCapacity: true)
                nextEventIndex = 0
            }
            return nil
        }
        nextEventIndex += 1
        return events[nextEventIndex - 1]
    }

    func post(_ event: TargetServiceEvent) { events.append(event) }

    // MARK: logins

    func decision(on identity: TargetLoginIdentity, through connection: TargetConnection) -> TargetLoginDecision {
        let portalGroupTag = connection.portalGroupTag
        var joined: NegotiatedParameters?
        if identity.tsih != 0 {
            switch session(joinedBy: identity, through: connection) {
            case .success(let session): joined = session.parameters
            case .failure(let status): return .reject(status)
            }
        }
        guard identity.sessionType == .normal else {
            return .accept(
                TargetLoginGrant(
                    operational: settings.operational, portalGroupTag: portalGroupTag,
                    authentication: settings.discoveryAuthentication, sessionParameters: joined))
        }
        guard let name = identity.targetName, let node = node(name, reachedThrough: connection) else {
            return .reject(.notFound)
        }
        return .accept(
            TargetLoginGrant(
                operational: settings.operational, portalGroupTag: portalGroupTag, targetAlias: node.alias,
                authentication: node.authentication, sessionParameters: joined))
    }

    private func node(_ name: String, reachedThrough connection: TargetConnection) -> TargetNodeDescription? {
        nodes.first { node in
            guard node.name == name else { return false }
            if let portals = node.portals, let portal = connection.portal { return portals.contains(portal) }
            return node.addresses.contains { $0.portalGroupTag == connection.portalGroupTag }
        }
    }

    /// Session reinstatement (section 6.3.5), a new session, or a further connection of one.
    func admit(
        _ identity: TargetLoginIdentity, _ parameters: NegotiatedParameters, _ connection: TargetConnection
    ) -> TargetLoginAdmission {
        if identity.tsih != 0 { return join(identity, connection) }
        if identity.sessionType == .normal {
            let same = sessions.filter {
                $0.identity.initiatorName == identity.initiatorName && $0.identity.isid == identity.isid
                    && $0.identity.targetName == identity.targetName && $0.portalGroupTag == connection.portalGroupTag
            }
            for session in same { end(session, .reinstated) }
        }
        makeRoom()
        guard sessions.count < settings.maximumSessions, let tsih = freeTSIH() else { return .reject(.outOfResources) }
        lastNumber &+= 1
        let session = TargetSession(
            service: self, number: lastNumber, tsih: tsih, identity: identity, parameters: parameters,
            portalGroupTag: connection.portalGroupTag)
        sessions.append(session)
        session.add(connection, connectionID: identity.connectionID)
        return .admit(tsih: tsih, expCmdSN: session.window.expCmdSN, maxCmdSN: session.window.maxCmdSN)
    }

    /// Where there is no room for a session, the oldest one without a connection gives up waiting for one.
    private func makeRoom() {
        guard sessions.count >= settings.maximumSessions, let idle = sessions.first(where: { $0.connectionCount == 0 }) else { return }
        end(idle, .connectionLost)
    }

    /// Same initiator port, target and session; another portal group is another session (section 4.4.2).
    private func session(
        joinedBy identity: TargetLoginIdentity, through connection: TargetConnection
    ) -> Result<TargetSession, LoginStatus> {
        guard
            let session = sessions.first(where: {
                $0.tsih == identity.tsih && $0.identity.initiatorName == identity.initiatorName
                    && $0.identity.isid == identity.isid && $0.identity.targetName == identity.targetName
            })
        else { return .failure(.sessionDoesNotExist) }
        guard session.portalGroupTag == connection.portalGroupTag, session.identity.sessionType == identity.sessionType else {
            return .failure(.cannotIncludeInSession)
        }
        return .success(session)
    }

    private func join(_ identity: TargetLoginIdentity, _ connection: TargetConnection) -> TargetLoginAdmission {
        let session: TargetSession
        switch self.session(joinedBy: identity, through: connection) {
        case .success(let found): session = found
        case .failure(let status): return .reject(status)
        }
        let isReplacement = session.connection(id: identity.connectionID) != nil
        guard isReplacement || session.connectionCount < session.parameters.maxConnections else {
            return .reject(.tooManyConnections)
        }
        session.replace(identity.connectionID, by: connection)
        let window = session.windowNumbers()
        return .admit(tsih: session.tsih, expCmdSN: window.expCmdSN, maxCmdSN: window.maxCmdSN)
    }

    private func freeTSIH() -> UInt16? {
        for _ in 0..<UInt16.max {
            lastTSIH &+= 1
            if lastTSIH != 0, !sessions.contains(where: { $0.tsih == lastTSIH }) { return lastTSIH }
        }
        return nil
    }

    // MARK: ends

    /// Ends a session and all its connections at once.
    public func end(_ session: TargetSession, _ reason: TargetSessionEnd) {
        guard let index = sessions.firstIndex(where: { $0 === session }) else { return }
        sessions.remove(at: index)
        let connections = session.takeConnections()
        for connection in connections {
            switch reason {
            case .loggedOut: connection.end(.loggedOut)
            case .reinstated: connection.end(.replaced)
            case .connectionLost, .dropped: connection.end(.dropped)
            case .coldReset:
                // Results that are there go out before the answer, and that before the end.
                connection.fill()
                connection.end(.coldReset)
            }
        }
        session.end(connections)
        alarms.removeAll { $0.purpose.session === session }
        if session.isNormal, session.wasStarted { post(.sessionEnded(session, reason)) }
    }
}

// What happens when nothing happens. Times begin when the owner of the clock asks for the next one.
extension TargetService {
    enum AlarmPurpose {
        /// A lost connection's tasks are not kept any longer.
        case connectionState(TargetSession, key: UInt32)
        /// A session that lost a connection ends.
        case endSession(TargetSession, connectionID: UInt16)
        /// Data-Out may have been lost.
        case transfers(TargetConnection)

        var session: TargetSession? {
            switch self {
            case .connectionState(let session, _), .endSession(let session, _): session
            case .transfers(let connection): connection.session
            }
        }

        /// The same thing: a later time takes the place of the earlier one.
        func isSame(_ other: AlarmPurpose) -> Bool {
            switch (self, other) {
            case (.connectionState(let a, let first), .connectionState(let b, let second)): a === b && first == second
            case (.endSession(let a, let first), .endSession(let b, let second)): a === b && first == second
            case (.transfers(let a), .transfers(let b)): a === b
            default: false
            }
        }
    }

    struct Alarm {
        var purpose: AlarmPurpose
        var delay: Duration
        var due: Instant?
    }

    func setAlarm(_ purpose: AlarmPurpose, after delay: Duration) {
        // Data-Out is waited for from the first loss on.
        if case .transfers = purpose, alarms.contains(where: { $0.purpose.isSame(purpose) }) { return }
        alarms.removeAll { $0.purpose.isSame(purpose) }
        alarms.append(Alarm(purpose: purpose, delay: delay))
    }

    func cancelConnectionAlarm(_ session: TargetSession, key: UInt32) {
        alarms.removeAll { $0.purpose.isSame(.connectionState(session, key: key)) }
    }

    /// When ``timerFired(at:)`` has to be called; to be asked after each call into a connection or session where
    /// ``hasAlarms`` is true.
    public func nextDeadline(at now: Instant) -> Instant {
        var deadline = Instant.distantFuture
        for index in alarms.indices {
            let due = alarms[index].due ?? now + alarms[index].delay
            alarms[index].due = due
            deadline = min(deadline, due)
        }
        return deadline
    }

    public var hasAlarms: Bool { !alarms.isEmpty }

    public func timerFired(at now: Instant) {
        while let index = alarms.firstIndex(where: { $0.due.map { $0 <= now } ?? false }) {
            switch alarms.remove(at: index).purpose {
            case .connectionState(let session, let key): session.connectionStateExpired(key)
            case .endSession(let session, let connectionID): session.lossExpired(connectionID)
            case .transfers(let connection): connection.recoverTransfers()
            }
        }
    }
}
