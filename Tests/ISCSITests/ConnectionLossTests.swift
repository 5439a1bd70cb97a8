import SCSI
import Testing
import Timebase

@testable import ISCSI

/// Several connections in one session, and the loss of one below ErrorRecoveryLevel 2.
@Suite struct ConnectionLossTests {
    let memory = UnsafeMutableRawBufferPointer.filled(8192)

    // MARK: several connections

    @Test func cmdSNIsTheSessionsAndStatSNTheConnections() {
        let rig = MultiConnectionRig(3)
        for token in 1...6 { rig.submit(.none, token: UInt64(token), on: token % 3) }
        var seen: [UInt32] = []
        var tags: [[UInt32]] = [[], [], []]
        for index in 0..<3 {
            let pdus = rig.sent(index)
            seen += pdus.map(\.header.cmdSN)
            tags[index] = pdus.map(\.header.initiatorTaskTag)
            #expect(pdus.allSatisfy { $0.header.expStatSN == rig.session.connections[index].expStatSN })
        }
        #expect(seen.sorted() == Array(100...105))
        for index in 0..<3 { for tag in tags[index] { rig.good(index, tag) } }
        #expect(rig.completions.map(\.token) == [3, 6, 1, 4, 2, 5])
        // Each connection has used up its own StatSNs: two statuses after the login's.
        #expect(rig.expStatSN(0) == 3)
        #expect(rig.expStatSN(1) == 4)
    }

    @Test func theWindowIsShared() {
        let rig = MultiConnectionRig(2, window: 3)
        #expect(rig.submit(.none, token: 1, on: 0).isAccepted)
        #expect(rig.submit(.none, token: 2, on: 1).isAccepted)
        #expect(rig.submit(.none, token: 3, on: 0).isAccepted)
        #expect(rig.submit(.none, token: 4, on: 1).isWindowFull)
        let tag = rig.sent(1)[0].header.initiatorTaskTag
        rig.expCmdSN = 103
        rig.maxCmdSN = 103
        rig.good(1, tag)
        #expect(rig.events.contains(.windowOpened))
        #expect(rig.submit(.none, token: 4, on: 1).isAccepted)
    }

