import SCSI
import Testing
import Timebase

@testable import ISCSI

/// Randomness that a test can repeat (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

struct TestCryptography: CryptographicServices {
    func randomBytes(count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7 + 1) } }
    func digest(_ algorithm: CHAPAlgorithm, of bytes: [UInt8]) -> [UInt8]? { nil }
}

/// A PDU that the session sent.
struct SentPDU {
    var header: BasicHeaderSegment
    var data: [UInt8]
    var opcode: PDUOpcode { header.opcode }
}

/// One end of a connection as a target sees it: takes the session's bytes apart, and holds bytes for it.
final class TargetEnd {
    var decoder: PDUDecoder
    var sent: [SentPDU] = []
    var outgoing: [UInt8] = []
    var statSN: UInt32 = 1
    /// CID
    var connectionID: UInt16 = 0
    /// Whatever the parameters say.
    var usesHeaderDigest = false { didSet { decoder.headerDigest = usesHeaderDigest } }
    let parameters: NegotiatedParameters

    init(parameters: NegotiatedParameters) {
        self.parameters = parameters
        decoder = PDUDecoder(crc32c: CRC32C.table, maxDataSegmentByteCount: parameters.maxSendDataSegmentByteCount)
        decoder.headerDigest = parameters.headerDigest == .crc32c
        decoder.dataDigest = parameters.dataDigest == .crc32c
    }

    func take(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while true {
            switch decoder.next(&rest) {
            case .needMore: return
            case .header: decoder.collect(limit: 1 << 24)
            case .complete: sent.append(SentPDU(header: decoder.header, data: Array(decoder.collectedData)))
            case .dataDigestError:
                Issue.record("wrong data digest from the session")
                return
            case .failed(let error):
                Issue.record("the session sent something malformed: \(error)")
                return
            }
        }
    }

    func put(_ header: BasicHeaderSegment, _ data: [UInt8] = []) {
        outgoing += PDU(header: header, data: data).encoded(
            headerDigest: parameters.headerDigest == .crc32c ? CRC32C.table : nil,
            dataDigest: parameters.dataDigest == .crc32c ? CRC32C.table : nil)
    }
}

/// A session in full-feature phase and its targets' ends, driven by hand under virtual time.
final class SessionRig {
    var session: InitiatorSession
    var end: TargetEnd
    var now = Instant(nanoseconds: 1_000_000_000)
    var expCmdSN: UInt32 = 100
    var maxCmdSN: UInt32
    /// Bytes moved in one step, either way; nil: all there is.
    var chunk: Int?
    /// Whether the session's direct window is used.
    var usesDirectWindow = true
    var completions: [CommandCompletion] = []
    var events: [SessionEvent] = []
    let parameters: NegotiatedParameters

    init(
        _ parameters: NegotiatedParameters = SessionRig.defaults(), window: UInt32 = 64, capacity: Int = 256,
        maxConnections: Int = 1
    ) {
        self.parameters = parameters
        maxCmdSN = 100 &+ window &- 1
        session = .loggedIn(parameters, maxCmdSN: maxCmdSN, capacity: capacity, maxConnections: maxConnections, at: now)
        end = TargetEnd(parameters: parameters)
        drain()
        events = []
    }

    static func defaults() -> NegotiatedParameters {
        var parameters = NegotiatedParameters()
        parameters.initialR2T = false
        parameters.immediateData = true
        parameters.maxRecvDataSegmentByteCount = 262_144
        parameters.maxSendDataSegmentByteCount = 8192
        parameters.maxOutstandingR2T = 4
        return parameters
    }

    var numbers: ResponseNumbers { ResponseNumbers(statSN: end.statSN, expCmdSN: expCmdSN, maxCmdSN: maxCmdSN) }

    /// Numbers for a PDU that uses up a StatSN.
    func nextNumbers() -> ResponseNumbers {
        defer { end.statSN &+= 1 }
        return numbers
    }

    func drain() {
        while let completion = session.nextCompletion() { completions.append(completion) }
        while let event = session.nextEvent() { events.append(event) }
    }

