import Multipath
import SCSI

extension MultipathEvent {
    /// The path that the event is about; nil where it is about the disk.
    var path: PathIndex? {
        switch self {
        case .pathRegained(let path), .pathLost(let path, _, _), .pathRefused(let path, _), .pathMarginal(let path, _),
            .pathNoLongerMarginal(let path), .pathStalled(let path, _), .pathResumed(let path), .pathSlow(let path, _),
            .pathDrained(let path), .pathTakenOut(let path, _), .pathRestored(let path), .pathAdded(let path),
            .pathRemoved(let path), .accessStateChanged(let path, _, _), .transitionRequested(let path, _),
            .transitionEnded(let path, _, _), .failOver(let path, _, _, _), .failBack(_, let path),
            .guardRaised(let path, _), .guardCleared(let path, _, _), .fenceFailed(let path, _, _),
            .capacityChanged(let path, _, _), .notice(let path, _), .queueShrunk(let path, _), .lunFailed(let path),
            .connectionsLimited(let path, _, _), .connectionLost(let path, _, _), .connectionRegained(let path, _),
            .roleChanged(let path, _, _), .weightChanged(let path, _, _), .connectionPolicyChanged(let path, _, _):
            path
        case .requestTimedOut(_, _, let path): path
        case .defined, .allPathsLost, .removePeriodExpired, .pathsAvailableAgain, .policyChanged, .settingsChanged: nil
        }
    }

    /// A word for programs, as `mpio events --json` has it.
    var kind: String {
        switch self {
        case .defined: "defined"
        case .pathRegained: "path-regained"
        case .pathLost: "path-lost"
        case .pathRefused: "path-refused"
        case .pathMarginal: "path-marginal"
        case .pathNoLongerMarginal: "path-no-longer-marginal"
        case .pathStalled: "path-stalled"
        case .pathResumed: "path-resumed"
        case .pathSlow: "path-slow"
        case .pathDrained: "path-drained"
        case .pathTakenOut: "path-taken-out"
        case .pathRestored: "path-restored"
        case .pathAdded: "path-added"
        case .pathRemoved: "path-removed"
        case .accessStateChanged: "access-state-changed"
        case .transitionRequested: "transition-requested"
        case .transitionEnded: "transition-ended"
        case .failOver: "fail-over"
        case .failBack: "fail-back"
        case .allPathsLost: "all-paths-lost"
        case .removePeriodExpired: "remove-period-expired"
        case .pathsAvailableAgain: "paths-available-again"
        case .guardRaised: "guard-raised"
        case .guardCleared: "guard-cleared"
        case .fenceFailed: "fence-failed"
        case .policyChanged: "policy-changed"
        case .settingsChanged: "settings-changed"
        case .roleChanged: "role-changed"
        case .weightChanged: "weight-changed"
        case .connectionPolicyChanged: "connection-policy-changed"
        case .capacityChanged: "capacity-changed"
        case .notice: "notice"
        case .queueShrunk: "queue-shrunk"
        case .connectionsLimited: "connections-limited"
        case .connectionLost: "connection-lost"
        case .connectionRegained: "connection-regained"
        case .requestTimedOut: "request-timed-out"
        case .lunFailed: "lun-failed"
        }
    }

