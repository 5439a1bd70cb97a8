import SCSI
public import Timebase

/// One connection of a target: its bytes, its login, its StatSN (RFC 7143 sections 4.2.2.2 and 6.3).
///
/// The owner of the socket hands in what came and sends what ``output(into:)`` names; it then drains
/// ``TargetService/nextEvent()`` and the session's actions. No I/O, no clock; one thread.
public final class TargetConnection {
    public let portalGroupTag: UInt16
    /// What drives it. Held strongly until the owner lets go.
    @exclusivity(unchecked) public var owner: AnyObject?
    @exclusivity(unchecked) public private(set) var session: TargetSession?
    /// CID
    public private(set) var connectionID: UInt16 = 0
    /// Its name within the session: two connections may have had one CID.
    @exclusivity(unchecked) private(set) var key: UInt32 = 0
    /// nil while it lives.
    @exclusivity(unchecked) public private(set) var endReason: TargetConnectionEnd?
    @exclusivity(unchecked) public private(set) var isFullFeature = false

    /// The portal it came through, by its owner's count; see ``TargetNodeDescription/portals``.
    public let portal: Int?
    /// So many of the next PDUs leave with a wrong digest, where one was agreed on: for tests of initiators.
    public var headerDigestsToSpoil = 0
    /// Likewise PDUs with data.
    public var dataDigestsToSpoil = 0

    let service: TargetService
    @exclusivity(unchecked) var decoder: PDUDecoder
    @exclusivity(unchecked) var output: TargetOutput
    @exclusivity(unchecked) var parameters = NegotiatedParameters()
    @exclusivity(unchecked) var statSN: UInt32 = 1
    /// What the initiator has confirmed: the StatSN that it expects.
    @exclusivity(unchecked) var acknowledgedStatSN: UInt32 = 1
    /// Results of commands that were to be sent here, and those that were.
    @exclusivity(unchecked) var enqueuedResults: UInt64 = 0
    @exclusivity(unchecked) var sentResults: UInt64 = 0
    /// It is logged out so that its tasks can go to another connection.
    var isLeavingForRecovery = false
    /// At level 1 and above: what may be asked for again.
    @exclusivity(unchecked) var retention: TargetRetention?
    @exclusivity(unchecked) var resends: [TargetResend] = []
    private var seenHeaderDigestErrors: UInt64 = 0
    private var login: TargetLogin?
    /// Where the connection was accepted, for portals that listen on every address.
    private let localAddress: TargetAddress?

    /// What the PDU that is being received is for.
    enum Incoming {
        case nothing
        case command(Int)
        case dataOut(slot: Int, transfer: Int)
        /// Behind a gap in its sequence: thrown away, to be asked for again.
        case lostDataOut(slot: Int, transfer: Int)
        case other
        case ignored
    }

    @exclusivity(unchecked) var incoming = Incoming.nothing
    // Commands whose results wait to be sent, linked through their slots.
    @exclusivity(unchecked) private var respondingFirst: Int32 = -1
    @exclusivity(unchecked) private var respondingLast: Int32 = -1
    @exclusivity(unchecked) var managementResponses: [(response: TaskManagementResponse, tag: UInt32)] = []
    private static let managementResponseLimit = 8192
    // Text negotiation that spans several PDUs.
    private var text = TextAssembler()
    private var outgoingText: OutgoingText?
    private static let textTransferTag: UInt32 = 1

    private var startedAt: Instant
    @exclusivity(unchecked) private var lastReceived: Instant
    @exclusivity(unchecked) private var pingSentAt: Instant?
    private static let pingTransferTag: UInt32 = 0x7FFF_FFFE

    /// `portalGroupTag` is that of the portal that accepted; `localAddress` the connection's own address.
    public init(
        service: TargetService, portalGroupTag: UInt16, portal: Int? = nil, localAddress: TargetAddress? = nil,
        at now: Instant
    ) {
        self.service = service
        self.portal = portal
        self.portalGroupTag = portalGroupTag
        self.localAddress = localAddress
        decoder = PDUDecoder(crc32c: service.crc32c)
        output = TargetOutput(pool: service.pool)
        login = TargetLogin(cryptography: service.cryptography, statSN: 1)
        startedAt = now
        lastReceived = now
    }

