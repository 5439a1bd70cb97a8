public import Timebase

extension PseudoLUN {
    /// The result of a `.fence` action.
    public func fenceResult(_ path: PathIndex, _ step: FenceStep, _ result: FenceResult, at now: Instant) {
        guard path.index >= 0, path.index < paths.count else { return }
        let index = path.index
        switch step {
        case .reinstateNexus:
            guard paths[index].fence == .reinstating else { return }
            if result == .done { return nexusReinstated(index, at: now) }
            paths[index].fence = .waiting
            if result == .taskSetAborted { endCopies(.taskSetAborted, at: now) { $0.path == path.rawValue } }
        case .abortTaskSet:
            guard paths[index].fence == .aborting else { return }
            paths[index].fence = .waiting
            if result == .done { endCopies(.taskSetAborted, at: now) { $0.path == path.rawValue } }
            if staleWrites.count(on: path.rawValue) == 0 { paths[index].fence = .none }
            paths[index].mayHoldUnknownWrites = false
            switch paths[index].link {
            case .fencing: cameUp(index, at: now)
            // Nothing more to be had from the session but its end, with which the quiesce time begins.
            case .takenOut, .removed: drop(index, at: now)
            default: break
            }
        case .logicalUnitReset(let via):
            guard resetVia == via.rawValue else { return }
            resetVia = -1
            if result == .done { unitWasReset(at: now) } else { wasResetRefused = true }
        }
        if result == .failed || result == .unsupported { post(.fenceFailed(path, step, result)) }
        settle(at: now)
    }

    /// Notes the old copy of a write that leaves its path unanswered.
    func keepCopy(_ slot: Int32, at now: Instant) {
        let entry = slots + Int(slot)
        let request = entry.pointee.descriptor
        guard settings.staleWriteGuard.isEnabled, request.kind.changesBlocks else { return }
        staleWrites.add(
            StaleCopy(
                request: RequestIndex(slot: UInt32(slot), attempt: entry.pointee.attempt),
                path: entry.pointee.path, lba: request.lba, blockCount: request.blockCount,
                sequence: entry.pointee.sequence, since: now,
                deadline: mayStillCarryOut(Int(entry.pointee.path)) ? .distantFuture : now + settings.timers.quiesceTime))
        ranges.insert(request.lba, request.blockCount)
        wasResetRefused = false
        // Later overlapping writes wait for this write already; now they wait for its copy as well.
        var later = entry.pointee.nextWriter
        while later >= 0, blockedCount > 0 {
            let other = slots + Int(later)
            let range = other.pointee.descriptor
            if other.pointee.state == .blocked,
                rangesOverlap(range.lba, range.blockCount, request.lba, request.blockCount)
            {
                other.pointee.blockers += 1
            }
            later = other.pointee.nextWriter
        }
    }

    /// What is left of a command may still go out on it.
    private func hasOpenSession(_ index: Int) -> Bool {
        paths[index].transport == .iSCSI && paths[index].isTransportUp
    }

    /// Whether time alone says nothing of a path's old copies. A kernel device keeps what it took, whatever becomes of
    /// the path, tries it again as it sees fit, and always tells of its end.
    private func mayStillCarryOut(_ index: Int) -> Bool {
        paths[index].transport == .kernelDevice || hasOpenSession(index)
    }

    /// The session is over: nothing of the old copies can reach the target any more that has not done so, and
    /// `quiesce-time` says how long what it has may take.
    func startQuiescing(_ index: Int, at now: Instant) {
        guard paths[index].transport == .iSCSI else { return }
        staleWrites.setDeadline(now + settings.timers.quiesceTime, ofCopiesOn: Int32(index))
    }

    /// Ends a session whose copies can't be known dead while it lives: a session that stalls, or that does not answer
    /// what it was asked, may still carry out what it took, at any time. The end makes way for the next steps.
    func dropOverdueSessions(at now: Instant) {
        for index in paths.indices where sessionDropDeadline(index) <= now { drop(index, at: now) }
    }

