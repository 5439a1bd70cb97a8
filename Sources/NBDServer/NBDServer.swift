package import AsyncIO
import Foundation
package import MPIO
package import NBD
package import TLS
import Timebase

/// Exports the disks of a manager over NBD, by name; on its reactor's thread.
///
/// The manager was made with room for the sockets (`hostedSocketCount`), and is shut down after ``stop(patience:)``.
/// **Threads.** What is marked so may be called from any; the rest belongs to the reactor's.
package final class NBDServer: @unchecked Sendable {
    package struct Options: Sendable {
        package var maximumConnectionCount = 128
        /// How long a client may take to choose an export.
        package var negotiationLimit = Duration.seconds(30)
        /// How long a client may leave its answers, or a payload half sent, while others wait for that memory.
        package var stallLimit = Duration.seconds(30)
        /// Data of requests, of all clients.
        package var memoryByteCount = 256 << 20
        package var session = Session.Limits()
        package var security = NBDSecurity.none
        /// Called on the reactor's thread, at most once a second, with what an administrator may want to know.
        package var notice: (@Sendable (NBDNotice) -> Void)?
        package init() {}

        /// What the reactor needs room for.
        package func hostedSocketCount(addresses: Int) -> Int { maximumConnectionCount + addresses + 1 }
    }

    package struct Counters: Hashable, Sendable {
        package var accepted = 0
        /// Turned away, or dropped for others.
        package var refused = 0
        package var requests = 0
        package var errors = 0
        /// Handshakes that failed, and connections that TLS broke.
        package var tlsFailures = 0
        /// Now.
        package var connections = 0
        package var lentByteCount = 0
    }

    let reactor: LibaioReactor
    var port: LibaioReactor { reactor }
    let options: Options
    private var security: NBDSecurity
    private let addresses: [NBDAddress]
    /// Those that are or will be exported, in the order of LIST.
    private var names: [String]
    private var listeners: [ListenerID] = []
    private var files: [UnixSocketFile] = []
    private var exports: [DiskExport] = []
    @exclusivity(unchecked) private var connections: [NBDConnection?] = []
    private var freeIndexes: [Int] = []
    private var openCount = 0
    private let pool: BufferPool
    /// For memory, the longest first.
    @exclusivity(unchecked) private var waiting: [NBDConnection] = []
    private var isScheduled = false
    private var isSweeping = false
    private var isStopping = false
    private let scratch = SecureTransport.Scratch()
    private var nextNoticeAt = Instant.zero
    private var untoldCount = 0
    @exclusivity(unchecked) var counters = Counters()
    /// Clients that requests of the present batch of completions were of.
    @exclusivity(unchecked) var touched: [NBDConnection] = []

    /// Any thread.
    /// - Parameter names: of the disks that are exported sooner or later; where it is one, it is the default export too.
    package init(
        manager: PathManager, addresses: [NBDAddress], names: [String], options: Options = Options()
    ) throws(NBDServerError) {
        reactor = manager.reactor
        self.addresses = addresses
        self.names = names
        self.options = options
        security = options.security
        pool = BufferPool(limitByteCount: options.memoryByteCount)
        var seen: Set<NBDAddress> = []
        for address in addresses where !seen.insert(address).inserted { throw .duplicateAddress(address) }
    }

    // MARK: Any thread

    /// Listens. Where it listens, with the ports that the kernel chose; nothing listens where it throws.
    package func start() throws(NBDServerError) -> [NBDAddress] {
        var actual: [NBDAddress] = []
        do throws(NBDServerError) {
            for address in addresses {
                switch address {
                case .unix(let path):
                    files.append(try UnixSocketFile.make(path) { () throws(NBDServerError) in _ = try listen(on: address) })
                    actual.append(address)
                case .tcp: actual.append(.tcp(try listen(on: address)))
                }
            }
        } catch {
            closeListeners()
            throw error
        }
        return actual
    }

    private func listen(on address: NBDAddress) throws(NBDServerError) -> SocketAddress {
        let result = perform { server -> Result<SocketAddress, IOError> in
            do throws(IOError) {
                let listener = try server.port.listen(on: address.socketAddress, handler: server)
                server.listeners.append(listener)
                return .success(server.port.localAddress(of: listener) ?? address.socketAddress)
            } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(let local)?: return local
        case .failure(let error)?: throw .cannotListen(address, error)
        case nil: throw .stopped
        }
    }

    /// Lets clients choose the disk by its name. It stays open until the server has stopped. Does nothing the second time.
    package func export(_ disk: MultipathDisk) throws(NBDServerError) {
        let result = perform { server -> Result<Void, NBDServerError> in
            guard server.export(named: disk.name) == nil else { return .success(()) }
            // One that a changed policy file has added.
            if !server.names.contains(disk.name) { server.names.append(disk.name) }
            do throws(NBDServerError) {
                server.exports.append(try DiskExport(disk, server: server))
            } catch {
                return .failure(error)
            }
            server.exports.sort { server.order($0) < server.order($1) }
            server.exportsChanged()
            return .success(())
        }
        guard let result else { throw .stopped }
        try result.get()
    }

    /// Other keys for clients that come from now on, or have not begun TLS yet. Those that are in stay in; whether TLS is
    /// required stays as it is, and a server without TLS stays without.
    package func renewKeys(_ context: TLSServerContext) {
        _ = perform { server in
            switch server.security {
            case .none: break
            case .allowed: server.security = .allowed(context)
            case .required: server.security = .required(context)
            }
        }
    }

    /// Stops accepting, answers what is under way for so long, and closes. What the disks still have by then ends there
    /// without an answer.
    package func stop(patience: Duration) async {
        closeListeners()
        _ = perform { server in
            server.isStopping = true
            for connection in server.connections { connection?.shutDown() }
            server.finishIfStopped()
        }
        let deadline = ContinuousClock.now + patience
        while ContinuousClock.now < deadline, perform({ $0.openCount }) ?? 0 > 0 {
            // Detached: the task that stops a server is often a cancelled one, which no longer sleeps.
            await Task.detached { try? await Task.sleep(for: .milliseconds(10)) }.value
        }
        _ = perform { server in
            for connection in server.connections { connection?.close(.reset) }
        }
    }

    package func currentCounters() -> Counters {
        perform { server in
            var counters = server.counters
            counters.connections = server.openCount
            counters.lentByteCount = server.pool.lentByteCount
            return counters
        } ?? Counters()
    }

    /// On the reactor's thread, and waits for it; nil where that has ended.
    private func perform<Value>(_ body: @escaping (NBDServer) -> Value) -> Value? {
        try? reactor.performAndWait { body(self) }
    }

    private func closeListeners() {
        for file in files { file.remove() }
        files = []
        _ = perform { server in
            for listener in server.listeners { server.port.close(listener) }
            server.listeners = []
        }
    }

    // MARK: Exports

    private func order(_ export: DiskExport) -> Int { names.firstIndex(of: export.description.name) ?? names.count }

    func export(named name: String) -> DiskExport? { exports.first { $0.description.name == name } }

    /// An empty name is a guess where there are, or will be, several.
    private var defaultExport: Int? { names.count == 1 && exports.count == 1 ? 0 : nil }

    func exportsChanged() {
        let descriptions = exports.map(\.description)
        for connection in connections where connection?.session.isNegotiating == true {
            connection?.session.setExports(descriptions, defaultExport: defaultExport)
        }
    }

    // MARK: Connections

    func connection(_ index: Int) -> NBDConnection? { connections[index] }

    /// The last completion of a batch was dealt with: its clients go on, each once.
    func settleTouched() {
        memoryCameBack()
        for index in touched.indices { touched[index].settle() }
        touched.removeAll(keepingCapacity: true)
    }

    /// Nothing of it is under way any more.
    func forget(_ connection: NBDConnection) {
        guard connections[connection.index] === connection else { return }
        connections[connection.index] = nil
        freeIndexes.append(connection.index)
        openCount -= 1
        waiting.removeAll { $0 === connection }
        finishIfStopped()
    }

    private func finishIfStopped() {
        guard isStopping, openCount == 0 else { return }
        for export in exports { export.close() }
        exports = []
    }

    /// Makes room for a newcomer: who has not chosen an export for longest, gives way.
    private func makeRoom() -> Bool {
        guard openCount >= options.maximumConnectionCount else { return true }
        counters.refused += 1
        let idle = connections.compactMap { $0 }.filter { $0.isOpen && $0.session.isNegotiating }
        guard let oldest = idle.min(by: { $0.acceptedAt < $1.acceptedAt }) else { return false }
        oldest.close(.reset)
        return true
    }

    // MARK: Memory

    /// `connection` waits for memory that others have.
    func wait(_ connection: NBDConnection) {
        guard !connection.isWaiting else { return }
        connection.isWaiting = true
        waiting.append(connection)
        pool.isReservedForWaiting = true
        sweepSoon()
    }

    func memoryCameBack() {
        guard !waiting.isEmpty, !isScheduled else { return }
        isScheduled = true
        port.schedule(self)
    }

    // MARK: TLS

    func makeTransport(plainByteCount: Int) throws(TLSFailure) -> SecureTransport {
        guard let context = security.context else { preconditionFailure("a session starts what it was allowed to") }
        return try SecureTransport(context, plainByteCount: plainByteCount, scratch: scratch)
    }

    func tlsFailed(_ failure: TLSFailure, of connection: NBDConnection) {
        counters.tlsFailures += 1
        guard let notice = options.notice else { return }
        // A client that tries again and again must not fill the log.
        guard port.now >= nextNoticeAt else { return untoldCount += 1 }
        nextNoticeAt = port.now + .seconds(1)
        notice(.tlsFailed(failure, peer: connection.peer, untoldCount: untoldCount))
        untoldCount = 0
    }

    // MARK: Time

    private static let sweepInterval = Duration.seconds(1)

    private func sweepSoon() {
        guard !isSweeping else { return }
        isSweeping = true
        _ = port.setTimer(at: port.now + Self.sweepInterval, handler: self, token: 0)
    }
}

