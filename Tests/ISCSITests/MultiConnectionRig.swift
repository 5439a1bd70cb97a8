import SCSI
import Testing
import Timebase

@testable import ISCSI

/// A session of several connections, logged in, and a target's end of each, driven by hand under virtual time.
final class MultiConnectionRig {
    var session: InitiatorSession
    var ends: [TargetEnd]
    var now = Instant(nanoseconds: 1_000_000_000)
    var expCmdSN: UInt32 = 100
    var maxCmdSN: UInt32
    var completions: [CommandCompletion] = []
    var events: [SessionEvent] = []
    /// Bytes moved in one step; nil: all there is.
    var chunk: Int?
    let parameters: NegotiatedParameters
    static let tsih: UInt16 = 7

    init(_ count: Int, level: Int = 0, window: UInt32 = 64, alias: String? = nil, _ adjust: (inout NegotiatedParameters) -> Void = { _ in }) {
        var parameters = SessionRig.defaults()
        parameters.maxConnections = count
        parameters.errorRecoveryLevel = level
        parameters.defaultTime2Wait = 0
        adjust(&parameters)
        self.parameters = parameters
        ends = (0..<count).map { _ in TargetEnd(parameters: parameters) }
        maxCmdSN = 100 &+ window &- 1
        session = .loggedIn(
            parameters, maxCmdSN: maxCmdSN, maxConnections: count, level: level, tsih: Self.tsih, alias: alias, at: now)
        for index in 1..<max(count, 1) { logIn(index) }
        drain()
        events = []
    }

    func c(_ index: Int) -> ConnectionIndex { ConnectionIndex(rawValue: index) }

    func drain() {
        while let completion = session.nextCompletion() { completions.append(completion) }
        while let event = session.nextEvent() { events.append(event) }
    }

    /// Opens a connection and answers its login; what it asked for in it.
    @discardableResult
    func logIn(_ index: Int, expCmdSN: UInt32? = nil, maxCmdSN: UInt32? = nil) -> BasicHeaderSegment? {
        replaceEnd(index)
        session.connectionOpened(c(index), at: now)
        guard let request = sent(index).last else { return nil }
        #expect(request.opcode == .loginRequest && request.header.tsih == Self.tsih)
        ends[index].connectionID = request.header.connectionID
        let flags = LoginFlags(current: .operationalNegotiation, next: .fullFeature)
        put(
            index, .loginResponse(
                flags, isid: request.header.isid, tsih: Self.tsih, tag: request.header.initiatorTaskTag,
                numbers: ResponseNumbers(
                    statSN: takeStatSN(index), expCmdSN: expCmdSN ?? self.expCmdSN, maxCmdSN: maxCmdSN ?? self.maxCmdSN)),
            TextParameters.encode([
                TextPair("MaxRecvDataSegmentLength", "\(parameters.maxSendDataSegmentByteCount)"),
                TextPair("HeaderDigest", "None"), TextPair("DataDigest", "None"),
            ]))
        return request.header
    }

    /// As if every login up to now had agreed on it.
    func useHeaderDigests() {
        for index in ends.indices {
            session.connections[index].headerCRC = CRC32C.table
            session.connections[index].decoder.headerDigest = true
            ends[index].usesHeaderDigest = true
        }
    }

    /// Another transport.
    func replaceEnd(_ index: Int) { ends[index] = TargetEnd(parameters: parameters) }

    // MARK: bytes

