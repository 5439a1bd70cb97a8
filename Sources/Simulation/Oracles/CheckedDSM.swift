import MPIO
import Multipath
import SCSI
import Timebase

/// The run that the current task makes: a registry makes modules by their type alone.
enum CurrentRun {
    @TaskLocal static var oracle: PathOracle?
}

/// The default module (or one with a planted bug), each of whose choices is held against the rule of its policy as
/// `DESIGN.md` §4 words it, worked out anew from the table.
final class CheckedDSM: DeviceSpecificModule {
    static func claims(_ device: DeviceDescription, transport: Multipath.TransportKind) -> Bool { true }

    private let inner: DefaultDSM
    private let oracle: PathOracle
    /// Choices since the table last changed or a path was full, for the rules that speak of turns.
    private var turns: [Int32] = []
    private var usedStandbys: [Int32] = []

    init(policy: PolicySettings) {
        guard let oracle = CurrentRun.oracle else { preconditionFailure("made outside a simulation") }
        self.oracle = oracle
        inner = oracle.bug?.makeModule(policy) ?? DefaultDSM(policy: policy)
    }

    var name: String { inner.name }
    var policy: PolicySettings { inner.policy }
    var nextDeadline: Instant { inner.nextDeadline }
    var verificationCommand: CommandDescriptorBlock { inner.verificationCommand }

    func mismatch(known: DeviceDescription, found: DeviceDescription) -> DeviceMismatch? {
        inner.mismatch(known: known, found: found)
    }

    func setPolicy(_ settings: PolicySettings) {
        forgetTurns()
        inner.setPolicy(settings)
    }

    func candidatesChanged(_ table: CandidateTable, at now: Instant) {
        forgetTurns()
        inner.candidatesChanged(table, at: now)
    }

    func explainPath(for request: PolicyRequest, from table: CandidateTable, at now: Instant) -> Selection {
        inner.explainPath(for: request, from: table, at: now)
    }

    func failBack(_ table: CandidateTable, at now: Instant) { inner.failBack(table, at: now) }

    func disposition(of outcome: PathOutcome, for request: RequestDescriptor, on path: PathIndex) -> ErrorDisposition {
        inner.disposition(of: outcome, for: request, on: path)
    }

    func verificationFailure(_ outcome: PathOutcome) -> PathFailure? { inner.verificationFailure(outcome) }

    func pathAdded(_ path: PathIndex, at now: Instant) { inner.pathAdded(path, at: now) }
    func pathRemoved(_ path: PathIndex, at now: Instant) { inner.pathRemoved(path, at: now) }

    func pathLost(_ path: PathIndex, failure: PathFailure, at now: Instant) {
        oracle.pathLost(path, failure)
        inner.pathLost(path, failure: failure, at: now)
    }

    func pathRegained(_ path: PathIndex, device: DeviceDescription, at now: Instant) {
        oracle.pathRegained(path)
        inner.pathRegained(path, device: device, at: now)
    }

    // MARK: Choices

    func selectPath(for request: PolicyRequest, from table: CandidateTable, at now: Instant) -> Selection {
        let selection = inner.selectPath(for: request, from: table, at: now)
        oracle.chose(selection.index)
        let eligible = table.eligible()
        if selection.isChosen {
            check(selection.index, eligible, table)
        } else if let free = eligible.first(where: { table[$0].hasRoom }), sharesAmongAll {
            oracle.fail("\(policy.kind.rawValue) chose no path while path \(free) is eligible and has room")
        }
        return selection
    }

    private var sharesAmongAll: Bool {
        switch policy.kind {
        case .roundRobin, .leastQueueDepth, .leastBlocks: true
        case .weightedPaths: policy.options.weights == .proportional
        case .failOverOnly, .roundRobinWithSubset: false
        }
    }

    private func forgetTurns() {
        turns.removeAll(keepingCapacity: true)
        usedStandbys.removeAll(keepingCapacity: true)
    }

    private func check(_ chosen: Int32, _ eligible: [Int32], _ table: CandidateTable) {
        guard eligible.contains(chosen) else {
            return oracle.fail("path \(chosen) of grade \(table[chosen].grade) was chosen, eligible are \(eligible)")
        }
        guard table[chosen].hasRoom else { return oracle.fail("path \(chosen) was chosen without room") }
        switch policy.kind {
        case .failOverOnly: checkFailOver(chosen, eligible, table)
        case .roundRobin: checkRotation(chosen, eligible, table)
        case .roundRobinWithSubset: checkSubset(chosen, eligible, table)
        case .leastQueueDepth: checkLeast(chosen, eligible, table) { $0.load.pointee.requests }
        case .leastBlocks: checkLeast(chosen, eligible, table) { $0.load.pointee.bytes }
        case .weightedPaths: checkWeights(chosen, eligible, table)
        }
    }

