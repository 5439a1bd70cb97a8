import SCSI
public import Timebase

extension PseudoLUN {
    // MARK: Configuration

    /// Adds a path and asks for its connection. `load` is the load of the path's transport, the same
    /// object for every LUN that uses it.
    @discardableResult
    public func addPath(
        _ settings: PathSettings, load: PathLoad, transport: TransportKind = .iSCSI, at now: Instant
    ) -> PathIndex {
        if paths.count == rowCapacity { growRows() }
        let index = paths.count
        var settings = settings
        settings.weight = max(settings.weight, 1)
        (rows + index).initialize(to: PathCandidate(order: Int32(index), load: load.pointer))
        (hot + index).initialize(to: PathCounters())
        paths.append(PathRecord(settings: settings, load: load, transport: transport))
        paths[index].stateSince = now
        areCandidatesStale = true
        let path = PathIndex(index)
        dsm.pathAdded(path, at: now)
        post(.pathAdded(path))
        actions.push(.connect(path))
        settle(at: now)
        return path
    }

    private func growRows() {
        let (oldRows, oldHot) = (rows, hot)
        rows = .allocate(capacity: rowCapacity * 2)
        hot = .allocate(capacity: rowCapacity * 2)
        rows.moveInitialize(from: oldRows, count: paths.count)
        hot.moveInitialize(from: oldHot, count: paths.count)
        oldRows.deallocate()
        oldHot.deallocate()
        rowCapacity *= 2
    }

    /// Removes a path for good; its requests are re-driven. Its index is not used again.
    public func removePath(_ path: PathIndex, at now: Instant) {
        guard let index = known(path) else { return }
        let redriven = redrive(index, withdraw: paths[index].isTransportUp, at: now)
        paths[index].link = .removed
        resetEnded(ifVia: index, at: now)
        raiseGuard(index, at: now)
        dsm.pathRemoved(path, at: now)
        post(.pathRemoved(path))
        if redriven > 0 { noteFailOver(from: index, redriven: redriven, at: now) }
        // While its old writes are being fenced the session is still of use.
        if paths[index].fence != .aborting {
            paths[index].isTransportUp = false
            actions.push(.disconnect(path))
        }
        areCandidatesStale = true
        settle(at: now)
    }

    /// Makes a path primary or standby, from the next request on.
    public func setRole(_ role: PathRole, of path: PathIndex, at now: Instant) {
        guard let index = known(path), paths[index].settings.role != role else { return }
        post(.roleChanged(path, from: paths[index].settings.role, to: role))
        paths[index].settings.role = role
        settle(at: now)
    }

    /// `weight` is 1…65,535; 0 counts as 1.
    public func setWeight(_ weight: UInt16, of path: PathIndex, at now: Instant) {
        guard let index = known(path), paths[index].settings.weight != max(weight, 1) else { return }
        post(.weightChanged(path, from: paths[index].settings.weight, to: max(weight, 1)))
        paths[index].settings.weight = max(weight, 1)
        settle(at: now)
    }

    /// The path's name, and its place in the configured order.
    public func setPlace(_ order: Int, name: String, of path: PathIndex, at now: Instant) {
        guard let index = known(path) else { return }
        paths[index].settings.name = name
        guard paths[index].settings.order != order else { return }
        paths[index].settings.order = order
        areCandidatesStale = true
        settle(at: now)
    }

    /// Changes the policy from the next request on; requests in flight stay where they are.
    public func setPolicy(_ policy: PolicySettings, at now: Instant) {
        let old = settings.policy
        settings.policy = policy
        dsm.setPolicy(policy)
        lastCarrier = -1
        areCandidatesStale = true
        if old != policy { post(.policyChanged(from: old, to: policy)) }
        settle(at: now)
    }

    /// Takes new settings over, the policy included. What waits already is judged by the new timers.
    public func update(_ new: LUNSettings, at now: Instant) {
        let policy = new.policy
        let old = settings
        settings = new
        settings.policy = old.policy
        if settings != old { post(.settingsChanged(from: old, to: settings)) }
        commandTimeout = UInt64(max(new.timers.commandTimeout.wholeNanoseconds, 0))
        if new.timers.pathVerifyPeriod != old.timers.pathVerifyPeriod {
            for index in paths.indices where paths[index].link == .up { scheduleVerification(index, at: now) }
        }
        if policy != old.policy { setPolicy(policy, at: now) } else { settle(at: now) }
    }

