/// CHAP's hash functions (RFC 7143 section 12.1.3 and the IANA registry), by the numbers of CHAP_A.
@frozen
public enum CHAPAlgorithm: UInt8, Hashable, Sendable, CaseIterable {
    case md5 = 5
    case sha1 = 6
    case sha256 = 7
    case sha3_256 = 8

    /// Length of its digests, in bytes.
    @inlinable public var digestByteCount: Int {
        switch self {
        case .md5: 16
        case .sha1: 20
        case .sha256, .sha3_256: 32
        }
    }

    /// Strongest first: what an initiator offers and how a target picks.
    public static let byStrength: [CHAPAlgorithm] = [.sha3_256, .sha256, .sha1, .md5]
}

extension CHAPAlgorithm: CustomStringConvertible {
    public var description: String {
        switch self {
        case .md5: "MD5"
        case .sha1: "SHA-1"
        case .sha256: "SHA-256"
        case .sha3_256: "SHA3-256"
        }
    }
}

/// Hashes and randomness for CHAP, handed in because this module holds neither. Called on the control
/// path only, on the session's thread.
public protocol CryptographicServices: Sendable {
    /// `count` unpredictable bytes.
    func randomBytes(count: Int) -> [UInt8]
    /// nil where the platform's library refuses the function (MD5 under a FIPS policy).
    func digest(_ algorithm: CHAPAlgorithm, of bytes: [UInt8]) -> [UInt8]?
}

/// A secret that both sides know. Never printed.
public struct CHAPSecret: Hashable, Sendable {
    public let bytes: [UInt8]

    public init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// What RFC 7143 section 12.1.3 asks of a secret where IPsec does not protect the session.
    public enum Strength: Hashable, Sendable {
        case sufficient
        /// Under 96 bits.
        case short(byteCount: Int)
        case empty
    }

    public var strength: Strength {
        if bytes.isEmpty { return .empty }
        return bytes.count < 12 ? .short(byteCount: bytes.count) : .sufficient
    }
}

extension CHAPSecret: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public var description: String { "(secret)" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}

/// A name and its secret.
public struct CHAPIdentity: Hashable, Sendable {
    /// CHAP_N, 1…255 bytes of UTF-8.
    public var name: String
    public var secret: CHAPSecret

    public init(name: String, secret: CHAPSecret) {
        self.name = name
        self.secret = secret
    }
}

/// How an initiator proves itself, and what it asks of the target.
public struct CHAPCredentials: Hashable, Sendable {
    public var identity: CHAPIdentity
    /// Where there is one, the target must prove itself with this name and secret. The secret must differ
    /// from the initiator's (RFC 7143 section 12.1.3), or anyone could reflect our own answer.
    public var mutual: CHAPIdentity?
    /// Offered in this order.
    public var algorithms: [CHAPAlgorithm]

    public init(
        identity: CHAPIdentity, mutual: CHAPIdentity? = nil, algorithms: [CHAPAlgorithm] = CHAPAlgorithm.byStrength
    ) {
        self.identity = identity
        self.mutual = mutual
        self.algorithms = algorithms
    }
}
