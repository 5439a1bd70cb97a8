import SCSI
import Testing
import Timebase

@testable import ISCSI

/// Level 1: within a connection.
@Suite struct TargetRecoveryTests {
    private func bench(
        _ change: (inout TargetServiceSettings) -> Void = { _ in }, login: (inout LoginSettings) -> Void = { _ in }
    ) -> (TargetBench, BenchClient) {
        let (bench, clients) = severalConnections(1, level: 1, change, login: login)
        return (bench, clients[0])
    }

    private func digests(_ settings: inout LoginSettings) {
        settings.operational.headerDigest = [.crc32c]
        settings.operational.dataDigest = [.crc32c]
    }

    private func encoded(_ header: BasicHeaderSegment, _ data: [UInt8]) -> [UInt8] {
        PDU(header: header, data: data).encoded(headerDigest: CRC32C.table, dataDigest: CRC32C.table)
    }

    @Test func statusesAreSentAgainAsTheyWere() {
        let (_, client) = bench()
        #expect(client.parameters.errorRecoveryLevel == 1)
        client.command(tag: 1, flags: [.final, .read], expected: 3)
        client.completeRead(client.readyCommands()[0], [1, 2, 3])
        client.command(tag: 2, flags: [.final, .read], expected: 3)
        let sense = SenseData(key: .illegalRequest, additional: .lbaOutOfRange)
        client.session.complete(client.readyCommands()[0], status: .checkCondition, sense: sense)
        client.send(.nopOut(tag: 3, dataByteCount: 2, cmdSN: client.cmdSN, expStatSN: 0), [8, 9])
        let first = client.receive()
        // A ping is answered at once, results as they are fetched: each by its own number.
        let sorted = first.sorted { $0.header.statSN < $1.header.statSN }
        let again = client.snack(.status)
        #expect(again.map(\.data) == sorted.map(\.data))
        #expect(again.map(\.header.statSN) == sorted.map(\.header.statSN))
        #expect(again.map(\.header.opcode) == sorted.map(\.header.opcode))
        let one = client.snack(.status, from: sorted[1].header.statSN, count: 1)
        #expect(one.map(\.header.statSN) == [sorted[1].header.statSN])
        // What was confirmed, or never sent, is not to be asked for.
        client.confirm(sorted[1].header.statSN)
        #expect(client.snack(.status, from: sorted[0].header.statSN, count: 1).map(\.header.rejectReason) == [.protocolError])
        #expect(client.snack(.status, from: sorted[2].header.statSN &+ 50, count: 1).map(\.header.rejectReason) == [.protocolError])
        #expect(client.snack(.status, from: sorted[1].header.statSN, count: .max).map(\.header.rejectReason) == [.protocolError])
    }

