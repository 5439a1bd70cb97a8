/// What went wrong, in the target's words (SPC-4 clause 4.5), from fixed or descriptor format.
@frozen
public struct SenseData: Hashable, Sendable {
    /// SENSE KEY: which kind of trouble.
    public var key: SenseKey
    /// ADDITIONAL SENSE CODE and its qualifier: which trouble.
    public var additional: AdditionalSense
    /// The INFORMATION field, where VALID was set: for most errors the first failing block.
    public var information: UInt64?
    /// Response codes 71h and 73h: the error belongs to an earlier command.
    public var isDeferred: Bool
    /// The SENSE KEY SPECIFIC field, where SKSV was set.
    public var specific: SenseKeySpecific?

    /// Sense data; what is not given was not set.
    @inlinable
    public init(
        key: SenseKey, additional: AdditionalSense, information: UInt64? = nil, isDeferred: Bool = false,
        specific: SenseKeySpecific? = nil
    ) {
        self.key = key
        self.additional = additional
        self.information = information
        self.isDeferred = isDeferred
        self.specific = specific
    }
}

/// The sense key (SPC-4 table 48): four bits, every value named.
@frozen
public enum SenseKey: UInt8, Hashable, Sendable, CaseIterable {
    /// Nothing is wrong; other fields tell something by the way.
    case noSense = 0x0
    /// Done, after the device helped itself.
    case recoveredError = 0x1
    /// The unit can't be accessed now.
    case notReady = 0x2
    /// The medium has a defect.
    case mediumError = 0x3
    /// The device has a defect.
    case hardwareError = 0x4
    /// The command, or its parameters, are wrong.
    case illegalRequest = 0x5
    /// Something happened that the initiator should know; the command was not carried out.
    case unitAttention = 0x6
    /// The blocks are protected.
    case dataProtect = 0x7
    /// Blank or non-blank medium where it should not be; other devices than disks.
    case blankCheck = 0x8
    /// The vendor's.
    case vendorSpecific = 0x9
    /// A third-party copy ended early.
    case copyAborted = 0xA
    /// The target aborted the command; it may be sent again.
    case abortedCommand = 0xB
    /// Reserved.
    case reserved = 0xC
    /// Data is left in the buffer of a device that is full.
    case volumeOverflow = 0xD
    /// The data differ from what is on the medium.
    case miscompare = 0xE
    /// Something that was under way has ended.
    case completed = 0xF
}

/// Where the wrong field is (SPC-4 table 50).
@frozen
public struct FieldPointer: Hashable, Sendable {
    /// C/D: the field is in the CDB rather than in the parameter list.
    public var isInCommand: Bool
    /// The field's first byte, from 0.
    public var byte: UInt16
    /// 0…7, where the field does not begin at a whole byte.
    public var bit: UInt8?

    /// A pointer to a field.
    @inlinable
    public init(isInCommand: Bool, byte: UInt16, bit: UInt8?) {
        self.isInCommand = isInCommand
        self.byte = byte
        self.bit = bit.map { $0 & 7 }
    }
}

/// The three bytes whose meaning depends on the sense key (SPC-4 clause 4.5.2.4).
@frozen
public enum SenseKeySpecific: Hashable, Sendable {
    /// ILLEGAL REQUEST.
    case fieldPointer(FieldPointer)
    /// NO SENSE, NOT READY: done, in 65,536ths.
    case progress(UInt16)
    /// HARDWARE ERROR, MEDIUM ERROR, RECOVERED ERROR: how often the device tried.
    case retryCount(UInt16)
    /// Other keys: bits 6…0 of the first byte, then the other two.
    case other(UInt8, UInt16)

    /// SKSV (bit 7 of the first byte) must have been checked.
    init(key: SenseKey, first: UInt8, rest: UInt16) {
        switch key {
        case .illegalRequest:
            let bit: UInt8? = first & 0x08 != 0 ? first & 0x07 : nil
            self = .fieldPointer(FieldPointer(isInCommand: first & 0x40 != 0, byte: rest, bit: bit))
        case .noSense, .notReady: self = .progress(rest)
        case .hardwareError, .mediumError, .recoveredError: self = .retryCount(rest)
        default: self = .other(first & 0x7F, rest)
        }
    }

    /// The three bytes, SKSV set.
    var encoded: [UInt8] {
        let first: UInt8
        let rest: UInt16
        switch self {
        case .fieldPointer(let pointer):
            first = (pointer.isInCommand ? 0x40 : 0) | (pointer.bit.map { 0x08 | $0 } ?? 0)
            rest = pointer.byte
        case .progress(let value), .retryCount(let value): (first, rest) = (0, value)
        case .other(let value, let more): (first, rest) = (value & 0x7F, more)
        }
        return [0x80 | first, UInt8(rest >> 8), UInt8(truncatingIfNeeded: rest)]
    }
}

/// An additional sense code and its qualifier (SPC-4 annex F), an open set.
@frozen
public struct AdditionalSense: Hashable, Sendable {
    /// ADDITIONAL SENSE CODE.
    public var code: UInt8
    /// ADDITIONAL SENSE CODE QUALIFIER.
    public var qualifier: UInt8
    /// The pair of code and qualifier.
    @inlinable
    public init(_ code: UInt8, _ qualifier: UInt8) {
        self.code = code
        self.qualifier = qualifier
    }
}
