import SCSI
import Testing
import Timebase

@testable import Multipath

/// SplitMix64: the same numbers for the same seed, everywhere.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}

/// A disk of a few blocks behind paths that fail, stall, lie and come back, driven by a seed; whatever was
/// left on a lost path may be executed late, until it is aborted or the quiesce time has passed.
final class RandomDriver {
    struct Copy {
        var request: RequestIndex
        var path: Int
        var descriptor: RequestDescriptor
        var value: Int
        var lostAt: Instant?
        var isExecuted = false
    }

    struct Live {
        var descriptor: RequestDescriptor
        var value: Int
    }

    static let blockCount = 48

    var random: SeededGenerator
    var now = Instant.seconds(100)
    let lun: PseudoLUN
    let loads: [PathLoad]
    var disk = [Int](repeating: 0, count: blockCount)
    /// What the target holds: live commands and, with `lostAt`, those of lost nexuses.
    var atTarget: [Copy] = []
    var live: [UInt32: Live] = [:]
    /// By block: what a read may return.
    var acknowledged = [Int](repeating: 0, count: blockCount)
    var possible = [[Int]](repeating: [], count: blockCount)
    var isUp: [Bool]
    var isStalled: [Bool]
    /// The number that the path was given leads to another unit, which aborts its own tasks gladly.
    var isElsewhere: [Bool]
    var pendingAborts: [(RequestIndex, PathIndex)] = []
    var pendingFences: [(path: PathIndex, step: FenceStep)] = []
    var pendingConnects: [Int] = []
    var pendingProbes: [(path: Int, reason: ProbeReason)] = []
    var nextValue = 1
    var corruptions = 0
    /// Sessions that were given up because a write waited for what they held.
    var dropCount = 0
    var faults: [String] = []
    var admitted = 0
    var finished = 0
    var failedCount = 0
    var isCalm = false

    init(seed: UInt64, guarded: Bool) {
        random = SeededGenerator(state: seed)
        let count = Int.random(in: 1...4, using: &random)
        loads = (0..<count).map { _ in PathLoad() }
        isUp = Array(repeating: false, count: count)
        isStalled = isUp
        isElsewhere = isUp
        var settings = LUNSettings(policy: PolicySettings(PolicyKind.allCases.randomElement(using: &random)!))
        settings.staleWriteGuard.isEnabled = guarded
        settings.staleWriteGuard.allowsLogicalUnitReset = Bool.random(using: &random)
        settings.policy.options.sequentialAffinity = Bool.random(using: &random)
        lun = PseudoLUN(name: "random", settings: settings, requestCapacity: 16)
        for index in 0..<count {
            _ = lun.addPath(
                PathSettings(
                    name: "\(index)", role: Int.random(in: 0..<3, using: &random) == 0 ? .standby : .primary,
                    weight: UInt16.random(in: 1...5, using: &random)),
                load: loads[index], at: now)
        }
        drain()
    }

    private func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

    private func fault(_ text: String) { faults.append("\(text) at \(now.nanoseconds)") }

    // MARK: The engine

    func drain() {
        while let action = lun.nextAction() {
            switch action {
            case .issue(let request, let path): issue(request, path.index)
            case .finish(let request, let result): finish(request, result)
            case .withdraw: break
            case .abort(let request, let path): pendingAborts.append((request, path))
            case .connect(let path): pendingConnects.append(path.index)
            case .probe(let path, let reason): pendingProbes.append((path.index, reason))
            case .disconnect(let path):
                // This LUN's commands end with its session; they may still be executed late.
                lose(path.index)
                lun.pathFailed(path, PathFailure(.takenOut), at: now)
            case .drop(let path):
                // It may have ended by itself since.
                guard isUp[path.index] else { break }
                dropCount += 1
                fail(path.index)
            case .fence(let path, let step): pendingFences.append((path, step))
            case .setTargetPortGroup: break
            case .event: break
            }
        }
    }

