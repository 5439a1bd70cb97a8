/// A command descriptor block of up to 16 bytes, as it goes on the wire (SPC-4 clause 4.2.5).
@frozen
public struct CommandDescriptorBlock: Sendable {
    public var bytes: InlineArray<16, UInt8>
    /// 6, 10, 12 or 16.
    public var count: UInt8

    /// An all-zero block with this operation code; its length follows from the code's group
    /// (SPC-4 table 23), 16 for groups whose length is vendor specific.
    @inlinable
    public init(operationCode: UInt8) {
        bytes = InlineArray(repeating: 0)
        bytes[0] = operationCode
        switch operationCode >> 5 {
        case 0: count = 6
        case 1, 2: count = 10
        case 5: count = 12
        default: count = 16
        }
    }

    @inlinable public var operationCode: UInt8 { bytes[0] }

    /// A big-endian field of `width` bytes that starts at `offset`; it must lie within the 16 bytes.
    @inlinable
    public func field(at offset: Int, width: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in offset..<(offset + width) { value = value << 8 | UInt64(bytes[index]) }
        return value
    }

    @inlinable
    public mutating func setField(at offset: Int, width: Int, to value: UInt64) {
        for index in 0..<width {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (width - 1 - index)))
        }
    }
}