    func drop(_ index: Int, detail: String = "what it still held kept a write waiting", at now: Instant) {
        guard paths[index].isTransportUp, !paths[index].isDropped else { return }
        paths[index].isDropped = true
        actions.push(.drop(PathIndex(index)))
        switch paths[index].link {
        case .takenOut, .removed: break
        default:
            losePath(index, PathFailure(.silent, detail: detail), isTransportUp: true, at: now)
        }
    }

    /// When the session of a path with old copies is given up for the sake of the writes that wait for them, or of
    /// the path itself, which waits for its ABORT TASK SET.
    func sessionDropDeadline(_ index: Int) -> Instant {
        guard hasOpenSession(index), !paths[index].isDropped else { return .distantFuture }
        if paths[index].fence == .aborting { return paths[index].fenceSince + settings.timers.quiesceTime }
        guard blockedCount > 0, let since = staleWrites.oldest(on: Int32(index)), isAnyoneBarred(by: Int32(index)) else {
            return .distantFuture
        }
        if let stalledSince = paths[index].stalledSince { return stalledSince + settings.timers.silenceTimeout }
        return since + settings.timers.quiesceTime
    }

    private func setFence(_ index: Int, _ fence: PathFence, at now: Instant) {
        paths[index].fence = fence
        paths[index].fenceSince = now
    }

    /// An answer for an attempt that was given up.
    func lateAnswer(_ request: RequestIndex, _ path: PathIndex, _ outcome: PathOutcome, at now: Instant) {
        let end: StaleCopyEnd
        switch outcome {
        case .returned(wasSent: true, .taskLost): end = .taskEnded
        case .returned(wasSent: true, _): return
        case .returned(wasSent: false, _): end = .neverSent
        case .good, .status, .targetFailure, .short: end = .answered
        }
        guard !staleWrites.isClear else { return }
        endCopies(end, at: now) { $0.request == request && $0.path == path.rawValue }
        settle(at: now)
    }

    /// Starts the ladder for a path that has old copies.
    func raiseGuard(_ index: Int, at now: Instant) {
        let count = staleWrites.count(on: Int32(index))
        guard count > 0 else {
            // An ABORT TASK SET that was out ended with its session; nobody waits for its answer.
            if !paths[index].isTransportUp { paths[index].fence = .none }
            return
        }
        let path = PathIndex(index)
        if paths[index].fence == .none { post(.guardRaised(path, copies: count)) }
        if !paths[index].isTransportUp {
            guard paths[index].fence != .reinstating, paths[index].link != .removed else {
                if paths[index].link == .removed { paths[index].fence = .waiting }
                return
            }
            paths[index].fence = .reinstating
            actions.push(.fence(path, .reinstateNexus))
        } else if paths[index].stalledSince != nil || paths[index].isDropped {
            // The session is kept, so its answers may still come; asking it anything more is in vain.
            paths[index].fence = .waiting
        } else if paths[index].fence != .aborting {
            setFence(index, .aborting, at: now)
            actions.push(.fence(path, .abortTaskSet))
        }
    }

    /// A login with the same ISID ended the old session: what it had not executed yet is aborted now. (A
    /// login alone is no fence: a target may execute what it took before.)
    func nexusReinstated(_ index: Int, at now: Instant) {
        guard hasOldWrites(index), paths[index].fence != .aborting else { return }
        setFence(index, .aborting, at: now)
        actions.push(.fence(PathIndex(index), .abortTaskSet))
    }

    /// Whether the path's nexus may still carry out writes from before its session, known ones or not.
    func hasOldWrites(_ index: Int) -> Bool {
        staleWrites.count(on: Int32(index)) > 0 || paths[index].mayHoldUnknownWrites
    }