    @Test(arguments: [Int.max, 700]) func dataIsSentAgainByItsNumbers(atATime: Int) {
        let (bench, client) = bench({ $0.operational.maxBurstByteCount = 2500 }, login: { $0.operational.maxRecvDataSegmentByteCount = 1024 })
        let data = pattern(6001)
        client.command(tag: 9, flags: [.final, .read], expected: data.count)
        client.completeRead(client.readyCommands()[0], data)
        let all = client.receive(atATime: atATime)
        #expect(all.map(\.data.count) == [1024, 1024, 452, 1024, 1024, 452, 1001])
        #expect(all.map { $0.header.dataInFlags.contains(.acknowledge) } == [false, false, true, false, false, true, false])
        func same(_ pdus: [PDU], _ range: Range<Int>) {
            #expect(pdus.map(\.data) == all[range].map(\.data))
            #expect(pdus.map(\.header.dataSN) == all[range].map(\.header.dataSN))
            #expect(pdus.map(\.header.bufferOffset) == all[range].map(\.header.bufferOffset))
            #expect(pdus.map(\.header.flags) == all[range].map(\.header.flags))
            #expect(pdus.map(\.header.targetTransferTag) == all[range].map(\.header.targetTransferTag))
        }
        same(client.snack(.dataOrR2T, tag: 9, from: 1, count: 3), 1..<4)
        same(client.snack(.dataOrR2T, tag: 9, from: 6, count: 1), 6..<7)
        same(client.snack(.dataOrR2T, tag: 9), 0..<7)
        #expect(client.snack(.dataOrR2T, tag: 9, from: 6, count: 1)[0].header.statSN == all[6].header.statSN)
        #expect(client.snack(.dataOrR2T, tag: 9, from: 5, count: 3).map(\.header.rejectReason) == [.protocolError])
        // The first sequence came.
        let tag = all[2].header.targetTransferTag
        #expect(client.snack(.dataACK, ttt: tag, from: 3).isEmpty)
        #expect(client.snack(.dataOrR2T, tag: 9, from: 2, count: 1).map(\.header.rejectReason) == [.protocolError])
        same(client.snack(.dataOrR2T, tag: 9), 3..<7)
        #expect(client.snack(.dataACK, ttt: tag, from: 3).map(\.header.rejectReason) == [.invalidDataACK])
        #expect(client.snack(.dataACK, ttt: tag &+ 16, from: 4).map(\.header.rejectReason) == [.invalidDataACK])
        #expect(bench.service.retainedByteCount > 0)
        client.confirm(all[6].header.statSN &+ 1)
        #expect(bench.service.retainedByteCount == 0)
        _ = client.snack(.dataOrR2T, tag: 9)
        _ = client.receive()
        #expect(bench.service.pool.lentByteCount == 0)
    }

    @Test func dataIsCutAnewForAnInitiatorThatTakesLess() throws {
        let (_, client) = bench(login: { $0.operational.maxRecvDataSegmentByteCount = 4096 })
        let data = pattern(9000)
        client.command(tag: 9, flags: [.final, .read], expected: data.count)
        client.completeRead(client.readyCommands()[0], data)
        let all = client.receive()
        #expect(all.map(\.data.count) == [4096, 4096, 808])
        let text = TextParameters.encode([TextPair("MaxRecvDataSegmentLength", "1024")])
        client.send(.textRequest(.final, tag: 5, cmdSN: client.cmdSN, expStatSN: 0, dataByteCount: text.count, isImmediate: true), text)
        _ = client.receive()
        #expect(client.snack(.dataOrR2T, tag: 9).map(\.header.rejectReason) == [.snackReject], "its PDUs are too long by now")
        let again = client.snack(.rData, tag: 9, ttt: 4711)
        #expect(again.dropLast().map(\.data.count) == Array(repeating: 1024, count: 8) + [808])
        #expect(again.dropLast().flatMap(\.data) == data)
        #expect(again.dropLast().map(\.header.dataSN) == Array(0..<9))
        let response = try #require(again.last)
        #expect(response.header.opcode == .scsiResponse)
        #expect(response.header.snackTag == 4711)
        #expect(response.header.statSN == all[2].header.statSN, "of the same number as the first")
        #expect(response.header.expDataSN == 9)
        #expect(client.snack(.rData, tag: 9, ttt: 0).map(\.header.rejectReason) == [.protocolError])
    }

    @Test func aCommandWithDamagedDataIsSentAgain() {
        let (bench, client) = bench(login: digests)
        let data = pattern(512)
        let header = BasicHeaderSegment.scsiCommand(
            CommandDescriptorBlock(operationCode: 0x2A), lun: LogicalUnitNumber(index: 0)!, tag: 3, flags: [.final, .write],
            expectedDataTransferByteCount: 512, immediateDataByteCount: 512, cmdSN: client.cmdSN, expStatSN: 0)
        var bytes = encoded(header, data)
        bytes[100] ^= 1
        client.send(bytes: bytes)
        #expect(client.receive().map(\.header.rejectReason) == [.dataDigestError])
        #expect(client.session.expCmdSN == client.cmdSN)
        #expect(bench.service.pool.lentByteCount == 0)
        bytes[100] ^= 1
        client.send(bytes: bytes)
        let slot = client.readyCommands()[0]
        #expect(Array(client.session.dataOut(slot)) == data)
        // Once more: it came already.
        client.send(bytes: bytes)
        #expect(client.readyCommands().isEmpty && client.receive().isEmpty)
    }

