/// F, R and W of a SCSI Command (RFC 7143 section 11.3.1). The F bit says that no unsolicited Data-Out follows.
@frozen
public struct SCSICommandFlags: OptionSet, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable public static var final: SCSICommandFlags { .init(rawValue: 0x80) }
    @inlinable public static var read: SCSICommandFlags { .init(rawValue: 0x40) }
    @inlinable public static var write: SCSICommandFlags { .init(rawValue: 0x20) }
}

/// ATTR of a SCSI Command (RFC 7143 section 11.3.1), three bits.
@frozen
public enum TaskAttribute: UInt8, Hashable, Sendable, CaseIterable {
    case untagged = 0
    case simple = 1
    case ordered = 2
    case headOfQueue = 3
    case autoContingentAllegiance = 4
}

/// Byte 1 of a SCSI Data-In (RFC 7143 section 11.7).
@frozen
public struct DataInFlags: OptionSet, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The last PDU of a sequence.
    @inlinable public static var final: DataInFlags { .init(rawValue: 0x80) }
    /// The target asks for a DataACK SNACK; only at error recovery level 1 and above.
    @inlinable public static var acknowledge: DataInFlags { .init(rawValue: 0x40) }
    /// Residual overflow; only together with `status`.
    @inlinable public static var overflow: DataInFlags { .init(rawValue: 0x04) }
    /// Residual underflow; only together with `status`.
    @inlinable public static var underflow: DataInFlags { .init(rawValue: 0x02) }
    /// Carries the command's status, so that no SCSI Response follows.
    @inlinable public static var status: DataInFlags { .init(rawValue: 0x01) }
}

/// Byte 1 of a SCSI Response (RFC 7143 section 11.4.1), its always-set top bit left out.
@frozen
public struct SCSIResponseFlags: OptionSet, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// o: overflow of a bidirectional command's read part.
    @inlinable public static var bidirectionalReadOverflow: SCSIResponseFlags { .init(rawValue: 0x10) }
    /// u: underflow of a bidirectional command's read part.
    @inlinable public static var bidirectionalReadUnderflow: SCSIResponseFlags { .init(rawValue: 0x08) }
    /// O
    @inlinable public static var overflow: SCSIResponseFlags { .init(rawValue: 0x04) }
    /// U
    @inlinable public static var underflow: SCSIResponseFlags { .init(rawValue: 0x02) }
}

/// The iSCSI service response of a SCSI Response (RFC 7143 section 11.4.3). An open set.
@frozen
public struct SCSIServiceResponse: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Command completed at target; the status field is valid.
    @inlinable public static var completed: SCSIServiceResponse { .init(rawValue: 0x00) }
    @inlinable public static var targetFailure: SCSIServiceResponse { .init(rawValue: 0x01) }
    /// 80h–FFh
    @inlinable public var isVendorSpecific: Bool { rawValue >= 0x80 }
}

/// CSG and NSG of a login (RFC 7143 section 11.12.3). The value 2 is not used.
@frozen
public enum LoginStage: UInt8, Hashable, Sendable, CaseIterable {
    case securityNegotiation = 0
    case operationalNegotiation = 1
    case fullFeature = 3
}

/// Byte 1 of a Login Request or Response (RFC 7143 sections 11.12.1 to 11.12.3).
@frozen
public struct LoginFlags: Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// `next` is what T announces: nil leaves T unset.
    @inlinable
    public init(current: LoginStage, next: LoginStage?, continues: Bool = false) {
        rawValue = current.rawValue << 2 | (continues ? 0x40 : 0)
        if let next { rawValue |= 0x80 | next.rawValue }
    }

    /// T
    @inlinable public var isTransit: Bool { rawValue & 0x80 != 0 }
    /// C: the text goes on in the next PDU.
    @inlinable public var continues: Bool { rawValue & 0x40 != 0 }
    /// CSG; nil where the peer sent the unused value.
    @inlinable public var currentStage: LoginStage? { LoginStage(rawValue: rawValue >> 2 & 3) }
    /// NSG, meaningful only with T; nil where the peer sent the unused value.
    @inlinable public var nextStage: LoginStage? { LoginStage(rawValue: rawValue & 3) }
}

