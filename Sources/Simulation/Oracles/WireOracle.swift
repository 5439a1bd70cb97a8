import ISCSI

/// Holds the initiator to the rules of RFC 7143 on the wire: CmdSN and its window (section 4.2.2.1), tags,
/// bursts and R2Ts (sections 4.2.5 and 11.7). It knows nothing of either implementation but its bytes.
final class WireOracle: WireObserver {
    private let verdict: Verdict
    private var wires: [UInt64: Wire] = [:]
    private(set) var pduCount = 0

    init(verdict: Verdict) { self.verdict = verdict }

    private final class Wire {
        var initiator = PDUFramer()
        var target = PDUFramer()
        var isFullFeature = false
        var isBlind = false
        var keys: [String: String] = [:]
        var nextCmdSN: UInt32 = 0
        var maxCmdSN: UInt32 = 0
        var tasks: [UInt32: Task] = [:]
        var headerDigest: Bool { keys["HeaderDigest"] == "CRC32C" }
        var dataDigest: Bool { keys["DataDigest"] == "CRC32C" }
        func number(_ key: String, default value: Int) -> Int { keys[key].flatMap { Int($0) } ?? value }
        var targetSegment: Int { number("target.MaxRecvDataSegmentLength", default: 8192) }
        var firstBurst: Int { number("FirstBurstLength", default: 65_536) }
        var wantsR2T: Bool { keys["InitialR2T"] != "No" }
        var takesImmediate: Bool { keys["ImmediateData"] != "No" }
    }

    private struct Task {
        var isWrite: Bool
        var byteCount: Int
        /// Sent without being asked for, and where it goes on.
        var unsolicited: Int
        var unsolicitedIsOpen: Bool
        var unsolicitedDataSN: UInt32 = 0
        var requests: [Request] = []
    }

    private struct Request {
        var tag: UInt32
        var offset: Int
        var end: Int
        var dataSN: UInt32 = 0
    }

    func corrupted(_ endpoint: Endpoint) {
        let client = endpoint.direction == Link.toTarget ? endpoint : endpoint.peer
        if let client { wire(client).isBlind = true }
    }

    private func wire(_ endpoint: Endpoint) -> Wire {
        if let wire = wires[endpoint.id] { return wire }
        let wire = Wire()
        wires[endpoint.id] = wire
        return wire
    }

    // MARK: The initiator's

    func sent(_ bytes: UnsafeRawBufferPointer, by endpoint: Endpoint) {
        let wire = wire(endpoint)
        guard !wire.isBlind else { return }
        wire.initiator.feed(bytes, began: { _, _ in }) { [self] header, data in
            pduCount += 1
            sent(header, data, wire, endpoint)
            // The last login request has no digest, what follows its answer has.
            return nil
        }
    }

    private func sent(_ header: BasicHeaderSegment, _ data: [UInt8], _ wire: Wire, _ endpoint: Endpoint) {
        if header.opcode == .loginRequest {
            learn(data, "initiator.", wire, isAnswer: false)
            wire.nextCmdSN = header.cmdSN
            wire.maxCmdSN = header.cmdSN
            return
        }
        guard wire.isFullFeature else { return fail(endpoint, "\(header.opcode) before full-feature phase") }
        if data.count > wire.targetSegment {
            fail(endpoint, "a data segment of \(data.count) bytes where the target takes \(wire.targetSegment)")
        }
        switch header.opcode {
        case .dataOut: return dataOut(header, data.count, wire, endpoint)
        case .nopOut where header.initiatorTaskTag == BasicHeaderSegment.reservedTag: break
        default: break
        }
        checkCmdSN(header, wire, endpoint)
        if header.opcode == .scsiCommand { command(header, data.count, wire, endpoint) }
    }

    private func checkCmdSN(_ header: BasicHeaderSegment, _ wire: Wire, _ endpoint: Endpoint) {
        guard header.cmdSN == wire.nextCmdSN else {
            return fail(endpoint, "CmdSN \(header.cmdSN) where \(wire.nextCmdSN) is next")
        }
        guard !header.isImmediate else { return }
        if Int32(bitPattern: header.cmdSN &- wire.maxCmdSN) > 0 {
            fail(endpoint, "CmdSN \(header.cmdSN) beyond MaxCmdSN \(wire.maxCmdSN)")
        }
        wire.nextCmdSN &+= 1
    }

    private func command(_ header: BasicHeaderSegment, _ dataCount: Int, _ wire: Wire, _ endpoint: Endpoint) {
        let tag = header.initiatorTaskTag
        if wire.tasks[tag] != nil { fail(endpoint, "task tag \(tag) is in use") }
        let isWrite = header.flags & 0x20 != 0
        let expected = Int(header.expectedDataTransferByteCount)
        if dataCount > 0, !wire.takesImmediate || !isWrite { fail(endpoint, "immediate data that was not agreed on") }
        if dataCount > min(wire.firstBurst, expected) {
            fail(endpoint, "\(dataCount) bytes of immediate data; FirstBurstLength is \(wire.firstBurst), expected \(expected)")
        }
        let opens = isWrite && !header.isFinal
        if opens, wire.wantsR2T { fail(endpoint, "unsolicited data is to follow where InitialR2T is Yes") }
        wire.tasks[tag] = Task(isWrite: isWrite, byteCount: expected, unsolicited: dataCount, unsolicitedIsOpen: opens)
    }

