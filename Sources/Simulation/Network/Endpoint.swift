import AsyncIO
import Glibc
import Timebase

/// One end of a simulated TCP connection, as its kernel keeps it: go-back-N with cumulative
/// acknowledgements, a window, retransmission with back-off, FIN and RST. What matters to iSCSI is here:
/// order, back pressure, what is lost with a connection, and what `TCP_INFO` says of a silent peer.
final class Endpoint {
    enum Phase { case connecting, open, lingering, closed }

    let id: UInt64
    /// Strong: a killed process's kernel still closes its connections.
    let node: SimulatedIO
    let link: Link
    /// The direction in which this end sends.
    let direction: Int
    let local: SocketAddress
    let remote: SocketAddress
    var peer: Endpoint?
    var handler: (any SocketHandler)?
    var phase: Phase

    // Sending.
    /// What the peer has not acknowledged, sent or not; its first byte is number `acknowledged`.
    private var output = ByteQueue()
    private var acknowledged: UInt64 = 0
    private var transmitted: UInt64 = 0
    private var highestTransmitted: UInt64 = 0
    /// The peer has room up to here.
    private var limit: UInt64
    private var finWanted = false
    private var retransmissions = 0
    private var retransmitAt = Instant.distantFuture
    private var isTimerSet = false
    private var isPacing = false
    private var lastAcknowledgement: Instant
    private var lastArrival = Instant.zero
    private var lastAcknowledgementArrival = Instant.zero
    private(set) var isFull = false

    // Receiving.
    var input = ByteQueue()
    private var received: UInt64 = 0
    /// The peer's end of stream was received, after all its bytes.
    private(set) var isPeerDone = false
    var isReceiving = true
    var isReadQueued = false
    /// A planted bug keeps it among the open sockets.
    var isLeaked = false
    var isSendQueued = false
    var world: SimulatedWorld { node.world }

    init(id: UInt64, node: SimulatedIO, link: Link, direction: Int, local: SocketAddress, remote: SocketAddress, phase: Phase) {
        self.id = id
        self.node = node
        self.link = link
        self.direction = direction
        self.local = local
        self.remote = remote
        self.phase = phase
        limit = UInt64(link.bufferByteCount)
        lastAcknowledgement = node.world.now
    }

    // MARK: The program's side

    /// How many more bytes the kernel takes.
    var room: Int { max(0, link.bufferByteCount - output.count) }

    func take(_ bytes: UnsafeRawBufferPointer) {
        if transmitted == acknowledged, output.isEmpty { lastAcknowledgement = max(lastAcknowledgement, world.now) }
        output.append(bytes)
    }

    func becameFull() { isFull = true }

    /// The program read: the peer may send more.
    func drained() {
        guard let peer, phase == .open else { return }
        acknowledge(to: peer)
    }

    func closeGracefully() {
        if !input.isEmpty { return closeWithReset() }
        handler = nil
        phase = .lingering
        finWanted = true
        transmit()
        // A kernel does not linger for ever either.
        world.after(.seconds(60)) { [weak self] in self?.vanish() }
    }

    func closeWithReset() {
        guard phase != .closed else { return }
        sendReset()
        vanish()
    }

    private func sendReset() {
        guard let peer else { return }
        carry { if peer.phase != .closed { peer.wasReset() } }
    }

    /// The end is gone; what comes for it is answered by RST.
    func vanish() {
        guard phase != .closed else { return }
        phase = .closed
        handler = nil
        link.connections.removeAll { $0 === self }
    }

    func health() -> TransportHealth {
        TransportHealth(
            unacknowledgedByteCount: output.count,
            sinceLastAcknowledgement: world.now - lastAcknowledgement,
            unansweredRetransmissions: retransmissions)
    }

    // MARK: Out

    private var end: UInt64 { acknowledged + UInt64(output.count) + (finWanted ? 1 : 0) }

    func transmit() {
        guard phase == .open || phase == .lingering else { return }
        while transmitted < end {
            // What the way cannot take soon stays in this kernel, where a reset discards it.
            guard link.directions[direction].busyUntil <= world.now + Self.queueBound else { return pace() }
            let dataEnd = acknowledged + UInt64(output.count)
            if transmitted == dataEnd {
                send(0, fin: true)
                break
            }
            let allowed = min(dataEnd, limit)
            guard transmitted < allowed else { break }
            let count = min(segmentByteCount, Int(allowed - transmitted))
            send(count, fin: finWanted && transmitted + UInt64(count) == dataEnd)
        }
        armRetransmission()
    }

    private static let queueBound = Duration.milliseconds(100)

    /// A slow way takes small bites: no more is under way, out of a reset's reach, than it can carry in the bound.
    private var segmentByteCount: Int {
        min(link.segmentByteCount, max(1, link.directions[direction].rate / 10))
    }

    private func pace() {
        guard !isPacing else { return }
        isPacing = true
        world.at(link.directions[direction].busyUntil) { [weak self] in
            self?.isPacing = false
            self?.transmit()
        }
    }

    private func send(_ count: Int, fin: Bool) {
        var bytes = output.copy(from: Int(transmitted - acknowledged), count: count)
        let position = transmitted
        let isFirst = position >= highestTransmitted
        if isFirst, count > 0, link.directions[direction].corruptions > 0, link.mayCorrupt(self) {
            link.directions[direction].corruptions -= 1
            bytes[world.random.below(count)] ^= UInt8(1 << world.random.below(8))
            node.network.corrupted(self)
        }
        transmitted += UInt64(count) + (fin ? 1 : 0)
        highestTransmitted = max(highestTransmitted, transmitted)
        bytes.withUnsafeBytes { world.trace.record(.segment, id, bytes: $0) }
        guard let peer else { return }
        let arrival = departure(count + 40)
        carry(at: arrival) { peer.arrived(position, bytes, fin: fin) }
    }

