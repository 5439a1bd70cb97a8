import Foundation
import ISCSITarget
import TestSupport
import Testing

@testable import MPIO

/// ``PathManager/open(_:)`` in a task that is cancelled, while the target answers no login. Nothing here ends because a time
/// is over: logins have ten minutes.
@Suite struct OpeningCancellationTests {
    private func manager(_ target: TargetWithUnits, reactors: Int) async throws -> PathManager {
        let yaml = target.yaml(units: [0, 1], head: "reactors: \(reactors)")
            .replacingOccurrences(of: "timers: {", with: "timers: {login-timeout: 10m, ")
        return try await PathManager(configuration: Configuration(yaml: yaml), options: target.options)
    }

    private func silence(_ target: TargetWithUnits, _ isSilent: Bool) throws {
        try target.with { target in
            if isSilent { _ = try target.setFault(FaultCommand(parsing: "silence")) } else { target.clearFaults() }
        }
    }

    private func isCancelled(_ opening: Task<MultipathDisk, any Error>) async -> Bool {
        if case .failure(PathManagerError.cancelled) = await opening.result { return true }
        return false
    }

    @Test(arguments: [1, 2]) func theCallerIsToldAtOnceAndTheLUNIsGivenUp(reactors: Int) async throws {
        let target = try TargetWithUnits(units: 2)
        try silence(target, true)
        let manager = try await manager(target, reactors: reactors)
        let openings = ["a", "b"].map { name in Task { try await manager.open(name) } }
        #expect(try await eventually { await manager.report().luns.count == 2 })
        for opening in openings {
            opening.cancel()
            #expect(await isCancelled(opening))
        }
        #expect(try await eventually { await manager.report().luns.isEmpty })
        // What was given up can be opened again.
        try silence(target, false)
        for name in ["a", "b"] { _ = try await manager.open(name) }
        try await manager.shutdown()
        try target.stop()
    }

    @Test func whoElseWaitsGetsTheDisk() async throws {
        let target = try TargetWithUnits(units: 1)
        try silence(target, true)
        let manager = try await manager(target, reactors: 1)
        let first = Task { try await manager.open("a") }
        let second = Task { try await manager.open("a") }
        #expect(try await eventually { await manager.report().luns.count == 1 })
        first.cancel()
        #expect(await isCancelled(first))
        try silence(target, false)
        #expect(try await second.value.name == "a")
        try await manager.shutdown()
        try target.stop()
    }

    @Test func aTaskThatIsCancelledAlreadyOpensNothing() async throws {
        let target = try TargetWithUnits(units: 1)
        let manager = try await manager(target, reactors: 1)
        let opening = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await manager.open("a")
        }
        #expect(await isCancelled(opening))
        #expect(await manager.report().luns.isEmpty)
        try await manager.shutdown()
        try target.stop()
    }

    @Test func shutdownEndsWhatIsBeingOpened() async throws {
        let target = try TargetWithUnits(units: 1)
        try silence(target, true)
        let manager = try await manager(target, reactors: 1)
        let opening = Task { try await manager.open("a") }
        #expect(try await eventually { await manager.report().luns.count == 1 })
        try await manager.shutdown()
        await #expect(throws: PathManagerError.self) { try await opening.value }
        try target.stop()
    }
}
