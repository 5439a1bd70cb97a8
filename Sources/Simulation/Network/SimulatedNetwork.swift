import AsyncIO
import Timebase

/// Links between addresses, who listens where, and the connections of a world.
final class SimulatedNetwork {
    unowned let world: SimulatedWorld
    private(set) var links: [Link] = []
    private var linkOfPortal: [SocketAddress: Int] = [:]
    private var listeners: [SocketAddress: (node: SimulatedIO, id: UInt64)] = [:]
    /// All that were ever made; they refer to one another.
    private var endpoints: [Endpoint] = []
    private var nextEndpoint: UInt64 = 0
    /// The machine's files, by path.
    var files: [String: SimulatedFile] = [:]
    /// Watches the bytes of the wire.
    var observer: (any WireObserver)?

    init(world: SimulatedWorld) { self.world = world }

    /// Of a path, in the order of its connections.
    func links(of path: Int) -> [Link] { links.filter { $0.path == path } }

    func add(_ link: Link, to portal: SocketAddress) {
        links.append(link)
        linkOfPortal[portal] = link.index
    }

    func listen(_ node: SimulatedIO, id: UInt64, on address: SocketAddress) -> Bool {
        guard listeners[address] == nil else { return false }
        listeners[address] = (node, id)
        return true
    }

    func unlisten(_ address: SocketAddress) { listeners[address] = nil }

    // MARK: Connecting

    func connect(_ node: SimulatedIO, to destination: SocketAddress, from source: SocketAddress) -> Endpoint? {
        guard let index = linkOfPortal[destination] else { return nil }
        let endpoint = make(node, links[index], Link.toTarget, local: source, remote: destination, .connecting)
        sendSYN(endpoint, attempt: 0)
        return endpoint
    }

    private func make(
        _ node: SimulatedIO, _ link: Link, _ direction: Int, local: SocketAddress, remote: SocketAddress,
        _ phase: Endpoint.Phase
    ) -> Endpoint {
        nextEndpoint += 1
        let endpoint = Endpoint(
            id: nextEndpoint, node: node, link: link, direction: direction, local: local, remote: remote, phase: phase)
        endpoints.append(endpoint)
        link.connections.append(endpoint)
        return endpoint
    }

    private func sendSYN(_ client: Endpoint, attempt: Int) {
        guard client.phase == .connecting else { return }
        guard attempt < 6 else { return client.node.post(.refused(client, 110)) }
        deliver(client.link, Link.toTarget) { [self] in arrivedSYN(client) }
        world.after(.seconds(1 << attempt)) { [weak self, weak client] in
            if let client { self?.sendSYN(client, attempt: attempt + 1) }
        }
    }

    private func arrivedSYN(_ client: Endpoint) {
        guard client.phase == .connecting else { return }
        if client.peer == nil {
            guard let listener = listeners[client.remote] else {
                return deliver(client.link, Link.toInitiator) {
                    if client.phase == .connecting { client.node.post(.refused(client, 111)) }
                }
            }
            let server = make(
                listener.node, client.link, Link.toInitiator, local: client.remote, remote: client.local, .open)
            server.peer = client
            client.peer = server
            listener.node.post(.accept(listener: listener.id, server))
        }
        deliver(client.link, Link.toInitiator) {
            guard client.phase == .connecting else { return }
            client.phase = .open
            client.node.post(.connected(client))
        }
    }

    private func deliver(_ link: Link, _ direction: Int, _ body: @escaping () -> Void) {
        guard !link.directions[direction].isSilent else { return }
        world.after(link.directions[direction].latency) {
            if !link.directions[direction].isSilent { body() }
        }
    }

    // MARK: Faults

    /// RST to both ends of every connection of a link.
    func reset(_ link: Link) {
        for endpoint in link.connections { endpoint.wasReset() }
    }

    /// RST to both ends of one connection.
    func reset(_ endpoint: Endpoint) {
        endpoint.wasReset()
        endpoint.peer?.wasReset()
    }

    func corrupted(_ endpoint: Endpoint) { observer?.corrupted(endpoint) }

    func end() {
        for endpoint in endpoints { endpoint.peer = nil }
        endpoints.removeAll()
        links.removeAll()
        listeners.removeAll()
        observer = nil
    }
}

/// Sees what goes over the wire as the two programs see it.
protocol WireObserver: AnyObject {
    /// The initiator's kernel took these bytes.
    func sent(_ bytes: UnsafeRawBufferPointer, by endpoint: Endpoint)
    /// The initiator is about to be given these bytes.
    func received(_ bytes: UnsafeRawBufferPointer, by endpoint: Endpoint)
    /// A byte that this end sent was changed on the way: what the other end does then proves nothing.
    func corrupted(_ endpoint: Endpoint)
    /// The target's program is about to be given these bytes.
    func arrived(_ bytes: UnsafeRawBufferPointer, at endpoint: Endpoint)
    /// The initiator's end of a connection is gone.
    func closed(_ endpoint: Endpoint)
}
