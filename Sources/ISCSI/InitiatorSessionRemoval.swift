public import Timebase

// Taking one connection out of a session in an orderly way (RFC 7143 section 11.14, reason code 1).
extension InitiatorSession {
    /// Gives a connection no more commands and, once those it has are done, logs it out by itself:
    /// `connectionRemoved` follows. False, and nothing done, where it is not logged in or the session has no other.
    ///
    /// - Parameter atOnce: it is logged out with what is open on it. The target ends those commands, and the connection
    ///   counts as lost: `connectionLost`.
    @discardableResult
    public mutating func removeConnection(_ c: ConnectionIndex, atOnce: Bool = false, at now: Instant) -> Bool {
        beginLeaving(c, deadline: atOnce ? now : now + timing.command, at: now)
    }

    /// The target asks for the logout of a connection (section 11.9.1). False: it is the only one, so it is the
    /// session that is meant.
    mutating func leave(_ c: ConnectionIndex, within seconds: UInt16, at now: Instant) -> Bool {
        // Asked again while its Logout is on the way: the session is not meant.
        if isFullFeature, connections[c.rawValue].phase == .loggingOut { return true }
        // Half of the time that it gives is for commands to end.
        let patience = Duration.seconds(Int(seconds)) / 2
        guard beginLeaving(c, deadline: now + Nanoseconds(patience), at: now) else { return false }
        events.append(.connectionLeaving(c))
        return true
    }

    private mutating func beginLeaving(_ c: ConnectionIndex, deadline: Instant, at now: Instant) -> Bool {
        guard c.rawValue >= 0, c.rawValue < connectionCount, operationalConnection(except: c.rawValue) != nil else { return false }
        if connections[c.rawValue].phase == .leaving {
            connections[c.rawValue].leaveDeadline = min(connections[c.rawValue].leaveDeadline, deadline)
            advanceLeaving(at: now)
            return true
        }
        guard isOpen(c) else { return false }
        connections[c.rawValue].phase = .leaving
        connections[c.rawValue].leaveDeadline = deadline
        leavingCount += 1
        advanceLeaving(at: now)
        return true
    }

    /// Logs out those that are idle, or out of time.
    mutating func advanceLeaving(at now: Instant) {
        guard isFullFeature else { return }
        for index in 0..<connectionCount where connections[index].phase == .leaving {
            let connection = connections + index
            let isIdle = connection.pointee.owedCount == 0 && connection.pointee.drainingCount == 0
            guard isIdle || now >= connection.pointee.leaveDeadline,
                canSendControl(on: ConnectionIndex(rawValue: index))
            else { continue }
            let slot = table.takeControl(.control)
            table.slots[slot].connection = UInt16(truncatingIfNeeded: index)
            table.slots[slot].purpose = .removal
            connection.pointee.phase = .loggingOut
            connection.pointee.leaveDeadline = .distantFuture
            connection.pointee.liveness.phaseDeadline = now + timing.login
            leavingCount -= 1
            connection.pointee.enqueue(.logoutRequest(
                .closeConnection, connectionID: connection.pointee.connectionID, tag: table.tag(of: slot), cmdSN: cmdSN,
                expStatSN: connection.pointee.expStatSN))
        }
    }

    /// The target answered a connection's own Logout.
    mutating func removed(_ c: ConnectionIndex, _ response: LogoutResponse) {
        guard response == .closed else { return failSession(.logoutRefused(response)) }
        let connection = connections + c.rawValue
        guard connection.pointee.commandCount == 0, connection.pointee.drainingCount == 0,
            connection.pointee.recovery == nil, firstOpenNumber(of: c.rawValue) == nil
        else {
            // What was still open on it was ended by the Logout, and leaves holes as a loss does.
            loseConnection(c, .closedLocally)
            connection.pointee.recovery!.isLoggedOut = true
            return
        }
        loseControls(of: c)
        connection.pointee.phase = .closed
        connection.pointee.needsFreshStream = true
        connection.pointee.owedCount = 0
        connection.pointee.liveness = Liveness()
        connection.pointee.decoder.discard()
        lateTags.removeAll { $0.connection == c.rawValue }
        events.append(.connectionRemoved(c))
    }
}
