import Foundation
import ISCSITarget
import Multipath
import Synchronization
import TestSupport
import Testing

@testable import MPIO

/// One LUN on several reactors.
@Suite(.serialized) struct LanesTests {
    private static let stripe = 1 << 20

    private func open(
        _ target: TargetWithUnits, lanes: Int = 2, head: String = ""
    ) async throws -> (PathManager, MultipathDisk) {
        let manager = try await target.manager(reactors: nil, units: [0], head: "reactors: \(lanes)\n" + head, lanes: { _ in lanes })
        let disk = try await manager.open("a")
        #expect(try await eventually { try await disk.paths.allSatisfy { $0.state.isUsable } })
        return (manager, disk)
    }

    /// Takes a path out, or back, on one lane only, as a fault that hits one session does.
    private func change(_ disk: MultipathDisk, lane: Int, _ action: ControlRequest.PathAction) async throws {
        try await disk.gates[lane].reference.call { engine in
            for path in engine.paths { engine.change(path.index, action) }
        }
    }

    private func pattern(_ byteCount: Int, seed: UInt64) -> IOBuffer {
        let buffer = IOBuffer(byteCount: byteCount)
        let words = buffer.bytes.bindMemory(to: UInt64.self)
        for index in words.indices { words[index] = UInt64(index) &* 0x9E37_79B9_7F4A_7C15 ^ seed }
        return buffer
    }

    private func isSame(_ one: IOBuffer, _ other: IOBuffer, at offset: Int = 0) -> Bool {
        memcmp(one.bytes.baseAddress!, other.bytes.baseAddress! + offset, one.byteCount) == 0
    }

    // MARK: The key

    private func configuration(_ head: String, _ line: String) throws -> Configuration {
        try Configuration(yaml: "\(head)\nluns:\n  - name: a\n    paths: [{device: /tmp/none}]\n    \(line)\n")
    }

    @Test func theKeyIsOneByDefaultAndNoMoreThanThereAre() throws {
        #expect(try configuration("reactors: 4", "").luns[0].reactors == 1)
        #expect(try configuration("reactors: 4", "reactors: 4").luns[0].reactors == 4)
        for (head, wrong, words) in [
            ("reactors: 4", "5", "5 reactors are more than the file has"), ("", "2", "2 reactors are more than the file has"),
            ("reactors: 4", "0", "'0' is not valid"), ("reactors: 4", "two", "'two' is not valid"), ("reactors: 4", "65", "'65' is not valid"),
        ] {
            let error = #expect(throws: InvalidConfiguration.self, "\(wrong)") { try configuration(head, "reactors: \(wrong)") }
            #expect(error?.errors.first?.keyPath == "luns[0].reactors")
            #expect("\(error!.errors[0])".contains(words))
            #expect("\(error!.errors[0])".contains("5:15"), "the line of the number")
        }
    }

    // MARK: Opening

    @Test func aLaneOnEachReactorHasSessionsOfItsOwn() async throws {
        let target = try TargetWithUnits(units: 2)
        let manager = try await target.manager(reactors: 3, units: [0, 1], head: "reactors: 3", lanes: { $0 == 0 ? 2 : nil })
        let disk = try await manager.open("a")
        #expect(disk.laneCount == 2 && disk.stripeByteCount == Self.stripe)
        let dealt = (0..<4).map { (stripe: Int) -> Int in disk.lane(at: UInt64(stripe * Self.stripe)) }
        #expect(dealt == [0, 1, 0, 1])
        // The other LUN goes where there are fewest.
        #expect(try await manager.open("b").status.reactor == 2)
        #expect(try await eventually { await manager.report().luns[0].paths.allSatisfy { $0.state == .activeOptimized } })
        let report = await manager.report()
        #expect(report.luns.map(\.name) == ["a", "b"])
        let lun = report.luns[0]
        #expect(lun.lanes?.map(\.reactor) == [0, 1] && lun.lanes?.map(\.lane) == [0, 1])
        #expect(lun.paths.count == 2 && lun.paths.allSatisfy { $0.lanes?.count == 2 })
        let isids: [String] = lun.paths.flatMap { path in (path.lanes ?? []).compactMap(\.isid) }
        #expect(Set(isids).count == 4, "K sessions for each portal")
        #expect(try target.with { target in (0..<2).map { target.connectionCount(portal: $0) } } == [3, 3])
        #expect(report.luns[1].lanes == nil && report.luns[1].paths.allSatisfy { $0.lanes == nil })
        let json = String(decoding: try JSONEncoder().encode(report), as: UTF8.self)
        #expect(json.contains("\"lanes\":[{") && json.contains("\"lane\":1"))
        #expect(try JSONDecoder().decode(PathsReport.self, from: Data(json.utf8)).luns[0].lanes == lun.lanes)
        let text = PathsRenderer(now: Date()).render(lun)
        #expect(text.contains("2 lanes on reactors 0, 1 of 3"))
        #expect(text.components(separatedBy: "\(target.portals[0])").count == 2, "a path once")
        #expect(try await manager.open("a") === disk)
        try await manager.shutdown()
        await #expect(throws: DiskError.closed) { try await disk.flush() }
        #expect(try await eventually { try target.with { target in (0..<2).allSatisfy { target.connectionCount(portal: $0) == 0 } } })
        try target.stop()
    }

