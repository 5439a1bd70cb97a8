import AsyncIO
import ISCSI
import SCSI
import Testing
import Timebase

@testable import MPIO

/// What a session's client is told of its last moments, and when nothing else would bring it word.
@Suite struct SessionEndTests {
    private static let lun = ScriptedSession.lun

    /// A status of a task that the target has no more: it ends the session.
    private func nonsense(_ session: ScriptedSession, _ connection: ScriptedSession.Connection, tag: UInt32) -> PDU {
        PDU(header: .scsiResponse(tag: tag, status: .good, numbers: session.numbers(connection)))
    }

    @Test func anAnswerThatComesWithTheEndIsDelivered() throws {
        let session = ScriptedSession()
        let channel = ControlChannel(path: session.path)
        var answers: [TaskManagementResponse?] = []
        session.connect()
        channel.manage(.logicalUnitReset, lun: Self.lun) { answers.append($0) }
        channel.manage(.logicalUnitReset, lun: Self.lun) { answers.append($0) }
        channel.manage(.logicalUnitReset, lun: Self.lun) { answers.append($0) }
        session.settle()
        let connection = session.latest()
        let requests = connection.received
        #expect(requests.map(\.opcode) == Array(repeating: .taskManagementRequest, count: 3))
        var rejected = requests[1].header
        session.put(connection, [
            PDU(header: .taskManagementResponse(
                .functionComplete, tag: requests[0].header.initiatorTaskTag, numbers: session.numbers(connection))),
            PDU(header: .reject(.commandNotSupported, numbers: session.numbers(connection)),
                data: withUnsafeBytes(of: &rejected) { Array($0.prefix(48)) }),
            nonsense(session, connection, tag: 0xABCD_0000),
        ])
        #expect(session.client.failures.count == 1)
        #expect(answers == [.functionComplete, nil, nil], "done; rejected; not answered")
    }

    /// The channel outlives sessions, and has room for so many at once.
    @Test func abortsThatEndWithTheirSessionsLeaveRoomForOthers() throws {
        let session = ScriptedSession()
        let channel = ControlChannel(path: session.path)
        for number in 1...20 as ClosedRange<UInt64> {
            session.connect()
            let connection = session.latest()
            let token = session.submit(number)
            let command = try #require(session.received(.scsiCommand, connection))
            channel.abort(token, lun: Self.lun)
            session.settle()
            let abort = try #require(session.received(.taskManagementRequest, connection), "no room for number \(number)")
            session.put(connection, [
                PDU(header: .taskManagementResponse(
                    .functionComplete, tag: abort.header.initiatorTaskTag, numbers: session.numbers(connection))),
                nonsense(session, connection, tag: command.header.initiatorTaskTag),
            ])
            #expect(session.client.failures.count == Int(number))
            #expect(session.client.completions.last?.outcome == .aborted(byTaskManagement: channel.client.token(number)))
        }
        #expect(session.client.completions.count == 20 && session.client.abandoned.isEmpty)
    }

    /// Whoever hears of an answer may ask for the next session at once; the rest of the old one is not forgotten over it.
    @Test func aClientThatConnectsAnewAtAnAnswerForgetsNoCommand() throws {
        let session = ScriptedSession()
        session.connect()
        let first = session.submit(1)
        let second = session.submit(2)
        let connection = session.latest()
        let command = try #require(session.received(.scsiCommand, connection))
        session.client.onCompletion = { session.path.connect(for: session.id) }
        session.put(connection, [
            PDU(header: .scsiResponse(tag: command.header.initiatorTaskTag, status: .good, numbers: session.numbers(connection))),
            nonsense(session, connection, tag: 0xABCD_0000),
        ])
        session.settle()
        #expect(session.client.completions.map(\.token) == [first])
        #expect(session.client.abandoned == [second])
        #expect(session.client.loginCount == 2)
    }

    /// The target says twice that it has no such task. Nothing else happens on the session for half a minute.
    @Test func aCommandThatTheTargetHasNoMoreIsEndedAtOnce() throws {
        let session = ScriptedSession()
        let channel = ControlChannel(path: session.path)
        session.connect()
        let token = session.submit(1)
        channel.abort(token, lun: Self.lun)
        session.settle()
        let connection = session.latest()
        for _ in 0..<2 {
            #expect(session.client.completions.isEmpty)
            let abort = try #require(session.received(.taskManagementRequest, connection))
            session.put(connection, .taskManagementResponse(
                .taskDoesNotExist, tag: abort.header.initiatorTaskTag, numbers: session.numbers(connection)))
            session.settle()
        }
        #expect(session.client.completions.map(\.token) == [token])
        #expect(session.client.failures.isEmpty)
    }

    @Test func aLoginThatHangsAfterASlowConnectIsWaitedForInPeace() {
        let session = ScriptedSession()
        session.accepts = false
        session.answersLogins = false
        session.connect()
        #expect(session.pass(.seconds(3)))
        session.accepts = true
        let before = session.port.firedCount
        #expect(session.pass(.milliseconds(4900)), "the timer has no end")
        #expect(session.port.firedCount - before <= 3)
        #expect(session.client.failures.isEmpty)
        // It has as long as a login may take.
        #expect(session.pass(.milliseconds(200)))
        #expect(session.client.failures.map(\.reason) == [.loginTimedOut])
    }

    @Test func aConnectThatHangsEndsInItsTime() {
        let session = ScriptedSession()
        session.accepts = false
        session.connect()
        #expect(session.pass(.milliseconds(4900)))
        #expect(session.client.failures.isEmpty)
        #expect(session.pass(.milliseconds(200)))
        #expect(session.client.failures.map(\.reason) == [.connectTimedOut])
    }
}
