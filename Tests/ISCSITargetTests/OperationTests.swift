import AsyncIO
import SCSI
import Testing

@testable import ISCSITarget

@Suite struct OperationTests {
    let backend = LateBackend()
    let bench: DeviceBench

    init() { bench = DeviceBench(backend: backend) }

    @Test func anAbortIsOverOnlyWhenTheBackendLetsGo() {
        let nexus = bench.nexus()
        let token = bench.begin(.write(lba: 0, blockCount: 1), nexus, dataOut: bytes(512))
        #expect(bench.unit.abort(.command(token: token), managementToken: 9) == false)
        #expect(bench.managed.isEmpty && bench.aborted.isEmpty)
        backend.finishOne()
        #expect(bench.aborted == [token])
        #expect(bench.managed == [9])
        #expect(bench.results.isEmpty, "an aborted command is not answered")
        #expect(bench.unit.abort(.nexus(nexus), managementToken: 10), "nothing is left")
    }

    @Test func abortTaskSetReachesTheNexusAndNoOther() {
        let (a, b) = (bench.nexus(1), bench.nexus(2))
        let first = bench.begin(.read(lba: 0, blockCount: 1), a)
        let second = bench.begin(.read(lba: 0, blockCount: 1), b)
        #expect(bench.unit.abort(.nexus(a), managementToken: 1) == false)
        backend.finishOne()
        backend.finishOne()
        #expect(bench.aborted == [first])
        #expect(bench.outcome(second)?.status == .good)
        #expect(bench.pool.lentByteCount == 0)
    }

    @Test func compareAndWriteIsAlone() {
        let nexus = bench.nexus()
        let old = [UInt8](repeating: 0, count: 512)
        let new = bytes(512)
        let read = bench.begin(.read(lba: 100, blockCount: 1), nexus)
        let swap = bench.begin(.compareAndWrite(lba: 0, blockCount: 1), nexus, dataOut: old + new)
        let write = bench.begin(.write(lba: 0, blockCount: 1), nexus, dataOut: bytes(512, seed: 5))
        #expect(backend.pending.count == 1, "the read alone runs")
        backend.finishOne()
        #expect(bench.outcome(read)?.status == .good)
        #expect(backend.pending.count == 1, "then the comparison")
        backend.finishOne()
        #expect(bench.results[swap] == nil && backend.pending.count == 1)
        backend.finishOne()
        #expect(bench.outcome(swap)?.status == .good)
        #expect(backend.pending.count == 1, "then the write")
        backend.finishOne()
        #expect(bench.outcome(write)?.status == .good)
    }

    @Test func anOrderedTaskWaitsForThoseBeforeItAndStopsThoseBehind() {
        let nexus = bench.nexus()
        let a = bench.begin(.read(lba: 0, blockCount: 1), nexus)
        let b = bench.begin(.read(lba: 1, blockCount: 1), nexus, attribute: .ordered)
        let c = bench.begin(.read(lba: 2, blockCount: 1), nexus)
        let d = bench.begin(.read(lba: 3, blockCount: 1), nexus, attribute: .headOfQueue)
        #expect(backend.pending.count == 2, "the first, and the head of the queue")
        backend.finishOne()
        backend.finishOne()
        #expect(bench.outcome(a) != nil && bench.outcome(d) != nil)
        #expect(backend.pending.count == 1)
        backend.finishOne()
        #expect(bench.outcome(b) != nil)
        #expect(backend.pending.count == 1)
        backend.finishOne()
        #expect(bench.outcome(c) != nil)
    }

    @Test func theHeadOfTheQueueDoesNotComeBetweenComparingAndWriting() {
        let nexus = bench.nexus()
        let swap = bench.begin(.compareAndWrite(lba: 0, blockCount: 1), nexus, dataOut: [UInt8](repeating: 0, count: 512) + bytes(512))
        let head = bench.begin(.write(lba: 0, blockCount: 1), nexus, dataOut: bytes(512, seed: 5), attribute: .headOfQueue)
        let other = bench.begin(.read(lba: 0, blockCount: 1), nexus)
        #expect(backend.pending.count == 1, "the comparison")
        backend.finishOne()
        #expect(bench.results[swap] == nil && backend.pending.count == 1, "its write")
        backend.finishOne()
        #expect(bench.outcome(swap)?.status == .good)
        #expect(backend.pending.count == 2)
        backend.finishOne()
        backend.finishOne()
        #expect(bench.outcome(head)?.status == .good && bench.outcome(other)?.status == .good)
    }

    /// Who logs in again is told nothing of the old session's commands, and believes them dead.
    @Test func writesWaitForThoseOfASessionThatIsGone() {
        let nexus = bench.nexus()
        _ = bench.begin(.write(lba: 0, blockCount: 1), nexus, dataOut: bytes(512))
        #expect(!bench.unit.abort(.session(0), managementToken: nil))
        let newer = bench.begin(.write(lba: 0, blockCount: 1), nexus, dataOut: bytes(512, seed: 5))
        #expect(backend.pending.count == 1)
        backend.finishOne()
        #expect(backend.pending.count == 1)
        backend.finishOne()
        #expect(bench.outcome(newer)?.status == .good)
    }

    @Test func aBackendsErrorsBecomeSenseData() {
        let nexus = bench.nexus()
        let read = bench.begin(.read(lba: 0, blockCount: 1), nexus)
        backend.finishOne(.io(IOError(code: 5, operation: "read")))
        #expect(bench.outcome(read)?.sense?.key == .mediumError)
        let write = bench.begin(.write(lba: 0, blockCount: 1), nexus, dataOut: bytes(512))
        backend.finishOne(.noSpace)
        #expect(bench.outcome(write)?.additional == .spaceAllocationFailedWriteProtect)
        #expect(bench.pool.lentByteCount == 0)
    }

    @Test func forceUnitAccessFlushesBehindTheWrite() {
        let nexus = bench.nexus()
        let token = bench.begin(.write(lba: 0, blockCount: 1, options: .forceUnitAccess), nexus, dataOut: bytes(512))
        backend.finishOne()
        #expect(bench.results[token] == nil)
        backend.finishOne()
        #expect(bench.outcome(token)?.status == .good)
    }

    @Test func memoryAgreesWithAPlainArray() {
        let byteCount = 256 << 10
        let memory = MemoryBackend(byteCount: UInt64(byteCount))
        var model = [UInt8](repeating: 0, count: byteCount)
        var state: UInt64 = 5
        func random(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1
            return Int(state >> 33) % limit
        }
        for round in 0..<150 {
            let offset = random(512) * 512
            let count = min(byteCount - offset, (1 + random(200)) * 512)
            switch random(4) {
            case 0:
                _ = memory.deallocate(offset: UInt64(offset), byteCount: UInt64(count), token: 0)
                for index in offset..<offset + count { model[index] = 0 }
            case 1:
                var data = [UInt8](repeating: 1, count: count)
                _ = data.withUnsafeMutableBytes { memory.read(offset: UInt64(offset), into: $0, token: 0) }
                #expect(data == Array(model[offset..<offset + count]))
            default:
                let data = bytes(count, seed: UInt64(round))
                _ = data.withUnsafeBytes { memory.write(offset: UInt64(offset), from: $0, token: 0) }
                model.replaceSubrange(offset..<offset + count, with: data)
            }
        }
        _ = memory.deallocate(offset: 0, byteCount: UInt64(byteCount), token: 0)
        #expect(memory.allocatedByteCount == 0)
    }
}
