import SCSI
import Testing
import Timebase

@testable import ISCSI

func status(_ action: LoginAction) -> LoginStatus? {
    if case .failed(.refused(let status)) = action { status } else { nil }
}

/// A bench whose first client has a session of several connections.
func severalConnections(
    _ count: Int = 2, level: Int = 0, limit: Int = 4, poolByteCount: Int = 64 << 20,
    _ change: (inout TargetServiceSettings) -> Void = { _ in }, login: (inout LoginSettings) -> Void = { _ in }
) -> (bench: TargetBench, clients: [BenchClient]) {
    let bench = TargetBench(
        {
            $0.operational.maxConnections = limit
            $0.operational.errorRecoveryLevel = level
            change(&$0)
        }, poolByteCount: poolByteCount)
    let first = bench.client()
    first.logIn {
        $0.operational.maxConnections = limit
        $0.operational.errorRecoveryLevel = level
        login(&$0)
    }
    var clients = [first]
    for cid in 1..<max(1, count) { clients.append(first.join(cid: UInt16(cid), login).client) }
    return (bench, clients)
}

@Suite struct TargetConnectionLoginTests {
    @Test func aConnectionJoinsWhereItsSessionLets() {
        let (bench, clients) = severalConnections(2, limit: 2)
        let first = clients[0]
        #expect(first.parameters.maxConnections == 2)
        #expect(first.session.connectionCount == 2)
        #expect(clients[1].parameters.maxConnections == 2, "the session's parameters hold for it")
        #expect(status(first.join(cid: 7).action) == .tooManyConnections)
        #expect(status(first.join(cid: 1, portalGroup: 2).action) == .cannotIncludeInSession)
        #expect(status(first.join(cid: 1, isid: .random(1, qualifier: 9)).action) == .sessionDoesNotExist)
        #expect(status(first.join(cid: 1) { $0.tsih &+= 1 }.action) == .sessionDoesNotExist)
        #expect(status(first.join(cid: 1) { $0.initiatorName += "-2" }.action) == .sessionDoesNotExist)
        #expect(status(first.join(cid: 1) { $0.targetName = "iqn.2026-11.org.example:other" }.action) == .sessionDoesNotExist)
        #expect(bench.service.sessions.count == 1)
        #expect(first.session.connectionCount == 2, "refusals change nothing")
        #expect(clients.allSatisfy { $0.connection.endReason == nil })
    }

    @Test func aLoginWithTheSameCIDTakesTheConnectionsPlace() throws {
        let (bench, clients) = severalConnections(2)
        let first = clients[0]
        clients[1].command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: first.cmdSN)
        first.cmdSN += 1
        let slot = try #require(first.readyCommands().first)
        let (again, _) = first.join(cid: 1)
        #expect(clients[1].connection.endReason == .replaced)
        #expect(bench.events.contains("abandoned 1"), "its command is to be aborted")
        #expect(first.session.connectionCount == 2)
        first.session.complete(slot, status: .good)
        #expect(again.receive().isEmpty && first.receive().isEmpty, "at level 0 nothing is said of it")
        again.command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: first.cmdSN)
        again.completeRead(first.readyCommands()[0], [5])
        #expect(again.receive().map(\.data) == [[5]])
    }

    @Test func theOnlyConnectionCanBeReinstated() {
        let (bench, clients) = severalConnections(1)
        let session = clients[0].session
        let (again, _) = clients[0].join(cid: 0)
        #expect(again.connection.session === session)
        #expect(!session.isEnded)
        #expect(bench.service.sessions.count == 1)
        again.command(tag: 1, flags: [.final, .read], expected: 1)
        #expect(again.readyCommands().count == 1)
    }

    @Test func aLoginWithoutTSIHEndsTheSessionAndAllItsConnections() {
        let (bench, clients) = severalConnections(3)
        bench.client().logIn(isid: clients[0].session.identity.isid)
        #expect(clients.allSatisfy { $0.connection.endReason == .replaced })
        #expect(bench.service.sessions.count == 1)
    }
}

