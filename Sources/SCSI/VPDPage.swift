/// The number of a vital product data page (SPC-4 clause 7.8). An open set.
public struct VPDPage: RawRepresentable, Hashable, Sendable {
    /// The number.
    public var rawValue: UInt8
    /// A page by its number.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// 00h: the pages that there are.
    public static let supportedPages = VPDPage(rawValue: 0x00)
    /// 80h: the unit's serial number.
    public static let unitSerialNumber = VPDPage(rawValue: 0x80)
    /// 83h: the unit's, port's and device's names.
    public static let deviceIdentification = VPDPage(rawValue: 0x83)
    /// 86h: extended INQUIRY data.
    public static let extendedInquiry = VPDPage(rawValue: 0x86)
    /// 87h: mode page policy.
    public static let modePagePolicy = VPDPage(rawValue: 0x87)
    /// B0h: block limits.
    public static let blockLimits = VPDPage(rawValue: 0xB0)
    /// B1h: block device characteristics.
    public static let blockDeviceCharacteristics = VPDPage(rawValue: 0xB1)
    /// B2h: logical block provisioning.
    public static let logicalBlockProvisioning = VPDPage(rawValue: 0xB2)

    /// How many bytes the device has for the page that `bytes` begin (they must be 4 at least), header
    /// included: more than were received where the allocation length was too small.
    public static func declaredByteCount(_ bytes: [UInt8]) -> Int? {
        bytes.uint16(at: 2).map { 4 + Int($0) }
    }

    /// The page's payload, as far as it was received; nil where this is another page or no page.
    func payload(_ bytes: [UInt8]) -> [UInt8]? {
        guard bytes.byte(at: 1) == rawValue, let count = VPDPage.declaredByteCount(bytes) else { return nil }
        return bytes.clamped(4..<count)
    }

    /// A page of a direct-access device (or `deviceByte`: qualifier and type) around `payload`.
    func encode(_ payload: [UInt8], deviceByte: UInt8 = 0) -> [UInt8] {
        var bytes: [UInt8] = [deviceByte, rawValue]
        bytes.append(bigEndian: payload.count.saturated(to: UInt16.self))
        return bytes + payload.prefix(Int(UInt16.max))
    }
}

/// Page 00h: which pages there are.
public struct SupportedVPDPages: Hashable, Sendable {
    /// The pages' numbers.
    public var pages: [VPDPage]
    /// A list of these pages.
    public init(pages: [VPDPage]) { self.pages = pages }

    /// Nil where this is no page 00h.
    public init?(parsing bytes: [UInt8]) {
        guard let payload = VPDPage.supportedPages.payload(bytes) else { return nil }
        pages = payload.map(VPDPage.init(rawValue:))
    }

    /// In ascending order, as SPC-4 clause 7.8.18 asks.
    public func encode() -> [UInt8] {
        VPDPage.supportedPages.encode(pages.map(\.rawValue).sorted())
    }
}

/// Page 80h: the unit's serial number.
public struct UnitSerialNumber: Hashable, Sendable {
    /// Without padding; bytes that are no printable ASCII are written `\xNN`.
    public var serial: String
    /// A serial number.
    public init(serial: String) { self.serial = serial }

    /// Nil where this is no page 80h.
    public init?(parsing bytes: [UInt8]) {
        guard let payload = VPDPage.unitSerialNumber.payload(bytes) else { return nil }
        serial = DeviceText.decode(payload)
    }

    /// Header and text.
    public func encode() -> [UInt8] {
        VPDPage.unitSerialNumber.encode(DeviceText.encode(serial, width: min(serial.utf8.count, 252)))
    }
}