    @Test func damagedDataOutIsAskedForAgain() throws {
        let (_, client) = bench({ $0.operational.initialR2T = true }, login: digests)
        let data = pattern(4000)
        client.command(tag: 3, flags: [.final, .write], expected: data.count)
        let r2t = try #require(client.receive().first).header
        func send(_ range: Range<Int>, _ sn: UInt32, _ ttt: UInt32, damage: Int? = nil, isFinal: Bool = false) {
            var bytes = encoded(
                .dataOut(
                    lun: LogicalUnitNumber(index: 0)!, tag: 3, targetTransferTag: ttt, isFinal: isFinal, dataSN: sn,
                    bufferOffset: UInt32(range.lowerBound), byteCount: range.count, expStatSN: 0), Array(data[range]))
            if let damage { bytes[damage] ^= 0x10 }
            client.send(bytes: bytes)
        }
        send(0..<1000, 0, r2t.targetTransferTag)
        send(1000..<2000, 1, r2t.targetTransferTag, damage: 70)
        #expect(client.receive().map(\.header.rejectReason) == [.dataDigestError])
        send(2000..<3000, 2, r2t.targetTransferTag)
        #expect(client.receive().isEmpty)
        send(3000..<4000, 3, r2t.targetTransferTag, isFinal: true)
        let again = try #require(client.receive().first).header
        #expect(again.opcode == .readyToTransfer && again.bufferOffset == 1000 && again.desiredDataTransferByteCount == 3000)
        #expect(again.r2tSN == r2t.r2tSN + 1 && again.targetTransferTag != r2t.targetTransferTag)
        send(1000..<4000, 1, r2t.targetTransferTag, isFinal: true)
        #expect(client.readyCommands().isEmpty && client.receive().isEmpty, "late data under the old tag does not count")
        // This time a header is damaged: nobody knows what it was.
        send(1000..<2500, 0, again.targetTransferTag)
        send(2500..<4000, 1, again.targetTransferTag, damage: 20, isFinal: true)
        #expect(client.receive().isEmpty)
        #expect(client.connection.endReason == nil)
        _ = client.bench.service.nextDeadline(at: client.bench.now)
        client.bench.now = client.bench.now + .seconds(1)
        client.bench.service.timerFired(at: client.bench.now)
        let third = try #require(client.receive().first).header
        #expect(third.bufferOffset == 2500 && third.desiredDataTransferByteCount == 1500 && third.r2tSN == r2t.r2tSN + 2)
        #expect(client.snack(.dataOrR2T, tag: 3, from: third.r2tSN, count: 1).map(\.header.r2tSN) == [third.r2tSN])
        #expect(client.snack(.dataOrR2T, tag: 3, from: 7, count: 1).map(\.header.rejectReason) == [.protocolError])
        send(2500..<4000, 0, third.targetTransferTag, isFinal: true)
        let slot = try #require(client.readyCommands().first)
        #expect(Array(client.session.dataOut(slot)) == data)
        client.session.complete(slot, status: .good, dataOutByteCount: 4000)
        #expect(client.receive().map(\.header.expDataSN) == [3])
    }

