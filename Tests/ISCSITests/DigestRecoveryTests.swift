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

    @Test func aCommandThatTheTargetNeverTookIsSentAgainOnceAPingShowsIt() {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(512)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        let first = rig.sent()[0]
        let isAsked = rig.session.ping(on: .leading, at: rig.now)
        #expect(isAsked)
        let ping = rig.sent()[0].header
        // ExpCmdSN is still the command's number, though what followed it was read.
        #expect(rig.expCmdSN == first.header.cmdSN)
        rig.send(.nopIn(tag: ping.initiatorTaskTag, numbers: rig.nextNumbers()))
        let again = rig.sent()
        #expect(again.map(\.opcode) == [.scsiCommand])
        #expect(again[0].header.cmdSN == first.header.cmdSN && again[0].header.initiatorTaskTag == first.header.initiatorTaskTag)
        #expect(again[0].data == first.data && rig.failure == nil)
    }

    @Test func aCommandWhoseImmediateDataWasDamagedIsSentAgain() {
        let rig = rig()
        let memory = UnsafeMutableRawBufferPointer.filled(512)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        let first = rig.sent()[0]
        var header = first.header
        let rejected = withUnsafeBytes(of: &header) { Array($0.prefix(48)) }
        rig.send(.reject(.dataDigestError, numbers: rig.nextNumbers()), rejected)
        let again = rig.sent()
        #expect(again.map(\.opcode) == [.scsiCommand] && again[0].header.cmdSN == first.header.cmdSN)
        #expect(again[0].data == first.data && rig.failure == nil)
    }
}
