/// One connection's login, as the initiator (RFC 7143 section 6.3): a pure state machine, asked once to
/// start and then once for each PDU that comes. After `.finished`, `.redirected` or `.failed` it is over.
///
/// The login begins in the security stage, with CHAP on offer where it is configured and None otherwise. A target that
/// wants another proof of identity refuses with ``LoginStatus/authenticationFailure``.
public struct InitiatorLogin: Sendable {
    private enum Stage: Sendable {
        case notStarted
        /// AuthMethod was offered.
        case choosingMethod
        case chap(CHAPInitiator)
        /// Nothing is left to say in the security stage; the target is asked to move on.
        case leavingSecurity(CHAPInitiator?)
        case operational(OperationalNegotiation, provedWith: CHAPAlgorithm?)
        case over
    }

    /// More round trips than any login needs, pieces of long texts included.
    static let maxExchangeCount = 64

    private let settings: LoginSettings
    private let cryptography: any CryptographicServices
    private var stage = Stage.notStarted
    private var exchangeCount = 0
    /// The flags of the last request; an answer is judged by them.
    private var sentFlags = LoginFlags(rawValue: 0)
    /// The rest of a request's text, and the flags of its last piece.
    private var outgoing = OutgoingText([])
    private var finalFlags = LoginFlags(rawValue: 0)
    private var incoming = TextAssembler()
    private var lastStatSN: UInt32?
    private var portalGroupTag: UInt16?
    private var targetAlias: String?

    public init(settings: LoginSettings, cryptography: any CryptographicServices) {
        self.settings = settings
        self.cryptography = cryptography
    }

    /// Whether `received` wants more PDUs.
    public var isOver: Bool {
        if case .over = stage { true } else { false }
    }

    /// The first Login Request. To be called once, when the connection is open.
    public mutating func start() -> LoginAction {
        guard case .notStarted = stage else { preconditionFailure("a login is started once") }
        do throws(LoginFailure) {
            try checkSettings()
            var pairs = identityPairs
            if let chap = settings.chap {
                // A mutual proof that None could avoid would be no proof.
                pairs.append(TextPair("AuthMethod", chap.mutual == nil ? "CHAP,None" : "CHAP"))
                stage = .choosingMethod
                return send(pairs, LoginFlags(current: .securityNegotiation, next: nil))
            }
            if settings.skipsSecurityStage { return beginOperational(provedWith: nil, after: pairs) }
            // A login may begin with the operational stage (RFC 7143 section 6.3). tgt 1.0.85 then forgets to end the old
            // session of the same ISID, and with it its commands: what the stale-write guard lives by.
            pairs.append(TextPair("AuthMethod", "None"))
            stage = .leavingSecurity(nil)
            return send(pairs, LoginFlags(current: .securityNegotiation, next: .operationalNegotiation))
        } catch {
            return fail(error)
        }
    }

    /// A PDU came; `data` is its whole data segment.
    public mutating func received(_ header: BasicHeaderSegment, data: UnsafeRawBufferPointer) -> LoginAction {
        do throws(LoginFailure) {
            return try take(header, data)
        } catch {
            return fail(error)
        }
    }

    private mutating func fail(_ failure: LoginFailure) -> LoginAction {
        stage = .over
        return .failed(failure)
    }

    // MARK: the first request

    private func checkSettings() throws(LoginFailure) {
        if let fault = settings.operational.fault { throw .invalidSetting(fault) }
        if settings.initiatorName.isEmpty {
            throw .invalidSetting(NegotiationError(key: "InitiatorName", value: "", expected: "an iSCSI name"))
        }
        if settings.sessionType == .normal, settings.targetName == nil {
            throw .invalidSetting(NegotiationError(key: "TargetName", value: "", expected: "an iSCSI name"))
        }
        if let chap = settings.chap {
            do throws(CHAPFailure) {
                _ = try CHAPInitiator(credentials: chap, cryptography: cryptography)
            } catch { throw .chap(error) }
        }
    }

    /// First in every connection (RFC 7143 section 6.3).
    private var identityPairs: [TextPair] {
        var pairs = [TextPair("InitiatorName", settings.initiatorName)]
        if let alias = settings.initiatorAlias { pairs.append(TextPair("InitiatorAlias", alias)) }
        if let target = settings.targetName { pairs.append(TextPair("TargetName", target)) }
        if settings.tsih == 0 {
            pairs.append(TextPair("SessionType", settings.sessionType == .normal ? "Normal" : "Discovery"))
        }
        return pairs
    }

    // MARK: a response

