public import Timebase
import SCSI

// The loss of one connection of a session that goes on.
//
// What the target may still do with the lost connection's tasks decides all. A login with the same
// connection ID, or a Logout of it over another connection, ends the old connection at the target
// (RFC 7143 sections 6.3.4 and 11.14). From then on:
//
// - Below ErrorRecoveryLevel 2 its tasks are terminated: see InitiatorSessionSettlement.swift.
// - At level 2 they wait for a new allegiance: see InitiatorSessionReassignment.swift.
extension InitiatorSession {
    /// How soon a target is asked again whose ExpCmdSN has not come as far as the next hole.
    static var askAgainPause: Nanoseconds { Nanoseconds(.milliseconds(5)) }
    /// How soon the owner is asked for a transport again.
    static var wantAgainPause: Nanoseconds { Nanoseconds(.milliseconds(100)) }

    private static func moment(_ now: Instant, plusSeconds seconds: UInt16) -> Instant {
        seconds == 0 ? now : now + Nanoseconds(.seconds(Int(seconds)))
    }

    /// Whether tasks may wait so long for their new connection. It is the target that chooses Time2Wait, up to 18 hours; meanwhile
    /// other paths could have carried them.
    private func isWorthWaiting(_ time2Wait: UInt16) -> Bool {
        Duration.seconds(Int(time2Wait)) <= max(settings.silenceTimeout * 2, .seconds(4))
    }

    // MARK: the loss

    /// Whether the session can go on without this connection.
    func canLose(_ c: ConnectionIndex, _ reason: ConnectionFailure) -> Bool {
        guard case .loggedIn = state, connections[c.rawValue].phase != .closed else { return false }
        switch reason {
        case .violation, .logoutRefused, .login, .redirected, .recoveryRefused: return false
        case .rejected(_, let reason) where reason != .dataDigestError: return false
        default: break
        }
        switch lossHandling {
        case .endsSession: return false
        case .reinstatesConnection: return operationalConnection(except: c.rawValue) != nil
        case .reassignsTasks: return true
        }
    }

    /// Takes the connection's tasks off it. Buffers stay with the session until ``beginRecovery(_:at:)``.
    mutating func loseConnection(_ c: ConnectionIndex, _ reason: ConnectionFailure) {
        let connection = connections + c.rawValue
        if connection.pointee.phase == .leaving { leavingCount -= 1 }
        var recovery = ConnectionRecovery(reason: reason, connectionID: connection.pointee.connectionID)
        recovery.unreadPDUCount = loseTasks(of: c)
        // Lost anew while the tasks of the time before were being settled: it begins again for all of them.
        if let old = connection.pointee.recovery { recovery.takeOver(from: old) } else { recoveryCount += 1 }
        if let ask = connection.pointee.recovery?.askSlot { connections[Int(table.slots[ask].connection)].owedCount -= 1 }
        connection.pointee.phase = .closed
        connection.pointee.login = nil
        connection.pointee.needsFreshStream = true
        connection.pointee.liveness = Liveness()
        connection.pointee.decoder.discard()
        connection.pointee.placingSlot = nil
        connection.pointee.commandCount = 0
        connection.pointee.owedCount = 0
        connection.pointee.recovery = recovery
        lateTags.removeAll { $0.connection == c.rawValue }
        events.append(.connectionLost(c, reason))
    }

