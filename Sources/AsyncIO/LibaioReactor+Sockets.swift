import CAio
import Glibc

/// One connection. Its POLLs complete by themselves when it is closed (shutdown wakes them) and then
/// find no slot, so a slot is free as soon as its socket is closed.
struct SocketSlot {
    enum Phase { case resolved, connecting, open }

    var descriptor: Int32
    var phase: Phase
    let isTCP: Bool
    var isReceiving = true
    var isPollInArmed = false
    var isPollOutArmed = false
    /// A read of a POLL IN event that came while receiving was off.
    var isReadable = false
    var isSendQueued = false
    var isArmQueued = false
    var isReadyQueued = false
    /// The peer takes no more for now: a POLL OUT is armed or about to be.
    var isSendBlocked = false
    var isSendSubmitted = false
    var isReceiveSubmitted = false
    /// Large pieces arrive, each to be placed directly: the spill takes little more than what says where.
    var isBulk = false
    /// How many bytes must be there before a POLL completes (SO_RCVLOWAT).
    var receiveThreshold = 1
    /// In the reactor's list of sockets with a higher one; each at most once.
    var isRaisedQueued = false
    /// Bytes came since the thresholds were last reviewed.
    var isFlowing = false
    /// The last receive found nothing: the next one waits for a POLL.
    var foundNothing = false
    /// The last receive filled all that it was given.
    var wasFilled = false
    /// Something was sent since the last bytes came; and it is in the reactor's list of such sockets, or was.
    var isAwaited = false
    var isAwaitedQueued = false
    /// The error that sending ended with. What the peer sent before is still read and delivered.
    var sendFailure: Int32 = 0
    var submittedByteCount = 0
    var submittedWindow = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    var submittedSpill = 0
    var handler: (any SocketHandler)?
    var pollIn = iocb()
    var pollOut = iocb()
    var transmit = iocb()
    var receive = iocb()
    let peer: SocketAddress

    init(descriptor: Int32, phase: Phase, isTCP: Bool, peer: SocketAddress) {
        self.descriptor = descriptor
        self.phase = phase
        self.isTCP = isTCP
        self.peer = peer
    }
}

extension LibaioReactor {
    // MARK: Opening

    public func connect(
        to destination: SocketAddress, from source: SocketAddress?, handler: any SocketHandler
    ) -> SocketID {
        checkThread()
        guard sockets.count < options.socketCapacity else { return refuse(destination, handler) }
        var inProgress = false
        let result = Self.beginConnection(to: destination, from: source, &inProgress)
        var isTCP = true
        if case .unix = destination { isTCP = false }
        var slot = SocketSlot(
            descriptor: result, phase: inProgress ? .connecting : .resolved, isTCP: isTCP, peer: destination)
        slot.handler = handler
        guard let id = sockets.allocate(slot) else { preconditionFailure("there are as many slots as there may be sockets") }
        if inProgress {
            preparePolls(id)
            queueArming(id, sockets[id]!)
        } else {
            resolvedQueue.append(id)
        }
        return SocketID(rawValue: id)
    }

    /// A descriptor, or a negative error number.
    private static func beginConnection(
        to destination: SocketAddress, from source: SocketAddress?, _ inProgress: inout Bool
    ) -> Int32 {
        destination.withSystemAddress { to, toCount in
            guard let source else { return mpio_connect(to, toCount, nil, 0, &inProgress) }
            return source.withSystemAddress { mpio_connect(to, toCount, $0, $1, &inProgress) } ?? -EINVAL
        } ?? -ENAMETOOLONG
    }

    /// Takes a slot for an accepted descriptor; nil when all are in use.
    func adopt(_ descriptor: Int32, isTCP: Bool, peer: SocketAddress) -> UInt64? {
        guard
            let id = sockets.allocate(
                SocketSlot(descriptor: descriptor, phase: .open, isTCP: isTCP, peer: peer))
        else { return nil }
        preparePolls(id)
        return id
    }

    private func preparePolls(_ id: UInt64) {
        let slot = sockets[id]!
        withUnsafeMutablePointer(to: &slot.pointee.pollIn) {
            io_prep_poll($0, slot.pointee.descriptor, Int32(POLLIN))
            $0.pointee.data = AioContext.data(OperationKind.pollIn.tagging(id))
        }
        withUnsafeMutablePointer(to: &slot.pointee.pollOut) {
            io_prep_poll($0, slot.pointee.descriptor, Int32(POLLOUT))
            $0.pointee.data = AioContext.data(OperationKind.pollOut.tagging(id))
        }
    }

