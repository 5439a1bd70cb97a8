public import SCSI

/// How a command ended. One command has one outcome, in a completion; a command that a session failure
/// left open has none, and is handed back as ``SessionEvent/commandAbandoned(token:wasSent:)``.
@frozen
public enum CommandOutcome: Hashable, Sendable {
    /// The device server ended it. Sense data where the target sent any that can be parsed.
    case status(SCSIStatus, sense: SenseData?)
    /// The iSCSI target failed to carry it out (SCSI Response with a response code other than 00h;
    /// 01h is "target failure", 80h–FFh are the vendor's); there is no SCSI status.
    case targetFailure(responseCode: UInt8)
    /// The target refused the command's PDU; the device server never saw it.
    case rejected(RejectReason)
    /// A task management function that was answered "function complete" ended it.
    case aborted(byTaskManagement: UInt64)
}

/// The end of one command. Plain data, handed out by ``InitiatorSession/nextCompletion()``.
@frozen
public struct CommandCompletion: Sendable {
    public var token: UInt64
    public var outcome: CommandOutcome
    public var residual: Residual
    /// Bytes that reached the buffer (counted as they came), or, for a write, that the target says it
    /// took. Never over the request's `byteCount`. Where a target says GOOD and cannot have all of a write's
    /// data, `residual` is an underflow and this less than `byteCount`, how much less is not exact.
    public var transferredByteCount: Int

    @inlinable
    public init(token: UInt64, outcome: CommandOutcome, residual: Residual, transferredByteCount: Int) {
        self.token = token
        self.outcome = outcome
        self.residual = residual
        self.transferredByteCount = transferredByteCount
    }
}

/// A ring of completions in preallocated memory. Each command outstanding owns one place in it, so a
/// ring as large as the command table never overflows.
struct CompletionRing: ~Copyable {
    private let slots: UnsafeMutablePointer<CommandCompletion>
    private let mask: Int
    private var head = 0
    private var tail = 0

    init(capacity: Int) {
        var size = 2
        while size < capacity { size *= 2 }
        slots = .allocate(capacity: size)
        mask = size - 1
    }

    deinit { slots.deallocate() }

    mutating func removeAll() {
        head = 0
        tail = 0
    }

    var count: Int { tail &- head }
    var hasRoom: Bool { tail &- head <= mask }

    @inline(__always)
    mutating func append(_ completion: CommandCompletion) {
        precondition(hasRoom, "completion ring overflow")
        (slots + (tail & mask)).initialize(to: completion)
        tail &+= 1
    }

    @inline(__always)
    mutating func removeFirst() -> CommandCompletion? {
        guard head != tail else { return nil }
        let completion = slots[head & mask]
        head &+= 1
        return completion
    }
}
