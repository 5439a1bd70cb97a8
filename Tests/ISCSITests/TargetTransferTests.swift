import SCSI
import Testing
import Timebase

@testable import ISCSI

@Suite struct TargetTransferTests {
    @Test(arguments: [0, 1, 7, 48, 1000]) func aWriteIsAssembledFromImmediateUnsolicitedAndSolicitedData(chunk: Int) {
        let bench = TargetBench {
            $0.operational.maxBurstByteCount = 4096
            $0.operational.firstBurstByteCount = 2048
            $0.operational.maxOutstandingR2T = 2
        }
        let client = bench.client()
        client.logIn()
        client.chunk = chunk
        let data = pattern(20_000)
        client.command(tag: 5, flags: [.write], expected: data.count, data: Array(data[..<1000]))
        #expect(client.receive().isEmpty, "unsolicited data is still to come")
        client.dataOut(tag: 5, ttt: BasicHeaderSegment.reservedTag, sn: 0, offset: 1000, Array(data[1000..<1500]), isFinal: false)
        client.dataOut(tag: 5, ttt: BasicHeaderSegment.reservedTag, sn: 1, offset: 1500, Array(data[1500..<2048]), isFinal: true)

        var open = client.receive()
        #expect(open.map(\.header.opcode) == [.readyToTransfer, .readyToTransfer], "as many as were agreed")
        var next = 2048
        var r2tSN: UInt32 = 0
        while !open.isEmpty {
            let r2t = open.removeFirst().header
            #expect(Int(r2t.bufferOffset) == next)
            #expect(r2t.r2tSN == r2tSN)
            let count = Int(r2t.desiredDataTransferByteCount)
            #expect(count == min(4096, data.count - next))
            // In two PDUs, the last of them final.
            let middle = next + count / 2
            client.dataOut(tag: 5, ttt: r2t.targetTransferTag, sn: 0, offset: next, Array(data[next..<middle]), isFinal: false)
            client.dataOut(tag: 5, ttt: r2t.targetTransferTag, sn: 1, offset: middle, Array(data[middle..<next + count]), isFinal: true)
            next += count
            r2tSN += 1
            open += client.receive()
        }
        #expect(next == data.count)
        let slots = client.readyCommands()
        #expect(slots.count == 1)
        #expect(Array(client.session.dataOut(slots[0])) == data)
        client.session.complete(slots[0], status: .good, dataOutByteCount: data.count)
        let response = client.receive()
        #expect(response.map(\.header.opcode) == [.scsiResponse])
        #expect(response[0].header.residual == .none)
        #expect(response[0].header.expDataSN == r2tSN)
        #expect(bench.service.pool.lentByteCount == 0)
    }

    @Test(arguments: [Int.max, 1, 100]) func readDataIsCutBySegmentAndBurstAndEndsWithTheStatus(atATime: Int) {
        let bench = TargetBench { $0.operational.maxBurstByteCount = 2500 }
        let client = bench.client()
        client.logIn { $0.operational.maxRecvDataSegmentByteCount = 1024 }
        let data = pattern(6001)
        client.command(tag: 9, flags: [.final, .read], expected: data.count)
        client.completeRead(client.readyCommands()[0], data)
        let pdus = client.receive(atATime: atATime)
        #expect(pdus.allSatisfy { $0.header.opcode == .dataIn && $0.header.initiatorTaskTag == 9 })
        #expect(pdus.map(\.data.count) == [1024, 1024, 452, 1024, 1024, 452, 1001])
        #expect(pdus.map(\.header.dataSN) == Array(0..<7))
        #expect(pdus.map(\.header.isFinal) == [false, false, true, false, false, true, true])
        #expect(pdus.flatMap(\.data) == data)
        #expect(pdus.dropLast().allSatisfy { !$0.header.dataInFlags.contains(.status) })
        #expect(pdus.last!.header.dataInFlags.contains(.status))
        #expect(pdus.last!.header.residual == .none)
        #expect(bench.service.pool.lentByteCount == 0)
    }

    @Test func residualsTellWhatWasExpectedAndNotMoved() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        client.command(tag: 1, flags: [.final, .read], expected: 1000)
        client.completeRead(client.readyCommands()[0], pattern(600))
        var pdu = client.receive()[0]
        #expect(pdu.header.residual == .underflow(400))
        #expect(pdu.data.count == 600)

        client.command(tag: 2, flags: [.final, .read], expected: 100)
        client.completeRead(client.readyCommands()[0], pattern(600))
        pdu = client.receive()[0]
        #expect(pdu.header.residual == .overflow(500))
        #expect(pdu.data.count == 100)

        client.command(tag: 3, flags: [.final, .write], expected: 512, data: pattern(512))
        client.session.complete(client.readyCommands()[0], status: .good, dataOutByteCount: 1024)
        #expect(client.receive()[0].header.residual == .overflow(512))

