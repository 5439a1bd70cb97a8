import SCSI
import Testing
import Timebase

@testable import ISCSI

/// A target's protocol half with a scripted initiator on the other side. Commands are answered by the test.
final class TargetBench {
    static let name = "iqn.2026-11.org.example:disk"
    let service: TargetService
    var now = Instant(nanoseconds: 1_000_000_000)
    /// What happened, in words, in order.
    var events: [String] = []

    init(_ change: (inout TargetServiceSettings) -> Void = { _ in }, poolByteCount: Int = 64 << 20) {
        var settings = TargetServiceSettings()
        settings.operational.headerDigest = [.none, .crc32c]
        settings.operational.dataDigest = [.none, .crc32c]
        change(&settings)
        service = TargetService(
            settings: settings,
            nodes: [
                TargetNodeDescription(
                    name: Self.name,
                    addresses: [
                        TargetAddress(host: "10.0.0.1", portalGroupTag: 1), TargetAddress(host: "10.0.0.2", portalGroupTag: 2),
                    ])
            ], pool: TargetBufferPool(limitByteCount: poolByteCount), cryptography: WireCryptography(),
            crc32c: CRC32C.table)
    }

    func client(portalGroup: UInt16 = 1) -> BenchClient { BenchClient(self, portalGroup: portalGroup) }

    func drainEvents() {
        while let event = service.nextEvent() {
            switch event {
            case .sessionStarted: events.append("started")
            case .sessionEnded(_, let reason): events.append("ended \(reason)")
            case .commandAbandoned(let session, let slot): events.append("abandoned \(session.tasks[slot].initiatorTaskTag)")
            case .connectionEnded(_, let reason): events.append("connection \(reason)")
            }
        }
    }
}

/// The initiator's end of one connection: builds PDUs, numbers them, and takes the target's apart.
final class BenchClient {
    let bench: TargetBench
    let connection: TargetConnection
    var parameters = NegotiatedParameters()
    var cmdSN: UInt32 = 100
    var tsih: UInt16 = 0
    private var decoder = PDUDecoder(crc32c: CRC32C.table, maxDataSegmentByteCount: 1 << 24)
    /// Bytes of each piece in which input is handed over; 0: all at once.
    var chunk = 0

    init(_ bench: TargetBench, portalGroup: UInt16) {
        self.bench = bench
        connection = TargetConnection(service: bench.service, portalGroupTag: portalGroup, at: bench.now)
    }

    var session: TargetSession { connection.session! }

    // MARK: bytes

    func send(_ header: BasicHeaderSegment, _ data: [UInt8] = []) {
        let pdu = PDU(header: header, data: data)
        send(
            bytes: pdu.encoded(
                headerDigest: parameters.headerDigest == .crc32c ? CRC32C.table : nil,
                dataDigest: parameters.dataDigest == .crc32c ? CRC32C.table : nil))
    }

    func send(bytes: [UInt8]) {
        let step = chunk > 0 ? chunk : max(1, bytes.count)
        for start in stride(from: 0, to: bytes.count, by: step) {
            var piece = bytes[start..<min(start + step, bytes.count)]
            // As a socket would: first into the window, the rest into the spill.
            let window = connection.inputWindow()
            let placed = min(window.count, piece.count)
            for index in 0..<placed { window[index] = piece[piece.startIndex + index] }
            piece = piece.dropFirst(placed)
            Array(piece).withUnsafeBytes { connection.received(placedByteCount: placed, spill: $0, at: bench.now) }
            bench.drainEvents()
        }
    }

