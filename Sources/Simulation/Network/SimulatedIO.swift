public import AsyncIO
import Glibc
public import Timebase

/// One process's ``IOPort`` in a simulated world: its sockets, its timers, its files, its loop.
///
/// A turn of the loop handles what came since the last one, then turn handlers, then gathers sends, in
/// the order of `LibaioReactor`. How long a turn waits for more to come is drawn from the seed.
public final class SimulatedIO: IOPort {
    enum Work {
        case connected(Endpoint)
        case refused(Endpoint, Int32)
        case accept(listener: UInt64, Endpoint)
        case readable(Endpoint)
        case writable(Endpoint)
        case failed(Endpoint, Int32)
        case timer(UInt64)
        case file(FileWork)
        case closure(() -> Void)
    }

    unowned let world: SimulatedWorld
    unowned let network: SimulatedNetwork
    let name: String
    private let address: SocketAddress
    private let turnDelay: ClosedRange<Duration>
    /// At most so many bytes are read at once.
    private let readLimit: Int

    public private(set) var now: Instant
    private var inbox: [Work] = []
    private var isWakePlanned = false
    private(set) var isStopped = false
    private(set) var isDead = false

    private var sockets: [UInt64: Endpoint] = [:]
    private var listeners: [UInt64: (address: SocketAddress, handler: any ListenerHandler)] = [:]
    private var timers: [UInt64: (handler: any TimerHandler, token: UInt64)] = [:]
    private var turnHandlers: [any TurnHandler] = []
    private var sendQueue: [Endpoint] = []
    private var nextListener: UInt64 = 0
    private var nextTimer: UInt64 = 0
    private var nextPort: UInt16 = 40_000
    var files = SimulatedFiles()
    /// Set while a handler runs: a handler may not be called from inside a call into the port.
    private var isRunning = false
    var misbehaviour = PortMisbehaviour()

    init(
        name: String, address: SocketAddress, network: SimulatedNetwork, turnDelay: ClosedRange<Duration>, readLimit: Int
    ) {
        self.name = name
        self.address = address
        self.network = network
        world = network.world
        self.turnDelay = turnDelay
        self.readLimit = readLimit
        now = network.world.now
    }

    // MARK: What is open

    public var openSocketCount: Int { sockets.count }
    public var pendingTimerCount: Int { timers.count }
    public var openListenerCount: Int { listeners.count }

    // MARK: The process's fate

    /// SIGSTOP: nothing runs, while the kernel goes on acknowledging. SIGCONT: all that came meanwhile.
    func setStopped(_ stopped: Bool) {
        isStopped = stopped
        if !stopped, !inbox.isEmpty { planWake() }
    }

    /// SIGKILL: the kernel closes its sockets.
    func kill() {
        isDead = true
        for (_, listener) in listeners.sorted(by: { $0.key < $1.key }) { network.unlisten(listener.address) }
        for (_, endpoint) in sockets.sorted(by: { $0.key < $1.key }) { endpoint.closeGracefully() }
        for work in inbox {
            if case .accept(_, let endpoint) = work { endpoint.closeWithReset() }
        }
        forget()
    }

    private func forget() {
        sockets.removeAll()
        listeners.removeAll()
        timers.removeAll()
        inbox.removeAll()
        turnHandlers.removeAll()
        sendQueue.removeAll()
        files = SimulatedFiles()
    }

    /// The world ends.
    func end() {
        isDead = true
        for (_, endpoint) in sockets { endpoint.handler = nil }
        forget()
    }

    // MARK: The loop

    /// Runs `body` in a turn of this process.
    func perform(_ body: @escaping () -> Void) { post(.closure(body)) }

    func post(_ work: Work) {
        guard !isDead else {
            if case .accept(_, let endpoint) = work { endpoint.closeWithReset() }
            return
        }
        inbox.append(work)
        planWake()
    }

    func readable(_ endpoint: Endpoint) {
        guard endpoint.isReceiving, !endpoint.isReadQueued else { return }
        endpoint.isReadQueued = true
        post(.readable(endpoint))
    }

    private func planWake() {
        guard !isWakePlanned, !isStopped else { return }
        isWakePlanned = true
        world.after(world.random.spreadDuration(turnDelay)) { [weak self] in
            guard let self else { return }
            self.isWakePlanned = false
            if !self.isDead, !self.isStopped { self.turn() }
        }
    }

    private func turn() {
        now = world.now
        isRunning = true
        let batch = inbox
        inbox.removeAll(keepingCapacity: true)
        for (index, work) in batch.enumerated() {
            handle(work)
            if isDead { return }
            if isStopped {
                // Stopped by itself: what is left comes when it goes on.
                inbox.insert(contentsOf: batch[(index + 1)...], at: 0)
                break
            }
        }
        runTurnHandlers()
        gatherSends()
        isRunning = false
        if !turnHandlers.isEmpty || !sendQueue.isEmpty || !inbox.isEmpty { planWake() }
    }

    private func runTurnHandlers() {
        for _ in 0..<8 where !turnHandlers.isEmpty {
            let handlers = turnHandlers
            turnHandlers.removeAll()
            for handler in handlers where !isDead { handler.turn() }
        }
    }