    @Test func aLUNHasNoMoreLanesThanTheProcessHasReactors() async throws {
        let target = try TargetWithUnits(units: 1)
        let policy = try Configuration(yaml: target.yaml(units: [0], head: "reactors: 4", lanes: { _ in 4 }))
        var hosting = target.options
        hosting.hostsTarget = true
        let manager = try await PathManager(configuration: policy, options: hosting)
        let disk = try await manager.open("a")
        #expect(disk.laneCount == 1 && disk.router == nil)
        try await manager.shutdown()
        try target.stop()
    }

    @Test func whereALaneCannotLogInNoneIsOpen() async throws {
        let target = try TargetWithUnits(units: 1, portals: 1) { $0.maximumSessions = 1 }
        let manager = try await target.manager(
            reactors: nil, units: [0], head: "reactors: 2", lanes: { _ in 2 })
        let error = await #expect(throws: PathManagerError.self) { try await manager.open("a") }
        #expect("\(error!)".contains("lane "), "\(error!)")
        #expect(await manager.report().luns.isEmpty)
        #expect(try await eventually { try target.with { $0.connectionCount(portal: 0) == 0 } }, "the lane that could gave up its session")
        await #expect(throws: PathManagerError.self) { try await manager.open("a") }
        try await manager.shutdown()
        try target.stop()
    }

    // MARK: I/O