    func deliverResolvedConnections() {
        var remaining = resolvedQueue.count
        while remaining > 0, let id = resolvedQueue.popFirst() {
            remaining -= 1
            guard let slot = sockets[id] else {
                tellRefusal(id)
                continue
            }
            if slot.pointee.descriptor < 0 {
                finish(id, Self.connectFailure(slot.pointee.peer, -slot.pointee.descriptor))
            } else {
                preparePolls(id)
                connectionIsMade(id, slot)
            }
        }
    }

    private func connectionIsMade(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        let code = mpio_connect_result(slot.pointee.descriptor)
        guard code == 0 else {
            finish(id, Self.connectFailure(slot.pointee.peer, -code))
            return
        }
        slot.pointee.phase = .open
        let handler = slot.pointee.handler!
        queueArming(id, slot)
        if slot.pointee.isSendQueued { sendQueue.append(id) }
        handler.socketConnected(SocketID(rawValue: id))
    }

    static func connectFailure(_ peer: SocketAddress, _ code: Int32) -> SocketCloseReason {
        .connectFailed(IOError(code: code, operation: "connect to \(peer)"))
    }

    // MARK: Closing

    public func close(_ socket: SocketID, mode: CloseMode) {
        checkThread()
        guard let slot = sockets[socket.rawValue] else {
            return forgetRefusal(socket.rawValue)
        }
        forgetUnsubmitted(slot)
        closeDescriptor(slot, mode)
        sockets.release(socket.rawValue)
    }

    private func closeDescriptor(_ slot: UnsafeMutablePointer<SocketSlot>, _ mode: CloseMode) {
        guard slot.pointee.descriptor >= 0 else { return }
        switch mode {
        case .graceful: mpio_close_gracefully(slot.pointee.descriptor, slot.pointee.isTCP)
        case .reset: mpio_close_with_reset(slot.pointee.descriptor)
        }
        slot.pointee.descriptor = -1
    }

    /// Takes operations of a socket out of the batch: the descriptor may soon name another file, and
    /// the memory of a send is the caller's again.
    private func forgetUnsubmitted(_ slot: UnsafeMutablePointer<SocketSlot>) {
        guard context.batchCount > 0 else { return }
        let first = UnsafeMutableRawPointer(slot)
        let end = first + MemoryLayout<SocketSlot>.stride
        context.withdraw { UnsafeMutableRawPointer($0) >= first && UnsafeMutableRawPointer($0) < end }
    }

    /// The connection ended by itself: closes, then says so.
    func finish(_ id: UInt64, _ reason: SocketCloseReason) {
        guard let slot = sockets[id] else { return }
        let handler = slot.pointee.handler
        forgetUnsubmitted(slot)
        closeDescriptor(slot, .graceful)
        sockets.release(id)
        handler?.socketClosed(SocketID(rawValue: id), reason: reason)
    }

    private func fail(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>, _ code: Int32, _ operation: String) {
        finish(id, .failed(IOError(code: code, operation: "\(operation) \(slot.pointee.peer)")))
    }

    // MARK: Readiness

    /// Has the POLLs that the socket lacks submitted with the turn's batch.
    @inline(__always)
    func queueArming(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        guard !slot.pointee.isArmQueued else { return }
        slot.pointee.isArmQueued = true
        armQueue.append(id)
    }

    func armPolls() {
        var remaining = armQueue.count
        let gathers = remaining > 0 && gathersNext
        while remaining > 0, let id = armQueue.popFirst() {
            remaining -= 1
            guard let slot = sockets[id] else { continue }
            if gathers, goesUnarmed(slot) {
                unarmedQueue.append(id)
                continue
            }
            if context.batchCount + 2 > AioContext.batchCapacity {
                flush()
                guard context.batchCount + 2 <= AioContext.batchCapacity else {
                    armQueue.append(id)
                    return
                }
                // Who is told there what the kernel refused may have closed it.
                guard sockets.contains(id) else { continue }
            }
            slot.pointee.isArmQueued = false
            fitReceiveThreshold(id, slot)
            guard sockets.contains(id) else { continue }
            if slot.pointee.phase == .connecting {
                slot.pointee.isSendBlocked = true
            } else if slot.pointee.isReceiving, !slot.pointee.isPollInArmed, !slot.pointee.isReadyQueued,
                !slot.pointee.isReceiveSubmitted
            {
                slot.pointee.isPollInArmed = true
                withUnsafeMutablePointer(to: &slot.pointee.pollIn) { context.add($0) }
            }
            if slot.pointee.isSendBlocked, !slot.pointee.isPollOutArmed {
                slot.pointee.isPollOutArmed = true
                withUnsafeMutablePointer(to: &slot.pointee.pollOut) { context.add($0) }
            }
        }
    }

