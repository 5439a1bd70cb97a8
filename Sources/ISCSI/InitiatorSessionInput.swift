public import Timebase
import SCSI

// Bytes on the way in: each PDU's header decides where its data goes, its end what it means.
extension InitiatorSession {
    /// Memory that the transport may fill with the next bytes of this connection: the rest of the
    /// Data-In that is arriving, in the command's own buffer. Empty where the next bytes should come as
    /// spill. Valid until the next call for this connection.
    public mutating func input(_ c: ConnectionIndex) -> UnsafeMutableRawBufferPointer {
        guard c.rawValue >= 0, c.rawValue < connectionCount, !isOver, connections[c.rawValue].phase != .closed else {
            return UnsafeMutableRawBufferPointer(start: nil, count: 0)
        }
        return connections[c.rawValue].decoder.directWindow
    }

    /// Bytes came on a connection: the first `placedByteCount` are in the memory that ``input(_:)``
    /// named, the rest in `spill`, which is read during the call only.
    public mutating func received(
        _ c: ConnectionIndex, placedByteCount: Int, spill: UnsafeRawBufferPointer, at now: Instant
    ) {
        guard c.rawValue >= 0, c.rawValue < connectionCount, !isOver, placedByteCount + spill.count > 0 else { return }
        let connection = connections + c.rawValue
        guard connection.pointee.phase != .closed else { return }
        connection.pointee.liveness.lastByteAt = now
        if connection.pointee.liveness.stalledSince != nil { resume(c) }
        connection.pointee.decoder.placed(byteCount: placedByteCount)
        var rest = spill
        while true {
            switch connection.pointee.decoder.next(&rest) {
            case .needMore:
                if connection.pointee.recoversPDUs { recoverFromHeaderDigestErrors(on: c, at: now) }
                return
            case .header:
                do throws(ProtocolViolation) {
                    try headerArrived(on: c)
                } catch {
                    failConnection(c, .violation(error))
                    return
                }
            case .complete:
                do throws(ProtocolViolation) {
                    try pduArrived(on: c, at: now)
                } catch {
                    failConnection(c, .violation(error))
                }
                if isOver || connection.pointee.phase == .closed { return }
                if leavingCount > 0 { advanceLeaving(at: now) }
                if recoveryCount > 0 { advanceRecoveries(at: now) }
            case .dataDigestError:
                if recoverFromDataDigestError(connection.pointee.decoder.header, on: c) { continue }
                failConnection(c, .dataDigestMismatch(connection.pointee.decoder.header.opcode))
                return
            case .failed(let error):
                failConnection(c, .malformed(error))
                return
            }
        }
    }

    /// The longest data segment that is held in memory, for PDUs other than texts: sense data, an
    /// event's data, a rejected header. All are far shorter.
    private static var collectedByteLimit: Int { 65_536 }

    @inline(__always)
    private mutating func headerArrived(on c: ConnectionIndex) throws(ProtocolViolation) {
        let connection = connections + c.rawValue
        let opcode = connection.pointee.decoder.header.opcode
        if opcode == .dataIn {
            try dataInArrived(connection.pointee.decoder.header, on: c)
            return
        }
        guard connection.pointee.decoder.header.dataSegmentByteCount > 0 else { return }
        switch opcode {
        case .textResponse, .loginResponse:
            connection.pointee.decoder.collect(limit: connection.pointee.decoder.maxDataSegmentByteCount)
        case .readyToTransfer, .taskManagementResponse, .logoutResponse:
            throw .unexpectedData(opcode)
        default:
            connection.pointee.decoder.collect(limit: InitiatorSession.collectedByteLimit)
        }
    }

