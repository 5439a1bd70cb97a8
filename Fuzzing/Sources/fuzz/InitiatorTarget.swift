import ISCSI
import SCSI
import Timebase

/// An initiator's session against a target that the script plays, with an owner that submits, aborts, detaches and
/// lets time pass. Promises: each accepted command ends exactly once; a window and what is sent lie in memory of
/// commands that are open and not detached; a command that was seen is not said to be unsent.
@Sendable
func fuzzInitiator(_ input: UnsafeRawBufferPointer) {
    var script = ByteScript(input)
    var rig = InitiatorRig(&script)
    rig.open(0)
    var steps = 0
    while !script.isAtEnd, steps < 400 {
        rig.step(&script)
        steps += 1
    }
    rig.finish()
}

struct InitiatorRig: ~Copyable {
    struct Open {
        var offset: Int
        var count: Int
        var direction: DataDirection
        var isDetached = false
    }

    struct Request {
        var header: BasicHeaderSegment
        var connection: Int
        var offset: UInt32 = 0
        var number: UInt32 = 0
    }

    static let arenaByteCount = 1 << 16
    static let connectionLimit = 2

    private var session: InitiatorSession
    private let arena: UnsafeMutableRawBufferPointer
    private let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 8)
    private var ends: [TargetEnd] = []
    private var now = Instant(nanoseconds: 1_000_000_000)
    private var open: [UInt64: Open] = [:]
    private var seen: Set<UInt64> = []
    private var requests: [Request] = []
    private var nextToken: UInt64 = 1
    private var isFailed = false
    private var isLoggedIn = false
    private var canAddConnection = false
    private var eventCount = 0
    private var inputByteCount = 0
    private var expCmdSN: UInt32 = 1
    private var window: UInt32 = 32

    /// One connection as the target has it.
    struct TargetEnd {
        var decoderInput: [UInt8] = []
        var headerDigest = false
        var dataDigest = false
        var statSN: UInt32 = 1
        var isOpen = false
        var login: TargetLogin?
        var playsLogin = false
        /// Bytes for the initiator that were not delivered yet.
        var outgoing: [UInt8] = []
    }

    init(_ script: inout ByteScript) {
        let flags = script.byte()
        let sizes = script.byte()
        var login = LoginSettings(initiatorName: fuzzInitiatorName, targetName: fuzzTargetName, isid: .random(1, qualifier: 1))
        if flags & 0x01 != 0 { login.operational.headerDigest = [.crc32c, .none] }
        if flags & 0x02 != 0 { login.operational.dataDigest = [.crc32c] }
        login.operational.initialR2T = flags & 0x04 != 0
        login.operational.immediateData = flags & 0x08 == 0
        login.operational.dataPDUInOrder = flags & 0x10 == 0
        login.operational.dataSequenceInOrder = flags & 0x10 == 0
        login.operational.maxConnections = flags & 0x20 != 0 ? Self.connectionLimit : 1
        if flags & 0x40 != 0 { login.sessionType = .discovery; login.targetName = nil }
        login.operational.maxRecvDataSegmentByteCount = [512, 4096, 65_536, 1024][Int(sizes & 3)]
        login.operational.maxBurstByteCount = [1024, 8192, 65_536, 512][Int(sizes >> 2 & 3)]
        login.operational.firstBurstByteCount = 512
        login.operational.maxOutstandingR2T = [1, 2, 8, 64][Int(sizes >> 4 & 3)]
        login.cmdSN = sizes & 0x40 != 0 ? 0xFFFF_FFFC : 1
        if sizes & 0x80 != 0 { login.chap = CHAPCredentials(identity: fuzzSecret, mutual: fuzzMutualSecret) }
        var settings = SessionSettings(login: login)
        settings.commandCapacity = 16
        session = InitiatorSession(settings: settings, cryptography: FuzzCryptography(), crc32c: CRC32C.table)
        expCmdSN = login.cmdSN
        arena = .allocate(byteCount: Self.arenaByteCount, alignment: 16)
        arena.initializeMemory(as: UInt8.self, repeating: 0x5A)
        ends = Array(repeating: TargetEnd(), count: Self.connectionLimit)
        for index in ends.indices { ends[index].playsLogin = flags & 0x80 != 0 }
    }

    deinit {
        arena.deallocate()
        segments.deallocate()
    }

    // MARK: the owner

    mutating func open(_ index: Int) {
        ends[index] = TargetEnd(playsLogin: ends[index].playsLogin)
        ends[index].isOpen = true
        ends[index].login = TargetLogin(cryptography: FuzzCryptography(seed: 9))
        session.connectionOpened(ConnectionIndex(rawValue: index), at: now)
        drain()
        guard !ends[index].playsLogin else { return }
        for _ in 0..<8 where ends[index].login != nil {
            take(index, limit: .max)
            deliver(index, limit: .max, usesWindow: true)
        }
    }

    mutating func step(_ script: inout ByteScript) {
        let index = script.byte()
        let connection = index & 0x80 != 0 && ends[1].isOpen ? 1 : 0
        let c = ConnectionIndex(rawValue: connection)
        switch index & 0x1F {
        case 0...4: submit(&script, on: c)
        case 5, 6: take(connection, limit: index & 0x40 != 0 ? Int(script.byte()) + 1 : .max)
        case 7...15: answer(&script, connection)
        case 16: ends[connection].outgoing += script.piece(limit: 512)
        case 17, 18: deliver(connection, limit: Int(script.byte()) + 1, usesWindow: index & 0x40 == 0)
        case 19, 20: deliver(connection, limit: .max, usesWindow: index & 0x40 == 0)
        case 21: pass(&script)
        case 22: detach(&script)
        case 23, 24: manage(&script, on: c)
        case 25: _ = session.ping(on: c, at: now)
        case 26: _ = session.sendText([TextPair("X-a", "1")], token: 77, at: now)
        case 27: _ = session.discoverTargets(at: now)
        case 28: if index & 0x40 != 0 { session.beginLogout(at: now) }
        case 29 where canAddConnection && !ends[1].isOpen && session.needsToSend(ConnectionIndex(rawValue: 1)) == false: open(1)
        case 30 where index & 0x40 != 0: close(connection)
        case 31:
            // The target's window moves.
            expCmdSN &+= UInt32(script.byte() & 0x0F)
            window = UInt32(script.byte() & 0x3F)
        default: break
        }
        drain()
    }

    private mutating func submit(_ script: inout ByteScript, on c: ConnectionIndex) {
        let kind = script.byte()
        let direction: DataDirection = kind & 3 == 0 ? .none : kind & 1 != 0 ? .read : .write
        let count = direction == .none ? 0 : [1, 511, 512, 1000, 4096, 5000, 0, 16_000][Int(kind >> 2 & 7)]
        // Reads have memory of their own; writes may share theirs.
        let slot = Int(nextToken % 2)
        let offset = direction == .read ? slot * 16_384 : 32_768 + Int(kind >> 5) * 1000
        if direction == .read, open.values.contains(where: { $0.offset == offset && $0.direction == .read }) { return }
        var cdb = CommandDescriptorBlock(operationCode: direction == .write ? 0x8A : 0x88)
        cdb.setField(at: 2, width: 8, to: nextToken)
        let request = SCSICommandRequest(
            token: nextToken, lun: LogicalUnitNumber(index: Int(kind & 1))!, cdb: cdb, direction: direction,
            buffer: count == 0 ? nil : arena.baseAddress! + offset, byteCount: count)
        if case .accepted = session.submit(request, on: c, at: now) {
            open[nextToken] = Open(offset: offset, count: count, direction: direction)
        }
        nextToken += 1
    }

    private mutating func detach(_ script: inout ByteScript) {
        let tokens = open.keys.sorted()
        guard !tokens.isEmpty else { return }
        let token = script.pick(tokens)
        session.detach(token)
        open[token]?.isDetached = true
    }

    private mutating func manage(_ script: inout ByteScript, on c: ConnectionIndex) {
        let functions: [TaskManagementFunction] = [
            .abortTask, .abortTaskSet, .clearTaskSet, .logicalUnitReset, .targetWarmReset, .targetColdReset, .clearACA,
        ]
        let function = script.pick(functions)
        let tokens = open.keys.sorted()
        let referenced = function == .abortTask ? (tokens.isEmpty ? 0 : script.pick(tokens)) : nil
        _ = session.submitTaskManagement(
            function, lun: LogicalUnitNumber(index: script.below(2))!, referencing: referenced, token: 1 << 32, on: c, at: now)
    }

    private mutating func pass(_ script: inout ByteScript) {
        let kind = script.byte()
        now = kind & 0x80 != 0 ? max(now, min(session.nextDeadline, now + .seconds(3600))) : now + .milliseconds(Int(kind & 0x7F) * 50)
        let report: TransportReport? = switch script.below(4) {
        case 0: nil
        case 1: TransportReport(unacknowledgedByteCount: 0, sinceLastAcknowledgement: .seconds(1), unansweredRetransmissions: 0)
        case 2: TransportReport(unacknowledgedByteCount: 40, sinceLastAcknowledgement: .milliseconds(10), unansweredRetransmissions: 0)
        default: TransportReport(unacknowledgedByteCount: 48, sinceLastAcknowledgement: .seconds(2), unansweredRetransmissions: 3)
        }
        var calls = 0
        while session.nextDeadline <= now {
            session.timerFired(at: now) { _ in report }
            drain()
            calls += 1
            require(calls < 200, "the deadline moves on")
        }
    }

    private mutating func close(_ connection: Int) {
        guard ends[connection].isOpen else { return }
        ends[connection].isOpen = false
        session.connectionClosed(ConnectionIndex(rawValue: connection), reason: .endOfStream, at: now)
    }

    private mutating func drain() {
        while let completion = session.nextCompletion() {
            guard let command = open.removeValue(forKey: completion.token) else { broken("command \(completion.token) ends once") }
            require((0...command.count).contains(completion.transferredByteCount), "a transfer lies within its buffer")
        }
        while let event = session.nextEvent() {
            eventCount += 1
            require(!isFailed, "nothing follows sessionFailed")
            switch event {
            case .commandAbandoned(let token, let wasSent):
                require(open.removeValue(forKey: token) != nil, "command \(token) is abandoned once")
                require(wasSent || !seen.contains(token), "what the target saw was sent")
            case .loggedIn(let result):
                isLoggedIn = true
                canAddConnection = result.parameters.maxConnections > 1
            case .connectionFailed(let c, _): ends[c.rawValue].isOpen = false
            case .sessionFailed: isFailed = true
            default: break
            }
        }
        if case .failed = session.state { canAddConnection = false }
        if case .loggingOut = session.state { canAddConnection = false }
        if session.hasEnded { canAddConnection = false }
        require(eventCount <= 4096 + inputByteCount, "events are bounded by what came")
    }

    mutating func finish() {
        // A session outlives a connection while it has another.
        for index in 0..<Self.connectionLimit {
            session.connectionClosed(ConnectionIndex(rawValue: index), reason: .endOfStream, at: now)
            drain()
        }
        if case .loggedOut = session.state {} else { require(session.hasEnded, "a session whose connections are closed has ended") }
        require(open.isEmpty, "every command ended: \(open.keys.sorted())")
        require(session.outstandingCommandCount == 0, "nothing is outstanding at the end")
        for index in 0..<Self.connectionLimit {
            let c = ConnectionIndex(rawValue: index)
            require(session.output(c, into: segments) == 0 && session.input(c).isEmpty, "an ended session names no memory")
        }
    }

    // MARK: bytes

    /// A range of the arena must belong to an open command that still has the caller's memory.
    private func requireOpen(_ start: UnsafeRawPointer, _ count: Int, _ direction: DataDirection) {
        let offset = start - UnsafeRawPointer(arena.baseAddress!)
        guard count > 0, offset + count > 0, offset < Self.arenaByteCount else { return }
        require(
            open.values.contains {
                !$0.isDetached && $0.direction == direction && offset >= $0.offset && offset + count <= $0.offset + $0.count
            }, "only memory of open commands is named")
    }

    /// Takes what the session sends, up to `limit` bytes.
    private mutating func take(_ connection: Int, limit: Int) {
        let c = ConnectionIndex(rawValue: connection)
        var budget = limit
        while budget > 0 {
            let count = session.output(c, into: segments)
            guard count > 0 else { break }
            var moved = 0
            for segment in segments[..<count] {
                requireOpen(segment.baseAddress!, segment.count, .write)
                let part = segment.prefix(budget)
                ends[connection].decoderInput += part
                moved += part.count
                budget -= part.count
            }
            session.outputSent(c, byteCount: moved)
            drain()
        }
        while let (header, data) = nextPDU(connection) { sawRequest(header, data, connection) }
    }

    /// The initiator is trusted here: its PDUs are whole and right.
    private mutating func nextPDU(_ connection: Int) -> (BasicHeaderSegment, [UInt8])? {
        let bytes = ends[connection].decoderInput
        guard bytes.count >= 48 else { return nil }
        let header = bytes.withUnsafeBytes { BasicHeaderSegment(loadingFrom: $0.baseAddress!) }
        let start = 48 + (ends[connection].headerDigest ? 4 : 0)
        let dataCount = header.dataSegmentByteCount
        let total = start + (dataCount + 3) & ~3 + (ends[connection].dataDigest && dataCount > 0 ? 4 : 0)
        guard bytes.count >= total else { return nil }
        ends[connection].decoderInput.removeFirst(total)
        return (header, Array(bytes[start..<(start + dataCount)]))
    }

    private mutating func sawRequest(_ header: BasicHeaderSegment, _ data: [UInt8], _ connection: Int) {
        switch header.opcode {
        case .loginRequest where ends[connection].login != nil: answerLogin(header, data, connection)
        case .scsiCommand:
            seen.insert(header.cdb.field(at: 2, width: 8))
            requests.append(Request(header: header, connection: connection, offset: UInt32(data.count)))
        case .dataOut: break
        case .nopOut where header.initiatorTaskTag == BasicHeaderSegment.reservedTag: break
        case .nopOut, .taskManagementRequest, .textRequest, .logoutRequest:
            requests.append(Request(header: header, connection: connection))
        default: broken("the initiator sends only what an initiator may: \(header.opcode)")
        }
        if requests.count > 64 { requests.removeFirst() }
    }

    private mutating func answerLogin(_ header: BasicHeaderSegment, _ data: [UInt8], _ connection: Int) {
        guard !ends[connection].playsLogin else {
            requests.append(Request(header: header, connection: connection))
            return
        }
        var action = data.withUnsafeBytes { ends[connection].login!.received(header, data: $0) }
        while true {
            switch action {
            case .identify:
                var grant = TargetLoginGrant()
                grant.operational.headerDigest = [.crc32c, .none]
                grant.operational.dataDigest = [.crc32c, .none]
                grant.operational.maxConnections = 2
                grant.operational.initialR2T = false
                grant.operational.maxRecvDataSegmentByteCount = 4096
                grant.operational.maxOutstandingR2T = 64
                grant.operational.dataPDUInOrder = false
                grant.operational.dataSequenceInOrder = false
                if connection > 0 { grant.sessionParameters = NegotiatedParameters() }
                grant.authentication = .none
                action = ends[connection].login!.identified(.accept(grant))
            case .establish:
                action = ends[connection].login!.established(.admit(tsih: 7, expCmdSN: expCmdSN, maxCmdSN: expCmdSN &+ window))
            case .send(let pdu), .refused(let pdu, _):
                ends[connection].outgoing += pdu.encoded()
                return
            case .finished(let pdu, let result):
                ends[connection].outgoing += pdu.encoded()
                ends[connection].headerDigest = result.parameters.headerDigest == .crc32c
                ends[connection].dataDigest = result.parameters.dataDigest == .crc32c
                ends[connection].statSN = result.statSN
                ends[connection].login = nil
                return
            case .failed:
                ends[connection].login = nil
                return
            }
        }
    }

    private mutating func deliver(_ connection: Int, limit: Int, usesWindow: Bool) {
        let c = ConnectionIndex(rawValue: connection)
        var rest = limit
        while !ends[connection].outgoing.isEmpty, rest > 0, ends[connection].isOpen {
            let piece = Array(ends[connection].outgoing.prefix(rest))
            ends[connection].outgoing.removeFirst(piece.count)
            rest -= piece.count
            inputByteCount += piece.count
            let target = usesWindow ? session.input(c) : UnsafeMutableRawBufferPointer(start: nil, count: 0)
            if let base = target.baseAddress { requireOpen(base, target.count, .read) }
            let placed = min(target.count, piece.count)
            piece.withUnsafeBytes { bytes in
                if placed > 0 { target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix(placed))) }
                session.received(c, placedByteCount: placed, spill: UnsafeRawBufferPointer(rebasing: bytes[placed...]), at: now)
            }
            drain()
        }
    }
}

