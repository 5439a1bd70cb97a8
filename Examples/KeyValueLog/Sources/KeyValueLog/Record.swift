/// One change of the log: a key and its new value, or that it has none any more.
///
/// On the disk a record begins with a block and takes whole blocks: a header of 20 bytes, the key, the value, zeroes.
struct Record {
    /// In bytes, of the header.
    static let headerByteCount = 20
    static let keyByteCountMaximum = 64 << 10
    static let valueByteCountMaximum = 16 << 20

    private static let magic: UInt32 = 0x4B56_4C31  // "KVL1"
    private static let deleted = UInt32.max

    var key: String
    /// Nil: the key is deleted.
    var value: [UInt8]?

    private var keyBytes: [UInt8] { Array(key.utf8) }

    /// Header, key and value.
    var byteCount: Int { Self.headerByteCount + key.utf8.count + (value?.count ?? 0) }

    /// Throws what keeps it from being written.
    func check() throws(LogError) {
        if key.utf8.count > Self.keyByteCountMaximum { throw .tooLarge("the key", maximum: Self.keyByteCountMaximum) }
        if let value, value.count > Self.valueByteCountMaximum { throw .tooLarge("the value", maximum: Self.valueByteCountMaximum) }
    }

    /// Writes the record to the start of `bytes`; returns its checksum. `chain` is that of the record before: a record that
    /// was left over from a history which did not come to pass follows on nothing, and counts as the end.
    func encode(into bytes: UnsafeMutableRawBufferPointer, chain: UInt32) -> UInt32 {
        let key = keyBytes
        let content = UnsafeMutableRawBufferPointer(rebasing: bytes[..<byteCount])
        content.store(Self.magic, at: 0)
        content.store(chain, at: 8)
        content.store(UInt32(key.count), at: 12)
        content.store(value.map { UInt32($0.count) } ?? Self.deleted, at: 16)
        content[Self.headerByteCount...].copyBytes(from: key + (value ?? []))
        let checksum = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: content[8...]))
        content.store(checksum, at: 4)
        bytes[byteCount...].update(repeating: 0)
        return checksum
    }

    /// How many bytes the record at the start of `header` has; nil where there is none. Says nothing about the rest of it.
    static func byteCount(header: UnsafeRawBufferPointer) -> Int? {
        guard header.load(at: 0) as UInt32 == magic else { return nil }
        let keyByteCount = Int(header.load(at: 12) as UInt32)
        let valueField: UInt32 = header.load(at: 16)
        let valueByteCount = valueField == deleted ? 0 : Int(valueField)
        guard keyByteCount <= keyByteCountMaximum, valueByteCount <= valueByteCountMaximum else { return nil }
        return headerByteCount + keyByteCount + valueByteCount
    }

    /// The record that `bytes` are, to the byte; nil where they are none that follows on `chain`.
    init?(_ bytes: UnsafeRawBufferPointer, chain: UInt32) {
        guard bytes.count >= Self.headerByteCount, Self.byteCount(header: bytes) == bytes.count,
            bytes.load(at: 8) == chain, Self.checksum(bytes) == CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[8...]))
        else { return nil }
        let valueStart = Self.headerByteCount + Int(bytes.load(at: 12) as UInt32)
        key = String(decoding: bytes[Self.headerByteCount..<valueStart], as: UTF8.self)
        value = bytes.load(at: 16) == Self.deleted ? nil : Array(bytes[valueStart...])
    }

    init(key: String, value: [UInt8]?) {
        self.key = key
        self.value = value
    }

    /// The one that the header names.
    static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 { bytes.load(at: 4) }
}

/// The first block of each half of the log.
struct LogHeader {
    private static let magic: UInt32 = 0x4B56_4C48  // "KVLH"
    private static let byteCount = 24

    /// Counts compactions. Of two valid headers the one with the higher generation counts.
    var generation: UInt64
    /// By chance, so that no record of another log, or of a compaction that was not finished, follows on this header.
    private var nonce = UInt64.random(in: 0...UInt64.max)

    init(generation: UInt64) {
        self.generation = generation
    }

    /// Fills a whole block; returns the checksum on which the first record follows.
    func encode(into block: UnsafeMutableRawBufferPointer) -> UInt32 {
        block.update(repeating: 0)
        block.store(Self.magic, at: 0)
        block.store(generation, at: 8)
        block.store(nonce, at: 16)
        let checksum = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: block[8..<Self.byteCount]))
        block.store(checksum, at: 4)
        return checksum
    }

    /// The header that the block is, and the checksum on which the first record follows; nil where it is none.
    static func decode(_ block: UnsafeRawBufferPointer) -> (header: LogHeader, checksum: UInt32)? {
        let checksum: UInt32 = block.load(at: 4)
        guard block.load(at: 0) as UInt32 == magic, checksum == CRC32C.checksum(UnsafeRawBufferPointer(rebasing: block[8..<byteCount])) else { return nil }
        var header = LogHeader(generation: block.load(at: 8))
        header.nonce = block.load(at: 16)
        return (header, checksum)
    }
}

extension UnsafeRawBufferPointer {
    /// A big-endian number.
    fileprivate func load<Number: FixedWidthInteger & BitwiseCopyable>(at offset: Int) -> Number {
        Number(bigEndian: loadUnaligned(fromByteOffset: offset, as: Number.self))
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func store<Number: FixedWidthInteger & BitwiseCopyable>(_ number: Number, at offset: Int) {
        storeBytes(of: number.bigEndian, toByteOffset: offset, as: Number.self)
    }

    fileprivate func update(repeating byte: UInt8) {
        self[...].update(repeating: byte)
    }
}

extension Slice<UnsafeMutableRawBufferPointer> {
    fileprivate func update(repeating byte: UInt8) {
        UnsafeMutableRawBufferPointer(rebasing: self).initializeMemory(as: UInt8.self, repeating: byte)
    }
}
