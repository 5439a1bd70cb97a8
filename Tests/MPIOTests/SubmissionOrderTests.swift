import Foundation
import TestSupport
import Testing

@testable import MPIO

/// Overlapping writes are done in the order of their submission, whichever threads they come from: one that lies in a gate's inbox
/// is not overtaken by one that is submitted on the reactor's thread.
@Suite(.serialized) struct SubmissionOrderTests {
    private static let block = TargetWithUnits.blockByteCount
    private static let stripe = 1 << 20

    private func filled(_ byte: UInt8, _ byteCount: Int = block) -> IOBuffer {
        let buffer = IOBuffer(byteCount: byteCount)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: byte)
        return buffer
    }

    private func write(_ buffer: IOBuffer, at offset: Int, token: UInt64) -> IORequest {
        IORequest(.write, offset: UInt64(offset), byteCount: buffer.byteCount, memory: buffer.bytes.baseAddress, token: token)
    }

    private func withDisk(lanes: Int, _ body: (MultipathDisk) async throws -> Void) async throws {
        let target = try TargetWithUnits(units: 1, size: "8M")
        let manager = try await target.manager(reactors: nil, units: [0], head: "reactors: \(lanes)", lanes: { _ in lanes })
        try await body(try await manager.open("a"))
        try await manager.shutdown()
        try target.stop()
    }

    private func firstByte(_ disk: MultipathDisk, at offset: Int) async throws -> UInt8 {
        let back = IOBuffer(byteCount: Self.block)
        try await disk.read(into: back, at: UInt64(offset))
        return back.bytes[0]
    }

    enum Second: CaseIterable, Sendable {
        /// One request of a queue, in its lane.
        case alone
        /// Among others of a batch, some of which belong to other lanes.
        case inBatch
        /// Over two stripes.
        case overStripes
        /// By the async API.
        case asynchronous
    }

    @Test(arguments: [1, 2], Second.allCases) func aWriteOnTheReactorsThreadStaysBehindThoseOfOthers(lanes: Int, second: Second) async throws {
        try await withDisk(lanes: lanes) { (disk: MultipathDisk) async throws in
            let ended = Locked<[UInt64: DiskError?]>([:])
            let queue = IOQueue(disk: disk) { completions in
                ended.withLock { ended in for completion in completions { ended[completion.token] = .some(completion.error) } }
            }
            // The last block of the second stripe, which the last lane has.
            let lane = lanes - 1
            let offset = 2 * Self.stripe - Self.block
            let (old, new, free, long) = (filled(1), filled(2), filled(9), filled(2, 2 * Self.block))
            try await disk.run(onLane: lane) {
                // The reactor's thread comes to nothing else meanwhile.
                onAnotherThread { queue.submit([write(old, at: offset, token: 1)]) }
                switch second {
                case .alone: queue.submit([write(new, at: offset, token: 2)])
                case .inBatch:
                    queue.submit([
                        write(free, at: 4 * Self.stripe, token: 3), write(free, at: 5 * Self.stripe, token: 4),
                        write(new, at: offset, token: 2),
                    ])
                case .overStripes: queue.submit([write(long, at: offset, token: 2)])
                case .asynchronous:
                    try await disk.write(new, at: UInt64(offset))
                    ended.withLock { $0[2] = .some(nil) }
                }
            }
            #expect(try await eventually { ended.withLock { $0[1] != nil && $0[2] != nil && $0.count == (second == .inBatch ? 4 : 2) } })
            #expect(ended.withLock { $0.values.allSatisfy { $0 == nil } }, "\(ended.withLock { $0 })")
            #expect(try await firstByte(disk, at: offset) == 2, "the write that was submitted last")
            withExtendedLifetime((queue, old, new, free, long)) {}
        }
    }

    /// A handler that is called while a batch is handed over submits, and finds that more has come meanwhile.
    @Test func aHandOverInsideOfAnotherKeepsTheOrder() async throws {
        try await withDisk(lanes: 1) { (disk: MultipathDisk) async throws in
            let ended = Locked<[UInt64: DiskError?]>([:])
            let own = Locked<IOQueue?>(nil)
            let (old, new) = (filled(3), filled(4))
            let queue = IOQueue(disk: disk) { completions in
                for completion in completions {
                    ended.withLock { $0[completion.token] = .some(completion.error) }
                    guard completion.token == 1, let queue = own.withLock({ $0 }) else { continue }
                    onAnotherThread { queue.submit([write(old, at: 0, token: 2)]) }
                    queue.submit([write(new, at: 0, token: 3)])
                }
            }
            own.withLock { $0 = queue }
            // It is refused as it enters, so that its handler is called inside of the hand-over.
            onAnotherThread { queue.submit([IORequest(.write, offset: 1, byteCount: Self.block, memory: old.bytes.baseAddress, token: 1)]) }
            #expect(try await eventually { ended.withLock { $0.count } == 3 })
            #expect(ended.withLock { $0[1]! != nil && $0[2]! == nil && $0[3]! == nil }, "\(ended.withLock { $0 })")
            #expect(try await firstByte(disk, at: 0) == 4, "the write that was submitted last")
            own.withLock { $0 = nil }
            withExtendedLifetime((queue, old, new)) {}
        }
    }

    /// Threads that submit beside the reactor's own, again and again: each request ends once, and well.
    @Test func requestsFromInsideAndOutsideAllEndOnce() async throws {
        try await withDisk(lanes: 1) { (disk: MultipathDisk) async throws in
            let rounds = 500
            let counts = Locked((inside: 0, outside: 0, errors: 0))
            let own = Locked<IOQueue?>(nil)
            let buffer = filled(7)
            let queue = IOQueue(disk: disk) { completions in
                for completion in completions {
                    let again = counts.withLock { counts in
                        if completion.error != nil { counts.errors += 1 }
                        if completion.token == 1 { counts.inside += 1 } else { counts.outside += 1 }
                        return completion.token == 1 && counts.inside < rounds
                    }
                    if again { own.withLock { $0 }?.submit([write(buffer, at: 0, token: 1)]) }
                }
            }
            own.withLock { $0 = queue }
            queue.submit([write(buffer, at: 0, token: 1)])
            for _ in 0..<4 {
                Thread.detachNewThread {
                    for _ in 0..<rounds { queue.submit([write(buffer, at: 0, token: 2)]) }
                }
            }
            #expect(try await eventually { counts.withLock { $0.inside == rounds && $0.outside == 4 * rounds } }, "\(counts.withLock { $0 })")
            #expect(counts.withLock { $0.errors } == 0)
            own.withLock { $0 = nil }
            withExtendedLifetime((queue, buffer)) {}
        }
    }
}

/// Runs `body` on a new thread and blocks until it has returned.
private func onAnotherThread(_ body: @escaping @Sendable () -> Void) {
    let isDone = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
        body()
        isDone.signal()
    }
    isDone.wait()
}