    private func checkFailOver(_ chosen: Int32, _ eligible: [Int32], _ table: CandidateTable) {
        guard policy.options.failBack == .immediate else { return }
        let right = eligible.first { table[$0].role == .primary } ?? eligible[0]
        if chosen != right { oracle.fail("fail-over-only chose path \(chosen), first in order is \(right)") }
    }

    private func checkRotation(_ chosen: Int32, _ eligible: [Int32], _ table: CandidateTable) {
        guard policy.options.switchAfter == .requests(1) else { return }
        guard eligible.allSatisfy({ table[$0].hasRoom }) else { return forgetTurns() }
        if turns.suffix(eligible.count - 1).contains(chosen) {
            oracle.fail("round-robin chose path \(chosen) again before its turn; last were \(turns.suffix(eligible.count)), eligible are \(eligible)")
        }
        turns.append(chosen)
    }

    private func checkSubset(_ chosen: Int32, _ eligible: [Int32], _ table: CandidateTable) {
        guard table[chosen].role == .standby else { return }
        let primaries = eligible.count { table[$0].role == .primary }
        let configured = (0..<Int32(table.count)).count { table[$0].role == .primary && !table[$0].isRemoved }
        if policy.options.activateStandby == .whenNoneLeft {
            if primaries > 0 { oracle.fail("standby \(chosen) was chosen while \(primaries) primaries are eligible") }
            return
        }
        if !usedStandbys.contains(chosen) { usedStandbys.append(chosen) }
        let allowed = configured == 0 ? 1 : configured - primaries
        if usedStandbys.count > allowed {
            oracle.fail("standbys \(usedStandbys) carry data while \(configured - primaries) of \(configured) primaries are missing")
        }
    }

    private func checkLeast(
        _ chosen: Int32, _ eligible: [Int32], _ table: CandidateTable, _ measure: (PathCandidate) -> Int
    ) {
        if policy.kind == .leastBlocks, policy.options.sequentialAffinity { return }
        let least = eligible.filter { table[$0].hasRoom }.map { measure(table[$0]) }.min() ?? 0
        if measure(table[chosen]) > least {
            oracle.fail("\(policy.kind.rawValue) chose path \(chosen) with \(measure(table[chosen])) outstanding, the least is \(least)")
        }
    }

    private func checkWeights(_ chosen: Int32, _ eligible: [Int32], _ table: CandidateTable) {
        if policy.options.weights == .priority {
            if eligible.contains(where: { table[$0].weight < table[chosen].weight }) {
                oracle.fail("weighted-paths by priority chose path \(chosen), which has not the lowest weight")
            }
            return
        }
        guard eligible.allSatisfy({ table[$0].hasRoom }) else { return forgetTurns() }
        turns.append(chosen)
        let total = eligible.reduce(0) { $0 + Int(table[$1].weight) }
        for path in eligible {
            let share = turns.count { $0 == path } * total
            let due = turns.count * Int(table[path].weight)
            if abs(share - due) > eligible.count * total {
                return oracle.fail("weighted-paths gave path \(path) \(share / total) of \(turns.count), its weight is \(table[path].weight) of \(total)")
            }
        }
    }
}

/// What must hold of paths: which may be lost, and what each choice must be. Used by one run, on one thread.
final class PathOracle: @unchecked Sendable {
    let bug: PlantedBug?
    private let verdict: Verdict
    private let trace: Trace
    /// A path to which nothing bad is done.
    let sparedPath: Int?
    /// Nothing is done to any path, only to commands.
    let sparesAllPaths: Bool
    private(set) var lossCount = 0
    private(set) var choiceCount = 0
    /// Closing ends paths as well.
    var isClosing = false

    init(bug: PlantedBug?, verdict: Verdict, trace: Trace, sparedPath: Int?, sparesAllPaths: Bool) {
        self.bug = bug
        self.verdict = verdict
        self.trace = trace
        self.sparedPath = sparedPath
        self.sparesAllPaths = sparesAllPaths
    }

    func fail(_ words: @autoclosure () -> String) { verdict.fail(.policy, words()) }

    func chose(_ path: Int32) {
        choiceCount += 1
        trace.record(.choose, UInt64(UInt32(bitPattern: path)))
    }

    func pathLost(_ path: PathIndex, _ failure: PathFailure) {
        lossCount += 1
        trace.record(.pathLost, UInt64(path.index))
        trace.note("path \(path.index) lost: \(failure)")
        guard !isClosing, sparesAllPaths || sparedPath == path.index else { return }
        verdict.fail(.path, "path \(path.index) was lost (\(failure)), and nothing was done to it")
    }

    func pathRegained(_ path: PathIndex) { trace.record(.pathRegained, UInt64(path.index)) }
}
