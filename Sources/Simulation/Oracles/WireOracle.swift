import ISCSI
import Timebase

/// Holds the initiator to the rules of RFC 7143 on the wire: CmdSN and its window (section 4.2.2.1), StatSN
/// (4.2.2.2), tags, bursts and R2Ts (sections 4.2.5 and 11.7), and what belongs to which connection of a session (4.2.4,
/// 7.2.2). It knows nothing of either implementation but its bytes.
final class WireOracle: WireObserver {
    private let verdict: Verdict
    private var wires: [UInt64: Wire] = [:]
    /// By the place of the target, ISID and TSIH.
    private var sessions: [SessionKey: WireSession] = [:]
    /// In the order of their logins.
    private var sessionList: [WireSession] = []
    private(set) var pduCount = 0
    /// The target that a link leads to.
    private let targetOfLink: (Link) -> Int
    private let now: () -> Instant
    /// Whether it follows what arrives at targets.
    let watchesArrival: Bool
    /// Gets a line for each PDU that is sent or received, where somebody reads along.
    private let show: ((String) -> Void)?

    struct SessionKey: Hashable {
        var target: Int
        var isid: UInt64
        var tsih: UInt16
    }

    init(
        verdict: Verdict, watchesArrival: Bool, show: ((String) -> Void)?, now: @escaping () -> Instant,
        targetOfLink: @escaping (Link) -> Int
    ) {
        self.show = show
        self.verdict = verdict
        self.watchesArrival = watchesArrival
        self.now = now
        self.targetOfLink = targetOfLink
    }

    /// A wire and its session know each other; a soak runs thousands of worlds.
    deinit {
        for wire in wires.values { wire.session = nil }
    }

    func corrupted(_ endpoint: Endpoint) {
        if endpoint.direction == Link.toTarget {
            // What the target makes of it shows in its answers.
            let wire = wire(endpoint)
            wire.isArrivalBlind = true
            wire.session?.isArrivalBlind = true
        } else if let client = endpoint.peer {
            let wire = wire(client)
            wire.isBlind = true
            wire.session?.isBlind = true
        }
    }

    private func wire(_ endpoint: Endpoint) -> Wire {
        if let wire = wires[endpoint.id] { return wire }
        let wire = Wire(number: endpoint.id)
        wires[endpoint.id] = wire
        return wire
    }

    /// Whether the login of a connection is over, for both ends.
    func isFullFeature(_ endpoint: Endpoint) -> Bool {
        let client = endpoint.direction == Link.toTarget ? endpoint : endpoint.peer
        return client.map { wires[$0.id]?.isFullFeature == true } ?? false
    }

    /// The connection ID that a client's end has logged in with.
    func connectionID(_ client: Endpoint) -> UInt16? {
        guard let wire = wires[client.id], wire.isFullFeature else { return nil }
        return wire.connectionID
    }

    /// Nothing is under way, and all is well: sessions that live must have no number that nothing fills.
    func checkGaps() {
        for session in sessionList where session.wires.contains(where: { !$0.isEnded && isOpen($0) }) {
            if let words = session.openGap { verdict.fail(.order, words) }
        }
    }

    private var openWires: Set<UInt64> = []
    private func isOpen(_ wire: Wire) -> Bool { openWires.contains(wire.number) }
    func closed(_ endpoint: Endpoint) { openWires.remove(endpoint.id) }

    // MARK: The initiator's

    func sent(_ bytes: UnsafeRawBufferPointer, by endpoint: Endpoint) {
        let wire = wire(endpoint)
        wire.initiator.feed(bytes, began: { _, _ in }) { [self] header, data in
            pduCount += 1
            show?("pdu \(endpoint.id) > \(header.wordsForReaders)")
            sent(header, data, wire, endpoint)
            // The last login request has no digest, what follows its answer has.
            return nil
        }
    }

    private func sent(_ header: BasicHeaderSegment, _ data: [UInt8], _ wire: Wire, _ endpoint: Endpoint) {
        if header.opcode == .loginRequest { return loginRequest(header, data, wire) }
        guard wire.isFullFeature, let session = wire.session else {
            return fail(endpoint, "\(header.opcode) before full-feature phase")
        }
        if data.count > wire.targetSegment {
            fail(endpoint, "a data segment of \(data.count) bytes where the target takes \(wire.targetSegment)")
        }
        if !wire.isBlind, Int32(bitPattern: header.expStatSN &- wire.nextStatSN) > 0 {
            fail(endpoint, "\(header.opcode) has ExpStatSN \(header.expStatSN), received was what comes before \(wire.nextStatSN)")
        }
        if wire.isEnded { fail(endpoint, "\(header.opcode) on a connection that is over") }
        switch header.opcode {
        case .dataOut: return dataOut(header, data.count, session, wire, endpoint)
        case .snackRequest: return
        case .taskManagementRequest: management(header, session, wire, endpoint)
        case .logoutRequest: session.logouts[header.initiatorTaskTag] = (header.connectionID, header.flags & 0x7F)
        default: break
        }
        if let words = session.check(header, on: wire) { fail(endpoint, words) }
        if header.opcode == .scsiCommand { command(header, data.count, session, wire, endpoint) }
    }

