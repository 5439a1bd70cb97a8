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
    /// What initiators must prove before SendTargets is answered.
    public var discoveryAuthentication = TargetAuthentication.none

    public init() {}
}

/// What happens to sessions, for the owner of the sockets and of the device server.
public enum TargetServiceEvent {
    /// Full-feature phase of a normal session's first connection.
    case sessionStarted(TargetSession)
    /// Commands that the device server has of it are to be aborted; none is answered.
    case sessionEnded(TargetSession, TargetSessionEnd)
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
    private var events: [TargetServiceEvent] = []
    private var nextEventIndex = 0
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
        guard identity.sessionType == .normal else {
            return .accept(
                TargetLoginGrant(
                    operational: settings.operational, portalGroupTag: portalGroupTag,
                    authentication: settings.discoveryAuthentication))
        }
        guard let name = identity.targetName, let node = node(name, reachedThrough: connection) else {
            return .reject(.notFound)
        }
        return .accept(
            TargetLoginGrant(
                operational: settings.operational, portalGroupTag: portalGroupTag, targetAlias: node.alias,
                authentication: node.authentication))
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
        guard sessions.count < settings.maximumSessions, let tsih = freeTSIH() else { return .reject(.outOfResources) }
        lastNumber &+= 1
        let session = TargetSession(
            service: self, number: lastNumber, tsih: tsih, identity: identity, parameters: parameters,
            portalGroupTag: connection.portalGroupTag)
        sessions.append(session)
        session.add(connection, connectionID: identity.connectionID)
        return .admit(tsih: tsih, expCmdSN: session.expCmdSN, maxCmdSN: session.maxCmdSN)
    }

    private func join(_ identity: TargetLoginIdentity, _ connection: TargetConnection) -> TargetLoginAdmission {
        guard
            let session = sessions.first(where: {
                $0.tsih == identity.tsih && $0.identity.initiatorName == identity.initiatorName
                    && $0.identity.isid == identity.isid && $0.identity.targetName == identity.targetName
                    && $0.portalGroupTag == connection.portalGroupTag
            })
        else { return .reject(.sessionDoesNotExist) }
        let isReplacement = session.connection(identity.connectionID) != nil
        guard isReplacement || session.connectionCount < session.parameters.maxConnections else {
            return .reject(.tooManyConnections)
        }
        // Connection reinstatement (section 6.3.4): at level 0 the old one's commands end with it.
        if let old = session.connection(identity.connectionID) {
            session.remove(old)
            old.end(.replaced)
        }
        session.add(connection, connectionID: identity.connectionID)
        return .admit(tsih: session.tsih, expCmdSN: session.expCmdSN, maxCmdSN: session.maxCmdSN)
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
        for connection in session.takeConnections() {
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
        session.end()
        if session.isNormal, session.wasStarted { post(.sessionEnded(session, reason)) }
    }
}