@Suite struct TargetCommandOrderTests {
    /// Whatever overtakes whatever, the device server sees each number once and in its turn.
    @Test(arguments: 0..<30) func commandsReachTheDeviceServerInTheOrderOfTheirNumbers(seed: Int) {
        var random = WireRandom(seed: UInt64(seed))
        let depth = [1, 3, 5, 16, 128].randomElement(using: &random)!
        let (bench, clients) = severalConnections(4, {  $0.queueDepth = depth }) {
            $0.cmdSN = seed % 2 == 0 ? 0xFFFF_FFF0 : 77
        }
        let first = clients[0].session.expCmdSN
        var next: UInt32 = 0
        var waiting: [UInt32] = []
        var seen: [UInt32] = []
        while seen.count < 200 {
            while waiting.count < depth * 2, next < 260 {
                waiting.append(next)
                next += 1
            }
            // Some come twice, on two connections.
            let index = Int.random(in: 0..<min(waiting.count, depth), using: &random)
            let number = waiting[index]
            let isTaken = clients[0].session.window.isWanted(first &+ number)
            for _ in 0...Int.random(in: 0...1, using: &random) {
                clients.randomElement(using: &random)!.command(
                    tag: number, flags: [.final, .read], expected: 1, cmdSN: first &+ number)
            }
            if isTaken { waiting.remove(at: index) }
            for slot in clients[0].readyCommands() {
                seen.append(clients[0].session.tasks[slot].initiatorTaskTag)
                clients[0].session.complete(slot, status: .good)
            }
            for client in clients { _ = client.receive() }
        }
        #expect(seen == (0..<UInt32(seen.count)).map { $0 })
        #expect(clients.allSatisfy { $0.connection.endReason == nil })
        _ = bench
    }

    /// Two PDUs with one CmdSN, each begun before the other is whole.
    @Test func aDuplicateOnAnotherConnectionLeavesNothingBehind() {
        let (bench, clients) = severalConnections(2)
        let session = clients[0].session
        func write(_ tag: UInt32) -> [UInt8] {
            PDU(
                header: .scsiCommand(
                    CommandDescriptorBlock(operationCode: 0x2A), lun: LogicalUnitNumber(index: 0)!, tag: tag, flags: [.final, .write],
                    expectedDataTransferByteCount: 512, immediateDataByteCount: 512, cmdSN: clients[0].cmdSN, expStatSN: 0),
                data: pattern(512)
            ).encoded()
        }
        clients[0].send(bytes: Array(write(1).prefix(100)))
        clients[1].send(bytes: write(2))
        #expect(clients[0].readyCommands().isEmpty, "the number is taken")
        clients[0].send(bytes: Array(write(1).dropFirst(100)))
        let ready = clients[0].readyCommands()
        #expect(ready.map { session.tasks[$0].initiatorTaskTag } == [1])
        session.complete(ready[0], status: .good, dataOutByteCount: 512)
        #expect(clients[0].receive().count == 1)
        #expect((0..<session.usedCapacity).allSatisfy { session.tasks[$0].state == .free })
        #expect(bench.service.pool.lentByteCount == 0)
    }

    @Test func earlyRequestsAreKeptOnlyUpToABound() {
        let (_, clients) = severalConnections(2)
        let start = clients[0].cmdSN
        var rejected = 0
        for index: UInt32 in 1..<100 {
            clients[1].send(
                .nopOut(tag: index, dataByteCount: 8000, cmdSN: start &+ index, expStatSN: 0, isImmediate: false),
                Array(repeating: 1, count: 8000))
            rejected += clients[1].receive().filter { $0.header.rejectReason == .longOperationReject }.count
        }
        #expect(rejected == 99 - TargetSession.earlyByteLimit / 8000)
        // Rejected or not, the numbers came.
        clients[0].command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: start)
        #expect(clients[0].session.expCmdSN == start &+ 100)
        #expect(clients[1].receive().count == TargetSession.earlyByteLimit / 8000)
    }

    @Test func immediateCommandsHaveTheirOwnSmallShare() {
        let (_, clients) = severalConnections(2, { $0.queueDepth = 2 })
        for tag: UInt32 in 0..<40 {
            clients[Int(tag) % 2].command(tag: tag, flags: [.final, .read], expected: 1, isImmediate: true)
        }
        #expect(clients[0].readyCommands().count == 16)
        let rejects = clients.flatMap { $0.receive() }
        #expect(rejects.count == 24 && rejects.allSatisfy { $0.header.rejectReason == .immediateCommandReject })
        clients[0].command(tag: 100, flags: [.final, .read], expected: 1)
        #expect(clients[0].readyCommands().count == 1, "a command that the window lets in finds its slot")
    }

    /// A connection whose results nobody reads may not take the slots of commands that were let in on another.
    @Test func unreadResultsCloseTheWindowAndLoseNoCommand() {
        let (_, clients) = severalConnections(2, { $0.queueDepth = 4 })
        let session = clients[0].session
        var tag: UInt32 = 0
        for _ in 0..<50 where SerialNumber.isAtMost(clients[0].cmdSN, session.windowNumbers().maxCmdSN) {
            clients[0].command(tag: tag, flags: [.final, .read], expected: 1)
            tag += 1
            let ready = clients[0].readyCommands()
            #expect(ready.count == 1)
            for slot in ready { session.complete(slot, status: .good) }
        }
        #expect(tag == 8, "two windows' worths")
        #expect(clients[0].receive().count == 8)
        #expect(session.windowNumbers().maxCmdSN == clients[0].cmdSN &+ 3)
    }
}

