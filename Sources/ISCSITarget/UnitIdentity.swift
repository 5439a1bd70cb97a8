/// Identities for units that were given none, the same at each start: an initiator must find its LUN again.
enum UnitIdentity {
    /// Sixteen hexadecimal digits that depend on the target's name and the unit's number.
    static func serial(targetName: String, number: Int) -> String {
        let digits = String(hash("\(targetName),\(number)", seed: 0xCBF2_9CE4_8422_2325), radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// NAA 6 (SPC-4 clause 7.8.6.6.5) under a company identifier from the range that IEEE leaves to
    /// local administration (second bit of its first byte), 100 bits from the serial number.
    static func naa6(serial: String) -> [UInt8] {
        let high = hash(serial, seed: 0xCBF2_9CE4_8422_2325)
        let low = hash(serial, seed: 0x9E37_79B9_7F4A_7C15)
        var bytes: [UInt8] = [0x60, 0x26, 0xD1, 0x00]
        bytes[3] = UInt8(truncatingIfNeeded: high >> 56) & 0x0F | 0x70
        bytes.append32(UInt32(truncatingIfNeeded: high))
        bytes.append64(low)
        return bytes
    }

    /// FNV-1a over 64 bits, mixed at the end.
    private static func hash(_ text: String, seed: UInt64) -> UInt64 {
        var value = seed
        for byte in text.utf8 { value = (value ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        value ^= value >> 33
        value = value &* 0xFF51_AFD7_ED55_8CCD
        return value ^ value >> 33
    }
}
