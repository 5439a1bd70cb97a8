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
    case field(Field, found: UInt32, expected: UInt32)
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