/// F and C of a Text Request or Response (RFC 7143 sections 11.10.1, 11.10.2, 11.11.1, 11.11.2).
@frozen
public struct TextFlags: OptionSet, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable public static var final: TextFlags { .init(rawValue: 0x80) }
    @inlinable public static var continues: TextFlags { .init(rawValue: 0x40) }
}

/// Why an initiator logs out (RFC 7143 section 11.14.1).
@frozen
public enum LogoutReason: UInt8, Hashable, Sendable, CaseIterable {
    case closeSession = 0
    case closeConnection = 1
    case removeConnectionForRecovery = 2
}

/// The answer to a logout (RFC 7143 section 11.15.1). An open set.
@frozen
public struct LogoutResponse: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable public static var closed: LogoutResponse { .init(rawValue: 0) }
    @inlinable public static var connectionIDNotFound: LogoutResponse { .init(rawValue: 1) }
    @inlinable public static var recoveryNotSupported: LogoutResponse { .init(rawValue: 2) }
    @inlinable public static var cleanupFailed: LogoutResponse { .init(rawValue: 3) }
}

/// FUNCTION of a Task Management Request (RFC 7143 section 11.5.1).
@frozen
public enum TaskManagementFunction: UInt8, Hashable, Sendable, CaseIterable {
    case abortTask = 1
    case abortTaskSet = 2
    case clearACA = 3
    case clearTaskSet = 4
    case logicalUnitReset = 5
    case targetWarmReset = 6
    case targetColdReset = 7
    case taskReassign = 8
}

/// RESPONSE of a Task Management Response (RFC 7143 section 11.6.1). An open set.
@frozen
public struct TaskManagementResponse: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable public static var functionComplete: TaskManagementResponse { .init(rawValue: 0) }
    @inlinable public static var taskDoesNotExist: TaskManagementResponse { .init(rawValue: 1) }
    @inlinable public static var lunDoesNotExist: TaskManagementResponse { .init(rawValue: 2) }
    @inlinable public static var taskStillAllegiant: TaskManagementResponse { .init(rawValue: 3) }
    @inlinable public static var reassignmentNotSupported: TaskManagementResponse { .init(rawValue: 4) }
    @inlinable public static var notSupported: TaskManagementResponse { .init(rawValue: 5) }
    @inlinable public static var authorizationFailed: TaskManagementResponse { .init(rawValue: 6) }
    @inlinable public static var rejected: TaskManagementResponse { .init(rawValue: 255) }
}

/// TYPE of a SNACK Request (RFC 7143 section 11.16.1).
@frozen
public enum SNACKType: UInt8, Hashable, Sendable, CaseIterable {
    /// Data-In or R2T PDUs of a task are to be sent again.
    case dataOrR2T = 0
    case status = 1
    case dataACK = 2
    /// Data-In of a task again, re-segmented to the present MaxRecvDataSegmentLength.
    case rData = 3
}

/// AsyncEvent of an Asynchronous Message (RFC 7143 section 11.9.1). An open set.
@frozen
public struct AsyncEvent: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Sense data is in the data segment.
    @inlinable public static var scsiEvent: AsyncEvent { .init(rawValue: 0) }
    /// Log out within Parameter3 seconds.
    @inlinable public static var logoutRequest: AsyncEvent { .init(rawValue: 1) }
    /// The connection that Parameter1 names will be or was dropped.
    @inlinable public static var connectionDrop: AsyncEvent { .init(rawValue: 2) }
    /// All connections of the session will be dropped.
    @inlinable public static var sessionDrop: AsyncEvent { .init(rawValue: 3) }
    /// Renegotiate by text within Parameter3 seconds.
    @inlinable public static var renegotiate: AsyncEvent { .init(rawValue: 4) }
    /// All tasks of the LU were terminated (RFC 7144); its data segment says which.
    @inlinable public static var taskTermination: AsyncEvent { .init(rawValue: 5) }
    @inlinable public static var vendorSpecific: AsyncEvent { .init(rawValue: 255) }
}

