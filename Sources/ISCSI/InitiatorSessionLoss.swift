public import Timebase
import SCSI

// The loss of one connection of a session that goes on.
//
// What the target may still do with the lost connection's tasks decides all. A login with the same
// connection ID, or a Logout of it over another connection, ends the old connection at the target
// (RFC 7143 sections 6.3.4 and 11.14). From then on:
//
// - Below ErrorRecoveryLevel 2 its tasks are terminated, and commands that it had received but not
//   delivered are discarded (section 11.14): their CmdSNs, and those of commands that never arrived, are
//   holes that hold up every later command of the session. Each is filled by a NOP-Out with that CmdSN
//   (section 7.2.1: nothing but the plugging of gaps may reuse a CmdSN), one after the other and only
//   while the target names it as the ExpCmdSN that it waits for, so that no target ever sees
//   one twice. Only when every hole is filled and ABORT TASK was answered for every write that was
//   sent, the commands go back to the owner: from then on nothing of them can land.
// - At level 2 they wait for a new allegiance: see InitiatorSessionReassignment.swift.
extension InitiatorSession {
    /// How soon a target is asked again whose ExpCmdSN has not come as far as the next hole.
    static var askAgainPause: Nanoseconds { Nanoseconds(.milliseconds(5)) }
    /// How soon the owner is asked for a transport again.
    static var wantAgainPause: Nanoseconds { Nanoseconds(.milliseconds(100)) }

    private static func moment(_ now: Instant, plusSeconds seconds: UInt16) -> Instant {
        seconds == 0 ? now : now + Nanoseconds(.seconds(Int(seconds)))
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
        recovery.heldUpBy = connection.pointee.recovery?.heldUpBy
        // Lost anew while the tasks of the time before were being settled: it begins again for all of them.
        if connection.pointee.recovery == nil { recoveryCount += 1 }
        connection.pointee.phase = .closed
        connection.pointee.login = nil
        connection.pointee.needsFreshStream = true
        connection.pointee.liveness = Liveness()
        connection.pointee.decoder.discard()
        connection.pointee.placingSlot = nil
        connection.pointee.commandCount = 0
        connection.pointee.owedCount = 0
        connection.pointee.recovery = recovery
        events.append(.connectionLost(c, reason))
    }