// MARK: the target's answers

extension InitiatorRig {
    private mutating func answer(_ script: inout ByteScript, _ connection: Int) {
        let kind = script.byte()
        let numbers = ResponseNumbers(statSN: ends[connection].statSN, expCmdSN: expCmdSN, maxCmdSN: expCmdSN &+ window)
        var header: BasicHeaderSegment
        var data: [UInt8] = []
        let index = requests.isEmpty ? nil : Int(script.byte()) % requests.count
        var usesStatus = true
        if let index, kind & 0x1F < 24 {
            (header, data, usesStatus) = response(to: index, kind, numbers, &script)
        } else {
            switch kind & 0x07 {
            case 0:
                header = .nopIn(targetTransferTag: 4, numbers: numbers)
                usesStatus = false
            case 1: header = .asyncMessage(.vendorSpecific(code: 1), numbers: numbers)
            case 2:
                header = .asyncMessage(.vendorSpecific(code: 1), numbers: numbers)
                header[byte: 36] = script.byte() % 6
                data = script.bytes(script.below(24))
            case 3: header = .dataIn(tag: script.word32(), flags: .final, dataSN: 0, bufferOffset: 0, byteCount: 0, numbers: numbers)
            default:
                header = .reject(RejectReason(rawValue: script.byte() & 0x0F), numbers: numbers)
                var rejected = BasicHeaderSegment()
                rejected[byte: 0] = script.byte() & 0x3F
                rejected.initiatorTaskTag = script.word32()
                data = rejected.wireBytes
            }
        }
        if usesStatus { ends[connection].statSN &+= 1 }
        if kind & 0x80 != 0 { header.damage(&script) }
        var bytes = PDU(header: header, data: data).encoded(
            headerDigest: ends[connection].headerDigest ? CRC32C.table : nil,
            dataDigest: ends[connection].dataDigest ? CRC32C.table : nil)
        if kind & 0x60 == 0x60 { bytes[script.below(bytes.count)] ^= script.byte() }
        if ends[connection].outgoing.count < 1 << 18 { ends[connection].outgoing += bytes }
    }

