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

    func inquiry(_ command: DeviceCommand) -> DeviceResult {
        let allocation = Int(command.cdb.field(at: 3, width: 2))
        let page = command.cdb.bytes[2]
        guard command.cdb.bytes[1] & 0x01 != 0 else {
            // A page code without EVPD.
            guard page == 0 else { return .check(.badCDBField) }
            return answer(standardInquiry.encode(), allocation: allocation)
        }
        guard let data = vitalProductData(VPDPage(rawValue: page), portGroup: node.portGroups[command.portGroup]) else {
            return .check(.badCDBField)
        }
        return answer(data, allocation: allocation)
    }

    private var standardInquiry: InquiryData {
        InquiryData(
            targetPortGroupSupport: node.allowsExplicitTransitions ? [.implicit, .explicit] : [.implicit],
            isMultiPort: node.portGroups.count > 1, vendor: configuration.vendor, product: configuration.product,
            revision: configuration.revision, versionDescriptors: Self.versionDescriptors)
    }

    /// What a LUN without a unit answers to INQUIRY: qualifier 011b, device type 1Fh (SPC-4 clause 6.4.2).
    static func inquiryOfNothing(_ command: DeviceCommand, pool: TargetBufferPool) -> DeviceResult {
        guard command.cdb.bytes[1] & 0x01 == 0, command.cdb.bytes[2] == 0 else { return .check(.badCDBField) }
        let data = InquiryData(
            peripheralQualifier: 3, deviceType: 0x1F, vendor: "MPIO", product: "NO LOGICAL UNIT", revision: "0001")
        return answer(data.encode(), allocation: Int(command.cdb.field(at: 3, width: 2)), pool: pool)
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
            data.readsZeroField = isThin ? 1 : 0
            data.type = isThin ? .thin : .fullOrUnknown
            return data.encode()
        default: return nil
        }
    }

    private func deviceIdentification(_ portGroup: PortGroup) -> [UInt8] {
        let tag = String(portGroup.tag, radix: 16)
        let portName = "\(node.name),t,0x" + String(repeating: "0", count: 4 - tag.count) + tag
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
            name(node.name, .targetDevice),
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
        limits.maxCompareAndWriteBlockCount = 255
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
    static func reportLUNs(_ command: DeviceCommand, node: TargetNode, pool: TargetBufferPool) -> DeviceResult {
        let allocation = Int(command.cdb.field(at: 6, width: 4))
        guard allocation >= 16 else { return .check(.badCDBField) }
        let luns: [LogicalUnitNumber]
        switch command.cdb.bytes[2] {
        // Addressable units, all units; there are no well-known ones.
        case 0x00, 0x02: luns = node.units.compactMap { LogicalUnitNumber(index: $0.number) }
        case 0x01: luns = []
        default: return .check(.badCDBField)
        }
        return answer(LUNList(luns: luns).encode(), allocation: allocation, pool: pool)
    }

    // MARK: capacity

    func readCapacity10(_ command: DeviceCommand) -> DeviceResult {
        // PMI without an address is the same question; with one it asks about a medium's zones.
        let pmi = command.cdb.bytes[8] & 1 != 0
        guard pmi || command.cdb.field(at: 2, width: 4) == 0 else { return .check(.badCDBField) }
        return answer(ReadCapacity10Data(blockCount: blockCount, blockSize: UInt32(blockSize)).encode(), allocation: 8)
    }

    func serviceActionIn16(_ command: DeviceCommand) -> DeviceResult {
        let allocation = Int(command.cdb.field(at: 10, width: 4))
        switch command.cdb.bytes[1] & 0x1F {
        case 0x10:
            let data = ReadCapacity16Data(
                blockCount: blockCount, blockSize: UInt32(blockSize),
                isThinlyProvisioned: backend.isThinlyProvisioned, unmappedReadsZero: backend.isThinlyProvisioned)
            return answer(data.encode(), allocation: allocation)
        case 0x12: return getLBAStatus(command, allocation: allocation)
        default: return .check(.badCDBField)
        }
    }

    /// SBC-3 clause 5.6: descriptors of 16 bytes, as many as fit, from the address on.
    private func getLBAStatus(_ command: DeviceCommand, allocation: Int) -> DeviceResult {
        guard backend.isThinlyProvisioned else { return .check(.badCDBField) }
        var lba = command.cdb.field(at: 2, width: 8)
        guard lba < blockCount else { return .check(.blockOutOfRange) }
        var list: [UInt8] = []
        let size = UInt64(blockSize)
        repeat {
            let (isMapped, byteCount) = backend.mapping(at: lba * size)
            let count = min(max(1, byteCount / size), blockCount - lba, UInt64(UInt32.max))
            list.append64(lba)
            list.append32(UInt32(count))
            list += [isMapped ? 0 : 1, 0, 0, 0]
            lba += count
        } while lba < blockCount && list.count + 24 <= min(allocation, 4096)
        var bytes: [UInt8] = []
        bytes.append32(UInt32(list.count + 4))
        bytes.append32(0)
        return answer(bytes + list, allocation: allocation)
    }

    /// SBC-3 clauses 5.20 and 5.21: a memory or a file has no defects of its own to list.
    func readDefectData(_ command: DeviceCommand) -> DeviceResult {
        if command.cdb.operationCode == OperationCode.readDefectData10 {
            return answer([0, command.cdb.bytes[2] & 0x1F, 0, 0], allocation: Int(command.cdb.field(at: 7, width: 2)))
        }
        return answer(
            [0, command.cdb.bytes[1] & 0x1F, 0, 0, 0, 0, 0, 0], allocation: Int(command.cdb.field(at: 6, width: 4)))
    }
}
