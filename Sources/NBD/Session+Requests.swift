extension Session {
    // MARK: from the client

    mutating func requestBegan(_ header: UnsafeRawPointer) {
        guard header.bigEndian(UInt32.self, at: 0) == Magic.request else { return end(.violation(.requestMagic)) }
        let command = CommandCode(rawValue: header.bigEndian(UInt16.self, at: 6))
        guard command != .disconnect else { return end(.disconnected) }
        let slot = table!.take()
        let request = table![slot]
        request.pointee.command = command
        request.pointee.flags = CommandFlags(rawValue: header.bigEndian(UInt16.self, at: 4))
        request.pointee.cookie = header.bigEndian(UInt64.self, at: 8)
        request.pointee.offset = header.bigEndian(UInt64.self, at: 16)
        request.pointee.byteCount = Int(header.bigEndian(UInt32.self, at: 24))

        if let error = refusal(of: request.pointee) {
            // What follows a WRITE is its payload, right or wrong; nothing else has one.
            if command == .write, request.pointee.byteCount > 0 {
                request.pointee.refusal = error
                phase = .skippedPayload(slot: slot, byteCount: request.pointee.byteCount)
            } else {
                reply(slot, error)
            }
            return
        }
        switch command {
        case .flush: begin(slot)
        case _ where request.pointee.byteCount == 0: reply(slot, nil)
        case .read, .write: giveMemory(slot, hasWaited: false)
        case .cache:
            request.pointee.byteCount = min(request.pointee.byteCount, shape.largestCacheByteCount)
            giveMemory(slot, hasWaited: false)
        default: begin(slot)
        }
    }

    /// Why a request cannot be what it is; nil where the disk may have it.
    private func refusal(of request: RequestSlot) -> ReplyError? {
        let features = shape.features
        let allowed: CommandFlags
        switch request.command {
        case .read: allowed = negotiation.usesStructuredReplies ? [.forceUnitAccess, .dontFragment] : .forceUnitAccess
        case .write, .flush, .cache: allowed = .forceUnitAccess
        case .trim where features.contains(.trim) || features.contains(.readOnly): allowed = .forceUnitAccess
        case .writeZeroes:
            allowed = features.contains(.fastZero) ? [.forceUnitAccess, .noHole, .fastZero] : [.forceUnitAccess, .noHole]
        default: return .invalid
        }
        guard allowed.isSuperset(of: request.flags) else { return .invalid }
        if request.command == .flush { return request.offset == 0 && request.byteCount == 0 ? nil : .invalid }
        if request.command.changesBlocks, features.contains(.readOnly) { return .notPermitted }
        return rangeRefusal(of: request)
    }

    private func rangeRefusal(of request: RequestSlot) -> ReplyError? {
        let count = UInt64(request.byteCount)
        guard request.offset <= shape.byteCount, count <= shape.byteCount - request.offset else {
            return request.command == .write || request.command == .writeZeroes ? .noSpace : .invalid
        }
        guard (request.offset | count) & shape.blockMask == 0 else { return .invalid }
        if request.command == .read || request.command == .write, request.byteCount > shape.maximumPayloadByteCount {
            return request.command == .read && negotiation.usesStructuredReplies ? .overflow : .invalid
        }
        return nil
    }

    /// Memory for a request's data, or it waits, and with it what the client says next.
    mutating func giveMemory(_ slot: Int, hasWaited: Bool) {
        let request = table![slot]
        let size = BufferPool.roundedByteCount(request.pointee.byteCount)
        guard table!.lentByteCount + size <= limits.memoryByteCount,
            let buffer = pool.allocate(byteCount: request.pointee.byteCount, hasWaited: hasWaited)
        else {
            phase = .memory(slot: slot)
            return
        }
        request.pointee.buffer = buffer
        table!.lentByteCount += buffer.byteCount
        if request.pointee.command == .write {
            phase = .payload(slot: slot, placedByteCount: 0)
        } else {
            begin(slot)
            phase = .request
        }
    }

    mutating func payloadGrew(_ slot: Int, to count: Int) {
        guard count == table![slot].pointee.byteCount else {
            phase = .payload(slot: slot, placedByteCount: count)
            return
        }
        phase = .request
        begin(slot)
    }

    mutating func payloadSkipped(_ slot: Int) {
        phase = .request
        reply(slot, table![slot].pointee.refusal)
    }

    // MARK: to the disk and back

    private mutating func begin(_ slot: Int) {
        table![slot].pointee.isExecuting = true
        table!.executingCount += 1
        table!.begun.append(slot)
    }

    /// The next request for the disk, each once. It is under way until ``complete(_:_:)``.
    public mutating func nextRequest() -> Request? {
        guard let slot = table?.begun.popFirst() else { return nil }
        return request(Int(slot))
    }

    /// A request that is under way.
    public func request(_ slot: Int) -> Request {
        guard let table, table[slot].pointee.isExecuting else { preconditionFailure("no request is under way there") }
        let request = table[slot].pointee
        return Request(
            slot: slot, command: request.command, flags: request.flags, offset: request.offset,
            byteCount: request.byteCount, memory: request.buffer?.base)
    }

    /// The disk is done with a request, and with its memory.
    public mutating func complete(_ slot: Int, _ error: ReplyError?) {
        guard let request = table?[slot], request.pointee.isExecuting else {
            preconditionFailure("a request is completed once")
        }
        request.pointee.isExecuting = false
        table!.executingCount -= 1
        // Gone, and nobody to be told.
        if let endReason, !endReason.isGraceful { return free(slot) }
        if request.pointee.command != .read || error != nil { releaseBuffer(slot) }
        reply(slot, error)
    }

    // MARK: answers

    mutating func reply(_ slot: Int, _ error: ReplyError?) {
        let request = table![slot]
        let header = table!.replyHeader(slot)
        request.pointee.replyDataByteCount = error == nil && request.pointee.command == .read ? request.pointee.byteCount : 0
        if request.pointee.command == .read, negotiation.usesStructuredReplies {
            request.pointee.replyHeaderByteCount = Self.writeChunk(to: header, request.pointee, error)
        } else {
            header.storeBigEndian(Magic.simpleReply, at: 0)
            header.storeBigEndian(error?.rawValue ?? 0, at: 4)
            header.storeBigEndian(request.pointee.cookie, at: 8)
            request.pointee.replyHeaderByteCount = 16
        }
        table!.replies.append(slot)
    }

    /// The only chunk of a structured reply; its header's length, with what precedes the data.
    private static func writeChunk(to header: UnsafeMutableRawPointer, _ request: RequestSlot, _ error: ReplyError?) -> Int {
        header.storeBigEndian(Magic.structuredReply, at: 0)
        header.storeBigEndian(StructuredReplyFlags.done, at: 4)
        header.storeBigEndian(request.cookie, at: 8)
        if let error {
            header.storeBigEndian(StructuredReplyType.error, at: 6)
            header.storeBigEndian(UInt32(6), at: 16)
            header.storeBigEndian(error.rawValue, at: 20)
            // No words: the number says it all.
            header.storeBigEndian(UInt16(0), at: 24)
            return 26
        }
        guard request.replyDataByteCount > 0 else {
            header.storeBigEndian(StructuredReplyType.none, at: 6)
            header.storeBigEndian(UInt32(0), at: 16)
            return 20
        }
        header.storeBigEndian(StructuredReplyType.offsetData, at: 6)
        header.storeBigEndian(UInt32(8 + request.replyDataByteCount), at: 16)
        header.storeBigEndian(request.offset, at: 20)
        return 28
    }

    mutating func releaseBuffer(_ slot: Int) {
        guard let buffer = table![slot].pointee.buffer else { return }
        table![slot].pointee.buffer = nil
        table!.lentByteCount -= buffer.byteCount
        pool.release(buffer)
    }

    mutating func free(_ slot: Int) {
        releaseBuffer(slot)
        table!.release(slot)
    }
}