    private mutating func response(
        to index: Int, _ kind: UInt8, _ numbers: ResponseNumbers, _ script: inout ByteScript
    ) -> (BasicHeaderSegment, [UInt8], usesStatus: Bool) {
        let request = requests[index]
        let tag = request.header.initiatorTaskTag
        switch request.header.opcode {
        case .scsiCommand: return commandResponse(to: index, kind, numbers, &script)
        case .taskManagementRequest:
            requests.remove(at: index)
            return (.taskManagementResponse(TaskManagementResponse(rawValue: kind & 0x03), tag: tag, numbers: numbers), [], true)
        case .textRequest:
            let data = script.flag() ? Array("TargetName=iqn.2026-11.org.example:a\0TargetAddress=10.0.0.1,1\0".utf8) : script.bytes(script.below(64))
            if kind & 1 != 0 {
                requests.remove(at: index)
                return (.textResponse(.final, tag: tag, numbers: numbers), data, true)
            }
            return (.textResponse(kind & 2 != 0 ? .continues : [], tag: tag, targetTransferTag: 3, numbers: numbers), data, true)
        case .logoutRequest:
            requests.remove(at: index)
            return (.logoutResponse(LogoutResponse(rawValue: kind & 0x0C == 0 ? kind & 3 : 0), tag: tag, numbers: numbers), [], true)
        case .loginRequest:
            requests.remove(at: index)
            let flags = LoginFlags(rawValue: script.byte())
            let text = script.flag() ? TextParameters.encode([TextPair("TargetPortalGroupTag", "1"), TextPair("AuthMethod", "None")]) : script.piece(limit: 600)
            return (.loginResponse(flags, status: LoginStatus(rawValue: script.flag() ? script.word16() & 0x030F : 0), isid: request.header.isid, tsih: 7, tag: tag, numbers: numbers), text, true)
        default:
            requests.remove(at: index)
            return (.nopIn(tag: tag, numbers: numbers), [], true)
        }
    }

