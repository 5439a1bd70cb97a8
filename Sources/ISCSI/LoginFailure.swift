/// Why a login came to nothing. The connection is to be closed.
public enum LoginFailure: Error, Hashable, Sendable {
    /// Our own settings can't be offered; nothing was sent.
    case invalidSetting(NegotiationError)
    /// The target said no (status class 2 or 3).
    case refused(LoginStatus)
    /// A redirection without a TargetAddress that can be read.
    case redirectedNowhere(String?)
    case unexpectedPDU(PDUOpcode)
    /// A field of the Login Response that can't be what it is.
    case field(Field, found: UInt64, expected: UInt64)
    /// A stage or transition that the target may not take.
    case stage(LoginFlags)
    case text(TextError)
    case negotiation(NegotiationError)
    case chap(CHAPFailure)
    /// The target wants a proof of identity and no credentials are configured, or the other way round.
    case authenticationMethod(offered: String, answered: String)
    /// More round trips than any login needs.
    case tooManyExchanges(Int)

    public enum Field: Hashable, Sendable {
        case version, isid, tsih, initiatorTaskTag, statSN, connectionID, cmdSN
    }
}

/// A key whose value is missing, illegal, or not what was offered.
public struct NegotiationError: Error, Hashable, Sendable {
    public var key: String
    public var value: String
    /// What would have been right, in the words of RFC 7143.
    public var expected: String

    public init(key: String, value: String, expected: String) {
        self.key = key
        self.value = value
        self.expected = expected
    }
}

/// Text that is not a list of key=value pairs, or too much of it.
public enum TextError: Error, Hashable, Sendable {
    case missingEquals(String)
    case emptyKey
    case illegalKey(String)
    case keyTooLong(byteCount: Int)
    case valueTooLong(key: String, byteCount: Int)
    case duplicateKey(String)
    case notUTF8(key: String)
    /// The last pair has no NUL behind it.
    case unterminated
    case tooLong(byteCount: Int, limit: Int)
    case tooManyKeys(limit: Int)
}

/// Why CHAP failed, on either side.
public enum CHAPFailure: Error, Hashable, Sendable {
    /// The target picked an algorithm that was not offered, or nothing common is left.
    case noCommonAlgorithm(String)
    case missingKey(String)
    case malformedValue(key: String)
    /// The peer sent back our own challenge (RFC 7143 section 12.1.3).
    case reflectedChallenge
    /// Both directions use one secret (RFC 7143 section 12.1.3).
    case sameSecretBothWays
    case unknownName(String)
    case wrongResponse
    /// The target's name is not the one that was configured.
    case wrongMutualName(String)
    /// Mutual authentication was asked and the target did not answer, or the other way round.
    case mutualAuthenticationMissing
    case digestUnavailable(CHAPAlgorithm)
}

// MARK: in words

extension LoginFailure: CustomStringConvertible {
    public var description: String {
        switch self {
        case .invalidSetting(let error): "setting \(error)"
        case .refused(let status): "the target refused the login: \(status)"
        case .redirectedNowhere(nil): "the target redirected the login without a TargetAddress"
        case .redirectedNowhere(let text?): "the target redirected the login to an unreadable TargetAddress, \"\(text)\""
        case .unexpectedPDU(let opcode): "\(opcode) during login"
        case .field(let field, let found, let expected): "\(field) is \(found) in a login PDU, expected \(expected)"
        case .stage(let flags): "login flags 0x\(String(flags.rawValue, radix: 16)) do not follow from the last PDU"
        case .text(let error): "\(error)"
        case .negotiation(let error): "\(error)"
        case .chap(let failure): "CHAP: \(failure)"
        case .authenticationMethod(let offered, let answered):
            "AuthMethod \(offered.isEmpty ? "(none)" : offered) was offered and \(answered.isEmpty ? "(none)" : answered) wanted"
        case .tooManyExchanges(let count): "login did not end after \(count) exchanges"
        }
    }
}

extension LoginFailure.Field: CustomStringConvertible {
    public var description: String {
        switch self {
        case .version: "version"
        case .isid: "ISID"
        case .tsih: "TSIH"
        case .initiatorTaskTag: "Initiator Task Tag"
        case .statSN: "StatSN"
        case .connectionID: "CID"
        case .cmdSN: "CmdSN"
        }
    }
}

extension NegotiationError: CustomStringConvertible {
    public var description: String {
        "\(key)=\(value.isEmpty ? "(nothing)" : value), expected \(expected)"
    }
}

extension TextError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .missingEquals(let text): "text \"\(text)\" is not key=value"
        case .emptyKey: "text with an empty key"
        case .illegalKey(let key): "\"\(key)\" is not a key"
        case .keyTooLong(let byteCount): "key of \(byteCount) bytes, at most \(TextLimits.keyByteCount) are legal"
        case .valueTooLong(let key, let byteCount): "value of \(byteCount) bytes for \(key)"
        case .duplicateKey(let key): "\(key) came twice"
        case .notUTF8(let key): "value of \(key) is not UTF-8"
        case .unterminated: "text without a NUL at its end"
        case .tooLong(let byteCount, let limit): "text of \(byteCount) bytes or more, at most \(limit) are accepted"
        case .tooManyKeys(let limit): "more than \(limit) keys"
        }
    }
}

extension CHAPFailure: CustomStringConvertible {
    public var description: String {
        switch self {
        case .noCommonAlgorithm(let list): "no common algorithm, the peer said \"\(list)\""
        case .missingKey(let key): "\(key) is missing"
        case .malformedValue(let key): "\(key) has a malformed value"
        case .reflectedChallenge: "the peer sent our own challenge back"
        case .sameSecretBothWays: "both directions have the same secret"
        case .unknownName(let name): "unknown name \"\(name)\""
        case .wrongResponse: "wrong response"
        case .wrongMutualName(let name): "the target calls itself \"\(name)\", which is not the configured name"
        case .mutualAuthenticationMissing: "proof of the other side's identity was asked and is not to be had"
        case .digestUnavailable(let algorithm): "\(algorithm) is not available on this system"
        }
    }
}
