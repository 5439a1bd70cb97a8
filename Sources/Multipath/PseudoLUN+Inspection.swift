public import Timebase

extension PseudoLUN {
    /// Requests admitted whose `.finish` was not taken yet.
    public var requestCount: Int { liveCount }

    /// Paths that were ever added; removed ones keep their index.
    public var pathCount: Int { paths.count }

    /// The name of a path; empty for an index that never was.
    public func pathName(_ path: PathIndex) -> String {
        path.index >= 0 && path.index < paths.count ? paths[path.index].settings.name : ""
    }

    /// The path with this name that was not removed.
    public func path(named name: String) -> PathIndex? {
        paths.firstIndex { $0.settings.name == name && !$0.isRemoved }.map { PathIndex($0) }
    }

    /// The path's state; nil for a path that is not there.
    public func pathState(_ path: PathIndex) -> PathState? { known(path).map { paths[$0].state } }

    /// Requests of this LUN that the path carries; nil for a path that is not there.
    public func inFlightCount(on path: PathIndex) -> Int? { known(path).map { Int(rows[$0].inFlight) } }

    /// The LUN's state as a whole.
    public var state: LUNState {
        guard bestGrade > .unusable else { return .failed }
        let isWhole = paths.allSatisfy { record in
            if record.isRemoved { return true }
            switch record.state {
            case .activeOptimized, .activeNonOptimized, .standby: return true
            default: return false
            }
        }
        return isWhole ? .optimal : .degraded
    }

    /// What the stale-write guard waits for.
    public var guardState: GuardState {
        if staleWrites.isClear { return .clear }
        return .raised(
            paths.indices.compactMap { index in
                let copies = staleWrites.copies.filter { $0.path == Int32(index) }
                guard let last = copies.map(\.deadline).max() else { return nil }
                let stage: GuardedPath.Stage =
                    switch paths[index].fence {
                    case _ where resetVia >= 0: .resetting
                    case .reinstating: .reinstating
                    case .aborting: .aborting
                    case .waiting, .none: .waiting
                    }
                return GuardedPath(path: PathIndex(index), copies: copies.count, stage: stage,
                    clearAt: last == .distantFuture ? nil : last)
            })
    }

    /// The LUN as it is now. Control path: it allocates.
    public func snapshot() -> PseudoLUNSnapshot {
        let shown = paths.indices.filter { !paths[$0].isRemoved }
        let inFlight = paths.indices.reduce(0) { $0 + Int(rows[$1].inFlight) }
        return PseudoLUNSnapshot(
            name: name, device: device, policy: settings.policy, module: dsm.name, state: state,
            guardState: guardState, queued: Int(ready.count) + delayed.count + blockedCount,
            blocked: blockedCount, inFlight: inFlight, failOvers: failOverCount, redriven: redrivenCount,
            noPathSince: noPathSince, paths: shown.map(pathSnapshot))
    }

    private func pathSnapshot(_ index: Int) -> PathSnapshot {
        let (record, row, counters) = (paths[index], rows[index], hot[index])
        return PathSnapshot(
            index: PathIndex(index), name: record.settings.name, transport: record.transport,
            state: record.state, stateSince: record.stateSince, accessState: record.accessState,
            isPreferred: record.isPreferred, isSlow: record.isSlow,
            targetPortGroup: record.device?.targetPortGroup, role: record.settings.role,
            weight: record.settings.weight, order: Int(row.order), inFlight: Int(row.inFlight),
            inFlightBlocks: counters.inFlightBlocks, transportLoad: row.load.pointee.values,
            depthLimit: row.depthLimit == .max ? nil : Int(row.depthLimit), requests: counters.issued,
            bytesRead: counters.bytesRead, bytesWritten: counters.bytesWritten, errors: counters.errors,
            lastFailureAt: record.lastFailure?.at, lastFailure: record.lastFailure?.failure,
            staleCopies: staleWrites.count(on: Int32(index)))
    }

    /// Where a request like this would go now, and why. Nothing is disturbed: the next request goes there.
    public func explain(
        _ request: RequestDescriptor = RequestDescriptor(kind: .read), at now: Instant
    ) -> Explanation {
        let selection =
            bestGrade == .unusable
            ? .none : dsm.explainPath(for: policyRequest(request), from: table, at: now)
        let path = selection.isChosen ? PathIndex(rawValue: selection.index) : nil
        let policyName = settings.policy.kind.rawValue
        let state = policyWords()
        let summary = policyName + ": " + (state.isEmpty ? "" : state + "; ")
            + (path.map { "next goes to \(pathName($0))" + (selection.reason.isPlain ? "" : ": \(selection.words)") }
                ?? "the next request waits: \(selection.words)")
        return Explanation(
            lun: name, policy: settings.policy, selection: selection, path: path, summary: summary,
            paths: paths.indices.filter { !paths[$0].isRemoved }.map { explainPath($0) })
    }

