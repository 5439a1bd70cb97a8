import SCSI
import Testing
import Timebase

@testable import ISCSI

/// A target that answers pings and does not serve: what is given up for it, and what is not.
@Suite struct SessionWatchTests {
    let memory = UnsafeMutableRawBufferPointer.filled(8192)
    let lun = LogicalUnitNumber(index: 3)!

    /// Time passes in small steps, in which the target answers the pings on these connections.
    private func pass(_ rig: MultiConnectionRig, _ duration: Duration, answering indices: [Int], transport: (Int) -> TransportReport = { _ in .idle }) {
        for step in 0..<Int(duration / .milliseconds(500)) where rig.failure == nil {
            rig.pass(.milliseconds(500), transport: transport(step))
            for index in indices where rig.isOpen(index) { answerPings(rig, index) }
        }
    }

    private func answerPings(_ rig: MultiConnectionRig, _ index: Int) {
        for pdu in rig.sent(index) where pdu.opcode == .nopOut && pdu.header.isImmediate { rig.answer(nop: pdu, index) }
    }

    // MARK: the command window

    @Test(arguments: [1, 2]) func aSessionWhoseTargetWaitsForANumberThatNobodySendsEnds(connections: Int) {
        let rig = MultiConnectionRig(connections)
        // The target did not count the first.
        for token in 1...3 { rig.submit(.none, token: UInt64(token), on: token % connections) }
        for index in 0..<connections { _ = rig.sent(index) }
        pass(rig, .seconds(29), answering: [0, 1])
        #expect(rig.failure == nil)
        pass(rig, .seconds(10), answering: [0, 1])
        #expect(rig.failure == .commandNotTaken)
        #expect(rig.ended == [1, 2, 3])
    }

    @Test func theTimeBeginsAnewWithEachCommandThatIsTaken() {
        let rig = MultiConnectionRig(1)
        for token in 1...4 { rig.submit(.none, token: UInt64(token), on: 0) }
        _ = rig.sent(0)
        for _ in 0..<4 {
            pass(rig, .seconds(20), answering: [0])
            rig.expCmdSN += 1
        }
        pass(rig, .seconds(300), answering: [0])
        #expect(rig.failure == nil)
    }

    @Test func aDiskMayBeAsSlowAsItLikes() {
        let rig = MultiConnectionRig(2)
        for token in 1...8 { rig.submit(.write, token: UInt64(token), on: token % 2, memory: memory) }
        _ = rig.sent(0) + rig.sent(1)
        rig.expCmdSN = 108
        pass(rig, .seconds(3600), answering: [0, 1])
        #expect(rig.failure == nil && rig.outstandingCommandCount == 8)
        #expect(rig.events.contains(.slow(rig.c(0), isSlow: true)))
    }

    @Test func aCommandThatDripsThroughTheNetworkIsNotMissed() {
        let rig = MultiConnectionRig(1)
        rig.submit(.write, token: 1, on: 0, memory: memory)
        _ = rig.sent(0)
        // A hundred bytes in half a second; the pings wait behind them.
        let transport = { (step: Int) in
            TransportReport(
                unacknowledgedByteCount: 8300 - 100 * step, sinceLastAcknowledgement: .milliseconds(200), unansweredRetransmissions: 0)
        }
        pass(rig, .seconds(38), answering: [], transport: transport)
        #expect(rig.failure == nil)
        rig.expCmdSN = 101
        answerPings(rig, 0)
        pass(rig, .seconds(60), answering: [0])
        #expect(rig.failure == nil)
    }

