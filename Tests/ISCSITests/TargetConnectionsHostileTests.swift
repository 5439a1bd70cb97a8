import SCSI
import Testing
import Timebase

@testable import ISCSI

/// Several connections of one session, byte by byte and badly treated.
@Suite struct TargetConnectionsHostileTests {
    /// Writes on four connections at once, each drip-fed: what is executed is whole, and had its turn.
    @Test(arguments: 0..<20) func dripFedWritesOnAllConnectionsAreExecutedOnceAndWhole(seed: Int) {
        var random = WireRandom(seed: UInt64(seed))
        let (bench, clients) = severalConnections(4, level: seed % 3, { $0.queueDepth = 16 })
        let session = clients[0].session
        var queues: [[UInt8]] = Array(repeating: [], count: 4)
        var next = clients[0].cmdSN
        let first = next
        var contents: [UInt32: [UInt8]] = [:]
        var executed: [UInt32] = []
        var rounds = 0
        while executed.count < 80, rounds < 200_000 {
            rounds += 1
            let index = Int.random(in: 0..<4, using: &random)
            if queues[index].count < 1000, SerialNumber.isAtMost(next, session.windowNumbers().maxCmdSN), next &- first < 90 {
                let tag = next &- first
                let data = random.bytes(Int.random(in: 1...3000, using: &random))
                contents[tag] = data
                let immediate = Int.random(in: 0...data.count, using: &random)
                queues[index] +=
                    PDU(
                        header: .scsiCommand(
                            CommandDescriptorBlock(operationCode: 0x2A), lun: LogicalUnitNumber(index: 0)!, tag: tag,
                            flags: immediate < data.count ? [.write] : [.final, .write],
                            expectedDataTransferByteCount: UInt32(data.count), immediateDataByteCount: immediate, cmdSN: next, expStatSN: 0),
                        data: Array(data[..<immediate])
                    ).encoded()
                if immediate < data.count {
                    queues[index] +=
                        PDU(
                            header: .dataOut(
                                lun: LogicalUnitNumber(index: 0)!, tag: tag, isFinal: true, dataSN: 0, bufferOffset: UInt32(immediate),
                                byteCount: data.count - immediate, expStatSN: 0),
                            data: Array(data[immediate...])
                        ).encoded()
                }
                next &+= 1
            }
            let count = min(queues[index].count, Int.random(in: 1...200, using: &random))
            if count > 0 {
                clients[index].send(bytes: Array(queues[index].prefix(count)))
                queues[index].removeFirst(count)
            }
            for slot in clients[0].readyCommands() {
                let tag = session.tasks[slot].initiatorTaskTag
                executed.append(tag)
                let isWhole = Array(session.dataOut(slot)) == contents[tag]
                #expect(isWhole, "write \(tag)")
                session.complete(slot, status: .good, dataOutByteCount: contents[tag]!.count)
            }
            for (index, client) in clients.enumerated() {
                for pdu in client.receive() {
                    #expect(pdu.header.status == .good)
                    queues[index] += PDU(header: .nopOut(cmdSN: next, expStatSN: pdu.header.statSN &+ 1)).encoded()
                }
            }
        }
        // Turns are taken by CmdSN; one that then still waits for its data is overtaken.
        #expect(Set(executed).count == executed.count)
        #expect(executed.count >= 80)
        #expect(executed.allSatisfy { SerialNumber.isBefore(first &+ $0, session.expCmdSN) })
        for client in clients { client.connection.peerClosed() }
        for session in bench.service.sessions { bench.service.end(session, .dropped) }
        #expect(bench.service.pool.lentByteCount == 0)
    }