    // MARK: bytes in

    /// Memory for the rest of the data segment that is being received; may be empty.
    public func inputWindow() -> UnsafeMutableRawBufferPointer { decoder.directWindow }

    /// Bytes came: the first `placedByteCount` into ``inputWindow()``, the others in `spill`.
    public func received(placedByteCount: Int, spill: UnsafeRawBufferPointer, at now: Instant) {
        guard endReason == nil else { return }
        lastReceived = now
        pingSentAt = nil
        decoder.placed(byteCount: placedByteCount)
        var input = spill
        while endReason == nil {
            switch decoder.next(&input) {
            case .needMore: return headerDigestsChecked()
            case .header: headerArrived()
            case .complete: pduArrived()
            case .dataDigestError: dataDigestFailed()
            case .failed(let error): end(.protocolError(error))
            }
        }
    }

    /// PDUs were dropped whose header was damaged, at level 1 and above: what they were for is unknown.
    private func headerDigestsChecked() {
        guard decoder.headerDigestErrorCount != seenHeaderDigestErrors else { return }
        seenHeaderDigestErrors = decoder.headerDigestErrorCount
        watchTransfers()
    }

    /// At level 0 a command fails with its data (section 7.8), and other requests cannot be done without. Above it,
    /// data is asked for again, and requests are sent again by the initiator.
    private func dataDigestFailed() {
        let incoming = self.incoming
        self.incoming = .nothing
        let recovers = recoveryLevel > 0
        switch incoming {
        case .command(let slot):
            reject(.dataDigestError, decoder.header)
            if recovers { session?.commandDiscarded(slot) } else { session?.fail(slot, additional: .protocolServiceCRCError) }
        case .dataOut(let slot, let transfer):
            reject(.dataDigestError, decoder.header)
            if recovers {
                dataOutLost(slot, transfer)
            } else {
                session?.fail(slot, additional: .protocolServiceCRCError)
            }
        case .lostDataOut(let slot, let transfer): dataOutLost(slot, transfer)
        case .ignored: return
        case .other, .nothing:
            if recovers { reject(.dataDigestError, decoder.header) } else { end(.dataDigestMismatch) }
        }
    }

    /// Errors of this connection that are recovered from.
    var recoveryLevel: Int { isFullFeature ? session?.recoveryLevel ?? 0 : 0 }

    private func headerArrived() {
        guard isFullFeature else {
            incoming = .other
            return decoder.collect(limit: decoder.maxDataSegmentByteCount)
        }
        confirmed(decoder.header.expStatSN)
        switch decoder.header.opcode {
        case .scsiCommand: commandHeaderArrived()
        case .dataOut: dataOutHeaderArrived()
        case .nopOut, .textRequest, .loginRequest:
            incoming = .other
            decoder.collect(limit: decoder.maxDataSegmentByteCount)
        default:
            incoming = .other
            discardData()
        }
    }

    func discardData() {
        if decoder.header.dataSegmentByteCount > 0 { decoder.discard() }
    }

    private func pduArrived() {
        let incoming = self.incoming
        self.incoming = .nothing
        switch incoming {
        case .command(let slot): commandArrived(slot)
        case .dataOut(let slot, let transfer): dataOutArrived(slot, transfer)
        case .lostDataOut(let slot, let transfer): dataOutLost(slot, transfer)
        case .ignored, .nothing: return
        case .other:
            guard isFullFeature else {
                return act(login!.received(decoder.header, data: decoder.collectedData))
            }
            requestArrived(decoder.header)
        }
    }

    /// A slot is given up while its data may be on the way into its buffer.
    func forget(_ slot: Int) {
        switch incoming {
        case .command(slot), .dataOut(slot, _), .lostDataOut(slot, _):
            decoder.discard()
            incoming = .ignored
        default: return
        }
    }