    private mutating func take(_ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer) throws(LoginFailure) -> LoginAction {
        switch stage {
        case .notStarted, .over: throw .unexpectedPDU(header.opcode)
        default: break
        }
        guard header.opcode == .loginResponse else { throw .unexpectedPDU(header.opcode) }
        exchangeCount += 1
        guard exchangeCount <= InitiatorLogin.maxExchangeCount else { throw .tooManyExchanges(exchangeCount) }
        try checkFields(header)
        guard header.loginStatus == .success else { return refused(header.loginStatus, data) }
        lastStatSN = header.statSN
        let flags = header.loginFlags
        try checkStage(flags)
        do throws(TextError) { try incoming.append(data) } catch { throw .text(error) }
        if flags.continues {
            guard outgoing.isEmpty else { throw .stage(flags) }
            // The answer to a piece is an empty request (RFC 7143 section 6.2).
            return sendPiece([], LoginFlags(current: currentStage, next: nil))
        }
        if !outgoing.isEmpty {
            guard incoming.bytes.isEmpty else { throw .stage(flags) }
            return sendNextPiece()
        }
        let parameters: TextParameters
        do throws(TextError) { parameters = try TextParameters(parsing: incoming.take()) } catch { throw .text(error) }
        return try handle(parameters, flags, header)
    }

    private func checkFields(_ header: BasicHeaderSegment) throws(LoginFailure) {
        func check(_ field: LoginFailure.Field, _ found: UInt64, _ expected: UInt64) throws(LoginFailure) {
            guard found == expected else { throw .field(field, found: found, expected: expected) }
        }
        try check(.initiatorTaskTag, UInt64(header.initiatorTaskTag), UInt64(settings.initiatorTaskTag))
        // With a refusal nothing else need be valid (RFC 7143 section 11.13).
        guard header.loginStatus == .success else { return }
        try check(.version, UInt64(header.versionActive), 0)
        try check(.isid, header.isid.rawValue, settings.isid.rawValue)
        if let lastStatSN { try check(.statSN, UInt64(header.statSN), UInt64(lastStatSN &+ 1)) }
    }

    private var currentStage: LoginStage {
        if case .operational = stage { .operationalNegotiation } else { .securityNegotiation }
    }

    /// The target stays in our stage, and moves only where and when we asked.
    private func checkStage(_ flags: LoginFlags) throws(LoginFailure) {
        guard flags.currentStage == sentFlags.currentStage else { throw .stage(flags) }
        guard flags.isTransit else { return }
        guard sentFlags.isTransit, !flags.continues, flags.nextStage == sentFlags.nextStage else { throw .stage(flags) }
    }

    private mutating func refused(_ status: LoginStatus, _ data: UnsafeRawBufferPointer) -> LoginAction {
        guard status.category == .redirection else { return fail(.refused(status)) }
        // More than one TargetAddress is legal here; the first that can be read is taken.
        var reader = TextReader(Array(data.prefix(TextLimits.totalByteCount)))
        var unreadable: String?
        while let pair = try? reader.next() {
            guard pair.key == "TargetAddress" else { continue }
            if let address = TargetAddress(parsing: pair.value) {
                stage = .over
                return .redirected(LoginRedirection(address: address, isPermanent: status == .targetMovedPermanently))
            }
            unreadable = unreadable ?? pair.value
        }
        return fail(.redirectedNowhere(unreadable))
    }

    private mutating func handle(
        _ parameters: TextParameters, _ flags: LoginFlags, _ header: BasicHeaderSegment
    ) throws(LoginFailure) -> LoginAction {
        if let text = parameters["TargetPortalGroupTag"] {
            guard let number = TextValue.number(text), let tag = UInt16(exactly: number) else {
                throw .negotiation(NegotiationError(key: "TargetPortalGroupTag", value: text, expected: "0 to 65535"))
            }
            portalGroupTag = tag
        }
        if let alias = parameters["TargetAlias"] { targetAlias = alias }
        switch stage {
        case .choosingMethod: return try chooseMethod(parameters, flags)
        case .chap(var chap):
            let step: CHAPInitiator.Step
            do throws(CHAPFailure) { step = try chap.receive(parameters) } catch { throw .chap(error) }
            return try continueSecurity(chap, step, flags)
        case .leavingSecurity(var chap):
            if chap != nil {
                do throws(CHAPFailure) { _ = try chap?.receive(parameters) } catch { throw .chap(error) }
            } else if settings.chap == nil, let answer = parameters["AuthMethod"], answer != "None" {
                throw .authenticationMethod(offered: "None", answered: answer)
            }
            return try leaveSecurity(chap, flags)
        case .operational(var negotiation, let algorithm):
            let answers = try answers(to: parameters, &negotiation)
            return try continueOperational(negotiation, algorithm, answers, flags, header)
        case .notStarted, .over: throw .unexpectedPDU(header.opcode)
        }
    }

    // MARK: security stage

    private mutating func chooseMethod(_ parameters: TextParameters, _ flags: LoginFlags) throws(LoginFailure) -> LoginAction {
        guard let credentials = settings.chap else { throw .stage(flags) }
        let offer = credentials.mutual == nil ? "CHAP,None" : "CHAP"
        switch parameters["AuthMethod"] {
        case "CHAP":
            let chap: CHAPInitiator
            do throws(CHAPFailure) {
                chap = try CHAPInitiator(credentials: credentials, cryptography: cryptography)
            } catch { throw .chap(error) }
            stage = .chap(chap)
            return send(chap.offer, LoginFlags(current: .securityNegotiation, next: nil))
        case "None" where credentials.mutual == nil:
            stage = .leavingSecurity(nil)
            return send([], LoginFlags(current: .securityNegotiation, next: .operationalNegotiation))
        case let answer:
            throw .authenticationMethod(offered: offer, answered: answer ?? "")
        }
    }

