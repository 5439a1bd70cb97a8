import SCSI
import Testing
import Timebase

@testable import ISCSI

/// CmdSNs that no command has any more and that the target still waits for: none is left open, whatever becomes of the
/// connection that carries it.
@Suite struct OpenNumberTests {
    let memory = UnsafeMutableRawBufferPointer.filled(8192)

    private func bytes(_ pdu: SentPDU) -> [UInt8] {
        var header = pdu.header
        return withUnsafeBytes(of: &header) { Array($0.prefix(48)) }
    }

    /// A command on connection 1 is rejected; the NOP-Out that takes its number.
    private func reject(_ rig: MultiConnectionRig, token: UInt64 = 1) throws -> SentPDU {
        rig.submit(.none, token: token, on: 1)
        let command = try #require(rig.sent(1).first)
        rig.put(1, .reject(.commandNotSupported, numbers: rig.numbers(1)), bytes(command))
        #expect(rig.completions.last?.token == token)
        let filler = try #require(rig.sent(1).first)
        #expect(filler.opcode == .nopOut && !filler.header.isImmediate && filler.header.cmdSN == command.header.cmdSN)
        return filler
    }

    @Test func anAnsweredNOPOutLeavesNothingOpen() throws {
        let rig = MultiConnectionRig(2)
        let filler = try reject(rig)
        rig.expCmdSN = 101
        rig.answer(nop: filler, 1)
        rig.cut(1)
        rig.logIn(1)
        rig.answer(nop: rig.sent(1)[0], 1)
        #expect(rig.sent(1).isEmpty && rig.recoveryCount == 0)
    }

    @Test func belowLevelTwoItsNumberIsFilledOnceTheConnectionIsEnded() throws {
        let rig = MultiConnectionRig(2)
        _ = try reject(rig)  // 100: the NOP-Out is lost
        rig.submit(.none, token: 2, on: 0)  // 101 waits at the target
        let waiting = rig.sent(0)[0]
        rig.submit(.write, token: 3, on: 1, memory: memory)  // 102: lost as well
        _ = rig.sent(1)
        rig.cut(1)
        rig.logIn(1)
        rig.answer(nop: rig.sent(1)[0], 1)
        for (hole, next) in [(100, 102), (102, 103)] as [(UInt32, UInt32)] {
            let pair = rig.sent(1)
            #expect(pair.map(\.opcode) == [.nopOut, .nopOut] && pair.map(\.header.isImmediate) == [false, true])
            #expect(pair.first?.header.cmdSN == hole)
            rig.expCmdSN = next
            for pdu in pair { rig.answer(nop: pdu, 1) }
        }
        let abort = rig.sent(1)
        #expect(abort.map(\.opcode) == [.taskManagementRequest])
        rig.put(1, .taskManagementResponse(.taskDoesNotExist, tag: abort[0].header.initiatorTaskTag, numbers: rig.numbers(1)))
        rig.good(0, waiting.header.initiatorTaskTag)
        #expect(rig.ended.sorted() == [1, 2, 3] && rig.recoveryCount == 0 && rig.failure == nil)
    }