    /// For fail-over-only with `fail-back: manual`: goes back to the preferred path now.
    public func failBack(at now: Instant) {
        dsm.failBack(table, at: now)
        noteCarrier(at: now)
        settle(at: now)
    }

    /// Takes a path out until ``restore(_:at:)``.
    public func takeOut(_ path: PathIndex, _ how: TakeOut, at now: Instant) {
        guard let index = known(path) else { return }
        switch how {
        case .drain:
            paths[index].isDrained = true
            post(.pathDrained(path))
        case .fail:
            guard paths[index].link != .takenOut else { return }
            let redriven = redrive(index, withdraw: paths[index].isTransportUp, at: now)
            paths[index].link = .takenOut
            paths[index].stalledSince = nil
            rows[index].wasLost = true
            resetEnded(ifVia: index, at: now)
            post(.pathTakenOut(path, redriven: redriven))
            dsm.pathLost(path, failure: PathFailure(.takenOut), at: now)
            raiseGuard(index, at: now)
            noteFailOver(from: index, redriven: redriven, at: now)
            // While its old writes are being fenced the session is still of use.
            if staleWrites.count(on: path.rawValue) == 0 { disconnect(index) }
        }
        settle(at: now)
    }

    /// Takes a path back in: a drained one at once, a failed one (also one that only waits for its next
    /// try) by connecting and proving itself now. Marks of flapping are forgotten.
    public func restore(_ path: PathIndex, at now: Instant) {
        guard let index = known(path) else { return }
        if paths[index].isDrained {
            paths[index].isDrained = false
            post(.pathRestored(path))
        }
        paths[index].marginal = MarginalTracker()
        paths[index].pendingHold = nil
        paths[index].marginalUntil = nil
        paths[index].recovery.reset()
        switch paths[index].link {
        case .takenOut:
            post(.pathRestored(path))
            tryAgain(index)
        case .down, .refused: tryAgain(index)
        case .connecting, .probing, .fencing, .up, .removed: break
        }
        settle(at: now)
    }

    func disconnect(_ index: Int) {
        guard paths[index].isTransportUp else { return }
        paths[index].isTransportUp = false
        actions.push(.disconnect(PathIndex(index)))
    }

    func tryAgain(_ index: Int) {
        if paths[index].isTransportUp {
            paths[index].link = .probing
            actions.push(.probe(PathIndex(index), .connected))
        } else {
            paths[index].link = .connecting
            actions.push(.connect(PathIndex(index)))
        }
    }

    /// The row of a path that exists and was not removed.
    func known(_ path: PathIndex) -> Int? {
        guard path.index >= 0, path.index < paths.count, !paths[path.index].isRemoved else { return nil }
        return path.index
    }

    // MARK: Coming

    /// The path's transport is logged in, by the same ISID as before. Asks for a probe, and for the old
    /// session's writes to be aborted where there are any.
    public func pathLoggedIn(_ path: PathIndex, at now: Instant) {
        guard let index = known(path) else { return }
        paths[index].isTransportUp = true
        paths[index].isDropped = false
        switch paths[index].link {
        case .takenOut:
            if staleWrites.count(on: path.rawValue) == 0 { disconnect(index) }
        case .connecting, .down, .refused:
            paths[index].link = .probing
            actions.push(.probe(path, .connected))
        case .probing, .fencing, .up, .removed: break
        }
        nexusReinstated(index, at: now)
        settle(at: now)
    }

    /// A full probe (`.connected`, `.recheck`) ended well. The path carries data from now on, unless it
    /// leads to another unit, or old writes of its nexus must be aborted first.
    public func pathConnected(_ path: PathIndex, _ report: PathReport, at now: Instant) {
        guard let index = known(path), paths[index].link != .takenOut else { return }
        let report = completed(report)
        paths[index].isTransportUp = true
        paths[index].isVerifying = false
        noteUnitAttentions(report.unitAttentions, on: index, isFullProbe: true, at: now)
        if let refusal = refusal(of: report, on: index, at: now) {
            return refuse(index, refusal, at: now)
        }
        paths[index].device = report.device
        paths[index].expectsNewCapacity = false
        paths[index].isCapacityVerified = report.isCapacityVerified
        paths[index].transitionTime = report.implicitTransitionTime
        adopt(report.targetPortGroups, fallback: report.accessState, on: index, at: now)
        if paths[index].carriesData, !report.isCapacityVerified {
            // It changed its state in mid-probe; asked again soon.
            losePath(index, PathFailure(.notReady), isTransportUp: true, at: now)
            return settle(at: now)
        }
        let isNew = paths[index].link != .up
        if isNew, !paths[index].isRechecking, hasOldWrites(index) {
            nexusReinstated(index, at: now)
        }
        paths[index].link = paths[index].fence == .aborting ? .fencing : .up
        if paths[index].link == .up, isNew { cameUp(index, at: now) }
        settle(at: now)
    }

