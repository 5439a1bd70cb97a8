import ISCSI
import SCSI

// SBC-3 clause 5. Ranges are checked before anything else is done with them.
extension LogicalUnit {
    private func refusal(_ range: BlockRange, isLimited: Bool = true) -> SenseData? {
        if isStopped { return SenseData(key: .notReady, additional: AdditionalSense(0x04, 0x02)) }
        guard range.fits(capacity: blockCount) else { return .blockOutOfRange }
        // An empty range must still begin at a block that exists.
        if range.lba == blockCount { return .blockOutOfRange }
        let byteCount = UInt64(range.blockCount) * UInt64(blockSize)
        if isLimited, byteCount > UInt64(Self.maximumTransferByteCount) { return .badCDBField }
        return nil
    }

    private var writeRefusal: SenseData? {
        if configuration.isReadOnly { return .writeProtected }
        return modes.isWriteProtected ? .softwareWriteProtected : nil
    }

    private func begin(
        _ command: DeviceCommand, _ kind: OperationKind, _ range: BlockRange, wanted: Int = 0,
        buffer: TargetBuffer = .none
    ) -> Operation {
        Operation(
            command: command, kind: kind, offset: range.lba * UInt64(blockSize),
            byteCount: UInt64(range.blockCount) * UInt64(blockSize), wantedByteCount: wanted, buffer: buffer)
    }

    private func start(_ operation: Operation) { drive(operations.insert(operation)) }

    func read(_ command: DeviceCommand, _ range: BlockRange) {
        if let sense = refusal(range) { return finish(command, .check(sense)) }
        let byteCount = Int(range.blockCount) * blockSize
        guard byteCount > 0 else { return finish(command, .status(.good)) }
        if let lent = backend.lend(offset: range.lba * UInt64(blockSize), byteCount: byteCount) {
            var result = DeviceResult.status(.good)
            result.data = UnsafeRawBufferPointer(start: lent, count: byteCount)
            return finish(command, result)
        }
        guard let buffer = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
        start(begin(command, .read, range, buffer: buffer))
    }

    /// WRITE and WRITE AND VERIFY: the backend's own word that the data arrived is the verification.
    func write(_ command: DeviceCommand, _ range: BlockRange, forcesUnitAccess: Bool) {
        if let sense = refusal(range) ?? writeRefusal { return finish(command, .check(sense)) }
        let byteCount = Int(range.blockCount) * blockSize
        guard byteCount > 0 else { return finish(command, .status(.good)) }
        // Fewer bytes than the CDB names: the initiator expects a shorter transfer, which ends in a
        // residual overflow; whole blocks of it are written.
        let whole = min(byteCount, command.dataOut.count) / blockSize * blockSize
        guard whole > 0 else { return finish(command, .status(.good, dataOutByteCount: byteCount)) }
        var operation = begin(command, .write, range, wanted: byteCount)
        operation.byteCount = UInt64(whole)
        operation.synchronizes = forcesUnitAccess
        start(operation)
    }

    /// Only where the backend writes at once, so that nothing can come between (SBC-4 clause 5.49).
    func writeAtomic(
        _ command: DeviceCommand, _ range: BlockRange, _ options: TransferOptions, boundaryBlockCount: UInt16
    ) {
        guard maximumAtomicBlocks > 0 else { return finish(command, .check(.unsupportedOperationCode)) }
        if let sense = refusal(range) { return finish(command, .check(sense)) }
        // Without a boundary; a part of the blocks is no atomic write.
        guard boundaryBlockCount == 0, range.blockCount <= maximumAtomicBlocks,
            command.dataOut.count >= Int(range.blockCount) * blockSize
        else { return finish(command, .check(.badCDBField)) }
        write(command, range, forcesUnitAccess: options.contains(.forceUnitAccess))
    }

    var maximumAtomicBlocks: UInt32 { backend.writesAtOnce ? UInt32((1 << 20) / blockSize) : 0 }

    func verify(_ command: DeviceCommand, _ range: BlockRange, _ mode: VerifyMode) {
        if let sense = refusal(range) { return finish(command, .check(sense)) }
        let byteCount = Int(range.blockCount) * blockSize
        guard byteCount > 0, mode != .mediumOnly else { return finish(command, .status(.good)) }
        let wanted = mode == .compareWithOne ? blockSize : byteCount
        guard command.dataOut.count >= wanted else { return finish(command, .check(.badCDBField)) }
        guard let buffer = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
        start(begin(command, .compare, range, wanted: wanted, buffer: buffer))
    }

