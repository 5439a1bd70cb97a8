import NBD

/// A client's messages, and a session with a disk in memory behind it.
enum Wire {
    static func number<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

    static func option(_ code: OptionCode, _ data: [UInt8] = [], byteCount: Int? = nil) -> [UInt8] {
        number(UInt64(0x4948_4156_454F_5054)) + number(code.rawValue) + number(UInt32(byteCount ?? data.count)) + data
    }

    static func flags(_ flags: HandshakeFlags = [.fixedNewstyle, .noZeroes]) -> [UInt8] { number(flags.rawValue) }

    static func string(_ text: String) -> [UInt8] { number(UInt32(text.utf8.count)) + Array(text.utf8) }

    static func choice(_ name: String, _ requests: [UInt16] = []) -> [UInt8] {
        string(name) + number(UInt16(requests.count)) + requests.flatMap { number($0) }
    }

    static func go(_ name: String, _ requests: [UInt16] = [3]) -> [UInt8] { option(.go, choice(name, requests)) }

    static func request(
        _ command: CommandCode, cookie: UInt64 = 1, offset: UInt64 = 0, _ byteCount: Int = 0, flags: CommandFlags = [],
        payload: [UInt8] = []
    ) -> [UInt8] {
        number(UInt32(0x2560_9513)) + number(flags.rawValue) + number(command.rawValue) + number(cookie) + number(offset)
            + number(UInt32(byteCount)) + payload
    }

    static func write(_ payload: [UInt8], cookie: UInt64 = 1, offset: UInt64 = 0, flags: CommandFlags = []) -> [UInt8] {
        request(.write, cookie: cookie, offset: offset, payload.count, flags: flags, payload: payload)
    }
}

/// Reads what a server sent, front to back.
struct Replies {
    var bytes: ArraySlice<UInt8>
    init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

    mutating func number<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
        guard let part = take(MemoryLayout<Value>.size) else { return nil }
        return part.reduce(0) { $0 << 8 | Value(truncatingIfNeeded: $1) }
    }

    mutating func take(_ count: Int) -> [UInt8]? {
        guard bytes.count >= count else { return nil }
        defer { bytes = bytes.dropFirst(count) }
        return Array(bytes.prefix(count))
    }

    struct Option: Equatable {
        var option: OptionCode
        var code: OptionReplyCode
        var data: [UInt8]
    }

    mutating func option() -> Option? {
        guard number(UInt64.self) == 0x0003_E889_0455_65A9, let option = number(UInt32.self), let code = number(UInt32.self),
            let count = number(UInt32.self), let data = take(Int(count)), let known = OptionReplyCode(rawValue: code)
        else { return nil }
        return Option(option: OptionCode(rawValue: option), code: known, data: data)
    }

    /// Up to the first that ends an option: an acknowledgement or an error.
    mutating func options() -> [Option] {
        var found: [Option] = []
        while let next = option() {
            found.append(next)
            if next.code == .acknowledge || next.code.rawValue >> 31 == 1 { break }
        }
        return found
    }

    struct Answer: Equatable {
        var cookie: UInt64
        var error: UInt32
        var data: [UInt8] = []
        var offset: UInt64?
    }

    /// - Parameter readByteCounts: of the READs by cookie, which a simple reply does not tell.
    mutating func answer(_ readByteCounts: [UInt64: Int] = [:]) -> Answer? {
        switch number(UInt32.self) {
        case 0x6744_6698?:
            guard let error = number(UInt32.self), let cookie = number(UInt64.self) else { return nil }
            guard error == 0, let count = readByteCounts[cookie] else { return Answer(cookie: cookie, error: error) }
            return take(count).map { Answer(cookie: cookie, error: 0, data: $0) }
        case 0x668E_33EF?:
            guard number(UInt16.self) == 1, let type = number(UInt16.self), let cookie = number(UInt64.self),
                let count = number(UInt32.self), let payload = take(Int(count))
            else { return nil }
            var inner = Replies(payload)
            switch type {
            case 0: return Answer(cookie: cookie, error: 0)
            case 1:
                guard let offset = inner.number(UInt64.self) else { return nil }
                return Answer(cookie: cookie, error: 0, data: Array(inner.bytes), offset: offset)
            default: return inner.number(UInt32.self).map { Answer(cookie: cookie, error: $0) }
            }
        default: return nil
        }
    }
}

