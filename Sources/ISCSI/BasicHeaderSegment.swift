public import SCSI

/// The 48 bytes that begin every PDU (RFC 7143 section 11.2.1), held as they go on the wire.
///
/// Fields are read and written in place, big-endian, so that building a PDU is filling 48 bytes and
/// sending it is naming them. Accessors are named as the RFC names the fields; several fields share
/// an offset because PDUs differ, and each accessor says which PDUs have it.
@frozen
public struct BasicHeaderSegment: Sendable {
    @usableFromInline var words: InlineArray<6, UInt64>

    public static let byteCount = 48

    @inlinable
    public init() {
        words = InlineArray(repeating: 0)
    }

    /// The 48 bytes at `source`, which need no alignment.
    @inlinable
    public init(loadingFrom source: UnsafeRawPointer) {
        words = InlineArray(repeating: 0)
        withUnsafeMutableBytes(of: &words) { $0.baseAddress!.copyMemory(from: source, byteCount: 48) }
    }

    /// Writes the 48 bytes to `destination`, which needs no alignment.
    @inlinable
    public func store(to destination: UnsafeMutableRawPointer) {
        withUnsafeBytes(of: words) { destination.copyMemory(from: $0.baseAddress!, byteCount: 48) }
    }

    @inlinable
    public subscript(byte offset: Int) -> UInt8 {
        get { withUnsafeBytes(of: words) { $0[offset] } }
        set { withUnsafeMutableBytes(of: &words) { $0[offset] = newValue } }
    }

    @inlinable
    subscript(word16 offset: Int) -> UInt16 {
        get { withUnsafeBytes(of: words) { UInt16(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt16.self)) } }
        set { withUnsafeMutableBytes(of: &words) { $0.storeBytes(of: newValue.bigEndian, toByteOffset: offset, as: UInt16.self) } }
    }

    @inlinable
    subscript(word32 offset: Int) -> UInt32 {
        get { withUnsafeBytes(of: words) { UInt32(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) } }
        set { withUnsafeMutableBytes(of: &words) { $0.storeBytes(of: newValue.bigEndian, toByteOffset: offset, as: UInt32.self) } }
    }

    @inlinable
    subscript(word64 offset: Int) -> UInt64 {
        get { withUnsafeBytes(of: words) { UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) } }
        set { withUnsafeMutableBytes(of: &words) { $0.storeBytes(of: newValue.bigEndian, toByteOffset: offset, as: UInt64.self) } }
    }
}

/// Operation codes (RFC 7143 section 11.2.1.2), the low six bits of the first byte. An open set.
@frozen
public struct PDUOpcode: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable public static var nopOut: PDUOpcode { .init(rawValue: 0x00) }
    @inlinable public static var scsiCommand: PDUOpcode { .init(rawValue: 0x01) }
    @inlinable public static var taskManagementRequest: PDUOpcode { .init(rawValue: 0x02) }
    @inlinable public static var loginRequest: PDUOpcode { .init(rawValue: 0x03) }
    @inlinable public static var textRequest: PDUOpcode { .init(rawValue: 0x04) }
    @inlinable public static var dataOut: PDUOpcode { .init(rawValue: 0x05) }
    @inlinable public static var logoutRequest: PDUOpcode { .init(rawValue: 0x06) }
    @inlinable public static var snackRequest: PDUOpcode { .init(rawValue: 0x10) }
    @inlinable public static var nopIn: PDUOpcode { .init(rawValue: 0x20) }
    @inlinable public static var scsiResponse: PDUOpcode { .init(rawValue: 0x21) }
    @inlinable public static var taskManagementResponse: PDUOpcode { .init(rawValue: 0x22) }
    @inlinable public static var loginResponse: PDUOpcode { .init(rawValue: 0x23) }
    @inlinable public static var textResponse: PDUOpcode { .init(rawValue: 0x24) }
    @inlinable public static var dataIn: PDUOpcode { .init(rawValue: 0x25) }
    @inlinable public static var logoutResponse: PDUOpcode { .init(rawValue: 0x26) }
    @inlinable public static var readyToTransfer: PDUOpcode { .init(rawValue: 0x31) }
    @inlinable public static var asyncMessage: PDUOpcode { .init(rawValue: 0x32) }
    @inlinable public static var reject: PDUOpcode { .init(rawValue: 0x3F) }
}

extension BasicHeaderSegment {
    /// 0xFFFFFFFF where a tag is not in use (RFC 7143 sections 11.2.1.8 and 11.7.4).
    @inlinable public static var reservedTag: UInt32 { 0xFFFF_FFFF }

    // MARK: every PDU