    @Test func damagedUnsolicitedDataIsSolicited() throws {
        let (_, client) = bench(login: digests)
        let data = pattern(3000)
        client.command(tag: 3, flags: [.write], expected: data.count, data: Array(data[..<1000]))
        var bytes = encoded(
            .dataOut(
                lun: LogicalUnitNumber(index: 0)!, tag: 3, isFinal: false, dataSN: 0, bufferOffset: 1000, byteCount: 1000,
                expStatSN: 0), Array(data[1000..<2000]))
        bytes[80] ^= 1
        client.send(bytes: bytes)
        client.dataOut(
            tag: 3, ttt: BasicHeaderSegment.reservedTag, sn: 1, offset: 2000, Array(data[2000...]), isFinal: true)
        let answers = client.receive()
        #expect(answers.map(\.header.opcode) == [.reject, .readyToTransfer])
        let r2t = answers[1].header
        #expect(r2t.bufferOffset == 1000 && r2t.desiredDataTransferByteCount == 2000)
        client.dataOut(tag: 3, ttt: r2t.targetTransferTag, sn: 0, offset: 1000, Array(data[1000...]), isFinal: true)
        let slot = try #require(client.readyCommands().first)
        #expect(Array(client.session.dataOut(slot)) == data)
    }

    /// It would count twice, and the command be executed without its end.
    @Test func dataThatIsHalfHereIsNotAskedForAgain() throws {
        let (bench, client) = bench(login: digests)
        let data = pattern(3000)
        client.command(tag: 3, flags: [.write], expected: data.count, data: Array(data[..<1000]))
        var ping = encoded(.nopOut(tag: 1, dataByteCount: 4, cmdSN: client.cmdSN, expStatSN: 0), [1, 2, 3, 4])
        ping[20] ^= 1
        client.send(bytes: ping)
        let rest = encoded(
            .dataOut(
                lun: LogicalUnitNumber(index: 0)!, tag: 3, isFinal: true, dataSN: 0, bufferOffset: 1000, byteCount: 2000,
                expStatSN: 0), Array(data[1000...]))
        client.send(bytes: Array(rest[..<700]))
        for _ in 0..<3 {
            _ = bench.service.nextDeadline(at: bench.now)
            bench.now = bench.now + .seconds(1)
            bench.service.timerFired(at: bench.now)
            #expect(client.receive().isEmpty && client.readyCommands().isEmpty)
        }
        client.send(bytes: Array(rest[700...]))
        #expect(client.receive().isEmpty)
        let slot = try #require(client.readyCommands().first)
        #expect(Array(client.session.dataOut(slot)) == data)
    }

    @Test func twoDamagedHeadersInARowEndTheConnection() {
        let (bench, client) = bench(login: digests)
        func ping(_ damage: Int?) {
            var bytes = encoded(.nopOut(tag: 1, dataByteCount: 5, cmdSN: client.cmdSN, expStatSN: 0), [1, 2, 3, 4, 5])
            if let damage { bytes[damage] ^= 1 }
            client.send(bytes: bytes)
        }
        ping(20)
        #expect(client.receive().isEmpty, "dropped")
        ping(nil)
        #expect(client.receive().count == 1, "in step")
        ping(21)
        ping(22)
        guard case .protocolError(.headerDigestMismatch) = client.connection.endReason else {
            Issue.record("the connection lives")
            return
        }
        #expect(bench.events.contains("ended connectionLost"))
    }

    @Test func whatIsKeptIsBounded() {
        let (bench, client) = bench({ $0.retainedByteLimit = 1 << 20 })
        var last: UInt32 = 0
        for tag: UInt32 in 0..<200 {
            client.command(tag: tag, flags: [.final, .read], expected: 100_000)
            client.completeRead(client.readyCommands()[0], [UInt8](repeating: 1, count: 100_000))
            last = client.receive().last!.header.statSN
            #expect(bench.service.retainedByteCount <= 1 << 20)
        }
        #expect(client.snack(.dataOrR2T, tag: 0).map(\.header.rejectReason) == [.snackReject], "given up")
        #expect(client.snack(.dataOrR2T, tag: 199).count == 1, "still there")
        // Not even statuses are kept without end.
        for tag: UInt32 in 0..<5000 {
            client.send(.nopOut(tag: tag, cmdSN: client.cmdSN, expStatSN: 0))
            _ = client.receive()
        }
        #expect(client.connection.retention!.count <= 2 * 128 + 1024)
        client.confirm(last)
        #expect(client.connection.endReason == nil)
        #expect(bench.service.retainedByteCount == 0)
    }
}

