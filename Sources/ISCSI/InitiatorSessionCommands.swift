import SCSI
public import Timebase

// Commands and their data on the way out.
extension InitiatorSession {
    /// Takes a command. The PDU leaves with the next ``output(_:into:)``; immediate and unsolicited
    /// data are sent as far as login allowed (RFC 7143 sections 4.2.5.2 and 13.10 to 13.14).
    ///
    /// On `.accepted` the session owes exactly one of: a completion, or `commandAbandoned`.
    public mutating func submit(_ command: SCSICommandRequest, on c: ConnectionIndex, at now: Instant) -> SubmitResult {
        precondition(command.byteCount >= 0 && command.byteCount <= UInt32.max, "a command moves at most 4 GiB - 1")
        precondition(command.byteCount == 0 || command.buffer != nil, "data needs a buffer")
        precondition(command.byteCount == 0 || command.direction != .none, "a command without a direction has no data")
        guard isFullFeature, isNormal, c.rawValue >= 0, c.rawValue < connectionCount,
            connections[c.rawValue].phase == .fullFeature
        else {
            return .notLoggedIn
        }
        let connection = connections + c.rawValue
        guard SerialNumber.isAtMost(cmdSN, maxCmdSN), table.hasRoomForCommand,
            completions.count + table.commandCount < completionLimit, connection.pointee.hasRoomForCommand
        else {
            refusedCommand = true
            return .windowFull
        }
        let slot = table.takeCommand()
        overdueCheckAt = min(overdueCheckAt, now + timing.command)
        let task = table.slots + slot
        task.pointee.submittedAt = now
        fill(task, with: command, on: c)
        task.pointee.startPosition = connection.pointee.output.queuedPosition
        connection.pointee.taskBegan(at: now)
        if connection.pointee.commandCount == 0 { connection.pointee.liveness.lastProgressAt = now }
        connection.pointee.commandCount += 1
        if let retained { retained[slot] = RetainedCommand(cdb: command.cdb, attribute: command.attribute) }
        enqueueCommand(command, slot: slot, on: connection)
        cmdSN &+= 1
        return .accepted
    }

    @inline(__always)
    private func fill(_ task: UnsafeMutablePointer<TaskSlot>, with command: SCSICommandRequest, on c: ConnectionIndex) {
        task.pointee.direction = command.byteCount == 0 ? .none : command.direction
        task.pointee.connection = UInt16(truncatingIfNeeded: c.rawValue)
        task.pointee.outstandingR2Ts = 0
        task.pointee.pendingBursts = 0
        task.pointee.isOverdue = false
        task.pointee.isReassigned = false
        task.pointee.wasSentBefore = false
        task.pointee.isHeld = false
        task.pointee.askedDataSN = 0xFFFF_FFFF
        task.pointee.cmdSN = cmdSN
        task.pointee.expectedDataSN = 0
        task.pointee.token = command.token
        task.pointee.lun = command.lun
        task.pointee.buffer = command.buffer
        task.pointee.byteCount = command.byteCount
        task.pointee.receivedByteCount = 0
        task.pointee.solicitedEnd = 0
        task.pointee.dataEndPosition = 0
    }

    /// The command's PDU, by its slot's CmdSN, with what of its data may go unasked.
    @inline(__always)
    mutating func enqueueCommand(
        _ command: SCSICommandRequest, slot: Int, on connection: UnsafeMutablePointer<InitiatorConnection>
    ) {
        let task = table.slots + slot
        var flags: SCSICommandFlags = .final
        var immediateByteCount = 0
        var unsolicitedEnd = 0
        switch task.pointee.direction {
        case .none: break
        case .read: flags = [.final, .read]
        case .write:
            flags = [.final, .write]
            let firstBurst = min(command.byteCount, limits.firstBurstByteCount)
            if limits.immediateData {
                immediateByteCount = min(firstBurst, connection.pointee.maxSendDataSegmentByteCount)
            }
            unsolicitedEnd = limits.initialR2T ? immediateByteCount : firstBurst
            if unsolicitedEnd > immediateByteCount { flags = .write }
        }
        let tag = table.tag(of: slot)
        connection.pointee.enqueue(.scsiCommand(
            command.cdb, lun: command.lun, tag: tag, flags: flags, attribute: command.attribute,
            expectedDataTransferByteCount: UInt32(truncatingIfNeeded: command.byteCount),
            immediateDataByteCount: immediateByteCount, cmdSN: task.pointee.cmdSN, expStatSN: connection.pointee.expStatSN))
        guard unsolicitedEnd > 0 else { return }
        task.pointee.solicitedEnd = unsolicitedEnd
        if immediateByteCount > 0 {
            connection.pointee.enqueueCallerData(UnsafeRawBufferPointer(start: command.buffer, count: immediateByteCount))
            task.pointee.dataEndPosition = connection.pointee.output.queuedPosition
        }
        if unsolicitedEnd > immediateByteCount {
            // Without a transfer tag the LUN is reserved (section 11.7.1), but initiators send it and
            // targets have come to look.
            appendBurst(DataBurst(
                slot: UInt32(slot), next: CommandTable.none, targetTransferTag: BasicHeaderSegment.reservedTag,
                dataSN: 0, offset: immediateByteCount, end: unsolicitedEnd, lun: command.lun), to: connection)
        }
    }

