import SCSI
import Testing
import Timebase

@testable import ISCSI

/// Silence timeout 2 s, command timeout 60 s, verify period 30 s: the defaults.
@Suite struct InitiatorSessionLivenessTests {
    /// TCP has acknowledged everything a while ago.
    private let acknowledged = TransportReport.idle

    @Test func halfTheSilenceTimeoutSendsAPingAndAnAnswerKeepsTheSession() {
        let rig = SessionRig()
        #expect(rig.session.nextDeadline == rig.now + .seconds(30))
        rig.submit(.none, token: 1)
        _ = rig.sent()
        #expect(rig.session.nextDeadline == rig.now + .seconds(1))
        rig.pass(.milliseconds(999))
        #expect(rig.sent().isEmpty)
        rig.pass(.milliseconds(1))
        let ping = rig.sent()
        #expect(ping.map(\.opcode) == [.nopOut])
        rig.pass(.milliseconds(500))
        rig.send(.nopIn(tag: ping[0].header.initiatorTaskTag, numbers: rig.nextNumbers()))
        rig.pass(.milliseconds(400))
        #expect(rig.events.isEmpty, "no command moved for 1.9 s")
        rig.pass(.milliseconds(100))
        #expect(rig.events == [.slow(.leading, isSlow: true)])
        #expect(rig.failure == nil)
    }

    @Test func silenceCountsFromWhenSomethingWasOwed() {
        let rig = SessionRig()
        rig.pass(.seconds(20))
        rig.submit(.none, token: 1)
        _ = rig.sent()
        #expect(rig.session.nextDeadline == rig.now + .seconds(1))
        rig.pass(.milliseconds(999))
        #expect(rig.sent().isEmpty && rig.events.isEmpty)
        rig.pass(.milliseconds(1))
        #expect(rig.sent().map(\.opcode) == [.nopOut])
    }

