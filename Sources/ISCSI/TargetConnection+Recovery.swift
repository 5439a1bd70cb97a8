import SCSI

// Recovery within a connection, at level 1 and above (RFC 7143 sections 7.2.1, 7.8, 11.16).
extension TargetConnection {
    /// Requests that may wait to be served; beyond it they are rejected.
    static let resendLimit = 32
    /// Recovery R2Ts of one command.
    private static let recoveryLimit = 256

    // MARK: SNACK

    func snackArrived(_ header: BasicHeaderSegment) {
        guard resends.count < Self.resendLimit else { return reject(.snackReject, header) }
        switch header.snackType {
        case .status: statusAsked(header)
        case .dataACK: dataConfirmed(header)
        case .dataOrR2T: dataAsked(header)
        case .rData: resegmentationAsked(header)
        case nil: reject(.invalidPDUField, header)
        }
    }

    /// The numbers that a SNACK names, of those from `first` to before `end`. Others were never sent, or confirmed.
    private func run(_ header: BasicHeaderSegment, first: UInt32, end: UInt32) -> (next: UInt32, end: UInt32)? {
        if header.begRun == 0, header.runLength == 0 { return (first, end) }
        let known = end &- first
        let start = header.begRun &- first
        guard start < known, header.runLength <= known - start else { return nil }
        return (header.begRun, header.runLength == 0 ? end : header.begRun &+ header.runLength)
    }

    private func statusAsked(_ header: BasicHeaderSegment) {
        guard let run = run(header, first: acknowledgedStatSN, end: statSN) else { return reject(.protocolError, header) }
        guard run.next != run.end else { return }
        guard let record = retention?.record(statSN: run.next), !record.lacksData || record.header.opcode != .dataIn else {
            return reject(.snackReject, header)
        }
        resends.append(.status(next: run.next, end: run.end))
    }

    private func dataConfirmed(_ header: BasicHeaderSegment) {
        guard let session, header.runLength == 0 else { return reject(.invalidDataACK, header) }
        let tag = header.targetTransferTag
        let slot = Int(tag >> 4 & 0xFFFF)
        let burst = UInt32(parameters.maxBurstByteCount)
        if slot < session.usedCapacity, session.tasks[slot].state == .responding, session.tasks[slot].connection == key,
            session.tasks[slot].dataTag(slot) == tag, session.tasks[slot].lun == header.lun,
            session.tasks[slot].confirm(header.begRun, burst: burst) {
            return
        }
        guard let record = retention?.record(dataTag: tag), record.task?.lun == header.lun else {
            return reject(.invalidDataACK, header)
        }
        var isValid = false
        retention?.update(record.header.statSN) { isValid = $0.task?.confirm(header.begRun, burst: burst) ?? false }
        if !isValid { reject(.invalidDataACK, header) }
    }

    private func dataAsked(_ header: BasicHeaderSegment) {
        guard let session else { return }
        if let slot = session.slot(ofTag: header.initiatorTaskTag), session.tasks[slot].connection == key {
            let task = session.tasks[slot]
            switch task.state {
            case .receiving: return r2tAsked(header, slot)
            case .responding where task.dataSN > 0:
                return dataAsked(
                    header, task, last: nil,
                    TargetDataIn(
                        task, dataTag: task.dataTag(slot), burst: UInt32(parameters.maxBurstByteCount),
                        buffer: service.pool.share(task.dataBuffer)))
            default: return reject(.protocolError, header)
            }
        }
        guard let record = retention?.record(tag: header.initiatorTaskTag), let task = record.task, task.dataSN > 0 else {
            return reject(.protocolError, header)
        }
        dataAsked(
            header, task, last: record.header.opcode == .dataIn ? record.header : nil,
            TargetDataIn(task, dataTag: record.dataTag, burst: record.burst, buffer: service.pool.share(task.dataBuffer)))
    }

    private func dataAsked(
        _ header: BasicHeaderSegment, _ task: TargetTask, last: BasicHeaderSegment?, _ transfer: TargetDataIn
    ) {
        guard let run = run(header, first: task.acknowledgedDataSN, end: task.dataSN) else {
            service.pool.release(transfer.buffer)
            return reject(.protocolError, header)
        }
        // Given up, or cut differently by now: that takes an R-Data SNACK.
        guard transfer.buffer.base != nil, run.next >= task.baseDataSN,
            task.segmentByteCount <= UInt32(parameters.maxSendDataSegmentByteCount)
        else {
            service.pool.release(transfer.buffer)
            return reject(.snackReject, header)
        }
        guard run.next != run.end else { return service.pool.release(transfer.buffer) }
        resends.append(.data(transfer, next: run.next, end: run.end, last: last))
    }

