import Multipath
import SCSI
import Timebase

/// A LUN over up to four paths, with an engine that keeps its side of the seam, and peers that do what the script
/// says. Promises: each request ends once; no two overlapping writes are in flight; deadlines move on; once the LUN
/// is closed and its paths are gone, nothing is left.
@Sendable
func fuzzMultipath(_ input: UnsafeRawBufferPointer) {
    var script = ByteScript(input)
    let rig = MultipathRig(&script)
    var steps = 0
    while !script.isAtEnd, steps < 600 {
        rig.step(&script)
        steps += 1
    }
    rig.finish()
}

final class MultipathRig {
    /// What a transport holds for the LUN: in flight, or withdrawn and still to be answered.
    struct Copy: Equatable {
        var request: RequestIndex
        var path: PathIndex
        var isWithdrawn = false
    }

    private let lun: PseudoLUN
    private var now = Instant(nanoseconds: 100_000_000_000)
    private var pathCount: Int
    private var isUp: [Bool]
    private var copies: [Copy] = []
    private var live: [UInt32: RequestDescriptor] = [:]
    private var fences: [(path: PathIndex, step: FenceStep)] = []
    private var probes: [(path: PathIndex, reason: ProbeReason)] = []
    private var connects: [PathIndex] = []

    init(_ script: inout ByteScript) {
        let flags = script.byte()
        pathCount = Int(flags & 3) + 1
        isUp = Array(repeating: false, count: pathCount)
        var settings = LUNSettings(policy: PolicySettings(script.pick(PolicyKind.allCases)))
        settings.staleWriteGuard.isEnabled = flags & 0x10 == 0
        settings.staleWriteGuard.allowsLogicalUnitReset = flags & 0x20 != 0
        if flags & 0x40 != 0 { settings.timers.pdoRemovePeriod = .never }
        if flags & 0x80 != 0 { settings.policy.options.failBack = .manual }
        if flags & 0x04 != 0 { settings.policy.options.switchAfter = .bytes(4096) }
        if flags & 0x08 != 0 { settings.timers.retryCount = 0 }
        settings.policy.options.sequentialAffinity = flags & 0x04 != 0
        lun = PseudoLUN(name: "fuzzed", settings: settings, requestCapacity: 8)
        for index in 0..<pathCount {
            let kind = script.byte()
            lun.addPath(
                PathSettings(name: "\(index)", role: kind & 1 != 0 ? .standby : .primary, weight: UInt16(kind >> 1)),
                load: PathLoad(), at: now)
        }
        drain()
        if flags & 0x08 != 0 {
            for index in 0..<pathCount { connect(PathIndex(index)) }
        }
    }

    func step(_ script: inout ByteScript) {
        let kind = script.byte()
        let path = PathIndex(Int(kind >> 6) % pathCount)
        switch kind & 0x1F {
        case 0...5: admit(&script)
        case 6...11: answer(&script, isGood: kind & 0x20 == 0)
        case 12, 13: control(&script)
        case 14, 15: fail(path, &script)
        case 16 where isUp[path.index]: lun.pathStalled(path, at: now)
        case 17 where isUp[path.index]: lun.pathResumed(path, at: now)
        case 18 where isUp[path.index]: lun.pathSlow(path, kind & 0x20 != 0, at: now)
        case 19: lun.takeOut(path, kind & 0x20 != 0 ? .drain : .fail, at: now)
        case 20: lun.restore(path, at: now)
        case 21: lun.setPolicy(PolicySettings(script.pick(PolicyKind.allCases)), at: now)
        case 22: lun.reported(SenseData(key: .unitAttention, additional: AdditionalSense(script.byte(), script.byte())), on: path, at: now)
        case 23: lun.cancel(slot: UInt32(script.below(9)), at: now)
        case 24: if let sense = SenseData(parsing: script.bytes(18)) { lun.reported(sense, on: path, at: now) }
        case 25...27: pass(.milliseconds(Int(script.byte()) * 40))
        case 28: pass(.seconds(Int(script.byte())))
        case 29: lun.failBack(at: now)
        case 30:
            _ = lun.snapshot()
            _ = lun.explain(at: now)
            _ = lun.lastDecisions(4)
        default: lun.setWeight(UInt16(script.byte()), of: path, at: now)
        }
        drain()
    }

