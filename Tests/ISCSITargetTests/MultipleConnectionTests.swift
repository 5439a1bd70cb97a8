import AsyncIO
import ISCSI
import SCSI
import TestSupport
import Testing

@testable import ISCSITarget

/// Sessions of several connections, over real sockets.
@Suite(.serialized) struct MultipleConnectionTests {
    private func running(
        _ change: @escaping @Sendable (inout TargetConfiguration) -> Void = { _ in }
    ) throws -> RunningTarget {
        try RunningTarget(portalCount: 2, units: ["0=memory,size=16M"]) {
            $0.maximumConnectionsPerSession = 4
            for index in $0.portals.indices { $0.portals[index].groupTag = 1 }
            change(&$0)
        }
    }

    private func two(_ running: RunningTarget, level: Int = 0) throws -> (WireInitiator, WireInitiator) {
        let first = try WireInitiator(running.portals[0], level: level)
        let second = try WireInitiator(running.portals[1], session: first, cid: 1, level: level)
        try first.settle()
        return (first, second)
    }

    private func set(_ running: RunningTarget, _ text: String) throws {
        let fault = try FaultCommand(parsing: text)
        _ = try running.onTarget { try $0.setFault(fault) }
    }

    @Test func commandsOvertakeOneAnotherAndRunInTheirOrder() throws {
        let running = try running()
        let (first, second) = try two(running)
        #expect(try running.onTarget { $0.sessionCount } == 1)
        let start = first.cmdSN
        // The read has the later number and comes first.
        try second.read(2, lba: 7, cmdSN: start &+ 1)
        #expect(throws: WireInitiator.Silent.self) { try second.receive(within: 50) }
        try first.write(1, lba: 7, fill: 0xAB, cmdSN: start)
        #expect(try first.receive().header.opcode == .scsiResponse)
        let answer = try second.receive()
        #expect(answer.header.initiatorTaskTag == 2)
        #expect(answer.data == Array(repeating: 0xAB, count: 512))
        let counts = try running.onTarget { ($0.counters(portal: 0), $0.counters(portal: 1)) }
        #expect(counts.0.writes == 1 && counts.1.reads == 1, "each is counted where it came from")
        try running.stop()
    }

    @Test func aFaultStrikesOneConnection() throws {
        let running = try running()
        let (first, second) = try two(running)
        var next = first.cmdSN
        try set(running, "silence:connection=1,for=300ms")
        try second.send(.nopOut(tag: 1, cmdSN: next, expStatSN: 0))
        try first.send(.nopOut(tag: 1, cmdSN: next, expStatSN: 0))
        #expect(try first.receive().header.opcode == .nopIn)
        #expect(throws: WireInitiator.Silent.self) { try second.receive(within: 50) }
        #expect(try second.receive().header.opcode == .nopIn, "until its time is over")

        try set(running, "busy:connection=1")
        try first.read(2, lba: 0, cmdSN: next)
        try second.read(3, lba: 0, cmdSN: next &+ 1)
        next &+= 2
        #expect(try first.receive().header.status == .good)
        #expect(try second.receive().header.status == .busy)
        try running.onTarget { $0.clearFaults() }

        try set(running, "reset:connection=1")
        #expect(throws: WireInitiator.Gone.self) { try second.receive() }
        try first.read(4, lba: 0, cmdSN: next)
        #expect(try first.receive().header.status == .good, "the session lives on")
        #expect(throws: FaultParseError.optionNotAllowed("connection", kind: "refuse")) {
            try FaultCommand(parsing: "refuse:connection=1")
        }
        try running.stop()
    }

    @Test func theWholeSessionMayEndWithOneConnection() throws {
        let running = try running { $0.connectionLoss = .endSession(after: .milliseconds(300)) }
        let (first, _) = try two(running)
        try running.onTarget { $0.dropConnections(portal: 1, connectionID: 1) }
        try first.send(.nopOut(tag: 1, cmdSN: first.cmdSN, expStatSN: 0))
        #expect(try first.receive().header.opcode == .nopIn, "not at once")
        #expect(throws: WireInitiator.Gone.self) { try first.receive() }
        #expect(try running.onTarget { $0.sessionCount } == 0)
        try running.stop()
    }

    /// At level 0 a write of a lost connection must not land over what took its place.
    @Test func aLostConnectionsWaitingWriteIsAborted() throws {
        let running = try running()
        let (first, second) = try two(running)
        let start = first.cmdSN
        try set(running, "delay=400ms:connection=1")
        try second.write(1, lba: 3, fill: 1, cmdSN: start)
        try first.send(.nopOut(tag: 5, cmdSN: start &+ 1, expStatSN: 0, isImmediate: false))
        #expect(try first.receive().header.opcode == .nopIn, "the write has come")
        try running.onTarget { $0.dropConnections(portal: 1) }
        try first.write(2, lba: 3, fill: 2, cmdSN: start &+ 2)
        #expect(try first.receive().header.status == .good)
        #expect(throws: WireInitiator.Silent.self) { try first.receive(within: 600) }
        try first.read(3, lba: 3, cmdSN: start &+ 3)
        #expect(try first.receive().data == Array(repeating: 2, count: 512))
        try running.stop()
    }

    @Test func atLevelTwoACommandMovesToAnotherConnection() throws {
        let running = try running { $0.errorRecoveryLevel = 2 }
        let (first, second) = try two(running, level: 2)
        let start = first.cmdSN
        try first.write(1, lba: 9, fill: 0x5A, cmdSN: start)
        #expect(try first.receive().header.status == .good)
        try set(running, "delay=300ms:connection=1")
        try second.read(2, lba: 9, cmdSN: start &+ 1)
        try first.send(.nopOut(tag: 5, cmdSN: start &+ 2, expStatSN: 0, isImmediate: false))
        #expect(try first.receive().header.opcode == .nopIn)
        try running.onTarget { $0.dropConnections(portal: 1) }
        try first.send(.logoutRequest(.removeConnectionForRecovery, connectionID: 1, tag: 6, cmdSN: start &+ 3, expStatSN: 0))
        #expect(try first.receive().header.logoutResponse == .closed)
        try first.send(
            .taskManagementRequest(
                .taskReassign, lun: WireInitiator.lun, tag: 7, referencedTaskTag: 2, cmdSN: start &+ 3, expStatSN: 0))
        #expect(try first.receive().header.taskManagementResponse == .functionComplete)
        let answer = try first.receive()
        #expect(answer.header.initiatorTaskTag == 2 && answer.data == Array(repeating: 0x5A, count: 512))
        try running.stop()
    }

    @Test func asyncMessagesNameTheirConnection() throws {
        let running = try running()
        let (first, second) = try two(running)
        try running.onTarget { target in
            for portal in 0...1 {
                target.sendAsyncMessage(.connectionDrops(connectionID: 1, time2Wait: 2, time2Retain: 20), portal: portal, connectionID: 1)
            }
        }
        let message = AsyncMessage(try second.receive().header)
        #expect(message == .connectionDrops(connectionID: 1, time2Wait: 2, time2Retain: 20))
        #expect(throws: WireInitiator.Silent.self) { try first.receive(within: 50) }
        try running.stop()
    }
}
