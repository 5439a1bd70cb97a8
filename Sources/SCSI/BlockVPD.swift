/// Page B0h: block limits (SBC-4 clause 6.6.4). A 0 means that the device sets no limit, or does not say.
public struct BlockLimits: Hashable, Sendable {
    /// WSNZ: WRITE SAME with a count of 0 is refused.
    public var refusesWriteSameToEnd = false
    /// In blocks; 0 means that COMPARE AND WRITE is not served.
    public var maxCompareAndWriteBlockCount: UInt8 = 0
    /// In blocks.
    public var optimalTransferGranularity: UInt16 = 0
    /// In blocks.
    public var maxTransferBlockCount: UInt32 = 0
    /// In blocks.
    public var optimalTransferBlockCount: UInt32 = 0
    /// In blocks.
    public var maxPrefetchBlockCount: UInt32 = 0
    /// In blocks; 0 means that UNMAP is not served, 2^32 − 1 that there is no limit.
    public var maxUnmapBlockCount: UInt32 = 0
    /// 0 means that UNMAP is not served, 2^32 − 1 that there is no limit.
    public var maxUnmapDescriptorCount: UInt32 = 0
    /// In blocks.
    public var optimalUnmapGranularity: UInt32 = 0
    /// The first LBA that the granularity counts from, 0…2^31 − 1; nil where UGAVALID is not set.
    public var unmapGranularityAlignment: UInt32?
    /// In blocks.
    public var maxWriteSameBlockCount: UInt64 = 0
    /// In blocks.
    public var maxAtomicTransferBlockCount: UInt32 = 0
    /// ATOMIC ALIGNMENT, in blocks.
    public var atomicAlignment: UInt32 = 0
    /// ATOMIC TRANSFER LENGTH GRANULARITY, in blocks.
    public var atomicTransferGranularity: UInt32 = 0
    /// MAXIMUM ATOMIC TRANSFER LENGTH WITH ATOMIC BOUNDARY, in blocks.
    public var maxAtomicTransferBlockCountWithBoundary: UInt32 = 0
    /// MAXIMUM ATOMIC BOUNDARY SIZE, in blocks.
    public var maxAtomicBoundaryBlockCount: UInt32 = 0

    /// A device that tells no limits.
    public init() {}

    /// Nil where this is no page B0h; fields that were not received are 0 (SBC-2's page ended at 10h).
    public init?(parsing bytes: [UInt8]) {
        guard let page = VPDPage.blockLimits.payload(bytes) else { return nil }
        func field(_ offset: Int) -> UInt32 { page.uint32(at: offset - 4) ?? 0 }
        refusesWriteSameToEnd = page.bit(0, at: 0)
        maxCompareAndWriteBlockCount = page.byte(at: 1) ?? 0
        optimalTransferGranularity = page.uint16(at: 2) ?? 0
        maxTransferBlockCount = field(8)
        optimalTransferBlockCount = field(12)
        maxPrefetchBlockCount = field(16)
        maxUnmapBlockCount = field(20)
        maxUnmapDescriptorCount = field(24)
        optimalUnmapGranularity = field(28)
        let alignment = field(32)
        unmapGranularityAlignment = alignment & 0x8000_0000 != 0 ? alignment & 0x7FFF_FFFF : nil
        maxWriteSameBlockCount = page.uint64(at: 36 - 4) ?? 0
        maxAtomicTransferBlockCount = field(44)
        atomicAlignment = field(48)
        atomicTransferGranularity = field(52)
        maxAtomicTransferBlockCountWithBoundary = field(56)
        maxAtomicBoundaryBlockCount = field(60)
    }

    /// 64 bytes.
    public func encode() -> [UInt8] {
        var page: [UInt8] = [refusesWriteSameToEnd ? 1 : 0, maxCompareAndWriteBlockCount]
        page.append(bigEndian: optimalTransferGranularity)
        page.append(bigEndian: maxTransferBlockCount)
        page.append(bigEndian: optimalTransferBlockCount)
        page.append(bigEndian: maxPrefetchBlockCount)
        page.append(bigEndian: maxUnmapBlockCount)
        page.append(bigEndian: maxUnmapDescriptorCount)
        page.append(bigEndian: optimalUnmapGranularity)
        page.append(bigEndian: unmapGranularityAlignment.map { 0x8000_0000 | $0 } ?? 0)
        page.append(bigEndian: maxWriteSameBlockCount)
        page.append(bigEndian: maxAtomicTransferBlockCount)
        page.append(bigEndian: atomicAlignment)
        page.append(bigEndian: atomicTransferGranularity)
        page.append(bigEndian: maxAtomicTransferBlockCountWithBoundary)
        page.append(bigEndian: maxAtomicBoundaryBlockCount)
        return VPDPage.blockLimits.encode(page)
    }
}

/// Page B1h: block device characteristics (SBC-4 clause 6.6.2).
public struct BlockDeviceCharacteristics: Hashable, Sendable {
    /// 0: not told. 1: the medium does not turn. 401h…FFFEh: turns per minute.
    public var mediumRotationRate: UInt16 = 0
    /// PRODUCT TYPE: what kind of card or chip; 0: not told.
    public var productType: UInt8 = 0
    /// NOMINAL FORM FACTOR, 0…15.
    public var nominalFormFactor: UInt8 = 0
    /// FUAB: SYNCHRONIZE CACHE and FUA honour each other as SBC-4 has it.
    public var forceUnitAccessBehavior = false
    /// VBULS: VERIFY checks unmapped blocks too.
    public var verifiesUnmappedBlocks = false

