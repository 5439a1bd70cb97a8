/// A command as a device server sees it: what its CDB asks, checked as far as the CDB alone allows. Whether
/// blocks exist, and whether the device serves the command at all, is the device server's to say.
public enum SCSICommand: Hashable, Sendable {
    /// TEST UNIT READY.
    case testUnitReady
    /// REQUEST SENSE.
    case requestSense(SenseFormat, allocationByteCount: UInt8)
    /// Standard data where the page is nil.
    case inquiry(page: VPDPage?, allocationByteCount: UInt16)
    /// REPORT LUNS.
    case reportLUNs(LUNReportSelection, allocationByteCount: UInt32)
    /// READ CAPACITY (10).
    case readCapacity10
    /// READ CAPACITY (16).
    case readCapacity16(allocationByteCount: UInt32)

    /// READ (6), (10), (12) and (16).
    case read(BlockRange, TransferOptions)
    /// WRITE (6), (10), (12) and (16).
    case write(BlockRange, TransferOptions)
    /// WRITE AND VERIFY (10), (12) and (16).
    case writeAndVerify(BlockRange, TransferOptions, VerifyMode)
    /// VERIFY (10), (12) and (16).
    case verify(BlockRange, TransferOptions, VerifyMode)
    /// A count of 0: up to the last block.
    case synchronizeCache(BlockRange, isImmediate: Bool)
    /// A count of 0: up to the last block.
    case preFetch(BlockRange, isImmediate: Bool)
    /// At most 255 blocks; the buffer has twice as many.
    case compareAndWrite(BlockRange, TransferOptions)
    /// ORWRITE (16).
    case orWrite(BlockRange, TransferOptions)
    /// All of the blocks or none; a boundary of 0: none is asked for.
    case writeAtomic(BlockRange, TransferOptions, boundaryBlockCount: UInt16)

    /// UNMAP; its ranges are in the parameter list.
    case unmap(anchor: Bool, parameterByteCount: UInt16)
    /// A count of 0: up to the last block.
    case writeSame(BlockRange, WriteSameOptions)
    /// GET LBA STATUS.
    case getLBAStatus(startingLBA: UInt64, allocationByteCount: UInt32)

    /// MODE SENSE (6) and (10).
    case modeSense(ModeSenseRequest)
    /// MODE SELECT (6) and (10).
    case modeSelect(ModeSelectRequest)
    /// START STOP UNIT.
    case startStopUnit(StartStopRequest)
    /// PREVENT ALLOW MEDIUM REMOVAL.
    case preventAllowMediumRemoval(MediumRemoval)
    /// READ DEFECT DATA (10) and (12).
    case readDefectData(DefectDataRequest)

    /// RESERVE (6) and (10), of the whole unit.
    case reserve
    /// RELEASE (6) and (10), of the whole unit.
    case release
    /// PERSISTENT RESERVE IN.
    case persistentReserveIn(PersistentReserveInAction, allocationByteCount: UInt16)
    /// PERSISTENT RESERVE OUT.
    case persistentReserveOut(PersistentReserveOutAction, ReservationType, parameterByteCount: UInt32)

    /// REPORT TARGET PORT GROUPS.
    case reportTargetPortGroups(extendedHeader: Bool, allocationByteCount: UInt32)
    /// SET TARGET PORT GROUPS.
    case setTargetPortGroups(parameterByteCount: UInt32)
    /// REPORT SUPPORTED OPERATION CODES.
    case reportSupportedOperationCodes(OperationQuery, withTimeouts: Bool, allocationByteCount: UInt32)
}

/// What READ DEFECT DATA asks (SBC-3 clauses 5.17 and 5.18).
public struct DefectDataRequest: Hashable, Sendable {
    /// The 12-byte command, whose answer has an 8-byte header rather than a 4-byte one.
    public var isTwelve: Bool
    /// PLIST: the defects that the unit was made with.
    public var primaryList: Bool
    /// GLIST: those that came since.
    public var grownList: Bool
    /// DEFECT LIST FORMAT, 0…7.
    public var format: UInt8
    /// How many bytes the answer may have.
    public var allocationByteCount: UInt32

