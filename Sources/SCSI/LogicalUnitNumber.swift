/// A logical unit number in its eight-byte form (SAM-5 clause 4.7), as CDBs' transports carry it.
@frozen
public struct LogicalUnitNumber: Hashable, Sendable {
    /// The eight bytes, big-endian: the first addressing level is in the top 16 bits.
    public var rawValue: UInt64

    /// A number by its eight bytes.
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Unit `index` (0…16,383) addressed at one level: peripheral device addressing up to 255, flat
    /// space addressing past it (SAM-5 clauses 4.7.7.2 and 4.7.7.3).
    @inlinable
    public init?(index: Int) {
        switch index {
        case 0...255: rawValue = UInt64(index) << 48
        case 256...16_383: rawValue = (0x4000 | UInt64(index)) << 48
        default: return nil
        }
    }

    /// The unit's number where it is addressed at one level, by peripheral (bus 0) or flat addressing.
    @inlinable
    public var index: Int? {
        guard rawValue & 0x0000_FFFF_FFFF_FFFF == 0 else { return nil }
        let level = rawValue >> 48
        switch level >> 14 {
        case 0: return level < 256 ? Int(level) : nil
        case 1: return Int(level & 0x3FFF)
        default: return nil
        }
    }
}

extension LogicalUnitNumber: LosslessStringConvertible {
    /// The index in decimal where the number is the one that `init(index:)` makes of it; otherwise (other
    /// addressing methods, several levels) `0x` and all sixteen hexadecimal digits.
    public var description: String {
        if let index, LogicalUnitNumber(index: index) == self { return String(index) }
        return "0x" + DeviceText.hex(rawValue, digits: 16)
    }

    /// Reads the text form. Fewer hexadecimal digits than sixteen, or an index over 16,383, are refused: a
    /// shortened structured number could be meant either way.
    public init?(_ text: String) {
        if text.hasPrefix("0x") || text.hasPrefix("0X") {
            let digits = text.dropFirst(2)
            guard digits.utf8.count == 16, let value = DeviceText.bytes(fromHex: digits)?.uint64(at: 0) else {
                return nil
            }
            self.init(rawValue: value)
        } else {
            let isDecimal = text.utf8.allSatisfy { 0x30...0x39 ~= $0 }
            guard isDecimal, let index = Int(text), let lun = LogicalUnitNumber(index: index) else { return nil }
            self = lun
        }
    }
}
