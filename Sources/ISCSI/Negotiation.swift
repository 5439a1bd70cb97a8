/// The operational keys that are negotiated alike by table (RFC 7143 section 13).
struct OperationalKey: Sendable {
    /// How two sides come to one value.
    enum Rule: Sendable {
        /// The answer is the first element of the offer that the answerer can do.
        case digest(any WritableKeyPath<NegotiatedParameters, DigestKind> & Sendable, any KeyPath<OperationalSettings, [DigestKind]> & Sendable)
        case either(Flag)
        case both(Flag)
        case smaller(Number)
        case larger(Number)
        /// Each side says its own; nobody answers. Only MaxRecvDataSegmentLength.
        case declared(ClosedRange<Int>)
        /// A key that we know and never offer; the answer to an offer of it.
        case answered(@Sendable (String) -> String)
    }

    struct Flag: Sendable {
        var result: any WritableKeyPath<NegotiatedParameters, Bool> & Sendable
        var setting: any KeyPath<OperationalSettings, Bool> & Sendable
    }

    struct Number: Sendable {
        var range: ClosedRange<Int>
        var result: any WritableKeyPath<NegotiatedParameters, Int> & Sendable
        var setting: any KeyPath<OperationalSettings, Int> & Sendable
    }

    var name: String
    var rule: Rule
    /// LO: only in the leading connection's login.
    var isLeadingOnly: Bool
    /// "Irrelevant when SessionType=Discovery".
    var isForNormalSessions: Bool

    init(_ name: String, _ rule: Rule, leadingOnly: Bool = true, normalSessions: Bool = true) {
        self.name = name
        self.rule = rule
        isLeadingOnly = leadingOnly
        isForNormalSessions = normalSessions
    }

    static let segmentRange = 512...16_777_215

    /// In the order in which an initiator offers them; at most 64, because sets of them are bit masks.
    static let table: [OperationalKey] = [
        OperationalKey("HeaderDigest", .digest(\.headerDigest, \.headerDigest), leadingOnly: false, normalSessions: false),
        OperationalKey("DataDigest", .digest(\.dataDigest, \.dataDigest), leadingOnly: false, normalSessions: false),
        OperationalKey("MaxRecvDataSegmentLength", .declared(segmentRange), leadingOnly: false, normalSessions: false),
        OperationalKey("ErrorRecoveryLevel", .smaller(Number(range: 0...2, result: \.errorRecoveryLevel, setting: \.errorRecoveryLevel)), normalSessions: false),
        OperationalKey("DefaultTime2Wait", .larger(Number(range: 0...3600, result: \.defaultTime2Wait, setting: \.defaultTime2Wait)), normalSessions: false),
        OperationalKey("DefaultTime2Retain", .smaller(Number(range: 0...3600, result: \.defaultTime2Retain, setting: \.defaultTime2Retain)), normalSessions: false),
        OperationalKey("InitialR2T", .either(Flag(result: \.initialR2T, setting: \.initialR2T))),
        OperationalKey("ImmediateData", .both(Flag(result: \.immediateData, setting: \.immediateData))),
        OperationalKey("MaxBurstLength", .smaller(Number(range: segmentRange, result: \.maxBurstByteCount, setting: \.maxBurstByteCount))),
        OperationalKey("FirstBurstLength", .smaller(Number(range: segmentRange, result: \.firstBurstByteCount, setting: \.firstBurstByteCount))),
        OperationalKey("MaxOutstandingR2T", .smaller(Number(range: 1...65_535, result: \.maxOutstandingR2T, setting: \.maxOutstandingR2T))),
        OperationalKey("MaxConnections", .smaller(Number(range: 1...65_535, result: \.maxConnections, setting: \.maxConnections))),
        OperationalKey("DataPDUInOrder", .either(Flag(result: \.dataPDUInOrder, setting: \.dataPDUInOrder))),
        OperationalKey("DataSequenceInOrder", .either(Flag(result: \.dataSequenceInOrder, setting: \.dataSequenceInOrder))),
        // RFC 7144 section 7.1: the smaller wins, and 1 (RFC 7143) is what is built here.
        OperationalKey("iSCSIProtocolLevel", .answered { value in
            guard let level = TextValue.number(value), level <= 31 else { return "Reject" }
            return level == 0 ? "0" : "1"
        }),
        OperationalKey("TaskReporting", .answered { TextValue.list($0).contains("RFC3720") ? "RFC3720" : "Reject" }),
        // Obsolete (RFC 7143 section 13.25): refused, in the way that old peers understand best.
        OperationalKey("IFMarker", .answered { _ in "No" }, leadingOnly: false),
        OperationalKey("OFMarker", .answered { _ in "No" }, leadingOnly: false),
        OperationalKey("IFMarkInt", .answered { _ in "Reject" }, leadingOnly: false),
        OperationalKey("OFMarkInt", .answered { _ in "Reject" }, leadingOnly: false),
    ]
}