@Suite struct TargetConnectionLossTests {
    @Test func theSessionLivesOnWithoutTheCommandsOfTheLostConnection() {
        let (bench, clients) = severalConnections(2)
        let start = clients[0].cmdSN
        let session = clients[0].session
        clients[0].command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: start)
        clients[1].command(tag: 2, flags: [.final, .read], expected: 1, cmdSN: start &+ 1)
        let ready = clients[0].readyCommands()
        // Came, and waits behind a gap; came in part; not at all.
        clients[1].command(tag: 4, flags: [.final, .read], expected: 1, cmdSN: start &+ 3)
        let part = PDU(
            header: .scsiCommand(
                CommandDescriptorBlock(operationCode: 0x2A), lun: LogicalUnitNumber(index: 0)!, tag: 5, flags: [.final, .write],
                expectedDataTransferByteCount: 512, immediateDataByteCount: 512, cmdSN: start &+ 4, expStatSN: 0),
            data: pattern(512)
        ).encoded()
        clients[1].send(bytes: Array(part.prefix(200)))
        clients[1].connection.peerClosed()
        bench.drainEvents()
        #expect(bench.events.suffix(2) == ["connection peerClosed", "abandoned 2"])
        #expect(!session.isEnded)
        #expect(bench.service.pool.lentByteCount == 0)
        for slot in ready { session.complete(slot, status: .good) }
        #expect(clients[0].receive().map(\.header.initiatorTaskTag) == [1])
        // The gaps are the initiator's to fill: with the same numbers, on a connection that lives.
        clients[0].command(tag: 3, flags: [.final, .read], expected: 1, cmdSN: start &+ 2)
        #expect(session.expCmdSN == start &+ 3, "the one that had come is discarded (RFC 7143 section 11.14)")
        clients[0].command(tag: 4, flags: [.final, .read], expected: 1, cmdSN: start &+ 3)
        clients[0].command(tag: 6, flags: [.final, .read], expected: 1, cmdSN: start &+ 4)
        #expect(clients[0].readyCommands().map { session.tasks[$0].initiatorTaskTag } == [3, 4, 6])
        #expect(session.expCmdSN == start &+ 5)
    }

    /// Section 11.14: also what is no command, and also where a login with its CID is what ends the connection.
    @Test func aConnectionThatIsReplacedTakesWithItWhatIsNotAcknowledged() {
        let (bench, clients) = severalConnections(2)
        let start = clients[0].cmdSN
        clients[1].command(tag: 2, flags: [.final, .read], expected: 1, cmdSN: start &+ 1)
        clients[1].send(.nopOut(tag: 3, cmdSN: start &+ 2, expStatSN: 0, isImmediate: false))
        let (again, _) = clients[0].join(cid: 1)
        clients[0].command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: start)
        #expect(clients[0].session.expCmdSN == start &+ 1)
        // The same commands once more are no duplicates.
        again.command(tag: 2, flags: [.final, .read], expected: 1, cmdSN: start &+ 1)
        again.send(.nopOut(tag: 3, cmdSN: start &+ 2, expStatSN: 0, isImmediate: false))
        #expect(clients[0].session.expCmdSN == start &+ 3)
        let ready = clients[0].readyCommands()
        #expect(ready.map { clients[0].session.tasks[$0].initiatorTaskTag } == [1, 2])
        for slot in ready { clients[0].session.complete(slot, status: .good) }
        #expect(Set(again.receive().map(\.header.opcode)) == [.scsiResponse, .nopIn])
        _ = bench
    }

    @Test func aTagOfAnEndedCommandCanBeUsedAtOnce() {
        let (bench, clients) = severalConnections(2)
        let session = clients[0].session
        clients[1].command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: clients[0].cmdSN)
        clients[0].cmdSN += 1
        let old = clients[0].readyCommands()[0]
        clients[1].connection.peerClosed()
        bench.drainEvents()
        clients[0].command(tag: 1, flags: [.final, .read], expected: 1)
        let new = clients[0].readyCommands()[0]
        session.aborted(old)
        #expect(session.slot(ofTag: 1) == new)
        clients[0].completeRead(new, [9])
        #expect(clients[0].receive().map(\.data) == [[9]])
    }

    @Test func aTargetMayGiveUpTheWholeSession() {
        let (bench, clients) = severalConnections(2, { $0.connectionLoss = .endSession(after: .milliseconds(1500)) })
        clients[1].connection.peerClosed()
        bench.drainEvents()
        let session = clients[0].session
        #expect(bench.service.nextDeadline(at: bench.now) == bench.now + .milliseconds(1500))
        bench.now = bench.now + .milliseconds(1499)
        bench.service.timerFired(at: bench.now)
        #expect(!session.isEnded)
        bench.now = bench.now + .milliseconds(1)
        bench.service.timerFired(at: bench.now)
        bench.drainEvents()
        #expect(session.isEnded)
        #expect(clients[0].connection.endReason == .dropped)
        #expect(bench.events.last == "ended connectionLost")
        #expect(!bench.service.hasAlarms)
    }

    @Test func aConnectionThatComesBackInTimeSavesTheSession() {
        let (bench, clients) = severalConnections(2, { $0.connectionLoss = .endSession(after: .milliseconds(1500)) })
        clients[1].connection.peerClosed()
        _ = bench.service.nextDeadline(at: bench.now)
        _ = clients[0].join(cid: 1)
        bench.now = bench.now + .seconds(2)
        bench.service.timerFired(at: bench.now)
        #expect(!clients[0].session.isEnded)
        #expect(clients[0].session.connectionCount == 2)
    }

    @Test func logoutOfOneConnectionLeavesTheOthers() {
        let (bench, clients) = severalConnections(3)
        #expect(clients[1].logOut(.closeConnection, cid: 1).map(\.header.logoutResponse) == [.closed])
        #expect(clients[1].connection.endReason == .loggedOut)
        #expect(clients[0].logOut(.closeConnection, cid: 1).map(\.header.logoutResponse) == [.connectionIDNotFound])
        #expect(clients[0].logOut(.removeConnectionForRecovery, cid: 2).map(\.header.logoutResponse) == [.recoveryNotSupported])
        #expect(clients[0].session.connectionCount == 2)
        #expect(clients[0].logOut(.closeConnection, cid: 0).map(\.header.logoutResponse) == [.closed])
        #expect(!clients[2].session.isEnded)
        #expect(clients[2].logOut(.closeSession, cid: 2).map(\.header.logoutResponse) == [.closed])
        #expect(bench.service.sessions.isEmpty)
    }

    /// The answer promises that nothing of the connection reaches the medium any more.
    @Test func aLogoutOfAnotherConnectionWaitsForItsCommands() {
        let (bench, clients) = severalConnections(2)
        clients[1].command(tag: 1, flags: [.final, .read], expected: 1, cmdSN: clients[0].cmdSN)
        clients[0].cmdSN += 1
        let slot = clients[0].readyCommands()[0]
        #expect(clients[0].logOut(.closeConnection, cid: 1).isEmpty)
        #expect(clients[1].connection.endReason == .loggedOut)
        #expect(bench.events.contains("abandoned 1"))
        clients[0].session.aborted(slot)
        #expect(clients[0].receive().map(\.header.logoutResponse) == [.closed])
    }

    @Test func asyncMessagesGoToTheirConnection() {
        let (_, clients) = severalConnections(2)
        let messages: [AsyncMessage] = [
            .logoutRequested(withinSeconds: 3), .connectionDrops(connectionID: 0, time2Wait: 2, time2Retain: 20),
            .sessionDrops(time2Wait: 2, time2Retain: 0), .negotiationRequested(withinSeconds: 5),
        ]
        for message in messages { clients[1].connection.sendAsyncMessage(message) }
        #expect(clients[0].receive().isEmpty)
        let pdus = clients[1].receive()
        #expect(pdus.map { AsyncMessage($0.header) } == messages)
        #expect(Set(pdus.map(\.header.statSN)).count == 4, "each has a number of its own")
    }
}

