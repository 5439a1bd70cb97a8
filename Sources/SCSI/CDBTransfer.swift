// Commands that move or check blocks (SBC-3 clauses 5.2 to 5.46).

extension CommandDescriptorBlock {
    /// READ (10) where the range fits it, READ (16) otherwise.
    @inlinable
    public static func read(lba: UInt64, blockCount: UInt32, options: TransferOptions = []) -> Self {
        transfer(lba: lba, blockCount: blockCount, options: options, code10: 0x28, code16: 0x88)
    }

    /// WRITE (10) where the range fits it, WRITE (16) otherwise.
    @inlinable
    public static func write(lba: UInt64, blockCount: UInt32, options: TransferOptions = []) -> Self {
        transfer(lba: lba, blockCount: blockCount, options: options, code10: 0x2A, code16: 0x8A)
    }

    @inlinable
    static func transfer(
        lba: UInt64, blockCount: UInt32, options: TransferOptions, code10: UInt8, code16: UInt8
    ) -> Self {
        if fitsTenBytes(lba: lba, blockCount: blockCount) {
            return tenByte(code10, lba: lba, blockCount: blockCount, options: options)
        }
        return sixteenByte(code16, lba: lba, blockCount: blockCount, options: options)
    }

    /// A 10-byte CDB has 32 bits for the address and 16 for the count. That the *last* block must fit too
    /// is for devices that compute with the 32 bits they were given.
    @inlinable
    static func fitsTenBytes(lba: UInt64, blockCount: UInt32) -> Bool {
        blockCount <= 0xFFFF && lba <= 0x1_0000_0000 - UInt64(blockCount) && lba <= 0xFFFF_FFFF
    }

    /// `lba` must fit 32 bits and `blockCount` 16.
    @inlinable
    static func tenByte(_ code: UInt8, lba: UInt64, blockCount: UInt32, options: TransferOptions) -> Self {
        Self(
            high: UInt64(code) << 56 | UInt64(options.rawValue) << 48 | (lba & 0xFFFF_FFFF) << 16
                | UInt64(blockCount) >> 8 & 0xFF,
            low: UInt64(blockCount) << 56, count: 10)
    }

    @inlinable
    static func sixteenByte(_ code: UInt8, lba: UInt64, blockCount: UInt32, options: TransferOptions) -> Self {
        Self(
            high: UInt64(code) << 56 | UInt64(options.rawValue) << 48 | lba >> 16,
            low: lba << 48 | UInt64(blockCount) << 16, count: 16)
    }

    static func twelveByte(_ code: UInt8, lba: UInt32, blockCount: UInt32, options: TransferOptions) -> Self {
        var block = Self(operationCode: code)
        block.bytes[1] = options.rawValue
        block.setField(at: 2, width: 4, to: UInt64(lba))
        block.setField(at: 6, width: 4, to: UInt64(blockCount))
        return block
    }

    /// Nil where the range does not fit: 21 bits of address, 1…256 blocks (a count of 0 means 256).
    static func sixByte(_ code: UInt8, lba: UInt32, blockCount: UInt32) -> Self? {
        guard lba < 1 << 21, 1...256 ~= blockCount else { return nil }
        var block = Self(operationCode: code)
        block.setField(at: 1, width: 3, to: UInt64(lba))
        block.bytes[4] = UInt8(truncatingIfNeeded: blockCount)
        return block
    }

    /// READ (6); nil where the LBA is over 21 bits or the count not 1…256.
    public static func read6(lba: UInt32, blockCount: UInt32) -> Self? {
        sixByte(OperationCode.read6, lba: lba, blockCount: blockCount)
    }

    /// WRITE (6); nil where the LBA is over 21 bits or the count not 1…256.
    public static func write6(lba: UInt32, blockCount: UInt32) -> Self? {
        sixByte(OperationCode.write6, lba: lba, blockCount: blockCount)
    }

    /// READ (10), whatever the range.
    public static func read10(lba: UInt32, blockCount: UInt16, options: TransferOptions = []) -> Self {
        tenByte(OperationCode.read10, lba: UInt64(lba), blockCount: UInt32(blockCount), options: options)
    }

    /// WRITE (10), whatever the range.
    public static func write10(lba: UInt32, blockCount: UInt16, options: TransferOptions = []) -> Self {
        tenByte(OperationCode.write10, lba: UInt64(lba), blockCount: UInt32(blockCount), options: options)
    }

    /// READ (12), whatever the range.
    public static func read12(lba: UInt32, blockCount: UInt32, options: TransferOptions = []) -> Self {
        twelveByte(OperationCode.read12, lba: lba, blockCount: blockCount, options: options)
    }

    /// WRITE (12), whatever the range.
    public static func write12(lba: UInt32, blockCount: UInt32, options: TransferOptions = []) -> Self {
        twelveByte(OperationCode.write12, lba: lba, blockCount: blockCount, options: options)
    }

    /// READ (16), whatever the range.
    public static func read16(lba: UInt64, blockCount: UInt32, options: TransferOptions = []) -> Self {
        sixteenByte(OperationCode.read16, lba: lba, blockCount: blockCount, options: options)
    }

