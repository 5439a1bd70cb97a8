public import SCSI
public import Timebase

/// A text exchange under way (RFC 7143 section 11.10): one at a time in a session.
struct TextExchange {
    /// The connection that carries it.
    var connection: Int
    enum Purpose {
        case discovery
        case owner(token: UInt64)
        /// The empty request with which a target's wish to renegotiate is granted.
        case renegotiation
    }
    var slot: Int
    var purpose: Purpose
    var answer: [UInt8] = []
    /// Responses in a row that brought no text.
    var emptyResponses = 0

    static let emptyResponseLimit = 8
}

// Requests that carry no SCSI command, and their answers. All are immediate: they neither wait for the
// command window nor use up a CmdSN (RFC 7143 section 4.2.2.1).
extension InitiatorSession {
    // MARK: what the owner asks for

    /// Sends a task management request; its answer is `taskManagementCompleted`. Commands that an
    /// answered "function complete" ended are completed as `.aborted`.
    ///
    /// - Parameter referenced: the token of the command to abort, for ABORT TASK; the request then goes
    ///   out on that command's connection (RFC 7143 section 11.5.1), whatever `c` says.
    /// - Returns: false, and nothing sent, where the session is not logged in, the command is not (or no
    ///   longer) open, or 64 requests wait already.
    public mutating func submitTaskManagement(
        _ function: TaskManagementFunction, lun: LogicalUnitNumber, referencing referenced: UInt64? = nil,
        token: UInt64, on c: ConnectionIndex, at now: Instant
    ) -> Bool {
        precondition(function != .taskReassign, "TASK REASSIGN is for error recovery level 2")
        precondition((function == .abortTask) == (referenced != nil), "ABORT TASK refers to one command")
        var c = c
        var lun = lun
        var referencedTag = BasicHeaderSegment.reservedTag
        var refCmdSN: UInt32 = 0
        if let referenced {
            guard let slot = table.slot(forToken: referenced) else { return false }
            c = ConnectionIndex(rawValue: Int(table.slots[slot].connection))
            lun = table.slots[slot].lun
            referencedTag = table.tag(of: slot)
            refCmdSN = table.slots[slot].cmdSN
        }
        guard canSendControl(on: c) else { return false }
        let connection = connections + c.rawValue
        let slot = table.takeControl(.taskManagement)
        let task = table.slots + slot
        task.pointee.function = function
        task.pointee.connection = UInt16(truncatingIfNeeded: c.rawValue)
        task.pointee.token = token
        task.pointee.lun = lun
        task.pointee.cmdSN = cmdSN
        task.pointee.referencedTaskTag = referencedTag
        watchAnswer(of: slot, at: now)
        connection.pointee.taskBegan(at: now)
        // canSendControl has seen to the room.
        connection.pointee.enqueue(.taskManagementRequest(
            function, lun: lun, tag: table.tag(of: slot), referencedTaskTag: referencedTag, refCmdSN: refCmdSN,
            cmdSN: cmdSN, expStatSN: connection.pointee.expStatSN))
        return true
    }

    /// Asks the target for the targets it knows (SendTargets, RFC 7143 appendix C): `targets`.
    /// False, and nothing sent, where the session is not logged in or another text exchange is under way.
    public mutating func discoverTargets(_ request: SendTargets.Request = .all, at now: Instant) -> Bool {
        beginText(request.encoded, purpose: .discovery, at: now)
    }

    /// Sends key=value pairs, in all at most what the target takes in one data segment; the answer is
    /// `text`. False as with ``discoverTargets(_:at:)``, or where the text is longer than that.
    public mutating func sendText(_ pairs: [TextPair], token: UInt64, at now: Instant) -> Bool {
        beginText(TextParameters.encode(pairs), purpose: .owner(token: token), at: now)
    }

    private mutating func beginText(
        _ data: [UInt8], purpose: TextExchange.Purpose, on carrier: Int? = nil, at now: Instant
    ) -> Bool {
        guard let index = carrier ?? operationalConnection() else { return false }
        let connection = connections + index
        guard text == nil, canSendControl(on: ConnectionIndex(rawValue: index)),
            data.count <= connection.pointee.maxSendDataSegmentByteCount,
            connection.pointee.hasRoomForControl(dataByteCount: data.count)
        else { return false }
        let slot = table.takeControl(.control)
        table.slots[slot].connection = UInt16(truncatingIfNeeded: index)
        connection.pointee.taskBegan(at: now)
        text = TextExchange(connection: index, slot: slot, purpose: purpose)
        return connection.pointee.enqueueControl(.textRequest(
            .final, tag: table.tag(of: slot), cmdSN: cmdSN, expStatSN: connection.pointee.expStatSN, isImmediate: true),
            data: data)
    }