    // MARK: login

    private func act(_ action: TargetLoginAction) {
        switch action {
        case .send(let pdu): send(pdu)
        case .identify(let identity):
            act(login!.identified(service.decision(on: identity, through: self)))
        case .establish(let identity, let parameters):
            act(login!.established(service.admit(identity, parameters, self)))
        case .finished(let pdu, let result):
            send(pdu)
            login = nil
            parameters = result.parameters
            statSN = result.statSN
            acknowledgedStatSN = statSN
            isFullFeature = true
            if recoveryLevel > 0 {
                retention = TargetRetention(
                    service: service, recordLimit: TargetRetention.recordLimit(queueDepth: service.settings.queueDepth))
                decoder.toleratesHeaderDigestErrors = true
            }
            decoder.maxDataSegmentByteCount = parameters.maxRecvDataSegmentByteCount
            decoder.headerDigest = parameters.headerDigest == .crc32c
            decoder.dataDigest = parameters.dataDigest == .crc32c
            session?.started()
        case .refused(let pdu, let refusal):
            send(pdu)
            end(.loginRefused(refusal))
        case .failed(let failure): end(.loginFailed(failure))
        }
    }

    func joined(_ session: TargetSession, connectionID: UInt16, key: UInt32) {
        self.session = session
        self.connectionID = connectionID
        self.key = key
    }

    /// The initiator expects this StatSN next.
    @inline(__always)
    private func confirmed(_ expStatSN: UInt32) {
        // Numbers that were not used yet are not confirmed.
        guard expStatSN != acknowledgedStatSN, expStatSN &- acknowledgedStatSN <= statSN &- acknowledgedStatSN else { return }
        acknowledgedStatSN = expStatSN
        retention?.confirm(upTo: expStatSN)
        if let session, !session.fences.isEmpty { session.checkFences() }
    }

    // MARK: requests other than commands and data

    private func requestArrived(_ header: BasicHeaderSegment) {
        guard let session else { return }
        switch header.opcode {
        case .nopOut, .textRequest, .logoutRequest, .taskManagementRequest: break
        case .snackRequest where recoveryLevel > 0: return snackArrived(header)
        case .snackRequest: return reject(.commandNotSupported, header)
        case .loginRequest: return violation(.protocolError, header)
        default: return reject(.commandNotSupported, header)
        }
        switch session.arrival(header) {
        case .ignored: return
        case .early:
            session.hold(header, decoder.collectedData, from: self)
        case .now:
            guard !header.isImmediate else { return perform(header, decoder.collectedData) }
            session.advance { perform(header, decoder.collectedData) }
        }
    }

    /// Its turn came later, behind a gap in CmdSN.
    func perform(_ header: BasicHeaderSegment, _ data: [UInt8]) {
        data.withUnsafeBytes { perform(header, $0) }
    }

    private func perform(_ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer) {
        guard endReason == nil, let session else { return }
        switch header.opcode {
        case .nopOut: pinged(header, data)
        case .textRequest: textArrived(header, data)
        case .logoutRequest: logoutArrived(header)
        case .taskManagementRequest where session.isNormal: session.manage(header, on: self)
        default: reject(.protocolError, header)
        }
    }

    /// Section 11.18: an answer with the same data, unless it is an answer itself or asks for none.
    private func pinged(_ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer) {
        guard header.initiatorTaskTag != BasicHeaderSegment.reservedTag else { return }
        let echoed = UnsafeRawBufferPointer(rebasing: data.prefix(parameters.maxSendDataSegmentByteCount))
        send(
            .nopIn(tag: header.initiatorTaskTag, dataByteCount: echoed.count, numbers: numbersWithStatus()), echoed)
    }

    /// Section 11.14. What the session, or the connection, has to say goes out before the answer.
    private func logoutArrived(_ header: BasicHeaderSegment) {
        fill()
        session?.logOut(header, on: self)
    }

