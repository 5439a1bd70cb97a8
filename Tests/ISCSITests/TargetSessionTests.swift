import SCSI
import Testing
import Timebase

@testable import ISCSI

@Suite struct TargetSessionTests {
    @Test func commandsRunInTheOrderOfTheirNumbersAndOnceEach() {
        let bench = TargetBench { $0.queueDepth = 8 }
        let client = bench.client()
        client.logIn()
        let first = client.cmdSN
        client.command(tag: 3, flags: [.final, .read], expected: 1, cmdSN: first &+ 2)
        client.command(tag: 2, flags: [.final, .read], expected: 1, cmdSN: first &+ 1)
        #expect(client.readyCommands().isEmpty, "the first is missing")
        client.command(tag: 4, flags: [.final, .read], expected: 1, cmdSN: first &- 1)
        client.command(tag: 5, flags: [.final, .read], expected: 1, cmdSN: first &+ 8)
        client.command(tag: 6, flags: [.final, .read], expected: 1, cmdSN: first &+ 2)
        client.command(tag: 7, flags: [.final, .read], expected: 1, isImmediate: true)
        #expect(client.readyCommands().map { client.session.tasks[$0].initiatorTaskTag } == [7], "immediate: out of turn")
        client.command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: first)
        #expect(client.readyCommands().map { client.session.tasks[$0].initiatorTaskTag } == [1, 2, 3])
        // Again, behind the window's start.
        client.command(tag: 8, flags: [.final, .read], expected: 1, cmdSN: first)
        #expect(client.readyCommands().isEmpty)
        #expect(client.session.expCmdSN == first &+ 3)
    }

    @Test func aRequestThatComesTooEarlyWaitsForItsTurn() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        let first = client.cmdSN
        client.send(.nopOut(tag: 77, dataByteCount: 3, cmdSN: first &+ 1, expStatSN: 0, isImmediate: false), [1, 2, 3])
        #expect(client.receive().isEmpty)
        client.command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: first)
        let answer = client.receive()
        #expect(answer.map(\.header.initiatorTaskTag) == [77])
        #expect(answer[0].data == [1, 2, 3])
        #expect(client.session.expCmdSN == first &+ 2)
    }

    @Test func theWindowClosesAtTheQueueDepthAndNeverGoesBack() {
        let bench = TargetBench { $0.queueDepth = 4 }
        let client = bench.client()
        client.logIn()
        let first = client.cmdSN
        for tag: UInt32 in 0..<6 { client.command(tag: tag, flags: [.final, .read], expected: 1) }
        let slots = client.readyCommands()
        #expect(slots.count == 4, "what is past MaxCmdSN is ignored")
        client.completeRead(slots[0], [1])
        var header = client.receive()[0].header
        #expect(header.expCmdSN == first &+ 4)
        #expect(header.maxCmdSN == first &+ 4, "one is free again")
        var highest = header.maxCmdSN
        for slot in slots.dropFirst() {
            client.completeRead(slot, [1])
            header = client.receive()[0].header
            #expect(SerialNumber.isAtMost(highest, header.maxCmdSN))
            highest = header.maxCmdSN
        }
        #expect(highest == first &+ 7)
    }

    @Test func reinstatementEndsTheOldSessionAtOnce() {
        let bench = TargetBench()
        let old = bench.client()
        old.logIn()
        old.command(tag: 1, flags: [.final, .write], expected: 4096, data: pattern(100))
        #expect(bench.service.pool.lentByteCount > 0)
        let oldSession = old.session
        let new = bench.client()
        new.logIn()
        #expect(oldSession.isEnded)
        #expect(old.connection.endReason == .replaced)
        #expect(bench.events == ["started", "connection replaced", "ended reinstated", "started"])
        #expect(bench.service.sessions.count == 1)
        #expect(new.tsih != oldSession.tsih)
        #expect(bench.service.pool.lentByteCount == 0)

        // Another portal group, or another ISID, is another session.
        bench.client(portalGroup: 2).logIn()
        bench.client().logIn(isid: .random(1, qualifier: 2))
        #expect(bench.service.sessions.count == 3)
    }

    @Test func aCommandOfADeadSessionIsTakenBackQuietly() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        client.command(tag: 1, flags: [.final, .write], expected: 100, data: pattern(100))
        let slot = client.readyCommands()[0]
        let session = client.session
        client.connection.peerClosed()
        bench.drainEvents()
        #expect(bench.events.last == "ended connectionLost")
        #expect(session.executingCount == 1)
        #expect(session.complete(slot, status: .good) == nil)
        #expect(session.executingCount == 0)
        #expect(bench.service.pool.lentByteCount == 0)
    }

    @Test func abortTaskEndsAWriteThatWaitsForData() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        client.command(tag: 1, flags: [.final, .write], expected: 4096)
        let r2t = client.receive()[0].header
        func abort(_ tag: UInt32) -> TaskManagementResponse {
            client.send(
                .taskManagementRequest(
                    .abortTask, lun: LogicalUnitNumber(index: 0)!, tag: 50, referencedTaskTag: tag, cmdSN: client.cmdSN,
                    expStatSN: 0))
            return client.receive()[0].header.taskManagementResponse
        }
        #expect(abort(1) == .functionComplete)
        #expect(abort(1) == .taskDoesNotExist)
        client.dataOut(tag: 1, ttt: r2t.targetTransferTag, sn: 0, offset: 0, pattern(4096), isFinal: true)
        #expect(client.receive().isEmpty)
        #expect(client.readyCommands().isEmpty)
        #expect(bench.service.pool.lentByteCount == 0)
        // The slot serves on, under another transfer tag.
        client.command(tag: 1, flags: [.final, .write], expected: 4096)
        #expect(client.receive()[0].header.targetTransferTag != r2t.targetTransferTag)
    }

    @Test func aResultLeavesBeforeTheAnswerToItsAbort() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        client.command(tag: 1, flags: [.final, .read], expected: 1)
        client.completeRead(client.readyCommands()[0], [1])
        client.send(
            .taskManagementRequest(
                .abortTask, lun: LogicalUnitNumber(index: 0)!, tag: 50, referencedTaskTag: 1, cmdSN: client.cmdSN,
                expStatSN: 0))
        let pdus = client.receive()
        #expect(pdus.map(\.header.opcode) == [.dataIn, .taskManagementResponse])
        #expect(pdus[1].header.taskManagementResponse == .taskDoesNotExist)
        #expect(pdus[1].header.statSN == pdus[0].header.statSN &+ 1)
    }

    @Test func abortTaskSetReachesTheDeviceServerInItsPlace() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        client.command(tag: 1, flags: [.final, .read], expected: 1)
        client.command(tag: 2, flags: [.final, .write], expected: 4096)
        client.send(
            .taskManagementRequest(
                .abortTaskSet, lun: LogicalUnitNumber(index: 0)!, tag: 50, cmdSN: client.cmdSN, expStatSN: 0))
        client.command(tag: 3, flags: [.final, .read], expected: 1)
        var order: [String] = []
        var token: UInt32?
        var slots: [Int] = []
        while let action = client.session.nextAction() {
            switch action {
            case .command(let slot):
                order.append("command \(client.session.tasks[slot].initiatorTaskTag)")
                slots.append(slot)
            case .management(let request):
                order.append("\(request.function)")
                token = request.token
            }
        }
        #expect(order == ["command 1", "abortTaskSet", "command 3"], "the write had not come that far")
        #expect(bench.service.pool.lentByteCount == 0)
        _ = client.receive()
        client.session.aborted(slots[0])
        client.session.finishManagement(token!, response: .functionComplete)
        #expect(client.receive().map(\.header.opcode) == [.taskManagementResponse])
    }

    @Test func aResetThatMeetsHalfACommandLosesNoNumber() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        let command = PDU(
            header: .scsiCommand(
                CommandDescriptorBlock(operationCode: 0x2A), lun: LogicalUnitNumber(index: 0)!, tag: 1,
                flags: [.final, .write], expectedDataTransferByteCount: 512, immediateDataByteCount: 512,
                cmdSN: client.cmdSN, expStatSN: 0),
            data: pattern(512))
        let bytes = command.encoded()
        client.send(bytes: Array(bytes[..<200]))
        client.session.dropUndelivered(lun: nil)
        client.send(bytes: Array(bytes[200...]))
        client.cmdSN &+= 1
        #expect(client.readyCommands().isEmpty)
        #expect(bench.service.pool.lentByteCount == 0)
        client.command(tag: 2, flags: [.final, .read], expected: 1)
        #expect(client.readyCommands().count == 1, "the command behind it is not held up")
    }

    @Test func logoutIsAnsweredAndEndsTheSession() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        client.command(tag: 1, flags: [.final, .read], expected: 1)
        client.completeRead(client.readyCommands()[0], [1])
        client.send(.logoutRequest(.closeSession, connectionID: 0, tag: 60, cmdSN: client.cmdSN, expStatSN: 0))
        let pdus = client.receive()
        #expect(pdus.map(\.header.opcode) == [.dataIn, .logoutResponse])
        #expect(pdus[1].header.logoutResponse == .closed)
        #expect(bench.events == ["started", "connection loggedOut", "ended loggedOut"])
        #expect(client.connection.isDrained)
        #expect(bench.service.sessions.isEmpty)
    }

    @Test func sendTargetsAnswersInAsManyPDUsAsItTakes() throws {
        let bench = TargetBench()
        bench.service.nodes = (0..<200).map {
            TargetNodeDescription(
                name: "iqn.2026-11.org.example:disk-\($0)", addresses: [TargetAddress(host: "10.0.0.1", portalGroupTag: 1)])
        }
        let client = bench.client()
        client.logIn(type: .discovery, target: nil) { $0.operational.maxRecvDataSegmentByteCount = 1024 }
        var bytes: [UInt8] = []
        var tag = BasicHeaderSegment.reservedTag
        var count = 0
        let request = SendTargets.Request.all.encoded
        repeat {
            let data = tag == BasicHeaderSegment.reservedTag ? request : []
            client.send(
                .textRequest([.final], tag: 1, targetTransferTag: tag, cmdSN: client.cmdSN, expStatSN: 0, dataByteCount: data.count),
                data)
            client.cmdSN += 1
            let answer = try #require(client.receive().first)
            #expect(answer.data.count <= 1024)
            #expect(answer.header.textFlags.contains(.continues) != answer.header.textFlags.contains(.final))
            bytes += answer.data
            tag = answer.header.targetTransferTag
            count += 1
        } while tag != BasicHeaderSegment.reservedTag && count < 100
        #expect(try SendTargets.targets(parsing: bytes).count == 200)
        // No command in a discovery session.
        client.command(tag: 2, flags: [.final, .read], expected: 1)
        #expect(client.receive().map(\.header.opcode) == [.reject])
    }

    @Test func anIdleConnectionIsAskedAndThenDropped() {
        let bench = TargetBench()
        let client = bench.client()
        #expect(client.connection.nextDeadline == bench.now + .seconds(15))
        client.logIn()
        #expect(client.connection.nextDeadline == bench.now + .seconds(30))
        bench.now = bench.now + .seconds(30)
        client.connection.timerFired(at: bench.now)
        let ping = client.receive()[0].header
        #expect(ping.opcode == .nopIn && ping.initiatorTaskTag == BasicHeaderSegment.reservedTag)
        client.send(.nopOut(targetTransferTag: ping.targetTransferTag, cmdSN: client.cmdSN, expStatSN: 0))
        #expect(client.receive().isEmpty)
        bench.now = bench.now + .seconds(30)
        client.connection.timerFired(at: bench.now)
        bench.now = bench.now + .seconds(30)
        client.connection.timerFired(at: bench.now)
        #expect(client.connection.endReason == .noAnswerToPing)
    }

    @Test func aLoginThatDoesNotEndIsDropped() {
        let bench = TargetBench()
        let client = bench.client()
        bench.now = bench.now + .seconds(15)
        client.connection.timerFired(at: bench.now)
        #expect(client.connection.endReason == .loginTimeout)
    }

    @Test func unknownTargetsAndPortalGroupsAreRefused() {
        let bench = TargetBench()
        func status(_ action: LoginAction) -> LoginStatus? {
            if case .failed(.refused(let status)) = action { status } else { nil }
        }
        #expect(status(bench.client().logIn(target: "iqn.2026-11.org.example:other")) == .notFound)
        #expect(status(bench.client(portalGroup: 9).logIn()) == .notFound)
        #expect(status(bench.client().logIn { $0.tsih = 4711 }) == .sessionDoesNotExist)
        #expect(bench.service.sessions.isEmpty)
    }

    @Test func aSecondConnectionJoinsWhereItWasAgreedAndShareTheWindow() {
        let bench = TargetBench { $0.operational.maxConnections = 2 }
        let first = bench.client()
        first.logIn { $0.operational.maxConnections = 2 }
        let second = bench.client()
        second.logIn {
            $0.operational.maxConnections = 2
            $0.tsih = first.tsih
            $0.connectionID = 1
        }
        #expect(second.session === first.session)
        #expect(first.session.connectionCount == 2)
        let start = first.session.expCmdSN
        second.command(tag: 2, flags: [.final, .read], expected: 1, cmdSN: start &+ 1)
        #expect(first.readyCommands().isEmpty)
        first.command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: start)
        let slots = first.readyCommands()
        #expect(slots.count == 2)
        // Each answer goes where its command came from.
        for slot in slots { first.completeRead(slot, [7]) }
        #expect(first.receive().map(\.header.initiatorTaskTag) == [1])
        #expect(second.receive().map(\.header.initiatorTaskTag) == [2])
        first.connection.peerClosed()
        #expect(!second.session.isEnded)
    }
}
