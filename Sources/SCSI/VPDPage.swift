/// The number of a vital product data page (SPC-4 clause 7.8). An open set.
public struct VPDPage: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    public static let supportedPages = VPDPage(rawValue: 0x00)
    public static let unitSerialNumber = VPDPage(rawValue: 0x80)
    public static let deviceIdentification = VPDPage(rawValue: 0x83)
    public static let extendedInquiry = VPDPage(rawValue: 0x86)
    public static let modePagePolicy = VPDPage(rawValue: 0x87)
    public static let blockLimits = VPDPage(rawValue: 0xB0)
    public static let blockDeviceCharacteristics = VPDPage(rawValue: 0xB1)
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
    public var pages: [VPDPage]
    public init(pages: [VPDPage]) { self.pages = pages }

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
    public init(serial: String) { self.serial = serial }

    public init?(parsing bytes: [UInt8]) {
        guard let payload = VPDPage.unitSerialNumber.payload(bytes) else { return nil }
        serial = DeviceText.decode(payload)
    }

    public func encode() -> [UInt8] {
        VPDPage.unitSerialNumber.encode(DeviceText.encode(serial, width: min(serial.utf8.count, 252)))
    }
}
