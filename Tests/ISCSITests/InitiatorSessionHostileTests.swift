import SCSI
import Testing
import Timebase

@testable import ISCSI

/// A target that means ill: whatever it sends, nothing traps, no byte lands outside a command's
/// buffer, and every command ends exactly once.
@Suite struct InitiatorSessionHostileTests {
    private static let opcodes: [PDUOpcode] = [
        .nopIn, .scsiResponse, .taskManagementResponse, .textResponse, .dataIn, .logoutResponse, .readyToTransfer,
        .asyncMessage, .reject, .loginResponse, .scsiCommand, PDUOpcode(rawValue: 0x3D),
    ]

    /// What a target knows of one request of the session.
    private struct OpenTask {
        var header: BasicHeaderSegment
        var dataSN: UInt32 = 0
        var offset: UInt32 = 0
    }

    /// One run: commands, answered by PDUs that are right but for one now and then.
    private func attack(seed: UInt64, corrupts: Bool) -> Int {
        var generator = SeededGenerator(seed: seed)
        var parameters = SessionRig.defaults()
        parameters.initialR2T = Bool.random(using: &generator)
        parameters.maxOutstandingR2T = Int.random(in: 1...4, using: &generator)
        if !corrupts { parameters.maxOutstandingR2T = 4 }
        parameters.maxSendDataSegmentByteCount = 1024
        parameters.headerDigest = seed % 5 == 0 ? .crc32c : .none
        parameters.dataDigest = seed % 7 == 0 ? .crc32c : .none
        let rig = SessionRig(parameters, window: 1000, capacity: 16)
        rig.chunk = seed % 3 == 0 ? Int.random(in: 1...200, using: &generator) : nil
        rig.usesDirectWindow = Bool.random(using: &generator)
        let guarded = 256
        let memories = (0..<4).map { _ in UnsafeMutableRawBufferPointer.allocate(byteCount: 8192 + 2 * guarded, alignment: 16) }
        defer { for memory in memories { memory.deallocate() } }
        for memory in memories { memory.initializeMemory(as: UInt8.self, repeating: 0x5A) }

        var accepted: [UInt64] = []
        var open: [OpenTask] = []
        var token: UInt64 = 0
        for _ in 0..<150 where rig.failure == nil {
            switch Int.random(in: 0..<12, using: &generator) {
            case 0..<4:
                let direction: DataDirection = [.none, .read, .write].randomElement(using: &generator)!
                // What is being written must not change meanwhile.
                let memory = memories[Int(token % 2) + (direction == .read ? 0 : 2)]
                let part = UnsafeMutableRawBufferPointer(rebasing: memory[guarded..<(guarded + 8192)])
                if rig.submit(direction, token: token, memory: direction == .none ? nil : part).isAccepted { accepted.append(token) }
                token += 1
            case 4:
                _ = rig.taskManagement([.logicalUnitReset, .abortTaskSet].randomElement(using: &generator)!, token: 1000 + token)
            case 5:
                _ = Bool.random(using: &generator) ? rig.ping() : rig.sendText([TextPair("X-a", "1")], token: 2000 + token)
            case 6:
                rig.pass(.milliseconds(Int.random(in: 0...1500, using: &generator)), transport: .idle)
            default:
                // Sometimes the target answers while more is queued than it has seen.
                if Int.random(in: 0..<4, using: &generator) > 0 {
                    for pdu in rig.sent() where pdu.opcode != .dataOut { open.append(OpenTask(header: pdu.header)) }
                }
                sendSomething(rig, &open, corrupts: corrupts, using: &generator)
            }
        }
        if !corrupts { #expect(rig.failure == nil, "seed \(seed)") }
        rig.session.connectionClosed(.leading, reason: .endOfStream, at: rig.now)
        rig.drain()

        var ended = rig.completions.map(\.token)
        for case .commandAbandoned(let token, _) in rig.events { ended.append(token) }
        #expect(ended.sorted() == accepted, "seed \(seed)")
        for completion in rig.completions { #expect((0...8192).contains(completion.transferredByteCount)) }
        for memory in memories {
            #expect(memory[..<guarded].allSatisfy { $0 == 0x5A } && memory[(guarded + 8192)...].allSatisfy { $0 == 0x5A })
        }
        #expect(rig.session.table.commandCount == 0 && rig.session.table.controlCount == 0)
        let failures = rig.events.filter { if case .sessionFailed = $0 { true } else { false } }
        #expect(failures.count == 1 && rig.events.last == failures.first)
        return rig.completions.count
    }

    private func sendSomething(_ rig: SessionRig, _ open: inout [OpenTask], corrupts: Bool, using generator: inout SeededGenerator) {
        var header: BasicHeaderSegment
        var data: [UInt8] = []
        if let index = open.indices.randomElement(using: &generator), Int.random(in: 0..<12, using: &generator) > 0 {
            (header, data) = answer(&open, index, rig, using: &generator)
        } else {
            header = .nopIn(targetTransferTag: 4, numbers: rig.numbers)
        }
        switch corrupts ? Int.random(in: 0..<40, using: &generator) : 40 {
        case 0:
            // One field of a right PDU is wrong.
            let value: UInt32 = [0, 1, 2, 512, 8192, 0x7FFF_FFFF, .max, .random(in: 0 ... .max, using: &generator)].randomElement(using: &generator)!
            header[word32: [16, 20, 24, 28, 32, 36, 40, 44].randomElement(using: &generator)!] = value
        case 1:
            header.flags = .random(in: 0 ... .max, using: &generator)
        case 2:
            header[byte: 0] = Self.opcodes.randomElement(using: &generator)!.rawValue
        case 3:
            data = (0..<Int.random(in: 0...9000, using: &generator)).map { _ in 0xEE }
        case 4:
            rig.end.outgoing = (0..<200).map { _ in UInt8.random(in: 0...255, using: &generator) }
        default: break
        }
        rig.send(header, data)
        rig.end.statSN = rig.session.connections[0].expStatSN
    }

    /// A right answer to an open request, or one step towards it.
    private func answer(
        _ open: inout [OpenTask], _ index: Int, _ rig: SessionRig, using generator: inout SeededGenerator
    ) -> (BasicHeaderSegment, [UInt8]) {
        let task = open[index]
        let tag = task.header.initiatorTaskTag
        rig.expCmdSN = rig.session.cmdSN
        rig.maxCmdSN = rig.expCmdSN &+ UInt32.random(in: 0...20, using: &generator)
        switch task.header.opcode {
        case .scsiCommand where task.header.commandFlags.contains(.read) && Int.random(in: 0..<4, using: &generator) > 0 && task.offset < 8192:
            let count = min(Int([4, 511, 4096, 8192].randomElement(using: &generator)!), Int(8192 - task.offset))
            open[index].dataSN += 1
            open[index].offset += UInt32(count)
            if Bool.random(using: &generator) {
                open.remove(at: index)
                return (.dataIn(tag: tag, status: .good, dataSN: task.dataSN, bufferOffset: task.offset, byteCount: count, numbers: rig.numbers),
                    [UInt8](repeating: 0xEE, count: count))
            }
            return (.dataIn(tag: tag, flags: [], dataSN: task.dataSN, bufferOffset: task.offset, byteCount: count, numbers: rig.numbers),
                [UInt8](repeating: 0xEE, count: count))
        case .scsiCommand where task.header.commandFlags.contains(.write) && rig.parameters.initialR2T && task.dataSN < 3 && Int.random(in: 0..<4, using: &generator) > 0:
            open[index].dataSN += 1
            // The first 8192 bytes may have gone as immediate data: nothing may be asked for then.
            return (.readyToTransfer(
                lun: task.header.lun, tag: tag, targetTransferTag: task.dataSN, r2tSN: task.dataSN,
                bufferOffset: UInt32(task.header.dataSegmentByteCount) + task.dataSN * 1024, desiredDataTransferByteCount: 1024,
                numbers: rig.numbers), [])
        case .scsiCommand:
            open.remove(at: index)
            switch Int.random(in: 0..<5, using: &generator) {
            case 0:
                var rejected = [UInt8](repeating: 0, count: 48)
                rejected.withUnsafeMutableBytes { task.header.store(to: $0.baseAddress!) }
                if Bool.random(using: &generator) { rig.expCmdSN = task.header.cmdSN }
                return (.reject(.invalidPDUField, numbers: rig.numbers), rejected)
            case 1:
                return (.scsiResponse(tag: tag, status: .checkCondition, residual: .underflow(8192), dataByteCount: 20, numbers: rig.numbers),
                    [0, 18, 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0])
            default:
                return (.scsiResponse(tag: tag, status: .good, numbers: rig.numbers), [])
            }
        case .taskManagementRequest:
            open.remove(at: index)
            let response: TaskManagementResponse = Bool.random(using: &generator) ? .functionComplete : .notSupported
            if response == .functionComplete { open.removeAll { $0.header.opcode == .scsiCommand && SerialNumber.isBefore($0.header.cmdSN, task.header.cmdSN) } }
            return (.taskManagementResponse(response, tag: tag, numbers: rig.numbers), [])
        case .textRequest:
            open.remove(at: index)
            if Bool.random(using: &generator) {
                return (.textResponse(.continues, tag: tag, targetTransferTag: 3, numbers: rig.numbers), Array("X-a=".utf8))
            }
            return (.textResponse(.final, tag: tag, numbers: rig.numbers), Array("X-a=1\0".utf8))
        case .nopOut where tag != BasicHeaderSegment.reservedTag:
            open.remove(at: index)
            return (.nopIn(tag: tag, numbers: rig.numbers), [])
        default:
            open.remove(at: index)
            return (.asyncMessage(.vendorSpecific(code: 1), numbers: rig.numbers), [])
        }
    }

    @Test func seededHostilePDUsEndEveryCommandOnceAndTouchNothingElse() {
        var completions = 0
        for seed in 0..<600 { completions += attack(seed: UInt64(seed), corrupts: true) }
        #expect(completions > 600 * 4, "the attacks must get past the first PDUs")
    }

    @Test func theSameAnswersUncorruptedNeverFailTheSession() {
        var completions = 0
        for seed in 0..<200 { completions += attack(seed: UInt64(seed), corrupts: false) }
        #expect(completions > 200 * 20)
    }

    @Test func r2tStormsAreCutOffWithinTheTables() {
        var parameters = SessionRig.defaults()
        parameters.initialR2T = true
        parameters.immediateData = false
        parameters.maxOutstandingR2T = 4
        let rig = SessionRig(parameters, capacity: 8)
        let memory = UnsafeMutableRawBufferPointer.filled(100_000)
        defer { memory.deallocate() }
        for token in 0..<8 { rig.submit(.write, token: UInt64(token), memory: memory) }
        let tags = rig.sent().map(\.header.initiatorTaskTag)
        for round in 0..<4 {
            for tag in tags {
                rig.send(.readyToTransfer(
                    lun: LogicalUnitNumber(index: 3)!, tag: tag, targetTransferTag: UInt32(round), r2tSN: UInt32(round),
                    bufferOffset: UInt32(round * 16), desiredDataTransferByteCount: 16, numbers: rig.numbers))
            }
        }
        #expect(rig.failure == nil)
        rig.send(.readyToTransfer(
            lun: LogicalUnitNumber(index: 3)!, tag: tags[5], targetTransferTag: 9, r2tSN: 4, bufferOffset: 64,
            desiredDataTransferByteCount: 16, numbers: rig.numbers))
        #expect(rig.violation == .tooManyR2Ts(limit: 4))
    }

    @Test func aTargetThatTakesNothingPushesBackOnSubmission() {
        let rig = SessionRig(window: 30_000, capacity: 16_384)
        let memory = UnsafeMutableRawBufferPointer.filled(64)
        defer { memory.deallocate() }
        var accepted = 0
        while rig.submit(.write, token: UInt64(accepted), memory: memory).isAccepted { accepted += 1 }
        #expect(accepted > 1000 && accepted <= 16_384)
        #expect(rig.ping(), "control PDUs have room of their own")
        let sent = rig.sent()
        #expect(sent.count == accepted + 1)
        #expect(sent.dropLast().enumerated().allSatisfy { $0.element.header.cmdSN == 100 &+ UInt32($0.offset) })
    }
}
