import AsyncIO
import NBD
import TLS
import Timebase

/// One client: carries bytes between the port and a ``Session``, and requests between it and a disk.
final class NBDConnection: SocketHandler {
    /// Its place in the server's table; another's once this one is over.
    let index: Int
    @exclusivity(unchecked) var session: Session
    private let server: NBDServer
    private var socket: SocketID?
    @exclusivity(unchecked) private var export: DiskExport?
    private var isReceiving = true
    /// Once the client has asked for TLS.
    @exclusivity(unchecked) private var transport: SecureTransport?
    /// For messages.
    let peer: SocketAddress
    /// In the server's list of those that wait for memory.
    var isWaiting = false
    /// In the server's list of those that have to go on.
    private var isTouched = false
    let acceptedAt: Instant
    /// When it last got a whole answer, or completed a request, or one of its requests ended.
    @exclusivity(unchecked) private(set) var lastProgress: Instant

    private var port: LibaioReactor { server.port }

    init(index: Int, socket: SocketID, peer: SocketAddress, session: consuming Session, server: NBDServer) {
        self.index = index
        self.socket = socket
        self.peer = peer
        self.session = session
        self.server = server
        acceptedAt = server.port.now
        lastProgress = acceptedAt
    }

    var isOpen: Bool { socket != nil }
    /// It may be forgotten.
    var isOver: Bool { socket == nil && session.executingCount == 0 }

    // MARK: SocketHandler

    func socketConnected(_ socket: SocketID) {}

    func socketOutput(_ socket: SocketID, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        guard let transport else { return session.output(into: segments) }
        return secureOutput(transport, into: segments)
    }

    func socketSent(_ socket: SocketID, byteCount: Int) {
        if let transport {
            transport.sent(byteCount: byteCount, of: &session)
        } else if session.sent(byteCount: byteCount) {
            answered()
        }
        session.proceed()
        pump()
    }

    func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer {
        transport == nil ? session.inputWindow : UnsafeMutableRawBufferPointer(start: nil, count: 0)
    }

    func socketReceived(_ socket: SocketID, placedByteCount: Int, spill: UnsafeRawBufferPointer) {
        if let transport {
            secureInput(transport, spill)
        } else {
            session.received(placedByteCount: placedByteCount, spill: spill)
        }
        pump()
    }

    func socketClosed(_ socket: SocketID, reason: SocketCloseReason) {
        self.socket = nil
        gone()
    }

    // MARK: the disk

    /// The disk is done with a request. ``settle()`` follows, once for all that have ended together.
    func completed(_ slot: Int, _ error: ReplyError?) {
        session.complete(slot, error)
        if error != nil { server.counters.errors += 1 }
        guard !isTouched else { return }
        isTouched = true
        server.touched.append(self)
    }

    /// Goes on after requests have ended.
    func settle() {
        isTouched = false
        lastProgress = port.now
        guard socket != nil else {
            if isOver { server.forget(self) }
            return
        }
        session.proceed()
        pump()
    }

    // MARK: for the server

    /// Has done what the session wants done.
    func pump() {
        guard let socket else { return }
        begin()
        if session.isStartingTLS, transport == nil { startTLS() }
        if session.hasOutput || transport?.hasOutput == true { port.requestSend(socket) }
        if hasEnded { return close(.graceful) }
        let receives = !session.isCongested && transport?.isCongested != true
        if receives != isReceiving {
            isReceiving = receives
            port.setReceiving(receives, on: socket)
        }
        if session.isWaitingForPool { server.wait(self) }
    }

    private func begin() {
        guard var request = session.nextRequest() else { return }
        if export == nil { export = session.export.flatMap { server.export(named: $0.name) } }
        guard let export else { preconditionFailure("an export stays as long as the server") }
        lastProgress = port.now
        while true {
            server.counters.requests += 1
            if !export.begin(request, of: self) { session.complete(request.slot, .notSupported) }
            guard let next = session.nextRequest() else { return }
            request = next
        }
    }

    /// Nothing more is said.
    private var hasEnded: Bool {
        guard let reason = session.endReason else { return false }
        guard let transport else { return !reason.isGraceful || session.isDrained }
        if reason.isGraceful, !session.isDrained { return false }
        transport.finish()
        if transport.hasOutput, let socket { port.requestSend(socket) }
        return transport.isDrained
    }

    /// An answer is out to its last byte.
    private func answered() {
        lastProgress = port.now
        server.memoryCameBack()
    }

    // MARK: TLS

    private func startTLS() {
        do throws(TLSFailure) {
            transport = try server.makeTransport(plainByteCount: session.negotiationOutputByteCount)
        } catch {
            failed(error)
        }
    }

    private func secureInput(_ transport: SecureTransport, _ bytes: UnsafeRawBufferPointer) {
        do throws(TLSFailure) {
            try transport.received(bytes, for: &session)
            // As at the end of a stream: what the disk has is finished.
            if transport.hasPeerFinished { session.peerClosed() }
        } catch {
            failed(error)
        }
    }

    private func secureOutput(
        _ transport: SecureTransport, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>
    ) -> Int {
        var hasAnswered = false
        defer { if hasAnswered { answered() } }
        do throws(TLSFailure) {
            return try transport.output(of: &session, into: segments, answered: &hasAnswered)
        } catch {
            failed(error)
            pump()
            return 0
        }
    }

    /// What the library has to say of it (an alert) still goes out.
    private func failed(_ failure: TLSFailure) {
        server.tlsFailed(failure, of: self)
        // The socket may be sending the session's own memory.
        guard let transport, transport.plainByteCount == 0 else { return close(.reset) }
        lastProgress = port.now
        session.peerClosed()
    }

    /// Answers what is under way, then ends.
    func shutDown() {
        session.shutDown()
        pump()
    }

    func close(_ mode: CloseMode) {
        guard let socket else { return }
        self.socket = nil
        port.close(socket, mode: mode)
        gone()
    }

    private func gone() {
        session.peerClosed()
        server.memoryCameBack()
        if isOver { server.forget(self) }
    }

    /// What a client of bad will, or none, must not keep from others: a place by never choosing an export, memory by
    /// never taking its answers.
    func isDue(at now: Instant, othersWait: Bool, _ options: NBDServer.Options) -> Bool {
        guard isOpen else { return false }
        if session.isNegotiating { return now >= acceptedAt + options.negotiationLimit }
        let isStalled = now >= lastProgress + options.stallLimit
        if session.endReason != nil { return isStalled && session.executingCount == 0 }
        return isStalled && othersWait && session.holdsMemoryForClient
    }
}
