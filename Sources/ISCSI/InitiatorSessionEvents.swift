public import SCSI
import Timebase

/// Why one connection ended. A session with no other connection ends with it, for the same reason.
public enum ConnectionFailure: Error, Hashable, Sendable {
    /// The transport could not be opened; `code` is the system's error number.
    case connectFailed(code: Int32)
    /// The peer ended its side in an orderly way.
    case endOfStream
    /// The transport failed; `code` is the system's error number.
    case transportFailed(code: Int32)
    /// The owner of the connection gave it up.
    case closedLocally
    case login(LoginFailure)
    /// The login was not over within the login timeout.
    case loginTimeout
    /// The target is elsewhere (``SessionEvent/redirected(_:)`` says where).
    case redirected
    /// The target sent a PDU that no decoder can accept.
    case malformed(ProtocolError)
    /// The target sent a well-formed PDU that it may not send.
    case violation(ProtocolViolation)
    /// The data of a PDU with this opcode did not fit its digest.
    case dataDigestMismatch(PDUOpcode)
    /// The target rejected a PDU of ours in a way that leaves no way to go on.
    case rejected(PDUOpcode, RejectReason)
    /// TCP itself was no longer acknowledged.
    case dead
    /// Nothing spoke on it for the silence timeout, while another connection of the session did speak.
    case silent
    /// The target's TCP lived but nothing spoke for the command timeout.
    case commandTimeout
    /// The target answered pings but not a task management request that was sent before them: its header was damaged.
    case requestUnanswered
    /// The target answered pings but did not count a command as received: it waits for a CmdSN that nobody sends.
    case commandNotTaken
    /// The target answered pings but let in no command for twice the command timeout.
    case windowShut
    /// The target announced by Async Message that it drops the connection; times in seconds.
    case droppedByTarget(time2Wait: UInt16, time2Retain: UInt16)
    /// The logout was not answered in time.
    case logoutUnanswered
    /// The logout was answered with something else than success.
    case logoutRefused(LogoutResponse)
    /// The target would not end, or move, a task of a lost connection.
    case recoveryRefused(TaskManagementResponse)
}

/// Why a session failed: what failed the connection that it could not do without.
public typealias SessionFailure = ConnectionFailure

/// A PDU that is well formed but wrong here and now (RFC 7143 section 7.1); what the target sent.
public enum ProtocolViolation: Error, Hashable, Sendable {
    /// A PDU that only an initiator may send, or one that has no place in the connection's phase.
    case unexpectedPDU(PDUOpcode)
    /// The tag names no task that this PDU could answer.
    case unknownTask(PDUOpcode, tag: UInt32)
    /// A response came on another connection than its command (RFC 7143 section 4.2.2.1 allegiance).
    case wrongConnection(PDUOpcode, tag: UInt32)
    case statSN(received: UInt32, expected: UInt32)
    case dataSN(received: UInt32, expected: UInt32)
    case r2tSN(received: UInt32, expected: UInt32)
    /// Data-In for a command that reads nothing, or R2T for one that writes nothing.
    case wrongDirection(PDUOpcode)
    /// Data outside the command's buffer, or out of the negotiated order.
    case dataRange(PDUOpcode, offset: UInt32, byteCount: Int)
    /// A Data-In with status but without the F bit (RFC 7143 section 11.7.1).
    case statusWithoutFinal
    /// More R2Ts at once than MaxOutstandingR2T.
    case tooManyR2Ts(limit: Int)
    /// An R2T with a reserved tag, no data or more than MaxBurstLength.
    case invalidR2T
    /// A PDU's data segment is shorter than what it must hold.
    case truncated(PDUOpcode)
    /// The same PDU may not carry data.
    case unexpectedData(PDUOpcode)
    /// A text exchange with no end, or longer than any real answer.
    case textTooLong
    /// A text response whose F, C and Target Transfer Tag contradict each other.
    case textContinuation
    /// The target asks for more answers than it takes.
    case flood
}

/// What the session's owner knows of a connection's TCP, for judging silence.
public struct TransportReport: Hashable, Sendable {
    /// Bytes handed to the transport that the peer's has not acknowledged, unsent ones included.
    public var unacknowledgedByteCount: Int
    /// Time since the peer's transport last acknowledged anything.
    public var sinceLastAcknowledgement: Duration
    /// Retransmissions and zero-window probes in a row that got no answer.
    public var unansweredRetransmissions: Int

    public init(unacknowledgedByteCount: Int, sinceLastAcknowledgement: Duration, unansweredRetransmissions: Int) {
        self.unacknowledgedByteCount = unacknowledgedByteCount
        self.sinceLastAcknowledgement = sinceLastAcknowledgement
        self.unansweredRetransmissions = unansweredRetransmissions
    }
}

