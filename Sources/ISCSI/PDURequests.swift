public import SCSI

// Constructors of the initiator's PDUs (RFC 7143 sections 11.3, 11.5, 11.7, 11.10, 11.12, 11.14, 11.16, 11.18).
extension BasicHeaderSegment {
    /// `immediateDataByteCount` bytes of data follow in the same PDU; `flags` needs `.final` where no
    /// unsolicited Data-Out follows.
    @inlinable
    public static func scsiCommand(
        _ cdb: CommandDescriptorBlock, lun: LogicalUnitNumber, tag: UInt32, flags: SCSICommandFlags,
        attribute: TaskAttribute = .simple, expectedDataTransferByteCount: UInt32 = 0,
        immediateDataByteCount: Int = 0, cmdSN: UInt32, expStatSN: UInt32, isImmediate: Bool = false
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .scsiCommand, isImmediate: isImmediate)
        header.flags = flags.rawValue & 0xE0 | attribute.rawValue
        header.dataSegmentByteCount = immediateDataByteCount
        header.lun = lun
        header.initiatorTaskTag = tag
        header.expectedDataTransferByteCount = expectedDataTransferByteCount
        header.cmdSN = cmdSN
        header.expStatSN = expStatSN
        header.cdbBytes = cdb.bytes
        return header
    }

    /// `targetTransferTag` is ``reservedTag`` for unsolicited data and the R2T's otherwise.
    @inlinable
    public static func dataOut(
        lun: LogicalUnitNumber, tag: UInt32, targetTransferTag: UInt32 = reservedTag, isFinal: Bool,
        dataSN: UInt32, bufferOffset: UInt32, byteCount: Int, expStatSN: UInt32
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .dataOut)
        header.isFinal = isFinal
        header.dataSegmentByteCount = byteCount
        header.lun = lun
        header.initiatorTaskTag = tag
        header.targetTransferTag = targetTransferTag
        header.expStatSN = expStatSN
        header.dataSN = dataSN
        header.bufferOffset = bufferOffset
        return header
    }

    /// A ping: `tag` is valid and `targetTransferTag` reserved. An answer to the target's ping: `tag`
    /// reserved, immediate, the target's LUN and tag. Neither: only confirms ExpStatSN.
    @inlinable
    public static func nopOut(
        lun: LogicalUnitNumber = LogicalUnitNumber(rawValue: 0), tag: UInt32 = reservedTag,
        targetTransferTag: UInt32 = reservedTag, dataByteCount: Int = 0, cmdSN: UInt32, expStatSN: UInt32,
        isImmediate: Bool = true
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .nopOut, isImmediate: isImmediate)
        header.isFinal = true
        header.dataSegmentByteCount = dataByteCount
        header.lun = lun
        header.initiatorTaskTag = tag
        header.targetTransferTag = targetTransferTag
        header.cmdSN = cmdSN
        header.expStatSN = expStatSN
        return header
    }

    /// Always immediate (section 11.12); both versions are 0, the only one there is.
    public static func loginRequest(
        _ flags: LoginFlags, isid: ISID, tsih: UInt16, connectionID: UInt16, tag: UInt32, cmdSN: UInt32,
        expStatSN: UInt32, dataByteCount: Int = 0
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .loginRequest, isImmediate: true)
        header.loginFlags = flags
        header.dataSegmentByteCount = dataByteCount
        header.isid = isid
        header.tsih = tsih
        header.initiatorTaskTag = tag
        header.connectionID = connectionID
        header.cmdSN = cmdSN
        header.expStatSN = expStatSN
        return header
    }

    /// `targetTransferTag` is reserved in the first request of an exchange and the target's afterwards.
    public static func textRequest(
        _ flags: TextFlags, lun: LogicalUnitNumber = LogicalUnitNumber(rawValue: 0), tag: UInt32,
        targetTransferTag: UInt32 = reservedTag, cmdSN: UInt32, expStatSN: UInt32, dataByteCount: Int = 0,
        isImmediate: Bool = false
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .textRequest, isImmediate: isImmediate)
        header.textFlags = flags
        header.dataSegmentByteCount = dataByteCount
        header.lun = lun
        header.initiatorTaskTag = tag
        header.targetTransferTag = targetTransferTag
        header.cmdSN = cmdSN
        header.expStatSN = expStatSN
        return header
    }

    /// `connectionID` is ignored by the target where the reason is to close the session.
    public static func logoutRequest(
        _ reason: LogoutReason, connectionID: UInt16, tag: UInt32, cmdSN: UInt32, expStatSN: UInt32,
        isImmediate: Bool = true
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .logoutRequest, isImmediate: isImmediate)
        header.flags = 0x80 | reason.rawValue
        header.initiatorTaskTag = tag
        header.connectionID = connectionID
        header.cmdSN = cmdSN
        header.expStatSN = expStatSN
        return header
    }

    /// `referencedTaskTag` and `refCmdSN` name the task for ABORT TASK and TASK REASSIGN;
    /// `expDataSN` is for TASK REASSIGN.
    public static func taskManagementRequest(
        _ function: TaskManagementFunction, lun: LogicalUnitNumber, tag: UInt32,
        referencedTaskTag: UInt32 = reservedTag, refCmdSN: UInt32 = 0, expDataSN: UInt32 = 0, cmdSN: UInt32,
        expStatSN: UInt32, isImmediate: Bool = true
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .taskManagementRequest, isImmediate: isImmediate)
        header.flags = 0x80 | function.rawValue
        header.lun = lun
        header.initiatorTaskTag = tag
        header.referencedTaskTag = referencedTaskTag
        header.cmdSN = cmdSN
        header.expStatSN = expStatSN
        header.refCmdSN = refCmdSN
        header.expDataSN = expDataSN
        return header
    }

    /// `targetTransferTag` is the Data-In's for DataACK and the SNACK Tag for R-Data.
    public static func snack(
        _ type: SNACKType, lun: LogicalUnitNumber = LogicalUnitNumber(rawValue: 0), tag: UInt32 = reservedTag,
        targetTransferTag: UInt32 = reservedTag, begRun: UInt32, runLength: UInt32, expStatSN: UInt32
    ) -> BasicHeaderSegment {
        var header = BasicHeaderSegment(opcode: .snackRequest)
        header.flags = 0x80 | type.rawValue
        header.lun = lun
        header.initiatorTaskTag = tag
        header.targetTransferTag = targetTransferTag
        header.expStatSN = expStatSN
        header.begRun = begRun
        header.runLength = runLength
        return header
    }

    @inlinable
    init(opcode: PDUOpcode, isImmediate: Bool = false) {
        self.init()
        self[byte: 0] = opcode.rawValue | (isImmediate ? 0x40 : 0)
    }
}