/// Level 2: from one connection to another.
@Suite struct TargetReassignmentTests {
    private func assign(_ client: BenchClient, _ task: UInt32, expDataSN: UInt32 = 0) -> [PDU] {
        client.manage(.taskReassign, of: task, expDataSN: expDataSN)
    }

    @Test func tasksOfALostConnectionGoOnOnAnother() throws {
        let (bench, clients) = severalConnections(2, level: 2, { $0.operational.initialR2T = true })
        let session = clients[0].session
        let start = clients[0].cmdSN
        let data = pattern(3000)
        // Executing; waiting for data; its result unsent; its result sent and not confirmed.
        clients[1].command(tag: 1, flags: [.final, .read], expected: 3, cmdSN: start)
        clients[1].command(tag: 2, flags: [.final, .write], expected: data.count, cmdSN: start &+ 1)
        let r2t = try #require(clients[1].receive().first).header
        clients[1].dataOut(tag: 2, ttt: r2t.targetTransferTag, sn: 0, offset: 0, Array(data[..<1000]), isFinal: false)
        clients[1].command(tag: 3, flags: [.final, .read], expected: 3, cmdSN: start &+ 2)
        clients[1].command(tag: 4, flags: [.final, .read], expected: 3, cmdSN: start &+ 3)
        clients[0].cmdSN = start &+ 4
        let ready = clients[0].readyCommands()
        #expect(ready.map { session.tasks[$0].initiatorTaskTag } == [1, 3, 4])
        clients[1].completeRead(ready[2], [4, 4, 4])
        #expect(clients[1].receive().count == 1)
        clients[1].completeRead(ready[1], [3, 3, 3])

        clients[1].connection.peerClosed()
        bench.drainEvents()
        #expect(!session.isEnded && session.lostConnectionCount == 1)
        #expect(!bench.events.contains { $0.hasPrefix("abandoned") })
        for tag: UInt32 in 1...4 {
            #expect(assign(clients[0], tag).map(\.header.taskManagementResponse) == [.taskStillAllegiant])
        }
        #expect(clients[0].logOut(.removeConnectionForRecovery, cid: 5).map(\.header.logoutResponse) == [.connectionIDNotFound])
        let logout = clients[0].logOut(.removeConnectionForRecovery, cid: 1)
        #expect(logout.map(\.header.logoutResponse) == [.closed])
        #expect(logout[0].header.time2Retain == 20)

        #expect(assign(clients[0], 77).map(\.header.taskManagementResponse) == [.taskDoesNotExist])
        #expect(assign(clients[0], 1).map(\.header.opcode) == [.taskManagementResponse])
        clients[0].completeRead(ready[0], [1, 1, 1])
        #expect(clients[0].receive().map(\.data) == [[1, 1, 1]])

        var pdus = assign(clients[0], 2)
        #expect(pdus.map(\.header.opcode) == [.taskManagementResponse, .readyToTransfer])
        let again = pdus[1].header
        #expect(again.bufferOffset == 1000 && again.desiredDataTransferByteCount == 2000)
        clients[0].dataOut(tag: 2, ttt: again.targetTransferTag, sn: 0, offset: 1000, Array(data[1000...]), isFinal: true)
        let slot = try #require(clients[0].readyCommands().first)
        #expect(Array(session.dataOut(slot)) == data)
        session.complete(slot, status: .good, dataOutByteCount: data.count)
        #expect(clients[0].receive().map(\.header.opcode) == [.scsiResponse])

        for tag: UInt32 in 3...4 {
            pdus = assign(clients[0], tag)
            #expect(pdus.map(\.header.opcode) == [.taskManagementResponse, .dataIn])
            #expect(pdus[1].header.dataInFlags.contains(.status))
            #expect(pdus[1].header.statSN == pdus[0].header.statSN &+ 1, "numbered by its new connection")
            #expect(pdus[1].data == Array(repeating: UInt8(tag), count: 3))
            clients[0].confirm(pdus[1].header.statSN &+ 1)
            #expect(assign(clients[0], tag).map(\.header.taskManagementResponse) == [.taskDoesNotExist])
        }
        #expect(bench.service.pool.lentByteCount == 0)
    }

