import SCSI

// SCSI Command and Data-Out in, R2T out (RFC 7143 sections 4.2.5.2, 11.3, 11.7, 11.8).
extension TargetConnection {
    // MARK: commands

    func commandHeaderArrived() {
        let header = decoder.header
        guard let session, session.isNormal else {
            discardData()
            incoming = .ignored
            return reject(.protocolError, header)
        }
        switch session.accept(header, on: self) {
        case .ignored:
            discardData()
            incoming = .ignored
        case .rejected(let reason):
            discardData()
            if reason == .immediateCommandReject {
                incoming = .ignored
                reject(reason, header)
            } else {
                violation(reason, header)
            }
        case .slot(let slot):
            if let reason = prepareData(slot, header) {
                discardData()
                violation(reason, header)
            } else {
                incoming = .command(slot)
            }
        }
    }

    /// Memory for the data-out, and where immediate data goes. A reason: the command may not be so.
    private func prepareData(_ slot: Int, _ header: BasicHeaderSegment) -> RejectReason? {
        guard let session else { return .protocolError }
        let task = session.tasks + slot
        let immediate = header.dataSegmentByteCount
        guard task.pointee.isWrite else { return immediate > 0 ? .invalidPDUField : nil }
        let expected = Int(header.expectedDataTransferByteCount)
        let isOpen = !header.isFinal
        if immediate > 0, !parameters.immediateData { return .protocolError }
        if immediate > min(expected, parameters.firstBurstByteCount) { return .protocolError }
        if isOpen, parameters.initialR2T { return .protocolError }
        let wanted = min(expected, service.settings.maximumTransferByteCount)
        if wanted > 0 {
            if let buffer = service.pool.allocate(byteCount: wanted) {
                task.pointee.buffer = buffer
                task.pointee.wantedByteCount = UInt32(wanted)
            } else {
                task.pointee.isStarved = true
            }
        }
        task.pointee.expectsUnsolicited = isOpen
        task.pointee.unsolicitedEnd = UInt32(min(expected, parameters.firstBurstByteCount))
        task.pointee.unsolicitedOffset = UInt32(immediate)
        guard immediate > 0 else { return nil }
        if let base = task.pointee.buffer.base, immediate <= wanted {
            decoder.place(into: UnsafeMutableRawBufferPointer(start: base, count: immediate))
        } else {
            decoder.discard()
        }
        return nil
    }

    func commandArrived(_ slot: Int) {
        guard let session else { return }
        session.tasks[slot].receivedByteCount = session.tasks[slot].isStarved ? 0 : session.tasks[slot].unsolicitedOffset
        solicit(slot)
        session.commandArrived(slot)
    }

    // MARK: Data-Out

    func dataOutHeaderArrived() {
        let header = decoder.header
        guard let session else { return }
        if header.targetTransferTag == BasicHeaderSegment.reservedTag {
            unsolicitedHeaderArrived(header, session)
        } else {
            solicitedHeaderArrived(header, session)
        }
    }

    private func unsolicitedHeaderArrived(_ header: BasicHeaderSegment, _ session: TargetSession) {
        guard let slot = session.slot(ofTag: header.initiatorTaskTag), session.tasks[slot].connection == key else {
            // For a command that was aborted or ignored, or whose tag another connection uses by now.
            return ignoreData()
        }
        let task = session.tasks + slot
        let isExpected = task.pointee.state == .receiving && task.pointee.expectsUnsolicited
        guard isExpected else {
            // A command that is sent again has its data with it.
            return recoveryLevel > 0 ? ignoreData() : refuseData(slot, header, isExpected: task.pointee.expectsUnsolicited)
        }
        let isNext = header.bufferOffset == task.pointee.unsolicitedOffset && header.dataSN == task.pointee.unsolicitedDataSN
        let end = UInt64(header.bufferOffset) + UInt64(header.dataSegmentByteCount)
        guard end <= UInt64(task.pointee.unsolicitedEnd), isNext || recoveryLevel > 0 else {
            return refuseData(slot, header, isExpected: true)
        }
        guard isNext, !task.pointee.isUnsolicitedDamaged else { return skipData(slot, -1) }
        place(header, slot, task.pointee.buffer)
        incoming = .dataOut(slot: slot, transfer: -1)
    }

    private func solicitedHeaderArrived(_ header: BasicHeaderSegment, _ session: TargetSession) {
        let tag = header.targetTransferTag
        let slot = Int(tag >> 4 & 0xFFFF)
        let transfer = Int(tag & 0x7)
        guard slot < session.usedCapacity, session.tasks[slot].state == .receiving,
            UInt32(session.tasks[slot].generation & 0x7FF) == tag >> 20,
            session.tasks[slot].initiatorTaskTag == header.initiatorTaskTag,
            session.tasks[slot].connection == key, session.tasks[slot].transfers[transfer].isSecondTag == (tag & 0x8 != 0)
        else {
            // An answer to an R2T of a command that was aborted since, or that was asked for again since.
            return ignoreData()
        }
        let burst = session.tasks[slot].transfers[transfer]
        let isNext = burst.isActive && header.bufferOffset == burst.offset + burst.received && header.dataSN == burst.nextDataSN
        if !burst.isActive, recoveryLevel > 0 { return ignoreData() }
        let end = UInt64(header.bufferOffset) + UInt64(header.dataSegmentByteCount)
        guard isNext || recoveryLevel > 0, header.bufferOffset >= burst.offset,
            end <= UInt64(burst.offset) + UInt64(burst.byteCount)
        else {
            return refuseData(slot, header, isExpected: true)
        }
        guard isNext, !burst.isDamaged else { return skipData(slot, transfer) }
        place(header, slot, session.tasks[slot].buffer)
        incoming = .dataOut(slot: slot, transfer: transfer)
    }

