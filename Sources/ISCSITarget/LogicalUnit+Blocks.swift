import ISCSI
import SCSI

/// The blocks that a CDB names and the flags of its second byte.
struct BlockFields {
    var lba: UInt64
    var count: UInt64
    var flags: UInt8

    init(_ cdb: CommandDescriptorBlock) {
        switch cdb.operationCode >> 5 {
        case 0:
            lba = cdb.field(at: 1, width: 3) & 0x1F_FFFF
            count = cdb.bytes[4] == 0 ? 256 : UInt64(cdb.bytes[4])
            flags = 0
        case 5:
            lba = cdb.field(at: 2, width: 4)
            count = cdb.field(at: 6, width: 4)
            flags = cdb.bytes[1]
        case 4 where cdb.operationCode == OperationCode.writeAtomic16:
            lba = cdb.field(at: 2, width: 8)
            count = cdb.field(at: 12, width: 2)
            flags = cdb.bytes[1]
        case 4:
            lba = cdb.field(at: 2, width: 8)
            count = cdb.field(at: 10, width: 4)
            flags = cdb.bytes[1]
        default:
            lba = cdb.field(at: 2, width: 4)
            count = cdb.field(at: 7, width: 2)
            flags = cdb.bytes[1]
        }
    }

    /// RDPROTECT, WRPROTECT, VRPROTECT, ORPROTECT: the unit is formatted without protection information.
    var wantsProtection: Bool { flags & 0xE0 != 0 }
    var forcesUnitAccess: Bool { flags & 0x08 != 0 }
    var byteCheck: UInt8 { flags >> 1 & 3 }
}

// SBC-3 clause 5. Ranges are checked before anything else is done with them.
extension LogicalUnit {
    private func refusal(_ fields: BlockFields, isLimited: Bool = true) -> SenseData? {
        if isStopped { return SenseData(key: .notReady, additional: AdditionalSense(0x04, 0x02)) }
        if fields.wantsProtection { return .badCDBField }
        guard fields.lba <= blockCount, fields.count <= blockCount - fields.lba else { return .blockOutOfRange }
        // An empty range must still begin at a block that exists.
        if fields.lba == blockCount { return .blockOutOfRange }
        if isLimited, fields.count * UInt64(blockSize) > UInt64(Self.maximumTransferByteCount) { return .badCDBField }
        return nil
    }

    private var writeRefusal: SenseData? {
        if configuration.isReadOnly { return .writeProtected }
        return modes.isWriteProtected ? .softwareWriteProtected : nil
    }

    private func begin(
        _ command: DeviceCommand, _ kind: OperationKind, _ fields: BlockFields, buffer: TargetBuffer = .none
    ) -> Operation {
        Operation(
            command: command, kind: kind, offset: fields.lba * UInt64(blockSize),
            byteCount: fields.count * UInt64(blockSize), buffer: buffer)
    }

    private func start(_ operation: Operation) { drive(operations.insert(operation)) }

    func read(_ command: DeviceCommand) {
        let fields = BlockFields(command.cdb)
        if let sense = refusal(fields) { return finish(command, .check(sense)) }
        let byteCount = Int(fields.count) * blockSize
        guard byteCount > 0 else { return finish(command, .status(.good)) }
        if let lent = backend.lend(offset: fields.lba * UInt64(blockSize), byteCount: byteCount) {
            var result = DeviceResult.status(.good)
            result.data = UnsafeRawBufferPointer(start: lent, count: byteCount)
            return finish(command, result)
        }
        guard let buffer = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
        start(begin(command, .read, fields, buffer: buffer))
    }