    /// Whether the socket can do without a POLL where answers gather next, because it owes some: after the wait it is read, and
    /// mostly there is something. A POLL and its completion cost about twice as much as a read in vain, after which it gets one.
    @inline(__always)
    private func goesUnarmed(_ slot: UnsafeMutablePointer<SocketSlot>) -> Bool {
        slot.pointee.isAwaited && !slot.pointee.foundNothing && !slot.pointee.isPollInArmed
            && !slot.pointee.isSendBlocked && slot.pointee.isReceiving && slot.pointee.phase == .open
    }

    /// The wait is over.
    func queueReadingUnarmed() {
        while let id = unarmedQueue.popFirst() {
            guard let slot = sockets[id] else { continue }
            slot.pointee.isArmQueued = false
            queueReading(id, slot)
            if slot.pointee.isSendBlocked { queueArming(id, slot) }
        }
    }

    func pollInCompleted(_ id: UInt64) {
        guard let slot = sockets[id] else { return }
        slot.pointee.isPollInArmed = false
        guard slot.pointee.isReceiving else {
            slot.pointee.isReadable = true
            return
        }
        receive(id, slot)
    }

    func pollOutCompleted(_ id: UInt64) {
        guard let slot = sockets[id] else { return }
        slot.pointee.isPollOutArmed = false
        slot.pointee.isSendBlocked = false
        if slot.pointee.phase == .connecting {
            connectionIsMade(id, slot)
        } else {
            queueSend(id, slot)
        }
    }

    /// The kernel would not watch the socket; reading or writing it tells why.
    func pollRefused(_ id: UInt64, _ code: Int32) {
        guard let slot = sockets[id] else { return }
        slot.pointee.isPollInArmed = false
        slot.pointee.isPollOutArmed = false
        if slot.pointee.sendFailure == 0 { slot.pointee.sendFailure = code }
        queueReading(id, slot)
    }

    // MARK: Receiving

    public func setReceiving(_ enabled: Bool, on socket: SocketID) {
        checkThread()
        let id = socket.rawValue
        guard let slot = sockets[id], slot.pointee.isReceiving != enabled else { return }
        slot.pointee.isReceiving = enabled
        guard enabled, slot.pointee.phase == .open else { return }
        if slot.pointee.isReadable {
            slot.pointee.isReadable = false
            queueReading(id, slot)
        } else {
            queueArming(id, slot)
        }
    }

    private func queueReading(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        guard !slot.pointee.isReadyQueued else { return }
        slot.pointee.isReadyQueued = true
        readyQueue.append(id)
    }

    func receiveFromReadySockets() {
        var remaining = readyQueue.count
        while remaining > 0, let id = readyQueue.popFirst() {
            remaining -= 1
            guard let slot = sockets[id] else { continue }
            slot.pointee.isReadyQueued = false
            if slot.pointee.isReceiving {
                receive(id, slot)
            } else if slot.pointee.sendFailure != 0 {
                fail(id, slot, slot.pointee.sendFailure, "send to")
            } else {
                slot.pointee.isReadable = true
            }
        }
        if !submittedReceiveQueue.isEmpty { submitReceives() }
    }

    /// One read, by a call at once or by an operation in the next batch of reads.
    @inline(__always)
    private func receive(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        if options.receives == .submitted {
            submittedReceiveQueue.append(id)
            return
        }
        receiveByCall(id, slot)
    }

    func receiveByCall(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        let handler = slot.pointee.handler!
        let window = handler.socketInput(SocketID(rawValue: id))
        guard sockets.contains(id) else { return }
        counts.receiveCalls += 1
        let spill = spillBeside(window, slot)
        let result = Int(
            mpio_receive(
                slot.pointee.descriptor, window.baseAddress, window.count, spill.baseAddress, spill.count))
        slot.pointee.wasFilled = result == window.count + spill.count
        received(id, slot, handler, result, window, spill)
    }

    /// How long a sleep may last before sockets are looked at whose POLL says nothing. Doubles with every look
    /// that follows. Longer than the tick of most kernels: a sleep with an earlier end sets the processor's timer,
    /// which in a virtual machine costs more than a send.
    static let firstSecondLookDelay: UInt64 = 5_000_000
    static let lastSecondLookDelay: UInt64 = 320_000_000
    static let socketsPerSecondLook = 64

