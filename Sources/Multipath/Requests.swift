public import SCSI

/// A path of one LUN: its row in the LUN's path table, never reused while the LUN lives.
@frozen
public struct PathIndex: Hashable, Sendable {
    /// The index.
    public var rawValue: Int32
    /// By its raw value.
    @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }
    /// A path's index; it has to fit 32 bits.
    @inlinable public init(_ index: Int) { rawValue = Int32(truncatingIfNeeded: index) }
    /// As an index of arrays.
    @inlinable public var index: Int { Int(rawValue) }
}

/// A request of one LUN. `slot` stays the same from admission to the end and indexes the owner's own
/// table; `attempt` changes each time the request is issued, so that the late answer of an abandoned
/// copy is told from the answer of the live one.
@frozen
public struct RequestIndex: Hashable, Sendable {
    /// Which of the slots, 0 ..< the request capacity.
    public var slot: UInt32
    /// Counts the uses of the slot, so that an answer to an earlier one is known.
    public var attempt: UInt32
    /// A slot and the use of it.
    @inlinable
    public init(slot: UInt32, attempt: UInt32) {
        self.slot = slot
        self.attempt = attempt
    }
    /// Both halves in one word, for a session's command token.
    @inlinable public var token: UInt64 { UInt64(attempt) << 32 | UInt64(slot) }
    /// The halves of such a word.
    @inlinable
    public init(token: UInt64) {
        slot = UInt32(truncatingIfNeeded: token)
        attempt = UInt32(truncatingIfNeeded: token >> 32)
    }
}

/// What a request does, as far as paths and the guard care.
@frozen
public enum RequestKind: UInt8, Hashable, Sendable, CaseIterable {
    /// Blocks to the initiator.
    case read
    /// Blocks to the LUN.
    case write
    /// Blocks given back (UNMAP).
    case unmap
    /// One block written over a range (WRITE SAME).
    case writeSame
    /// Blocks replaced where they are as expected (COMPARE AND WRITE).
    case compareAndWrite
    /// SYNCHRONIZE CACHE.
    case flush
    /// Any other command.
    case other

    /// Whether it changes blocks, so that the order of two overlapping ones can be seen.
    @inlinable
    public var changesBlocks: Bool {
        switch self {
        case .write, .unmap, .writeSame, .compareAndWrite: true
        case .read, .flush, .other: false
        }
    }
}

/// What a request asks for; plain data.
@frozen
public struct RequestDescriptor: Hashable, Sendable {
    /// How a command is to be carried out.
    @frozen
    public struct Options: OptionSet, Hashable, Sendable {
        /// The options, one bit each.
        public let rawValue: UInt8
        /// Options by their bits.
        @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// FUA: acknowledged only once on stable storage.
        @inlinable public static var forceUnitAccess: Options { Options(rawValue: 1) }
        /// DPO: the blocks will hardly be wanted again.
        @inlinable public static var disablePageOut: Options { Options(rawValue: 2) }
        /// Doing it twice may differ from doing it once: it is never repeated while it may have been
        /// executed. COMPARE AND WRITE is so without saying.
        @inlinable public static var notRepeatable: Options { Options(rawValue: 4) }
    }

    /// What it does.
    public var kind: RequestKind
    /// How.
    public var options: Options
    /// For `.unmap` of several ranges: the first block of the smallest range that covers them all.
    public var lba: UInt64
    /// Blocks from `lba`; 0 where the kind has no range.
    public var blockCount: UInt32
    /// Bytes carried on the wire, either way.
    public var byteCount: UInt32

    /// A request of a kind, and its range in blocks.
    @inlinable
    public init(
        kind: RequestKind, lba: UInt64 = 0, blockCount: UInt32 = 0, byteCount: UInt32 = 0,
        options: Options = []
    ) {
        self.kind = kind
        self.lba = lba
        self.blockCount = blockCount
        self.byteCount = byteCount
        self.options = options
    }

    /// Whether it may be sent again although it may have been executed.
    @inlinable
    public var isRepeatable: Bool { kind != .compareAndWrite && !options.contains(.notRepeatable) }
}

