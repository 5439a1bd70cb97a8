import AllocationCount
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import MPIO

/// The async API: who waits is told of its own request, wherever it waits, and a cancelled task's request alone is cancelled.
@Suite struct AsyncRequestTests {
    @Test func whoeverComesSecondCancels() {
        let cancelledLater = RequestProgress()
        let inTime = (submitted: cancelledLater.submitted(), cancelled: cancelledLater.cancelled())
        #expect(inTime == (submitted: false, cancelled: true))
        let cancelledBefore = RequestProgress()
        let tooSoon = (cancelled: cancelledBefore.cancelled(), submitted: cancelledBefore.submitted())
        #expect(tooSoon == (cancelled: false, submitted: true))
    }

    /// Writes and reads a block of its own, `count` times; how often something else came back.
    private static func mismatches(_ disk: MultipathDisk, block: Int, count: Int) async throws -> Int {
        let size = TargetWithUnits.blockByteCount
        let (written, read) = (IOBuffer(byteCount: size), IOBuffer(byteCount: size))
        var mismatches = 0
        for round in 0..<count {
            let pattern = UInt64(block) << 32 | UInt64(round)
            written.bytes.bindMemory(to: UInt64.self).update(repeating: pattern)
            try await disk.write(written, at: UInt64(block * size))
            try await disk.read(into: read, at: UInt64(block * size))
            if read.bytes.bindMemory(to: UInt64.self).contains(where: { $0 != pattern }) { mismatches += 1 }
        }
        return mismatches
    }

    @Test(arguments: [false, true]) func eachTaskIsToldOfItsOwnRequest(onReactor: Bool) async throws {
        let target = try TargetWithUnits(units: 1)
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open("a")
        @Sendable func all() async throws -> Int {
            try await withThrowingTaskGroup(of: Int.self) { group in
                for block in 0..<48 { group.addTask { try await Self.mismatches(disk, block: block, count: 20) } }
                return try await group.reduce(0, +)
            }
        }
        let mismatches = onReactor ? try await disk.run(all) : try await all()
        #expect(mismatches == 0)
        try await manager.shutdown()
        try target.stop()
    }

    /// Tasks of several executors wait for one disk at once.
    @Test @MainActor func tasksOnTheMainActorAreToldToo() async throws {
        let target = try TargetWithUnits(units: 1)
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open("a")
        async let elsewhere = Self.mismatches(disk, block: 1, count: 50)
        async let onReactor = disk.run { try await Self.mismatches(disk, block: 2, count: 50) }
        let buffer = IOBuffer(byteCount: TargetWithUnits.blockByteCount)
        for _ in 0..<50 {
            try await disk.read(into: buffer, at: 0)
            MainActor.assertIsolated()
        }
        #expect(try await elsewhere + onReactor == 0)
        try await manager.shutdown()
        try target.stop()
    }

    /// Without a path requests wait, so that none of them is sent yet.
    @Test(arguments: [false, true]) func aCancelledTasksRequestEndsAndNoOther(onReactor: Bool) async throws {
        let target = try TargetWithUnits(units: 1, portals: 1)
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open("a")
        try target.with { try $0.setPortal(0, enabled: false) }
        #expect(try await eventually { try await disk.paths.allSatisfy { !$0.state.isUsable } })
        let outcomes = Outcomes()
        let tasks = (0..<32).map { index in
            Task { [outcomes, disk] in
                let work: @Sendable () async -> Void = { await outcomes.read(disk, as: index) }
                if onReactor { await disk.run(work) } else { await work() }
            }
        }
        for index in stride(from: 0, to: 32, by: 2) { tasks[index].cancel() }
        #expect(try await eventually { outcomes.all.count == 16 })
        #expect(outcomes.all.allSatisfy { $0.key % 2 == 0 && $0.value == .cancelled })
        try target.with { try $0.setPortal(0, enabled: true) }
        for task in tasks { await task.value }
        #expect(outcomes.all.filter { $0.value == nil }.keys.sorted() == Array(stride(from: 1, to: 32, by: 2)))
        try await manager.shutdown()
        try target.stop()
    }

    @Test func requestsAfterTheEndAreRefused() async throws {
        let target = try TargetWithUnits(units: 1)
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open("a")
        try await manager.shutdown()
        let buffer = IOBuffer(byteCount: TargetWithUnits.blockByteCount)
        await #expect(throws: DiskError.closed) { try await disk.read(into: buffer, at: 0) }
        try target.stop()
    }
}

/// How each of several reads ended; nil is success.
private final class Outcomes: Sendable {
    private let ended = Mutex<[Int: DiskError?]>([:])

    var all: [Int: DiskError?] { ended.withLock { $0 } }

    func read(_ disk: MultipathDisk, as index: Int) async {
        let buffer = IOBuffer(byteCount: TargetWithUnits.blockByteCount)
        var failure: DiskError?
        do { try await disk.read(into: buffer, at: 0) } catch { failure = error }
        ended.withLock { $0[index] = .some(failure) }
    }
}