    @Test func aLoadUsesAllLanesAndKeepsItsBlocks() async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target)
        let load = CheckedLoad(disk, depth: 32)
        load.start()
        #expect(try await eventually(within: .seconds(60)) { load.soFar.requests > 4000 })
        let report = await load.stop()
        #expect(report.errors == [] && report.mismatches == 0)
        #expect(report.threads.count == 2, "each lane's reactor")
        let path = try await disk.paths[0]
        let lanes = try #require(path.lanes)
        #expect(lanes.count == 2 && lanes.allSatisfy { $0.requests > 0 })
        #expect(path.requests == lanes.reduce(0) { $0 + $1.requests })
        try await manager.shutdown()
        try target.stop()
    }

    @Test(arguments: [2, 3]) func requestsOverStripesAreDoneInPartsAndEndOnce(lanes: Int) async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target, lanes: lanes)
        let whole = pattern(4 * Self.stripe, seed: 1)
        try await disk.write(whole, at: 0)
        let start = Self.stripe / 2 + 4096
        let middle = pattern(2 * Self.stripe + 8192, seed: 2)
        try await disk.run(onLane: 1) { try await disk.write(middle, at: UInt64(start)) }
        memcpy(whole.bytes.baseAddress! + start, middle.bytes.baseAddress!, middle.byteCount)
        let found = IOBuffer(byteCount: whole.byteCount)
        try await disk.read(into: found, at: 0)
        #expect(isSame(found, whole))
        try await disk.writeZeroes(at: UInt64(Self.stripe - 4096), byteCount: UInt64(Self.stripe + 8192))
        memset(whole.bytes.baseAddress! + Self.stripe - 4096, 0, Self.stripe + 8192)
        try await disk.flush()
        // The blocking calls, from a thread of their own.
        let isRead = await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                found.bytes.initializeMemory(as: UInt8.self, repeating: 0xEE)
                let isDone = (try? disk.readBlocking(into: found, at: 0)) != nil && (try? disk.flushBlocking()) != nil
                continuation.resume(returning: isDone)
            }
        }
        #expect(isRead && isSame(found, whole))
        try await manager.shutdown()
        try target.stop()
    }

    /// Requests of all kinds in one batch: each token comes back once.
    @Test func aBatchOfAllKindsEndsOnceEach() async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target)
        let ends = Mutex<[UInt64: Int]>([:])
        let queue = IOQueue(disk: disk) { completions in
            ends.withLock { for completion in completions { $0[completion.token, default: 0] += completion.error == nil ? 1 : 1000 } }
        }
        let memory = IOBuffer(byteCount: 4 * Self.stripe)
        var requests: [IORequest] = []
        for number in 0..<200 {
            // Reads: their memory may be shared.
            let small = number * 5 % (3 * Self.stripe / 4096) * 4096
            let offset = UInt64(number % 5 == 0 ? Self.stripe / 2 : small)
            let byteCount = number % 5 == 0 ? 2 * Self.stripe : 4096
            requests.append(
                number % 17 == 3
                    ? IORequest(.flush, offset: 0, byteCount: 0, token: UInt64(number))
                    : IORequest(.read, offset: offset, byteCount: byteCount, memory: memory.bytes.baseAddress, token: UInt64(number)))
        }
        requests.append(IORequest(.read, offset: 0, byteCount: 0, memory: nil, token: 200))
        let all = requests
        queue.submit(all)
        #expect(try await eventually { ends.withLock { $0.count == 201 } })
        // From a lane's own thread too, in which its part goes straight in.
        nonisolated(unsafe) let again = all
        await disk.run(onLane: 1) { queue.submit(again) }
        #expect(try await eventually { ends.withLock { $0.values.allSatisfy { $0 == 2 } } })
        try await disk.flush()
        #expect(ends.withLock { $0.values.allSatisfy { $0 == 2 } })
        try await manager.shutdown()
        withExtendedLifetime((queue, memory)) {}
        try target.stop()
    }

    @Test func whatIsWrongIsRefusedOnce() async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target)
        let buffer = IOBuffer(byteCount: 2 * Self.stripe)
        await #expect(throws: DiskError.outOfRange(offset: UInt64(3 * Self.stripe), byteCount: 2 * Self.stripe, capacityByteCount: disk.capacityByteCount)) {
            try await disk.read(into: buffer, at: UInt64(3 * Self.stripe))
        }
        await #expect(throws: DiskError.misaligned(offset: 7, byteCount: 2 * Self.stripe, blockSize: disk.blockSize)) {
            try await disk.read(into: buffer, at: 7)
        }
        await #expect(throws: DiskError.self) { try await disk.writeZeroes(at: 0, byteCount: .max) }
        let pair = IOBuffer(byteCount: 4 * disk.blockSize)
        let boundary = UInt64(Self.stripe - disk.blockSize)
        await #expect(
            throws: DiskError.crossesStripe(offset: boundary, byteCount: 2 * disk.blockSize, stripeByteCount: Self.stripe)
        ) { try await disk.compareAndWrite(pair, at: boundary) }
        // All in one stripe, on the second lane.
        pair.bytes[2 * disk.blockSize] = 5
        try await disk.compareAndWrite(pair, at: UInt64(Self.stripe))
        await #expect(throws: DiskError.self) { try await disk.compareAndWrite(pair, at: UInt64(Self.stripe)) }
        try await manager.shutdown()
        try target.stop()
    }

    @Test func tasksThatAreCancelledReturn() async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target)
        let fault = try FaultCommand(parsing: "delay=200ms:op=read")
        _ = try target.with { try $0.setFault(fault) }
        for byteCount in [4096, 2 * Self.stripe] {
            let task = Task {
                let buffer = IOBuffer(byteCount: byteCount)
                try await disk.read(into: buffer, at: UInt64(Self.stripe))
            }
            task.cancel()
            _ = await task.result
        }
        try target.with { $0.clearFaults() }
        try await disk.flush()
        try await manager.shutdown()
        try target.stop()
    }

    // MARK: Paths

    @Test func aLaneWithoutPathsFailsItsBlocksAndNoOthers() async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target)
        var settings = try await disk.gates[1].reference.call { $0.lun.settings }
        settings.timers.pdoRemovePeriod = .after(.zero)
        let impatient = settings
        for gate in disk.gates { try await gate.reference.call { $0.update(impatient) } }
        try await change(disk, lane: 1, .fail)
        let small = IOBuffer(byteCount: 4096)
        let large = IOBuffer(byteCount: 3 * Self.stripe)
        await #expect(throws: DiskError.noPathsAvailable) { try await disk.read(into: small, at: UInt64(Self.stripe)) }
        try await disk.read(into: small, at: 0)
        await #expect(throws: DiskError.noPathsAvailable) { try await disk.read(into: large, at: 0) }
        // The unit's cache is reached through any lane.
        try await disk.flush()
        try await disk.run(onLane: 1) { try await disk.flush() }
        let lun = try await disk.status
        #expect(lun.state == .failed, "the worst lane's")
        #expect(lun.lanes?.map(\.state) == [.optimal, .failed])
        for path in lun.paths {
            #expect(path.state == .failed)
            #expect(path.lanes?.map(\.state) == [.activeOptimized, .failed])
        }
        #expect(PathsRenderer(now: Date()).render(lun).contains("lane 0: active/optimized, lane 1: failed"))
        try await change(disk, lane: 1, .restore)
        #expect(try await eventually { try await disk.status.state == .optimal })
        try await disk.read(into: large, at: 0)
        try await manager.shutdown()
        try target.stop()
    }

    @Test func aPathThatIsLostIsLostOnAllLanesWithoutErrors() async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target)
        let load = CheckedLoad(disk, depth: 32)
        load.start()
        for round in 0..<6 {
            let count = load.soFar.requests
            try target.with { $0.dropConnections(portal: round % 2) }
            #expect(try await eventually(within: .seconds(30)) { load.soFar.requests > count + 500 })
            #expect(try await eventually(within: .seconds(30)) { try await disk.paths.allSatisfy { $0.state.isUsable } })
        }
        let report = await load.stop()
        #expect(report.errors == [] && report.mismatches == 0)
        guard case .events(let events, _) = try await target.ask(.events(after: nil)) else {
            Issue.record("no events")
            return
        }
        #expect(Set(events.filter { $0.kind == "path-lost" }.compactMap(\.lane)) == [0, 1])
        try await manager.shutdown()
        try target.stop()
    }

    @Test func changesAreMadeOnAllLanes() async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target)
        let load = CheckedLoad(disk)
        load.start()
        let path = "\(target.portals[0])"
        #expect(try await target.ask(.path(.fail, lun: "a", path: path)) == .done("a: \(path) taken out"))
        #expect(try await disk.paths[0].lanes?.map(\.state) == [.failed, .failed])
        #expect(try await target.ask(.path(.restore, lun: "a", path: path)) == .done("a: \(path) taken back in"))
        #expect(try await eventually { try await disk.paths[0].lanes?.map(\.state) == [.activeOptimized, .activeOptimized] })
        #expect(try await disk.changePath(path, .drain))
        #expect(try await eventually { try await disk.paths[0].lanes?.map(\.state) == [.drained, .drained] })
        #expect(try await disk.changePath(path, .restore))
        guard case .failed(let failure) = try await target.ask(.path(.fail, lun: "a", path: "nowhere")) else {
            Issue.record("a path that is not there was taken out")
            return
        }
        #expect(failure.code == .noSuchPath && !failure.message.contains("lane"))
        guard case .policy(let policy) = try await target.ask(.setPolicy(lun: "a", policy: "least-blocks")) else {
            Issue.record("no policy")
            return
        }
        #expect(policy.policy == "least-blocks")
        for gate in disk.gates { #expect(try await gate.reference.call { $0.lun.settings.policy.kind } == .leastBlocks) }
        guard case .explanation(let explanation) = try await target.ask(.explain(lun: "a", last: 4)) else {
            Issue.record("no explanation")
            return
        }
        let decisions = (explanation.lanes ?? []).map { $0.decisions?.count ?? 0 }
        #expect(decisions.count == 2 && !decisions.contains(0))
        let report = await load.stop()
        #expect(report.errors == [] && report.mismatches == 0)
        try await manager.shutdown()
        try target.stop()
    }

    @Test func aReloadReachesAllLanesAndLeavesTheirNumber() async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target)
        let load = CheckedLoad(disk)
        load.start()
        for count in [1, 3] {
            let text = target.yaml(units: [0], head: "reactors: 3", paths: { _ in [1] }, lanes: { _ in count })
                .replacing("defaults:", with: "defaults:\n  policy: least-queue-depth")
            try target.directory.file("mpio.yaml", contents: Array(text.utf8))
            let changes = try await manager.reload()
            let change = try #require(changes.first { $0.lun == "a" && $0.key == "reactors" })
            #expect(change.effect == .left && change.new == "\(count)" && change.note?.contains("restart") == true)
            #expect(manager.configuration.luns[0].reactors == 2)
        }
        #expect(try await disk.status.policy == "least-queue-depth")
        #expect(try await eventually { try await disk.paths.map { $0.lanes?.count } == [2] })
        let report = await load.stop()
        #expect(report.errors == [] && report.mismatches == 0)
        try await manager.shutdown()
        try target.stop()
    }

    // MARK: What lanes do to each other

    /// The lanes are different nexuses of one unit: a reset for one ends the others' commands, and those are never answered.
    @Test func aResetByOneLaneCostsTheOthersNothing() async throws {
        let target = try TargetWithUnits(units: 1)
        let (manager, disk) = try await open(target)
        let load = CheckedLoad(disk, depth: 32)
        load.start()
        for round in 0..<4 {
            // Commands that are with the target when it comes.
            let fault = try FaultCommand(parsing: "delay=100ms:count=64")
            _ = try target.with { try $0.setFault(fault) }
            let count = load.soFar.requests
            #expect(try await eventually { try await disk.paths.flatMap { $0.lanes ?? [] }.allSatisfy { $0.inFlight > 0 } })
            try await disk.gates[round % 2].reference.call { $0.paths[0].fence(.logicalUnitReset(via: PathIndex(1))) }
            #expect(try await eventually(within: .seconds(30)) { load.soFar.requests > count + 500 })
        }
        try target.with { $0.clearFaults() }
        let report = await load.stop()
        #expect(report.errors == [] && report.mismatches == 0)
        #expect(report.longestPause < .seconds(30), "less than half of command-timeout, which would have ended what was lost")
        try await manager.shutdown()
        try target.stop()
    }

    /// Two lanes that both find no active group ask as two hosts would; they agree on one and leave it there.
    @Test func lanesDoNotPullAGroupBackAndForth() async throws {
        let target = try TargetWithUnits(units: 1) {
            $0.portals[1].groupTag = 2
            $0.allowsExplicitTransitions = true
            $0.accessStates = [1: .standby, 2: .standby]
        }
        let manager = try await target.manager(reactors: nil, units: [0], head: "reactors: 2", lanes: { _ in 2 })
        let disk = try await manager.open("a")
        let load = CheckedLoad(disk)
        load.start()
        #expect(try await eventually(within: .seconds(60)) { load.soFar.requests > 2000 })
        func asked() async throws -> Int {
            guard case .events(let events, _) = try await target.ask(.events(after: nil)) else { return -1 }
            return events.count { $0.kind == "transition-requested" }
        }
        let first = try await asked()
        #expect((1...4).contains(first), "each lane once, and once more where the other one came between: \(first)")
        let count = load.soFar.requests
        #expect(try await eventually(within: .seconds(60)) { load.soFar.requests > count + 4000 })
        #expect(try await asked() == first, "nobody asks for what is there")
        let report = await load.stop()
        #expect(report.errors == [] && report.mismatches == 0)
        try await manager.shutdown()
        try target.stop()
    }

    @Test func whatOneLaneSeesOfTheSizeAllSee() async throws {
        let target = try TargetWithUnits(units: 1)
        let small = try FaultCommand(parsing: "capacity=4096:lun=0")
        let id = try target.with { try $0.setFault(small) }
        let (manager, disk) = try await open(target)
        #expect(disk.capacityByteCount == 4096 * UInt64(disk.blockSize))
        try target.with { $0.clearFault(id) }
        let block = IOBuffer(byteCount: 4096)
        // The first stripe's lane meets the unit attention; the others are idle.
        #expect(try await eventually {
            try await disk.read(into: block, at: 0)
            return try await disk.status.capacityBytes == 4_194_304
        })
        #expect(try await eventually { (try? await disk.read(into: block, at: UInt64(3 * Self.stripe))) != nil })
        for gate in disk.gates {
            #expect(try await eventually { try await gate.reference.call { $0.device?.capacity ?? 0 } == 4_194_304 })
        }
        try await manager.shutdown()
        try target.stop()
    }

    // MARK: After a killed process

    private func note(_ slots: [Int], _ target: TargetWithUnits) throws {
        let leases = try (0...(slots.max() ?? 0)).map { _ in
            try ISIDLease.acquire(initiatorName: "iqn.2026-11.test:spread", directory: target.options.runtimeDirectory)
        }
        for slot in slots { leases[slot].note("a") }
    }

    /// The leases that list the LUN, as a process that comes next would find them.
    private func noted(_ target: TargetWithUnits) throws -> [Int] {
        let folder = target.options.runtimeDirectory
        let files = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.contains(".isid-") }
        return try files.filter { try String(contentsOfFile: "\(folder)/\($0)", encoding: .utf8).contains("lun ") }
            .compactMap { Int($0.split(separator: "-").last ?? "") }.sorted()
    }

    /// A manager that has the lowest leases, as the next process would, whatever was before it.
    private func nextManager(_ target: TargetWithUnits, lanes: Int) async throws -> PathManager {
        #expect(try await eventually {
            let lease = try ISIDLease.acquire(initiatorName: "iqn.2026-11.test:spread", directory: target.options.runtimeDirectory)
            return lease.slot == 0
        })
        return try await target.manager(reactors: nil, units: [0], head: "reactors: 3", lanes: { _ in lanes })
    }

    /// Every lease that may hold its writes logs in before anybody can write, whatever the number of lanes was and is.
    @Test(arguments: [([0, 1], 2), ([1, 2], 2), ([2], 2), ([0, 1, 2], 1), ([1, 2], 1), ([0, 2], 3)])
    func everyNexusThatMayHoldWritesIsReinstatedFirst(left: [Int], lanes: Int) async throws {
        let target = try TargetWithUnits(units: 1)
        try note(left, target)
        #expect(try noted(target) == left)
        let manager = try await nextManager(target, lanes: lanes)
        let disk = try await manager.open("a")
        #expect(disk.laneCount == lanes)
        let status = try await disk.status
        let only = try #require(status.reactor)
        let reactors: [Int] = status.lanes?.compactMap(\.reactor) ?? [only]
        // A lane has the lease that it had, where it may.
        #expect(Set(reactors).isSuperset(of: left.prefix(lanes)))
        #expect(reactors == reactors.sorted())
        let members = Set(left).union(reactors)
        guard case .events(let events, _) = try await target.ask(.events(after: nil)) else {
            Issue.record("no events")
            return
        }
        #expect(events.count { $0.kind == "defined" } == members.count, "each has found the unit before the disk was open")
        // Those that were needed for that alone go.
        #expect(try await eventually { try target.with { $0.connectionCount(portal: 0) == lanes } })
        try await disk.flush()
        try await manager.shutdown()
        #expect(try noted(target) == [], "closed in order")
        try target.stop()
    }

    @Test func whatCouldNotBeReinstatedStaysNoted() async throws {
        let target = try TargetWithUnits(units: 1)
        try note([0, 1, 2], target)
        for portal in 0..<2 { try target.with { try $0.setPortal(portal, enabled: false) } }
        func live(_ body: (PathManager) async throws -> Void) async throws {
            let manager = try await nextManager(target, lanes: 2)
            try await body(manager)
            try await manager.shutdown()
        }
        try await live { manager in
            await #expect(throws: PathManagerError.self) { try await manager.open("a") }
        }
        #expect(try noted(target) == [0, 1, 2])
        // One portal is enough to work, but what the other one's sessions hold may come yet.
        try target.with { try $0.setPortal(0, enabled: true) }
        try await live { _ = try await $0.open("a") }
        #expect(try noted(target) == [0, 1, 2])
        try target.with { try $0.setPortal(1, enabled: true) }
        try await live { manager in
            let disk = try await manager.open("a")
            #expect(try await eventually { try await disk.paths.allSatisfy { $0.state.isUsable } })
        }
        #expect(try noted(target) == [])
        try target.stop()
    }
}
