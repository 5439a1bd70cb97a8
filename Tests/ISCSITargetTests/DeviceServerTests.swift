import ISCSI
import SCSI
import Testing

@testable import ISCSITarget

@Suite struct DeviceServerTests {
    @Test(arguments: [512, 4096]) func blocksReadBackAsTheyWereWritten(blockSize: Int) {
        let bench = DeviceBench(blockSize: blockSize)
        let nexus = bench.nexus()
        let data = bytes(3 * blockSize)
        #expect(bench.run(.write16(lba: 5, blockCount: 3), nexus, dataOut: data).status == .good)
        #expect(bench.run(.read(lba: 5, blockCount: 3), nexus).data == data)
        #expect(bench.run(.read12(lba: 6, blockCount: 1), nexus).data == Array(data[blockSize..<2 * blockSize]))
        #expect(bench.run(.read6(lba: 4, blockCount: 1)!, nexus).data == Array(repeating: 0, count: blockSize))
        #expect(bench.run(.write10(lba: 0, blockCount: 1), nexus, dataOut: Array(data[..<blockSize])).status == .good)
        #expect(bench.run(.read16(lba: 0, blockCount: 1), nexus).data == Array(data[..<blockSize]))
        #expect(bench.run(.synchronizeCache(), nexus).status == .good)
        #expect(bench.pool.lentByteCount == 0)
    }

    @Test func rangesOutsideOfTheUnitAreRefused() {
        let bench = DeviceBench(byteCount: 1 << 20)
        let nexus = bench.nexus()
        for cdb: CommandDescriptorBlock in [
            .read16(lba: 2048, blockCount: 1), .read16(lba: 2047, blockCount: 2), .read16(lba: .max, blockCount: .max),
            .read16(lba: 2048, blockCount: 0), .write16(lba: 2048, blockCount: 1), .verify(lba: 2047, blockCount: 2),
            .writeSame16(lba: 2047, blockCount: 2), .compareAndWrite(lba: 2048, blockCount: 1),
            .orWrite16(lba: 2048, blockCount: 1), .synchronizeCache16(lba: 2048, blockCount: 1), .preFetch(lba: 2048, blockCount: 1),
        ] {
            let outcome = bench.run(cdb, nexus, dataOut: bytes(512))
            #expect(outcome.additional == .lbaOutOfRange, "operation code \(cdb.operationCode)")
        }
        var protected = CommandDescriptorBlock.read(lba: 0, blockCount: 1)
        protected.bytes[1] = 0x20
        #expect(bench.run(protected, nexus).additional == .invalidFieldInCommand)
    }

    @Test func compareAndWriteWritesOnlyWhatMatches() {
        let bench = DeviceBench()
        let nexus = bench.nexus()
        let old = bytes(1024, seed: 1)
        let new = bytes(1024, seed: 2)
        bench.run(.write(lba: 0, blockCount: 2), nexus, dataOut: old)
        #expect(bench.run(.compareAndWrite(lba: 0, blockCount: 2), nexus, dataOut: old + new).status == .good)
        #expect(bench.run(.read(lba: 0, blockCount: 2), nexus).data == new)
        var wrong = new
        wrong[700] ^= 1
        let outcome = bench.run(.compareAndWrite(lba: 0, blockCount: 2), nexus, dataOut: wrong + old)
        #expect(outcome.sense?.key == .miscompare)
        #expect(outcome.sense?.information == 700)
        #expect(bench.run(.read(lba: 0, blockCount: 2), nexus).data == new)
        #expect(bench.run(.compareAndWrite(lba: 0, blockCount: 2), nexus, dataOut: old).additional == .invalidFieldInCommand)
    }

    @Test func orWriteAndVerify() {
        let bench = DeviceBench()
        let nexus = bench.nexus()
        let a = bytes(512, seed: 3)
        let b = bytes(512, seed: 4)
        bench.run(.write(lba: 9, blockCount: 1), nexus, dataOut: a)
        #expect(bench.run(.orWrite16(lba: 9, blockCount: 1), nexus, dataOut: b).status == .good)
        let both = zip(a, b).map { $0 | $1 }
        var verify = CommandDescriptorBlock.verify(lba: 9, blockCount: 1)
        verify.bytes[1] |= 0x02
        #expect(bench.run(verify, nexus, dataOut: both).status == .good)
        #expect(bench.run(verify, nexus, dataOut: a).sense?.key == .miscompare)
        #expect(bench.run(.verify(lba: 9, blockCount: 1), nexus).status == .good)
        #expect(bench.pool.lentByteCount == 0)
    }

