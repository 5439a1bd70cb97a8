/// Why a session is over.
public enum SessionEnd: Hashable, Sendable {
    /// The client said that it goes (DISC): what it asked is still answered.
    case disconnected
    /// The client gave the negotiation up.
    case aborted
    /// EXPORT_NAME of an export that is not there, which has no other answer than to hang up.
    case unknownExport
    case violation(Violation)
    /// ``Session/shutDown()``
    case shutDown
    /// The connection is gone.
    case peerClosed

    /// What a client did that is not the protocol.
    public enum Violation: Hashable, Sendable {
        case unknownHandshakeFlags
        case optionWithoutFixedNewstyle
        case optionMagic
        case optionTooBig
        case requestMagic
        /// EXPORT_NAME, which has no other answer, where TLS is required.
        case exportNameWithoutTLS
        /// Plain bytes right behind STARTTLS: not the client's, perhaps, and never taken for what it says in TLS.
        case dataBehindStartTLS
    }

    /// Whether answers are still sent before the connection is closed.
    public var isGraceful: Bool {
        switch self {
        case .disconnected, .aborted, .shutDown: true
        case .unknownExport, .violation, .peerClosed: false
        }
    }
}

/// What a client wants of the disk.
public struct Request {
    /// Names it to ``Session/complete(_:_:)``; below ``Session/Limits/requestCount``.
    public var slot: Int
    /// READ, WRITE, FLUSH, TRIM, CACHE or WRITE_ZEROES.
    public var command: CommandCode
    public var flags: CommandFlags
    /// In bytes, inside the export and a multiple of its minimum block, as is ``byteCount``.
    public var offset: UInt64
    /// For CACHE at most the largest payload: it may cache less than it was asked for.
    public var byteCount: Int
    /// Of `byteCount` bytes, for READ and CACHE to fill, for WRITE to write; nil for the others. The session's until it
    /// is completed, whatever happens to the connection.
    public var memory: UnsafeMutableRawPointer?
}

/// One connection of a client, from the greeting to the end: bytes in, requests out, answers in, bytes out. Knows no
/// socket, no clock and no disk.
///
/// **Bounds.** So many requests at once, so much memory for their data, and input only as long as there is room for
/// what it may say: see ``isCongested``. What the client does not read is never more than that.
/// **Memory.** What ``output(into:)`` names stays as it is until ``sent(byteCount:)`` or ``peerClosed()``; a request's
/// memory until it is completed, and, where it was read into, until it was sent.
/// **Order.** Answers go out in the order of their completion.
/// **Threads.** One, that of its ``BufferPool``.
public struct Session: ~Copyable {
    public struct Limits: Sendable {
        /// Requests at once, 1…65,535.
        public var requestCount = 128
        /// Memory for their data; at least 32 MiB, so that one of any size fits.
        public var memoryByteCount = 64 << 20
        public init() {}
    }

    enum Phase {
        case clientFlags
        case optionHeader
        case optionData(OptionCode, byteCount: Int)
        /// Too long to be kept.
        case skippedOption(OptionCode, byteCount: Int)
        /// STARTTLS was acknowledged.
        case startingTLS
        case request
        /// A READ or WRITE was understood, and has no memory yet.
        case memory(slot: Int)
        case payload(slot: Int, placedByteCount: Int)
        /// The payload of a refused WRITE.
        case skippedPayload(slot: Int, byteCount: Int)
        case ended(SessionEnd)
    }

    /// An option's data beyond which nobody has anything sensible to say; it is skipped, and refused.
    static let optionDataLimit = 16 << 10
    /// What is not even skipped.
    static let skippedOptionLimit = 1 << 20
    /// Answers to options that may wait for the client to read them.
    static let optionReplyLimit = 64 << 10
    static let requestHeaderByteCount = 28
    static let replyHeaderStride = 32

    let limits: Limits
    let pool: BufferPool
    var negotiation: Negotiation
    var phase = Phase.clientFlags
    /// The one that was chosen.
    public internal(set) var export: Export?
    var shape = ExportShape()

    // Input.
    /// The beginning of a header whose rest has not come yet.
    let scratch: UnsafeMutableRawPointer
    var scratchCount = 0
    var optionData: [UInt8] = []
    /// What came while there was no room for it.
    var backlog: [UInt8] = []
    var backlogStart = 0

    // Requests; nil until an export was chosen.
    var table: RequestTable?