extension OperationalSettings {
    /// The first value that is out of its range, or nil.
    public var fault: NegotiationError? {
        for key in OperationalKey.table {
            switch key.rule {
            case .digest(_, let setting):
                if self[keyPath: setting].isEmpty {
                    return NegotiationError(key: key.name, value: "", expected: "at least one digest")
                }
            case .smaller(let number), .larger(let number):
                let value = self[keyPath: number.setting]
                if !number.range.contains(value) {
                    return NegotiationError(key: key.name, value: "\(value)", expected: OperationalNegotiation.text(number.range))
                }
            case .declared(let range):
                if !range.contains(maxRecvDataSegmentByteCount) {
                    return NegotiationError(key: key.name, value: "\(maxRecvDataSegmentByteCount)", expected: OperationalNegotiation.text(range))
                }
            case .either, .both, .answered: break
            }
        }
        if firstBurstByteCount > maxBurstByteCount {
            return NegotiationError(key: "FirstBurstLength", value: "\(firstBurstByteCount)", expected: "at most MaxBurstLength, \(maxBurstByteCount)")
        }
        return nil
    }
}

/// The operational keys of one login, for either side: what a received key means depends only on whether
/// this side offered it before (then it is the answer) or not (then it is an offer that wants one).
struct OperationalNegotiation: Sendable {
    private let settings: OperationalSettings
    private let isLeading: Bool
    private let sessionType: SessionType
    private var parameters: NegotiatedParameters
    private var offered: UInt64 = 0
    private var received: UInt64 = 0

    /// `session` holds what the leading login agreed on, where this connection joins a session.
    init(settings: OperationalSettings, sessionType: SessionType, joining session: NegotiatedParameters?) {
        self.settings = settings
        self.sessionType = sessionType
        isLeading = session == nil
        parameters = session ?? NegotiatedParameters()
        parameters.headerDigest = .none
        parameters.dataDigest = .none
        parameters.maxSendDataSegmentByteCount = 8192
        parameters.maxRecvDataSegmentByteCount = settings.maxRecvDataSegmentByteCount
    }

    /// All that an initiator offers.
    mutating func offers() -> [TextPair] {
        OperationalKey.table.indices.compactMap { offer($0) }
    }

    /// MaxRecvDataSegmentLength, where it was not said yet.
    mutating func declaration() -> TextPair? {
        guard let index = OperationalKey.table.firstIndex(where: { $0.name == "MaxRecvDataSegmentLength" }), offered & (1 << UInt64(index)) == 0 else {
            return nil
        }
        return offer(index)
    }

    private mutating func offer(_ index: Int) -> TextPair? {
        let key = OperationalKey.table[index]
        guard isRelevant(key), isLeading || !key.isLeadingOnly else { return nil }
        let value: String
        switch key.rule {
        case .digest(_, let setting): value = settings[keyPath: setting].map(\.name).joined(separator: ",")
        case .either(let flag), .both(let flag): value = TextValue.text(settings[keyPath: flag.setting])
        case .smaller(let number), .larger(let number): value = "\(settings[keyPath: number.setting])"
        case .declared: value = "\(settings.maxRecvDataSegmentByteCount)"
        case .answered: return nil
        }
        offered |= 1 << UInt64(index)
        return TextPair(key.name, value)
    }