    /// The last choices, the newest last; at most 256 are kept.
    public func lastDecisions(_ count: Int) -> [Decision] { decisions.last(count) }

    private func explainPath(_ index: Int) -> PathExplanation {
        let record = paths[index]
        return PathExplanation(
            index: PathIndex(index), name: record.settings.name, grade: rows[index].grade,
            words: whyNot(index) ?? load(index), since: record.stateSince)
    }

    private func load(_ index: Int) -> String {
        let row = rows[index]
        var words = "\(row.load.pointee.requests) requests and \(row.load.pointee.bytes) bytes outstanding"
        if settings.policy.kind == .weightedPaths { words += ", weight \(row.weight)" }
        if row.depthLimit != .max { words += ", at most \(row.depthLimit) at a time (the device was busy)" }
        return words
    }

    /// Why the path carries nothing; nil where it may.
    private func whyNot(_ index: Int) -> String? {
        let record = paths[index]
        switch record.state {
        case .connecting:
            return record.link == .fencing ? "connected; waits until its old task set is aborted" : "connecting"
        case .standby: return "access state standby"
        case .unavailable: return "access state unavailable"
        case .transitioning: return "in an ALUA transition; it is waited for"
        case .stalled: return "stalled: the target's TCP acknowledges, but nothing answers"
        case .failed(let failure, _): return "failed: \(failure)"
        case .drained: return "drained by hand"
        case .refused(let reason): return "refused: \(reason)"
        case .marginal where rows[index].grade < bestGrade: return "marginal: held out because it failed too often"
        case .activeNonOptimized where rows[index].grade < bestGrade:
            return "active/non-optimized, and an active/optimized path is left"
        case .activeOptimized where rows[index].grade < bestGrade:
            return "active/optimized, but the array prefers the port group of another path"
        case .activeOptimized where record.settings.role == .standby
            && settings.policy.kind == .roundRobinWithSubset && rows[index].inFlight == 0:
            return "standby by configuration; it joins when a primary is missing (\(load(index)))"
        case .activeOptimized, .activeNonOptimized, .marginal: return nil
        }
    }

    // MARK: The policy's state

    /// What the policy looks at now, in words and numbers; empty where no path is usable.
    private func policyWords() -> String {
        let members = table.eligible().map { Int($0) }
        guard !members.isEmpty else { return "" }
        func named(_ indices: [Int], _ words: (Int, Bool) -> String) -> String {
            let shown = indices.prefix(8).enumerated().map { "\(paths[$1].settings.name)\(words($1, $0 == 0))" }
            return shown.joined(separator: ", ") + (indices.count > 8 ? " and \(indices.count - 8) more" : "")
        }
        let options = settings.policy.options
        switch settings.policy.kind {
        case .leastQueueDepth:
            return named(members) { " has \(rows[$0].load.pointee.requests)" + ($1 ? " outstanding" : "") }
        case .leastBlocks:
            return named(members) { " has \(rows[$0].load.pointee.bytes)" + ($1 ? " bytes outstanding" : "") }
        case .weightedPaths:
            let total = members.reduce(0) { $0 + Int(rows[$1].weight) }
            let weights = named(members) { " has " + ($1 ? "weight " : "") + "\(rows[$0].weight)" }
            return options.weights == .priority ? weights + ", the lowest carries all" : weights + ", of \(total)"
        case .failOverOnly:
            return "in order " + named(members) { _, _ in "" }
        case .roundRobin:
            return members.count == 1 ? "" : named(members) { _, _ in "" } + " take turns" + turnWords(options.switchAfter)
        case .roundRobinWithSubset:
            let primaries = members.filter { rows[$0].role == .primary }
            let standbys = members.filter { rows[$0].role == .standby }
            var words = primaries.isEmpty ? "no primary is left" : named(primaries) { _, _ in "" } + " \(primaries.count == 1 ? "is primary" : "are primary and take turns")" + turnWords(options.switchAfter)
            if !standbys.isEmpty { words += "; " + named(standbys) { _, _ in "" } + " standby" }
            return words
        }
    }

    private func turnWords(_ switchAfter: SwitchAfter) -> String {
        switch switchAfter {
        case .requests(1): ""
        case .requests(let count): " of \(count) requests"
        case .bytes(let count): " of \(count) bytes"
        }
    }
}

extension SelectionReason {
    /// The policy's own numbers say it already.
    fileprivate var isPlain: Bool {
        switch self {
        case .fewestRequests, .fewestBytes, .lowestWeight, .firstInOrder: true
        default: false
        }
    }
}
