import SCSI
import Timebase

/// The lot of one connection: its stream in both directions, StatSN, login and signs of life. What the
/// session shares between connections (CmdSN, tasks) is in ``InitiatorSession``.
struct InitiatorConnection: ~Copyable {
    enum Phase {
        case closed
        case loggingIn
        case fullFeature
        /// Takes no new commands, because it is to be logged out by itself once it is idle.
        case leaving
        case loggingOut
    }

    /// Bytes of the output ring that commands leave free for answers and other control PDUs.
    static let controlReserve = 16 * 1024
    /// Data-Out PDUs are queued no further ahead than this, so that what comes later, like a ping, does
    /// not wait behind all of a long write.
    static let dataAheadByteCount = 512 * 1024

    var phase = Phase.closed
    /// The CID of this connection; not used again while it lives or has tasks at the target.
    var connectionID: UInt16 = 0
    var output: OutputQueue
    var decoder: PDUDecoder
    var login: InitiatorLogin?

    /// The StatSN that the next status of this connection must carry.
    var expStatSN: UInt32 = 0
    var headerCRC: CRC32CFunction?
    var dataCRC: CRC32CFunction?
    /// The target's MaxRecvDataSegmentLength for this connection.
    var maxSendDataSegmentByteCount = 8192

    /// The list of bursts to send, in order.
    var firstBurst = CommandTable.none
    var lastBurst = CommandTable.none

    /// The task whose Data-In is arriving, between its header and its end.
    var placingSlot: Int?
    /// Commands whose outcome is known but whose buffer is still queued here.
    var drainingCount = 0
    /// Tasks that the target owes an answer on this connection, pings included.
    var owedCount = 0
    /// SCSI commands among them.
    var commandCount = 0
    /// A command's data or status came since its login. Kept until the next one begins.
    var hasServed = false
    var liveness = Liveness()

    /// - Parameter output: an empty one.
    init(output: consuming OutputQueue, crc32c: CRC32CFunction) {
        self.output = output
        // Nothing that a target sends has an AHS (RFC 7143 section 11.2.2). A length that was damaged on the way would
        // have us wait for it, before the digest could show the damage.
        decoder = PDUDecoder(crc32c: crc32c, maxAdditionalHeaderByteCount: 0)
    }

    static func output(commandCapacity: Int) -> OutputQueue {
        OutputQueue(
            byteCapacity: 2 * InitiatorConnection.controlReserve + 64 * commandCapacity,
            segmentCapacity: 4 * commandCapacity + 256)
    }

    /// A transport that failed had the stream before; the next one starts with a new one. Not done at
    /// the failure: until the owner has closed the transport, the kernel may be sending from the old.
    var needsFreshStream = false

    /// ErrorRecoveryLevel 1 and above: PDUs that digest errors took are asked for again.
    var recoversPDUs = false
    /// Statuses that came behind a gap: bit n stands for ``expStatSN`` + n.
    var laterStatSNs: UInt64 = 0
    /// Missing statuses before this one were asked for.
    var statusAskedUpTo: UInt32 = 0
    /// Requests to send again since a command ended.
    var snackCount = 0
    var headerErrorsSeen: UInt64 = 0

    /// What is still to be done about the connection that was here, since it was lost.
    var recovery: ConnectionRecovery?
    /// When a connection that leaves is logged out with what is still open on it.
    var leaveDeadline = Instant.distantFuture

    /// In the memory of the old one: see ``SessionMemory``.
    mutating func renewStream(crc32c: CRC32CFunction) {
        let recovery = recovery
        var output = OutputQueue(byteCapacity: 1024, segmentCapacity: 8)
        swap(&output, &self.output)
        output.removeAll()
        self = InitiatorConnection(output: output, crc32c: crc32c)
        self.recovery = recovery
    }

    /// Whether the target may throw a request away without a word.
    var mayMissRequests: Bool { recoversPDUs && headerCRC != nil }

    /// Whether the target answers requests here.
    var isOperational: Bool { phase == .fullFeature || phase == .leaving }

    var needsToSend: Bool { !output.isEmpty || firstBurst != CommandTable.none }

    /// Room for one command with its digests, leaving the reserve.
    @inline(__always)
    var hasRoomForCommand: Bool { output.hasRoom(for: InitiatorConnection.controlReserve + 64) }

    /// Room for a control PDU with `dataByteCount` bytes of data.
    func hasRoomForControl(dataByteCount: Int) -> Bool { output.hasRoom(for: dataByteCount + 64) }

    /// Queues a header and its digest. ``OutputQueue/hasRoom(for:)`` must have said yes.
    @inline(__always)
    mutating func enqueue(_ header: BasicHeaderSegment) {
        if let headerCRC {
            var outgoing = OutgoingHeader(header)
            outgoing.seal(with: headerCRC)
            _ = outgoing.store(to: output.appendOwnBytes(52))
        } else {
            header.store(to: output.appendOwnBytes(48))
        }
    }

    /// Queues a data segment that stays where the caller has it, with its padding and digest.
    @inline(__always)
    mutating func enqueueCallerData(_ data: UnsafeRawBufferPointer) {
        output.appendCallerBytes(data)
        guard dataCRC != nil || data.count & 3 != 0 else { return }
        let trailer = OutgoingTrailer(data: data, crc32c: dataCRC)
        _ = trailer.store(to: output.appendOwnBytes(Int(trailer.byteCount)))
    }

    /// Queues a control PDU, its data copied. False, and nothing queued, where the output has no room.
    mutating func enqueueControl(_ header: BasicHeaderSegment, data: [UInt8] = []) -> Bool {
        guard hasRoomForControl(dataByteCount: data.count) else { return false }
        let bytes = PDU(header: header, data: data).encoded(headerDigest: headerCRC, dataDigest: dataCRC)
        let target = output.appendOwnBytes(bytes.count)
        bytes.withUnsafeBytes { target.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        return true
    }

    /// One task more that the target owes an answer.
    @inline(__always)
    mutating func taskBegan(at now: Instant) {
        if owedCount == 0 { liveness.owedSince = now }
        owedCount += 1
    }
}

/// Signs of life of one connection, judged in `InitiatorSessionLiveness.swift`.
struct Liveness {
    /// When the last byte came, or the connection entered its phase.
    var lastByteAt = Instant.zero
    /// Since when the target has owed an answer without a break.
    var owedSince = Instant.zero
    /// When a command last made progress, or the first of those open was sent.
    var lastProgressAt = Instant.zero
    /// Login or logout must be over by then.
    var phaseDeadline = Instant.distantFuture

    /// The ping under way.
    var pingSlot: Int?
    var pingSentAt = Instant.zero
    /// The output position after the ping.
    var pingEndPosition: UInt64 = 0
    /// The output position that the target has read up to, as far as its answers to pings show.
    var readPosition: UInt64 = 0
    /// Something was queued or unacknowledged before the ping.
    var pingWaitedBehindData = false
    /// Since when there is no room for one.
    var pingRefusedAt: Instant?
    /// The owner asked for the ping and hears of the answer.
    var pingIsReported = false
    /// The ping was seen to have reached the peer's TCP, and the judgement put off once for it.
    var pingDeliveryNoticed = false
    /// Position up to which the peer's TCP had acknowledged at the last look.
    var acknowledgedPosition: UInt64 = 0

    /// The next judgement, where one was put off.
    var judgeAt: Instant?
    var stalledSince: Instant?
    var isSlow = false
    /// No judgement of progress before then.
    var lookAgainAt = Instant.zero
}
