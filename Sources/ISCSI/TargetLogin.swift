/// One connection's login, as the target (RFC 7143 section 6.3): a pure state machine. It asks its owner
/// two questions, who may come in and whether the session can be made, as actions that are answered by
/// `identified(_:)` and `established(_:)`. After `.finished`, `.refused` or `.failed` it is over.
public struct TargetLogin: Sendable {
    private enum Stage: Sendable {
        case awaitingFirstRequest
        /// `.identify` was asked; the first text waits.
        case identifying(TargetLoginIdentity, TextParameters)
        case security(Security)
        case operational
        /// `.establish` was asked; the last text waits.
        case establishing([TextPair])
        case over
    }

    private enum Security: Sendable {
        case choosingMethod
        case chap(CHAPTarget)
        case satisfied
    }

    /// What is known from `identified(_:)` on.
    private struct Session: Sendable {
        var identity: TargetLoginIdentity
        var grant: TargetLoginGrant
        var negotiation: OperationalNegotiation
        var authenticatedName: String?
        var isAuthenticated: Bool
        /// TargetPortalGroupTag and TargetAlias are in the first response only.
        var greetingIsDue = true
    }

    static let maxExchangeCount = 64

    private let cryptography: any CryptographicServices
    private var stage = Stage.awaitingFirstRequest
    private var session: Session?
    private var exchangeCount = 0
    private var statSN: UInt32
    /// The request that is being answered, and the first one, whose fields later ones repeat.
    private var request = BasicHeaderSegment()
    private var first: BasicHeaderSegment?
    private var incoming = TextAssembler()
    private var outgoing = OutgoingText([])
    private var parameters = NegotiatedParameters()

    /// `statSN` numbers the first response.
    public init(cryptography: any CryptographicServices, statSN: UInt32 = 1) {
        self.cryptography = cryptography
        self.statSN = statSN
    }

    /// Whether `received` wants more PDUs.
    public var isOver: Bool {
        if case .over = stage { true } else { false }
    }

    /// A PDU came; `data` is its whole data segment. Not to be called while a question is open.
    public mutating func received(_ header: BasicHeaderSegment, data: UnsafeRawBufferPointer) -> TargetLoginAction {
        switch stage {
        case .identifying, .establishing: preconditionFailure("answer identify or establish before the next request")
        case .over: return .failed(.unexpectedPDU(header.opcode))
        default: break
        }
        request = header
        do throws(TargetLoginRefusal) {
            return try take(header, data)
        } catch {
            return refuse(error)
        }
    }

    /// The answer to `.identify`.
    public mutating func identified(_ decision: TargetLoginDecision) -> TargetLoginAction {
        guard case .identifying(let identity, let text) = stage else { preconditionFailure("identify was not asked") }
        switch decision {
        case .reject(let status):
            return refuse(TargetLoginRefusal(status: status, failure: nil))
        case .redirect(let address, let isPermanent):
            let status: LoginStatus = isPermanent ? .targetMovedPermanently : .targetMovedTemporarily
            return refuse(
                TargetLoginRefusal(status: status, failure: nil),
                text: TextParameters.encode([TextPair("TargetAddress", address.description)]))
        case .accept(let grant):
            let isOpen = if case .none = grant.authentication { true } else { false }
            session = Session(
                identity: identity, grant: grant,
                negotiation: OperationalNegotiation(
                    settings: grant.operational, sessionType: identity.sessionType, joining: grant.sessionParameters),
                isAuthenticated: isOpen)
            stage = request.loginFlags.currentStage == .operationalNegotiation ? .operational : .security(.choosingMethod)
            do throws(TargetLoginRefusal) {
                return try answer(text)
            } catch {
                return refuse(error)
            }
        }
    }