    /// A port in standby tells no capacity. What another path showed since the probe began is taken: when both are
    /// asked at one time, nothing is known yet.
    private func completed(_ report: PathReport) -> PathReport {
        guard !report.isCapacityVerified, let device, device.identity == report.device.identity else { return report }
        var full = report
        full.device.blockSize = device.blockSize
        full.device.blockCount = device.blockCount
        return full
    }

    /// The end of what a `.probe` action asked for.
    public func probeFinished(_ path: PathIndex, _ reason: ProbeReason, _ result: ProbeResult, at now: Instant) {
        switch result {
        case .usable(let report): pathConnected(path, report, at: now)
        case .verified(let groups, let unitAttentions):
            pathVerified(path, groups, unitAttentions: unitAttentions, at: now)
        case .accessStates(let groups, let unitAttentions):
            accessStatesReported(path, groups, unitAttentions: unitAttentions, at: now)
        case .failed(let failure): pathProbeFailed(path, reason, failure, at: now)
        }
    }

    /// The path works and carries data from now on.
    func cameUp(_ index: Int, at now: Instant) {
        let path = PathIndex(index)
        let wasRecheck = paths[index].isRechecking
        paths[index].link = .up
        paths[index].isRechecking = false
        paths[index].recovery.reset()
        paths[index].stalledSince = nil
        hot[index].lastHeard = now.nanoseconds
        scheduleVerification(index, at: now)
        if wasRecheck { return }
        if let hold = paths[index].pendingHold {
            paths[index].pendingHold = nil
            paths[index].marginalUntil = now + hold
            post(.pathMarginal(path, heldFor: hold))
        }
        rows[index].depthLimit = .max
        dsm.pathRegained(path, device: paths[index].device!, at: now)
        post(.pathRegained(path))
    }

    private func refusal(of report: PathReport, on index: Int, at now: Instant) -> RefusalReason? {
        let found = report.device
        if let pinnedIdentity, found.identity != pinnedIdentity {
            return .mismatch(.identity(expected: pinnedIdentity, found: found.identity))
        }
        guard let known = device else {
            // A file is always the first to answer: were it to say which unit this is, saying nothing, every path that
            // does say it would be refused.
            if found.identity == nil, paths[index].transport == .kernelDevice,
                paths.indices.contains(where: { $0 != index && !paths[$0].isRemoved })
            {
                return .unidentified
            }
            // A port that does not tell the capacity can't define the LUN; but its module may have it made active.
            guard report.isCapacityVerified else { return claim(found, by: index, at: now) ? nil : .notClaimed }
            return define(found, by: index, at: now)
        }
        if found.identity == nil, definingPath != Int32(index) { return .unidentified }
        guard let mismatch = dsm.mismatch(known: known, found: found) else { return nil }
        // The unit itself grew: it said so, and it is still the same one.
        if case .blockCount(let old, let new) = mismatch, new > old, paths[index].expectsNewCapacity {
            device = found
            post(.capacityChanged(PathIndex(index), fromBlocks: old, toBlocks: new))
            for other in paths.indices where other != index && paths[other].link == .up {
                recheck(other, at: now)
            }
            return nil
        }
        return .mismatch(mismatch)
    }

    /// The first path says what the LUN is.
    private func define(_ found: DeviceDescription, by index: Int, at now: Instant) -> RefusalReason? {
        guard claim(found, by: index, at: now) else { return .notClaimed }
        device = found
        definingPath = Int32(index)
        areCandidatesStale = true
        post(.defined(found, module: dsm.name))
        return nil
    }

    /// Finds the module for the device; false where none wants it.
    private func claim(_ found: DeviceDescription, by index: Int, at now: Instant) -> Bool {
        guard let registry else { return true }
        guard let module = registry.module(for: found, transport: paths[index].transport, policy: settings.policy)
        else { return false }
        // Another path that showed as little may have brought it in, and it may have begun something.
        if device == nil, !hadPath, type(of: module) == type(of: dsm) { return true }
        dsm = module
        areCandidatesStale = true
        for other in paths.indices where !paths[other].isRemoved {
            module.pathAdded(PathIndex(other), at: now)
        }
        return true
    }

