import SCSI
import Testing

/// Whole CDBs against the standards' tables, byte by byte.
@Suite struct CommandLayoutTests {
    typealias CDB = CommandDescriptorBlock

    @Test func deviceCommandsAreLaidOutAsTheStandardsHaveThem() {
        #expect(CDB.testUnitReady().array == hex("000000000000"))
        #expect(CDB.requestSense(descriptorFormat: true, allocationByteCount: 96).array == hex("030100006000"))
        #expect(CDB.inquiry(allocationByteCount: 0x1234).array == hex("120000123400"))
        #expect(CDB.inquiry(page: .deviceIdentification, allocationByteCount: 255).array == hex("12018300ff00"))
        #expect(CDB.reportLUNs(selection: .all, allocationByteCount: 0x0102_0304).array == hex("a00002000000010203040000"))
        #expect(CDB.readCapacity10().array == hex("25000000000000000000"))
        #expect(CDB.readCapacity16().array == hex("9e100000000000000000000000200000"))
        #expect(CDB.startStopUnit(StartStopRequest(start: true, isImmediate: true)).array == hex("1b0100000100"))
        #expect(CDB.preventAllowMediumRemoval(.prevent).array == hex("1e0000000100"))
        #expect(CDB.reserve6().array == hex("160000000000"))
        #expect(CDB.release10().array == hex("57000000000000000000"))
    }

    @Test func transfersAreLaidOutAsTheStandardsHaveThem() {
        #expect(CDB.read6(lba: 0x1F_EDCB, blockCount: 256)?.array == hex("081fedcb0000"))
        #expect(CDB.write6(lba: 1, blockCount: 2)?.array == hex("0a0000010200"))
        #expect(
            CDB.read(lba: 0x0102_0304, blockCount: 0x0506, options: .forceUnitAccess).array
                == hex("28080102030400050600"))
        #expect(
            CDB.write(lba: 0x0102_0304_0506, blockCount: 7, options: [.forceUnitAccess, .disablePageOut]).array
                == hex("8a180000010203040506000000070000"))
        #expect(CDB.read12(lba: 0x0102_0304, blockCount: 0x0506_0708).array == hex("a80001020304050607080000"))
        #expect(CDB.write12(lba: 1, blockCount: 2).array == hex("aa0000000001000000020000"))
        #expect(CDB.verify(lba: 1, blockCount: 2, mode: .compareWithOne).array == hex("2f060000000100000200"))
        #expect(
            CDB.writeAndVerify(lba: 1 << 40, blockCount: 2, mode: .compareEach).array
                == hex("8e020000010000000000000000020000"))
        #expect(CDB.synchronizeCache().array == hex("35000000000000000000"))
        #expect(CDB.synchronizeCache16(lba: 1, blockCount: 2, isImmediate: true).array
            == hex("91020000000000000001000000020000"))
        #expect(CDB.preFetch(lba: 9, blockCount: 8).array == hex("34000000000900000800"))
        #expect(CDB.compareAndWrite(lba: 0x11, blockCount: 3).array == hex("89000000000000000011000000030000"))
        #expect(CDB.orWrite16(lba: 0x11, blockCount: 3).array == hex("8b000000000000000011000000030000"))
    }

    @Test func provisioningAndMaintenanceAreLaidOutAsTheStandardsHaveThem() {
        #expect(CDB.unmap(parameterByteCount: 24).array == hex("42000000000000001800"))
        #expect(CDB.writeSame10(lba: 5, blockCount: 6, options: [.unmap, .noDataOut]).array
            == hex("41080000000500000600"))
        #expect(CDB.writeSame16(lba: 5, blockCount: 6, options: [.unmap, .noDataOut]).array
            == hex("93090000000000000005000000060000"))
        #expect(CDB.writeSame16(lba: 5, blockCount: 6, unmap: true, anchor: true, noDataOut: true).array
            == hex("93190000000000000005000000060000"))
        #expect(CDB.getLBAStatus(startingLBA: 5, allocationByteCount: 24).array
            == hex("9e120000000000000005000000180000"))
        #expect(CDB.reportTargetPortGroups(extendedHeader: true, allocationByteCount: 1024).array
            == hex("a32a00000000000004000000"))
        #expect(CDB.setTargetPortGroups(parameterByteCount: 8).array == hex("a40a00000000000000080000"))
        #expect(CDB.reportSupportedOperationCodes(.serviceAction(0x9E, 0x10), allocationByteCount: 64).array
            == hex("a30c029e0010000000400000"))
        #expect(CDB.persistentReserveIn(.readFullStatus, allocationByteCount: 512).array
            == hex("5e030000000000020000"))
        #expect(CDB.persistentReserveOut(.reserve, type: .exclusiveAccess).array == hex("5f010300000000001800"))
        #expect(CDB.modeSense(ModeSenseRequest(format: .six, page: 8, control: .saved, allocationByteCount: 255)).array
            == hex("1a00c800ff00"))
        #expect(CDB.modeSelect(ModeSelectRequest(format: .ten, savesPages: true, parameterByteCount: 28)).array
            == hex("55110000000000001c00"))
    }

    @Test func aTransferTakesTenBytesWhereItsLastBlockFits() {
        #expect(CDB.read(lba: 0xFFFF_FFFF, blockCount: 1).count == 10)
        #expect(CDB.read(lba: 0xFFFF_FFFF, blockCount: 2).count == 16)
        #expect(CDB.read(lba: 0x1_0000_0000, blockCount: 0).count == 16)
        #expect(CDB.read(lba: 0, blockCount: 0xFFFF).count == 10)
        #expect(CDB.read(lba: 0, blockCount: 0x1_0000).count == 16)
        #expect(CDB.write(lba: .max, blockCount: .max).count == 16)
    }

    @Test func sixByteTransfersRefuseWhatDoesNotFit() {
        #expect(CDB.read6(lba: 1 << 21, blockCount: 1) == nil)
        #expect(CDB.write6(lba: 0, blockCount: 0) == nil)
        #expect(CDB.write6(lba: 0, blockCount: 257) == nil)
    }

    @Test func blocksAreTakenFromBytesOfTheRightLength() {
        #expect(CDB([0x28, 1, 2]) == nil)
        #expect(CDB([]) == nil)
        #expect(CDB(hex("280801020304000506000000"))?.array == hex("28080102030400050600"))
        #expect(CDB([0xC1, 7])?.array == [0xC1, 7])
        #expect("\(CDB.testUnitReady())" == "00 00 00 00 00 00")
    }

    @Test func statusTellsItsName() {
        #expect(SCSIStatus.reservationConflict.description == "RESERVATION CONFLICT")
        #expect(SCSIStatus(rawValue: 0x77).description == "status 0x77")
    }
}
