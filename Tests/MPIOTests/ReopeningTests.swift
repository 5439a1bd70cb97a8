import Foundation
import ISCSITarget
import TestSupport
import Testing

@testable import MPIO

/// A LUN that is closed and opened again while its sessions go on, or that was left by a process that did not end in order:
/// what the target still has of the earlier opening must not reach into the later one.
@Suite struct ReopeningTests {
    /// Keeps commands of some kinds, also when their session has ended.
    private final class Hold: CommandFilter, Sendable {
        private let operations: Set<UInt8>
        private let unit: Int
        private let portal: Int?
        var holdsOutliveSessions: Bool { true }

        init(_ operations: Set<UInt8>, portal: Int? = nil) {
            self.operations = operations
            unit = 0
            self.portal = portal
        }

        func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
            unit == self.unit && operations.contains(command.cdb.bytes[0]) && (self.portal ?? portal) == portal ? .hold : .execute
        }
    }

    private static let writes: Set<UInt8> = [0x2A, 0x8A]
    private static let reads: Set<UInt8> = [0x28, 0x88]
    private static let byteCount = 4096

    private func write(_ byte: UInt8, to disk: MultipathDisk) async throws {
        let buffer = IOBuffer(byteCount: Self.byteCount)
        memset(buffer.bytes.baseAddress!, Int32(byte), Self.byteCount)
        try await disk.write(buffer, at: 0)
    }

    private func firstByte(of disk: MultipathDisk) async throws -> UInt8 {
        let buffer = IOBuffer(byteCount: Self.byteCount)
        memset(buffer.bytes.baseAddress!, 0xEE, Self.byteCount)
        try await disk.read(into: buffer, at: 0)
        return buffer[0]
    }

    private func hold(_ hold: Hold?, _ target: TargetWithUnits) throws { try target.with { $0.filter = hold } }

    private func held(_ target: TargetWithUnits) throws -> Int { try target.with { $0.heldTokens.count } }

    private func release(_ target: TargetWithUnits, first count: Int = .max) throws {
        try target.with { target in for token in target.heldTokens.prefix(count) { target.release(token) } }
    }

    private func yaml(_ target: TargetWithUnits, _ units: [Int], timers: String) -> String {
        target.yaml(units: units).replacingOccurrences(of: "timers: {", with: "timers: {\(timers), ")
            .replacingOccurrences(of: "defaults:\n", with: "defaults:\n  policy: fail-over-only\n")
    }

    private func manager(_ target: TargetWithUnits, timers: String) async throws -> PathManager {
        // The earlier manager's lease is free once its reactor has ended.
        #expect(try await eventually {
            try ISIDLease.acquire(initiatorName: "iqn.2026-11.test:spread", directory: target.options.runtimeDirectory).slot == 0
        })
        let file = try target.directory.file("mpio.yaml", contents: Array(yaml(target, [0, 1], timers: timers).utf8))
        return try await PathManager(configuration: Configuration(contentsOf: file), options: target.options)
    }

    /// Takes `a` out of the policy file and in again. The sessions stay, because `b` uses them.
    private func reopen(_ target: TargetWithUnits, _ manager: PathManager, timers: String) async throws -> MultipathDisk {
        for units in [[1], [0, 1]] {
            _ = try target.directory.file("mpio.yaml", contents: Array(yaml(target, units, timers: timers).utf8))
            let changes = try await manager.reload()
            #expect(changes.map(\.key) == ["lun"] && changes.allSatisfy { $0.effect != .left }, "\(changes)")
        }
        return try await manager.open("a")
    }

    @Test func theAnswerToAClosedDisksCommandEndsNoRequestOfItsSuccessor() async throws {
        let target = try TargetWithUnits(units: 2, portals: 1)
        let timers = "silence-timeout: 1s, command-timeout: 2s"
        let manager = try await manager(target, timers: timers)
        let disk = try await manager.hold("a")
        _ = try await manager.open("b")
        try hold(Hold(Self.reads), target)
        await #expect(throws: DiskError.self) { _ = try await firstByte(of: disk) }
        #expect(try held(target) == 1)
        let again = try await reopen(target, manager, timers: timers)
        // Of each disk the first request: they look alike.
        let reading = Task { try await firstByte(of: again) }
        #expect(try await eventually { try held(target) == 2 })
        try release(target, first: 1)
        try await Task.sleep(for: .milliseconds(100))
        try hold(nil, target)
        try release(target)
        #expect(try await reading.value == 0)
        try await manager.shutdown()
        try target.stop()
    }

    @Test func aWriteThatTheClosedDiskFearedIsFearedByItsSuccessor() async throws {
        let target = try TargetWithUnits(units: 2)
        let timers = "silence-timeout: 500ms, quiesce-time: 1m, login-timeout: 1s"
        let manager = try await manager(target, timers: timers)
        let disk = try await manager.hold("a")
        _ = try await manager.open("b")
        try hold(Hold(Self.writes, portal: 0), target)
        let older = Task { try await write(1, to: disk) }
        #expect(try await eventually { try held(target) == 1 })
        try target.with { _ = try $0.setFault(FaultCommand(parsing: "silence:portal=0")) }
        // Done through the other path; the first one's session lives, and what it took may still be done.
        try await older.value
        let again = try await reopen(target, manager, timers: timers)
        let isDone = Locked(false)
        let newer = Task {
            try await write(2, to: again)
            isDone.withLock { $0 = true }
        }
        try await Task.sleep(for: .milliseconds(300))
        #expect(!isDone.withLock { $0 }, "it may still be undone by the older one")
        try hold(nil, target)
        try release(target)
        try target.with { $0.clearFaults() }
        try await newer.value
        #expect(try await firstByte(of: again) == 2)
        try await manager.shutdown()
        try target.stop()
    }

    /// The login ends the session of the process that was killed; what the target took from it may outlive that.
    @Test func whatAnEarlierProcessLeftIsAbortedBeforeThePathCarriesData() async throws {
        let target = try TargetWithUnits(units: 2, portals: 1)
        do {
            let manager = try await manager(target, timers: "command-timeout: never")
            let disk = try await manager.open("a")
            try hold(Hold(Self.writes), target)
            let older = Task { try await write(1, to: disk) }
            #expect(try await eventually { try held(target) == 1 })
            // Its sessions are dropped with the write unanswered, as by a kill.
            try await manager.shutdown()
            await #expect(throws: DiskError.self) { try await older.value }
        }
        #expect(try held(target) == 1)
        try hold(nil, target)
        let manager = try await manager(target, timers: "command-timeout: never")
        let disk = try await manager.open("a")
        #expect(try held(target) == 0)
        try await write(2, to: disk)
        try release(target)
        #expect(try await firstByte(of: disk) == 2)
        try await manager.shutdown()
        try target.stop()
    }

    @Test func whoOpensSecondWaitsForTheSameAsTheFirst() async throws {
        let target = try TargetWithUnits(units: 2)
        try ISIDLease.acquire(initiatorName: "iqn.2026-11.test:spread", directory: target.options.runtimeDirectory).note("a")
        try target.with { _ = try $0.setFault(FaultCommand(parsing: "hang-in-login:portal=1")) }
        let manager = try await manager(target, timers: "login-timeout: 10m")
        let opened = Locked(0)
        func open() -> Task<Void, any Error> {
            Task {
                _ = try await manager.open("a")
                opened.withLock { $0 += 1 }
            }
        }
        let first = open()
        #expect(try await eventually { await manager.report().luns.first?.paths.first?.state == .activeOptimized })
        let second = open()
        try await Task.sleep(for: .milliseconds(200))
        #expect(opened.withLock { $0 } == 0, "a path may still carry out what a process before this one left in it")
        try target.with { $0.clearFaults() }
        try await first.value
        try await second.value
        try await manager.shutdown()
        try target.stop()
    }
}