    /// LOGICAL UNIT RESET, where the configuration allows it, a write really waits, and the lost path
    /// itself has nothing more to offer.
    func escalateFences(at now: Instant) {
        guard settings.staleWriteGuard.allowsLogicalUnitReset, !wasResetRefused, resetVia < 0,
            blockedCount > 0, isAnyoneBarred(by: nil), bestGrade > .unusable,
            let lost = staleWrites.copies.first(where: { mayBeReset($0) })?.path,
            let via = paths.indices.first(where: {
                rows[$0].grade == bestGrade && paths[$0].transport == .iSCSI
            })
        else { return }
        resetVia = Int32(via)
        resetFor = lost
        resetSince = now
        actions.push(.fence(PathIndex(rawValue: lost), .logicalUnitReset(via: PathIndex(via))))
    }

    private func mayBeReset(_ copy: StaleCopy) -> Bool {
        paths[Int(copy.path)].fence == .waiting && !mayStillCarryOut(Int(copy.path))
    }

    /// Whether a write waits for a copy on this path, or on any.
    private func isAnyoneBarred(by path: Int32?) -> Bool {
        var slot = firstWriter
        while slot >= 0 {
            let entry = slots[Int(slot)]
            if entry.state == .blocked,
                staleWrites.barring(
                    lba: entry.descriptor.lba, blockCount: entry.descriptor.blockCount,
                    sequence: entry.sequence, on: path) > 0
            {
                return true
            }
            slot = entry.nextWriter
        }
        return false
    }

    /// The reset ended every command that the target had, also those in flight on good paths, whose answers may never
    /// come. A command that was still on its way was not hit and will be carried out: so copies on sessions that live
    /// stay, and what is in flight is asked back one by one, which ends either kind with an answer.
    private func unitWasReset(at now: Instant) {
        endCopies(.logicalUnitReset, at: now) { !self.mayStillCarryOut(Int($0.path)) }
        for index in paths.indices { askBack(index) }
    }

    /// The path that carried a LOGICAL UNIT RESET is lost: whether it was done is unknown.
    func resetEnded(ifVia index: Int, at now: Instant) {
        guard resetVia == Int32(index) else { return }
        resetVia = -1
        if resetFor >= 0 {
            post(.fenceFailed(PathIndex(rawValue: resetFor), .logicalUnitReset(via: PathIndex(index)), .failed))
        }
    }

    /// When the session that carries a LOGICAL UNIT RESET is given up.
    var resetDeadline: Instant { resetVia < 0 ? .distantFuture : resetSince + settings.timers.quiesceTime }

    /// Until a LOGICAL UNIT RESET is answered nothing is issued, for it might be hit: one that is never answered would hold up
    /// the unit for ever. The end of its session ends it as well; what it was for is left to the quiesce time.
    func endOverdueReset(at now: Instant) {
        guard resetDeadline <= now else { return }
        let via = Int(resetVia)
        drop(via, detail: "a LOGICAL UNIT RESET was not answered", at: now)
        resetEnded(ifVia: via, at: now)
        wasResetRefused = true
    }

    /// These copies are known dead; the writes that waited for nothing else go on.
    func endCopies(_ end: StaleCopyEnd, at now: Instant, where isDead: (StaleCopy) -> Bool) {
        let dead = staleWrites.removeAll(where: isDead)
        guard !dead.isEmpty else { return }
        for copy in dead {
            ranges.remove(copy.lba, copy.blockCount)
            unblock(from: firstWriter, lba: copy.lba, copy.blockCount, after: copy.sequence)
        }
        for index in paths.indices {
            let count = dead.count { $0.path == Int32(index) }
            guard count > 0 else { continue }
            post(.guardCleared(PathIndex(index), copies: count, end))
            guard staleWrites.count(on: Int32(index)) == 0 else { continue }
            // An ABORT TASK SET that is still out would hit new commands: the path waits for its answer.
            if paths[index].fence != .aborting { paths[index].fence = .none }
            if paths[index].link == .takenOut || paths[index].isRemoved { disconnect(index) }
        }
    }
}
