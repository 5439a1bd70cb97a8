import SCSI
import Timebase

// The tasks of a connection that is ended at the target, below ErrorRecoveryLevel 2: they are terminated, and commands that
// the target had received but not delivered are discarded (RFC 7143 section 11.14). Their CmdSNs, and those of commands that
// never arrived, are holes that hold up every later command of the session. Each is filled by a NOP-Out with that CmdSN (section
// 7.2.1: nothing but the plugging of gaps may reuse a CmdSN), one after the other and only while the target names it, in
// answer to an immediate request, as the ExpCmdSN that it waits for, so that no target ever sees one twice. Only when every
// hole is filled and ABORT TASK was answered for every write that was sent, the commands go back to the owner: from then on
// nothing of them can land.
extension InitiatorSession {
    // MARK: asking

    /// The connection that carries what has to be said about a lost one.
    func carrier(for index: Int) -> Int? {
        connections[index].phase == .fullFeature ? index : operationalConnection(except: index)
    }

    /// Sends an immediate NOP-Out whose answer brings the target's present ExpCmdSN; before it, in the same breath, the
    /// NOP-Out that fills `hole`, which a target that has the number after all does not answer. False: there is no room now.
    mutating func ask(for index: Int, on carrier: Int, filling hole: UInt32? = nil, at now: Instant) -> Bool {
        let c = ConnectionIndex(rawValue: carrier)
        let hasRoom = canSendControl(on: c)
            && (hole == nil || table.hasRoomForControls(2) && connections[carrier].hasRoomForControl(dataByteCount: 64))
        guard hasRoom else {
            connections[index].recovery!.askAgainAt = now + Self.askAgainPause
            return false
        }
        if let hole { fill(hole, for: index, on: c) }
        connections[carrier].taskBegan(at: now)
        if plantedMistake == .confirmsStatusEarly { connections[carrier].expStatSN &+= 1 }
        connections[index].recovery!.askSlot = enqueueNOPOut(on: c, cmdSN: cmdSN, isImmediate: true)
        return true
    }

    private mutating func fill(_ hole: UInt32, for index: Int, on c: ConnectionIndex) {
        connections[index].recovery!.fillCarrier = c.rawValue
        if let filler = connections[index].recovery!.fillSlot {
            sendFillerAgain(filler)
        } else {
            connections[index].recovery!.fillSlot = enqueueNOPOut(on: c, cmdSN: hole, isImmediate: false)
        }
    }

    /// A NOP-Out was answered on `c`; `named` is the ExpCmdSN of the answer.
    mutating func recoveryAnswered(_ slot: Int, naming named: UInt32, on c: ConnectionIndex, at now: Instant) {
        for index in 0..<connectionCount {
            guard let recovery = connections[index].recovery else { continue }
            if recovery.fillSlot == slot {
                // What came of it, the answer behind it says.
                connections[index].recovery!.fillSlot = nil
                return
            }
            guard recovery.askSlot == slot else { continue }
            connections[c.rawValue].owedCount -= 1
            connections[index].recovery!.askSlot = nil
            if recovery.barrier > 0 { connections[index].recovery!.barrier -= 1 }
            if recovery.fillSlot.map({ SerialNumber.isBefore(table.slots[$0].cmdSN, expCmdSN) }) ?? true {
                connections[index].recovery!.fillSlot = nil
                connections[index].recovery!.fillCarrier = nil
            }
            return advanceRecovery(of: index, naming: named, at: now)
        }
    }

    // MARK: settling (below level 2)

    mutating func settle(_ index: Int, naming named: UInt32?, at now: Instant) {
        guard let recovery = connections[index].recovery, recovery.askSlot == nil,
            let carrier = recovery.fillCarrier ?? carrier(for: index), !isHeldUp(index)
        else { return }
        if connections[index].recovery!.barrier > 0 {
            _ = ask(for: index, on: carrier, at: now)
        } else if let hole = firstHole(of: index), plantedMistake != .leavesGap {
            close(hole, of: index, on: carrier, naming: named, at: now)
        } else if abortWrites(of: index, on: carrier, at: now) {
            handBack(index)
        }
    }

    /// Fills a hole that the target has just named, in answer to an immediate request. What its other PDUs say is not enough: an
    /// ExpCmdSN may be of a moment in which commands that it has were still being let through one by one.
    private mutating func close(_ hole: UInt32, of index: Int, on carrier: Int, naming named: UInt32?, at now: Instant) {
        let recovery = connections[index].recovery!
        // Where no PDU is dropped for its digest, what was sent before and is not answered is on its way.
        if named == hole, expCmdSN == hole, recovery.fillSlot == nil || connections[carrier].recoversPDUs {
            _ = ask(for: index, on: carrier, filling: hole, at: now)
            return
        }
        // Others' commands come first; they may be on their way, or be holes of another loss.
        let isNews = hole == expCmdSN && named == nil && recovery.fillSlot == nil
        guard isNews || recovery.askAgainAt == .distantFuture || now >= recovery.askAgainAt else { return }
        if ask(for: index, on: carrier, at: now) { connections[index].recovery!.askAgainAt = now + Self.askAgainPause }
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

    /// The first CmdSN that a lost connection carried and that the target has not taken.
    func firstHole(of index: Int) -> UInt32? {
        let open = openNumbers.isEmpty ? nil : firstOpenNumber(of: index)
        guard let command = firstCommandHole(of: index) else { return open }
        guard let open, SerialNumber.isBefore(open, command) else { return command }
        return open
    }

    private func firstCommandHole(of index: Int) -> UInt32? {
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
        watchAnswer(of: slot, at: now)
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
        if request.purpose == .reassignment { return reassigned(request, response, at: now) }
        switch response {
        // That it does not exist is what a Logout of its connection makes of a task.
        case .functionComplete, .taskDoesNotExist, .lunDoesNotExist: break
        default: return failSession(.recoveryRefused(response))
        }
        let slot = table.slot(forTag: request.referencedTaskTag)
        if request.purpose == .orphanAbort {
            // Its status may have come meanwhile.
            if let slot, table.slots[slot].kind == .command { handBackOrphan(slot) }
            return
        }
        if let slot, table.slots[slot].kind == .lost { table.slots[slot].lost = .ended }
        advanceRecovery(of: Int(request.subject), at: now)
    }

    /// The target has nothing of the lost connection any more: its commands go back, in CmdSN order.
    mutating func handBack(_ index: Int) {
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
}
