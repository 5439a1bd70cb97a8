/// The parameter list of UNMAP (SBC-3 clause 5.28.2).
public struct UnmapList: Hashable, Sendable {
    /// The ranges to unmap, in the initiator's order.
    public var ranges: [BlockRange]
    /// A list of these ranges.
    public init(ranges: [BlockRange]) { self.ranges = ranges }

    /// As many descriptors as the list's 16-bit lengths can count.
    public static let maxRangeCount = (Int(UInt16.max) - 8) / 16

    /// How many bytes a list of this many ranges takes.
    public static func byteCount(rangeCount: Int) -> Int { 8 + 16 * rangeCount }

    /// At most `maxRangeCount` ranges (a programmer's mistake otherwise).
    public func encode() -> [UInt8] {
        precondition(ranges.count <= Self.maxRangeCount, "too many ranges for one UNMAP")
        let dataCount = 16 * ranges.count
        var bytes: [UInt8] = []
        bytes.reserveCapacity(8 + dataCount)
        bytes.append(bigEndian: UInt16(6 + dataCount))
        bytes.append(bigEndian: UInt16(dataCount))
        bytes += [0, 0, 0, 0]
        for range in ranges {
            bytes.append(bigEndian: range.lba)
            bytes.append(bigEndian: range.blockCount)
            bytes += [0, 0, 0, 0]
        }
        return bytes
    }

    /// The list as a target received it. An empty one is no error, nor is one with fewer than 8 bytes where
    /// there are none at all (SBC-3 clause 5.28.1). `maxRangeCount` is MAXIMUM UNMAP BLOCK
    /// DESCRIPTOR COUNT of page B0h.
    public init(parsing bytes: [UInt8], maxRangeCount: Int = UnmapList.maxRangeCount) throws(IllegalRequest) {
        ranges = []
        guard !bytes.isEmpty else { return }
        guard let dataCount = bytes.uint16(at: 2), bytes.count >= 8 else { throw .parameterListLength }
        // What the CDB's length cuts is not there; a descriptor that it cuts in two is ignored.
        let count = min(Int(dataCount), bytes.count - 8) / 16
        guard count <= maxRangeCount else { throw .fieldInParameterList(byte: 2) }
        ranges = (0..<count).map { index in
            BlockRange(
                lba: bytes.uint64(at: 8 + 16 * index) ?? 0, blockCount: bytes.uint32(at: 16 + 16 * index) ?? 0)
        }
    }
}

/// Whether blocks have room on the medium (PROVISIONING STATUS, SBC-3 table 65). An open set.
public struct ProvisioningStatus: RawRepresentable, Hashable, Sendable {
    /// The code, four bits.
    public var rawValue: UInt8
    /// Higher bits are dropped.
    public init(rawValue: UInt8) { self.rawValue = rawValue & 0x0F }

    /// Has room.
    public static let mapped = ProvisioningStatus(rawValue: 0)
    /// Has none.
    public static let deallocated = ProvisioningStatus(rawValue: 1)
    /// Has none, but room is kept for it.
    public static let anchored = ProvisioningStatus(rawValue: 2)
}

/// The answer to GET LBA STATUS (SBC-3 clause 5.6.2).
public struct LBAStatusReport: Hashable, Sendable {
    /// Blocks in a row that have the same status.
    public struct Extent: Hashable, Sendable {
        /// The blocks.
        public var range: BlockRange
        /// Whether they have room.
        public var status: ProvisioningStatus
        /// An extent.
        public init(range: BlockRange, status: ProvisioningStatus) {
            self.range = range
            self.status = status
        }
    }

    /// The extents, by ascending blocks.
    public var extents: [Extent]
    /// An answer.
    public init(extents: [Extent]) { self.extents = extents }

    /// Nil below 8 bytes; of a cut list, the descriptors that were received whole.
    public init?(parsing bytes: [UInt8]) {
        guard bytes.count >= 8, let count = bytes.uint32(at: 0) else { return nil }
        let end = min(bytes.count, 4 + Int(count))
        extents = stride(from: 8, to: end - 15, by: 16).map { offset in
            Extent(
                range: BlockRange(lba: bytes.uint64(at: offset) ?? 0, blockCount: bytes.uint32(at: offset + 8) ?? 0),
                status: ProvisioningStatus(rawValue: bytes[offset + 12]))
        }
    }

    /// Header and descriptors.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(bigEndian: (4 + 16 * extents.count).saturated(to: UInt32.self))
        bytes += [0, 0, 0, 0]
        for extent in extents {
            bytes.append(bigEndian: extent.range.lba)
            bytes.append(bigEndian: extent.range.blockCount)
            bytes += [extent.status.rawValue, 0, 0, 0]
        }
        return bytes
    }
}
