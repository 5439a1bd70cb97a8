import SCSI
import Testing
import Timebase

@testable import ISCSI

private let lun = LogicalUnitNumber(index: 3)!
private let reserved = BasicHeaderSegment.reservedTag

/// A session with one open read and one open write of 16 KiB each.
private final class OpenPair {
    let rig: SessionRig
    let readMemory = UnsafeMutableRawBufferPointer.filled(16_384, seed: 1)
    let writeMemory = UnsafeMutableRawBufferPointer.filled(16_384, seed: 2)
    let readTag: UInt32
    let writeTag: UInt32

    init(_ change: (inout NegotiatedParameters) -> Void = { _ in }) {
        var parameters = SessionRig.defaults()
        parameters.initialR2T = true
        parameters.immediateData = false
        change(&parameters)
        rig = SessionRig(parameters)
        rig.submit(.read, token: 1, memory: readMemory)
        rig.submit(.write, token: 2, memory: writeMemory)
        let sent = rig.sent()
        readTag = sent[0].header.initiatorTaskTag
        writeTag = sent[1].header.initiatorTaskTag
    }

    deinit {
        readMemory.deallocate()
        writeMemory.deallocate()
    }

    func dataIn(
        _ count: Int, at offset: UInt32 = 0, dataSN: UInt32 = 0, flags: DataInFlags = [], tag: UInt32? = nil
    ) {
        rig.send(
            .dataIn(tag: tag ?? readTag, flags: flags, dataSN: dataSN, bufferOffset: offset, byteCount: count, numbers: rig.numbers),
            [UInt8](repeating: 0xAB, count: count))
    }

    func r2t(_ count: UInt32, at offset: UInt32 = 0, sn: UInt32 = 0, transferTag: UInt32 = 9, tag: UInt32? = nil) {
        rig.send(.readyToTransfer(
            lun: lun, tag: tag ?? writeTag, targetTransferTag: transferTag, r2tSN: sn, bufferOffset: offset,
            desiredDataTransferByteCount: count, numbers: rig.numbers))
    }
}

@Suite struct InitiatorSessionProtocolTests {
    // MARK: window

    @Test func aClosedWindowRefusesAndAnOpenedOneIsSaidOnce() {
        let rig = SessionRig(window: 2)
        #expect(rig.submit(.none, token: 1).isAccepted)
        #expect(rig.submit(.none, token: 2).isAccepted)
        #expect(rig.submit(.none, token: 3).isWindowFull)
        let tag = rig.sent()[0].header.initiatorTaskTag
        // The answer frees a place in our table, but not in the target's window.
        rig.expCmdSN = 102
        rig.send(.scsiResponse(tag: tag, status: .good, numbers: rig.nextNumbers()))
        #expect(rig.submit(.none, token: 3).isWindowFull)
        #expect(!rig.events.contains(.windowOpened))
        rig.maxCmdSN = 103
        rig.send(.nopIn(numbers: rig.numbers))
        #expect(rig.events == [.windowOpened])
        #expect(rig.submit(.none, token: 3).isAccepted)
        // An older MaxCmdSN does not shrink it, one that contradicts ExpCmdSN is ignored.
        rig.maxCmdSN = 101
        rig.send(.nopIn(numbers: rig.numbers))
        #expect(rig.submit(.none, token: 4).isAccepted)
        #expect(rig.submit(.none, token: 5).isWindowFull)
        rig.expCmdSN = 1200
        rig.maxCmdSN = 1100
        rig.send(.nopIn(numbers: rig.numbers))
        #expect(rig.submit(.none, token: 5).isWindowFull)
    }

