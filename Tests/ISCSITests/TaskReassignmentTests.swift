import SCSI
import Testing
import Timebase

@testable import ISCSI

/// The loss of a connection at ErrorRecoveryLevel 2: its tasks go on elsewhere.
@Suite struct TaskReassignmentTests {
    let memory = UnsafeMutableRawBufferPointer.filled(8192)

    private func logOut(_ rig: MultiConnectionRig, via index: Int, time2Wait: UInt16 = 0) throws -> BasicHeaderSegment {
        let logout = try #require(rig.sent(index).first { $0.opcode == .logoutRequest })
        #expect(logout.header.logoutReason == .removeConnectionForRecovery)
        rig.put(index, .logoutResponse(
            .closed, tag: logout.header.initiatorTaskTag, time2Wait: time2Wait, numbers: rig.numbers(index)))
        return logout.header
    }

    @Test(arguments: [nil, 1, 13]) func tasksMoveAndNothingIsHandedBack(chunk: Int?) throws {
        let rig = MultiConnectionRig(2, level: 2)
        rig.chunk = chunk
        rig.submit(.read, token: 1, on: 1, memory: memory)  // 100: taken, half of its data came
        rig.submit(.write, token: 2, on: 1, memory: memory)  // 101: taken
        rig.submit(.write, token: 3, on: 1, memory: memory)  // 102: lost on the way
        let commands = rig.sent(1)
        rig.put(1, .dataIn(
            tag: commands[0].header.initiatorTaskTag, flags: [], dataSN: 0, bufferOffset: 0, byteCount: 4096,
            numbers: ResponseNumbers(statSN: 0, expCmdSN: 100, maxCmdSN: 163)), [UInt8](repeating: 7, count: 4096))
        rig.submit(.none, token: 4, on: 0)  // 103
        _ = rig.sent(0)
        let cid = rig.connectionID(1)
        rig.cut(1)
        #expect(rig.events == [.connectionLost(rig.c(1), .endOfStream)])
        rig.expCmdSN = 102
        let logout = try logOut(rig, via: 0)
        #expect(logout.connectionID == cid)
        let pdus = rig.sent(0)
        #expect(pdus.map(\.opcode) == [.taskManagementRequest, .taskManagementRequest, .scsiCommand])
        #expect(pdus[..<2].map(\.header.referencedTaskTag) == commands[..<2].map(\.header.initiatorTaskTag))
        #expect(pdus[..<2].allSatisfy { $0.header.taskManagementFunction == .taskReassign && $0.header.isImmediate })
        #expect(pdus[..<2].map(\.header.expDataSN) == [1, 0])
        // The lost command itself fills the hole: same tag, same CmdSN, same CDB.
        #expect(pdus[2].header.initiatorTaskTag == commands[2].header.initiatorTaskTag)
        #expect(pdus[2].header.cmdSN == 102 && (0..<16).allSatisfy { pdus[2].header.cdbBytes[$0] == commands[2].header.cdbBytes[$0] })
        #expect(pdus[2].data == Array(memory))
        #expect(rig.events.last == .connectionRecovered(rig.c(1)))
        for pdu in pdus[..<2] {
            rig.put(0, .taskManagementResponse(.functionComplete, tag: pdu.header.initiatorTaskTag, numbers: rig.numbers(0)))
        }
        rig.expCmdSN = 104
        rig.put(0, .dataIn(
            tag: commands[0].header.initiatorTaskTag, status: .good, dataSN: 1, bufferOffset: 4096, byteCount: 4096,
            numbers: rig.numbers(0)), [UInt8](repeating: 9, count: 4096))
        rig.put(0, .scsiResponse(tag: commands[1].header.initiatorTaskTag, status: .good, numbers: rig.numbers(0)))
        rig.put(0, .scsiResponse(tag: commands[2].header.initiatorTaskTag, status: .good, numbers: rig.numbers(0)))
        #expect(rig.completions.map(\.token) == [1, 2, 3])
        #expect(rig.completions[0].transferredByteCount == 8192)
        #expect(rig.lost.isEmpty && rig.failure == nil)
        // The connection comes back as a new one.
        #expect(rig.logIn(1)?.connectionID != cid)
        #expect(rig.submit(.none, token: 5, on: 1).isAccepted)
    }