@Suite struct TargetManagementAcrossConnectionsTests {
    private func command(_ client: BenchClient, _ tag: UInt32, _ cmdSN: UInt32) {
        client.command(tag: tag, flags: [.final, .read], expected: 1, cmdSN: cmdSN)
    }

    private func actions(_ session: TargetSession) -> [String] {
        var order: [String] = []
        while let action = session.nextAction() {
            switch action {
            case .command(let slot): order.append("command \(session.tasks[slot].initiatorTaskTag)")
            case .management(let request):
                order.append("\(request.function) sparing \(request.sparedSlots.map { session.tasks[$0].initiatorTaskTag })")
            }
        }
        return order
    }

    @Test func abortTaskSetWaitsForTheCommandsBeforeIt() {
        let (_, clients) = severalConnections(2)
        let start = clients[0].cmdSN
        // Immediate: it has the number of the command that comes next.
        clients[0].manage(.abortTaskSet, cmdSN: start &+ 2)
        #expect(actions(clients[0].session).isEmpty)
        command(clients[1], 1, start)
        command(clients[1], 2, start &+ 1)
        command(clients[1], 3, start &+ 2)
        #expect(actions(clients[0].session) == ["command 1", "command 2", "abortTaskSet sparing []", "command 3"])
    }

    @Test func commandsBehindAnAbortTaskSetAreSpared() {
        let (_, clients) = severalConnections(2)
        let start = clients[0].cmdSN
        command(clients[1], 1, start)
        command(clients[1], 2, start &+ 1)
        command(clients[1], 3, start &+ 2)
        clients[0].manage(.abortTaskSet, cmdSN: start &+ 1)
        #expect(
            actions(clients[0].session) == ["command 1", "command 2", "command 3", "abortTaskSet sparing [2, 3]"])
    }

    @Test func abortTaskFillsTheGapOfACommandThatDidNotCome() {
        let (_, clients) = severalConnections(2)
        let start = clients[0].cmdSN
        command(clients[0], 2, start &+ 1)
        #expect(clients[0].readyCommands().isEmpty)
        let answer = clients[0].manage(.abortTask, of: 1, refCmdSN: start, cmdSN: start &+ 2)
        #expect(answer.map(\.header.taskManagementResponse) == [.functionComplete])
        #expect(clients[0].readyCommands().count == 1, "the next one has its turn")
        command(clients[1], 1, start)
        #expect(clients[0].readyCommands().isEmpty, "and what comes after all is ignored")
        // Outside of the window.
        let other = clients[0].manage(.abortTask, of: 7, refCmdSN: start, cmdSN: start &+ 2)
        #expect(other.map(\.header.taskManagementResponse) == [.taskDoesNotExist])
    }

    @Test func aTargetResetCountsWhatDidNotComeAsCome() {
        let (_, clients) = severalConnections(2)
        let start = clients[0].cmdSN
        clients[0].manage(.targetWarmReset, cmdSN: start &+ 3)
        #expect(clients[0].session.expCmdSN == start &+ 3)
        #expect(actions(clients[0].session) == ["targetWarmReset sparing []"])
    }

    /// RFC 7143 section 4.2.2.3.3.
    @Test func anAnswerThatConcernsManyTasksWaitsUntilEarlierResultsAreConfirmed() {
        let (_, clients) = severalConnections(2)
        let session = clients[0].session
        let start = clients[0].cmdSN
        command(clients[1], 1, start)
        let slot = clients[0].readyCommands()[0]
        clients[0].cmdSN = start &+ 1
        clients[0].manage(.abortTaskSet)
        session.complete(slot, status: .good)
        guard case .management(let request) = session.nextAction() else {
            Issue.record("no request")
            return
        }
        session.finishManagement(request.token, response: .functionComplete)
        #expect(clients[0].receive().isEmpty)
        let result = clients[1].receive()
        #expect(result.map(\.header.opcode) == [.scsiResponse, .nopIn], "the result, and a question whether it came")
        #expect(clients[0].receive().isEmpty)
        clients[1].confirm(result[0].header.statSN &+ 1)
        #expect(clients[0].receive().map(\.header.opcode) == [.taskManagementResponse])
    }

    @Test func aFenceDoesNotWaitForAConnectionThatIsGone() {
        let (bench, clients) = severalConnections(2)
        let session = clients[0].session
        command(clients[1], 1, clients[0].cmdSN)
        clients[0].cmdSN += 1
        session.complete(clients[0].readyCommands()[0], status: .good)
        clients[0].manage(.logicalUnitReset)
        guard case .management(let request) = session.nextAction() else {
            Issue.record("no request")
            return
        }
        session.finishManagement(request.token, response: .functionComplete)
        #expect(clients[0].receive().isEmpty)
        clients[1].connection.peerClosed()
        bench.drainEvents()
        #expect(clients[0].receive().map(\.header.opcode) == [.taskManagementResponse])
    }

    @Test func reassignmentIsNotForLevelZero() {
        let (_, clients) = severalConnections(2)
        let answer = clients[0].manage(.taskReassign, of: 1)
        #expect(answer.map(\.header.taskManagementResponse) == [.reassignmentNotSupported])
    }
}

