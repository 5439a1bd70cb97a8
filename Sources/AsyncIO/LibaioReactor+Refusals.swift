import Glibc

/// A connection for which there was no room, until it was told.
struct RefusedConnection {
    let handler: any SocketHandler
    let peer: SocketAddress
}

// Past the capacity a connection has no slot to take, however many are asked for in one turn. Its refusal is told in the next
// step, under an identifier that no slot ever has.
extension LibaioReactor {
    func refuse(_ destination: SocketAddress, _ handler: any SocketHandler) -> SocketID {
        refusedConnectionCount += 1
        let id = refusedConnectionCount << Slab<SocketSlot>.indexBits | (1 << Slab<SocketSlot>.indexBits - 1)
        refusedConnections[id] = RefusedConnection(handler: handler, peer: destination)
        resolvedQueue.append(id)
        return SocketID(rawValue: id)
    }

    func tellRefusal(_ id: UInt64) {
        guard let refused = refusedConnections.removeValue(forKey: id) else { return }
        refused.handler.socketClosed(SocketID(rawValue: id), reason: Self.connectFailure(refused.peer, ENOBUFS))
    }

    /// Closed before it was told; nothing where it is no such connection.
    func forgetRefusal(_ id: UInt64) {
        if !refusedConnections.isEmpty { _ = refusedConnections.removeValue(forKey: id) }
    }

    func forgetAllRefusals() {
        // Handlers know the reactor, too. Not destroyed while the table is looked into: they may call back.
        let refused = refusedConnections
        refusedConnections = [:]
        withExtendedLifetime(refused) {}
    }
}
