import SCSI
import Testing
import Timebase

@testable import ISCSI

/// ErrorRecoveryLevel 1: what a digest error took, and nothing else, comes again.
@Suite struct DigestRecoveryTests {
    private func rig(level: Int = 1) -> SessionRig {
        var parameters = SessionRig.defaults()
        parameters.errorRecoveryLevel = level
        parameters.headerDigest = .crc32c
        parameters.dataDigest = .crc32c
        return SessionRig(parameters)
    }

    /// Spoils a byte of the next PDU, counted from its end.
    private func send(_ rig: SessionRig, _ header: BasicHeaderSegment, _ data: [UInt8] = [], spoiledAt offset: Int) {
        rig.end.put(header, data)
        rig.end.outgoing[offset < 0 ? rig.end.outgoing.count + offset : offset] ^= 1
        rig.deliver()
    }

    private func dataIn(_ rig: SessionRig, _ tag: UInt32, _ number: UInt32, ends: Bool = false) -> BasicHeaderSegment {
        if ends {
            return .dataIn(tag: tag, status: .good, dataSN: number, bufferOffset: number * 512, byteCount: 512, numbers: rig.nextNumbers())
        }
        return .dataIn(tag: tag, flags: [], dataSN: number, bufferOffset: number * 512, byteCount: 512, numbers: rig.numbers)
    }

    private func bytes(_ number: UInt32) -> [UInt8] { Array(repeating: UInt8(number + 1), count: 512) }

    @Test(arguments: [nil, 1, 100]) func damagedDataIsAskedForAgain(chunk: Int?) {
        let rig = rig()
        rig.chunk = chunk
        let memory = UnsafeMutableRawBufferPointer.filled(2048)
        defer { memory.deallocate() }
        rig.submit(.read, token: 1, memory: memory)
        let tag = rig.sent()[0].header.initiatorTaskTag
        rig.send(dataIn(rig, tag, 0), bytes(0))
        send(rig, dataIn(rig, tag, 1), bytes(1), spoiledAt: -10)
        let snack = rig.sent()
        #expect(snack.map(\.opcode) == [.snackRequest])
        #expect(snack[0].header.snackType == .dataOrR2T && snack[0].header.begRun == 1 && snack[0].header.initiatorTaskTag == tag)
        // What was on its way comes out of turn, and then all of it again.
        rig.send(dataIn(rig, tag, 2), bytes(2))
        #expect(rig.sent().isEmpty)
        for number: UInt32 in 1...2 { rig.send(dataIn(rig, tag, number), bytes(number)) }
        rig.send(dataIn(rig, tag, 3, ends: true), bytes(3))
        #expect(rig.completions.map(\.transferredByteCount) == [2048])
        #expect((0..<2048).allSatisfy { memory[$0] == UInt8($0 / 512 + 1) })
        #expect(rig.failure == nil)
    }

    @Test func belowLevelOneItEndsTheConnection() {
        let rig = rig(level: 0)
        let memory = UnsafeMutableRawBufferPointer.filled(512)
        defer { memory.deallocate() }
        rig.submit(.read, token: 1, memory: memory)
        let tag = rig.sent()[0].header.initiatorTaskTag
        send(rig, dataIn(rig, tag, 0), bytes(0), spoiledAt: -10)
        #expect(rig.failure == .dataDigestMismatch(.dataIn))
    }

    @Test func aStatusWhoseHeaderIsDamagedIsAskedForOnceItsGapShows() {
        let rig = rig()
        for token in 1...3 { rig.submit(.none, token: UInt64(token)) }
        let tags = rig.sent().map(\.header.initiatorTaskTag)
        let lost = BasicHeaderSegment.scsiResponse(tag: tags[0], status: .good, numbers: rig.nextNumbers())
        send(rig, lost, spoiledAt: 20)
        // A ping goes out, for its answer would show the gap.
        #expect(rig.sent().map(\.opcode) == [.nopOut])
        rig.send(.scsiResponse(tag: tags[1], status: .good, numbers: rig.nextNumbers()))
        #expect(rig.completions.map(\.token) == [2])
        let snack = rig.sent()
        #expect(snack.map(\.opcode) == [.snackRequest])
        #expect(snack[0].header.snackType == .status && snack[0].header.begRun == lost.statSN && snack[0].header.runLength == 1)
        // Behind the gap the expected number stays; it is not asked for twice.
        #expect(snack[0].header.expStatSN == lost.statSN)
        rig.send(.scsiResponse(tag: tags[2], status: .good, numbers: rig.nextNumbers()))
        #expect(rig.sent().isEmpty)
        rig.send(lost)
        rig.send(lost)
        #expect(rig.completions.map(\.token) == [2, 3, 1])
        let expected = rig.session.connections.pointee.expStatSN
        #expect(expected == rig.end.statSN)
        #expect(rig.failure == nil)
    }