    private mutating func continueSecurity(
        _ chap: CHAPInitiator, _ step: CHAPInitiator.Step, _ flags: LoginFlags
    ) throws(LoginFailure) -> LoginAction {
        switch step {
        case .reply(let pairs):
            stage = .leavingSecurity(chap)
            return send(pairs, LoginFlags(current: .securityNegotiation, next: .operationalNegotiation))
        case .done:
            return try leaveSecurity(chap, flags)
        }
    }

    private mutating func leaveSecurity(_ chap: CHAPInitiator?, _ flags: LoginFlags) throws(LoginFailure) -> LoginAction {
        guard flags.isTransit else {
            stage = .leavingSecurity(chap)
            return send([], LoginFlags(current: .securityNegotiation, next: .operationalNegotiation))
        }
        return beginOperational(provedWith: chap?.provedWith, after: [])
    }

    // MARK: operational stage

    private mutating func beginOperational(provedWith algorithm: CHAPAlgorithm?, after pairs: [TextPair]) -> LoginAction {
        var negotiation = OperationalNegotiation(
            settings: settings.operational, sessionType: settings.sessionType,
            joining: settings.tsih == 0 ? nil : settings.sessionParameters)
        let offers = negotiation.offers()
        stage = .operational(negotiation, provedWith: algorithm)
        return send(pairs + offers, LoginFlags(current: .operationalNegotiation, next: .fullFeature))
    }

    private func answers(
        to parameters: TextParameters, _ negotiation: inout OperationalNegotiation
    ) throws(LoginFailure) -> [TextPair] {
        var answers: [TextPair] = []
        for pair in parameters.pairs where !InitiatorLogin.declarations.contains(pair.key) {
            do throws(NegotiationError) {
                if let answer = try negotiation.receive(pair) { answers.append(answer) }
            } catch { throw .negotiation(error) }
        }
        return answers
    }

    /// Keys of a target that want no answer and belong to no negotiation.
    private static let declarations: Set<String> = ["TargetPortalGroupTag", "TargetAlias", "TargetAddress", "AuthMethod"]

    private mutating func continueOperational(
        _ negotiation: OperationalNegotiation, _ algorithm: CHAPAlgorithm?, _ answers: [TextPair],
        _ flags: LoginFlags, _ header: BasicHeaderSegment
    ) throws(LoginFailure) -> LoginAction {
        var negotiation = negotiation
        guard flags.isTransit else {
            stage = .operational(negotiation, provedWith: algorithm)
            return send(answers, LoginFlags(current: .operationalNegotiation, next: .fullFeature))
        }
        // Offers that came with the last response can't be answered any more; they count as they were made.
        try checkTSIH(header.tsih)
        let parameters: NegotiatedParameters
        do throws(NegotiationError) { parameters = try negotiation.finish() } catch { throw .negotiation(error) }
        stage = .over
        return .finished(
            LoginResult(
                parameters: parameters, tsih: header.tsih, portalGroupTag: portalGroupTag, targetAlias: targetAlias,
                authenticatedWith: algorithm, cmdSN: settings.cmdSN, expStatSN: header.statSN &+ 1,
                expCmdSN: header.expCmdSN, maxCmdSN: header.maxCmdSN))
    }

    /// The last response names the session (RFC 7143 section 11.13.3). Some targets give a discovery session no number.
    private func checkTSIH(_ tsih: UInt16) throws(LoginFailure) {
        if settings.tsih != 0 {
            guard tsih == settings.tsih else { throw .field(.tsih, found: UInt64(tsih), expected: UInt64(settings.tsih)) }
        } else if tsih == 0, settings.sessionType == .normal {
            throw .field(.tsih, found: 0, expected: 1)
        }
    }

    // MARK: sending

    private mutating func send(_ pairs: [TextPair], _ flags: LoginFlags) -> LoginAction {
        outgoing = OutgoingText(TextParameters.encode(pairs))
        finalFlags = flags
        return sendNextPiece()
    }

    /// 8192 bytes at most, the default of MaxRecvDataSegmentLength that rules the login.
    private mutating func sendNextPiece() -> LoginAction {
        let piece = outgoing.next(limit: 8192)
        guard outgoing.isEmpty else {
            return sendPiece(piece, LoginFlags(current: currentStage, next: nil, continues: true))
        }
        return sendPiece(piece, finalFlags)
    }

    private mutating func sendPiece(_ data: [UInt8], _ flags: LoginFlags) -> LoginAction {
        sentFlags = flags
        let header = BasicHeaderSegment.loginRequest(
            flags, isid: settings.isid, tsih: settings.tsih, connectionID: settings.connectionID,
            tag: settings.initiatorTaskTag, cmdSN: settings.cmdSN, expStatSN: lastStatSN.map { $0 &+ 1 } ?? 0)
        return .send(PDU(header: header, data: data))
    }
}