    private func handle(_ work: Work) {
        switch work {
        case .connected(let endpoint):
            guard isOpen(endpoint), let handler = endpoint.handler else { return }
            world.trace.record(.connected, endpoint.id)
            handler.socketConnected(SocketID(rawValue: endpoint.id))
        case .refused(let endpoint, let code):
            world.trace.record(.refused, endpoint.id, UInt64(code))
            finish(endpoint, .connectFailed(IOError(code: code, operation: "connect to \(endpoint.remote.host)")))
        case .accept(let listener, let endpoint): accept(endpoint, listener)
        case .readable(let endpoint): read(endpoint)
        case .writable(let endpoint): if isOpen(endpoint) { queueSend(endpoint) }
        case .failed(let endpoint, let code): failed(endpoint, code)
        case .timer(let id):
            guard let timer = timers.removeValue(forKey: id) else { return }
            world.trace.record(.timer, id)
            timer.handler.timerFired(TimerID(rawValue: id), token: timer.token)
        case .file(let work): complete(work)
        case .closure(let body): body()
        }
    }

    // MARK: Sockets

    private func isOpen(_ endpoint: Endpoint) -> Bool { sockets[endpoint.id] === endpoint }

    public func connect(
        to destination: SocketAddress, from source: SocketAddress?, handler: any SocketHandler
    ) -> SocketID {
        nextPort = nextPort == 60_000 ? 40_000 : nextPort + 1
        let local = (source ?? address).withPort(nextPort)
        guard let endpoint = network.connect(self, to: destination, from: local) else {
            preconditionFailure("\(destination) is no portal of this world")
        }
        endpoint.handler = handler
        sockets[endpoint.id] = endpoint
        world.trace.record(.connect, endpoint.id, UInt64(endpoint.link.index))
        return SocketID(rawValue: endpoint.id)
    }

    public func listen(on address: SocketAddress, handler: any ListenerHandler) throws(IOError) -> ListenerID {
        nextListener += 1
        guard network.listen(self, id: nextListener, on: address) else {
            throw IOError(code: EADDRINUSE, operation: "listen on \(address.host)")
        }
        listeners[nextListener] = (address, handler)
        return ListenerID(rawValue: nextListener)
    }

    private func accept(_ endpoint: Endpoint, _ listener: UInt64) {
        guard endpoint.phase != .closed else { return }
        guard let entry = listeners[listener] else { return endpoint.closeWithReset() }
        sockets[endpoint.id] = endpoint
        let id = SocketID(rawValue: endpoint.id)
        let handler = entry.handler.listener(ListenerID(rawValue: listener), accepted: id, from: endpoint.remote)
        world.trace.record(.accepted, endpoint.id)
        guard let handler else { return close(id, mode: .reset) }
        guard isOpen(endpoint) else { return }
        endpoint.handler = handler
        if !endpoint.input.isEmpty || endpoint.isPeerDone { readable(endpoint) }
    }

    public func requestSend(_ socket: SocketID) {
        if let endpoint = sockets[socket.rawValue] { queueSend(endpoint) }
    }

    private func queueSend(_ endpoint: Endpoint) {
        guard !endpoint.isSendQueued else { return }
        endpoint.isSendQueued = true
        sendQueue.append(endpoint)
        if !isRunning { planWake() }
    }

    private func gatherSends() {
        let queue = sendQueue
        sendQueue.removeAll(keepingCapacity: true)
        for endpoint in queue {
            endpoint.isSendQueued = false
            if isOpen(endpoint), endpoint.phase == .open { send(endpoint) }
        }
    }

    private static let segmentLimit = 16

