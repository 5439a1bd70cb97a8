public import AsyncIO
import ISCSI
import SCSI
import Timebase

// What comes out of the protocol half, and what goes back into it.
extension EmbeddedTarget {
    // MARK: events and actions

    /// To be called after each call into a connection: does what came of it.
    func pump(_ connection: TargetConnection) {
        handleEvents()
        if let session = connection.session { serve(session, connection) }
        if service.hasAlarms || alarmTimer != nil { armAlarm() }
    }

    /// `connection`: that through which input came, whose owner sends by itself; nil: none.
    private func serve(_ session: TargetSession, _ connection: TargetConnection?) {
        while let action = session.nextAction() {
            switch action {
            case .command(let slot): execute(session, slot)
            case .management(let request): manage(session, request)
            }
        }
        handleEvents()
        // What came on one connection may be answered on others.
        if session.connectionCount > 1 || connection == nil || connection?.endReason != nil { sendAll(session) }
    }

    func sendAll(_ session: TargetSession) {
        for index in 0..<session.connectionCount {
            guard let owner = session.connection(at: index).owner else { continue }
            unsafeDowncast(owner, to: TargetSocket.self).requestSend()
        }
    }

    // MARK: the protocol half's alarms

    func armAlarm() {
        let deadline = service.nextDeadline(at: port.now)
        guard deadline != alarmDeadline || alarmTimer == nil else { return }
        cancelAlarm()
        guard deadline < .distantFuture else { return }
        alarmDeadline = deadline
        alarmTimer = port.setTimer(at: deadline, handler: self, token: 0)
    }

    func cancelAlarm() {
        if let alarmTimer { port.cancelTimer(alarmTimer) }
        alarmTimer = nil
    }

    func handleEvents() {
        while let event = service.nextEvent() {
            switch event {
            case .sessionStarted(let session): sessionStarted(session)
            case .sessionEnded(let session, _): sessionEnded(session)
            case .commandAbandoned(let session, let slot): abort(session, slot)
            case .connectionEnded(let connection, let reason):
                (connection.owner as? TargetSocket)?.connectionEnded(reason)
            }
        }
    }

    private func sessionStarted(_ session: TargetSession) {
        // The service let in only whom a node names, through one of its portals.
        guard let device = accessPoints.first(where: { $0.name == session.identity.targetName })?.device,
            let group = device.portGroupIndex(tag: session.portalGroupTag)
        else { preconditionFailure("a session with no node") }
        let nexus = device.nexusStarted(
            NexusIdentity(
                initiatorName: session.identity.initiatorName, isid: session.identity.isid, portGroup: group))
        let entry = SessionEntry(session: session, device: device, nexus: nexus, portGroup: group)
        session.ownerIndex = sessions.firstIndex { $0 == nil } ?? sessions.endIndex
        if session.ownerIndex == sessions.endIndex {
            sessions.append(entry)
        } else {
            sessions[session.ownerIndex] = entry
        }
    }

    private func sessionEnded(_ session: TargetSession) {
        let index = session.ownerIndex
        guard index >= 0, let entry = sessions[index] else { return }
        abortHeld { !$0.outlivesSession && $0.command.token >> 32 == UInt64(index) }
        for unit in entry.device.units { _ = unit.abort(.session(UInt32(index)), managementToken: nil) }
        // A session that reinstated it is the same nexus, and has begun or is about to.
        let isReplaced = sessions.contains {
            guard let other = $0, other.session !== session, !other.session.isEnded else { return false }
            return other.device === entry.device && other.nexus == entry.nexus
        }
        if !isReplaced { entry.device.nexusEnded(entry.nexus) }
        forgetIfDrained(index)
    }

    /// A dead session's place is kept while the device server still has commands of it.
    private func forgetIfDrained(_ index: Int) {
        guard let session = sessions[index]?.session, session.isEnded, session.executingCount == 0 else { return }
        sessions[index] = nil
    }

    /// A command whose connection is gone: the medium must not see it later than what comes in its place.
    private func abort(_ session: TargetSession, _ slot: Int) {
        guard let entry = sessions[session.ownerIndex], let number = session.lun(slot).index, let unit = entry.device.unit(number)
        else { return }
        let token = UInt64(session.ownerIndex) << 32 | UInt64(slot)
        abortHeld { !$0.outlivesSession && $0.command.token == token }
        _ = unit.abort(.command(token: token), managementToken: nil)
    }

    func forget(_ socket: TargetSocket) {
        portals[socket.portal].sockets.removeAll { $0 === socket }
    }

    // MARK: commands

