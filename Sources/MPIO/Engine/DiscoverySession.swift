import AsyncIO
import ISCSI
import Multipath
import Timebase

/// One question to one portal (RFC 7143 section 4.3): connect, log in to a discovery session, SendTargets, log out.
/// Confined to the port's thread; reports once.
final class DiscoverySession {
    private let host: EngineHost
    private let settings: SessionSettings
    private let source: SocketAddress?
    private var destination: SocketAddress
    private var session: InitiatorSession
    private var socket: SocketID?
    private var timer: TimerID?
    private var deadline: Instant
    private var redirectCount = 0
    private var targets: [DiscoveredTarget]?
    private var report: ((Result<[DiscoveredTarget], InventoryFailure>) -> Void)?

    init(
        portal: SocketAddress, source: SocketAddress?, settings: SessionSettings, host: EngineHost,
        report: @escaping (Result<[DiscoveredTarget], InventoryFailure>) -> Void
    ) {
        precondition(settings.login.sessionType == .discovery, "SendTargets All needs a discovery session")
        self.host = host
        self.settings = settings
        self.source = source
        self.report = report
        destination = portal
        session = InitiatorSession(settings: settings, cryptography: host.cryptography, crc32c: host.crc32c)
        deadline = .distantFuture
    }

    /// The port holds the session from here on until it reported.
    func start() {
        // Redirections included: a user waits for the answer.
        deadline = host.port.now + settings.loginTimeout + settings.loginTimeout
        open()
    }

    private func open() {
        session = InitiatorSession(settings: settings, cryptography: host.cryptography, crc32c: host.crc32c)
        socket = host.port.connect(to: destination, from: source, handler: self)
        rearm(at: min(deadline, host.port.now + settings.loginTimeout))
    }

    private func finish(_ result: Result<[DiscoveredTarget], InventoryFailure>, closing mode: CloseMode?) {
        if let socket, let mode { host.port.close(socket, mode: mode) }
        socket = nil
        if let timer { host.port.cancelTimer(timer) }
        timer = nil
        let report = report
        self.report = nil
        report?(result)
    }

    private func rearm(at moment: Instant) {
        if let timer { host.port.cancelTimer(timer) }
        timer = host.port.setTimer(at: moment, handler: self, token: 0)
    }

    /// Acts on what the session says, and sends what it has to send.
    private func pump() {
        while let event = session.nextEvent() {
            switch event {
            case .loggedIn: _ = session.discoverTargets(.all, at: host.port.now)
            case .targets(let found):
                targets = found
                _ = session.beginLogout(at: host.port.now)
            case .discoveryFailed(let failure):
                return finish(.failure(InventoryFailure(PathFailure(.protocolError, detail: "SendTargets: \(failure)"))), closing: .reset)
            case .redirected(let redirection): return follow(redirection)
            case .asyncMessage(.logoutRequested, _): _ = session.beginLogout(at: host.port.now)
            default: break
            }
        }
        if session.hasEnded { return ended() }
        guard let socket else { return }
        if session.needsToSend(.leading) { host.port.requestSend(socket) }
        rearm(at: min(session.nextDeadline, deadline))
    }

    private func ended() {
        // With the list in hand, how the session then ended is of no interest.
        if let targets { return finish(.success(targets), closing: .graceful) }
        if case .failed(let reason) = session.state { return finish(.failure(InventoryFailure(PathFailure(reason))), closing: .reset) }
        finish(.failure(InventoryFailure(PathFailure(.connectionClosed))), closing: .graceful)
    }

    private func follow(_ redirection: LoginRedirection) {
        guard redirectCount < ISCSIPath.redirectLimit, let address = SocketAddress(redirection.address) else {
            return finish(
                .failure(InventoryFailure(PathFailure(.loginRejected, detail: "redirected to \(redirection.address), once too often or to no IP address"))),
                closing: .graceful)
        }
        if let socket { host.port.close(socket, mode: .graceful) }
        socket = nil
        redirectCount += 1
        destination = address
        open()
    }
}

extension DiscoverySession: SocketHandler, TimerHandler {
    func socketConnected(_ socket: SocketID) {
        session.connectionOpened(.leading, at: host.port.now)
        pump()
    }

    func socketOutput(_ socket: SocketID, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        session.output(.leading, into: segments)
    }

    func socketSent(_ socket: SocketID, byteCount: Int) {
        session.outputSent(.leading, byteCount: byteCount)
        pump()
    }

    func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer { session.input(.leading) }

    func socketReceived(_ socket: SocketID, placedByteCount: Int, spill: UnsafeRawBufferPointer) {
        session.received(.leading, placedByteCount: placedByteCount, spill: spill, at: host.port.now)
        pump()
    }

    func socketClosed(_ socket: SocketID, reason: SocketCloseReason) {
        guard socket == self.socket else { return }
        if let targets { return finish(.success(targets), closing: nil) }
        finish(.failure(InventoryFailure(PathFailure(reason))), closing: nil)
    }

    func timerFired(_ timer: TimerID, token: UInt64) {
        self.timer = nil
        let now = host.port.now
        if case .free = session.state { return finish(.failure(InventoryFailure(PathFailure(.connectTimedOut))), closing: .reset) }
        if now >= deadline {
            if let targets { return finish(.success(targets), closing: .reset) }
            return finish(.failure(InventoryFailure(PathFailure(.loginTimedOut, detail: "no answer in time"))), closing: .reset)
        }
        let health = socket.flatMap { host.port.transportHealth(of: $0) }.map(TransportReport.init)
        if session.nextDeadline <= now { session.timerFired(at: now) { _ in health } }
        pump()
    }
}
