/// How a device takes part in asymmetric logical unit access (TPGS, SPC-4 table 175).
@frozen
public struct TargetPortGroupSupport: OptionSet, Hashable, Sendable {
    /// The field's two bits.
    public var rawValue: UInt8
    /// By its bits.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The target changes states by itself.
    public static let implicit = TargetPortGroupSupport(rawValue: 1)
    /// The initiator may change them with SET TARGET PORT GROUPS.
    public static let explicit = TargetPortGroupSupport(rawValue: 2)
}

/// Standard INQUIRY data (SPC-4 clause 6.6.2).
public struct InquiryData: Hashable, Sendable {
    /// 0: a unit is there. 1: the port could have one but has not. 3: it cannot.
    public var peripheralQualifier: UInt8
    /// 00h: direct-access block device. 0…31.
    public var deviceType: UInt8
    /// RMB: the medium can be taken out.
    public var isRemovable: Bool
    /// The SPC version: 05h SPC-3, 06h SPC-4, 07h SPC-5.
    public var version: UInt8
    /// HISUP: LUNs may be addressed as SAM's hierarchy has it.
    public var supportsHierarchy: Bool
    /// TPGS: how the unit does ALUA.
    public var targetPortGroupSupport: TargetPortGroupSupport
    /// 3PC: third-party copy.
    public var supportsThirdPartyCopy: Bool
    /// PROTECT: protection information may be used.
    public var supportsProtection: Bool
    /// MULTIP: the unit is reached through several ports.
    public var isMultiPort: Bool
    /// CMDQUE: tasks may be queued.
    public var supportsCommandQueuing: Bool
    /// Texts without padding; bytes that are no printable ASCII are written `\xNN`.
    public var vendor: String
    /// As ``vendor``.
    public var product: String
    /// As ``vendor``.
    public var revision: String
    /// Up to eight standards, by their version descriptors.
    public var versionDescriptors: [UInt16]

    /// The data of a unit; what is not given is what a plain block device says.
    public init(
        peripheralQualifier: UInt8 = 0, deviceType: UInt8 = 0, isRemovable: Bool = false, version: UInt8 = 6,
        supportsHierarchy: Bool = true, targetPortGroupSupport: TargetPortGroupSupport = [],
        supportsThirdPartyCopy: Bool = false, supportsProtection: Bool = false, isMultiPort: Bool = false,
        supportsCommandQueuing: Bool = true, vendor: String, product: String, revision: String,
        versionDescriptors: [UInt16] = []
    ) {
        self.peripheralQualifier = peripheralQualifier & 0x07
        self.deviceType = deviceType & 0x1F
        self.isRemovable = isRemovable
        self.version = version
        self.supportsHierarchy = supportsHierarchy
        self.targetPortGroupSupport = targetPortGroupSupport
        self.supportsThirdPartyCopy = supportsThirdPartyCopy
        self.supportsProtection = supportsProtection
        self.isMultiPort = isMultiPort
        self.supportsCommandQueuing = supportsCommandQueuing
        self.vendor = vendor
        self.product = product
        self.revision = revision
        self.versionDescriptors = versionDescriptors
    }

    /// Nil below 5 bytes. Fields past the end, or past what ADDITIONAL LENGTH covers, are empty.
    public init?(parsing received: [UInt8]) {
        guard received.count >= 5 else { return nil }
        let bytes = received.clamped(0..<(5 + Int(received[4])))
        self.init(
            peripheralQualifier: bytes[0] >> 5, deviceType: bytes[0], isRemovable: bytes.bit(7, at: 1),
            version: bytes[2], supportsHierarchy: bytes.bit(4, at: 3),
            targetPortGroupSupport: TargetPortGroupSupport(rawValue: ((bytes.byte(at: 5) ?? 0) >> 4) & 0x03),
            supportsThirdPartyCopy: bytes.bit(3, at: 5), supportsProtection: bytes.bit(0, at: 5),
            isMultiPort: bytes.bit(4, at: 6), supportsCommandQueuing: bytes.bit(1, at: 7),
            vendor: DeviceText.decode(bytes.clamped(8..<16)),
            product: DeviceText.decode(bytes.clamped(16..<32)),
            revision: DeviceText.decode(bytes.clamped(32..<36)),
            versionDescriptors: stride(from: 58, to: 74, by: 2).compactMap { bytes.uint16(at: $0) }
                .filter { $0 != 0 })
    }

    /// A logical unit is there and is a direct-access block device.
    public var isBlockDevice: Bool { peripheralQualifier == 0 && deviceType == 0 }

    /// 74 bytes; the target cuts them at the allocation length.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = [peripheralQualifier << 5 | deviceType & 0x1F, isRemovable ? 0x80 : 0, version]
        bytes.append((supportsHierarchy ? 0x10 : 0) | 0x02)
        bytes.append(74 - 5)
        bytes.append(
            targetPortGroupSupport.rawValue << 4 & 0x30 | (supportsThirdPartyCopy ? 0x08 : 0)
                | (supportsProtection ? 0x01 : 0))
        bytes.append(isMultiPort ? 0x10 : 0)
        bytes.append(supportsCommandQueuing ? 0x02 : 0)
        bytes += DeviceText.encode(vendor, width: 8)
        bytes += DeviceText.encode(product, width: 16)
        bytes += DeviceText.encode(revision, width: 4)
        bytes += [UInt8](repeating: 0, count: 22)
        for index in 0..<8 {
            bytes.append(bigEndian: index < versionDescriptors.count ? versionDescriptors[index] : 0)
        }
        return bytes
    }
}