    private func refuse(_ index: Int, _ reason: RefusalReason, at now: Instant) {
        let isNews: Bool
        if case .refused(let old, _) = paths[index].link { isNews = old != reason } else { isNews = true }
        let redriven = redrive(index, withdraw: true, at: now)
        let pause = paths[index].recovery.nextPause(settings.timers)
        paths[index].link = .refused(reason, nextTry: now + pause)
        paths[index].isRechecking = false
        paths[index].lastFailure = (now, PathFailure(.verificationFailed, detail: reason.description))
        rows[index].wasLost = true
        if isNews, paths[index].shownState != .refused(reason) { post(.pathRefused(PathIndex(index), reason)) }
        raiseGuard(index, at: now)
        if redriven > 0 { noteFailOver(from: index, redriven: redriven, at: now) }
        settle(at: now)
    }

    /// The path must show again that it leads to the same unit; until then it carries nothing.
    func recheck(_ index: Int, at now: Instant) {
        guard paths[index].link == .up else { return }
        paths[index].link = .probing
        paths[index].isRechecking = true
        actions.push(.probe(PathIndex(index), .recheck))
    }

    // MARK: Going

    /// The transport is gone, or never came up.
    public func pathFailed(_ path: PathIndex, _ failure: PathFailure, at now: Instant) {
        guard path.index >= 0, path.index < paths.count else { return }
        let index = path.index
        // A socket that is closed touches no buffer any more; a kernel device that failed may.
        if paths[index].transport == .iSCSI { paths[index].isTransportUp = false }
        paths[index].isDropped = false
        startQuiescing(index, at: now)
        switch paths[index].link {
        case .takenOut, .removed: raiseGuard(index, at: now)
        case .down(_, let nextTry):
            // The first abandoned request told already; this says why.
            paths[index].isTransportUp = false
            paths[index].link = .down(failure, nextTry: nextTry)
            paths[index].lastFailure = (now, failure)
            raiseGuard(index, at: now)
        case .connecting, .probing, .fencing, .up, .refused:
            losePath(index, failure, isTransportUp: false, at: now)
        }
        settle(at: now)
    }

    /// A probe ended badly; the transport may still be up.
    public func pathProbeFailed(
        _ path: PathIndex, _ reason: ProbeReason, _ failure: PathFailure, at now: Instant
    ) {
        guard let index = known(path) else { return }
        paths[index].isVerifying = false
        paths[index].isRefreshing = false
        switch (paths[index].link, reason) {
        case (.takenOut, _), (.removed, _), (.connecting, _), (.down, _), (.refused, _): break
        case (.up, .accessStates):
            // Nothing is known to be worse; asked again later.
            paths[index].refreshAt = min(paths[index].refreshAt, now + Self.accessStateInterval)
        case (.probing, _), (.fencing, _), (.up, _):
            losePath(index, failure, isTransportUp: paths[index].isTransportUp, at: now)
        }
        settle(at: now)
    }

    /// Takes the path out of use, re-drives what was on it and plans its recovery.
    func losePath(
        _ index: Int, _ failure: PathFailure, isTransportUp: Bool, alreadyRedriven: Int = 0, at now: Instant
    ) {
        let path = PathIndex(index)
        let (wasUp, isFirstTry): (Bool, Bool) =
            switch paths[index].link {
            case .up, .fencing: (true, false)
            case .probing: (paths[index].isRechecking, paths[index].recovery.attempts == 0)
            default: (false, paths[index].recovery.attempts == 0)
            }
        let redriven = alreadyRedriven + redrive(index, withdraw: paths[index].isTransportUp, at: now)
        if wasUp {
            rows[index].wasLost = true
            paths[index].marginalUntil = nil
            paths[index].pendingHold = paths[index].marginal.lost(at: now, settings.marginalPaths)
        }
        let pause = paths[index].recovery.nextPause(settings.timers)
        paths[index].link = .down(failure, nextTry: now + pause)
        paths[index].isTransportUp = isTransportUp
        paths[index].isRechecking = false
        paths[index].isRefreshing = false
        paths[index].isVerifying = false
        paths[index].stalledSince = nil
        paths[index].lastFailure = (now, failure)
        resetEnded(ifVia: index, at: now)
        if wasUp || isFirstTry { post(.pathLost(path, failure, redriven: redriven)) }
        dsm.pathLost(path, failure: failure, at: now)
        raiseGuard(index, at: now)
        if wasUp { noteFailOver(from: index, redriven: redriven, at: now) }
    }

