import ISCSI
import SCSI
import Timebase

/// A target's protocol half against initiators that the script plays, on up to three connections, with a device
/// server that answers in the script's order. Promises: no slot and no memory is lost, what a command wrote lies in
/// its buffer, StatSN has no gap, and every PDU that leaves is well formed.
@Sendable
func fuzzTarget(_ input: UnsafeRawBufferPointer) {
    var script = ByteScript(input)
    let rig = TargetRig(&script)
    rig.connect(0, &script)
    var steps = 0
    while !script.isAtEnd, steps < 400 {
        rig.step(&script)
        steps += 1
    }
    rig.finish()
}

final class TargetRig {
    final class Client {
        let connection: TargetConnection
        var decoder = PDUDecoder(crc32c: CRC32C.table, maxDataSegmentByteCount: 1 << 24)
        var parameters = NegotiatedParameters()
        var login: InitiatorLogin?
        var outgoing: [UInt8] = []
        var cmdSN: UInt32 = 1
        var tsih: UInt16 = 0
        var isid: ISID
        /// nil: not judged yet.
        var statSN: UInt32?
        /// Of the last Data-In that asked for an acknowledgement.
        var dataTag: UInt32 = 0
        var isLoggedIn = false

        init(_ connection: TargetConnection, isid: ISID) {
            self.connection = connection
            self.isid = isid
        }
    }

    /// A command that the device server has.
    struct Executing {
        var session: TargetSession
        var slot: Int
    }

