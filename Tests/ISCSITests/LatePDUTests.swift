import SCSI
import Testing

@testable import ISCSI

/// Tags whose PDUs may still be on their way, and what has the tag later.
@Suite struct LatePDUTests {
    /// A command on connection 1 that a reset, answered on connection 0, has ended; its tag.
    private func endedByReset(_ rig: MultiConnectionRig, _ direction: DataDirection, _ memory: UnsafeMutableRawBufferPointer) -> UInt32 {
        rig.submit(direction, token: 1, on: 1, memory: memory)
        let tag = rig.sent(1)[0].header.initiatorTaskTag
        rig.expCmdSN = 101
        let isSent = rig.submitReset(token: 9, lun: LogicalUnitNumber(index: 3)!, on: 0)
        #expect(isSent)
        rig.put(0, .taskManagementResponse(
            .functionComplete, tag: rig.sent(0)[0].header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.ended == [1])
        return tag
    }

    /// As after 65,536 uses of the slot.
    private func turnRound(_ rig: MultiConnectionRig, to tag: UInt32) {
        rig.session.table.slots[Int(tag & 0xFFFF)].generation = UInt16(tag >> 16)
    }

    private func numbers(_ rig: MultiConnectionRig) -> ResponseNumbers {
        ResponseNumbers(statSN: rig.ends[1].statSN, expCmdSN: rig.expCmdSN, maxCmdSN: rig.maxCmdSN)
    }

    @Test(arguments: [0, 1, 2]) func aReadThatHasTheTagLaterGetsItsData(level: Int) {
        let rig = MultiConnectionRig(2, level: level)
        let memory = UnsafeMutableRawBufferPointer.filled(8192)
        defer { memory.deallocate() }
        let tag = endedByReset(rig, .read, memory)
        turnRound(rig, to: tag)
        rig.submit(.read, token: 2, on: 1, memory: memory)
        #expect(rig.sent(1).map(\.header.initiatorTaskTag) == [tag])
        rig.expCmdSN = 102
        rig.put(1, .dataIn(tag: tag, flags: [], dataSN: 0, bufferOffset: 0, byteCount: 4096, numbers: numbers(rig)),
            [UInt8](repeating: 7, count: 4096))
        rig.put(1, .dataIn(tag: tag, status: .good, dataSN: 1, bufferOffset: 4096, byteCount: 4096, numbers: rig.numbers(1)),
            [UInt8](repeating: 7, count: 4096))
        #expect(rig.completions.last?.token == 2 && rig.completions.last?.transferredByteCount == 8192)
        #expect(memory.allSatisfy { $0 == 7 })
        // What is later than that is let pass once more.
        rig.put(1, .dataIn(tag: tag, flags: [], dataSN: 2, bufferOffset: 0, byteCount: 512, numbers: numbers(rig)),
            [UInt8](repeating: 8, count: 512))
        #expect(memory.allSatisfy { $0 == 7 })
    }

    @Test func aWriteThatHasTheTagLaterIsAskedForItsDataAndAnswered() {
        let rig = MultiConnectionRig(2) { $0.initialR2T = true; $0.immediateData = false }
        let memory = UnsafeMutableRawBufferPointer.filled(8192)
        defer { memory.deallocate() }
        let tag = endedByReset(rig, .write, memory)
        turnRound(rig, to: tag)
        rig.submit(.write, token: 2, on: 1, memory: memory)
        let command = rig.sent(1)[0].header
        #expect(command.initiatorTaskTag == tag)
        rig.put(1, .readyToTransfer(
            lun: command.lun, tag: tag, targetTransferTag: 5, r2tSN: 0, bufferOffset: 0, desiredDataTransferByteCount: 8192,
            numbers: numbers(rig)))
        #expect(rig.sent(1).map(\.data) == [Array(memory)])
        rig.expCmdSN = 102
        rig.good(1, tag)
        #expect(rig.completions.last?.token == 2 && rig.completions.last?.residual == Residual.none)
        #expect(rig.failure == nil)
    }

    /// The header came while the tag was nobody's, its end when it is somebody's: those bytes went nowhere.
    @Test func dataThatWasDiscardedIsNotCounted() {
        let rig = MultiConnectionRig(2)
        let memory = UnsafeMutableRawBufferPointer.filled(4096)
        defer { memory.deallocate() }
        let tag = endedByReset(rig, .read, memory)
        let late = PDU(
            header: .dataIn(tag: tag, status: .good, dataSN: 0, bufferOffset: 0, byteCount: 4096, numbers: rig.numbers(1)),
            data: [UInt8](repeating: 7, count: 4096)).encoded()
        late.withUnsafeBytes {
            rig.session.received(rig.c(1), placedByteCount: 0, spill: UnsafeRawBufferPointer(rebasing: $0[..<1000]), at: rig.now)
        }
        turnRound(rig, to: tag)
        rig.submit(.read, token: 2, on: 1, memory: memory)
        late.withUnsafeBytes {
            rig.session.received(rig.c(1), placedByteCount: 0, spill: UnsafeRawBufferPointer(rebasing: $0[1000...]), at: rig.now)
        }
        rig.drain()
        #expect(rig.completions.map(\.token) == [1], "the read is not done")
        #expect(rig.failure == .violation(.unknownTask(.dataIn, tag: tag)))
    }

    // MARK: NOP-Outs that fill a hole and are not answered

    private func bytes(_ pdu: SentPDU) -> [UInt8] {
        var header = pdu.header
        return withUnsafeBytes(of: &header) { Array($0.prefix(48)) }
    }

    /// A command is rejected, and a NOP-Out takes its number, which the target had counted all the same: it drops the NOP-Out.
    private func rejectOne(_ rig: MultiConnectionRig, _ token: UInt64) throws -> [SentPDU] {
        rig.submit(.none, token: token, on: 0)
        let command = try #require(rig.sent(0).first { $0.opcode == .scsiCommand })
        rig.put(0, .reject(.commandNotSupported, numbers: rig.numbers(0)), bytes(command))
        rig.expCmdSN += 1
        rig.maxCmdSN += 1
        return rig.sent(0)
    }

    @Test func theirPlacesAreFreedAndALateAnswerIsNoFault() throws {
        let rig = MultiConnectionRig(1)
        var first: SentPDU?
        for token in 1...200 {
            let sent = try rejectOne(rig, UInt64(token))
            if first == nil { first = sent.first { !$0.header.isImmediate } }
            for ping in sent where ping.header.isImmediate { rig.answer(nop: ping, 0) }
            try #require(rig.failure == nil, "after \(token) commands")
        }
        let filler = try #require(first)
        #expect(!rig.isOpenTag(filler.header.initiatorTaskTag))
        rig.answer(nop: filler, 0)
        #expect(rig.failure == nil && rig.ended.count == 200)
        // Any other tag is a violation as ever.
        let stranger = filler.header.initiatorTaskTag &+ 0x7000_0000
        rig.put(0, .nopIn(tag: stranger, numbers: rig.numbers(0)))
        #expect(rig.failure == .violation(.unknownTask(.nopIn, tag: stranger)))
    }

    /// A number that the target has not taken is still to be filled, and one behind the ping may not have been read.
    @Test func whatMayStillBeAnsweredKeepsItsPlace() throws {
        let rig = MultiConnectionRig(1)
        rig.submit(.none, token: 1, on: 0)
        let command = rig.sent(0)[0]
        rig.put(0, .reject(.commandNotSupported, numbers: rig.numbers(0)), bytes(command))
        let filler = try #require(rig.sent(0).first)
        let isAsked = rig.session.ping(on: .leading, at: rig.now)
        #expect(isAsked)
        rig.answer(nop: rig.sent(0)[0], 0)
        #expect(rig.isOpenTag(filler.header.initiatorTaskTag), "ExpCmdSN has not passed it")
        rig.expCmdSN = 101
        let again = rig.session.ping(on: .leading, at: rig.now)
        #expect(again)
        let ping = rig.sent(0)[0]
        let later = try rejectOne(rig, 2)
        rig.answer(nop: ping, 0)
        #expect(!rig.isOpenTag(filler.header.initiatorTaskTag))
        #expect(rig.isOpenTag(try #require(later.first).header.initiatorTaskTag), "sent behind the ping")
    }
}
