import SCSI
import Testing

@Suite struct InquiryTests {
    static let tgt = RecordedTgt.standard

    @Test func standardDataIsRead() throws {
        let data = try #require(InquiryData(parsing: Self.tgt))
        #expect(data.vendor == "IET")
        #expect(data.product == "VIRTUAL-DISK")
        #expect(data.revision == "0001")
        #expect(data.version == 5)
        #expect(data.supportsCommandQueuing)
        #expect(data.targetPortGroupSupport == [])
        #expect(data.isBlockDevice)
        #expect(data.versionDescriptors == [0x04C0, 0x0960, 0x0300])
    }

    @Test func standardDataGoesRound() throws {
        let data = InquiryData(
            peripheralQualifier: 1, deviceType: 0x1F, isRemovable: true, version: 7, supportsHierarchy: false,
            targetPortGroupSupport: [.implicit, .explicit], supportsThirdPartyCopy: true, supportsProtection: true,
            isMultiPort: true, supportsCommandQueuing: false, vendor: "ACME", product: "DISK OF 16 CHARS",
            revision: "1", versionDescriptors: [0x0960, 0x04C0])
        let bytes = data.encode()
        #expect(bytes.count == 74)
        #expect(bytes[4] == 69)
        #expect(InquiryData(parsing: bytes) == data)
        #expect(!data.isBlockDevice)
    }

    @Test func longTextsAreCutAndStrangeOnesShown() throws {
        let data = InquiryData(vendor: "LONGERTHAN8", product: "grün", revision: "")
        let read = try #require(InquiryData(parsing: data.encode()))
        #expect(read.vendor == "LONGERTH")
        #expect(read.product == "gr??n")
        var bytes = Self.tgt
        bytes.replaceSubrange(8..<12, with: [0x1B, 0x5B, 0x5C, 0xFF])
        #expect(InquiryData(parsing: bytes)?.vendor == "\\x1b[\\x5c\\xff")
    }

    @Test func cutDataHasEmptyFields() throws {
        #expect(InquiryData(parsing: Array(Self.tgt.prefix(4))) == nil)
        #expect(InquiryData(parsing: Array(Self.tgt.prefix(5)))?.vendor == "")
        #expect(InquiryData(parsing: Array(Self.tgt.prefix(36)))?.revision == "0001")
    }

    @Test func pagesGoRound() throws {
        let pages = SupportedVPDPages(pages: [.supportedPages, .unitSerialNumber, .logicalBlockProvisioning])
        #expect(pages.encode() == hex("00 00 0003 00 80 b2"))
        #expect(SupportedVPDPages(parsing: pages.encode()) == pages)
        #expect(UnitSerialNumber(serial: "A1").encode() == hex("00 80 0002 4131"))
        #expect(UnitSerialNumber(parsing: hex("00 80 0006 202041312020"))?.serial == "A1")
        #expect(VPDPage.declaredByteCount(hex("00 83 0102")) == 0x106)
    }

    @Test func anotherPageIsRefused() {
        #expect(SupportedVPDPages(parsing: hex("00 80 0001 41")) == nil)
        #expect(UnitSerialNumber(parsing: hex("00 00 0001 41")) == nil)
        #expect(BlockLimits(parsing: hex("00 b1 0000")) == nil)
        #expect(DeviceIdentification(parsing: InquiryTests.tgt) == nil)
    }