    /// Absurd SNACKs, storms of reassignments, games with CmdSN, connections that come and go.
    @Test(arguments: 0..<60) func hostileRequestsOnSeveralConnectionsNeitherTrapNorLeak(seed: Int) {
        var random = WireRandom(seed: UInt64(seed) &+ 1000)
        let level = seed % 3
        let (bench, first) = severalConnections(3, level: level, poolByteCount: 1 << 20) {
            $0.queueDepth = 8
            $0.retainedByteLimit = 1 << 16
            $0.operational.maxBurstByteCount = 8192
            $0.operational.firstBurstByteCount = 4096
            if seed % 2 == 0 { $0.connectionLoss = .endSession(after: .seconds(1)) }
        }
        var clients = first
        let session = clients[0].session
        var executing: [Int] = []
        func drain() {
            while let action = session.nextAction() {
                switch action {
                case .command(let slot): executing.append(slot)
                case .management(let request): session.finishManagement(request.token, response: .functionComplete)
                }
            }
            if session.isEnded {
                for slot in executing { session.aborted(slot) }
                executing = []
            }
        }
        for _ in 0..<400 where !session.isEnded {
            let index = Int.random(in: 0..<clients.count, using: &random)
            let client = clients[index]
            if client.connection.endReason != nil {
                let (other, action) = clients.first { $0.connection.endReason == nil }?.join(cid: UInt16(index)) ?? client.rejoin(session, cid: UInt16(index))
                if case .finished = action { clients[index] = other }
                bench.now = bench.now + .milliseconds(100)
                continue
            }
            hostileStep(client, session, &random)
            drain()
            if !executing.isEmpty, Bool.random(using: &random) {
                let slot = executing.remove(at: Int.random(in: 0..<executing.count, using: &random))
                let count = Int.random(in: 0...20_000, using: &random)
                if let buffer = bench.service.pool.allocate(byteCount: count) {
                    session.complete(slot, status: .good, data: UnsafeRawBufferPointer(start: buffer.base, count: count), buffer: buffer)
                } else {
                    session.complete(slot, status: .busy)
                }
            }
            if Bool.random(using: &random) { _ = client.receive(atATime: 1 + Int.random(in: 0..<5000, using: &random)) }
            if bench.service.hasAlarms { _ = bench.service.nextDeadline(at: bench.now) }
            if Int.random(in: 0..<60, using: &random) == 0 {
                bench.now = bench.now + .milliseconds(500)
                bench.service.timerFired(at: bench.now)
            }
            #expect(bench.service.retainedByteCount <= 1 << 16)
            #expect(session.lostConnectionCount <= 8)
        }
        for session in bench.service.sessions { bench.service.end(session, .dropped) }
        drain()
        #expect(session.executingCount == 0)
        #expect(bench.service.retainedByteCount == 0)
        // Queues of the connections give back what they name with themselves.
        clients = []
        _ = first
    }

    private func hostileStep(_ client: BenchClient, _ session: TargetSession, _ random: inout WireRandom) {
        let tag = UInt32.random(in: 0..<16, using: &random)
        let lun = LogicalUnitNumber(index: 0)!
        func number(_ base: UInt32) -> UInt32 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0: UInt32.random(in: 0...(.max), using: &random)
            case 1: 0
            default: base &+ UInt32.random(in: 0..<8, using: &random) &- 4
            }
        }
        let cmdSN = session.expCmdSN
        switch Int.random(in: 0..<14, using: &random) {
        case 0...3:
            client.command(
                tag: tag, flags: Bool.random(using: &random) ? [.final, .read] : [.final, .write],
                expected: Int.random(in: 0..<20_000, using: &random), cmdSN: cmdSN &+ UInt32.random(in: 0..<4, using: &random))
        case 4: client.command(tag: tag, flags: [.final, .read], expected: 100, cmdSN: number(cmdSN), isImmediate: Bool.random(using: &random))
        case 5...7:
            client.send(
                .snack(
                    SNACKType.allCases.randomElement(using: &random)!, lun: lun, tag: tag,
                    targetTransferTag: UInt32.random(in: 0..<2000, using: &random), begRun: number(client.connection.statSN),
                    runLength: number(3), expStatSN: number(client.connection.statSN)))
        case 8, 9:
            client.send(
                .taskManagementRequest(
                    Bool.random(using: &random) ? .taskReassign : TaskManagementFunction.allCases.randomElement(using: &random)!, lun: lun,
                    tag: 500, referencedTaskTag: tag, refCmdSN: number(cmdSN), expDataSN: number(2), cmdSN: number(cmdSN), expStatSN: 0,
                    isImmediate: Bool.random(using: &random)))
        case 10:
            client.dataOut(tag: tag, ttt: UInt32.random(in: 0...(.max), using: &random), sn: 0, offset: 0, pattern(100), isFinal: Bool.random(using: &random))
        case 11:
            client.send(
                .nopOut(tag: tag, dataByteCount: 500, cmdSN: number(cmdSN), expStatSN: number(client.connection.statSN), isImmediate: false),
                pattern(500))
        case 12:
            guard Int.random(in: 0..<4, using: &random) == 0 else { return }
            client.send(
                .logoutRequest(
                    Bool.random(using: &random) ? .removeConnectionForRecovery : .closeConnection,
                    connectionID: UInt16.random(in: 0..<5, using: &random), tag: 600, cmdSN: cmdSN, expStatSN: 0))
        default: if Int.random(in: 0..<3, using: &random) == 0 { client.connection.peerClosed() }
        }
        client.bench.drainEvents()
    }
}

extension BenchClient {
    /// A login to a session that has no connection at the moment.
    func rejoin(_ session: TargetSession, cid: UInt16) -> (client: BenchClient, action: LoginAction) {
        let other = bench.client()
        other.cmdSN = session.expCmdSN
        let action = other.logIn(isid: session.identity.isid) {
            $0.tsih = session.tsih
            $0.connectionID = cid
            $0.sessionParameters = session.parameters
        }
        return (other, action)
    }
}