@Suite struct TargetEndingConnectionTests {
    /// What was named to be sent is still sent from after a logout: its memory is nobody else's until then.
    @Test func dataThatIsOnItsWayStaysWhatItWas() {
        let (bench, clients) = severalConnections(1) { $0.operational.maxRecvDataSegmentByteCount = 512 }
        let client = clients[0]
        let data = pattern(1 << 20)
        client.command(tag: 1, flags: [.final, .read], expected: data.count)
        client.completeRead(client.readyCommands()[0], data)
        // More pieces than the queue takes at a time.
        client.send(.logoutRequest(.closeSession, connectionID: 0, tag: 2, cmdSN: client.cmdSN, expStatSN: 0))
        #expect(bench.service.sessions.isEmpty)
        #expect(bench.service.pool.lentByteCount == 1 << 20, "still named")
        let other = bench.service.pool.allocate(byteCount: 1 << 20)!
        other.base!.initializeMemory(as: UInt8.self, repeating: 0xEE, count: 1 << 20)
        let pdus = client.receive()
        let sent = pdus.dropLast().flatMap(\.data)
        #expect(pdus.last?.header.opcode == .logoutResponse)
        #expect(sent.count > 100_000)
        let isWhole = sent == Array(data.prefix(sent.count))
        #expect(isWhole)
        bench.service.pool.release(other)
    }

