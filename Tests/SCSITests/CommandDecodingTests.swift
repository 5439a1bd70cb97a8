import SCSI
import Testing

@Suite struct CommandDecodingTests {
    typealias CDB = CommandDescriptorBlock

    /// One or more of each builder, with what a target must see in it.
    static let roundTrips: [(CDB, SCSICommand)] = {
        let range = BlockRange(lba: 0x0102_0304, blockCount: 0x0506)
        let far = BlockRange(lba: 0x0102_0304_0506_0708, blockCount: 0x0A0B_0C0D)
        let flags: TransferOptions = [.forceUnitAccess, .disablePageOut]
        var list: [(CDB, SCSICommand)] = [
            (.testUnitReady(), .testUnitReady),
            (.requestSense(descriptorFormat: true, allocationByteCount: 9), .requestSense(.descriptor, allocationByteCount: 9)),
            (.requestSense(), .requestSense(.fixed, allocationByteCount: 252)),
            (.inquiry(allocationByteCount: 0x0102), .inquiry(page: nil, allocationByteCount: 0x0102)),
            (.inquiry(page: .blockLimits, allocationByteCount: 64), .inquiry(page: .blockLimits, allocationByteCount: 64)),
            (.inquiry(page: .supportedPages, allocationByteCount: 4), .inquiry(page: .supportedPages, allocationByteCount: 4)),
            (.reportLUNs(selection: .wellKnown, allocationByteCount: 70_000), .reportLUNs(.wellKnown, allocationByteCount: 70_000)),
            (.readCapacity10(), .readCapacity10),
            (.readCapacity16(), .readCapacity16(allocationByteCount: 32)),
            (.read6(lba: 0x1F_FFFF, blockCount: 256)!, .read(BlockRange(lba: 0x1F_FFFF, blockCount: 256), [])),
            (.write6(lba: 3, blockCount: 4)!, .write(BlockRange(lba: 3, blockCount: 4), [])),
            (.read10(lba: 0x0102_0304, blockCount: 0x0506, options: flags), .read(range, flags)),
            (.write10(lba: 0x0102_0304, blockCount: 0x0506, options: flags), .write(range, flags)),
            (.read12(lba: 0x0102_0304, blockCount: 0x0506, options: flags), .read(range, flags)),
            (.write12(lba: 0x0102_0304, blockCount: 0x0506), .write(range, [])),
            (.read16(lba: far.lba, blockCount: far.blockCount, options: flags), .read(far, flags)),
            (.write16(lba: far.lba, blockCount: far.blockCount, options: flags), .write(far, flags)),
            (.read(lba: range.lba, blockCount: range.blockCount), .read(range, [])),
            (.write(lba: far.lba, blockCount: far.blockCount), .write(far, [])),
            (.synchronizeCache(lba: far.lba, blockCount: 1, isImmediate: true),
                .synchronizeCache(BlockRange(lba: far.lba, blockCount: 1), isImmediate: true)),
            (.synchronizeCache(), .synchronizeCache(BlockRange(lba: 0, blockCount: 0), isImmediate: false)),
            (.preFetch(lba: range.lba, blockCount: 9, isImmediate: true),
                .preFetch(BlockRange(lba: range.lba, blockCount: 9), isImmediate: true)),
            (.preFetch(lba: far.lba, blockCount: 9), .preFetch(BlockRange(lba: far.lba, blockCount: 9), isImmediate: false)),
            (.compareAndWrite(lba: far.lba, blockCount: 255, options: .forceUnitAccess),
                .compareAndWrite(BlockRange(lba: far.lba, blockCount: 255), .forceUnitAccess)),
            (.orWrite16(lba: far.lba, blockCount: 5, options: flags), .orWrite(BlockRange(lba: far.lba, blockCount: 5), flags)),
            (.unmap(parameterByteCount: 24, anchor: true), .unmap(anchor: true, parameterByteCount: 24)),
            (.writeAtomic16(lba: far.lba, blockCount: 9, boundaryBlockCount: 3, options: .forceUnitAccess),
                .writeAtomic(BlockRange(lba: far.lba, blockCount: 9), .forceUnitAccess, boundaryBlockCount: 3)),
            (.writeSame10(lba: 0x0102_0304, blockCount: 0x0506, options: .unmap), .writeSame(range, .unmap)),
            (.writeSame16(lba: far.lba, blockCount: far.blockCount, options: [.unmap, .anchor, .noDataOut]),
                .writeSame(far, [.unmap, .anchor, .noDataOut])),
            (.getLBAStatus(startingLBA: far.lba, allocationByteCount: 24), .getLBAStatus(startingLBA: far.lba, allocationByteCount: 24)),
            (.preventAllowMediumRemoval(.prevent), .preventAllowMediumRemoval(.prevent)),
            (.preventAllowMediumRemoval(.allow), .preventAllowMediumRemoval(.allow)),
            (.reserve6(), .reserve), (.reserve10(), .reserve), (.release6(), .release), (.release10(), .release),
            (.reportTargetPortGroups(extendedHeader: true, allocationByteCount: 99),
                .reportTargetPortGroups(extendedHeader: true, allocationByteCount: 99)),
            (.reportTargetPortGroups(allocationByteCount: 99), .reportTargetPortGroups(extendedHeader: false, allocationByteCount: 99)),
            (.setTargetPortGroups(parameterByteCount: 12), .setTargetPortGroups(parameterByteCount: 12)),
        ]
        for mode in [VerifyMode.mediumOnly, .compareEach, .compareWithOne] {
            list += [
                (.verify(lba: range.lba, blockCount: range.blockCount, mode: mode), .verify(range, [], mode)),
                (.verify(lba: far.lba, blockCount: far.blockCount, mode: mode, options: .disablePageOut),
                    .verify(far, .disablePageOut, mode)),
                (.verify12(lba: 0x0102_0304, blockCount: 0x0506, mode: mode), .verify(range, [], mode)),
                (.writeAndVerify(lba: range.lba, blockCount: range.blockCount, mode: mode), .writeAndVerify(range, [], mode)),
                (.writeAndVerify(lba: far.lba, blockCount: far.blockCount, mode: mode), .writeAndVerify(far, [], mode)),
                (.writeAndVerify12(lba: 0x0102_0304, blockCount: 0x0506, mode: mode), .writeAndVerify(range, [], mode)),
            ]
        }
        for start in [true, false] {
            let request = StartStopRequest(
                start: start, loadEject: !start, isImmediate: start, skipsFlush: !start, powerCondition: 0xB,
                powerConditionModifier: 2)
            list.append((.startStopUnit(request), .startStopUnit(request)))
        }
        for format in [ModeHeaderFormat.six, .ten] {
            for control in [ModePageControl.current, .changeable, .default, .saved] {
                let sense = ModeSenseRequest(
                    format: format, page: 0x3F, subpage: 0xFF, control: control, disableBlockDescriptors: true,
                    acceptsLongLBA: true, allocationByteCount: 0xFFF)
                list.append((.modeSense(sense), .modeSense(sense)))
            }
            let select = ModeSelectRequest(format: format, isPageFormat: true, savesPages: true, parameterByteCount: 300)
            list.append((.modeSelect(select), .modeSelect(select)))
        }
        for action in PersistentReserveInAction.allCases {
            list.append((.persistentReserveIn(action, allocationByteCount: 4096), .persistentReserveIn(action, allocationByteCount: 4096)))
        }
        for action in PersistentReserveOutAction.allCases {
            list.append(
                (.persistentReserveOut(action, type: .writeExclusiveAllRegistrants, parameterByteCount: 0x0102_0304),
                    .persistentReserveOut(action, .writeExclusiveAllRegistrants, parameterByteCount: 0x0102_0304)))
        }
        for query in [OperationQuery.all, .code(0x28), .serviceAction(0x9E, 0x1234), .either(0xA3, 0x0A)] {
            list.append(
                (.reportSupportedOperationCodes(query, withTimeouts: true, allocationByteCount: 512),
                    .reportSupportedOperationCodes(query, withTimeouts: true, allocationByteCount: 512)))
        }
        list += [
            (.readDefectData10(primaryList: true, grownList: false, format: 5, allocationByteCount: 8),
                .readDefectData(DefectDataRequest(isTwelve: false, primaryList: true, grownList: false, format: 5, allocationByteCount: 8))),
            (.readDefectData12(primaryList: false, grownList: true, format: 4, allocationByteCount: 80_000),
                .readDefectData(DefectDataRequest(isTwelve: true, primaryList: false, grownList: true, format: 4, allocationByteCount: 80_000))),
        ]
        return list
    }()

