import CAio
import Testing

@Suite struct ChecksumTests {
    private func crc(_ bytes: [UInt8]) -> UInt32 {
        bytes.withUnsafeBytes { ~mpio_crc32c(0xFFFF_FFFF, $0.baseAddress, $0.count) }
    }

    @Test("CRC32C gives the digests of RFC 7143, appendix A.4")
    func vectors() {
        #expect(crc(Array(repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(crc(Array(repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(crc(Array(0...31)) == 0x46DD_794E)
        #expect(crc(Array((0...31).reversed())) == 0x113F_DB5C)
        let read10: [UInt8] = [
            0x01, 0xC0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0, 0x14, 0, 0,
            0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
        ]
        #expect(crc(read10) == 0xD996_3A56)
        #expect(crc(Array("123456789".utf8)) == 0xE306_9283)
        #expect(crc([]) == 0)
    }

    @Test("the instructions and the tables agree with one bit at a time, at every alignment and length")
    func everyAlignmentAndLength() {
        let bytes = pattern(16_384)
        defer { bytes.deallocate() }
        for start in 0..<16 {
            var expected: UInt32 = 0xFFFF_FFFF
            var wrong: [Int] = []
            for count in 0...9300 {
                // All short lengths, and for long ones those around the borders of the interleaved streams.
                if count < 500 || count % 384 < 12 || count % 1024 < 10 || count % 1024 > 1015 {
                    let address = bytes.baseAddress! + start
                    if mpio_crc32c(0xFFFF_FFFF, address, count) != expected { wrong.append(count) }
                    if count < 500, mpio_crc32c_portable(0xFFFF_FFFF, address, count) != expected { wrong.append(count) }
                }
                expected ^= UInt32(bytes[start + count])
                for _ in 0..<8 { expected = expected & 1 == 1 ? expected >> 1 ^ 0x82F6_3B78 : expected >> 1 }
            }
            #expect(wrong.isEmpty, "alignment \(start)")
        }
    }

    @Test("long inputs, of which a part may be folded, agree with the tables at every alignment")
    func longInputs() {
        let bytes = pattern(70_000)
        defer { bytes.deallocate() }
        let block = 15_872
        let counts = [block - 1, block, block + 1, block + 4095, 2 * block - 1, 2 * block, 3 * block + 17, 65_536, 69_000]
        for start in 0..<33 {
            for (index, count) in counts.enumerated() {
                let seed = UInt32(truncatingIfNeeded: (start + 1) * 0x9E37_79B1 &* (index + 1))
                let address = bytes.baseAddress! + start
                #expect(
                    mpio_crc32c(seed, address, count) == mpio_crc32c_portable(seed, address, count),
                    "\(count) bytes at \(start)")
            }
        }
    }

    @Test("a CRC continued over pieces is the CRC of the whole")
    func continued() {
        let bytes = pattern(40_000)
        defer { bytes.deallocate() }
        let whole = mpio_crc32c(0xFFFF_FFFF, bytes.baseAddress, bytes.count)
        for cut in [1, 47, 4096, 12_345, 39_999] {
            let first = mpio_crc32c(0xFFFF_FFFF, bytes.baseAddress, cut)
            #expect(mpio_crc32c(first, bytes.baseAddress! + cut, bytes.count - cut) == whole)
        }
        #expect(mpio_crc32c_portable(0xFFFF_FFFF, bytes.baseAddress, bytes.count) == whole)
    }

    @Test(
        "digests are those of their standards",
        arguments: [
            ("MD5", "900150983cd24fb0d6963f7d28e17f72"),
            ("SHA1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("SHA256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("SHA3-256", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        ])
    func digests(name: String, expected: String) {
        var out = [UInt8](repeating: 0, count: 64)
        var count: UInt32 = 0
        #expect(mpio_digest(name, "abc", 3, &out, &count) == 0)
        let hex = out.prefix(Int(count)).map { byte in
            let text = String(byte, radix: 16)
            return text.count == 1 ? "0" + text : text
        }
        #expect(hex.joined() == expected)
    }

    @Test("an unknown digest is refused")
    func unknownDigest() {
        var out = [UInt8](repeating: 0, count: 64)
        var count: UInt32 = 7
        #expect(mpio_digest("NO-SUCH-DIGEST", "abc", 3, &out, &count) == -1)
        #expect(count == 0)
    }

    @Test("random bytes fill the whole buffer and differ from call to call")
    func random() {
        var first = [UInt8](repeating: 0, count: 1000)
        var second = first
        #expect(mpio_random(&first, first.count) == 0)
        #expect(mpio_random(&second, second.count) == 0)
        #expect(first != second)
        #expect(Set(first.suffix(500)).count > 100)
    }
}