    static let capacity = 3
    private let service: TargetService
    private let level: Int
    private let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 8)
    private var clients: [Client?] = Array(repeating: nil, count: capacity)
    private var executing: [Executing] = []
    private var management: [(session: TargetSession, token: UInt32)] = []
    private var sessions: [TargetSession] = []
    private var transfers: [BasicHeaderSegment] = []
    private var now = Instant(nanoseconds: 1_000_000_000)
    private var nextTag: UInt32 = 1

    init(_ script: inout ByteScript) {
        let flags = script.byte()
        let sizes = script.byte()
        var settings = TargetServiceSettings()
        settings.operational.headerDigest = flags & 0x01 != 0 ? [.crc32c, .none] : [.none]
        settings.operational.dataDigest = flags & 0x02 != 0 ? [.crc32c, .none] : [.none]
        settings.operational.initialR2T = flags & 0x04 != 0
        settings.operational.immediateData = flags & 0x08 == 0
        settings.operational.maxConnections = flags & 0x10 != 0 ? 3 : 1
        settings.operational.maxRecvDataSegmentByteCount = [512, 4096, 65_536, 1024][Int(sizes & 3)]
        settings.operational.maxBurstByteCount = [1024, 8192, 65_536, 512][Int(sizes >> 2 & 3)]
        settings.operational.firstBurstByteCount = [512, 1024, 8192, 512][Int(sizes >> 2 & 3)]
        settings.operational.maxOutstandingR2T = [1, 2, 8, 64][Int(sizes >> 4 & 3)]
        settings.maximumTransferByteCount = sizes & 0x40 != 0 ? 512 : 1 << 16
        settings.queueDepth = sizes & 0x80 != 0 ? 1 : 8
        settings.maximumSessions = 4
        // Level and loss behaviour come from a byte that few scripts had before: 0 is as it was.
        let recovery = flags & 0x80 != 0 ? script.byte() : 0
        settings.operational.errorRecoveryLevel = Int(recovery & 3) % 3
        level = settings.operational.errorRecoveryLevel
        settings.connectionLoss = recovery & 4 != 0 ? .endSession(after: .seconds(1)) : .keepSession
        settings.operational.defaultTime2Retain = recovery & 8 != 0 ? 0 : 20
        settings.retainedByteLimit = recovery & 16 != 0 ? 4096 : 1 << 20
        settings.pingInterval = .seconds(10)
        let authentication: TargetAuthentication =
            flags & 0x20 != 0 ? .chap(initiators: [fuzzSecret], own: fuzzMutualSecret) : .none
        service = TargetService(
            settings: settings,
            nodes: [
                TargetNodeDescription(
                    name: fuzzTargetName, alias: "disk",
                    addresses: [TargetAddress(host: "0.0.0.0", portalGroupTag: 1), TargetAddress(host: "10.0.0.2", portalGroupTag: 2)],
                    authentication: authentication)
            ], pool: TargetBufferPool(limitByteCount: flags & 0x40 != 0 ? 16_384 : 1 << 20), cryptography: FuzzCryptography(),
            crc32c: CRC32C.table)
    }

    deinit { segments.deallocate() }

    // MARK: connections

    func connect(_ index: Int, _ script: inout ByteScript) {
        guard clients[index] == nil else { return }
        let kind = script.byte()
        let connection = TargetConnection(
            service: service, portalGroupTag: kind & 0x40 != 0 ? 2 : 1,
            localAddress: TargetAddress(host: "127.0.0.1"), at: now)
        let client = Client(connection, isid: .random(1, qualifier: UInt16(kind & 1)))
        clients[index] = client
        guard kind & 0x80 == 0 else { return }
        var settings = LoginSettings(initiatorName: fuzzInitiatorName, targetName: fuzzTargetName, isid: client.isid)
        if kind & 0x02 != 0 { settings.operational.headerDigest = [.crc32c] }
        if kind & 0x04 != 0 { settings.operational.dataDigest = [.crc32c] }
        settings.operational.initialR2T = false
        settings.operational.maxConnections = 3
        settings.operational.errorRecoveryLevel = level
        settings.operational.maxRecvDataSegmentByteCount = kind & 0x08 != 0 ? 512 : 8192
        settings.operational.firstBurstByteCount = 8192
        settings.chap = CHAPCredentials(identity: fuzzSecret, mutual: kind & 0x08 != 0 ? fuzzMutualSecret : nil)
        settings.cmdSN = kind & 0x10 != 0 ? 0xFFFF_FFFE : 1
        settings.connectionID = UInt16(index)
        if kind & 0x20 != 0, let session = sessions.last(where: { $0.isNormal && !$0.isEnded }) {
            // Joins a session.
            settings.isid = session.identity.isid
            settings.tsih = session.tsih
            settings.sessionParameters = session.parameters
            settings.connectionID = kind & 0x10 != 0 ? 0 : UInt16(index)
            settings.operational.maxRecvDataSegmentByteCount = kind & 0x08 != 0 ? 1024 : 8192
            settings.cmdSN = clients.compactMap { $0 }.first { $0.connection.session === session }?.cmdSN ?? 1
        } else if kind & 0x20 != 0 {
            settings.sessionType = .discovery
            settings.targetName = nil
        }
        var login = InitiatorLogin(settings: settings, cryptography: FuzzCryptography(seed: 3))
        let action = login.start()
        client.login = login
        perform(action, client)
        for _ in 0..<12 where client.login != nil {
            deliver(client, limit: .max)
            read(client, limit: .max)
        }
    }

    private func perform(_ action: LoginAction, _ client: Client) {
        switch action {
        case .send(let pdu): client.outgoing += pdu.encoded()
        case .finished(let result):
            client.login = nil
            client.parameters = result.parameters
            client.cmdSN = result.cmdSN
            client.tsih = result.tsih
            client.isLoggedIn = true
            client.decoder.headerDigest = result.parameters.headerDigest == .crc32c
            client.decoder.dataDigest = result.parameters.dataDigest == .crc32c
            client.statSN = result.expStatSN
        case .redirected, .failed: client.login = nil
        }
    }

    // MARK: steps

    func step(_ script: inout ByteScript) {
        let kind = script.byte()
        let index = Int(kind >> 6) % Self.capacity
        let client = clients[index]
        switch kind & 0x1F {
        case 0...5: if let client { command(client, &script) }
        case 6...9: if let client { dataOut(client, &script) }
        case 10, 11: if let client { request(client, &script) }
        case 12: if let client { client.outgoing += script.piece(limit: 512) }
        case 13: if let client { login(client, &script) }
        case 14, 15: if let client { deliver(client, limit: Int(script.byte()) + 1) }
        case 16, 17: if let client { deliver(client, limit: .max) }
        case 18: if let client { read(client, limit: Int(script.byte()) + 1) }
        case 19, 20: if let client { read(client, limit: .max) }
        case 21...24: serve(&script)
        case 25: finishManagement(&script)
        case 26: connect(index, &script)
        case 27: if script.flag() { drop(index) }
        case 28: pass(Duration.milliseconds(Int(script.byte()) * 100))
        case 29:
            guard level > 0, let client else {
                client?.connection.sendAsyncMessage(.logoutRequested(withinSeconds: 1))
                break
            }
            recover(client, &script)
        case 30: if script.byte() == 0xFF, let session = sessions.last { service.end(session, .dropped) }
        default: sessions.last?.dropUndelivered(lun: script.flag() ? nil : LogicalUnitNumber(index: 0))
        }
        drain()
    }

    private func command(_ client: Client, _ script: inout ByteScript) {
        let kind = script.byte()
        let lengths = script.byte()
        let expected = [0, 1, 512, 4096, 10_000, 70_000, 512, 1024][Int(lengths & 7)]
        let immediate = [0, 512, 1, 1024, 0, 4096, 511, 600][Int(lengths >> 3 & 7)]
        var flags: SCSICommandFlags = kind & 0x80 != 0 ? [] : .final
        if kind & 1 != 0 { flags.insert(.write) } else if kind & 2 != 0 { flags.insert(.read) }
        let cmdSN = client.cmdSN &+ [0, 0, 0, 0, 1, 2, UInt32.max, 9][Int(kind >> 2 & 7)]
        let isImmediate = kind & 0x60 == 0x60
        let tag = kind & 0x60 == 0x20 ? nextTag &- 1 : nextTag
        nextTag &+= 1
        var header = BasicHeaderSegment.scsiCommand(
            CommandDescriptorBlock(operationCode: 0x28), lun: LogicalUnitNumber(index: 0)!, tag: tag, flags: flags,
            expectedDataTransferByteCount: UInt32(expected), immediateDataByteCount: immediate, cmdSN: cmdSN,
            expStatSN: 0, isImmediate: isImmediate)
        if !isImmediate, kind >> 2 & 7 < 4 { client.cmdSN &+= 1 }
        if lengths & 0xC0 == 0xC0 { header.damage(&script) }
        send(client, header, [UInt8](repeating: 0xAB, count: immediate))
        if flags.contains(.write), !flags.contains(.final) {
            // Unsolicited data follows.
            var data = BasicHeaderSegment.dataOut(
                lun: LogicalUnitNumber(index: 0)!, tag: tag, isFinal: lengths & 0x40 == 0, dataSN: 0,
                bufferOffset: UInt32(immediate), byteCount: 512, expStatSN: 0)
            if lengths & 0x80 != 0 { data.damage(&script) }
            send(client, data, [UInt8](repeating: 0xCD, count: 512))
        }
    }

    /// An answer to an R2T that came.
    private func dataOut(_ client: Client, _ script: inout ByteScript) {
        guard !transfers.isEmpty else { return }
        let kind = script.byte()
        let index = Int(kind & 0x07) % transfers.count
        let r2t = transfers[index]
        let wanted = Int(r2t.desiredDataTransferByteCount)
        let count = kind & 0x08 != 0 ? min(wanted, 8192) : min(wanted, 512)
        var header = BasicHeaderSegment.dataOut(
            lun: r2t.lun, tag: r2t.initiatorTaskTag, targetTransferTag: r2t.targetTransferTag, isFinal: count == wanted,
            dataSN: r2t.dataSN, bufferOffset: r2t.bufferOffset, byteCount: count, expStatSN: 0)
        transfers[index].dataSN = r2t.dataSN &+ 1
        transfers[index].bufferOffset = r2t.bufferOffset &+ UInt32(count)
        transfers[index].desiredDataTransferByteCount = UInt32(wanted - count)
        if wanted == count, kind & 0x10 == 0 { transfers.remove(at: index) }
        if kind & 0xE0 == 0xE0 { header.damage(&script) }
        send(client, header, [UInt8](repeating: 0xEF, count: count))
    }

    private func request(_ client: Client, _ script: inout ByteScript) {
        let kind = script.byte()
        let isImmediate = kind & 0x40 != 0
        let cmdSN = client.cmdSN &+ (kind & 0x20 != 0 ? 1 : 0)
        if !isImmediate, kind & 0x20 == 0 { client.cmdSN &+= 1 }
        var header: BasicHeaderSegment
        var data: [UInt8] = []
        switch kind & 0x07 {
        case 0:
            data = script.bytes(script.below(64))
            header = .nopOut(tag: nextTag, dataByteCount: data.count, cmdSN: cmdSN, expStatSN: 0, isImmediate: isImmediate)
        case 1, 2:
            let functions = TaskManagementFunction.allCases
            header = .taskManagementRequest(
                script.pick(functions), lun: LogicalUnitNumber(index: 0)!, tag: nextTag,
                referencedTaskTag: nextTag &- UInt32(script.below(8)), cmdSN: cmdSN, expStatSN: 0, isImmediate: isImmediate)
        case 3, 4:
            data = script.flag() ? SendTargets.Request.all.encoded : script.piece(limit: 600)
            header = .textRequest(
                TextFlags(rawValue: script.byte() & 0xC0), tag: nextTag,
                targetTransferTag: script.flag() ? 1 : BasicHeaderSegment.reservedTag, cmdSN: cmdSN, expStatSN: 0, isImmediate: isImmediate)
        case 5:
            header = .logoutRequest(
                script.pick(LogoutReason.allCases), connectionID: UInt16(script.below(3)), tag: nextTag, cmdSN: cmdSN, expStatSN: 0,
                isImmediate: isImmediate)
        case 6: header = .snack(.status, begRun: 0, runLength: 0, expStatSN: 0)
        default: header = .nopOut(targetTransferTag: 0x7FFF_FFFE, cmdSN: cmdSN, expStatSN: 0)
        }
        nextTag &+= 1
        if kind & 0x88 == 0x88 { header.damage(&script) }
        send(client, header, data)
    }

    /// SNACK, TASK REASSIGN, and confirmations, with numbers from near what is right.
    private func recover(_ client: Client, _ script: inout ByteScript) {
        let kind = script.byte()
        let number = script.byte()
        let near = (client.statSN ?? 0) &- UInt32(number >> 4)
        let tag = nextTag &- UInt32(number & 0x0F)
        let lun = LogicalUnitNumber(index: 0)!
        var header: BasicHeaderSegment
        switch kind & 0x07 {
        case 0: header = .snack(.status, begRun: near, runLength: UInt32(number & 3), expStatSN: 0)
        case 1: header = .snack(.status, begRun: 0, runLength: 0, expStatSN: 0)
        case 2:
            header = .snack(.dataOrR2T, lun: lun, tag: tag, begRun: UInt32(number >> 4), runLength: UInt32(script.byte() & 7), expStatSN: 0)
        case 3: header = .snack(.rData, lun: lun, tag: tag, targetTransferTag: UInt32(number), begRun: 0, runLength: 0, expStatSN: 0)
        case 4: header = .snack(.dataACK, lun: lun, targetTransferTag: client.dataTag, begRun: UInt32(number), runLength: 0, expStatSN: 0)
        case 5, 6:
            header = .taskManagementRequest(
                .taskReassign, lun: lun, tag: nextTag, referencedTaskTag: tag, expDataSN: UInt32(number >> 4 & 3), cmdSN: client.cmdSN,
                expStatSN: 0)
            nextTag &+= 1
        default: header = .nopOut(cmdSN: client.cmdSN, expStatSN: near)
        }
        if kind & 0xC0 == 0xC0 { header.damage(&script) }
        send(client, header, [])
    }

    private func login(_ client: Client, _ script: inout ByteScript) {
        let pairs = script.flag()
            ? TextParameters.encode([TextPair("InitiatorName", fuzzInitiatorName), TextPair("TargetName", fuzzTargetName), TextPair("AuthMethod", "CHAP,None")])
            : []
        let data = pairs + script.piece(limit: 600)
        send(
            client,
            .loginRequest(
                LoginFlags(rawValue: script.byte()), isid: client.isid, tsih: script.flag() ? client.tsih : 0, connectionID: 0,
                tag: 1, cmdSN: 1, expStatSN: 0, dataByteCount: data.count), data)
    }

    private func send(_ client: Client, _ header: BasicHeaderSegment, _ data: [UInt8]) {
        guard client.outgoing.count < 1 << 18 else { return }
        client.outgoing += PDU(header: header, data: data).encoded(
            headerDigest: client.parameters.headerDigest == .crc32c ? CRC32C.table : nil,
            dataDigest: client.parameters.dataDigest == .crc32c ? CRC32C.table : nil)
    }

    // MARK: the device server

    private func drain() {
        while let event = service.nextEvent() {
            switch event {
            case .sessionStarted(let session): sessions.append(session)
            case .sessionEnded(let session, _): sessions.removeAll { $0 === session }
            case .commandAbandoned(let session, let slot):
                guard let index = executing.firstIndex(where: { $0.session === session && $0.slot == slot }) else {
                    broken("only what the device server has is to be aborted")
                }
                executing.remove(at: index)
                session.aborted(slot)
            case .connectionEnded(let connection, let reason):
                guard !reason.isGraceful, let index = clients.firstIndex(where: { $0?.connection === connection }) else { continue }
                clients[index] = nil
            }
        }
        for session in sessions { collect(session) }
    }

    private func collect(_ session: TargetSession) {
        while let action = session.nextAction() {
            switch action {
            case .command(let slot):
                require(!executing.contains { $0.session === session && $0.slot == slot }, "a slot is handed out once")
                var sum: UInt8 = 0
                for byte in session.dataOut(slot) { sum &+= byte }
                executing.append(Executing(session: session, slot: slot))
            case .management(let request): management.append((session, request.token))
            }
        }
    }

    private func serve(_ script: inout ByteScript) {
        guard !executing.isEmpty else { return }
        let kind = script.byte()
        let command = executing.remove(at: Int(kind & 0x07) % executing.count)
        let session = command.session
        switch kind >> 3 & 3 {
        case 0: session.complete(command.slot, status: .good, dataOutByteCount: session.dataOut(command.slot).count)
        case 1:
            session.complete(
                command.slot, status: .checkCondition, sense: SenseData(key: .illegalRequest, additional: .invalidFieldInCommand),
                senseFormat: kind & 0x20 != 0 ? .descriptor : .fixed)
        case 2 where kind & 0x20 != 0: session.aborted(command.slot)
        default:
            let count = min(session.expectedDataInByteCount(command.slot), kind & 0x80 != 0 ? 100 : 70_000)
            guard let buffer = service.pool.allocate(byteCount: count), let base = buffer.base else {
                session.complete(command.slot, status: .busy)
                return
            }
            base.initializeMemory(as: UInt8.self, repeating: 0x33, count: count)
            session.complete(command.slot, status: .good, data: UnsafeRawBufferPointer(start: base, count: count), buffer: buffer)
        }
    }

    private func finishManagement(_ script: inout ByteScript) {
        guard !management.isEmpty else { return }
        let request = management.remove(at: script.below(management.count))
        request.session.finishManagement(request.token, response: TaskManagementResponse(rawValue: script.byte() & 0x07))
    }

    // MARK: bytes and time

    private func deliver(_ client: Client, limit: Int) {
        var rest = limit
        while !client.outgoing.isEmpty, rest > 0, client.connection.endReason == nil, !client.connection.isCongested {
            let piece = Array(client.outgoing.prefix(min(rest, 16_384)))
            client.outgoing.removeFirst(piece.count)
            rest -= piece.count
            let window = client.connection.inputWindow()
            let placed = min(window.count, piece.count)
            piece.withUnsafeBytes { bytes in
                if placed > 0 { window.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix(placed))) }
                client.connection.received(placedByteCount: placed, spill: UnsafeRawBufferPointer(rebasing: bytes[placed...]), at: now)
            }
            drain()
        }
    }

    private func read(_ client: Client, limit: Int) {
        var budget = limit
        while budget > 0 {
            let count = client.connection.output(into: segments)
            guard count > 0 else { break }
            var bytes: [UInt8] = []
            for segment in segments[..<count] where budget > 0 {
                let part = segment.prefix(budget)
                bytes += part
                budget -= part.count
            }
            client.connection.sent(byteCount: bytes.count)
            bytes.withUnsafeBytes { decode(client, $0) }
            drain()
        }
    }

    private func decode(_ client: Client, _ bytes: UnsafeRawBufferPointer) {
        var input = bytes
        while true {
            switch client.decoder.next(&input) {
            case .needMore: return
            case .header: client.decoder.collect(limit: 1 << 24)
            case .complete:
                let header = client.decoder.header
                judge(header, client)
                if var login = client.login {
                    let action = login.received(header, data: client.decoder.collectedData)
                    client.login = login
                    perform(action, client)
                } else if header.opcode == .readyToTransfer {
                    var transfer = header
                    transfer.dataSN = 0
                    if transfers.count < 32 { transfers.append(transfer) }
                }
            case .dataDigestError: broken("the target's data digests are right")
            case .failed(let error): broken("the target's PDUs are well formed: \(error)")
            }
        }
    }

    private func judge(_ header: BasicHeaderSegment, _ client: Client) {
        guard client.isLoggedIn, let expected = client.statSN else { return }
        // The field is reserved where no status comes with the data.
        if header.opcode == .dataIn, !header.dataInFlags.contains(.status) {
            if header.dataInFlags.contains(.acknowledge) { client.dataTag = header.targetTransferTag }
            return
        }
        // Sent again.
        if level > 0, SerialNumber.isBefore(header.statSN, expected) { return }
        require(header.statSN == expected, "StatSN has no gap: \(header.opcode) \(header.statSN), not \(expected)")
        switch header.opcode {
        case .readyToTransfer: return
        case .nopIn where header.initiatorTaskTag == BasicHeaderSegment.reservedTag: return
        default: client.statSN = expected &+ 1
        }
    }

    private func drop(_ index: Int) {
        clients[index]?.connection.peerClosed()
        clients[index] = nil
    }

    private func pass(_ duration: Duration) {
        now = now + duration
        for client in clients.compactMap({ $0 }) {
            client.connection.timerFired(at: now)
            client.connection.timerFired(at: now)
        }
        if service.hasAlarms, service.nextDeadline(at: now) <= now { service.timerFired(at: now) }
    }

    func finish() {
        for index in clients.indices { drop(index) }
        drain()
        if service.hasAlarms {
            _ = service.nextDeadline(at: now)
            service.timerFired(at: now + .seconds(30))
            drain()
        }
        for command in executing { command.session.complete(command.slot, status: .good) }
        executing = []
        management = []
        require(service.sessions.isEmpty, "no session outlives its connections")
        require(service.retainedByteCount == 0, "nothing is kept for nobody: \(service.retainedByteCount)")
        require(service.pool.lentByteCount == 0, "all memory is given back: \(service.pool.lentByteCount)")
    }
}

