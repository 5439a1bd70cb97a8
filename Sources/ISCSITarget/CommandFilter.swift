public import ISCSI
public import SCSI

/// What becomes of a command before the device server sees it.
public enum CommandDecision: Sendable {
    case execute
    /// Answered so, and never executed.
    case answer(SCSIStatus, SenseData?)
    /// Kept until ``EmbeddedTarget/release(_:)`` or until it is aborted.
    case hold
}

/// A stage between the protocol and the device server, where faults are played. Called on the port's thread
/// for each command; it must not call back into the target from inside.
public protocol CommandFilter: AnyObject {
    /// `unit` is the LUN's index, `portal` that of the configuration.
    func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision
    /// A command that is not immediate has left its session's order (CmdSN, RFC 7143 section 4.2.2.1): it is about to be
    /// decided on.
    func ordered(_ command: DeviceCommand, cmdSN: UInt32, in session: TargetSession)
    /// Held commands stay when their session ends, and are executed when released: the late write that a
    /// real array may do. Aborting them by task management still ends them.
    var holdsOutliveSessions: Bool { get }
}

extension CommandFilter {
    public func ordered(_ command: DeviceCommand, cmdSN: UInt32, in session: TargetSession) {}
}

/// Requests and bytes that came through one portal for one unit.
public struct TargetCounters: Hashable, Sendable {
    /// READ commands of all sizes, and the bytes they asked for.
    public var reads: UInt64 = 0
    public var bytesRead: UInt64 = 0
    /// Commands that write blocks sent with them (WRITE, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE).
    public var writes: UInt64 = 0
    public var bytesWritten: UInt64 = 0
    /// All other commands.
    public var others: UInt64 = 0

    public init() {}

    mutating func count(_ command: DeviceCommand, blockSize: Int) {
        guard case .success(let request) = command.request else {
            others += 1
            return
        }
        switch request {
        case .read(let range, _):
            reads += 1
            bytesRead &+= UInt64(range.blockCount) &* UInt64(blockSize)
        case .write(let range, _), .writeAndVerify(let range, _, _), .orWrite(let range, _),
            .writeAtomic(let range, _, _), .compareAndWrite(let range, _):
            writes += 1
            bytesWritten &+= UInt64(range.blockCount) &* UInt64(blockSize)
        default: others += 1
        }
    }

    public static func + (left: TargetCounters, right: TargetCounters) -> TargetCounters {
        var sum = left
        sum.reads += right.reads
        sum.bytesRead &+= right.bytesRead
        sum.writes += right.writes
        sum.bytesWritten &+= right.bytesWritten
        sum.others += right.others
        return sum
    }
}