    /// WRITE (16), whatever the range.
    public static func write16(lba: UInt64, blockCount: UInt32, options: TransferOptions = []) -> Self {
        sixteenByte(OperationCode.write16, lba: lba, blockCount: blockCount, options: options)
    }

    /// WRITE AND VERIFY (10) where the range fits it, (16) otherwise. FUA does not exist here: the data is
    /// on the medium in any case.
    public static func writeAndVerify(
        lba: UInt64, blockCount: UInt32, mode: VerifyMode = .mediumOnly, options: TransferOptions = []
    ) -> Self {
        transfer(
            lba: lba, blockCount: blockCount, options: verifyOptions(mode, options),
            code10: OperationCode.writeAndVerify10, code16: OperationCode.writeAndVerify16)
    }

    /// WRITE AND VERIFY (12), whatever the range.
    public static func writeAndVerify12(
        lba: UInt32, blockCount: UInt32, mode: VerifyMode = .mediumOnly, options: TransferOptions = []
    ) -> Self {
        twelveByte(
            OperationCode.writeAndVerify12, lba: lba, blockCount: blockCount, options: verifyOptions(mode, options))
    }

    /// VERIFY (10) where the range fits it, (16) otherwise.
    public static func verify(
        lba: UInt64, blockCount: UInt32, mode: VerifyMode = .mediumOnly, options: TransferOptions = []
    ) -> Self {
        transfer(
            lba: lba, blockCount: blockCount, options: verifyOptions(mode, options),
            code10: OperationCode.verify10, code16: OperationCode.verify16)
    }

    /// VERIFY (12), whatever the range.
    public static func verify12(
        lba: UInt32, blockCount: UInt32, mode: VerifyMode = .mediumOnly, options: TransferOptions = []
    ) -> Self {
        twelveByte(OperationCode.verify12, lba: lba, blockCount: blockCount, options: verifyOptions(mode, options))
    }

    /// BYTCHK is bits 2…1 of byte 1; FUA's bit is reserved in these commands.
    private static func verifyOptions(_ mode: VerifyMode, _ options: TransferOptions) -> TransferOptions {
        TransferOptions(rawValue: options.subtracting(.forceUnitAccess).rawValue & ~0x06 | mode.rawValue << 1)
    }

    /// SYNCHRONIZE CACHE (10) where the range fits it, (16) otherwise. A `blockCount` of 0 means up to the
    /// last block, so the default is the whole medium.
    public static func synchronizeCache(
        lba: UInt64 = 0, blockCount: UInt32 = 0, isImmediate: Bool = false
    ) -> Self {
        transfer(
            lba: lba, blockCount: blockCount, options: TransferOptions(rawValue: isImmediate ? 0x02 : 0),
            code10: OperationCode.synchronizeCache10, code16: OperationCode.synchronizeCache16)
    }

    /// SYNCHRONIZE CACHE (16), whatever the range.
    public static func synchronizeCache16(
        lba: UInt64 = 0, blockCount: UInt32 = 0, isImmediate: Bool = false
    ) -> Self {
        sixteenByte(
            OperationCode.synchronizeCache16, lba: lba, blockCount: blockCount,
            options: TransferOptions(rawValue: isImmediate ? 0x02 : 0))
    }

    /// PRE-FETCH (10) where the range fits it, (16) otherwise; 0 blocks means up to the last one.
    public static func preFetch(lba: UInt64, blockCount: UInt32, isImmediate: Bool = false) -> Self {
        transfer(
            lba: lba, blockCount: blockCount, options: TransferOptions(rawValue: isImmediate ? 0x02 : 0),
            code10: OperationCode.preFetch10, code16: OperationCode.preFetch16)
    }

    /// COMPARE AND WRITE: the Data-Out buffer holds `blockCount` blocks to compare with, then as many to
    /// write (SBC-3 clause 5.2).
    public static func compareAndWrite(
        lba: UInt64, blockCount: UInt8, options: TransferOptions = []
    ) -> Self {
        var block = Self(operationCode: OperationCode.compareAndWrite)
        block.bytes[1] = options.rawValue
        block.setField(at: 2, width: 8, to: lba)
        block.bytes[13] = blockCount
        return block
    }

    /// WRITE ATOMIC (16): all of the blocks are written or none (SBC-4 clause 5.49). `boundaryBlockCount` is
    /// ATOMIC BOUNDARY; 0 asks for the whole transfer in one.
    public static func writeAtomic16(
        lba: UInt64, blockCount: UInt16, boundaryBlockCount: UInt16 = 0, options: TransferOptions = []
    ) -> Self {
        var block = Self(operationCode: OperationCode.writeAtomic16)
        block.bytes[1] = options.rawValue
        block.setField(at: 2, width: 8, to: lba)
        block.setField(at: 10, width: 2, to: UInt64(boundaryBlockCount))
        block.setField(at: 12, width: 2, to: UInt64(blockCount))
        return block
    }

    /// ORWRITE (16): the blocks become the bitwise OR of what they hold and the Data-Out buffer.
    public static func orWrite16(lba: UInt64, blockCount: UInt32, options: TransferOptions = []) -> Self {
        sixteenByte(OperationCode.orWrite16, lba: lba, blockCount: blockCount, options: options)
    }
}
