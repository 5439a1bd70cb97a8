import SCSI
import Testing
import Timebase

@testable import ISCSI

/// What fuzzing, and the review that went with it, found in the target's protocol half.
@Suite struct FuzzTargetTests {
    private func twoConnections() -> (TargetBench, BenchClient, BenchClient) {
        let bench = TargetBench { $0.operational.maxConnections = 2 }
        let first = bench.client()
        first.logIn { $0.operational.maxConnections = 2 }
        let second = bench.client()
        second.logIn {
            $0.operational.maxConnections = 2
            $0.tsih = first.tsih
            $0.connectionID = 1
            $0.sessionParameters = first.parameters
        }
        return (bench, first, second)
    }

    /// The turn of a command, by CmdSN, may come while its immediate data is still on the way on another connection.
    @Test func aWriteWhoseTurnComesBeforeItsDataIsExecutedWhenTheDataIsThere() {
        let (_, first, second) = twoConnections()
        let data = pattern(1024)
        let late = PDU(
            header: .scsiCommand(
                CommandDescriptorBlock(operationCode: 0x2A), lun: LogicalUnitNumber(index: 0)!, tag: 7, flags: [.final, .write],
                expectedDataTransferByteCount: 1024, immediateDataByteCount: 1024, cmdSN: first.cmdSN &+ 1, expStatSN: 0),
            data: data
        ).encoded()
        second.send(bytes: Array(late.prefix(100)))
        first.command(tag: 6, flags: .final, expected: 0)
        #expect(first.readyCommands().count == 1)
        second.send(bytes: Array(late.dropFirst(100)))
        let ready = first.readyCommands()
        #expect(ready.count == 1)
        if let slot = ready.first { #expect(Array(first.session.dataOut(slot)) == data) }
    }

    /// Nor is it answered before: its slot would be another command's when the data is in.
    @Test func aWriteThatFindsNoMemoryIsAnsweredOnlyAfterItsImmediateData() {
        let bench = TargetBench({ $0.operational.maxConnections = 2 }, poolByteCount: 4096)
        let first = bench.client()
        first.logIn { $0.operational.maxConnections = 2 }
        let second = bench.client()
        second.logIn {
            $0.operational.maxConnections = 2
            $0.tsih = first.tsih
            $0.connectionID = 1
            $0.sessionParameters = first.parameters
        }
        let late = PDU(
            header: .scsiCommand(
                CommandDescriptorBlock(operationCode: 0x2A), lun: LogicalUnitNumber(index: 0)!, tag: 7, flags: [.final, .write],
                expectedDataTransferByteCount: 8192, immediateDataByteCount: 1024, cmdSN: first.cmdSN &+ 1, expStatSN: 0),
            data: pattern(1024)
        ).encoded()
        second.send(bytes: Array(late.prefix(100)))
        first.command(tag: 6, flags: .final, expected: 0)
        #expect(second.receive().isEmpty)
        second.send(bytes: Array(late.dropFirst(100)))
        let answers = second.receive()
        #expect(answers.map(\.header.status) == [.taskSetFull])
    }

    /// With a largest transfer below FirstBurstLength the data beyond it is thrown away, and not shown either.
    @Test func dataBeyondTheLargestTransferIsNotShownToTheDeviceServer() {
        let bench = TargetBench { $0.maximumTransferByteCount = 512 }
        let client = bench.client()
        client.logIn()
        client.command(tag: 1, flags: [.final, .write], expected: 16_384, data: pattern(8192))
        let ready = client.readyCommands()
        #expect(ready.count == 1)
        if let slot = ready.first { #expect(client.session.dataOut(slot).count <= 512) }
    }

    /// 64 KiB of "SendTargets=All" would be answered by four thousand lists.
    @Test func aTextRequestAsksForEachKeyOnce() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn(type: .discovery, target: nil)
        let text = Array(repeating: SendTargets.Request.all.encoded, count: 300).flatMap { $0 }
        client.send(.textRequest(.final, tag: 4, cmdSN: client.cmdSN, expStatSN: 0, dataByteCount: text.count), text)
        let answers = client.receive()
        #expect(answers.map(\.header.opcode) == [.reject])
    }

    /// An initiator that asks and never reads: input stops being taken, and one that goes on is thrown out.
    @Test func unreadAnswersToTaskManagementAreBounded() {
        let bench = TargetBench()
        let client = bench.client()
        client.logIn()
        var count = 0
        while client.connection.endReason == nil, count < 20_000 {
            client.send(
                .taskManagementRequest(
                    .abortTask, lun: LogicalUnitNumber(index: 0)!, tag: UInt32(count), referencedTaskTag: 1 << 20,
                    cmdSN: client.cmdSN, expStatSN: 0))
            count += 1
            if count == 2000 { #expect(client.connection.isCongested) }
        }
        #expect(client.connection.endReason == .overflow)
    }
}
