public import Timebase

/// A socket of one ``IOPort``. Never reused: a late event for a closed socket finds nobody.
@frozen
public struct SocketID: Hashable, Sendable {
    public let rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// A listening socket of one ``IOPort``.
@frozen
public struct ListenerID: Hashable, Sendable {
    public let rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// An open file or block device of one ``IOPort``.
@frozen
public struct FileID: Hashable, Sendable {
    public let rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// A pending timer of one ``IOPort``.
@frozen
public struct TimerID: Hashable, Sendable {
    public let rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// What the engine and the embedded target need of the world, and all that they know of it.
///
/// `LibaioReactor` implements it on libaio; the simulator implements it on a virtual network and clock.
///
/// **Threads.** Every method is called on, and every handler is called from, the port's own thread.
/// No handler is called from inside a call into the port: results come in a later step of the loop.
///
/// **Ownership.** The port holds a handler strongly until the object it serves is closed (or the timer
/// fired). After `close` returns, no handler is called for that socket and no memory that a handler
/// lent to the port is touched again. File operations cannot be taken back: their memory must live
/// until ``FileHandler/fileCompleted(_:token:result:)``.
public protocol IOPort: AnyObject {
    /// The moment at which the current turn of the loop began, refreshed after it slept.
    var now: Instant { get }

    /// The exact moment, read from the clock; for latency figures.
    func readClock() -> Instant

    // MARK: Sockets

    /// Begins a TCP (or Unix stream) connection, from `source` (address; port 0 = any) where given.
    /// Its result arrives as ``SocketHandler/socketConnected(_:)`` or ``SocketHandler/socketClosed(_:reason:)``.
    func connect(to destination: SocketAddress, from source: SocketAddress?, handler: any SocketHandler) -> SocketID

    /// Listens, and accepts until ``close(_:)-(ListenerID)``. Port 0 picks one: see ``localAddress(of:)-(ListenerID)``.
    func listen(on address: SocketAddress, handler: any ListenerHandler) throws(IOError) -> ListenerID

    /// Says that the handler has output: it is asked for it once at the end of this turn, so that all
    /// that a turn produced leaves in one vectored send. Calling it again in the same turn costs nothing.
    func requestSend(_ socket: SocketID)

    /// Stops or resumes taking input from a socket (a target whose queue is full). TCP pushes back.
    func setReceiving(_ enabled: Bool, on socket: SocketID)

    /// Closes. `.graceful` lets the kernel deliver what it already has; `.reset` discards it (RST), so
    /// that a dead path's queued bytes cannot arrive late.
    func close(_ socket: SocketID, mode: CloseMode)
    func close(_ listener: ListenerID)

    func localAddress(of socket: SocketID) -> SocketAddress?
    func localAddress(of listener: ListenerID) -> SocketAddress?

    /// What TCP itself knows of the peer (`TCP_INFO`); nil where the socket is not connected.
    func transportHealth(of socket: SocketID) -> TransportHealth?

    // MARK: Files

    /// Opens a file or block device. Blocks briefly.
    func openFile(_ path: String, options: FileOptions) throws(IOError) -> FileID
    func fileProperties(_ file: FileID) throws(IOError) -> FileProperties
    /// Queues one operation; it is submitted with the turn's other work. `memory` must be aligned to the
    /// file's ``FileProperties/directAlignment`` where it was opened with `.direct`, and stay alive until completed.
    func submit(_ operation: FileOperation, on file: FileID, handler: any FileHandler, token: UInt64)
    /// Closes once the operations under way are done; their completions still arrive.
    func close(_ file: FileID)

    // MARK: Time and turns

    /// Calls the handler once, not before `deadline`.
    func setTimer(at deadline: Instant, handler: any TimerHandler, token: UInt64) -> TimerID
    /// A timer that already fired is ignored.
    func cancelTimer(_ timer: TimerID)
    /// Calls the handler once, in the next step of the loop, before it sleeps.
    func schedule(_ handler: any TurnHandler)
    /// From now on what arrives may be left lying until so many nanoseconds after the turn before, so
    /// that one receive finds several answers; 0, as at the start, takes everything at once. A hint, which
    /// a port may ignore.
    func coalesceReceives(nanoseconds: UInt64)
    /// Whether, of late, pieces came that are too large for one receive. A hint.
    var isReceivingLargePieces: Bool { get }
}

extension IOPort {
    public func coalesceReceives(nanoseconds: UInt64) {}
    public var isReceivingLargePieces: Bool { false }
}

public enum CloseMode: Sendable { case graceful, reset }

public protocol SocketHandler: AnyObject {
    func socketConnected(_ socket: SocketID)

