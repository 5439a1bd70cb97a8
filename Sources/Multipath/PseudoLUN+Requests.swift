public import Timebase

extension PseudoLUN {
    /// Takes a request in. Nil while as many are admitted as there is room for; the caller keeps it then.
    public func admit(_ request: RequestDescriptor, at now: Instant) -> RequestIndex? {
        let slot = takeSlot()
        guard slot >= 0 else { return nil }
        let entry = slots + Int(slot)
        entry.pointee.descriptor = request
        entry.pointee.wanted = -1
        entry.pointee.avoided = -1
        entry.pointee.path = -1
        entry.pointee.retries = 0
        entry.pointee.freeRetries = 0
        entry.pointee.mayHaveRun = false
        entry.pointee.blockers = 0
        entry.pointee.sequence = nextSequence
        entry.pointee.startedAt = now.nanoseconds
        nextSequence &+= 1
        liveCount += 1
        appendAge(slot)
        if request.kind.changesBlocks { registerWriter(slot) }

        if isClosed || isLUNFailed || isExpired {
            entry.pointee.state = .ready
            ready.append(slot, slots)
            fail(slot, isClosed ? .closed : isLUNFailed ? .lunFailed : .noPathsAvailable)
        } else if entry.pointee.blockers > 0 {
            entry.pointee.state = .blocked
            blockedCount += 1
            // What keeps it waiting is now worth ending.
            if !staleWrites.isClear { settle(at: now) }
        } else {
            entry.pointee.state = .ready
            ready.append(slot, slots)
            pump(at: now)
        }
        return RequestIndex(slot: UInt32(slot), attempt: entry.pointee.attempt)
    }

    /// The slot that was given back last, or the next that was never used; -1 where all are in use.
    @inline(__always)
    private func takeSlot() -> Int32 {
        let slot = freeSlots
        if slot >= 0 {
            freeSlots = slots[Int(slot)].next
            return slot
        }
        guard untouchedSlots < requestCapacity else { return -1 }
        let fresh = untouchedSlots
        (slots + Int(fresh)).initialize(to: RequestSlot())
        untouchedSlots += 1
        return fresh
    }

    /// An attempt ended. Answers of attempts that were given up are welcome too: they end old copies.
    public func completed(
        _ request: RequestIndex, on path: PathIndex, outcome: PathOutcome, at now: Instant
    ) {
        guard request.slot < UInt32(untouchedSlots), path.index >= 0, path.index < paths.count else { return }
        let slot = Int32(truncatingIfNeeded: request.slot)
        let entry = slots + Int(slot)
        guard entry.pointee.state == .inFlight, entry.pointee.attempt == request.attempt,
            entry.pointee.path == path.rawValue
        else { return lateAnswer(request, path, outcome, at: now) }
        guard case .good = outcome else { return failedAttempt(slot, outcome, at: now) }
        unissue(slot)
        let counters = hot + path.index
        counters.pointee.lastHeard = now.nanoseconds
        counters.pointee.completed &+= 1
        let bytes = UInt64(entry.pointee.descriptor.byteCount)
        if entry.pointee.descriptor.kind == .read {
            counters.pointee.bytesRead &+= bytes
        } else {
            counters.pointee.bytesWritten &+= bytes
        }
        if rows[path.index].depthLimit != .max { growQueue(path.index) }
        finish(slot, .done)
        if ready.head >= 0 { pump(at: now) }
    }

    // MARK: Issue

    /// Issues what waits, in order, until the policy has no path with room.
    func pump(at now: Instant) {
        guard resetVia < 0 else { return }
        while ready.head >= 0 {
            let slot = ready.head
            let selection = choose(slot, at: now)
            guard selection.isChosen else { return }
            ready.remove(slot, slots)
            issue(slot, selection, at: now)
        }
    }