    private func send(_ endpoint: Endpoint) {
        let id = SocketID(rawValue: endpoint.id)
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: Self.segmentLimit) { segments in
            for index in 0..<Self.segmentLimit { segments.initializeElement(at: index, to: UnsafeRawBufferPointer(start: nil, count: 0)) }
            while isOpen(endpoint), endpoint.phase == .open, let handler = endpoint.handler {
                guard endpoint.room > 0 else {
                    endpoint.becameFull()
                    break
                }
                let count = handler.socketOutput(id, into: segments)
                guard count > 0, isOpen(endpoint) else { break }
                var taken = 0
                for segment in segments[..<count] {
                    let part = UnsafeRawBufferPointer(rebasing: segment[..<min(segment.count, endpoint.room)])
                    taken += part.count
                    take(part, endpoint)
                    if part.count < segment.count { break }
                }
                world.trace.record(.sent, endpoint.id, UInt64(taken))
                handler.socketSent(id, byteCount: taken)
            }
        }
        if endpoint.phase == .open { endpoint.transmit() }
    }

    private func take(_ bytes: UnsafeRawBufferPointer, _ endpoint: Endpoint) {
        guard endpoint.direction == Link.toTarget else { return endpoint.take(bytes) }
        let changed = misbehaviour.changed(bytes, on: endpoint)
        if let changed {
            changed.withUnsafeBytes {
                network.observer?.sent($0, by: endpoint)
                endpoint.take($0)
            }
        } else {
            network.observer?.sent(bytes, by: endpoint)
            endpoint.take(bytes)
        }
    }

    public func setReceiving(_ enabled: Bool, on socket: SocketID) {
        guard let endpoint = sockets[socket.rawValue] else { return }
        endpoint.isReceiving = enabled
        if enabled, !endpoint.input.isEmpty || endpoint.isPeerDone { readable(endpoint) }
    }

    private static let spillByteCount = 65_536

    private func read(_ endpoint: Endpoint) {
        endpoint.isReadQueued = false
        guard isOpen(endpoint), endpoint.isReceiving, let handler = endpoint.handler else { return }
        deliver(endpoint, handler)
        guard isOpen(endpoint), endpoint.isReceiving else { return }
        if !endpoint.input.isEmpty {
            readable(endpoint)
        } else if endpoint.isPeerDone {
            finish(endpoint, .endOfStream)
        }
    }

    /// One read: into the handler's window, then into the spill.
    private func deliver(_ endpoint: Endpoint, _ handler: any SocketHandler) {
        guard !endpoint.input.isEmpty else { return }
        let id = SocketID(rawValue: endpoint.id)
        let window = handler.socketInput(id)
        guard isOpen(endpoint) else { return }
        let limit = readLimit < 1024 ? 1 + world.random.below(readLimit) : readLimit
        let total = min(endpoint.input.count, min(limit, window.count + Self.spillByteCount))
        let placed = min(total, window.count)
        let bytes = endpoint.input.copy(from: 0, count: total)
        endpoint.input.removeFirst(total)
        bytes.withUnsafeBytes { bytes in
            if endpoint.direction == Link.toTarget {
                network.observer?.received(bytes, by: endpoint)
            } else {
                network.observer?.arrived(bytes, at: endpoint)
            }
            if placed > 0 { window.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<placed])) }
            handler.socketReceived(id, placedByteCount: placed, spill: UnsafeRawBufferPointer(rebasing: bytes[placed...]))
        }
        endpoint.drained()
    }

    /// What came before the failure is read first, as a kernel lets it be.
    private func failed(_ endpoint: Endpoint, _ code: Int32) {
        guard isOpen(endpoint) else { return endpoint.vanish() }
        while isOpen(endpoint), endpoint.isReceiving, !endpoint.input.isEmpty, let handler = endpoint.handler {
            deliver(endpoint, handler)
        }
        guard isOpen(endpoint) else { return }
        world.trace.record(.reset, endpoint.id, UInt64(code))
        let connecting = endpoint.phase == .connecting
        let error = IOError(code: code, operation: "use \(endpoint.remote.host)")
        finish(endpoint, connecting ? .connectFailed(error) : .failed(error))
    }

    private func finish(_ endpoint: Endpoint, _ reason: SocketCloseReason) {
        guard isOpen(endpoint), !endpoint.isLeaked else { return }
        let handler = endpoint.handler
        sockets[endpoint.id] = nil
        if case .endOfStream = reason { endpoint.closeGracefully() } else { endpoint.vanish() }
        world.trace.record(.closed, endpoint.id)
        network.observer?.closed(endpoint)
        handler?.socketClosed(SocketID(rawValue: endpoint.id), reason: reason)
    }

    public func close(_ socket: SocketID, mode: CloseMode) {
        guard let endpoint = sockets[socket.rawValue] else { return }
        world.trace.record(.closed, endpoint.id, mode == .reset ? 1 : 2)
        if mode == .reset, misbehaviour.keepsSocket(endpoint) { return }
        sockets[socket.rawValue] = nil
        network.observer?.closed(endpoint)
        switch mode {
        case .graceful where endpoint.phase == .open: endpoint.closeGracefully()
        case .graceful, .reset: endpoint.closeWithReset()
        }
    }

    public func close(_ listener: ListenerID) {
        guard let entry = listeners.removeValue(forKey: listener.rawValue) else { return }
        network.unlisten(entry.address)
    }

    public func localAddress(of socket: SocketID) -> SocketAddress? { sockets[socket.rawValue]?.local }
    public func localAddress(of listener: ListenerID) -> SocketAddress? { listeners[listener.rawValue]?.address }

    public func transportHealth(of socket: SocketID) -> TransportHealth? {
        guard let endpoint = sockets[socket.rawValue], endpoint.phase == .open else { return nil }
        return endpoint.health()
    }

    // MARK: Time

    public func readClock() -> Instant { world.now }

    public func setTimer(at deadline: Instant, handler: any TimerHandler, token: UInt64) -> TimerID {
        nextTimer += 1
        let id = nextTimer
        timers[id] = (handler, token)
        world.at(deadline) { [weak self] in
            guard let self, self.timers[id] != nil else { return }
            self.post(.timer(id))
        }
        return TimerID(rawValue: id)
    }

    public func cancelTimer(_ timer: TimerID) { timers[timer.rawValue] = nil }

    public func schedule(_ handler: any TurnHandler) {
        turnHandlers.append(handler)
        if !isRunning { planWake() }
    }
}