    @Test func aRecoveryLogoutDiscardsWhatCameAheadOfItsTurn() {
        let (bench, clients) = severalConnections(2, level: 2)
        let start = clients[0].cmdSN
        // Its predecessor never comes on this connection: ExpCmdSN does not acknowledge it.
        clients[1].command(tag: 2, flags: [.final, .read], expected: 3, cmdSN: start &+ 1)
        #expect(clients[0].readyCommands().isEmpty)
        clients[1].connection.peerClosed()
        bench.drainEvents()
        #expect(clients[0].logOut(.removeConnectionForRecovery, cid: 1).map(\.header.logoutResponse) == [.closed])
        clients[0].command(tag: 1, flags: [.final, .read], expected: 3, cmdSN: start)
        clients[0].command(tag: 2, flags: [.final, .read], expected: 3, cmdSN: start &+ 1)
        clients[0].cmdSN = start &+ 2
        let ready = clients[0].readyCommands()
        #expect(ready.map { clients[0].session.tasks[$0].initiatorTaskTag } == [1, 2])
        for slot in ready { clients[0].completeRead(slot, [1, 2, 3]) }
        #expect(clients[0].receive().map(\.data) == [[1, 2, 3], [1, 2, 3]])
    }

    /// What left on a connection opens the window for others: more of it may come back than the window is wide.
    @Test(arguments: [1, 4, 128]) func moreResultsComeBackThanTheWindowIsWide(depth: Int) {
        let (bench, clients) = severalConnections(2, level: 2, { $0.queueDepth = depth })
        let session = clients[0].session
        let tags = 0..<UInt32(4 * depth + 20)
        for tag in tags {
            clients[1].command(tag: tag, flags: [.final, .read], expected: 3, cmdSN: clients[0].cmdSN)
            clients[0].cmdSN += 1
            clients[1].completeRead(clients[0].readyCommands()[0], [UInt8(truncatingIfNeeded: tag), 2, 3])
            // It leaves, and is lost.
            #expect(clients[1].receive().count == 1)
        }
        clients[1].connection.peerClosed()
        bench.drainEvents()
        #expect(clients[0].logOut(.removeConnectionForRecovery, cid: 1).map(\.header.logoutResponse) == [.closed])
        // All of them before a single one is sent.
        for tag in tags {
            clients[0].send(
                .taskManagementRequest(
                    .taskReassign, lun: LogicalUnitNumber(index: 0)!, tag: 900, referencedTaskTag: tag, refCmdSN: 0,
                    expDataSN: 0, cmdSN: clients[0].cmdSN, expStatSN: 0))
        }
        #expect(SerialNumber.isAtMost(clients[0].cmdSN, session.windowNumbers().maxCmdSN), "the window stays open")
        let pdus = clients[0].receive()
        let answers = pdus.filter { $0.header.opcode == .taskManagementResponse }
        #expect(answers.count == tags.count && answers.allSatisfy { $0.header.taskManagementResponse == .functionComplete })
        let results = pdus.filter { $0.header.opcode == .dataIn }
        #expect(results.map(\.header.initiatorTaskTag) == Array(tags))
        #expect(results.allSatisfy { $0.data == [UInt8(truncatingIfNeeded: $0.header.initiatorTaskTag), 2, 3] })
        clients[0].confirm(results.last!.header.statSN &+ 1)
        #expect(bench.service.pool.lentByteCount == 0)
        #expect((0..<session.usedCapacity).allSatisfy { session.tasks[$0].state == .free })
    }

