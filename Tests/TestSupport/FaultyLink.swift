import Foundation

/// A network between an initiator and one portal of a real target that goes wrong on command: it listens on a
/// loopback address of its own and relays bytes both ways.
///
/// One thread of its own moves the bytes. The methods may be called from any thread and return once the change holds.
public final class FaultyLink: Sendable {
    public enum Direction: CaseIterable, Sendable {
        case toTarget
        case fromTarget
    }

    /// Where the initiator connects.
    public let portal: LoopbackPortal
    /// Where its bytes go.
    public let target: LoopbackPortal

    private let relay: Relay

    /// - Parameters:
    ///   - other: where every second connection goes, the second first; nil: to `target` as well.
    ///   - portal: where to listen; an unused one where left out.
    public init(
        to target: LoopbackPortal, alternatingWith other: LoopbackPortal? = nil, listeningOn portal: LoopbackPortal? = nil
    ) throws {
        self.target = target
        let chosen = try portal ?? LoopbackPortal.unused()[0]
        self.portal = chosen
        relay = try Relay(portal: chosen, targets: [target, other ?? target])
        relay.start()
    }

    deinit {
        relay.perform { $0.finish() }
    }

    /// Holds back what flows in these directions from now on. The senders notice nothing (TCP acknowledges, up to
    /// 64 MiB a direction) but that no answer comes.
    public func hold(_ directions: Direction...) {
        relay.perform { $0.held.formUnion(directions) }
    }

    /// Lets everything flow again, what was held back first: also what an initiator sent over a connection that it
    /// has since given up.
    public func release() {
        relay.perform { $0.held = [] }
    }

    /// Resets every connection, to both ends. New ones are accepted.
    public func reset() {
        relay.perform { $0.resetAll() }
    }

    /// Resets every connection and refuses new ones, until ``restore()``.
    public func cut() {
        relay.perform { relay in
            relay.stopListening()
            relay.resetAll()
        }
    }

    /// Accepts connections again after ``cut()``.
    /// - Throws: ``SystemError`` where the address was taken meanwhile.
    public func restore() throws {
        let failure = Locked<(any Error)?>(nil)
        relay.perform { relay in
            do { try relay.listen() } catch { failure.withLock { $0 = error } }
        }
        if let error = failure.withLock({ $0 }) { throw error }
    }

    /// Flips a bit in the last byte of the next `count` pieces that flow in `direction`.
    public func corrupt(_ direction: Direction, pieces count: Int = 1) {
        relay.perform { $0.corruptions[direction] = count }
    }

    /// Adds bytes of nobody's to what flows in `direction`, on every connection: between two PDUs where nothing is
    /// under way.
    public func inject(_ bytes: [UInt8], _ direction: Direction) {
        relay.perform { relay in
            for connection in relay.connections { connection.withFlow(direction) { $0.append(bytes) } }
        }
    }

    /// The connections that are open now.
    public var connectionCount: Int { read { $0.connections.count } }

    /// The connections that were accepted, ever.
    public var acceptedCount: Int { read { $0.acceptedCount } }

    /// Bytes handed on in `direction`, ever.
    public func byteCount(_ direction: Direction) -> UInt64 { read { $0.byteCounts[direction] ?? 0 } }

    /// Bytes that are held back in `direction` now.
    public func heldByteCount(_ direction: Direction) -> Int {
        read { relay in relay.connections.reduce(0) { $0 + $1.flow(direction).pending } }
    }

    private func read<Value: Sendable>(_ body: @escaping @Sendable (Relay) -> Value) -> Value {
        let value = Locked<Value?>(nil)
        relay.perform { relay in
            let now = body(relay)
            value.withLock { $0 = now }
        }
        guard let value = value.withLock({ $0 }) else { preconditionFailure("the relay did not answer") }
        return value
    }
}

/// The bytes of one direction of a connection, from the socket they came from to the one they go to.
private struct Flow {
    static let limit = 64 << 20

    private(set) var bytes: [UInt8] = []
    private(set) var start = 0
    var ended = false
    var endPassedOn = false