    /// Moves what the session has to send to the target's end.
    func flush() {
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: 16) { segments in
            while true {
                let count = session.output(.leading, into: segments)
                guard count > 0 else { break }
                var budget = chunk ?? .max
                var moved = 0
                for segment in segments[..<count] where budget > 0 {
                    let part = min(budget, segment.count)
                    end.take(UnsafeRawBufferPointer(rebasing: segment[..<part]))
                    budget -= part
                    moved += part
                }
                session.outputSent(.leading, byteCount: moved)
            }
        }
        drain()
    }

    /// Moves what the target's end holds to the session.
    func deliver() {
        var bytes = end.outgoing[...]
        end.outgoing = []
        while !bytes.isEmpty {
            let piece = Array(bytes.prefix(chunk ?? .max))
            bytes = bytes.dropFirst(piece.count)
            piece.withUnsafeBytes { source in
                let window = usesDirectWindow ? session.input(.leading) : UnsafeMutableRawBufferPointer(start: nil, count: 0)
                let placed = min(window.count, source.count)
                if placed > 0 { window.baseAddress!.copyMemory(from: source.baseAddress!, byteCount: placed) }
                session.received(
                    .leading, placedByteCount: placed, spill: UnsafeRawBufferPointer(rebasing: source[placed...]), at: now)
            }
            drain()
        }
    }

    func send(_ header: BasicHeaderSegment, _ data: [UInt8] = []) {
        end.put(header, data)
        deliver()
    }

    /// The PDUs that the session sent since the last call.
    func sent() -> [SentPDU] {
        flush()
        defer { end.sent = [] }
        return end.sent
    }

    func pass(_ duration: Duration, transport: TransportReport? = .idle) {
        now = now + duration
        session.timerFired(at: now) { _ in transport }
        drain()
    }

    // MARK: commands

    func request(
        _ direction: DataDirection, token: UInt64, memory: UnsafeMutableRawBufferPointer? = nil, offset: UInt64 = 0
    ) -> SCSICommandRequest {
        SCSICommandRequest(direction, token: token, memory: memory, offset: offset)
    }

    @discardableResult
    func submit(
        _ direction: DataDirection, token: UInt64, memory: UnsafeMutableRawBufferPointer? = nil, offset: UInt64 = 0
    ) -> SubmitResult {
        session.submit(request(direction, token: token, memory: memory, offset: offset), on: .leading, at: now)
    }

    var failure: SessionFailure? {
        if case .failed(let reason) = session.state { return reason }
        return nil
    }

    var violation: ProtocolViolation? {
        if case .violation(let violation)? = failure { return violation }
        return nil
    }
}

extension InitiatorSession {
    /// A session whose leading connection is in full-feature phase; the target waits for CmdSN 100.
    static func loggedIn(
        _ parameters: NegotiatedParameters, maxCmdSN: UInt32, capacity: Int = 256, maxConnections: Int, level: Int = 0,
        tsih: UInt16 = 7, alias: String? = nil, at now: Instant
    ) -> InitiatorSession {
        var login = LoginSettings(
            initiatorName: "iqn.2026-11.org.example:host", targetName: "iqn.2026-11.org.example:target",
            isid: .random(1, qualifier: 1))
        login.operational.maxConnections = maxConnections
        login.operational.maxOutstandingR2T = parameters.maxOutstandingR2T
        login.operational.errorRecoveryLevel = level
        login.skipsSecurityStage = maxConnections > 1 || level > 0
        var settings = SessionSettings(login: login)
        settings.commandCapacity = capacity
        var session = InitiatorSession(settings: settings, cryptography: TestCryptography(), crc32c: CRC32C.table)
        session.connections[0].phase = .loggingIn
        session.state = .loggingIn
        session.nextConnectionID = 1
        session.enterFullFeature(
            .leading,
            LoginResult(
                parameters: parameters, tsih: tsih, portalGroupTag: 1, targetAlias: alias, authenticatedWith: nil,
                cmdSN: 100, expStatSN: 1, expCmdSN: 100, maxCmdSN: maxCmdSN),
            at: now)
        return session
    }
}

extension SCSICommandRequest {
    /// For LUN 3: READ (16), WRITE (16) or TEST UNIT READY, which the session does not look into.
    init(_ direction: DataDirection, token: UInt64, memory: UnsafeMutableRawBufferPointer?, offset: UInt64) {
        var cdb = CommandDescriptorBlock(operationCode: direction == .write ? 0x8A : direction == .read ? 0x88 : 0x00)
        if direction != .none { cdb.setField(at: 2, width: 8, to: offset) }
        self.init(
            token: token, lun: LogicalUnitNumber(index: 3)!, cdb: cdb, direction: direction, buffer: memory?.baseAddress,
            byteCount: memory?.count ?? 0)
    }
}

extension TransportReport {
    static let idle = TransportReport(unacknowledgedByteCount: 0, sinceLastAcknowledgement: .seconds(1), unansweredRetransmissions: 0)
    static let gone = TransportReport(unacknowledgedByteCount: 48, sinceLastAcknowledgement: .seconds(2), unansweredRetransmissions: 3)
}

extension UnsafeMutableRawBufferPointer {
    static func filled(_ count: Int, seed: UInt64 = 1) -> UnsafeMutableRawBufferPointer {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
        var generator = SeededGenerator(seed: seed)
        var offset = 0
        while offset < count {
            var word = generator.next()
            withUnsafeBytes(of: &word) {
                (memory.baseAddress! + offset).copyMemory(from: $0.baseAddress!, byteCount: Swift.min(8, count - offset))
            }
            offset += 8
        }
        return memory
    }
}

extension SubmitResult {
    var isAccepted: Bool { if case .accepted = self { true } else { false } }
    var isWindowFull: Bool { if case .windowFull = self { true } else { false } }
    var isNotLoggedIn: Bool { if case .notLoggedIn = self { true } else { false } }
}
