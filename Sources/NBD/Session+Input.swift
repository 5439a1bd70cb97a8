extension Session {
    // MARK: from the socket

    /// Where the next bytes belong: the rest of a payload; empty where a header is due.
    public var inputWindow: UnsafeMutableRawBufferPointer {
        guard case .payload(let slot, let placed) = phase, let request = table?[slot], let buffer = request.pointee.buffer else {
            return UnsafeMutableRawBufferPointer(start: nil, count: 0)
        }
        return UnsafeMutableRawBufferPointer(start: buffer.base + placed, count: request.pointee.byteCount - placed)
    }

    /// Takes bytes: so many that were placed in ``inputWindow``, then those of `spill`, which are copied as far as they
    /// are kept. Bytes that come while ``isCongested`` are kept as well: whoever reads the socket stops soon.
    public mutating func received(placedByteCount: Int, spill: UnsafeRawBufferPointer) {
        if placedByteCount > 0, case .payload(let slot, let placed) = phase {
            payloadGrew(slot, to: placed + placedByteCount)
        }
        guard !spill.isEmpty, endReason == nil else { return }
        if backlogStart < backlog.count {
            backlog.append(contentsOf: spill)
            return proceed()
        }
        let used = consume(spill)
        if used < spill.count, endReason == nil { backlog.append(contentsOf: spill[used...]) }
    }

    /// Goes on with what had to wait, as far as there is room now. To be called when a request was completed, when
    /// output was sent, and when the pool has memory again.
    /// - Parameter hasWaited: it is this session's turn to get memory, before those that did not wait.
    public mutating func proceed(hasWaited: Bool = false) {
        if case .memory(let slot) = phase { giveMemory(slot, hasWaited: hasWaited) }
        guard backlogStart < backlog.count, !isStalled, endReason == nil else { return }
        var bytes: [UInt8] = []
        swap(&bytes, &backlog)
        let used = bytes.withUnsafeBytes { consume(UnsafeRawBufferPointer(rebasing: $0[backlogStart...])) }
        guard endReason == nil else { return }
        backlogStart += used
        if backlogStart < bytes.count {
            swap(&bytes, &backlog)
        } else {
            backlogStart = 0
            bytes.removeAll(keepingCapacity: bytes.count <= 4096)
            swap(&bytes, &backlog)
        }
    }

    var isStalled: Bool {
        switch phase {
        case .memory: true
        case .request: table?.hasFreeSlot == false
        case .optionHeader: optionReplyByteCount > Self.optionReplyLimit
        default: false
        }
    }

    // MARK: parsing

    /// Takes bytes from the front until they end or there is no room for more; how many it took.
    private mutating func consume(_ bytes: UnsafeRawBufferPointer) -> Int {
        var rest = bytes
        while !rest.isEmpty, !isStalled {
            switch phase {
            case .clientFlags:
                guard let header = gather(4, from: &rest) else { break }
                let flags = HandshakeFlags(rawValue: header.bigEndian(UInt32.self, at: 0))
                if negotiation.received(flags) { phase = .optionHeader } else { end(.violation(.unknownHandshakeFlags)) }
            case .optionHeader:
                guard let header = gather(16, from: &rest) else { break }
                optionBegan(header)
            case .optionData(let option, let count):
                let part = take(count - optionData.count, from: &rest)
                optionData.append(contentsOf: part)
                if optionData.count == count { optionEnded(option) }
            case .skippedOption(let option, let count):
                let left = count - take(count, from: &rest).count
                phase = .skippedOption(option, byteCount: left)
                if left == 0 { perform(negotiation.refuseTooBig(option)) }
            case .startingTLS: end(.violation(.dataBehindStartTLS))
            case .request:
                guard let header = gather(Self.requestHeaderByteCount, from: &rest) else { break }
                requestBegan(header)
            case .payload(let slot, let placed):
                let request = table![slot].pointee
                let part = take(request.byteCount - placed, from: &rest)
                (request.buffer!.base + placed).copyMemory(from: part.baseAddress!, byteCount: part.count)
                payloadGrew(slot, to: placed + part.count)
            case .skippedPayload(let slot, let count):
                let left = count - take(count, from: &rest).count
                phase = .skippedPayload(slot: slot, byteCount: left)
                if left == 0 { payloadSkipped(slot) }
            case .memory: return bytes.count - rest.count
            case .ended: return bytes.count
            }
        }
        return bytes.count - rest.count
    }

    /// The next `count` bytes in one piece, nil where they are not all there yet. Valid until the next call.
    @inline(__always)
    private mutating func gather(_ count: Int, from rest: inout UnsafeRawBufferPointer) -> UnsafeRawPointer? {
        if scratchCount == 0, rest.count >= count { return take(count, from: &rest).baseAddress }
        let part = take(count - scratchCount, from: &rest)
        (scratch + scratchCount).copyMemory(from: part.baseAddress!, byteCount: part.count)
        scratchCount += part.count
        guard scratchCount == count else { return nil }
        scratchCount = 0
        return UnsafeRawPointer(scratch)
    }

    /// At most `count` bytes off the front.
    @inline(__always)
    private func take(_ count: Int, from rest: inout UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        let part = UnsafeRawBufferPointer(rebasing: rest.prefix(count))
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(part.count))
        return part
    }

    // MARK: options

    private mutating func optionBegan(_ header: UnsafeRawPointer) {
        guard header.bigEndian(UInt64.self, at: 0) == Magic.option else { return end(.violation(.optionMagic)) }
        let option = OptionCode(rawValue: header.bigEndian(UInt32.self, at: 8))
        let count = Int(header.bigEndian(UInt32.self, at: 12))
        optionData.removeAll(keepingCapacity: true)
        switch count {
        case 0: optionEnded(option)
        case ...Self.optionDataLimit: phase = .optionData(option, byteCount: count)
        case ...Self.skippedOptionLimit: phase = .skippedOption(option, byteCount: count)
        default: end(.violation(.optionTooBig))
        }
    }

    private mutating func optionEnded(_ option: OptionCode) {
        perform(negotiation.received(option, data: optionData))
        optionData.removeAll(keepingCapacity: true)
    }

    private mutating func perform(_ outcome: Negotiation.Outcome) {
        switch outcome {
        case .reply(let bytes):
            appendOptionReply(bytes)
            phase = .optionHeader
        case .transmit(let export, let bytes):
            appendOptionReply(bytes)
            self.export = export
            shape = export.shape
            table = RequestTable(capacity: limits.requestCount)
            negotiation.exports = []
            optionData = []
            phase = .request
        case .startTLS(let bytes):
            appendOptionReply(bytes)
            phase = .startingTLS
        case .end(let reason, let bytes):
            if !bytes.isEmpty { appendOptionReply(bytes) }
            end(reason)
        }
    }

    mutating func appendOptionReply(_ bytes: [UInt8]) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        memory.copyBytes(from: bytes)
        optionReplies.append(memory)
        optionReplyByteCount += bytes.count
    }
}
