import AsyncIO
import NBD
import Timebase

/// One client: carries bytes between the port and a ``Session``, and requests between it and a disk.
final class NBDConnection: SocketHandler {
    /// Its place in the server's table; another's once this one is over.
    let index: Int
    @exclusivity(unchecked) var session: Session
    private let server: NBDServer
    private var socket: SocketID?
    private var export: DiskExport?
    private var isReceiving = true
    /// In the server's list of those that wait for memory.
    var isWaiting = false
    let acceptedAt: Instant
    /// When it last got a whole answer, or completed a request, or one of its requests ended.
    private(set) var lastProgress: Instant

    private var port: LibaioReactor { server.port }

    init(index: Int, socket: SocketID, session: consuming Session, server: NBDServer) {
        self.index = index
        self.socket = socket
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
        session.output(into: segments)
    }

    func socketSent(_ socket: SocketID, byteCount: Int) {
        if session.sent(byteCount: byteCount) {
            lastProgress = port.now
            server.memoryCameBack()
        }
        session.proceed()
        pump()
    }

    func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer { session.inputWindow }

    func socketReceived(_ socket: SocketID, placedByteCount: Int, spill: UnsafeRawBufferPointer) {
        session.received(placedByteCount: placedByteCount, spill: spill)
        pump()
    }

    func socketClosed(_ socket: SocketID, reason: SocketCloseReason) {
        self.socket = nil
        gone()
    }

    // MARK: the disk

    /// The disk is done with a request.
    func completed(_ slot: Int, _ error: ReplyError?) {
        session.complete(slot, error)
        if error != nil { server.counters.errors += 1 }
        lastProgress = port.now
        server.memoryCameBack()
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
        while let request = session.nextRequest() {
            lastProgress = port.now
            server.counters.requests += 1
            if export == nil { export = session.export.flatMap { server.export(named: $0.name) } }
            guard let export else { preconditionFailure("an export stays as long as the server") }
            if !export.begin(request, of: self) { session.complete(request.slot, .notSupported) }
        }
        if session.hasOutput { port.requestSend(socket) }
        if let reason = session.endReason, !reason.isGraceful || session.isDrained { return close(.graceful) }
        let receives = !session.isCongested
        if receives != isReceiving {
            isReceiving = receives
            port.setReceiving(receives, on: socket)
        }
        if session.isWaitingForPool { server.wait(self) }
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