    @Test func writeSameFillsAndUnmapsFreeStorage() throws {
        let bench = DeviceBench(byteCount: 16 << 20)
        let nexus = bench.nexus()
        let block = bytes(512)
        #expect(bench.run(.writeSame16(lba: 10, blockCount: 2000), nexus, dataOut: block).status == .good)
        #expect(bench.run(.read(lba: 2008, blockCount: 3), nexus).data == block + block + Array(repeating: 0, count: 512))
        let backend = try #require(bench.unit.backend as? MemoryBackend)
        let before = backend.allocatedByteCount

        func status(_ lba: UInt64) -> LBAStatusReport? {
            LBAStatusReport(parsing: bench.run(.getLBAStatus(startingLBA: lba, allocationByteCount: 512), nexus).data)
        }
        #expect(status(10)?.extents.first?.status == .mapped)
        let list = UnmapList(ranges: [BlockRange(lba: 0, blockCount: 256), BlockRange(lba: 300, blockCount: 1)]).encode()
        #expect(bench.run(.unmap(parameterByteCount: UInt16(list.count)), nexus, dataOut: list).status == .good)
        #expect(backend.allocatedByteCount == before - 2 * MemoryBackend.chunkByteCount)
        #expect(status(0)?.extents.first == .init(range: BlockRange(lba: 0, blockCount: 256), status: .deallocated))
        #expect(bench.run(.read(lba: 255, blockCount: 2), nexus).data == Array(repeating: 0, count: 512) + block)
        #expect(bench.run(.read(lba: 300, blockCount: 1), nexus).data == Array(repeating: 0, count: 512))

        let past = UnmapList(ranges: [BlockRange(lba: 32_767, blockCount: 2)]).encode()
        #expect(bench.run(.unmap(parameterByteCount: UInt16(past.count)), nexus, dataOut: past).additional == .lbaOutOfRange)
        let zero = [UInt8](repeating: 0, count: 512)
        #expect(bench.run(.writeSame16(lba: 256, blockCount: 1792, options: .unmap), nexus, dataOut: zero).status == .good)
        #expect(backend.allocatedByteCount == 0)
    }

