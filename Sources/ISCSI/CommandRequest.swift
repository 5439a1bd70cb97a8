public import SCSI

/// One connection of a session: 0 is the leading one, at most `maxConnections - 1`.
@frozen
public struct ConnectionIndex: Hashable, Sendable {
    public let rawValue: Int
    @inlinable public init(rawValue: Int) { self.rawValue = rawValue }
    @inlinable public static var leading: ConnectionIndex { .init(rawValue: 0) }
}

/// Which way a command's data goes.
@frozen
public enum DataDirection: UInt8, Sendable {
    case none
    /// From the target into the buffer.
    case read
    /// From the buffer to the target.
    case write
}

/// One SCSI command for ``InitiatorSession/submit(_:on:at:)``.
///
/// The buffer stays the caller's, but must neither move nor be used, nor for a write change, until the
/// command's completion or abandonment was handed out.
@frozen
public struct SCSICommandRequest {
    /// Returned with the completion; the session gives it no meaning, and expects it to be unique among
    /// the commands outstanding only where task management refers to it.
    public var token: UInt64
    public var lun: LogicalUnitNumber
    public var cdb: CommandDescriptorBlock
    public var direction: DataDirection
    public var attribute: TaskAttribute
    /// Not nil where `byteCount` is over 0.
    public var buffer: UnsafeMutableRawPointer?
    /// 0…4,294,967,295; 0 where the direction is none.
    public var byteCount: Int

    /// Allocates nothing.
    @inlinable
    public init(
        token: UInt64, lun: LogicalUnitNumber, cdb: CommandDescriptorBlock, direction: DataDirection = .none,
        buffer: UnsafeMutableRawPointer? = nil, byteCount: Int = 0, attribute: TaskAttribute = .simple
    ) {
        self.token = token
        self.lun = lun
        self.cdb = cdb
        self.direction = direction
        self.attribute = attribute
        self.buffer = buffer
        self.byteCount = byteCount
    }
}

/// What became of a call to ``InitiatorSession/submit(_:on:at:)``.
@frozen
public enum SubmitResult: Sendable {
    case accepted
    /// Nothing was taken: the target's command window, the command table or the output queue is full.
    /// ``SessionEvent/windowOpened`` follows once there is room.
    case windowFull
    /// Nothing was taken: the session or this connection is not in its full-feature phase.
    case notLoggedIn
}
