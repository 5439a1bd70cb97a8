import AsyncIO
import ISCSI
import Timebase

/// How a connection is kept from working.
struct LinkImpairment: Equatable {
    /// Nothing is read.
    var isDeaf = false
    /// Nothing is sent.
    var isMute = false
    /// No more than this is sent in a second.
    var bytesPerSecond: Int?

    static let silence = LinkImpairment(isDeaf: true, isMute: true)

    /// Both at once.
    func union(_ other: LinkImpairment) -> LinkImpairment {
        LinkImpairment(
            isDeaf: isDeaf || other.isDeaf, isMute: isMute || other.isMute,
            bytesPerSecond: [bytesPerSecond, other.bytesPerSecond].compactMap { $0 }.min())
    }
}

/// One accepted connection: carries bytes between the port and a ``TargetConnection``.
final class TargetSocket: SocketHandler, TimerHandler {
    let socket: SocketID
    let portal: Int
    let connection: TargetConnection
    unowned let target: EmbeddedTarget
    @exclusivity(unchecked) private var isPaused = false
    @exclusivity(unchecked) private var impairment = LinkImpairment()
    /// Bytes that a drip lets through before its timer fires again.
    private var allowance = 0
    private var dripTimer: TimerID?
    private static let dripToken: UInt64 = 1
    private static let dripInterval: Duration = .milliseconds(100)
    /// It came while logins were made to hang.
    var hangs = false
    /// A fault asked it to log out.
    var askedToLeave = false
    private var timer: TimerID?
    @exclusivity(unchecked) private(set) var isClosed = false
    @exclusivity(unchecked) private var isLoggedIn = false
    /// CID, once a login said it.
    var connectionID: UInt16? { connection.isFullFeature ? connection.connectionID : nil }

    private var port: any IOPort { target.port }

    init(socket: SocketID, portal: Int, connection: TargetConnection, target: EmbeddedTarget) {
        self.socket = socket
        self.portal = portal
        self.connection = connection
        self.target = target
        connection.owner = self
    }

    func start() { armTimer() }

    // MARK: SocketHandler

    func socketConnected(_ socket: SocketID) {}

    func socketOutput(_ socket: SocketID, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        if impairment.isMute { return 0 }
        return impairment.bytesPerSecond == nil ? connection.output(into: segments) : drip(into: segments)
    }

    func socketSent(_ socket: SocketID, byteCount: Int) {
        if impairment.bytesPerSecond != nil { allowance = max(0, allowance - byteCount) }
        connection.sent(byteCount: byteCount)
        if let reason = connection.endReason {
            if reason.isGraceful, connection.isDrained { close(.graceful) }
            return
        }
        resumeIfPossible()
    }

    func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer { connection.inputWindow() }

    func socketReceived(_ socket: SocketID, placedByteCount: Int, spill: UnsafeRawBufferPointer) {
        connection.received(placedByteCount: placedByteCount, spill: spill, at: port.now)
        target.pump(connection)
        target.noteInput()
        guard !isClosed else { return }
        if !isLoggedIn, connection.isFullFeature {
            isLoggedIn = true
            // Faults of this connection begin with its login.
            if target.faults != nil { setImpairment(target.impairment(of: self)) }
        }
        requestSend()
        if connection.isCongested, !isPaused {
            isPaused = true
            port.setReceiving(false, on: socket)
        }
    }

    func socketClosed(_ socket: SocketID, reason: SocketCloseReason) {
        isClosed = true
        connection.peerClosed()
        release()
        target.pump(connection)
    }

    // MARK: for the target

    func requestSend() {
        guard !isClosed, !impairment.isMute, connection.needsToSend else { return }
        port.requestSend(socket)
    }

    /// The connection ended: what is owed to the peer goes out first, where it ended in order.
    func connectionEnded(_ reason: TargetConnectionEnd) {
        guard !isClosed else { return }
        if reason.isGraceful, !connection.isDrained, !impairment.isMute {
            port.setReceiving(false, on: socket)
            port.requestSend(socket)
        } else {
            close(reason.isGraceful ? .graceful : .reset)
        }
    }

    func close(_ mode: CloseMode) {
        guard !isClosed else { return }
        isClosed = true
        port.close(socket, mode: mode)
        connection.end(.dropped)
        release()
    }

    private func release() {
        if let timer { port.cancelTimer(timer) }
        timer = nil
        if let dripTimer { port.cancelTimer(dripTimer) }
        dripTimer = nil
        connection.owner = nil
        target.forget(self)
    }

    func setImpairment(_ impairment: LinkImpairment) {
        guard !isClosed, impairment != self.impairment else { return }
        let old = self.impairment
        self.impairment = impairment
        if impairment.isDeaf, !old.isDeaf { port.setReceiving(false, on: socket) }
        if !impairment.isDeaf, old.isDeaf, !isPaused { port.setReceiving(true, on: socket) }
        if impairment.bytesPerSecond != nil, old.bytesPerSecond == nil { allowance = 0 }
        if let rate = impairment.bytesPerSecond { armDrip(rate) }
        requestSend()
    }

    // MARK: a drip

    private func drip(into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        guard allowance > 0 else { return 0 }
        let count = connection.output(into: segments)
        var left = allowance
        for index in 0..<count {
            if segments[index].count >= left {
                segments[index] = UnsafeRawBufferPointer(rebasing: segments[index][..<left])
                return index + 1
            }
            left -= segments[index].count
        }
        return count
    }

    private func armDrip(_ rate: Int) {
        guard dripTimer == nil else { return }
        dripTimer = port.setTimer(at: port.now + Self.dripInterval, handler: self, token: Self.dripToken)
    }

    private func dripped() {
        dripTimer = nil
        guard !isClosed, let rate = impairment.bytesPerSecond else { return }
        allowance = max(1, rate / 10)
        armDrip(rate)
        requestSend()
    }

    private func resumeIfPossible() {
        guard isPaused, !connection.isCongested else { return }
        isPaused = false
        if !impairment.isDeaf { port.setReceiving(true, on: socket) }
    }

    // MARK: time

    private func armTimer() {
        let deadline = connection.nextDeadline
        guard !isClosed, deadline < .distantFuture else { return }
        timer = port.setTimer(at: deadline, handler: self, token: 0)
    }

    func timerFired(_ timer: TimerID, token: UInt64) {
        if token == Self.dripToken { return dripped() }
        self.timer = nil
        guard !isClosed else { return }
        let isSilent = impairment.isDeaf || impairment.isMute
        if !isSilent { connection.timerFired(at: port.now) }
        target.pump(connection)
        requestSend()
        // A silent connection's deadline is past: look again later.
        guard !isClosed else { return }
        if isSilent, connection.nextDeadline <= port.now {
            self.timer = port.setTimer(at: port.now + .seconds(1), handler: self, token: 0)
        } else {
            armTimer()
        }
    }
}
