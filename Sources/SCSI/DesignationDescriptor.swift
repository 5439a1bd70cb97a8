/// What a designator names (ASSOCIATION, SPC-4 table 587).
public enum DesignatorAssociation: UInt8, Hashable, Sendable {
    /// The logical unit.
    case logicalUnit = 0
    /// The target port that answered.
    case targetPort = 1
    /// The device that has the port.
    case targetDevice = 2
    /// A value that SPC has no meaning for.
    case reserved = 3
}

/// The kind of a designator (SPC-4 table 588, SPC-5 for the UUID). An open set.
public struct DesignatorType: RawRepresentable, Hashable, Sendable {
    /// The code, four bits.
    public var rawValue: UInt8
    /// Higher bits are dropped.
    public init(rawValue: UInt8) { self.rawValue = rawValue & 0x0F }

    /// As the vendor likes.
    public static let vendorSpecific = DesignatorType(rawValue: 0x0)
    /// T10 vendor identification: eight bytes of vendor, then what the vendor keeps unique.
    public static let t10VendorID = DesignatorType(rawValue: 0x1)
    /// EUI-64 based, 8, 12 or 16 bytes.
    public static let eui64 = DesignatorType(rawValue: 0x2)
    /// NAA: a world-wide name, 8 or 16 bytes.
    public static let naa = DesignatorType(rawValue: 0x3)
    /// The port's relative identifier.
    public static let relativeTargetPort = DesignatorType(rawValue: 0x4)
    /// The port's group.
    public static let targetPortGroup = DesignatorType(rawValue: 0x5)
    /// The unit's group.
    public static let logicalUnitGroup = DesignatorType(rawValue: 0x6)
    /// An MD5 hash that names the unit.
    public static let md5LogicalUnit = DesignatorType(rawValue: 0x7)
    /// SCSI name string: `iqn.`, `naa.` or `eui.` and so on, in UTF-8.
    public static let scsiName = DesignatorType(rawValue: 0x8)
    /// What the transport has for its ports.
    public static let protocolSpecificPort = DesignatorType(rawValue: 0x9)
    /// A UUID (RFC 4122).
    public static let uuid = DesignatorType(rawValue: 0xA)
}

/// How a designator's bytes are written (CODE SET, SPC-4 table 586). An open set.
public struct DesignatorCodeSet: RawRepresentable, Hashable, Sendable {
    /// The code, four bits.
    public var rawValue: UInt8
    /// Higher bits are dropped.
    public init(rawValue: UInt8) { self.rawValue = rawValue & 0x0F }

    /// Bytes as they are.
    public static let binary = DesignatorCodeSet(rawValue: 1)
    /// Printable ASCII.
    public static let ascii = DesignatorCodeSet(rawValue: 2)
    /// UTF-8.
    public static let utf8 = DesignatorCodeSet(rawValue: 3)
}

/// One designation descriptor (SPC-4 clause 7.8.6).
public struct DesignationDescriptor: Hashable, Sendable {
    /// What it names.
    public var association: DesignatorAssociation
    /// Its kind.
    public var type: DesignatorType
    /// How its bytes are written.
    public var codeSet: DesignatorCodeSet
    /// PROTOCOL IDENTIFIER, where PIV is set: 5 is iSCSI.
    public var protocolIdentifier: UInt8?
    /// At most 255 bytes.
    public var designator: [UInt8]

    /// A descriptor.
    public init(
        association: DesignatorAssociation, type: DesignatorType, codeSet: DesignatorCodeSet,
        protocolIdentifier: UInt8? = nil, designator: [UInt8]
    ) {
        self.association = association
        self.type = type
        self.codeSet = codeSet
        self.protocolIdentifier = protocolIdentifier.map { $0 & 0x0F }
        self.designator = designator
    }

    func encode(into bytes: inout [UInt8]) {
        let designator = designator.prefix(255)
        bytes.append((protocolIdentifier ?? 0) << 4 | codeSet.rawValue)
        bytes.append((protocolIdentifier != nil ? 0x80 : 0) | association.rawValue << 4 | type.rawValue)
        bytes.append(0)
        bytes.append(UInt8(designator.count))
        bytes += designator
    }
}

/// Page 83h: the designators of a unit, its port and its device.
public struct DeviceIdentification: Hashable, Sendable {
    /// The designators, in the device's order.
    public var descriptors: [DesignationDescriptor]
    /// A page with these designators.
    public init(descriptors: [DesignationDescriptor]) { self.descriptors = descriptors }

    /// Nil where this is no page 83h. A descriptor that runs past the end ends the list.
    public init?(parsing bytes: [UInt8]) {
        guard let payload = VPDPage.deviceIdentification.payload(bytes) else { return nil }
        descriptors = []
        var offset = 0
        while let count = payload.byte(at: offset + 3), payload.count - offset - 4 >= Int(count) {
            let first = payload[offset]
            let second = payload[offset + 1]
            descriptors.append(
                DesignationDescriptor(
                    association: DesignatorAssociation(rawValue: (second >> 4) & 0x03) ?? .reserved,
                    type: DesignatorType(rawValue: second), codeSet: DesignatorCodeSet(rawValue: first),
                    protocolIdentifier: second & 0x80 != 0 ? first >> 4 : nil,
                    designator: Array(payload[(offset + 4)..<(offset + 4 + Int(count))])))
            offset += 4 + Int(count)
        }
    }

    /// The page with its header.
    public func encode() -> [UInt8] {
        var payload: [UInt8] = []
        for descriptor in descriptors { descriptor.encode(into: &payload) }
        return VPDPage.deviceIdentification.encode(payload)
    }

    /// The relative identifier (1…65,535) of the port that answered.
    public var relativeTargetPort: UInt16? { portNumber(.relativeTargetPort) }

    /// The target port group of the port that answered.
    public var targetPortGroup: UInt16? { portNumber(.targetPortGroup) }

    /// Both port designators are 4 bytes, the number in the last two.
    private func portNumber(_ type: DesignatorType) -> UInt16? {
        descriptors.lazy
            .filter { $0.association == .targetPort && $0.type == type && $0.designator.count == 4 }
            .compactMap { $0.designator.uint16(at: 2) }.first
    }
}

extension DesignationDescriptor {
    /// The relative identifier of the target port that answers.
    public static func relativeTargetPort(_ number: UInt16) -> Self { port(.relativeTargetPort, number) }

    /// The group of the target port that answers.
    public static func targetPortGroup(_ number: UInt16) -> Self { port(.targetPortGroup, number) }

    private static func port(_ type: DesignatorType, _ number: UInt16) -> Self {
        Self(
            association: .targetPort, type: type, codeSet: .binary,
            designator: [0, 0, UInt8(number >> 8), UInt8(truncatingIfNeeded: number)])
    }
}