    @Test func theWindowSurvivesTheWrapOfCmdSN() {
        let rig = SessionRig()
        rig.session.cmdSN = 0xFFFF_FFFE
        rig.session.expCmdSN = 0xFFFF_FFFE
        rig.session.maxCmdSN = 1
        for token in 1...4 { #expect(rig.submit(.none, token: UInt64(token)).isAccepted) }
        #expect(rig.submit(.none, token: 5).isWindowFull)
        let sent = rig.sent()
        #expect(sent.map(\.header.cmdSN) == [0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1])
        rig.expCmdSN = 2
        rig.maxCmdSN = 5
        rig.send(.scsiResponse(tag: sent[0].header.initiatorTaskTag, status: .good, numbers: rig.nextNumbers()))
        #expect(rig.events == [.windowOpened])
        #expect(rig.failure == nil)
    }

    @Test func aFullTableRefusesAndSaysWhenThereIsRoom() {
        let rig = SessionRig(window: 64, capacity: 3)
        for token in 1...3 { #expect(rig.submit(.none, token: UInt64(token)).isAccepted) }
        #expect(rig.submit(.none, token: 4).isWindowFull)
        let tag = rig.sent()[1].header.initiatorTaskTag
        rig.send(.scsiResponse(tag: tag, status: .good, numbers: rig.nextNumbers()))
        #expect(rig.events == [.windowOpened])
        #expect(rig.submit(.none, token: 4).isAccepted)
    }

    // MARK: status

    @Test func senseResidualAndResponseCodesReachTheCompletion() {
        let sense = SenseData(key: .illegalRequest, additional: AdditionalSense(0x24, 0))
        var fixed = [UInt8](repeating: 0, count: 18)
        fixed[0] = 0x70
        fixed[2] = 0x05
        fixed[7] = 10
        fixed[12] = 0x24
        let pair = OpenPair()
        pair.rig.send(
            .scsiResponse(
                tag: pair.writeTag, status: .checkCondition, residual: .underflow(16_384), dataByteCount: 20,
                numbers: pair.rig.nextNumbers()), [0, 18] + fixed)
        #expect(pair.rig.completions.last?.outcome == .status(.checkCondition, sense: sense))
        #expect(pair.rig.completions.last?.transferredByteCount == 0)
        #expect(pair.rig.completions.last?.residual == .underflow(16_384))

        pair.dataIn(1000, flags: .final)
        pair.rig.send(.scsiResponse(
            tag: pair.readTag, response: .targetFailure, status: .good, numbers: pair.rig.nextNumbers()))
        #expect(pair.rig.completions.last?.outcome == .targetFailure(responseCode: 1))
        #expect(pair.rig.completions.last?.transferredByteCount == 1000)
        #expect(pair.rig.failure == nil)
    }

    @Test func aShortReadIsCountedExactlyAndOverflowReported() {
        let pair = OpenPair()
        pair.dataIn(4000)
        pair.rig.send(
            .dataIn(
                tag: pair.readTag, status: .good, residual: .underflow(12_000), dataSN: 1, bufferOffset: 4000,
                byteCount: 384, numbers: pair.rig.nextNumbers()), [UInt8](repeating: 1, count: 384))
        #expect(pair.rig.completions.last?.transferredByteCount == 4384)
        #expect(pair.rig.completions.last?.residual == .underflow(12_000))
        pair.r2t(16_384)
        _ = pair.rig.sent()
        pair.rig.send(.scsiResponse(
            tag: pair.writeTag, status: .good, residual: .overflow(5), numbers: pair.rig.nextNumbers()))
        #expect(pair.rig.completions.last?.transferredByteCount == 16_384)
        #expect(pair.rig.completions.last?.residual == .overflow(5))
    }

    /// Otherwise what was in the buffer before would be taken for data.
    @Test func aReadThatEndsWellWithoutItsDataIsShortWhateverTheTargetSays() {
        let pair = OpenPair()
        pair.dataIn(4000)
        pair.rig.send(.scsiResponse(tag: pair.readTag, status: .good, numbers: pair.rig.nextNumbers()))
        #expect(pair.rig.completions.last?.outcome == .status(.good, sense: nil))
        #expect(pair.rig.completions.last?.residual == .underflow(12_384))
        let other = OpenPair()
        other.rig.send(
            .dataIn(
                tag: other.readTag, status: .good, residual: .overflow(7), dataSN: 0, bufferOffset: 0, byteCount: 384,
                numbers: other.rig.nextNumbers()), [UInt8](repeating: 1, count: 384))
        #expect(other.rig.completions.last?.residual == .underflow(16_000))
    }

    @Test func anUnderflowBeyondTheCommandCountsAsNothing() {
        let pair = OpenPair()
        pair.rig.send(.scsiResponse(
            tag: pair.writeTag, status: .good, residual: .underflow(.max), numbers: pair.rig.nextNumbers()))
        #expect(pair.rig.completions.last?.transferredByteCount == 0)
    }

    // MARK: violations

    @Test func dataInThatMayNotBeEndsTheSession() {
        let cases: [(ProtocolViolation, (OpenPair) -> Void)] = [
            (.dataSN(received: 1, expected: 0), { $0.dataIn(512, dataSN: 1) }),
            (.dataRange(.dataIn, offset: 512, byteCount: 512), { $0.dataIn(512, at: 512) }),
            (.dataRange(.dataIn, offset: 0, byteCount: 16_388), { $0.dataIn(16_388) }),
            (.dataRange(.dataIn, offset: .max, byteCount: 512), { $0.dataIn(512, at: .max) }),
            (.statusWithoutFinal, { pair in
                var header = BasicHeaderSegment.dataIn(
                    tag: pair.readTag, status: .good, dataSN: 0, bufferOffset: 0, byteCount: 4, numbers: pair.rig.numbers)
                header.isFinal = false
                pair.rig.send(header, [1, 2, 3, 4])
            }),
        ]
        for (violation, provoke) in cases {
            let pair = OpenPair()
            provoke(pair)
            #expect(pair.rig.violation == violation)
        }
        let wrongWay = OpenPair()
        wrongWay.dataIn(4, tag: wrongWay.writeTag)
        #expect(wrongWay.rig.violation == .wrongDirection(.dataIn))
        let unknown = OpenPair()
        unknown.dataIn(4, tag: 0x0001_0001)
        #expect(unknown.rig.violation == .unknownTask(.dataIn, tag: 0x0001_0001))
    }

    @Test func dataInPastTheEndWritesNoByteOutsideTheBuffer() {
        let rig = SessionRig()
        let memory = UnsafeMutableRawBufferPointer.filled(1024)
        defer { memory.deallocate() }
        let before = Array(memory)
        rig.submit(.read, token: 1, memory: UnsafeMutableRawBufferPointer(rebasing: memory[256..<768]))
        let tag = rig.sent()[0].header.initiatorTaskTag
        rig.send(
            .dataIn(tag: tag, flags: .final, dataSN: 0, bufferOffset: 256, byteCount: 512, numbers: rig.numbers),
            [UInt8](repeating: 0, count: 512))
        #expect(rig.failure != nil)
        #expect(memory.elementsEqual(before))
    }

    @Test func r2tsThatMayNotBeEndTheSession() {
        let cases: [(ProtocolViolation, (OpenPair) -> Void)] = [
            (.r2tSN(received: 1, expected: 0), { $0.r2t(512, sn: 1) }),
            (.invalidR2T, { $0.r2t(0) }),
            (.invalidR2T, { $0.r2t(8193) }),
            (.invalidR2T, { $0.r2t(512, transferTag: reserved) }),
            (.dataRange(.readyToTransfer, offset: 16_000, byteCount: 512), { $0.r2t(512, at: 16_000) }),
            (.dataRange(.readyToTransfer, offset: 0, byteCount: 512), { pair in
                pair.r2t(512)
                _ = pair.rig.sent()
                pair.r2t(512, at: 0, sn: 1)
            }),
            (.dataRange(.readyToTransfer, offset: 1024, byteCount: 512), { pair in
                pair.r2t(512)
                pair.r2t(512, at: 1024, sn: 1)
            }),
            (.tooManyR2Ts(limit: 2), { pair in
                for index in 0..<3 { pair.r2t(512, at: UInt32(512 * index), sn: UInt32(index)) }
            }),
        ]
        for (violation, provoke) in cases {
            let pair = OpenPair {
                $0.maxBurstByteCount = 8192
                $0.maxOutstandingR2T = 2
            }
            provoke(pair)
            #expect(pair.rig.violation == violation)
        }
        let wrongWay = OpenPair()
        wrongWay.r2t(512, tag: wrongWay.readTag)
        #expect(wrongWay.rig.violation == .wrongDirection(.readyToTransfer))
    }

    @Test func aGapInStatSNEndsTheSession() {
        let pair = OpenPair()
        pair.rig.end.statSN &+= 1
        pair.rig.send(.scsiResponse(tag: pair.writeTag, status: .good, numbers: pair.rig.nextNumbers()))
        #expect(pair.rig.violation == .statSN(received: 2, expected: 1))
        #expect(pair.rig.completions.isEmpty, "a status that is not the next one is not believed")
    }

    @Test func tagsOfFinishedCommandsFindNothing() {
        let pair = OpenPair()
        pair.rig.send(.scsiResponse(tag: pair.writeTag, status: .good, numbers: pair.rig.nextNumbers()))
        // The slot is used again at once, under another tag.
        #expect(pair.rig.submit(.write, token: 3, memory: pair.writeMemory).isAccepted)
        #expect(pair.rig.sent()[0].header.initiatorTaskTag & 0xFFFF == pair.writeTag & 0xFFFF)
        pair.rig.send(.scsiResponse(tag: pair.writeTag, status: .good, numbers: pair.rig.nextNumbers()))
        #expect(pair.rig.violation == .unknownTask(.scsiResponse, tag: pair.writeTag))
        #expect(pair.rig.events.contains(.commandAbandoned(token: 3, wasSent: true)))
    }

    @Test func pdusOfAnInitiatorOrOfLoginAreViolations() {
        for opcode: PDUOpcode in [.nopOut, .scsiCommand, .dataOut, .loginResponse, .loginRequest, PDUOpcode(rawValue: 0x3E)] {
            let pair = OpenPair()
            pair.rig.send(BasicHeaderSegment(opcode: opcode))
            #expect(pair.rig.violation == .unexpectedPDU(opcode))
        }
    }

    @Test func giantLengthsAndBadDigestsEndTheSession() {
        let giant = OpenPair()
        var header = BasicHeaderSegment(opcode: .asyncMessage)
        header.dataSegmentByteCount = 0xFF_FFFF
        var bytes = [UInt8](repeating: 0, count: 48)
        bytes.withUnsafeMutableBytes { header.store(to: $0.baseAddress!) }
        giant.rig.end.outgoing = bytes
        giant.rig.deliver()
        #expect(giant.rig.failure == .malformed(.dataSegmentTooLong(byteCount: 0xFF_FFFF, limit: 262_144)))

        for corruptsHeader in [true, false] {
            let pair = OpenPair {
                $0.headerDigest = .crc32c
                $0.dataDigest = .crc32c
            }
            pair.rig.end.put(
                .dataIn(tag: pair.readTag, status: .good, dataSN: 0, bufferOffset: 0, byteCount: 4, numbers: pair.rig.nextNumbers()),
                [1, 2, 3, 4])
            pair.rig.end.outgoing[corruptsHeader ? 40 : 53] ^= 1
            pair.rig.deliver()
            if corruptsHeader {
                guard case .malformed(.headerDigestMismatch)? = pair.rig.failure else {
                    Issue.record("\(pair.rig.session.state)")
                    continue
                }
            } else {
                #expect(pair.rig.failure == .dataDigestMismatch(.dataIn))
            }
            #expect(pair.rig.completions.isEmpty)
        }
    }

    // MARK: early status, buffers

    @Test func anEarlyStatusWaitsForQueuedDataToLeave() {
        var parameters = SessionRig.defaults()
        parameters.maxSendDataSegmentByteCount = 4096
        let rig = SessionRig(parameters)
        let memory = UnsafeMutableRawBufferPointer.filled(32_768)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 4)
        defer { segments.deallocate() }
        // The command and a part of its immediate data leave.
        let count = rig.session.output(.leading, into: segments)
        #expect(count == 4)
        rig.end.take(segments[0])
        rig.end.take(UnsafeRawBufferPointer(rebasing: segments[1][..<100]))
        rig.session.outputSent(.leading, byteCount: segments[0].count + 100)
        let tag = rig.session.table.tag(of: 0)
        rig.send(.scsiResponse(tag: tag, status: .busy, residual: .underflow(32_768), numbers: rig.nextNumbers()))
        #expect(rig.completions.isEmpty, "its buffer is still queued")
        #expect(rig.failure == nil)
        // The promised unsolicited sequence is finished, with its F bit; the stream stays in step.
        // One segment at a time, so that the queue runs empty between the PDUs.
        let single = UnsafeMutableBufferPointer(rebasing: segments[..<1])
        while true {
            let filled = rig.session.output(.leading, into: single)
            guard filled > 0 else { break }
            rig.drain()
            #expect(rig.completions.isEmpty, "not before the last of it has left")
            rig.end.take(single[0])
            rig.session.outputSent(.leading, byteCount: single[0].count)
        }
        let sent = rig.sent()
        #expect(sent.map(\.data.count).reduce(0, +) == 32_768)
        #expect(sent.last?.header.isFinal == true)
        #expect(rig.completions.map(\.token) == [1])
        #expect(rig.completions[0].outcome == .status(.busy, sense: nil))
        // A PDU for the ended task finds nobody.
        rig.send(.readyToTransfer(
            lun: lun, tag: tag, targetTransferTag: 1, r2tSN: 0, bufferOffset: 0, desiredDataTransferByteCount: 4,
            numbers: rig.numbers))
        #expect(rig.violation == .unknownTask(.readyToTransfer, tag: tag))
    }

    @Test func aStatusBeforeTheSendWasReportedWaitsForTheReport() {
        let rig = SessionRig()
        let memory = UnsafeMutableRawBufferPointer.filled(4096)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 4)
        defer { segments.deallocate() }
        _ = rig.session.output(.leading, into: segments)
        // The kernel sent it all and the target answered, but the result of the send is not in yet.
        rig.send(.scsiResponse(tag: rig.session.table.tag(of: 0), status: .good, numbers: rig.nextNumbers()))
        #expect(rig.completions.isEmpty)
        rig.session.outputSent(.leading, byteCount: 48 + 4095)
        rig.drain()
        #expect(rig.completions.isEmpty)
        _ = rig.session.output(.leading, into: segments)
        rig.session.outputSent(.leading, byteCount: 1)
        rig.drain()
        #expect(rig.completions.map(\.token) == [1])
        // Where the session fails instead, the outcome is known all the same.
        rig.submit(.write, token: 2, memory: memory)
        _ = rig.session.output(.leading, into: segments)
        let tag = rig.session.table.tag(of: 0)
        rig.send(.scsiResponse(tag: tag, status: .good, numbers: rig.nextNumbers()))
        rig.session.connectionClosed(.leading, reason: .endOfStream, at: rig.now)
        rig.drain()
        #expect(rig.completions.map(\.token) == [1, 2])
        #expect(rig.events == [.sessionFailed(.endOfStream)])
    }

