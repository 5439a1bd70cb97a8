package import AsyncIO
import ISCSI
package import Multipath
import Timebase

/// One TCP connection that a session is to consist of.
package struct ISCSIConnectionSettings: Hashable, Sendable {
    package var portal: SocketAddress
    package var source: SocketAddress?
    /// For connection policies that use them.
    package var role: PathRole
    package var weight: UInt16

    package init(portal: SocketAddress, source: SocketAddress?, role: PathRole = .primary, weight: UInt16 = 1) {
        self.portal = portal
        self.source = source
        self.role = role
        self.weight = weight
    }
}

/// What happened to one connection of a session; connections are numbered from 1 in configured order.
package enum ConnectionChange: Hashable, Sendable {
    /// The target grants fewer connections than are configured.
    case limited(asked: Int, granted: Int)
    case lost(Int, PathFailure)
    case regained(Int)
}

/// One connection of a session that has several: its socket, and its own way back when it is lost.
final class PathConnection {
    enum State {
        case idle
        /// The target grants fewer connections than are configured.
        case notGranted
        case connecting(SocketID)
        case loggingIn(SocketID)
        case open(SocketID)
        /// Takes no more commands; it will be logged out.
        case leaving(SocketID)
        case failed(PathFailure)
        /// By hand, until it is restored.
        case takenOut
    }

    /// Its place in the configured order.
    let number: Int
    let settings: ISCSIConnectionSettings
    /// Which connection of the present session it is.
    var index = ConnectionIndex.leading
    var state = State.idle
    var isStalled = false
    var isSlow = false
    var wasLost = false
    var usableSince = Instant.zero
    /// The session sees to the way back itself, and says when a transport is wanted.
    var isRecovering = false
    /// By hand: it is not connected, and leaves once it can.
    var isTakenOut = false
    /// Its loss was told and not yet its return.
    var isToldLost = false
    var schedule = RecoverySchedule()
    /// When it last logged in.
    var openedAt = Instant.zero
    /// It was lost before any command was answered on it.
    var wasOfNoUse = false
    /// When it comes back from a loss of that kind, and the pauses before.
    var returnsAt = Instant.zero
    var returnSchedule = RecoverySchedule()
    /// When it is tried again, or when connecting has taken too long.
    var deadline = Instant.distantFuture
    var localAddress: SocketAddress?
    var requestCount: UInt64 = 0
    var sendIsRequested = false
    private unowned(unsafe) let path: ISCSIPath

    init(number: Int, settings: ISCSIConnectionSettings, path: ISCSIPath) {
        self.number = number
        self.settings = settings
        self.path = path
    }

    /// It has been of use, or a new session begins.
    func forgetReturns() {
        wasOfNoUse = false
        returnsAt = .zero
        returnSchedule.reset()
    }

    var socket: SocketID? {
        switch state {
        case .connecting(let socket), .loggingIn(let socket), .open(let socket), .leaving(let socket): socket
        case .idle, .notGranted, .failed, .takenOut: nil
        }
    }

    /// Whether it takes commands.
    var isOpen: Bool { if case .open = state { true } else { false } }

    var stateName: String {
        switch state {
        case .idle: "idle"
        case .notGranted: "not granted"
        case .connecting: "connecting"
        case .loggingIn: "logging in"
        case .open: isStalled ? "stalled" : "logged in"
        case .leaving: "logging out"
        case .failed: "failed"
        case .takenOut: "taken out"
        }
    }
}

extension PathConnection: SocketHandler {
    func socketConnected(_ socket: SocketID) {
        guard case .connecting(socket) = state else { return }
        state = .loggingIn(socket)
        localAddress = path.port.localAddress(of: socket)
        path.connected(self, socket)
    }

    func socketOutput(_ socket: SocketID, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        sendIsRequested = false
        return path.session.output(index, into: segments)
    }

    func socketSent(_ socket: SocketID, byteCount: Int) {
        path.session.outputSent(index, byteCount: byteCount)
        path.sent()
    }

    func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer { path.session.input(index) }

    func socketReceived(_ socket: SocketID, placedByteCount: Int, spill: UnsafeRawBufferPointer) {
        path.session.received(index, placedByteCount: placedByteCount, spill: spill, at: path.port.now)
        path.pump()
    }

    func socketClosed(_ socket: SocketID, reason: SocketCloseReason) {
        guard socket == self.socket else { return }
        let wasConnecting = if case .connecting = state { true } else { false }
        state = .failed(PathFailure(reason))
        path.closed(self, reason, wasConnecting: wasConnecting)
    }
}