    @Test func blockLimitsGoRound() throws {
        var limits = BlockLimits()
        limits.refusesWriteSameToEnd = true
        limits.maxCompareAndWriteBlockCount = 255
        limits.optimalTransferGranularity = 0x0102
        limits.maxTransferBlockCount = 0x0304_0506
        limits.optimalTransferBlockCount = 0x0708_090A
        limits.maxPrefetchBlockCount = 11
        limits.maxUnmapBlockCount = .max
        limits.maxUnmapDescriptorCount = 256
        limits.optimalUnmapGranularity = 8
        limits.unmapGranularityAlignment = 3
        limits.maxWriteSameBlockCount = 1 << 40
        limits.maxAtomicTransferBlockCount = 1
        limits.atomicAlignment = 2
        limits.atomicTransferGranularity = 3
        limits.maxAtomicTransferBlockCountWithBoundary = 4
        limits.maxAtomicBoundaryBlockCount = 5
        let bytes = limits.encode()
        #expect(bytes.count == 64)
        #expect(bytes.prefix(12) == [0, 0xB0, 0, 0x3C, 1, 255, 1, 2, 3, 4, 5, 6])
        #expect(bytes[32..<36] == [0x80, 0, 0, 3])
        #expect(BlockLimits(parsing: bytes) == limits)
    }

    @Test func aShortBlockLimitsPageLeavesTheRestOpen() throws {
        let limits = try #require(BlockLimits(parsing: hex("00 b0 000c 0000 0008 00001000 00000800")))
        #expect(limits.maxTransferBlockCount == 0x1000)
        #expect(limits.optimalTransferBlockCount == 0x800)
        #expect(limits.maxUnmapBlockCount == 0)
        #expect(limits.unmapGranularityAlignment == nil)
    }

    @Test func characteristicsAndProvisioningGoRound() throws {
        var characteristics = BlockDeviceCharacteristics()
        characteristics.mediumRotationRate = 1
        characteristics.productType = 2
        characteristics.nominalFormFactor = 5
        characteristics.forceUnitAccessBehavior = true
        #expect(characteristics.isNonRotating)
        #expect(characteristics.encode().count == 64)
        #expect(BlockDeviceCharacteristics(parsing: characteristics.encode()) == characteristics)

        var provisioning = LogicalBlockProvisioning()
        provisioning.supportsUnmap = true
        provisioning.supportsWriteSame16Unmap = true
        provisioning.readsZeroField = 1
        provisioning.supportsAnchor = true
        provisioning.type = .thin
        provisioning.thresholdExponent = 9
        provisioning.minimumPercentage = 31
        provisioning.thresholdPercentage = 80
        #expect(provisioning.encode() == hex("00 b2 0004 09 c6 fa 50"))
        #expect(LogicalBlockProvisioning(parsing: provisioning.encode()) == provisioning)
        provisioning.provisioningGroup = hex("0103001060014051 0000000000000000 0000000000000001")
        #expect(LogicalBlockProvisioning(parsing: provisioning.encode()) == provisioning)
    }

    @Test func designatorsGoRound() throws {
        let page = DeviceIdentification(descriptors: [
            DesignationDescriptor(association: .logicalUnit, type: .naa, codeSet: .binary, designator: hex("5001405abcdef012")),
            DesignationDescriptor(
                association: .targetDevice, type: .scsiName, codeSet: .utf8, protocolIdentifier: 5,
                designator: Array("iqn.2026-11.org.example:a\0\0\0".utf8)),
            .relativeTargetPort(0x0102), .targetPortGroup(7),
            DesignationDescriptor(
                association: .reserved, type: DesignatorType(rawValue: 0xF), codeSet: DesignatorCodeSet(rawValue: 0xE),
                designator: []),
        ])
        let bytes = page.encode()
        #expect(bytes[4..<8] == [0x01, 0x03, 0x00, 0x08])
        #expect(bytes[16..<20] == [0x53, 0xA8, 0x00, 0x1C])
        let read = try #require(DeviceIdentification(parsing: bytes))
        #expect(read == page)
        #expect(read.relativeTargetPort == 0x0102)
        #expect(read.targetPortGroup == 7)
    }

    @Test func aCutDesignatorEndsTheList() throws {
        let bytes = DeviceIdentification(descriptors: [.relativeTargetPort(1), .targetPortGroup(2)]).encode()
        let read = try #require(DeviceIdentification(parsing: Array(bytes.dropLast())))
        #expect(read.descriptors == [.relativeTargetPort(1)])
        #expect(read.targetPortGroup == nil)
    }
}