    private func issue(_ request: RequestIndex, _ path: Int) {
        guard let entry = live[request.slot] else { return fault("issue of a request that is over") }
        if lun.rows[path].grade != lun.bestGrade || lun.bestGrade == .unusable {
            fault("path \(path) must not carry data")
        }
        if entry.descriptor.kind.changesBlocks {
            for index in lun.paths.indices {
                var slot = lun.hot[index].inFlight.head
                while slot >= 0 {
                    let other = lun.slots[Int(slot)]
                    if UInt32(slot) != request.slot, other.descriptor.kind.changesBlocks,
                        rangesOverlap(
                            other.descriptor.lba, other.descriptor.blockCount, entry.descriptor.lba,
                            entry.descriptor.blockCount)
                    {
                        fault("two overlapping writes are in flight")
                    }
                    slot = other.next
                }
            }
        }
        // The LUN may not have been told yet that the session is gone.
        guard isUp[path] else { return }
        atTarget.append(
            Copy(request: request, path: path, descriptor: entry.descriptor, value: entry.value, lostAt: nil))
    }

    private func finish(_ request: RequestIndex, _ result: RequestResult) {
        guard let entry = live.removeValue(forKey: request.slot) else { return fault("finished twice") }
        finished += 1
        if result != .done { failedCount += 1 }
        guard entry.descriptor.kind.changesBlocks else { return }
        for block in blocks(entry.descriptor) {
            if result == .done {
                // From here on no older value may show again.
                acknowledged[block] = entry.value
                possible[block].removeAll { $0 <= entry.value }
            }
        }
    }

    private func blocks(_ descriptor: RequestDescriptor) -> Range<Int> {
        Int(descriptor.lba)..<Int(descriptor.lba) + Int(descriptor.blockCount)
    }

    private func lose(_ path: Int) {
        isUp[path] = false
        isStalled[path] = false
        for index in atTarget.indices where atTarget[index].path == path && atTarget[index].lostAt == nil {
            atTarget[index].lostAt = now
        }
    }

    /// The target gets round to a command. True for one whose answer can still be told.
    private func execute(_ copy: Copy) {
        switch copy.descriptor.kind {
        case .read:
            guard copy.lostAt == nil else { return }
            for block in blocks(copy.descriptor)
            where disk[block] != acknowledged[block] && !possible[block].contains(disk[block]) {
                corruptions += 1
            }
        default:
            guard copy.descriptor.kind.changesBlocks else { return }
            for block in blocks(copy.descriptor) { disk[block] = copy.value }
        }
    }

    // MARK: Steps