    private mutating func commandResponse(
        to index: Int, _ kind: UInt8, _ numbers: ResponseNumbers, _ script: inout ByteScript
    ) -> (BasicHeaderSegment, [UInt8], usesStatus: Bool) {
        let request = requests[index]
        let tag = request.header.initiatorTaskTag
        let flags = request.header.commandFlags
        let expected = request.header.expectedDataTransferByteCount
        switch kind & 0x07 {
        case 0...3 where flags.contains(.read):
            let count = min([4, 511, 512, 4096][Int(kind & 3)], Int(expected) - min(Int(request.offset), Int(expected)))
            requests[index].offset += UInt32(count)
            requests[index].number += 1
            let data = [UInt8](repeating: 0xEE, count: count)
            if kind & 0x08 != 0 {
                requests.remove(at: index)
                return (.dataIn(tag: tag, status: .good, dataSN: request.number, bufferOffset: request.offset, byteCount: count, numbers: numbers), data, true)
            }
            return (.dataIn(tag: tag, flags: [], dataSN: request.number, bufferOffset: request.offset, byteCount: count, numbers: numbers), data, false)
        case 0...3 where flags.contains(.write):
            let count = UInt32([16, 512, 1000, 4096][Int(kind & 3)])
            requests[index].offset += count
            requests[index].number += 1
            let offset = kind & 0x10 != 0 ? UInt32(script.word16()) : request.offset
            return (
                .readyToTransfer(
                    lun: request.header.lun, tag: tag, targetTransferTag: request.number, r2tSN: request.number,
                    bufferOffset: offset, desiredDataTransferByteCount: count, numbers: numbers), [], false)
        case 4:
            requests.remove(at: index)
            return (.reject(RejectReason(rawValue: script.byte() & 0x0F), numbers: numbers), request.header.wireBytes, true)
        case 5:
            requests.remove(at: index)
            let sense = SenseData(key: .unitAttention, additional: AdditionalSense(0x29, 0)).encode()
            return (
                .scsiResponse(tag: tag, status: .checkCondition, residual: .underflow(script.word32()), numbers: numbers),
                [0, UInt8(sense.count)] + sense, true)
        case 6:
            // Without forgetting it: an answer given twice.
            return (.scsiResponse(tag: tag, response: SCSIServiceResponse(rawValue: script.byte() & 1), status: .good, numbers: numbers), script.bytes(script.below(8)), true)
        default:
            requests.remove(at: index)
            return (.scsiResponse(tag: tag, status: .good, numbers: numbers), [], true)
        }
    }
}

