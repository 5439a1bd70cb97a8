import Foundation
import MPIO
import TestSupport
import Testing

@testable import MPIOCommand

@Suite(.serialized) struct ReloadTests {
    @Test func aFileIsTakenOverAfterItWasShown() async throws {
        let array = try HeldArray()
        try await array.hold()
        #expect(try await array.run("reload").standardOutput == "nothing has changed\n")
        try array.write(array.policy(used: 3, lun: "    policy: LQD\n", more: "    timers: {silence-timeout: 3s}\n  - {name: second, identity: {target: \"\(ServedTarget.name)\", lun: 1}}\n"))

        let dry = try await array.run("reload", "--dry-run")
        let expected = [
            "\(ServedTarget.name): portal \(array.portals[2]) is added", "vm-store: policy round-robin → least-queue-depth",
            "vm-store: timers.silence-timeout 2s → 3s", "vm-store \(array.portals[2]): path \(array.portals[2]) is added",
            "second: lun second is added",
        ]
        for line in expected { #expect(dry.standardOutput.contains(line), "\(line) in \(dry.standardOutput)") }
        #expect(dry.standardOutput.hasPrefix("would change by") && dry.succeeded)
        #expect(try await array.paths().count == 2)

        let json = try await array.run("reload", "--json")
        let report = try JSONDecoder().decode(ChangesReport.self, from: Data(json.standardOutputBytes))
        #expect(report.isApplied && report.changes.count >= 5 && report.changes.allSatisfy { $0.effect == .now }, "\(report)")
        #expect(try await eventually(within: .seconds(60)) {
            try await array.run("paths", "--check", "vm-store", "second").standardOutput.contains("state optimal")
        })
        #expect(try await array.paths() == array.portals)
        #expect(try await array.run("policy", "vm-store").standardOutput == "vm-store  least-queue-depth\n")
        // What was added by the file is opened by the holder.
        #expect(try await eventually(within: .seconds(60)) { try await array.run("policy", "second").succeeded }, "\(array.log)")
        #expect(try await array.run("reload").standardOutput == "nothing has changed\n")

