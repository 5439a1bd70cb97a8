public import SCSI

/// A task management request that the device server has.
struct PendingManagement {
    var token: UInt32
    var function: TaskManagementFunction
    var initiatorTaskTag: UInt32
    /// ``TargetConnection/key``
    var connection: UInt32
}

/// One that came ahead of commands that it concerns.
struct PostponedManagement {
    var header: BasicHeaderSegment
    var connection: TargetConnection
}

/// An answer that must not overtake what was answered before it on other connections (RFC 7143 section 4.2.2.3.3).
struct ResponseFence {
    struct Wait {
        var connection: TargetConnection
        /// Results that were there when the fence was raised leave first…
        var resultNumber: UInt64
        /// …and then this StatSN has to be confirmed.
        var statSN: UInt32?
    }

    var connection: TargetConnection
    var response: TaskManagementResponse
    var tag: UInt32
    var waits: [Wait]
}

// Task management (RFC 7143 sections 4.2.3 and 11.5), over all connections of the session.
extension TargetSession {
    func manage(_ header: BasicHeaderSegment, on connection: TargetConnection) {
        let tag = header.initiatorTaskTag
        guard let function = header.taskManagementFunction else {
            return connection.sendManagementResponse(.notSupported, tag: tag)
        }
        switch function {
        case .abortTask:
            if let answer = abortTask(header) { return connection.sendManagementResponse(answer, tag: tag) }
        case .taskReassign: return reassign(header, to: connection)
        case .clearACA: return connection.sendManagementResponse(.notSupported, tag: tag)
        case .targetWarmReset, .targetColdReset:
            // Commands that did not come yet count as come (section 4.2.3.3, b).
            if isAhead(header) { plug(upTo: header.cmdSN) }
        case .abortTaskSet, .clearTaskSet, .logicalUnitReset:
            // It waits for all commands that stand before it.
            if isAhead(header) {
                guard postponedManagement.count < Self.managementCapacity else {
                    return connection.sendManagementResponse(.rejected, tag: tag)
                }
                return postponedManagement.append(PostponedManagement(header: header, connection: connection))
            }
        }
        hand(function, header, connection)
    }

    /// An immediate request came before commands with lower numbers, which take another connection.
    private func isAhead(_ header: BasicHeaderSegment) -> Bool {
        header.isImmediate && SerialNumber.isBefore(window.expCmdSN, header.cmdSN)
            && SerialNumber.isAtMost(header.cmdSN, window.maxCmdSN &+ 1)
    }

    func managePostponed() {
        while let index = postponedManagement.firstIndex(where: { !isAhead($0.header) }), !isEnded {
            let request = postponedManagement.remove(at: index)
            if request.connection.endReason == nil { manage(request.header, on: request.connection) }
        }
    }

    private func plug(upTo cmdSN: UInt32) {
        var number = window.expCmdSN
        while SerialNumber.isBefore(number, cmdSN) {
            if window.isWanted(number) { window.hold(number, TargetCommandWindow.skipped) }
            number &+= 1
        }
        deliverInTurn()
    }

    private func hand(_ function: TaskManagementFunction, _ header: BasicHeaderSegment, _ connection: TargetConnection) {
        guard pendingManagement.count + fences.count < Self.managementCapacity else {
            return connection.sendManagementResponse(.rejected, tag: header.initiatorTaskTag)
        }
        // Now, not when the device server comes to it: commands behind this request are not affected.
        switch function {
        case .abortTaskSet, .clearTaskSet, .logicalUnitReset: dropUndelivered(lun: header.lun, before: header.cmdSN)
        case .targetWarmReset, .targetColdReset: dropUndelivered(lun: nil, before: header.cmdSN)
        default: break
        }
        lastManagement &+= 1
        var request = TargetManagementRequest(
            token: lastManagement, function: function, lun: header.lun, referencedTaskTag: header.referencedTaskTag)
        if function == .abortTaskSet { request.sparedSlots = executing(lun: header.lun, from: header.cmdSN) }
        pendingManagement.append(
            PendingManagement(
                token: request.token, function: function, initiatorTaskTag: header.initiatorTaskTag,
                connection: connection.key))
        post(request)
    }

    private func executing(lun: LogicalUnitNumber, from cmdSN: UInt32) -> [Int] {
        guard SerialNumber.isBefore(cmdSN, window.expCmdSN) else { return [] }
        return (0..<usedCapacity).filter {
            tasks[$0].state == .executing && !tasks[$0].isImmediate && tasks[$0].lun == lun
                && SerialNumber.isAtMost(cmdSN, tasks[$0].cmdSN)
        }
    }

