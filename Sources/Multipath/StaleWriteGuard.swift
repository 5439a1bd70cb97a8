import Timebase

/// What is done so that the late writes of a path's lost nexus can be known to be dead.
@frozen
public enum FenceStep: Hashable, Sendable {
    /// Log in with the same ISID through any portal of the path's target port group, now. Where that gives the path its
    /// session, `pathLoggedIn` answers; `.done` says that it was there already, and `pathLoggedIn` comes when asked for by `.connect`.
    /// `.taskSetAborted` where the engine had to use another portal and has done the rest as well.
    case reinstateNexus
    /// ABORT TASK SET on the path's nexus.
    case abortTaskSet
    /// LOGICAL UNIT RESET through another path. It ends commands on every nexus.
    case logicalUnitReset(via: PathIndex)
}

/// How a step towards the end of old writes came out.
@frozen
public enum FenceResult: Hashable, Sendable {
    /// It was done.
    case done
    /// Of `.reinstateNexus`: logged in through another portal of the target port group, and ABORT TASK SET was
    /// answered there. The path itself is as lost as before.
    case taskSetAborted
    /// The target refused, or did not answer.
    case failed
    /// The transport knows no such thing (a kernel device).
    case unsupported
}

/// How an old copy of a write came to be known dead.
public enum StaleCopyEnd: String, Hashable, Sendable {
    /// The path gave it back unsent.
    case neverSent = "never sent"
    /// Its late answer came.
    case answered
    /// The connection that carried it was lost, and its session has ended its tasks.
    case taskEnded = "ended with its connection"
    /// The session was logged in to anew by the same ISID, and its old task set aborted.
    case taskSetAborted = "nexus reinstated and task set aborted"
    /// LOGICAL UNIT RESET was answered.
    case logicalUnitReset = "logical unit reset"
    /// `quiesce-time` has passed, by which the user says that nothing can come any more.
    case quiesceTimePassed = "quiesce time passed"
}

/// How far the fencing of one path has come.
enum PathFence: Hashable, Sendable {
    case none
    case reinstating
    case aborting
    /// Nothing more can be done through the path; late answers, another path's reset or time end it.
    case waiting
}

/// The old copy of a write that was re-driven or given up while its nexus might still execute it.
struct StaleCopy {
    var request: RequestIndex
    var path: Int32
    var lba: UInt64
    var blockCount: UInt32
    /// The admission number of the request: only later writes wait.
    var sequence: UInt64
    var since: Instant
    /// When `quiesce-time` has passed since its session ended; `.distantFuture` while that lives.
    var deadline: Instant

    /// Its session lives, and may still carry it out or answer it.
    var isHeld: Bool { deadline == .distantFuture }
}

/// The old copies of one LUN's writes that are not known to be dead (`docs/stale-writes.md`).
///
/// Holds nothing but the copies and answers which ranges they bar; ``PseudoLUN`` makes writes wait and
/// climbs the ladder. Control path: copies exist only after a path was lost or stalled.
struct StaleWriteGuard {
    private(set) var copies: [StaleCopy] = []

    var isClear: Bool { copies.isEmpty }

    mutating func add(_ copy: StaleCopy) { copies.append(copy) }

    /// Removes and returns the copies that `isDead` picks, oldest first.
    mutating func removeAll(where isDead: (StaleCopy) -> Bool) -> [StaleCopy] {
        var dead: [StaleCopy] = []
        copies.removeAll {
            if isDead($0) {
                dead.append($0)
                return true
            }
            return false
        }
        return dead
    }

    /// How many copies a write with this range and admission number must wait for.
    /// `path` restricts them to those that its living session holds.
    func barring(lba: UInt64, blockCount: UInt32, sequence: UInt64, heldOn path: Int32? = nil) -> Int {
        var count = 0
        for copy in copies
        where copy.sequence < sequence && (path == nil || copy.path == path && copy.isHeld)
            && rangesOverlap(copy.lba, copy.blockCount, lba, blockCount)
        {
            count += 1
        }
        return count
    }

    func count(on path: Int32) -> Int {
        var count = 0
        for copy in copies where copy.path == path { count += 1 }
        return count
    }

    /// Since when the oldest copy that a path's living session holds is one; nil where it holds none. What a session before it
    /// left is no fault of this one.
    func oldestHeld(on path: Int32) -> Instant? { copies.lazy.filter { $0.path == path && $0.isHeld }.map(\.since).min() }

    /// For those of a path that have none yet.
    mutating func setDeadline(_ deadline: Instant, ofCopiesOn path: Int32) {
        for index in copies.indices where copies[index].path == path && copies[index].isHeld {
            copies[index].deadline = deadline
        }
    }

    var nextDeadline: Instant { copies.lazy.map(\.deadline).min() ?? .distantFuture }
}

@inline(__always)
func rangesOverlap(_ lba: UInt64, _ count: UInt32, _ otherLBA: UInt64, _ otherCount: UInt32) -> Bool {
    if lba <= otherLBA { return otherLBA - lba < UInt64(max(count, 1)) }
    return lba - otherLBA < UInt64(max(otherCount, 1))
}
