public import SCSI

// Fields that only some PDUs have, at the offsets of RFC 7143 sections 11.3 to 11.19. A getter reads
// whatever bytes are there: look at `opcode` first.
extension BasicHeaderSegment {
    // MARK: SCSI Command (11.3)

    @inlinable public var commandFlags: SCSICommandFlags {
        get { SCSICommandFlags(rawValue: flags & 0xE0) }
        set { flags = flags & 0x1F | newValue.rawValue & 0xE0 }
    }
    /// nil where the peer sent one of the three reserved values.
    @inlinable public var taskAttribute: TaskAttribute? { TaskAttribute(rawValue: flags & 0x07) }
    /// The command's CDB, 16 bytes; its own length follows from its operation code.
    @inlinable public var cdb: CommandDescriptorBlock {
        get {
            var block = CommandDescriptorBlock(operationCode: self[byte: 32])
            block.bytes = cdbBytes
            return block
        }
        set { cdbBytes = newValue.bytes }
    }

    // MARK: SCSI Response (11.4), Data-In (11.7)

    @inlinable public var responseFlags: SCSIResponseFlags {
        get { SCSIResponseFlags(rawValue: flags & 0x1E) }
        set { flags = flags & ~0x1E | newValue.rawValue & 0x1E }
    }
    @inlinable public var serviceResponse: SCSIServiceResponse {
        get { SCSIServiceResponse(rawValue: byte2) }
        set { byte2 = newValue.rawValue }
    }
    @inlinable public var status: SCSIStatus {
        get { SCSIStatus(rawValue: byte3) }
        set { byte3 = newValue.rawValue }
    }
    /// SCSI Response, SNACK of type R-Data: SNACK Tag.
    @inlinable public var snackTag: UInt32 { get { self[word32: 20] } set { self[word32: 20] = newValue } }
    /// SCSI Response: how many Data-In and R2T PDUs the target sent for the command. Task Management
    /// Request with TASK REASSIGN: the next DataSN the initiator expects.
    @inlinable public var expDataSN: UInt32 { get { self[word32: 36] } set { self[word32: 36] = newValue } }
    /// SCSI Response to a bidirectional command, in bytes.
    @inlinable public var bidirectionalReadResidualCount: UInt32 { get { self[word32: 40] } set { self[word32: 40] = newValue } }
    @inlinable public var dataInFlags: DataInFlags {
        get { DataInFlags(rawValue: flags) }
        set { flags = newValue.rawValue }
    }

    // MARK: Task management (11.5, 11.6)

    /// nil where the peer sent a value that RFC 7143 does not define.
    @inlinable public var taskManagementFunction: TaskManagementFunction? { TaskManagementFunction(rawValue: flags & 0x7F) }
    @inlinable public var taskManagementResponse: TaskManagementResponse {
        get { TaskManagementResponse(rawValue: byte2) }
        set { byte2 = newValue.rawValue }
    }

    // MARK: R2T (11.8)

    @inlinable public var r2tSN: UInt32 { get { self[word32: 36] } set { self[word32: 36] = newValue } }

    // MARK: Asynchronous Message (11.9)

    @inlinable public var asyncEvent: AsyncEvent {
        get { AsyncEvent(rawValue: self[byte: 36]) }
        set { self[byte: 36] = newValue.rawValue }
    }
    @inlinable public var asyncVendorCode: UInt8 { get { self[byte: 37] } set { self[byte: 37] = newValue } }
    @inlinable public var asyncParameter1: UInt16 { get { self[word16: 38] } set { self[word16: 38] = newValue } }
    /// Connection and session drop: Time2Wait, in seconds.
    @inlinable public var asyncParameter2: UInt16 { get { self[word16: 40] } set { self[word16: 40] = newValue } }
    /// Logout and negotiation requests: the deadline; drops: Time2Retain; in seconds.
    @inlinable public var asyncParameter3: UInt16 { get { self[word16: 42] } set { self[word16: 42] = newValue } }

    // MARK: Text (11.10, 11.11)

    @inlinable public var textFlags: TextFlags {
        get { TextFlags(rawValue: flags & 0xC0) }
        set { flags = flags & 0x3F | newValue.rawValue & 0xC0 }
    }