    /// Tries sockets from which answers are due, armed POLLs or not. The kernel completes a POLL where the bytes arrive,
    /// except where this context is just then being submitted to: it leaves that to a thread of its own, which on a busy
    /// processor comes to it tens of milliseconds later, while whatever waits for these bytes waits too.
    func lookAgain() {
        counts.secondLooks += 1
        secondLookDelay *= 2
        var remaining = min(awaitedQueue.count, Self.socketsPerSecondLook)
        while remaining > 0, let id = awaitedQueue.popFirst() {
            remaining -= 1
            guard let slot = sockets[id] else { continue }
            guard slot.pointee.isAwaited, slot.pointee.phase == .open else {
                slot.pointee.isAwaitedQueued = false
                continue
            }
            awaitedQueue.append(id)
            if slot.pointee.isPollInArmed, slot.pointee.isReceiving { queueReading(id, slot) }
            if slot.pointee.isSendBlocked, slot.pointee.isPollOutArmed {
                slot.pointee.isSendBlocked = false
                queueSend(id, slot)
            }
        }
    }

    static let bulkWindowByteCount = 64 * 1024
    static let bulkSpillByteCount = 4096

    /// What is received past the window. All of the spill, unless large pieces come one after the other:
    /// those would be copied out of it, where a further call puts them in place. Back to all of it when a
    /// whole small spill held nothing large.
    @inline(__always)
    private func spillBeside(
        _ window: UnsafeMutableRawBufferPointer, _ slot: UnsafeMutablePointer<SocketSlot>
    ) -> UnsafeMutableRawBufferPointer {
        if window.count >= Self.bulkWindowByteCount {
            slot.pointee.isBulk = true
        } else if window.count == 0, slot.pointee.wasFilled {
            slot.pointee.isBulk = false
        }
        guard slot.pointee.isBulk, spill.count > Self.bulkSpillByteCount else { return spill }
        return UnsafeMutableRawBufferPointer(start: spill.baseAddress, count: Self.bulkSpillByteCount)
    }

    func received(
        _ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>, _ handler: any SocketHandler, _ result: Int,
        _ window: UnsafeMutableRawBufferPointer, _ spill: UnsafeMutableRawBufferPointer
    ) {
        if result > 0 {
            counts.receivedByteCount += UInt64(result)
            slot.pointee.isAwaited = false
            slot.pointee.isFlowing = true
            slot.pointee.foundNothing = false
            secondLookDelay = Self.firstSecondLookDelay
            let placed = min(result, window.count)
            if window.count >= Self.leastRaisedThreshold {
                slot.pointee.isBulk = true
                largePiecesUntil = now.nanoseconds &+ Self.thresholdReviewInterval
            }
            // Buffers that were filled say that more is there; a short read, that a POLL is next: reading
            // again would mostly cost a call that finds nothing.
            if result == window.count + spill.count || slot.pointee.sendFailure != 0 {
                queueReading(id, slot)
            } else {
                queueArming(id, slot)
            }
            handler.socketReceived(
                SocketID(rawValue: id), placedByteCount: placed,
                spill: UnsafeRawBufferPointer(start: spill.baseAddress, count: result - placed))
            return
        }
        if result == 0 {
            // A send that failed took the connection's error with it. EPIPE alone is what sending gives
            // after the peer's orderly end.
            if slot.pointee.sendFailure != 0, slot.pointee.sendFailure != EPIPE {
                fail(id, slot, slot.pointee.sendFailure, "send to")
            } else {
                finish(id, .endOfStream)
            }
        } else if result == -Int(EAGAIN) || result == -Int(EINTR) {
            counts.emptyReceives += 1
            slot.pointee.foundNothing = true
            if slot.pointee.sendFailure != 0 {
                fail(id, slot, slot.pointee.sendFailure, "send to")
            } else {
                queueArming(id, slot)
            }
        } else {
            fail(id, slot, Int32(clamping: -result), "receive from")
        }
    }

    // MARK: Sending

    public func requestSend(_ socket: SocketID) {
        checkThread()
        guard let slot = sockets[socket.rawValue] else { return }
        queueSend(socket.rawValue, slot)
    }

    @inline(__always)
    private func queueSend(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        guard !slot.pointee.isSendQueued else { return }
        slot.pointee.isSendQueued = true
        // Before the connection is there, the flag alone remembers it.
        if slot.pointee.phase == .open { sendQueue.append(id) }
    }

