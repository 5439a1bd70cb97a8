import SCSI
import Timebase

// ErrorRecoveryLevel 1 and above: a PDU that was lost to a digest error, and nothing but it, is sent again
// (RFC 7143 sections 7.1.4.1, 7.1.4.2 and 11.16).
//
// Data and R2Ts are asked for from the first missing number on, all of them: those that come out of order
// meanwhile are dropped, so that nothing need be kept about them. A status that is missed shows as a gap in
// StatSN; what comes behind it is taken, and its number remembered.
extension InitiatorSession {
    /// So many requests to send again without a command that ended, and the connection is called broken.
    static var snackLimit: Int { 256 }

    // MARK: StatSN

    /// Whether this status is here already: it was asked for and then came twice.
    func isDuplicate(_ header: BasicHeaderSegment, on c: ConnectionIndex) -> Bool {
        guard header.usesStatSN else { return false }
        let connection = connections + c.rawValue
        let ahead = header.statSN &- connection.pointee.expStatSN
        if ahead >= 0x8000_0000 { return true }
        return ahead < 64 && connection.pointee.laterStatSNs & 1 << UInt64(ahead) != 0
    }

    /// A status with a number behind a gap. False: the gap is wider than any that digests explain.
    mutating func takeLater(_ statSN: UInt32, on c: ConnectionIndex) -> Bool {
        let connection = connections + c.rawValue
        let expected = connection.pointee.expStatSN
        let ahead = statSN &- expected
        guard ahead < 64 else { return false }
        connection.pointee.laterStatSNs |= 1 << UInt64(ahead)
        askForStatus(upTo: statSN, on: c)
        // This one is here.
        if SerialNumber.isAtMost(connection.pointee.statusAskedUpTo, statSN) {
            connection.pointee.statusAskedUpTo = statSN &+ 1
        }
        return true
    }

    /// Asks for the statuses before `end` that were not asked for yet.
    private mutating func askForStatus(upTo end: UInt32, on c: ConnectionIndex) {
        let connection = connections + c.rawValue
        var first = connection.pointee.expStatSN
        if SerialNumber.isBefore(first, connection.pointee.statusAskedUpTo) { first = connection.pointee.statusAskedUpTo }
        guard SerialNumber.isBefore(first, end) else { return }
        connection.pointee.statusAskedUpTo = end
        snack(.status, begRun: first, runLength: end &- first, on: c)
    }

    /// The number that was expected is here; those behind it may be as well.
    func passLaterStatSNs(on c: ConnectionIndex) {
        let connection = connections + c.rawValue
        connection.pointee.laterStatSNs >>= 1
        while connection.pointee.laterStatSNs & 1 != 0 {
            connection.pointee.expStatSN &+= 1
            connection.pointee.laterStatSNs >>= 1
        }
    }

    // MARK: data and R2T

    /// A Data-In or R2T with another number than the next. True: it is to be dropped, and what is missing was asked for.
    mutating func isOutOfTurn(_ number: UInt32, of slot: Int, on c: ConnectionIndex) -> Bool {
        let task = table.slots + slot
        let expected = task.pointee.expectedDataSN
        guard connections[c.rawValue].recoversPDUs, number != expected else { return false }
        guard SerialNumber.isBefore(expected, number) else { return true }
        // What was asked for comes in a run that begins anew; if its first is missing again, so is the answer.
        if task.pointee.askedDataSN != expected || SerialNumber.isAtMost(number, task.pointee.droppedDataSN) {
            askForData(of: slot, on: c)
        }
        task.pointee.droppedDataSN = number
        return true
    }

    /// Asks for all data, or R2Ts, of a command from the first missing one on.
    mutating func askForData(of slot: Int, on c: ConnectionIndex) {
        let task = table.slots + slot
        task.pointee.askedDataSN = task.pointee.expectedDataSN
        task.pointee.droppedDataSN = task.pointee.expectedDataSN
        snack(
            .dataOrR2T, lun: task.pointee.lun, tag: table.tag(of: slot), begRun: task.pointee.expectedDataSN, runLength: 0,
            on: c)
    }

