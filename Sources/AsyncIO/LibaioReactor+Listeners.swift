import CAio
import Glibc
import Timebase

struct ListenerSlot {
    let descriptor: Int32
    let handler: any ListenerHandler
    let address: SocketAddress
    var poll = iocb()
    var isReadyQueued = false
    /// Out of descriptors or memory: the next attempt comes by timer.
    var isPaused = false
}

/// Wakes listeners that had to pause; the token is the listener's identifier.
final class AcceptRetry: TimerHandler {
    static let interval = Duration.milliseconds(100)
    private unowned let reactor: LibaioReactor

    init(_ reactor: LibaioReactor) { self.reactor = reactor }

    func timerFired(_ timer: TimerID, token: UInt64) {
        reactor.listeners[token]?.pointee.isPaused = false
        reactor.acceptBecameReady(token)
    }
}

extension LibaioReactor {
    public func listen(on address: SocketAddress, handler: any ListenerHandler) throws(IOError) -> ListenerID {
        checkThread()
        let result: Int32 = address.withSystemAddress { mpio_listen($0, $1, 4096) } ?? -ENAMETOOLONG
        guard result >= 0 else { throw IOError(code: -result, operation: "listen on \(address)") }
        guard let id = listeners.allocate(ListenerSlot(descriptor: result, handler: handler, address: address)) else {
            Glibc.close(result)
            throw IOError(code: ENOBUFS, operation: "listen on \(address): more than \(listeners.capacity) listeners")
        }
        let slot = listeners[id]!
        withUnsafeMutablePointer(to: &slot.pointee.poll) {
            io_prep_poll($0, result, Int32(POLLIN))
            $0.pointee.data = AioContext.data(OperationKind.accept.tagging(id))
        }
        acceptBecameReady(id)
        return ListenerID(rawValue: id)
    }

    public func close(_ listener: ListenerID) {
        checkThread()
        guard let slot = listeners[listener.rawValue] else { return }
        if context.batchCount > 0 {
            withUnsafeMutablePointer(to: &slot.pointee.poll) { own in context.withdraw { $0 == own } }
        }
        mpio_close_gracefully(slot.pointee.descriptor, false)
        listeners.release(listener.rawValue)
    }

    public func localAddress(of listener: ListenerID) -> SocketAddress? {
        guard let slot = listeners[listener.rawValue] else { return nil }
        return Self.localAddress(slot.pointee.descriptor)
    }

    func acceptBecameReady(_ id: UInt64) {
        guard let slot = listeners[id], !slot.pointee.isReadyQueued, !slot.pointee.isPaused else { return }
        slot.pointee.isReadyQueued = true
        listenerQueue.append(id)
    }

    /// The kernel would not watch the listener: look again by timer.
    func acceptRefused(_ id: UInt64) {
        guard let slot = listeners[id] else { return }
        pause(id, slot)
    }

    func acceptFromReadyListeners() {
        var remaining = listenerQueue.count
        while remaining > 0, let id = listenerQueue.popFirst() {
            remaining -= 1
            guard let slot = listeners[id] else { continue }
            slot.pointee.isReadyQueued = false
            accept(id, slot)
        }
    }

    private func accept(_ id: UInt64, _ slot: UnsafeMutablePointer<ListenerSlot>) {
        for _ in 0..<options.acceptsPerTurn {
            guard sockets.count < options.socketCapacity else { return pause(id, slot) }
            var storage = sockaddr_storage()
            var byteCount = socklen_t(0)
            let result = mpio_accept(slot.pointee.descriptor, &storage, &byteCount)
            if result < 0 {
                switch -result {
                case EAGAIN: return armListener(id, slot)
                case EMFILE, ENFILE, ENOBUFS, ENOMEM: return pause(id, slot)
                case EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP:
                    preconditionFailure("accept on \(slot.pointee.address) failed: \(-result)")
                default:
                    // The connection ended before it was taken (ECONNABORTED and the network's own errors).
                    continue
                }
            }
            let peer = SocketAddress(&storage, byteCount: byteCount) ?? .unix(path: "")
            var isTCP = true
            if case .unix = peer { isTCP = false }
            guard let socket = adopt(result, isTCP: isTCP, peer: peer) else {
                mpio_close_with_reset(result)
                return pause(id, slot)
            }
            let handler = slot.pointee.handler.listener(
                ListenerID(rawValue: id), accepted: SocketID(rawValue: socket), from: peer)
            install(handler, on: socket)
            guard listeners.contains(id) else { return }
        }
        acceptBecameReady(id)
    }

    private func install(_ handler: (any SocketHandler)?, on socket: UInt64) {
        guard let slot = sockets[socket] else { return }
        guard let handler else { return close(SocketID(rawValue: socket), mode: .reset) }
        slot.pointee.handler = handler
        queueArming(socket, slot)
    }

    private func pause(_ id: UInt64, _ slot: UnsafeMutablePointer<ListenerSlot>) {
        guard !slot.pointee.isPaused else { return }
        slot.pointee.isPaused = true
        if acceptRetry == nil { acceptRetry = AcceptRetry(self) }
        _ = timers.insert(deadline: now + AcceptRetry.interval, handler: acceptRetry!, token: id)
    }

    private func armListener(_ id: UInt64, _ slot: UnsafeMutablePointer<ListenerSlot>) {
        if context.batchIsFull { flush() }
        // Who is told there what the kernel refused may have closed it.
        guard listeners.contains(id) else { return }
        guard !context.batchIsFull else { return pause(id, slot) }
        withUnsafeMutablePointer(to: &slot.pointee.poll) { context.add($0) }
    }
}