    private func admit(_ script: inout ByteScript) {
        let kind = script.pick(RequestKind.allCases)
        let place = script.byte()
        // Few blocks, so that writes overlap; and the end of all addresses.
        let lba = place & 0x80 != 0 ? UInt64.max - UInt64(place & 0x0F) : UInt64(place & 0x0F)
        let wanted = UInt32(place >> 4 & 3) * 3 + 1
        let count = UInt32(min(UInt64(wanted), UInt64.max - lba))
        let descriptor = RequestDescriptor(
            kind: kind, lba: lba, blockCount: kind == .flush ? 0 : count, byteCount: kind == .flush ? 0 : count * 512,
            options: RequestDescriptor.Options(rawValue: script.byte() & 7))
        guard let request = lun.admit(descriptor, at: now) else { return }
        require(live[request.slot] == nil, "a slot is given out once")
        live[request.slot] = descriptor
    }

    private func drain() {
        var count = 0
        while let action = lun.nextAction() {
            count += 1
            require(count < 10_000, "actions end")
            switch action {
            case .issue(let request, let path): issue(request, path)
            case .finish(let request, _):
                require(live.removeValue(forKey: request.slot) != nil, "a request ends once")
                require(!copies.contains { $0.request.slot == request.slot && !$0.isWithdrawn }, "nothing in flight is finished")
            case .withdraw(let request, let path):
                // Of a path whose session is over the transport knew before.
                guard let index = copies.firstIndex(where: { $0.request == request && $0.path == path }) else {
                    broken("what is withdrawn is in flight")
                }
                copies[index].isWithdrawn = true
            case .abort, .setTargetPortGroup: break
            case .drop(let path): drop(path)
            case .connect(let path): connects.append(path)
            case .probe(let path, let reason): probes.append((path, reason))
            case .disconnect(let path): lose(path)
            case .fence(let path, let step): fences.append((path, step))
            case .event(let event): _ = "\(event)"
            }
        }
    }

    private func issue(_ request: RequestIndex, _ path: PathIndex) {
        guard let descriptor = live[request.slot] else { broken("what is issued is live") }
        require(path.index >= 0 && path.index < pathCount, "requests go to paths that exist")
        require(!copies.contains { $0.request.slot == request.slot && !$0.isWithdrawn }, "a request is issued once at a time")
        if descriptor.kind.changesBlocks {
            for copy in copies where !copy.isWithdrawn {
                guard let other = live[copy.request.slot], other.kind.changesBlocks else { continue }
                require(!overlaps(descriptor, other), "no two overlapping writes are in flight")
            }
        }
        copies.append(Copy(request: request, path: path))
    }

    private func overlaps(_ a: RequestDescriptor, _ b: RequestDescriptor) -> Bool {
        a.lba < b.lba &+ UInt64(b.blockCount) && b.lba < a.lba &+ UInt64(a.blockCount)
    }

    private func answer(_ script: inout ByteScript, isGood: Bool) {
        guard !copies.isEmpty else { return }
        let copy = copies.remove(at: script.below(copies.count))
        let outcome = isGood ? .good : scriptedOutcome(&script)
        // Unanswered means that its session is over, and the others are returned next.
        if case .returned = outcome { lose(copy.path) }
        lun.completed(copy.request, on: copy.path, outcome: outcome, at: now)
    }

    private func control(_ script: inout ByteScript) {
        let kind = script.byte()
        if !fences.isEmpty, kind & 1 != 0 {
            let fence = fences.remove(at: Int(kind >> 4) % fences.count)
            let result: FenceResult = [.done, .failed, .unsupported, .done][Int(kind >> 1 & 3)]
            if result == .done { endCopies(fence.step, fence.path) }
            lun.fenceResult(fence.path, fence.step, result, at: now)
        } else if !probes.isEmpty, kind & 2 != 0 {
            let probe = probes.removeFirst()
            guard isUp[probe.path.index] else { return }
            let result = kind & 4 != 0 ? good(probe.reason) : runProbe(probe.reason, known: nil, &script)
            lun.probeFinished(probe.path, probe.reason, result, at: now)
        } else if !connects.isEmpty {
            let path = connects.removeFirst()
            guard !isUp[path.index] else { return }
            if kind & 8 != 0 {
                lun.pathFailed(path, PathFailure(script.pick(PathFailureReason.allCases)), at: now)
            } else {
                isUp[path.index] = true
                lun.pathLoggedIn(path, at: now)
            }
        }
    }