    /// The target may forget what came before (section 11.16.1, DataACK).
    mutating func confirmData(_ header: BasicHeaderSegment, of slot: Int, on c: ConnectionIndex) {
        connections[c.rawValue].snackCount -= 1
        snack(
            .dataACK, lun: header.lun, targetTransferTag: header.targetTransferTag,
            begRun: table.slots[slot].expectedDataSN, runLength: 0, on: c)
    }

    /// A read's status came before all of its data: it waits.
    mutating func holdsStatus(
        _ header: BasicHeaderSegment, of slot: Int, on c: ConnectionIndex, _ completion: @autoclosure () -> CommandCompletion
    ) -> Bool {
        let task = table.slots + slot
        guard connections[c.rawValue].recoversPDUs, task.pointee.direction == .read,
            SerialNumber.isBefore(task.pointee.expectedDataSN, header.expDataSN)
        else { return false }
        task.pointee.heldUntilDataSN = header.expDataSN
        task.pointee.isHeld = true
        task.pointee.completion = completion()
        if task.pointee.askedDataSN != task.pointee.expectedDataSN { askForData(of: slot, on: c) }
        return true
    }

    // MARK: commands

    /// The target threw a command away because its immediate data was damaged; it asks for none of it by R2T
    /// (section 7.8), so the same PDU goes out once more.
    mutating func sendAgain(_ rejected: BasicHeaderSegment, on c: ConnectionIndex) {
        guard let slot = table.slot(forTag: rejected.initiatorTaskTag), table.slots[slot].kind == .command,
            Int(table.slots[slot].connection) == c.rawValue
        else { return failConnection(c, .violation(.unknownTask(.reject, tag: rejected.initiatorTaskTag))) }
        // The Reject itself may have been damaged, and come again when what it asks for was done.
        guard SerialNumber.isAtMost(expCmdSN, table.slots[slot].cmdSN) else { return }
        sendAgain(slot, on: c)
    }