    /// A device that tells nothing.
    public init() {}

    /// Whether the medium is known not to turn: a solid-state drive.
    public var isNonRotating: Bool { mediumRotationRate == 1 }

    /// Nil where this is no page B1h; fields that were not received count as 0.
    public init?(parsing bytes: [UInt8]) {
        guard let page = VPDPage.blockDeviceCharacteristics.payload(bytes) else { return nil }
        mediumRotationRate = page.uint16(at: 0) ?? 0
        productType = page.byte(at: 2) ?? 0
        nominalFormFactor = (page.byte(at: 3) ?? 0) & 0x0F
        forceUnitAccessBehavior = page.bit(1, at: 4)
        verifiesUnmappedBlocks = page.bit(0, at: 4)
    }

    /// 64 bytes.
    public func encode() -> [UInt8] {
        var page: [UInt8] = []
        page.append(bigEndian: mediumRotationRate)
        page += [productType, nominalFormFactor & 0x0F]
        page.append((forceUnitAccessBehavior ? 2 : 0) | (verifiesUnmappedBlocks ? 1 : 0))
        page += [UInt8](repeating: 0, count: 60 - page.count)
        return VPDPage.blockDeviceCharacteristics.encode(page)
    }
}

/// How the device keeps room for blocks (PROVISIONING TYPE, SBC-4 table 247). An open set.
public struct ProvisioningType: RawRepresentable, Hashable, Sendable {
    /// The field's three bits.
    public var rawValue: UInt8
    /// Higher bits are dropped.
    public init(rawValue: UInt8) { self.rawValue = rawValue & 0x07 }

    /// Every block has room, or nothing is known.
    public static let fullOrUnknown = ProvisioningType(rawValue: 0)
    /// Room comes from a resource that can run out, and is not thin.
    public static let resource = ProvisioningType(rawValue: 1)
    /// Thin: blocks get room when they are written.
    public static let thin = ProvisioningType(rawValue: 2)
}

/// Page B2h: logical block provisioning (SBC-4 clause 6.6.7).
public struct LogicalBlockProvisioning: Hashable, Sendable {
    /// THRESHOLD EXPONENT: thresholds count in 2 to this power blocks; 0: there are none.
    public var thresholdExponent: UInt8 = 0
    /// LBPU.
    public var supportsUnmap = false
    /// LBPWS: WRITE SAME (16) can unmap.
    public var supportsWriteSame16Unmap = false
    /// LBPWS10: WRITE SAME (10) can unmap.
    public var supportsWriteSame10Unmap = false
    /// LBPRZ, 0…7: 1 (and any odd value) says that unmapped blocks read as zeroes.
    public var readsZeroField: UInt8 = 0
    /// ANC_SUP.
    public var supportsAnchor = false
    /// 0…31.
    public var minimumPercentage: UInt8 = 0
    /// How room is kept.
    public var type = ProvisioningType.fullOrUnknown
    /// THRESHOLD PERCENTAGE; 0: not told.
    public var thresholdPercentage: UInt8 = 0
    /// DP's descriptor, where there is one.
    public var provisioningGroup: [UInt8] = []

    /// A device that offers none of it.
    public init() {}

    /// Whether unmapped blocks read as zeroes.
    public var unmappedReadsZero: Bool { readsZeroField & 1 == 1 }

    /// Nil where this is no page B2h.
    public init?(parsing bytes: [UInt8]) {
        guard let page = VPDPage.logicalBlockProvisioning.payload(bytes) else { return nil }
        thresholdExponent = page.byte(at: 0) ?? 0
        supportsUnmap = page.bit(7, at: 1)
        supportsWriteSame16Unmap = page.bit(6, at: 1)
        supportsWriteSame10Unmap = page.bit(5, at: 1)
        readsZeroField = ((page.byte(at: 1) ?? 0) >> 2) & 0x07
        supportsAnchor = page.bit(1, at: 1)
        minimumPercentage = (page.byte(at: 2) ?? 0) >> 3
        type = ProvisioningType(rawValue: page.byte(at: 2) ?? 0)
        thresholdPercentage = page.byte(at: 3) ?? 0
        if page.bit(0, at: 1) { provisioningGroup = page.clamped(4..<max(4, page.count)) }
    }

    /// 8 bytes, and the provisioning group's descriptor where there is one.
    public func encode() -> [UInt8] {
        var flags: UInt8 = (supportsUnmap ? 0x80 : 0) | (supportsWriteSame16Unmap ? 0x40 : 0)
        flags |= (supportsWriteSame10Unmap ? 0x20 : 0) | (readsZeroField & 0x07) << 2
        flags |= (supportsAnchor ? 0x02 : 0) | (provisioningGroup.isEmpty ? 0 : 0x01)
        return VPDPage.logicalBlockProvisioning.encode(
            [thresholdExponent, flags, minimumPercentage << 3 | type.rawValue, thresholdPercentage]
                + provisioningGroup)
    }
}
