/// A CmdSN that the target may still wait for although no command has it any more: a rejected command's, whose place a
/// NOP-Out takes, or one's that was aborted before the target acknowledged it.
struct OpenNumber {
    let cmdSN: UInt32
    /// The connection that carries it.
    var connection: Int
    /// Where the PDU with it begins in that connection's output.
    var startPosition: UInt64
    /// The NOP-Out with it, until that is answered.
    var filler: Int?
}

// A number that is not taken holds up every later command of the session, and a connection that is lost takes with it what
// it carried: such numbers are remembered until ExpCmdSN has passed them. Control path.
extension InitiatorSession {
    /// A command ends without the target having acknowledged it.
    mutating func keepNumber(of slot: Int) {
        let task = table.slots[slot]
        guard SerialNumber.isAtMost(expCmdSN, task.cmdSN) else { return }
        dropTakenNumbers()
        openNumbers.append(OpenNumber(cmdSN: task.cmdSN, connection: Int(task.connection), startPosition: task.startPosition))
    }

    mutating func dropTakenNumbers() { openNumbers.removeAll { SerialNumber.isBefore($0.cmdSN, expCmdSN) } }

    /// The first number that a connection carried, or was to carry, and that the target has not taken.
    func firstOpenNumber(of index: Int) -> UInt32? {
        var first: UInt32?
        for number in openNumbers where number.connection == index && SerialNumber.isAtMost(expCmdSN, number.cmdSN) {
            if first.map({ SerialNumber.isBefore(number.cmdSN, $0) }) ?? true { first = number.cmdSN }
        }
        return first
    }

    /// Puts a NOP-Out in the number's place (RFC 7143 sections 7.2.1 and 11.17.1). False: there is no room for it now. Targets
    /// that have counted the number all the same drop the NOP-Out as a duplicate: nobody waits for its answer.
    mutating func fill(_ cmdSN: UInt32, on carrier: Int) -> Bool {
        guard let place = openNumbers.firstIndex(where: { $0.cmdSN == cmdSN }) else { return true }
        guard connections[carrier].hasRoomForControl(dataByteCount: 0), table.hasRoomForControl else { return false }
        openNumbers[place].connection = carrier
        openNumbers[place].startPosition = connections[carrier].output.queuedPosition
        if let filler = openNumbers[place].filler {
            sendFillerAgain(filler)
        } else {
            openNumbers[place].filler = enqueueNOPOut(
                on: ConnectionIndex(rawValue: carrier), cmdSN: cmdSN, isImmediate: false)
        }
        return true
    }

    /// The same PDU once more, where it was lost. There must be room for it.
    mutating func sendFillerAgain(_ filler: Int) {
        let task = table.slots[filler]
        let connection = connections + Int(task.connection)
        table.slots[filler].startPosition = connection.pointee.output.queuedPosition
        connection.pointee.enqueue(.nopOut(
            tag: table.tag(of: filler), cmdSN: task.cmdSN, expStatSN: connection.pointee.expStatSN, isImmediate: false))
    }

    /// A NOP-Out was answered, or lost with its connection.
    mutating func forgetFiller(_ slot: Int) {
        for place in openNumbers.indices where openNumbers[place].filler == slot { openNumbers[place].filler = nil }
    }

    /// A ping was answered that was sent on `c` at `position`. A NOP-Out before it whose number the target has taken, and that is not
    /// answered, was a duplicate to the target, or its answer comes late: its place is freed, and the answer let pass.
    mutating func releaseTakenFillers(before position: UInt64, on c: ConnectionIndex) {
        for slot in 0..<table.usedCapacity {
            let task = table.slots[slot]
            guard task.kind == .ping, task.purpose == .filler, Int(task.connection) == c.rawValue, task.startPosition < position,
                SerialNumber.isBefore(task.cmdSN, expCmdSN), !isFillerOfRecovery(slot)
            else { continue }
            expectLatePDUs(for: slot)
            table.release(slot)
            forgetFiller(slot)
        }
    }

    /// Its recovery asks for itself what became of it.
    private func isFillerOfRecovery(_ slot: Int) -> Bool {
        recoveryCount > 0 && (0..<connectionCount).contains { connections[$0].recovery?.fillSlot == slot }
    }

    /// A connection was logged out for recovery, and with it goes what it carried: its numbers are filled elsewhere. False: not all
    /// of them yet.
    mutating func fillOpenNumbers(of index: Int, on carrier: Int) -> Bool {
        dropTakenNumbers()
        for number in openNumbers where number.connection == index && number.filler == nil {
            guard fill(number.cmdSN, on: carrier) else { return false }
        }
        return true
    }

    /// A ping was answered on `c` and the target waits for this number, whose PDU went out there before: its header was damaged.
    mutating func fillDroppedNumber(on c: ConnectionIndex) {
        let connection = connections + c.rawValue
        guard connection.pointee.recovery == nil, let number = openNumbers.first(where: { $0.cmdSN == expCmdSN }),
            number.connection == c.rawValue, number.startPosition < connection.pointee.liveness.pingEndPosition,
            connection.pointee.snackCount < Self.snackLimit
        else { return }
        connection.pointee.snackCount += 1
        _ = fill(number.cmdSN, on: c.rawValue)
    }
}