    /// Asks a connection for a sign of life; `pingAnswered` tells how long it took. False where the
    /// connection is not logged in or a ping is under way.
    public mutating func ping(on c: ConnectionIndex, at now: Instant) -> Bool {
        guard c.rawValue >= 0, c.rawValue < connectionCount, connections[c.rawValue].liveness.pingSlot == nil,
            sendPing(on: c, at: now)
        else { return false }
        connections[c.rawValue].liveness.pingIsReported = true
        return true
    }

    /// Ends the session in an orderly way; `loggedOut` follows. Commands still open are handed back as
    /// abandoned then, so wait for them first. False where the session is not logged in.
    @discardableResult
    public mutating func beginLogout(at now: Instant) -> Bool {
        guard isFullFeature, let carrier = operationalConnection(),
            connections[carrier].hasRoomForControl(dataByteCount: 0), table.hasRoomForControl
        else { return false }
        isFullFeature = false
        refusedCommand = false
        state = .loggingOut
        let slot = table.takeControl(.control)
        table.slots[slot].connection = UInt16(truncatingIfNeeded: carrier)
        table.slots[slot].purpose = .sessionLogout
        logoutSlot = slot
        leavingCount = 0
        for index in 0..<connectionCount {
            switch connections[index].phase {
            case .fullFeature, .leaving:
                connections[index].phase = .loggingOut
                connections[index].liveness.phaseDeadline = now + timing.login
            case .closed, .loggingIn, .loggingOut: break
            }
        }
        connections[carrier].enqueue(.logoutRequest(
            .closeSession, connectionID: connections[carrier].connectionID, tag: table.tag(of: slot), cmdSN: cmdSN,
            expStatSN: connections[carrier].expStatSN))
        return true
    }

    func canSendControl(on c: ConnectionIndex) -> Bool {
        guard isFullFeature, c.rawValue >= 0, c.rawValue < connectionCount else { return false }
        return connections[c.rawValue].isOperational && table.hasRoomForControl
            && connections[c.rawValue].hasRoomForControl(dataByteCount: 0)
    }

    /// A NOP-Out with a tag. False where there is no room; silence is then judged without it.
    mutating func sendPing(on c: ConnectionIndex, at now: Instant) -> Bool {
        guard canSendControl(on: c) else { return false }
        let connection = connections + c.rawValue
        let waited = connection.pointee.needsToSend
        connection.pointee.taskBegan(at: now)
        let slot = enqueueNOPOut(on: c, cmdSN: cmdSN, isImmediate: true)
        connection.pointee.liveness.pingBegan(
            slot: slot, at: now, endPosition: connection.pointee.output.queuedPosition, behindData: waited)
        return true
    }

    mutating func enqueueNOPOut(on c: ConnectionIndex, cmdSN: UInt32, isImmediate: Bool) -> Int {
        let slot = table.takeControl(.ping)
        table.slots[slot].connection = UInt16(truncatingIfNeeded: c.rawValue)
        table.slots[slot].purpose = isImmediate ? .owner : .filler
        table.slots[slot].cmdSN = cmdSN
        table.slots[slot].startPosition = connections[c.rawValue].output.queuedPosition
        connections[c.rawValue].enqueue(.nopOut(
            tag: table.tag(of: slot), cmdSN: cmdSN, expStatSN: connections[c.rawValue].expStatSN, isImmediate: isImmediate))
        return slot
    }

    // MARK: what the target sends