    @Test func whatAnInitiatorBuildsATargetReads() throws {
        for (block, command) in Self.roundTrips {
            #expect(try block.decode() == command, "\(block)")
            // As the 16 bytes of a transport's header.
            #expect(try CDB(bytes: block.bytes).decode() == command, "\(block)")
        }
    }

    @Test func theCatalogueNamesExactlyWhatDecodes() throws {
        let codes = Set(SupportedOperation.decodable.map(\.operationCode))
        for code in UInt8.min...UInt8.max {
            var isRefused = false
            do { _ = try CDB(operationCode: code).decode() } catch { isRefused = error == .operationCode(code) }
            #expect(isRefused == !codes.contains(code), "operation code \(code)")
        }
        for operation in SupportedOperation.decodable {
            #expect(operation.usage.count == Int(CDB(operationCode: operation.operationCode).count))
            #expect(operation.usage[0] == operation.operationCode)
        }
        // Every bit that a builder sets is one that the usage data admits to looking at.
        for (block, _) in Self.roundTrips {
            let bytes = block.array
            let match = SupportedOperation.decodable.first {
                $0.operationCode == bytes[0] && ($0.serviceAction == nil || $0.serviceAction == UInt16(bytes[1] & 0x1F))
            }
            let usage = try #require(match?.usage)
            for (byte, mask) in zip(bytes, usage) { #expect(byte & ~mask == 0, "\(block)") }
        }
        let order = SupportedOperation.decodable.map { ($0.operationCode, $0.serviceAction ?? 0) }
        #expect(zip(order, order.dropFirst()).allSatisfy { $0 < $1 })
    }

    func refusal(_ bytes: [UInt8]) -> IllegalRequest? {
        do { _ = try CDB(bytes)!.decode() } catch { return error }
        return nil
    }

    @Test func aBadFieldIsPointedAt() {
        #expect(refusal(hex("ff")) == .operationCode(0xFF))
        #expect(refusal(hex("9e1f0000000000000000000000000000")) == .fieldInCommand(byte: 1, bit: 4))
        #expect(refusal(hex("a31f00000000000000000000")) == .fieldInCommand(byte: 1, bit: 4))
        #expect(refusal(hex("a34a00000000000000000000")) == .fieldInCommand(byte: 1, bit: 7))
        #expect(refusal(hex("5e040000000000000000")) == .fieldInCommand(byte: 1, bit: 4))
        #expect(refusal(hex("5f011300000000001800")) == .fieldInCommand(byte: 2, bit: 7))
        #expect(refusal(hex("120083000000")) == .fieldInCommand(byte: 2))
        #expect(refusal(hex("120200000000")) == .fieldInCommand(byte: 1, bit: 1))
        #expect(refusal(hex("a000000000000000000f0000")) == .fieldInCommand(byte: 6))
        #expect(refusal(hex("41100000000000000100")) == .fieldInCommand(byte: 1, bit: 4))
        #expect(refusal(hex("41020000000000000100")) == .fieldInCommand(byte: 1, bit: 1))
        #expect(refusal(hex("2f040000000000000100")) == .fieldInCommand(byte: 1, bit: 2))
        #expect(refusal(hex("28200000000000000100")) == .fieldInCommand(byte: 1, bit: 7))
        #expect(refusal(hex("161000000000")) == .fieldInCommand(byte: 1, bit: 4))
        #expect(refusal(hex("1e0000000300")) == .fieldInCommand(byte: 4, bit: 1))
        // NACA: no device here keeps an ACA condition.
        #expect(refusal(hex("000000000004")) == .fieldInCommand(byte: 5, bit: 2))
        #expect(refusal(hex("88000000000000000000000000010004")) == .fieldInCommand(byte: 15, bit: 2))
    }

    @Test func protectionFieldsPassWhereTheyAreAskedFor() throws {
        let block = try #require(CDB(hex("28600000000000000100")))
        guard case .read(_, let options) = try block.decode(supportsProtection: true) else {
            Issue.record("no read")
            return
        }
        #expect(options.protection == 3)
    }

    @Test func refusalsBecomeSenseData() {
        let field = IllegalRequest.fieldInCommand(byte: 2, bit: 5).sense
        #expect(field.encode() == hex("70 00 05 00000000 0a 00000000 24 00 00 cd 0002"))
        #expect("\(field)" == "ILLEGAL REQUEST, invalid field in CDB (24/00), byte 2 bit 5 of the CDB")
        #expect(IllegalRequest.operationCode(9).sense.additional == .invalidOperationCode)
        #expect(IllegalRequest.parameterListLength.sense.additional == .parameterListLengthError)
        #expect(IllegalRequest.fieldInParameterList(byte: 300).sense.encode().suffix(3) == [0x80, 0x01, 0x2C])
        #expect(IllegalRequest.lbaOutOfRange(1 << 40).sense.information == 1 << 40)
    }

    @Test func theDataPhaseFollowsFromTheCommand() throws {
        func phase(_ block: CDB) throws -> DataTransfer { try block.decode().transfer(blockSize: 4096) }
        #expect(try phase(.read(lba: 0, blockCount: 3)) == .dataIn(byteCount: 12_288))
        #expect(try phase(.read(lba: 0, blockCount: 0)) == .none)
        #expect(try phase(.write(lba: 0, blockCount: .max)) == .dataOut(byteCount: 4096 * UInt64(UInt32.max)))
        #expect(try phase(.verify(lba: 0, blockCount: 3)) == .none)
        #expect(try phase(.verify(lba: 0, blockCount: 3, mode: .compareEach)) == .dataOut(byteCount: 12_288))
        #expect(try phase(.verify(lba: 0, blockCount: 3, mode: .compareWithOne)) == .dataOut(byteCount: 4096))
        #expect(try phase(.compareAndWrite(lba: 0, blockCount: 2)) == .dataOut(byteCount: 16_384))
        #expect(try phase(.writeSame16(lba: 0, blockCount: 9)) == .dataOut(byteCount: 4096))
        #expect(try phase(.writeSame16(lba: 0, blockCount: 9, options: .noDataOut)) == .none)
        #expect(try phase(.readCapacity10()) == .dataIn(byteCount: 8))
        #expect(try phase(.unmap(parameterByteCount: 24)) == .dataOut(byteCount: 24))
        #expect(try phase(.testUnitReady()) == .none)
    }

    @Test func rangesKnowTheirLimits() throws {
        let range = BlockRange(lba: 10, blockCount: 5)
        #expect(range.fits(capacity: 15))
        #expect(!range.fits(capacity: 14))
        #expect(!BlockRange(lba: .max, blockCount: .max).fits(capacity: .max))
        #expect(BlockRange(lba: 15, blockCount: 0).fits(capacity: 15))
        #expect(!BlockRange(lba: 16, blockCount: 0).fits(capacity: 15))
        #expect(throws: IllegalRequest.lbaOutOfRange(14)) { try range.requireFit(capacity: 14) }
        #expect(throws: IllegalRequest.lbaOutOfRange(10)) { try range.requireFit(capacity: 3) }
        #expect(range.overlaps(BlockRange(lba: 14, blockCount: 1)))
        #expect(!range.overlaps(BlockRange(lba: 15, blockCount: 1)))
        #expect(!range.overlaps(BlockRange(lba: 5, blockCount: 5)))
        #expect(!range.overlaps(BlockRange(lba: 12, blockCount: 0)))
        #expect(BlockRange(lba: .max - 1, blockCount: 9).overlaps(BlockRange(lba: .max, blockCount: 1)))
    }
}