    private func choose(_ slot: Int32, at now: Instant) -> Selection {
        let entry = slots + Int(slot)
        if entry.pointee.wanted >= 0 {
            let row = rows + Int(entry.pointee.wanted)
            if row.pointee.grade == bestGrade, bestGrade > .unusable, row.pointee.hasRoom {
                return Selection(index: entry.pointee.wanted, reason: .retrySamePath)
            }
        }
        if entry.pointee.avoided >= 0, let other = leastLoaded(except: entry.pointee.avoided) {
            return Selection(index: other, reason: .retryOtherPath)
        }
        if bestGrade == .unusable { return .none }
        let selection = dsm.selectPath(for: policyRequest(entry.pointee.descriptor), from: table, at: now)
        precondition(
            !selection.isChosen
                || (Int(selection.index) < paths.count && rows[Int(selection.index)].grade > .unusable),
            "a device-specific module chose a path that must not carry data")
        return selection
    }

    @inline(__always)
    func policyRequest(_ request: RequestDescriptor) -> PolicyRequest {
        PolicyRequest(
            lba: request.lba, blockCount: request.blockCount, byteCount: request.byteCount,
            isRead: request.kind == .read)
    }

    private func leastLoaded(except avoided: Int32) -> Int32? {
        var best: Int32?
        for row in 0..<Int32(paths.count)
        where row != avoided && bestGrade > .unusable && rows[Int(row)].grade == bestGrade
            && rows[Int(row)].hasRoom
        {
            if let current = best,
                rows[Int(current)].load.pointee.requests <= rows[Int(row)].load.pointee.requests
            {
                continue
            }
            best = row
        }
        return best
    }

    private func issue(_ slot: Int32, _ selection: Selection, at now: Instant) {
        let entry = slots + Int(slot)
        let row = rows + Int(selection.index)
        let counters = hot + Int(selection.index)
        entry.pointee.state = .inFlight
        entry.pointee.path = selection.index
        entry.pointee.attempt &+= 1
        entry.pointee.wanted = -1
        entry.pointee.avoided = -1
        row.pointee.inFlight += 1
        row.pointee.load.pointee.requests += 1
        row.pointee.load.pointee.bytes += Int(entry.pointee.descriptor.byteCount)
        counters.pointee.inFlight.append(slot, slots)
        counters.pointee.inFlightBlocks += Int(entry.pointee.descriptor.blockCount)
        counters.pointee.issued &+= 1
        let path = PathIndex(rawValue: selection.index)
        decisions.record(
            Decision(
                at: now, request: entry.pointee.descriptor,
                tries: 1 &+ entry.pointee.retries &+ entry.pointee.freeRetries, path: path,
                reason: selection.reason))
        actions.push(.issue(RequestIndex(slot: UInt32(slot), attempt: entry.pointee.attempt), on: path))
    }

    /// Takes a request off its path's books; the caller gives it its next state.
    @inline(__always)
    func unissue(_ slot: Int32) {
        let entry = slots + Int(slot)
        let path = Int(entry.pointee.path)
        let row = rows + path
        row.pointee.inFlight -= 1
        row.pointee.load.pointee.requests -= 1
        row.pointee.load.pointee.bytes -= Int(entry.pointee.descriptor.byteCount)
        hot[path].inFlight.remove(slot, slots)
        hot[path].inFlightBlocks -= Int(entry.pointee.descriptor.blockCount)
    }

    // MARK: Finish

    /// Ends a request that is in no queue any more.
    func finish(_ slot: Int32, _ result: RequestResult) {
        let entry = slots + Int(slot)
        entry.pointee.state = .finished
        removeAge(slot)
        if entry.pointee.descriptor.kind.changesBlocks { unregisterWriter(slot) }
        actions.push(.finish(RequestIndex(slot: UInt32(slot), attempt: entry.pointee.attempt), result))
    }

    /// Ends a request that waits somewhere (not in flight).
    func fail(_ slot: Int32, _ failure: RequestFailure) {
        leaveQueue(slot)
        finish(slot, .failed(failure))
    }