    private func r2tAsked(_ header: BasicHeaderSegment, _ slot: Int) {
        guard let session, let run = run(header, first: 0, end: session.tasks[slot].nextR2TSN) else {
            return reject(.protocolError, header)
        }
        let open = (0..<8).filter {
            let burst = session.tasks[slot].transfers[$0]
            return burst.isActive && burst.r2tSN >= run.next && burst.r2tSN < run.end
        }
        // All that was asked for came already.
        guard !open.isEmpty else { return reject(.protocolError, header) }
        for transfer in open.sorted(by: { session.tasks[slot].transfers[$0].r2tSN < session.tasks[slot].transfers[$1].r2tSN }) {
            sendR2T(slot, transfer)
        }
    }

    /// R-Data SNACK: all that is not confirmed anew, in PDUs of the present length, and a SCSI Response with its tag.
    private func resegmentationAsked(_ header: BasicHeaderSegment) {
        guard let session, header.begRun == 0, header.runLength == 0, header.targetTransferTag != 0,
            header.targetTransferTag != BasicHeaderSegment.reservedTag
        else { return reject(.protocolError, header) }
        if let slot = session.slot(ofTag: header.initiatorTaskTag), session.tasks[slot].connection == key {
            guard session.tasks[slot].state == .responding else { return reject(.protocolError, header) }
            session.tasks[slot].snackTag = header.targetTransferTag
            return session.tasks[slot].rewind()
        }
        guard let record = retention?.record(tag: header.initiatorTaskTag), var task = record.task, task.dataByteCount > 0 else {
            return reject(.protocolError, header)
        }
        guard !record.lacksData else { return reject(.snackReject, header) }
        task.snackTag = header.targetTransferTag
        task.rewind()
        task.fit(to: UInt32(parameters.maxSendDataSegmentByteCount))
        let transfer = TargetDataIn(
            task, dataTag: record.dataTag, burst: record.burst, buffer: service.pool.share(task.dataBuffer))
        let first = task.dataSN
        task.dataSN = transfer.endDataSN
        task.sentByteCount = task.dataByteCount
        let statSN = record.header.statSN
        retention?.update(statSN) {
            $0.task = task
            $0.header = .scsiResponse(
                tag: task.initiatorTaskTag, status: task.status, residual: task.residual, expDataSN: task.dataSN,
                snackTag: task.snackTag, dataByteCount: task.senseSegment.count,
                numbers: ResponseNumbers(statSN: statSN, expCmdSN: 0, maxCmdSN: 0))
        }
        resends.append(.data(transfer, next: first, end: task.dataSN, last: nil))
        resends.append(.status(next: statSN, end: statSN &+ 1))
    }

    // MARK: sending again

    /// As far as there is room.
    func resend() {
        while let resend = resends.first, output.hasRoom, endReason == nil {
            switch resend {
            case .status(let next, let end):
                if next == end {
                    resends.removeFirst()
                } else {
                    resends[0] = .status(next: next &+ 1, end: end)
                    resendStatus(next)
                }
            case .data(let transfer, let next, let end, let last):
                if next == end {
                    resends.removeFirst()
                    service.pool.release(transfer.buffer)
                } else {
                    resends[0] = .data(transfer, next: next &+ 1, end: end, last: last)
                    resendData(transfer, next, last)
                }
            }
        }
    }

    /// As it was, but for the window (section 11.16).
    private func resendStatus(_ statSN: UInt32) {
        // It may have been confirmed since it was asked for.
        guard let session, let record = retention?.record(statSN: statSN) else { return }
        var header = record.header
        (header.expCmdSN, header.maxCmdSN) = session.windowNumbers()
        guard let task = record.task else { return record.data.withUnsafeBytes { write(header, $0) } }
        guard header.opcode == .dataIn else { return task.senseSegment.withUnsafeBytes { write(header, $0) } }
        guard !record.lacksData else { return }
        let start = Int(header.bufferOffset)
        sendData(
            header, UnsafeRawBufferPointer(rebasing: task.data[start..<start + header.dataSegmentByteCount]),
            service.pool.share(task.dataBuffer))
    }

    private func resendData(_ transfer: TargetDataIn, _ dataSN: UInt32, _ last: BasicHeaderSegment?) {
        let piece = transfer.piece(dataSN)
        guard piece.count > 0 else { return }
        var header = BasicHeaderSegment.dataIn(
            tag: transfer.initiatorTaskTag, flags: piece.endsBurst ? [.final] : [], dataSN: dataSN,
            bufferOffset: UInt32(piece.offset), byteCount: piece.count, numbers: numbers())
        if piece.isLast, let last {
            header = last
            (header.expCmdSN, header.maxCmdSN) = session?.windowNumbers() ?? (0, 0)
        } else if piece.endsBurst, !piece.isLast {
            header.askForAcknowledgement(transfer.lun, transfer.dataTag)
        }
        sendData(
            header, UnsafeRawBufferPointer(rebasing: transfer.data[piece.offset..<piece.offset + piece.count]),
            service.pool.share(transfer.buffer))
    }

    // MARK: Data-Out that was lost