    @Test func readsGoOnFromWhatCame() {
        let (bench, clients) = severalConnections(2, level: 2, { $0.operational.maxBurstByteCount = 2048 }) {
            $0.operational.maxRecvDataSegmentByteCount = 512
        }
        let data = pattern(5000)
        clients[1].command(tag: 1, flags: [.final, .read], expected: data.count, cmdSN: clients[0].cmdSN)
        clients[0].cmdSN += 1
        clients[1].completeRead(clients[0].readyCommands()[0], data)
        let all = clients[1].receive()
        #expect(all.count == 10)
        clients[1].connection.peerClosed()
        bench.drainEvents()
        // The same CID again logs the lost one out; another segment length cuts the rest anew.
        let (third, _) = clients[0].join(cid: 1) { $0.operational.maxRecvDataSegmentByteCount = 1024 }
        let pdus = third.manage(.taskReassign, of: 1, expDataSN: 7)
        #expect(pdus.map(\.header.opcode) == [.taskManagementResponse, .dataIn, .dataIn])
        #expect(pdus[1].header.dataSN == 7 && pdus[1].header.bufferOffset == 3584)
        #expect(pdus.flatMap(\.data) == Array(data[3584...]))
        #expect(pdus[2].header.dataInFlags.contains(.status))
    }

    @Test func aLiveConnectionKeepsItsTasks() {
        let (_, clients) = severalConnections(2, level: 2)
        clients[1].command(tag: 1, flags: [.final, .read], expected: 3, cmdSN: clients[0].cmdSN)
        clients[0].cmdSN += 1
        #expect(assign(clients[0], 1).map(\.header.taskManagementResponse) == [.taskStillAllegiant])
        // A logout for recovery takes it out of service.
        #expect(clients[0].logOut(.removeConnectionForRecovery, cid: 1).map(\.header.logoutResponse) == [.closed])
        #expect(clients[1].connection.endReason == .replaced)
        #expect(assign(clients[0], 1).map(\.header.taskManagementResponse) == [.functionComplete])
        clients[0].completeRead(clients[0].readyCommands()[0], [1, 2, 3])
        #expect(clients[0].receive().map(\.data) == [[1, 2, 3]])
    }

    @Test func whatNobodyComesForEndsWithItsTime() {
        let (bench, clients) = severalConnections(2, level: 2)
        let session = clients[0].session
        clients[1].command(tag: 1, flags: [.final, .read], expected: 3, cmdSN: clients[0].cmdSN)
        clients[1].command(tag: 2, flags: [.final, .write], expected: 3000, data: pattern(1000), cmdSN: clients[0].cmdSN &+ 1)
        clients[0].cmdSN &+= 2
        let slot = clients[0].readyCommands()[0]
        clients[1].connection.peerClosed()
        bench.drainEvents()
        // DefaultTime2Wait and DefaultTime2Retain.
        #expect(bench.service.nextDeadline(at: bench.now) == bench.now + .seconds(22))
        bench.now = bench.now + .seconds(22)
        bench.service.timerFired(at: bench.now)
        bench.drainEvents()
        #expect(bench.events.last == "abandoned 1")
        #expect(session.lostConnectionCount == 0 && !session.isEnded)
        session.aborted(slot)
        #expect(bench.service.pool.lentByteCount == 0)
        #expect(assign(clients[0], 1).map(\.header.taskManagementResponse) == [.taskDoesNotExist])
    }