    var pending: Int { bytes.count - start }
    var hasRoom: Bool { pending < Self.limit }

    mutating func append(_ piece: some Collection<UInt8>) {
        if start == bytes.count {
            bytes.removeAll(keepingCapacity: true)
            start = 0
        } else if start > 1 << 20 {
            bytes.removeFirst(start)
            start = 0
        }
        bytes.append(contentsOf: piece)
    }

    mutating func consume(_ count: Int) {
        start += count
    }

    mutating func discard() {
        bytes = []
        start = 0
    }
}

private final class Connection {
    let initiator: Int32
    let target: Int32
    var toTarget = Flow()
    var fromTarget = Flow()
    /// An end was reset: the other end shall see a reset as well, not an orderly close.
    var isBroken = false

    init(initiator: Int32, target: Int32) {
        self.initiator = initiator
        self.target = target
    }

    func flow(_ direction: FaultyLink.Direction) -> Flow {
        direction == .toTarget ? toTarget : fromTarget
    }

    func withFlow(_ direction: FaultyLink.Direction, _ body: (inout Flow) -> Void) {
        if direction == .toTarget { body(&toTarget) } else { body(&fromTarget) }
    }

    func source(_ direction: FaultyLink.Direction) -> Int32 { direction == .toTarget ? initiator : target }
    func destination(_ direction: FaultyLink.Direction) -> Int32 { direction == .toTarget ? target : initiator }
}

/// The thread that relays. All its state but `jobs` belongs to that thread alone.
private final class Relay: @unchecked Sendable {
    var held: Set<FaultyLink.Direction> = []
    var corruptions: [FaultyLink.Direction: Int] = [:]
    var byteCounts: [FaultyLink.Direction: UInt64] = [:]
    var acceptedCount = 0
    private(set) var connections: [Connection] = []

    private let portal: LoopbackPortal
    private let targets: [LoopbackPortal]
    private let jobs = Locked<[() -> Void]>([])
    private var listener: Int32
    private let wakeUp: Int32
    private let waker: Int32
    private var isFinished = false
    private var chunk = [UInt8](repeating: 0, count: 1 << 18)

    init(portal: LoopbackPortal, targets: [LoopbackPortal]) throws {
        self.portal = portal
        self.targets = targets
        listener = try Socket.listen(on: portal)
        var ends: [Int32] = [-1, -1]
        guard pipe2(&ends, O_CLOEXEC | O_NONBLOCK) == 0 else {
            let error = SystemError(call: "pipe2")
            close(listener)
            throw error
        }
        (wakeUp, waker) = (ends[0], ends[1])
    }

    /// Not where the thread ends: `perform` may still be about to wake it.
    deinit {
        close(wakeUp)
        close(waker)
    }

    func start() {
        let thread = Thread { self.run() }
        thread.name = "faulty-link"
        thread.start()
    }

    /// Runs `job` on the relay's thread and waits for it.
    func perform(_ job: @escaping @Sendable (Relay) -> Void) {
        let done = DispatchSemaphore(value: 0)
        jobs.withLock { jobs in
            jobs.append {
                job(self)
                done.signal()
            }
        }
        var one: UInt8 = 1
        _ = write(waker, &one, 1)
        done.wait()
    }

    func listen() throws {
        if listener < 0 { listener = try Socket.listen(on: portal) }
    }

    func stopListening() {
        if listener >= 0 { close(listener) }
        listener = -1
    }

    func resetAll() {
        for connection in connections {
            Socket.reset(connection.initiator)
            Socket.reset(connection.target)
        }
        connections = []
    }

    func finish() {
        stopListening()
        resetAll()
        isFinished = true
    }