    func sendLogoutResponse(_ response: LogoutResponse, _ header: BasicHeaderSegment) {
        let isRecovery = header.logoutReason == .removeConnectionForRecovery && response == .closed
        send(
            .logoutResponse(
                response, tag: header.initiatorTaskTag, time2Wait: UInt16(clamping: parameters.defaultTime2Wait),
                time2Retain: isRecovery ? UInt16(clamping: parameters.defaultTime2Retain) : 0, numbers: numbersWithStatus()))
    }

    // MARK: text (section 11.10)

    private func textArrived(_ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer) {
        if header.targetTransferTag == BasicHeaderSegment.reservedTag {
            _ = text.take()
            outgoingText = nil
        } else if header.targetTransferTag != Self.textTransferTag {
            return reject(.invalidPDUField, header)
        }
        if outgoingText != nil { return sendText(header) }
        do throws(TextError) {
            try text.append(data)
            if header.textFlags.contains(.continues) {
                return send(
                    .textResponse(
                        [], tag: header.initiatorTaskTag, targetTransferTag: Self.textTransferTag,
                        numbers: numbersWithStatus()))
            }
            outgoingText = OutgoingText(try answer(text.take()))
        } catch {
            _ = text.take()
            return reject(.protocolError, header)
        }
        sendText(header)
    }

    private func sendText(_ header: BasicHeaderSegment) {
        guard var answer = outgoingText else { return }
        let data = answer.next(limit: parameters.maxSendDataSegmentByteCount)
        let isLast = answer.isEmpty
        let isFinal = isLast && header.textFlags.contains(.final)
        outgoingText = isLast ? nil : answer
        data.withUnsafeBytes {
            send(
                .textResponse(
                    isFinal ? [.final] : isLast ? [] : [.continues], tag: header.initiatorTaskTag,
                    targetTransferTag: isFinal ? BasicHeaderSegment.reservedTag : Self.textTransferTag,
                    dataByteCount: $0.count, numbers: numbersWithStatus()), $0)
        }
    }

    private func answer(_ request: [UInt8]) throws(TextError) -> [UInt8] {
        // Each key once (section 6.2): answers to SendTargets are long, and a request could ask thousands of times.
        let pairs = try TextParameters(parsing: request).pairs
        var bytes: [UInt8] = []
        for pair in pairs {
            switch pair.key {
            case "SendTargets": bytes += targets(pair.value)
            case "MaxRecvDataSegmentLength":
                // Declared anew (section 13.12).
                if let value = TextValue.number(pair.value), (512...16_777_215).contains(value) {
                    parameters.maxSendDataSegmentByteCount = Int(value)
                } else {
                    bytes += TextParameters.encode([TextPair(pair.key, "Reject")])
                }
            default: bytes += TextParameters.encode([TextPair(pair.key, "NotUnderstood")])
            }
        }
        return bytes
    }

    /// Appendix C: all targets only to a discovery session.
    private func targets(_ value: String) -> [UInt8] {
        let isNormal = session?.isNormal == true
        let own = session?.identity.targetName
        let wanted: [TargetNodeDescription]
        switch SendTargets.Request(value: value) {
        case .all where !isNormal: wanted = service.nodes
        case .sessionTarget where isNormal: wanted = service.nodes.filter { $0.name == own }
        case .named(let name) where !isNormal || name == own: wanted = service.nodes.filter { $0.name == name }
        default: return TextParameters.encode([TextPair("SendTargets", "Reject")])
        }
        return SendTargets.encode(
            wanted.map { DiscoveredTarget(name: $0.name, addresses: $0.addresses.map(reachable)) })
    }

    /// An address that stands for every one is answered by that through which the initiator came.
    private func reachable(_ address: TargetAddress) -> TargetAddress {
        guard address.host == "0.0.0.0" || address.host == "::", let localAddress else { return address }
        return TargetAddress(host: localAddress.host, port: address.port, portalGroupTag: address.portalGroupTag)
    }

