import AllocationCount
import Foundation
import TestSupport
import Testing

@testable import MPIO

/// In a steady state a request allocates nothing, nor does one of the async API on the reactor's thread: measured there, where all of
/// it happens.
@Suite struct RequestAllocationTests {
    /// In quarters of an allocation per request. Were it one for each request, there would be thousands; a path that logs in late
    /// has some hundreds. Without optimisation the compiler boxes what it otherwise keeps on the stack, seven times a request:
    /// there only more than that shows.
    #if DEBUG
        private static let limit: UInt64 = 4 * 12
    #else
        private static let limit: UInt64 = 1
    #endif

    @Test(arguments: [IORequest.Operation.read, .write], [1, 8])
    func aRequestOfTheBatchAPIAllocatesNothing(_ operation: IORequest.Operation, depth: Int) async throws {
        let target = try TargetWithUnits(units: 1, portals: 2)
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open(TargetWithUnits.lunName(0))
        let load = CountedLoad(operation, depth: depth, requestCount: 6000)
        let allocations = await load.run(on: disk)
        #expect(load.errorCount == 0)
        #expect(allocations < UInt64(load.requestCount) * Self.limit / 4, "\(allocations) allocations for \(load.requestCount) requests")
        try await manager.shutdown()
        try target.stop()
    }
}

extension RequestAllocationTests {
    #if DEBUG
        private static let asyncLimit: UInt64 = 4 * 24
    #else
        private static let asyncLimit: UInt64 = 1
    #endif

    @Test(arguments: [1, 8]) func anAsyncRequestAllocatesNothing(depth: Int) async throws {
        let target = try TargetWithUnits(units: 1, portals: 2)
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open(TargetWithUnits.lunName(0))
        let requestCount = 4000
        let allocations = try await disk.run {
            try await Self.read(disk, depth: depth, requestCount: requestCount / 4)
            let before = thread_allocation_count()
            try await Self.read(disk, depth: depth, requestCount: requestCount)
            return thread_allocation_count() - before
        }
        #expect(allocations < UInt64(requestCount) * Self.asyncLimit / 4, "\(allocations) allocations for \(requestCount) requests")
        try await manager.shutdown()
        try target.stop()
    }

    private static func read(_ disk: MultipathDisk, depth: Int, requestCount: Int) async throws {
        let size = TargetWithUnits.blockByteCount
        let buffer = IOBuffer(byteCount: depth * size)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for slot in 0..<depth {
                group.addTask {
                    for round in 0..<requestCount / depth {
                        let block = UInt64(round * 7 % TargetWithUnits.blockCount)
                        try await disk.read(into: buffer, range: slot * size..<(slot + 1) * size, at: block * UInt64(size))
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}

/// So many requests, `depth` at a time, the first quarter of which does not count. After the first batch all of it happens
/// on the reactor's thread.
private final class CountedLoad: @unchecked Sendable {
    let requestCount: Int
    private(set) var errorCount = 0
    private let operation: IORequest.Operation
    private let depth: Int
    private let buffer: IOBuffer
    private var queue: IOQueue?
    private var issuedCount = 0
    private var endedCount = 0
    private var before: UInt64 = 0
    private var continuation: CheckedContinuation<UInt64, Never>?

    init(_ operation: IORequest.Operation, depth: Int, requestCount: Int) {
        self.operation = operation
        self.depth = depth
        self.requestCount = requestCount
        buffer = IOBuffer(byteCount: depth * TargetWithUnits.blockByteCount)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: 7)
    }

    /// Allocations of the reactor's thread while the last three quarters ran.
    func run(on disk: MultipathDisk) async -> UInt64 {
        queue = IOQueue(disk: disk) { [unowned self] in ended($0) }
        return await disk.run {
            await withCheckedContinuation { continuation in
                self.continuation = continuation
                for slot in 0..<depth { issue(slot) }
            }
        }
    }

    private func issue(_ slot: Int) {
        let block = UInt64(issuedCount * 7 % TargetWithUnits.blockCount)
        var request = IORequest(
            operation, offset: block * UInt64(TargetWithUnits.blockByteCount), byteCount: TargetWithUnits.blockByteCount,
            memory: buffer.bytes.baseAddress! + slot * TargetWithUnits.blockByteCount, token: UInt64(slot))
        issuedCount += 1
        withUnsafePointer(to: &request) { queue!.submit(UnsafeBufferPointer(start: $0, count: 1)) }
    }

    private func ended(_ completions: UnsafeBufferPointer<IORequestCompletion>) {
        for completion in completions {
            if completion.error != nil { errorCount += 1 }
            endedCount += 1
            if endedCount == requestCount / 4 { before = thread_allocation_count() }
            if issuedCount < requestCount { issue(Int(completion.token)) }
        }
        guard endedCount == requestCount else { return }
        continuation?.resume(returning: thread_allocation_count() - before)
    }
}