    // MARK: Login (11.12, 11.13)

    @inlinable public var loginFlags: LoginFlags {
        get { LoginFlags(rawValue: flags) }
        set { flags = newValue.rawValue }
    }
    @inlinable public var versionMax: UInt8 { get { byte2 } set { byte2 = newValue } }
    /// Login Request.
    @inlinable public var versionMin: UInt8 { get { byte3 } set { byte3 = newValue } }
    /// Login Response.
    @inlinable public var versionActive: UInt8 { get { byte3 } set { byte3 = newValue } }
    @inlinable public var isid: ISID {
        get { ISID(rawValue: self[word64: 8] >> 16) }
        set { self[word64: 8] = self[word64: 8] & 0xFFFF | newValue.rawValue << 16 }
    }
    @inlinable public var tsih: UInt16 { get { self[word16: 14] } set { self[word16: 14] = newValue } }
    @inlinable public var loginStatus: LoginStatus {
        get { LoginStatus(rawValue: self[word16: 36]) }
        set { self[word16: 36] = newValue.rawValue }
    }

    // MARK: Logout (11.14, 11.15)

    /// nil where the peer sent a value that RFC 7143 does not define.
    @inlinable public var logoutReason: LogoutReason? { LogoutReason(rawValue: flags & 0x7F) }
    @inlinable public var logoutResponse: LogoutResponse {
        get { LogoutResponse(rawValue: byte2) }
        set { byte2 = newValue.rawValue }
    }
    /// Logout Response, in seconds.
    @inlinable public var time2Wait: UInt16 { get { self[word16: 40] } set { self[word16: 40] = newValue } }
    /// Logout Response, in seconds.
    @inlinable public var time2Retain: UInt16 { get { self[word16: 42] } set { self[word16: 42] = newValue } }

    // MARK: SNACK (11.16)

    /// nil where the peer sent a value that RFC 7143 does not define.
    @inlinable public var snackType: SNACKType? { SNACKType(rawValue: flags & 0x0F) }
    @inlinable public var begRun: UInt32 { get { self[word32: 40] } set { self[word32: 40] = newValue } }
    @inlinable public var runLength: UInt32 { get { self[word32: 44] } set { self[word32: 44] = newValue } }

    // MARK: Reject (11.17)

    @inlinable public var rejectReason: RejectReason {
        get { RejectReason(rawValue: byte2) }
        set { byte2 = newValue.rawValue }
    }
}

/// An Asynchronous Message (RFC 7143 section 11.9) taken apart; times in seconds.
public enum AsyncMessage: Hashable, Sendable {
    /// Sense data and SCSI event data are in the PDU's data segment.
    case scsiEvent(LogicalUnitNumber)
    case logoutRequested(withinSeconds: UInt16)
    case connectionDrops(connectionID: UInt16, time2Wait: UInt16, time2Retain: UInt16)
    case sessionDrops(time2Wait: UInt16, time2Retain: UInt16)
    case negotiationRequested(withinSeconds: UInt16)
    case tasksTerminated(LogicalUnitNumber)
    case vendorSpecific(code: UInt8)
    case unknown(AsyncEvent)

    @inlinable
    public init(_ header: BasicHeaderSegment) {
        switch header.asyncEvent {
        case .scsiEvent: self = .scsiEvent(header.lun)
        case .logoutRequest: self = .logoutRequested(withinSeconds: header.asyncParameter3)
        case .connectionDrop:
            self = .connectionDrops(
                connectionID: header.asyncParameter1, time2Wait: header.asyncParameter2,
                time2Retain: header.asyncParameter3)
        case .sessionDrop:
            self = .sessionDrops(time2Wait: header.asyncParameter2, time2Retain: header.asyncParameter3)
        case .renegotiate: self = .negotiationRequested(withinSeconds: header.asyncParameter3)
        case .taskTermination: self = .tasksTerminated(header.lun)
        case .vendorSpecific: self = .vendorSpecific(code: header.asyncVendorCode)
        default: self = .unknown(header.asyncEvent)
        }
    }
}