    @Test func anAnswerOnAnotherConnectionEndsTheSession() {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 0)
        let tag = rig.sent(0)[0].header.initiatorTaskTag
        rig.good(1, tag)
        #expect(rig.failure == .violation(.wrongConnection(.scsiResponse, tag: tag)))
        #expect(rig.ended == [1])
    }

    /// The answer to a reset waits for the statuses of other connections, but R2Ts and data have no place in their order.
    @Test(arguments: [0, 1, 2]) func whatWasOnItsWayWhenAResetEndedItsCommandIsIgnored(level: Int) {
        let rig = MultiConnectionRig(2, level: level)
        let data = UnsafeMutableRawBufferPointer.filled(200_000)
        defer { data.deallocate() }
        let empty = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 8)
        defer { empty.deallocate() }
        empty.initializeMemory(as: UInt8.self, repeating: 0)
        rig.submit(.write, token: 1, on: 1, memory: data)
        rig.submit(.read, token: 2, on: 1, memory: empty)
        let commands = rig.sent(1)
        let write = commands.first { $0.opcode == .scsiCommand }!.header
        let read = commands.last { $0.opcode == .scsiCommand }!.header
        rig.expCmdSN = 102
        let isSent = rig.session.submitTaskManagement(.logicalUnitReset, lun: write.lun, token: 9, on: rig.c(0), at: rig.now)
        #expect(isSent)
        rig.put(0, .taskManagementResponse(
            .functionComplete, tag: rig.sent(0)[0].header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.ended.sorted() == [1, 2])
        let numbers = ResponseNumbers(statSN: rig.ends[1].statSN, expCmdSN: 102, maxCmdSN: 163)
        rig.put(1, .readyToTransfer(
            lun: write.lun, tag: write.initiatorTaskTag, targetTransferTag: 5, r2tSN: 0, bufferOffset: 65_536,
            desiredDataTransferByteCount: 16_384, numbers: numbers))
        rig.put(1, .dataIn(
            tag: read.initiatorTaskTag, flags: [], dataSN: 0, bufferOffset: 0, byteCount: 4096, numbers: numbers),
            [UInt8](repeating: 7, count: 4096))
        #expect(rig.failure == nil && rig.recoveryCount == 0)
        #expect(rig.sent(1).filter { $0.opcode == .dataOut }.isEmpty)
        #expect(empty.allSatisfy { $0 == 0 })
        // Not even the status is an error: not all targets wait for it.
        let expected = rig.expStatSN(1)
        rig.good(1, write.initiatorTaskTag)
        #expect(rig.failure == nil && rig.expStatSN(1) == expected &+ 1 && rig.ended.count == 2)
        // On the connection that brought the answer nothing can be late, and no other tag is let pass.
        rig.put(1, .readyToTransfer(
            lun: write.lun, tag: write.initiatorTaskTag &+ 0x10000, targetTransferTag: 5, r2tSN: 0, bufferOffset: 0,
            desiredDataTransferByteCount: 16_384, numbers: numbers))
        #expect(rig.failure == .violation(.unknownTask(.readyToTransfer, tag: write.initiatorTaskTag &+ 0x10000)))
    }

    /// A target that does not wait for what other connections still bring: it executes that after the reset.
    @Test func aCommandThatAResetCannotHaveMetGoesOn() {
        let rig = MultiConnectionRig(2)
        rig.submit(.write, token: 1, on: 1, memory: memory)
        let isSent = rig.session.submitTaskManagement(
            .logicalUnitReset, lun: LogicalUnitNumber(index: 3)!, token: 9, on: rig.c(0), at: rig.now)
        #expect(isSent)
        rig.put(0, .taskManagementResponse(
            .functionComplete, tag: rig.sent(0)[0].header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.ended.isEmpty && rig.outstandingCommandCount == 1)
        let command = rig.sent(1)[0].header
        #expect(command.lun == LogicalUnitNumber(index: 3)!)
        rig.expCmdSN = 101
        rig.good(1, command.initiatorTaskTag)
        #expect(rig.completions.map(\.outcome) == [.status(.good, sense: nil)] && rig.failure == nil)
    }

    /// After 65,536 logins in one session its IDs come round.
    @Test func theIDOfAConnectionThatLivesIsNotTaken() {
        let rig = MultiConnectionRig(3)
        rig.session.nextConnectionID = rig.connectionID(0)
        rig.cut(2)
        rig.session.connectionClosed(rig.c(2), reason: .connectFailed(code: 111), at: rig.now)
        let logout = rig.sent(0)[0]
        rig.put(0, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, numbers: rig.numbers(0)))
        for pdu in rig.sent(0) { rig.answer(nop: pdu, 0) }
        #expect(rig.recoveryCount == 0)
        let login = rig.logIn(2)
        #expect(login.map { ![rig.connectionID(0), rig.connectionID(1)].contains($0.connectionID) } == true)
        #expect(rig.isOpen(0) && rig.isOpen(1) && rig.isOpen(2))
    }

    @Test func furtherConnectionsLogInTogether() {
        let rig = MultiConnectionRig(4)
        #expect((0..<4).allSatisfy { rig.isOpen($0) })
        #expect(Set((0..<4).map { rig.connectionID($0) }).count == 4)
        // One more than was agreed.
        let small = MultiConnectionRig(2) { $0.maxConnections = 2 }
        #expect((0..<2).allSatisfy { small.isOpen($0) })
    }

    @Test func moreConnectionsThanGrantedAreRefused() {
        let rig = MultiConnectionRig(2) { $0.maxConnections = 1 }
        rig.session.connectionOpened(rig.c(1), at: rig.now)
        rig.drain()
        #expect(rig.events == [.connectionFailed(rig.c(1), .closedLocally)])
        #expect(rig.failure == nil)
    }

    // MARK: loss at level 0

    @Test(arguments: [nil, 1, 7]) func aLostConnectionIsReinstatedAndItsTasksAreHandedBackOnce(chunk: Int?) throws {
        let rig = MultiConnectionRig(2)
        rig.chunk = chunk
        rig.submit(.write, token: 1, on: 1, memory: memory)  // CmdSN 100: arrives
        rig.submit(.none, token: 2, on: 0)  // 101
        _ = rig.sent(1)
        rig.submit(.write, token: 3, on: 1, memory: memory)  // 102: sent, and lost on the way
        _ = rig.sent(1)
        rig.submit(.read, token: 4, on: 1, memory: memory)  // 103: never sent
        let other = rig.sent(0)[0]
        rig.expCmdSN = 102
        let old = rig.connectionID(1)
        rig.cut(1)
        #expect(rig.events == [.connectionLost(rig.c(1), .endOfStream), .connectionWanted(rig.c(1))])
        #expect(rig.submit(.none, token: 9, on: 1).isNotLoggedIn)
        #expect(rig.submit(.none, token: 5, on: 0).isAccepted)  // 104 waits at the target
        // Nothing goes back before the old connection is known to be ended.
        rig.good(0, other.header.initiatorTaskTag)
        #expect(rig.ended == [2])

        let login = try #require(rig.logIn(1))
        #expect(login.connectionID == old)
        // The target's numbers, then each hole in turn.
        var nop = rig.sent(1)
        #expect(nop.map(\.opcode) == [.nopOut] && nop[0].header.isImmediate)
        rig.answer(nop: nop[0], 1)
        for (hole, next) in [(102, 103), (103, 105)] as [(UInt32, UInt32)] {
            // The one that fills it, and behind it the question what came of that.
            nop = rig.sent(1)
            #expect(nop.map(\.opcode) == [.nopOut, .nopOut] && nop.map(\.header.isImmediate) == [false, true])
            #expect(nop.first?.header.cmdSN == hole)
            rig.expCmdSN = next
            for pdu in nop { rig.answer(nop: pdu, 1) }
        }
        #expect(rig.lost.isEmpty)
        // The writes that were sent are made sure of.
        let aborts = rig.sent(1)
        #expect(aborts.map(\.opcode) == [.taskManagementRequest, .taskManagementRequest])
        #expect(aborts.map(\.header.refCmdSN) == [100, 102] && aborts.allSatisfy(\.header.isImmediate))
        rig.put(1, .taskManagementResponse(.functionComplete, tag: aborts[0].header.initiatorTaskTag, numbers: rig.numbers(1)))
        #expect(rig.lost.isEmpty)
        rig.put(1, .taskManagementResponse(.taskDoesNotExist, tag: aborts[1].header.initiatorTaskTag, numbers: rig.numbers(1)))
        #expect(Array(rig.events.suffix(4)) == [
            .commandLost(token: 1, wasSent: true), .commandLost(token: 3, wasSent: true),
            .commandLost(token: 4, wasSent: false), .connectionRecovered(rig.c(1)),
        ])
        // The session goes on, all of it.
        #expect(rig.submit(.none, token: 6, on: 1).isAccepted)
        let last = rig.sent(1)
        #expect(last[0].header.cmdSN == 105)
        rig.good(1, last[0].header.initiatorTaskTag)
        rig.good(0, rig.sent(0)[0].header.initiatorTaskTag)
        #expect(rig.ended.sorted() == [1, 2, 3, 4, 5, 6])
        #expect(rig.outstandingCommandCount == 0 && rig.failure == nil && rig.recoveryCount == 0)
    }

    @Test func aHoleIsFilledOnlyWhenTheTargetWaitsForIt() {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 0)  // 100, on its way
        rig.submit(.none, token: 2, on: 1)  // 101, lost
        _ = rig.sent(0)
        _ = rig.sent(1)
        rig.cut(1)
        rig.logIn(1)
        rig.answer(nop: rig.sent(1)[0], 1)
        // ExpCmdSN is 100: somebody else's. It is asked again, and only later.
        let asked = rig.sent(1)
        #expect(asked.map(\.header.isImmediate) == [true])
        rig.answer(nop: asked[0], 1)
        #expect(rig.sent(1).isEmpty)
        rig.pass(.milliseconds(6))
        let again = rig.sent(1)
        #expect(again.map(\.header.isImmediate) == [true])
        rig.expCmdSN = 101
        rig.answer(nop: again[0], 1)
        #expect(rig.sent(1).map(\.header.cmdSN) == [101, 102])
    }

    /// An answer may be of a moment in which the target was still letting commands through that it had: only what it says to an
    /// immediate request counts.
    @Test func whatOtherAnswersSayIsNotTakenForAHole() {
        let rig = MultiConnectionRig(3)
        rig.submit(.none, token: 1, on: 0)  // 100, on its way
        rig.submit(.none, token: 2, on: 1)  // 101, lost, but the target counts it
        rig.submit(.none, token: 3, on: 2)  // 102, on its way
        let first = rig.sent(0)[0]
        for index in 1...2 { _ = rig.sent(index) }
        rig.cut(1)
        rig.logIn(1)
        rig.answer(nop: rig.sent(1)[0], 1)
        rig.answer(nop: rig.sent(1)[0], 1)
        #expect(rig.sent(1).isEmpty)
        rig.expCmdSN = 101
        rig.good(0, first.header.initiatorTaskTag)
        let asked = rig.sent(1)
        #expect(asked.map(\.header.isImmediate) == [true], "asked at once, and not filled")
        rig.expCmdSN = 102
        rig.answer(nop: asked[0], 1)
        #expect(rig.sent(1).isEmpty && rig.lost == [2] && rig.recoveryCount == 0)
    }

    /// A target that has the number after all drops the NOP-Out without a word.
    @Test func aNOPOutThatIsDroppedAsADuplicateIsNotWaitedFor() {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 1)
        _ = rig.sent(1)
        rig.cut(1)
        rig.logIn(1)
        rig.answer(nop: rig.sent(1)[0], 1)
        let pair = rig.sent(1)
        #expect(pair.count == 2)
        rig.expCmdSN = 101
        rig.answer(nop: pair[1], 1)
        #expect(rig.lost == [1] && rig.recoveryCount == 0)
        // It was only slow.
        rig.answer(nop: pair[0], 1)
        #expect(rig.failure == nil)
    }

    @Test func aNOPOutThatIsOnItsWayIsNotSentTwice() {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 1)
        _ = rig.sent(1)
        rig.cut(1)
        rig.logIn(1)
        rig.answer(nop: rig.sent(1)[0], 1)
        let pair = rig.sent(1)
        // The question overtook it.
        rig.answer(nop: pair[1], 1)
        for _ in 0..<3 {
            let asked = rig.sent(1)
            #expect(asked.allSatisfy { $0.opcode == .nopOut && $0.header.isImmediate })
            for pdu in asked { rig.answer(nop: pdu, 1) }
            rig.pass(.milliseconds(6))
        }
        rig.expCmdSN = 101
        rig.answer(nop: pair[0], 1)
        for _ in 0..<3 {
            for pdu in rig.sent(1) { rig.answer(nop: pdu, 1) }
            rig.pass(.milliseconds(6))
        }
        #expect(rig.lost == [1] && rig.recoveryCount == 0 && rig.failure == nil)
    }

    @Test func theCarrierOfAFillingMayBeLostWithIt() {
        let rig = MultiConnectionRig(3)
        rig.submit(.none, token: 1, on: 1)  // 100
        _ = rig.sent(1)
        rig.cut(1)
        rig.session.connectionClosed(rig.c(1), reason: .connectFailed(code: 111), at: rig.now)
        let logout = rig.sent(0)[0]
        rig.put(0, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, numbers: rig.numbers(0)))
        rig.answer(nop: rig.sent(0)[0], 0)
        #expect(rig.sent(0).map(\.header.cmdSN) == [100, 101])
        rig.cut(0)
        // Whether the target has read it is not known before that connection is ended, too.
        for _ in 0..<4 { rig.pass(.milliseconds(6)) }
        #expect(rig.sent(2).isEmpty)
        rig.logIn(0)
        for _ in 0..<10 where rig.recoveryCount > 0 {
            for index in [0, 2] { rig.answerNOPs(index) }
            rig.pass(.milliseconds(6))
        }
        #expect(rig.lost == [1] && rig.recoveryCount == 0 && rig.failure == nil && rig.expCmdSN == 101)
    }

    @Test func aFillingOutlivesTheConnectionThatItIsFor() {
        let rig = MultiConnectionRig(3)
        rig.submit(.none, token: 1, on: 1)  // 100
        _ = rig.sent(1)
        rig.cut(1)
        rig.logIn(1)
        let ask = rig.sent(1)[0]
        // The target wants the new one to go as well; so the hole is filled elsewhere.
        rig.put(1, .asyncMessage(.logoutRequested(withinSeconds: 10), numbers: rig.numbers(1)))
        rig.answer(nop: ask, 1)
        #expect(rig.sent(0).map(\.header.cmdSN) == [100, 101])
        let logout = rig.sent(1)[0]
        rig.put(1, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, numbers: rig.numbers(1)))
        #expect(rig.events.last == .connectionLost(rig.c(1), .closedLocally))
        rig.session.beginRecovery(rig.c(1), at: rig.now)
        // It is still under way there, and must not go out on a third connection before that one is ended.
        rig.cut(0)
        func pass(_ indices: [Int]) {
            for index in indices {
                let (hasFilled, _) = rig.answerNOPs(index)
                #expect(!hasFilled || !indices.contains(2) || rig.isOpen(0), "filled on a third connection")
            }
            rig.pass(.milliseconds(6))
        }
        for _ in 0..<4 { pass([2]) }
        #expect(rig.expCmdSN == 100)
        rig.logIn(0)
        for _ in 0..<10 where rig.recoveryCount > 0 { pass([0, 2]) }
        #expect(rig.lost == [1] && rig.recoveryCount == 0 && rig.failure == nil && rig.expCmdSN == 101)
    }

    @Test func aQuestionThatIsOfNoUseAnyMoreIsNotOwed() {
        let rig = MultiConnectionRig(3)
        rig.submit(.none, token: 1, on: 1)  // 100
        _ = rig.sent(1)
        rig.cut(1)
        rig.logIn(1)
        let ask = rig.sent(1)[0]
        rig.put(1, .asyncMessage(.logoutRequested(withinSeconds: 10), numbers: rig.numbers(1)))
        rig.answer(nop: ask, 1)
        let old = rig.sent(0)
        #expect(old.map(\.header.isImmediate) == [false, true])
        rig.put(1, .logoutResponse(.closed, tag: rig.sent(1)[0].header.initiatorTaskTag, numbers: rig.numbers(1)))
        rig.session.beginRecovery(rig.c(1), at: rig.now)
        rig.expCmdSN = 101
        for _ in 0..<4 {
            for pdu in old + rig.sent(0) where pdu.opcode == .nopOut {
                if rig.isOpenTag(pdu.header.initiatorTaskTag) { rig.answer(nop: pdu, 0) }
            }
        }
        #expect(rig.lost == [1] && rig.recoveryCount == 0 && rig.failure == nil)
        #expect(rig.owedCount(0) == 0)
    }

    /// The one is logged out long before the other, whose number the target waits for.
    @Test func aConnectionWaitsForTheHoleOfAnother() {
        let rig = MultiConnectionRig(3)
        rig.submit(.none, token: 1, on: 1)  // 100
        rig.submit(.none, token: 2, on: 2)  // 101
        for index in 1...2 { _ = rig.sent(index) }
        rig.cut(2)
        rig.session.connectionClosed(rig.c(2), reason: .connectFailed(code: 111), at: rig.now)
        let logout = rig.sent(0)[0]
        rig.put(0, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, numbers: rig.numbers(0)))
        // No transport comes for this one, and no refusal; and its logout takes the target its time.
        rig.cut(1)
        var secondLogout: UInt32?
        for step in 0..<200 where rig.recoveryCount > 0 && rig.failure == nil {
            for pdu in rig.answerNOPs(0).others where pdu.opcode == .logoutRequest { secondLogout = pdu.header.initiatorTaskTag }
            if step >= 54, let tag = secondLogout {
                secondLogout = nil
                rig.put(0, .logoutResponse(.closed, tag: tag, numbers: rig.numbers(0)))
            }
            rig.pass(.milliseconds(100))
        }
        #expect(rig.failure == nil && rig.recoveryCount == 0)
        #expect(rig.lost.sorted() == [1, 2] && rig.expCmdSN == 102)
    }

    @Test func whatTheTargetTookLeavesNoHole() {
        let rig = MultiConnectionRig(2)
        rig.submit(.read, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.expCmdSN = 101
        rig.cut(1)
        rig.logIn(1)
        rig.answer(nop: rig.sent(1)[0], 1)
        // A read that was taken needs neither filler nor abort.
        #expect(rig.sent(1).isEmpty)
        #expect(rig.lost == [1])
    }

    @Test func whereNoTransportComesAnotherConnectionLogsItOut() {
        let rig = MultiConnectionRig(2)
        rig.submit(.write, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.expCmdSN = 101
        let cid = rig.connectionID(1)
        rig.cut(1)
        rig.session.connectionClosed(rig.c(1), reason: .connectFailed(code: 111), at: rig.now)
        let logout = rig.sent(0)
        #expect(logout.map(\.opcode) == [.logoutRequest])
        #expect(logout[0].header.logoutReason == .closeConnection && logout[0].header.connectionID == cid)
        rig.put(0, .logoutResponse(.closed, tag: logout[0].header.initiatorTaskTag, numbers: rig.numbers(0)))
        rig.answer(nop: rig.sent(0)[0], 0)
        let abort = rig.sent(0)
        #expect(abort.map(\.opcode) == [.taskManagementRequest])
        rig.put(0, .taskManagementResponse(.taskDoesNotExist, tag: abort[0].header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.lost == [1] && rig.events.last == .connectionRecovered(rig.c(1)))
        // It comes back as a new one.
        let login = rig.logIn(1)
        #expect(login?.connectionID != cid)
        #expect(rig.isOpen(1))
    }

    @Test func aSilentReconnectIsNotWaitedForLongerThanAgreed() {
        let rig = MultiConnectionRig(2)
        rig.submit(.write, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.cut(1)
        rig.session.connectionOpened(rig.c(1), at: rig.now)
        _ = rig.sent(1)
        #expect(rig.nextDeadline <= rig.now + Nanoseconds(.seconds(1)))
        rig.pass(.milliseconds(1001))
        #expect(rig.events.last == .connectionFailed(rig.c(1), .loginTimeout))
        #expect(rig.sent(0).map(\.opcode) == [.logoutRequest])
        // That is not answered either: the session is given up, and the command handed back once.
        rig.pass(.milliseconds(5001))
        #expect(rig.failure != nil)
        #expect(rig.ended == [1])
    }

    @Test func aRefusedReinstatementIsFollowedByALogout() throws {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 1)
        _ = rig.sent(1)
        rig.cut(1)
        rig.replaceEnd(1)
        rig.session.connectionOpened(rig.c(1), at: rig.now)
        let request = try #require(rig.sent(1).first)
        rig.put(1, .loginResponse(
            LoginFlags(current: .operationalNegotiation, next: nil), status: .sessionDoesNotExist, isid: request.header.isid,
            tsih: 0, tag: request.header.initiatorTaskTag, numbers: rig.numbers(1)))
        #expect(rig.failure == nil)
        #expect(rig.nextDeadline <= rig.now)
        rig.pass(.zero)
        #expect(rig.sent(0).map(\.opcode) == [.logoutRequest])
    }

    @Test func theLastConnectionTakesTheSessionWithIt() {
        let rig = MultiConnectionRig(2)
        rig.submit(.write, token: 1, on: 0, memory: memory)
        rig.submit(.write, token: 2, on: 1, memory: memory)
        _ = rig.sent(0)
        _ = rig.sent(1)
        rig.cut(1)
        rig.cut(0, reason: .transportFailed(code: 104))
        #expect(rig.failure == .transportFailed(code: 104))
        #expect(rig.ended == [1, 2])
        #expect(!rig.hasResults)
    }

    @Test func theCarrierOfARecoveryMayBeLostAsWell() {
        let rig = MultiConnectionRig(3)
        rig.submit(.write, token: 1, on: 1, memory: memory)  // 100
        rig.submit(.write, token: 2, on: 2, memory: memory)  // 101
        _ = rig.sent(1)
        _ = rig.sent(2)
        rig.cut(1)
        rig.logIn(1)
        #expect(rig.sent(1).map(\.opcode) == [.nopOut])
        // The one that was just reinstated breaks again, and the other does, too.
        rig.cut(1)
        rig.cut(2)
        for _ in 0..<40 where rig.lost.count < 2 {
            for index in 1...2 {
                if !rig.isOpen(index) { rig.logIn(index) }
                for pdu in rig.sent(index) {
                    if pdu.opcode == .nopOut {
                        if !pdu.header.isImmediate, pdu.header.cmdSN == rig.expCmdSN { rig.expCmdSN += 1 }
                        rig.answer(nop: pdu, index)
                    } else {
                        rig.put(index, .taskManagementResponse(
                            .taskDoesNotExist, tag: pdu.header.initiatorTaskTag, numbers: rig.numbers(index)))
                    }
                }
            }
            rig.pass(.milliseconds(6))
        }
        #expect(rig.lost.sorted() == [1, 2])
        #expect(rig.expCmdSN == 102 && rig.failure == nil && rig.recoveryCount == 0)
    }

    @Test func aTargetThatDoesNotEndTheOldConnectionIsGivenTheTimeToReadIt() {
        let rig = MultiConnectionRig(2)
        for token in 1...3 { rig.submit(.write, token: UInt64(token), on: 1, memory: memory) }
        _ = rig.sent(1)
        rig.cut(1)
        // As tgt answers: the login's own CmdSN, whatever the session's.
        rig.logIn(1, expCmdSN: 103, maxCmdSN: 104)
        var pings = 0
        while let ping = rig.sent(1).first, ping.header.isImmediate, ping.opcode == .nopOut {
            pings += 1
            rig.expCmdSN = 103
            rig.answer(nop: ping, 1)
            if rig.session.connections[1].recovery?.barrier == 0 { break }
        }
        // Three commands with a segment of data each.
        #expect(pings == 7)
        #expect(rig.sent(1).map(\.opcode) == Array(repeating: .taskManagementRequest, count: 3))
    }

    @Test func theLinuxKernelsTargetIsNeverAskedToReinstate() {
        let rig = MultiConnectionRig(2, alias: "LIO Target")
        rig.submit(.write, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.session.connectionClosed(rig.c(1), reason: .endOfStream, at: rig.now)
        rig.drain()
        #expect(rig.failure == .endOfStream)
        #expect(rig.ended == [1])
    }

    @Test func aTargetThatWillNotEndATaskLosesTheSession() {
        let rig = MultiConnectionRig(2)
        rig.submit(.write, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.expCmdSN = 101
        rig.cut(1)
        rig.logIn(1)
        rig.answer(nop: rig.sent(1)[0], 1)
        let abort = rig.sent(1)[0]
        rig.put(1, .taskManagementResponse(.notSupported, tag: abort.header.initiatorTaskTag, numbers: rig.numbers(1)))
        #expect(rig.failure == .recoveryRefused(.notSupported))
        #expect(rig.ended == [1])
    }

    @Test func aFinishedCommandsBufferWaitsForItsTransport() {
        let rig = MultiConnectionRig(2)
        let large = UnsafeMutableRawBufferPointer.filled(64 * 1024)
        defer { large.deallocate() }
        rig.submit(.write, token: 1, on: 1, memory: large)
        // Named to the transport, and not reported as sent: the status comes early.
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: 8) { segments in
            _ = rig.session.output(rig.c(1), into: segments)
        }
        rig.good(1, rig.session.table.tag(of: 0))
        #expect(rig.completions.isEmpty)
        rig.session.connectionClosed(rig.c(1), reason: .endOfStream, at: rig.now)
        rig.drain()
        #expect(rig.completions.isEmpty)
        rig.session.beginRecovery(rig.c(1), at: rig.now)
        rig.drain()
        #expect(rig.completions.map(\.token) == [1])
        #expect(rig.lost.isEmpty)
    }

    // MARK: async messages

    @Test func aConnectionThatTheTargetDropsIsLostAlone() {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 1)
        _ = rig.sent(1)
        let cid = rig.connectionID(1)
        rig.put(0, .asyncMessage(.connectionDrops(connectionID: cid, time2Wait: 0, time2Retain: 0), numbers: rig.numbers(0)))
        #expect(rig.events.contains(.connectionLost(rig.c(1), .droppedByTarget(time2Wait: 0, time2Retain: 0))))
        #expect(rig.failure == nil)
    }

    @Test func aSessionThatTheTargetDropsIsOver() {
        let rig = MultiConnectionRig(2)
        rig.put(1, .asyncMessage(.sessionDrops(time2Wait: 1, time2Retain: 2), numbers: rig.numbers(1)))
        #expect(rig.failure == .droppedByTarget(time2Wait: 1, time2Retain: 2))
    }

    @Test func oneConnectionIsLoggedOutWhereTheTargetWishes() {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 1)
        let command = rig.sent(1)[0]
        rig.put(1, .asyncMessage(.logoutRequested(withinSeconds: 10), numbers: rig.numbers(1)))
        #expect(rig.events == [.connectionLeaving(rig.c(1))])
        #expect(rig.submit(.none, token: 2, on: 1).isNotLoggedIn)
        #expect(rig.sent(1).isEmpty)
        rig.good(1, command.header.initiatorTaskTag)
        let logout = rig.sent(1)
        #expect(logout.map(\.opcode) == [.logoutRequest] && logout[0].header.logoutReason == .closeConnection)
        rig.put(1, .logoutResponse(.closed, tag: logout[0].header.initiatorTaskTag, numbers: rig.numbers(1)))
        #expect(rig.events.last == .connectionRemoved(rig.c(1)))
        #expect(rig.leavingCount == 0)
        rig.logIn(1)
        #expect(rig.isOpen(1))
    }

    @Test func aConnectionThatLeavesInTheMiddleOfItsCommandsGivesThemBack() {
        let rig = MultiConnectionRig(2)
        rig.submit(.write, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.expCmdSN = 101
        rig.put(1, .asyncMessage(.logoutRequested(withinSeconds: 2), numbers: rig.numbers(1)))
        rig.pass(.milliseconds(1100))
        let logout = rig.sent(1).filter { $0.opcode == .logoutRequest }
        #expect(logout.count == 1)
        rig.put(1, .logoutResponse(.closed, tag: logout[0].header.initiatorTaskTag, numbers: rig.numbers(1)))
        rig.session.beginRecovery(rig.c(1), at: rig.now)
        rig.drain()
        for _ in 0..<4 {
            for pdu in rig.sent(0) {
                if pdu.opcode == .nopOut { rig.answer(nop: pdu, 0) } else {
                    rig.put(0, .taskManagementResponse(.taskDoesNotExist, tag: pdu.header.initiatorTaskTag, numbers: rig.numbers(0)))
                }
            }
        }
        #expect(rig.ended == [1] && rig.failure == nil)
    }

    @Test func renegotiationGoesOverTheConnectionThatAsks() {
        let rig = MultiConnectionRig(2)
        rig.put(1, .asyncMessage(.negotiationRequested(withinSeconds: 5), numbers: rig.numbers(1)))
        #expect(rig.sent(0).isEmpty)
        let text = rig.sent(1)
        #expect(text.map(\.opcode) == [.textRequest])
        rig.put(1, .textResponse(.final, tag: text[0].header.initiatorTaskTag, dataByteCount: 0, numbers: rig.numbers(1)),
            TextParameters.encode([TextPair("MaxRecvDataSegmentLength", "4096")]))
        #expect(rig.maxSendDataSegmentByteCount(1) == 4096)
        #expect(rig.maxSendDataSegmentByteCount(0) == 8192)
    }

    // MARK: signs of life

    @Test func aMuteConnectionIsLostWhereAnotherSpeaks() {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 1)
        _ = rig.sent(1)
        for _ in 0..<8 {
            rig.pass(.milliseconds(500))
            for pdu in rig.sent(0) where pdu.opcode == .nopOut { rig.answer(nop: pdu, 0) }
        }
        #expect(rig.events.contains(.stalled(rig.c(1))))
        #expect(rig.events.contains(.connectionLost(rig.c(1), .silent)))
    }

    @Test func aMuteTargetIsWaitedFor() {
        let rig = MultiConnectionRig(2)
        rig.submit(.none, token: 1, on: 1)
        rig.submit(.none, token: 2, on: 0)
        for _ in 0..<20 {
            rig.pass(.milliseconds(500))
            _ = rig.sent(0)
            _ = rig.sent(1)
        }
        #expect(rig.events.contains(.stalled(rig.c(0))) && rig.events.contains(.stalled(rig.c(1))))
        #expect(rig.failure == nil && rig.recoveryCount == 0)
    }

    @Test func theSessionsLogoutOutlivesItsOtherConnections() {
        let rig = MultiConnectionRig(2)
        #expect(rig.beginLogout())
        let logout = rig.sent(0)[0]
        rig.session.connectionClosed(rig.c(1), reason: .endOfStream, at: rig.now)
        rig.put(0, .logoutResponse(.closed, tag: logout.header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.state == .loggedOut)
    }
}