    private func loginRequest(_ header: BasicHeaderSegment, _ data: [UInt8], _ wire: Wire) {
        learn(data, "initiator.", wire, isAnswer: false)
        wire.connectionID = header.connectionID
        if wire.firstLogin == nil { wire.firstLogin = header }
    }

    private func command(
        _ header: BasicHeaderSegment, _ dataCount: Int, _ session: WireSession, _ wire: Wire, _ endpoint: Endpoint
    ) {
        let tag = header.initiatorTaskTag
        if let other = session.tasks[tag], !other.wire.isBlind, other.cmdSN != header.cmdSN {
            fail(endpoint, "task tag \(tag) is in use")
        }
        let isWrite = header.flags & 0x20 != 0
        let expected = Int(header.expectedDataTransferByteCount)
        if dataCount > 0, !session.takesImmediate || !isWrite { fail(endpoint, "immediate data that was not agreed on") }
        if dataCount > min(session.firstBurst, expected) {
            fail(endpoint, "\(dataCount) bytes of immediate data; FirstBurstLength is \(session.firstBurst), expected \(expected)")
        }
        let opens = isWrite && !header.isFinal
        if opens, session.wantsR2T { fail(endpoint, "unsolicited data is to follow where InitialR2T is Yes") }
        session.tasks[tag] = WireSession.Task(
            wire: wire, cmdSN: header.cmdSN, isWrite: isWrite, byteCount: expected, unsolicited: dataCount,
            unsolicitedIsOpen: opens)
    }

    private func management(_ header: BasicHeaderSegment, _ session: WireSession, _ wire: Wire, _ endpoint: Endpoint) {
        let function = header.flags & 0x7F
        let referenced = header.referencedTaskTag
        session.management[header.initiatorTaskTag] = (function, referenced)
        guard function == TaskManagementFunction.taskReassign.rawValue, var task = session.tasks[referenced] else { return }
        // Section 7.2.2: the old connection is logged out first.
        // Damaged bytes may have brought the word that it is over.
        let isKnown = !session.isBlind
        if isKnown, !task.wire.isEnded {
            fail(endpoint, "TASK REASSIGN of task \(referenced), whose connection \(task.wire.number) is not over")
        } else if isKnown, now() < task.wire.endedAt {
            fail(endpoint, "TASK REASSIGN of task \(referenced) before Time2Wait has passed")
        }
        task.wire = wire
        task.requests = []
        task.unsolicitedIsOpen = false
        session.tasks[referenced] = task
    }

    private func dataOut(
        _ header: BasicHeaderSegment, _ count: Int, _ session: WireSession, _ wire: Wire, _ endpoint: Endpoint
    ) {
        let tag = header.initiatorTaskTag
        // Its answer may have come while this was queued.
        guard var task = session.tasks[tag] else { return }
        guard task.wire === wire else {
            // A task whose end the initiator was told by damaged bytes: the tag may be another one's by now.
            if !task.wire.isBlind, !wire.isBlind {
                fail(endpoint, "data of task \(tag), which belongs to connection \(task.wire.number)")
            }
            return
        }
        let offset = Int(header.bufferOffset)
        if header.targetTransferTag == BasicHeaderSegment.reservedTag {
            if !task.unsolicitedIsOpen { fail(endpoint, "unsolicited data after its last PDU") }
            if offset != task.unsolicited { fail(endpoint, "unsolicited data at \(offset), \(task.unsolicited) is next") }
            if header.dataSN != task.unsolicitedDataSN { fail(endpoint, "DataSN \(header.dataSN) of unsolicited data") }
            task.unsolicited += count
            task.unsolicitedDataSN &+= 1
            if task.unsolicited > min(session.firstBurst, task.byteCount) {
                fail(endpoint, "\(task.unsolicited) bytes unsolicited, FirstBurstLength is \(session.firstBurst)")
            }
            if header.isFinal { task.unsolicitedIsOpen = false }
        } else if let index = task.requests.firstIndex(where: { $0.tag == header.targetTransferTag }) {
            let request = task.requests[index]
            if offset != request.offset { fail(endpoint, "solicited data at \(offset), \(request.offset) is next") }
            if header.dataSN != request.dataSN { fail(endpoint, "DataSN \(header.dataSN), \(request.dataSN) is next") }
            if offset + count > request.end { fail(endpoint, "data up to \(offset + count), the R2T ends at \(request.end)") }
            if header.isFinal != (offset + count == request.end) { fail(endpoint, "F bit at \(offset + count) of an R2T to \(request.end)") }
            task.requests[index].offset += count
            task.requests[index].dataSN &+= 1
            if header.isFinal { task.requests.remove(at: index) }
        } else if !wire.isBlind {
            fail(endpoint, "data for transfer tag \(header.targetTransferTag), which no R2T gave")
        }
        session.tasks[tag] = task
    }

