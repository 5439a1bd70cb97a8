import SCSI
import Timebase

// ErrorRecoveryLevel 2: the tasks of a connection that was logged out for recovery go on, on others
// (RFC 7143 sections 7.1.4.3 and 7.2.2).
extension InitiatorSession {
    /// Moves the tasks, in CmdSN order, to the connections that are there, in turn.
    ///
    /// A command that the target has taken (its CmdSN lies before ExpCmdSN) is reassigned. One that it has
    /// not is a hole, and is filled with the command itself, as it was, on another connection: allowed
    /// because the old one is logged out (section 7.2.1).
    mutating func reassignTasks(of index: Int, at now: Instant) {
        guard let recovery = connections[index].recovery, recovery.askSlot == nil, let first = carrier(for: index) else {
            return
        }
        if recovery.barrier > 0 {
            _ = ask(for: index, on: first, at: now)
            return
        }
        if plantedMistake != .leavesGap, !openNumbers.isEmpty, !fillOpenNumbers(of: index, on: first) {
            connections[index].recovery!.askAgainAt = now + Self.askAgainPause
            return
        }
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            guard table.slots[slot].kind == .lost, Int(table.slots[slot].connection) == index else { continue }
            guard let carrier = nextOpenConnection(), connections[carrier].hasRoomForCommand, table.hasRoomForControl else {
                connections[index].recovery!.askAgainAt = now + Self.askAgainPause
                return
            }
            if SerialNumber.isAtMost(expCmdSN, table.slots[slot].cmdSN) {
                if plantedMistake == .leavesGap { continue }
                sendAgain(slot, on: carrier, at: now)
            } else {
                sendTaskManagement(.taskReassign, for: slot, purpose: .reassignment, on: carrier, at: now)
                allege(slot, to: carrier, at: now)
                table.slots[slot].isReassigned = true
                // Its status comes again, behind data that may be cut differently.
                table.slots[slot].isHeld = false
                table.slots[slot].askedDataSN = 0xFFFF_FFFF
            }
        }
        endRecovery(of: index)
    }

    private mutating func nextOpenConnection() -> Int? {
        for step in 0..<connectionCount {
            let index = (nextCarrier + step) % connectionCount
            guard connections[index].phase == .fullFeature else { continue }
            nextCarrier = index + 1
            return index
        }
        return nil
    }

    /// The task belongs to this connection from now on.
    private mutating func allege(_ slot: Int, to carrier: Int, at now: Instant) {
        let task = table.slots + slot
        let connection = connections + carrier
        task.pointee.kind = .command
        task.pointee.connection = UInt16(truncatingIfNeeded: carrier)
        task.pointee.dataEndPosition = 0
        task.pointee.wasSentBefore = task.pointee.lost != .unsent
        task.pointee.startPosition = connection.pointee.output.queuedPosition
        connection.pointee.taskBegan(at: now)
        // While it was lost it was not looked at.
        if !task.pointee.isOverdue { overdueCheckAt = min(overdueCheckAt, task.pointee.submittedAt + timing.command) }
        if connection.pointee.commandCount == 0 { connection.pointee.liveness.lastProgressAt = now }
        connection.pointee.commandCount += 1
    }

    /// The command's PDU once more, with its own tag and CmdSN.
    private mutating func sendAgain(_ slot: Int, on carrier: Int, at now: Instant) {
        let kept = retained![slot]
        allege(slot, to: carrier, at: now)
        enqueueAgain(slot, kept, on: carrier)
    }

    private mutating func enqueueAgain(_ slot: Int, _ kept: RetainedCommand, on carrier: Int) {
        let task = table.slots + slot
        task.pointee.startPosition = connections[carrier].output.queuedPosition
        task.pointee.isHeld = false
        task.pointee.askedDataSN = 0xFFFF_FFFF
        task.pointee.expectedDataSN = 0
        task.pointee.receivedByteCount = 0
        task.pointee.solicitedEnd = 0
        task.pointee.isReassigned = false
        enqueueCommand(
            SCSICommandRequest(
                token: task.pointee.token, lun: task.pointee.lun, cdb: kept.cdb, direction: task.pointee.direction,
                buffer: task.pointee.buffer, byteCount: task.pointee.byteCount, attribute: kept.attribute),
            slot: slot, on: connections + carrier)
    }

    /// The target's word on a TASK REASSIGN.
    mutating func reassigned(_ request: TaskSlot, _ response: TaskManagementResponse, at now: Instant) {
        switch response {
        case .functionComplete: return
        case .taskDoesNotExist:
            // Its status may have come just before.
            guard let slot = table.slot(forTag: request.referencedTaskTag), table.slots[slot].kind == .command else {
                return
            }
            if table.slots[slot].direction == .write { abortOrphan(slot, at: now) } else { handBackOrphan(slot) }
        default: failSession(.recoveryRefused(response))
        }
    }

    /// That the target cannot continue a write does not say that it no longer executes it: it may have given it up, its time
    /// being over, while the medium is still at it. ABORT TASK is answered when nothing of it can land any more
    /// (section 11.5.1); only then may what is written next to the same blocks go out.
    private mutating func abortOrphan(_ slot: Int, at now: Instant) {
        let carrier = Int(table.slots[slot].connection)
        // Otherwise the connection's own end sees to it.
        guard connections[carrier].isOperational else { return }
        guard canSendControl(on: ConnectionIndex(rawValue: carrier)) else { return failSession(.recoveryRefused(.taskDoesNotExist)) }
        sendTaskManagement(.abortTask, for: slot, purpose: .orphanAbort, on: carrier, at: now)
    }

    /// The target has nothing of this command any more.
    mutating func handBackOrphan(_ slot: Int) {
        let task = table.slots[slot]
        let connection = connections + Int(task.connection)
        // A target that asks for the data of a task, or sends it, and has no such task contradicts itself.
        guard task.pendingBursts == 0, connection.pointee.output.sentPosition >= task.dataEndPosition,
            connection.pointee.placingSlot != slot
        else { return failSession(.recoveryRefused(.taskDoesNotExist)) }
        connection.pointee.commandCount -= 1
        connection.pointee.owedCount -= 1
        events.append(.commandLost(token: task.token, wasSent: true))
        table.release(slot)
        if refusedCommand { reportOpenWindow() }
    }

    // MARK: data of a reassigned task

    /// A target that can't go on where a reassigned read was may send all of its data again (RFC 7143
    /// section 7.2.2).
    func begins(_ task: UnsafeMutablePointer<TaskSlot>, anewWith header: BasicHeaderSegment) -> Bool {
        task.pointee.isReassigned && header.dataSN == 0 && header.bufferOffset == 0
    }

    /// The first R2T for a reassigned write says from where the target wants its data (section 7.2.2: what was
    /// not acknowledged, or all of it), and with which R2TSN it counts on.
    /// Returns the connection that its data goes out on.
    func continueWrite(
        _ task: UnsafeMutablePointer<TaskSlot>, with header: BasicHeaderSegment, on c: ConnectionIndex
    ) -> Int {
        task.pointee.isReassigned = false
        task.pointee.expectedDataSN = header.r2tSN
        task.pointee.solicitedEnd = Int(header.bufferOffset)
        if plantedMistake == .sendsDataElsewhere, let other = operationalConnection(except: c.rawValue) { return other }
        return c.rawValue
    }
}