    @Test func damagedSenseDataComesAgain() {
        let rig = rig()
        rig.submit(.none, token: 1)
        let tag = rig.sent()[0].header.initiatorTaskTag
        let data: [UInt8] = [0, 2, 0x70, 0]
        let header = BasicHeaderSegment.scsiResponse(
            tag: tag, status: .checkCondition, dataByteCount: data.count, numbers: rig.nextNumbers())
        send(rig, header, data, spoiledAt: -5)
        let snack = rig.sent()
        #expect(snack.first?.header.snackType == .status && snack.first?.header.begRun == header.statSN)
        rig.send(header, data)
        #expect(rig.completions.map(\.token) == [1] && rig.failure == nil)
    }

    @Test func anR2TThatWasDroppedIsAskedFor() {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(100_000)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        let command = rig.sent()[0].header
        let r2t = BasicHeaderSegment.readyToTransfer(
            lun: command.lun, tag: command.initiatorTaskTag, targetTransferTag: 9, r2tSN: 0, bufferOffset: 65_536,
            desiredDataTransferByteCount: 34_464, numbers: rig.numbers)
        send(rig, r2t, spoiledAt: 30)
        let asked = rig.sent().filter { $0.opcode == .snackRequest }
        #expect(asked.map(\.header.snackType) == [.dataOrR2T] && asked[0].header.begRun == 0)
        rig.send(r2t)
        #expect(rig.sent().filter { $0.opcode == .dataOut }.reduce(0) { $0 + $1.data.count } == 34_464)
        #expect(rig.failure == nil)
    }

    @Test func aReadsStatusWaitsForItsData() {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(1024)
        defer { memory.deallocate() }
        rig.submit(.read, token: 1, memory: memory)
        let tag = rig.sent()[0].header.initiatorTaskTag
        rig.send(dataIn(rig, tag, 0), bytes(0))
        send(rig, dataIn(rig, tag, 1), bytes(1), spoiledAt: 20)
        rig.send(.scsiResponse(tag: tag, status: .good, expDataSN: 2, numbers: rig.nextNumbers()))
        #expect(rig.completions.isEmpty)
        #expect(rig.sent().contains { $0.opcode == .snackRequest && $0.header.begRun == 1 })
        rig.send(dataIn(rig, tag, 1), bytes(1))
        #expect(rig.completions.map(\.transferredByteCount) == [1024] && rig.failure == nil)
    }

    @Test func dataIsConfirmedWhereTheTargetAsks() {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(1024)
        defer { memory.deallocate() }
        rig.submit(.read, token: 1, memory: memory)
        let command = rig.sent()[0].header
        rig.send(.dataIn(
            tag: command.initiatorTaskTag, flags: [.final, .acknowledge], dataSN: 0, bufferOffset: 0, byteCount: 512,
            lun: command.lun, targetTransferTag: 77, numbers: rig.numbers), bytes(0))
        let confirmed = rig.sent()
        #expect(confirmed.map(\.header.snackType) == [.dataACK])
        #expect(confirmed[0].header.targetTransferTag == 77 && confirmed[0].header.begRun == 1)
    }

    // MARK: what the target got damaged

    /// Its immediate data was damaged: the same PDU goes out again, and nothing of the connection ends.
    @Test(arguments: [nil, 1, 100]) func aCommandWhoseDataWasDamagedIsSentAgain(chunk: Int?) {
        let rig = rig()
        rig.chunk = chunk
        let memory = UnsafeMutableRawBufferPointer.filled(4096)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        rig.submit(.write, token: 2, memory: memory)
        let commands = rig.sent()
        rig.send(.reject(.dataDigestError, numbers: rig.nextNumbers()), headerBytes(commands[0]))
        let again = rig.sent()
        #expect(again.map(\.opcode) == [.scsiCommand] && headerBytes(again[0])[..<28] == headerBytes(commands[0])[..<28])
        #expect(again[0].header.cdbBytes[0] == 0x8A && again[0].header.cdbBytes[9] == commands[0].header.cdbBytes[9])
        #expect(again[0].data == Array(memory))
        rig.expCmdSN = 102
        for command in commands { rig.send(.scsiResponse(tag: command.header.initiatorTaskTag, status: .good, numbers: rig.nextNumbers())) }
        #expect(rig.completions.map(\.token) == [1, 2] && rig.failure == nil && rig.session.outstandingCommandCount == 0)
    }

    /// The Reject was damaged itself, and came again when the command had been sent once more and was taken.
    @Test func aRejectThatComesTooLateAsksForNothing() {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(4096)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        let command = rig.sent()[0]
        rig.expCmdSN = 101
        rig.send(.reject(.dataDigestError, numbers: rig.nextNumbers()), headerBytes(command))
        #expect(rig.sent().isEmpty && rig.completions.isEmpty)
        rig.send(.scsiResponse(tag: command.header.initiatorTaskTag, status: .good, numbers: rig.nextNumbers()))
        #expect(rig.completions.map(\.token) == [1] && rig.failure == nil)
    }