    /// WRITE and WRITE AND VERIFY: the backend's own word that the data arrived is the verification.
    func write(_ command: DeviceCommand) {
        let fields = BlockFields(command.cdb)
        if let sense = refusal(fields) ?? writeRefusal { return finish(command, .check(sense)) }
        let byteCount = Int(fields.count) * blockSize
        guard byteCount > 0 else { return finish(command, .status(.good)) }
        // Fewer bytes than the CDB names: the initiator expects a shorter transfer, which ends in a
        // residual overflow; whole blocks of it are written.
        let whole = min(byteCount, command.dataOut.count) / blockSize * blockSize
        guard whole > 0 else { return finish(command, .status(.good, dataOutByteCount: byteCount)) }
        var operation = begin(command, .write, fields)
        operation.byteCount = UInt64(whole)
        operation.synchronizes = fields.forcesUnitAccess
        start(operation)
    }

    /// Only where the backend writes at once, so that nothing can come between (SBC-4 clause 5.49).
    func writeAtomic(_ command: DeviceCommand) {
        guard maximumAtomicBlocks > 0 else { return finish(command, .check(.unsupportedOperationCode)) }
        // Without a boundary; a part of the blocks is no atomic write.
        let fields = BlockFields(command.cdb)
        if let sense = refusal(fields) { return finish(command, .check(sense)) }
        let count = fields.count
        guard command.cdb.field(at: 10, width: 2) == 0, count <= UInt64(maximumAtomicBlocks),
            command.dataOut.count >= Int(count) * blockSize
        else { return finish(command, .check(.badCDBField)) }
        write(command)
    }

    var maximumAtomicBlocks: UInt32 {
        if case .file = configuration.storage { return 0 }
        return UInt32((1 << 20) / blockSize)
    }

    func verify(_ command: DeviceCommand) {
        var fields = BlockFields(command.cdb)
        fields.flags &= ~0x08
        if let sense = refusal(fields) { return finish(command, .check(sense)) }
        let byteCount = Int(fields.count) * blockSize
        guard byteCount > 0, fields.byteCheck != 0 else { return finish(command, .status(.good)) }
        guard fields.byteCheck != 2 else { return finish(command, .check(.badCDBField)) }
        guard command.dataOut.count >= (fields.byteCheck == 3 ? blockSize : byteCount) else {
            return finish(command, .check(.badCDBField))
        }
        guard let buffer = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
        start(begin(command, .compare, fields, buffer: buffer))
    }

    func prefetch(_ command: DeviceCommand) {
        let fields = BlockFields(command.cdb)
        if let sense = refusal(fields, isLimited: false) { return finish(command, .check(sense)) }
        // There is no cache of its own to fill: whatever is asked for fits (SBC-3 clause 5.9).
        finish(command, .status(.conditionMet))
    }

    func synchronizeCache(_ command: DeviceCommand) {
        var fields = BlockFields(command.cdb)
        fields.flags = 0
        if let sense = refusal(fields, isLimited: false) { return finish(command, .check(sense)) }
        start(begin(command, .synchronize, fields))
    }

    // MARK: WRITE SAME, UNMAP

    /// Blocks of one WRITE SAME; the block limits page says so.
    var maximumWriteSameBlocks: UInt64 { UInt64(Self.maximumTransferByteCount / blockSize) }
    static let maximumUnmapDescriptors = 256
    private static let patternByteCount = 256 << 10

