import ISCSI
import SCSI
import Testing
import Timebase

@testable import MPIO

/// How the connections of one session come back.
@Suite struct ConnectionReturnTests {
    /// The network of the second lets a login through, and nothing else.
    @Test(arguments: [0, 2]) func aConnectionThatIsOfNoUseComesBackAfterPausesThatGrow(level: Int) {
        let session = ScriptedSession(connections: 2, level: level)
        session.cutsAfterLogin = { $0.socket.destination == session.portals[1] }
        session.connect()
        #expect(session.pass(.milliseconds(900)), "there is no pause")
        // Once at first, and once more at once: it may have been chance.
        #expect(session.loginCount(1) == 2)
        #expect(session.pass(.seconds(30)), "there is no pause")
        // After 1, 2, 4, 8 and 16 seconds.
        #expect((5...7).contains(session.loginCount(1)), "\(session.loginCount(1)) logins")
        #expect(session.loginCount(0) == 1 && session.client.failures.isEmpty)
        // What the lost one leaves at the target is settled meanwhile, over the other.
        let isOpen = session.path.session.isOpen(.leading)
        #expect(isOpen)
        session.submit(1)
        session.good(session.received(.scsiCommand, session.latest(0))!, session.latest(0))
        #expect(session.client.completions.count == 1)
        // The network is well again.
        session.cutsAfterLogin = { _ in false }
        #expect(session.pass(.seconds(60)))
        #expect(session.path.connectionStates == ["logged in", "logged in"])
    }

    /// One on which commands were answered comes back at once, as often as it is lost.
    @Test(arguments: [0, 2]) func aConnectionThatServedComesBackAtOnce(level: Int) throws {
        let session = ScriptedSession(connections: 2, level: level)
        session.connect()
        var number: UInt64 = 0
        for round in 1...6 {
            // Until the policy has chosen each of them.
            for _ in 0..<4 {
                number += 1
                session.submit(number)
                for portal in 0...1 {
                    let connection = session.latest(portal)
                    if let command = session.received(.scsiCommand, connection) { session.good(command, connection) }
                }
            }
            #expect(session.client.completions.count == Int(number))
            session.cut(session.latest(1))
            #expect(session.pass(.milliseconds(50)))
            #expect(session.loginCount(1) == round + 1)
            #expect(session.path.connectionStates == ["logged in", "logged in"])
        }
    }

    /// An idle one that lived long is no worse for it.
    @Test func aConnectionThatLivedLongComesBackAtOnce() {
        let session = ScriptedSession(connections: 2)
        session.connect()
        for round in 1...4 {
            #expect(session.pass(.seconds(41)))
            session.cut(session.latest(1))
            #expect(session.pass(.milliseconds(50)))
            #expect(session.loginCount(1) == round + 1)
        }
    }

    /// Level 2: the session lives on without any connection for a while. That is no sign of life.
    @Test func aStalledSessionThatLosesItsLastConnectionIsNotCalledWell() throws {
        let session = ScriptedSession(connections: 1, level: 2)
        session.connect()
        session.submit(1)
        session.answersPings = false
        #expect(session.pass(.milliseconds(2500)))
        #expect(session.client.liveness == [.stalled])
        session.accepts = false
        session.cut(session.latest())
        #expect(session.pass(.milliseconds(50)))
        #expect(session.client.failures.isEmpty, "it waits for its connection")
        #expect(session.client.liveness == [.stalled])
        // It is back, and speaks.
        session.accepts = true
        session.answersPings = true
        #expect(session.pass(.milliseconds(500)))
        #expect(session.path.connectionStates == ["logged in"])
        #expect(session.client.liveness == [.stalled, .resumed])
    }
}