    private func ignoreData() {
        discardData()
        incoming = .ignored
    }

    /// Level 1: out of sequence, because something before it was lost.
    private func skipData(_ slot: Int, _ transfer: Int) {
        discardData()
        incoming = .lostDataOut(slot: slot, transfer: transfer)
    }

    private func refuseData(_ slot: Int, _ header: BasicHeaderSegment, isExpected: Bool) {
        ignoreData()
        // Unexpected unsolicited data, or an incorrect amount of data.
        session?.fail(slot, additional: AdditionalSense(0x0C, isExpected ? 0x0D : 0x0C))
    }

    /// Offsets were checked against what was asked for, which lies in the buffer.
    private func place(_ header: BasicHeaderSegment, _ slot: Int, _ buffer: TargetBuffer) {
        let count = header.dataSegmentByteCount
        guard count > 0 else { return }
        guard let base = buffer.base, Int(header.bufferOffset) + count <= buffer.capacity else { return decoder.discard() }
        decoder.place(into: UnsafeMutableRawBufferPointer(start: base + Int(header.bufferOffset), count: count))
    }

    func dataOutArrived(_ slot: Int, _ transfer: Int) {
        guard let session else { return }
        let task = session.tasks + slot
        let header = decoder.header
        let count = UInt32(header.dataSegmentByteCount)
        if !task.pointee.isStarved { task.pointee.receivedByteCount += count }
        if transfer < 0 {
            task.pointee.unsolicitedOffset += count
            task.pointee.unsolicitedDataSN &+= 1
            task.pointee.isUnsolicitedWatched = false
            guard header.isFinal || task.pointee.unsolicitedOffset == task.pointee.unsolicitedEnd else { return }
            task.pointee.expectsUnsolicited = false
        } else {
            task.pointee.transfers[transfer].received += count
            task.pointee.transfers[transfer].nextDataSN &+= 1
            task.pointee.transfers[transfer].isWatched = false
            let isComplete =
                task.pointee.transfers[transfer].received == task.pointee.transfers[transfer].byteCount
            guard isComplete else {
                guard header.isFinal else { return }
                // The burst was said to be over before all that was asked for came.
                if recoveryLevel > 0 { return requestAgain(slot, transfer) }
                return session.fail(slot, additional: AdditionalSense(0x0C, 0x0D))
            }
            task.pointee.transfers[transfer].isActive = false
            task.pointee.outstandingR2T -= 1
        }
        solicit(slot)
        session.executeIfComplete(slot)
    }

    // MARK: R2T

    /// Asks for what is missing, in bursts, as many at a time as was agreed.
    func solicit(_ slot: Int) {
        guard let session else { return }
        let task = session.tasks + slot
        guard !task.pointee.expectsUnsolicited, !task.pointee.isStarved else { return }
        if task.pointee.nextR2TSN == 0, task.pointee.outstandingR2T == 0 {
            task.pointee.nextR2TOffset = task.pointee.unsolicitedOffset
        }
        let limit = min(parameters.maxOutstandingR2T, 8)
        while task.pointee.nextR2TOffset < task.pointee.wantedByteCount, task.pointee.outstandingR2T < limit {
            guard let transfer = (0..<8).first(where: { !task.pointee.transfers[$0].isActive }) else { return }
            let count = min(
                UInt32(parameters.maxBurstByteCount), task.pointee.wantedByteCount - task.pointee.nextR2TOffset)
            let isSecondTag = task.pointee.transfers[transfer].isSecondTag
            task.pointee.transfers[transfer] = TargetR2T(
                offset: task.pointee.nextR2TOffset, byteCount: count, r2tSN: task.pointee.nextR2TSN, isActive: true,
                isSecondTag: isSecondTag)
            task.pointee.outstandingR2T += 1
            task.pointee.nextR2TSN &+= 1
            task.pointee.nextR2TOffset += count
            sendR2T(slot, transfer)
        }
    }

    /// Of a transfer that is under way: all that was asked for, whatever came of it.
    func sendR2T(_ slot: Int, _ transfer: Int) {
        guard let session else { return }
        let task = session.tasks + slot
        let burst = task.pointee.transfers[transfer]
        let tag = UInt32(task.pointee.generation & 0x7FF) << 20 | UInt32(slot) << 4 | (burst.isSecondTag ? 8 : 0) | UInt32(transfer)
        send(
            .readyToTransfer(
                lun: task.pointee.lun, tag: task.pointee.initiatorTaskTag, targetTransferTag: tag, r2tSN: burst.r2tSN,
                bufferOffset: burst.offset, desiredDataTransferByteCount: burst.byteCount, numbers: numbers()))
    }
}
