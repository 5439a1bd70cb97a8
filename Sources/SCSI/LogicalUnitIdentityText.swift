// The text form, as the policy file and `mpio paths` use it.

extension LogicalUnitIdentity: CustomStringConvertible {
    /// `naa.…`, `eui.…`, `uuid.…`, `name.…`, `t10.…`, `serial.VENDOR:PRODUCT:SERIAL` or
    /// `local.NAA:TARGET`. Hexadecimal in lower case; in texts, what is no visible ASCII (and `%`, and `:`
    /// where it separates) is written `%NN`.
    public var description: String {
        switch self {
        case .naa6(let high, let low): "naa." + Self.hex(high) + Self.hex(low)
        case .naa5(let value), .naa2(let value): "naa." + Self.hex(value)
        case .eui64(let identifier): "eui." + DeviceText.hex(identifier.bytes)
        case .uuid(let high, let low): "uuid." + Self.uuidText(high: high, low: low)
        case .scsiName(let name): "name." + Self.escape(name.utf8, colon: false)
        case .t10(let bytes): "t10." + Self.escape(bytes, colon: false)
        case .serial(let vendor, let product, let serial):
            "serial." + [vendor, product, serial].map { Self.escape($0.utf8, colon: true) }.joined(separator: ":")
        case .local(let value, let targetName):
            "local." + Self.hex(value) + ":" + Self.escape(targetName.utf8, colon: false)
        }
    }

    private static func hex(_ value: UInt64) -> String { DeviceText.hex(value, digits: 16) }

    private static func uuidText(high: UInt64, low: UInt64) -> String {
        let digits = Array(hex(high) + hex(low))
        return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(digits[$0]) }.joined(separator: "-")
    }

    private static func escape(_ bytes: some Sequence<UInt8>, colon: Bool) -> String {
        var text = ""
        for byte in bytes {
            if byte > 0x20, byte < 0x7F, byte != 0x25, !(colon && byte == 0x3A) {
                text.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                text += "%" + DeviceText.hex(byte)
            }
        }
        return text
    }
}

extension LogicalUnitIdentity: LosslessStringConvertible {
    /// Reads the text form; hexadecimal digits of either case, a UUID with or without its hyphens, and
    /// spaces that were not escaped. Nil for anything else.
    public init?(_ text: String) {
        guard let dot = text.firstIndex(of: ".") else { return nil }
        let rest = text[text.index(after: dot)...]
        let parsed: LogicalUnitIdentity? =
            switch text[..<dot] {
            case "naa": Self.parse(hex: rest, as: .naa)
            case "eui": Self.parse(hex: rest, as: .eui64)
            case "uuid": Self.parse(uuid: rest)
            case "name": Self.parse(name: rest)
            case "t10": Self.unescape(rest).flatMap { Self.parse($0, as: .t10VendorID) }
            case "serial": Self.parse(serial: rest)
            case "local": Self.parse(local: rest)
            default: nil
            }
        guard let parsed else { return nil }
        self = parsed
    }

    private static func parse(_ bytes: [UInt8], as type: DesignatorType) -> LogicalUnitIdentity? {
        LogicalUnitIdentity(
            designator: DesignationDescriptor(
                association: .logicalUnit, type: type, codeSet: .binary, designator: bytes))
    }

    private static func parse(hex text: Substring, as type: DesignatorType) -> LogicalUnitIdentity? {
        DeviceText.bytes(fromHex: text).flatMap { parse($0, as: type) }
    }

    private static func parse(uuid text: Substring) -> LogicalUnitIdentity? {
        let characters = Array(text.utf8)
        if characters.contains(0x2D) {
            // Hyphens belong in four places and nowhere else.
            let places = characters.indices.filter { characters[$0] == 0x2D }
            guard characters.count == 36, places == [8, 13, 18, 23] else { return nil }
        }
        guard let bytes = DeviceText.bytes(fromHex: text.filter { $0 != "-" }), bytes.count == 16 else { return nil }
        return parse([0x10, 0] + bytes, as: .uuid)
    }

    private static func parse(name text: Substring) -> LogicalUnitIdentity? {
        unescape(text).flatMap { parse($0, as: .scsiName) }
    }

    private static func parse(serial text: Substring) -> LogicalUnitIdentity? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 3, !parts[2].isEmpty else { return nil }
        let texts = parts.compactMap { unescape($0) }.compactMap { String(validating: $0, as: UTF8.self) }
        guard texts.count == 3 else { return nil }
        return .serial(vendor: texts[0], product: texts[1], serial: texts[2])
    }

    private static func parse(local text: Substring) -> LogicalUnitIdentity? {
        guard let colon = text.firstIndex(of: ":"),
            let value = DeviceText.bytes(fromHex: text[..<colon]), value.count == 8,
            let number = value.uint64(at: 0), number >> 60 == 3, number << 4 != 0,
            let name = unescape(text[text.index(after: colon)...]).flatMap({ String(validating: $0, as: UTF8.self) }),
            !name.isEmpty
        else { return nil }
        return .local(number, targetName: name)
    }

    /// Nil for a `%` without two hexadecimal digits.
    private static func unescape(_ text: Substring) -> [UInt8]? {
        var bytes: [UInt8] = []
        var characters = text.utf8.makeIterator()
        while let character = characters.next() {
            guard character == 0x25 else {
                bytes.append(character)
                continue
            }
            guard let high = characters.next().flatMap(DeviceText.hexValue),
                let low = characters.next().flatMap(DeviceText.hexValue)
            else { return nil }
            bytes.append(high << 4 | low)
        }
        return bytes
    }
}