    func prefetch(_ command: DeviceCommand, _ range: BlockRange) {
        if let sense = refusal(range, isLimited: false) { return finish(command, .check(sense)) }
        // There is no cache of its own to fill: whatever is asked for fits (SBC-3 clause 5.9).
        finish(command, .status(.conditionMet))
    }

    func synchronizeCache(_ command: DeviceCommand, _ range: BlockRange) {
        if let sense = refusal(range, isLimited: false) { return finish(command, .check(sense)) }
        start(begin(command, .synchronize, range))
    }

    // MARK: WRITE SAME, UNMAP

    /// Blocks of one WRITE SAME; the block limits page says so.
    var maximumWriteSameBlocks: UInt64 { UInt64(Self.maximumTransferByteCount / blockSize) }
    static let maximumUnmapDescriptors = 256
    private static let patternByteCount = 256 << 10

    func writeSame(_ command: DeviceCommand, _ asked: BlockRange, _ options: WriteSameOptions) {
        // ANC_SUP and LBPWS10 are 0.
        let isShort = command.cdb.operationCode == OperationCode.writeSame10
        if options.contains(.anchor) || (isShort && options.contains(.unmap)) { return finish(command, .check(.badCDBField)) }
        if let sense = refusal(asked, isLimited: false) ?? writeRefusal { return finish(command, .check(sense)) }
        // WSNZ is 0: no count means up to the end.
        let count = asked.blockCount == 0 ? blockCount - asked.lba : UInt64(asked.blockCount)
        guard count <= maximumWriteSameBlocks else { return finish(command, .check(.badCDBField)) }
        let range = BlockRange(lba: asked.lba, blockCount: UInt32(count))
        let hasNoData = options.contains(.noDataOut)
        guard hasNoData || command.dataOut.count == blockSize else { return finish(command, .check(.badCDBField)) }
        let isZero = hasNoData || command.dataOut.allSatisfy { $0 == 0 }
        let wanted = hasNoData ? 0 : blockSize
        if isZero, options.contains(.unmap), backend.isThinlyProvisioned, backend.deallocatedContent == .zeroes {
            return start(begin(command, .deallocate, range, wanted: wanted))
        }
        if isZero, backend.writesZeroes { return start(begin(command, .zero, range, wanted: wanted)) }
        let byteCount = min(Self.patternByteCount, Int(count) * blockSize)
        guard let buffer = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
        let pattern = UnsafeMutableRawBufferPointer(start: buffer.base, count: byteCount)
        if isZero {
            pattern.initializeMemory(as: UInt8.self, repeating: 0)
        } else {
            for offset in stride(from: 0, to: byteCount, by: blockSize) {
                (buffer.base! + offset).copyMemory(from: command.dataOut.baseAddress!, byteCount: blockSize)
            }
        }
        start(begin(command, .fill, range, wanted: wanted, buffer: buffer))
    }

    func unmap(_ command: DeviceCommand, anchor: Bool, parameterByteCount length: Int) {
        guard backend.isThinlyProvisioned else { return finish(command, .check(.unsupportedOperationCode)) }
        guard !anchor else { return finish(command, .check(.badCDBField)) }
        if let sense = writeRefusal { return finish(command, .check(sense)) }
        guard command.dataOut.count >= length else { return finish(command, .check(.parameterListLength)) }
        let ranges: [BlockRange]
        do {
            ranges = try UnmapList(
                parsing: Array(command.dataOut[..<length]), maxRangeCount: Self.maximumUnmapDescriptors
            ).ranges
        } catch {
            return finish(command, .check(error))
        }
        for range in ranges where !range.fits(capacity: blockCount) { return finish(command, .check(.blockOutOfRange)) }
        guard !ranges.isEmpty else { return finish(command, .status(.good)) }
        // The descriptors are read again from the list as their turn comes.
        start(
            Operation(
                command: command, kind: .unmap, offset: 0, byteCount: UInt64(ranges.count), wantedByteCount: length,
                buffer: .none))
    }