    mutating func nopIn(_ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant) throws(ProtocolViolation) {
        let connection = connections + c.rawValue
        if header.initiatorTaskTag == BasicHeaderSegment.reservedTag {
            // Its StatSN is the next one, and not used up (section 11.19).
            guard header.targetTransferTag != BasicHeaderSegment.reservedTag else { return }
            // During a logout only the Logout's answer counts (section 4.2.3).
            guard connection.pointee.isOperational else { return }
            guard connection.pointee.hasRoomForControl(dataByteCount: 0) else { throw .flood }
            connection.pointee.enqueue(.nopOut(
                lun: header.lun, targetTransferTag: header.targetTransferTag, cmdSN: cmdSN,
                expStatSN: connection.pointee.expStatSN))
            return
        }
        guard let slot = ping(header.initiatorTaskTag, on: c) else {
            // That of a NOP-Out that filled a hole and was given up as unanswered.
            guard !lateTags.isEmpty, isLate(header, on: c) else {
                throw .unknownTask(.nopIn, tag: header.initiatorTaskTag)
            }
            return try takeStatSN(header, on: c)
        }
        try takeStatSN(header, on: c)
        let isPing = connection.pointee.liveness.pingSlot == slot
        endPing(slot, header, on: c, at: now)
        if isPing, connection.pointee.recoversPDUs {
            sendDroppedCommandAgain(on: c)
            if connection.pointee.phase != .closed, !openNumbers.isEmpty { fillDroppedNumber(on: c) }
            if connection.pointee.phase != .closed { askAgain(on: c) }
        }
    }

    private func ping(_ tag: UInt32, on c: ConnectionIndex) -> Int? {
        guard let slot = table.slot(forTag: tag), table.slots[slot].kind == .ping,
            Int(table.slots[slot].connection) == c.rawValue
        else { return nil }
        return slot
    }

    /// The answer to a ping, or to a NOP-Out that filled a hole and that nobody waits for.
    private mutating func endPing(_ slot: Int, _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant) {
        let connection = connections + c.rawValue
        let isAsked = table.slots[slot].purpose == .owner
        let position = table.slots[slot].startPosition
        table.release(slot)
        if !openNumbers.isEmpty { forgetFiller(slot) }
        if recoveryCount > 0 { recoveryAnswered(slot, naming: header.expCmdSN, on: c, at: now) }
        if isAsked, table.controlCount > 0 { releaseTakenFillers(before: position, on: c) }
        guard connection.pointee.liveness.pingSlot == slot else { return }
        connection.pointee.owedCount -= 1
        connection.pointee.liveness.pingSlot = nil
        connection.pointee.liveness.readPosition = connection.pointee.liveness.pingEndPosition
        if connection.pointee.liveness.pingIsReported {
            events.append(.pingAnswered(c, roundTrip: now - connection.pointee.liveness.pingSentAt))
        }
    }

    mutating func taskManagementResponse(
        _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        guard let slot = table.slot(forTag: header.initiatorTaskTag), table.slots[slot].kind == .taskManagement else {
            throw .unknownTask(header.opcode, tag: header.initiatorTaskTag)
        }
        guard Int(table.slots[slot].connection) == c.rawValue else {
            throw .wrongConnection(header.opcode, tag: header.initiatorTaskTag)
        }
        try takeStatSN(header, on: c)
        let task = table.slots[slot]
        table.release(slot)
        connections[c.rawValue].owedCount -= 1
        let response = header.taskManagementResponse
        guard task.purpose == .owner else { return recoveryAnswered(task, response, at: now) }
        if response == .functionComplete { abortCommands(of: task, answeredOn: c, at: now) }
        events.append(.taskManagementCompleted(token: task.token, response))
    }

    /// Ends the commands that a completed function covers: those issued before it (RFC 7143 section 4.2.3.3).
    private mutating func abortCommands(of request: TaskSlot, answeredOn c: ConnectionIndex, at now: Instant) {
        switch request.function {
        case .abortTask:
            guard let slot = table.slot(forTag: request.referencedTaskTag), table.slots[slot].kind == .command else { return }
            abort(slot, by: request.token, at: now)
        case .abortTaskSet, .clearTaskSet, .logicalUnitReset, .targetWarmReset, .targetColdReset:
            let coversAllUnits = request.function == .targetWarmReset || request.function == .targetColdReset
            var next = table.firstSlot
            while let slot = next {
                next = table.slotAfter(slot)
                let task = table.slots + slot
                guard SerialNumber.isBefore(task.pointee.cmdSN, request.cmdSN) else { return }
                guard task.pointee.kind == .command, coversAllUnits || task.pointee.lun == request.lun else { continue }
                let isElsewhere = Int(task.pointee.connection) != c.rawValue
                if isElsewhere || connections[c.rawValue].recoversPDUs {
                    // One that the target has not taken comes after the reset, whatever it says, and is executed: it is slow on
                    // another connection, or its header was damaged on this one and it is sent again. The target has to wait for
                    // all that was sent before its request (section 4.2.3.3); not every one does.
                    guard SerialNumber.isBefore(task.pointee.cmdSN, expCmdSN) else { continue }
                }
                if isElsewhere { expectLatePDUs(for: slot) }
                abort(slot, by: request.token, at: now)
            }
        case .clearACA, .taskReassign:
            return
        }
    }