    /// The table of bursts has a place for each command's unsolicited data and each R2T it may have.
    mutating func appendBurst(_ burst: DataBurst, to connection: UnsafeMutablePointer<InitiatorConnection>) {
        guard let index = bursts.take(burst) else { preconditionFailure("burst table overflow") }
        if connection.pointee.lastBurst == CommandTable.none {
            connection.pointee.firstBurst = index
        } else {
            bursts.bursts[Int(connection.pointee.lastBurst)].next = index
        }
        connection.pointee.lastBurst = index
        table.slots[Int(burst.slot)].pendingBursts += 1
    }

    // MARK: output

    /// Whether ``output(_:into:)`` has something to name.
    public func needsToSend(_ c: ConnectionIndex) -> Bool {
        guard c.rawValue >= 0, c.rawValue < connectionCount, connections[c.rawValue].phase != .closed else { return false }
        return connections[c.rawValue].needsToSend
    }

    /// Names what to send next on a connection, in order, from the first byte not reported as sent;
    /// returns the number of segments filled, 0 where there is nothing.
    ///
    /// The memory stays unchanged until it was reported sent by ``outputSent(_:byteCount:)`` or the
    /// transport is closed. One send is under way at a time: its result is reported before the next call.
    public mutating func output(
        _ c: ConnectionIndex, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>
    ) -> Int {
        guard c.rawValue >= 0, c.rawValue < connectionCount, segments.count > 0 else { return 0 }
        let connection = connections + c.rawValue
        guard connection.pointee.phase != .closed else { return 0 }
        while connection.pointee.firstBurst != CommandTable.none,
            connection.pointee.output.segmentCount < segments.count,
            connection.pointee.output.queuedByteCount < InitiatorConnection.dataAheadByteCount,
            connection.pointee.hasRoomForCommand
        {
            enqueueDataOut(on: connection)
        }
        return connection.pointee.output.gather(into: segments)
    }

    /// The transport took the next `byteCount` bytes of what ``output(_:into:)`` named, and no more.
    public mutating func outputSent(_ c: ConnectionIndex, byteCount: Int) {
        guard c.rawValue >= 0, c.rawValue < connectionCount, !isOver, byteCount > 0 else { return }
        let connection = connections + c.rawValue
        connection.pointee.output.sent(byteCount)
        if connection.pointee.drainingCount > 0 { releaseDrained(on: c) }
        if refusedCommand { reportOpenWindow() }
    }

    /// Queues the next Data-Out of the first burst (RFC 7143 section 11.7).
    private mutating func enqueueDataOut(on connection: UnsafeMutablePointer<InitiatorConnection>) {
        let index = connection.pointee.firstBurst
        let burst = bursts.bursts + Int(index)
        let slot = Int(burst.pointee.slot)
        let task = table.slots + slot
        let byteCount = min(burst.pointee.end - burst.pointee.offset, connection.pointee.maxSendDataSegmentByteCount)
        let isLast = burst.pointee.offset + byteCount == burst.pointee.end
        connection.pointee.enqueue(.dataOut(
            lun: burst.pointee.lun, tag: table.tag(of: slot), targetTransferTag: burst.pointee.targetTransferTag,
            isFinal: isLast, dataSN: burst.pointee.dataSN, bufferOffset: UInt32(truncatingIfNeeded: burst.pointee.offset),
            byteCount: byteCount, expStatSN: connection.pointee.expStatSN))
        connection.pointee.enqueueCallerData(
            UnsafeRawBufferPointer(start: task.pointee.buffer! + burst.pointee.offset, count: byteCount))
        task.pointee.dataEndPosition = connection.pointee.output.queuedPosition
        burst.pointee.offset += byteCount
        burst.pointee.dataSN &+= 1
        guard isLast else { return }
        if burst.pointee.targetTransferTag != BasicHeaderSegment.reservedTag { task.pointee.outstandingR2Ts -= 1 }
        task.pointee.pendingBursts -= 1
        connection.pointee.firstBurst = burst.pointee.next
        if connection.pointee.firstBurst == CommandTable.none { connection.pointee.lastBurst = CommandTable.none }
        bursts.release(index)
    }