    @Test func atLevelTwoItsNumberIsFilledOnAnotherConnection() throws {
        let rig = MultiConnectionRig(3, level: 2)
        let filler = try reject(rig)  // 100
        rig.submit(.none, token: 2, on: 0)  // 101 waits at the target
        _ = rig.sent(0)
        rig.cut(1)
        let logout = try #require(rig.sent(0).first)
        rig.put(0, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, time2Wait: 0, numbers: rig.numbers(0)))
        let again = try #require((rig.sent(0) + rig.sent(2)).first)
        #expect(again.opcode == .nopOut && !again.header.isImmediate && again.header.cmdSN == 100)
        #expect(again.header.initiatorTaskTag != filler.header.initiatorTaskTag)
        // That one's connection goes as well.
        rig.cut(0)
        let second = try #require(rig.sent(2).first)
        rig.put(2, .logoutResponse(.closed, tag: second.header.initiatorTaskTag, time2Wait: 0, numbers: rig.numbers(2)))
        let pdus = rig.sent(2)
        #expect(pdus.map(\.opcode) == [.nopOut, .scsiCommand] && pdus.map(\.header.cmdSN) == [100, 101])
        rig.expCmdSN = 102
        rig.answer(nop: pdus[0], 2)
        rig.good(2, pdus[1].header.initiatorTaskTag)
        #expect(rig.ended == [1, 2] && rig.failure == nil && rig.recoveryCount == 0)
    }

    @Test func aNOPOutWhoseHeaderWasDamagedIsSentAgain() throws {
        let rig = MultiConnectionRig(2, level: 1)
        let filler = try reject(rig)  // 100: dropped by the target without a word
        rig.submit(.none, token: 2, on: 1)  // 101 waits
        let waiting = rig.sent(1)[0]
        rig.pass(.milliseconds(1100))
        let ping = try #require(rig.sent(1).first { $0.opcode == .nopOut })
        #expect(ping.header.isImmediate)
        rig.answer(nop: ping, 1)
        let again = rig.sent(1)
        #expect(again.map(\.opcode) == [.nopOut] && again[0].header.cmdSN == 100 && !again[0].header.isImmediate)
        #expect(again[0].header.initiatorTaskTag == filler.header.initiatorTaskTag, "a retry has the tag of the first")
        rig.expCmdSN = 102
        rig.answer(nop: again[0], 1)
        rig.good(1, waiting.header.initiatorTaskTag)
        #expect(rig.ended == [1, 2] && rig.failure == nil)
    }

    /// Linux's target calls an ABORT TASK of what it has not got complete, and waits for its number nevertheless.
    @Test func theNumberOfAnAbortedCommandIsFilledAsWell() throws {
        let rig = MultiConnectionRig(2, level: 2)
        rig.submit(.write, token: 1, on: 1, memory: memory)  // 100: never arrives
        _ = rig.sent(1)
        let isSent = rig.session.submitTaskManagement(
            .abortTask, lun: LogicalUnitNumber(rawValue: 0), referencing: 1, token: 7, on: rig.c(1), at: rig.now)
        #expect(isSent)
        let abort = rig.sent(1)[0]
        rig.put(1, .taskManagementResponse(.functionComplete, tag: abort.header.initiatorTaskTag, numbers: rig.numbers(1)))
        #expect(rig.ended == [1])
        rig.cut(1)
        let logout = try #require(rig.sent(0).first { $0.opcode == .logoutRequest })
        rig.put(0, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, time2Wait: 0, numbers: rig.numbers(0)))
        #expect(rig.sent(0).map(\.header.cmdSN) == [100])
    }

    /// The Logout of a connection discards what came on it ahead of its turn (RFC 7143 section 11.14).
    @Test func aConnectionThatIsLoggedOutMeanwhileIsGotOver() throws {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 0)  // 100 is slow on its way
        let slow = rig.sent(0)[0]
        _ = try reject(rig, token: 2)  // 101
        rig.session.removeConnection(rig.c(1), at: rig.now)
        let logout = try #require(rig.sent(1).first { $0.opcode == .logoutRequest })
        rig.put(1, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, numbers: rig.numbers(1)))
        rig.session.beginRecovery(rig.c(1), at: rig.now)
        rig.drain()
        rig.expCmdSN = 101
        rig.good(0, slow.header.initiatorTaskTag)
        rig.answer(nop: try #require(rig.sent(0).first), 0)
        let pair = rig.sent(0)
        #expect(pair.map(\.header.cmdSN) == [101, 102] && pair.map(\.header.isImmediate) == [false, true])
        rig.expCmdSN = 102
        for pdu in pair { rig.answer(nop: pdu, 0) }
        #expect(rig.recoveryCount == 0 && rig.failure == nil)
    }

    @Test func aTargetThatRejectsTheNOPOutLosesTheSession() throws {
        let rig = MultiConnectionRig(2)
        let filler = try reject(rig)
        rig.put(1, .reject(.protocolError, numbers: rig.numbers(1)), bytes(filler))
        #expect(rig.failure == .rejected(.nopOut, .protocolError))
    }
}