/// Where a session is in its life (RFC 7143 section 8.3).
public enum SessionState: Hashable, Sendable {
    /// No connection was opened yet.
    case free
    case loggingIn
    case loggedIn(NegotiatedParameters)
    /// The logout was sent; commands are no longer taken.
    case loggingOut
    case loggedOut
    case failed(SessionFailure)
}

/// What a text exchange brought.
public enum TextOutcome: Hashable, Sendable {
    /// In the target's order; keys may repeat.
    case answered([TextPair])
    case unreadable(TextError)
    case rejected(RejectReason)
    /// The session ended first.
    case abandoned
}

/// Why SendTargets brought no list.
public enum DiscoveryFailure: Error, Hashable, Sendable {
    case unreadable(SendTargets.Failure)
    case rejected(RejectReason)
    /// The session ended first.
    case abandoned
}

/// Something that happened to a session, in order. Rare: commands end by completions.
public enum SessionEvent: Hashable, Sendable {
    case loggedIn(LoginResult)
    /// Followed by `sessionFailed(.login)`.
    case loginFailed(LoginFailure)
    /// The target is elsewhere; followed by `sessionFailed(.redirected)`.
    case redirected(LoginRedirection)
    /// A connection after the leading one joined the session.
    case connectionAdded(ConnectionIndex)
    /// A login that would have added or reinstated a connection failed; the session goes on without it.
    /// Its transport, where there is one, is to be closed.
    case connectionFailed(ConnectionIndex, ConnectionFailure)
    /// A connection was lost and the session goes on. The transport must be closed, and then
    /// ``InitiatorSession/beginRecovery(_:at:)`` called; until then the session keeps the buffers of
    /// all commands that it carried.
    case connectionLost(ConnectionIndex, ConnectionFailure)
    /// A transport is wanted for a lost connection now: its login (same connection ID) ends the old one.
    /// Where none can be opened, say so by ``InitiatorSession/connectionClosed(_:reason:at:)``.
    case connectionWanted(ConnectionIndex)
    /// All commands of the lost connection are accounted for. Where it was not logged in again on the
    /// way, it may now be opened as a new one.
    case connectionRecovered(ConnectionIndex)
    /// A command was lost with its connection, and the session goes on: it has no outcome and never
    /// will. The target is known not to execute it any more (nothing of it lands from now on), but where
    /// `wasSent` it may have done so before.
    case commandLost(token: UInt64, wasSent: Bool)
    /// A connection takes no more commands and will be logged out, as the target wishes.
    case connectionLeaving(ConnectionIndex)
    /// A connection was logged out by itself; its transport is to be closed. It may be opened again.
    case connectionRemoved(ConnectionIndex)
    /// A command that can be submitted now was refused with `.windowFull` before.
    case windowOpened
    /// At the end of the session: a command without an outcome, in the order of submission. `wasSent`
    /// is false only where not one byte of its PDU was handed to the transport.
    case commandAbandoned(token: UInt64, wasSent: Bool)
    case taskManagementCompleted(token: UInt64, TaskManagementResponse)
    /// The request was rejected as a PDU.
    case taskManagementRejected(token: UInt64, RejectReason)
    /// At the end of the session: a task management request without an answer.
    case taskManagementAbandoned(token: UInt64)
    case text(token: UInt64, TextOutcome)
    case targets([DiscoveredTarget])
    case discoveryFailed(DiscoveryFailure)
    /// The answer to a ``InitiatorSession/ping(on:at:)``.
    case pingAnswered(ConnectionIndex, roundTrip: Duration)
    /// `sense` where the message reports a SCSI event and it can be parsed.
    case asyncMessage(AsyncMessage, sense: SenseData?)
    /// The peer's TCP acknowledges, but nothing speaks: traffic should go elsewhere for now.
    case stalled(ConnectionIndex)
    case resumed(ConnectionIndex)
    /// The target speaks but its commands make no progress; and again false when one does.
    case slow(ConnectionIndex, isSlow: Bool)
    /// A command that made no progress for the command timeout while the target spoke; said once.
    case commandOverdue(token: UInt64)
    case loggedOut
    /// The end; nothing follows. The transport must be closed before the buffers of completions and
    /// abandoned commands are used again.
    case sessionFailed(SessionFailure)
}

/// Events waiting for the owner, in order. Control path: an array that is emptied as a whole.
struct EventQueue {
    private var events: [SessionEvent] = []
    private var first = 0

    var isEmpty: Bool { events.isEmpty }

    mutating func append(_ event: SessionEvent) { events.append(event) }

    mutating func removeFirst() -> SessionEvent? {
        guard first < events.count else { return nil }
        let event = events[first]
        first += 1
        if first == events.count {
            events.removeAll(keepingCapacity: events.capacity <= 64)
            first = 0
        }
        return event
    }
}