    @inline(__always)
    private mutating func pduArrived(on c: ConnectionIndex, at now: Instant) throws(ProtocolViolation) {
        let connection = connections + c.rawValue
        let header = connection.pointee.decoder.header
        guard connection.pointee.phase != .loggingIn else {
            try loginResponseArrived(header, on: c, at: now)
            return
        }
        updateWindow(header)
        if connection.pointee.recoversPDUs, isDuplicate(header, on: c) { return }
        switch header.opcode {
        case .dataIn: try dataInComplete(header, on: c, at: now)
        case .scsiResponse: try scsiResponse(header, on: c, at: now)
        case .readyToTransfer: try readyToTransfer(header, on: c, at: now)
        default: try controlPDU(header, on: c, at: now)
        }
    }

    private mutating func controlPDU(
        _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        switch header.opcode {
        case .nopIn: try nopIn(header, on: c, at: now)
        case .taskManagementResponse: try taskManagementResponse(header, on: c, at: now)
        case .textResponse: try textResponse(header, on: c, at: now)
        case .asyncMessage: try asyncMessage(header, on: c, at: now)
        case .reject: try reject(header, on: c, at: now)
        case .logoutResponse: try logoutResponse(header, on: c, at: now)
        default: throw .unexpectedPDU(header.opcode)
        }
    }

    private mutating func loginResponseArrived(
        _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        let connection = connections + c.rawValue
        // The login's own check of the opcode gives the clearer reason.
        let action = connection.pointee.login!.received(header, data: connection.pointee.decoder.collectedData)
        perform(action, on: c, at: now)
    }

    /// ExpCmdSN and MaxCmdSN (RFC 7143 section 4.2.2.1): a pair that contradicts itself is ignored, and
    /// so is one that is older than what is known.
    @inline(__always)
    private mutating func updateWindow(_ header: BasicHeaderSegment) {
        let exp = header.expCmdSN
        let max = header.maxCmdSN
        guard !SerialNumber.isBefore(max, exp &- 1) else { return }
        if SerialNumber.isBefore(expCmdSN, exp), SerialNumber.isAtMost(exp, cmdSN) { expCmdSN = exp }
        if SerialNumber.isBefore(maxCmdSN, max) {
            maxCmdSN = max
            if refusedCommand { reportOpenWindow() }
        }
    }

    /// Takes the StatSN of a PDU that uses one up (RFC 7143 section 4.2.2.2). A gap means a lost status,
    /// which level 0 cannot recover.
    @inline(__always)
    mutating func takeStatSN(_ header: BasicHeaderSegment, on c: ConnectionIndex) throws(ProtocolViolation) {
        let expected = connections[c.rawValue].expStatSN
        guard header.statSN == expected else {
            if connections[c.rawValue].recoversPDUs, takeLater(header.statSN, on: c) { return }
            throw .statSN(received: header.statSN, expected: expected)
        }
        connections[c.rawValue].expStatSN = expected &+ 1
        if connections[c.rawValue].laterStatSNs != 0 { passLaterStatSNs(on: c) }
    }

    /// The open command that a PDU of the target refers to.
    @inline(__always)
    private func command(_ header: BasicHeaderSegment, on c: ConnectionIndex) throws(ProtocolViolation) -> Int {
        let tag = header.initiatorTaskTag
        guard let slot = table.slot(forTag: tag), table.slots[slot].kind == .command else {
            throw .unknownTask(header.opcode, tag: tag)
        }
        guard Int(table.slots[slot].connection) == c.rawValue else { throw .wrongConnection(header.opcode, tag: tag) }
        return slot
    }

    /// Whether a Data-In is a copy that was asked for and came after its command had ended.
    private func isGone(_ header: BasicHeaderSegment, on c: ConnectionIndex) -> Bool {
        if isDuplicate(header, on: c) { return true }
        return table.slot(forTag: header.initiatorTaskTag) == nil && header.flags & DataInFlags.status.rawValue == 0
    }