    private func execute(_ session: TargetSession, _ slot: Int) {
        guard let entry = sessions[session.ownerIndex] else { return session.aborted(slot) }
        executedCount += 1
        let command = DeviceCommand(
            token: UInt64(session.ownerIndex) << 32 | UInt64(slot), nexus: entry.nexus, portGroup: entry.portGroup,
            attribute: session.attribute(slot), cdb: session.cdb(slot), dataOut: session.dataOut(slot),
            expectedDataInByteCount: session.expectedDataInByteCount(slot))
        executedByteCount &+= command.dataOut.count &+ command.expectedDataInByteCount
        guard let number = session.lun(slot).index, let unit = entry.device.unit(number) else {
            return executeWithoutUnit(command, entry.device)
        }
        let connection = session.connection(ofSlot: slot)
        let portal = connection?.portal ?? 0
        portals[portal].counters[number].count(command, blockSize: unit.blockSize)
        if faults != nil, isStruck(command, unit, portal, session, slot, connection) { return }
        if let filter {
            if let cmdSN = session.orderedCmdSN(slot) { filter.ordered(command, cmdSN: cmdSN, in: session) }
            switch filter.decide(command, unit: number, portal: portal) {
            case .execute: break
            case .hold:
                return held.append(
                    HeldCommand(command: command, unit: unit, outlivesSession: filter.holdsOutliveSessions))
            case .answer(let status, let sense): return answer(command, status, sense)
            }
        }
        unit.execute(command)
    }

    /// The status of a command that was not executed.
    func answer(_ command: DeviceCommand, _ status: SCSIStatus, _ sense: SenseData?) {
        var result = DeviceResult.status(status)
        result.sense = sense
        commandFinished(token: command.token, result: result)
    }

    /// SPC-4 clauses 5.9 and 6.4: what a LUN answers that no unit stands behind.
    private func executeWithoutUnit(_ command: DeviceCommand, _ device: TargetNode) {
        let result: DeviceResult
        switch command.request {
        case .success(.inquiry(let page, let count)):
            result = LogicalUnit.inquiryOfNothing(page, allocation: Int(count), pool: pool)
        case .success(.reportLUNs(let selection, let count)):
            result = LogicalUnit.reportLUNs(selection, allocation: Int(count), node: device, pool: pool)
        case .success(.requestSense(let format, let count)):
            result = LogicalUnit.answer(
                SenseData.unsupportedLogicalUnit.encode(format: format), allocation: Int(count), pool: pool)
        default: result = .check(.unsupportedLogicalUnit)
        }
        commandFinished(token: command.token, result: result)
    }

    /// Tokens of the commands that the filter holds, in the order of arrival.
    public var heldTokens: [UInt64] { held.map(\.command.token) }

    /// Executes a held command now.
    public func release(_ token: UInt64) {
        guard let index = held.firstIndex(where: { $0.command.token == token }) else { return }
        let command = held.remove(at: index)
        faults?.letGo(token)
        command.unit.execute(command.command)
    }

    func abortHeld(_ matches: (HeldCommand) -> Bool) {
        guard !held.isEmpty else { return }
        let aborted = held.filter(matches)
        held.removeAll(where: matches)
        for command in aborted { faults?.letGo(command.command.token) }
        for command in aborted { commandAborted(token: command.command.token) }
    }

    // MARK: task management

    private func manage(_ session: TargetSession, _ request: TargetManagementRequest) {
        guard let entry = sessions[session.ownerIndex] else { return }
        let isWholeTarget = request.function == .targetWarmReset || request.function == .targetColdReset
        let units: [LogicalUnit]
        if isWholeTarget {
            units = entry.device.units
        } else if let number = request.lun.index, let unit = entry.device.unit(number) {
            units = [unit]
        } else {
            return answer(session, request.token, .lunDoesNotExist)
        }
        let scope: LogicalUnit.AbortScope
        var spared: [UInt64] = []
        switch request.function {
        case .abortTask:
            // It may have ended between the request's arrival and now.
            guard let slot = session.executingSlot(ofTag: request.referencedTaskTag) else {
                return answer(session, request.token, .taskDoesNotExist)
            }
            scope = .command(token: UInt64(session.ownerIndex) << 32 | UInt64(slot))
        case .abortTaskSet:
            scope = .nexus(entry.nexus)
            spared = request.sparedSlots.map { UInt64(session.ownerIndex) << 32 | UInt64($0) }
        case .clearTaskSet, .logicalUnitReset, .targetWarmReset, .targetColdReset: scope = .all
        case .clearACA, .taskReassign: return answer(session, request.token, .notSupported)
        }
        if case .all = scope { dropOthers(request, units, entry) }
        let wait = waits.firstIndex { $0 == nil } ?? waits.endIndex
        if wait == waits.endIndex { waits.append(nil) }
        var pending = 0
        for unit in units {
            abortHeld { $0.unit === unit && LogicalUnit.matches($0.command, scope) && !spared.contains($0.command.token) }
            if !unit.abort(scope, sparing: spared, managementToken: UInt64(wait)) { pending += 1 }
        }
        applyReset(request.function, units)
        guard pending > 0 else {
            finish(session, request)
            return
        }
        waits[wait] = ManagementWait(session: session, request: request, unitCount: pending)
    }