    func step() {
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<38: admit()
        case 38..<74: answer()
        case 74..<78: executeLate()
        case 78..<92: control()
        case 92..<95: breakSomething()
        default: advance(.milliseconds(Int64.random(in: 1...700, using: &random)))
        }
        drain()
    }

    private func admit() {
        let kind: RequestKind = [.read, .read, .write, .write, .write, .unmap, .compareAndWrite, .flush]
            .randomElement(using: &random)!
        let count = Int.random(in: 1...6, using: &random)
        let lba = Int.random(in: 0...(Self.blockCount - count), using: &random)
        let descriptor = RequestDescriptor(
            kind: kind, lba: UInt64(lba), blockCount: kind == .flush ? 0 : UInt32(count),
            byteCount: UInt32(count) * 512)
        guard let request = lun.admit(descriptor, at: now) else { return }
        admitted += 1
        live[request.slot] = Live(descriptor: descriptor, value: nextValue)
        if kind.changesBlocks { for block in lba..<(lba + count) { possible[block].append(nextValue) } }
        nextValue += 1
    }

    private func answer() {
        let answerable = atTarget.indices.filter { atTarget[$0].lostAt == nil && !isStalled[atTarget[$0].path] }
        guard let index = answerable.randomElement(using: &random) else { return }
        let copy = atTarget.remove(at: index)
        var outcome = PathOutcome.good
        if !isCalm, chance(12) {
            outcome = [
                .status(.busy, nil), .status(.taskSetFull, nil), .sense(.unitAttention, 0x29, 0),
                .sense(.unitAttention, 0x2A, 0x06), .sense(.notReady, 0x04, 0x0A),
                .sense(.abortedCommand, 0, 0), .sense(.unitAttention, 0x3F, 0x0E), .targetFailure(1),
                .sense(.illegalRequest, 0x25, 0),
            ].randomElement(using: &random)!
        }
        if copy.isExecuted { outcome = .good } else if outcome == .good { execute(copy) }
        lun.completed(copy.request, on: PathIndex(copy.path), outcome: outcome, at: now)
    }

    private func executeLate() {
        // Within the quiesce time a target ends what it took.
        atTarget.removeAll { copy in copy.lostAt.map { now - $0 >= .seconds(30) } ?? false }
        let lost = atTarget.indices.filter { atTarget[$0].lostAt != nil || isStalled[atTarget[$0].path] }
        guard let index = lost.randomElement(using: &random) else { return }
        // On a session that stalls, whenever it likes; the answer comes if it speaks again.
        if atTarget[index].lostAt != nil {
            execute(atTarget.remove(at: index))
        } else if !atTarget[index].isExecuted {
            execute(atTarget[index])
            atTarget[index].isExecuted = true
        }
    }

    /// The engine gets round to what it was asked for.
    private func control() {
        if !pendingAborts.isEmpty, chance(50) { return abort() }
        if !pendingFences.isEmpty, chance(60) {
            let fence = pendingFences.removeFirst()
            lun.fenceResult(fence.path, fence.step, perform(fence.step, fence.path.index), at: now)
        } else if !pendingProbes.isEmpty, chance(70) {
            let probe = pendingProbes.removeFirst()
            guard isUp[probe.path], !isStalled[probe.path] else { return }
            if isCalm || chance(30) { isElsewhere[probe.path] = false }
            let identity: LogicalUnitIdentity = isElsewhere[probe.path] ? .naa6(high: 1, low: 1) : Harness.identity
            let result: ProbeResult =
                switch probe.reason {
                case .connected, .recheck: .usable(PathReport(device: Harness.device(identity: identity)))
                case .verify: .verified(nil, unitAttentions: [])
                case .accessStates: .accessStates([], unitAttentions: [])
                }
            lun.probeFinished(PathIndex(probe.path), probe.reason, result, at: now)
        } else if !pendingConnects.isEmpty {
            let path = pendingConnects.removeFirst()
            guard !isUp[path] else { return }
            if isCalm || chance(80) {
                isUp[path] = true
                isElsewhere[path] = lun.device != nil && !isCalm && chance(30)
                lun.pathLoggedIn(PathIndex(path), at: now)
            } else {
                lun.pathFailed(PathIndex(path), PathFailure(.connectionRefused), at: now)
            }
        }
    }

    /// ABORT TASK: whether the target still has the command or not, it ends.
    private func abort() {
        let (request, path) = pendingAborts.removeFirst()
        guard isUp[path.index], !isStalled[path.index] else { return }
        atTarget.removeAll { $0.request == request && $0.path == path.index }
        lun.completed(request, on: path, outcome: .status(.taskAborted, nil), at: now)
    }

    private func perform(_ step: FenceStep, _ path: Int) -> FenceResult {
        switch step {
        case .reinstateNexus: return isUp[path] || !chance(50) ? .failed : .done
        case .abortTaskSet:
            guard isCalm || chance(80) else { return .failed }
            if isElsewhere[path] { return .done }
            // Of this nexus, before and after reinstatement.
            atTarget.removeAll { $0.path == path }
            return .done
        case .logicalUnitReset:
            guard isCalm || chance(80) else { return .failed }
            // What is still on its way on a session that lives is not hit.
            atTarget.removeAll { $0.lostAt != nil || chance(70) }
            return .done
        }
    }

    private func breakSomething() {
        let path = Int.random(in: 0..<isUp.count, using: &random)
        let index = PathIndex(path)
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4 where isUp[path]: fail(path)
        case 4..<6 where isUp[path] && !isStalled[path]:
            isStalled[path] = true
            lun.pathStalled(index, at: now)
        case 6: resume(path)
        case 7: lun.takeOut(index, chance(50) ? .drain : .fail, at: now)
        case 8: lun.restore(index, at: now)
        case 9:
            lun.setPolicy(PolicySettings(PolicyKind.allCases.randomElement(using: &random)!), at: now)
        default: break
        }
    }

    private func resume(_ path: Int) {
        guard isStalled[path] else { return }
        isStalled[path] = false
        lun.pathResumed(PathIndex(path), at: now)
    }

    /// A session ends: some commands never left, the others may be executed late.
    private func fail(_ path: Int) {
        let copies = atTarget.filter { $0.path == path && $0.lostAt == nil }
        lose(path)
        let tellsFirst = chance(50)
        if !tellsFirst { lun.pathFailed(PathIndex(path), PathFailure(.connectionReset), at: now) }
        for copy in copies {
            let wasSent = chance(70)
            if !wasSent { atTarget.removeAll { $0.request == copy.request && $0.path == path } }
            lun.completed(
                copy.request, on: PathIndex(path), outcome: .returned(wasSent: wasSent, .connectionReset), at: now)
            drain()
        }
        if tellsFirst { lun.pathFailed(PathIndex(path), PathFailure(.connectionReset), at: now) }
    }

    func advance(_ duration: Duration) {
        let end = now + duration
        var turns = 0
        while lun.nextDeadline <= end {
            now = max(now, lun.nextDeadline)
            lun.timerFired(at: now)
            drain()
            turns += 1
            if turns > 10_000 { return fault("the deadline does not move on") }
        }
        now = end
    }

    /// No more faults: everything must end, and nothing must be left over.
    func calm() {
        isCalm = true
        for path in isUp.indices {
            resume(path)
            drain()
            lun.restore(PathIndex(path), at: now)
            drain()
        }
        for _ in 0..<4000 where !live.isEmpty || !lun.staleWrites.isClear {
            answer()
            drain()
            control()
            drain()
            if chance(10) { advance(.milliseconds(500)) }
        }
        if !live.isEmpty { fault("\(live.count) requests never finished") }
        if admitted != finished { fault("\(admitted) admitted, \(finished) finished") }
        if lun.requestCount != 0 { fault("slots are leaked") }
        if !lun.staleWrites.isClear { fault("old copies are left") }
        if !lun.ranges.isEmpty { fault("ranges are left") }
        if lun.blockedCount != 0 { fault("the count of blocked writes is off") }
        if lun.ready.count != 0 || lun.delayed.count != 0 { fault("queues are not empty") }
        for load in loads where load.counters.requests != 0 || load.counters.bytes != 0 {
            fault("load is left: \(load.counters)")
        }
        for path in lun.paths.indices where lun.rows[path].inFlight != 0 || lun.hot[path].inFlight.count != 0 {
            fault("path \(path) still counts requests")
        }
    }

    static func run(seed: UInt64, guarded: Bool = true) -> RandomDriver {
        let driver = RandomDriver(seed: seed, guarded: guarded)
        for _ in 0..<1200 { driver.step() }
        driver.calm()
        return driver
    }
}

@Suite struct RandomDriverTests {
    @Test(arguments: 0..<8)
    func everyRequestEndsOnceAndNoAcknowledgedWriteIsUndone(_ part: UInt64) {
        for seed in (part * 40)..<(part * 40 + 40) {
            let driver = RandomDriver.run(seed: seed)
            #expect(driver.faults.isEmpty, "seed \(seed)")
            #expect(driver.corruptions == 0, "seed \(seed)")
        }
    }

    @Test func theSameSeedTakesTheSameCourse() {
        let (first, second) = (RandomDriver.run(seed: 7), RandomDriver.run(seed: 7))
        #expect(first.disk == second.disk)
        #expect(first.now == second.now)
        #expect(first.finished == second.finished && first.finished > 100)
        #expect(first.lun.lastDecisions(256) == second.lun.lastDecisions(256))
    }

    @Test func withTheGuardOffTheSameFaultsCorruptData() {
        let corrupted = (0..<60).filter { RandomDriver.run(seed: $0, guarded: false).corruptions > 0 }
        #expect(corrupted.count > 20)
    }
}
