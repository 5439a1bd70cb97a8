import Foundation
import ISCSITarget
import TestSupport
import Testing

@testable import MPIO

/// Writes that overlap keep their order, also where one is so large that it enters a few parts at a time.
@Suite struct SplitOrderTests {
    private static let large = 32 << 20
    private static let block = TargetWithUnits.blockByteCount

    private func disk(
        lanes: Int, _ body: (MultipathDisk) async throws -> Void
    ) async throws {
        let target = try TargetWithUnits(units: 1, size: "64M")
        let yaml = target.yaml(units: [0], head: "reactors: \(lanes)")
            .replacingOccurrences(of: "lun: 0}\n", with: "lun: 0}\n    reactors: \(lanes)\n")
        let manager = try await PathManager(configuration: Configuration(yaml: yaml), options: target.options)
        let disk = try await manager.open("a")
        try await body(disk)
        try await manager.shutdown()
        try target.stop()
    }

    /// Submits the requests as one batch and waits for all.
    private func submit(_ requests: [IORequest], to disk: MultipathDisk) async throws -> [UInt64] {
        let order = Locked<[UInt64]>([])
        let queue = IOQueue(disk: disk) { completions in
            order.withLock { order in for completion in completions where completion.error == nil { order.append(completion.token) } }
        }
        queue.submit(requests)
        #expect(try await eventually { order.withLock { $0.count } == requests.count })
        withExtendedLifetime(queue) {}
        return order.withLock { $0 }
    }

    private func filled(_ byteCount: Int, _ byte: UInt8) -> IOBuffer {
        let buffer = IOBuffer(byteCount: byteCount)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: byte)
        return buffer
    }

    @Test(arguments: [1, 2]) func aLaterWriteIsNotUndoneByTheRestOfALargeOne(lanes: Int) async throws {
        try await disk(lanes: lanes) { disk in
            let large = filled(Self.large, 1), second = filled(Self.block, 2), third = filled(4 * Self.block, 3)
            let free = filled(Self.block, 4)
            let last = UInt64(Self.large - Self.block)
            let order = try await submit(
                [
                    IORequest(.write, offset: 0, byteCount: Self.large, memory: large.bytes.baseAddress, token: 1),
                    IORequest(.write, offset: last, byteCount: Self.block, memory: second.bytes.baseAddress, token: 2),
                    // It begins behind the second, and ends behind the first.
                    IORequest(.write, offset: last, byteCount: 4 * Self.block, memory: third.bytes.baseAddress, token: 3),
                    IORequest(.write, offset: 48 << 20, byteCount: Self.block, memory: free.bytes.baseAddress, token: 4),
                ], to: disk)
            // What overlaps nothing waits for nothing.
            #expect(order.first == 4 && order.last == 3, "\(order)")
            let back = IOBuffer(byteCount: 8 * Self.block)
            try await disk.read(into: back, at: last - UInt64(4 * Self.block))
            let seen = (0..<8).map { back.bytes[$0 * Self.block] }
            #expect(seen == [1, 1, 1, 1, 3, 3, 3, 3])
            withExtendedLifetime((large, second, third, free)) {}
        }
    }

    /// Whoever hears that the large one failed asks next: what waited for that comes first all the same.
    @Test func whatComesAfterTheFailureOfALargeOneStaysBehindWhatWaited() async throws {
        let target = try TargetWithUnits(units: 1, size: "64M")
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open("a")
        try target.with { _ = try $0.setFault(FaultCommand(parsing: "sense=03/0c/00:lba=0-16383,op=write")) }
        let large = filled(Self.large, 1), second = filled(Self.block, 2), third = filled(Self.block, 3)
        let last = UInt64(Self.large - Self.block)
        let asker = Locked<IOQueue?>(nil)
        let errors = Locked<[UInt64: DiskError?]>([:])
        let queue = IOQueue(disk: disk) { completions in
            for completion in completions {
                errors.withLock { $0[completion.token] = .some(completion.error) }
                guard completion.token == 1, let queue = asker.withLock({ $0 }) else { continue }
                queue.submit([IORequest(.write, offset: last, byteCount: Self.block, memory: third.bytes.baseAddress, token: 3)])
            }
        }
        asker.withLock { $0 = queue }
        queue.submit([
            IORequest(.write, offset: 0, byteCount: Self.large, memory: large.bytes.baseAddress, token: 1),
            IORequest(.write, offset: last, byteCount: Self.block, memory: second.bytes.baseAddress, token: 2),
        ])
        #expect(try await eventually { errors.withLock { $0.count } == 3 })
        #expect(errors.withLock { $0[1]! != nil && $0[2]! == nil && $0[3]! == nil }, "\(errors.withLock { $0 })")
        let back = IOBuffer(byteCount: Self.block)
        try await disk.read(into: back, at: last)
        #expect(back.bytes[0] == 3)
        asker.withLock { $0 = nil }
        try await manager.shutdown()
        withExtendedLifetime((queue, large, second, third)) {}
        try target.stop()
    }

    @Test func whatWaitsForALargeOneEndsWithTheDisk() async throws {
        let target = try TargetWithUnits(units: 1, size: "64M")
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open("a")
        // First: on a busy machine it takes as long as requests wait for a path.
        let large = filled(Self.large, 1), second = filled(Self.block, 2)
        try target.with { target in for portal in 0..<2 { try target.setPortal(portal, enabled: false) } }
        #expect(try await eventually { try await disk.paths.allSatisfy { !$0.state.isUsable } })
        let errors = Locked<[DiskError?]>([])
        let queue = IOQueue(disk: disk) { completions in
            errors.withLock { errors in for completion in completions { errors.append(completion.error) } }
        }
        queue.submit([
            IORequest(.write, offset: 0, byteCount: Self.large, memory: large.bytes.baseAddress, token: 1),
            IORequest(.write, offset: UInt64(Self.large - Self.block), byteCount: Self.block, memory: second.bytes.baseAddress, token: 2),
        ])
        try await manager.shutdown()
        #expect(errors.withLock { $0.count } == 2 && errors.withLock { $0.allSatisfy { $0 == .closed } }, "\(errors.withLock { $0 })")
        withExtendedLifetime((queue, large, second)) {}
        try target.stop()
    }
}
