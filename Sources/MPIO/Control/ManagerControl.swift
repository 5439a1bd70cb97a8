import AsyncIO
import Foundation
import Multipath
import Timebase

/// Answers the control socket's requests from a manager's state. What is about one LUN is carried out in one piece on its
/// reactor's thread, so that what a client sees or changes is one moment's truth.
final class ManagerControl: ControlHandler {
    private let state: ManagerState

    init(state: ManagerState) {
        self.state = state
    }

    func handle(_ request: ControlRequest) -> ControlResponse { handle(request, from: nil) }

    func handle(_ request: ControlRequest, from actor: ChangeActor?) -> ControlResponse {
        let ending = ControlResponse.failed(ControlFailure(.unavailable, "the process is ending"))
        if case .reload(let file, let expecting, let isDryRun) = request {
            return reload(file, expecting: expecting, isDryRun: isDryRun, by: actor, orWhenEnded: ending)
        }
        if case .metrics = request {
            // What takes long is done here, where no request waits for it.
            let report: PathsReport? = state.wait(orWhenEnded: nil) { state, report in state.report(luns: []) { report($0) } }
            return report.map { .metrics(MetricsText.render($0)) } ?? ending
        }
        return state.wait(orWhenEnded: ending) { state, report in state.answer(request, from: actor, report: report) }
    }

    /// Reads on this thread, and takes over on the reactors'.
    private func reload(
        _ file: String?, expecting: String?, isDryRun: Bool, by actor: ChangeActor?, orWhenEnded ending: ControlResponse
    ) -> ControlResponse {
        guard let file = file ?? state.policyFile else {
            return .failed(ControlFailure(.invalid, "this process has no policy file; name one"))
        }
        let policy: LoadedPolicy
        do throws(ControlFailure) {
            policy = try LoadedPolicy(contentsOf: file)
        } catch {
            return .failed(error)
        }
        return state.wait(orWhenEnded: ending) { state, report in
            state.reload(policy, expecting: expecting, isDryRun: isDryRun, by: actor) { report(ControlResponse($0)) }
        }
    }
}

extension ControlResponse {
    fileprivate init(_ result: Result<ChangesReport, ControlFailure>) {
        switch result {
        case .success(let report): self = .changes(report)
        case .failure(let failure): self = .failed(failure)
        }
    }
}

extension ManagerState {
    /// - Parameter report: called once, on the home's thread.
    func answer(_ request: ControlRequest, from actor: ChangeActor?, report: @escaping (ControlResponse) -> Void) {
        switch request {
        case .identify:
            report(.holder(HolderReport(pid: getpid(), command: command, luns: openLUNs, policyFile: policyFile)))
        case .reload: report(.failed(ControlFailure(.unavailable, "a file is not read here")))
        case .edit(let edit): self.edit(edit, by: actor) { report(ControlResponse($0)) }
        case .paths(let luns): self.report(luns: luns) { report(.paths($0)) }
        case .sample(let luns): self.report(luns: luns, isSample: true) { report(.paths($0)) }
        case .metrics: report(.failed(ControlFailure(.unavailable, "metrics are not written here")))
        case .events(let after): report(events(after: after))
        case .policy(let lun), .setPolicy(let lun, _, _), .connectionPolicy(let lun, _), .setConnectionPolicy(let lun, _, _, _),
            .path(_, let lun, _), .connection(_, let lun, _, _), .explain(let lun, _):
            askHolder(of: lun, request, from: actor, report: report)
        }
    }

    /// Has the LUN's reactor answer. A LUN that is not known by this name may be by its identity, on any of them.
    private func askHolder(
        of lun: String, _ request: ControlRequest, from actor: ChangeActor?, report: @escaping (ControlResponse) -> Void
    ) {
        let only = shards(of: lun)
        gather { shard in
            guard only?.contains(shard.host.reactorNumber) ?? true, let disk = shard.disk(named: lun) else { return nil }
            return LaneAnswer(lane: disk.lane.number, response: shard.answer(request, about: disk, from: actor))
        } then: { (answers: [LaneAnswer?]) in
            let answers = answers.compactMap { $0 }.sorted { $0.lane < $1.lane }
            report(.joined(answers) ?? .failed(ControlFailure(.noSuchLUN, "this process does not hold '\(lun)'")))
        }
    }

    /// LUNs that a reactor looks at in one step, so that requests go on in between.
    private static let lunsAtOnce = 8

    /// The named LUNs, or all, in the order in which they were opened.
    func report(luns: [String], isSample: Bool = false, report: @escaping (PathsReport) -> Void) {
        gather { shard in
            shard.disks.filter { disk in luns.isEmpty || luns.contains { disk.isNamed($0) } }.map(\.name)
        } then: { [self] (names: [[String]]) in
            inspect(names, from: 0, isSample: isSample, shown: [], report: report)
        }
    }