    @Test func whileAConnectionIsStalledNothingIsConcluded() {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 1)  // 100, on the silent one
        rig.submit(.none, token: 2, on: 0)
        _ = rig.sent(0) + rig.sent(1)
        pass(rig, .seconds(10), answering: [0])
        // The other one speaks: so it is the connection that is given up, and the session goes on.
        #expect(rig.failure == nil)
        #expect(rig.events.contains(.connectionLost(rig.c(1), .silent)))
    }

    @Test func aWindowThatStaysShutEndsTheSessionAfterTwiceTheCommandTimeout() {
        let rig = MultiConnectionRig(1, window: 2)
        for token in 1...2 { rig.submit(.none, token: UInt64(token), on: 0) }
        _ = rig.sent(0)
        rig.expCmdSN = 102
        #expect(rig.submit(.none, token: 3, on: 0).isWindowFull)
        pass(rig, .seconds(119), answering: [0])
        #expect(rig.failure == nil)
        pass(rig, .seconds(20), answering: [0])
        #expect(rig.failure == .windowShut)
    }

    @Test func oneCommandThatIsLetInIsEnough() {
        let rig = MultiConnectionRig(1, window: 2)
        for token in 1...2 { rig.submit(.none, token: UInt64(token), on: 0) }
        var open = rig.sent(0).map(\.header.initiatorTaskTag)
        for token in 3...8 {
            rig.expCmdSN = 100 + UInt32(token) - 1
            #expect(rig.submit(.none, token: UInt64(token), on: 0).isWindowFull)
            pass(rig, .seconds(100), answering: [0])
            rig.maxCmdSN += 1
            rig.good(0, open.removeFirst())
            #expect(rig.submit(.none, token: UInt64(token), on: 0).isAccepted)
            open += rig.sent(0).filter { $0.opcode == .scsiCommand }.map(\.header.initiatorTaskTag)
        }
        #expect(rig.failure == nil && rig.completions.count == 6)
    }

    @Test func aShutWindowThatNobodyWaitsForIsNoMatter() {
        let rig = MultiConnectionRig(1, window: 2)
        for token in 1...2 { rig.submit(.none, token: UInt64(token), on: 0) }
        _ = rig.sent(0)
        rig.expCmdSN = 102
        pass(rig, .seconds(600), answering: [0])
        #expect(rig.failure == nil)
    }

    @Test func whereNothingIsOwedTheTargetIsAskedForItsWindow() {
        let rig = MultiConnectionRig(1, window: 1)
        rig.submit(.none, token: 1, on: 0)
        rig.expCmdSN = 101
        rig.good(0, rig.sent(0)[0].header.initiatorTaskTag)
        #expect(rig.submit(.none, token: 2, on: 0).isWindowFull)
        // The word of it was lost. An idle session would be asked after half a minute.
        rig.maxCmdSN = 101
        pass(rig, .seconds(10), answering: [0])
        #expect(rig.events.contains(.windowOpened))
        #expect(rig.submit(.none, token: 2, on: 0).isAccepted)
    }

    @Test func withoutACommandTimeoutNothingIsOverdue() {
        let rig = MultiConnectionRig(1, window: 2)
        rig.adoptCommandTimeout(.zero)
        for token in 1...2 { rig.submit(.none, token: UInt64(token), on: 0) }
        _ = rig.sent(0)
        rig.submit(.none, token: 3, on: 0)
        pass(rig, .seconds(600), answering: [0])
        #expect(rig.failure == nil)
        #expect(!rig.events.contains(.commandOverdue(token: 1)))
        #expect(rig.nextDeadline > rig.now)
    }

    // MARK: requests without a CmdSN

    private func reset(_ rig: MultiConnectionRig, on index: Int, token: UInt64 = 9) -> UInt32? {
        guard rig.submitReset(token: token, lun: lun, on: index) else { return nil }
        return rig.sent(index).first { $0.opcode == .taskManagementRequest }?.header.initiatorTaskTag
    }

    @Test(arguments: [1, 2]) func aFunctionThatTheTargetDroppedEndsItsConnection(level: Int) {
        let rig = MultiConnectionRig(3, level: level)
        rig.useHeaderDigests()
        #expect(reset(rig, on: 1) != nil)
        pass(rig, .milliseconds(3500), answering: [0, 1, 2])
        #expect(rig.events.isEmpty)
        pass(rig, .seconds(2), answering: [0, 1, 2])
        #expect(rig.events.prefix(2) == [.taskManagementAbandoned(token: 9), .connectionLost(rig.c(1), .requestUnanswered)])
        #expect(rig.failure == nil && rig.isOpen(0) && rig.isOpen(2))
    }

    @Test func oneThatWasNotReadYetIsNotDropped() {
        let rig = MultiConnectionRig(2, level: 2)
        rig.useHeaderDigests()
        _ = reset(rig, on: 1)
        pass(rig, .seconds(10), answering: [0])
        #expect(rig.events.contains(.connectionLost(rig.c(1), .silent)), "silence is judged as ever")
        #expect(!rig.events.contains(.connectionLost(rig.c(1), .requestUnanswered)))
    }

    @Test func anAnswerInTimeIsAnAnswer() throws {
        let rig = MultiConnectionRig(2, level: 2)
        rig.useHeaderDigests()
        let tag = try #require(reset(rig, on: 1))
        pass(rig, .seconds(3), answering: [0, 1])
        rig.put(1, .taskManagementResponse(.functionComplete, tag: tag, numbers: rig.numbers(1)))
        pass(rig, .seconds(60), answering: [0, 1])
        #expect(rig.events == [.taskManagementCompleted(token: 9, .functionComplete)])
    }

    @Test func aTargetThatTakesItsTimeIsGivenMoreWithEachConnection() throws {
        let rig = MultiConnectionRig(3, level: 2)
        rig.useHeaderDigests()
        _ = reset(rig, on: 1)
        pass(rig, .milliseconds(5500), answering: [0, 1, 2])
        #expect(rig.events.contains(.connectionLost(rig.c(1), .requestUnanswered)))
        rig.session.beginRecovery(rig.c(1), at: rig.now)
        rig.drain()
        let logout = try #require(rig.sent(0).first { $0.opcode == .logoutRequest })
        rig.put(0, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.recoveryCount == 0)
        rig.events = []
        _ = reset(rig, on: 2)
        pass(rig, .milliseconds(7500), answering: [0, 2])
        #expect(rig.events.isEmpty)
        pass(rig, .seconds(2), answering: [0, 2])
        #expect(rig.events.contains(.connectionLost(rig.c(2), .requestUnanswered)))
    }

    @Test(arguments: [true, false]) func whereNothingIsDroppedWithoutAWordItMayTakeItsTime(hasDigests: Bool) {
        let rig = MultiConnectionRig(2, level: hasDigests ? 0 : 2)
        if hasDigests { rig.useHeaderDigests() }
        _ = reset(rig, on: 1)
        pass(rig, .seconds(300), answering: [0, 1])
        #expect(rig.events.isEmpty && rig.failure == nil)
    }

    @Test func theOnlyConnectionOfALevelOneSessionIsNotGivenUp() {
        let rig = MultiConnectionRig(1, level: 1)
        rig.useHeaderDigests()
        _ = reset(rig, on: 0)
        pass(rig, .seconds(300), answering: [0])
        #expect(rig.events.isEmpty && rig.failure == nil)
    }

    @Test func aFunctionThatWaitsForCommandsBeforeItIsNotDropped() {
        let rig = MultiConnectionRig(2, level: 2)
        rig.useHeaderDigests()
        rig.submit(.none, token: 1, on: 0)  // 100: not counted yet
        _ = rig.sent(0)
        _ = reset(rig, on: 1)
        pass(rig, .seconds(20), answering: [0, 1])
        #expect(!rig.events.contains { if case .connectionLost = $0 { true } else { false } })
        #expect(rig.failure == nil)
    }

    @Test func aTaskReassignThatIsDroppedIsSentAgain() throws {
        let rig = MultiConnectionRig(3, level: 2)
        rig.useHeaderDigests()
        func logOut(via: Int) throws {
            let logout = try #require(rig.sent(via).first { $0.opcode == .logoutRequest })
            rig.put(via, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, numbers: rig.numbers(via)))
        }
        func reassignment(_ indices: [Int]) -> (index: Int, header: BasicHeaderSegment)? {
            for index in indices {
                for pdu in rig.sent(index) where pdu.header.taskManagementFunction == .taskReassign
                    && pdu.opcode == .taskManagementRequest { return (index, pdu.header) }
            }
            return nil
        }
        rig.submit(.write, token: 1, on: 1, memory: memory)
        let command = rig.sent(1)[0].header
        rig.expCmdSN = 101
        rig.cut(1)
        try logOut(via: 0)
        let first = try #require(reassignment([0, 2]))
        pass(rig, .milliseconds(5500), answering: [0, 2])
        #expect(rig.events.contains(.connectionLost(rig.c(first.index), .requestUnanswered)))
        let other = 2 - first.index
        rig.session.beginRecovery(rig.c(first.index), at: rig.now)
        try logOut(via: other)
        let second = try #require(reassignment([other]))
        #expect(second.header.referencedTaskTag == command.initiatorTaskTag)
        rig.put(other, .taskManagementResponse(.functionComplete, tag: second.header.initiatorTaskTag, numbers: rig.numbers(other)))
        rig.good(other, command.initiatorTaskTag)
        #expect(rig.completions.map(\.token) == [1] && rig.failure == nil)
    }
}
