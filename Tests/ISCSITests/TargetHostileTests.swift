import SCSI
import Testing
import Timebase

@testable import ISCSI

@Suite struct TargetHostileTests {
    /// Whatever comes after a login, nothing traps, and when it is over no buffer is missing.
    @Test(arguments: 0..<40) func mangledRequestsNeitherTrapNorLeak(seed: Int) {
        var random = WireRandom(seed: UInt64(seed))
        let bench = TargetBench(
            {
                $0.queueDepth = 8
                $0.operational.firstBurstByteCount = 4096
                $0.operational.maxBurstByteCount = 8192
            }, poolByteCount: 1 << 20)
        for _ in 0..<10 {
            let client = bench.client()
            client.logIn(isid: .random(UInt32.random(in: 0..<2, using: &random), qualifier: 1))
            for _ in 0..<60 where client.connection.endReason == nil {
                step(client, &random)
                answer(client, &random)
            }
            _ = client.receive(atATime: 1 + Int.random(in: 0..<5000, using: &random))
            if Bool.random(using: &random) { client.connection.peerClosed() }
            bench.drainEvents()
        }
        for session in bench.service.sessions { bench.service.end(session, .dropped) }
        #expect(bench.service.pool.lentByteCount <= 0)
    }

    private func step(_ client: BenchClient, _ random: inout WireRandom) {
        let tag = UInt32.random(in: 0..<12, using: &random)
        let count = Int.random(in: 0..<3000, using: &random)
        switch Int.random(in: 0..<12, using: &random) {
        case 0...3:
            client.command(
                tag: tag, flags: SCSICommandFlags(rawValue: UInt8.random(in: 0...255, using: &random) | 0x20),
                expected: Int.random(in: 0..<20_000, using: &random),
                data: Bool.random(using: &random) ? random.bytes(min(count, 500)) : [])
        case 4: client.command(tag: tag, flags: [.final, .read], expected: count)
        case 5...7:
            let slot = Int.random(in: 0..<client.session.capacity, using: &random)
            let task = slot < client.session.usedCapacity ? client.session.tasks[slot] : TargetTask()
            let transfer = Int.random(in: 0..<8, using: &random)
            let isReal = task.state == .receiving && task.transfers[transfer].isActive && Bool.random(using: &random)
            client.dataOut(
                tag: isReal ? task.initiatorTaskTag : tag,
                ttt: isReal
                    ? UInt32(task.generation & 0x7FF) << 20 | UInt32(slot) << 4 | UInt32(transfer)
                    : Bool.random(using: &random) ? BasicHeaderSegment.reservedTag : UInt32.random(in: 0...(.max), using: &random),
                sn: isReal ? task.transfers[transfer].nextDataSN : 0,
                offset: isReal ? Int(task.transfers[transfer].offset + task.transfers[transfer].received) : count,
                random.bytes(min(count, 700)), isFinal: Bool.random(using: &random))
        case 8:
            client.send(
                .taskManagementRequest(
                    TaskManagementFunction.allCases.randomElement(using: &random)!, lun: LogicalUnitNumber(index: 0)!,
                    tag: tag, referencedTaskTag: tag, cmdSN: client.cmdSN, expStatSN: 0))
        case 9:
            client.send(
                .textRequest(
                    TextFlags(rawValue: UInt8.random(in: 0...255, using: &random)), tag: tag,
                    targetTransferTag: Bool.random(using: &random) ? 1 : BasicHeaderSegment.reservedTag, cmdSN: client.cmdSN,
                    expStatSN: 0, dataByteCount: min(count, 300), isImmediate: true), random.bytes(min(count, 300)))
        case 10:
            // A header of nothing but noise, the lengths kept small so that the stream goes on.
            var header = BasicHeaderSegment()
            for offset in 0..<48 { header[byte: offset] = UInt8.random(in: 0...255, using: &random) }
            header.totalAHSByteCount = 0
            client.send(header, random.bytes(min(count, 100)))
        default: client.send(.nopOut(tag: tag, dataByteCount: count, cmdSN: client.cmdSN, expStatSN: 0), random.bytes(count))
        }
    }