    /// Ends an open command that the target was heard to have no more and that it will not answer, a reset having
    /// ended it: ABORT TASK was answered "task does not exist", and whatever status was on its way had time to come
    /// (RFC 7143 section 11.5.1: a command that was sent and not received would have been called complete). The
    /// command is completed as `.aborted`; a status after all fails the connection. Without effect where the
    /// command is not open.
    public mutating func endUnanswered(_ command: UInt64, at now: Instant) {
        guard !isOver, let slot = table.slot(forToken: command) else { return }
        abort(slot, by: command, at: now)
    }

    private mutating func abort(_ slot: Int, by token: UInt64, at now: Instant) {
        commandProgressed(ConnectionIndex(rawValue: Int(table.slots[slot].connection)), at: now)
        keepNumber(of: slot)
        let received = table.slots[slot].direction == .read ? table.slots[slot].receivedByteCount : 0
        finish(slot, outcome: .aborted(byTaskManagement: token), residual: .none, transferredByteCount: received)
    }

    mutating func logoutResponse(
        _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        guard let slot = table.slot(forTag: header.initiatorTaskTag), table.slots[slot].kind == .control,
            Int(table.slots[slot].connection) == c.rawValue
        else { throw .unknownTask(header.opcode, tag: header.initiatorTaskTag) }
        let task = table.slots[slot]
        switch task.purpose {
        case .sessionLogout:
            try takeStatSN(header, on: c)
            guard header.logoutResponse == .closed else {
                failConnection(c, .logoutRefused(header.logoutResponse))
                return
            }
            completeLogout()
        case .removal:
            try takeStatSN(header, on: c)
            table.release(slot)
            removed(c, header.logoutResponse)
        case .recoveryLogout:
            try takeStatSN(header, on: c)
            table.release(slot)
            connections[c.rawValue].owedCount -= 1
            loggedOut(Int(task.subject), header.logoutResponse, time2Wait: header.time2Wait, at: now)
        case .owner, .recoveryAbort, .reassignment, .orphanAbort, .filler:
            throw .unknownTask(header.opcode, tag: header.initiatorTaskTag)
        }
    }

    // MARK: text

    mutating func textResponse(
        _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        guard var exchange = text, header.initiatorTaskTag == table.tag(of: exchange.slot),
            c.rawValue == exchange.connection
        else {
            throw .unknownTask(header.opcode, tag: header.initiatorTaskTag)
        }
        try takeStatSN(header, on: c)
        let connection = connections + c.rawValue
        let data = connection.pointee.decoder.collectedData
        // So that appending does not copy what came before: a target may send a byte at a time.
        text?.answer = []
        exchange.emptyResponses = data.count == 0 ? exchange.emptyResponses + 1 : 0
        guard exchange.answer.count + data.count <= SendTargets.answerByteCount,
            exchange.emptyResponses <= TextExchange.emptyResponseLimit
        else { throw .textTooLong }
        exchange.answer.append(contentsOf: data)
        let flags = header.textFlags
        if flags.contains(.final) {
            guard !flags.contains(.continues), header.targetTransferTag == BasicHeaderSegment.reservedTag else {
                throw .textContinuation
            }
            text = nil
            table.release(exchange.slot)
            connection.pointee.owedCount -= 1
            complete(exchange)
            return
        }
        // More to come, or the target waits for us to say that we are done: an empty request either way.
        guard header.targetTransferTag != BasicHeaderSegment.reservedTag else { throw .textContinuation }
        guard connection.pointee.hasRoomForControl(dataByteCount: 0) else { throw .flood }
        text = exchange
        connection.pointee.enqueue(.textRequest(
            flags.contains(.continues) ? [] : .final, lun: header.lun, tag: header.initiatorTaskTag,
            targetTransferTag: header.targetTransferTag, cmdSN: cmdSN, expStatSN: connection.pointee.expStatSN,
            isImmediate: true))
    }

