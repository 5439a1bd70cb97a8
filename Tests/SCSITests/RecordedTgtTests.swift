import SCSI
import Testing

/// What tgt 1.0.85 (Debian) sent, to the byte: a null LUN of 1 TiB, its identifiers left to their defaults
/// or given by `scsi_id` and `scsi_sn`.
enum RecordedTgt {
    static let standard = hex(
        """
        000005123d000002 4945542020202020 5649525455414c2d4449534b20202020 30303031
        0000000000000000000000000000000000000000 0000 04c0 0960 0300 0000
        """)
    static let supportedPages = hex("00000006008083b0b1b2")
    static let serial = hex("00800024" + String(repeating: "20", count: 30) + "626561663131")
    static let identificationByDefault = identification(
        t10: "49455420202020203030303130303031" + String(repeating: "00", count: 20),
        local: "3000000100000001", naa6: "60000000000000000e00000000010001")
    /// scsi_id=naa.6001405abcdef01234567890abcdef01
    static let identificationByNAA = identification(
        t10: "6e61612e36303031343035616263646566303132333435363738393061626364656630 31",
        local: "3000000100000001", naa6: "6001405abcdef01234567890abcdef01")
    /// scsi_id=my-disk
    static let identificationByName = identification(
        t10: "6d792d6469736b" + String(repeating: "00", count: 29), local: "3000000100000004",
        naa6: "6000000000000000000000000000d000")
    static let blockLimits = hex("00b0003c0080" + String(repeating: "00", count: 58))
    static let provisioning = hex("00b2000400000000")
    static let capacity16 = hex("000000007fffffff00000200" + String(repeating: "00", count: 20))
    static let capacity10 = hex("7fffffff00000200")
    static let luns = hex("000000100000000000000000000000000001000000000000")
    /// MODE SENSE (6) of all pages, DBD.
    static let modePages = hex(
        """
        61001000
        0000
        020e8080000a00000000000000000000
        08121400ffff0000ffffffff8014000000000000
        0a0a02100000000000000200
        4a01001c04000000000000000000000000000000000000000000000000000000
        1c0a08000000000000000000
        """)

    private static func identification(t10: String, local: String, naa6: String) -> [UInt8] {
        hex("00830048 02010024" + t10 + "01030008" + local + "01030010" + naa6)
    }
}

@Suite struct RecordedTgtTests {
    func identity(_ page: [UInt8]) throws -> LogicalUnitIdentity? {
        let inquiry = try #require(InquiryData(parsing: RecordedTgt.standard))
        return LogicalUnitIdentity.best(
            designators: try #require(DeviceIdentification(parsing: page)).descriptors,
            unitSerial: UnitSerialNumber(parsing: RecordedTgt.serial)?.serial, vendor: inquiry.vendor,
            product: inquiry.product, targetName: "iqn.2026-11.org.example:t")
    }

    @Test func anIdentifierGivenAsNAAIsTheIdentity() throws {
        #expect(try identity(RecordedTgt.identificationByNAA)?.description == "naa.6001405abcdef01234567890abcdef01")
    }

    /// The NAA 6 designators here are made of the digits of "IET     00010001" and of the "d" of "my-disk".
    @Test func anNAAMadeOfAnyTextIsNot() throws {
        #expect(
            try identity(RecordedTgt.identificationByDefault)?.description == "t10.IET%20%20%20%20%2000010001")
        #expect(try identity(RecordedTgt.identificationByName)?.description == "serial.IET:VIRTUAL-DISK:beaf11")
    }

    @Test func theOtherAnswersAreUnderstood() throws {
        let pages = try #require(SupportedVPDPages(parsing: RecordedTgt.supportedPages)).pages
        #expect(pages == [.supportedPages, .unitSerialNumber, .deviceIdentification, .blockLimits,
            .blockDeviceCharacteristics, .logicalBlockProvisioning])
        #expect(BlockLimits(parsing: RecordedTgt.blockLimits)?.maxCompareAndWriteBlockCount == 128)
        #expect(LogicalBlockProvisioning(parsing: RecordedTgt.provisioning)?.supportsUnmap == false)
        let capacity = try #require(ReadCapacity16Data(parsing: RecordedTgt.capacity16))
        #expect(capacity.blockCount == 1 << 31 && capacity.blockSize == 512)
        #expect(ReadCapacity10Data(parsing: RecordedTgt.capacity10) == .capacity(blockCount: 1 << 31, blockSize: 512))
        #expect(LUNList(parsing: RecordedTgt.luns)?.luns.map(\.description) == ["0", "1"])
    }

    @Test func anEmptyPageZeroDoesNotHideThePagesBehindIt() throws {
        let mode = try #require(ModeParameters(parsing: RecordedTgt.modePages, format: .six))
        #expect(mode.supportsForceUnitAccess && !mode.isWriteProtected)
        #expect(mode.pages.compactMap(CachingModePage.init).first?.isWriteCacheEnabled == true)
        #expect(mode.pages.compactMap(ControlModePage.init).first?.queueAlgorithmModifier == 1)
    }

    @Test func theAnswersComeTogetherInADescription() throws {
        let device = DeviceDescription(
            inquiry: try #require(InquiryData(parsing: RecordedTgt.standard)),
            capacity: try #require(ReadCapacity16Data(parsing: RecordedTgt.capacity16)),
            identification: DeviceIdentification(parsing: RecordedTgt.identificationByNAA),
            unitSerial: UnitSerialNumber(parsing: RecordedTgt.serial),
            blockLimits: BlockLimits(parsing: RecordedTgt.blockLimits), isWriteProtected: true)
        #expect(device.identity?.description == "naa.6001405abcdef01234567890abcdef01")
        #expect([device.vendor, device.product, device.revision, device.serial] == ["IET", "VIRTUAL-DISK", "0001", "beaf11"])
        #expect(device.capacity == 1 << 40)
        #expect(device.blockLimits?.maxCompareAndWriteBlockCount == 128)
        #expect(device.isWriteProtected && !device.isThinlyProvisioned && device.targetPortGroup == nil)
    }
}