    /// The answer to `.establish`.
    public mutating func established(_ admission: TargetLoginAdmission) -> TargetLoginAction {
        guard case .establishing(let pairs) = stage, let session else { preconditionFailure("establish was not asked") }
        switch admission {
        case .reject(let status):
            return refuse(TargetLoginRefusal(status: status, failure: nil))
        case .admit(let tsih, let expCmdSN, let maxCmdSN):
            precondition(tsih != 0, "a session's TSIH is not 0")
            stage = .over
            let flags = LoginFlags(current: request.loginFlags.currentStage ?? .operationalNegotiation, next: .fullFeature)
            let pdu = response(flags, data: TextParameters.encode(pairs), tsih: tsih, expCmdSN: expCmdSN, maxCmdSN: maxCmdSN)
            return .finished(
                pdu,
                TargetLoginResult(
                    identity: session.identity, parameters: parameters, tsih: tsih,
                    authenticatedName: session.authenticatedName, statSN: statSN))
        }
    }

    // MARK: a request

    private mutating func take(
        _ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer
    ) throws(TargetLoginRefusal) -> TargetLoginAction {
        guard header.opcode == .loginRequest else {
            throw TargetLoginRefusal(status: .invalidDuringLogin, failure: .unexpectedPDU(header.opcode))
        }
        exchangeCount += 1
        guard exchangeCount <= TargetLogin.maxExchangeCount else {
            throw TargetLoginRefusal(status: .initiatorError, failure: .tooManyExchanges(exchangeCount))
        }
        try checkFields(header)
        try checkStage(header.loginFlags)
        do throws(TextError) { try incoming.append(data) } catch { throw TargetLoginRefusal(error) }
        if header.loginFlags.continues {
            guard outgoing.isEmpty else { throw TargetLoginRefusal(stage: header.loginFlags) }
            return .send(response(stayingFlags(continues: false), data: []))
        }
        if !outgoing.isEmpty {
            guard incoming.bytes.isEmpty, !header.loginFlags.isTransit else { throw TargetLoginRefusal(stage: header.loginFlags) }
            return .send(nextPiece())
        }
        let text: TextParameters
        do throws(TextError) { text = try TextParameters(parsing: incoming.take()) } catch { throw TargetLoginRefusal(error) }
        guard session == nil else { return try answer(text) }
        let identity = try identity(text)
        stage = .identifying(identity, text)
        return .identify(identity)
    }

    /// Version, and the fields that all requests of one login share (RFC 7143 section 11.12).
    private mutating func checkFields(_ header: BasicHeaderSegment) throws(TargetLoginRefusal) {
        guard header.versionMin == 0 else {
            throw TargetLoginRefusal(
                status: .unsupportedVersion, failure: .field(.version, found: UInt64(header.versionMin), expected: 0))
        }
        guard let first else {
            first = header
            return
        }
        func check(_ field: LoginFailure.Field, _ found: UInt64, _ expected: UInt64) throws(TargetLoginRefusal) {
            guard found != expected else { return }
            throw TargetLoginRefusal(status: .initiatorError, failure: .field(field, found: found, expected: expected))
        }
        try check(.initiatorTaskTag, UInt64(header.initiatorTaskTag), UInt64(first.initiatorTaskTag))
        try check(.isid, header.isid.rawValue, first.isid.rawValue)
        try check(.tsih, UInt64(header.tsih), UInt64(first.tsih))
        try check(.connectionID, UInt64(header.connectionID), UInt64(first.connectionID))
        try check(.cmdSN, UInt64(header.cmdSN), UInt64(first.cmdSN))
    }

    /// The stage is ours, or, where we agreed to leave it, the next one; transitions go forward.
    private func checkStage(_ flags: LoginFlags) throws(TargetLoginRefusal) {
        guard let current = flags.currentStage, current != .fullFeature else { throw TargetLoginRefusal(stage: flags) }
        switch stage {
        case .security: guard current == .securityNegotiation else { throw TargetLoginRefusal(stage: flags) }
        case .operational: guard current == .operationalNegotiation else { throw TargetLoginRefusal(stage: flags) }
        default:
            if let first, first.loginFlags.currentStage != current { throw TargetLoginRefusal(stage: flags) }
        }
        guard flags.isTransit else { return }
        guard !flags.continues, let next = flags.nextStage, next.rawValue > current.rawValue else {
            throw TargetLoginRefusal(stage: flags)
        }
    }