    @Test func anInitiatorCannotHaveMemoryKeptForAnHour() {
        let (bench, clients) = severalConnections(2, level: 2) { $0.operational.defaultTime2Wait = 3600 }
        #expect(clients[0].parameters.defaultTime2Wait == 3600)
        clients[1].connection.peerClosed()
        #expect(bench.service.nextDeadline(at: bench.now) == bench.now + .seconds(120))
    }

    @Test func whereThereIsNoRoomASessionWithoutConnectionsGoesFirst() {
        let bench = TargetBench {
            $0.maximumSessions = 2
            $0.operational.errorRecoveryLevel = 2
        }
        func logIn(_ qualifier: UInt16) -> (BenchClient, LoginAction) {
            let client = bench.client()
            let action = client.logIn(isid: .random(1, qualifier: qualifier)) { $0.operational.errorRecoveryLevel = 2 }
            return (client, action)
        }
        let (first, _) = logIn(1)
        _ = logIn(2)
        #expect(status(logIn(3).1) == .outOfResources)
        first.connection.peerClosed()
        bench.drainEvents()
        #expect(bench.service.sessions.count == 2)
        #expect(status(logIn(3).1) == nil)
        #expect(bench.service.sessions.count == 2)
        #expect(bench.events.contains("ended connectionLost"))
    }
}
