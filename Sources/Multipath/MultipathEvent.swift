public import SCSI

/// What happened to a LUN, for logs and `mpio events`. Indirect, so that an action stays two words.
public indirect enum MultipathEvent: Hashable, Sendable {
    /// The first path defined the LUN, or a module claimed it anew.
    case defined(DeviceDescription, module: String)
    /// The path is usable.
    case pathRegained(PathIndex)
    /// The path was lost; so many of its requests went elsewhere.
    case pathLost(PathIndex, PathFailure, redriven: Int)
    /// The path works and must not be used: it leads to another unit, or to one that has changed.
    case pathRefused(PathIndex, RefusalReason)
    /// The path was lost so often that it is held out for this long.
    case pathMarginal(PathIndex, heldFor: Duration)
    /// The path may carry requests again like any other.
    case pathNoLongerMarginal(PathIndex)
    /// TCP acknowledges but nothing speaks; so many requests went elsewhere.
    case pathStalled(PathIndex, redriven: Int)
    /// A stalled path speaks again.
    case pathResumed(PathIndex)
    /// NOP-Outs are answered but commands are not (true), or commands are again (false).
    case pathSlow(PathIndex, Bool)
    /// By hand: the path gets no new requests.
    case pathDrained(PathIndex)
    /// By hand: the path was taken out at once; so many of its requests went elsewhere.
    case pathTakenOut(PathIndex, redriven: Int)
    /// By hand: the path may be used again.
    case pathRestored(PathIndex)
    /// The LUN has another path.
    case pathAdded(PathIndex)
    /// The LUN has one path less.
    case pathRemoved(PathIndex)
    /// The ALUA state of the path's port group changed.
    case accessStateChanged(PathIndex, from: AccessState, to: AccessState)
    /// The array was asked to make the path's port group active, and what it answered.
    case transitionRequested(PathIndex, TargetPortGroupChange)
    /// How the array answered.
    case transitionEnded(PathIndex, TargetPortGroupChange, PathOutcome)
    /// Traffic left a path that failed; `to` is where the next request goes. So many requests are sent again, at once. The pause is
    /// how long they had waited for an answer by then: since the first of them was admitted, or since anything last
    /// came back over the path, whichever was later; zero where there are none.
    case failOver(from: PathIndex, to: PathIndex, redriven: Int, pause: Duration)
    /// Traffic went back to a path that works again, from one that works too. Nothing waits for it and nothing is sent
    /// again: what is under way ends where it is.
    case failBack(from: PathIndex, to: PathIndex)
    /// Nothing can carry requests; from now on `pdo-remove-period` counts.
    case allPathsLost
    /// Requests waited in vain for `pdo-remove-period`.
    case removePeriodExpired(failedRequests: Int)
    /// A path can carry requests again, and those that waited go on.
    case pathsAvailableAgain
    /// So many writes of a lost path may still be executed; later overlapping ones wait.
    case guardRaised(PathIndex, copies: Int)
    /// So many old writes are known to be dead, and how; what waited for them goes on.
    case guardCleared(PathIndex, copies: Int, StaleCopyEnd)
    /// A step towards the end of old writes was refused or not answered; the next one follows, or time alone.
    case fenceFailed(PathIndex, FenceStep, FenceResult)
    /// The load-balance policy is another one, or has other options.
    case policyChanged(from: PolicySettings, to: PolicySettings)
    /// Timers and other settings beside the policy were changed.
    case settingsChanged(from: LUNSettings, to: LUNSettings)
    /// A path's role was changed.
    case roleChanged(PathIndex, from: PathRole, to: PathRole)
    /// A path's weight was changed.
    case weightChanged(PathIndex, from: UInt16, to: UInt16)
    /// How the connections of the path's session are chosen.
    case connectionPolicyChanged(PathIndex, from: PolicySettings, to: PolicySettings)
    /// The unit has grown, or was found smaller; in blocks.
    case capacityChanged(PathIndex, fromBlocks: UInt64, toBlocks: UInt64)
    /// The device said something about itself.
    case notice(PathIndex, DeviceNotice)
    /// BUSY or TASK SET FULL made the path's queue this short.
    case queueShrunk(PathIndex, to: Int)
    /// The target grants fewer connections in one session than are configured; those are used.
    case connectionsLimited(PathIndex, asked: Int, granted: Int)
    /// One connection of the path's session was lost, by its number from 1, and the session goes on.
    case connectionLost(PathIndex, Int, PathFailure)
    /// A lost connection of the path's session is back.
    case connectionRegained(PathIndex, Int)
    /// A request had no answer within `command-timeout`, last on this path.
    case requestTimedOut(RequestKind, lba: UInt64, PathIndex?)
    /// The device-specific module gave the whole LUN up, for what this path answered.
    case lunFailed(PathIndex)
}

extension MultipathEvent {
    /// Requests that were sent again on another path; nil for events that have no such count.
    public var redriven: Int? {
        switch self {
        case .pathLost(_, _, let count), .pathStalled(_, let count), .pathTakenOut(_, let count), .failOver(_, _, let count, _): count
        case .failBack: 0
        default: nil
        }
    }

    /// For how long requests waited until their traffic went to another path; nil for events at which it does not.
    public var pause: Duration? {
        switch self {
        case .failOver(_, _, _, let pause): pause
        case .failBack: .zero
        default: nil
        }
    }
}
