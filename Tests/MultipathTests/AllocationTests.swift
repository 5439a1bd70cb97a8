import AllocationCount
import SCSI
import Testing
import Timebase

@testable import Multipath

/// A request through the pseudo-LUN (admitted, sent to the path that the policy chose, ended) allocates nothing, whatever the
/// policy and however many paths. The count is that of this thread: tests beside this one do not disturb it.
@Suite struct AllocationTests {
    @Test(arguments: PolicyKind.allCases, [2, 8, 64])
    func choosingAPathAllocatesNothing(policy: PolicyKind, pathCount: Int) {
        let harness = Harness(policy: policy, paths: pathCount, standbys: pathCount > 4 ? [1, 2] : [])
        let lun = harness.lun
        let now = harness.now
        // A ring, because removing an array's first element allocates in a build without optimisation.
        let depth = 16
        let inFlight = UnsafeMutablePointer<(RequestIndex, PathIndex)>.allocate(capacity: depth)
        defer { inFlight.deallocate() }
        var issuedCount = 0
        var finishedCount = 0

        func turn(_ number: UInt64) {
            let kind: RequestKind = number % 4 == 0 ? .write : .read
            _ = lun.admit(RequestDescriptor(kind: kind, lba: number * 8, blockCount: 8, byteCount: 4096), at: now)
            if issuedCount >= depth {
                let (request, path) = inFlight[issuedCount % depth]
                lun.completed(request, on: path, outcome: .good, at: now)
            }
            while let action = lun.nextAction() {
                switch action {
                case .issue(let request, let path):
                    (inFlight + issuedCount % depth).initialize(to: (request, path))
                    issuedCount += 1
                case .finish: finishedCount += 1
                default: break
                }
            }
        }

        for number in 0..<200 { turn(UInt64(number)) }
        let before = thread_allocation_count()
        for number in 200..<1200 { turn(UInt64(number)) }
        let allocations = thread_allocation_count() - before
        #expect(finishedCount == 1200 - depth)
        #expect(allocations == 0)
    }

    @Test func allocationsAreCounted() {
        let before = thread_allocation_count()
        let memory = UnsafeMutablePointer<UInt64>.allocate(capacity: 1 << 12)
        memory.initialize(repeating: 1, count: 1 << 12)
        #expect(memory[17] == 1)
        memory.deallocate()
        #expect(thread_allocation_count() > before || !counts_allocations())
    }
}