    @Test func anR2TCountsUntilItsSequenceIsOnItsWay() {
        let pair = OpenPair {
            $0.maxOutstandingR2T = 2
            $0.maxSendDataSegmentByteCount = 4096
        }
        pair.r2t(4096)
        pair.r2t(4096, at: 4096, sn: 1, transferTag: 10)
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 2)
        defer { segments.deallocate() }
        // Header and data of the first only.
        let count = pair.rig.session.output(.leading, into: segments)
        #expect(count == 2)
        pair.r2t(4096, at: 8192, sn: 2, transferTag: 11)
        #expect(pair.rig.failure == nil)
        pair.r2t(4096, at: 12_288, sn: 3, transferTag: 12)
        #expect(pair.rig.violation == .tooManyR2Ts(limit: 2))
    }

    @Test func dataInAnyOrderIsTakenWhereThatWasAgreed() {
        let pair = OpenPair { $0.dataPDUInOrder = false }
        pair.dataIn(8192, at: 8192, dataSN: 0)
        pair.dataIn(8192, at: 0, dataSN: 1)
        #expect(pair.rig.failure == nil)
        pair.rig.send(.scsiResponse(tag: pair.readTag, status: .good, numbers: pair.rig.nextNumbers()))
        #expect(pair.rig.completions.last?.transferredByteCount == 16_384)

        let twice = OpenPair { $0.dataPDUInOrder = false }
        twice.dataIn(16_384, at: 0, dataSN: 0)
        twice.dataIn(4, at: 0, dataSN: 1)
        #expect(twice.rig.violation == .dataRange(.dataIn, offset: 0, byteCount: 4))
    }

    @Test func anR2TNotYetBegunDiesWithItsCommand() {
        let pair = OpenPair()
        pair.r2t(8192)
        pair.r2t(8192, at: 8192, sn: 1, transferTag: 10)
        pair.rig.send(.scsiResponse(tag: pair.writeTag, status: .taskAborted, numbers: pair.rig.nextNumbers()))
        #expect(pair.rig.completions.map(\.token) == [2])
        #expect(pair.rig.sent().isEmpty)
        #expect(!pair.rig.needsToSend)
        // The tables are whole: as many R2Ts again as may be outstanding.
        #expect(pair.rig.submit(.write, token: 3, memory: pair.writeMemory).isAccepted)
        let tag = pair.rig.sent()[0].header.initiatorTaskTag
        for index in 0..<4 { pair.r2t(4096, at: UInt32(index * 4096), sn: UInt32(index), tag: tag) }
        #expect(pair.rig.sent().map(\.data.count) == [4096, 4096, 4096, 4096])
    }

    // MARK: session failure

    @Test func aFailureHandsBackWhatWasOpenInOrderAndSaysWhatWasSent() {
        let rig = SessionRig(capacity: 16)
        let memory = UnsafeMutableRawBufferPointer.filled(4096)
        defer { memory.deallocate() }
        for token in 0..<6 { rig.submit(.read, token: UInt64(token), memory: memory) }
        let sent = rig.sent()
        // Slots are used again out of order: the order handed back is that of submission all the same.
        for index in [4, 0, 2] {
            rig.send(.scsiResponse(tag: sent[index].header.initiatorTaskTag, status: .good, numbers: rig.nextNumbers()))
        }
        for token in 6..<10 { rig.submit(.read, token: UInt64(token), memory: memory) }
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 4)
        defer { segments.deallocate() }
        let count = rig.session.output(.leading, into: segments)
        #expect(count == 1)
        rig.session.outputSent(.leading, byteCount: 48 + 1)
        rig.session.connectionClosed(.leading, reason: .transportFailed(code: 104), at: rig.now)
        rig.drain()
        let tokens: [(UInt64, Bool)] = [(1, true), (3, true), (5, true), (6, true), (7, true), (8, false), (9, false)]
        #expect(rig.events == tokens.map { .commandAbandoned(token: $0.0, wasSent: $0.1) } + [.sessionFailed(.transportFailed(code: 104))])
        #expect(rig.submit(.none, token: 99).isNotLoggedIn)
        #expect(!rig.needsToSend)
        let rest = rig.session.output(.leading, into: segments)
        #expect(rest == 0)
        rig.session.connectionClosed(.leading, reason: .endOfStream, at: rig.now)
        rig.pass(.seconds(100))
        #expect(rig.events.count == 8, "nothing follows the end")
    }

    @Test func whatAPendingSendMayHaveTakenCountsAsSent() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 4)
        defer { segments.deallocate() }
        _ = rig.session.output(.leading, into: segments)
        rig.submit(.none, token: 2)
        rig.session.connectionClosed(.leading, reason: .endOfStream, at: rig.now)
        rig.drain()
        #expect(rig.events.prefix(2) == [.commandAbandoned(token: 1, wasSent: true), .commandAbandoned(token: 2, wasSent: false)])
    }

    // MARK: NOP, Async Message, Reject

    @Test func theTargetsPingsAreAnsweredAndTheirFloodIsNot() {
        let rig = SessionRig()
        rig.send(.nopIn(lun: lun, targetTransferTag: 0x1234, numbers: rig.numbers))
        let answer = rig.sent()
        #expect(answer.count == 1)
        #expect(answer[0].opcode == .nopOut && answer[0].header.isImmediate && answer[0].header.lun == lun)
        #expect(answer[0].header.targetTransferTag == 0x1234 && answer[0].header.initiatorTaskTag == reserved)
        #expect(answer[0].header.cmdSN == 100)
        for _ in 0..<2000 where rig.failure == nil { rig.send(.nopIn(targetTransferTag: 1, numbers: rig.numbers)) }
        #expect(rig.violation == .flood)
    }

    @Test func pingsAreMatchedWithTheirAnswers() {
        let rig = SessionRig()
        #expect(rig.ping())
        #expect(!rig.ping(), "one at a time")
        let ping = rig.sent()[0]
        #expect(ping.header.isImmediate && ping.header.targetTransferTag == reserved)
        rig.now = rig.now + .milliseconds(3)
        rig.send(.nopIn(tag: ping.header.initiatorTaskTag, numbers: rig.nextNumbers()))
        #expect(rig.events == [.pingAnswered(.leading, roundTrip: .milliseconds(3))])
        #expect(rig.ping())
        rig.send(.nopIn(tag: ping.header.initiatorTaskTag, numbers: rig.nextNumbers()))
        #expect(rig.violation == .unknownTask(.nopIn, tag: ping.header.initiatorTaskTag))
    }

    @Test func asyncMessagesAreReportedAndDropsEndTheSession() {
        let rig = SessionRig()
        let harmless: [AsyncMessage] = [.logoutRequested(withinSeconds: 5), .tasksTerminated(lun), .vendorSpecific(code: 7), .unknown(AsyncEvent(rawValue: 99))]
        for message in harmless { rig.send(.asyncMessage(message, numbers: rig.nextNumbers())) }
        #expect(rig.events == harmless.map { .asyncMessage($0, sense: nil) })
        rig.events = []
        rig.send(
            .asyncMessage(.scsiEvent(lun), dataByteCount: 20, numbers: rig.nextNumbers()),
            [0, 18, 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2A, 0x09, 0, 0, 0, 0])
        #expect(rig.events == [
            .asyncMessage(.scsiEvent(lun), sense: SenseData(key: .unitAttention, additional: AdditionalSense(0x2A, 0x09))),
        ])
        rig.submit(.none, token: 4)
        rig.events = []
        let drop = AsyncMessage.sessionDrops(time2Wait: 2, time2Retain: 20)
        rig.send(.asyncMessage(drop, numbers: rig.nextNumbers()))
        #expect(rig.events == [
            .asyncMessage(drop, sense: nil), .commandAbandoned(token: 4, wasSent: false),
            .sessionFailed(.droppedByTarget(time2Wait: 2, time2Retain: 20)),
        ])
    }

    @Test func aWishToRenegotiateIsGrantedByAnEmptyText() {
        let rig = SessionRig()
        rig.send(.asyncMessage(.negotiationRequested(withinSeconds: 3), numbers: rig.nextNumbers()))
        let request = rig.sent()[0]
        #expect(request.opcode == .textRequest && request.data.isEmpty && request.header.isFinal)
        let text = Array("MaxRecvDataSegmentLength=4096\0".utf8)
        rig.send(.textResponse(.final, tag: request.header.initiatorTaskTag, numbers: rig.nextNumbers()), text)
        let memory = UnsafeMutableRawBufferPointer.filled(20_000)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        #expect(rig.sent().allSatisfy { $0.data.count <= 4096 })
    }

    @Test func aRejectedCommandEndsAloneAndItsCmdSNIsFilled() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        rig.submit(.none, token: 2)
        let sent = rig.sent()
        var header = [UInt8](repeating: 0, count: 48)
        header.withUnsafeMutableBytes { sent[0].header.store(to: $0.baseAddress!) }
        rig.send(.reject(.commandNotSupported, numbers: rig.nextNumbers()), header)
        #expect(rig.completions.map(\.outcome) == [.rejected(.commandNotSupported)])
        let plug = rig.sent()
        #expect(plug.count == 1 && plug[0].opcode == .nopOut && !plug[0].header.isImmediate)
        #expect(plug.first?.header.cmdSN == 100)
        rig.expCmdSN = 102
        rig.send(.nopIn(tag: plug[0].header.initiatorTaskTag, numbers: rig.nextNumbers()))
        rig.send(.scsiResponse(tag: sent[1].header.initiatorTaskTag, status: .good, numbers: rig.nextNumbers()))
        #expect(rig.completions.last?.token == 2)
        #expect(rig.failure == nil)
        // A target that counted the rejected command leaves no hole to fill.
        rig.submit(.none, token: 3)
        rig.sent()[0].header.store(to: header.withUnsafeMutableBytes { $0.baseAddress! })
        rig.expCmdSN = 103
        rig.send(.reject(.invalidPDUField, numbers: rig.nextNumbers()), header)
        #expect(rig.completions.last?.outcome == .rejected(.invalidPDUField))
        #expect(rig.sent().isEmpty)
    }

    @Test func rejectsOfOtherPDUsEndWhatTheyAnswer() {
        func reject(_ pdu: SentPDU, _ reason: RejectReason, _ rig: SessionRig) {
            var header = [UInt8](repeating: 0, count: 48)
            header.withUnsafeMutableBytes { pdu.header.store(to: $0.baseAddress!) }
            rig.send(.reject(reason, numbers: rig.nextNumbers()), header)
        }
        let rig = SessionRig()
        #expect(rig.taskManagement(.logicalUnitReset, token: 5))
        reject(rig.sent()[0], .commandNotSupported, rig)
        #expect(rig.events == [.taskManagementRejected(token: 5, .commandNotSupported)])
        rig.events = []
        #expect(rig.sendText([TextPair("X-a", "1")], token: 6))
        reject(rig.sent()[0], .protocolError, rig)
        #expect(rig.events == [.text(token: 6, .rejected(.protocolError))])
        #expect(rig.ping())
        rig.events = []
        reject(rig.sent()[0], .commandNotSupported, rig)
        #expect(rig.events == [.pingAnswered(.leading, roundTrip: .zero)])
        rig.logOut()
        reject(rig.sent()[0], .protocolError, rig)
        #expect(rig.failure == .rejected(.logoutRequest, .protocolError))

        let short = SessionRig()
        short.send(.reject(.protocolError, dataByteCount: 4, numbers: short.nextNumbers()), [1, 2, 3, 4])
        #expect(short.violation == .truncated(.reject))
        let stale = SessionRig()
        var header = [UInt8](repeating: 0, count: 48)
        header[0] = PDUOpcode.scsiCommand.rawValue
        stale.send(.reject(.protocolError, numbers: stale.nextNumbers()), header)
        #expect(stale.violation == .unknownTask(.reject, tag: 0))
    }

    // MARK: task management, text, logout

    @Test func abortTaskNamesItsCommandAndEndsIt() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        rig.submit(.none, token: 2)
        let sent = rig.sent()
        #expect(rig.taskManagement(.abortTask, referencing: 2, token: 50))
        #expect(!rig.taskManagement(.abortTask, referencing: 77, token: 51), "no such command")
        let request = rig.sent()[0].header
        #expect(request.isImmediate && request.cmdSN == 102 && request.refCmdSN == 101)
        #expect(request.referencedTaskTag == sent[1].header.initiatorTaskTag && request.lun == lun)
        rig.send(.taskManagementResponse(.functionComplete, tag: request.initiatorTaskTag, numbers: rig.nextNumbers()))
        #expect(rig.completions.map(\.token) == [2])
        #expect(rig.completions[0].outcome == .aborted(byTaskManagement: 50))
        #expect(rig.events == [.taskManagementCompleted(token: 50, .functionComplete)])
        #expect(rig.taskManagement(.abortTask, referencing: 1, token: 52))
        rig.send(.taskManagementResponse(.taskDoesNotExist, tag: rig.sent()[0].header.initiatorTaskTag, numbers: rig.nextNumbers()))
        #expect(rig.completions.count == 1, "the command may still be answered")
        #expect(rig.session.outstandingCommandCount == 1)
        rig.session.endUnanswered(1, at: rig.now)
        rig.drain()
        #expect(rig.completions.last?.outcome == .aborted(byTaskManagement: 1))
        #expect(rig.session.outstandingCommandCount == 0)
        rig.session.endUnanswered(1, at: rig.now)
        rig.drain()
        #expect(rig.completions.count == 2)
    }

    @Test func resetsEndOnlyWhatWasIssuedBeforeAndOnTheirUnit() {
        for (function, ended) in [(TaskManagementFunction.logicalUnitReset, [1, 3]), (.targetWarmReset, [1, 2, 3]), (.clearACA, [])] {
            let rig = SessionRig()
            rig.submit(.none, token: 1)
            var other = rig.request(.none, token: 2)
            other.lun = LogicalUnitNumber(index: 9)!
            _ = rig.session.submit(other, on: .leading, at: rig.now)
            rig.submit(.none, token: 3)
            #expect(rig.taskManagement(function, token: 60))
            rig.submit(.none, token: 4)
            let request = rig.sent().first { $0.opcode == .taskManagementRequest }!
            rig.send(.taskManagementResponse(.functionComplete, tag: request.header.initiatorTaskTag, numbers: rig.nextNumbers()))
            #expect(rig.completions.map { Int($0.token) } == ended)
        }
    }

    @Test func textExchangesWithoutEndAreCutOff() {
        let empty = SessionRig()
        #expect(empty.sendText([TextPair("X-a", "1")], token: 1))
        for _ in 0..<100 where empty.failure == nil {
            let request = empty.sent()[0].header
            empty.send(.textResponse([], tag: request.initiatorTaskTag, targetTransferTag: 5, numbers: empty.nextNumbers()))
        }
        #expect(empty.violation == .textTooLong)

        let long = SessionRig()
        #expect(long.sendText([TextPair("X-a", "1")], token: 1))
        let piece = [UInt8](repeating: 0x41, count: 200_000)
        for _ in 0..<100 where long.failure == nil {
            let request = long.sent()[0].header
            long.send(.textResponse(.continues, tag: request.initiatorTaskTag, targetTransferTag: 5, dataByteCount: piece.count, numbers: long.nextNumbers()), piece)
        }
        #expect(long.violation == .textTooLong)

        for (flags, transferTag) in [(TextFlags([.final, .continues]), reserved), (.final, 5), (.continues, reserved)] {
            let rig = SessionRig()
            #expect(rig.sendText([TextPair("X-a", "1")], token: 1))
            let tag = rig.sent()[0].header.initiatorTaskTag
            rig.send(.textResponse(flags, tag: tag, targetTransferTag: transferTag, numbers: rig.nextNumbers()))
            #expect(rig.violation == .textContinuation)
        }
    }

    @Test func theEndAnswersEveryRequestUnderWay() {
        let rig = SessionRig()
        #expect(rig.sendText([TextPair("X-a", "1")], token: 8))
        #expect(rig.taskManagement(.logicalUnitReset, token: 9))
        rig.submit(.none, token: 10)
        rig.session.connectionClosed(.leading, reason: .endOfStream, at: rig.now)
        rig.drain()
        #expect(rig.events == [
            .text(token: 8, .abandoned), .commandAbandoned(token: 10, wasSent: false), .taskManagementAbandoned(token: 9),
            .sessionFailed(.endOfStream),
        ])
    }

    @Test func logoutEndsTheSessionAndAFailedOneFailsIt() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        _ = rig.sent()
        rig.logOut()
        #expect(rig.session.state == .loggingOut)
        #expect(rig.submit(.none, token: 2).isNotLoggedIn)
        let request = rig.sent()[0].header
        #expect(request.logoutReason == .closeSession)
        rig.send(.nopIn(targetTransferTag: 4, numbers: rig.numbers))
        #expect(rig.sent().isEmpty)
        rig.send(.logoutResponse(.closed, tag: request.initiatorTaskTag, numbers: rig.nextNumbers()))
        #expect(rig.events == [.commandAbandoned(token: 1, wasSent: true), .loggedOut])
        #expect(rig.session.state == .loggedOut)
        rig.session.connectionClosed(.leading, reason: .endOfStream, at: rig.now)
        #expect(rig.session.state == .loggedOut)

        let refused = SessionRig()
        refused.logOut()
        refused.send(.logoutResponse(.cleanupFailed, tag: refused.sent()[0].header.initiatorTaskTag, numbers: refused.nextNumbers()))
        #expect(refused.failure == .logoutRefused(.cleanupFailed))

        let silent = SessionRig()
        silent.logOut()
        silent.pass(.seconds(5))
        #expect(silent.failure == .logoutUnanswered)
    }
}

extension SessionRig {
    var needsToSend: Bool { session.needsToSend(.leading) }
    func ping() -> Bool { session.ping(on: .leading, at: now) }
    func logOut() { session.beginLogout(at: now) }
    func sendText(_ pairs: [TextPair], token: UInt64) -> Bool { session.sendText(pairs, token: token, at: now) }
    func taskManagement(_ function: TaskManagementFunction, referencing referenced: UInt64? = nil, token: UInt64) -> Bool {
        session.submitTaskManagement(
            function, lun: LogicalUnitNumber(index: 3)!, referencing: referenced, token: token, on: .leading, at: now)
    }
}