    private func dataOut(_ header: BasicHeaderSegment, _ count: Int, _ wire: Wire, _ endpoint: Endpoint) {
        let tag = header.initiatorTaskTag
        // Its answer may have come while this was queued.
        guard var task = wire.tasks[tag] else { return }
        let offset = Int(header.bufferOffset)
        if header.targetTransferTag == BasicHeaderSegment.reservedTag {
            if !task.unsolicitedIsOpen { fail(endpoint, "unsolicited data after its last PDU") }
            if offset != task.unsolicited { fail(endpoint, "unsolicited data at \(offset), \(task.unsolicited) is next") }
            if header.dataSN != task.unsolicitedDataSN { fail(endpoint, "DataSN \(header.dataSN) of unsolicited data") }
            task.unsolicited += count
            task.unsolicitedDataSN &+= 1
            if task.unsolicited > min(wire.firstBurst, task.byteCount) {
                fail(endpoint, "\(task.unsolicited) bytes unsolicited, FirstBurstLength is \(wire.firstBurst)")
            }
            if header.isFinal { task.unsolicitedIsOpen = false }
        } else if let index = task.requests.firstIndex(where: { $0.tag == header.targetTransferTag }) {
            let request = task.requests[index]
            if offset != request.offset { fail(endpoint, "solicited data at \(offset), \(request.offset) is next") }
            if header.dataSN != request.dataSN { fail(endpoint, "DataSN \(header.dataSN), \(request.dataSN) is next") }
            if offset + count > request.end { fail(endpoint, "data up to \(offset + count), the R2T ends at \(request.end)") }
            if header.isFinal != (offset + count == request.end) { fail(endpoint, "F bit at \(offset + count) of an R2T to \(request.end)") }
            task.requests[index].offset += count
            task.requests[index].dataSN &+= 1
            if header.isFinal { task.requests.remove(at: index) }
        } else {
            fail(endpoint, "data for transfer tag \(header.targetTransferTag), which no R2T gave")
        }
        wire.tasks[tag] = task
    }

    // MARK: The target's

    func received(_ bytes: UnsafeRawBufferPointer, by endpoint: Endpoint) {
        let wire = wire(endpoint)
        guard !wire.isBlind else { return }
        wire.target.feed(bytes, began: { _, _ in }) { [self] header, data in received(header, data, wire) }
    }

    private func received(_ header: BasicHeaderSegment, _ data: [UInt8], _ wire: Wire) -> (header: Bool, data: Bool)? {
        let maximum = header.maxCmdSN
        if Int32(bitPattern: maximum &- wire.maxCmdSN) > 0 { wire.maxCmdSN = maximum }
        let tag = header.initiatorTaskTag
        switch header.opcode {
        case .loginResponse:
            learn(data, "target.", wire, isAnswer: true)
            // T, and the next stage is full-feature phase.
            guard header.flags & 0x83 == 0x83, header[byte: 36] == 0 else { return nil }
            wire.isFullFeature = true
            wire.initiator.hasHeaderDigest = wire.headerDigest
            wire.initiator.hasDataDigest = wire.dataDigest
            return (wire.headerDigest, wire.dataDigest)
        case .scsiResponse: wire.tasks[tag] = nil
        // What was aborted is not answered; its tags are free.
        case .taskManagementResponse: wire.tasks.removeAll()
        case .dataIn where header.flags & 0x01 != 0: wire.tasks[tag] = nil
        case .readyToTransfer:
            let offset = Int(header.bufferOffset)
            let end = offset + Int(header.desiredDataTransferByteCount)
            wire.tasks[tag]?.requests.append(Request(tag: header.targetTransferTag, offset: offset, end: end))
        default: break
        }
        return nil
    }

    private func learn(_ data: [UInt8], _ side: String, _ wire: Wire, isAnswer: Bool) {
        for pair in data.split(separator: 0) {
            let text = String(decoding: pair, as: UTF8.self)
            guard let equals = text.firstIndex(of: "=") else { continue }
            let key = String(text[..<equals])
            let value = String(text[text.index(after: equals)...])
            wire.keys[side + key] = value
            // The answer carries the result; what the target itself offers is answered the same way.
            if isAnswer || wire.keys["target." + key] != nil { wire.keys[key] = value }
        }
    }

    private func fail(_ endpoint: Endpoint, _ words: @autoclosure () -> String) {
        verdict.fail(.wire, "connection \(endpoint.id) on path \(endpoint.link.index): \(words())")
    }
}
