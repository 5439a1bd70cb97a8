import NBD

/// Two NBD clients that say anything, in any pieces, to sessions with one pool; a disk that ends requests in any
/// order, and clients that read when they like. Nothing traps, what is lent stays in its bounds, and all of it comes back.
@Sendable
func fuzzNBD(_ input: UnsafeRawBufferPointer) {
    var script = ByteScript(input)
    let run = NBDRun(&script)
    while !script.isAtEnd { run.step(&script) }
    run.finish()
}

private final class NBDRun {
    private final class Client {
        var session: Session
        var executing: [Request] = []
        /// What it still has to send of a payload, so that a large one costs no script.
        var payloadByteCount = 0

        init(_ session: consuming Session) { self.session = session }
    }

    private let pool = BufferPool(limitByteCount: 32 << 20, cacheLimitByteCount: 1 << 20)
    private let limits: Session.Limits
    private let clients: [Client]
    private let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 6)

    init(_ script: inout ByteScript) {
        let settings = script.byte()
        var limits = Session.Limits()
        limits.requestCount = 1 + Int(settings & 7)
        limits.memoryByteCount = 32 << 20
        self.limits = limits
        let features = Export.Features(rawValue: settings >> 3 & 7)
        let exports = [
            Export(name: "a", description: "first", byteCount: 1 << 20, features: features),
            Export(name: "big", byteCount: 1 << 40, minimumBlockByteCount: 4096, maximumPayloadByteCount: 1 << 20),
        ]
        let pool = pool
        clients = (0..<2).map { index in
            // One that need not, and, in some runs, one that has to begin with TLS.
            let security: TransportSecurity = index == 1 && settings & 7 == 7 ? .required : .allowed
            return Client(
                Session(exports: exports, defaultExport: settings & 0x40 != 0 ? 0 : nil, security: security, pool: pool, limits: limits))
        }
        if settings & 0x80 != 0 { for client in clients { enter(client, structured: settings & 0x40 != 0) } }
    }

    deinit { segments.deallocate() }

    private func enter(_ client: Client, structured: Bool) {
        deliver(client, wire(UInt32(3)) + option(5, []), chunk: 1 << 20)
        secure(client)
        deliver(client, (structured ? option(8, []) : []) + option(7, wire(UInt32(1)) + [0x61, 0, 1, 0, 3]), chunk: 1 << 20)
        read(client, limit: 1 << 20)
    }

    func step(_ script: inout ByteScript) {
        let kind = script.byte()
        let client = clients[Int(kind >> 7)]
        switch kind & 0x0F {
        case 0, 1, 2, 3: request(client, &script)
        case 4, 5:
            deliver(client, option(UInt32(script.below(13)), script.piece(limit: 600)), chunk: 1 + Int(script.byte()))
            // Else what comes next comes in the clear.
            if kind & 0x10 == 0 { secure(client) }
        case 6: deliver(client, script.piece(limit: 600), chunk: 1 + Int(script.byte()))
        case 7, 8, 9: read(client, limit: Int(script.word16()) << (kind >> 4 & 7))
        case 10, 11, 12: end(client, &script)
        case 13: payload(client, 4096 << Int(kind >> 4 & 7))
        case 14: client.session.proceed(hasWaited: kind & 0x10 != 0)
        default:
            switch script.byte() {
            case 0: client.session.peerClosed()
            case 1: client.session.shutDown()
            case 2: pool.isReservedForWaiting.toggle()
            case 3: client.session.setExports([], defaultExport: nil)
            default: break
            }
        }
        collect(client)
        require(pool.lentByteCount <= pool.limitByteCount, "the pool lends no more than it may")
    }

    /// The handshake, where one was asked for.
    private func secure(_ client: Client) {
        guard client.session.isStartingTLS else { return }
        require(client.session.export == nil && client.session.negotiationOutputByteCount >= 0, "TLS is for who has no export yet")
        read(client, limit: 1 << 20)
        require(client.session.negotiationOutputByteCount == 0, "all that was said in the clear is out")
        client.session.tlsEstablished()
    }

    private func request(_ client: Client, _ script: inout ByteScript) {
        let kind = script.byte()
        var command = UInt16(kind & 7)
        var flags: UInt16 = 0
        if kind & 0x08 != 0 { flags = UInt16(script.byte()) }
        if kind & 0x10 != 0 { command = script.word16() }
        let offset = kind & 0x20 != 0 ? script.word64() : UInt64(script.byte()) << 12
        let count = kind & 0x40 != 0 ? script.word32() : UInt32(script.byte()) << 9
        let magic: UInt32 = kind & 0x80 != 0 ? script.word32() : 0x2560_9513
        if command == 1 { client.payloadByteCount += Int(count) }
        deliver(client, wire(magic) + wire(flags) + wire(command) + wire(UInt64(kind)) + wire(offset) + wire(count), chunk: 1 + Int(script.byte()))
    }

    private func payload(_ client: Client, _ limit: Int) {
        let count = min(client.payloadByteCount, limit)
        client.payloadByteCount -= count
        deliver(client, [UInt8](repeating: 0x77, count: count), chunk: 50_000)
    }

    /// As a socket does, which is not read while the session is congested, but for what is on its way.
    private func deliver(_ client: Client, _ bytes: [UInt8], chunk: Int) {
        guard !client.session.isCongested else { return }
        var rest = bytes[...]
        while !rest.isEmpty {
            let piece = Array(rest.prefix(chunk))
            rest = rest.dropFirst(piece.count)
            let window = client.session.inputWindow
            let placed = min(window.count, piece.count)
            piece.withUnsafeBytes { bytes in
                if placed > 0 { window.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix(placed))) }
                client.session.received(placedByteCount: placed, spill: UnsafeRawBufferPointer(rebasing: bytes[placed...]))
            }
            collect(client)
        }
    }

    private func collect(_ client: Client) {
        while let request = client.session.nextRequest() {
            require(!client.executing.contains { $0.slot == request.slot }, "a slot is handed out once")
            guard let export = client.session.export else { broken("no request without an export") }
            require(
                request.command == .flush || request.offset + UInt64(request.byteCount) <= export.byteCount, "requests lie in the export")
            require(
                (request.offset | UInt64(request.byteCount)) & UInt64(export.minimumBlockByteCount - 1) == 0, "requests are whole blocks")
            if let memory = request.memory {
                // What the disk does with it: the sanitizer watches.
                if request.command == .read || request.command == .cache {
                    memory.initializeMemory(as: UInt8.self, repeating: 0x44, count: request.byteCount)
                } else {
                    require(request.command == .write, "only WRITE brings data")
                    _ = memory.load(fromByteOffset: request.byteCount - 1, as: UInt8.self)
                }
            }
            client.executing.append(request)
        }
        require(client.executing.count == client.session.executingCount && client.executing.count <= limits.requestCount, "requests are bounded")
    }

    private func end(_ client: Client, _ script: inout ByteScript) {
        guard !client.executing.isEmpty else { return }
        let kind = script.byte()
        let request = client.executing.remove(at: Int(kind & 0x0F) % client.executing.count)
        client.session.complete(request.slot, kind & 0x10 != 0 ? .inputOutput : nil)
        client.session.proceed()
    }

    private func read(_ client: Client, limit: Int) {
        var rest = limit
        while rest > 0 {
            let count = client.session.output(into: segments)
            guard count > 0 else { return }
            var taken = 0
            for segment in segments[..<count] where taken < rest {
                let part = min(segment.count, rest - taken)
                require(part > 0, "no segment is empty")
                _ = segment[part - 1]
                taken += part
            }
            client.session.sent(byteCount: taken)
            client.session.proceed()
            rest -= taken
        }
    }

    func finish() {
        for client in clients {
            client.session.peerClosed()
            collect(client)
            for request in client.executing { client.session.complete(request.slot, nil) }
            require(client.session.isDrained && !client.session.hasOutput, "nothing is left of a session")
        }
        require(pool.lentByteCount == 0, "all memory is given back: \(pool.lentByteCount)")
    }

    private func option(_ code: UInt32, _ data: [UInt8]) -> [UInt8] { Array("IHAVEOPT".utf8) + wire(code) + wire(UInt32(data.count)) + data }
}

