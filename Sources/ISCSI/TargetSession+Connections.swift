/// What is left of a connection of a session at level 2, until its tasks are reassigned or its time is over
/// (RFC 7143 section 7.1.4.4).
struct LostConnection {
    /// ``TargetConnection/key``, by which its tasks know it.
    let key: UInt32
    let connectionID: UInt16
    /// By a recovery logout or a login with its CID: tasks may be reassigned.
    var isLoggedOut: Bool
    /// Results that were sent and not confirmed.
    var retention: TargetRetention?
}

/// A logout's answer waits until the device server has let go of what the connection carried.
struct PendingLogout {
    var header: BasicHeaderSegment
    /// Where it came from.
    var connection: TargetConnection
    /// ``TargetConnection/key`` of those that were logged out.
    var keys: [UInt32]
}

// The connections of a session: how they join, leave and are lost.
extension TargetSession {
    public var connectionCount: Int { connections.count }
    /// In the order of their logins.
    public func connection(at index: Int) -> TargetConnection { connections[index] }

    /// Its first connection, for what belongs to the session: asynchronous messages.
    public var leadingConnection: TargetConnection? { connections.first }

    /// All its connections, in the order of their logins.
    public var allConnections: [TargetConnection] { connections }

    /// Connections that were lost and whose tasks wait to be reassigned.
    public var lostConnectionCount: Int { lost.count }

    @inline(__always)
    func connection(key: UInt32) -> TargetConnection? {
        // A few connections at most: no table is faster.
        for connection in connections where connection.key == key { return connection }
        return nil
    }

    public func connection(id: UInt16) -> TargetConnection? { connections.first { $0.connectionID == id } }

    func add(_ connection: TargetConnection, connectionID: UInt16) {
        connections.append(connection)
        connection.joined(self, connectionID: connectionID, key: nextKey())
    }

    /// Connection reinstatement (section 6.3.4): the new connection logs the old one out.
    func replace(_ connectionID: UInt16, by connection: TargetConnection) {
        let old = self.connection(id: connectionID)
        // First: a session does not end that has a connection.
        add(connection, connectionID: connectionID)
        old?.end(.replaced)
        logOutLost(connectionID)
    }

    // MARK: ends

    func connectionEnded(_ connection: TargetConnection, _ reason: TargetConnectionEnd) {
        guard !isEnded, !isEnding else { return }
        connections.removeAll { $0 === connection }
        postponedManagement.removeAll { $0.connection === connection }
        let departure = departure(connection, reason)
        if departure == .left || recoveryLevel < 2 || retentionTime <= .zero {
            connection.retention?.removeAll()
            terminateTasks(of: connection.key, sentBy: connection)
        } else {
            keep(connection, isLoggedOut: departure == .recovered)
        }
        deliverInTurn()
        checkFences()
        guard !isEnded else { return }
        if connections.isEmpty, lost.isEmpty { return service.end(self, departure == .left ? .loggedOut : .connectionLost) }
        if departure == .lost, recoveryLevel < 2, case .endSession(let delay) = service.settings.connectionLoss {
            service.setAlarm(.endSession(self, connectionID: connection.connectionID), after: delay)
        }
    }

    private enum Departure {
        /// In good order: its tasks are over.
        case left
        /// Logged out, explicitly or by a login with its CID, so that its tasks can be reassigned.
        case recovered
        case lost
    }

    private func departure(_ connection: TargetConnection, _ reason: TargetConnectionEnd) -> Departure {
        switch reason {
        case .replaced: .recovered
        case .loggedOut: connection.isLeavingForRecovery ? .recovered : .left
        case .coldReset: .left
        default: .lost
        }
    }

    /// Time2Wait, then Time2Retain (section 7.1.4.4). An initiator that wants to wait for an hour has its memory kept
    /// for less.
    private var retentionTime: Duration {
        guard parameters.defaultTime2Retain > 0 else { return .zero }
        return min(.seconds(parameters.defaultTime2Wait + parameters.defaultTime2Retain), service.settings.retentionLimit)
    }

