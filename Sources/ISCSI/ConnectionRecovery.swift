import SCSI
import Timebase

/// What the loss of one connection means to the session it belongs to.
enum LossHandling {
    /// Session recovery (RFC 7143 section 7.1.4.4): what was open goes back to the owner.
    case endsSession
    /// The connection's tasks are ended by a login with its ID, or a Logout of it, and handed back.
    case reinstatesConnection
    /// ErrorRecoveryLevel 2: the tasks go on, on other connections (section 7.1.4.3).
    case reassignsTasks

    init(_ login: LoginResult) {
        if login.parameters.errorRecoveryLevel >= 2 {
            self = .reassignsTasks
        } else if login.parameters.maxConnections > 1, login.targetAlias != LossHandling.linuxKernelTarget {
            self = .reinstatesConnection
        } else {
            self = .endsSession
        }
    }

    /// How the Linux kernel's target (LIO) calls itself. Below level 2 it drops the whole session soon
    /// after the loss of one connection, and a login with the lost connection's ID crashes its kernel.
    static let linuxKernelTarget = "LIO Target"
}

/// The way back from the loss of one connection of a session that goes on.
struct ConnectionRecovery {
    enum Stage {
        /// The owner has not said yet that the transport is closed.
        case lost
        /// The old connection is to be ended at the target.
        case reinstating
        /// A Logout of it is under way on another connection.
        case loggingOut(via: Int)
        /// It is ended there; Time2Wait has to pass before its tasks are reassigned.
        case waiting
        /// It is ended there, and so are its tasks: their CmdSNs are filled, their writes made sure of.
        case settling
        /// Its tasks are moved to other connections.
        case reassigning
    }

    var stage = Stage.lost
    let reason: ConnectionFailure
    /// The CID that has the tasks.
    let connectionID: UInt16
    /// The PDUs that may lie unread in the old connection at the target.
    var unreadPDUCount = 0
    /// Answered pings that are still wanted before the target's numbers are believed.
    var barrier = 1
    /// The NOP-Out whose answer is waited for.
    var askSlot: Int?
    /// The NOP-Out before it that fills a hole, until it is answered.
    var fillSlot: Int?
    /// The connection on which both went out.
    var fillCarrier: Int?
    /// That connection was lost with it: whether the hole is filled is not known before this one is ended, too.
    var heldUpBy: Int?
    var askAgainAt = Instant.distantFuture
    /// The end of patience with the stage.
    var deadline = Instant.distantFuture
    /// Not before then (Time2Wait).
    var notBefore = Instant.zero
    /// The owner was told that a transport is wanted.
    var isWanted = false
    /// A login that was to end it failed.
    var hasFailedLogin = false
    /// A Logout has ended it already, together with its tasks.
    var isLoggedOut = false

    init(reason: ConnectionFailure, connectionID: UInt16) {
        self.reason = reason
        self.connectionID = connectionID
    }

    /// The connection was lost anew. What the target was asked before shows nothing of that; but a hole that is being filled on
    /// another connection must not be filled on a third (RFC 7143 section 7.2.1).
    mutating func takeOver(from old: ConnectionRecovery) {
        heldUpBy = old.heldUpBy
        guard let filler = old.fillSlot else { return }
        fillSlot = filler
        fillCarrier = old.fillCarrier
    }

    /// A login with the old connection ID is what helps now.
    var isReinstating: Bool { if case .reinstating = stage { true } else { false } }

    var isLost: Bool { if case .lost = stage { true } else { false } }
}

/// What a command's PDU has besides what its slot knows.
struct RetainedCommand {
    var cdb: CommandDescriptorBlock
    var attribute: TaskAttribute
}