    func sent(_ index: Int) -> [SentPDU] {
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: 16) { segments in
            while true {
                let count = session.output(c(index), into: segments)
                guard count > 0 else { break }
                var moved = 0
                var budget = chunk ?? .max
                for segment in segments[..<count] where budget > 0 {
                    let part = min(budget, segment.count)
                    ends[index].take(UnsafeRawBufferPointer(rebasing: segment[..<part]))
                    moved += part
                    budget -= part
                }
                session.outputSent(c(index), byteCount: moved)
            }
        }
        drain()
        defer { ends[index].sent = [] }
        return ends[index].sent
    }

    func put(_ index: Int, _ header: BasicHeaderSegment, _ data: [UInt8] = []) {
        var bytes = PDU(header: header, data: data).encoded(
            headerDigest: ends[index].usesHeaderDigest ? CRC32C.table : nil)[...]
        while !bytes.isEmpty {
            let piece = Array(bytes.prefix(chunk ?? .max))
            bytes = bytes.dropFirst(piece.count)
            piece.withUnsafeBytes { session.received(c(index), placedByteCount: 0, spill: $0, at: now) }
            drain()
        }
    }

    func takeStatSN(_ index: Int) -> UInt32 {
        defer { ends[index].statSN &+= 1 }
        return ends[index].statSN
    }

    func numbers(_ index: Int) -> ResponseNumbers {
        ResponseNumbers(statSN: takeStatSN(index), expCmdSN: expCmdSN, maxCmdSN: maxCmdSN)
    }

    /// Answers a command with GOOD.
    func good(_ index: Int, _ tag: UInt32) { put(index, .scsiResponse(tag: tag, status: .good, numbers: numbers(index))) }

    func answer(nop: SentPDU, _ index: Int) { put(index, .nopIn(tag: nop.header.initiatorTaskTag, numbers: numbers(index))) }

    /// Answers the NOP-Outs that a connection has sent; one that is not immediate fills a hole, and the target takes it.
    /// Returns whether any did, and everything else that was sent.
    @discardableResult
    func answerNOPs(_ index: Int) -> (hasFilled: Bool, others: [SentPDU]) {
        let pdus = sent(index)
        for pdu in pdus where pdu.opcode == .nopOut {
            if !pdu.header.isImmediate {
                #expect(pdu.header.cmdSN == expCmdSN)
                expCmdSN += 1
            }
            answer(nop: pdu, index)
        }
        return (pdus.contains { $0.opcode == .nopOut && !$0.header.isImmediate }, pdus.filter { $0.opcode != .nopOut })
    }

    /// The transport of a connection breaks, and the owner does what it should.
    func cut(_ index: Int, reason: ConnectionFailure = .endOfStream) {
        session.connectionClosed(c(index), reason: reason, at: now)
        drain()
        session.beginRecovery(c(index), at: now)
        drain()
    }

    func pass(_ duration: Duration, transport: TransportReport? = .idle) {
        now = now + duration
        session.timerFired(at: now) { _ in transport }
        drain()
    }

    // MARK: commands

    @discardableResult
    func submit(
        _ direction: DataDirection, token: UInt64, on index: Int, memory: UnsafeMutableRawBufferPointer? = nil
    ) -> SubmitResult {
        session.submit(SCSICommandRequest(direction, token: token, memory: memory, offset: token), on: c(index), at: now)
    }

    var failure: SessionFailure? {
        if case .failed(let reason) = session.state { return reason }
        return nil
    }

    // The session can't be copied, which the macros of tests would do.
    func isOpen(_ index: Int) -> Bool { session.isOpen(c(index)) }
    func connectionID(_ index: Int) -> UInt16 { session.connectionID(of: c(index)) }
    func expStatSN(_ index: Int) -> UInt32 { session.connections[index].expStatSN }
    func maxSendDataSegmentByteCount(_ index: Int) -> Int { session.connections[index].maxSendDataSegmentByteCount }
    func submitReset(token: UInt64, lun: LogicalUnitNumber, on index: Int) -> Bool {
        session.submitTaskManagement(.logicalUnitReset, lun: lun, token: token, on: c(index), at: now)
    }
    func owedCount(_ index: Int) -> Int { session.connections[index].owedCount }
    func isOpenTag(_ tag: UInt32) -> Bool { session.table.slot(forTag: tag) != nil }
    /// As if the settings had said so.
    func adoptCommandTimeout(_ timeout: Duration) {
        var settings = session.settings
        settings.commandTimeout = timeout
        session.adoptTimers(of: settings)
    }
    var recoveryCount: Int { session.recoveryCount }
    var leavingCount: Int { session.leavingCount }
    var outstandingCommandCount: Int { session.outstandingCommandCount }
    var hasResults: Bool { session.hasResults }
    var nextDeadline: Instant { session.nextDeadline }
    var state: SessionState { session.state }
    func beginLogout() -> Bool { session.beginLogout(at: now) }

    /// Tokens of commands that were handed back as lost, in order.
    var lost: [UInt64] {
        events.compactMap { if case .commandLost(let token, _) = $0 { token } else { nil } }
    }

    /// Every token that had an end, of whatever kind.
    var ended: [UInt64] {
        completions.map(\.token) + events.compactMap {
            switch $0 {
            case .commandLost(let token, _), .commandAbandoned(let token, _): token
            default: nil
            }
        }
    }
}
