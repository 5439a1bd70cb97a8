import SCSI

// What goes out: control PDUs as they arise, results of commands only as far as there is room for them, so
// that a peer that does not read cannot make the queue grow.
extension TargetConnection {
    // MARK: for the owner of the socket

    /// Something is there to be sent.
    public var needsToSend: Bool {
        !output.isEmpty || (endReason == nil && (firstResponding != nil || !managementResponses.isEmpty || !resends.isEmpty))
    }

    /// So much waits to be sent that no more input should be taken until some of it went.
    public var isCongested: Bool {
        output.isCongested || managementResponses.count > Self.managementResponseReserve || resends.count >= Self.resendLimit
    }

    /// Answers to task management that may wait before no more input is taken.
    private static let managementResponseReserve = 1024

    /// Names what to send next; it stays where it is until ``sent(byteCount:)``.
    public func output(into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        fill()
        return output.segments(into: segments)
    }

    public func sent(byteCount: Int) { output.sent(byteCount) }

    /// After a graceful end: all of it went out.
    public var isDrained: Bool { output.isEmpty }

    // MARK: numbers

    /// For a PDU that uses no StatSN up.
    @inline(__always)
    func numbers() -> ResponseNumbers {
        guard let session else { return ResponseNumbers(statSN: statSN, expCmdSN: 0, maxCmdSN: 0) }
        let window = session.windowNumbers()
        return ResponseNumbers(statSN: statSN, expCmdSN: window.expCmdSN, maxCmdSN: window.maxCmdSN)
    }

    @inline(__always)
    func numbersWithStatus() -> ResponseNumbers {
        defer { statSN &+= 1 }
        return numbers()
    }

    // MARK: control PDUs

    /// A PDU of a login: whole, and without digests.
    func send(_ pdu: PDU) {
        pdu.data.withUnsafeBytes { send(pdu.header, $0) }
    }

    /// The data is copied. Where there is no room for it the peer has made us owe more than it takes: the
    /// connection ends.
    func send(_ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer = .init(start: nil, count: 0)) {
        if let retention, header.usesStatSN { retention.keep(header, data) }
        write(header, data)
    }

    /// Without keeping it for another time.
    func write(_ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer = .init(start: nil, count: 0)) {
        var outgoing = OutgoingHeader(header)
        outgoing.seal(with: headerDigest)
        let trailer = OutgoingTrailer(data: data, crc32c: dataDigest)
        let headerByteCount = Int(outgoing.byteCount)
        guard let place = output.reserve(headerByteCount + data.count + Int(trailer.byteCount)) else {
            return end(.overflow)
        }
        _ = outgoing.store(to: place)
        spoil(place, headerByteCount)
        if let base = data.baseAddress { (place + headerByteCount).copyMemory(from: base, byteCount: data.count) }
        _ = trailer.store(to: place + headerByteCount + data.count)
        if data.count > 0 { spoilData(place + headerByteCount + data.count, Int(trailer.byteCount)) }
    }

    // MARK: faults

    /// The header digest is the last word of a header that is ready to be sent.
    @inline(__always)
    private func spoil(_ header: UnsafeMutableRawPointer, _ byteCount: Int) {
        guard headerDigestsToSpoil > 0, headerDigest != nil else { return }
        headerDigestsToSpoil -= 1
        flip(header + byteCount - 1)
    }

    /// The data digest is the last word behind the data and its padding.
    @inline(__always)
    private func spoilData(_ trailer: UnsafeMutableRawPointer, _ byteCount: Int) {
        guard dataDigestsToSpoil > 0, dataDigest != nil else { return }
        dataDigestsToSpoil -= 1
        flip(trailer + byteCount - 1)
    }

    private func flip(_ byte: UnsafeMutableRawPointer) {
        byte.storeBytes(of: byte.load(as: UInt8.self) ^ 0xFF, as: UInt8.self)
    }

    private var headerDigest: CRC32CFunction? {
        isFullFeature && parameters.headerDigest == .crc32c ? service.crc32c : nil
    }

    private var dataDigest: CRC32CFunction? {
        isFullFeature && parameters.dataDigest == .crc32c ? service.crc32c : nil
    }

    // MARK: results of commands

