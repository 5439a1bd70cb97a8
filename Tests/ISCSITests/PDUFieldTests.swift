import ISCSI
import SCSI
import Testing

/// Every field of every PDU, against byte positions read off RFC 7143 sections 11.3 to 11.19.
@Suite struct PDUFieldTests {
    let lun = LogicalUnitNumber(rawValue: 0x0102_0304_0506_0708)
    let numbers = ResponseNumbers(statSN: 0x2122_2324, expCmdSN: 0x2526_2728, maxCmdSN: 0x292A_2B2C)

    /// 48 zero bytes with these at these offsets.
    private func wire(_ parts: [Int: [UInt8]]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 48)
        for (offset, part) in parts { bytes.replaceSubrange(offset..<(offset + part.count), with: part) }
        return bytes
    }

    private func big(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

    private var lunBytes: [UInt8] { [1, 2, 3, 4, 5, 6, 7, 8] }
    private var numberBytes: [UInt8] { [0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x2B, 0x2C] }

    @Test func `SCSI Command`() {
        var cdb = CommandDescriptorBlock(operationCode: 0x8A)
        for index in 1..<16 { cdb.bytes[index] = UInt8(0xC0 + index) }
        let header = BasicHeaderSegment.scsiCommand(
            cdb, lun: lun, tag: 0x1112_1314, flags: [.final, .write], attribute: .ordered,
            expectedDataTransferByteCount: 0x3132_3334, immediateDataByteCount: 0x01_0203, cmdSN: 0x4142_4344,
            expStatSN: 0x5152_5354, isImmediate: true)
        #expect(
            header.wireBytes
                == wire([
                    0: [0x41, 0xA2], 5: [1, 2, 3], 8: lunBytes, 16: big(0x1112_1314), 20: big(0x3132_3334),
                    24: big(0x4142_4344), 28: big(0x5152_5354), 32: [0x8A] + (1..<16).map { UInt8(0xC0 + $0) },
                ]))
        #expect(header.opcode == .scsiCommand && header.isImmediate && header.isFinal)
        #expect(header.commandFlags == [.final, .write])
        #expect(header.taskAttribute == .ordered)
        #expect(header.cdb.operationCode == 0x8A && header.cdb.count == 16 && header.cdb.bytes[15] == 0xCF)
        #expect(header.dataSegmentByteCount == 0x01_0203)
        #expect(header.expectedDataTransferByteCount == 0x3132_3334)
    }

    @Test(arguments: TaskAttribute.allCases)
    func `SCSI Command with each attribute`(attribute: TaskAttribute) {
        let header = BasicHeaderSegment.scsiCommand(
            .init(operationCode: 0), lun: lun, tag: 0, flags: [.final, .read], attribute: attribute, cmdSN: 0, expStatSN: 0)
        #expect(header.wireBytes[1] == 0xC0 | attribute.rawValue)
        #expect(header.taskAttribute == attribute)
    }

    @Test func `A reserved attribute is no attribute`() {
        var header = BasicHeaderSegment()
        header.flags = 0x87
        #expect(header.taskAttribute == nil)
    }

    @Test func `SCSI Response with each residual`() {
        let cases: [(Residual, UInt8, UInt32)] = [(.none, 0x80, 0), (.overflow(9), 0x84, 9), (.underflow(512), 0x82, 512)]
        for (residual, flags, count) in cases {
            let header = BasicHeaderSegment.scsiResponse(
                tag: 0x1112_1314, response: .targetFailure, status: .checkCondition, residual: residual, expDataSN: 7,
                snackTag: 0x0A0B_0C0D, dataByteCount: 20, numbers: numbers)
            #expect(
                header.wireBytes
                    == wire([
                        0: [0x21, flags, 0x01, 0x02], 7: [20], 16: big(0x1112_1314), 20: big(0x0A0B_0C0D), 24: numberBytes,
                        36: big(7), 44: big(count),
                    ]))
            #expect(header.residual == residual)
            #expect(header.serviceResponse == .targetFailure && header.status == .checkCondition)
            #expect(header.expDataSN == 7 && header.snackTag == 0x0A0B_0C0D && header.numbers == numbers)
        }
    }

    @Test func `Bidirectional residuals have their own bits and count`() {
        var header = BasicHeaderSegment()
        header.flags = 0x80
        header.responseFlags = [.bidirectionalReadOverflow, .underflow]
        header.bidirectionalReadResidualCount = 0x0102_0304
        #expect(header.wireBytes == wire([1: [0x92], 40: [1, 2, 3, 4]]))
        #expect(header.responseFlags == [.bidirectionalReadOverflow, .underflow])
    }

    @Test func `Task Management Request`() {
        for function in TaskManagementFunction.allCases {
            let header = BasicHeaderSegment.taskManagementRequest(
                function, lun: lun, tag: 1, referencedTaskTag: 0x6162_6364, refCmdSN: 0x7172_7374, expDataSN: 0x0908_0706,
                cmdSN: 2, expStatSN: 3)
            #expect(
                header.wireBytes
                    == wire([
                        0: [0x42, 0x80 | function.rawValue], 8: lunBytes, 16: big(1), 20: big(0x6162_6364), 24: big(2), 28: big(3),
                        32: big(0x7172_7374), 36: big(0x0908_0706),
                    ]))
            #expect(header.taskManagementFunction == function)
            #expect(header.refCmdSN == 0x7172_7374 && header.expDataSN == 0x0908_0706 && header.referencedTaskTag == 0x6162_6364)
        }
    }

    @Test(arguments: [0, 1, 2, 3, 4, 5, 6, 255] as [UInt8])
    func `Task Management Response`(code: UInt8) {
        let header = BasicHeaderSegment.taskManagementResponse(.init(rawValue: code), tag: 0x0102_0304, numbers: numbers)
        #expect(header.wireBytes == wire([0: [0x22, 0x80, code], 16: [1, 2, 3, 4], 24: numberBytes]))
        #expect(header.taskManagementResponse.rawValue == code)
        #expect(!header.taskManagementResponse.description.contains("0x"))
    }

    @Test func `SCSI Data-Out`() {
        let header = BasicHeaderSegment.dataOut(
            lun: lun, tag: 0x1112_1314, targetTransferTag: 0x0A0B_0C0D, isFinal: true, dataSN: 5, bufferOffset: 0x0001_0000,
            byteCount: 0xABCDEF, expStatSN: 9)
        #expect(
            header.wireBytes
                == wire([
                    0: [0x05, 0x80], 5: [0xAB, 0xCD, 0xEF], 8: lunBytes, 16: big(0x1112_1314), 20: big(0x0A0B_0C0D), 28: big(9),
                    36: big(5), 40: big(0x0001_0000),
                ]))
    }

    @Test func `SCSI Data-In without status has no StatSN`() {
        let header = BasicHeaderSegment.dataIn(
            tag: 0x1112_1314, flags: [.final, .acknowledge], dataSN: 3, bufferOffset: 4096, byteCount: 512, lun: lun,
            targetTransferTag: 0x0A0B_0C0D, numbers: numbers)
        #expect(
            header.wireBytes
                == wire([
                    0: [0x25, 0xC0], 6: [2, 0], 8: lunBytes, 16: big(0x1112_1314), 20: big(0x0A0B_0C0D),
                    28: Array(numberBytes[4...]), 36: big(3), 40: big(4096),
                ]))
        #expect(header.dataInFlags == [.final, .acknowledge])
    }

    @Test func `SCSI Data-In with status`() {
        let header = BasicHeaderSegment.dataIn(
            tag: 1, status: .busy, residual: .underflow(100), dataSN: 3, bufferOffset: 8, byteCount: 12, numbers: numbers)
        #expect(
            header.wireBytes
                == wire([
                    0: [0x25, 0x83, 0, 0x08], 7: [12], 16: big(1), 20: big(0xFFFF_FFFF), 24: numberBytes, 36: big(3),
                    40: big(8), 44: big(100),
                ]))
        #expect(header.dataInFlags == [.final, .status, .underflow])
        #expect(header.residual == .underflow(100))
    }

    @Test func `R2T`() {
        let header = BasicHeaderSegment.readyToTransfer(
            lun: lun, tag: 1, targetTransferTag: 2, r2tSN: 3, bufferOffset: 4, desiredDataTransferByteCount: 5, numbers: numbers)
        #expect(
            header.wireBytes
                == wire([
                    0: [0x31, 0x80], 8: lunBytes, 16: big(1), 20: big(2), 24: numberBytes, 36: big(3), 40: big(4), 44: big(5),
                ]))
        #expect(header.r2tSN == 3 && header.desiredDataTransferByteCount == 5 && header.bufferOffset == 4)
    }

    @Test func `Every Asynchronous Message comes back as it was`() {
        let cases: [(AsyncMessage, [Int: [UInt8]])] = [
            (.scsiEvent(lun), [8: lunBytes]),
            (.logoutRequested(withinSeconds: 0x0102), [36: [1], 42: [1, 2]]),
            (.connectionDrops(connectionID: 0x0304, time2Wait: 0x0506, time2Retain: 0x0708), [36: [2], 38: [3, 4, 5, 6, 7, 8]]),
            (.sessionDrops(time2Wait: 0x0506, time2Retain: 0x0708), [36: [3], 40: [5, 6, 7, 8]]),
            (.negotiationRequested(withinSeconds: 3), [36: [4], 43: [3]]),
            (.tasksTerminated(lun), [8: lunBytes, 36: [5]]),
            (.vendorSpecific(code: 9), [36: [255, 9]]),
            (.unknown(AsyncEvent(rawValue: 77)), [36: [77]]),
        ]
        for (message, parts) in cases {
            let header = BasicHeaderSegment.asyncMessage(message, numbers: numbers)
            var expected = parts
            expected[0] = [0x32, 0x80]
            expected[16] = big(0xFFFF_FFFF)
            expected[24] = numberBytes
            #expect(header.wireBytes == wire(expected))
            #expect(AsyncMessage(header) == message)
        }
    }

    @Test func `Text Request and Response`() {
        let request = BasicHeaderSegment.textRequest(
            [.final], lun: lun, tag: 1, targetTransferTag: 2, cmdSN: 3, expStatSN: 4, dataByteCount: 5, isImmediate: true)
        #expect(
            request.wireBytes
                == wire([0: [0x44, 0x80], 7: [5], 8: lunBytes, 16: big(1), 20: big(2), 24: big(3), 28: big(4)]))
        let response = BasicHeaderSegment.textResponse([.continues], lun: lun, tag: 1, targetTransferTag: 2, dataByteCount: 6, numbers: numbers)
        #expect(
            response.wireBytes
                == wire([0: [0x24, 0x40], 7: [6], 8: lunBytes, 16: big(1), 20: big(2), 24: numberBytes]))
        #expect(response.textFlags == .continues && request.textFlags == .final)
    }

    @Test func `Login Request`() {
        let isid = ISID(rawValue: 0x8011_2233_4455)
        let header = BasicHeaderSegment.loginRequest(
            LoginFlags(current: .operationalNegotiation, next: .fullFeature), isid: isid, tsih: 0xABCD, connectionID: 0x0102,
            tag: 0x1112_1314, cmdSN: 3, expStatSN: 4, dataByteCount: 5)
        #expect(
            header.wireBytes
                == wire([
                    0: [0x43, 0x87, 0, 0], 7: [5], 8: [0x80, 0x11, 0x22, 0x33, 0x44, 0x55], 14: [0xAB, 0xCD],
                    16: big(0x1112_1314), 20: [1, 2, 0, 0], 24: big(3), 28: big(4),
                ]))
        #expect(header.isid == isid && header.tsih == 0xABCD && header.connectionID == 0x0102)
        #expect(header.loginFlags.isTransit && !header.loginFlags.continues)
        #expect(header.loginFlags.currentStage == .operationalNegotiation && header.loginFlags.nextStage == .fullFeature)
    }

    @Test func `Login Response`() {
        let isid = ISID(rawValue: 0x4000_0000_0001)
        var header = BasicHeaderSegment.loginResponse(
            LoginFlags(current: .securityNegotiation, next: nil, continues: true), status: .tooManyConnections, isid: isid,
            tsih: 0x0102, tag: 1, dataByteCount: 5, numbers: numbers)
        header.versionMax = 7
        header.versionActive = 9
        #expect(
            header.wireBytes
                == wire([
                    0: [0x23, 0x40, 7, 9], 7: [5], 8: [0x40, 0, 0, 0, 0, 1, 1, 2], 16: big(1), 24: numberBytes, 36: [2, 6],
                ]))
        #expect(header.loginStatus == .tooManyConnections && header.loginStatus.category == .initiatorError)
    }

    @Test func `The login stage that does not exist is nil`() {
        #expect(LoginFlags(rawValue: 0x88).currentStage == nil)
        #expect(LoginFlags(rawValue: 0x82).nextStage == nil)
    }

    @Test func `Logout Request and Response`() {
        for reason in LogoutReason.allCases {
            let request = BasicHeaderSegment.logoutRequest(reason, connectionID: 0x0A0B, tag: 1, cmdSN: 2, expStatSN: 3)
            #expect(
                request.wireBytes
                    == wire([0: [0x46, 0x80 | reason.rawValue], 16: big(1), 20: [0x0A, 0x0B], 24: big(2), 28: big(3)]))
            #expect(request.logoutReason == reason)
        }
        let response = BasicHeaderSegment.logoutResponse(.cleanupFailed, tag: 1, time2Wait: 0x0102, time2Retain: 0x0304, numbers: numbers)
        #expect(response.wireBytes == wire([0: [0x26, 0x80, 3], 16: big(1), 24: numberBytes, 40: [1, 2, 3, 4]]))
        #expect(response.logoutResponse == .cleanupFailed && response.time2Wait == 0x0102 && response.time2Retain == 0x0304)
    }

    @Test func `SNACK Request`() {
        for type in SNACKType.allCases {
            let header = BasicHeaderSegment.snack(
                type, lun: lun, tag: 1, targetTransferTag: 2, begRun: 3, runLength: 4, expStatSN: 5)
            #expect(
                header.wireBytes
                    == wire([
                        0: [0x10, 0x80 | type.rawValue], 8: lunBytes, 16: big(1), 20: big(2), 28: big(5), 40: big(3), 44: big(4),
                    ]))
            #expect(header.snackType == type && header.begRun == 3 && header.runLength == 4)
        }
    }

    @Test func `Reject`() {
        let header = BasicHeaderSegment.reject(.invalidPDUField, dataSN: 6, numbers: numbers)
        #expect(
            header.wireBytes
                == wire([0: [0x3F, 0x80, 0x09], 7: [48], 16: big(0xFFFF_FFFF), 24: numberBytes, 36: big(6)]))
        #expect(header.rejectReason == .invalidPDUField)
    }

    @Test func `NOP-Out and NOP-In`() {
        let out = BasicHeaderSegment.nopOut(lun: lun, tag: 1, targetTransferTag: 2, dataByteCount: 3, cmdSN: 4, expStatSN: 5)
        #expect(
            out.wireBytes
                == wire([0: [0x40, 0x80], 7: [3], 8: lunBytes, 16: big(1), 20: big(2), 24: big(4), 28: big(5)]))
        let into = BasicHeaderSegment.nopIn(lun: lun, tag: 1, targetTransferTag: 2, dataByteCount: 3, numbers: numbers)
        #expect(
            into.wireBytes == wire([0: [0x20, 0x80], 7: [3], 8: lunBytes, 16: big(1), 20: big(2), 24: numberBytes]))
    }

    @Test func `Names of the codes that the RFC defines have no number in them`() {
        let opcodes: [PDUOpcode] = [
            .nopOut, .scsiCommand, .taskManagementRequest, .loginRequest, .textRequest, .dataOut, .logoutRequest, .snackRequest,
            .nopIn, .scsiResponse, .taskManagementResponse, .loginResponse, .textResponse, .dataIn, .logoutResponse,
            .readyToTransfer, .asyncMessage, .reject,
        ]
        #expect(opcodes.allSatisfy { !$0.description.contains("0x") })
        #expect(Set(opcodes.map(\.description)).count == opcodes.count)
        let reasons = [2, 3, 4, 5, 6, 7, 8, 9, 10, 12].map { RejectReason(rawValue: $0) }
        #expect(reasons.allSatisfy { !$0.description.contains("0x") })
        #expect(RejectReason(rawValue: 0x33).description == "reject reason 0x33")
    }
}

@Suite struct ISIDTests {
    @Test func `Each format has its type bits and qualifier`() {
        let oui = ISID.oui(0x00_50C2, qualifier: 0x12_3456)
        #expect(oui.description == "0050c2123456" && oui.format == .oui && oui.qualifier == 0x12_3456)
        let enterprise = ISID.enterprise(0x01_0203, qualifier: 0xABCD)
        #expect(enterprise.description == "40010203abcd" && enterprise.format == .enterpriseNumber && enterprise.qualifier == 0xABCD)
        let random = ISID.random(0xAABBCC, qualifier: 7)
        #expect(random.description == "80aabbcc0007" && random.format == .random && random.qualifier == 7)
        #expect(ISID(rawValue: .max).format == .reserved)
        #expect(ISID(rawValue: .max).rawValue == 0xFFFF_FFFF_FFFF)
    }
}
