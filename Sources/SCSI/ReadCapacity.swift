/// The answer to READ CAPACITY (10) (SBC-3 clause 5.15.2).
public enum ReadCapacity10Data: Hashable, Sendable {
    /// How many blocks there are, and of how many bytes.
    case capacity(blockCount: UInt64, blockSize: UInt32)
    /// The last LBA does not fit 32 bits; READ CAPACITY (16) tells.
    case tooLarge(blockSize: UInt32)

    /// Nil below 8 bytes, and for a block size of 0.
    public init?(parsing bytes: [UInt8]) {
        guard let last = bytes.uint32(at: 0), let size = bytes.uint32(at: 4), size != 0 else { return nil }
        self = last == .max ? .tooLarge(blockSize: size) : .capacity(blockCount: UInt64(last) + 1, blockSize: size)
    }

    /// For a medium of `blockCount` blocks, 1 at least.
    public init(blockCount: UInt64, blockSize: UInt32) {
        self = blockCount <= UInt64(UInt32.max) ? .capacity(blockCount: blockCount, blockSize: blockSize)
            : .tooLarge(blockSize: blockSize)
    }

    /// 8 bytes.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        switch self {
        case .capacity(let blockCount, let blockSize):
            bytes.append(bigEndian: (blockCount &- 1).saturated(to: UInt32.self))
            bytes.append(bigEndian: blockSize)
        case .tooLarge(let blockSize):
            bytes.append(bigEndian: UInt32.max)
            bytes.append(bigEndian: blockSize)
        }
        return bytes
    }
}

/// The answer to READ CAPACITY (16) (SBC-3 clause 5.16.2).
public struct ReadCapacity16Data: Hashable, Sendable {
    /// 1 at least.
    public var blockCount: UInt64
    /// In bytes, never 0.
    public var blockSize: UInt32
    /// PROT_EN: the medium is formatted with protection information.
    public var isProtectionEnabled: Bool
    /// P_TYPE, 0…7: the protection type less one.
    public var protectionTypeField: UInt8
    /// P_I_EXPONENT, 0…15.
    public var protectionIntervalExponent: UInt8
    /// A physical block is 2 to this power logical blocks, 0…15.
    public var physicalBlockExponent: UInt8
    /// LBPME: blocks can be unmapped.
    public var isThinlyProvisioned: Bool
    /// LBPRZ: unmapped blocks read as zeroes.
    public var unmappedReadsZero: Bool
    /// The first LBA that begins a physical block, 0…16,383.
    public var lowestAlignedLBA: UInt16

    /// A medium; what is not given is 0 or off.
    public init(
        blockCount: UInt64, blockSize: UInt32, isProtectionEnabled: Bool = false, protectionTypeField: UInt8 = 0,
        protectionIntervalExponent: UInt8 = 0, physicalBlockExponent: UInt8 = 0, isThinlyProvisioned: Bool = false,
        unmappedReadsZero: Bool = false, lowestAlignedLBA: UInt16 = 0
    ) {
        self.blockCount = blockCount
        self.blockSize = blockSize
        self.isProtectionEnabled = isProtectionEnabled
        self.protectionTypeField = protectionTypeField & 0x07
        self.protectionIntervalExponent = protectionIntervalExponent & 0x0F
        self.physicalBlockExponent = physicalBlockExponent & 0x0F
        self.isThinlyProvisioned = isThinlyProvisioned
        self.unmappedReadsZero = unmappedReadsZero
        self.lowestAlignedLBA = lowestAlignedLBA & 0x3FFF
    }

    /// Nil below 12 bytes, for a block size of 0, and where the size in bytes is past what a 64-bit file
    /// offset can say. Missing bytes after the twelfth count as zero.
    public init?(parsing bytes: [UInt8]) {
        guard let last = bytes.uint64(at: 0), let size = bytes.uint32(at: 8), size != 0, last < .max else {
            return nil
        }
        let (byteCount, overflow) = (last + 1).multipliedReportingOverflow(by: UInt64(size))
        guard !overflow, byteCount <= UInt64(Int64.max) else { return nil }
        let flags = bytes.byte(at: 12) ?? 0
        let exponents = bytes.byte(at: 13) ?? 0
        let provisioning = bytes.uint16(at: 14) ?? UInt16(bytes.byte(at: 14) ?? 0) << 8
        self.init(
            blockCount: last + 1, blockSize: size, isProtectionEnabled: flags & 1 == 1,
            protectionTypeField: flags >> 1, protectionIntervalExponent: exponents >> 4,
            physicalBlockExponent: exponents, isThinlyProvisioned: provisioning & 0x8000 != 0,
            unmappedReadsZero: provisioning & 0x4000 != 0, lowestAlignedLBA: provisioning)
    }

    /// 32 bytes.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(bigEndian: blockCount &- 1)
        bytes.append(bigEndian: blockSize)
        bytes.append(protectionTypeField << 1 & 0x0E | (isProtectionEnabled ? 1 : 0))
        bytes.append(protectionIntervalExponent << 4 | physicalBlockExponent & 0x0F)
        let provisioning: UInt16 = (isThinlyProvisioned ? 0x8000 : 0) | (unmappedReadsZero ? 0x4000 : 0)
        bytes.append(bigEndian: provisioning | lowestAlignedLBA & 0x3FFF)
        return bytes + [UInt8](repeating: 0, count: 16)
    }
}