        client.command(tag: 4, flags: [.final, .write], expected: 512, data: pattern(512))
        client.session.complete(client.readyCommands()[0], status: .good, dataOutByteCount: 200)
        #expect(client.receive()[0].header.residual == .underflow(312))
    }

    @Test func senseDataComesBehindItsLength() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        client.command(tag: 1, flags: [.final, .read], expected: 512)
        let sense = SenseData(key: .illegalRequest, additional: .lbaOutOfRange)
        client.session.complete(client.readyCommands()[0], status: .checkCondition, sense: sense)
        let pdu = client.receive()[0]
        #expect(pdu.header.status == .checkCondition)
        #expect(Int(pdu.data[0]) << 8 | Int(pdu.data[1]) == pdu.data.count - 2)
        pdu.data.dropFirst(2).withUnsafeBytes { #expect(SenseData(parsing: $0) == sense) }
    }

    @Test func dataThatIsNotAsItShouldBeFailsItsCommandOnly() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        func r2t(_ tag: UInt32) -> BasicHeaderSegment {
            client.command(tag: tag, flags: [.final, .write], expected: 1024)
            return client.receive()[0].header
        }
        func failure(_ pdus: [PDU]) -> AdditionalSense? {
            guard pdus.count == 1, pdus[0].header.status == .checkCondition else { return nil }
            return pdus[0].data.dropFirst(2).withUnsafeBytes { SenseData(parsing: $0)?.additional }
        }
        // A wrong DataSN, a wrong offset, more than asked for, and an end that comes too early.
        var ask = r2t(1)
        client.dataOut(tag: 1, ttt: ask.targetTransferTag, sn: 27, offset: 0, pattern(1024), isFinal: true)
        #expect(failure(client.receive()) == AdditionalSense(0x0C, 0x0D))
        ask = r2t(2)
        client.dataOut(tag: 2, ttt: ask.targetTransferTag, sn: 0, offset: 512, pattern(512), isFinal: true)
        #expect(failure(client.receive()) == AdditionalSense(0x0C, 0x0D))
        ask = r2t(3)
        client.dataOut(tag: 3, ttt: ask.targetTransferTag, sn: 0, offset: 0, pattern(1025), isFinal: true)
        #expect(failure(client.receive()) == AdditionalSense(0x0C, 0x0D))
        ask = r2t(4)
        client.dataOut(tag: 4, ttt: ask.targetTransferTag, sn: 0, offset: 0, pattern(512), isFinal: true)
        #expect(failure(client.receive()) == AdditionalSense(0x0C, 0x0D))
        // Unsolicited, behind a command that said there would be none.
        ask = r2t(5)
        client.dataOut(tag: 5, ttt: BasicHeaderSegment.reservedTag, sn: 0, offset: 0, pattern(512), isFinal: true)
        #expect(failure(client.receive()) == AdditionalSense(0x0C, 0x0C))
        // Late data for a command that is over is thrown away, and the connection serves on.
        client.dataOut(tag: 5, ttt: ask.targetTransferTag, sn: 0, offset: 0, pattern(1024), isFinal: true)
        #expect(client.receive().isEmpty)
        #expect(bench.service.pool.lentByteCount == 0)
        #expect(client.connection.endReason == nil)
    }

    @Test func withoutMemoryAWriteIsAnsweredTaskSetFull() {
        let bench = TargetBench(poolByteCount: 64 << 10)
        let client = bench.client()
        client.logIn()
        client.command(tag: 1, flags: [.final, .write], expected: 1 << 20, data: pattern(5000))
        #expect(client.readyCommands().isEmpty)
        let pdu = client.receive()[0]
        #expect(pdu.header.status == .taskSetFull)
        #expect(bench.service.pool.lentByteCount == 0)
        client.command(tag: 2, flags: [.final, .write], expected: 5000, data: pattern(5000))
        #expect(client.readyCommands().count == 1, "what fits is served")
    }

    @Test func digestsGuardBothWays() throws {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn {
            $0.operational.headerDigest = [.crc32c]
            $0.operational.dataDigest = [.crc32c]
        }
        #expect(client.parameters.headerDigest == .crc32c && client.parameters.dataDigest == .crc32c)
        client.chunk = 13
        let data = pattern(777)
        client.command(tag: 1, flags: [.final, .write], expected: data.count, data: data)
        let slot = try #require(client.readyCommands().first)
        #expect(Array(client.session.dataOut(slot)) == data)
        client.session.complete(slot, status: .good, dataOutByteCount: data.count)
        #expect(client.receive().count == 1)
        client.command(tag: 2, flags: [.final, .read], expected: data.count)
        client.completeRead(client.readyCommands()[0], data)
        #expect(client.receive()[0].data == data)

        // A damaged data segment: rejected, and its command fails, with the next one in its turn.
        var header = BasicHeaderSegment.scsiCommand(
            CommandDescriptorBlock(operationCode: 0x2A), lun: LogicalUnitNumber(index: 0)!, tag: 3,
            flags: [.final, .write], expectedDataTransferByteCount: 512, immediateDataByteCount: 512,
            cmdSN: client.cmdSN, expStatSN: 0)
        var bytes = PDU(header: header, data: pattern(512)).encoded(headerDigest: CRC32C.table, dataDigest: CRC32C.table)
        bytes[100] ^= 1
        client.cmdSN += 1
        client.send(bytes: bytes)
        let answers = client.receive()
        #expect(answers.map(\.header.opcode) == [.reject, .scsiResponse])
        #expect(answers[0].header.rejectReason == .dataDigestError)
        #expect(answers[1].header.status == .checkCondition)
        client.command(tag: 4, flags: [.final, .read], expected: 1)
        #expect(client.readyCommands().count == 1)

        // A damaged header can't be trusted in any part.
        header.initiatorTaskTag = 9
        bytes = PDU(header: header, data: []).encoded(headerDigest: CRC32C.table, dataDigest: CRC32C.table)
        bytes[20] ^= 1
        client.send(bytes: bytes)
        guard case .protocolError(.headerDigestMismatch) = client.connection.endReason else {
            Issue.record("the connection lives")
            return
        }
        #expect(bench.events.contains("ended connectionLost"))
    }
}