    /// Returns how many PDUs the target may not have read.
    private mutating func loseTasks(of c: ConnectionIndex) -> Int {
        let connection = connections + c.rawValue
        while connection.pointee.firstBurst != CommandTable.none {
            let index = connection.pointee.firstBurst
            connection.pointee.firstBurst = bursts.bursts[Int(index)].next
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
            task.pointee.lost = !wasSent(task) ? .unsent : isWrite ? .live : .harmless
            task.pointee.kind = .lost
            if isWrite { unread += task.pointee.byteCount / connection.pointee.maxSendDataSegmentByteCount }
            unread += 1
        }
        loseControls(of: c)
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
            case .ping: break
            }
            table.release(slot)
            forget(slot, of: task)
        }
    }

    /// A recovery of another connection was carried by the one that is lost: it goes on elsewhere.
    private mutating func forget(_ slot: Int, of task: TaskSlot) {
        guard recoveryCount > 0 else { return }
        for index in 0..<connectionCount {
            guard connections[index].recovery?.askSlot == slot else { continue }
            connections[index].recovery!.askSlot = nil
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

    private mutating func advanceRecovery(of index: Int, at now: Instant) {
        guard let recovery = connections[index].recovery, case .loggedIn = state else { return }
        switch recovery.stage {
        case .lost, .loggingOut: return
        case .reinstating: endOldConnection(of: index, at: now)
        case .waiting:
            guard now >= recovery.notBefore else { return }
            connections[index].recovery!.stage = .reassigning
            reassignTasks(of: index, at: now)
        case .settling: settle(index, at: now)
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

    // MARK: asking

    /// The connection that carries what has to be said about a lost one.
    func carrier(for index: Int) -> Int? {
        connections[index].phase == .fullFeature ? index : operationalConnection(except: index)
    }

    /// Sends a NOP-Out whose answer brings the target's present ExpCmdSN. False: there is no room now.
    mutating func ask(for index: Int, on carrier: Int, filling hole: UInt32? = nil, at now: Instant) -> Bool {
        guard canSendControl(on: ConnectionIndex(rawValue: carrier)) else {
            connections[index].recovery!.askAgainAt = now + Self.askAgainPause
            return false
        }
        connections[carrier].taskBegan(at: now)
        if plantedMistake == .confirmsStatusEarly { connections[carrier].expStatSN &+= 1 }
        connections[index].recovery!.fillCarrier = hole == nil ? nil : carrier
        connections[index].recovery!.askSlot = enqueueNOPOut(
            on: ConnectionIndex(rawValue: carrier), cmdSN: hole ?? cmdSN, isImmediate: hole == nil)
        return true
    }

    /// A NOP-Out was answered on `c`.
    mutating func recoveryAnswered(_ slot: Int, on c: ConnectionIndex, at now: Instant) {
        for index in 0..<connectionCount where connections[index].recovery?.askSlot == slot {
            connections[c.rawValue].owedCount -= 1
            connections[index].recovery!.askSlot = nil
            connections[index].recovery!.fillCarrier = nil
            if connections[index].recovery!.barrier > 0 { connections[index].recovery!.barrier -= 1 }
            return advanceRecovery(of: index, at: now)
        }
    }

    // MARK: settling (below level 2)

    private mutating func settle(_ index: Int, at now: Instant) {
        guard let recovery = connections[index].recovery, recovery.askSlot == nil, let carrier = carrier(for: index),
            !isHeldUp(index)
        else { return }
        if connections[index].recovery!.barrier > 0 {
            _ = ask(for: index, on: carrier, at: now)
            return
        }
        if let hole = firstHole(of: index), plantedMistake != .leavesGap {
            if hole == expCmdSN {
                _ = ask(for: index, on: carrier, filling: hole, at: now)
            } else if recovery.askAgainAt == .distantFuture || now >= recovery.askAgainAt {
                // Others' commands come first; they may be on their way, or be holes of another loss.
                if ask(for: index, on: carrier, at: now) {
                    connections[index].recovery!.askAgainAt = now + Self.askAgainPause
                }
            }
            return
        }
        if abortWrites(of: index, on: carrier, at: now) { handBack(index) }
    }

    /// The filling of a hole may still lie unread in a connection that was lost since: sent once more, it would be a
    /// duplicate, which the target does not answer (section 4.2.2.1).
    private mutating func isHeldUp(_ index: Int) -> Bool {
        guard let other = connections[index].recovery?.heldUpBy else { return false }
        switch connections[other].recovery?.stage {
        case .lost, .reinstating, .loggingOut: return true
        case .waiting, .settling, .reassigning, nil: break
        }
        connections[index].recovery!.heldUpBy = nil
        connections[index].recovery!.barrier = max(connections[index].recovery!.barrier, 1)
        return false
    }

    /// The first CmdSN of a lost connection's commands that the target has not taken.
    private func firstHole(of index: Int) -> UInt32? {
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            if task.pointee.kind == .lost, Int(task.pointee.connection) == index,
                SerialNumber.isAtMost(expCmdSN, task.pointee.cmdSN)
            {
                return task.pointee.cmdSN
            }
        }
        return nil
    }

    /// Makes sure of each write that was sent (RFC 7143 section 11.5.1): true once that is done.
    private mutating func abortWrites(of index: Int, on carrier: Int, at now: Instant) -> Bool {
        var isDone = true
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            guard table.slots[slot].kind == .lost, Int(table.slots[slot].connection) == index else { continue }
            switch table.slots[slot].lost {
            case .unsent, .harmless, .ended: continue
            case .aborting: isDone = false
            case .live:
                isDone = false
                guard canSendControl(on: ConnectionIndex(rawValue: carrier)) else {
                    connections[index].recovery!.askAgainAt = now + Self.askAgainPause
                    return false
                }
                sendTaskManagement(.abortTask, for: slot, purpose: .recoveryAbort, on: carrier, at: now)
                table.slots[slot].lost = .aborting
            }
        }
        return isDone
    }

    /// Sends a function about one task, on whatever connection. ``canSendControl(on:)`` must have said yes.
    mutating func sendTaskManagement(
        _ function: TaskManagementFunction, for command: Int, purpose: ControlPurpose, on carrier: Int, at now: Instant
    ) {
        let task = table.slots[command]
        let connection = connections + carrier
        let slot = table.takeControl(.taskManagement)
        table.slots[slot].function = function
        table.slots[slot].purpose = purpose
        table.slots[slot].subject = task.connection
        table.slots[slot].connection = UInt16(truncatingIfNeeded: carrier)
        table.slots[slot].referencedTaskTag = table.tag(of: command)
        connection.pointee.taskBegan(at: now)
        // RefCmdSN belongs to ABORT TASK, ExpDataSN to TASK REASSIGN (sections 11.5.5 and 11.5.6); the LUN is
        // reserved in the latter.
        let isAbort = function == .abortTask
        connection.pointee.enqueue(.taskManagementRequest(
            function, lun: isAbort ? task.lun : LogicalUnitNumber(rawValue: 0), tag: table.tag(of: slot),
            referencedTaskTag: table.tag(of: command), refCmdSN: isAbort ? task.cmdSN : 0,
            expDataSN: !isAbort && task.direction == .read ? task.expectedDataSN : 0, cmdSN: cmdSN,
            expStatSN: connection.pointee.expStatSN))
    }

    /// An ABORT TASK or TASK REASSIGN of a recovery was answered.
    mutating func recoveryAnswered(_ request: TaskSlot, _ response: TaskManagementResponse, at now: Instant) {
        if request.purpose == .reassignment { return reassigned(request, response) }
        switch response {
        // That it does not exist is what a Logout of its connection makes of a task.
        case .functionComplete, .taskDoesNotExist, .lunDoesNotExist: break
        default: return failSession(.recoveryRefused(response))
        }
        if let slot = table.slot(forTag: request.referencedTaskTag), table.slots[slot].kind == .lost {
            table.slots[slot].lost = .ended
        }
        advanceRecovery(of: Int(request.subject), at: now)
    }

    /// The target has nothing of the lost connection any more: its commands go back, in CmdSN order.
    private mutating func handBack(_ index: Int) {
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            guard task.pointee.kind == .lost, Int(task.pointee.connection) == index else { continue }
            events.append(.commandLost(token: task.pointee.token, wasSent: task.pointee.lost != .unsent))
            table.release(slot)
        }
        endRecovery(of: index)
    }

    mutating func endRecovery(of index: Int) {
        connections[index].recovery = nil
        recoveryCount -= 1
        events.append(.connectionRecovered(ConnectionIndex(rawValue: index)))
        if refusedCommand { reportOpenWindow() }
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

    private mutating func recoveryTimedOut(_ index: Int, _ recovery: ConnectionRecovery, at now: Instant) {
        guard recovery.isReinstating, operationalConnection(except: index) != nil else {
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
