import AsyncIO
import Foundation
import Multipath
import Timebase

/// Answers the control socket's requests from a manager's state. Each is carried out in one piece on the
/// reactor's thread, so that what a client sees or changes is one moment's truth.
final class ManagerControl: ControlHandler {
    private let state: ManagerState
    private let reactor: LibaioReactor

    init(state: ManagerState, reactor: LibaioReactor) {
        self.state = state
        self.reactor = reactor
    }

    func handle(_ request: ControlRequest) -> ControlResponse { handle(request, from: nil) }

    func handle(_ request: ControlRequest, from actor: ChangeActor?) -> ControlResponse {
        let state = state
        do {
            if case .reload(let file, let expecting, let isDryRun) = request {
                return try reload(file, expecting: expecting, isDryRun: isDryRun, by: actor)
            }
            return try reactor.performAndWait { state.answer(request, from: actor) }
        } catch {
            return .failed(ControlFailure(.unavailable, "the process is ending"))
        }
    }

    /// Reads on this thread, and takes over on the reactor's.
    private func reload(_ file: String?, expecting: String?, isDryRun: Bool, by actor: ChangeActor?) throws -> ControlResponse {
        let state = state
        guard let file = file ?? state.policyFile else {
            return .failed(ControlFailure(.invalid, "this process has no policy file; name one"))
        }
        let policy: LoadedPolicy
        do throws(ControlFailure) {
            policy = try LoadedPolicy(contentsOf: file)
        } catch {
            return .failed(error)
        }
        return try reactor.performAndWait {
            do throws(ControlFailure) {
                return .changes(try state.reload(policy, expecting: expecting, isDryRun: isDryRun, by: actor))
            } catch {
                return .failed(error)
            }
        }
    }
}

extension ManagerState {
    func answer(_ request: ControlRequest, from actor: ChangeActor?) -> ControlResponse {
        host.actor = actor
        defer { host.actor = nil }
        return switch request {
        case .identify:
            .holder(HolderReport(pid: getpid(), command: command, luns: disks.map(\.name), policyFile: policyFile))
        case .reload: .failed(ControlFailure(.unavailable, "a file is not read here"))
        case .edit(let edit): self.answer(edit, from: actor)
        case .paths(let luns): .paths(report(luns: luns))
        case .policy(let lun): withDisk(lun) { .policy(PolicyReport($0.lun.settings.policy, lun: $0.name)) }
        case .setPolicy(let lun, let policy, let options): withDisk(lun) { setPolicy(policy, options, of: $0) }
        case .connectionPolicy(let lun, let path): withGroup(lun, path) { group, _ in .policy(PolicyReport(group.policy, lun: lun, session: path)) }
        case .setConnectionPolicy(let lun, let path, let policy, let options):
            withGroup(lun, path) { setPolicy(policy, options, of: $0, on: $1, lun: lun, path: path) }
        case .path(let action, let lun, let path): withDisk(lun) { act(action, on: path, of: $0) }
        case .explain(let lun, let last): withDisk(lun) { .explanation($0.explain(last: last)) }
        case .events(let after): events(after: after)
        case .metrics: .metrics(MetricsText.render(report(luns: [])))
        }
    }

    private func answer(_ edit: ConfigurationEdit, from actor: ChangeActor?) -> ControlResponse {
        do throws(ControlFailure) {
            return .changes(try self.edit(edit, by: actor))
        } catch {
            return .failed(error)
        }
    }

    func report(luns: [String]) -> PathsReport {
        let holder = LUNSnapshot.Holder(pid: getpid(), command: command)
        return PathsReport(
            luns: disks.filter { disk in luns.isEmpty || luns.contains { disk.isNamed($0) } }.map { $0.inspect(holder: holder) })
    }

    private func withDisk(_ name: String, _ body: (DiskEngine) -> ControlResponse) -> ControlResponse {
        guard let disk = disks.first(where: { $0.name == name }) ?? disks.first(where: { $0.isNamed(name) }) else {
            return .failed(ControlFailure(.noSuchLUN, "this process does not hold '\(name)'"))
        }
        return body(disk)
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
        _ lun: String, _ path: String, _ body: (ConnectionGroup, DiskEngine) -> ControlResponse
    ) -> ControlResponse {
        withDisk(lun) { disk in
            guard let index = disk.lun.path(named: path) else { return noSuchPath(path, disk) }
            guard let group = disk.paths[index.index].connections else {
                return .failed(ControlFailure(.invalid, "'\(path)' has no connections to choose from; 'connections' is 1"))
            }
            return body(group, disk)
        }
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

    /// Events of all disks, ordered by time. Their serial numbers count over the whole process.
    private func events(after serial: UInt64?) -> ControlResponse {
        let (events, next) = log.events(after: serial)
        return .events(events, next: next)
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
