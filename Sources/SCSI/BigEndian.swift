// Bounds-checked big-endian access to parameter data. Every reader answers nil past the end, so that
// a parser which forgets a length check can still not trap.

extension UnsafeRawBufferPointer {
    func byte(at offset: Int) -> UInt8? {
        offset >= 0 && offset < count ? self[offset] : nil
    }

    /// The field of `width` (1…8) bytes at `offset`.
    func bigEndian(at offset: Int, width: Int) -> UInt64? {
        guard offset >= 0, width <= count, offset <= count - width else { return nil }
        var value: UInt64 = 0
        for index in offset..<(offset + width) { value = value << 8 | UInt64(self[index]) }
        return value
    }
}

extension [UInt8] {
    func byte(at offset: Int) -> UInt8? {
        offset >= 0 && offset < count ? self[offset] : nil
    }

    func bit(_ bit: UInt8, at offset: Int) -> Bool { ((byte(at: offset) ?? 0) >> bit) & 1 == 1 }

    func bigEndian(at offset: Int, width: Int) -> UInt64? {
        guard offset >= 0, width <= count, offset <= count - width else { return nil }
        var value: UInt64 = 0
        for index in offset..<(offset + width) { value = value << 8 | UInt64(self[index]) }
        return value
    }

    func uint16(at offset: Int) -> UInt16? { bigEndian(at: offset, width: 2).map(UInt16.init) }
    func uint32(at offset: Int) -> UInt32? { bigEndian(at: offset, width: 4).map(UInt32.init) }
    func uint64(at offset: Int) -> UInt64? { bigEndian(at: offset, width: 8) }

    /// The bytes of `range` that exist.
    func clamped(_ range: Range<Int>) -> [UInt8] { Array(self[range.clamped(to: 0..<count)]) }

    mutating func append<Value: FixedWidthInteger>(bigEndian value: Value) {
        for shift in stride(from: Value.bitWidth - 8, through: 0, by: -8) {
            append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }

    /// Overwrites bytes that must exist.
    mutating func store<Value: FixedWidthInteger>(bigEndian value: Value, at offset: Int) {
        let width = Value.bitWidth / 8
        for index in 0..<width {
            self[offset + index] = UInt8(truncatingIfNeeded: value >> Value(8 * (width - 1 - index)))
        }
    }
}

extension FixedWidthInteger {
    /// The value, or the largest one that `Other` can hold: the length fields of answers saturate.
    func saturated<Other: FixedWidthInteger>(to _: Other.Type) -> Other { Other(clamping: self) }
}
