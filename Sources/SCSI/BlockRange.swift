/// Consecutive logical blocks, as a CDB or a descriptor names them.
@frozen
public struct BlockRange: Hashable, Sendable {
    /// The first block.
    public var lba: UInt64
    /// In blocks. What 0 means depends on the command: nothing at all for reads and writes, up to the
    /// last block for SYNCHRONIZE CACHE, PRE-FETCH and WRITE SAME.
    public var blockCount: UInt32

    /// A range of blocks.
    @inlinable
    public init(lba: UInt64, blockCount: UInt32) {
        self.lba = lba
        self.blockCount = blockCount
    }

    /// Whether every block lies below `capacity`, in blocks. An empty range must still start no further
    /// than the end (SBC-3 clause 5.11 allows a check there; tools expect it).
    @inlinable
    public func fits(capacity: UInt64) -> Bool {
        lba <= capacity && UInt64(blockCount) <= capacity - lba
    }

    /// Whether the two share a block; ranges that run past the last LBA are cut there.
    @inlinable
    public func overlaps(_ other: BlockRange) -> Bool {
        guard blockCount != 0, other.blockCount != 0 else { return false }
        return lba <= other.lastLBA && other.lba <= lastLBA
    }

    /// The last block; the first one for an empty range.
    @inlinable
    public var lastLBA: UInt64 {
        guard blockCount != 0 else { return lba }
        let (last, overflow) = lba.addingReportingOverflow(UInt64(blockCount) - 1)
        return overflow ? .max : last
    }
}

/// The flags of byte 1 of reads and writes (SBC-3 clause 5.11), in their places on the wire.
@frozen
public struct TransferOptions: OptionSet, Hashable, Sendable {
    /// The CDB's second byte, as it is sent.
    public var rawValue: UInt8
    /// Flags by their bits.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// FUA: the data must come from, or be on, the medium when the command ends.
    @inlinable public static var forceUnitAccess: TransferOptions { .init(rawValue: 0x08) }
    /// DPO: these blocks will hardly be wanted again, so they need not stay in the cache.
    @inlinable public static var disablePageOut: TransferOptions { .init(rawValue: 0x10) }

    /// The RDPROTECT, WRPROTECT or VRPROTECT field, 0…7.
    @inlinable public var protection: UInt8 { rawValue >> 5 }
}

/// How VERIFY and WRITE AND VERIFY compare (BYTCHK, SBC-3 table 122).
public enum VerifyMode: UInt8, Hashable, Sendable {
    /// The medium is checked; no data is sent for it.
    case mediumOnly = 0
    /// Every block is compared with a block of the Data-Out buffer.
    case compareEach = 1
    /// Every block is compared with the same single block.
    case compareWithOne = 3
}
