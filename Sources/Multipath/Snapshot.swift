public import SCSI
public import Timebase

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
    case clear
    case raised([GuardedPath])
}

/// The old copies of one path and how far they are from known dead.
public struct GuardedPath: Hashable, Sendable {
    public enum Stage: String, Hashable, Sendable {
        case reinstating = "logging in again by the same ISID"
        case aborting = "aborting the old task set"
        case resetting = "resetting the logical unit"
        case waiting = "waiting for late answers or the quiesce time"
    }
    public var path: PathIndex
    public var copies: Int
    public var stage: Stage
    /// When time alone will have ended the last of them; nil while their session lives, since that begins with its end.
    public var clearAt: Instant?
}

/// One path at one moment.
public struct PathSnapshot: Hashable, Sendable {
    public var index: PathIndex
    public var name: String
    public var transport: TransportKind
    public var state: PathState
    public var stateSince: Instant
    public var accessState: AccessState
    public var isPreferred: Bool
    public var isSlow: Bool
    public var targetPortGroup: UInt16?
    public var role: PathRole
    public var weight: UInt16
    public var order: Int
    public var inFlight: Int
    public var inFlightBlocks: Int
    /// Of the whole transport, all LUNs counted.
    public var transportLoad: LoadCounters.Values
    /// Nil while the device has not asked for less.
    public var depthLimit: Int?
    /// Issued so far, retries and re-drives included.
    public var requests: UInt64
    public var bytesRead: UInt64
    public var bytesWritten: UInt64
    public var errors: UInt64
    public var lastFailureAt: Instant?
    public var lastFailure: PathFailure?
    public var staleCopies: Int
}

extension LoadCounters {
    public struct Values: Hashable, Sendable {
        public var requests: Int
        public var bytes: Int
    }
    public var values: Values { Values(requests: requests, bytes: bytes) }
}

/// A LUN at one moment.
public struct PseudoLUNSnapshot: Hashable, Sendable {
    public var name: String
    public var device: DeviceDescription?
    public var policy: PolicySettings
    public var module: String
    public var state: LUNState
    public var guardState: GuardState
    /// Admitted and not on any path: waiting for a path, a retry time or an earlier write.
    public var queued: Int
    /// Of these, writes that wait for earlier overlapping ones or their old copies.
    public var blocked: Int
    public var inFlight: Int
    public var failOvers: Int
    public var redriven: UInt64
    /// Since when nothing can carry data; nil while something can.
    public var noPathSince: Instant?
    /// Removed paths are left out.
    public var paths: [PathSnapshot]
}

/// Why one path is or is not used.
public struct PathExplanation: Hashable, Sendable {
    public var index: PathIndex
    public var name: String
    public var grade: PathGrade
    public var words: String
    public var since: Instant
}

/// Why the next request goes where it goes.
public struct Explanation: Hashable, Sendable {
    public var lun: String
    public var policy: PolicySettings
    public var selection: Selection
    /// The path it would take; nil where it would wait.
    public var path: PathIndex?
    /// One sentence, e.g. "least-queue-depth: next goes to A: 3 outstanding, the next best has 7".
    public var summary: String
    public var paths: [PathExplanation]
}