    // Output.
    /// Answers to options, oldest first, and how much of the first was sent.
    var optionReplies: [UnsafeMutableRawBufferPointer] = []
    var optionReplySent = 0
    var optionReplyByteCount = 0
    /// How much of the first answer to a request was sent.
    var replySent = 0

    /// A session that has its greeting to send.
    /// - Parameters:
    ///   - defaultExport: what an empty name means; an index of `exports`.
    ///   - security: other than ``TransportSecurity/none`` where the caller can do TLS: see ``isStartingTLS``.
    public init(
        exports: [Export], defaultExport: Int?, security: TransportSecurity = .none, pool: BufferPool, limits: Limits = Limits()
    ) {
        precondition(
            (1...65_535).contains(limits.requestCount) && limits.memoryByteCount >= 32 << 20, "session limits out of range")
        self.limits = limits
        self.pool = pool
        negotiation = Negotiation(exports: exports, defaultExport: defaultExport, security: security)
        scratch = .allocate(byteCount: Self.requestHeaderByteCount, alignment: 8)
        appendOptionReply(Negotiation.greeting)
    }

    deinit {
        scratch.deallocate()
        for reply in optionReplies { reply.deallocate() }
        table?.deallocate(returningTo: pool)
    }

    // MARK: state

    public var endReason: SessionEnd? {
        if case .ended(let reason) = phase { reason } else { nil }
    }

    public var isNegotiating: Bool { export == nil && endReason == nil }

    /// STARTTLS was acknowledged: once ``negotiationOutputByteCount`` bytes are out, what the socket carries is TLS, and
    /// what the session is given and says goes through it. ``tlsEstablished()`` comes next.
    public var isStartingTLS: Bool { if case .startingTLS = phase { true } else { false } }

    /// Answers to options that were not yet reported sent.
    public var negotiationOutputByteCount: Int { optionReplyByteCount - optionReplySent }

    /// Requests that the disk has.
    public var executingCount: Int { table?.executingCount ?? 0 }

    /// Nothing is under way and nothing is left to send.
    public var isDrained: Bool { optionReplies.isEmpty && (table?.isIdle ?? true) }

    public var hasOutput: Bool { !optionReplies.isEmpty || !(table?.replies.isEmpty ?? true) }

    /// The client should not be read from: there is no room for what it may say.
    public var isCongested: Bool { endReason != nil || isStalled || backlogStart < backlog.count }

    /// A request waits for memory of the pool, which other sessions have; not for this session's own to come back.
    public var isWaitingForPool: Bool {
        guard case .memory(let slot) = phase, let table else { return false }
        return table.lentByteCount + BufferPool.roundedByteCount(table[slot].pointee.byteCount) <= limits.memoryByteCount
    }

    /// Memory that cannot come back before the client does its part: takes answers, or sends the rest of a payload.
    public var holdsMemoryForClient: Bool {
        if case .payload = phase { return true }
        guard let table else { return false }
        return table.lentByteCount > 0 && !table.replies.isEmpty
    }

    /// Changes what can be chosen, for as long as nothing was.
    public mutating func setExports(_ exports: [Export], defaultExport: Int?) {
        negotiation.exports = exports
        negotiation.defaultExport = defaultExport
    }

    /// The handshake is over: the client begins anew to ask, with nothing agreed on.
    public mutating func tlsEstablished() {
        precondition(isStartingTLS, "the client asked for TLS")
        negotiation.encrypted()
        phase = .optionHeader
    }

    // MARK: ends

    /// Takes no more requests; those under way are answered. A payload that is half there is dropped.
    public mutating func shutDown() { end(.shutDown) }

    /// Nobody reads any more: what was lent to the socket is free. Requests that the disk has are still to be completed.
    public mutating func peerClosed() {
        end(.peerClosed)
        for reply in optionReplies { reply.deallocate() }
        optionReplies = []
        optionReplyByteCount = 0
        optionReplySent = 0
        replySent = 0
        while let slot = table?.replies.popFirst() { free(Int(slot)) }
    }

    mutating func end(_ reason: SessionEnd) {
        if case .ended(let earlier) = phase {
            if earlier.isGraceful, !reason.isGraceful { phase = .ended(reason) }
            return
        }
        switch phase {
        case .memory(let slot), .payload(let slot, _), .skippedPayload(let slot, _): free(slot)
        default: break
        }
        phase = .ended(reason)
        backlog = []
        backlogStart = 0
        optionData = []
    }
}