    private func connect(_ path: PathIndex) {
        connects.removeAll { $0 == path }
        isUp[path.index] = true
        lun.pathLoggedIn(path, at: now)
        drain()
        while let index = probes.firstIndex(where: { $0.path == path }) {
            let probe = probes.remove(at: index)
            lun.probeFinished(path, probe.reason, good(probe.reason), at: now)
            drain()
        }
    }

    /// The target has dropped what a fence ends; its transport no longer answers for it.
    private func endCopies(_ step: FenceStep, _ path: PathIndex) {
        switch step {
        case .reinstateNexus: break
        case .abortTaskSet: copies.removeAll { $0.isWithdrawn && $0.path == path }
        case .logicalUnitReset: copies.removeAll { $0.isWithdrawn }
        }
    }

    private func good(_ reason: ProbeReason) -> ProbeResult {
        switch reason {
        case .connected, .recheck:
            .usable(
                PathReport(
                    device: DeviceDescription(
                        identity: .naa6(high: 0x6001_4050_0000_0001, low: 1), vendor: "LIO-ORG", product: "disk0", blockSize: 512,
                        blockCount: .max)))
        case .verify: .verified(nil, unitAttentions: [])
        case .accessStates: .accessStates([], unitAttentions: [])
        }
    }

    /// A session ends: each command comes back unanswered, before or after the failure is told.
    private func fail(_ path: PathIndex, _ script: inout ByteScript) {
        guard isUp[path.index] else { return }
        lose(path)
        let kind = script.byte()
        let reason = PathFailureReason.allCases[Int(kind >> 2) % PathFailureReason.allCases.count]
        if kind & 1 != 0 {
            lun.pathFailed(path, PathFailure(reason), at: now)
            drain()
        }
        while let index = copies.firstIndex(where: { $0.path == path }) {
            let copy = copies.remove(at: index)
            lun.completed(copy.request, on: path, outcome: .returned(wasSent: kind & 2 != 0, reason), at: now)
            drain()
        }
        if kind & 1 == 0 { lun.pathFailed(path, PathFailure(reason), at: now) }
    }

    /// Its session is over: what it held is no longer in flight, though it is still to be returned.
    private func drop(_ path: PathIndex) {
        lose(path)
        lun.pathFailed(path, PathFailure(.silent), at: now)
    }

    private func lose(_ path: PathIndex) {
        isUp[path.index] = false
        for index in copies.indices where copies[index].path == path { copies[index].isWithdrawn = true }
    }

    private func pass(_ duration: Duration) {
        let end = now + duration
        var turns = 0
        while lun.nextDeadline <= end {
            now = max(now, lun.nextDeadline)
            lun.timerFired(at: now)
            drain()
            turns += 1
            require(turns < 20_000, "the deadline moves on")
        }
        now = end
    }

    func finish() {
        lun.close(at: now)
        drain()
        while !copies.isEmpty {
            let copy = copies.removeFirst()
            lose(copy.path)
            lun.completed(copy.request, on: copy.path, outcome: .returned(wasSent: true, .connectionReset), at: now)
            drain()
        }
        require(live.isEmpty && lun.requestCount == 0, "a closed LUN ends every request: \(live.count) left")
    }
}

@Sendable
func multipathSeeds() -> [[UInt8]] {
    let writes: [UInt8] = [0, 1, 0x21, 0, 0, 1, 0x22, 0, 0, 0, 0x21, 0, 6, 0, 6, 0]
    let failing: [UInt8] = [0, 1, 0x21, 0, 14, 0x03, 0, 1, 0x22, 0, 12, 1, 12, 3, 28, 3, 12, 0, 12, 6, 28, 40, 12, 1, 6, 0]
    let errors: [UInt8] = [0, 0, 0x01, 0, 0x26, 0, 0xF4, 0, 26, 50, 0x26, 0, 0xF0, 1, 12, 6, 26, 50, 6, 0]
    let taken: [UInt8] = [19, 0, 1, 0x21, 0, 20, 12, 0, 12, 6, 0x33, 0x54, 21, 2, 30, 29]
    let stalled: [UInt8] = [0, 1, 0x21, 0, 16, 0, 1, 0x21, 0, 6, 0, 17, 6, 0, 28, 90]
    var seeds: [[UInt8]] = []
    for policy in 0..<6 as Range<UInt8> {
        for flags in [0x09, 0x2B, 0x4F, 0x9A] as [UInt8] {
            seeds.append([flags, policy, 2, 3, 4, 6] + writes + failing + errors)
            seeds.append([flags, policy, 2, 3, 4, 6] + stalled + taken + failing + writes)
        }
    }
    return seeds
}
