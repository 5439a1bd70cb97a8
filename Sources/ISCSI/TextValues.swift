/// Values as text keys spell them (RFC 7143 section 6.1).
public enum TextValue {
    /// A decimal number or a hexadecimal one (0x…) of up to 64 bits.
    public static func number(_ text: String) -> UInt64? {
        let digits = Array(text.utf8)
        if digits.count > 2, digits[0] == 0x30, digits[1] | 0x20 == UInt8(ascii: "x") {
            guard digits.count <= 18 else { return nil }
            var value: UInt64 = 0
            for digit in digits.dropFirst(2) {
                guard let nibble = nibble(digit) else { return nil }
                value = value << 4 | UInt64(nibble)
            }
            return value
        }
        guard !digits.isEmpty, digits.count <= 20 else { return nil }
        var value: UInt64 = 0
        for digit in digits {
            guard (0x30...0x39).contains(digit) else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carried) = product.addingReportingOverflow(UInt64(digit - 0x30))
            guard !overflow, !carried else { return nil }
            value = sum
        }
        return value
    }

    /// `Yes` or `No`.
    public static func boolean(_ text: String) -> Bool? {
        switch text {
        case "Yes": true
        case "No": false
        default: nil
        }
    }

    public static func text(_ value: Bool) -> String { value ? "Yes" : "No" }

    /// A comma-separated list; empty elements stay, so that they match nothing.
    public static func list(_ text: String) -> [Substring] {
        text.split(separator: ",", omittingEmptySubsequences: false)
    }

    /// A large binary value, hexadecimal (0x…) or base64 (0b…), of at most `limit` bytes. An odd number of
    /// hexadecimal digits is read as if a 0 stood before them.
    public static func binary(_ text: String, limit: Int) -> [UInt8]? {
        let characters = Array(text.utf8)
        guard characters.count > 2, characters[0] == 0x30 else { return nil }
        switch characters[1] | 0x20 {
        case UInt8(ascii: "x"): return hexadecimal(characters[2...], limit: limit)
        case UInt8(ascii: "b"): return base64(characters[2...], limit: limit)
        default: return nil
        }
    }

    /// 0x and lower-case digits, two for each byte.
    public static func hexadecimal(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = [UInt8(ascii: "0"), UInt8(ascii: "x")]
        text.reserveCapacity(2 + 2 * bytes.count)
        for byte in bytes {
            text.append(digit(byte >> 4))
            text.append(digit(byte & 0xF))
        }
        return String(decoding: text, as: UTF8.self)
    }

    private static func digit(_ nibble: UInt8) -> UInt8 {
        nibble < 10 ? 0x30 + nibble : UInt8(ascii: "a") + nibble - 10
    }

    private static func nibble(_ character: UInt8) -> UInt8? {
        switch character {
        case 0x30...0x39: character - 0x30
        case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    private static func hexadecimal(_ digits: ArraySlice<UInt8>, limit: Int) -> [UInt8]? {
        guard (digits.count + 1) / 2 <= limit else { return nil }
        var bytes: [UInt8] = []
        var high: UInt8? = digits.count % 2 == 1 ? 0 : nil
        for digit in digits {
            guard let low = nibble(digit) else { return nil }
            if let first = high {
                bytes.append(first << 4 | low)
                high = nil
            } else {
                high = low
            }
        }
        return bytes
    }

    /// RFC 4648 section 4. Padding may be left out; bits that a last character has too many must be 0.
    private static func base64(_ characters: ArraySlice<UInt8>, limit: Int) -> [UInt8]? {
        var digits = characters
        while digits.last == UInt8(ascii: "="), characters.count - digits.count < 2 { digits = digits.dropLast() }
        let padding = characters.count - digits.count
        guard padding == 0 || characters.count % 4 == 0, digits.count % 4 != 1, digits.count * 3 / 4 <= limit else { return nil }
        var bytes: [UInt8] = []
        var accumulator: UInt32 = 0
        var bits = 0
        for digit in digits {
            guard let sextet = sextet(digit) else { return nil }
            accumulator = accumulator << 6 | UInt32(sextet)
            bits += 6
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: accumulator >> UInt32(bits)))
                accumulator &= (1 << UInt32(bits)) - 1
            }
        }
        return accumulator == 0 ? bytes : nil
    }

    private static func sextet(_ character: UInt8) -> UInt8? {
        switch character {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): character - UInt8(ascii: "A")
        case UInt8(ascii: "a")...UInt8(ascii: "z"): character - UInt8(ascii: "a") + 26
        case 0x30...0x39: character - 0x30 + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: nil
        }
    }
}
