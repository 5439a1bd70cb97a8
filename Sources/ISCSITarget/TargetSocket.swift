import AsyncIO
import ISCSI
import Timebase

/// One accepted connection: carries bytes between the port and a ``TargetConnection``.
final class TargetSocket: SocketHandler, TimerHandler {
    let socket: SocketID
    let portal: Int
    let connection: TargetConnection
    unowned let target: EmbeddedTarget
    private var isPaused = false
    private var isSilent = false
    private var timer: TimerID?
    private(set) var isClosed = false

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
        isSilent ? 0 : connection.output(into: segments)
    }

    func socketSent(_ socket: SocketID, byteCount: Int) {
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
        guard !isClosed else { return }
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
        guard !isClosed, !isSilent, connection.needsToSend else { return }
        port.requestSend(socket)
    }

    /// The connection ended: what is owed to the peer goes out first, where it ended in order.
    func connectionEnded(_ reason: TargetConnectionEnd) {
        guard !isClosed else { return }
        if reason.isGraceful, !connection.isDrained, !isSilent {
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
        connection.owner = nil
        target.forget(self)
    }

    /// Neither reads nor answers, as a stopped process.
    func setSilent(_ silent: Bool) {
        guard !isClosed, silent != isSilent else { return }
        isSilent = silent
        if silent {
            port.setReceiving(false, on: socket)
        } else {
            if !isPaused { port.setReceiving(true, on: socket) }
            requestSend()
        }
    }

    private func resumeIfPossible() {
        guard isPaused, !connection.isCongested else { return }
        isPaused = false
        if !isSilent { port.setReceiving(true, on: socket) }
    }

    // MARK: time

    private func armTimer() {
        let deadline = connection.nextDeadline
        guard !isClosed, deadline < .distantFuture else { return }
        timer = port.setTimer(at: deadline, handler: self, token: 0)
    }

    func timerFired(_ timer: TimerID, token: UInt64) {
        self.timer = nil
        guard !isClosed else { return }
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
