public import SCSI

/// A path of one LUN: its row in the LUN's path table, never reused while the LUN lives.
@frozen
public struct PathIndex: Hashable, Sendable {
    public var rawValue: Int32
    @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }
    @inlinable public init(_ index: Int) { rawValue = Int32(truncatingIfNeeded: index) }
    @inlinable public var index: Int { Int(rawValue) }
}

/// A request of one LUN. `slot` stays the same from admission to the end and indexes the owner's own
/// table; `attempt` changes each time the request is issued, so that the late answer of an abandoned
/// copy is told from the answer of the live one.
@frozen
public struct RequestIndex: Hashable, Sendable {
    public var slot: UInt32
    public var attempt: UInt32
    @inlinable
    public init(slot: UInt32, attempt: UInt32) {
        self.slot = slot
        self.attempt = attempt
    }
    /// Both halves in one word, for a session's command token.
    @inlinable public var token: UInt64 { UInt64(attempt) << 32 | UInt64(slot) }
    @inlinable
    public init(token: UInt64) {
        slot = UInt32(truncatingIfNeeded: token)
        attempt = UInt32(truncatingIfNeeded: token >> 32)
    }
}

@frozen
public enum RequestKind: UInt8, Hashable, Sendable, CaseIterable {
    case read
    case write
    case unmap
    case writeSame
    case compareAndWrite
    /// SYNCHRONIZE CACHE.
    case flush
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
    @frozen
    public struct Options: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
        @inlinable public static var forceUnitAccess: Options { Options(rawValue: 1) }
        @inlinable public static var disablePageOut: Options { Options(rawValue: 2) }
        /// Doing it twice may differ from doing it once: it is never repeated while it may have been
        /// executed. COMPARE AND WRITE is so without saying.
        @inlinable public static var notRepeatable: Options { Options(rawValue: 4) }
    }

    public var kind: RequestKind
    public var options: Options
    /// For `.unmap` of several ranges: the first block of the smallest range that covers them all.
    public var lba: UInt64
    /// Blocks from `lba`; 0 where the kind has no range.
    public var blockCount: UInt32
    /// Bytes carried on the wire, either way.
    public var byteCount: UInt32

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

    @inlinable
    public var isRepeatable: Bool { kind != .compareAndWrite && !options.contains(.notRepeatable) }
}

/// How one attempt of a request ended on its path.
@frozen
public enum PathOutcome: Hashable, Sendable {
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
    case done
    case failed(RequestFailure)
}

/// Why a request failed.
@frozen
public enum RequestFailure: Hashable, Sendable {
    /// The LUN's own answer, which no other path would better.
    case status(SCSIStatus, SenseData?)
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
    case connectionRefused = "connection refused"
    case connectionReset = "connection reset"
    case connectionClosed = "connection closed by target"
    case unreachable = "unreachable"
    case connectTimedOut = "connecting timed out"
    case loginTimedOut = "login timed out"
    case loginRejected = "login rejected"
    case authenticationFailed = "authentication failed"
    case notAcknowledged = "no acknowledgement from the network"
    case silent = "silent"
    case protocolError = "protocol error"
    case digestError = "digest error"
    case logoutRequested = "target asked for logout"
    case targetDroppedSession = "target dropped the session"
    case logicalUnitMissing = "no such logical unit"
    case notReady = "not ready"
    case inputOutputError = "I/O error"
    /// The path goes on, but without the connection that carried this command, and nothing of it can land any more.
    case taskLost = "lost with one connection of the session"
    case verificationFailed = "verification failed"
    case takenOut = "taken out by hand"
    case removed = "removed"
    case other = "failed"
}

/// A path's failure with what the transport can say about it.
public struct PathFailure: Hashable, Sendable, CustomStringConvertible {
    public var reason: PathFailureReason
    /// More for a reader, e.g. the target's login status; may be empty.
    public var detail: String
    public init(_ reason: PathFailureReason, detail: String = "") {
        self.reason = reason
        self.detail = detail
    }
    public var description: String { detail.isEmpty ? reason.rawValue : "\(reason.rawValue) (\(detail))" }
}
