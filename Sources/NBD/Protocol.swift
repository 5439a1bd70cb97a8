// The numbers of the protocol: https://github.com/NetworkBlockDevice/nbd, doc/proto.md ("the specification" below).

/// The magic numbers that begin messages.
enum Magic {
    /// "NBDMAGIC", the server's first word.
    static let server: UInt64 = 0x4E42_444D_4147_4943
    /// "IHAVEOPT": the new style of negotiation, and each option of the client.
    static let option: UInt64 = 0x4948_4156_454F_5054
    static let optionReply: UInt64 = 0x0003_E889_0455_65A9
    static let request: UInt32 = 0x2560_9513
    static let simpleReply: UInt32 = 0x6744_6698
    static let structuredReply: UInt32 = 0x668E_33EF
}

/// Flags of the handshake: the server's (16 bits) and the client's answer (32 bits) have the same two.
public struct HandshakeFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let fixedNewstyle = HandshakeFlags(rawValue: 1)
    public static let noZeroes = HandshakeFlags(rawValue: 2)
    static let known: HandshakeFlags = [.fixedNewstyle, .noZeroes]
}

/// What a client asks for before it uses an export. An open set.
public struct OptionCode: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let exportName = OptionCode(rawValue: 1)
    public static let abort = OptionCode(rawValue: 2)
    public static let list = OptionCode(rawValue: 3)
    public static let startTLS = OptionCode(rawValue: 5)
    public static let info = OptionCode(rawValue: 6)
    public static let go = OptionCode(rawValue: 7)
    public static let structuredReply = OptionCode(rawValue: 8)
    public static let listMetaContext = OptionCode(rawValue: 9)
    public static let setMetaContext = OptionCode(rawValue: 10)
}

/// How the server answers an option; errors have bit 31.
public enum OptionReplyCode: UInt32, Hashable, Sendable {
    case acknowledge = 1
    case server = 2
    case info = 3
    case metaContext = 4
    case unsupported = 0x8000_0001
    case policy = 0x8000_0002
    case invalid = 0x8000_0003
    /// Not before ``OptionCode/startTLS``.
    case tlsRequired = 0x8000_0005
    case unknownExport = 0x8000_0006
    case shutdown = 0x8000_0007
    case blockSizeRequired = 0x8000_0008
    case tooBig = 0x8000_0009
}

/// The kinds of ``OptionReplyCode/info``.
enum InfoCode: UInt16 {
    case export = 0
    case name = 1
    case description = 2
    case blockSize = 3
}

/// Whether clients may, or have to, encrypt (the specification, "TLS support").
public enum TransportSecurity: Hashable, Sendable {
    /// NOTLS: STARTTLS is refused.
    case none
    /// SELECTIVETLS, on no export mandatory.
    case allowed
    /// FORCEDTLS: before it no option is answered but STARTTLS and ABORT.
    case required
}

/// What an export offers, told when it is chosen.
public struct TransmissionFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }
    /// Always set.
    public static let hasFlags = TransmissionFlags(rawValue: 1)
    public static let readOnly = TransmissionFlags(rawValue: 1 << 1)
    public static let sendFlush = TransmissionFlags(rawValue: 1 << 2)
    public static let sendFUA = TransmissionFlags(rawValue: 1 << 3)
    public static let sendTrim = TransmissionFlags(rawValue: 1 << 5)
    public static let sendWriteZeroes = TransmissionFlags(rawValue: 1 << 6)
    /// Only where structured replies were agreed on.
    public static let sendDF = TransmissionFlags(rawValue: 1 << 7)
    public static let canMultiConn = TransmissionFlags(rawValue: 1 << 8)
    public static let sendCache = TransmissionFlags(rawValue: 1 << 10)
    public static let sendFastZero = TransmissionFlags(rawValue: 1 << 11)
}

/// What a request asks for. An open set.
public struct CommandCode: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let read = CommandCode(rawValue: 0)
    public static let write = CommandCode(rawValue: 1)
    public static let disconnect = CommandCode(rawValue: 2)
    public static let flush = CommandCode(rawValue: 3)
    public static let trim = CommandCode(rawValue: 4)
    public static let cache = CommandCode(rawValue: 5)
    public static let writeZeroes = CommandCode(rawValue: 6)
    public static let blockStatus = CommandCode(rawValue: 7)

    var changesBlocks: Bool { self == .write || self == .trim || self == .writeZeroes }
}

/// Flags of a request.
public struct CommandFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }
    /// On stable storage before the reply.
    public static let forceUnitAccess = CommandFlags(rawValue: 1)
    /// WRITE_ZEROES: the range must be backed by storage afterwards.
    public static let noHole = CommandFlags(rawValue: 1 << 1)
    /// READ: one chunk of data only.
    public static let dontFragment = CommandFlags(rawValue: 1 << 2)
    public static let requestOne = CommandFlags(rawValue: 1 << 3)
    /// WRITE_ZEROES: only where that is faster than writing.
    public static let fastZero = CommandFlags(rawValue: 1 << 4)
}

/// Why a request failed, in the protocol's numbers.
public enum ReplyError: UInt32, Error, Hashable, Sendable {
    case notPermitted = 1
    case inputOutput = 5
    case noMemory = 12
    case invalid = 22
    case noSpace = 28
    case overflow = 75
    /// A fast zero that would not be fast; nothing else, says the specification.
    case notSupported = 95
    case shutdown = 108
}

enum StructuredReplyType {
    static let none: UInt16 = 0
    static let offsetData: UInt16 = 1
    static let error: UInt16 = 0x8001
}

enum StructuredReplyFlags {
    static let done: UInt16 = 1
}
