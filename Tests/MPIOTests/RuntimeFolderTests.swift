import Foundation
import TestSupport
import Testing

@testable import MPIO

/// Processes of one initiator name whose runtime folders differ (another user's session, a service), as managers of one process.
@Suite struct RuntimeFolderTests {
    private func manager(_ target: TargetWithUnits, folder: String, onlyLooks: Bool = false) async throws -> PathManager {
        var options = target.options
        options.runtimeDirectory = target.directory.file(folder)
        options.onlyLooks = onlyLooks
        options.isInspectable = false
        return try await PathManager(configuration: Configuration(yaml: target.yaml(units: [0])), options: options)
    }

    /// Requests over every path, one after the other: a path that was lost shows by its error.
    private func exercise(_ disk: MultipathDisk) async throws {
        let buffer = IOBuffer(byteCount: 4096)
        for _ in 0..<20 { try await disk.read(into: buffer, at: 0) }
    }

    private func expectUndisturbed(_ disk: MultipathDisk, _ comment: Comment) async throws {
        for path in try await disk.paths { #expect(path.lastError == nil && path.errors == 0, comment) }
    }

    @Test func holdersInTwoFoldersLeaveEachOtherAlone() async throws {
        let target = try TargetWithUnits(units: 1)
        let managers = [try await manager(target, folder: "one"), try await manager(target, folder: "two")]
        var disks: [MultipathDisk] = []
        for manager in managers { disks.append(try await manager.open("a")) }
        for disk in disks + disks { try await exercise(disk) }
        for disk in disks { try await expectUndisturbed(disk, "a session was thrown out by the other holder's login") }
        let isids = try await disks[0].paths.map(\.isid) + disks[1].paths.map(\.isid)
        #expect(!isids.contains(nil) && Set(isids).count == 4, "\(isids)")
        for manager in managers { try await manager.shutdown() }
        try target.stop()
    }

    @Test(arguments: ["one", "two"]) func aLookDisturbsNoHolderAndTakesNoLease(folder: String) async throws {
        let target = try TargetWithUnits(units: 1)
        let holder = try await manager(target, folder: "one")
        let disk = try await holder.open("a")
        let looker = try await manager(target, folder: folder, onlyLooks: true)
        let seen = try await looker.open("a")
        try await exercise(disk)
        try await expectUndisturbed(disk, "a session was thrown out by a look")
        // Those of the next holder are free for it, and what a killed one left is not ended by whoever only looks.
        let lease = try ISIDLease.acquire(initiatorName: holder.initiatorName, directory: target.directory.file(folder))
        #expect(lease.slot == (folder == "one" ? 1 : 0))
        let held = try await disk.paths.map(\.isid)
        for path in try await seen.paths { #expect(path.isid != nil && !held.contains(path.isid)) }
        try await looker.shutdown()
        try await holder.shutdown()
        try target.stop()
    }
}