    /// One line for people. `name` gives a path's name.
    func words(_ name: (PathIndex) -> String) -> String {
        switch self {
        case .defined(let device, let module):
            "\(device.vendor) \(device.product), \(device.blockCount) blocks of \(device.blockSize) bytes, claimed by the \(module) module"
        case .pathRegained(let path): "\(name(path)) is back"
        case .pathLost(let path, let failure, let redriven): "\(name(path)) lost: \(failure)\(Self.redriven(redriven))"
        case .pathRefused(let path, let reason): "\(name(path)) refused: \(reason)"
        case .pathMarginal(let path, let hold): "\(name(path)) keeps failing: held out for \(hold.formatted())"
        case .pathNoLongerMarginal(let path): "\(name(path)) is trusted again"
        case .pathStalled(let path, let redriven): "\(name(path)) is stalled: its kernel answers, the target does not\(Self.redriven(redriven))"
        case .pathResumed(let path): "\(name(path)) speaks again"
        case .pathSlow(let path, true): "\(name(path)) is slow: it answers NOP-Out, but not commands"
        case .pathSlow(let path, false): "\(name(path)) is no longer slow"
        case .pathDrained(let path): "\(name(path)) drained"
        case .pathTakenOut(let path, let redriven): "\(name(path)) taken out by hand\(Self.redriven(redriven))"
        case .pathRestored(let path): "\(name(path)) taken back in by hand"
        case .pathAdded(let path): "\(name(path)) added"
        case .pathRemoved(let path): "\(name(path)) removed"
        case .accessStateChanged(let path, let old, let new): "\(name(path)) went from \(old) to \(new)"
        case .transitionRequested(let path, let change):
            "asked for port group \(change.identifier) to be made \(change.state), over \(name(path))"
        case .transitionEnded(_, let change, .good): "the array takes port group \(change.identifier) to \(change.state)"
        case .transitionEnded(let path, let change, let outcome):
            "port group \(change.identifier) was not made \(change.state), over \(name(path)): \(Self.words(outcome))"
        case .failOver(let from, let to, let redriven, let pause):
            "fail-over from \(name(from)) to \(name(to))\(Self.waited(pause, redriven))\(Self.redriven(redriven))"
        case .failBack(let from, let to): "fail-back from \(name(from)) to \(name(to))"
        case .allPathsLost: "all paths are lost; requests wait"
        case .removePeriodExpired(let count): "no path came back in time; \(Self.count(count, "request")) failed"
        case .pathsAvailableAgain: "a path is available again"
        case .guardRaised(let path, let copies): "\(Self.count(copies, "write")) may still arrive late over \(name(path)); later overlapping ones wait"
        case .guardCleared(let path, let copies, let end): "\(Self.count(copies, "old write")) on \(name(path)) can no longer arrive: \(end.rawValue)"
        case .fenceFailed(let path, let step, _): "\(name(path)) cannot be fenced by \(Self.words(step)) yet; its old writes may still arrive"
        case .policyChanged(let old, let new): "policy changed from " + Self.words(old, new)
        case .settingsChanged(let old, let new): "settings changed: " + old.changesBesidePolicy(to: new).joined(separator: ", ")
        case .roleChanged(let path, let old, let new): "\(name(path)) went from \(old.rawValue) to \(new.rawValue)"
        case .weightChanged(let path, let old, let new): "the weight of \(name(path)) went from \(old) to \(new)"
        case .connectionPolicyChanged(let path, let old, let new):
            "connection policy of \(name(path)) changed from " + Self.words(old, new)
        case .capacityChanged(_, let old, let new): "capacity changed from \(old) to \(new) blocks"
        case .notice(let path, let notice): "\(name(path)) says: \(notice.rawValue)"
        case .queueShrunk(let path, let depth): "\(name(path)) is busy: at most \(depth) requests at a time"
        case .connectionsLimited(let path, let asked, let granted):
            "\(name(path)) has \(Self.count(granted, "connection")) in its session, as many as the target grants of \(asked)"
        case .connectionLost(let path, let number, let failure):
            "connection \(number) of \(name(path)) lost: \(failure); its session goes on"
        case .connectionRegained(let path, let number): "connection \(number) of \(name(path)) is back"
        case .requestTimedOut(let kind, let lba, let path):
            "a \(kind) at block \(lba) was not answered in time" + (path.map { " on \(name($0))" } ?? "")
        case .lunFailed(let path): "the unit was given up, after \(name(path))"
        }
    }

    private static func words(_ outcome: PathOutcome) -> String {
        switch outcome {
        case .good: "done"
        case .status(let status, let sense): sense.map { "\($0)" } ?? "\(status)"
        case .targetFailure(let code): "iSCSI response code \(code)"
        case .short: "cut short"
        case .returned(_, let reason): PathFailure(reason).description
        }
    }

    /// `round-robin to least-queue-depth`; options where they are not the usual ones.
    private static func words(_ old: PolicySettings, _ new: PolicySettings) -> String {
        func text(_ policy: PolicySettings) -> String {
            let usual = PolicyOptions()
            let options = policy.kind.options
                .filter { old.kind == new.kind || policy.options.text(of: $0) != usual.text(of: $0) }
                .map { "\($0.rawValue) \(policy.options.text(of: $0))" }
            return policy.kind.rawValue + (options.isEmpty ? "" : " (\(options.joined(separator: ", ")))")
        }
        return "\(text(old)) to \(text(new))"
    }

    /// Whether somebody made it happen: such an event names who.
    var isChange: Bool {
        switch self {
        case .policyChanged, .settingsChanged, .roleChanged, .weightChanged, .connectionPolicyChanged, .pathAdded, .pathRemoved,
            .pathDrained, .pathTakenOut, .pathRestored:
            true
        default: false
        }
    }

    private static func waited(_ pause: Duration, _ redriven: Int) -> String {
        redriven == 0 ? "" : " after \(HumanText.latency(microseconds: pause / .microseconds(1))) without an answer"
    }

    private static func redriven(_ count: Int) -> String {
        count == 0 ? "" : "; \(Self.count(count, "request")) re-driven"
    }

    private static func count(_ number: Int, _ noun: String) -> String {
        "\(number) \(noun)\(number == 1 ? "" : "s")"
    }

    private static func words(_ step: FenceStep) -> String {
        switch step {
        case .reinstateNexus: "logging in again"
        case .abortTaskSet: "ABORT TASK SET"
        case .logicalUnitReset: "LOGICAL UNIT RESET"
        }
    }
}