    /// Returns how many PDUs the target may not have read.
    private mutating func loseTasks(of c: ConnectionIndex) -> Int {
        let connection = connections + c.rawValue
        while connection.pointee.firstBurst != CommandTable.none {
            let index = connection.pointee.firstBurst
            let burst = bursts.bursts[Int(index)]
            connection.pointee.firstBurst = burst.next
            // Asked for, and never sent.
            let task = table.slots + Int(burst.slot)
            task.pointee.solicitedEnd = min(task.pointee.solicitedEnd, burst.offset)
            bursts.release(index)
        }
        connection.pointee.lastBurst = CommandTable.none
        var unread = 0
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            guard Int(task.pointee.connection) == c.rawValue else { continue }
            task.pointee.pendingBursts = 0
            task.pointee.outstandingR2Ts = 0
            if task.pointee.kind == .lost, task.pointee.lost == .aborting || task.pointee.lost == .ended {
                task.pointee.lost = .live
            }
            guard task.pointee.kind == .command else { continue }
            let isWrite = task.pointee.direction == .write
            let offered = connection.pointee.output.offeredPosition
            if isWrite, offered < task.pointee.dataEndPosition {
                task.pointee.solicitedEnd = max(task.pointee.solicitedEnd - Int(task.pointee.dataEndPosition - offered), 0)
            }
            task.pointee.lost = !wasSent(task) ? .unsent : isWrite ? .live : .harmless
            task.pointee.kind = .lost
            if isWrite { unread += task.pointee.byteCount / connection.pointee.maxSendDataSegmentByteCount }
            unread += 1
        }
        loseControls(of: c)
        for number in openNumbers where number.connection == c.rawValue { unread += 1 }
        return unread
    }

    /// Requests of the connection that carry no SCSI command.
    mutating func loseControls(of c: ConnectionIndex) {
        for slot in 0..<table.usedCapacity where Int(table.slots[slot].connection) == c.rawValue {
            let task = table.slots[slot]
            switch task.kind {
            case .free, .command, .draining, .lost: continue
            case .taskManagement where task.purpose == .owner:
                events.append(.taskManagementAbandoned(token: task.token))
            case .taskManagement:
                if let lost = table.slot(forTag: task.referencedTaskTag), table.slots[lost].kind == .lost {
                    table.slots[lost].lost = .live
                }
            case .control:
                if text?.slot == slot { abandonText() }
            case .ping: if !openNumbers.isEmpty { forgetFiller(slot) }
            }
            table.release(slot)
            forget(slot, of: task)
        }
    }

    /// A recovery of another connection was carried by the one that is lost: it goes on elsewhere.
    private mutating func forget(_ slot: Int, of task: TaskSlot) {
        guard recoveryCount > 0 else { return }
        for index in 0..<connectionCount {
            guard let recovery = connections[index].recovery, recovery.askSlot == slot || recovery.fillSlot == slot else { continue }
            if recovery.askSlot == slot { connections[index].recovery!.askSlot = nil }
            if recovery.fillSlot == slot { connections[index].recovery!.fillSlot = nil }
            if let carrier = connections[index].recovery!.fillCarrier, carrier != index {
                connections[index].recovery!.heldUpBy = carrier
            }
            connections[index].recovery!.fillCarrier = nil
        }
        if task.kind == .control, task.purpose == .recoveryLogout {
            connections[Int(task.subject)].recovery?.stage = .reinstating
            connections[Int(task.subject)].recovery?.isWanted = false
        }
    }

    // MARK: recovery

    /// The owner has closed the transport of a lost connection: what only waited for that is handed out,
    /// and its recovery begins. To be called once for each `connectionLost`.
    public mutating func beginRecovery(_ c: ConnectionIndex, at now: Instant) {
        guard c.rawValue >= 0, c.rawValue < connectionCount, !isOver,
            connections[c.rawValue].recovery?.isLost == true
        else { return }
        releaseAllDrained(of: c)
        let connection = connections + c.rawValue
        connection.pointee.recovery!.deadline = now + timing.recovery
        connection.pointee.recovery!.stage = .reinstating
        if connection.pointee.recovery!.isLoggedOut {
            connection.pointee.recovery!.stage = .settling
            connection.pointee.recovery!.deadline = now + timing.login
        } else if case .reassignsTasks = lossHandling, case .loggedIn(let parameters) = state {
            var time2Wait = UInt16(clamping: parameters.defaultTime2Wait)
            if case .droppedByTarget(let seconds, _) = connection.pointee.recovery!.reason { time2Wait = seconds }
            guard isWorthWaiting(time2Wait) else { return failSession(connection.pointee.recovery!.reason) }
            connection.pointee.recovery!.notBefore = Self.moment(now, plusSeconds: time2Wait)
            connection.pointee.recovery!.deadline = Self.moment(now, plusSeconds: time2Wait) + timing.recovery
        }
        if plantedMistake == .handsBackEarly { return handBack(c.rawValue) }
        advanceRecoveries(at: now)
    }

    /// The transport is gone, so nothing refers to the buffers of commands whose outcome is known.
    private mutating func releaseAllDrained(of c: ConnectionIndex) {
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            guard table.slots[slot].kind == .draining, Int(table.slots[slot].connection) == c.rawValue else { continue }
            completions.append(table.slots[slot].completion)
            table.release(slot)
        }
        connections[c.rawValue].drainingCount = 0
    }

    /// Whether a transport that was opened for a lost connection is of use now.
    func mayOpen(_ recovery: ConnectionRecovery?) -> Bool {
        guard let recovery else { return true }
        switch recovery.stage {
        case .lost, .loggingOut, .waiting: return false
        case .reinstating, .settling, .reassigning: return true
        }
    }

    /// Takes every recovery as far as it goes.
    mutating func advanceRecoveries(at now: Instant) {
        for index in 0..<connectionCount where !isOver { advanceRecovery(of: index, at: now) }
    }

    /// - Parameter named: the CmdSN that the target was just heard to wait for, in answer to this recovery's own question.
    mutating func advanceRecovery(of index: Int, naming named: UInt32? = nil, at now: Instant) {
        guard let recovery = connections[index].recovery, case .loggedIn = state else { return }
        switch recovery.stage {
        case .lost, .loggingOut: return
        case .reinstating: endOldConnection(of: index, at: now)
        case .waiting:
            guard now >= recovery.notBefore else { return }
            connections[index].recovery!.stage = .reassigning
            reassignTasks(of: index, at: now)
        case .settling: settle(index, naming: named, at: now)
        case .reassigning: reassignTasks(of: index, at: now)
        }
    }

    /// Below level 2 a login is preferred: it brings the connection back in the same stroke, and some
    /// targets (tgt) take any Logout for that of the connection that carries it. At level 2 the others
    /// must not wait for a network that may be gone.
    private mutating func endOldConnection(of index: Int, at now: Instant) {
        let connection = connections + index
        guard now >= connection.pointee.recovery!.notBefore, connection.pointee.phase == .closed else { return }
        if case .reassignsTasks = lossHandling, operationalConnection(except: index) != nil {
            if plantedMistake == .reassignsWithoutLogout {
                connection.pointee.recovery!.stage = .reassigning
                return reassignTasks(of: index, at: now)
            }
            logOutLost(index, at: now)
        } else if !connection.pointee.recovery!.isWanted {
            connection.pointee.recovery!.isWanted = true
            events.append(.connectionWanted(ConnectionIndex(rawValue: index)))
        }
    }

    /// Ends the lost connection by a Logout on another one.
    private mutating func logOutLost(_ index: Int, at now: Instant) {
        guard let via = operationalConnection(except: index) else {
            return failSession(connections[index].recovery!.reason)
        }
        guard canSendControl(on: ConnectionIndex(rawValue: via)) else {
            connections[index].recovery!.askAgainAt = now + Self.askAgainPause
            return
        }
        let reason: LogoutReason
        if case .reassignsTasks = lossHandling { reason = .removeConnectionForRecovery } else { reason = .closeConnection }
        sendLogout(reason, of: index, via: via, at: now)
    }

    private mutating func sendLogout(_ reason: LogoutReason, of index: Int, via: Int, at now: Instant) {
        let carrier = connections + via
        let slot = table.takeControl(.control)
        table.slots[slot].connection = UInt16(truncatingIfNeeded: via)
        table.slots[slot].purpose = .recoveryLogout
        table.slots[slot].subject = UInt16(truncatingIfNeeded: index)
        carrier.pointee.taskBegan(at: now)
        carrier.pointee.enqueue(.logoutRequest(
            reason, connectionID: connections[index].recovery!.connectionID, tag: table.tag(of: slot), cmdSN: cmdSN,
            expStatSN: carrier.pointee.expStatSN))
        connections[index].recovery!.stage = .loggingOut(via: via)
        connections[index].recovery!.deadline = now + timing.login
        connections[index].recovery!.askAgainAt = .distantFuture
    }

    /// A transport could not be opened, or its login failed.
    mutating func reinstatementFailed(_ c: ConnectionIndex, _ reason: ConnectionFailure, at now: Instant) {
        let connection = connections + c.rawValue
        guard let recovery = connection.pointee.recovery, recovery.isReinstating else { return }
        if operationalConnection(except: c.rawValue) != nil {
            connection.pointee.recovery!.hasFailedLogin = false
            return logOutLost(c.rawValue, at: now)
        }
        connection.pointee.recovery!.isWanted = false
        connection.pointee.recovery!.notBefore = now + Self.wantAgainPause
        connection.pointee.recovery!.hasFailedLogin = false
    }

    /// A login with the lost connection's ID succeeded: the old connection is ended.
    mutating func reinstated(_ c: ConnectionIndex, _ login: LoginResult, at now: Instant) {
        let connection = connections + c.rawValue
        guard connection.pointee.recovery!.isReinstating else { return }
        connection.pointee.recovery!.deadline = now + timing.login
        if case .reassignsTasks = lossHandling {
            connection.pointee.recovery!.stage = .reassigning
        } else {
            connection.pointee.recovery!.stage = .settling
            // MaxCmdSN never goes back (section 4.2.2.1). Where it seems to, the target (tgt) answers logins
            // without a look at the session, and so does not end the old connection either: it reads on
            // there to the end of what came. It serves its sockets in turns, a PDU each; so after as many
            // answered pings it has.
            if SerialNumber.isBefore(login.maxCmdSN, maxCmdSN) {
                connection.pointee.recovery!.barrier = min(connection.pointee.recovery!.unreadPDUCount + 1, 256)
            }
        }
        advanceRecoveries(at: now)
    }

    /// The Logout of a lost connection was answered.
    mutating func loggedOut(_ index: Int, _ response: LogoutResponse, time2Wait: UInt16, at now: Instant) {
        let connection = connections + index
        guard let recovery = connection.pointee.recovery, case .loggingOut = recovery.stage else { return }
        switch response {
        case .closed: break
        // Nothing is left of it at the target, tasks included.
        case .connectionIDNotFound: connection.pointee.recovery!.isLoggedOut = true
        default: return failSession(.logoutRefused(response))
        }
        if case .reassignsTasks = lossHandling, response == .closed {
            guard isWorthWaiting(time2Wait) else { return failSession(recovery.reason) }
            connection.pointee.recovery!.stage = .waiting
            connection.pointee.recovery!.barrier = 0
            connection.pointee.recovery!.notBefore = Self.moment(now, plusSeconds: time2Wait)
            connection.pointee.recovery!.deadline = Self.moment(now, plusSeconds: time2Wait) + timing.login
        } else {
            connection.pointee.recovery!.stage = .settling
            connection.pointee.recovery!.deadline = now + timing.login
        }
        advanceRecoveries(at: now)
    }

    // MARK: time

    var recoveryDeadline: Instant {
        var deadline = Instant.distantFuture
        for index in 0..<connectionCount {
            guard let recovery = connections[index].recovery, !recovery.isLost else { continue }
            deadline = min(deadline, min(recovery.deadline, recovery.askAgainAt))
            if recovery.hasFailedLogin { deadline = .zero }
            switch recovery.stage {
            case .waiting: deadline = min(deadline, recovery.notBefore)
            case .reinstating where !recovery.isWanted && recovery.askAgainAt == .distantFuture: deadline = min(deadline, recovery.notBefore)
            default: break
            }
        }
        return deadline
    }

    mutating func recoveryTimerFired(at now: Instant) {
        for index in 0..<connectionCount {
            guard !isOver else { return }
            guard let recovery = connections[index].recovery, !recovery.isLost else { continue }
            if recovery.hasFailedLogin {
                connections[index].recovery!.hasFailedLogin = false
                reinstatementFailed(ConnectionIndex(rawValue: index), recovery.reason, at: now)
            } else if now >= recovery.deadline {
                recoveryTimedOut(index, recovery, at: now)
            } else if recovery.isReinstating, now >= recovery.askAgainAt {
                logOutLost(index, at: now)
            } else {
                // A deadline that has passed must not be named again.
                if now >= recovery.askAgainAt { connections[index].recovery!.askAgainAt = .distantFuture }
                advanceRecovery(of: index, at: now)
            }
        }
    }

    /// The connection on which an answer is waited for.
    private func carrier(of recovery: ConnectionRecovery) -> Int? {
        if case .loggingOut(let via) = recovery.stage { return via }
        return recovery.askSlot.map { Int(table.slots[$0].connection) }
    }

    /// The number that the target waits for is another lost connection's to fill, whose own deadline bounds how long that takes:
    /// the target lets nothing of this one through before (RFC 7143 section 4.2.2.1).
    private func waitsForAnother(_ index: Int) -> Bool {
        guard case .settling = connections[index].recovery?.stage else { return false }
        return (0..<connectionCount).contains {
            $0 != index && connections[$0].recovery != nil && firstHole(of: $0) == expCmdSN
        }
    }

    private mutating func recoveryTimedOut(_ index: Int, _ recovery: ConnectionRecovery, at now: Instant) {
        guard recovery.isReinstating, operationalConnection(except: index) != nil else {
            if waitsForAnother(index) {
                connections[index].recovery!.deadline = now + timing.login
                return
            }
            // The connection that was to carry the word may be the silent one: another one carries it then.
            guard let carrier = carrier(of: recovery), operationalConnection(except: carrier) != nil else {
                return failSession(recovery.reason)
            }
            connections[index].recovery!.deadline = now + timing.login
            return failConnection(ConnectionIndex(rawValue: carrier), .silent)
        }
        if connections[index].phase == .loggingIn { failConnection(ConnectionIndex(rawValue: index), .loginTimeout) }
        connections[index].recovery!.hasFailedLogin = false
        connections[index].recovery!.deadline = now + timing.login
        logOutLost(index, at: now)
    }
}
