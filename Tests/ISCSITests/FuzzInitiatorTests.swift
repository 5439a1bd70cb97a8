import SCSI
import Testing
import Timebase

@testable import ISCSI

/// What fuzzing found in the initiator's session.
@Suite struct FuzzInitiatorTests {
    /// What the target sees of each write's data, by token.
    private func dataSeen(_ sent: [SentPDU]) -> [UInt64: [UInt8]] {
        var tokens: [UInt32: UInt64] = [:]
        var data: [UInt64: [UInt8]] = [:]
        for pdu in sent where pdu.opcode == .scsiCommand {
            tokens[pdu.header.initiatorTaskTag] = pdu.header.cdb.field(at: 2, width: 8)
            data[pdu.header.cdb.field(at: 2, width: 8)] = pdu.data
        }
        for pdu in sent where pdu.opcode == .dataOut {
            if let token = tokens[pdu.header.initiatorTaskTag] { data[token]! += pdu.data }
        }
        return data
    }

    @Test func detachingAWriteLeavesThoseFromOverlappingMemoryWhole() {
        let rig = SessionRig()
        let memory = UnsafeMutableRawBufferPointer.filled(8192)
        defer { memory.deallocate() }
        let first = UnsafeMutableRawBufferPointer(rebasing: memory[..<5000])
        let second = UnsafeMutableRawBufferPointer(rebasing: memory[4000...])
        rig.submit(.write, token: 1, memory: first, offset: 1)
        // It begins inside the first one's memory and ends behind it.
        rig.submit(.write, token: 2, memory: second, offset: 2)
        rig.session.detach(1)
        let seen = dataSeen(rig.sent())
        #expect(seen[1] == Array(first))
        #expect(seen[2] == Array(second))
    }

    @Test func aDetachedWritesCopyLivesUntilOtherWritesFromTheSameMemoryHaveLeft() throws {
        let rig = SessionRig()
        let memory = UnsafeMutableRawBufferPointer.filled(4096)
        defer { memory.deallocate() }
        let original = Array(memory)
        rig.submit(.write, token: 1, memory: memory, offset: 1)
        rig.submit(.write, token: 2, memory: memory, offset: 2)
        rig.session.detach(1)
        // The first command leaves whole, the second's PDU stays queued, and the target ends the first.
        rig.chunk = 48 + 4096
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 4)
        defer { segments.deallocate() }
        let count = rig.session.output(.leading, into: segments)
        try #require(count >= 2)
        let tag = segments[0].loadUnaligned(fromByteOffset: 16, as: UInt32.self).bigEndian
        rig.session.outputSent(.leading, byteCount: 48 + 4096)
        rig.send(.scsiResponse(tag: tag, status: .good, numbers: rig.nextNumbers()))
        #expect(rig.completions.isEmpty, "its copy still feeds the second write")
        rig.chunk = nil
        let seen = dataSeen(rig.sent())
        #expect(seen[2] == original)
        #expect(rig.completions.map(\.token) == [1])
    }

    /// 20,000 pieces of one byte: each was copied behind all before it.
    @Test func aTextThatComesByteByByteIsPutTogetherInLinearTime() {
        let rig = SessionRig()
        #expect(rig.sendText([TextPair("X-a", "?")], token: 5))
        let tag = rig.sent()[0].header.initiatorTaskTag
        let text = Array(("X-b=" + String(repeating: "b", count: 200) + "\0").utf8)
        let pieces = 20_000
        let clock = ContinuousClock()
        let start = clock.now
        for index in 0..<pieces {
            let isLast = index == pieces - 1
            rig.end.put(
                .textResponse(
                    isLast ? .final : .continues, tag: tag,
                    targetTransferTag: isLast ? BasicHeaderSegment.reservedTag : 3, numbers: rig.nextNumbers()),
                [isLast ? 0 : text[index % text.count]])
            if index % 50 == 49 || isLast {
                rig.deliver()
                _ = rig.sent()
            }
        }
        #expect(rig.failure == nil)
        #expect(rig.events.contains { if case .text(token: 5, .answered(let pairs)) = $0 { pairs.count >= 90 } else { false } })
        #expect(clock.now - start < .seconds(20))
    }
}