    private func isRelevant(_ key: OperationalKey) -> Bool {
        sessionType == .normal || !key.isForNormalSessions
    }

    /// A key that the peer sent; the answer, where it was an offer.
    mutating func receive(_ pair: TextPair) throws(NegotiationError) -> TextPair? {
        guard let index = OperationalKey.table.firstIndex(where: { $0.name == pair.key }) else {
            // RFC 7143 section 6.2: a key that is not understood is answered so. An answer never is.
            return OperationalNegotiation.isConstant(pair.value) ? nil : TextPair(pair.key, "NotUnderstood")
        }
        let key = OperationalKey.table[index]
        let bit: UInt64 = 1 << UInt64(index)
        // The answer to nothing (tgt, twice, to what a connection that joins a session may not negotiate) means nothing.
        if offered & bit == 0, OperationalNegotiation.isConstant(pair.value) { return nil }
        guard received & bit == 0 else {
            throw NegotiationError(key: pair.key, value: pair.value, expected: "no second negotiation in one login")
        }
        received |= bit
        if case .declared(let range) = key.rule {
            if OperationalNegotiation.isConstant(pair.value) { return nil }
            parameters.maxSendDataSegmentByteCount = try OperationalNegotiation.number(pair, in: range)
            return nil
        }
        if offered & bit != 0 {
            try accept(key, pair)
            return nil
        }
        if !isRelevant(key) { return TextPair(key.name, "Irrelevant") }
        if key.isLeadingOnly, !isLeading { return TextPair(key.name, "Reject") }
        return TextPair(key.name, answer(key, pair))
    }

    /// The agreed parameters. Keys that were offered and never answered count as refused.
    mutating func finish() throws(NegotiationError) -> NegotiatedParameters {
        for (index, key) in OperationalKey.table.enumerated() {
            let bit: UInt64 = 1 << UInt64(index)
            if offered & bit != 0, received & bit == 0 { try settle(key, refusal: nil) }
        }
        // A peer's answers one by one can leave these two crossed; the smaller one is safe for both.
        parameters.firstBurstByteCount = min(parameters.firstBurstByteCount, parameters.maxBurstByteCount)
        return parameters
    }

    // MARK: as the one who offered

    private mutating func accept(_ key: OperationalKey, _ pair: TextPair) throws(NegotiationError) {
        if OperationalNegotiation.isConstant(pair.value) {
            try settle(key, refusal: pair.value)
            return
        }
        switch key.rule {
        case .digest(let result, let setting):
            guard let digest = DigestKind(name: pair.value), settings[keyPath: setting].contains(digest) else {
                let offer = settings[keyPath: setting].map(\.name).joined(separator: " or ")
                throw NegotiationError(key: pair.key, value: pair.value, expected: offer)
            }
            parameters[keyPath: result] = digest
        case .either(let flag):
            let answer = try OperationalNegotiation.boolean(pair)
            guard answer || !settings[keyPath: flag.setting] else {
                throw NegotiationError(key: pair.key, value: pair.value, expected: "Yes, because Yes was offered")
            }
            parameters[keyPath: flag.result] = answer
        case .both(let flag):
            let answer = try OperationalNegotiation.boolean(pair)
            guard !answer || settings[keyPath: flag.setting] else {
                throw NegotiationError(key: pair.key, value: pair.value, expected: "No, because No was offered")
            }
            parameters[keyPath: flag.result] = answer
        case .smaller(let number):
            let range = number.range.lowerBound...settings[keyPath: number.setting]
            parameters[keyPath: number.result] = try OperationalNegotiation.number(pair, in: range)
        case .larger(let number):
            let range = settings[keyPath: number.setting]...number.range.upperBound
            parameters[keyPath: number.result] = try OperationalNegotiation.number(pair, in: range)
        case .declared, .answered: break
        }
    }