@Sendable
func targetSeeds() -> [[UInt8]] {
    let read: [UInt8] = [0, 0x02, 0x03, 16, 21, 0x18, 19]
    let write: [UInt8] = [0, 0x01, 0x0B, 16, 19, 6, 0x08, 16, 19, 6, 0x08, 16, 6, 0x08, 16, 21, 0x00, 19]
    let unsolicited: [UInt8] = [0, 0x81, 0x0B, 16, 19, 21, 0, 19]
    let early: [UInt8] = [0, 0x12, 0x02, 10, 0x20, 0, 16, 0, 0x02, 0x02, 16, 21, 0x18, 21, 0x18, 19]
    let manage: [UInt8] = [0, 0x02, 0x03, 10, 0x41, 1, 1, 16, 25, 0, 0, 22, 0x30, 19, 10, 0x41, 0, 1, 16, 19]
    let text: [UInt8] = [10, 0x43, 1, 0x80, 0, 16, 19, 10, 0x40, 3, 65, 66, 67, 16, 19]
    let second: [UInt8] = [0x40 | 26, 0x20, 0x40, 0x11, 0x0B, 0x40 | 14, 60, 0, 0x02, 0x02, 16, 0x40 | 16, 0x40 | 19, 19]
    let again: [UInt8] = [0x80 | 26, 0x00, 0x80, 0x02, 0x03, 0x90, 21, 0, 0x93]
    let ending: [UInt8] = [10, 0x45, 0, 0, 16, 19, 28, 200, 28, 200]
    var seeds: [[UInt8]] = []
    let lost: [UInt8] = [0x40 | 26, 0x20, 0x40, 0x02, 0x03, 0x40 | 16, 0x40, 0x02, 0x0B, 0x40 | 16, 21, 0x18, 0x40 | 19, 0x40 | 27, 1]
    let recovery: [UInt8] = [0x40 | 26, 0x20, 29, 0x05, 0x02, 29, 0x05, 0x01, 16, 21, 0x18, 19, 29, 0x01, 0, 29, 0x02, 0x02, 0, 16, 19]
    for level in [0x81, 0x82, 0x86, 0x92] as [UInt8] {
        for flags in [0x90, 0x93] as [UInt8] {
            seeds.append([flags, 0x16, level & 0x7F, flags & 1 != 0 ? 0x06 : 0] + read + write + lost + recovery + read + [28, 250, 28, 250])
            seeds.append([flags, 0x01, level & 0x7F, 0x08] + unsolicited + early + lost + again + recovery + manage)
        }
    }
    for flags in [0x00, 0x03, 0x04, 0x10, 0x13, 0x20, 0x40, 0x50] as [UInt8] {
        for sizes in [0x01, 0x16, 0x51, 0x8B] as [UInt8] {
            seeds.append([flags, sizes, flags & 1 != 0 ? 0x06 : 0] + read + write + manage + text + ending)
            seeds.append([flags, sizes, 0x08] + unsolicited + early + second + again + write + read)
        }
    }
    seeds.append([0x00, 0x01, 0x20] + text + text + ending)
    seeds.append([0x20, 0x01, 0x80, 13, 1, 0, 0, 0x81, 0, 16, 19, 13, 0, 0, 8] + Array("CHAP_A=5".utf8) + [0x81, 0, 16, 19])
    return seeds
}