    private func identity(_ text: TextParameters) throws(TargetLoginRefusal) -> TargetLoginIdentity {
        let type: SessionType
        switch text["SessionType"] {
        case nil, "Normal": type = .normal
        case "Discovery": type = .discovery
        case .some(let other):
            throw TargetLoginRefusal(
                status: .sessionTypeNotSupported,
                failure: .negotiation(NegotiationError(key: "SessionType", value: other, expected: "Normal or Discovery")))
        }
        guard let name = text["InitiatorName"], !name.isEmpty else { throw TargetLoginRefusal(missing: "InitiatorName") }
        let target = text["TargetName"]
        if type == .normal, target == nil { throw TargetLoginRefusal(missing: "TargetName") }
        return TargetLoginIdentity(
            initiatorName: name, initiatorAlias: text["InitiatorAlias"], targetName: target, sessionType: type,
            isid: request.isid, tsih: request.tsih, connectionID: request.connectionID, cmdSN: request.cmdSN)
    }

    // MARK: answering

    /// Keys of an initiator that want no answer here.
    private static let declarations: Set<String> = [
        "InitiatorName", "InitiatorAlias", "TargetName", "SessionType", "AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C",
        "CHAP_N", "CHAP_R",
    ]

    private mutating func answer(_ text: TextParameters) throws(TargetLoginRefusal) -> TargetLoginAction {
        var pairs = greeting()
        if case .security(let security) = stage { pairs += try answerSecurity(text, security) }
        guard var session else { preconditionFailure("an answer follows identification") }
        for pair in text.pairs where !TargetLogin.declarations.contains(pair.key) {
            do throws(NegotiationError) {
                if let answer = try session.negotiation.receive(pair) { pairs.append(answer) }
            } catch { throw TargetLoginRefusal(status: .initiatorError, failure: .negotiation(error)) }
        }
        self.session = session
        if case .operational = stage {
            guard session.isAuthenticated else { throw TargetLoginRefusal.unauthenticated }
            if let declaration = self.session?.negotiation.declaration() { pairs.append(declaration) }
        }
        return try move(pairs)
    }

    private mutating func greeting() -> [TextPair] {
        guard let session, session.greetingIsDue else { return [] }
        self.session?.greetingIsDue = false
        guard session.identity.sessionType == .normal else { return [] }
        var pairs = [TextPair("TargetPortalGroupTag", "\(session.grant.portalGroupTag)")]
        if let alias = session.grant.targetAlias { pairs.append(TextPair("TargetAlias", alias)) }
        return pairs
    }

    /// Answers and, where the initiator wants to move on and nothing is in the way, moves.
    private mutating func move(_ pairs: [TextPair]) throws(TargetLoginRefusal) -> TargetLoginAction {
        let flags = request.loginFlags
        guard flags.isTransit, let next = flags.nextStage, mayLeave else { return .send(send(pairs)) }
        if next == .fullFeature {
            guard let negotiation = session?.negotiation, session?.isAuthenticated == true else { throw TargetLoginRefusal.unauthenticated }
            guard fits(pairs) else { return .send(send(pairs)) }
            var finishing = negotiation
            do throws(NegotiationError) { parameters = try finishing.finish() } catch {
                throw TargetLoginRefusal(status: .initiatorError, failure: .negotiation(error))
            }
            guard let identity = session?.identity else { preconditionFailure("an answer follows identification") }
            stage = .establishing(pairs)
            return .establish(identity, parameters)
        }
        guard fits(pairs) else { return .send(send(pairs)) }
        stage = .operational
        return .send(
            response(
                LoginFlags(current: flags.currentStage ?? .securityNegotiation, next: next),
                data: TextParameters.encode(pairs)))
    }

    private var mayLeave: Bool {
        switch stage {
        case .security(.satisfied), .operational: true
        default: false
        }
    }

    private func fits(_ pairs: [TextPair]) -> Bool {
        TextParameters.encode(pairs).count <= TargetLogin.pieceByteCount
    }

    // MARK: security stage

