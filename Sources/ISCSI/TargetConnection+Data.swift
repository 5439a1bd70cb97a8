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

    /// Its immediate data was damaged. It still takes its turn in CmdSN order.
    func commandSpoiled(_ slot: Int) {
        guard let session else { return }
        let isNext = !session.tasks[slot].isImmediate && session.tasks[slot].cmdSN == session.expCmdSN
        session.fail(slot, additional: .protocolServiceCRCError)
        if isNext { session.advance() }
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
        let count = UInt32(header.dataSegmentByteCount)
        guard let slot = session.slot(ofTag: header.initiatorTaskTag) else {
            // For a command that was aborted or ignored.
            discardData()
            incoming = .ignored
            return
        }
        let task = session.tasks + slot
        guard task.pointee.state == .receiving, task.pointee.expectsUnsolicited,
            task.pointee.connection == connectionID, header.bufferOffset == task.pointee.unsolicitedOffset,
            header.dataSN == task.pointee.unsolicitedDataSN,
            count <= task.pointee.unsolicitedEnd - task.pointee.unsolicitedOffset
        else {
            return refuseData(slot, header, isExpected: task.pointee.expectsUnsolicited)
        }
        place(header, slot, task.pointee.buffer)
        incoming = .dataOut(slot: slot, transfer: -1)
    }

    private func solicitedHeaderArrived(_ header: BasicHeaderSegment, _ session: TargetSession) {
        let tag = header.targetTransferTag
        let slot = Int(tag >> 4 & 0xFFFF)
        let transfer = Int(tag & 0xF)
        guard slot < session.capacity, transfer < 8, session.tasks[slot].state == .receiving,
            UInt32(session.tasks[slot].generation & 0x7FF) == tag >> 20,
            session.tasks[slot].initiatorTaskTag == header.initiatorTaskTag,
            session.tasks[slot].connection == connectionID
        else {
            // An answer to an R2T of a command that was aborted since.
            discardData()
            incoming = .ignored
            return
        }
        let burst = session.tasks[slot].transfers[transfer]
        guard burst.isActive, header.bufferOffset == burst.offset + burst.received, header.dataSN == burst.nextDataSN,
            header.dataSegmentByteCount <= burst.byteCount - burst.received
        else {
            return refuseData(slot, header, isExpected: true)
        }
        place(header, slot, session.tasks[slot].buffer)
        incoming = .dataOut(slot: slot, transfer: transfer)
    }

    private func refuseData(_ slot: Int, _ header: BasicHeaderSegment, isExpected: Bool) {
        discardData()
        incoming = .ignored
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
            guard header.isFinal || task.pointee.unsolicitedOffset == task.pointee.unsolicitedEnd else { return }
            task.pointee.expectsUnsolicited = false
        } else {
            task.pointee.transfers[transfer].received += count
            task.pointee.transfers[transfer].nextDataSN &+= 1
            let isComplete =
                task.pointee.transfers[transfer].received == task.pointee.transfers[transfer].byteCount
            guard isComplete else {
                // The burst was said to be over before all that was asked for came.
                if header.isFinal { session.fail(slot, additional: AdditionalSense(0x0C, 0x0D)) }
                return
            }
            task.pointee.transfers[transfer].isActive = false
            task.pointee.outstandingR2T -= 1
        }
        solicit(slot)
        session.executeIfComplete(slot)
    }

    // MARK: R2T

    /// Asks for what is missing, in bursts, as many at a time as was agreed.
    private func solicit(_ slot: Int) {
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
            task.pointee.transfers[transfer] = TargetR2T(
                offset: task.pointee.nextR2TOffset, byteCount: count, isActive: true)
            task.pointee.outstandingR2T += 1
            let tag = UInt32(task.pointee.generation & 0x7FF) << 20 | UInt32(slot) << 4 | UInt32(transfer)
            send(
                .readyToTransfer(
                    lun: task.pointee.lun, tag: task.pointee.initiatorTaskTag, targetTransferTag: tag,
                    r2tSN: task.pointee.nextR2TSN, bufferOffset: task.pointee.nextR2TOffset,
                    desiredDataTransferByteCount: count, numbers: numbers()))
            task.pointee.nextR2TSN &+= 1
            task.pointee.nextR2TOffset += count
        }
    }
}