    /// That a task cannot be reassigned any more does not say that the medium has seen the last of it: ABORT TASK does.
    @Test func aWriteThatNobodyCameForIsOverWhenAbortTaskIsAnswered() throws {
        let (bench, clients) = severalConnections(2, level: 2)
        let session = clients[0].session
        clients[1].command(tag: 1, flags: [.final, .write], expected: 100, data: pattern(100), cmdSN: clients[0].cmdSN)
        clients[0].cmdSN &+= 1
        let slot = try #require(clients[0].readyCommands().first)
        clients[1].connection.peerClosed()
        bench.drainEvents()
        _ = bench.service.nextDeadline(at: bench.now)
        bench.now = bench.now + .seconds(22)
        bench.service.timerFired(at: bench.now)
        bench.drainEvents()
        #expect(bench.events.last == "abandoned 1")
        // The device server is still at it.
        #expect(assign(clients[0], 1).map(\.header.taskManagementResponse) == [.taskDoesNotExist])
        #expect(clients[0].manage(.abortTask, of: 1, refCmdSN: clients[0].cmdSN &- 1).isEmpty)
        guard case .management(let request)? = session.nextAction() else {
            Issue.record("the device server was not asked")
            return
        }
        #expect(session.executingSlot(ofTag: request.referencedTaskTag) == slot)
        session.aborted(slot)
        session.finishManagement(request.token, response: .functionComplete)
        #expect(clients[0].receive().map(\.header.taskManagementResponse) == [.functionComplete])
        #expect(bench.service.pool.lentByteCount == 0)
    }

    @Test func aSessionWithoutConnectionsWaitsForOne() {
        let (bench, clients) = severalConnections(1, level: 2)
        let session = clients[0].session
        clients[0].command(tag: 1, flags: [.final, .read], expected: 3)
        let slot = clients[0].readyCommands()[0]
        clients[0].connection.peerClosed()
        bench.drainEvents()
        #expect(!session.isEnded && session.connectionCount == 0)
        clients[0].completeRead(slot, [1, 2, 3])
        _ = bench.service.nextDeadline(at: bench.now)
        let (again, _) = clients[0].join(cid: 0)
        #expect(again.connection.session === session)
        #expect(assign(again, 1).map(\.data) == [[], [1, 2, 3]])
        again.connection.peerClosed()
        bench.drainEvents()
        _ = bench.service.nextDeadline(at: bench.now)
        bench.now = bench.now + .seconds(22)
        bench.service.timerFired(at: bench.now)
        bench.drainEvents()
        #expect(session.isEnded && bench.service.sessions.isEmpty)
        #expect(bench.service.pool.lentByteCount == 0)
    }

    @Test func aBoundedNumberOfLostConnectionsIsKept() {
        let (bench, clients) = severalConnections(1, level: 2, limit: 2)
        let session = clients[0].session
        for round in 0..<50 {
            let (client, _) = clients[0].join(cid: 1)
            client.command(tag: UInt32(round), flags: [.final, .write], expected: 4096, data: pattern(100), cmdSN: clients[0].cmdSN)
            clients[0].cmdSN += 1
            client.connection.peerClosed()
            bench.drainEvents()
            #expect(session.lostConnectionCount <= 6)
            #expect(bench.service.pool.lentByteCount <= 6 * 4096)
        }
        #expect(!session.isEnded)
    }

    @Test func abortTaskEndsATaskThatWaitsForReassignment() {
        let (bench, clients) = severalConnections(2, level: 2)
        clients[1].command(tag: 1, flags: [.final, .read], expected: 3, cmdSN: clients[0].cmdSN)
        clients[0].cmdSN += 1
        let slot = clients[0].readyCommands()[0]
        clients[1].connection.peerClosed()
        clients[0].completeRead(slot, [1, 2, 3])
        #expect(clients[0].manage(.abortTask, of: 1).map(\.header.taskManagementResponse) == [.functionComplete])
        #expect(bench.service.pool.lentByteCount == 0)
    }
}