    func writeSame(_ command: DeviceCommand) {
        let hasNoData = command.cdb.operationCode == OperationCode.writeSame16 && command.cdb.bytes[1] & 1 != 0
        let unmaps = command.cdb.bytes[1] & 0x08 != 0
        // WRITE SAME (10) does not unmap (LBPWS10 0).
        if unmaps, command.cdb.operationCode == OperationCode.writeSame10 { return finish(command, .check(.badCDBField)) }
        var fields = BlockFields(command.cdb)
        fields.flags &= 0xE0
        // ANCHOR without ANC_SUP, and LBDATA/PBDATA, which SBC-3 made obsolete.
        guard command.cdb.bytes[1] & 0x16 == 0 else { return finish(command, .check(.badCDBField)) }
        if let sense = refusal(fields, isLimited: false) ?? writeRefusal { return finish(command, .check(sense)) }
        // WSNZ is 0: no count means up to the end.
        if fields.count == 0 { fields.count = blockCount - fields.lba }
        guard fields.count <= maximumWriteSameBlocks else { return finish(command, .check(.badCDBField)) }
        guard hasNoData || command.dataOut.count == blockSize else { return finish(command, .check(.badCDBField)) }
        let isZero = hasNoData || command.dataOut.allSatisfy { $0 == 0 }
        if unmaps, isZero, backend.isThinlyProvisioned {
            var operation = begin(command, .deallocate, fields)
            // Not a list of descriptors, but one range.
            operation.step = 1
            return start(operation)
        }
        let byteCount = min(Self.patternByteCount, Int(fields.count) * blockSize)
        guard let buffer = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
        let pattern = UnsafeMutableRawBufferPointer(start: buffer.base, count: byteCount)
        if isZero {
            pattern.initializeMemory(as: UInt8.self, repeating: 0)
        } else {
            for offset in stride(from: 0, to: byteCount, by: blockSize) {
                (buffer.base! + offset).copyMemory(from: command.dataOut.baseAddress!, byteCount: blockSize)
            }
        }
        start(begin(command, .fill, fields, buffer: buffer))
    }

    func unmap(_ command: DeviceCommand) {
        guard backend.isThinlyProvisioned else { return finish(command, .check(.unsupportedOperationCode)) }
        // ANCHOR
        guard command.cdb.bytes[1] & 1 == 0 else { return finish(command, .check(.badCDBField)) }
        if let sense = writeRefusal { return finish(command, .check(sense)) }
        let length = Int(command.cdb.field(at: 7, width: 2))
        guard length > 0 else { return finish(command, .status(.good)) }
        let list = command.dataOut
        guard length >= 8, list.count >= length else { return finish(command, .check(.parameterListLength)) }
        // The list may be cut short by its own length field, never be longer than what was sent.
        let descriptorBytes = min(Int(list.field(at: 2, width: 2)), length - 8)
        let count = descriptorBytes / 16
        guard count <= Self.maximumUnmapDescriptors else { return finish(command, .check(.badParameterField)) }
        for index in 0..<count {
            let lba = list.field(at: 8 + 16 * index, width: 8)
            let blocks = list.field(at: 16 + 16 * index, width: 4)
            guard lba <= blockCount, blocks <= blockCount - lba else { return finish(command, .check(.blockOutOfRange)) }
        }
        guard count > 0 else { return finish(command, .status(.good)) }
        start(
            Operation(command: command, kind: .deallocate, offset: 0, byteCount: UInt64(count), buffer: .none))
    }

    // MARK: commands that must be alone

    func compareAndWrite(_ command: DeviceCommand) {
        var fields = BlockFields(command.cdb)
        fields.count = UInt64(command.cdb.bytes[13])
        if let sense = refusal(fields) ?? writeRefusal { return finish(command, .check(sense)) }
        let byteCount = Int(fields.count) * blockSize
        guard command.dataOut.count == 2 * byteCount else { return finish(command, .check(.badCDBField)) }
        guard byteCount > 0 else { return finish(command, .status(.good)) }
        if mustWaitToBeAlone(command) { return }
        guard let buffer = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
        beginExclusive()
        var operation = begin(command, .compareAndWrite, fields, buffer: buffer)
        operation.synchronizes = fields.forcesUnitAccess
        start(operation)
    }

    func orWrite(_ command: DeviceCommand) {
        let fields = BlockFields(command.cdb)
        if let sense = refusal(fields) ?? writeRefusal { return finish(command, .check(sense)) }
        let byteCount = Int(fields.count) * blockSize
        guard byteCount > 0 else { return finish(command, .status(.good)) }
        guard command.dataOut.count >= byteCount else { return finish(command, .check(.badCDBField)) }
        if mustWaitToBeAlone(command) { return }
        guard let buffer = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
        beginExclusive()
        var operation = begin(command, .orWrite, fields, buffer: buffer)
        operation.synchronizes = fields.forcesUnitAccess
        start(operation)
    }
}