    private func answer(_ client: BenchClient, _ random: inout WireRandom) {
        guard client.connection.session != nil else { return }
        while let action = client.session.nextAction() {
            switch action {
            case .command(let slot):
                guard !client.session.isEnded else { continue }
                if Bool.random(using: &random), let buffer = client.bench.service.pool.allocate(byteCount: 2000) {
                    client.session.complete(
                        slot, status: .good, data: UnsafeRawBufferPointer(start: buffer.base, count: 2000), buffer: buffer)
                } else {
                    client.session.complete(slot, status: .busy)
                }
            case .management(let request): client.session.finishManagement(request.token, response: .functionComplete)
            }
        }
        if Bool.random(using: &random) { _ = client.receive() }
    }

    @Test func aPeerThatOnlyAsksIsCutOffInTheEnd() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        for tag: UInt32 in 0..<100_000 where client.connection.endReason == nil {
            client.send(.nopOut(tag: tag, cmdSN: client.cmdSN, expStatSN: 0))
        }
        #expect(client.connection.endReason == .overflow)
        #expect(client.connection.isCongested)
    }

    @Test func absurdLengthsEndTheConnection() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        var header = BasicHeaderSegment.nopOut(tag: 1, cmdSN: client.cmdSN, expStatSN: 0)
        header.dataSegmentByteCount = 0xFF_FFFF
        withUnsafeBytes(of: header) { client.send(bytes: Array($0)) }
        guard case .protocolError(.dataSegmentTooLong) = client.connection.endReason else {
            Issue.record("the connection lives")
            return
        }
    }
}

@Suite struct TargetTableTests {
    @Test func tagsAreFoundAfterAnyMixOfInsertionsAndRemovals() {
        var random = WireRandom(seed: 3)
        var table = TargetTagTable(capacity: 64)
        var model: [UInt32: Int] = [:]
        for round in 0..<20_000 {
            let tag = UInt32.random(in: 0..<200, using: &random) &* 0x1000_0001
            if model[tag] != nil {
                table.remove(tag)
                model[tag] = nil
            } else if model.count < 64 {
                table.insert(tag, slot: round % 64)
                model[tag] = round % 64
            }
            let probe = UInt32.random(in: 0..<200, using: &random) &* 0x1000_0001
            #expect(table.find(probe) == model[probe])
        }
    }

    @Test func outputKeepsItsOrderAroundTheRingsEnd() {
        let pool = TargetBufferPool(limitByteCount: 1 << 20)
        var output = TargetOutput(pool: pool)
        var random = WireRandom(seed: 4)
        var expected: [UInt8] = []
        var got: [UInt8] = []
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 7)
        defer { segments.deallocate() }
        for _ in 0..<30_000 {
            if Bool.random(using: &random), output.hasRoom {
                let bytes = random.bytes(Int.random(in: 1...600, using: &random))
                if Int.random(in: 0..<4, using: &random) == 0 {
                    let buffer = pool.allocate(byteCount: bytes.count)!
                    buffer.base!.copyMemory(from: bytes, byteCount: bytes.count)
                    output.appendData(UnsafeRawBufferPointer(start: buffer.base, count: bytes.count), buffer: buffer)
                } else {
                    output.reserve(bytes.count)!.copyMemory(from: bytes, byteCount: bytes.count)
                }
                expected += bytes
            }
            let count = output.segments(into: segments)
            let named = segments[..<count].flatMap { Array($0) }
            let taken = Int.random(in: 0...min(named.count, 900), using: &random)
            got += named[..<taken]
            output.sent(taken)
            #expect(output.byteCount == expected.count - got.count)
        }
        #expect(got == Array(expected.prefix(got.count)))
        #expect(got.count > 2 * TargetOutput.ringByteCount, "the ring's end was passed")
    }
}
