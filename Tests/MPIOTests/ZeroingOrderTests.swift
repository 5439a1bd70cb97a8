import Foundation
import ISCSITarget
import SCSI
import TestSupport
import Testing

@testable import MPIO

/// ``IOOperation/writeZeroes`` where the unit refuses WRITE SAME, which shows only when one is answered.
@Suite struct ZeroingOrderTests {
    /// Refuses WRITE SAME, and keeps writes of the blocks from `held` on.
    private final class Filter: CommandFilter, Sendable {
        let refused = Locked(0)
        let held: UInt64
        init(held: UInt64 = .max) { self.held = held }
        var holdsOutliveSessions: Bool { false }

        func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
            switch command.cdb.bytes[0] {
            case 0x41, 0x93:
                refused.withLock { $0 += 1 }
                return .answer(.checkCondition, SenseData(key: .illegalRequest, additional: .invalidOperationCode))
            default: break
            }
            guard case .success(.write(let range, _)) = command.request, range.lba >= held else { return .execute }
            return .hold
        }
    }

    private static let block = 4096

    private func filled(_ byteCount: Int, _ byte: UInt8) -> IOBuffer {
        let buffer = IOBuffer(byteCount: byteCount)
        memset(buffer.bytes.baseAddress!, Int32(byte), byteCount)
        return buffer
    }

    /// Submits all in one go; the errors by token, once `count` have ended.
    private func submit(_ requests: () -> [IORequest], to disk: MultipathDisk, until count: Int, _ body: () throws -> Void = {}) async throws -> [UInt64: DiskError?] {
        let errors = Locked<[UInt64: DiskError?]>([:])
        let queue = IOQueue(disk: disk) { completions in
            errors.withLock { errors in for completion in completions { errors[completion.token] = .some(completion.error) } }
        }
        queue.submit(requests())
        #expect(try await eventually { errors.withLock { $0.count } == count })
        try body()
        _ = try await eventually { errors.withLock { $0.count } == requests().count }
        withExtendedLifetime(queue) {}
        return errors.withLock { $0 }
    }

    @Test func whatComesAfterZeroesIsNotZeroedByTheirSecondTry() async throws {
        let target = try TargetWithUnits(units: 1)
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open("a")
        let filter = Filter()
        try target.with { $0.filter = filter }
        let later = filled(Self.block, 9)
        let errors = try await submit(
            {
                [
                    IORequest(.writeZeroes, offset: 0, byteCount: 16 * Self.block, memory: nil, token: 1),
                    IORequest(.write, offset: UInt64(3 * Self.block), byteCount: Self.block, memory: later.bytes.baseAddress, token: 2),
                ]
            }, to: disk, until: 2)
        #expect(errors.values.allSatisfy { $0 == nil }, "\(errors)")
        #expect(filter.refused.withLock { $0 } == 1)
        try target.with { $0.filter = nil }
        let back = IOBuffer(byteCount: Self.block)
        try await disk.read(into: back, at: UInt64(3 * Self.block))
        #expect(back.bytes[0] == 9)
        withExtendedLifetime(later) {}
        try await manager.shutdown()
        try target.stop()
    }

    /// It had no room in the table yet, and was as large as one WRITE SAME may be.
    @Test func zeroesThatWaitedForRoomBecomeWritesOfTheSizeThatTheUnitTakes() async throws {
        let target = try TargetWithUnits(units: 1, size: "8M")
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open("a")
        let pattern = filled(8 << 20, 7)
        try await disk.write(pattern, at: 0)
        let filter = Filter(held: 16_376)
        try target.with { $0.filter = filter }
        // One is held by the target, the others wait for it in the table.
        let memory = filled(Self.block, 7)
        let others = DiskEngine.requestCapacity - 1
        let errors = try await submit(
            {
                [IORequest(.writeZeroes, offset: 0, byteCount: Self.block, memory: nil, token: 1)]
                    + (0..<others).map {
                        IORequest(.write, offset: UInt64((8 << 20) - Self.block), byteCount: Self.block, memory: memory.bytes.baseAddress, token: UInt64(10 + $0))
                    }
                    + [IORequest(.writeZeroes, offset: 1 << 20, byteCount: 6 << 20, memory: nil, token: 2)]
            }, to: disk, until: 2
        ) {
            try target.with { target in
                target.filter = nil
                for token in target.heldTokens { target.release(token) }
            }
        }
        #expect(errors.count == others + 2 && errors.values.allSatisfy { $0 == nil }, "\(errors.values.compactMap { $0 })")
        #expect(filter.refused.withLock { $0 } == 1)
        try await disk.read(into: pattern, at: 0)
        let bytes = pattern.bytes
        #expect(bytes[..<Self.block].allSatisfy { $0 == 0 } && bytes[Self.block..<(1 << 20)].allSatisfy { $0 == 7 })
        #expect(bytes[(1 << 20)..<(7 << 20)].allSatisfy { $0 == 0 } && bytes[(7 << 20)...].allSatisfy { $0 == 7 })
        withExtendedLifetime(memory) {}
        try await manager.shutdown()
        try target.stop()
    }

    @Test func zeroesThatWaitForAPathCanBeCancelled() async throws {
        let target = try TargetWithUnits(units: 1)
        let manager = try await target.manager(reactors: 1, units: [0])
        let disk = try await manager.open("a")
        for portal in 0..<2 { try target.with { try $0.setPortal(portal, enabled: false) } }
        #expect(try await eventually { try await !disk.paths.contains { $0.state.isUsable } })
        let zeroing = Task { try await disk.writeZeroes(at: 0, byteCount: UInt64(Self.block)) }
        #expect(try await eventually { try await disk.status.queued == 1 })
        zeroing.cancel()
        await #expect(throws: DiskError.cancelled) { try await zeroing.value }
        try await manager.shutdown()
        try target.stop()
    }
}