    // MARK: the end of a command

    /// Ends a command: its completion is handed out now, or once nothing refers to its buffer.
    @inline(__always)
    mutating func finish(_ slot: Int, outcome: CommandOutcome, residual: Residual, transferredByteCount: Int) {
        let task = table.slots + slot
        let connection = connections + Int(task.pointee.connection)
        connection.pointee.owedCount -= 1
        connection.pointee.commandCount -= 1
        connection.pointee.snackCount = 0
        let completion = CommandCompletion(
            token: task.pointee.token, outcome: outcome, residual: residual, transferredByteCount: transferredByteCount)
        if task.pointee.pendingBursts > 0 { dropUnbegunBursts(of: slot, on: connection) }
        if task.pointee.pendingBursts == 0, connection.pointee.output.sentPosition >= task.pointee.dataEndPosition,
            connection.pointee.placingSlot != slot
        {
            completions.append(completion)
            table.release(slot)
            if refusedCommand { reportOpenWindow() }
        } else {
            task.pointee.kind = .draining
            task.pointee.completion = completion
            connection.pointee.drainingCount += 1
        }
    }

    /// A target may end a write before it took all the data it asked for only once each sequence has
    /// had its F bit (RFC 7143 section 11.4.2). One that does so nevertheless gets the rest of what was
    /// begun or promised by the command, so that it stays in step; an R2T not yet begun died with the task.
    private mutating func dropUnbegunBursts(of slot: Int, on connection: UnsafeMutablePointer<InitiatorConnection>) {
        var previous = CommandTable.none
        var index = connection.pointee.firstBurst
        while index != CommandTable.none {
            let burst = bursts.bursts + Int(index)
            let next = burst.pointee.next
            let isUnbegun = burst.pointee.dataSN == 0 && burst.pointee.targetTransferTag != BasicHeaderSegment.reservedTag
            if Int(burst.pointee.slot) == slot, isUnbegun {
                if previous == CommandTable.none { connection.pointee.firstBurst = next } else { bursts.bursts[Int(previous)].next = next }
                if connection.pointee.lastBurst == index { connection.pointee.lastBurst = previous }
                table.slots[slot].pendingBursts -= 1
                table.slots[slot].outstandingR2Ts -= 1
                bursts.release(index)
            } else {
                previous = index
            }
            index = next
        }
    }

    /// Hands out the completions of commands whose data has left.
    mutating func releaseDrained(on c: ConnectionIndex) {
        let connection = connections + c.rawValue
        var next = table.firstSlot
        while let slot = next, connection.pointee.drainingCount > 0 {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            guard task.pointee.kind == .draining, Int(task.pointee.connection) == c.rawValue,
                task.pointee.pendingBursts == 0, connection.pointee.placingSlot != slot,
                connection.pointee.output.sentPosition >= task.pointee.dataEndPosition
            else { continue }
            connection.pointee.drainingCount -= 1
            completions.append(task.pointee.completion)
            table.release(slot)
        }
        if refusedCommand { reportOpenWindow() }
    }

    /// Says once that a command refused before would be taken now.
    mutating func reportOpenWindow() {
        guard isFullFeature, SerialNumber.isAtMost(cmdSN, maxCmdSN), table.hasRoomForCommand,
            completions.count + table.commandCount < completionLimit
        else { return }
        var index = 0
        while index < connectionCount {
            if connections[index].phase == .fullFeature, connections[index].hasRoomForCommand {
                refusedCommand = false
                events.append(.windowOpened)
                return
            }
            index += 1
        }
    }
}