    private func departure(_ byteCount: Int) -> Instant {
        let way = link.directions[direction]
        let begin = max(world.now, way.busyUntil)
        let left = begin + .nanoseconds(Int64(byteCount) * 1_000_000_000 / Int64(max(way.rate, 1)))
        link.directions[direction].busyUntil = left
        let jitter = way.jitter > .zero ? world.random.duration(.zero...way.jitter) : .zero
        lastArrival = max(lastArrival, left + way.latency + way.extraLatency + jitter)
        return lastArrival
    }

    /// Something of this end's arrives, unless the way is silent when it leaves or when it arrives.
    private func carry(at moment: Instant? = nil, _ body: @escaping () -> Void) {
        let arrival = moment ?? departure(40)
        if link.directions[direction].isSilent {
            world.trace.record(.lost, id)
            return
        }
        world.at(arrival) { [link, direction] in
            if !link.directions[direction].isSilent { body() }
        }
    }

    // MARK: Retransmission

    private static let firstTimeout = Duration.milliseconds(200)
    /// Some 15 minutes in a real kernel; no more than this in ours, which only bounds what lingers.
    private static let retransmissionLimit = 9

    private func armRetransmission() {
        guard phase != .closed, transmitted > acknowledged || end > acknowledged else {
            retransmitAt = .distantFuture
            return
        }
        let way = link.directions[1 - direction]
        let back = way.latency + way.extraLatency + way.jitter
        let base = max(lastArrival, world.now) + back + Self.firstTimeout * (1 << min(retransmissions, 8))
        retransmitAt = base
        guard !isTimerSet else { return }
        isTimerSet = true
        world.at(base) { [weak self] in self?.retransmissionTimer() }
    }

    private func retransmissionTimer() {
        isTimerSet = false
        guard phase != .closed, end > acknowledged, retransmitAt < .distantFuture else { return }
        guard world.now >= retransmitAt else {
            isTimerSet = true
            return world.at(retransmitAt) { [weak self] in self?.retransmissionTimer() }
        }
        retransmissions += 1
        if retransmissions > Self.retransmissionLimit {
            failed(ETIMEDOUT)
            return
        }
        if transmitted == acknowledged {
            // The window is closed: a probe, which a live kernel answers.
            if let peer { carry { peer.probed() } }
        } else {
            transmitted = acknowledged
        }
        transmit()
    }

    private func acknowledgementArrived(_ position: UInt64, limit newLimit: UInt64) {
        guard phase != .closed else { return }
        limit = max(limit, newLimit)
        if position > acknowledged {
            let dataCount = min(Int(position - acknowledged), output.count)
            output.removeFirst(dataCount)
            acknowledged = position
            transmitted = max(transmitted, acknowledged)
        }
        lastAcknowledgement = world.now
        retransmissions = 0
        if finWanted, output.isEmpty, acknowledged == end { return vanish() }
        if phase == .open, isFull, room > 0 {
            isFull = false
            node.post(.writable(self))
        }
        transmit()
    }

    // MARK: In

    private func arrived(_ position: UInt64, _ bytes: [UInt8], fin: Bool) {
        guard let peer, phase != .closed else {
            if let peer { carry { peer.wasReset() } }
            return
        }
        if phase == .lingering, !bytes.isEmpty, position + UInt64(bytes.count) > received {
            // Nobody will read it.
            sendReset()
            return vanish()
        }
        if position <= received, position + UInt64(bytes.count) + (fin ? 1 : 0) > received, !isPeerDone {
            let skip = Int(received - position)
            let room = max(0, link.bufferByteCount - input.count)
            let count = min(bytes.count - skip, room)
            if count > 0 {
                bytes.withUnsafeBytes { input.append(UnsafeRawBufferPointer(rebasing: $0[skip..<skip + count])) }
                received += UInt64(count)
                world.trace.record(.received, id, UInt64(count))
            }
            if fin, skip + count == bytes.count {
                received += 1
                isPeerDone = true
            }
            if phase == .open { node.readable(self) }
        }
        acknowledge(to: peer)
    }

    private func probed() {
        guard let peer, phase != .closed else {
            if let peer { carry { peer.wasReset() } }
            return
        }
        acknowledge(to: peer)
    }

    private func acknowledge(to peer: Endpoint) {
        let position = received
        let room = received + UInt64(max(0, link.bufferByteCount - input.count))
        // Small and many: they do not queue behind data, but stay in order.
        let way = link.directions[direction]
        lastAcknowledgementArrival = max(lastAcknowledgementArrival, world.now + way.latency + way.extraLatency)
        carry(at: lastAcknowledgementArrival) { peer.acknowledgementArrived(position, limit: room) }
    }

    func wasReset() { failed(ECONNRESET) }

    private func failed(_ code: Int32) {
        guard phase == .open || phase == .connecting else { return vanish() }
        node.post(.failed(self, code))
    }
}

/// Bytes in order, taken from the front.
struct ByteQueue {
    private var bytes: [UInt8] = []
    private var head = 0

    var count: Int { bytes.count - head }
    var isEmpty: Bool { count == 0 }

    mutating func append(_ more: UnsafeRawBufferPointer) { bytes.append(contentsOf: more) }

    func copy(from offset: Int, count: Int) -> [UInt8] { Array(bytes[head + offset..<head + offset + count]) }

    mutating func removeFirst(_ count: Int) {
        head += count
        if head == bytes.count {
            bytes.removeAll(keepingCapacity: true)
            head = 0
        } else if head > 65_536, head * 2 > bytes.count {
            bytes.removeFirst(head)
            head = 0
        }
    }

    func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        bytes.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[head...])) }
    }
}
