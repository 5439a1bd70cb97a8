/// CHAP_I and CHAP_C: what one side asks the other.
struct CHAPChallenge: Sendable {
    var identifier: UInt8
    var bytes: [UInt8]

    static let maxByteCount = 1024

    /// As long as the digest, at least 16 bytes (RFC 7143 section 12.1.3 asks for unpredictable ones).
    init(for algorithm: CHAPAlgorithm, from cryptography: any CryptographicServices) {
        let random = cryptography.randomBytes(count: 1 + algorithm.digestByteCount)
        precondition(random.count == 1 + algorithm.digestByteCount, "randomBytes(count:) gives as many as were asked")
        identifier = random[0]
        bytes = Array(random.dropFirst())
    }

    /// nil where neither key is there.
    init?(from parameters: TextParameters) throws(CHAPFailure) {
        guard parameters["CHAP_I"] != nil || parameters["CHAP_C"] != nil else { return nil }
        guard let identifierText = parameters["CHAP_I"] else { throw .missingKey("CHAP_I") }
        guard let challengeText = parameters["CHAP_C"] else { throw .missingKey("CHAP_C") }
        guard let number = TextValue.number(identifierText), let identifier = UInt8(exactly: number) else {
            throw .malformedValue(key: "CHAP_I")
        }
        guard let bytes = TextValue.binary(challengeText, limit: CHAPChallenge.maxByteCount) else {
            throw .malformedValue(key: "CHAP_C")
        }
        self.identifier = identifier
        self.bytes = bytes
    }

    var pairs: [TextPair] {
        [TextPair("CHAP_I", "\(identifier)"), TextPair("CHAP_C", TextValue.hexadecimal(bytes))]
    }

    /// RFC 1994 section 4.1: the hash over identifier, secret and challenge.
    func response(
        _ algorithm: CHAPAlgorithm, secret: CHAPSecret, _ cryptography: any CryptographicServices
    ) throws(CHAPFailure) -> [UInt8] {
        guard let digest = cryptography.digest(algorithm, of: [identifier] + secret.bytes + bytes),
            digest.count == algorithm.digestByteCount
        else { throw .digestUnavailable(algorithm) }
        return digest
    }
}

/// CHAP_N and CHAP_R: how one side answers.
struct CHAPAnswer: Sendable {
    var name: String
    var response: [UInt8]

    init(name: String, response: [UInt8]) {
        self.name = name
        self.response = response
    }

    init(from parameters: TextParameters, _ algorithm: CHAPAlgorithm) throws(CHAPFailure) {
        guard let name = parameters["CHAP_N"] else { throw .missingKey("CHAP_N") }
        guard let text = parameters["CHAP_R"] else { throw .missingKey("CHAP_R") }
        guard let response = TextValue.binary(text, limit: algorithm.digestByteCount),
            response.count == algorithm.digestByteCount
        else { throw .malformedValue(key: "CHAP_R") }
        self.name = name
        self.response = response
    }

    var pairs: [TextPair] {
        [TextPair("CHAP_N", name), TextPair("CHAP_R", TextValue.hexadecimal(response))]
    }

    /// Takes as long for a wrong answer as for a right one.
    func isEqual(to expected: [UInt8]) -> Bool {
        guard response.count == expected.count else { return false }
        var difference: UInt8 = 0
        for (left, right) in zip(response, expected) { difference |= left ^ right }
        return difference == 0
    }
}

/// The initiator's half of CHAP (RFC 7143 section 12.1.3, RFC 1994), after AuthMethod=CHAP was agreed.
struct CHAPInitiator: Sendable {
    private enum State: Sendable {
        case algorithmsOffered
        case answered(CHAPAlgorithm, mutual: CHAPChallenge?)
        case proved(CHAPAlgorithm)
    }

    /// What to do after the target's keys were looked at.
    enum Step: Sendable {
        case reply([TextPair])
        /// Nothing of CHAP is left to say.
        case done
    }

    private let credentials: CHAPCredentials
    private let cryptography: any CryptographicServices
    private var state = State.algorithmsOffered

    init(credentials: CHAPCredentials, cryptography: any CryptographicServices) throws(CHAPFailure) {
        if let mutual = credentials.mutual, mutual.secret == credentials.identity.secret { throw .sameSecretBothWays }
        guard !credentials.algorithms.isEmpty else { throw .noCommonAlgorithm("") }
        self.credentials = credentials
        self.cryptography = cryptography
    }

    /// The first thing that is said.
    var offer: [TextPair] {
        [TextPair("CHAP_A", credentials.algorithms.map { "\($0.rawValue)" }.joined(separator: ","))]
    }

    /// The algorithm, once the exchange is over.
    var provedWith: CHAPAlgorithm? {
        if case .proved(let algorithm) = state { algorithm } else { nil }
    }

    mutating func receive(_ parameters: TextParameters) throws(CHAPFailure) -> Step {
        switch state {
        case .algorithmsOffered:
            return .reply(try answer(parameters))
        case .answered(let algorithm, .none):
            state = .proved(algorithm)
            return .done
        case .answered(let algorithm, .some(let challenge)):
            try verify(parameters, algorithm, challenge)
            state = .proved(algorithm)
            return .done
        case .proved:
            return .done
        }
    }