    /// Goes on with the LUNs from number `start` of each shard.
    private func inspect(
        _ names: [[String]], from start: Int, isSample: Bool, shown: [LUNSnapshot], report: @escaping (PathsReport) -> Void
    ) {
        let holder = LUNSnapshot.Holder(pid: getpid(), command: command, reactors: shards.count > 1 ? shards.count : nil)
        gather { shard in
            let own = names[min(shard.host.reactorNumber, names.count - 1)].dropFirst(start).prefix(Self.lunsAtOnce)
            return own.compactMap { name in shard.disks.first { $0.name == name }?.inspect(holder: holder, isSample: isSample) }
        } then: { [self] (some: [[LUNSnapshot]]) in
            let shown = shown + some.flatMap { $0 }
            guard names.contains(where: { $0.count > start + Self.lunsAtOnce }) else {
                return report(PathsReport(luns: joined(shown, isSample: isSample)))
            }
            later { [self] in inspect(names, from: start + Self.lunsAtOnce, isSample: isSample, shown: shown, report: report) }
        }
    }

    /// Each LUN once, in the order of opening. What a reactor has only to end a dead process's sessions is left out.
    private func joined(_ shown: [LUNSnapshot], isSample: Bool) -> [LUNSnapshot] {
        let order = Dictionary(uniqueKeysWithValues: openLUNs.enumerated().map { ($1, $0) })
        var lanes: [String: [LUNSnapshot]] = [:]
        for lane in shown where lane.reactor.map({ shards(of: lane.name)?.contains($0) ?? true }) ?? true {
            lanes[lane.name, default: []].append(lane)
        }
        return lanes.values.map { lanes in
            .joined(lanes.sorted { $0.reactor ?? 0 < $1.reactor ?? 0 }, isSample: isSample)
        }.sorted { order[$0.name] ?? .max < order[$1.name] ?? .max }
    }

    /// Events of all disks, ordered by time. Their serial numbers count over the whole process.
    private func events(after serial: UInt64?) -> ControlResponse {
        let (events, next) = log.events(after: serial)
        return .events(events, next: next)
    }
}

/// What one lane of a LUN answered.
private struct LaneAnswer: Sendable {
    var lane: Int
    var response: ControlResponse
}

extension ControlResponse {
    /// All lanes of a LUN do what is asked; one that can't says why. In the order of the lanes.
    fileprivate static func joined(_ answers: [LaneAnswer]) -> ControlResponse? {
        guard answers.count > 1 else { return answers.first?.response }
        let failures = answers.compactMap { answer in
            if case .failed(let failure) = answer.response { (lane: answer.lane, failure: failure) } else { nil }
        }
        if let lane = failures.first?.lane, var failure = failures.first?.failure {
            if failures.count < answers.count { failure.message += " (lane \(lane) of \(answers.count); the others did it)" }
            return .failed(failure)
        }
        let explanations = answers.compactMap { if case .explanation(let report) = $0.response { report } else { nil } }
        return explanations.isEmpty ? answers[0].response : .explanation(.joined(explanations))
    }
}

extension ManagerShard {
    func disk(named name: String) -> DiskEngine? {
        disks.first { $0.name == name } ?? disks.first { $0.isNamed(name) }
    }

    /// Answers what is asked of one of this shard's LUNs.
    func answer(_ request: ControlRequest, about disk: DiskEngine, from actor: ChangeActor?) -> ControlResponse {
        host.actor = actor
        defer { host.actor = nil }
        return switch request {
        case .policy: .policy(PolicyReport(disk.lun.settings.policy, lun: disk.name))
        case .setPolicy(_, let policy, let options): setPolicy(policy, options, of: disk)
        case .connectionPolicy(let lun, let path):
            withGroup(disk, path) { group, _ in .policy(PolicyReport(group.policy, lun: lun, session: path)) }
        case .setConnectionPolicy(let lun, let path, let policy, let options):
            withGroup(disk, path) { setPolicy(policy, options, of: $0, on: $1, lun: lun, path: path) }
        case .path(let action, _, let path): act(action, on: path, of: disk)
        case .connection(let action, let lun, let path, let number):
            withGroup(disk, path) { group, _ in act(action, on: number, of: group, lun: lun, path: path) }
        case .explain(_, let last): .explanation(disk.explain(last: last))
        case .identify, .reload, .edit, .paths, .sample, .metrics, .events: .failed(ControlFailure(.unavailable, "it is about no LUN"))
        }
    }

    private func setPolicy(_ name: String?, _ options: [String: String], of disk: DiskEngine) -> ControlResponse {
        do throws(ControlFailure) {
            let kinds = PolicyKind.allCases
            disk.setPolicy(try changed(disk.lun.settings.policy, to: name, options, among: kinds))
            return .policy(PolicyReport(disk.lun.settings.policy, lun: disk.name))
        } catch {
            return .failed(error)
        }
    }

