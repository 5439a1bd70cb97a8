import Foundation
import Multipath
import TestSupport
import Testing

@testable import MPIO

/// LUNs spread over several reactors of one manager.
@Suite(.serialized) struct ReactorsTests {
    private func reactors(_ manager: PathManager) async -> [String: Int?] {
        Dictionary(uniqueKeysWithValues: await manager.report().luns.map { ($0.name, $0.reactor) })
    }

    // MARK: The key

    private func configuration(_ line: String) throws -> Configuration {
        try Configuration(yaml: "\(line)\nluns:\n  - {name: a, paths: [{device: /tmp/none}]}\n")
    }

    @Test func theKeyIsOneByDefaultAndStrict() throws {
        #expect(try configuration("").reactors == 1)
        #expect(try configuration("reactors: 64").reactors == 64)
        for wrong in ["0", "65", "-1", "1.5", "two", "\"2\"", "[2]", "many"] {
            let error = #expect(throws: InvalidConfiguration.self, "\(wrong)") { try configuration("reactors: \(wrong)") }
            #expect(error?.errors.first?.keyPath == "reactors")
            #expect(error?.errors.first?.expected == "a whole number from 1 to 64")
        }
        #expect(throws: InvalidConfiguration.self) { try configuration("reactor: 2") }
    }

    @Test func aCountOutOfRangeIsRefusedByName() async throws {
        let target = try TargetWithUnits(units: 1)
        for count in [0, 65, -3] {
            let error = await #expect(throws: PathManagerError.self) { try await target.manager(reactors: count, units: [0]) }
            #expect("\(error!)".contains("\(count) reactors"))
        }
        try target.stop()
    }

    // MARK: Placement

    @Test func aLUNGoesToTheReactorWithTheFewestAndStays() async throws {
        let target = try TargetWithUnits(units: 5)
        let manager = try await target.manager(reactors: nil, units: Array(0..<5), head: "reactors: 3")
        for unit in 0..<5 { _ = try await manager.open(TargetWithUnits.lunName(unit)) }
        #expect(await reactors(manager) == ["a": 0, "b": 1, "c": 2, "d": 0, "e": 1])
        #expect(await manager.report().luns.map(\.name) == ["a", "b", "c", "d", "e"], "in the order of opening")
        #expect(await manager.report().luns.allSatisfy { $0.holder?.reactors == 3 })
        let again = try await manager.open("b")
        #expect(try await again.status.reactor == 1)
        #expect(await reactors(manager) == ["a": 0, "b": 1, "c": 2, "d": 0, "e": 1])
        // Each reactor of the three has sessions of its own to both portals.
        #expect(try await eventually { try target.with { target in (0..<2).map { target.connectionCount(portal: $0) } } == [3, 3] })
        let json = String(decoding: try JSONEncoder().encode(await manager.report()), as: UTF8.self)
        #expect(json.contains("\"reactor\":2"))
        try await manager.shutdown()
        try target.stop()
    }