    private func keep(_ connection: TargetConnection, isLoggedOut: Bool) {
        // What the dead connection named to be sent may be given back by the one that takes over.
        connection.retention?.shareData(with: connection)
        for slot in 0..<usedCapacity where tasks[slot].connection == connection.key {
            switch tasks[slot].state {
            case .receiving:
                if tasks[slot].isArrived { break }
                // Its PDU did not come whole; the initiator has to send it again.
                commandDiscarded(slot)
            case .responding:
                connection.output.adopt(service.pool.share(tasks[slot].dataBuffer))
            default: break
            }
        }
        // An initiator that keeps losing connections has only its last ones kept.
        if lost.count >= parameters.maxConnections + 4 { forget(lost[0].key) }
        lost.append(
            LostConnection(
                key: connection.key, connectionID: connection.connectionID, isLoggedOut: isLoggedOut,
                retention: connection.takeRetention()))
        service.setAlarm(.connectionState(self, key: connection.key), after: retentionTime)
    }

    func isAwaitingReassignment(_ key: UInt32) -> Bool {
        for entry in lost where entry.key == key { return true }
        return false
    }

    /// All of a connection's tasks end without a word to the initiator. Requests that ExpCmdSN does not acknowledge are
    /// discarded (section 11.14): their numbers are missing again, and may come once more on another connection.
    private func terminateTasks(of key: UInt32, sentBy connection: TargetConnection?) {
        discardUnacknowledged(key)
        for slot in 0..<usedCapacity where tasks[slot].state != .free && tasks[slot].connection == key {
            if let connection { adoptData(slot, connection) }
            drop(slot)
        }
    }

    /// Nobody came for what a lost connection left.
    func forget(_ key: UInt32) {
        guard let index = lost.firstIndex(where: { $0.key == key }) else { return }
        lost.remove(at: index).retention?.removeAll()
        service.cancelConnectionAlarm(self, key: key)
        terminateTasks(of: key, sentBy: nil)
        deliverInTurn()
    }

    // MARK: alarms

    func connectionStateExpired(_ key: UInt32) {
        guard !isEnded else { return }
        forget(key)
        if connections.isEmpty, lost.isEmpty { service.end(self, .connectionLost) }
    }

    /// The way of targets that give up the whole session.
    func lossExpired(_ connectionID: UInt16) {
        guard !isEnded, connection(id: connectionID) == nil else { return }
        service.end(self, .connectionLost)
    }

    // MARK: logout (section 11.14)

    func logOut(_ header: BasicHeaderSegment, on connection: TargetConnection) {
        let connectionID = header.connectionID
        switch header.logoutReason {
        case .closeSession:
            connection.sendLogoutResponse(.closed, header)
            service.end(self, .loggedOut)
        case .closeConnection where connectionID == connection.connectionID:
            // An earlier connection with this CID is over as well.
            for entry in lost where entry.connectionID == connectionID { forget(entry.key) }
            connection.sendLogoutResponse(.closed, header)
            connection.end(.loggedOut)
        case .closeConnection: close(connectionID, header, connection)
        case .removeConnectionForRecovery where recoveryLevel < 2:
            connection.sendLogoutResponse(.recoveryNotSupported, header)
        case .removeConnectionForRecovery where connectionID == connection.connectionID:
            logOutLost(connectionID)
            connection.isLeavingForRecovery = true
            connection.sendLogoutResponse(.closed, header)
            connection.end(.loggedOut)
        case .removeConnectionForRecovery:
            let isKnown = self.connection(id: connectionID) != nil || lost.contains { $0.connectionID == connectionID }
            // Its socket is of no use any more: nothing is waited for.
            self.connection(id: connectionID)?.end(.replaced)
            logOutLost(connectionID)
            connection.sendLogoutResponse(isKnown ? .closed : .connectionIDNotFound, header)
        case nil: connection.reject(.invalidPDUField, header)
        }
    }