    private mutating func complete(_ exchange: TextExchange) {
        switch exchange.purpose {
        case .owner(let token): events.append(.text(token: token, InitiatorSession.outcome(of: exchange.answer)))
        case .discovery:
            do throws(SendTargets.Failure) {
                events.append(.targets(try SendTargets.targets(parsing: exchange.answer)))
            } catch {
                events.append(.discoveryFailed(.unreadable(error)))
            }
        case .renegotiation:
            guard case .answered(let pairs) = InitiatorSession.outcome(of: exchange.answer) else { return }
            // The one key that a target may declare anew without being asked (RFC 7143 section 13.12).
            for pair in pairs where pair.key == "MaxRecvDataSegmentLength" {
                guard let byteCount = TextValue.number(pair.value), (512...16_777_215).contains(byteCount) else { continue }
                connections[exchange.connection].maxSendDataSegmentByteCount = Int(byteCount)
            }
        }
    }

    /// The session ends with an exchange under way; its slot is released with the others.
    mutating func abandonText() {
        guard let exchange = text else { return }
        text = nil
        switch exchange.purpose {
        case .owner(let token): events.append(.text(token: token, .abandoned))
        case .discovery: events.append(.discoveryFailed(.abandoned))
        case .renegotiation: break
        }
    }

    private static func outcome(of answer: [UInt8]) -> TextOutcome {
        var reader = TextReader(answer)
        var pairs: [TextPair] = []
        do throws(TextError) {
            while let pair = try reader.next() { pairs.append(pair) }
        } catch {
            return .unreadable(error)
        }
        return .answered(pairs)
    }

    // MARK: Async Message (RFC 7143 section 11.9)

    mutating func asyncMessage(
        _ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        try takeStatSN(header, on: c)
        let message = AsyncMessage(header)
        var sense: SenseData?
        if case .scsiEvent = message { sense = try self.sense(header, on: c) }
        // What asks one connection of several to go is no business of the session's owner as a whole.
        if case .logoutRequested(let seconds) = message, leave(c, within: seconds, at: now) { return }
        events.append(.asyncMessage(message, sense: sense))
        switch message {
        case .connectionDrops(let connectionID, let time2Wait, let time2Retain):
            guard let dropped = connectionIndex(ofID: connectionID) else { return }
            failConnection(dropped, .droppedByTarget(time2Wait: time2Wait, time2Retain: time2Retain))
        case .sessionDrops(let time2Wait, let time2Retain):
            failSession(.droppedByTarget(time2Wait: time2Wait, time2Retain: time2Retain))
        case .negotiationRequested:
            // An empty Text Request grants the wish (section 11.9.1), unless one is pending already.
            _ = beginText([], purpose: .renegotiation, on: c.rawValue, at: now)
        case .scsiEvent, .logoutRequested, .tasksTerminated, .vendorSpecific, .unknown:
            return
        }
    }

    private func connectionIndex(ofID connectionID: UInt16) -> ConnectionIndex? {
        for index in 0..<connectionCount where connections[index].phase != .closed {
            if connections[index].connectionID == connectionID { return ConnectionIndex(rawValue: index) }
        }
        return nil
    }

    // MARK: Reject (RFC 7143 section 11.17)

    mutating func reject(_ header: BasicHeaderSegment, on c: ConnectionIndex, at now: Instant) throws(ProtocolViolation) {
        try takeStatSN(header, on: c)
        let data = connections[c.rawValue].decoder.collectedData
        guard data.count >= 48 else { throw .truncated(.reject) }
        let rejected = BasicHeaderSegment(loadingFrom: data.baseAddress!)
        let reason = header.rejectReason
        switch rejected.opcode {
        case .scsiCommand where reason == .dataDigestError && connections[c.rawValue].recoversPDUs:
            sendAgain(rejected, on: c)
        case .scsiCommand: try rejectedCommand(rejected, reason, on: c, at: now)
        case .dataOut where reason != .dataDigestError || connections[c.rawValue].recoversPDUs:
            // The target ends the task itself, by a SCSI Response of its own (section 11.17.1), or asks for the data again.
            return
        case .snackRequest: snackRejected(reason, on: c)
        case .taskManagementRequest: try rejectedTaskManagement(rejected, reason, on: c)
        case .textRequest: try rejectedText(rejected, reason, on: c)
        case .nopOut:
            // It was heard, which is all that a ping asks.
            guard let slot = ping(rejected.initiatorTaskTag, on: c) else { return }
            let isFiller = table.slots[slot].purpose == .filler
            guard !isFiller || SerialNumber.isBefore(table.slots[slot].cmdSN, expCmdSN) else {
                // The gap would stay, and hold up all that comes after it.
                return failConnection(c, .rejected(.nopOut, reason))
            }
            endPing(slot, header, on: c, at: now)
        default:
            failConnection(c, .rejected(rejected.opcode, reason))
        }
    }

