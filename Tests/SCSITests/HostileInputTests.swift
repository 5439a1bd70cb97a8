import SCSI
import Testing

/// What a peer sends can be cut anywhere and be anything. A parser that traps ends the test process.
@Suite struct HostileInputTests {
    /// Runs every parser over `bytes`.
    static func parseAll(_ bytes: [UInt8]) {
        _ = SenseData(parsing: bytes).map { "\($0)" }
        _ = InquiryData(parsing: bytes)
        _ = SupportedVPDPages(parsing: bytes)
        _ = UnitSerialNumber(parsing: bytes)
        _ = BlockLimits(parsing: bytes)
        _ = BlockDeviceCharacteristics(parsing: bytes)
        _ = LogicalBlockProvisioning(parsing: bytes)
        if let page = DeviceIdentification(parsing: bytes) {
            _ = page.relativeTargetPort
            _ = LogicalUnitIdentity.best(
                designators: page.descriptors, unitSerial: nil, vendor: "", product: "", targetName: "t")?.description
        }
        _ = ReadCapacity10Data(parsing: bytes)
        _ = ReadCapacity16Data(parsing: bytes)
        _ = LUNList(parsing: bytes)
        _ = TargetPortGroupReport(parsing: bytes)
        _ = try? TargetPortGroupChange.parse(bytes)
        _ = RegisteredKeys(parsing: bytes)
        _ = ReservationReport(parsing: bytes)
        _ = ReservationCapabilities(parsing: bytes)
        _ = FullReservationStatus(parsing: bytes)?.registrations.map { $0.transportID.iSCSIPort?.name }
        _ = try? ReservationParameters(parsing: bytes)
        _ = try? RegisterAndMoveParameters(parsing: bytes)
        _ = try? UnmapList(parsing: bytes)
        _ = LBAStatusReport(parsing: bytes)
        for format in [ModeHeaderFormat.six, .ten] {
            for page in ModeParameters(parsing: bytes, format: format)?.pages ?? [] {
                _ = CachingModePage(page)
                _ = ControlModePage(page)
                _ = RigidDiskGeometryModePage(page)
            }
            _ = try? ModeParameters(selecting: bytes, format: format)
        }
        _ = SupportedOperationList(parsing: bytes)
        _ = OperationSupport(parsing: bytes)
        if let block = CommandDescriptorBlock(bytes) { _ = try? block.decode().transfer(blockSize: .max) }
        _ = LogicalUnitIdentity(String(decoding: bytes, as: UTF8.self))
        _ = LogicalUnitNumber(String(decoding: bytes, as: UTF8.self))
    }

    static let wellFormed: [[UInt8]] = [
        SenseData(key: .illegalRequest, additional: .invalidFieldInCommand, information: 9,
            specific: .fieldPointer(FieldPointer(isInCommand: true, byte: 2, bit: 3))).encode(format: .descriptor),
        SenseData(key: .mediumError, additional: .unrecoveredReadError, information: 9).encode(),
        InquiryTests.tgt,
        DeviceIdentification(descriptors: [
            IdentityTests.naa6, IdentityTests.naa3, IdentityTests.eui, IdentityTests.uuid, IdentityTests.name,
            IdentityTests.t10, .relativeTargetPort(1), .targetPortGroup(2),
        ]).encode(),
        SupportedVPDPages(pages: [.supportedPages, .blockLimits]).encode(), UnitSerialNumber(serial: "1234").encode(),
        BlockLimits().encode(), BlockDeviceCharacteristics().encode(), LogicalBlockProvisioning().encode(),
        ReadCapacity16Data(blockCount: 9, blockSize: 512).encode(),
        LUNList(luns: [LogicalUnitNumber(rawValue: 0), LogicalUnitNumber(rawValue: 1 << 48)]).encode(),
        TargetPortGroupReport(groups: TargetPortGroupTests.groups, implicitTransitionSeconds: 5).encode(),
        TargetPortGroupReport(groups: TargetPortGroupTests.groups).encode(),
        RegisteredKeys(generation: 1, keys: [1, 2]).encode(),
        FullReservationStatus(
            generation: 1,
            registrations: [.init(key: 1, heldType: nil, relativeTargetPort: 1, transportID: ReservationTests.port)]
        ).encode(),
        ReservationParameters(key: 1, initiatorPorts: [ReservationTests.port]).encode(),
        RegisterAndMoveParameters(key: 1, actionKey: 2, relativeTargetPort: 1, initiatorPort: ReservationTests.port).encode(),
        UnmapList(ranges: [BlockRange(lba: 1, blockCount: 2)]).encode(),
        LBAStatusReport(extents: [.init(range: BlockRange(lba: 1, blockCount: 2), status: .anchored)]).encode(),
        ModeParameters(
            blockDescriptor: .init(blockCount: 1, blockSize: 512, isLong: true), pages: [ModeTests.control.page]
        ).encode(format: .ten),
        ModeParameters(pages: [ModeTests.control.page]).encode(format: .six),
        SupportedOperation.encode(Array(SupportedOperation.decodable.prefix(5)), withTimeouts: true),
        SupportedOperation.encodeOne(SupportedOperation.decodable[0], withTimeouts: true),
    ]

    @Test func noParserTrapsOnAWellFormedAnswerCutAnywhere() {
        for bytes in Self.wellFormed {
            for count in 0...bytes.count { Self.parseAll(Array(bytes.prefix(count))) }
        }
    }

    @Test func noParserTrapsOnOneWrongByte() {
        for bytes in Self.wellFormed {
            for index in bytes.indices {
                for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] as [UInt8] {
                    var damaged = bytes
                    damaged[index] = value
                    Self.parseAll(damaged)
                }
            }
        }
    }

    @Test func noParserTrapsOnRandomBytesOfAnyLength() {
        var generator = SeededGenerator(seed: 42)
        for count in 0...300 {
            Self.parseAll(generator.bytes(count))
            // With the first bytes that each kind of page begins with, so that the parsers get further.
            for page in [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2] as [UInt8] {
                Self.parseAll([0, page, 0, UInt8(min(count, 255))] + generator.bytes(count))
            }
            for code in [0x70, 0xF1, 0x72, 0x73] as [UInt8] { Self.parseAll([code] + generator.bytes(count)) }
            Self.parseAll([0, 0, 0, UInt8(min(count, 255))] + generator.bytes(count))
        }
    }

    @Test func everyCDBIsUnderstoodOrRefused() throws {
        var generator = SeededGenerator(seed: 43)
        var understood = 0
        for code in UInt8.min...UInt8.max {
            for _ in 0..<64 {
                let block = try #require(CommandDescriptorBlock([code] + generator.bytes(15)))
                do {
                    _ = try block.decode(supportsProtection: true).transfer(blockSize: .max)
                    understood += 1
                } catch {
                    let sense = error.sense
                    #expect(sense.key == .illegalRequest)
                    #expect(SenseData(parsing: sense.encode()) == sense)
                }
            }
        }
        #expect(understood > 500)
    }
}