    private mutating func answerSecurity(_ text: TextParameters, _ security: Security) throws(TargetLoginRefusal) -> [TextPair] {
        switch security {
        case .choosingMethod:
            return try chooseMethod(text)
        case .chap(var chap):
            let answer: [TextPair]
            do throws(CHAPFailure) { answer = try chap.receive(text) } catch {
                throw TargetLoginRefusal(status: .authenticationFailure, failure: .chap(error))
            }
            if let name = chap.provedName {
                session?.authenticatedName = name
                session?.isAuthenticated = true
                stage = .security(.satisfied)
            } else {
                stage = .security(.chap(chap))
            }
            return answer
        case .satisfied:
            return []
        }
    }

    private mutating func chooseMethod(_ text: TextParameters) throws(TargetLoginRefusal) -> [TextPair] {
        guard let session else { preconditionFailure("an answer follows identification") }
        let offer = text["AuthMethod"]
        let methods = offer.map { TextValue.list($0) } ?? []
        switch session.grant.authentication {
        case .none:
            stage = .security(.satisfied)
            if offer == nil { return [] }
            guard methods.contains("None") else { throw TargetLoginRefusal(offered: offer ?? "", answered: "None") }
            return [TextPair("AuthMethod", "None")]
        case .chap(let initiators, let own, let algorithms):
            guard methods.contains("CHAP") else { throw TargetLoginRefusal(offered: offer ?? "", answered: "CHAP") }
            var chap = CHAPTarget(initiators: initiators, own: own, algorithms: algorithms, cryptography: cryptography)
            // An initiator that offers CHAP alone may put its algorithms into the same request.
            let early: [TextPair]
            do throws(CHAPFailure) { early = try chap.receive(text) } catch {
                throw TargetLoginRefusal(status: .authenticationFailure, failure: .chap(error))
            }
            stage = .security(.chap(chap))
            return [TextPair("AuthMethod", "CHAP")] + early
        }
    }

    // MARK: sending

    /// The default of MaxRecvDataSegmentLength, which rules the login.
    private static let pieceByteCount = 8192

    private func stayingFlags(continues: Bool) -> LoginFlags {
        LoginFlags(current: request.loginFlags.currentStage ?? .securityNegotiation, next: nil, continues: continues)
    }

    /// Stays in the stage.
    private mutating func send(_ pairs: [TextPair]) -> PDU {
        outgoing = OutgoingText(TextParameters.encode(pairs))
        return nextPiece()
    }

    private mutating func nextPiece() -> PDU {
        let piece = outgoing.next(limit: TargetLogin.pieceByteCount)
        return response(stayingFlags(continues: !outgoing.isEmpty), data: piece)
    }

    private mutating func refuse(_ refusal: TargetLoginRefusal, text: [UInt8] = []) -> TargetLoginAction {
        stage = .over
        return .refused(response(stayingFlags(continues: false), status: refusal.status, data: text), refusal)
    }

    /// TSIH is told in the last response only, and repeated where the connection joins a session.
    private mutating func response(
        _ flags: LoginFlags, status: LoginStatus = .success, data: [UInt8], tsih: UInt16? = nil, expCmdSN: UInt32? = nil,
        maxCmdSN: UInt32? = nil
    ) -> PDU {
        let numbers = ResponseNumbers(
            statSN: statSN, expCmdSN: expCmdSN ?? request.cmdSN, maxCmdSN: maxCmdSN ?? request.cmdSN)
        statSN &+= 1
        return PDU(
            header: .loginResponse(
                flags, status: status, isid: request.isid, tsih: tsih ?? request.tsih, tag: request.initiatorTaskTag,
                numbers: numbers),
            data: data)
    }
}

extension TargetLoginRefusal {
    fileprivate init(_ error: TextError) {
        self.init(status: .initiatorError, failure: .text(error))
    }

    fileprivate init(stage flags: LoginFlags) {
        self.init(status: .initiatorError, failure: .stage(flags))
    }

    fileprivate init(missing key: String) {
        self.init(
            status: .missingParameter,
            failure: .negotiation(NegotiationError(key: key, value: "", expected: "an iSCSI name")))
    }

    fileprivate init(offered: String, answered: String) {
        self.init(
            status: .authenticationFailure, failure: .authenticationMethod(offered: offered, answered: answered))
    }

    fileprivate static var unauthenticated: TargetLoginRefusal {
        TargetLoginRefusal(offered: "None", answered: "CHAP")
    }
}
