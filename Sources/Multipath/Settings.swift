/// The six load-balance policies. Raw values are the names of the policy file and the inspector.
public enum PolicyKind: String, Hashable, Sendable, CaseIterable {
    /// One path carries everything; the next one in order when it fails.
    case failOverOnly = "fail-over-only"
    /// Requests rotate over all paths.
    case roundRobin = "round-robin"
    /// Primaries rotate; standbys stand in for those that fail.
    case roundRobinWithSubset = "round-robin-with-subset"
    /// The path with the fewest requests outstanding.
    case leastQueueDepth = "least-queue-depth"
    /// In proportion to the paths' weights.
    case weightedPaths = "weighted-paths"
    /// The path with the fewest blocks outstanding.
    case leastBlocks = "least-blocks"

    /// The abbreviation that administrators use, e.g. `LQD`.
    public var shortName: String {
        switch self {
        case .failOverOnly: "FOO"
        case .roundRobin: "RR"
        case .roundRobinWithSubset: "RRWS"
        case .leastQueueDepth: "LQD"
        case .weightedPaths: "WP"
        case .leastBlocks: "LB"
        }
    }

    /// The number that Windows' `mpclaim` uses for the policy, 1…6.
    public var number: Int {
        switch self {
        case .failOverOnly: 1
        case .roundRobin: 2
        case .roundRobinWithSubset: 3
        case .leastQueueDepth: 4
        case .weightedPaths: 5
        case .leastBlocks: 6
        }
    }

    /// The policy with this full name or abbreviation, in any case; nil where there is none.
    public init?(name: String) {
        let lowered = name.lowercased()
        guard
            let found = Self.allCases.first(where: {
                $0.rawValue == lowered || $0.shortName.lowercased() == lowered
            })
        else { return nil }
        self = found
    }

    /// The options that mean something to this policy; any other one beside it is a mistake.
    public var options: [PolicyOption] {
        switch self {
        case .failOverOnly: [.failBack]
        case .roundRobin: [.switchAfter]
        case .roundRobinWithSubset: [.switchAfter, .activateStandby]
        case .leastQueueDepth: []
        case .weightedPaths: [.weights]
        case .leastBlocks: [.sequentialAffinity]
        }
    }

    /// Whether the policy can choose among the connections of one session (Least Blocks cannot).
    public var appliesToConnections: Bool { self != .leastBlocks }
}

/// The keys of the policy options, as the policy file spells them.
public enum PolicyOption: String, Hashable, Sendable, CaseIterable {
    /// ``SwitchAfter``
    case switchAfter = "switch-after"
    /// ``FailBack``
    case failBack = "fail-back"
    /// ``ActivateStandby``
    case activateStandby = "activate-standby"
    /// ``WeightMeaning``
    case weights
    /// Whether a sequential stream stays on its path.
    case sequentialAffinity = "sequential-affinity"
}

/// How much goes to one path before round robin moves on.
public enum SwitchAfter: Hashable, Sendable {
    /// So many requests, at least 1.
    case requests(UInt32)
    /// At least so many bytes of data, at least 1; requests without data count as one block.
    case bytes(UInt64)
}

/// What fail-over-only does when a path of earlier order is usable again.
public enum FailBack: Hashable, Sendable {
    /// At once.
    case immediate
    /// After it has been usable for this long without a break.
    case after(Duration)
    /// Only when asked (``PseudoLUN/failBack(at:)``) or when the path in use fails.
    case manual
}

/// When round robin with subset calls a standby path in.
public enum ActivateStandby: String, Hashable, Sendable, CaseIterable {
    /// One for each primary path that is missing.
    case perFailedPrimary = "per-failed-primary"
    /// Only once no primary is left, as Windows does.
    case whenNoneLeft = "when-none-left"
}

/// What the weights of weighted paths mean.
public enum WeightMeaning: String, Hashable, Sendable, CaseIterable {
    /// A path with weight 3 carries three times what a path with weight 1 does.
    case proportional
    /// The lowest weight carries all, as Windows does.
    case priority
}

/// The options of all policies. Each policy reads its own (``PolicyKind/options``).
public struct PolicyOptions: Hashable, Sendable {
    /// For the round-robin policies.
    public var switchAfter: SwitchAfter
    /// For fail-over-only.
    public var failBack: FailBack
    /// For round robin with subset.
    public var activateStandby: ActivateStandby
    /// For weighted paths.
    public var weights: WeightMeaning
    /// For least blocks: a sequential stream stays on its path.
    public var sequentialAffinity: Bool

    /// Options; those not given have their defaults.
    public init(
        switchAfter: SwitchAfter = .requests(1), failBack: FailBack = .immediate,
        activateStandby: ActivateStandby = .perFailedPrimary, weights: WeightMeaning = .proportional,
        sequentialAffinity: Bool = false
    ) {
        self.switchAfter = switchAfter
        self.failBack = failBack
        self.activateStandby = activateStandby
        self.weights = weights
        self.sequentialAffinity = sequentialAffinity
    }
}

/// A policy with its options.
public struct PolicySettings: Hashable, Sendable {
    /// Which policy.
    public var kind: PolicyKind
    /// Its options; those of other policies mean nothing.
    public var options: PolicyOptions
    /// A policy, with its default options where none are given.
    public init(_ kind: PolicyKind, options: PolicyOptions = PolicyOptions()) {
        self.kind = kind
        self.options = options
    }
}

