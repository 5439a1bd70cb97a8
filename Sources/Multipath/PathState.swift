public import SCSI
public import Timebase

/// What a path is doing, as the inspector shows it.
public enum PathState: Hashable, Sendable {
    /// Being connected, or proving itself.
    case connecting
    /// Carries requests.
    case activeOptimized
    /// Carries requests where no optimized path is left.
    case activeNonOptimized
    /// The array keeps it in reserve (ALUA).
    case standby
    /// The array does not let it carry data (ALUA).
    case unavailable
    /// Its ALUA state is changing.
    case transitioning
    /// TCP acknowledges but nothing speaks.
    case stalled(since: Instant)
    /// Lost; nil: it is being tried now, or is not to be tried again.
    case failed(PathFailure, nextTry: Instant?)
    /// Works, but is held out because it failed too often.
    case marginal(until: Instant)
    /// Taken out by hand: no new requests.
    case drained
    /// Leads to another unit, or to one that has changed.
    case refused(RefusalReason)

    /// The name that the inspector's JSON uses.
    public var name: String {
        switch self {
        case .connecting: "connecting"
        case .activeOptimized: "active/optimized"
        case .activeNonOptimized: "active/non-optimized"
        case .standby: "standby"
        case .unavailable: "unavailable"
        case .transitioning: "transitioning"
        case .stalled: "stalled"
        case .failed: "failed"
        case .marginal: "marginal"
        case .drained: "drained"
        case .refused: "refused"
        }
    }
}

/// Why a path that works must not be used for this LUN.
public enum RefusalReason: Hashable, Sendable, CustomStringConvertible {
    /// Another unit than the LUN's, or changed; names both.
    case mismatch(DeviceMismatch)
    /// It gives no identity, so that nothing shows it to be the same unit as another path's.
    case unidentified
    /// No device-specific module claims it.
    case notClaimed

    public var description: String {
        switch self {
        case .mismatch(let mismatch): mismatch.description
        case .unidentified: "the device names no identity, so nothing shows that it is the same unit"
        case .notClaimed: "no device-specific module claims the device"
        }
    }
}

/// What a full probe of a path found.
public struct PathReport: Hashable, Sendable {
    /// What the path shows.
    public var device: DeviceDescription
    /// The ALUA state of the path's port group; active/optimized where the device has none.
    public var accessState: AccessState
    /// Empty where the device has no asymmetric access.
    public var targetPortGroups: [TargetPortGroup]
    /// False where the port would not tell (standby): block size and count are other paths', or mean nothing
    /// where there is none.
    public var isCapacityVerified: Bool
    /// What the device said about itself while it was asked.
    public var unitAttentions: [SenseData]
    /// How long a transition of its own may take (SPC-4 clause 6.37); nil where it does not say.
    public var implicitTransitionTime: Duration?

    /// A report of a path that answered everything.
    public init(
        device: DeviceDescription, accessState: AccessState = .optimized,
        targetPortGroups: [TargetPortGroup] = [], isCapacityVerified: Bool = true,
        unitAttentions: [SenseData] = [], implicitTransitionTime: Duration? = nil
    ) {
        self.implicitTransitionTime = implicitTransitionTime
        self.isCapacityVerified = isCapacityVerified
        self.unitAttentions = unitAttentions
        self.device = device
        self.accessState = accessState
        self.targetPortGroups = targetPortGroups
    }
}

/// Why a path is probed, which says how much is asked.
public enum ProbeReason: Hashable, Sendable {
    /// Before it carries data: everything. Answered by `pathConnected` or `pathProbeFailed`.
    case connected
    /// The device said that it changed: everything, on a path that is up. Answered as `connected`.
    case recheck
    /// Whether it is well: the verification command, and the access states where there are any. Answered
    /// by `pathVerified` or `pathProbeFailed`.
    case verify
    /// REPORT TARGET PORT GROUPS only. Answered by `accessStatesReported` or `pathProbeFailed`.
    case accessStates
}

/// The ways to take a path out by hand.
public enum TakeOut: Hashable, Sendable {
    /// At once; its requests are re-driven elsewhere.
    case fail
    /// No new requests; the old ones may finish.
    case drain
}

/// A path's connection to its device, as the LUN sees it.
enum PathLink: Hashable {
    /// `.connect` was asked for.
    case connecting
    /// Logged in; must prove itself first.
    case probing
    /// Proved; waits for ABORT TASK SET, which would hit new commands too.
    case fencing
    case up
    case down(PathFailure, nextTry: Instant)
    case refused(RefusalReason, nextTry: Instant)
    case takenOut
    case removed
}

/// All that a LUN knows of a path beside its row in the candidate table and its counters.
struct PathRecord {
    var settings: PathSettings
    var load: PathLoad
    var transport: TransportKind
    var link: PathLink = .connecting
    /// Whether the transport is logged in, so that a probe alone can bring the path back.
    var isTransportUp = false
    /// Until the task set is aborted that a process before this one left on the nexus.
    var mayHoldUnknownWrites = false
    var isDrained = false
    var isSlow = false
    /// Probed although it was up: the device said that it changed.
    var isRechecking = false
    var stalledSince: Instant?
    var marginalUntil: Instant?
    /// Earned at the last loss, served from the next return on.
    var pendingHold: Duration?
    var accessState: AccessState = .optimized
    var isPreferred = false
    /// The path's own port group as its port described it last.
    var group: TargetPortGroup?
    /// How long the array says that a transition takes; nil where it does not.
    var transitionTime: Duration?
    /// When a transition that does not end counts as standby.
    var transitionDeadline = Instant.distantFuture
    var refreshAt = Instant.distantFuture
    var isRefreshing = false
    var verifyAt = Instant.distantFuture
    var isVerifying = false
    /// 2A/09 was seen: a larger capacity at the next probe is the LUN's new one.
    var expectsNewCapacity = false
    var isCapacityVerified = true
    var device: DeviceDescription?
    var recovery = RecoverySchedule()
    var marginal = MarginalTracker()
    var fence = PathFence.none
    var fenceSince = Instant.zero
    /// `.drop` was asked for.
    var isDropped = false
    var lastFailure: (at: Instant, failure: PathFailure)?
    var stateSince: Instant = .zero
    var shownState: PathState = .connecting

    init(settings: PathSettings, load: PathLoad, transport: TransportKind) {
        self.settings = settings
        self.load = load
        self.transport = transport
    }

    var state: PathState {
        switch link {
        case .removed, .takenOut:
            return .failed(
                PathFailure(link == .removed ? .removed : .takenOut), nextTry: nil)
        case .connecting, .probing, .fencing: return .connecting
        case .down(let failure, let nextTry): return .failed(failure, nextTry: nextTry)
        case .refused(let reason, _): return .refused(reason)
        case .up: break
        }
        if isDrained { return .drained }
        if let stalledSince { return .stalled(since: stalledSince) }
        if let marginalUntil, carriesData { return .marginal(until: marginalUntil) }
        switch accessState {
        case .optimized, .lbaDependent: return .activeOptimized
        case .nonOptimized: return .activeNonOptimized
        case .standby: return .standby
        case .transitioning: return .transitioning
        case .unavailable, .offline: return .unavailable
        }
    }

    /// Whether the access state lets data through.
    var carriesData: Bool { PathGrade(accessState) > .unusable }

    var isRemoved: Bool { link == .removed }

    var hasAccessStates: Bool { device.map { !$0.targetPortGroupSupport.isEmpty } ?? false }
}
