public import SCSI

/// StatSN, ExpCmdSN and MaxCmdSN, which almost every PDU of a target carries (RFC 7143 section 4.2.2).
@frozen
public struct ResponseNumbers: Hashable, Sendable {
    public var statSN: UInt32
    public var expCmdSN: UInt32
    public var maxCmdSN: UInt32

    @inlinable
    public init(statSN: UInt32, expCmdSN: UInt32, maxCmdSN: UInt32) {
        self.statSN = statSN
        self.expCmdSN = expCmdSN
        self.maxCmdSN = maxCmdSN
    }
}

/// Residual of a finished command, in bytes (RFC 7143 section 11.4.5): how far the command's data and
/// the initiator's expectation were apart.
@frozen
public enum Residual: Hashable, Sendable {
    case none
    /// The command had this many bytes more than the initiator expected.
    case overflow(UInt32)
    /// This many bytes of what the initiator expected were not transferred.
    case underflow(UInt32)
}

// Constructors of the target's PDUs (RFC 7143 sections 11.4, 11.6 to 11.9, 11.11, 11.13, 11.15, 11.17, 11.19).
extension BasicHeaderSegment {
    /// `dataByteCount` counts the two bytes of SenseLength before the sense data.
    @inlinable
    public static func scsiResponse(
        tag: UInt32, response: SCSIServiceResponse = .completed, status: SCSIStatus, residual: Residual = .none,
        expDataSN: UInt32 = 0, snackTag: UInt32 = 0, dataByteCount: Int = 0, numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .scsiResponse)
        header.flags = 0x80
        header.residual = residual
        header.serviceResponse = response
        header.status = status
        header.dataSegmentByteCount = dataByteCount
        header.initiatorTaskTag = tag
        header.snackTag = snackTag
        header.numbers = numbers
        header.expDataSN = expDataSN
        return header
    }

    /// A Data-In without status: StatSN is reserved, so `numbers.statSN` is not sent.
    @inlinable
    public static func dataIn(
        tag: UInt32, flags: DataInFlags, dataSN: UInt32, bufferOffset: UInt32, byteCount: Int,
        lun: LogicalUnitNumber = LogicalUnitNumber(rawValue: 0), targetTransferTag: UInt32 = reservedTag,
        numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .dataIn)
        header.dataInFlags = flags.subtracting([.status, .overflow, .underflow])
        header.dataSegmentByteCount = byteCount
        header.lun = lun
        header.initiatorTaskTag = tag
        header.targetTransferTag = targetTransferTag
        header.numbers = numbers
        header.statSN = 0
        header.dataSN = dataSN
        header.bufferOffset = bufferOffset
        return header
    }

    /// The last Data-In of a command, with the command's status collapsed into it; never CHECK CONDITION,
    /// since sense data has no room (section 11.7.4).
    @inlinable
    public static func dataIn(
        tag: UInt32, status: SCSIStatus, residual: Residual = .none, dataSN: UInt32, bufferOffset: UInt32,
        byteCount: Int, lun: LogicalUnitNumber = LogicalUnitNumber(rawValue: 0), numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .dataIn)
        header.dataInFlags = [.final, .status]
        header.residual = residual
        header.status = status
        header.dataSegmentByteCount = byteCount
        header.lun = lun
        header.initiatorTaskTag = tag
        header.targetTransferTag = reservedTag
        header.numbers = numbers
        header.dataSN = dataSN
        header.bufferOffset = bufferOffset
        return header
    }

    /// `numbers.statSN` is the next StatSN; an R2T does not use it up (section 11.8).
    @inlinable
    public static func readyToTransfer(
        lun: LogicalUnitNumber, tag: UInt32, targetTransferTag: UInt32, r2tSN: UInt32, bufferOffset: UInt32,
        desiredDataTransferByteCount: UInt32, numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .readyToTransfer)
        header.isFinal = true
        header.lun = lun
        header.initiatorTaskTag = tag
        header.targetTransferTag = targetTransferTag
        header.numbers = numbers
        header.r2tSN = r2tSN
        header.bufferOffset = bufferOffset
        header.desiredDataTransferByteCount = desiredDataTransferByteCount
        return header
    }

    /// An answer to a NOP-Out repeats its tag and uses a StatSN; a ping of the target's own has a
    /// reserved `tag` and a `targetTransferTag`, and carries the next StatSN without using it up.
    @inlinable
    public static func nopIn(
        lun: LogicalUnitNumber = LogicalUnitNumber(rawValue: 0), tag: UInt32 = reservedTag,
        targetTransferTag: UInt32 = reservedTag, dataByteCount: Int = 0, numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .nopIn)
        header.isFinal = true
        header.dataSegmentByteCount = dataByteCount
        header.lun = lun
        header.initiatorTaskTag = tag
        header.targetTransferTag = targetTransferTag
        header.numbers = numbers
        return header
    }

    public static func loginResponse(
        _ flags: LoginFlags, status: LoginStatus = .success, isid: ISID, tsih: UInt16, tag: UInt32,
        dataByteCount: Int = 0, numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .loginResponse)
        header.loginFlags = flags
        header.dataSegmentByteCount = dataByteCount
        header.isid = isid
        header.tsih = tsih
        header.initiatorTaskTag = tag
        header.numbers = numbers
        header.loginStatus = status
        return header
    }

    /// `targetTransferTag` is reserved in the last response of an exchange.
    public static func textResponse(
        _ flags: TextFlags, lun: LogicalUnitNumber = LogicalUnitNumber(rawValue: 0), tag: UInt32,
        targetTransferTag: UInt32 = reservedTag, dataByteCount: Int = 0, numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .textResponse)
        header.textFlags = flags
        header.dataSegmentByteCount = dataByteCount
        header.lun = lun
        header.initiatorTaskTag = tag
        header.targetTransferTag = targetTransferTag
        header.numbers = numbers
        return header
    }

    /// Times in seconds.
    public static func logoutResponse(
        _ response: LogoutResponse, tag: UInt32, time2Wait: UInt16 = 0, time2Retain: UInt16 = 0,
        numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .logoutResponse)
        header.isFinal = true
        header.logoutResponse = response
        header.initiatorTaskTag = tag
        header.numbers = numbers
        header.time2Wait = time2Wait
        header.time2Retain = time2Retain
        return header
    }

    public static func taskManagementResponse(
        _ response: TaskManagementResponse, tag: UInt32, numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .taskManagementResponse)
        header.isFinal = true
        header.taskManagementResponse = response
        header.initiatorTaskTag = tag
        header.numbers = numbers
        return header
    }

    /// `.scsiEvent` and `.tasksTerminated` name their LUN; sense data goes into the data segment.
    public static func asyncMessage(
        _ message: AsyncMessage, dataByteCount: Int = 0, numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .asyncMessage)
        header.isFinal = true
        header.dataSegmentByteCount = dataByteCount
        header.initiatorTaskTag = reservedTag
        header.numbers = numbers
        switch message {
        case .scsiEvent(let lun):
            header.asyncEvent = .scsiEvent
            header.lun = lun
        case .logoutRequested(let seconds):
            header.asyncEvent = .logoutRequest
            header.asyncParameter3 = seconds
        case .connectionDrops(let connectionID, let time2Wait, let time2Retain):
            header.asyncEvent = .connectionDrop
            header.asyncParameter1 = connectionID
            header.asyncParameter2 = time2Wait
            header.asyncParameter3 = time2Retain
        case .sessionDrops(let time2Wait, let time2Retain):
            header.asyncEvent = .sessionDrop
            header.asyncParameter2 = time2Wait
            header.asyncParameter3 = time2Retain
        case .negotiationRequested(let seconds):
            header.asyncEvent = .renegotiate
            header.asyncParameter3 = seconds
        case .tasksTerminated(let lun):
            header.asyncEvent = .taskTermination
            header.lun = lun
        case .vendorSpecific(let code):
            header.asyncEvent = .vendorSpecific
            header.asyncVendorCode = code
        case .unknown(let event):
            header.asyncEvent = event
        }
        return header
    }

    /// The data segment is the rejected PDU's header, `dataByteCount` bytes of it (48 and its AHS).
    public static func reject(
        _ reason: RejectReason, dataSN: UInt32 = 0, dataByteCount: Int = 48, numbers: ResponseNumbers
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .reject)
        header.isFinal = true
        header.rejectReason = reason
        header.dataSegmentByteCount = dataByteCount
        header.initiatorTaskTag = reservedTag
        header.numbers = numbers
        header.dataSN = dataSN
        return header
    }

    /// StatSN, ExpCmdSN and MaxCmdSN of a target's PDU.
    @inlinable public var numbers: ResponseNumbers {
        get { ResponseNumbers(statSN: statSN, expCmdSN: expCmdSN, maxCmdSN: maxCmdSN) }
        set {
            statSN = newValue.statSN
            expCmdSN = newValue.expCmdSN
            maxCmdSN = newValue.maxCmdSN
        }
    }

    /// O, U and Residual Count of a SCSI Response or a Data-In with status. A peer that sets both bits
    /// is read as overflow.
    @inlinable public var residual: Residual {
        get {
            if flags & 0x04 != 0 { return .overflow(residualCount) }
            if flags & 0x02 != 0 { return .underflow(residualCount) }
            return .none
        }
        set {
            flags &= ~0x06
            switch newValue {
            case .none:
                residualCount = 0
            case .overflow(let count):
                flags |= 0x04
                residualCount = count
            case .underflow(let count):
                flags |= 0x02
                residualCount = count
            }
        }
    }
}