        // And back: the third path ends its session, the second LUN goes.
        try array.write(array.policy(used: 2))
        #expect(try await array.run("reload", "--yes").succeeded)
        #expect(try await eventually(within: .seconds(60)) { try await array.paths() == Array(array.portals.prefix(2)) })
        #expect(try await eventually(within: .seconds(60)) { try await array.run("policy", "second").exitStatus == 1 })
        let holder = try #require(array.holder)
        #expect(try await eventually(within: .seconds(60)) {
            !TCPTableEntry.sockets(of: holder.identifier).contains { $0.remote == array.target.portals[2] && $0.isEstablished }
        })
    }

    @Test func aBadFileChangesNothingAndEveryMistakeIsNamed() async throws {
        let array = try HeldArray()
        try await array.hold()
        try array.write(array.policy(used: 3, lun: "    policy: round-robbin\n", more: "    timers: {retry-interval: 1}\n"))
        let result = try await array.run("reload", "--yes")
        #expect(result.exitStatus == 65, "\(result)")
        #expect(result.standardError.contains("mpio.yaml:11:13: luns[0].policy: 'round-robbin' is no policy"), "\(result.standardError)")
        #expect(result.standardError.contains("luns[0].timers.retry-interval") && result.standardError.contains("nothing was changed"))
        #expect(try await array.paths().count == 2)
        #expect(try await array.events().allSatisfy { $0.by == nil })
    }

    @Test func aLUNInUseIsNotTakenAway() async throws {
        let array = try HeldArray()
        let file = array.folder.path + "/mpio.yaml"
        var options = PathManager.Options()
        options.runtimeDirectory = array.folder.path + "/mpio"
        let manager = try await PathManager(configuration: Configuration(contentsOf: file), options: options)
        let disk = try await manager.open("vm-store")
        try array.write("""
            targets: [{name: iqn.2026-11.org.example:other, portals: [127.0.0.1]}]
            luns: [{name: other, identity: {target: "iqn.2026-11.org.example:other", lun: 0}}]

            """)
        let changes = try await manager.reload(file)
        let left = try #require(changes.first { $0.key == "lun" && $0.lun == "vm-store" })
        #expect(left.effect == .left && left.note?.contains("uses it") == true, "\(changes)")
        // It goes on as if nothing had been.
        let buffer = IOBuffer(byteCount: 4096)
        try await disk.write(buffer, at: 0)
        #expect(try await disk.paths.map(\.id) == Array(array.portals.prefix(2)))
        #expect(manager.configuration.luns.map(\.name) == ["other", "vm-store"])
        try await manager.shutdown()
    }

    /// Every block carries its number and a generation, and is read back after each change.
    @Test func requestsGoOnWhileEverythingChanges() async throws {
        let array = try HeldArray()
        let file = array.folder.path + "/mpio.yaml"
        var options = PathManager.Options()
        options.runtimeDirectory = array.folder.path + "/mpio"
        let manager = try await PathManager(configuration: Configuration(contentsOf: file), options: options)
        let disk = try await manager.open("vm-store")
        let load = Task {
            var count = 0
            try await withThrowingTaskGroup(of: Int.self) { group in
                for worker in 0..<8 {
                    group.addTask {
                        let (buffer, back) = (IOBuffer(byteCount: 4096), IOBuffer(byteCount: 4096))
                        var done = 0
                        while !Task.isCancelled {
                            let block = UInt64(worker * 256 + done % 256)
                            for index in 0..<4096 { buffer[index] = UInt8(truncatingIfNeeded: index &+ done &+ worker) }
                            do {
                                try await disk.write(buffer, at: block * 4096)
                                try await disk.read(into: back, at: block * 4096)
                            } catch DiskError.cancelled {
                                break
                            }
                            #expect(buffer.bytes.elementsEqual(back.bytes), "block \(block)")
                            done += 1
                        }
                        return done
                    }
                }
                for try await done in group { count += done }
            }
            return count
        }
        let variants = [
            array.policy(used: 3, lun: "    policy: least-queue-depth\n"), array.policy(used: 1, lun: "    policy: least-blocks\n"),
            array.policy(used: 3, lun: "    policy: weighted-paths\n    paths: [{portal: \"\(array.portals[2])\", weight: 5}, {portal: \"\(array.portals[0])\"}]\n"),
            array.policy(used: 2, lun: "    policy: RRWS\n    timers: {silence-timeout: 1s, command-timeout: 30s}\n"),
            array.policy(used: 3, lun: "    policy: FOO\n    fail-back: manual\n"),
        ]
        for round in 0..<15 {
            try array.write(variants[round % variants.count])
            let changes = try await manager.reload(file)
            #expect(!changes.isEmpty && changes.allSatisfy { $0.effect == .now }, "\(changes)")
            try await Task.sleep(for: .milliseconds(60))
        }
        #expect(try await disk.status.policy == "fail-over-only")
        #expect(try await eventually(within: .seconds(60)) { Set(try await disk.paths.map(\.id)) == Set(array.portals) })
        load.cancel()
        #expect(try await load.value > 100)
        try await manager.shutdown()
    }

    @Test func aFileThatChangesBetweenShowingAndTakingOverIsRefused() async throws {
        let array = try HeldArray()
        try await array.hold()
        let socket = try #require(ControlClient.discover(directories: [array.folder.path + "/mpio"]).first)
        try array.write(array.policy(used: 3))
        guard case .changes(let plan) = try socket.request(.reload(file: nil, isDryRun: true)) else {
            Issue.record("no plan")
            return
        }
        try array.write(array.policy(used: 1))
        guard case .failed(let failure) = try socket.request(.reload(file: nil, expecting: plan.fingerprint, isDryRun: false)) else {
            Issue.record("it was taken over")
            return
        }
        #expect(failure.message.contains("was changed meanwhile"))
        #expect(try await array.paths().count == 2)
    }

    // MARK: By hand

    @Test func pathsAreAddedSetAndRemovedByHandAndSaved() async throws {
        let array = try HeldArray()
        try await array.hold()
        let added = try await array.run("path", "add", "vm-store", array.portals[2], "--save")
        #expect(added.standardOutput.contains("portal \(array.portals[2]) is added") && added.standardOutput.contains("saved in"), "\(added)")
        #expect(try await eventually(within: .seconds(60)) { try await array.paths() == array.portals })
        let set = try await array.run("path", "set", "vm-store", array.portals[0], "--weight", "7", "--role", "standby")
        #expect(set.standardOutput.contains("weight 1 → 7") && set.standardOutput.contains("role primary → standby"), "\(set)")
        let removed = try await array.run("path", "remove", "vm-store", array.portals[1], "--wait", "--save")
        #expect(removed.succeeded, "\(removed)")
        #expect(try await array.paths() == [array.portals[0], array.portals[2]])
        #expect(try await array.run("policy", "vm-store", "weighted-paths", "--weights", "priority", "--save").succeeded)

        let text = try array.read()
        #expect(text.contains("name: vm-store   # machines") && text.contains("portals:                     # both switches"))
        #expect(text.contains("policy: weighted-paths") && text.contains("weights: priority") && !text.contains("weight: 7"))
        let saved = try Configuration(contentsOf: array.folder.path + "/mpio.yaml")
        #expect(saved.lun(named: "vm-store")?.paths.map(\.settings.name) == [array.portals[0], array.portals[2]])
        // What was changed and not saved is what the file would change back.
        let back = try await array.run("reload", "--dry-run")
        #expect(back.standardOutput.contains("weight 7 → 1") && back.standardOutput.contains("role standby → primary"), "\(back)")

        let changes = try await array.events().filter { $0.by != nil }
        #expect(changes.map(\.kind).filter { $0.hasSuffix("changed") || $0.hasPrefix("path-") } == [
            "path-added", "role-changed", "weight-changed", "path-drained", "path-removed", "policy-changed",
        ], "\(changes)")
        #expect(changes.allSatisfy { $0.by!.uid == geteuid() && $0.by!.pid > 0 && $0.by!.command.contains("mpio") }, "\(changes)")
    }

    @Test func whatCanNotBeSavedIsNotDoneEither() async throws {
        let array = try HeldArray()
        try await array.hold()
        try array.write(array.policy(used: 2, lun: "    policy: &p round-robin\n"))
        let before = try array.read()
        let result = try await array.run("policy", "vm-store", "least-blocks", "--save")
        #expect(result.exitStatus == 1 && result.standardError.contains("nothing was changed"), "\(result)")
        #expect(try await array.run("policy", "vm-store").standardOutput.contains("round-robin") && (try array.read()) == before)
    }

    @Test(arguments: [
        ["path", "add", "vm-store", "not-an-address"], ["path", "add", "vm-store", "PORTAL0"], ["path", "set", "vm-store", "PORTAL0"],
        ["path", "set", "vm-store", "PORTAL0", "--weight", "0"], ["path", "set", "vm-store", "PORTAL0", "--role", "boss"],
        ["policy", "vm-store", "--save"],
    ])
    func whatIsWrongIsUsage(_ arguments: [String]) async throws {
        let array = try HeldArray()
        try await array.hold()
        let words = arguments.map { $0 == "PORTAL0" ? array.portals[0] : $0 }
        let result = try await CommandRunner.run(
            Mpio.binary, words, environment: ["XDG_RUNTIME_DIR": array.folder.path, "HOME": array.folder.path])
        #expect(result.exitStatus == 64, "\(result)")
        #expect(try await array.paths().count == 2)
    }

    @Test func aDrainedPathIsWaitedFor() async throws {
        let array = try HeldArray()
        try await array.hold()
        let result = try await array.run("path", "drain", "vm-store", array.portals[0], "--wait")
        #expect(result.succeeded, "\(result)")
        let unknown = try await array.run("path", "remove", "vm-store", "10.9.9.9:3260")
        #expect(unknown.exitStatus == 1 && unknown.standardError.contains("has no path '10.9.9.9:3260'; it has"), "\(unknown)")
    }
}