    private mutating func answer(_ parameters: TextParameters) throws(CHAPFailure) -> [TextPair] {
        guard let choice = parameters["CHAP_A"] else { throw .missingKey("CHAP_A") }
        guard let number = TextValue.number(choice), let code = UInt8(exactly: number),
            let algorithm = CHAPAlgorithm(rawValue: code), credentials.algorithms.contains(algorithm)
        else { throw .noCommonAlgorithm(choice) }
        guard let challenge = try CHAPChallenge(from: parameters) else { throw .missingKey("CHAP_C") }
        let response = try challenge.response(algorithm, secret: credentials.identity.secret, cryptography)
        var pairs = CHAPAnswer(name: credentials.identity.name, response: response).pairs
        var own: CHAPChallenge?
        if credentials.mutual != nil {
            let fresh = CHAPChallenge(for: algorithm, from: cryptography)
            guard fresh.bytes != challenge.bytes else { throw .reflectedChallenge }
            pairs += fresh.pairs
            own = fresh
        }
        state = .answered(algorithm, mutual: own)
        return pairs
    }

    private func verify(
        _ parameters: TextParameters, _ algorithm: CHAPAlgorithm, _ challenge: CHAPChallenge
    ) throws(CHAPFailure) {
        guard let mutual = credentials.mutual else { return }
        guard parameters["CHAP_N"] != nil || parameters["CHAP_R"] != nil else { throw .mutualAuthenticationMissing }
        let answer = try CHAPAnswer(from: parameters, algorithm)
        guard answer.name == mutual.name else { throw .wrongMutualName(answer.name) }
        let expected = try challenge.response(algorithm, secret: mutual.secret, cryptography)
        guard answer.isEqual(to: expected) else { throw .wrongResponse }
    }
}

/// The target's half.
struct CHAPTarget: Sendable {
    private enum State: Sendable {
        case awaitingAlgorithms
        case challenged(CHAPAlgorithm, CHAPChallenge)
        case proved(name: String)
    }

    private let initiators: [CHAPIdentity]
    private let own: CHAPIdentity?
    private let algorithms: [CHAPAlgorithm]
    private let cryptography: any CryptographicServices
    private var state = State.awaitingAlgorithms

    init(
        initiators: [CHAPIdentity], own: CHAPIdentity?, algorithms: [CHAPAlgorithm],
        cryptography: any CryptographicServices
    ) {
        self.initiators = initiators
        self.own = own
        self.algorithms = algorithms
        self.cryptography = cryptography
    }

    /// CHAP_N of the initiator, once it proved itself.
    var provedName: String? {
        if case .proved(let name) = state { name } else { nil }
    }

    /// The answer to the initiator's CHAP keys; empty where it said nothing of CHAP, or nothing is left to say.
    mutating func receive(_ parameters: TextParameters) throws(CHAPFailure) -> [TextPair] {
        switch state {
        case .awaitingAlgorithms:
            guard let offer = parameters["CHAP_A"] else { return [] }
            return try challenge(offer)
        case .challenged(let algorithm, let challenge):
            return try verify(parameters, algorithm, challenge)
        case .proved:
            return []
        }
    }

    /// The target's own order of preference decides.
    private mutating func challenge(_ offer: String) throws(CHAPFailure) -> [TextPair] {
        let offered = TextValue.list(offer).map { TextValue.number(String($0)) }
        guard let algorithm = algorithms.first(where: { offered.contains(UInt64($0.rawValue)) }) else {
            throw .noCommonAlgorithm(offer)
        }
        let challenge = CHAPChallenge(for: algorithm, from: cryptography)
        state = .challenged(algorithm, challenge)
        return [TextPair("CHAP_A", "\(algorithm.rawValue)")] + challenge.pairs
    }

    private mutating func verify(
        _ parameters: TextParameters, _ algorithm: CHAPAlgorithm, _ challenge: CHAPChallenge
    ) throws(CHAPFailure) -> [TextPair] {
        let answer = try CHAPAnswer(from: parameters, algorithm)
        let known = initiators.first { $0.name == answer.name }
        // An unknown name costs a digest too, so that time does not tell which names exist.
        let secret = known?.secret ?? CHAPSecret(Array(repeating: 0, count: 16))
        let expected = try challenge.response(algorithm, secret: secret, cryptography)
        let isRight = answer.isEqual(to: expected)
        guard let known else { throw .unknownName(answer.name) }
        guard isRight, !secret.bytes.isEmpty else { throw .wrongResponse }
        guard let counter = try CHAPChallenge(from: parameters) else {
            state = .proved(name: known.name)
            return []
        }
        guard counter.bytes != challenge.bytes else { throw .reflectedChallenge }
        guard let own else { throw .mutualAuthenticationMissing }
        guard own.secret != known.secret else { throw .sameSecretBothWays }
        let response = try counter.response(algorithm, secret: own.secret, cryptography)
        state = .proved(name: known.name)
        return CHAPAnswer(name: own.name, response: response).pairs
    }
}