    // MARK: ABORT TASK

    /// The answer, or nil where the device server has to be asked.
    private func abortTask(_ header: BasicHeaderSegment) -> TaskManagementResponse? {
        guard let slot = slot(ofTag: header.referencedTaskTag) else { return abortMissing(header) }
        guard tasks[slot].lun == header.lun else { return .taskDoesNotExist }
        switch tasks[slot].state {
        case .executing: return nil
        // Its status is on the way, unless nobody is there to take it.
        case .responding where self.connection(ofSlot: slot) != nil: return .taskDoesNotExist
        case .free, .receiving, .responding:
            drop(slot)
            deliverInTurn()
            return .functionComplete
        }
    }

    /// Section 11.5.1: a command that did not come counts as come, and will be ignored if it still does.
    private func abortMissing(_ header: BasicHeaderSegment) -> TaskManagementResponse {
        guard SerialNumber.isBefore(header.refCmdSN, header.cmdSN), window.isWanted(header.refCmdSN) else {
            return .taskDoesNotExist
        }
        window.hold(header.refCmdSN, TargetCommandWindow.skipped)
        deliverInTurn()
        return .functionComplete
    }

    /// Drops the commands for `lun` (nil: for any) that the device server does not have yet, in answer to a
    /// task management function of this or another nexus. Those handed over are its own to abort.
    public func dropUndelivered(lun: LogicalUnitNumber?) { dropUndelivered(lun: lun, before: nil) }

    private func dropUndelivered(lun: LogicalUnitNumber?, before cmdSN: UInt32?) {
        for slot in 0..<usedCapacity where tasks[slot].state == .receiving && (lun == nil || tasks[slot].lun == lun) {
            if let cmdSN, !tasks[slot].isImmediate, !SerialNumber.isBefore(tasks[slot].cmdSN, cmdSN) { continue }
            drop(slot)
        }
        deliverInTurn()
    }

    // MARK: answers

    /// Answers a task management request. After it was aborted itself (its session ended) nothing happens.
    @discardableResult
    public func finishManagement(_ token: UInt32, response: TaskManagementResponse) -> TargetConnection? {
        guard let index = pendingManagement.firstIndex(where: { $0.token == token }) else { return nil }
        let request = pendingManagement.remove(at: index)
        guard let connection = connection(key: request.connection) else { return nil }
        switch request.function {
        case .abortTaskSet, .clearTaskSet, .logicalUnitReset, .targetWarmReset:
            if connectionCount > 1 {
                raiseFence(connection, response, request.initiatorTaskTag)
                return connection
            }
        default: break
        }
        connection.sendManagementResponse(response, tag: request.initiatorTaskTag)
        return connection
    }

    private func raiseFence(_ connection: TargetConnection, _ response: TaskManagementResponse, _ tag: UInt32) {
        let others = connections.filter { $0 !== connection && $0.isFullFeature }
        fences.append(
            ResponseFence(
                connection: connection, response: response, tag: tag,
                waits: others.map { ResponseFence.Wait(connection: $0, resultNumber: $0.enqueuedResults, statSN: nil) }))
        checkFences()
    }

    /// To be called when results left, or were confirmed, or a connection ended.
    func checkFences() {
        var silent: [TargetConnection] = []
        for index in fences.indices {
            for wait in fences[index].waits.indices where fences[index].waits[wait].statSN == nil {
                let other = fences[index].waits[wait].connection
                guard other.endReason == nil, other.sentResults >= fences[index].waits[wait].resultNumber else { continue }
                fences[index].waits[wait].statSN = other.statSN
                if other.acknowledgedStatSN != other.statSN { silent.append(other) }
            }
            fences[index].waits.removeAll {
                guard $0.connection.endReason == nil else { return true }
                guard let statSN = $0.statSN else { return false }
                return SerialNumber.isAtMost(statSN, $0.connection.acknowledgedStatSN)
            }
        }
        let open = fences.filter(\.waits.isEmpty)
        fences.removeAll(where: \.waits.isEmpty)
        // Sending may end a connection, and lead back to here: last.
        for fence in open { fence.connection.sendManagementResponse(fence.response, tag: fence.tag) }
        // Asks for a word that confirms it.
        for connection in silent { connection.ask() }
    }
}
