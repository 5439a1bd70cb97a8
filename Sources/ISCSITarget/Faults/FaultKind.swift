public import ISCSI
public import SCSI

/// What goes wrong.
public enum FaultKind: Hashable, Sendable {
    /// Connections are reset (RST).
    case reset
    /// Neither reads nor answers, while TCP below still acknowledges: a stopped process.
    case silence
    /// Reads and executes, and nothing of it gets out.
    case mute
    /// Takes nothing in; what it already has is answered.
    case deaf
    /// What it sends trickles.
    case slowDrip(bytesPerSecond: Int)
    /// New connections are refused; those that exist stay.
    case refuse
    /// New connections are accepted, and their login is never answered.
    case hangInLogin
    /// Answered by this status (BUSY, TASK SET FULL) and not executed.
    case status(SCSIStatus)
    /// Answered by CHECK CONDITION and not executed.
    case sense(SenseData)
    /// The command's PDU is rejected and the command not executed.
    case reject(RejectReason)
    /// The next PDU with a header digest, or with a data digest, leaves with a wrong one.
    case digestCorruption(DigestPlace)
    /// An asynchronous message asks for a logout; connections that stay longer are reset.
    case asyncLogout(within: Duration)
    /// An asynchronous message says that the connections are dropped (one for each, on another connection of its session
    /// where there is one), and then they are reset.
    case asyncDrop(after: Duration)
    /// Executed and answered so much later.
    case delay(Duration)
    /// Executed so much later (nil: when the fault ends), even if its session is dead by then: a dead session's write
    /// that lands over newer data.
    case lateExecution(after: Duration?)
    /// Port groups change their state, and back when the fault ends.
    case aluaTransition(AccessState)
    /// The target loses its power and is back after this time.
    case restart(downFor: Duration)
    /// The unit becomes another: a new identity (16 bytes of NAA 6; nil: one made from the old).
    case identity([UInt8]?)
    /// The unit reports so many blocks.
    case capacity(blockCount: UInt64)

    public enum DigestPlace: String, Hashable, Sendable { case header, data }

    /// It is done to commands one by one, rather than to connections, portals or units.
    var isOfCommands: Bool {
        switch self {
        case .status, .sense, .reject, .delay, .lateExecution: true
        default: false
        }
    }
}

/// When and where a fault strikes. Conditions that are set must all hold.
public struct FaultTrigger: Hashable, Sendable {
    public enum Direction: String, Hashable, Sendable { case read, write }

    /// An index of the target's portals; nil: all.
    public var portal: Int?
    /// An iSCSI name; nil: all nodes.
    public var node: String?
    /// A portal group tag; nil: all.
    public var group: UInt16?
    /// A connection ID (CID) within its session; nil: all.
    public var connection: UInt16?
    /// A LUN index; nil: all.
    public var lun: Int?
    /// Commands that read, or write, blocks; nil: all commands.
    public var direction: Direction?
    /// Commands that name one of these blocks.
    public var blocks: ClosedRange<UInt64>?
    /// The number of the first command, of those that the conditions above let through, counted from 1.
    public var firstCommand: UInt64?
    /// So many commands are struck; nil: all of them.
    public var count: UInt64?
    /// Each with this probability, in millionths, so that a text and its value are one.
    public var chanceMillionths: UInt32?
    /// Begins so much after it was set.
    public var delay: Duration?
    /// Ends so much after it began.
    public var duration: Duration?

    public init() {}

    /// It waits for commands; otherwise it begins by itself.
    var needsCommand: Bool {
        direction != nil || blocks != nil || firstCommand != nil || count != nil || chanceMillionths != nil
    }

    /// Whether a command is one of those that are counted.
    func matches(
        _ command: DeviceCommand, unit: Int, portal: Int, group: UInt16, node: String, connection: UInt16?
    ) -> Bool {
        if let wanted = self.connection, wanted != connection { return false }
        if let wanted = self.portal, wanted != portal { return false }
        if let lun, lun != unit { return false }
        if let wanted = self.group, wanted != group { return false }
        if let wanted = self.node, wanted != node { return false }
        guard direction != nil || blocks != nil else { return true }
        guard case .success(let request) = command.request, let range = request.blockRange else { return false }
        if let blocks {
            guard range.blockCount > 0, range.lba <= blocks.upperBound, range.lastLBA >= blocks.lowerBound else { return false }
        }
        switch (direction, request) {
        case (nil, _), (.read, .read): return true
        case (.write, .write), (.write, .writeAndVerify), (.write, .writeAtomic), (.write, .writeSame),
            (.write, .compareAndWrite), (.write, .orWrite):
            return true
        default: return false
        }
    }
}

/// A fault and when it strikes; as text, `KIND[=VALUE][:option=value,…]`, for example `busy:portal=2,from=100,count=5`.
public struct FaultCommand: Hashable, Sendable {
    public var kind: FaultKind
    public var trigger: FaultTrigger

    public init(_ kind: FaultKind, _ trigger: FaultTrigger = FaultTrigger()) {
        self.kind = kind
        self.trigger = trigger
    }
}
