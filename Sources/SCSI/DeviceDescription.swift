/// What one path says about the logical unit behind it. The paths of one disk must agree in all that
/// `mismatch(with:)` compares.
public struct DeviceDescription: Hashable, Sendable {
    /// Nil where the device gave no name that can be trusted to be unique.
    public var identity: LogicalUnitIdentity?
    /// Texts without padding; bytes that are no printable ASCII are written `\xNN`.
    public var vendor: String
    /// As ``vendor``.
    public var product: String
    /// As ``vendor``.
    public var revision: String
    /// Page 80h; empty where there is none.
    public var serial: String
    /// In bytes, never 0.
    public var blockSize: UInt32
    /// 1 at least.
    public var blockCount: UInt64
    /// A physical block is 2 to this power logical blocks.
    public var physicalBlockExponent: UInt8
    /// The first LBA that begins a physical block.
    public var lowestAlignedLBA: UInt16
    /// The medium is formatted with protection information.
    public var isProtectionEnabled: Bool
    /// LBPME: blocks can be unmapped.
    public var isThinlyProvisioned: Bool
    /// Unmapped blocks read as zeroes.
    public var unmappedReadsZero: Bool
    /// Whether writes are refused (WP of the mode parameters).
    public var isWriteProtected: Bool
    /// Whether the medium is known not to turn.
    public var isNonRotating: Bool
    /// Nil where the device has no page B0h: no limit is known.
    public var blockLimits: BlockLimits?
    /// Nil where the device has no page B2h.
    public var provisioning: LogicalBlockProvisioning?
    /// How the unit does ALUA; empty: not at all.
    public var targetPortGroupSupport: TargetPortGroupSupport
    /// Of the port that answered.
    public var targetPortGroup: UInt16?
    /// Of the port that answered.
    public var relativeTargetPort: UInt16?

    /// A description of these facts; what is not given is unknown or off.
    public init(
        identity: LogicalUnitIdentity?, vendor: String = "", product: String = "", revision: String = "",
        serial: String = "", blockSize: UInt32, blockCount: UInt64, physicalBlockExponent: UInt8 = 0,
        lowestAlignedLBA: UInt16 = 0, isProtectionEnabled: Bool = false, isThinlyProvisioned: Bool = false,
        unmappedReadsZero: Bool = false, isWriteProtected: Bool = false, isNonRotating: Bool = false,
        blockLimits: BlockLimits? = nil, provisioning: LogicalBlockProvisioning? = nil,
        targetPortGroupSupport: TargetPortGroupSupport = [], targetPortGroup: UInt16? = nil,
        relativeTargetPort: UInt16? = nil
    ) {
        self.identity = identity
        self.vendor = vendor
        self.product = product
        self.revision = revision
        self.serial = serial
        self.blockSize = blockSize
        self.blockCount = blockCount
        self.physicalBlockExponent = physicalBlockExponent
        self.lowestAlignedLBA = lowestAlignedLBA
        self.isProtectionEnabled = isProtectionEnabled
        self.isThinlyProvisioned = isThinlyProvisioned
        self.unmappedReadsZero = unmappedReadsZero
        self.isWriteProtected = isWriteProtected
        self.isNonRotating = isNonRotating
        self.blockLimits = blockLimits
        self.provisioning = provisioning
        self.targetPortGroupSupport = targetPortGroupSupport
        self.targetPortGroup = targetPortGroup
        self.relativeTargetPort = relativeTargetPort
    }

    /// What the answers of one path come to. `capacity` is that of READ CAPACITY (16), or made of READ CAPACITY (10)'s numbers;
    /// `isWriteProtected` is WP of a MODE SENSE; `targetName` names the target that was asked, for units without a better identity.
    public init(
        inquiry: InquiryData, capacity: ReadCapacity16Data, identification: DeviceIdentification? = nil,
        unitSerial: UnitSerialNumber? = nil, blockLimits: BlockLimits? = nil,
        characteristics: BlockDeviceCharacteristics? = nil, provisioning: LogicalBlockProvisioning? = nil,
        isWriteProtected: Bool = false, targetName: String? = nil
    ) {
        self.init(
            identity: LogicalUnitIdentity.best(
                designators: identification?.descriptors ?? [], unitSerial: unitSerial?.serial,
                vendor: inquiry.vendor, product: inquiry.product, targetName: targetName),
            vendor: inquiry.vendor, product: inquiry.product, revision: inquiry.revision,
            serial: unitSerial?.serial ?? "", blockSize: capacity.blockSize, blockCount: capacity.blockCount,
            physicalBlockExponent: capacity.physicalBlockExponent, lowestAlignedLBA: capacity.lowestAlignedLBA,
            isProtectionEnabled: capacity.isProtectionEnabled, isThinlyProvisioned: capacity.isThinlyProvisioned,
            unmappedReadsZero: capacity.unmappedReadsZero || provisioning?.unmappedReadsZero == true,
            isWriteProtected: isWriteProtected, isNonRotating: characteristics?.isNonRotating == true,
            blockLimits: blockLimits, provisioning: provisioning,
            targetPortGroupSupport: inquiry.targetPortGroupSupport,
            targetPortGroup: identification?.targetPortGroup,
            relativeTargetPort: identification?.relativeTargetPort)
    }

    /// In bytes; the largest number where the product does not fit (`ReadCapacity16Data` lets none such in).
    public var capacity: UInt64 {
        let (bytes, overflow) = blockCount.multipliedReportingOverflow(by: UInt64(blockSize))
        return overflow ? .max : bytes
    }
}

/// Why two paths can't lead to one disk.
public enum DeviceMismatch: Hashable, Sendable {
    /// The identities differ, or one has none.
    case identity(expected: LogicalUnitIdentity?, found: LogicalUnitIdentity?)
    /// Page 80h, under one T10 vendor identification.
    case serial(expected: String, found: String, LogicalUnitIdentity)
    /// In bytes.
    case blockSize(expected: UInt32, found: UInt32)
    /// In blocks.
    case blockCount(expected: UInt64, found: UInt64)
}

extension DeviceMismatch: CustomStringConvertible {
    /// In words, with both values.
    public var description: String {
        switch self {
        case .identity(let expected, let found):
            "identity is \(found?.description ?? "unknown"), expected \(expected?.description ?? "unknown")"
        case .serial(let expected, let found, let identity):
            "serial number is \(found), expected \(expected) (both call themselves \(identity))"
        case .blockSize(let expected, let found): "block size is \(found) bytes, expected \(expected)"
        case .blockCount(let expected, let found): "capacity is \(found) blocks, expected \(expected)"
        }
    }
}

extension DeviceDescription {
    /// Why `other` is another disk than this one, or no longer the same; nil where they agree.
    public func mismatch(with other: DeviceDescription) -> DeviceMismatch? {
        if identity != other.identity { return .identity(expected: identity, found: other.identity) }
        // A T10 vendor identification is whatever somebody typed, or a target's default: unrelated units of two tgtd
        // are both "IET     00010001". There the serial number has a say as well.
        if case .t10(let text)? = identity, !serial.isEmpty, !other.serial.isEmpty, serial != other.serial {
            return .serial(expected: serial, found: other.serial, .t10(text))
        }
        if blockSize != other.blockSize { return .blockSize(expected: blockSize, found: other.blockSize) }
        if blockCount != other.blockCount { return .blockCount(expected: blockCount, found: other.blockCount) }
        return nil
    }
}
