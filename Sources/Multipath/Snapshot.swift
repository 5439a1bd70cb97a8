public import SCSI
public import Timebase

/// How a LUN is, in one word.
public enum LUNState: String, Hashable, Sendable {
    /// Every configured path is as it should be.
    case optimal
    /// Data flows, but a path is missing.
    case degraded
    /// No path carries data.
    case failed
}

/// What the stale-write guard is waiting for.
public enum GuardState: Hashable, Sendable {
    /// Nothing: every earlier write has ended, or is known to be dead.
    case clear
    /// Old writes of these paths; new ones that overlap them wait.
    case raised([GuardedPath])
}

/// The old copies of one path and how far they are from known dead.
public struct GuardedPath: Hashable, Sendable {
    /// What is being done about the old writes.
    public enum Stage: String, Hashable, Sendable {
        /// The path's portal group is logged in to again, by the same ISID.
        case reinstating = "logging in again by the same ISID"
        /// Logged in again; ABORT TASK SET was sent.
        case aborting = "aborting the old task set"
        /// LOGICAL UNIT RESET was sent through another path.
        case resetting = "resetting the logical unit"
        /// Nothing can be done now but wait.
        case waiting = "waiting for late answers or the quiesce time"
    }
    /// The path that was lost.
    public var path: PathIndex
    /// Writes of it that may still be executed.
    public var copies: Int
    /// What is being done about them.
    public var stage: Stage
    /// When time alone will have ended the last of them; nil while their session lives, since that begins with its end.
    public var clearAt: Instant?
}

/// One path at one moment.
public struct PathSnapshot: Hashable, Sendable {
    /// The path's index.
    public var index: PathIndex
    /// Its name.
    public var name: String
    /// What carries its requests.
    public var transport: TransportKind
    /// What it is doing.
    public var state: PathState
    /// Since when.
    public var stateSince: Instant
    /// The ALUA state of its port group.
    public var accessState: AccessState
    /// Whether the array prefers its port group (PREF).
    public var isPreferred: Bool
    /// Whether NOP-Outs are answered but commands are not.
    public var isSlow: Bool
    /// The target port group; nil where the device has none.
    public var targetPortGroup: UInt16?
    /// Primary or standby.
    public var role: PathRole
    /// 1…65,535.
    public var weight: UInt16
    /// Its place in the configured order.
    public var order: Int
    /// Requests of this LUN that it carries.
    public var inFlight: Int
    /// Their blocks.
    public var inFlightBlocks: Int
    /// Of the whole transport, all LUNs counted.
    public var transportLoad: LoadCounters.Values
    /// Nil while the device has not asked for less.
    public var depthLimit: Int?
    /// Issued so far, retries and re-drives included.
    public var requests: UInt64
    /// Bytes that came from the LUN.
    public var bytesRead: UInt64
    /// Bytes that went to the LUN.
    public var bytesWritten: UInt64
    /// Attempts that ended other than well here, timeouts included.
    public var errors: UInt64
    /// When it was last lost; nil: never.
    public var lastFailureAt: Instant?
    /// Why it was last lost.
    public var lastFailure: PathFailure?
    /// Old writes of it that may still be executed.
    public var staleCopies: Int
}

extension LoadCounters {
    /// The counters at one moment.
    public struct Values: Hashable, Sendable {
        /// Requests that were outstanding.
        public var requests: Int
        /// Their bytes.
        public var bytes: Int
    }
    /// The counters as they are now.
    public var values: Values { Values(requests: requests, bytes: bytes) }
}

/// A LUN at one moment.
public struct PseudoLUNSnapshot: Hashable, Sendable {
    /// Its name.
    public var name: String
    /// What its paths lead to; nil until one has told.
    public var device: DeviceDescription?
    /// The policy and its options.
    public var policy: PolicySettings
    /// The device-specific module's name.
    public var module: String
    /// How it is, in one word.
    public var state: LUNState
    /// What the stale-write guard waits for.
    public var guardState: GuardState
    /// Admitted and not on any path: waiting for a path, a retry time or an earlier write.
    public var queued: Int
    /// Of these, writes that wait for earlier overlapping ones or their old copies.
    public var blocked: Int
    /// Requests that paths carry.
    public var inFlight: Int
    /// How often traffic left a path because it failed.
    public var failOvers: Int
    /// Requests that were sent again because their path was lost.
    public var redriven: UInt64
    /// Since when nothing can carry data; nil while something can.
    public var noPathSince: Instant?
    /// Removed paths are left out.
    public var paths: [PathSnapshot]
}

/// Why one path is or is not used.
public struct PathExplanation: Hashable, Sendable {
    /// The path's index.
    public var index: PathIndex
    /// Its name.
    public var name: String
    /// How good it is.
    public var grade: PathGrade
    /// Why it is, or is not, used.
    public var words: String
    /// Since when the path is in its state.
    public var since: Instant
}

/// Why the next request goes where it goes.
public struct Explanation: Hashable, Sendable {
    /// The LUN's name.
    public var lun: String
    /// The policy that chose.
    public var policy: PolicySettings
    /// What it chose, and why.
    public var selection: Selection
    /// The path it would take; nil where it would wait.
    public var path: PathIndex?
    /// One sentence, e.g. "least-queue-depth: next goes to A: 3 outstanding, the next best has 7".
    public var summary: String
    /// Every path with its reason.
    public var paths: [PathExplanation]
}