private func wire<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

@Sendable
func nbdSeeds() -> [[UInt8]] {
    let write: [UInt8] = [0, 0x01, 2, 4, 9, 0x5D]
    let read: [UInt8] = [0, 0x00, 2, 4, 255, 10, 0, 0x77, 0xFF, 0xFF]
    let others: [UInt8] = [0, 0x03, 0, 0, 9, 0, 0x04, 1, 8, 9, 0, 0x05, 1, 8, 9, 0, 0x0E, 0x11, 1, 8, 9]
    let ends: [UInt8] = [10, 1, 10, 0x10, 10, 0, 7, 0x10, 0, 0, 0x02, 0, 0, 9, 7, 1, 0]
    let large: [UInt8] = [0, 0x41, 0, 0x02, 0, 0, 0, 9, 0x80, 0x40, 0, 0x02, 0, 0, 0, 9, 13, 13, 14]
    let close: [UInt8] = [15, 0, 15, 1]
    var seeds: [[UInt8]] = []
    for settings in [0x80, 0x83, 0xC7, 0x8F, 0x99, 0xFF] as [UInt8] {
        seeds.append([settings] + write + read + others + ends)
        seeds.append([settings] + large + read + write + close + ends)
    }
    let query: [UInt8] = [0, 0, 0, 1, 0x61, 0, 0, 0, 1, 0, 0, 0, 15] + Array("base:allocation".utf8)
    let flags: [UInt8] = [6, 0, 4, 0, 0, 0, 3, 255]
    for code in 0..<13 as Range<UInt8> {
        seeds.append([0x41] + flags + [4, 8, 0, 0, 255, 4, code, 0, UInt8(query.count)] + query + [255, 7, 255, 255])
        seeds.append([0x01] + flags + [4, code, 0, 7, 0, 0, 0, 1, 0x61, 0, 0, 9] + read)
    }
    return seeds
}
