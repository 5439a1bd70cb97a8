import SCSI
import Testing

@Suite struct CapacityAndLUNTests {
    @Test func capacityTenIsRead() {
        #expect(ReadCapacity10Data(parsing: hex("000fffff 00000200")) == .capacity(blockCount: 1 << 20, blockSize: 512))
        #expect(ReadCapacity10Data(parsing: hex("fffffffe 00001000")) == .capacity(blockCount: 0xFFFF_FFFF, blockSize: 4096))
        #expect(ReadCapacity10Data(parsing: hex("ffffffff 00000200")) == .tooLarge(blockSize: 512))
        #expect(ReadCapacity10Data(parsing: hex("000fffff 00000000")) == nil)
        #expect(ReadCapacity10Data(blockCount: 1 << 32, blockSize: 512) == .tooLarge(blockSize: 512))
        for count in [1, 1 << 20, 0xFFFF_FFFF, 1 << 32] as [UInt64] {
            let data = ReadCapacity10Data(blockCount: count, blockSize: 4096)
            #expect(ReadCapacity10Data(parsing: data.encode()) == data)
        }
    }

    @Test func capacitySixteenGoesRound() throws {
        let data = ReadCapacity16Data(
            blockCount: 1 << 40, blockSize: 4096, isProtectionEnabled: true, protectionTypeField: 2,
            protectionIntervalExponent: 1, physicalBlockExponent: 3, isThinlyProvisioned: true, unmappedReadsZero: true,
            lowestAlignedLBA: 0x1234)
        let bytes = data.encode()
        #expect(bytes.count == 32)
        #expect(Array(bytes.prefix(16)) == hex("000000ffffffffff 00001000 05 13 d234"))
        #expect(ReadCapacity16Data(parsing: bytes) == data)
        #expect(ReadCapacity16Data(parsing: Array(bytes.prefix(12)))?.blockCount == 1 << 40)
    }

    @Test func impossibleCapacitiesAreRefused() {
        #expect(ReadCapacity16Data(parsing: hex("ffffffffffffffff 00000200")) == nil)
        #expect(ReadCapacity16Data(parsing: hex("7fffffffffffffff 00000200")) == nil)
        #expect(ReadCapacity16Data(parsing: hex("0000000000000fff 00000000")) == nil)
        #expect(ReadCapacity16Data(parsing: hex("003ffffffffffffe 00000200")) != nil)
    }

    @Test func logicalUnitNumbersGoRound() {
        for index in [0, 1, 255, 256, 16_383] {
            let lun = LogicalUnitNumber(index: index)!
            #expect(lun.description == String(index))
            #expect(LogicalUnitNumber(String(index)) == lun)
        }
        // Flat addressing of a unit that peripheral addressing reaches too is another number.
        for value in [0x4001_0000_0000_0000, 0x0101_0000_0000_0000, 0x0001_0002_0000_0000, 0xC101_0000_0000_0000] as [UInt64] {
            let lun = LogicalUnitNumber(rawValue: value)
            #expect(lun.description.hasPrefix("0x") && lun.description.utf8.count == 18)
            #expect(LogicalUnitNumber(lun.description) == lun)
        }
        #expect(LogicalUnitNumber("0x00AB000000000000") == LogicalUnitNumber(index: 0xAB))
        for text in ["", "-1", "+1", "16384", "1.0", "0x1", "0x", " 1", "99999999999999999999", "٣"] {
            #expect(LogicalUnitNumber(text) == nil, "\(text)")
        }
    }

    @Test func lunListsGoRound() throws {
        let list = LUNList(luns: (0..<16_384).compactMap { LogicalUnitNumber(index: $0) })
        let bytes = list.encode()
        #expect(bytes.count == 8 + 8 * 16_384)
        #expect(LUNList(parsing: bytes) == list)
        #expect(LUNList(luns: []).encode() == hex("0000000000000000"))
    }

    @Test func aCutLUNListSaysHowMuchThereIs() throws {
        let bytes = LUNList(luns: (0..<10).compactMap { LogicalUnitNumber(index: $0) }).encode()
        let cut = try #require(LUNList(parsing: Array(bytes.prefix(31))))
        #expect(cut.luns.count == 2)
        #expect(cut.declaredByteCount == 88)
        // A length that is no multiple of eight, and bytes past the list.
        #expect(LUNList(parsing: hex("0000000f00000000 0001000000000000 0002000000000000"))?.luns.count == 1)
        #expect(LUNList(parsing: hex("0000000800000000 0001000000000000 0002000000000000"))?.luns.count == 1)
    }
}
