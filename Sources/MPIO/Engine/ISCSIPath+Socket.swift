package import AsyncIO
import ISCSI
import Multipath

// The socket of a session with a single connection; where there are several, each ``PathConnection`` has its own.
extension ISCSIPath: SocketHandler {
    package func socketConnected(_ socket: SocketID) {
        guard case .connecting(socket) = state else { return }
        leadingConnected(socket)
    }

    func leadingConnected(_ socket: SocketID) {
        state = .loggingIn(socket)
        // From here on the session sees to the time; a moment that passes would be named again and again.
        connectDeadline = .distantFuture
        localAddress = port.localAddress(of: socket)
        session.connectionOpened(.leading, at: port.now)
        pump()
    }

    package func socketOutput(
        _ socket: SocketID, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>
    ) -> Int {
        sendIsRequested = false
        return session.output(.leading, into: segments)
    }

    package func socketSent(_ socket: SocketID, byteCount: Int) {
        session.outputSent(.leading, byteCount: byteCount)
        // Sending is what ends a command whose status came early, and what opens the output queue.
        if session.hasResults || session.hasEnded || !backlog.isEmpty { pump() } else { rearmTimer() }
    }

    package func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer { session.input(.leading) }

    package func socketReceived(_ socket: SocketID, placedByteCount: Int, spill: UnsafeRawBufferPointer) {
        session.received(.leading, placedByteCount: placedByteCount, spill: spill, at: port.now)
        pump()
    }

    package func socketClosed(_ socket: SocketID, reason: SocketCloseReason) {
        guard socket == socketInUse else { return }
        end(PathFailure(reason), closing: nil)
    }
}