    private mutating func rejectedCommand(
        _ rejected: BasicHeaderSegment, _ reason: RejectReason, on c: ConnectionIndex, at now: Instant
    ) throws(ProtocolViolation) {
        let tag = rejected.initiatorTaskTag
        guard let slot = table.slot(forTag: tag), table.slots[slot].kind == .command,
            Int(table.slots[slot].connection) == c.rawValue
        else { throw .unknownTask(.reject, tag: tag) }
        // A digest error of immediate data, or a task under way: a SCSI Response would follow, or our
        // tags have gone wrong. Neither leaves a session that level 0 may trust.
        guard reason != .dataDigestError, reason != .taskInProgress else {
            failConnection(c, .rejected(.scsiCommand, reason))
            return
        }
        commandProgressed(c, at: now)
        let hole = table.slots[slot].cmdSN
        keepNumber(of: slot)
        finish(slot, outcome: .rejected(reason), residual: .none, transferredByteCount: 0)
        // The CmdSN of a rejected command was not received, and every later one waits for it (section 11.17.1). Targets that
        // counted it all the same have moved ExpCmdSN on. Where the connection is being logged out, its end fills the hole.
        guard SerialNumber.isAtMost(expCmdSN, hole), connections[c.rawValue].isOperational else { return }
        guard fill(hole, on: c.rawValue) else { throw .flood }
        // A ping's answer frees the places of those that are not answered.
        if 2 * table.controlCount > CommandTable.controlCapacity, connections[c.rawValue].liveness.pingSlot == nil {
            _ = sendPing(on: c, at: now)
        }
    }

    private mutating func rejectedTaskManagement(
        _ rejected: BasicHeaderSegment, _ reason: RejectReason, on c: ConnectionIndex
    ) throws(ProtocolViolation) {
        guard let slot = table.slot(forTag: rejected.initiatorTaskTag), table.slots[slot].kind == .taskManagement,
            Int(table.slots[slot].connection) == c.rawValue
        else { throw .unknownTask(.reject, tag: rejected.initiatorTaskTag) }
        let task = table.slots[slot]
        table.release(slot)
        connections[c.rawValue].owedCount -= 1
        if task.purpose == .owner {
            events.append(.taskManagementRejected(token: task.token, reason))
        } else {
            failSession(.rejected(.taskManagementRequest, reason))
        }
    }

    private mutating func rejectedText(
        _ rejected: BasicHeaderSegment, _ reason: RejectReason, on c: ConnectionIndex
    ) throws(ProtocolViolation) {
        guard let exchange = text, c.rawValue == exchange.connection,
            rejected.initiatorTaskTag == table.tag(of: exchange.slot)
        else {
            throw .unknownTask(.reject, tag: rejected.initiatorTaskTag)
        }
        text = nil
        table.release(exchange.slot)
        connections[c.rawValue].owedCount -= 1
        switch exchange.purpose {
        case .owner(let token): events.append(.text(token: token, .rejected(reason)))
        case .discovery: events.append(.discoveryFailed(.rejected(reason)))
        case .renegotiation: break
        }
    }
}

extension Liveness {
    mutating func pingBegan(slot: Int, at now: Instant, endPosition: UInt64, behindData: Bool) {
        pingSlot = slot
        pingRefusedAt = nil
        pingSentAt = now
        pingEndPosition = endPosition
        pingWaitedBehindData = behindData
        pingIsReported = false
        pingDeliveryNoticed = false
        judgeAt = nil
    }
}