extension NBDServer: ListenerHandler, TurnHandler, TimerHandler {
    package func listener(
        _ listener: ListenerID, accepted socket: SocketID, from peer: SocketAddress
    ) -> (any SocketHandler)? {
        guard !isStopping, makeRoom() else { return nil }
        counters.accepted += 1
        openCount += 1
        let index = freeIndexes.popLast() ?? connections.count
        if index == connections.count { connections.append(nil) }
        let session = Session(
            exports: exports.map(\.description), defaultExport: defaultExport, security: security.transport, pool: pool,
            limits: options.session)
        let connection = NBDConnection(index: index, socket: socket, peer: peer, session: session, server: self)
        connections[index] = connection
        port.requestSend(socket)
        sweepSoon()
        return connection
    }

    /// Memory has come back: those that wait for it take it in their order.
    package func turn() {
        isScheduled = false
        let list = waiting
        waiting = []
        pool.isReservedForWaiting = false
        for connection in list {
            connection.isWaiting = false
            // Who still finds too little keeps its place, and those behind it wait.
            connection.session.proceed(hasWaited: waiting.isEmpty)
            connection.pump()
        }
    }

    package func timerFired(_ timer: TimerID, token: UInt64) {
        isSweeping = false
        let now = port.now
        for connection in connections {
            guard let connection, connection.isDue(at: now, othersWait: !waiting.isEmpty, options) else { continue }
            counters.refused += 1
            connection.close(.reset)
        }
        let needsSweeping = !waiting.isEmpty || connections.contains { $0.map { $0.session.isNegotiating || $0.session.endReason != nil } ?? false }
        if needsSweeping { sweepSoon() }
    }
}
