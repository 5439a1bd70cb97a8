/// Text that a device says about itself (SPC-4 clause 4.4.1: ASCII, left-aligned, space-padded).
///
/// Devices are not trusted: what is no printable ASCII becomes `\xNN`, and so does the backslash, so
/// that different bytes never give the same text and nothing can steer a terminal.
enum DeviceText {
    static func decode(_ bytes: some Sequence<UInt8>) -> String {
        var trimmed = Array(bytes)
        while let last = trimmed.last, last == 0x20 || last == 0x00 { trimmed.removeLast() }
        var text = ""
        // Serial numbers are often right-aligned; the padding says nothing.
        for byte in trimmed.drop(while: { $0 == 0x20 || $0 == 0x00 }) {
            if byte >= 0x20, byte < 0x7F, byte != 0x5C {
                text.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                text += "\\x" + hex(byte)
            }
        }
        return text
    }

    /// `text` in a field of `width` bytes: cut or padded with spaces; other than printable ASCII
    /// becomes a question mark.
    static func encode(_ text: String, width: Int) -> [UInt8] {
        var bytes = text.utf8.prefix(width).map { $0 >= 0x20 && $0 < 0x7F ? $0 : 0x3F }
        bytes.append(contentsOf: repeatElement(0x20, count: width - bytes.count))
        return bytes
    }

    static func hex(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16)
        return digits.count < 2 ? "0" + digits : digits
    }

    static func hex(_ bytes: some Sequence<UInt8>) -> String {
        bytes.reduce(into: "") { $0 += hex($1) }
    }

    /// `value` in exactly `digits` lowercase hexadecimal digits.
    static func hex(_ value: UInt64, digits: Int) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }

    static func hexValue(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x41 + 10
        case 0x61...0x66: digit - 0x61 + 10
        default: nil
        }
    }

    /// The bytes that an even number of hexadecimal digits stands for; nil for anything else.
    static func bytes(fromHex text: some StringProtocol) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(digits.count / 2)
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = hexValue(digits[index]), let low = hexValue(digits[index + 1]) else { return nil }
            bytes.append(high << 4 | low)
        }
        return bytes
    }
}
