import SCSI
import Testing

@Suite struct IdentityTests {
    typealias Identity = LogicalUnitIdentity

    static func descriptor(
        _ type: DesignatorType, _ bytes: [UInt8], association: DesignatorAssociation = .logicalUnit
    ) -> DesignationDescriptor {
        DesignationDescriptor(association: association, type: type, codeSet: .binary, designator: bytes)
    }

    static let naa6 = descriptor(.naa, hex("6001405abcdef01234567890abcdef01"))
    static let naa5 = descriptor(.naa, hex("5001405abcdef012"))
    static let naa2 = descriptor(.naa, hex("2001405abcdef012"))
    static let naa3 = descriptor(.naa, hex("3000000000010001"))
    static let eui = descriptor(.eui64, hex("0011223344556677"))
    static let uuid = descriptor(.uuid, hex("1000 0123456789abcdef0123456789abcdef"))
    static let name = descriptor(.scsiName, Array("iqn.2026-11.org.example:lu,L,0x0001\0\0".utf8))
    static let t10 = descriptor(.t10VendorID, Array("ACME    disk 7   ".utf8))

    func best(_ designators: [DesignationDescriptor], serial: String? = nil, target: String? = nil) -> Identity? {
        Identity.best(designators: designators, unitSerial: serial, vendor: "ACME", product: "DISK", targetName: target)
    }

    @Test func theChoiceFollowsTheOrderOfTheDesign() throws {
        let order = [Self.naa6, Self.naa5, Self.naa2, Self.eui, Self.uuid, Self.name, Self.t10]
        for start in order.indices {
            let left = Array(order[start...])
            let expected = try #require(Identity(designator: order[start]))
            // However the device lists them.
            #expect(best(left.reversed(), serial: "S", target: "t") == expected)
            #expect(best([Self.naa3] + left, serial: "S", target: "t") == expected)
        }
        #expect(best([Self.naa3], serial: "S", target: "t") == .serial(vendor: "ACME", product: "DISK", serial: "S"))
        #expect(best([Self.naa3], target: "t") == .local(0x3000_0000_0001_0001, targetName: "t"))
    }

    @Test func aLocalNameAloneIsNoIdentity() {
        #expect(best([Self.naa3]) == nil)
        #expect(best([Self.naa3], serial: "", target: "") == nil)
        #expect(best([]) == nil)
        #expect(Identity(designator: Self.naa3) == nil)
    }

    @Test func namesOfPortsAndDevicesDoNotCount() {
        let foreign = [Self.naa6, Self.eui, Self.name].flatMap { own in
            [DesignatorAssociation.targetPort, .targetDevice, .reserved].map {
                Self.descriptor(own.type, own.designator, association: $0)
            }
        }
        #expect(best(foreign) == nil)
        #expect(best(foreign + [Self.t10]) == Identity(designator: Self.t10))
    }

    @Test func severalOfOneKindGiveTheSameWhateverTheirOrder() {
        let other = Self.descriptor(.naa, hex("6001405abcdef01234567890abcdef00"))
        #expect(best([Self.naa6, other]) == best([other, Self.naa6]))
        #expect(best([Self.naa6, other])?.description.hasSuffix("f00") == true)
    }

    @Test func placeholdersDoNotCount() {
        let placeholders = [
            Self.descriptor(.naa, hex("60000000000000000000000000000000")),
            Self.descriptor(.naa, hex("5000000000000000")),
            Self.descriptor(.naa, hex("6001405abcdef012")),
            Self.descriptor(.naa, hex("5001405abcdef01234567890abcdef01")),
            Self.descriptor(.naa, []),
            Self.descriptor(.naa, hex("60000000000000000e00000000010001")),
            Self.descriptor(.naa, hex("5000000abcdef012")),
            Self.descriptor(.naa, hex("2abc000000def012")),
            Self.descriptor(.eui64, hex("0000000000000000")),
            Self.descriptor(.eui64, hex("00112233445566")),
            Self.descriptor(.uuid, hex("1000 00000000000000000000000000000000")),
            Self.descriptor(.uuid, hex("2000 0123456789abcdef0123456789abcdef")),
            Self.descriptor(.scsiName, [0, 0, 0, 0]),
            Self.descriptor(.scsiName, [0xC3, 0x28]),
            Self.descriptor(.t10VendorID, Array("ACME    ".utf8)),
            Self.descriptor(.t10VendorID, Array("ACME        ".utf8)),
            Self.descriptor(.t10VendorID, Array("AC".utf8)),
        ]
        #expect(best(placeholders) == nil)
    }