    /// No value came of our offer (Reject, NotUnderstood, Irrelevant, no answer at all): what the offer and
    /// the RFC's default make together, so that neither side is asked more than it can do.
    private mutating func settle(_ key: OperationalKey, refusal: String?) throws(NegotiationError) {
        switch key.rule {
        case .digest(let result, let setting):
            guard settings[keyPath: setting].contains(.none) else {
                throw NegotiationError(key: key.name, value: refusal ?? "", expected: settings[keyPath: setting].map(\.name).joined(separator: " or "))
            }
            parameters[keyPath: result] = .none
        case .either(let flag): parameters[keyPath: flag.result] = settings[keyPath: flag.setting] || parameters[keyPath: flag.result]
        case .both(let flag): parameters[keyPath: flag.result] = settings[keyPath: flag.setting] && parameters[keyPath: flag.result]
        case .smaller(let number): parameters[keyPath: number.result] = min(settings[keyPath: number.setting], parameters[keyPath: number.result])
        case .larger(let number): parameters[keyPath: number.result] = max(settings[keyPath: number.setting], parameters[keyPath: number.result])
        case .declared, .answered: break
        }
    }

    // MARK: as the one who answers

    /// An offer that makes no sense is rejected and the value stays as it was (RFC 7143 section 6.2).
    private mutating func answer(_ key: OperationalKey, _ pair: TextPair) -> String {
        switch key.rule {
        case .digest(let result, let setting):
            for element in TextValue.list(pair.value) {
                if let digest = DigestKind(name: element), settings[keyPath: setting].contains(digest) {
                    parameters[keyPath: result] = digest
                    return digest.name
                }
            }
            return "Reject"
        case .either(let flag):
            guard let offer = TextValue.boolean(pair.value) else { return "Reject" }
            parameters[keyPath: flag.result] = offer || settings[keyPath: flag.setting]
            return TextValue.text(parameters[keyPath: flag.result])
        case .both(let flag):
            guard let offer = TextValue.boolean(pair.value) else { return "Reject" }
            parameters[keyPath: flag.result] = offer && settings[keyPath: flag.setting]
            return TextValue.text(parameters[keyPath: flag.result])
        case .smaller(let number):
            guard let offer = try? OperationalNegotiation.number(pair, in: number.range) else { return "Reject" }
            parameters[keyPath: number.result] = min(offer, settings[keyPath: number.setting])
            return "\(parameters[keyPath: number.result])"
        case .larger(let number):
            guard let offer = try? OperationalNegotiation.number(pair, in: number.range) else { return "Reject" }
            parameters[keyPath: number.result] = max(offer, settings[keyPath: number.setting])
            return "\(parameters[keyPath: number.result])"
        case .answered(let reply):
            return reply(pair.value)
        case .declared:
            return "Reject"
        }
    }

    // MARK: values

    /// The answers that are no value (RFC 7143 section 6.2).
    static func isConstant(_ value: String) -> Bool {
        value == "Reject" || value == "NotUnderstood" || value == "Irrelevant"
    }

    static func text(_ range: ClosedRange<Int>) -> String {
        range.count == 1 ? "\(range.lowerBound)" : "\(range.lowerBound) to \(range.upperBound)"
    }

    private static func number(_ pair: TextPair, in range: ClosedRange<Int>) throws(NegotiationError) -> Int {
        guard let number = TextValue.number(pair.value), let value = Int(exactly: number), range.contains(value) else {
            throw NegotiationError(key: pair.key, value: pair.value, expected: text(range))
        }
        return value
    }

    private static func boolean(_ pair: TextPair) throws(NegotiationError) -> Bool {
        guard let value = TextValue.boolean(pair.value) else {
            throw NegotiationError(key: pair.key, value: pair.value, expected: "Yes or No")
        }
        return value
    }
}