@Sendable
func initiatorSeeds() -> [[UInt8]] {
    // Submit a read or write (0, kind), take it (5), answer it (7, kind, which), deliver (19).
    let read: [UInt8] = [0, 0x11, 5, 7, 0x03, 0, 7, 0x08, 0, 19]
    let write: [UInt8] = [0, 0x12, 5, 7, 0x01, 0, 19, 5, 7, 0x07, 0, 19]
    let abort: [UInt8] = [0, 0x12, 0, 0x11, 23, 3, 0, 5, 7, 0, 2, 19]
    let text: [UInt8] = [27, 5, 7, 0, 0, 1, 19, 5, 7, 1, 0, 1, 19, 26, 5, 7, 1, 0, 1, 19]
    let detached: [UInt8] = [0, 0x12, 1, 0x12, 0x45, 60, 22, 0, 5, 7, 0x07, 0, 19, 22, 0, 5, 7, 0x07, 0, 19]
    let second: [UInt8] = [29, 0x80, 0x11, 0x85, 0x87, 0x03, 0, 0x91, 9, 0x93]
    let ending: [UInt8] = [0x5C, 5, 7, 0, 0, 19]
    let pings: [UInt8] = [25, 5, 7, 0, 0, 19, 21, 0xFF, 1, 21, 0xFF, 3, 21, 0xFF, 3]
    var seeds: [[UInt8]] = []
    for flags in [0x00, 0x03, 0x04, 0x0C, 0x10, 0x20, 0x23] as [UInt8] {
        for sizes in [0x01, 0x16, 0x6B] as [UInt8] {
            seeds.append([flags, sizes] + read + write + abort + text + pings + ending)
            seeds.append([flags, sizes] + detached + second + write + read + read)
        }
    }
    seeds.append([0x40, 0x02] + text + text + ending)
    seeds.append([0x80, 0x02, 5, 7, 0, 0, 0x87, 1, 0, 19] + read)
    return seeds
}