    /// A request is over for us, and PDUs of it may still be on their way. A command was ended by a task management response on
    /// another connection: that should wait for the statuses which were sent before it (section 4.2.2.3.3), but not for data and
    /// R2Ts. Or nobody waits for the answer to a NOP-Out any more.
    mutating func expectLatePDUs(for slot: Int) {
        if lateTags.count >= table.commandCapacity { lateTags.removeFirst() }
        lateTags.append(LateTag(tag: table.tag(of: slot), connection: Int(table.slots[slot].connection)))
    }

    /// What a request of that tag still had on its way. A command that has the tag now got it 65,536 requests later.
    func isLate(_ header: BasicHeaderSegment, on c: ConnectionIndex) -> Bool {
        if let slot = table.slot(forTag: header.initiatorTaskTag), table.slots[slot].kind == .command { return false }
        return lateTags.contains { $0.tag == header.initiatorTaskTag && $0.connection == c.rawValue }
    }

    // MARK: Data-In (RFC 7143 section 11.7)

    /// Before the data: checks that it may go where it says, and has it put there.
    @inline(__always)
    private mutating func dataInArrived(_ header: BasicHeaderSegment, on c: ConnectionIndex) throws(ProtocolViolation) {
        let connection = connections + c.rawValue
        guard connection.pointee.phase != .loggingIn else { throw .unexpectedPDU(.dataIn) }
        if connection.pointee.recoversPDUs && isGone(header, on: c) || !lateTags.isEmpty && isLate(header, on: c) {
            connection.pointee.decoder.discard()
            return
        }
        let slot = try command(header, on: c)
        let task = table.slots + slot
        guard task.pointee.direction == .read else { throw .wrongDirection(.dataIn) }
        if isOutOfTurn(header.dataSN, of: slot, on: c), !begins(task, anewWith: header) {
            connection.pointee.decoder.discard()
            return
        }
        if header.dataSN != task.pointee.expectedDataSN {
            guard begins(task, anewWith: header) else {
                throw .dataSN(received: header.dataSN, expected: task.pointee.expectedDataSN)
            }
            task.pointee.isReassigned = false
            task.pointee.expectedDataSN = 0
            task.pointee.receivedByteCount = 0
        }
        let byteCount = header.dataSegmentByteCount
        let offset = Int(header.bufferOffset)
        let isInOrder = !(limits.dataPDUInOrder && limits.dataSequenceInOrder) || byteCount == 0
            || offset == task.pointee.receivedByteCount
        // The count of bytes guards the total where the order is free.
        guard isInOrder, offset + byteCount <= task.pointee.byteCount,
            task.pointee.receivedByteCount + byteCount <= task.pointee.byteCount
        else { throw .dataRange(.dataIn, offset: header.bufferOffset, byteCount: byteCount) }
        if header.flags & DataInFlags.status.rawValue != 0, !header.isFinal { throw .statusWithoutFinal }
        guard byteCount > 0 else { return }
        connection.pointee.placingSlot = slot
        connection.pointee.decoder.place(
            into: UnsafeMutableRawBufferPointer(start: task.pointee.buffer! + offset, count: byteCount))
    }