    // MARK: The target's

    func received(_ bytes: UnsafeRawBufferPointer, by endpoint: Endpoint) {
        let wire = wire(endpoint)
        guard !wire.isBlind else { return }
        wire.target.feed(bytes, began: { _, _ in }) { [self] header, data in
            show?("pdu \(endpoint.id) < \(header.wordsForReaders)")
            return received(header, data, wire, endpoint)
        }
    }

    private func received(
        _ header: BasicHeaderSegment, _ data: [UInt8], _ wire: Wire, _ endpoint: Endpoint
    ) -> (header: Bool, data: Bool)? {
        if header.opcode == .loginResponse { return loginResponse(header, data, wire, endpoint) }
        guard let session = wire.session else { return nil }
        if let words = session.took(header, at: now()) { verdict.fail(.order, words) }
        takeStatSN(header, wire)
        let tag = header.initiatorTaskTag
        switch header.opcode {
        case .scsiResponse:
            checkAllegiance(header, session, wire, endpoint)
            session.tasks[tag] = nil
        case .taskManagementResponse: managementResponse(header, session)
        case .dataIn:
            checkAllegiance(header, session, wire, endpoint)
            if header.flags & 0x01 != 0 { session.tasks[tag] = nil }
        case .readyToTransfer:
            checkAllegiance(header, session, wire, endpoint)
            let offset = Int(header.bufferOffset)
            let end = offset + Int(header.desiredDataTransferByteCount)
            session.tasks[tag]?.take(WireSession.Request(tag: header.targetTransferTag, offset: offset, end: end))
        case .logoutResponse: logoutResponse(header, session, wire)
        case .reject: rejected(data, session)
        default: break
        }
        return nil
    }

    private func takeStatSN(_ header: BasicHeaderSegment, _ wire: Wire) {
        switch header.opcode {
        case .readyToTransfer: return
        case .dataIn where header.flags & 0x01 == 0: return
        case .nopIn where header.initiatorTaskTag == BasicHeaderSegment.reservedTag: return
        default:
            if Int32(bitPattern: header.statSN &- wire.nextStatSN) >= 0 { wire.nextStatSN = header.statSN &+ 1 }
        }
    }

    /// Section 4.2.4: what belongs to a command comes on its own connection.
    private func checkAllegiance(_ header: BasicHeaderSegment, _ session: WireSession, _ wire: Wire, _ endpoint: Endpoint) {
        guard let task = session.tasks[header.initiatorTaskTag], task.wire !== wire, !task.wire.isBlind else { return }
        fail(endpoint, "\(header.opcode) of task \(header.initiatorTaskTag), which belongs to connection \(task.wire.number)")
    }

    private func managementResponse(_ header: BasicHeaderSegment, _ session: WireSession) {
        guard let request = session.management.removeValue(forKey: header.initiatorTaskTag) else { return }
        switch TaskManagementFunction(rawValue: request.function) {
        case .taskReassign:
            if header.byte2 != TaskManagementResponse.functionComplete.rawValue { session.tasks[request.referenced] = nil }
        case .abortTask: session.tasks[request.referenced] = nil
        // What was aborted is not answered; its tags are free.
        default: session.tasks.removeAll()
        }
    }

    private func logoutResponse(_ header: BasicHeaderSegment, _ session: WireSession, _ wire: Wire) {
        guard let request = session.logouts.removeValue(forKey: header.initiatorTaskTag), header.byte2 <= 1 else { return }
        let isRecovery = request.reason == LogoutReason.removeConnectionForRecovery.rawValue
        guard request.reason != LogoutReason.closeSession.rawValue else { return }
        session.end(
            connectionID: request.connectionID, except: request.connectionID == wire.connectionID ? nil : wire,
            at: now() + .seconds(Int(header.time2Wait)), endsTasks: !isRecovery || header.byte2 == 1)
    }

    private func rejected(_ data: [UInt8], _ session: WireSession) {
        guard data.count >= 48 else { return }
        let header = data.withUnsafeBytes { BasicHeaderSegment(loadingFrom: $0.baseAddress!) }
        session.sent[header.cmdSN]?.isRejected = true
    }

