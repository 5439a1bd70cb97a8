import ISCSI
import SCSI

// INQUIRY and the vital product data (SPC-4 clauses 6.4 and 7.8, SBC-3 clause 6.5).
extension LogicalUnit {
    private static let versionDescriptors: [UInt16] = [
        0x0960,  // iSCSI
        0x0460,  // SPC-4
        0x04C0,  // SBC-3
        0x00A0,  // SAM-5
    ]

    func inquiry(_ page: VPDPage?, portGroup: Int, allocation: Int) -> DeviceResult {
        guard let page else { return answer(standardInquiry.encode(), allocation: allocation) }
        guard let data = vitalProductData(page, portGroup: node.portGroups[portGroup]) else { return .check(.badCDBField) }
        return answer(data, allocation: allocation)
    }

    private var standardInquiry: InquiryData {
        InquiryData(
            targetPortGroupSupport: node.allowsExplicitTransitions ? [.implicit, .explicit] : [.implicit],
            isMultiPort: node.portGroups.count > 1, vendor: configuration.vendor, product: configuration.product,
            revision: configuration.revision, versionDescriptors: Self.versionDescriptors)
    }

    /// What a LUN without a unit answers to INQUIRY: qualifier 011b, device type 1Fh (SPC-4 clause 6.4.2).
    static func inquiryOfNothing(_ page: VPDPage?, allocation: Int, pool: TargetBufferPool) -> DeviceResult {
        guard page == nil else { return .check(.badCDBField) }
        let data = InquiryData(
            peripheralQualifier: 3, deviceType: 0x1F, vendor: "MPIO", product: "NO LOGICAL UNIT", revision: "0001")
        return answer(data.encode(), allocation: allocation, pool: pool)
    }

    private func vitalProductData(_ page: VPDPage, portGroup: PortGroup) -> [UInt8]? {
        switch page {
        case .supportedPages:
            var pages: [VPDPage] = [
                .supportedPages, .unitSerialNumber, .deviceIdentification, .extendedInquiry, .blockLimits,
                .blockDeviceCharacteristics,
            ]
            pages.append(.logicalBlockProvisioning)
            return SupportedVPDPages(pages: pages).encode()
        case .unitSerialNumber: return UnitSerialNumber(serial: serial).encode()
        case .deviceIdentification: return deviceIdentification(portGroup)
        case .extendedInquiry: return extendedInquiry
        case .blockLimits: return blockLimits
        case .blockDeviceCharacteristics:
            var data = BlockDeviceCharacteristics()
            data.mediumRotationRate = 1
            return data.encode()
        case .logicalBlockProvisioning:
            var data = LogicalBlockProvisioning()
            let isThin = backend.isThinlyProvisioned
            data.supportsUnmap = isThin
            data.supportsWriteSame16Unmap = isThin
            data.readsZeroField = isThin && backend.deallocatedContent != .anything ? 1 : 0
            data.type = isThin ? .thin : .fullOrUnknown
            return data.encode()
        default: return nil
        }
    }

    private func deviceIdentification(_ portGroup: PortGroup) -> [UInt8] {
        let tag = String(portGroup.tag, radix: 16)
        let portName = "\(portGroup.nodeName),t,0x" + String(repeating: "0", count: 4 - tag.count) + tag
        var vendorIdentifier: [UInt8] = []
        vendorIdentifier.appendText(configuration.vendor, width: 8)
        vendorIdentifier.append(contentsOf: serial.utf8)
        return DeviceIdentification(descriptors: [
            DesignationDescriptor(association: .logicalUnit, type: .naa, codeSet: .binary, designator: identity),
            DesignationDescriptor(
                association: .logicalUnit, type: .t10VendorID, codeSet: .ascii, designator: vendorIdentifier),
            .relativeTargetPort(portGroup.relativePortIdentifier),
            .targetPortGroup(portGroup.tag),
            name(portName, .targetPort),
            name(portGroup.nodeName, .targetDevice),
        ]).encode()
    }

    /// A SCSI name string (SPC-4 clause 7.8.6.11): UTF-8, ended by a zero, a multiple of four bytes long.
    private func name(_ text: String, _ association: DesignatorAssociation) -> DesignationDescriptor {
        var bytes = Array(text.utf8) + [0]
        while bytes.count % 4 != 0 { bytes.append(0) }
        return DesignationDescriptor(
            association: association, type: .scsiName, codeSet: .utf8, protocolIdentifier: 5, designator: bytes)
    }

    /// SPC-4 clause 7.8.7: simple, ordered and head-of-queue tasks; unit attentions are cleared one at a time.
    private var extendedInquiry: [UInt8] {
        var page = [UInt8](repeating: 0, count: 64)
        page[1] = VPDPage.extendedInquiry.rawValue
        page[3] = 60
        page[5] = 0x07
        // V_SUP: there is no volatile cache of the target's own; WU_SUP, CRD_SUP stay 0.
        page[7] = 0x01
        return page
    }

    private var blockLimits: [UInt8] {
        var limits = BlockLimits()
        limits.maxCompareAndWriteBlockCount = maximumCompareAndWriteBlocks
        limits.maxTransferBlockCount = UInt32(Self.maximumTransferByteCount / blockSize)
        limits.optimalTransferGranularity = UInt16(4096 / blockSize)
        limits.optimalTransferBlockCount = UInt32((1 << 20) / blockSize)
        limits.maxPrefetchBlockCount = UInt32(Self.maximumTransferByteCount / blockSize)
        limits.maxWriteSameBlockCount = maximumWriteSameBlocks
        limits.maxAtomicTransferBlockCount = maximumAtomicBlocks
        limits.atomicTransferGranularity = maximumAtomicBlocks > 0 ? 1 : 0
        if backend.isThinlyProvisioned {
            limits.maxUnmapBlockCount = .max
            limits.maxUnmapDescriptorCount = UInt32(Self.maximumUnmapDescriptors)
            limits.optimalUnmapGranularity = UInt32(MemoryBackend.chunkByteCount / blockSize)
            limits.unmapGranularityAlignment = 0
        }
        return limits.encode()
    }

    // MARK: REPORT LUNS

    /// SPC-4 clause 6.33; served on every LUN, present or not.
    static func reportLUNs(
        _ selection: LUNReportSelection, allocation: Int, node: TargetNode, pool: TargetBufferPool
    ) -> DeviceResult {
        let luns: [LogicalUnitNumber]
        switch selection {
        // There are no well-known units.
        case .ordinary, .all: luns = node.units.compactMap { LogicalUnitNumber(index: $0.number) }
        case .wellKnown: luns = []
        default: return .check(.badCDBField)
        }
        return answer(LUNList(luns: luns).encode(), allocation: allocation, pool: pool)
    }

    // MARK: capacity

    func readCapacity10() -> DeviceResult {
        answer(ReadCapacity10Data(blockCount: blockCount, blockSize: UInt32(blockSize)).encode(), allocation: 8)
    }

    func readCapacity16(allocation: Int) -> DeviceResult {
        let isThin = backend.isThinlyProvisioned
        let data = ReadCapacity16Data(
            blockCount: blockCount, blockSize: UInt32(blockSize), isThinlyProvisioned: isThin,
            unmappedReadsZero: isThin && backend.deallocatedContent != .anything)
        return answer(data.encode(), allocation: allocation)
    }
}