    /// What the target sends now, at most `limit` bytes of it at a time.
    func receive(atATime limit: Int = .max) -> [PDU] {
        var pdus: [PDU] = []
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 16)
        defer { segments.deallocate() }
        while true {
            let count = connection.output(into: segments)
            guard count > 0 else { return pdus }
            var bytes = segments[..<count].flatMap { Array($0) }
            bytes = Array(bytes.prefix(limit))
            connection.sent(byteCount: bytes.count)
            bytes.withUnsafeBytes { decode($0, into: &pdus) }
            bench.drainEvents()
        }
    }

    private func decode(_ bytes: UnsafeRawBufferPointer, into pdus: inout [PDU]) {
        var input = bytes
        while true {
            switch decoder.next(&input) {
            case .needMore: return
            case .header: decoder.collect(limit: 1 << 24)
            case .complete: pdus.append(PDU(header: decoder.header, data: Array(decoder.collectedData)))
            case .dataDigestError: Issue.record("the target sent a wrong data digest")
            case .failed(let error):
                Issue.record("the target sent \(error)")
                return
            }
        }
    }

    // MARK: login

    @discardableResult
    func logIn(
        isid: ISID = .random(1, qualifier: 1), type: SessionType = .normal, target: String? = TargetBench.name,
        _ change: (inout LoginSettings) -> Void = { _ in }
    ) -> LoginAction {
        var settings = LoginSettings(initiatorName: "iqn.2026-11.org.example:host", targetName: target, isid: isid)
        settings.sessionType = type
        settings.cmdSN = cmdSN
        change(&settings)
        var login = InitiatorLogin(settings: settings, cryptography: WireCryptography(seed: 2))
        var action = login.start()
        while case .send(let pdu) = action {
            send(bytes: pdu.encoded())
            guard let answer = receive().first else { return action }
            action = answer.data.withUnsafeBytes { login.received(answer.header, data: $0) }
        }
        if case .finished(let result) = action {
            parameters = result.parameters
            cmdSN = result.cmdSN
            tsih = result.tsih
            decoder.headerDigest = parameters.headerDigest == .crc32c
            decoder.dataDigest = parameters.dataDigest == .crc32c
        }
        return action
    }

    // MARK: requests

    func command(
        tag: UInt32, flags: SCSICommandFlags, expected: Int, data: [UInt8] = [], cmdSN: UInt32? = nil,
        isImmediate: Bool = false
    ) {
        let cdb = CommandDescriptorBlock(operationCode: 0x28)
        send(
            .scsiCommand(
                cdb, lun: LogicalUnitNumber(index: 0)!, tag: tag, flags: flags,
                expectedDataTransferByteCount: UInt32(expected), immediateDataByteCount: data.count,
                cmdSN: cmdSN ?? self.cmdSN, expStatSN: 0, isImmediate: isImmediate), data)
        if cmdSN == nil, !isImmediate { self.cmdSN &+= 1 }
    }

    func dataOut(tag: UInt32, ttt: UInt32, sn: UInt32, offset: Int, _ data: [UInt8], isFinal: Bool) {
        send(
            .dataOut(
                lun: LogicalUnitNumber(index: 0)!, tag: tag, targetTransferTag: ttt, isFinal: isFinal, dataSN: sn,
                bufferOffset: UInt32(offset), byteCount: data.count, expStatSN: 0), data)
    }

    /// Another connection of its session.
    func join(
        cid: UInt16, portalGroup: UInt16 = 1, isid: ISID? = nil, _ change: (inout LoginSettings) -> Void = { _ in }
    ) -> (client: BenchClient, action: LoginAction) {
        let other = bench.client(portalGroup: portalGroup)
        other.cmdSN = cmdSN
        let action = other.logIn(isid: isid ?? session.identity.isid) {
            $0.tsih = tsih
            $0.connectionID = cid
            $0.sessionParameters = parameters
            change(&$0)
        }
        return (other, action)
    }

    @discardableResult
    func manage(
        _ function: TaskManagementFunction, tag: UInt32 = 900, of task: UInt32 = BasicHeaderSegment.reservedTag, refCmdSN: UInt32 = 0,
        expDataSN: UInt32 = 0, cmdSN: UInt32? = nil
    ) -> [PDU] {
        send(
            .taskManagementRequest(
                function, lun: LogicalUnitNumber(index: 0)!, tag: tag, referencedTaskTag: task, refCmdSN: refCmdSN,
                expDataSN: expDataSN, cmdSN: cmdSN ?? self.cmdSN, expStatSN: 0))
        return receive()
    }

    @discardableResult
    func logOut(_ reason: LogoutReason, cid: UInt16) -> [PDU] {
        send(.logoutRequest(reason, connectionID: cid, tag: 901, cmdSN: cmdSN, expStatSN: 0))
        return receive()
    }

    /// Confirms everything up to before `statSN`.
    func confirm(_ statSN: UInt32) {
        send(.nopOut(cmdSN: cmdSN, expStatSN: statSN))
    }

    func snack(
        _ type: SNACKType, tag: UInt32 = BasicHeaderSegment.reservedTag, ttt: UInt32 = BasicHeaderSegment.reservedTag,
        from: UInt32 = 0, count: UInt32 = 0
    ) -> [PDU] {
        send(
            .snack(
                type, lun: LogicalUnitNumber(index: 0)!, tag: tag, targetTransferTag: ttt, begRun: from, runLength: count,
                expStatSN: 0))
        return receive()
    }

    /// The slots of all commands that are ready for the device server.
    func readyCommands() -> [Int] {
        var slots: [Int] = []
        while let action = session.nextAction() {
            if case .command(let slot) = action { slots.append(slot) }
        }
        return slots
    }

    /// Answers a read with memory from the pool.
    func completeRead(_ slot: Int, _ bytes: [UInt8]) {
        let buffer = bench.service.pool.allocate(byteCount: bytes.count)!
        buffer.base!.copyMemory(from: bytes, byteCount: bytes.count)
        session.complete(
            slot, status: .good, data: UnsafeRawBufferPointer(start: buffer.base, count: bytes.count), buffer: buffer)
    }
}

func pattern(_ count: Int, seed: UInt64 = 7) -> [UInt8] {
    var random = WireRandom(seed: seed)
    return random.bytes(count)
}
