import Timebase

/// What the command window looked like, and since when nothing about it has changed.
struct WindowWatch {
    var expCmdSN: UInt32 = 0
    var cmdSN: UInt32 = 0
    /// Since then ExpCmdSN stands still.
    var takenAt = Instant.zero
    /// Since then no command was let in although one waits.
    var letInAt = Instant.zero
    var checkAt = Instant.zero
}

// A target that answers pings is alive, and a disk may be as slow as it likes; but a session in which the target does not even
// take commands is of no use to anybody, however long it lives.
extension InitiatorSession {
    /// Nothing that is known would explain why commands or requests wait.
    private var isUndisturbed: Bool {
        guard recoveryCount == 0 else { return false }
        return (0..<connectionCount).allSatisfy { connections[$0].liveness.stalledSince == nil }
    }

    // MARK: the command window

    /// Ends a session whose window stands still.
    ///
    /// ExpCmdSN says what the target has received, not what its disks have done (RFC 7143 section 4.2.2.1): a command that stays
    /// unacknowledged although the target has read it waits behind a CmdSN that nobody brings, and so would all that follow.
    /// A window that is shut is another matter, for a slow disk may fill it: it gets the time in which every command that
    /// fills it was given up, and asked back, and another one of the same length.
    mutating func watchWindow(at now: Instant) {
        windowWatch.checkAt = now + timing.eighthCommand
        let isUndisturbed = isUndisturbed
        if !isUndisturbed || windowWatch.expCmdSN != expCmdSN { windowWatch.takenAt = now }
        let isShut = isWindowShut
        if !isUndisturbed || windowWatch.cmdSN != cmdSN || !isShut { windowWatch.letInAt = now }
        windowWatch.expCmdSN = expCmdSN
        windowWatch.cmdSN = cmdSN
        if now >= windowWatch.takenAt + timing.halfCommand, isCommandNotTaken(at: now) {
            return failSession(.commandNotTaken)
        }
        guard isShut else { return }
        if now >= windowWatch.letInAt + timing.twiceCommand, wasEverythingRead { return failSession(.windowShut) }
        askForWindow(at: now)
    }

    /// Whether the target is known to have read what begins there: it answered a ping that was sent behind it.
    private func wasRead(_ position: UInt64, on index: Int) -> Bool { position < connections[index].liveness.readPosition }

    /// Whether the first command that the target has not counted as received is half as old as it may get, and neither it nor
    /// anything before it is still on its way.
    private func isCommandNotTaken(at now: Instant) -> Bool {
        guard openNumbers.allSatisfy({ SerialNumber.isBefore($0.cmdSN, expCmdSN) || wasRead($0.startPosition, on: $0.connection) })
        else { return false }
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            guard task.pointee.kind == .command, SerialNumber.isAtMost(expCmdSN, task.pointee.cmdSN) else { continue }
            return now >= task.pointee.submittedAt + timing.halfCommand
                && wasRead(task.pointee.startPosition, on: Int(task.pointee.connection))
        }
        return false
    }

    private var wasEverythingRead: Bool {
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            guard task.pointee.kind == .draining
                || wasRead(task.pointee.startPosition, on: Int(task.pointee.connection)) else { return false }
        }
        return true
    }

    /// A command waits for room, and there is none.
    private var isWindowShut: Bool {
        refusedCommand && (!SerialNumber.isAtMost(cmdSN, maxCmdSN) || !table.hasRoomForCommand)
    }

    /// Where nothing is owed, nothing else would bring the MaxCmdSN of today.
    private mutating func askForWindow(at now: Instant) {
        guard let index = operationalConnection(), connections[index].liveness.pingSlot == nil else { return }
        _ = sendPing(on: ConnectionIndex(rawValue: index), at: now)
    }

    // MARK: requests without a CmdSN

    /// Notes where in the stream a task management request begins that is about to be queued, and when.
    mutating func watchAnswer(of slot: Int, at now: Instant) {
        let connection = connections + Int(table.slots[slot].connection)
        table.slots[slot].submittedAt = now
        table.slots[slot].startPosition = connection.pointee.output.queuedPosition
        table.slots[slot].cmdSN = cmdSN
        if connection.pointee.mayMissRequests { answerCheckAt = min(answerCheckAt, now + answerPatience) }
    }

    /// Some functions take their time at the target: it is given more with each connection that was given up in vain.
    private var answerPatience: Nanoseconds { Nanoseconds(settings.silenceTimeout * (2 << min(unansweredCount, 5))) }

    /// Gives up a connection on which a task management request got lost.
    ///
    /// At level 1 and above the target drops a PDU whose header was damaged, without a word (RFC 7143 section 7.8). A command
    /// leaves a hole in the order of CmdSNs; an immediate request leaves nothing, and must not be sent twice while the first may
    /// be under way. The end of its connection ends it for certain, and whoever waits for it sends it again on another. Not where
    /// that would end the session: then it is the owner's to judge.
    mutating func checkAnswers(at now: Instant) {
        answerCheckAt = .distantFuture
        let patience = answerPatience
        for slot in 0..<table.usedCapacity where table.slots[slot].kind == .taskManagement {
            let task = table.slots[slot]
            let connection = connections + Int(task.connection)
            let c = ConnectionIndex(rawValue: Int(task.connection))
            guard connection.pointee.mayMissRequests, connection.pointee.isOperational else { continue }
            guard now >= task.submittedAt + patience else {
                answerCheckAt = min(answerCheckAt, task.submittedAt + patience)
                continue
            }
            answerCheckAt = min(answerCheckAt, now + timing.halfSilence)
            guard !mayAnswerLate(task), canLose(c, .requestUnanswered) else { continue }
            if wasRead(task.startPosition, on: c.rawValue) {
                unansweredCount += 1
                failConnection(c, .requestUnanswered)
            } else if connection.pointee.liveness.pingSlot == nil {
                _ = sendPing(on: c, at: now)
            }
        }
    }

    /// A function waits for the commands before it (section 4.2.3.3), and its answer for their statuses, on every connection; that
    /// answer may also be among what was asked for again.
    private func mayAnswerLate(_ request: TaskSlot) -> Bool {
        if connections[Int(request.connection)].laterStatSNs != 0 { return true }
        guard request.purpose == .owner else { return false }
        return !isUndisturbed || SerialNumber.isBefore(expCmdSN, request.cmdSN)
    }
}