    /// From now on tasks may be reassigned, and the time for it begins anew. Requests that ExpCmdSN does not
    /// acknowledge are discarded (section 11.14): the initiator sends them again, with their numbers.
    private func logOutLost(_ connectionID: UInt16) {
        for index in lost.indices where lost[index].connectionID == connectionID {
            lost[index].isLoggedOut = true
            discardUnacknowledged(lost[index].key)
            service.setAlarm(.connectionState(self, key: lost[index].key), after: retentionTime)
        }
    }

    private func close(_ connectionID: UInt16, _ header: BasicHeaderSegment, _ connection: TargetConnection) {
        var keys = lost.filter { $0.connectionID == connectionID }.map(\.key)
        if let other = self.connection(id: connectionID) {
            keys.append(other.key)
            other.end(.loggedOut)
        }
        for key in keys { forget(key) }
        guard !keys.isEmpty else { return connection.sendLogoutResponse(.connectionIDNotFound, header) }
        guard pendingLogouts.count < Self.managementCapacity else {
            return connection.sendLogoutResponse(.cleanupFailed, header)
        }
        pendingLogouts.append(PendingLogout(header: header, connection: connection, keys: keys))
        answerPendingLogouts()
    }

    /// An answer says that no write of the connection reaches the medium any more.
    func answerPendingLogouts() {
        func isBusy(_ logout: PendingLogout) -> Bool {
            (0..<usedCapacity).contains { tasks[$0].state == .executing && logout.keys.contains(tasks[$0].connection) }
        }
        while let index = pendingLogouts.firstIndex(where: { !isBusy($0) }) {
            let logout = pendingLogouts.remove(at: index)
            if logout.connection.endReason == nil { logout.connection.sendLogoutResponse(.closed, logout.header) }
        }
    }

    // MARK: TASK REASSIGN (sections 7.2.2 and 11.5.1)

    func reassign(_ header: BasicHeaderSegment, to connection: TargetConnection) {
        let tag = header.initiatorTaskTag
        guard recoveryLevel == 2 else { return connection.sendManagementResponse(.reassignmentNotSupported, tag: tag) }
        guard connection.endReason == nil else { return }
        // The LUN is reserved in this request (section 11.5.4).
        if let slot = slot(ofTag: header.referencedTaskTag), !tasks[slot].isAbandoned {
            guard let entry = lost.first(where: { $0.key == tasks[slot].connection }), entry.isLoggedOut else {
                return connection.sendManagementResponse(.taskStillAllegiant, tag: tag)
            }
            // The answer comes before what it announces.
            connection.sendReassigned(tag)
            return resume(slot, on: connection, header.expDataSN)
        }
        for entry in lost {
            guard let retention = entry.retention, let task = retention.task(header.referencedTaskTag) else { continue }
            guard entry.isLoggedOut else { return connection.sendManagementResponse(.taskStillAllegiant, tag: tag) }
            guard let slot = restore(task) else { return connection.sendManagementResponse(.rejected, tag: tag) }
            tasks[slot].dataBuffer = retention.take(header.referencedTaskTag)
            connection.sendReassigned(tag)
            return resume(slot, on: connection, header.expDataSN)
        }
        connection.sendManagementResponse(.taskDoesNotExist, tag: tag)
    }

    private func resume(_ slot: Int, on connection: TargetConnection, _ expDataSN: UInt32) {
        guard connection.endReason == nil else { return }
        let task = tasks + slot
        task.pointee.connection = connection.key
        switch task.pointee.state {
        case .receiving: connection.solicitAgain(slot, expDataSN)
        case .responding:
            task.pointee.snackTag = 0
            // 0, or what makes no sense: as far as was confirmed before.
            _ = task.pointee.confirm(expDataSN, burst: UInt32(parameters.maxBurstByteCount))
            task.pointee.rewind()
            connection.enqueueResponse(slot)
        case .executing, .free: break
        }
    }
}