    @Test func identityAndLimitsCanBeReadFromTheVitalProductData() throws {
        let bench = DeviceBench()
        let nexus = bench.nexus()
        let other = bench.nexus(2, portGroup: 1)
        let standard = try #require(InquiryData(parsing: bench.run(.inquiry(allocationByteCount: 255), nexus).data))
        #expect(standard.isBlockDevice && standard.vendor == "MPIO" && standard.targetPortGroupSupport == [.implicit])
        let supported = try #require(
            SupportedVPDPages(parsing: bench.run(.inquiry(page: .supportedPages, allocationByteCount: 255), nexus).data))
        #expect(supported.pages == supported.pages.sorted { $0.rawValue < $1.rawValue })
        for page in supported.pages {
            let data = bench.run(.inquiry(page: page, allocationByteCount: 512), nexus).data
            #expect(data.count >= 4 && data[1] == page.rawValue)
            #expect(Int(data[2]) << 8 | Int(data[3]) == data.count - 4)
            #expect(bench.run(.inquiry(page: page, allocationByteCount: 4), nexus).data == Array(data[..<4]))
        }
        func identification(_ nexus: NexusIndex) throws -> DeviceIdentification {
            let data = bench.run(.inquiry(page: .deviceIdentification, allocationByteCount: 512), nexus).data
            return try #require(DeviceIdentification(parsing: data))
        }
        let (first, second) = (try identification(nexus), try identification(other))
        #expect((first.relativeTargetPort, second.relativeTargetPort) == (1, 2))
        #expect((first.targetPortGroup, second.targetPortGroup) == (1, 2))
        let naa = first.descriptors.first { $0.type == .naa }
        #expect(naa?.designator == bench.unit.identity && bench.unit.identity.first.map { $0 >> 4 } == 6)
        #expect(second.descriptors.first { $0.type == .naa } == naa, "one identity through every port")
        let limits = try #require(
            BlockLimits(parsing: bench.run(.inquiry(page: .blockLimits, allocationByteCount: 255), nexus).data))
        #expect(limits.maxCompareAndWriteBlockCount == 255 && limits.maxTransferBlockCount == 65_536)
        let capacity = try #require(ReadCapacity16Data(parsing: bench.run(.readCapacity16(), nexus).data))
        #expect(capacity.blockCount == 32_768 && capacity.blockSize == 512 && capacity.unmappedReadsZero)
        #expect(
            ReadCapacity10Data(parsing: bench.run(.readCapacity10(), nexus).data) == .capacity(blockCount: 32_768, blockSize: 512))
    }

    @Test func unitsOverTwoTebibytesAnswerAllOnesToTheShortQuestion() {
        let bench = DeviceBench(byteCount: 4 << 40)
        let nexus = bench.nexus()
        #expect(ReadCapacity10Data(parsing: bench.run(.readCapacity10(), nexus).data) == .tooLarge(blockSize: 512))
        #expect(bench.run(.write16(lba: 8_589_934_591, blockCount: 1), nexus, dataOut: bytes(512)).status == .good)
        #expect(bench.run(.read16(lba: 8_589_934_591, blockCount: 1), nexus).data == bytes(512))
    }

    @Test func everySupportedOperationCodeIsServed() throws {
        let bench = DeviceBench(explicitTransitions: true)
        let nexus = bench.nexus()
        let data = bench.run(.reportSupportedOperationCodes(.all, allocationByteCount: 4096), nexus).data
        #expect(data.count > 300)
        var found = 0
        for offset in stride(from: 4, to: data.count, by: 8) {
            var cdb = CommandDescriptorBlock(operationCode: data[offset])
            if data[offset + 5] & 1 != 0 { cdb.bytes[1] = data[offset + 3] }
            #expect(Int(cdb.count) == Int(data[offset + 7]), "operation code \(data[offset])")
            let outcome = bench.run(cdb, nexus, dataOut: bytes(512))
            #expect(outcome.additional != .invalidOperationCode, "operation code \(data[offset])")
            found += 1
        }
        #expect(found > 50)
        #expect(bench.run(CommandDescriptorBlock(operationCode: 0xC1), nexus).additional == .invalidOperationCode)
        #expect(bench.pool.lentByteCount == 0)
    }

    @Test func unitAttentionsAreOwedToEachNexusOnce() {
        let bench = DeviceBench()
        let one = bench.nexus(1, isSettled: false)
        #expect(bench.run(.inquiry(allocationByteCount: 36), one).status == .good, "served with one waiting")
        #expect(bench.run(.testUnitReady(), one).additional == .powerOnResetOrBusDeviceReset)
        #expect(bench.run(.testUnitReady(), one).status == .good)
        let two = bench.nexus(2)
        bench.node.nexusEnded(one)
        let again = bench.nexus(1, isSettled: false)
        #expect(again == one)
        #expect(bench.run(.testUnitReady(), again).additional == .nexusLossOccurred)
        bench.unit.setBlockCount(1000)
        for nexus in [one, two] { #expect(bench.run(.testUnitReady(), nexus).additional == .capacityDataChanged) }
        let sense = bench.run(.requestSense(), one).data
        #expect(SenseData(parsing: sense)?.key == .noSense)
    }

    @Test func softwareWriteProtectionIsSetByModeSelect() {
        let bench = DeviceBench()
        let (one, two) = (bench.nexus(1), bench.nexus(2))
        func select(_ flags: UInt8, _ other: UInt8 = 0) -> DeviceBench.Outcome {
            var cdb = CommandDescriptorBlock(operationCode: 0x15)
            cdb.bytes[1] = 0x10
            cdb.bytes[4] = 16
            return bench.run(
                cdb, one, dataOut: [0, 0, 0, 0, 0x0A, 10, other, 0x10, flags] + [UInt8](repeating: 0, count: 7))
        }
        #expect(select(0x08).status == .good)
        #expect(bench.run(.write(lba: 0, blockCount: 1), one, dataOut: bytes(512)).sense?.key == .dataProtect)
        #expect(bench.run(.testUnitReady(), two).additional == .modeParametersChanged)
        #expect(select(0x00).status == .good)
        #expect(bench.run(.write(lba: 0, blockCount: 1), one, dataOut: bytes(512)).status == .good)
        #expect(select(0x00, 0x80).additional == .invalidFieldInParameterList, "not changeable")
        // D_SENSE turns sense data to descriptor format.
        #expect(select(0x00, 0x04).status == .good)
        let token = bench.begin(.read16(lba: .max, blockCount: 1), one)
        #expect(bench.results[token]?.senseFormat == .descriptor)
    }

    @Test func aReadOnlyUnitRefusesAllThatWrites() {
        let bench = DeviceBench(isReadOnly: true)
        let nexus = bench.nexus()
        for cdb: CommandDescriptorBlock in [
            .write(lba: 0, blockCount: 1), .writeSame16(lba: 0, blockCount: 1), .orWrite16(lba: 0, blockCount: 1),
            .compareAndWrite(lba: 0, blockCount: 1),
        ] {
            #expect(bench.run(cdb, nexus, dataOut: bytes(512)).additional == .writeProtected)
        }
        #expect(bench.run(.read(lba: 0, blockCount: 1), nexus).status == .good)
    }

    @Test func accessStatesGateTheirPortGroup() throws {
        let bench = DeviceBench(explicitTransitions: true)
        let (one, two) = (bench.nexus(1, portGroup: 0), bench.nexus(2, portGroup: 1))
        bench.node.setState(.standby, ofGroupTag: 2)
        for nexus in [one, two] { #expect(bench.run(.requestSense(), nexus).data[12...13] == [0x2A, 0x06]) }
        #expect(bench.run(.read(lba: 0, blockCount: 1), one).status == .good)
        #expect(bench.run(.read(lba: 0, blockCount: 1), two).additional == .portInStandbyState)
        #expect(bench.run(.inquiry(allocationByteCount: 36), two).status == .good)
        let report = try #require(
            TargetPortGroupReport(parsing: bench.run(.reportTargetPortGroups(allocationByteCount: 512), two).data))
        #expect(report.groups.map(\.state) == [.optimized, .standby])
        #expect(report.groups.map(\.identifier) == [1, 2])
        let change = TargetPortGroupChange.encode([.init(identifier: 2, state: .optimized), .init(identifier: 1, state: .nonOptimized)])
        #expect(bench.run(.setTargetPortGroups(parameterByteCount: UInt32(change.count)), two, dataOut: change).status == .good)
        #expect(bench.run(.read(lba: 0, blockCount: 1), two).status == .good)
        #expect(bench.run(.read(lba: 0, blockCount: 1), one).additional == .accessStateChanged)
        bench.node.setState(.transitioning, ofGroupTag: 1)
        _ = bench.run(.requestSense(), one)
        #expect(bench.run(.testUnitReady(), one).additional == .accessStateTransition)
        bench.node.setState(.unavailable, ofGroupTag: 1)
        _ = bench.run(.requestSense(), one)
        #expect(bench.run(.testUnitReady(), one).additional == .portInUnavailableState)
    }

    @Test func initiatorsWithRandomNamesDoNotFillTheNexusTable() {
        let bench = DeviceBench()
        let holder = bench.nexus(1)
        _ = bench.run(.persistentReserveOut(.register), holder, dataOut: ReservationParameters(key: 0, actionKey: 5).encode())
        bench.node.nexusEnded(holder)
        var highest = 0
        for qualifier: UInt16 in 2..<3000 {
            let nexus = bench.nexus(qualifier)
            highest = max(highest, nexus.rawValue)
            bench.node.nexusEnded(nexus)
        }
        #expect(highest < 300)
        #expect(bench.nexus(1) == holder, "a registration keeps its nexus")
    }
}