    // MARK: what the target says by itself

    /// Section 11.9.
    public func sendAsyncMessage(_ message: AsyncMessage) {
        guard isFullFeature, endReason == nil else { return }
        send(.asyncMessage(message, numbers: numbersWithStatus()))
    }

    /// Leaves behind the results that are there now: a response after that of its abort would be one too many.
    func sendManagementResponse(_ response: TaskManagementResponse, tag: UInt32) {
        guard endReason == nil else { return }
        // More than any initiator has open that reads the answers.
        guard managementResponses.count < Self.managementResponseLimit else { return end(.overflow) }
        managementResponses.append((response, tag))
    }

    /// A task is this connection's from now on; what is sent for it follows.
    func sendReassigned(_ tag: UInt32) {
        send(.taskManagementResponse(.functionComplete, tag: tag, numbers: numbersWithStatus()))
    }

    /// A NOP-In whose answer tells what was received.
    func ask() {
        guard endReason == nil, isFullFeature else { return }
        // It carries the next StatSN without using it up.
        send(.nopIn(targetTransferTag: Self.pingTransferTag, numbers: numbers()))
    }

    func reject(_ reason: RejectReason, _ header: BasicHeaderSegment) {
        withUnsafeTemporaryAllocation(byteCount: 48, alignment: 8) { bytes in
            header.store(to: bytes.baseAddress!)
            send(.reject(reason, numbers: numbersWithStatus()), UnsafeRawBufferPointer(bytes))
        }
    }

    /// At level 0 a breach of the protocol ends the connection (section 7.1.4.3, session recovery).
    func violation(_ reason: RejectReason, _ header: BasicHeaderSegment) {
        reject(reason, header)
        end(.violation(reason))
    }

    // MARK: time

    /// When ``timerFired(at:)`` has to be called.
    public var nextDeadline: Instant {
        if endReason != nil { return .distantFuture }
        if !isFullFeature { return startedAt + service.settings.loginTimeout }
        guard let interval = service.settings.pingInterval else { return .distantFuture }
        return (pingSentAt ?? lastReceived) + interval
    }

    public func timerFired(at now: Instant) {
        guard nextDeadline <= now else { return }
        if !isFullFeature { return end(.loginTimeout) }
        if pingSentAt != nil { return end(.noAnswerToPing) }
        pingSentAt = now
        ask()
    }

    // MARK: end

    /// The socket is gone.
    public func peerClosed() { end(.peerClosed) }

    /// Ends the connection; a session ends with its last one. What the device server has of its commands
    /// will not be answered.
    public func end(_ reason: TargetConnectionEnd) {
        guard endReason == nil else { return }
        endReason = reason
        // No socket places anything into a command's buffer from here on.
        decoder.discard()
        incoming = .ignored
        respondingFirst = -1
        respondingLast = -1
        for resend in resends { resend.giveBack(to: service.pool) }
        resends = []
        service.post(.connectionEnded(self, reason))
        session?.connectionEnded(self, reason)
        retention?.removeAll()
    }

    /// For the session, which keeps it for the connection that takes over.
    func takeRetention() -> TargetRetention? {
        defer { retention = nil }
        return retention
    }

    // MARK: results

    func enqueueResponse(_ slot: Int) {
        guard let session else { return }
        enqueuedResults &+= 1
        session.tasks[slot].next = -1
        if respondingLast >= 0 {
            session.tasks[Int(respondingLast)].next = Int32(slot)
        } else {
            respondingFirst = Int32(slot)
        }
        respondingLast = Int32(slot)
    }

    /// The task whose result is sent next, if any.
    var firstResponding: Int? { respondingFirst >= 0 ? Int(respondingFirst) : nil }

    func dequeueResponse() {
        guard let session, respondingFirst >= 0 else { return }
        respondingFirst = session.tasks[Int(respondingFirst)].next
        if respondingFirst < 0 { respondingLast = -1 }
    }
}