/// How long requests wait while a LUN has no path.
public enum RemovePeriod: Hashable, Sendable {
    /// They fail with `noPathsAvailable` after this; zero means at once.
    case after(Duration)
    /// They wait until a path is back.
    case never
}

/// The timers of a LUN and of the sessions that lead to it; defaults are the documented ones.
public struct Timers: Hashable, Sendable {
    /// How often a path that carries nothing is asked whether it is well. Zero: never.
    public var pathVerifyPeriod: Duration = .seconds(30)
    /// How often a request is retried after errors that count as an attempt.
    public var retryCount: Int = 3
    /// The pause before a retry on the same path.
    public var retryInterval: Duration = .seconds(1)
    /// How long requests wait while the LUN has no path; Windows' PDORemovePeriod.
    public var pdoRemovePeriod: RemovePeriod = .after(.seconds(20))
    /// The first pause before a failed path is tried again; it doubles up to the maximum.
    public var pathRecoveryInterval: Duration = .seconds(1)
    /// The longest pause between two tries.
    public var pathRecoveryIntervalMaximum: Duration = .seconds(40)
    /// The bound on each login.
    public var loginTimeout: Duration = .seconds(5)
    /// The bound on one command, retries included. Zero: no bound.
    public var commandTimeout: Duration = .seconds(60)
    /// How long a path with commands outstanding may be silent.
    public var silenceTimeout: Duration = .seconds(2)
    /// After this, a write left on a lost path is taken for dead where nothing else can show it.
    public var quiesceTime: Duration = .seconds(30)

    /// The defaults.
    public init() {}
}

/// When a path that keeps failing counts as marginal, and how long it is then kept out.
public struct MarginalPathSettings: Hashable, Sendable {
    /// So many losses within `window` make a path marginal, at least 2.
    public var lossCount: Int = 3
    /// See ``lossCount``.
    public var window: Duration = .seconds(60)
    /// The first hold; each further loss doubles it, up to the maximum.
    public var firstHold: Duration = .seconds(10)
    /// The longest hold.
    public var holdMaximum: Duration = .seconds(300)

    /// The defaults.
    public init() {}
}

/// How a LUN is kept from late writes of lost paths.
public struct StaleWriteGuardSettings: Hashable, Sendable {
    /// Off only for tests that show the corruption which the guard prevents.
    public var isEnabled: Bool = true
    /// Whether LOGICAL UNIT RESET may be sent: it ends the commands of every initiator of the LUN.
    public var allowsLogicalUnitReset: Bool = false

    /// The defaults.
    public init() {}
}

/// How a LUN with asymmetric access (ALUA) is treated.
public struct AsymmetricAccessSettings: Hashable, Sendable {
    /// Among optimized port groups those that the array marks as preferred (PREF) carry all. Off: the mark is shown
    /// but means nothing, and all optimized groups share the traffic.
    public var followsPreferredBit: Bool = true
    /// Where no path carries data, requests wait, and the array leaves it to initiators, a standby group is made active
    /// by SET TARGET PORT GROUPS. Off where something else is in charge of the array's fail-over.
    public var setsTargetPortGroups: Bool = true

    /// The defaults.
    public init() {}
}

/// All that a user decides about one LUN, paths apart.
public struct LUNSettings: Hashable, Sendable {
    /// How paths are chosen.
    public var policy: PolicySettings
    /// How long things may take.
    public var timers: Timers
    /// What becomes of a path that keeps failing.
    public var marginalPaths: MarginalPathSettings
    /// How late writes are kept out.
    public var staleWriteGuard: StaleWriteGuardSettings
    /// How ALUA is followed.
    public var asymmetricAccess: AsymmetricAccessSettings

    /// Settings; those not given have their defaults.
    public init(
        policy: PolicySettings = PolicySettings(.roundRobin), timers: Timers = Timers(),
        marginalPaths: MarginalPathSettings = MarginalPathSettings(),
        staleWriteGuard: StaleWriteGuardSettings = StaleWriteGuardSettings(),
        asymmetricAccess: AsymmetricAccessSettings = AsymmetricAccessSettings()
    ) {
        self.asymmetricAccess = asymmetricAccess
        self.policy = policy
        self.timers = timers
        self.marginalPaths = marginalPaths
        self.staleWriteGuard = staleWriteGuard
    }
}

/// What a path is for. Only round robin with subset treats a usable standby differently from a primary;
/// fail-over-only takes primaries first.
public enum PathRole: String, Hashable, Sendable, CaseIterable {
    /// Carries requests whenever it is usable.
    case primary
    /// Waits until the policy calls it in.
    case standby
}

/// What a user says about one path.
public struct PathSettings: Hashable, Sendable {
    /// The name that the inspector shows and commands take, e.g. `10.0.1.10:3260`.
    public var name: String
    /// Primary or standby.
    public var role: PathRole
    /// 1…65,535.
    public var weight: UInt16
    /// The place in the configured order; smaller is earlier. Paths with equal order keep the order in
    /// which they were added.
    public var order: Int

    /// Settings of a path with this name.
    public init(name: String, role: PathRole = .primary, weight: UInt16 = 1, order: Int = 0) {
        self.name = name
        self.role = role
        self.weight = weight
        self.order = order
    }
}