    @Test func time2WaitIsWaited() throws {
        let rig = MultiConnectionRig(2, level: 2)
        rig.submit(.write, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.expCmdSN = 101
        rig.cut(1)
        _ = try logOut(rig, via: 0, time2Wait: 3)
        #expect(rig.sent(0).isEmpty)
        rig.pass(.milliseconds(2900))
        #expect(rig.sent(0).allSatisfy { $0.opcode != .taskManagementRequest })
        rig.pass(.milliseconds(200))
        #expect(rig.sent(0).contains { $0.opcode == .taskManagementRequest })
    }

    /// It is the target that chooses Time2Wait, up to 18 hours; other paths could carry the commands meanwhile.
    @Test func whereTheTargetAsksForTooMuchTimeTheSessionEnds() throws {
        let said = MultiConnectionRig(2, level: 2)
        said.submit(.write, token: 1, on: 1, memory: memory)
        _ = said.sent(1)
        said.cut(1)
        _ = try logOut(said, via: 0, time2Wait: 65_535)
        #expect(said.failure == .endOfStream && said.ended == [1])

        for (seconds, isTooMuch) in [(4, false), (5, true), (3600, true)] {
            let agreed = MultiConnectionRig(1, level: 2) { $0.defaultTime2Wait = seconds }
            agreed.submit(.write, token: 1, on: 0, memory: memory)
            _ = agreed.sent(0)
            agreed.cut(0)
            #expect(agreed.failure == (isTooMuch ? .endOfStream : nil), "\(seconds) s")

            let dropped = MultiConnectionRig(2, level: 2)
            let cid = dropped.connectionID(1)
            dropped.put(0, .asyncMessage(
                .connectionDrops(connectionID: cid, time2Wait: UInt16(seconds), time2Retain: 20), numbers: dropped.numbers(0)))
            dropped.session.beginRecovery(dropped.c(1), at: dropped.now)
            dropped.drain()
            #expect((dropped.failure != nil) == isTooMuch, "\(seconds) s")
        }
    }

    /// While it belonged to no connection its age was not looked at.
    @Test func aReassignedCommandIsReportedOverdue() throws {
        let rig = MultiConnectionRig(2, level: 2)
        rig.adoptCommandTimeout(.seconds(2))
        rig.submit(.write, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.expCmdSN = 101
        rig.pass(.milliseconds(1500))
        rig.cut(1)
        rig.pass(.milliseconds(700))
        #expect(!rig.events.contains(.commandOverdue(token: 1)))
        _ = try logOut(rig, via: 0)
        #expect(rig.outstandingCommandCount == 1)
        #expect(rig.nextDeadline <= rig.now)
        rig.pass(.milliseconds(1))
        #expect(rig.events.filter { $0 == .commandOverdue(token: 1) }.count == 1)
        #expect(rig.nextDeadline > rig.now, "said once")
    }

    @Test func aStatusMayOvertakeTheAnswerToTheReassignment() throws {
        let rig = MultiConnectionRig(2, level: 2)
        rig.submit(.write, token: 1, on: 1, memory: memory)
        let command = rig.sent(1)[0]
        rig.expCmdSN = 101
        rig.cut(1)
        _ = try logOut(rig, via: 0)
        let reassign = rig.sent(0)[0]
        rig.good(0, command.header.initiatorTaskTag)
        #expect(rig.completions.map(\.token) == [1])
        rig.put(0, .taskManagementResponse(.taskDoesNotExist, tag: reassign.header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.ended == [1] && rig.failure == nil)
    }

    @Test func aReadThatIsNoMoreIsHandedBackOnce() throws {
        let rig = MultiConnectionRig(2, level: 2)
        rig.submit(.read, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.expCmdSN = 101
        rig.cut(1)
        _ = try logOut(rig, via: 0)
        let reassign = rig.sent(0)[0]
        rig.put(0, .taskManagementResponse(.taskDoesNotExist, tag: reassign.header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.lost == [1] && rig.outstandingCommandCount == 0)
        #expect(rig.sent(0).isEmpty)
    }

    /// A write whose reassignment was answered "task does not exist", and the ABORT TASK that follows.
    private func orphan(_ rig: MultiConnectionRig) throws -> (command: BasicHeaderSegment, abort: BasicHeaderSegment) {
        rig.submit(.write, token: 1, on: 1, memory: memory)
        let command = rig.sent(1)[0].header
        rig.expCmdSN = 101
        rig.cut(1)
        _ = try logOut(rig, via: 0)
        let reassign = rig.sent(0)[0]
        rig.put(0, .taskManagementResponse(.taskDoesNotExist, tag: reassign.header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.ended.isEmpty, "the target may still be executing it")
        let abort = rig.sent(0)
        #expect(abort.map(\.opcode) == [.taskManagementRequest])
        #expect(abort[0].header.taskManagementFunction == .abortTask && abort[0].header.isImmediate)
        #expect(abort[0].header.referencedTaskTag == command.initiatorTaskTag && abort[0].header.refCmdSN == command.cmdSN)
        #expect(abort[0].header.lun == command.lun)
        return (command, abort[0].header)
    }

    @Test(arguments: [TaskManagementResponse.functionComplete, .taskDoesNotExist, .lunDoesNotExist])
    func aWriteThatIsNoMoreIsHandedBackOnceItIsMadeSureOf(response: TaskManagementResponse) throws {
        let rig = MultiConnectionRig(2, level: 2)
        let (_, abort) = try orphan(rig)
        rig.put(0, .taskManagementResponse(response, tag: abort.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.lost == [1] && rig.ended == [1] && rig.outstandingCommandCount == 0 && rig.failure == nil)
    }

    @Test func aStatusThatComesBeforeTheAnswerToTheAbortCounts() throws {
        let rig = MultiConnectionRig(2, level: 2)
        let (command, abort) = try orphan(rig)
        rig.good(0, command.initiatorTaskTag)
        rig.put(0, .taskManagementResponse(.taskDoesNotExist, tag: abort.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.completions.map(\.token) == [1] && rig.ended == [1] && rig.failure == nil)
    }

    @Test func anAbortThatIsRefusedEndsTheSession() throws {
        let rig = MultiConnectionRig(2, level: 2)
        let (_, abort) = try orphan(rig)
        rig.put(0, .taskManagementResponse(.rejected, tag: abort.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.failure == .recoveryRefused(.rejected))
        #expect(rig.events.contains(.commandAbandoned(token: 1, wasSent: true)))
    }

    @Test func theConnectionThatAbortsMayBeLostAsWell() throws {
        let rig = MultiConnectionRig(3, level: 2)
        _ = try orphan(rig)
        rig.cut(0)
        #expect(rig.ended.isEmpty)
        let logout = try logOut(rig, via: 2)
        #expect(logout.connectionID == rig.ends[0].connectionID)
        for function in [TaskManagementFunction.taskReassign, .abortTask] {
            let pdus = rig.sent(2)
            #expect(pdus.map(\.header.taskManagementFunction) == [function])
            #expect(rig.ended.isEmpty)
            rig.put(2, .taskManagementResponse(.taskDoesNotExist, tag: pdus[0].header.initiatorTaskTag, numbers: rig.numbers(2)))
        }
        #expect(rig.lost == [1] && rig.ended == [1] && rig.failure == nil)
    }

    /// A target that asks for the data of a task that it says it has not.
    @Test func aTargetThatContradictsItselfLosesTheSession() throws {
        let rig = MultiConnectionRig(2, level: 2)
        let data = UnsafeMutableRawBufferPointer.filled(200_000)
        defer { data.deallocate() }
        rig.submit(.write, token: 1, on: 1, memory: data)
        let command = rig.sent(1)[0]
        rig.expCmdSN = 101
        rig.cut(1)
        _ = try logOut(rig, via: 0)
        let reassign = rig.sent(0)[0]
        rig.put(0, .taskManagementResponse(.taskDoesNotExist, tag: reassign.header.initiatorTaskTag, numbers: rig.numbers(0)))
        let abort = rig.sent(0)[0]
        rig.put(0, .readyToTransfer(
            lun: command.header.lun, tag: command.header.initiatorTaskTag, targetTransferTag: 5, r2tSN: 0, bufferOffset: 0,
            desiredDataTransferByteCount: 100_000, numbers: ResponseNumbers(statSN: rig.ends[0].statSN, expCmdSN: 101, maxCmdSN: 163)))
        rig.put(0, .taskManagementResponse(.taskDoesNotExist, tag: abort.header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.failure == .recoveryRefused(.taskDoesNotExist))
        #expect(rig.ended == [1])
    }

    @Test(arguments: [TaskManagementResponse.taskStillAllegiant, .reassignmentNotSupported, .rejected])
    func aRefusedReassignmentEndsTheSession(response: TaskManagementResponse) throws {
        let rig = MultiConnectionRig(2, level: 2)
        rig.submit(.write, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.expCmdSN = 101
        rig.cut(1)
        _ = try logOut(rig, via: 0)
        let reassign = rig.sent(0)[0]
        rig.put(0, .taskManagementResponse(response, tag: reassign.header.initiatorTaskTag, numbers: rig.numbers(0)))
        #expect(rig.failure == .recoveryRefused(response) && rig.ended == [1])
    }

    @Test func theOnlyConnectionIsReinstatedAndItsTasksGoOnThere() throws {
        let rig = MultiConnectionRig(1, level: 2)
        rig.submit(.write, token: 1, on: 0, memory: memory)
        let command = rig.sent(0)[0]
        let cid = rig.connectionID(0)
        rig.cut(0)
        #expect(rig.events == [.connectionLost(rig.c(0), .endOfStream), .connectionWanted(rig.c(0))])
        rig.expCmdSN = 101
        #expect(rig.logIn(0)?.connectionID == cid)
        rig.answer(nop: rig.sent(0)[0], 0)
        let reassign = rig.sent(0)
        #expect(reassign.map(\.header.referencedTaskTag) == [command.header.initiatorTaskTag])
        rig.put(0, .taskManagementResponse(.functionComplete, tag: reassign[0].header.initiatorTaskTag, numbers: rig.numbers(0)))
        rig.good(0, command.header.initiatorTaskTag)
        #expect(rig.ended == [1] && rig.failure == nil)
    }

    @Test func aTransportThatNeverComesEndsTheSession() {
        let rig = MultiConnectionRig(1, level: 2)
        rig.submit(.write, token: 1, on: 0, memory: memory)
        _ = rig.sent(0)
        rig.cut(0)
        for _ in 0..<20 where rig.failure == nil {
            rig.session.connectionClosed(rig.c(0), reason: .connectFailed(code: 111), at: rig.now)
            rig.pass(.milliseconds(100))
        }
        #expect(rig.failure == .endOfStream && rig.ended == [1])
        #expect(rig.events.count { $0 == .connectionWanted(rig.c(0)) } > 3)
    }

    /// The status came before its data and was lost with the connection's numbers: it comes again, and what it was to wait for
    /// may be cut differently there.
    @Test func aStatusThatWaitedForItsDataIsForgotten() throws {
        let rig = MultiConnectionRig(2, level: 2)
        let target = UnsafeMutableRawBufferPointer.filled(8192)
        defer { target.deallocate() }
        rig.submit(.read, token: 1, on: 1, memory: target)
        let tag = rig.sent(1)[0].header.initiatorTaskTag
        rig.expCmdSN = 101
        rig.put(1, .dataIn(
            tag: tag, flags: [], dataSN: 0, bufferOffset: 0, byteCount: 4096,
            numbers: ResponseNumbers(statSN: 0, expCmdSN: 101, maxCmdSN: 163)), [UInt8](repeating: 1, count: 4096))
        rig.put(1, .scsiResponse(tag: tag, status: .good, expDataSN: 2, numbers: rig.numbers(1)))
        #expect(rig.completions.isEmpty)
        rig.cut(1)
        _ = try logOut(rig, via: 0)
        #expect(rig.sent(0).map(\.header.expDataSN) == [1])
        rig.put(0, .dataIn(
            tag: tag, flags: [], dataSN: 1, bufferOffset: 4096, byteCount: 2048,
            numbers: ResponseNumbers(statSN: rig.ends[0].statSN, expCmdSN: 101, maxCmdSN: 163)), [UInt8](repeating: 2, count: 2048))
        #expect(rig.completions.isEmpty, "half of it is missing")
        rig.put(0, .dataIn(
            tag: tag, status: .good, dataSN: 2, bufferOffset: 6144, byteCount: 2048, numbers: rig.numbers(0)),
            [UInt8](repeating: 3, count: 2048))
        #expect(rig.completions.map(\.transferredByteCount) == [8192] && rig.failure == nil)
        #expect((0..<8192).allSatisfy { target[$0] == ($0 < 4096 ? 1 : $0 < 6144 ? 2 : 3) })
    }

    @Test func aReadMayBeginAnewOnItsNewConnection() throws {
        let rig = MultiConnectionRig(2, level: 2)
        let target = UnsafeMutableRawBufferPointer.filled(8192)
        defer { target.deallocate() }
        rig.submit(.read, token: 1, on: 1, memory: target)
        let command = rig.sent(1)[0]
        rig.put(1, .dataIn(
            tag: command.header.initiatorTaskTag, flags: [], dataSN: 0, bufferOffset: 0, byteCount: 4096,
            numbers: ResponseNumbers(statSN: 0, expCmdSN: 101, maxCmdSN: 163)), [UInt8](repeating: 1, count: 4096))
        rig.expCmdSN = 101
        rig.cut(1)
        _ = try logOut(rig, via: 0)
        _ = rig.sent(0)
        rig.put(0, .dataIn(
            tag: command.header.initiatorTaskTag, status: .good, dataSN: 0, bufferOffset: 0, byteCount: 8192,
            numbers: rig.numbers(0)), [UInt8](repeating: 2, count: 8192))
        #expect(rig.completions.map(\.transferredByteCount) == [8192])
        #expect(target.allSatisfy { $0 == 2 })
    }

    @Test func aWriteIsAskedForWhatIsMissing() throws {
        let rig = MultiConnectionRig(2, level: 2)
        let data = UnsafeMutableRawBufferPointer.filled(200_000)
        defer { data.deallocate() }
        rig.submit(.write, token: 1, on: 1, memory: data)
        let command = rig.sent(1)[0]
        rig.expCmdSN = 101
        rig.cut(1)
        _ = try logOut(rig, via: 0)
        _ = rig.sent(0)
        // From the middle, with the R2TSN that the target had come to.
        rig.put(0, .readyToTransfer(
            lun: command.header.lun, tag: command.header.initiatorTaskTag, targetTransferTag: 5, r2tSN: 4, bufferOffset: 8192,
            desiredDataTransferByteCount: 16_384, numbers: ResponseNumbers(statSN: rig.ends[0].statSN, expCmdSN: 101, maxCmdSN: 163)))
        let out = rig.sent(0).filter { $0.opcode == .dataOut }
        #expect(out.map(\.data).reduce([], +) == Array(data[8192..<(8192 + 16_384)]))
        #expect(out.allSatisfy { $0.header.targetTransferTag == 5 })
        rig.put(0, .readyToTransfer(
            lun: command.header.lun, tag: command.header.initiatorTaskTag, targetTransferTag: 6, r2tSN: 9, bufferOffset: 24_576,
            desiredDataTransferByteCount: 512, numbers: ResponseNumbers(statSN: rig.ends[0].statSN, expCmdSN: 101, maxCmdSN: 163)))
        // Some are missing: they are asked for, and what came out of turn is not acted on.
        let asked = rig.sent(0)
        #expect(asked.map(\.opcode) == [.snackRequest] && asked[0].header.snackType == .dataOrR2T && asked[0].header.begRun == 5)
        #expect(rig.failure == nil)
    }

    @Test func aSecondLossMovesTheTasksOnceMore() throws {
        let rig = MultiConnectionRig(3, level: 2)
        for token in 1...4 { rig.submit(.write, token: UInt64(token), on: 1, memory: memory) }
        let commands = rig.sent(1)
        rig.expCmdSN = 104
        rig.cut(1)
        _ = try logOut(rig, via: 0)
        #expect(rig.sent(0).count + rig.sent(2).count == 4)
        rig.cut(2)
        let logout = try logOut(rig, via: 0)
        #expect(logout.connectionID == rig.ends[2].connectionID)
        let again = rig.sent(0).filter { $0.opcode == .taskManagementRequest }
        #expect(again.count == 2)
        for command in commands { rig.good(0, command.header.initiatorTaskTag) }
        #expect(rig.completions.map(\.token).sorted() == [1, 2, 3, 4])
        #expect(rig.failure == nil)
    }

    @Test func neverReassignedBeforeTheLogoutIsAnswered() {
        let rig = MultiConnectionRig(2, level: 2)
        rig.submit(.write, token: 1, on: 1, memory: memory)
        _ = rig.sent(1)
        rig.expCmdSN = 101
        rig.cut(1)
        rig.pass(.milliseconds(900))
        #expect(rig.sent(0).map(\.opcode).filter { $0 != .nopOut } == [.logoutRequest])
        // A transport that comes meanwhile is not used.
        rig.session.connectionOpened(rig.c(1), at: rig.now)
        rig.drain()
        #expect(rig.events.last == .connectionFailed(rig.c(1), .closedLocally))
    }
}