    /// A question for defects.
    public init(isTwelve: Bool, primaryList: Bool, grownList: Bool, format: UInt8, allocationByteCount: UInt32) {
        self.isTwelve = isTwelve
        self.primaryList = primaryList
        self.grownList = grownList
        self.format = format & 0x07
        self.allocationByteCount = allocationByteCount
    }

    /// The answer of a device without defects.
    public func encodeEmptyList() -> [UInt8] {
        let flags: UInt8 = (primaryList ? 0x10 : 0) | (grownList ? 0x08 : 0) | format
        return [0, flags] + [UInt8](repeating: 0, count: isTwelve ? 6 : 2)
    }
}

/// The data phase of a command.
public enum DataTransfer: Hashable, Sendable {
    /// No data.
    case none
    /// To the initiator, at most this many bytes.
    case dataIn(byteCount: UInt64)
    /// From the initiator, exactly this many bytes.
    case dataOut(byteCount: UInt64)
}

extension SCSICommand {
    /// The blocks that the CDB itself names; nil for commands that name none there (UNMAP names them in its
    /// parameter list).
    public var blockRange: BlockRange? {
        switch self {
        case .read(let range, _), .write(let range, _), .writeAndVerify(let range, _, _), .verify(let range, _, _),
            .synchronizeCache(let range, _), .preFetch(let range, _), .compareAndWrite(let range, _),
            .orWrite(let range, _), .writeAtomic(let range, _, _), .writeSame(let range, _):
            range
        default: nil
        }
    }

    /// The data phase that the CDB asks for on a medium with blocks of `blockSize` bytes.
    public func transfer(blockSize: UInt32) -> DataTransfer {
        let size = UInt64(blockSize)
        return switch self {
        case .read(let range, _): Self.input(UInt64(range.blockCount) * size)
        case .write(let range, _), .writeAndVerify(let range, _, _), .orWrite(let range, _),
            .writeAtomic(let range, _, _):
            Self.output(UInt64(range.blockCount) * size)
        case .verify(let range, _, let mode): Self.output(mode.compareBlockCount(range) * size)
        case .compareAndWrite(let range, _): Self.output(2 * UInt64(range.blockCount) * size)
        case .writeSame(_, let options): Self.output(options.contains(.noDataOut) ? 0 : size)
        default: parameterTransfer
        }
    }

    private var parameterTransfer: DataTransfer {
        switch self {
        case .requestSense(_, let count): Self.input(UInt64(count))
        case .inquiry(_, let count), .persistentReserveIn(_, let count): Self.input(UInt64(count))
        case .reportLUNs(_, let count), .readCapacity16(let count), .getLBAStatus(_, let count),
            .reportTargetPortGroups(_, let count), .reportSupportedOperationCodes(_, _, let count):
            Self.input(UInt64(count))
        case .readCapacity10: .dataIn(byteCount: 8)
        case .modeSense(let request): Self.input(UInt64(request.allocationByteCount))
        case .readDefectData(let request): Self.input(UInt64(request.allocationByteCount))
        case .modeSelect(let request): Self.output(UInt64(request.parameterByteCount))
        case .unmap(_, let count): Self.output(UInt64(count))
        case .persistentReserveOut(_, _, let count), .setTargetPortGroups(let count): Self.output(UInt64(count))
        default: .none
        }
    }

    private static func input(_ byteCount: UInt64) -> DataTransfer {
        byteCount == 0 ? .none : .dataIn(byteCount: byteCount)
    }

    private static func output(_ byteCount: UInt64) -> DataTransfer {
        byteCount == 0 ? .none : .dataOut(byteCount: byteCount)
    }
}

extension VerifyMode {
    /// How many blocks the Data-Out buffer of a VERIFY has.
    fileprivate func compareBlockCount(_ range: BlockRange) -> UInt64 {
        switch self {
        case .mediumOnly: 0
        case .compareEach: UInt64(range.blockCount)
        case .compareWithOne: min(1, UInt64(range.blockCount))
        }
    }
}

extension BlockRange {
    /// Throws LOGICAL BLOCK ADDRESS OUT OF RANGE, with the first block that is not there, where the range
    /// does not lie on a medium of `capacity` blocks.
    public func requireFit(capacity: UInt64) throws(IllegalRequest) {
        guard fits(capacity: capacity) else { throw .lbaOutOfRange(max(lba, capacity)) }
    }
}