/// A session, what it sent, and a disk that does requests when it is told to.
final class Rig {
    var session: Session
    let pool: BufferPool
    var disk: [UInt8]
    /// Not yet read by the client.
    private(set) var sent: [UInt8] = []
    private(set) var executing: [Request] = []
    private(set) var done: [Request] = []
    private let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 8)

    static let export = Export(name: "disk", description: "a disk", byteCount: 1 << 20, features: [.trim, .fastZero])

    init(
        _ exports: [Export] = [Rig.export], defaultExport: Int? = 0, security: TransportSecurity = .none, pool: BufferPool = BufferPool(limitByteCount: 64 << 20),
        limits: Session.Limits = .init(), byteCount: Int = 1 << 20
    ) {
        self.pool = pool
        session = Session(exports: exports, defaultExport: defaultExport, security: security, pool: pool, limits: limits)
        disk = [UInt8](repeating: 0, count: byteCount)
    }

    deinit { segments.deallocate() }

    // A session cannot be copied, which `#expect` wants to do with what it looks into.
    var endReason: SessionEnd? { session.endReason }
    var isNegotiating: Bool { session.isNegotiating }
    var isCongested: Bool { session.isCongested }
    var isDrained: Bool { session.isDrained }
    var isWaitingForPool: Bool { session.isWaitingForPool }
    var holdsMemoryForClient: Bool { session.holdsMemoryForClient }
    var hasOutput: Bool { session.hasOutput }
    var executingCount: Int { session.executingCount }
    var export: Export? { session.export }
    var isStartingTLS: Bool { session.isStartingTLS }
    var negotiationOutputByteCount: Int { session.negotiationOutputByteCount }

    func tlsEstablished() { session.tlsEstablished() }

    /// Gives the session bytes, in pieces as a socket does.
    func receive(_ bytes: [UInt8], pieceByteCount: Int = .max) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let piece = Array(rest.prefix(pieceByteCount))
            rest = rest.dropFirst(piece.count)
            let window = session.inputWindow
            let placed = min(window.count, piece.count)
            piece.withUnsafeBytes { bytes in
                if placed > 0 { window.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix(placed))) }
                session.received(placedByteCount: placed, spill: UnsafeRawBufferPointer(rebasing: bytes[placed...]))
            }
            collect()
        }
    }

    private func collect() {
        while let request = session.nextRequest() { executing.append(request) }
    }

    /// Does the oldest request, or the one at `index`.
    func execute(_ index: Int = 0, _ error: ReplyError? = nil) {
        let request = executing.remove(at: index)
        if error == nil { perform(request) }
        done.append(request)
        session.complete(request.slot, error)
        session.proceed()
        collect()
    }

    func executeAll() { while !executing.isEmpty { execute() } }

    private func perform(_ request: Request) {
        let range = Int(request.offset)..<Int(request.offset) + request.byteCount
        switch request.command {
        case .read: disk.withUnsafeBytes { request.memory!.copyMemory(from: $0.baseAddress! + range.lowerBound, byteCount: range.count) }
        case .write: disk.replaceSubrange(range, with: UnsafeRawBufferPointer(start: request.memory, count: range.count))
        case .writeZeroes: for index in range { disk[index] = 0 }
        default: break
        }
    }

    /// The client reads at most so many bytes.
    @discardableResult
    func read(_ limit: Int = .max) -> Int {
        var total = 0
        while total < limit {
            let count = session.output(into: segments)
            guard count > 0 else { break }
            var taken = 0
            for segment in segments[..<count] where total + taken < limit {
                let part = segment.prefix(limit - total - taken)
                sent += part
                taken += part.count
            }
            session.sent(byteCount: taken)
            session.proceed()
            collect()
            total += taken
        }
        return total
    }

    /// What the client read, from the beginning or since it was asked last.
    func takeSent() -> Replies {
        read()
        defer { sent = [] }
        return Replies(sent)
    }

    /// Up to the first request.
    func enter(structured: Bool = false) {
        receive(Wire.flags() + (structured ? Wire.option(.structuredReply) : []) + Wire.go("disk"))
        _ = takeSent()
    }
}

/// Numbers that look random and are the same each time (SplitMix64).
struct Numbers: RandomNumberGenerator {
    var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}