    /// After the data, which is verified.
    @inline(__always)
    private mutating func dataInComplete(
        _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        let connection = connections + c.rawValue
        let placed = connection.pointee.placingSlot
        connection.pointee.placingSlot = nil
        guard let slot = table.slot(forTag: header.initiatorTaskTag), table.slots[slot].kind == .command else {
            // Ended by task management on another connection while its data was arriving.
            releaseDrained(on: c)
            if header.flags & DataInFlags.status.rawValue != 0 { try takeStatSN(header, on: c) }
            return
        }
        let task = table.slots + slot
        // Dropped; what is missing was asked for.
        if header.dataSN != task.pointee.expectedDataSN { return }
        // Only what went into the command's own memory counts: the header may have come when its tag was nobody's.
        guard placed == slot || header.dataSegmentByteCount == 0 else {
            throw .unknownTask(.dataIn, tag: header.initiatorTaskTag)
        }
        task.pointee.expectedDataSN &+= 1
        task.pointee.receivedByteCount += header.dataSegmentByteCount
        commandProgressed(c, at: now)
        connection.pointee.hasServed = true
        if connection.pointee.recoversPDUs, header.flags & DataInFlags.acknowledge.rawValue != 0 {
            confirmData(header, of: slot, on: c)
        }
        guard header.flags & DataInFlags.status.rawValue != 0 else {
            guard task.pointee.isHeld, task.pointee.expectedDataSN == task.pointee.heldUntilDataSN else { return }
            let held = task.pointee.completion
            var status = SCSIStatus.checkCondition
            if case .status(let said, _) = held.outcome { status = said }
            return finish(
                slot, outcome: held.outcome, residual: Self.residual(held.residual, of: task, status),
                transferredByteCount: task.pointee.receivedByteCount)
        }
        try takeStatSN(header, on: c)
        finish(
            slot, outcome: .status(header.status, sense: nil), residual: Self.residual(header.residual, of: task, header.status),
            transferredByteCount: task.pointee.receivedByteCount)
    }

    /// What the target says, unless it says that a read went well and not all of its data came: whoever takes its word for that
    /// takes for data what was in the buffer before.
    @inline(__always)
    private static func residual(
        _ said: Residual, of task: UnsafeMutablePointer<TaskSlot>, _ status: SCSIStatus
    ) -> Residual {
        guard task.pointee.receivedByteCount < task.pointee.byteCount, task.pointee.direction == .read, status == .good else {
            return said
        }
        if case .underflow = said { return said }
        return .underflow(UInt32(truncatingIfNeeded: task.pointee.byteCount - task.pointee.receivedByteCount))
    }

    /// The same for a write: a target cannot have written what it did not ask for, or what has not left yet.
    @inline(__always)
    private func writeResidual(_ said: Residual, of slot: Int, _ status: SCSIStatus) -> Residual {
        let task = table.slots + slot
        if task.pointee.solicitedEnd >= task.pointee.byteCount, task.pointee.pendingBursts == 0,
            connections[Int(task.pointee.connection)].output.offeredPosition >= task.pointee.dataEndPosition
        {
            return said
        }
        guard status == .good else { return said }
        if case .underflow = said { return said }
        return .underflow(UInt32(truncatingIfNeeded: unsentByteCount(of: slot)))
    }

    /// How much of a write's data the target cannot have, at least one byte.
    private func unsentByteCount(of slot: Int) -> Int {
        let task = table.slots + slot
        let connection = connections + Int(task.pointee.connection)
        var count = max(task.pointee.byteCount - task.pointee.solicitedEnd, 0)
        var index = connection.pointee.firstBurst
        while index != CommandTable.none {
            let burst = bursts.bursts + Int(index)
            if Int(burst.pointee.slot) == slot { count += burst.pointee.end - burst.pointee.offset }
            index = burst.pointee.next
        }
        // Queued; headers and others' PDUs in between may be counted with it.
        let offered = connection.pointee.output.offeredPosition
        if offered < task.pointee.dataEndPosition { count += Int(task.pointee.dataEndPosition - offered) }
        return min(max(count, 1), task.pointee.byteCount)
    }

    // MARK: SCSI Response (RFC 7143 section 11.4)

    @inline(__always)
    private mutating func scsiResponse(
        _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        if !lateTags.isEmpty, isLate(header, on: c) { return try takeStatSN(header, on: c) }
        let slot = try command(header, on: c)
        try takeStatSN(header, on: c)
        let task = table.slots + slot
        var residual = header.residual
        var transferred = task.pointee.receivedByteCount
        if task.pointee.direction == .write {
            residual = writeResidual(residual, of: slot, header.status)
            transferred = task.pointee.byteCount
            if case .underflow(let count) = residual { transferred -= min(Int(count), transferred) }
        }
        let outcome: CommandOutcome
        if header.serviceResponse == .completed {
            outcome = .status(header.status, sense: header.dataSegmentByteCount == 0 ? nil : try sense(header, on: c))
        } else {
            outcome = .targetFailure(responseCode: header.serviceResponse.rawValue)
            if task.pointee.direction == .write { transferred = 0 }
        }
        commandProgressed(c, at: now)
        connections[c.rawValue].hasServed = true
        if holdsStatus(header, of: slot, on: c, CommandCompletion(
            token: task.pointee.token, outcome: outcome, residual: residual, transferredByteCount: 0)) { return }
        finish(slot, outcome: outcome, residual: Self.residual(residual, of: task, header.status), transferredByteCount: transferred)
    }