    /// CLEAR TASK SET and resets concern all nexuses: data on its way for their commands is for nothing.
    private func dropOthers(_ request: TargetManagementRequest, _ units: [LogicalUnit], _ own: SessionEntry) {
        let isWholeTarget = request.function == .targetWarmReset || request.function == .targetColdReset
        for case let other? in sessions 
        where other.device === own.device && other.nexus != own.nexus && !other.session.isEnded {
            other.session.dropUndelivered(lun: isWholeTarget ? nil : request.lun)
        }
        // Whose commands were cleared by another nexus learns of it (SAM-5 clause 5.14, TAS 0).
        if request.function == .clearTaskSet {
            for unit in units { unit.raise(.commandsCleared, except: own.nexus) }
        }
    }

    private func applyReset(_ function: TaskManagementFunction, _ units: [LogicalUnit]) {
        switch function {
        case .logicalUnitReset: for unit in units { unit.reset(attention: .logicalUnitReset) }
        case .targetWarmReset, .targetColdReset: for unit in units { unit.reset(attention: .targetReset) }
        default: break
        }
    }

    private func finish(_ session: TargetSession, _ request: TargetManagementRequest) {
        answer(session, request.token, .functionComplete)
        // All sessions end, whoever's they are (RFC 7143 section 11.5.1); the answer leaves first where it can.
        if request.function == .targetColdReset { endSessions(answeredBy: session) }
    }

    private func endSessions(answeredBy session: TargetSession) {
        guard let device = sessions.lazy.compactMap({ $0 }).first(where: { $0.session === session })?.device else { return }
        let all = sessions.compactMap { $0 }.filter { $0.device === device && !$0.session.isEnded }.map(\.session)
        for other in all where other !== session { service.end(other, .dropped) }
        service.end(session, .coldReset)
        handleEvents()
    }

    private func answer(_ session: TargetSession, _ token: UInt32, _ response: TaskManagementResponse) {
        let connection = session.finishManagement(token, response: response)
        if session.connectionCount > 1 { return sendAll(session) }
        (connection?.owner as? TargetSocket)?.requestSend()
    }
}

extension EmbeddedTarget: DeviceClient {
    public func commandFinished(token: UInt64, result: DeviceResult) {
        let index = Int(token >> 32)
        guard let session = sessions[index]?.session else { preconditionFailure("a command outlived its session's entry") }
        let connection = session.complete(
            Int(UInt32(truncatingIfNeeded: token)), status: result.status, sense: result.sense,
            senseFormat: result.senseFormat, dataOutByteCount: result.dataOutByteCount, data: result.data,
            buffer: result.buffer)
        if let owner = connection?.owner {
            unsafeDowncast(owner, to: TargetSocket.self).requestSend()
        } else {
            commandLeft(session, index)
        }
    }

    /// A logout may have waited for it, or the end of its session.
    private func commandLeft(_ session: TargetSession, _ index: Int) {
        if session.connectionCount > 0 { sendAll(session) }
        forgetIfDrained(index)
    }

    public func commandAborted(token: UInt64) {
        let index = Int(token >> 32)
        guard let session = sessions[index]?.session else { return }
        session.aborted(Int(UInt32(truncatingIfNeeded: token)))
        commandLeft(session, index)
    }

    public func taskManagementFinished(token: UInt64) {
        guard let index = Int(exactly: token), index < waits.count,
            var wait = waits[index]
        else { return }
        wait.unitCount -= 1
        guard wait.unitCount == 0 else {
            waits[index] = wait
            return
        }
        waits[index] = nil
        finish(wait.session, wait.request)
    }

    public func nexusPreempted(_ nexus: NexusIndex, unit: LogicalUnit) {
        for case let entry? in sessions where entry.device === unit.node && entry.nexus == nexus && !entry.session.isEnded {
            entry.session.dropUndelivered(lun: LogicalUnitNumber(index: unit.number))
        }
        abortHeld { $0.unit === unit && $0.command.nexus == nexus }
    }
}

extension EmbeddedTarget: TimerHandler {
    public func timerFired(_ timer: TimerID, token: UInt64) {
        alarmTimer = nil
        service.timerFired(at: port.now)
        handleEvents()
        for session in service.sessions { serve(session, nil) }
        armAlarm()
    }
}
