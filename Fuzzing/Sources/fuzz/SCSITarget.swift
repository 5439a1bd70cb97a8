import SCSI

/// Every parser of the SCSI module over the same bytes.
@Sendable
func fuzzSCSI(_ input: UnsafeRawBufferPointer) {
    let bytes = Array(input)
    if let sense = SenseData(parsing: bytes) {
        _ = "\(sense)"
        for format in [SenseFormat.fixed, .descriptor] { require(SenseData(parsing: sense.encode(format: format)) != nil, "sense encodes") }
    }
    parseInquiryPages(bytes)
    parseParameterData(bytes)
    parseReservations(bytes)
    parseModes(bytes)
    if let block = CommandDescriptorBlock(bytes) {
        for protects in [false, true] { _ = try? block.decode(supportsProtection: protects).transfer(blockSize: .max) }
    }
    guard bytes.count <= 300 else { return }
    let text = String(decoding: bytes, as: UTF8.self)
    if let identity = LogicalUnitIdentity(text) {
        require(LogicalUnitIdentity(identity.description) == identity, "identities round trip as text")
    }
    if let lun = LogicalUnitNumber(text) { require(LogicalUnitNumber("\(lun)") == lun, "LUNs round trip as text") }
}

private func parseInquiryPages(_ bytes: [UInt8]) {
    _ = InquiryData(parsing: bytes)
    _ = SupportedVPDPages(parsing: bytes)
    _ = UnitSerialNumber(parsing: bytes)
    _ = BlockLimits(parsing: bytes)
    _ = BlockDeviceCharacteristics(parsing: bytes)
    _ = LogicalBlockProvisioning(parsing: bytes)
    _ = VPDPage.declaredByteCount(bytes)
    guard let page = DeviceIdentification(parsing: bytes) else { return }
    _ = page.relativeTargetPort
    _ = page.targetPortGroup
    if let best = LogicalUnitIdentity.best(
        designators: page.descriptors, unitSerial: nil, vendor: "", product: "", targetName: "t")
    {
        require(LogicalUnitIdentity(best.description) == best, "what a device calls itself can be written in a policy file")
    }
}

private func parseParameterData(_ bytes: [UInt8]) {
    _ = ReadCapacity10Data(parsing: bytes)
    _ = ReadCapacity16Data(parsing: bytes)
    _ = LUNList(parsing: bytes)
    _ = TargetPortGroupReport(parsing: bytes)
    _ = try? TargetPortGroupChange.parse(bytes)
    _ = try? UnmapList(parsing: bytes)
    _ = LBAStatusReport(parsing: bytes)
    _ = SupportedOperationList(parsing: bytes)
    _ = OperationSupport(parsing: bytes)
}

private func parseReservations(_ bytes: [UInt8]) {
    _ = RegisteredKeys(parsing: bytes)
    _ = ReservationReport(parsing: bytes)
    _ = ReservationCapabilities(parsing: bytes)
    _ = FullReservationStatus(parsing: bytes)?.registrations.map { $0.transportID.iSCSIPort?.name }
    _ = try? ReservationParameters(parsing: bytes)
    _ = try? RegisterAndMoveParameters(parsing: bytes)
}

private func parseModes(_ bytes: [UInt8]) {
    for format in [ModeHeaderFormat.six, .ten] {
        for page in ModeParameters(parsing: bytes, format: format)?.pages ?? [] {
            _ = CachingModePage(page)
            _ = ControlModePage(page)
            _ = RigidDiskGeometryModePage(page)
        }
        _ = try? ModeParameters(selecting: bytes, format: format)
        _ = ModeParameters.declaredByteCount(bytes, format: format)
    }
}

@Sendable
func scsiSeeds() -> [[UInt8]] {
    let naa6: [UInt8] = [0x01, 0x03, 0x00, 0x10, 0x60, 0x01, 0x40, 0x5A, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    let eui: [UInt8] = [0x01, 0x02, 0x00, 0x08, 1, 2, 3, 4, 5, 6, 7, 8]
    let uuid: [UInt8] = [0x01, 0x0A, 0x00, 0x12, 0x10, 0] + [UInt8](1...16)
    let name: [UInt8] = [0x03, 0x08, 0x00, 0x14] + Array("iqn.2026-11.org:a,l,0".utf8.prefix(20))
    let t10: [UInt8] = [0x02, 0x01, 0x00, 0x0C] + Array("VENDOR  0001".utf8)
    let descriptors = naa6 + eui + uuid + name + t10 + [0x01, 0x14, 0, 4, 0, 0, 0, 1] + [0x01, 0x15, 0, 4, 0, 0, 0, 2]
    let page83 = [0x00, 0x83, 0, UInt8(descriptors.count)] + descriptors
    let groups: [UInt8] = [0, 0, 0, 20, 0x80, 0x0F, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x01, 0x0F, 0, 0]
    return [
        SenseData(key: .illegalRequest, additional: .invalidFieldInCommand, information: 9).encode(format: .descriptor),
        SenseData(key: .mediumError, additional: .unrecoveredReadError, information: 9).encode(), page83, groups,
        [0, 0, 6, 2, 91, 0, 0, 2] + Array("LIO-ORG disk0           0001".utf8) + [UInt8](repeating: 0, count: 60),
        SupportedVPDPages(pages: [.supportedPages, .blockLimits]).encode(), UnitSerialNumber(serial: "1234").encode(),
        BlockLimits().encode(), BlockDeviceCharacteristics().encode(), LogicalBlockProvisioning().encode(),
        ReadCapacity16Data(blockCount: 9, blockSize: 512).encode(),
        LUNList(luns: [LogicalUnitNumber(rawValue: 0), LogicalUnitNumber(rawValue: 1 << 48)]).encode(),
        RegisteredKeys(generation: 1, keys: [1, 2]).encode(), UnmapList(ranges: [BlockRange(lba: 1, blockCount: 2)]).encode(),
        LBAStatusReport(extents: [.init(range: BlockRange(lba: 1, blockCount: 2), status: .anchored)]).encode(),
        ModeParameters(pages: [CachingModePage(isWriteCacheEnabled: true).page]).encode(format: .ten),
        ModeParameters(pages: [CachingModePage(isWriteCacheEnabled: true).page]).encode(format: .six),
        SupportedOperation.encode(Array(SupportedOperation.decodable.prefix(3)), withTimeouts: true),
        Array("naa.6001405a0102030405060708090a0b0c".utf8), Array("uuid.01020304-0506-0708-090a-0b0c0d0e0f10".utf8),
    ]
}