    static let texts: [(Identity, String)] = [
        (.naa6(high: 0x6001_405A_BCDE_F012, low: 0x3456_7890_ABCD_EF01), "naa.6001405abcdef01234567890abcdef01"),
        (.naa5(0x5001_405A_BCDE_F012), "naa.5001405abcdef012"),
        (.naa2(0x2001_405A_BCDE_F012), "naa.2001405abcdef012"),
        (.eui64(EUI64Identifier(bytes: hex("0011223344556677"))!), "eui.0011223344556677"),
        (.eui64(EUI64Identifier(bytes: hex("00112233445566778899aabb"))!), "eui.00112233445566778899aabb"),
        (.uuid(high: 0x0123_4567_89AB_CDEF, low: 0x0123_4567_89AB_CDEF), "uuid.01234567-89ab-cdef-0123-456789abcdef"),
        (.scsiName("iqn.2026-11.org.example:lu"), "name.iqn.2026-11.org.example:lu"),
        (.t10(Array("IET     00010001".utf8)), "t10.IET%20%20%20%20%2000010001"),
        (.t10([0x41, 0x1B, 0x00, 0x25, 0x41, 0x41, 0x41, 0x41, 0xFF]), "t10.A%1b%00%25AAAA%ff"),
        (.serial(vendor: "ACME", product: "DISK: 1", serial: "12:3%"), "serial.ACME:DISK%3a%201:12%3a3%25"),
        (.serial(vendor: "", product: "", serial: "\\x1b[2J"), "serial.::\\x1b[2J"),
        (.local(0x3000_0000_0001_0001, targetName: "iqn.2026-11.org.example:t"), "local.3000000000010001:iqn.2026-11.org.example:t"),
    ]

    @Test func theTextFormGoesRound() {
        for (identity, text) in Self.texts {
            #expect(identity.description == text)
            #expect(Identity(text) == identity, "\(text)")
        }
    }

    @Test func theTextFormForgivesCaseAndHyphensOnly() {
        #expect(Identity("naa.6001405ABCDEF01234567890ABCDEF01") == Self.texts[0].0)
        #expect(Identity("uuid.0123456789abcdef0123456789ABCDEF") == Self.texts[5].0)
        let wrong = [
            "", "naa", "naa.", "naa.6001405", "naa.6001405abcdef01234567890abcdef0g", "naa.3000000000010001",
            "naa.60000000000000000000000000000000", "NAA.5001405abcdef012", "eui.00", "eui.0000000000000000",
            "uuid.01234567-89ab-cdef-0123456789abcdef", "uuid.0123456-789ab-cdef-0123-456789abcdef", "uuid.-", "name.",
            "name.%", "name.%4", "name.%zz", "name.%ff", "t10.ACME", "t10.%", "serial.a:b", "serial.a:b:", "serial.a:b:c:d",
            "serial.%ff:b:c", "local.3000000000010001", "local.3000000000010001:", "local.5000000000010001:t",
            "local.30:t", "disk.1", ".", "naa.é001405abcdef012",
        ]
        for text in wrong { #expect(Identity(text) == nil, "\(text)") }
    }

    @Test func hostileNamesCanNotSteerATerminal() {
        var generator = SeededGenerator(seed: 7)
        for _ in 0..<200 {
            let bytes = generator.bytes(24)
            let identity = Identity.t10(bytes)
            #expect(identity.description.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F })
        }
        let name = Identity.scsiName("a\u{202E}b\u{1B}[31m\n")
        #expect(name.description.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F })
        #expect(Identity(name.description) == name)
    }

    @Test func anIdentityGivesItsDesignatorBack() throws {
        for (identity, _) in Self.texts {
            switch identity {
            case .serial: #expect(identity.designator == nil)
            case .local: #expect(identity.designator?.designator == hex("3000000000010001"))
            default:
                let designator = try #require(identity.designator)
                let page = DeviceIdentification(descriptors: [designator]).encode()
                #expect(best(DeviceIdentification(parsing: page)?.descriptors ?? []) == identity)
            }
        }
    }

    @Test func anotherDiskIsNamed() {
        let disk = DeviceDescription(identity: Self.texts[0].0, blockSize: 512, blockCount: 1 << 33)
        #expect(disk.capacity == 1 << 42)
        #expect(disk.mismatch(with: disk) == nil)
        var other = disk
        other.identity = Self.texts[1].0
        #expect(
            disk.mismatch(with: other)?.description
                == "identity is naa.5001405abcdef012, expected naa.6001405abcdef01234567890abcdef01")
        // Only under a T10 vendor identification, which unrelated units may share, does the serial number count.
        other = disk
        other.serial = "b0002"
        var same = disk
        same.serial = "a0001"
        #expect(same.mismatch(with: other) == nil)
        same.identity = .t10(Array("IET     00010001".utf8))
        other.identity = same.identity
        #expect(
            same.mismatch(with: other)?.description
                == "serial number is b0002, expected a0001 (both call themselves t10.IET%20%20%20%20%2000010001)")
        other.serial = ""
        #expect(same.mismatch(with: other) == nil)
        other = disk
        other.blockSize = 4096
        #expect(disk.mismatch(with: other) == .blockSize(expected: 512, found: 4096))
        other = disk
        other.blockCount = 1
        #expect(disk.mismatch(with: other) == .blockCount(expected: 1 << 33, found: 1))
    }
}