    private func setPolicy(
        _ name: String?, _ options: [String: String], of group: ConnectionGroup, on disk: DiskEngine, lun: String, path: String
    ) -> ControlResponse {
        do throws(ControlFailure) {
            let kinds = PolicyKind.allCases.filter(\.appliesToConnections)
            let old = group.policy
            defer {
                if old != group.policy, let index = disk.lun.path(named: path) {
                    disk.report(.connectionPolicyChanged(index, from: old, to: group.policy))
                }
            }
            group.setPolicy(try changed(group.policy, to: name, options, among: kinds))
            return .policy(PolicyReport(group.policy, lun: lun, session: path))
        } catch {
            return .failed(error)
        }
    }

    private func changed(
        _ policy: PolicySettings, to name: String?, _ options: [String: String], among kinds: [PolicyKind]
    ) throws(ControlFailure) -> PolicySettings {
        var policy = policy
        if let name {
            let known = kinds.map(\.rawValue).joined(separator: ", ")
            guard let kind = PolicyKind(name: name) else {
                throw ControlFailure(.invalid, "'\(name)' is no policy; there are \(known)")
            }
            guard kinds.contains(kind) else {
                throw ControlFailure(.invalid, "\(kind.rawValue) can't choose among the connections of a session; there are \(known)")
            }
            policy.kind = kind
        }
        try policy.apply(options)
        return policy
    }

    /// The connections of the session that is a LUN's path.
    private func withGroup(
        _ disk: DiskEngine, _ path: String, _ body: (ConnectionGroup, DiskEngine) -> ControlResponse
    ) -> ControlResponse {
        guard let index = disk.lun.path(named: path) else { return noSuchPath(path, disk) }
        guard let group = disk.paths[index.index].connections else {
            return .failed(ControlFailure(.invalid, "'\(path)' has no connections to choose from; 'connections' is 1"))
        }
        return body(group, disk)
    }

    private func noSuchPath(_ name: String, _ disk: DiskEngine) -> ControlResponse {
        let known = disk.lun.snapshot().paths.map(\.name).joined(separator: ", ")
        return .failed(ControlFailure(.noSuchPath, "\(disk.name) has no path '\(name)'; it has \(known)"))
    }

    private func act(_ action: ControlRequest.PathAction, on name: String, of disk: DiskEngine) -> ControlResponse {
        guard let path = disk.lun.path(named: name) else { return noSuchPath(name, disk) }
        disk.change(path, action)
        return .done("\(disk.name): \(name) \(action.pastWords)")
    }

    private func act(
        _ action: ControlRequest.PathAction, on number: Int, of group: ConnectionGroup, lun: String, path: String
    ) -> ControlResponse {
        do throws(ControlFailure) {
            try group.change(number, action)
        } catch {
            return .failed(error)
        }
        host.runDirtyDisks()
        return .done("\(lun): connection \(number) of \(path) \(action.pastWords)")
    }
}

extension DiskEngine {
    /// By its name in the policy file, or by its identity.
    func isNamed(_ text: String) -> Bool {
        name == text || lun.device?.identity?.description == text || lun.pinned?.description == text
    }

    func setPolicy(_ policy: PolicySettings) {
        lun.setPolicy(policy, at: now)
        touch()
        host.runDirtyDisks()
    }

    func change(_ path: PathIndex, _ action: ControlRequest.PathAction) {
        switch action {
        case .fail: lun.takeOut(path, .fail, at: now)
        case .drain: lun.takeOut(path, .drain, at: now)
        case .restore: lun.restore(path, at: now)
        }
        touch()
        host.runDirtyDisks()
    }

}

extension ControlRequest.PathAction {
    fileprivate var pastWords: String {
        switch self {
        case .fail: "taken out"
        case .drain: "drains: no new requests"
        case .restore: "taken back in"
        }
    }
}

extension PolicyReport {
    init(_ policy: PolicySettings, lun: String, session: String? = nil) {
        let options = policy.options
        var words: [String: String] = [:]
        for option in policy.kind.options {
            words[option.rawValue] =
                switch option {
                case .switchAfter:
                    switch options.switchAfter {
                    case .requests(let count): "\(count) requests"
                    case .bytes(let count): "\(count) bytes"
                    }
                case .failBack:
                    switch options.failBack {
                    case .immediate: "immediate"
                    case .after(let duration): "after \(Units.format(duration))"
                    case .manual: "manual"
                    }
                case .activateStandby: options.activateStandby.rawValue
                case .weights: options.weights.rawValue
                case .sequentialAffinity: "\(options.sequentialAffinity)"
                }
        }
        self.init(lun: lun, policy: policy.kind.rawValue, options: words, session: session)
    }
}