    /// A ping was answered, so all that was sent before it has been read. A command among that for whose CmdSN the target
    /// still waits was dropped, its header being damaged (section 7.2.1: retry to plug a gap).
    mutating func sendDroppedCommandAgain(on c: ConnectionIndex) {
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            guard task.pointee.cmdSN == expCmdSN else { continue }
            guard task.pointee.kind == .command, Int(task.pointee.connection) == c.rawValue,
                task.pointee.startPosition < connections[c.rawValue].liveness.pingEndPosition
            else { return }
            return sendAgain(slot, on: c)
        }
    }

    /// The PDU with its own tag and CmdSN, in the place where it was lost.
    private mutating func sendAgain(_ slot: Int, on c: ConnectionIndex) {
        let task = table.slots + slot
        let connection = connections + c.rawValue
        // Data that goes out unasked behind the command would come twice.
        guard let kept = retained?[slot], task.pointee.pendingBursts == 0, connection.pointee.hasRoomForCommand,
            connection.pointee.output.sentPosition >= task.pointee.dataEndPosition,
            connection.pointee.snackCount < Self.snackLimit
        else { return failConnection(c, .rejected(.scsiCommand, .dataDigestError)) }
        connection.pointee.snackCount += 1
        // The target has nothing of it: lost before this PDU leaves, it was never sent.
        task.pointee.startPosition = connection.pointee.output.queuedPosition
        task.pointee.expectedDataSN = 0
        task.pointee.receivedByteCount = 0
        task.pointee.solicitedEnd = 0
        enqueueCommand(
            SCSICommandRequest(
                token: task.pointee.token, lun: task.pointee.lun, cdb: kept.cdb, direction: task.pointee.direction,
                buffer: task.pointee.buffer, byteCount: task.pointee.byteCount, attribute: kept.attribute),
            slot: slot, on: connection)
    }

    // MARK: damage

    /// A PDU's data did not fit its digest. False: the connection can't go on.
    mutating func recoverFromDataDigestError(_ header: BasicHeaderSegment, on c: ConnectionIndex) -> Bool {
        let connection = connections + c.rawValue
        guard connection.pointee.recoversPDUs, connection.pointee.snackCount < Self.snackLimit else { return false }
        switch header.opcode {
        case .dataIn:
            let slot = connection.pointee.placingSlot
            connection.pointee.placingSlot = nil
            releaseDrained(on: c)
            guard let slot, table.slots[slot].kind == .command else { return true }
            askForData(of: slot, on: c)
        case .loginResponse: return false
        default:
            guard header.usesStatSN else { return true }
            let first = header.statSN
            if SerialNumber.isAtMost(connection.pointee.statusAskedUpTo, first) {
                askForStatus(upTo: first, on: c)
                connection.pointee.statusAskedUpTo = first &+ 1
            }
            snack(.status, begRun: first, runLength: 1, on: c)
        }
        return true
    }

    /// A PDU was dropped because its header did not fit its digest: nobody knows which. A ping shows whether it had a
    /// status; a write that waits for an R2T asks for it.
    mutating func recoverFromHeaderDigestErrors(on c: ConnectionIndex, at now: Instant) {
        let connection = connections + c.rawValue
        guard connection.pointee.headerErrorsSeen != connection.pointee.decoder.headerDigestErrorCount else { return }
        connection.pointee.headerErrorsSeen = connection.pointee.decoder.headerDigestErrorCount
        if connection.pointee.liveness.pingSlot == nil { _ = sendPing(on: c, at: now) }
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            guard task.pointee.kind == .command, Int(task.pointee.connection) == c.rawValue,
                task.pointee.direction == .write, task.pointee.pendingBursts == 0,
                task.pointee.solicitedEnd < task.pointee.byteCount
            else { continue }
            askForData(of: slot, on: c)
        }
    }

    /// A ping was answered, half a silence timeout after the last sign of life: a request to send again may have been lost
    /// as well as what it asked for.
    mutating func askAgain(on c: ConnectionIndex) {
        let connection = connections + c.rawValue
        if connection.pointee.laterStatSNs != 0 {
            connection.pointee.statusAskedUpTo = connection.pointee.expStatSN
            let gap = UInt32(connection.pointee.laterStatSNs.trailingZeroBitCount)
            askForStatus(upTo: connection.pointee.expStatSN &+ gap, on: c)
        }
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            guard task.pointee.kind == .command, Int(task.pointee.connection) == c.rawValue,
                SerialNumber.isBefore(task.pointee.cmdSN, expCmdSN)
            else { continue }
            let waitsForR2T = task.pointee.direction == .write && task.pointee.pendingBursts == 0
                && task.pointee.solicitedEnd < task.pointee.byteCount
            if waitsForR2T || task.pointee.askedDataSN == task.pointee.expectedDataSN { askForData(of: slot, on: c) }
        }
    }

    /// A SNACK was refused. That nothing was missing is no fault; that it is gone is one.
    mutating func snackRejected(_ reason: RejectReason, on c: ConnectionIndex) {
        guard reason == .snackReject else { return }
        failConnection(c, .rejected(.snackRequest, .dataDigestError))
    }

    private mutating func snack(
        _ type: SNACKType, lun: LogicalUnitNumber = LogicalUnitNumber(rawValue: 0), tag: UInt32 = BasicHeaderSegment.reservedTag,
        targetTransferTag: UInt32 = BasicHeaderSegment.reservedTag, begRun: UInt32, runLength: UInt32, on c: ConnectionIndex
    ) {
        let connection = connections + c.rawValue
        // Without room, or past the limit, the silence that follows ends the connection.
        guard connection.pointee.hasRoomForControl(dataByteCount: 0), connection.pointee.snackCount < Self.snackLimit else { return }
        connection.pointee.snackCount += 1
        connection.pointee.enqueue(.snack(
            type, lun: lun, tag: tag, targetTransferTag: targetTransferTag, begRun: begRun, runLength: runLength,
            expStatSN: connection.pointee.expStatSN))
    }
}
