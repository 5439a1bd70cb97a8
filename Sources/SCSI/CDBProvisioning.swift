// Commands that give blocks back, fill them, or ask about them (SBC-4 clauses 5.6, 5.34 and 5.50).

/// The flags of WRITE SAME (SBC-3 clause 5.43), in their places in byte 1.
public struct WriteSameOptions: OptionSet, Hashable, Sendable {
    /// The CDB's second byte, as it is sent.
    public var rawValue: UInt8
    /// Flags by their bits.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// NDOB: no block is sent, zeroes are meant. WRITE SAME (16) only.
    public static let noDataOut = WriteSameOptions(rawValue: 0x01)
    /// The blocks may be unmapped, where that reads back the same.
    public static let unmap = WriteSameOptions(rawValue: 0x08)
    /// With `unmap`: anchored instead.
    public static let anchor = WriteSameOptions(rawValue: 0x10)

    /// WRPROTECT, 0…7.
    public var protection: UInt8 { rawValue >> 5 }
}

extension CommandDescriptorBlock {
    /// UNMAP; the parameter list is `UnmapList`'s.
    public static func unmap(parameterByteCount: UInt16, anchor: Bool = false) -> Self {
        var block = Self(operationCode: OperationCode.unmap)
        block.bytes[1] = anchor ? 1 : 0
        block.setField(at: 7, width: 2, to: UInt64(parameterByteCount))
        return block
    }

    /// WRITE SAME (10): one block is sent and written `blockCount` times (0: up to the last block). NDOB does
    /// not exist here and is left out.
    public static func writeSame10(lba: UInt32, blockCount: UInt16, options: WriteSameOptions = []) -> Self {
        tenByte(
            OperationCode.writeSame10, lba: UInt64(lba), blockCount: UInt32(blockCount),
            options: TransferOptions(rawValue: options.subtracting(.noDataOut).rawValue))
    }

    /// WRITE SAME (16): one block (none, with `.noDataOut`) is sent and written `blockCount` times (0: up to
    /// the last block).
    public static func writeSame16(lba: UInt64, blockCount: UInt32, options: WriteSameOptions = []) -> Self {
        sixteenByte(
            OperationCode.writeSame16, lba: lba, blockCount: blockCount,
            options: TransferOptions(rawValue: options.rawValue))
    }

    /// WRITE SAME (16), its flags one by one; see `WriteSameOptions`.
    public static func writeSame16(
        lba: UInt64, blockCount: UInt32, unmap: Bool, anchor: Bool = false, noDataOut: Bool = false
    ) -> Self {
        var options: WriteSameOptions = []
        if unmap { options.insert(.unmap) }
        if anchor { options.insert(.anchor) }
        if noDataOut { options.insert(.noDataOut) }
        return writeSame16(lba: lba, blockCount: blockCount, options: options)
    }

    /// GET LBA STATUS. (tgt loops for ever on it where the LUN is a null one: ask only who needs it.)
    public static func getLBAStatus(startingLBA: UInt64, allocationByteCount: UInt32) -> Self {
        var block = Self(operationCode: OperationCode.serviceActionIn16)
        block.bytes[1] = ServiceAction.getLBAStatus
        block.setField(at: 2, width: 8, to: startingLBA)
        block.setField(at: 10, width: 4, to: UInt64(allocationByteCount))
        return block
    }
}
