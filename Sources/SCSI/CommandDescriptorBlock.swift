/// A command descriptor block of up to 16 bytes, as it goes on the wire (SPC-4 clause 4.2.5).
@frozen
public struct CommandDescriptorBlock: Sendable {
    /// The CDB, padded with zeroes to 16 bytes.
    public var bytes: InlineArray<16, UInt8>
    /// 6, 10, 12 or 16.
    public var count: UInt8

    /// An all-zero block with this operation code; its length follows from the code's group
    /// (SPC-4 table 23), 16 for groups whose length is vendor specific.
    @inlinable
    public init(operationCode: UInt8) {
        bytes = InlineArray(repeating: 0)
        bytes[0] = operationCode
        count = Self.byteCount(operationCode: operationCode)
    }

    /// The block that a transport's 16-byte field carries; the bytes past the command's own length are
    /// kept but mean nothing.
    @inlinable
    public init(bytes: InlineArray<16, UInt8>) {
        self.bytes = bytes
        count = Self.byteCount(operationCode: bytes[0])
    }

    /// The command at the start of `bytes`: nil where it is empty or shorter than its operation code's
    /// group asks for. Of vendor-specific groups as much as is there, up to 16 bytes.
    public init?(_ bytes: [UInt8]) {
        guard let code = bytes.first else { return nil }
        self.init(operationCode: code)
        if Int(count) > bytes.count {
            guard [3, 6, 7].contains(code >> 5) else { return nil }
            count = UInt8(bytes.count)
        }
        for index in 0..<Int(count) { self.bytes[index] = bytes[index] }
    }

    @inlinable
    static func byteCount(operationCode: UInt8) -> UInt8 {
        switch operationCode >> 5 {
        case 0: 6
        case 1, 2: 10
        case 5: 12
        default: 16
        }
    }

    /// The first byte.
    @inlinable public var operationCode: UInt8 { bytes[0] }

    /// A big-endian field of `width` bytes that starts at `offset`; it must lie within the 16 bytes.
    @inlinable
    public func field(at offset: Int, width: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in offset..<(offset + width) { value = value << 8 | UInt64(bytes[index]) }
        return value
    }

    /// Writes a big-endian field of `width` bytes that starts at `offset`; it must lie within the 16 bytes.
    @inlinable
    public mutating func setField(at offset: Int, width: Int, to value: UInt64) {
        for index in 0..<width {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (width - 1 - index)))
        }
    }

    /// The block whose 16 bytes are these two words, the first byte on top. (One store where a loop over
    /// bytes takes longer than all else that a request needs of this module.)
    @inlinable
    init(high: UInt64, low: UInt64, count: UInt8) {
        bytes = unsafeBitCast((high.bigEndian, low.bigEndian), to: InlineArray<16, UInt8>.self)
        self.count = count
    }

    /// The whole number at `offset`, which must lie within the 16 bytes.
    @inlinable
    func load<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type, at offset: Int) -> Value {
        precondition(offset >= 0 && offset <= 16 - MemoryLayout<Value>.size)
        return withUnsafeBytes(of: bytes) { Value(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: Value.self)) }
    }

    @inlinable
    func bit(_ bit: UInt8, at offset: Int) -> Bool { (bytes[offset] >> bit) & 1 == 1 }
    @inlinable
    func uint16(at offset: Int) -> UInt16 { load(UInt16.self, at: offset) }
    @inlinable
    func uint32(at offset: Int) -> UInt32 { load(UInt32.self, at: offset) }
    @inlinable
    func uint64(at offset: Int) -> UInt64 { load(UInt64.self, at: offset) }

    /// The command's own bytes, without the padding.
    public var array: [UInt8] { (0..<Int(count)).map { bytes[$0] } }
}

extension CommandDescriptorBlock: Equatable {
    /// Whether the bytes and their count are equal.
    public static func == (left: Self, right: Self) -> Bool {
        left.count == right.count && (0..<Int(left.count)).allSatisfy { left.bytes[$0] == right.bytes[$0] }
    }
}

extension CommandDescriptorBlock: CustomStringConvertible {
    /// The bytes in hexadecimal.
    public var description: String { array.map(DeviceText.hex).joined(separator: " ") }
}