    @Test func manyOpeningsAtOnceAreSpreadEvenly() async throws {
        let target = try TargetWithUnits(units: 6)
        let manager = try await target.manager(reactors: 3, units: Array(0..<6))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for unit in 0..<6 { for _ in 0..<3 { group.addTask { _ = try await manager.open(TargetWithUnits.lunName(unit)) } } }
            try await group.waitForAll()
        }
        let counts = Dictionary(grouping: await reactors(manager).values, by: { $0 }).mapValues(\.count)
        #expect(counts == [0: 2, 1: 2, 2: 2])
        try await manager.shutdown()
        try target.stop()
    }

    @Test func aLUNThatCouldNotBeOpenedLeavesItsPlace() async throws {
        let target = try TargetWithUnits(units: 3)
        let manager = try await target.manager(reactors: 2, units: [0, 7, 1])
        _ = try await manager.open("a")
        await #expect(throws: PathManagerError.self) { try await manager.open("h") }
        #expect(try await manager.open("b").status.reactor == 1)
        #expect(await reactors(manager) == ["a": 0, "b": 1])
        try await manager.shutdown()
        try target.stop()
    }

    /// The sessions that it had may still be logging out: whoever comes meanwhile waits for that.
    @Test func aLUNCanBeOpenedRightAfterAnotherFailed() async throws {
        let target = try TargetWithUnits(units: 1)
        for _ in 0..<10 {
            let manager = try await target.manager(reactors: 1, units: [0, 7])
            await #expect(throws: PathManagerError.self) { try await manager.open("h") }
            let disk = try await manager.open("a")
            #expect(try await eventually { try await disk.paths.allSatisfy { $0.state.isUsable } })
            try await manager.shutdown()
        }
        try target.stop()
    }

    @Test func whoSharesTheReactorOrOnlyLooksHasOne() async throws {
        let target = try TargetWithUnits(units: 2)
        let policy = try Configuration(yaml: target.yaml(units: [0, 1], head: "reactors: 4"))
        var hosting = target.options
        hosting.hostsTarget = true
        var looking = target.options
        looking.onlyLooks = true
        for options in [hosting, looking] {
            let manager = try await PathManager(configuration: policy, options: options)
            for name in ["a", "b"] { #expect(try await manager.open(name).status.reactor == 0) }
            #expect(await manager.report().luns.allSatisfy { $0.holder?.reactors == nil })
            try await manager.shutdown()
        }
        try target.stop()
    }

    // MARK: I/O

    @Test func loadsOnThreeReactorsAtOnceKeepTheirBlocksApart() async throws {
        let target = try TargetWithUnits(units: 6)
        let manager = try await target.manager(reactors: 3, units: Array(0..<6))
        var loads: [CheckedLoad] = []
        for unit in 0..<6 { loads.append(CheckedLoad(try await manager.open(TargetWithUnits.lunName(unit)))) }
        for load in loads { load.start() }
        #expect(try await eventually(within: .seconds(60)) { loads.allSatisfy { $0.soFar.requests > 4000 } })
        var threads: [Set<UInt>] = []
        for load in loads {
            let report = await load.stop()
            #expect(report.errors == [] && report.mismatches == 0)
            threads.append(report.threads)
        }
        #expect(threads.allSatisfy { $0.count == 1 }, "each LUN stays on one thread")
        #expect(Set(threads).count == 3)
        #expect(threads[0] == threads[3] && threads[1] == threads[4] && threads[2] == threads[5])
        try await manager.shutdown()
        try target.stop()
    }

    @Test func tasksReachEachLUNFromAnyThreadAndFromItsOwn() async throws {
        let target = try TargetWithUnits(units: 3)
        let manager = try await target.manager(reactors: 3, units: [0, 1, 2])
        let three = [try await manager.open("a"), try await manager.open("b"), try await manager.open("c")]
        @Sendable func copy(_ number: Int) async throws {
            let (disk, buffer) = (three[number % 3], IOBuffer(byteCount: 4096))
            let offset = UInt64(number / 3) * 4096
            for round in 1...20 {
                buffer.bytes.initializeMemory(as: UInt8.self, repeating: UInt8(number + round))
                try await disk.write(buffer, at: offset)
                buffer.bytes.initializeMemory(as: UInt8.self, repeating: 0)
                try await disk.read(into: buffer, at: offset)
                #expect(buffer.bytes.allSatisfy { $0 == UInt8(number + round) })
            }
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<24 {
                group.addTask {
                    switch number % 4 {
                    case 0: try await three[number % 3].run { try await copy(number) }
                    case 1: try await manager.run { try await copy(number) }
                    default: try await copy(number)
                    }
                }
            }
            try await group.waitForAll()
        }
        try await manager.shutdown()
        await #expect(throws: DiskError.closed) { try await three[2].flush() }
        await #expect(throws: PathManagerError.self) { try await manager.open("a") }
        try target.stop()
    }

    // MARK: The end

    @Test func shutdownUnderLoadAnswersEveryRequest() async throws {
        for _ in 0..<3 {
            let target = try TargetWithUnits(units: 4)
            let manager = try await target.manager(reactors: 3, units: Array(0..<4))
            var loads: [CheckedLoad] = []
            for unit in 0..<4 { loads.append(CheckedLoad(try await manager.open(TargetWithUnits.lunName(unit)), depth: 32)) }
            for load in loads { load.start() }
            #expect(try await eventually { loads.allSatisfy { $0.soFar.requests > 200 } })
            try await manager.shutdown()
            for load in loads {
                // Ends only if each request under way was answered.
                let report = await load.stop()
                #expect(report.mismatches == 0)
                #expect(report.errors.allSatisfy { $0 == "\(DiskError.closed)" }, "\(report.errors.first ?? "")")
            }
            #expect(try await eventually { try target.with { target in (0..<2).allSatisfy { target.connectionCount(portal: $0) == 0 } } })
            try target.stop()
        }
    }

    // MARK: Control

    @Test func changesReachTheReactorOfTheirLUN() async throws {
        let target = try TargetWithUnits(units: 4)
        let manager = try await target.manager(reactors: 3, units: Array(0..<4))
        var loads: [CheckedLoad] = []
        for unit in 0..<4 { loads.append(CheckedLoad(try await manager.open(TargetWithUnits.lunName(unit)))) }
        for load in loads { load.start() }
        for unit in 0..<4 {
            let name = TargetWithUnits.lunName(unit)
            let policy = PolicyKind.allCases[unit % 3].rawValue
            guard case .policy(let report) = try await target.ask(.setPolicy(lun: name, policy: policy)) else {
                Issue.record("no policy")
                continue
            }
            #expect(report.lun == name && report.policy == policy)
        }
        #expect(await manager.report().luns.map(\.policy) == [0, 1, 2, 0].map { PolicyKind.allCases[$0].rawValue })
        let identity = try #require(await manager.report().luns[2].identity)
        guard case .explanation(let explanation) = try await target.ask(.explain(lun: identity, last: nil)) else {
            Issue.record("no explanation")
            return
        }
        #expect(explanation.lun == "c", "by its identity, on the third reactor")
        guard case .failed(let failure) = try await target.ask(.explain(lun: "nobody", last: nil)) else {
            Issue.record("found")
            return
        }
        #expect(failure.code == .noSuchLUN)
        let path = "\(target.portals[0])"
        #expect(try await target.ask(.path(.fail, lun: "b", path: path)) == .done("b: \(path) taken out"))
        let states = await manager.report().luns.map { $0.paths[0].state }
        #expect(states[1] == .failed)
        #expect([states[0], states[2], states[3]].allSatisfy { $0 == .activeOptimized })
        guard case .events(let events, _) = try await target.ask(.events(after: nil)) else {
            Issue.record("no events")
            return
        }
        #expect(Set(events.map(\.lun)).isSuperset(of: ["a", "b", "c", "d"]))
        #expect(events.map(\.serial) == events.map(\.serial).sorted())
        for load in loads {
            let report = await load.stop()
            #expect(report.errors == [] && report.mismatches == 0)
        }
        try await manager.shutdown()
        try target.stop()
    }

    @Test func aReloadChangesTheLUNsOfAllReactorsOrNone() async throws {
        let target = try TargetWithUnits(units: 4)
        let manager = try await target.manager(reactors: nil, units: [0, 1, 2], head: "reactors: 3")
        var loads: [CheckedLoad] = []
        for unit in 0..<3 { loads.append(CheckedLoad(try await manager.open(TargetWithUnits.lunName(unit)))) }
        for load in loads { load.start() }
        let good = target.yaml(units: [0, 1, 2, 3], head: "reactors: 2", paths: { $0 == 1 ? [1] : nil })
            .replacing("defaults:", with: "defaults:\n  policy: least-blocks")
        try target.directory.file("mpio.yaml", contents: Array(good.replacing("least-blocks", with: "least-bricks").utf8))
        await #expect(throws: ControlFailure.self) { try await manager.reload() }
        #expect(await manager.report().luns.allSatisfy { $0.policy == "round-robin" && $0.paths.count == 2 })
        try target.directory.file("mpio.yaml", contents: Array(good.utf8))
        let changes = try await manager.reload()
        #expect(changes.first { $0.key == "reactors" }?.effect == .left)
        #expect(manager.configuration.reactors == 3)
        #expect(await manager.report().luns.allSatisfy { $0.policy == "least-blocks" })
        #expect(try await eventually { await manager.report().luns.map(\.paths.count) == [2, 1, 2] })
        #expect(try await manager.open("d").status.reactor == 0)
        // Two at once: one after the other, both whole.
        async let first = manager.reload()
        async let second = manager.reload(dryRun: true)
        for changes in [try await first, try await second] { #expect(changes.filter { $0.effect != .left } == []) }
        for load in loads {
            let report = await load.stop()
            #expect(report.errors == [] && report.mismatches == 0)
        }
        try await manager.shutdown()
        try target.stop()
    }

    @Test func changesByHandAtOnceAreAllThereAfterwards() async throws {
        let target = try TargetWithUnits(units: 4)
        let manager = try await target.manager(reactors: 3, units: Array(0..<4), paths: { _ in [0, 1] })
        for unit in 0..<4 { _ = try await manager.open(TargetWithUnits.lunName(unit)) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for unit in 0..<4 {
                let lun = TargetWithUnits.lunName(unit)
                for portal in 0..<2 {
                    let edit = ConfigurationEdit.setPath(lun: lun, path: "\(target.portals[portal])", weight: UInt16(10 * unit + portal + 1))
                    nonisolated(unsafe) let target = target
                    group.addTask {
                        guard case .changes = try await target.ask(.edit(edit)) else { throw CancellationError() }
                    }
                }
            }
            try await group.waitForAll()
        }
        let configured = manager.configuration.luns.map { $0.paths.map { Int($0.settings.weight) } }
        #expect(configured == (0..<4).map { [10 * $0 + 1, 10 * $0 + 2] })
        try await manager.shutdown()
        try target.stop()
    }

    // MARK: Sessions

    @Test func noTwoReactorsShareAnISID() async throws {
        let target = try TargetWithUnits(units: 6)
        let manager = try await target.manager(reactors: 3, units: Array(0..<6))
        for unit in 0..<6 { _ = try await manager.open(TargetWithUnits.lunName(unit)) }
        let luns = await manager.report().luns
        var isids: [Int: Set<String>] = [:]
        for lun in luns { isids[try #require(lun.reactor), default: []].formUnion(lun.paths.compactMap(\.isid)) }
        #expect(isids.values.allSatisfy { $0.count == 2 }, "one session for each portal")
        #expect(isids.values.reduce(into: Set()) { $0.formUnion($1) }.count == 6)
        // Another process, as far as leases go, gets others still.
        let lease = try ISIDLease.acquire(initiatorName: manager.initiatorName, directory: target.options.runtimeDirectory)
        #expect(lease.slot == 3)
        // Long enough for the portals to be proven by each reactor for itself: that takes logins by yet other ISIDs.
        #expect(try await eventually { await manager.report().luns.allSatisfy { $0.paths.allSatisfy { $0.nexus == .shared } } })
        #expect(await manager.report().luns.allSatisfy { $0.redriven == 0 })
        try await manager.shutdown()
        try target.stop()
    }

    @Test func aPathLostOnOneReactorDoesNotDisturbTheOther() async throws {
        let target = try TargetWithUnits(units: 2, portals: 4)
        let manager = try await target.manager(reactors: 2, units: [0, 1], paths: { $0 == 0 ? [0, 1] : [2, 3] })
        let (a, b) = (try await manager.open("a"), try await manager.open("b"))
        let loads = [CheckedLoad(a), CheckedLoad(b)]
        for load in loads { load.start() }
        for round in 0..<4 {
            let counts = loads.map(\.soFar.requests)
            try target.with { target in target.dropConnections(portal: round % 2) }
            #expect(try await eventually { zip(loads, counts).allSatisfy { $0.soFar.requests > $1 + 500 } })
            #expect(try await eventually { try await a.paths.allSatisfy { $0.state.isUsable } })
        }
        let reports = [await loads[0].stop(), await loads[1].stop()]
        for report in reports { #expect(report.errors == [] && report.mismatches == 0) }
        #expect(try await b.redrivenCount == 0)
        #expect(try await b.paths.allSatisfy { $0.errors == 0 && $0.lastError == nil })
        #expect(try await a.paths.contains { $0.lastError != nil })
        try await manager.shutdown()
        try target.stop()
    }

    @Test func aLoginOfOneReactorEndsNothingOfAnother() async throws {
        let target = try TargetWithUnits(units: 2)
        let manager = try await target.manager(reactors: 2, units: [0, 1])
        let (a, b) = (try await manager.open("a"), try await manager.open("b"))
        let loads = [CheckedLoad(a), CheckedLoad(b)]
        for load in loads { load.start() }
        // The same portals: on each, a's session ends and logs in again, for the stale-write guard too, while b's works.
        for round in 0..<6 {
            let path = "\(target.portals[round % 2])"
            try await a.changePath(path, .fail)
            let before = loads[1].soFar.requests
            #expect(try await eventually { loads[1].soFar.requests > before + 200 })
            try await a.changePath(path, .restore)
            #expect(try await eventually { try await a.paths.allSatisfy { $0.state.isUsable } })
        }
        for load in loads {
            let report = await load.stop()
            #expect(report.errors == [] && report.mismatches == 0)
        }
        #expect(try await b.redrivenCount == 0)
        #expect(try await b.paths.allSatisfy { $0.errors == 0 && $0.lastError == nil })
        try await manager.shutdown()
        try target.stop()
    }

    // MARK: After a killed process

    @Test func aLUNOfAKilledProcessReturnsToTheLeaseThatEndsItsWrites() async throws {
        let target = try TargetWithUnits(units: 3)
        let folder = target.options.runtimeDirectory
        let name = "iqn.2026-11.test:spread"
        do {
            // What a process with two reactors leaves that was killed while it had a and c on the second.
            let dead = [try ISIDLease.acquire(initiatorName: name, directory: folder), try ISIDLease.acquire(initiatorName: name, directory: folder)]
            for lun in ["a", "c"] { dead[1].note(lun) }
        }
        let manager = try await target.manager(reactors: 2, units: [0, 1, 2])
        for lun in ["a", "b", "c"] { _ = try await manager.open(lun) }
        #expect(await reactors(manager) == ["a": 1, "b": 0, "c": 1])
        try await manager.shutdown()
        // Closed in order: nothing of them is left, and they are spread as ever.
        let next = try await target.manager(reactors: 2, units: [0, 1, 2])
        for lun in ["a", "b", "c"] { _ = try await next.open(lun) }
        #expect(await reactors(next) == ["a": 0, "b": 1, "c": 0])
        try await next.shutdown()
        try target.stop()
    }

    @Test func whatAKilledProcessLeftIsKeptUntilItIsClosed() throws {
        let folder = TemporaryFolder()
        let name = "iqn.2026-11.test:spread"
        var lease: ISIDLease? = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        #expect(lease?.isNoted("a") == false)
        for lun in ["a", "b", "line\nbreak"] { lease?.note(lun) }
        lease?.erase("b")
        lease = nil
        // Killed at once, before it opened anything.
        lease = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        lease = nil
        lease = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        #expect(["a", "b", "line\nbreak", "c"].map { lease!.isNoted($0) } == [true, false, true, false])
        for lun in ["a", "line\nbreak"] { lease?.erase(lun) }
        lease = nil
        lease = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        #expect(lease?.isNoted("a") == false)
    }
}
