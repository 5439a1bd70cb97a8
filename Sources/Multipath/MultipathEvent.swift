public import SCSI

/// What happened to a LUN, for logs and `mpio events`. Indirect, so that an action stays two words.
public indirect enum MultipathEvent: Hashable, Sendable {
    /// The first path defined the LUN, or a module claimed it anew.
    case defined(DeviceDescription, module: String)
    case pathRegained(PathIndex)
    case pathLost(PathIndex, PathFailure, redriven: Int)
    case pathRefused(PathIndex, RefusalReason)
    case pathMarginal(PathIndex, heldFor: Duration)
    case pathNoLongerMarginal(PathIndex)
    case pathStalled(PathIndex, redriven: Int)
    case pathResumed(PathIndex)
    case pathSlow(PathIndex, Bool)
    case pathDrained(PathIndex)
    case pathTakenOut(PathIndex, redriven: Int)
    case pathRestored(PathIndex)
    case pathAdded(PathIndex)
    case pathRemoved(PathIndex)
    case accessStateChanged(PathIndex, from: AccessState, to: AccessState)
    /// The array was asked to make the path's port group active, and what it answered.
    case transitionRequested(PathIndex, TargetPortGroupChange)
    case transitionEnded(PathIndex, TargetPortGroupChange, PathOutcome)
    /// Traffic left a path that failed; `to` is where the next request goes.
    case failOver(from: PathIndex, to: PathIndex, redriven: Int)
    /// Traffic went back to a path that works again, from one that works too.
    case failBack(from: PathIndex, to: PathIndex)
    case allPathsLost
    /// Requests waited in vain for `pdo-remove-period`.
    case removePeriodExpired(failedRequests: Int)
    case pathsAvailableAgain
    /// So many writes of a lost path may still be executed; later overlapping ones wait.
    case guardRaised(PathIndex, copies: Int)
    case guardCleared(PathIndex, copies: Int, StaleCopyEnd)
    case fenceFailed(PathIndex, FenceStep, FenceResult)
    case policyChanged(from: PolicySettings, to: PolicySettings)
    /// Timers and other settings beside the policy were changed.
    case settingsChanged(from: LUNSettings, to: LUNSettings)
    case roleChanged(PathIndex, from: PathRole, to: PathRole)
    case weightChanged(PathIndex, from: UInt16, to: UInt16)
    /// How the connections of the path's session are chosen.
    case connectionPolicyChanged(PathIndex, from: PolicySettings, to: PolicySettings)
    case capacityChanged(PathIndex, fromBlocks: UInt64, toBlocks: UInt64)
    case notice(PathIndex, DeviceNotice)
    /// BUSY or TASK SET FULL made the path's queue this short.
    case queueShrunk(PathIndex, to: Int)
    /// The target grants fewer connections in one session than are configured; those are used.
    case connectionsLimited(PathIndex, asked: Int, granted: Int)
    /// One connection of the path's session was lost, by its number from 1, and the session goes on.
    case connectionLost(PathIndex, Int, PathFailure)
    case connectionRegained(PathIndex, Int)
    case requestTimedOut(RequestKind, lba: UInt64, PathIndex?)
    case lunFailed(PathIndex)
}