/// Why a PDU was rejected (RFC 7143 section 11.17.1). An open set.
@frozen
public struct RejectReason: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The original PDU may be sent again.
    @inlinable public static var dataDigestError: RejectReason { .init(rawValue: 0x02) }
    @inlinable public static var snackReject: RejectReason { .init(rawValue: 0x03) }
    @inlinable public static var protocolError: RejectReason { .init(rawValue: 0x04) }
    @inlinable public static var commandNotSupported: RejectReason { .init(rawValue: 0x05) }
    @inlinable public static var immediateCommandReject: RejectReason { .init(rawValue: 0x06) }
    @inlinable public static var taskInProgress: RejectReason { .init(rawValue: 0x07) }
    @inlinable public static var invalidDataACK: RejectReason { .init(rawValue: 0x08) }
    @inlinable public static var invalidPDUField: RejectReason { .init(rawValue: 0x09) }
    @inlinable public static var longOperationReject: RejectReason { .init(rawValue: 0x0A) }
    @inlinable public static var waitingForLogout: RejectReason { .init(rawValue: 0x0C) }
}

extension SCSIServiceResponse: CustomStringConvertible {
    public var description: String {
        switch self {
        case .completed: "command completed at target"
        case .targetFailure: "target failure"
        default: "response 0x" + String(rawValue, radix: 16)
        }
    }
}

extension LogoutResponse: CustomStringConvertible {
    public var description: String {
        switch self {
        case .closed: "closed"
        case .connectionIDNotFound: "connection ID not found"
        case .recoveryNotSupported: "connection recovery not supported"
        case .cleanupFailed: "cleanup failed"
        default: "logout response 0x" + String(rawValue, radix: 16)
        }
    }
}

extension TaskManagementResponse: CustomStringConvertible {
    public var description: String {
        switch self {
        case .functionComplete: "function complete"
        case .taskDoesNotExist: "task does not exist"
        case .lunDoesNotExist: "LUN does not exist"
        case .taskStillAllegiant: "task still allegiant"
        case .reassignmentNotSupported: "task reassignment not supported"
        case .notSupported: "function not supported"
        case .authorizationFailed: "function authorization failed"
        case .rejected: "function rejected"
        default: "task management response 0x" + String(rawValue, radix: 16)
        }
    }
}

extension AsyncEvent: CustomStringConvertible {
    public var description: String {
        switch self {
        case .scsiEvent: "SCSI asynchronous event"
        case .logoutRequest: "target requests logout"
        case .connectionDrop: "target drops the connection"
        case .sessionDrop: "target drops the session"
        case .renegotiate: "target requests parameter negotiation"
        case .taskTermination: "target terminated the LU's tasks"
        case .vendorSpecific: "vendor specific event"
        default: "asynchronous event 0x" + String(rawValue, radix: 16)
        }
    }
}

extension RejectReason: CustomStringConvertible {
    public var description: String {
        switch self {
        case .dataDigestError: "data digest error"
        case .snackReject: "SNACK reject"
        case .protocolError: "protocol error"
        case .commandNotSupported: "command not supported"
        case .immediateCommandReject: "too many immediate commands"
        case .taskInProgress: "task in progress"
        case .invalidDataACK: "invalid DataACK"
        case .invalidPDUField: "invalid PDU field"
        case .longOperationReject: "cannot generate target transfer tag"
        case .waitingForLogout: "waiting for logout"
        default: "reject reason 0x" + String(rawValue, radix: 16)
        }
    }
}

extension PDUOpcode: CustomStringConvertible {
    public var description: String {
        switch self {
        case .nopOut: "NOP-Out"
        case .scsiCommand: "SCSI Command"
        case .taskManagementRequest: "Task Management Request"
        case .loginRequest: "Login Request"
        case .textRequest: "Text Request"
        case .dataOut: "SCSI Data-Out"
        case .logoutRequest: "Logout Request"
        case .snackRequest: "SNACK Request"
        case .nopIn: "NOP-In"
        case .scsiResponse: "SCSI Response"
        case .taskManagementResponse: "Task Management Response"
        case .loginResponse: "Login Response"
        case .textResponse: "Text Response"
        case .dataIn: "SCSI Data-In"
        case .logoutResponse: "Logout Response"
        case .readyToTransfer: "R2T"
        case .asyncMessage: "Asynchronous Message"
        case .reject: "Reject"
        default: "opcode 0x" + String(rawValue, radix: 16)
        }
    }
}
