import ISCSI
import Testing

@Suite struct DigestTests {
    /// RFC 7143 appendix A.4, the bytes on the wire.
    static let vectors: [([UInt8], [UInt8])] = [
        (Array(repeating: 0, count: 32), [0xAA, 0x36, 0x91, 0x8A]),
        (Array(repeating: 0xFF, count: 32), [0x43, 0xAB, 0xA8, 0x62]),
        (Array(0..<32), [0x4E, 0x79, 0xDD, 0x46]),
        (Array((0..<32).reversed()), [0x5C, 0xDB, 0x3F, 0x11]),
        (
            [
                0x01, 0xC0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
                0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            ], [0x56, 0x3A, 0x96, 0xD9]
        ),
    ]

    @Test(arguments: vectors.indices)
    func `The RFC's vectors come out as the bytes on the wire`(index: Int) {
        let (bytes, expected) = Self.vectors[index]
        let digest = bytes.withUnsafeBytes { CRC32C.digest($0, using: CRC32C.table) }
        #expect(withUnsafeBytes(of: digest.littleEndian) { Array($0) } == expected)
    }

    @Test func `A digest in pieces is the digest of the whole, at every split and alignment`() {
        var random = WireRandom(seed: 7)
        let bytes = random.bytes(100)
        bytes.withUnsafeBytes { raw in
            let whole = CRC32C.table(CRC32C.seed, raw.baseAddress, 100)
            for split in 0...100 {
                let first = CRC32C.table(CRC32C.seed, raw.baseAddress, split)
                #expect(CRC32C.table(first, raw.baseAddress! + split, 100 - split) == whole)
            }
        }
    }

    @Test func `Nothing leaves the running value as it was`() {
        #expect(CRC32C.table(0x1234_5678, nil, 0) == 0x1234_5678)
    }

    @Test func `A sealed header is 52 bytes whose last four are the digest`() {
        let (bytes, expected) = Self.vectors[4]
        var outgoing = OutgoingHeader(bytes.withUnsafeBytes { BasicHeaderSegment(loadingFrom: $0.baseAddress!) })
        #expect(outgoing.byteCount == 48)
        outgoing.seal(with: CRC32C.table)
        #expect(outgoing.byteCount == 52)
        let inPlace = withUnsafeBytes(of: outgoing) { Array($0.prefix(52)) }
        #expect(inPlace == bytes + expected)
        outgoing.seal(with: nil)
        #expect(outgoing.byteCount == 48)
    }

    @Test(arguments: 0...8)
    func `A trailer pads to four bytes and digests the padding`(count: Int) {
        let data = Array(repeating: UInt8(0xA5), count: count)
        let padding = (4 - count % 4) % 4
        func bytes(_ trailer: OutgoingTrailer) -> [UInt8] {
            var out = [UInt8](repeating: 0xEE, count: 8)
            let length = out.withUnsafeMutableBytes { trailer.store(to: $0.baseAddress!) }
            #expect(length == trailer.byteCount)
            return Array(out.prefix(length))
        }
        let plain = data.withUnsafeBytes { OutgoingTrailer(data: $0, crc32c: nil) }
        #expect(bytes(plain) == Array(repeating: 0, count: padding))
        let digested = data.withUnsafeBytes { OutgoingTrailer(data: $0, crc32c: CRC32C.table) }
        let padded = data + Array(repeating: 0, count: padding)
        let digest = padded.withUnsafeBytes { CRC32C.digest($0, using: CRC32C.table) }
        let expected = count == 0 ? [] : Array(repeating: 0, count: padding) + withUnsafeBytes(of: digest.littleEndian) { Array($0) }
        #expect(bytes(digested) == expected)
    }
}

@Suite struct SerialNumberTests {
    @Test func `Order survives the wrap`() {
        #expect(SerialNumber.isBefore(0xFFFF_FFFF, 0))
        #expect(!SerialNumber.isBefore(0, 0xFFFF_FFFF))
        #expect(SerialNumber.isBefore(1, 2))
        #expect(!SerialNumber.isBefore(2, 2))
        #expect(SerialNumber.isAtMost(2, 2))
        #expect(SerialNumber.isAtMost(0xFFFF_FFF0, 5))
        #expect(!SerialNumber.isAtMost(5, 0xFFFF_FFF0))
        #expect(SerialNumber.distance(from: 0xFFFF_FFFE, to: 3) == 5)
        #expect(SerialNumber.distance(from: 3, to: 0xFFFF_FFFE) == -5)
    }

    @Test func `Numbers half the circle apart are ordered neither way`() {
        #expect(!SerialNumber.isBefore(0, 0x8000_0000))
        #expect(!SerialNumber.isBefore(0x8000_0000, 0))
    }
}