    private func loginResponse(
        _ header: BasicHeaderSegment, _ data: [UInt8], _ wire: Wire, _ endpoint: Endpoint
    ) -> (header: Bool, data: Bool)? {
        learn(data, "target.", wire, isAnswer: true)
        wire.nextStatSN = header.statSN &+ 1
        // T, and the next stage is full-feature phase.
        guard header.flags & 0x83 == 0x83, header[byte: 36] == 0, let request = wire.firstLogin else { return nil }
        enter(wire, request, tsih: header.tsih, endpoint)
        if let session = wire.session, Int32(bitPattern: header.maxCmdSN &- session.maxCmdSN) > 0 {
            session.maxCmdSN = header.maxCmdSN
        }
        wire.isFullFeature = true
        openWires.insert(wire.number)
        wire.targetSegment = wire.number("target.MaxRecvDataSegmentLength", default: 8192)
        for framer in [\Wire.initiator, \Wire.arriving] {
            wire[keyPath: framer].hasHeaderDigest = wire.headerDigest
            wire[keyPath: framer].hasDataDigest = wire.dataDigest
        }
        return (wire.headerDigest, wire.dataDigest)
    }

    private func enter(_ wire: Wire, _ request: BasicHeaderSegment, tsih: UInt16, _ endpoint: Endpoint) {
        let key = SessionKey(target: targetOfLink(endpoint.link), isid: request.isidNumber, tsih: tsih)
        if request.tsih == 0 {
            let session = WireSession(wire, cmdSN: request.cmdSN)
            sessions[key] = session
            sessionList.append(session)
            wire.session = session
        } else if let session = sessions[key] {
            wire.session = session
            // Connection reinstatement (section 6.3.4).
            session.end(connectionID: wire.connectionID, except: wire, at: now(), endsTasks: false)
        } else {
            fail(endpoint, "a login to a session that is not known")
        }
        wire.session?.wires.append(wire)
    }

    private func learn(_ data: [UInt8], _ side: String, _ wire: Wire, isAnswer: Bool) {
        for pair in data.split(separator: 0) {
            let text = String(decoding: pair, as: UTF8.self)
            guard let equals = text.firstIndex(of: "=") else { continue }
            let key = String(text[..<equals])
            let value = String(text[text.index(after: equals)...])
            wire.keys[side + key] = value
            // The answer carries the result; what the target itself offers is answered the same way.
            if isAnswer || wire.keys["target." + key] != nil { wire.keys[key] = value }
        }
    }

    // MARK: At the target

    func arrived(_ bytes: UnsafeRawBufferPointer, at endpoint: Endpoint) {
        guard watchesArrival, let client = endpoint.peer else { return }
        let wire = wire(client)
        guard !wire.isArrivalBlind else { return }
        wire.arriving.feed(bytes, began: { _, _ in }) { header, _ in
            if header.opcode != .loginRequest { wire.session?.arrived(header) }
            return nil
        }
    }

    /// A command left its session's order for its unit.
    func reachedUnit(_ key: SessionKey, cmdSN: UInt32, isRead: Bool) {
        guard watchesArrival else { return }
        if let words = sessions[key]?.reachedUnit(cmdSN, isRead: isRead) { verdict.fail(.order, words) }
    }

    private func fail(_ endpoint: Endpoint, _ words: @autoclosure () -> String) {
        verdict.fail(.wire, "connection \(endpoint.id) on path \(endpoint.link.path): \(words())")
    }
}

extension BasicHeaderSegment {
    /// What a reader of a trace wants to know of a PDU; numbers are what they are in requests or in answers.
    fileprivate var wordsForReaders: String {
        let isRequest = opcode.rawValue < 0x20
        var words = "\(opcode)\(isRequest && isImmediate ? " immediate" : "") tag \(String(initiatorTaskTag, radix: 16))"
        switch opcode {
        case .taskManagementRequest:
            words += " \(taskManagementFunction.map { "\($0)" } ?? "?") of \(String(referencedTaskTag, radix: 16))"
        case .taskManagementResponse: words += " \(taskManagementResponse)"
        case .logoutRequest: words += " of \(connectionID), reason \(flags & 0x7F)"
        default: break
        }
        if isRequest { return words + (opcode == .dataOut ? "" : " CmdSN \(cmdSN)") }
        return words + " ExpCmdSN \(expCmdSN) MaxCmdSN \(maxCmdSN)"
    }

    fileprivate var isidNumber: UInt64 { (8..<14).reduce(0) { $0 << 8 | UInt64(self[byte: $1]) } }
}