    /// Below level 1 the same Reject ends the connection.
    @Test func atLevelZeroARejectedCommandIsNotSentAgain() {
        let rig = rig(level: 0)
        let memory = UnsafeMutableRawBufferPointer.filled(512)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        let command = rig.sent()[0]
        rig.send(.reject(.dataDigestError, numbers: rig.nextNumbers()), headerBytes(command))
        #expect(rig.failure == .rejected(.scsiCommand, .dataDigestError))
    }

    /// Its header was damaged: the target says nothing, but goes on waiting for its CmdSN behind a ping's answer.
    @Test func aCommandThatWasDroppedIsSentAgainOnceAPingShowsIt() throws {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(512)
        defer { memory.deallocate() }
        rig.submit(.read, token: 1, memory: memory)  // 100: dropped
        rig.submit(.read, token: 2, memory: memory)  // 101: waits for it
        let commands = rig.sent()
        rig.pass(.milliseconds(1001))
        // A third one goes out behind the ping, and may be on its way.
        let ping = try #require(rig.sent().first { $0.opcode == .nopOut })
        rig.submit(.read, token: 3, memory: memory)
        _ = rig.sent()
        rig.send(.nopIn(tag: ping.header.initiatorTaskTag, numbers: rig.nextNumbers()))
        let again = rig.sent()
        #expect(again.map(\.header.cmdSN) == [100] && again[0].header.initiatorTaskTag == commands[0].header.initiatorTaskTag)
        // That one arrives, and so does what waited; the next gap is behind the ping, and says nothing yet.
        rig.expCmdSN = 102
        rig.pass(.milliseconds(1001))
        let second = try #require(rig.sent().first { $0.opcode == .nopOut })
        rig.send(.nopIn(tag: second.header.initiatorTaskTag, numbers: rig.nextNumbers()))
        #expect(rig.sent().map(\.header.cmdSN) == [102], "the third was before this ping")
        #expect(rig.failure == nil && rig.completions.isEmpty)
    }

    /// A target that does not wait for what was sent before a reset: the command that it dropped is sent again and executed
    /// after it, so it is not called aborted.
    @Test(arguments: [0, 1]) func aCommandThatWasDroppedIsNotEndedByAReset(level: Int) throws {
        let rig = rig(level: level)
        let memory = UnsafeMutableRawBufferPointer.filled(512)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)  // 100: dropped
        let command = rig.sent()[0].header
        let isSent = rig.session.submitTaskManagement(
            .logicalUnitReset, lun: command.lun, token: 9, on: .leading, at: rig.now)
        #expect(isSent)
        rig.send(.taskManagementResponse(.functionComplete, tag: rig.sent()[0].header.initiatorTaskTag, numbers: rig.nextNumbers()))
        // At level 0 nothing is dropped: the target read it before the reset.
        #expect(rig.completions.map(\.token) == (level == 0 ? [1] : []))
        guard level > 0 else { return }
        rig.pass(.milliseconds(1001))
        let ping = try #require(rig.sent().first { $0.opcode == .nopOut })
        rig.send(.nopIn(tag: ping.header.initiatorTaskTag, numbers: rig.nextNumbers()))
        #expect(rig.sent().map(\.header.cmdSN) == [100])
        rig.expCmdSN = 101
        rig.send(.scsiResponse(tag: command.initiatorTaskTag, status: .good, numbers: rig.nextNumbers()))
        #expect(rig.completions.map(\.outcome) == [.status(.good, sense: nil)] && rig.failure == nil)
    }

    @Test func aTargetThatRejectsEverythingIsLeft() {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(512)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        var count = 0
        while rig.failure == nil, let command = rig.sent().first {
            rig.send(.reject(.dataDigestError, numbers: rig.nextNumbers()), headerBytes(command))
            count += 1
            guard count < 1000 else { break }
        }
        #expect(rig.failure == .rejected(.scsiCommand, .dataDigestError))
    }

    private func headerBytes(_ pdu: SentPDU) -> [UInt8] {
        var header = pdu.header
        return withUnsafeBytes(of: &header) { Array($0.prefix(48)) }
    }

    @Test func aTargetThatSpoilsEverythingIsLeft() {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(512)
        defer { memory.deallocate() }
        rig.submit(.read, token: 1, memory: memory)
        let tag = rig.sent()[0].header.initiatorTaskTag
        for _ in 0..<400 where rig.failure == nil {
            send(rig, dataIn(rig, tag, 0), bytes(0), spoiledAt: -10)
            _ = rig.sent()
        }
        #expect(rig.failure == .dataDigestMismatch(.dataIn))
    }

    @Test func aRefusedSnackEndsTheConnection() {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(512)
        defer { memory.deallocate() }
        rig.submit(.read, token: 1, memory: memory)
        let tag = rig.sent()[0].header.initiatorTaskTag
        send(rig, dataIn(rig, tag, 0), bytes(0), spoiledAt: -10)
        var snack = rig.sent()[0].header
        let rejected = withUnsafeBytes(of: &snack) { Array($0.prefix(48)) }
        rig.send(.reject(.snackReject, numbers: rig.nextNumbers()), rejected)
        #expect(rig.failure == .rejected(.snackRequest, .dataDigestError))
    }
}