    /// Fills `segments` with what to send next, in order, and returns how many it filled; 0 means
    /// nothing. The memory named must stay unchanged until it was reported sent or the socket is closed.
    /// Called again until it returns 0, as far as the peer takes bytes.
    func socketOutput(_ socket: SocketID, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int

    /// The kernel took the next `byteCount` bytes of what ``socketOutput(_:into:)`` named.
    func socketSent(_ socket: SocketID, byteCount: Int)

    /// Where the next bytes should land without a copy; empty where the handler wants them in the spill. No longer than
    /// what the peer has announced: a port may wait for much of it before it receives. May be asked without a receive.
    func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer

    /// Bytes came: the first `placedByteCount` are in the buffer that ``socketInput(_:)`` named, the rest in
    /// `spill`, which is valid during the call only. All of it must be taken. May close the socket.
    func socketReceived(_ socket: SocketID, placedByteCount: Int, spill: UnsafeRawBufferPointer)

    /// The connection could not be made, or ended. Called at most once, never after `close`; the
    /// socket is gone by then.
    func socketClosed(_ socket: SocketID, reason: SocketCloseReason)
}

public protocol ListenerHandler: AnyObject {
    /// A connection arrived; its handler, or nil to refuse it (it is then reset).
    func listener(_ listener: ListenerID, accepted socket: SocketID, from peer: SocketAddress) -> (any SocketHandler)?
}

public protocol FileHandler: AnyObject {
    /// `result` is the number of bytes transferred, or the error.
    func fileCompleted(_ file: FileID, token: UInt64, result: Result<Int, IOError>)
}

public protocol TimerHandler: AnyObject {
    func timerFired(_ timer: TimerID, token: UInt64)
}

public protocol TurnHandler: AnyObject {
    func turn()
}

public enum SocketCloseReason: Error, Hashable, Sendable {
    /// The peer ended its side in an orderly way.
    case endOfStream
    case connectFailed(IOError)
    case failed(IOError)
}

public enum FileOperation {
    case read(into: UnsafeMutableRawBufferPointer, at: UInt64)
    case write(from: UnsafeRawBufferPointer, at: UInt64)
    /// Data and the metadata needed to read it back reach stable storage.
    case synchronize
    /// Frees the range, which then reads as zeroes. May block where the file system does.
    case deallocate(offset: UInt64, byteCount: UInt64)
    /// The offset of the next byte from here on that is backed by storage; `ENXIO` where none is. May block.
    case findData(from: UInt64)
    /// The offset of the next byte that is not, at most the file's end; `ENXIO` from the end on. May block.
    case findHole(from: UInt64)
}

public struct FileOptions: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let readOnly = FileOptions(rawValue: 1)
    /// O_DIRECT: past the page cache, truly asynchronous.
    public static let direct = FileOptions(rawValue: 2)
    public static let create = FileOptions(rawValue: 4)
}

public struct FileProperties: Sendable {
    public var byteCount: UInt64
    public var isBlockDevice: Bool
    /// Logical block size in bytes: of the device, or 512 for a file.
    public var blockSize: Int
    /// Offsets, lengths and memory must be multiples of it under `.direct`; 1 otherwise.
    public var directAlignment: Int
    /// Identifies the underlying file or device on this machine: (st_dev, st_ino) or (0, st_rdev).
    public var deviceNumber: UInt64
    public var fileNumber: UInt64

    public init(
        byteCount: UInt64, isBlockDevice: Bool, blockSize: Int, directAlignment: Int,
        deviceNumber: UInt64, fileNumber: UInt64
    ) {
        self.byteCount = byteCount
        self.isBlockDevice = isBlockDevice
        self.blockSize = blockSize
        self.directAlignment = directAlignment
        self.deviceNumber = deviceNumber
        self.fileNumber = fileNumber
    }
}

/// What TCP itself knows of a connection (Linux `struct tcp_info`), to tell a dead network from a
/// silent program: a stopped process's kernel still acknowledges.
public struct TransportHealth: Hashable, Sendable {
    /// Bytes sent that the peer's kernel has not acknowledged, unsent ones included.
    public var unacknowledgedByteCount: Int
    /// Time since the peer's kernel last acknowledged anything.
    public var sinceLastAcknowledgement: Duration
    /// Retransmissions of the oldest unacknowledged segment that got no answer, zero-window probes included.
    public var unansweredRetransmissions: Int

    public init(unacknowledgedByteCount: Int, sinceLastAcknowledgement: Duration, unansweredRetransmissions: Int) {
        self.unacknowledgedByteCount = unacknowledgedByteCount
        self.sinceLastAcknowledgement = sinceLastAcknowledgement
        self.unansweredRetransmissions = unansweredRetransmissions
    }
}

/// A failed system call: which, on what, and the error number.
public struct IOError: Error, Hashable, Sendable {
    /// The `errno` value.
    public var code: Int32
    /// What was attempted, in words fit for a message: "connect to 10.0.0.1:3260".
    public var operation: String

    public init(code: Int32, operation: String) {
        self.code = code
        self.operation = operation
    }
}