    @inlinable public var opcode: PDUOpcode {
        get { PDUOpcode(rawValue: self[byte: 0] & 0x3F) }
        set { self[byte: 0] = self[byte: 0] & 0x40 | newValue.rawValue }
    }
    /// The I bit: delivered at once, CmdSN not advanced.
    @inlinable public var isImmediate: Bool {
        get { self[byte: 0] & 0x40 != 0 }
        set { self[byte: 0] = newValue ? self[byte: 0] | 0x40 : self[byte: 0] & ~0x40 }
    }
    /// Byte 1, opcode specific; bit 7 is the F bit of most PDUs.
    @inlinable public var flags: UInt8 {
        get { self[byte: 1] }
        set { self[byte: 1] = newValue }
    }
    @inlinable public var isFinal: Bool {
        get { self[byte: 1] & 0x80 != 0 }
        set { self[byte: 1] = newValue ? self[byte: 1] | 0x80 : self[byte: 1] & ~0x80 }
    }
    /// In bytes (the wire counts four-byte words), 0…1020.
    @inlinable public var totalAHSByteCount: Int {
        get { Int(self[byte: 4]) * 4 }
        set { self[byte: 4] = UInt8(truncatingIfNeeded: newValue / 4) }
    }
    /// Without padding and digests, 0…16,777,215.
    @inlinable public var dataSegmentByteCount: Int {
        get { Int(self[word32: 4] & 0x00FF_FFFF) }
        set { self[word32: 4] = self[word32: 4] & 0xFF00_0000 | UInt32(truncatingIfNeeded: newValue) & 0x00FF_FFFF }
    }
    @inlinable public var lun: LogicalUnitNumber {
        get { LogicalUnitNumber(rawValue: self[word64: 8]) }
        set { self[word64: 8] = newValue.rawValue }
    }
    @inlinable public var initiatorTaskTag: UInt32 {
        get { self[word32: 16] }
        set { self[word32: 16] = newValue }
    }

    // MARK: offsets 20–47, by PDU

    /// NOP, Data-In/Out, R2T, Text, SNACK: Target Transfer Tag.
    @inlinable public var targetTransferTag: UInt32 { get { self[word32: 20] } set { self[word32: 20] = newValue } }
    /// SCSI Command: Expected Data Transfer Length, in bytes.
    @inlinable public var expectedDataTransferByteCount: UInt32 { get { self[word32: 20] } set { self[word32: 20] = newValue } }
    /// Task Management Request: Referenced Task Tag.
    @inlinable public var referencedTaskTag: UInt32 { get { self[word32: 20] } set { self[word32: 20] = newValue } }
    /// Login and Logout requests: Connection ID.
    @inlinable public var connectionID: UInt16 { get { self[word16: 20] } set { self[word16: 20] = newValue } }

    /// Requests: Command Sequence Number.
    @inlinable public var cmdSN: UInt32 { get { self[word32: 24] } set { self[word32: 24] = newValue } }
    /// Responses: Status Sequence Number.
    @inlinable public var statSN: UInt32 { get { self[word32: 24] } set { self[word32: 24] = newValue } }

    /// Requests: the next StatSN expected.
    @inlinable public var expStatSN: UInt32 { get { self[word32: 28] } set { self[word32: 28] = newValue } }
    /// Responses: the next CmdSN expected.
    @inlinable public var expCmdSN: UInt32 { get { self[word32: 28] } set { self[word32: 28] = newValue } }
    /// Responses: the highest CmdSN that may be sent.
    @inlinable public var maxCmdSN: UInt32 { get { self[word32: 32] } set { self[word32: 32] = newValue } }

    /// Data-In, Data-Out: DataSN; R2T: R2TSN; SCSI Response and Reject: ExpDataSN/DataSN.
    @inlinable public var dataSN: UInt32 { get { self[word32: 36] } set { self[word32: 36] = newValue } }
    /// Task Management Request: RefCmdSN (word 8, offset 32); ExpDataSN is at offset 36.
    @inlinable public var refCmdSN: UInt32 { get { self[word32: 32] } set { self[word32: 32] = newValue } }
    /// Data-In, Data-Out, R2T: Buffer Offset, in bytes.
    @inlinable public var bufferOffset: UInt32 { get { self[word32: 40] } set { self[word32: 40] = newValue } }
    /// R2T: Desired Data Transfer Length, in bytes.
    @inlinable public var desiredDataTransferByteCount: UInt32 { get { self[word32: 44] } set { self[word32: 44] = newValue } }
    /// SCSI Response, Data-In with status: Residual Count, in bytes.
    @inlinable public var residualCount: UInt32 { get { self[word32: 44] } set { self[word32: 44] = newValue } }

    /// SCSI Command: the CDB's 16 bytes.
    @inlinable public var cdbBytes: InlineArray<16, UInt8> {
        get { withUnsafeBytes(of: words) { $0.loadUnaligned(fromByteOffset: 32, as: InlineArray<16, UInt8>.self) } }
        set { withUnsafeMutableBytes(of: &words) { $0.storeBytes(of: newValue, toByteOffset: 32, as: InlineArray<16, UInt8>.self) } }
    }
    /// SCSI, Task Management and Logout Response: response; Reject: reason; Login: Version-max.
    @inlinable public var byte2: UInt8 { get { self[byte: 2] } set { self[byte: 2] = newValue } }
    /// SCSI Response and Data-In with status: SCSI status; Login: Version-min or Version-active.
    @inlinable public var byte3: UInt8 { get { self[byte: 3] } set { self[byte: 3] = newValue } }
}