    func fill() {
        guard endReason == nil, let session else { return }
        if !resends.isEmpty { resend() }
        while let slot = firstResponding, output.hasRoom, endReason == nil {
            guard sendNext(slot, session), endReason == nil else { continue }
            dequeueResponse()
            session.free(slot)
            sentResults &+= 1
        }
        if !session.fences.isEmpty { session.checkFences() }
        guard firstResponding == nil, !managementResponses.isEmpty, endReason == nil else { return }
        for answer in managementResponses {
            send(.taskManagementResponse(answer.response, tag: answer.tag, numbers: numbersWithStatus()))
        }
        managementResponses.removeAll(keepingCapacity: true)
    }

    /// One PDU of a task's result; true when it was the last.
    private func sendNext(_ slot: Int, _ session: TargetSession) -> Bool {
        let task = session.tasks + slot
        let remaining = task.pointee.dataByteCount - task.pointee.sentByteCount
        guard remaining > 0 else {
            sendStatus(task)
            return true
        }
        task.pointee.fit(to: UInt32(parameters.maxSendDataSegmentByteCount))
        let burstLeft = UInt32(parameters.maxBurstByteCount) - task.pointee.burstByteCount
        let count = min(remaining, burstLeft, task.pointee.segmentByteCount)
        let offset = task.pointee.sentByteCount
        let isLast = count == remaining
        // Only GOOD comes with its last data (section 11.7.3 allows no sense there).
        let withStatus = isLast && task.pointee.status == .good && task.pointee.snackTag == 0
        let endsBurst = isLast || count == burstLeft
        var header: BasicHeaderSegment =
            withStatus
            ? .dataIn(
                tag: task.pointee.initiatorTaskTag, status: .good, residual: task.pointee.residual,
                dataSN: task.pointee.dataSN, bufferOffset: offset, byteCount: Int(count), numbers: numbersWithStatus())
            : .dataIn(
                tag: task.pointee.initiatorTaskTag, flags: endsBurst ? [.final] : [], dataSN: task.pointee.dataSN,
                bufferOffset: offset, byteCount: Int(count), numbers: numbers())
        task.pointee.dataSN &+= 1
        task.pointee.sentByteCount += count
        task.pointee.burstByteCount = endsBurst ? 0 : task.pointee.burstByteCount + count
        let data = UnsafeRawBufferPointer(rebasing: task.pointee.data[Int(offset)..<Int(offset + count)])
        guard let retention else {
            var buffer = TargetBuffer.none
            if isLast {
                buffer = task.pointee.dataBuffer
                task.pointee.dataBuffer = .none
            }
            sendData(header, data, buffer)
            return withStatus
        }
        if endsBurst, !isLast { header.askForAcknowledgement(task.pointee.lun, task.pointee.dataTag(slot)) }
        sendData(header, data, isLast ? service.pool.share(task.pointee.dataBuffer) : .none)
        if withStatus, endReason == nil { retention.keep(header, task, dataTag: task.pointee.dataTag(slot), burst: parameters.maxBurstByteCount) }
        return withStatus
    }

    func sendData(_ header: BasicHeaderSegment, _ data: UnsafeRawBufferPointer, _ buffer: TargetBuffer) {
        var outgoing = OutgoingHeader(header)
        outgoing.seal(with: headerDigest)
        // `hasRoom` keeps a reserve: neither can fail here.
        guard let place = output.reserve(Int(outgoing.byteCount)) else {
            service.pool.release(buffer)
            return end(.overflow)
        }
        _ = outgoing.store(to: place)
        spoil(place, Int(outgoing.byteCount))
        let trailer = OutgoingTrailer(data: data, crc32c: dataDigest)
        output.appendData(data, buffer: buffer)
        guard trailer.byteCount > 0 else { return }
        guard let behind = output.reserve(Int(trailer.byteCount)) else { return end(.overflow) }
        _ = trailer.store(to: behind)
        spoilData(behind, Int(trailer.byteCount))
    }

    /// A SCSI Response (section 11.4); sense data goes behind its length.
    private func sendStatus(_ task: UnsafeMutablePointer<TargetTask>) {
        let sense = task.pointee.senseSegment
        let header = BasicHeaderSegment.scsiResponse(
            tag: task.pointee.initiatorTaskTag, status: task.pointee.status, residual: task.pointee.residual,
            expDataSN: task.pointee.dataSN &+ task.pointee.nextR2TSN, snackTag: task.pointee.snackTag,
            dataByteCount: sense.count, numbers: numbersWithStatus())
        sense.withUnsafeBytes { write(header, $0) }
        if let retention, let session, endReason == nil {
            let slot = task - session.tasks
            retention.keep(header, task, dataTag: task.pointee.dataTag(slot), burst: parameters.maxBurstByteCount)
        }
    }
}