    /// The PDU that is in was damaged, or came behind a gap. The rest of the sequence is of no use; at its end what is
    /// missing is asked for by a recovery R2T (section 7.8).
    func dataOutLost(_ slot: Int, _ transfer: Int) {
        guard let session, session.tasks[slot].state == .receiving else { return }
        if transfer < 0 {
            session.tasks[slot].isUnsolicitedDamaged = true
            if decoder.header.isFinal { solicitRest(slot) }
        } else {
            session.tasks[slot].transfers[transfer].isDamaged = true
            if decoder.header.isFinal { requestAgain(slot, transfer) }
        }
    }

    /// No more unsolicited data comes.
    private func solicitRest(_ slot: Int) {
        guard let session else { return }
        session.tasks[slot].expectsUnsolicited = false
        solicit(slot)
        session.executeIfComplete(slot)
    }

    /// The rest of a transfer under a tag of its own, so that what is still on the way does not count.
    func requestAgain(_ slot: Int, _ transfer: Int) {
        guard let session else { return }
        let task = session.tasks + slot
        task.pointee.recoveryCount += 1
        guard task.pointee.recoveryCount <= Self.recoveryLimit else {
            return session.fail(slot, additional: AdditionalSense(0x0C, 0x0D))
        }
        task.pointee.transfers[transfer].restart(r2tSN: task.pointee.nextR2TSN)
        task.pointee.nextR2TSN &+= 1
        sendR2T(slot, transfer)
    }

    /// A PDU of unknown meaning was lost: transfers for which nothing comes from now on are asked for again.
    func watchTransfers() {
        guard let session, endReason == nil else { return }
        var isAny = false
        for slot in 0..<session.usedCapacity where session.tasks[slot].state == .receiving && session.tasks[slot].connection == key {
            let task = session.tasks + slot
            task.pointee.isUnsolicitedWatched = task.pointee.expectsUnsolicited && task.pointee.isArrived
            isAny = isAny || task.pointee.isUnsolicitedWatched
            for transfer in 0..<8 where task.pointee.transfers[transfer].isActive {
                task.pointee.transfers[transfer].isWatched = true
                isAny = true
            }
        }
        if isAny { service.setAlarm(.transfers(self), after: service.settings.transferTimeout) }
    }

    /// The time for what is watched is over.
    func recoverTransfers() {
        guard let session, endReason == nil else { return }
        var isAny = false
        for slot in 0..<session.usedCapacity where session.tasks[slot].state == .receiving && session.tasks[slot].connection == key {
            if session.tasks[slot].isUnsolicitedWatched {
                if isComing(slot, -1) {
                    isAny = true
                } else {
                    session.tasks[slot].isUnsolicitedWatched = false
                    solicitRest(slot)
                }
            }
            for transfer in 0..<8 {
                guard session.tasks[slot].state == .receiving, session.tasks[slot].transfers[transfer].isActive,
                    session.tasks[slot].transfers[transfer].isWatched
                else { continue }
                if isComing(slot, transfer) { isAny = true } else { requestAgain(slot, transfer) }
            }
        }
        if isAny { service.setAlarm(.transfers(self), after: service.settings.transferTimeout) }
    }

    /// A PDU of this transfer is half received: it counts when it ends, so that what it brings must not be asked for again.
    private func isComing(_ slot: Int, _ transfer: Int) -> Bool {
        switch incoming {
        case .dataOut(slot, transfer), .lostDataOut(slot, transfer): true
        default: false
        }
    }

    /// TASK REASSIGN of a command whose data is not complete: what is missing is asked for here, numbered from what the
    /// initiator says that it had.
    func solicitAgain(_ slot: Int, _ expDataSN: UInt32) {
        guard let session else { return }
        let task = session.tasks + slot
        task.pointee.expectsUnsolicited = false
        task.pointee.isUnsolicitedDamaged = false
        task.pointee.isUnsolicitedWatched = false
        let fulfilled = task.pointee.nextR2TSN &- UInt32(task.pointee.outstandingR2T)
        let isKnown = expDataSN > 0 && expDataSN <= task.pointee.nextR2TSN
        task.pointee.nextR2TSN = isKnown ? expDataSN : fulfilled
        let open = (0..<8).filter { task.pointee.transfers[$0].isActive }
            .sorted { task.pointee.transfers[$0].offset < task.pointee.transfers[$1].offset }
        for transfer in open {
            task.pointee.transfers[transfer].restart(r2tSN: task.pointee.nextR2TSN)
            task.pointee.nextR2TSN &+= 1
            sendR2T(slot, transfer)
        }
        solicit(slot)
        session.executeIfComplete(slot)
    }
}

extension TargetR2T {
    /// What came stays; the rest is asked for under another tag.
    mutating func restart(r2tSN: UInt32) {
        offset += received
        byteCount -= received
        received = 0
        nextDataSN = 0
        isDamaged = false
        isWatched = false
        isSecondTag.toggle()
        self.r2tSN = r2tSN
    }
}
