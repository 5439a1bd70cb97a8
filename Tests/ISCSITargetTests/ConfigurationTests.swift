import AsyncIO
import ISCSITarget
import Testing

@Suite struct LogicalUnitConfigurationTests {
    @Test func aFullDescriptionIsRead() throws {
        let unit = try LogicalUnitConfiguration(
            parsing:
                "7=file:/tmp/a b.img,size=2G,block-size=4096,serial=SN-7,identity=naa.6001405abcdef01234567890abcdef01,read-only,vendor=ACME,product=DISK 9,revision=1.2"
        )
        #expect(unit.number == 7)
        #expect(unit.storage == .file(path: "/tmp/a b.img"))
        #expect(unit.byteCount == 2 << 30)
        #expect(unit.blockSize == 4096)
        #expect(unit.serial == "SN-7")
        #expect(unit.identity?.count == 16 && unit.identity?.prefix(3) == [0x60, 0x01, 0x40])
        #expect(unit.isReadOnly)
        #expect((unit.vendor, unit.product, unit.revision) == ("ACME", "DISK 9", "1.2"))
        #expect(try LogicalUnitConfiguration(parsing: "0=file:x").byteCount == nil)
        #expect(try LogicalUnitConfiguration(parsing: "16383=null,size=512").byteCount == 512)
    }

    @Test(arguments: [
        ("memory", LogicalUnitParseError.missingNumber("memory")), ("x=memory,size=1G", .badNumber("x")),
        ("-1=memory,size=1G", .badNumber("-1")), ("16384=memory,size=1G", .badNumber("16384")),
        ("0=ram,size=1G", .unknownKind("ram")), ("0=file", .missingPath), ("0=file:", .missingPath),
        ("0=memory:/x,size=1G", .pathNotAllowed(kind: "memory")), ("0=memory", .missingSize(kind: "memory")),
        ("0=null", .missingSize(kind: "null")), ("0=memory,size=1X", .badSize(option: "size", value: "1X")),
        ("0=memory,size=-1", .badSize(option: "size", value: "-1")), ("0=memory,size=k", .badSize(option: "size", value: "k")),
        ("0=memory,size=99999999T", .badSize(option: "size", value: "99999999T")),
        ("0=memory,size=", .missingValue(option: "size")), ("0=memory,size", .missingValue(option: "size")),
        ("0=memory,size=1G,block-size=1024", .badBlockSize("1024")),
        ("0=memory,size=1000", .sizeNotWholeBlocks(byteCount: 1000, blockSize: 512)),
        ("0=memory,size=512,block-size=4096", .sizeNotWholeBlocks(byteCount: 512, blockSize: 4096)),
        ("0=memory,size=0", .sizeNotWholeBlocks(byteCount: 0, blockSize: 512)),
        ("0=memory,size=1G,identity=naa.5000", .badIdentity("naa.5000")),
        ("0=memory,size=1G,identity=naa.6001405abcdef01234567890abcdef0g", .badIdentity("naa.6001405abcdef01234567890abcdef0g")),
        ("0=memory,size=1G,size=2G", .duplicateOption("size")), ("0=memory,size=1G,colour=red", .unknownOption("colour")),
        ("0=memory,size=1G,", .unknownOption("")), ("0=memory,size=1G,vendor=TOOLONGNAME", .textTooLong(option: "vendor", maximum: 8)),
    ])
    func aWrongDescriptionSaysWhatIsWrong(text: String, error: LogicalUnitParseError) {
        #expect(throws: error) { try LogicalUnitConfiguration(parsing: text) }
        #expect(!error.description.isEmpty)
    }
}
