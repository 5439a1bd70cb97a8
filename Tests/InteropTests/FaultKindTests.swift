import Foundation
import ISCSITarget
import MPIO
import Multipath
import Testing
import TestSupport

/// Each kind of fault, as the engine meets it: what docs/failover.md promises, and nothing lost.
@Suite(.serialized)
struct FaultKindTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("faults") }

    private func set(_ array: EmbeddedArray, _ text: String) throws {
        let fault = try FaultCommand(parsing: text)
        _ = try array.with { try $0.setFault(fault) }
    }

    private static func isLost(_ event: MultipathEvent) -> Bool {
        if case .pathLost = event { true } else { false }
    }

    private static func isLost(_ event: MultipathEvent, _ reason: PathFailureReason) -> Bool {
        if case .pathLost(PathIndex(0), let failure, _) = event { failure.reason == reason } else { false }
    }

    /// Portal 0 has the fault, and a write to it must succeed, by the other path or by another try.
    private func writing(
        under fault: String, targetKeys: String = "", timers: String = "",
        _ check: (EmbeddedArray, WatchedDisk, _ seconds: Double) async throws -> Void
    ) async throws {
        let array = try EmbeddedArray(tags: [1, 2])
        let disk = try await WatchedDisk(over: array.portals, timers: timers, targetKeys: targetKeys, in: directory)
        try await disk.write(1)
        // Both paths: the fault must find the disk as it is used.
        #expect(try await disk.disk.waitForStates([.activeOptimized, .activeOptimized]))
        try set(array, fault)
        let start = ContinuousClock.now
        try await disk.write(2)
        try await check(array, disk, start.seconds)
        #expect(try await disk.pattern() == 2)
        try await disk.close()
        try array.stop()
    }

    @Test func aResetPathIsLostAtOnceAndItsWriteGoesElsewhere() async throws {
        try await writing(under: "reset:portal=0,op=write,count=1") { array, disk, seconds async throws in
            #expect(disk.events.contains { Self.isLost($0, .connectionReset) }, "\(disk.events)")
            #expect(seconds < 2, "\(seconds) s: no timer is waited for")
            #expect(try array.with { $0.counters(portal: 1).writes } == 1)
            #expect(try await disk.first { $0 == .pathRegained(PathIndex(0)) } != nil, "and it comes back")
        }
    }

    @Test func aDeafTargetIsStalledAndSpeaksAgain() async throws {
        try await writing(under: "deaf:portal=0", timers: "silence-timeout: 1s") { array, disk, seconds async throws in
            #expect(disk.events.contains(.pathStalled(PathIndex(0), redriven: 1)), "\(disk.events)")
            #expect(seconds < 3, "\(seconds) s; silence-timeout is 1 s")
            #expect(!disk.events.contains(where: Self.isLost))
            try array.with { $0.clearFaults() }
            #expect(try await disk.first { $0 == .pathResumed(PathIndex(0)) } != nil)
        }
    }

    @Test func aDelayedCommandIsWaitedForAndNoPathFails() async throws {
        try await writing(under: "delay=2500ms:portal=0,op=write,count=1", timers: "silence-timeout: 1s") { array, disk, seconds async throws in
            #expect(seconds >= 2.5, "\(seconds) s")
            #expect(disk.events.contains(.pathSlow(PathIndex(0), true)), "the target answers NOP-Out: \(disk.events)")
            #expect(!disk.events.contains(where: Self.isLost))
            #expect(try array.with { ($0.counters(portal: 0).writes, $0.counters(portal: 1).writes) } == (2, 0))
        }
    }

    @Test func taskSetFullShrinksTheQueueAndNoPathFails() async throws {
        try await writing(under: "task-set-full:portal=0,op=write,count=2") { array, disk, _ async throws in
            #expect(!disk.events.contains(where: Self.isLost), "\(disk.events)")
            #expect(try array.with { ($0.counters(portal: 0).writes, $0.counters(portal: 1).writes) } == (4, 0), "again on the same path")
            #expect(try array.with { $0.faultStatus[0].struckCommands } == 2)
        }
        let array = try EmbeddedArray(tags: [1])
        let disk = try await WatchedDisk(over: array.portals, in: directory)
        try set(array, "task-set-full:op=write,from=9,count=1")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for block in 0..<32 { group.addTask { try await disk.write(UInt8(block), at: UInt64(block) << 12) } }
            try await group.waitForAll()
        }
        #expect(disk.events.contains { if case .queueShrunk(PathIndex(0), let depth) = $0 { depth > 0 } else { false } }, "\(disk.events)")
        for block in 0..<32 { #expect(try await disk.pattern(at: UInt64(block) << 12) == UInt8(block)) }
        try await disk.close()
        try array.stop()
    }

    @Test func aRejectedCommandIsNotLost() async throws {
        try await writing(under: "reject:portal=0,op=write,count=1") { array, disk, seconds async throws in
            #expect(try array.with { $0.faultStatus.first?.struckCommands } == 1)
            #expect(seconds < 5, "\(seconds) s")
            #expect(try array.with { $0.counters().writes } == 3, "the first, the rejected one, and the one that was done")
        }
    }

    @Test(arguments: ["header", "data"])
    func aWrongDigestFailsThePathAndNothingWrongIsRead(place: String) async throws {
        let array = try EmbeddedArray(tags: [1, 2])
        let disk = try await WatchedDisk(
            over: array.portals, targetKeys: "digests: {header: crc32c, data: crc32c}", in: directory)
        try await disk.write(7)
        #expect(try await disk.disk.waitForStates([.activeOptimized, .activeOptimized]))
        try set(array, "digest-corruption=\(place):portal=0")
        // What leaves next has it: for `data`, the next PDU that carries any.
        #expect(try await disk.pattern() == 7)
        #expect(disk.events.contains { Self.isLost($0, .digestError) }, "\(disk.events)")
        #expect(try await disk.first { $0 == .pathRegained(PathIndex(0)) } != nil)
        try await disk.close()
        try array.stop()
    }

    @Test func aPathThatIsAskedToLogOutDoesAndComesBack() async throws {
        try await writing(under: "async-logout=1s:portal=0") { array, disk, seconds async throws in
            #expect(seconds < 3, "\(seconds) s")
            let left = try await disk.first { Self.isLost($0, .logoutRequested) }
            #expect(left != nil, "\(disk.events)")
            #expect(try await disk.first { $0 == .pathRegained(PathIndex(0)) } != nil)
            #expect(!disk.events.contains { Self.isLost($0, .connectionReset) }, "it left by itself")
            #expect(try array.with { $0.acceptedCount(portal: 0) } >= 2)
        }
    }

    @Test func aGroupThatChangesItsStateIsFollowedThereAndBack() async throws {
        try await writing(under: "alua-transition=standby:group=1") { array, disk, seconds async throws in
            #expect(seconds < 3, "\(seconds) s")
            #expect(try array.with { $0.counters(portal: 1).writes } == 1)
            #expect(try await disk.disk.waitForStates([.standby, .activeOptimized]))
            #expect(!disk.events.contains(where: Self.isLost), "\(disk.events)")
            try array.with { $0.clearFaults() }
            #expect(try array.with { $0.node.portGroups.map(\.state) } == [.optimized, .optimized])
            // Told by the next answer: UNIT ATTENTION 2A/06.
            try await disk.write(2)
            #expect(try await disk.disk.waitForStates([.activeOptimized, .activeOptimized]))
        }
    }

    @Test func aTransitionOfAllGroupsIsWaitedFor() async throws {
        try await writing(under: "alua-transition:for=1s") { array, disk, seconds async throws in
            #expect(seconds >= 0.9 && seconds < 5, "\(seconds) s; asked every 2 s")
            #expect(!disk.events.contains(where: Self.isLost), "\(disk.events)")
        }
    }

    /// A gateway's host, or a second program, on a node of its own.
    @Test func twoNodesHaveUnitsOfTheirOwn() async throws {
        let portals = try LoopbackPortal.unused(count: 1)
        let other = "iqn.2026-11.org.example:array-2"
        let array = try EmbeddedArray(tags: [1], portals: portals, change: { configuration in
            configuration.furtherNodes = [
                TargetNodeConfiguration(
                    name: other, portals: configuration.portals,
                    units: .own([LogicalUnitConfiguration(number: 0, storage: .memory, byteCount: 8 << 20)]))
            ]
        })
        let first = try await WatchedDisk(over: portals, in: directory)
        let second = try await WatchedDisk(over: portals, of: other, in: directory)
        #expect(first.disk.capacityByteCount == 16 << 20 && second.disk.capacityByteCount == 8 << 20)
        #expect(first.disk.device.identity != second.disk.device.identity)
        try await first.write(1)
        try await second.write(2)
        #expect(try await first.pattern() == 1)
        #expect(try await second.pattern() == 2)
        try set(array, "reset:node=\(other)")
        #expect(try await second.first(Self.isLost) != nil)
        #expect(!first.events.contains(where: Self.isLost), "a fault of one node is not the other's")
        try await first.close()
        try await second.close()
        try array.stop()
    }
}