    func gatherSends() {
        var remaining = sendQueue.count
        while remaining > 0, let id = sendQueue.popFirst() {
            remaining -= 1
            guard let slot = sockets[id] else { continue }
            slot.pointee.isSendQueued = false
            // A blocked socket is asked when it is writable, a submitted send when it is answered.
            guard !slot.pointee.isSendBlocked, !slot.pointee.isSendSubmitted, slot.pointee.sendFailure == 0 else {
                continue
            }
            switch options.sends {
            case .systemCalls: sendByCall(id, slot)
            case .submitted: addSend(id, slot)
            }
        }
    }

    /// Asks the handler for output and lays it out for the kernel; the bytes, 0 where there is none or
    /// the socket was closed meanwhile.
    @inline(__always)
    func collectOutput(
        _ id: UInt64, _ handler: any SocketHandler, into parts: UnsafeMutablePointer<iovec>, limit: Int
    ) -> (partCount: Int, byteCount: Int) {
        let room = UnsafeMutableBufferPointer(rebasing: segments[..<limit])
        let filled = handler.socketOutput(SocketID(rawValue: id), into: room)
        precondition(filled >= 0 && filled <= limit, "a handler filled more segments than it was given")
        guard sockets.contains(id) else { return (0, 0) }
        var partCount = 0
        var byteCount = 0
        for position in 0..<filled {
            let segment = room[position]
            guard segment.count > 0 else { continue }
            parts[partCount] = iovec(
                iov_base: UnsafeMutableRawPointer(mutating: segment.baseAddress), iov_len: segment.count)
            partCount += 1
            byteCount += segment.count
        }
        return (partCount, byteCount)
    }

    private func sendByCall(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        let handler = slot.pointee.handler!
        // One socket with endless output must not keep the others waiting.
        var budget = 4 << 20
        while true {
            let output = collectOutput(id, handler, into: parts, limit: Self.maximumParts)
            guard output.byteCount > 0 else { return }
            counts.sendCalls += 1
            let result = Int(mpio_send(slot.pointee.descriptor, parts, output.partCount))
            guard sent(id, slot, handler, result: result, of: output.byteCount) else { return }
            budget -= result
            if budget <= 0 {
                queueSend(id, slot)
                return
            }
        }
    }

    /// Deals with what a send came to; true where all of it went and the socket is still open.
    func sent(
        _ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>, _ handler: any SocketHandler, result: Int,
        of byteCount: Int
    ) -> Bool {
        if result >= 0 {
            counts.sentByteCount += UInt64(result)
            noteAwaited(id, slot)
            if result < byteCount { blockSending(id, slot) }
            handler.socketSent(SocketID(rawValue: id), byteCount: result)
            return result == byteCount && sockets.contains(id)
        }
        switch Int32(clamping: -result) {
        case EAGAIN:
            blockSending(id, slot)
        case EINTR, ENOBUFS, ENOMEM:
            // Nothing was taken: again in the next turn.
            queueSend(id, slot)
        case let code:
            // The peer's last words may still be in the receive queue: they are read before the end is told.
            slot.pointee.sendFailure = code
            queueReading(id, slot)
        }
        return false
    }

    @inline(__always)
    private func noteAwaited(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        slot.pointee.isAwaited = true
        guard !slot.pointee.isAwaitedQueued else { return }
        slot.pointee.isAwaitedQueued = true
        awaitedQueue.append(id)
    }

    private func blockSending(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        slot.pointee.isSendBlocked = true
        queueArming(id, slot)
    }

    // MARK: What is known of a socket

    public func localAddress(of socket: SocketID) -> SocketAddress? {
        guard let slot = sockets[socket.rawValue], slot.pointee.descriptor >= 0 else { return nil }
        return Self.localAddress(slot.pointee.descriptor)
    }

    static func localAddress(_ descriptor: Int32) -> SocketAddress? {
        var storage = sockaddr_storage()
        var byteCount = socklen_t(0)
        guard mpio_local_address(descriptor, &storage, &byteCount) == 0 else { return nil }
        return SocketAddress(&storage, byteCount: byteCount)
    }

    public func transportHealth(of socket: SocketID) -> TransportHealth? {
        guard let slot = sockets[socket.rawValue], slot.pointee.phase == .open else { return nil }
        var health = mpio_transport_health()
        guard mpio_transport_health(slot.pointee.descriptor, &health) == 0 else { return nil }
        return TransportHealth(
            unacknowledgedByteCount: Int(health.unacknowledged_bytes),
            sinceLastAcknowledgement: .milliseconds(health.milliseconds_since_ack),
            unansweredRetransmissions: Int(health.unanswered_retransmissions))
    }
}