    @Test func unacknowledgedMeansDead() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        _ = rig.sent()
        rig.pass(.seconds(1))
        _ = rig.sent()
        rig.pass(.milliseconds(999), transport: .gone)
        #expect(rig.failure == nil)
        rig.pass(.milliseconds(1), transport: .gone)
        #expect(rig.events == [.commandAbandoned(token: 1, wasSent: true), .sessionFailed(.dead)])
    }

    @Test func acknowledgedButMuteMeansStalledUntilTheNextByte() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        let tag = rig.sent()[0].header.initiatorTaskTag
        rig.pass(.seconds(1))
        _ = rig.sent()
        rig.pass(.seconds(1))
        #expect(rig.events == [.stalled(.leading)])
        guard case .loggedIn = rig.session.state else {
            Issue.record("a stalled session is kept")
            return
        }
        #expect(rig.submit(.none, token: 2).isAccepted, "and may be used where there is no other")
        rig.pass(.seconds(20))
        #expect(rig.events == [.stalled(.leading)], "said once")
        rig.send(.scsiResponse(tag: tag, status: .good, numbers: rig.nextNumbers()))
        #expect(rig.events == [.stalled(.leading), .resumed(.leading)])
        #expect(rig.completions.map(\.token) == [1])
    }

    @Test func stalledForTheCommandTimeoutFails() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        _ = rig.sent()
        rig.pass(.seconds(1))
        rig.pass(.seconds(1))
        rig.events = []
        for _ in 0..<59 { rig.pass(.seconds(1)) }
        #expect(rig.failure == nil)
        rig.pass(.seconds(1))
        #expect(rig.events.contains(.commandAbandoned(token: 1, wasSent: true)))
        #expect(rig.failure == .commandTimeout)
    }

    @Test func stalledThenUnacknowledgedFailsAsDead() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        _ = rig.sent()
        rig.pass(.seconds(1))
        rig.pass(.seconds(1))
        #expect(rig.failure == nil)
        rig.pass(.seconds(1), transport: .gone)
        #expect(rig.failure == .dead)
    }

    /// Such a target waits for the rest of a PDU whose length was damaged on the way (simulator seed 6027895): each of its own
    /// pings looks like life.
    @Test func aTargetThatPingsButAnswersNothingIsGivenUp() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        _ = rig.sent()
        rig.pass(.seconds(1))
        #expect(rig.sent().map(\.opcode) == [.nopOut])
        for second in 2...61 {
            rig.pass(.seconds(1))
            #expect(rig.failure == nil, "after \(second) s")
            guard second % 10 == 0 else { continue }
            rig.send(.nopIn(targetTransferTag: UInt32(second), numbers: rig.numbers))
            _ = rig.sent()
        }
        rig.pass(.seconds(1))
        #expect(rig.failure == .commandTimeout)
        #expect(rig.events.contains(.commandAbandoned(token: 1, wasSent: true)))
    }

    @Test func slowEndsWithTheNextProgress() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        let tag = rig.sent()[0].header.initiatorTaskTag
        for _ in 0..<3 {
            rig.pass(.seconds(1))
            for pdu in rig.sent() {
                rig.send(.nopIn(tag: pdu.header.initiatorTaskTag, numbers: rig.nextNumbers()))
            }
        }
        #expect(rig.events == [.slow(.leading, isSlow: true)])
        rig.send(.scsiResponse(tag: tag, status: .good, numbers: rig.nextNumbers()))
        #expect(rig.events == [.slow(.leading, isSlow: true), .slow(.leading, isSlow: false)])
    }

    @Test func aSlowTargetsCommandIsNamedOnceWhenOverdue() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        _ = rig.sent()
        rig.pass(.milliseconds(500))
        rig.submit(.none, token: 2)
        // It has counted them as received; what takes its time is the disk.
        rig.expCmdSN = 102
        for _ in 0..<140 {
            for pdu in rig.sent() where pdu.opcode == .nopOut {
                rig.send(.nopIn(tag: pdu.header.initiatorTaskTag, numbers: rig.nextNumbers()))
            }
            rig.pass(.milliseconds(500))
        }
        #expect(rig.events == [.slow(.leading, isSlow: true), .commandOverdue(token: 1), .commandOverdue(token: 2)])
        #expect(rig.failure == nil)
    }

    @Test func aCommandAfterTheOverdueOnesIsNamedInItsTurn() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        rig.expCmdSN = 101
        func keepAlive(_ seconds: Int) {
            for _ in 0..<seconds {
                for pdu in rig.sent() where pdu.opcode == .nopOut {
                    rig.send(.nopIn(tag: pdu.header.initiatorTaskTag, numbers: rig.nextNumbers()))
                }
                rig.pass(.seconds(1))
            }
        }
        keepAlive(61)
        rig.submit(.none, token: 2)
        rig.expCmdSN = 102
        keepAlive(59)
        #expect(!rig.events.contains(.commandOverdue(token: 2)))
        keepAlive(2)
        #expect(rig.events.suffix(2) == [.commandOverdue(token: 1), .commandOverdue(token: 2)])
        // A reset that ends them is progress.
        #expect(rig.taskManagement(.logicalUnitReset, token: 3))
        let request = rig.sent().first { $0.opcode == .taskManagementRequest }
        rig.send(.taskManagementResponse(.functionComplete, tag: request?.header.initiatorTaskTag ?? 0, numbers: rig.nextNumbers()))
        #expect(rig.events.contains(.slow(.leading, isSlow: false)))
        #expect(rig.completions.map(\.token) == [1, 2])
    }

    @Test func anIdleConnectionIsAskedEveryPeriodAndJudgedTheSameWay() {
        let rig = SessionRig()
        for _ in 0..<3 {
            rig.pass(.seconds(30))
            let ping = rig.sent()
            #expect(ping.map(\.opcode) == [.nopOut])
            rig.send(.nopIn(tag: ping[0].header.initiatorTaskTag, numbers: rig.nextNumbers()))
        }
        #expect(rig.events.isEmpty)
        rig.pass(.seconds(30))
        _ = rig.sent()
        rig.pass(.seconds(2))
        #expect(rig.events == [.stalled(.leading)])
        let dead = SessionRig()
        dead.pass(.seconds(30))
        _ = dead.sent()
        dead.pass(.seconds(2), transport: .gone)
        #expect(dead.failure == .dead)
    }

    /// The target has us answer its pings and reads none of it: there is no room to ask it anything.
    @Test func anIdleConnectionThatCannotBeAskedIsGivenUpWithoutHaste() {
        for (transport, expected) in [(TransportReport.idle, SessionFailure.commandTimeout), (.gone, .dead)] {
            let rig = SessionRig()
            while rig.session.connections[0].hasRoomForControl(dataByteCount: 0) {
                rig.send(.nopIn(targetTransferTag: 1, numbers: rig.numbers))
            }
            let start = rig.now
            var turns = 0
            while rig.failure == nil, turns < 1000 {
                let deadline = rig.session.nextDeadline
                #expect(deadline > rig.now || turns == 0, "it would be due at every turn")
                rig.now = max(rig.now, deadline)
                rig.pass(.zero, transport: transport)
                turns += 1
            }
            #expect(rig.failure == expected && turns < 100)
            let waited = rig.now - start
            #expect(expected == .dead ? waited == .seconds(30) : waited >= .seconds(90) && waited <= .seconds(92), "\(waited)")
        }
    }

    /// With room again it is asked as ever.
    @Test func aConnectionThatCouldNotBeAskedForAWhileIsAskedThen() {
        let rig = SessionRig()
        while rig.session.connections[0].hasRoomForControl(dataByteCount: 0) {
            rig.send(.nopIn(targetTransferTag: 1, numbers: rig.numbers))
        }
        for _ in 0..<20 { rig.pass(.seconds(2)) }
        #expect(rig.failure == nil)
        _ = rig.sent()
        rig.pass(.seconds(2))
        let ping = rig.sent()
        #expect(ping.map(\.opcode) == [.nopOut])
        rig.send(.nopIn(tag: ping[0].header.initiatorTaskTag, numbers: rig.nextNumbers()))
        #expect(rig.session.nextDeadline == rig.now + .seconds(30))
        #expect(rig.events.isEmpty)
    }

    @Test func bytesOfALongAnswerAreSignsOfLife() {
        let rig = SessionRig()
        let memory = UnsafeMutableRawBufferPointer.filled(16_384)
        defer { memory.deallocate() }
        rig.submit(.read, token: 1, memory: memory)
        let tag = rig.sent()[0].header.initiatorTaskTag
        rig.end.put(
            .dataIn(tag: tag, status: .good, dataSN: 0, bufferOffset: 0, byteCount: 16_384, numbers: rig.nextNumbers()),
            [UInt8](repeating: 1, count: 16_384))
        let bytes = rig.end.outgoing
        rig.end.outgoing = []
        for start in stride(from: 0, to: bytes.count, by: 1000) {
            rig.end.outgoing = Array(bytes[start..<min(start + 1000, bytes.count)])
            rig.deliver()
            rig.pass(.milliseconds(900))
            #expect(rig.sent().isEmpty, "no ping while bytes come")
        }
        #expect(!rig.events.contains(.stalled(.leading)))
        #expect(rig.completions.map(\.token) == [1])
    }

    @Test func aPingBehindOurOwnDataIsNotHeldAgainstTheTarget() {
        var parameters = SessionRig.defaults()
        parameters.firstBurstByteCount = 262_144
        let rig = SessionRig(parameters)
        let memory = UnsafeMutableRawBufferPointer.filled(200_000)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        rig.flush()
        let sent = Int(rig.session.connections[0].output.sentPosition)
        // A slow network: TCP delivers a part of it every second.
        func report(_ delivered: Int) -> TransportReport {
            TransportReport(
                unacknowledgedByteCount: max(sent + 48 - delivered, 0), sinceLastAcknowledgement: .milliseconds(10),
                unansweredRetransmissions: 0)
        }
        for second in 1...5 {
            rig.pass(.seconds(1), transport: report(second * 40_000))
            rig.flush()
        }
        #expect(rig.events.isEmpty)
        // All of it arrived and nothing speaks: a moment of grace, then stalled.
        rig.pass(.seconds(1), transport: report(sent + 48))
        #expect(rig.events.isEmpty)
        rig.pass(.seconds(1), transport: report(sent + 48))
        #expect(rig.events == [.stalled(.leading)])
    }

    @Test func aPeerThatTakesNothingMoreIsStalledNotDead() {
        var parameters = SessionRig.defaults()
        parameters.firstBurstByteCount = 262_144
        let rig = SessionRig(parameters)
        let memory = UnsafeMutableRawBufferPointer.filled(200_000)
        defer { memory.deallocate() }
        rig.submit(.write, token: 1, memory: memory)
        rig.flush()
        // A closed window whose probes are answered.
        var report = TransportReport(
            unacknowledgedByteCount: 100_000, sinceLastAcknowledgement: .milliseconds(1500), unansweredRetransmissions: 0)
        rig.pass(.seconds(1), transport: report)
        rig.flush()
        report.unacknowledgedByteCount += 48
        rig.pass(.seconds(1), transport: report)
        #expect(rig.events == [.stalled(.leading)])
    }

    @Test func timersThatFireEarlyOrOftenChangeNothing() {
        let rig = SessionRig()
        rig.submit(.none, token: 1)
        _ = rig.sent()
        for _ in 0..<990 { rig.pass(.milliseconds(1)) }
        #expect(rig.sent().isEmpty && rig.events.isEmpty)
        for _ in 0..<1000 { rig.pass(.milliseconds(1)) }
        #expect(rig.sent().map(\.opcode) == [.nopOut], "one ping")
        #expect(rig.events.isEmpty)
        for _ in 0..<20 { rig.pass(.milliseconds(1)) }
        #expect(rig.events == [.stalled(.leading)])
    }

    @Test func followingTheDeadlinesAloneClimbsTheLadder() {
        let rig = SessionRig()
        let start = rig.now
        rig.submit(.none, token: 1)
        _ = rig.sent()
        var steps = 0
        while rig.failure == nil, steps < 500 {
            let deadline = rig.session.nextDeadline
            #expect(deadline > rig.now, "a deadline that is due already would spin")
            rig.pass(deadline - rig.now)
            _ = rig.sent()
            steps += 1
        }
        #expect(rig.failure == .commandTimeout)
        #expect(rig.now == start + .seconds(62))
        #expect(steps < 100)
    }
}