    private func run() {
        while !isFinished {
            var descriptors = [
                pollfd(fd: wakeUp, events: Int16(POLLIN), revents: 0),
                pollfd(fd: listener, events: Int16(POLLIN), revents: 0),
            ]
            for connection in connections {
                descriptors.append(interest(of: connection, reading: .toTarget, writing: .fromTarget))
                descriptors.append(interest(of: connection, reading: .fromTarget, writing: .toTarget))
            }
            poll(&descriptors, nfds_t(descriptors.count), -1)
            let polled = connections
            for (index, connection) in polled.enumerated() {
                if descriptors[2 + 2 * index].revents != 0 { receive(connection, .toTarget) }
                if descriptors[3 + 2 * index].revents != 0 { receive(connection, .fromTarget) }
            }
            if descriptors[1].revents != 0 { acceptConnection() }
            if descriptors[0].revents != 0 { runJobs() }
            for direction in FaultyLink.Direction.allCases where !held.contains(direction) {
                for connection in connections { send(connection, direction) }
            }
            closeFinished()
        }
    }

    private func runJobs() {
        var bytes: UInt64 = 0
        while read(wakeUp, &bytes, 8) > 0 {}
        let waiting = jobs.withLock { jobs in
            defer { jobs = [] }
            return jobs
        }
        for job in waiting { job() }
    }

    private func interest(
        of connection: Connection, reading: FaultyLink.Direction, writing: FaultyLink.Direction
    ) -> pollfd {
        var events: Int32 = 0
        let incoming = connection.flow(reading)
        if !incoming.ended && incoming.hasRoom { events |= POLLIN }
        if connection.flow(writing).pending > 0 && !held.contains(writing) { events |= POLLOUT }
        // A socket that is asked for nothing would still report HUP, over and over.
        return pollfd(fd: events == 0 ? -1 : connection.source(reading), events: Int16(events), revents: 0)
    }

    private func acceptConnection() {
        let initiator = accept4(
            listener, .init(__sockaddr__: nil), nil, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue))
        guard initiator >= 0 else { return }
        acceptedCount += 1
        Socket.setNoDelay(initiator)
        guard let target = try? Socket.connect(to: targets[(acceptedCount - 1) % targets.count]) else {
            Socket.reset(initiator)
            return
        }
        connections.append(Connection(initiator: initiator, target: target))
    }

    private func receive(_ connection: Connection, _ direction: FaultyLink.Direction) {
        guard !connection.flow(direction).ended, connection.flow(direction).hasRoom else { return }
        let count = recv(connection.source(direction), &chunk, chunk.count, 0)
        if count < 0 && (errno == EAGAIN || errno == EINTR) { return }
        guard count > 0 else {
            connection.withFlow(direction) { $0.ended = true }
            // An end that broke takes nothing more; what it had sent before still goes on.
            if count < 0 {
                connection.isBroken = true
                connection.withFlow(direction == .toTarget ? .fromTarget : .toTarget) { flow in
                    flow.ended = true
                    flow.discard()
                }
            }
            return
        }
        if let left = corruptions[direction], left > 0 {
            corruptions[direction] = left - 1
            chunk[count - 1] ^= 1
        }
        connection.withFlow(direction) { $0.append(chunk[0..<count]) }
    }

    private func send(_ connection: Connection, _ direction: FaultyLink.Direction) {
        let destination = connection.destination(direction)
        connection.withFlow(direction) { flow in
            while flow.pending > 0 {
                let sent = flow.bytes.withUnsafeBytes { bytes in
                    Glibc.send(
                        destination, bytes.baseAddress! + flow.start, flow.pending, Int32(MSG_NOSIGNAL))
                }
                if sent < 0 && (errno == EAGAIN || errno == EINTR) { return }
                guard sent > 0 else {
                    connection.isBroken = true
                    flow.discard()
                    flow.ended = true
                    break
                }
                flow.consume(sent)
                byteCounts[direction, default: 0] += UInt64(sent)
            }
            if flow.ended && !flow.endPassedOn {
                if !connection.isBroken { shutdown(destination, Int32(SHUT_WR)) }
                flow.endPassedOn = true
            }
        }
    }

    private func closeFinished() {
        connections.removeAll { connection in
            guard connection.toTarget.endPassedOn, connection.fromTarget.endPassedOn else { return false }
            for end in [connection.initiator, connection.target] {
                if connection.isBroken { Socket.reset(end) } else { close(end) }
            }
            return true
        }
    }
}