    /// Takes a waiting request out of whatever it waits in.
    func leaveQueue(_ slot: Int32) {
        switch slots[Int(slot)].state {
        case .ready: ready.remove(slot, slots)
        case .delayed: delayed.remove(slot, slots)
        case .blocked: blockedCount -= 1
        case .free, .inFlight, .finished: break
        }
    }

    /// ``PlantedMistake/lostCommandForgotten``
    func forget(_ slot: Int32) {
        slots[Int(slot)].state = .finished
        removeAge(slot)
    }

    func release(_ slot: Int32) {
        slots[Int(slot)].state = .free
        slots[Int(slot)].next = freeSlots
        freeSlots = slot
        liveCount -= 1
    }

    func makeReady(_ slot: Int32) {
        slots[Int(slot)].state = .ready
        ready.insertInOrder(slot, slots)
    }

    // MARK: Admission order

    @inline(__always)
    private func appendAge(_ slot: Int32) {
        slots[Int(slot)].older = youngest
        slots[Int(slot)].younger = -1
        if youngest >= 0 { slots[Int(youngest)].younger = slot } else { oldest = slot }
        youngest = slot
    }

    @inline(__always)
    private func removeAge(_ slot: Int32) {
        let (older, younger) = (slots[Int(slot)].older, slots[Int(slot)].younger)
        if older >= 0 { slots[Int(older)].younger = younger } else { oldest = younger }
        if younger >= 0 { slots[Int(younger)].older = older } else { youngest = older }
    }

    // MARK: Overlapping writes

    /// Enters a write among the admitted ones and counts what it must wait for.
    private func registerWriter(_ slot: Int32) {
        let entry = slots + Int(slot)
        let (lba, count) = (entry.pointee.descriptor.lba, entry.pointee.descriptor.blockCount)
        if ranges.mightOverlap(lba, count) {
            var blockers = 0
            var other = firstWriter
            while other >= 0 {
                let range = slots[Int(other)].descriptor
                if rangesOverlap(range.lba, range.blockCount, lba, count) { blockers += 1 }
                other = slots[Int(other)].nextWriter
            }
            blockers += staleWrites.barring(lba: lba, blockCount: count, sequence: entry.pointee.sequence)
            entry.pointee.blockers = Int32(blockers)
        }
        ranges.insert(lba, count)
        entry.pointee.previousWriter = lastWriter
        entry.pointee.nextWriter = -1
        if lastWriter >= 0 { slots[Int(lastWriter)].nextWriter = slot } else { firstWriter = slot }
        lastWriter = slot
    }

    private func unregisterWriter(_ slot: Int32) {
        let entry = slots + Int(slot)
        let (before, after) = (entry.pointee.previousWriter, entry.pointee.nextWriter)
        if before >= 0 { slots[Int(before)].nextWriter = after } else { firstWriter = after }
        if after >= 0 { slots[Int(after)].previousWriter = before } else { lastWriter = before }
        let descriptor = entry.pointee.descriptor
        ranges.remove(descriptor.lba, descriptor.blockCount)
        if blockedCount > 0 {
            unblock(from: after, lba: descriptor.lba, descriptor.blockCount, after: entry.pointee.sequence)
        }
    }

    /// One blocker less for each later write that overlaps the range; those that wait for nothing more
    /// become ready.
    func unblock(from first: Int32, lba: UInt64, _ blockCount: UInt32, after sequence: UInt64) {
        var slot = first
        while slot >= 0 {
            let entry = slots + Int(slot)
            let range = entry.pointee.descriptor
            if entry.pointee.sequence > sequence, entry.pointee.state == .blocked,
                rangesOverlap(range.lba, range.blockCount, lba, blockCount)
            {
                entry.pointee.blockers -= 1
                if entry.pointee.blockers == 0 {
                    blockedCount -= 1
                    makeReady(slot)
                }
            }
            slot = entry.pointee.nextWriter
        }
    }
}