    private func noteFailOver(from index: Int, redriven: Int, at now: Instant) {
        refreshCandidates(at: now)
        let next = dsm.explainPath(for: PolicyRequest(), from: table, at: now)
        guard next.isChosen else { return }
        failOverCount += 1
        post(.failOver(from: PathIndex(index), to: PathIndex(rawValue: next.index), redriven: redriven))
    }

    /// Commands are outstanding, TCP acknowledges, nothing speaks: traffic goes elsewhere, and what was
    /// in flight here too as soon as there is anywhere to go.
    public func pathStalled(_ path: PathIndex, at now: Instant) {
        guard let index = known(path), paths[index].link == .up, paths[index].stalledSince == nil else {
            return
        }
        paths[index].stalledSince = now
        rows[index].wasLost = true
        refreshCandidates(at: now)
        let count = bestGrade > .unusable ? redriveStalled(index, at: now) : 0
        post(.pathStalled(path, redriven: count))
        if count > 0 { noteFailOver(from: index, redriven: count, at: now) }
        if bestGrade == .unusable { refreshAccessStates(at: now) }
        settle(at: now)
    }

    /// A stalled path speaks again.
    public func pathResumed(_ path: PathIndex, at now: Instant) {
        guard let index = known(path), paths[index].stalledSince != nil else { return }
        paths[index].stalledSince = nil
        hot[index].lastHeard = now.nanoseconds
        post(.pathResumed(path))
        settle(at: now)
    }

    /// NOP-Outs are answered but commands are not: shown, nothing else; requests wait.
    public func pathSlow(_ path: PathIndex, _ isSlow: Bool, at now: Instant) {
        guard let index = known(path), paths[index].isSlow != isSlow else { return }
        paths[index].isSlow = isSlow
        post(.pathSlow(path, isSlow))
    }

    /// Takes all that is in flight on a path back, in admission order, and puts it among what waits.
    /// Writes leave an old copy; what must not be repeated ends with `outcomeUnknown`.
    @discardableResult
    func redrive(_ index: Int, withdraw: Bool, at now: Instant) -> Int {
        let count = gather(index) { _ in true }
        let taken = UnsafeMutableBufferPointer(start: scratch, count: count)
        var kept = 0
        for slot in taken {
            let entry = slots + Int(slot)
            let request = RequestIndex(slot: UInt32(slot), attempt: entry.pointee.attempt)
            keepCopy(slot, at: now)
            note(.redriven, slot, at: now)
            slots[Int(slot)].mayHaveRun = true
            unissue(slot)
            if withdraw { actions.push(.withdraw(request, on: PathIndex(index))) }
            if plantedMistake != nil, mistreatLost(slot, isYoungest: slot == taken.last) { continue }
            if entry.pointee.descriptor.isRepeatable {
                entry.pointee.state = .ready
                taken[kept] = slot
                kept += 1
            } else {
                finish(slot, .failed(.outcomeUnknown))
            }
        }
        redrivenCount += UInt64(kept)
        ready.merge(UnsafeMutableBufferPointer(start: scratch, count: kept), slots)
        return kept
    }

    /// As `redrive`, but what must not be repeated stays: its answer may still come.
    func redriveStalled(_ index: Int, at now: Instant) -> Int {
        let count = gather(index) { $0.descriptor.isRepeatable }
        guard count > 0 else { return 0 }
        let taken = UnsafeMutableBufferPointer(start: scratch, count: count)
        for slot in taken {
            let request = RequestIndex(slot: UInt32(slot), attempt: slots[Int(slot)].attempt)
            keepCopy(slot, at: now)
            note(.redrivenFromStall, slot, at: now)
            slots[Int(slot)].mayHaveRun = true
            unissue(slot)
            slots[Int(slot)].state = .ready
            actions.push(.withdraw(request, on: PathIndex(index)))
        }
        redrivenCount += UInt64(count)
        ready.merge(taken, slots)
        raiseGuard(index, at: now)
        return count
    }

    /// The chosen requests in flight on a path, in admission order, in `scratch`.
    private func gather(_ index: Int, _ isWanted: (RequestSlot) -> Bool) -> Int {
        var count = 0
        var slot = hot[index].inFlight.head
        while slot >= 0 {
            if isWanted(slots[Int(slot)]) {
                scratch[count] = slot
                count += 1
            }
            slot = slots[Int(slot)].next
        }
        let slots = self.slots
        var gathered = UnsafeMutableBufferPointer(start: scratch, count: count)
        gathered.sort {
            slots[Int($0)].sequence < slots[Int($1)].sequence
        }
        return count
    }
}
