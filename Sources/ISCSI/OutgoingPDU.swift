/// A header as it leaves: the 48 bytes and, where header digests are on, the four of the digest, in one
/// piece of memory that an I/O vector can point at.
@frozen
public struct OutgoingHeader: Sendable {
    public var basic: BasicHeaderSegment
    @usableFromInline var digest: UInt32 = 0
    @usableFromInline var length: UInt8 = 48

    /// 48, or 52 after ``seal(with:)`` with a digest. The bytes lie from the start of this value.
    @inlinable public var byteCount: Int { Int(length) }

    /// A header without a digest. It carries no AHS, so TotalAHSLength must be 0.
    @inlinable
    public init(_ basic: BasicHeaderSegment) {
        self.basic = basic
    }

    /// Computes the header digest over the finished header, or drops it where `crc32c` is nil. To be
    /// called last: a field changed afterwards makes the digest wrong.
    @inlinable
    public mutating func seal(with crc32c: CRC32CFunction?) {
        guard let crc32c else {
            length = 48
            return
        }
        digest = withUnsafeBytes(of: basic) { (~crc32c(CRC32C.seed, $0.baseAddress, 48)).littleEndian }
        length = 52
    }

    /// Puts up to 52 bytes at `destination` and returns how many.
    @inlinable
    public func store(to destination: UnsafeMutableRawPointer) -> Int {
        basic.store(to: destination)
        if length == 52 { destination.storeBytes(of: digest, toByteOffset: 48, as: UInt32.self) }
        return byteCount
    }
}

/// What follows a data segment: up to three bytes of padding, then the digest where data digests are on
/// (RFC 7143 sections 11.2.3 and 11.2.4). The bytes lie from the start of this value.
@frozen
public struct OutgoingTrailer: Sendable {
    @usableFromInline var bytes: UInt64 = 0
    @usableFromInline var length: UInt8 = 0

    /// 0…7
    @inlinable public var byteCount: Int { Int(length) }

    /// For no data segment: nothing, not even a digest.
    @inlinable public init() {}

    /// For a data segment of `dataByteCount` bytes without a digest.
    @inlinable
    public init(dataByteCount: Int) {
        length = UInt8(truncatingIfNeeded: -dataByteCount & 3)
    }

    /// For a data segment of `dataByteCount` bytes whose running CRC, seeded with `CRC32C.seed` and not
    /// inverted, is `running`. An empty segment has no digest.
    @inlinable
    public init(dataByteCount: Int, running: UInt32, crc32c: CRC32CFunction) {
        guard dataByteCount > 0 else { return }
        let padding = -dataByteCount & 3
        var value = running
        if padding > 0 {
            var zeros: UInt32 = 0
            value = withUnsafeBytes(of: &zeros) { crc32c(running, $0.baseAddress, padding) }
        }
        bytes = (UInt64(~value) << UInt64(8 * padding)).littleEndian
        length = UInt8(padding + 4)
    }

    /// For the data segment `data`; no digest where `crc32c` is nil.
    @inlinable
    public init(data: UnsafeRawBufferPointer, crc32c: CRC32CFunction?) {
        if let crc32c {
            self.init(
                dataByteCount: data.count, running: crc32c(CRC32C.seed, data.baseAddress, data.count),
                crc32c: crc32c)
        } else {
            self.init(dataByteCount: data.count)
        }
    }

    /// Puts up to seven bytes at `destination` and returns how many.
    @inlinable
    public func store(to destination: UnsafeMutableRawPointer) -> Int {
        withUnsafeBytes(of: bytes) {
            destination.copyMemory(from: $0.baseAddress!, byteCount: byteCount)
        }
        return byteCount
    }
}

/// A whole PDU of the control path (login, text, reject, …), its data in an array.
public struct PDU: Sendable {
    /// Its DataSegmentLength is that of `data`.
    public var header: BasicHeaderSegment
    public var data: [UInt8]

    /// Sets the header's DataSegmentLength to the length of `data`, which must be under 16 MiB.
    public init(header: BasicHeaderSegment, data: [UInt8] = []) {
        precondition(data.count < 1 << 24, "a data segment is under 16 MiB")
        self.header = header
        self.header.dataSegmentByteCount = data.count
        self.data = data
    }

    /// The bytes on the wire: header, digest, data, padding, digest; a nil function leaves its digest out.
    public func encoded(headerDigest: CRC32CFunction? = nil, dataDigest: CRC32CFunction? = nil) -> [UInt8] {
        var outgoing = OutgoingHeader(header)
        outgoing.seal(with: headerDigest)
        let trailer = data.withUnsafeBytes { OutgoingTrailer(data: $0, crc32c: dataDigest) }
        let headerByteCount = outgoing.byteCount
        let byteCount = headerByteCount + data.count + trailer.byteCount
        return [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
            let base = UnsafeMutableRawPointer(buffer.baseAddress!)
            _ = outgoing.store(to: base)
            data.withUnsafeBytes {
                if let source = $0.baseAddress { (base + headerByteCount).copyMemory(from: source, byteCount: $0.count) }
            }
            _ = trailer.store(to: base + headerByteCount + data.count)
            count = byteCount
        }
    }
}