    /// SenseLength and the sense data (RFC 7143 section 11.4.7.1). Nil where the target sent none.
    func sense(_ header: BasicHeaderSegment, on c: ConnectionIndex) throws(ProtocolViolation) -> SenseData? {
        let data = connections[c.rawValue].decoder.collectedData
        guard data.count >= 2 else {
            guard data.count == 0 else { throw .truncated(header.opcode) }
            return nil
        }
        let length = Int(data[0]) << 8 | Int(data[1])
        guard length > 0 else { return nil }
        guard 2 + length <= data.count else { throw .truncated(header.opcode) }
        return SenseData(parsing: UnsafeRawBufferPointer(rebasing: data[2..<(2 + length)]))
    }

    // MARK: R2T (RFC 7143 section 11.8)

    @inline(__always)
    private mutating func readyToTransfer(
        _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        if !lateTags.isEmpty, isLate(header, on: c) { return }
        let slot = try command(header, on: c)
        let task = table.slots + slot
        guard task.pointee.direction == .write else { throw .wrongDirection(.readyToTransfer) }
        let carrier = task.pointee.isReassigned ? continueWrite(task, with: header, on: c) : c.rawValue
        if isOutOfTurn(header.r2tSN, of: slot, on: c) { return }
        guard header.r2tSN == task.pointee.expectedDataSN else {
            throw .r2tSN(received: header.r2tSN, expected: task.pointee.expectedDataSN)
        }
        let byteCount = Int(header.desiredDataTransferByteCount)
        let offset = Int(header.bufferOffset)
        guard byteCount > 0, byteCount <= limits.maxBurstByteCount,
            header.targetTransferTag != BasicHeaderSegment.reservedTag
        else { throw .invalidR2T }
        // In order without a gap, so that what was asked for is all that lies before one place. What a digest error took at
        // the target is asked for again (section 7.8).
        let end = task.pointee.solicitedEnd
        guard offset + byteCount <= task.pointee.byteCount,
            !limits.dataSequenceInOrder || offset == end || offset < end && connections[c.rawValue].recoversPDUs
        else { throw .dataRange(.readyToTransfer, offset: header.bufferOffset, byteCount: byteCount) }
        guard Int(task.pointee.outstandingR2Ts) < limits.maxOutstandingR2T else {
            throw .tooManyR2Ts(limit: limits.maxOutstandingR2T)
        }
        task.pointee.outstandingR2Ts += 1
        task.pointee.expectedDataSN &+= 1
        // In free order only the sum is known.
        let asked = limits.dataSequenceInOrder ? offset + byteCount : min(end + byteCount, task.pointee.byteCount)
        task.pointee.solicitedEnd = max(end, asked)
        commandProgressed(c, at: now)
        appendBurst(DataBurst(
            slot: UInt32(slot), next: CommandTable.none, targetTransferTag: header.targetTransferTag, dataSN: 0,
            offset: offset, end: offset + byteCount, lun: header.lun), to: connections + carrier)
    }

    /// A command came nearer to its end.
    @inline(__always)
    mutating func commandProgressed(_ c: ConnectionIndex, at now: Instant) {
        connections[c.rawValue].liveness.lastProgressAt = now
        if connections[c.rawValue].liveness.isSlow { noLongerSlow(c) }
    }
}
