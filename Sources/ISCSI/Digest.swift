/// A CRC32C over `count` bytes at `bytes`, continued from `seed`; `mpio_crc32c` has this shape.
///
/// The running value is passed raw: the caller starts with 0xFFFFFFFF and inverts the last result.
/// A function pointer, so that a call costs one indirect jump and no context.
public typealias CRC32CFunction = @convention(c) @Sendable (UInt32, UnsafeRawPointer?, Int) -> UInt32

/// Digest algorithms (RFC 7143 section 13.1).
@frozen
public enum DigestKind: UInt8, Hashable, Sendable, CaseIterable {
    case none
    case crc32c

    /// As the text keys spell it.
    public var name: String {
        switch self {
        case .none: "None"
        case .crc32c: "CRC32C"
        }
    }

    public init?(name: some StringProtocol) {
        switch name {
        case "None": self = .none
        case "CRC32C": self = .crc32c
        default: return nil
        }
    }
}

/// CRC32C by table, eight bytes a step, for machines without the instruction and for pure tests.
public enum CRC32C {
    @inlinable public static var seed: UInt32 { 0xFFFF_FFFF }

    /// A ``CRC32CFunction`` that needs no instruction and no C.
    public static let table: CRC32CFunction = { seed, bytes, count in
        guard let bytes, count > 0 else { return seed }
        return CRC32C.continued(from: seed, bytes, count)
    }

    /// The finished digest of `bytes`, as a number; on the wire it is little-endian (RFC 7143
    /// section 13.1: the bit order of CRC32C makes byte 0 the least significant).
    public static func digest(_ bytes: UnsafeRawBufferPointer, using function: CRC32CFunction) -> UInt32 {
        ~function(seed, bytes.baseAddress, bytes.count)
    }

    // Eight tables of 256 entries; the first is the byte-wise one of the reflected polynomial
    // 0x1EDC6F41. Never freed and never written after the first use.
    private nonisolated(unsafe) static let tables: UnsafePointer<UInt32> = {
        let tables = UnsafeMutablePointer<UInt32>.allocate(capacity: 8 * 256)
        for index in 0..<256 {
            var value = UInt32(index)
            for _ in 0..<8 { value = value & 1 != 0 ? value >> 1 ^ 0x82F6_3B78 : value >> 1 }
            tables[index] = value
        }
        for index in 256..<(8 * 256) {
            let previous = tables[index - 256]
            tables[index] = previous >> 8 ^ tables[Int(previous & 0xFF)]
        }
        return UnsafePointer(tables)
    }()

    private static func continued(from seed: UInt32, _ bytes: UnsafeRawPointer, _ count: Int) -> UInt32 {
        let tables = tables
        var value = seed
        var offset = 0
        while count - offset >= 8 {
            let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) ^ UInt64(value)
            value = tables[7 * 256 + Int(word & 0xFF)]
                ^ tables[6 * 256 + Int(word >> 8 & 0xFF)]
                ^ tables[5 * 256 + Int(word >> 16 & 0xFF)]
                ^ tables[4 * 256 + Int(word >> 24 & 0xFF)]
                ^ tables[3 * 256 + Int(word >> 32 & 0xFF)]
                ^ tables[2 * 256 + Int(word >> 40 & 0xFF)]
                ^ tables[256 + Int(word >> 48 & 0xFF)]
                ^ tables[Int(word >> 56)]
            offset += 8
        }
        while offset < count {
            let byte = bytes.load(fromByteOffset: offset, as: UInt8.self)
            value = value >> 8 ^ tables[Int((value ^ UInt32(byte)) & 0xFF)]
            offset += 1
        }
        return value
    }
}