    /// SBC-3 clause 5.6: descriptors of 16 bytes, as many as fit, from the address on.
    func getLBAStatus(_ command: DeviceCommand, from start: UInt64, allocation: Int) {
        guard backend.isThinlyProvisioned else { return finish(command, .check(.badCDBField)) }
        guard start < blockCount else { return finish(command, .check(.blockOutOfRange)) }
        let count = max(1, (min(allocation, 4096) - 8) / 16)
        let byteCount = count * MemoryLayout<BackendExtent>.stride
        // The answer has a header of eight bytes.
        guard let buffer = pool.allocate(byteCount: byteCount + 8) else { return finish(command, .status(.taskSetFull)) }
        buffer.base!.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
        var operation = begin(command, .listExtents, BlockRange(lba: start, blockCount: 0), wanted: allocation, buffer: buffer)
        operation.byteCount = UInt64(byteCount)
        self.start(operation)
    }

    /// The list that the backend filled, as parameter data, in the same memory, which is larger.
    func extentsListed(_ operation: Operation) -> DeviceResult {
        let base = operation.buffer.base!
        var lba = operation.offset / UInt64(blockSize)
        var extents: [LBAStatusReport.Extent] = []
        for offset in stride(from: 0, to: Int(operation.byteCount), by: MemoryLayout<BackendExtent>.stride) {
            let extent = base.load(fromByteOffset: offset, as: BackendExtent.self)
            guard extent.byteCount > 0, lba < blockCount else { break }
            let count = min(max(1, extent.byteCount / UInt64(blockSize)), blockCount - lba, UInt64(UInt32.max))
            extents.append(
                .init(
                    range: BlockRange(lba: lba, blockCount: UInt32(count)), status: extent.isMapped ? .mapped : .deallocated))
            lba += count
            // The count field has four bytes; what is left comes with the next command.
            if extent.byteCount / UInt64(blockSize) > count { break }
        }
        let bytes = LBAStatusReport(extents: extents).encode()
        let count = min(bytes.count, operation.wantedByteCount, operation.buffer.capacity)
        bytes.withUnsafeBytes { base.copyMemory(from: $0.baseAddress!, byteCount: count) }
        var result = DeviceResult.status(.good)
        result.buffer = operation.buffer
        result.data = UnsafeRawBufferPointer(start: base, count: count)
        return result
    }

    // MARK: commands that must be alone

    /// The CDB has one byte for it.
    var maximumCompareAndWriteBlocks: UInt8 { UInt8(min(255, backend.compareAndWriteLimitByteCount / blockSize)) }

    func compareAndWrite(_ command: DeviceCommand, _ range: BlockRange, forcesUnitAccess: Bool) {
        if let sense = refusal(range) ?? writeRefusal { return finish(command, .check(sense)) }
        let byteCount = Int(range.blockCount) * blockSize
        guard command.dataOut.count == 2 * byteCount, range.blockCount <= maximumCompareAndWriteBlocks else {
            return finish(command, .check(.badCDBField))
        }
        guard byteCount > 0 else { return finish(command, .status(.good)) }
        if mustWaitToBeAlone(command) { return }
        var buffer = TargetBuffer.none
        if !backend.comparesAndWrites {
            guard let memory = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
            buffer = memory
        }
        beginExclusive()
        var operation = begin(
            command, backend.comparesAndWrites ? .swap : .compareAndWrite, range, wanted: 2 * byteCount, buffer: buffer)
        operation.synchronizes = forcesUnitAccess
        start(operation)
    }

    func orWrite(_ command: DeviceCommand, _ range: BlockRange, forcesUnitAccess: Bool) {
        if let sense = refusal(range) ?? writeRefusal { return finish(command, .check(sense)) }
        let byteCount = Int(range.blockCount) * blockSize
        guard byteCount > 0 else { return finish(command, .status(.good)) }
        guard command.dataOut.count >= byteCount else { return finish(command, .check(.badCDBField)) }
        if mustWaitToBeAlone(command) { return }
        guard let buffer = pool.allocate(byteCount: byteCount) else { return finish(command, .status(.taskSetFull)) }
        beginExclusive()
        var operation = begin(command, .orWrite, range, wanted: byteCount, buffer: buffer)
        operation.synchronizes = forcesUnitAccess
        start(operation)
    }
}
