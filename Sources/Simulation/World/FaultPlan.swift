import Timebase

/// The ways in which a world can go wrong.
public enum FaultKind: String, CaseIterable, Sendable, Comparable {
    case reset
    case silence
    case silenceToTarget = "one-way-silence-to-target"
    case silenceToInitiator = "one-way-silence-to-initiator"
    case slowDrip = "slow-drip"
    case portalDown = "portal-down"
    case targetRestart = "target-restart"
    case targetStopped = "target-stopped"
    case busy
    case taskSetFull = "task-set-full"
    case unitAttention = "unit-attention"
    case mediumError = "medium-error"
    case accessStates = "alua-transition"
    case digestCorruption = "digest-corruption"
    case lateExecution = "late-execution"
    case slowDisk = "slow-disk"
    case changedIdentity = "changed-identity"
    case asyncLogout = "async-logout"
    case policyChange = "policy-change"
    case takenOut = "path-taken-out"
    // One connection of a session that has several.
    case connectionReset = "connection-reset"
    case connectionSilence = "connection-silence"
    case connectionSilenceToTarget = "connection-one-way-silence-to-target"
    case connectionSilenceToInitiator = "connection-one-way-silence-to-initiator"
    /// Its network takes longer, so that commands overtake one another.
    case connectionSlow = "connection-slow"
    /// As well it is cut while answers are on their way.
    case connectionSlowCut = "connection-slow-cut"
    case connectionRefused = "connection-portal-down"
    case connectionLogout = "connection-async-logout"
    case connectionDropped = "connection-async-drop"
    case connectionDigest = "connection-digest-corruption"
    case connectionPolicy = "connection-policy-change"

    public static func < (left: FaultKind, right: FaultKind) -> Bool { left.rawValue < right.rawValue }

    /// Only worlds whose sessions have several connections have it.
    public var isOfConnections: Bool { rawValue.hasPrefix("connection-") }

    /// Only commands meet it; no path may be lost by it.
    var isHarmlessToPaths: Bool {
        switch self {
        case .busy, .taskSetFull, .unitAttention, .mediumError, .slowDisk, .policyChange, .connectionPolicy, .connectionSlow: true
        default: false
        }
    }
}

/// Which faults exist in a world, and how often. Each seed has its own few (swarm testing): a fault that
/// always comes with all others hides behind them.
struct FaultPlan {
    var kinds: [FaultKind]
    /// A path to which nothing is done; its target is not restarted or stopped either.
    var sparedPath: Int?
    /// For how long faults are made.
    var duration: Duration
    /// Mean time from one to the next.
    var interval: Duration

    init(random: SeededRandom, pathCount: Int, hasTwoTargets: Bool) {
        let share = random.pick([0, 10, 25, 50, 80])
        let all = FaultKind.allCases.filter { !$0.isOfConnections }
        kinds = all.filter { kind in
            let isIn = random.chance(percent: share)
            // With one target, its restart or another identity leaves no path at all.
            return isIn && (kind != .changedIdentity || hasTwoTargets)
        }
        if kinds.isEmpty, share > 0 { kinds = [random.pick(all.filter { $0 != .changedIdentity })] }
        sparedPath = pathCount > 1 && random.chance(percent: 40) ? random.below(pathCount) : nil
        duration = random.duration(.seconds(2)...(.seconds(25)))
        interval = random.duration(.milliseconds(50)...(.seconds(3)))
    }

    func has(_ kind: FaultKind) -> Bool { kinds.contains(kind) }
    var isHarmlessToPaths: Bool { kinds.allSatisfy(\.isHarmlessToPaths) }
}