/// How one attempt of a request ended on its path.
@frozen
public enum PathOutcome: Hashable, Sendable {
    /// It ended as it should.
    case good
    /// A status other than GOOD, with sense data where there was any.
    case status(SCSIStatus, SenseData?)
    /// An iSCSI response code other than "command completed at target" (RFC 7143 section 11.4.3).
    case targetFailure(UInt8)
    /// GOOD, but fewer bytes came or went than were asked for.
    case short(transferredByteCount: UInt32)
    /// The path gave the request back unanswered. `wasSent` is false only where not one byte of the
    /// command reached the transport.
    case returned(wasSent: Bool, PathFailureReason)

    /// One connection of the session went, and the command with it.
    var isLostWithConnection: Bool { if case .returned(_, .taskLost) = self { true } else { false } }
}

/// How a request ended for the caller.
@frozen
public enum RequestResult: Hashable, Sendable {
    /// It was carried out.
    case done
    /// It was not, or nobody knows; see the failure.
    case failed(RequestFailure)
}

/// Why a request failed.
@frozen
public enum RequestFailure: Hashable, Sendable {
    /// The LUN's own answer, which no other path would better.
    case status(SCSIStatus, SenseData?)
    /// The iSCSI target failed with this response code, on every try.
    case targetFailure(UInt8)
    /// The data ended early on every attempt.
    case shortTransfer(UInt32)
    /// No path for as long as `pdo-remove-period` allows.
    case noPathsAvailable
    /// `command-timeout` passed; a write may or may not have been done.
    case timedOut
    /// The path was lost, and a command that must not be repeated may have been executed.
    case outcomeUnknown
    /// The DSM declared the whole LUN failed.
    case lunFailed
    /// The caller took it back before it was sent.
    case cancelled
    /// The LUN was closed.
    case closed
}

/// Why a path does not work.
@frozen
public enum PathFailureReason: String, Hashable, Sendable, CaseIterable {
    /// The portal's host has nobody listening there.
    case connectionRefused = "connection refused"
    /// The peer, or something between, reset the connection (RST).
    case connectionReset = "connection reset"
    /// The target closed the connection.
    case connectionClosed = "connection closed by target"
    /// There is no way to the portal's address.
    case unreachable = "unreachable"
    /// The TCP connection was not answered in time.
    case connectTimedOut = "connecting timed out"
    /// The login was not finished within `login-timeout`.
    case loginTimedOut = "login timed out"
    /// The target refused the login.
    case loginRejected = "login rejected"
    /// CHAP failed, on one side or the other.
    case authenticationFailed = "authentication failed"
    /// Sent data is not acknowledged (`TCP_INFO`): the network, or the host behind it, is gone.
    case notAcknowledged = "no acknowledgement from the network"
    /// TCP acknowledges, but nothing spoke for as long as could be waited.
    case silent = "silent"
    /// The peer sent what RFC 7143 does not allow.
    case protocolError = "protocol error"
    /// A digest was wrong, beyond what recovery mends.
    case digestError = "digest error"
    /// An asynchronous message asked for the logout.
    case logoutRequested = "target asked for logout"
    /// An asynchronous message announced that connection or session are dropped.
    case targetDroppedSession = "target dropped the session"
    /// The target has no such unit for this initiator.
    case logicalUnitMissing = "no such logical unit"
    /// The unit is not ready, and another path may find it so.
    case notReady = "not ready"
    /// The kernel's device failed the request.
    case inputOutputError = "I/O error"
    /// The path goes on, but without the connection that carried this command, and nothing of it can land any more.
    case taskLost = "lost with one connection of the session"
    /// The command that verifies a path was answered badly.
    case verificationFailed = "verification failed"
    /// An administrator took it out.
    case takenOut = "taken out by hand"
    /// It was removed from the LUN.
    case removed = "removed"
    /// Something else; the detail says what.
    case other = "failed"
}

/// A path's failure with what the transport can say about it.
public struct PathFailure: Hashable, Sendable, CustomStringConvertible {
    /// Which kind, for programs.
    public var reason: PathFailureReason
    /// More for a reader, e.g. the target's login status; may be empty.
    public var detail: String
    /// A failure of a kind, and what else is known of it.
    public init(_ reason: PathFailureReason, detail: String = "") {
        self.reason = reason
        self.detail = detail
    }
    public var description: String { detail.isEmpty ? reason.rawValue : "\(reason.rawValue) (\(detail))" }
}
