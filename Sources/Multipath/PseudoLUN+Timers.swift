public import Timebase

extension PseudoLUN {
    /// Does what is due. Early and repeated calls do no harm.
    public func timerFired(at now: Instant) {
        while delayed.first >= 0, slots[Int(delayed.first)].dueAt <= now.nanoseconds {
            let slot = delayed.first
            delayed.remove(slot, slots)
            makeReady(slot)
        }
        if controlDeadline <= now {
            for index in paths.indices { pathTimers(index, at: now) }
            dropOverdueSessions(at: now)
            endOverdueReset(at: now)
            endCopies(.quiesceTimePassed, at: now) { $0.deadline <= now }
            if dsm.nextDeadline <= now { areCandidatesStale = true }
        }
        endOverdue(at: now)
        settle(at: now)
    }

    private func pathTimers(_ index: Int, at now: Instant) {
        switch paths[index].link {
        case .down(_, let nextTry) where nextTry <= now: tryAgain(index)
        case .refused(_, let nextTry) where nextTry <= now: tryAgain(index)
        case .up: upTimers(index, at: now)
        default: break
        }
    }

    private func upTimers(_ index: Int, at now: Instant) {
        if let until = paths[index].marginalUntil, until <= now {
            paths[index].marginalUntil = nil
            post(.pathNoLongerMarginal(PathIndex(index)))
        }
        if paths[index].refreshAt <= now {
            paths[index].refreshAt =
                paths[index].carriesData ? .distantFuture : now + Self.accessStateInterval
            refreshAccessState(index, at: now)
        }
        if paths[index].transitionDeadline <= now, paths[index].accessState == .transitioning {
            let deadline = paths[index].transitionDeadline
            setAccessState(index, .standby, at: now)
            paths[index].transitionDeadline = deadline
            paths[index].refreshAt = now + Self.accessStateInterval
        }
        if paths[index].verifyAt <= now {
            scheduleVerification(index, at: now)
            let heard = Instant(nanoseconds: hot[index].lastHeard)
            let due = heard + settings.timers.pathVerifyPeriod
            if due > now, paths[index].carriesData {
                paths[index].verifyAt = due
            } else if paths[index].stalledSince == nil {
                verify(index, at: now)
            }
        }
    }

    /// Ends what is older than `command-timeout`. While no path can be hoped for, only `pdo-remove-period` counts for what
    /// waits; what is in flight on a path that may carry nothing new (drained, in standby) has its time all the same.
    private func endOverdue(at now: Instant) {
        guard commandTimeout > 0 else { return }
        var slot = oldest
        while slot >= 0 {
            let (due, overflow) = slots[Int(slot)].startedAt.addingReportingOverflow(commandTimeout)
            guard !overflow, due <= now.nanoseconds else { return }
            let younger = slots[Int(slot)].younger
            if slots[Int(slot)].state == .inFlight {
                timeOutInFlight(slot, at: now)
            } else if noPathSince == nil {
                let request = slots[Int(slot)].descriptor
                post(.requestTimedOut(request.kind, lba: request.lba, nil))
                fail(slot, .timedOut)
            }
            slot = younger
        }
    }

    private func timeOutInFlight(_ slot: Int32, at now: Instant) {
        let request = slots[Int(slot)].descriptor
        let path = PathIndex(rawValue: slots[Int(slot)].path)
        post(.requestTimedOut(request.kind, lba: request.lba, path))
        hot[path.index].errors &+= 1
        keepCopy(slot, at: now)
        unissue(slot)
        let index = RequestIndex(slot: UInt32(slot), attempt: slots[Int(slot)].attempt)
        actions.push(.withdraw(index, on: path))
        // Its answer, "aborted" or better, ends the copy.
        if request.kind.changesBlocks { actions.push(.abort(index, on: path)) }
        finish(slot, .failed(.timedOut))
        if paths[path.index].fence == .none, staleWrites.count(on: path.rawValue) > 0 {
            // The path is in use: aborting its task set would hit the others.
            paths[path.index].fence = .waiting
            post(.guardRaised(path, copies: staleWrites.count(on: path.rawValue)))
        }
    }

    /// Whose `command-timeout` comes first: of all requests, or while no path is left of those in flight; -1 for none.
    var nextToTimeOut: Int32 {
        guard noPathSince != nil else { return oldest }
        guard paths.indices.contains(where: { rows[$0].inFlight > 0 }) else { return -1 }
        var slot = oldest
        while slot >= 0, slots[Int(slot)].state != .inFlight { slot = slots[Int(slot)].younger }
        return slot
    }

    // MARK: After each change

    /// Brings everything in line with what changed: candidates, requests without a path, what waits, the
    /// next deadline. Ends every call but the hot ones.
    func settle(at now: Instant) {
        // Before the rows are brought in line: it loses paths.
        if !staleWrites.isClear { dropOverdueSessions(at: now) }
        refreshCandidates(at: now)
        checkAvailability(at: now)
        if bestGrade == .unusable || transition != nil { considerTransition(at: now) }
        if bestGrade > .unusable {
            for index in paths.indices where paths[index].stalledSince != nil {
                let count = redriveStalled(index, at: now)
                if count > 0 { post(.pathStalled(PathIndex(index), redriven: count)) }
            }
        }
        if isClosed || isLUNFailed || isExpired {
            failWaiting(isClosed ? .closed : isLUNFailed ? .lunFailed : .noPathsAvailable)
        }
        if blockedCount > 0, !staleWrites.isClear { escalateFences(at: now) }
        pump(at: now)
        updateDeadline()
    }

    private func grade(of record: PathRecord) -> PathGrade {
        guard case .up = record.link, !record.isDrained, record.stalledSince == nil, record.isCapacityVerified
        else { return .unusable }
        let grade = dsm.grade(
            of: record.accessState, isPreferred: record.isPreferred && settings.asymmetricAccess.followsPreferredBit)
        return record.marginalUntil != nil ? min(grade, .marginal) : grade
    }

    /// Brings the candidate rows in line with the paths and tells the DSM where any changed.
    func refreshCandidates(at now: Instant) {
        var best = PathGrade.unusable
        for index in paths.indices {
            let record = paths[index]
            let row = rows + index
            let grade = grade(of: record)
            best = max(best, grade)
            if row.pointee.grade != grade {
                if row.pointee.grade == .unusable { row.pointee.usableSince = now }
                row.pointee.grade = grade
                areCandidatesStale = true
            }
            if row.pointee.role != record.settings.role || row.pointee.weight != record.settings.weight
                || row.pointee.isRemoved != record.isRemoved
            {
                row.pointee.role = record.settings.role
                row.pointee.weight = record.settings.weight
                row.pointee.isRemoved = record.isRemoved
                areCandidatesStale = true
            }
            let state = record.state
            if state != record.shownState {
                if state.name != record.shownState.name { paths[index].stateSince = now }
                paths[index].shownState = state
            }
        }
        bestGrade = best
        guard areCandidatesStale else { return }
        areCandidatesStale = false
        let order = paths.indices.sorted {
            (paths[$0].settings.order, $0) < (paths[$1].settings.order, $1)
        }
        for (rank, index) in order.enumerated() { rows[index].order = Int32(rank) }
        dsm.candidatesChanged(table, at: now)
        noteCarrier(at: now)
    }

    /// For fail-over-only: tells when traffic left a path that still works.
    func noteCarrier(at now: Instant) {
        guard dsm.policy.kind == .failOverOnly else { return }
        let carrier = dsm.explainPath(for: PolicyRequest(), from: table, at: now).index
        guard carrier >= 0, carrier != lastCarrier else { return }
        if lastCarrier >= 0, rows[Int(lastCarrier)].grade > .unusable, rows[Int(carrier)].wasLost {
            post(.failBack(from: PathIndex(rawValue: lastCarrier), to: PathIndex(rawValue: carrier)))
        }
        lastCarrier = carrier
    }

    /// Whether a path that carries nothing now may do so again without being connected anew.
    private var isThereHope: Bool {
        paths.contains {
            guard !$0.isDrained else { return false }
            if $0.link == .up { return $0.stalledSince != nil || $0.accessState == .transitioning }
            return $0.link == .probing && $0.isRechecking
        }
    }

    private func checkAvailability(at now: Instant) {
        if bestGrade > .unusable || isThereHope {
            if bestGrade > .unusable { hadPath = true }
            guard noPathSince != nil else { return }
            noPathSince = nil
            isExpired = false
            // Their time begins anew: nothing could be done about them.
            var slot = oldest
            while slot >= 0 {
                slots[Int(slot)].startedAt = now.nanoseconds
                slot = slots[Int(slot)].younger
            }
            post(.pathsAvailableAgain)
            return
        }
        if noPathSince == nil {
            noPathSince = now
            if hadPath { post(.allPathsLost) }
            refreshAccessStates(at: now)
        }
        // A standby path may be made active by the array any moment now.
        for index in paths.indices where paths[index].link == .up && !paths[index].carriesData {
            paths[index].refreshAt = min(paths[index].refreshAt, now + Self.accessStateInterval)
        }
        guard !isExpired, let since = noPathSince, case .after(let period) = settings.timers.pdoRemovePeriod,
            since + period <= now
        else { return }
        isExpired = true
        let failed = failWaiting(.noPathsAvailable)
        post(.removePeriodExpired(failedRequests: failed))
    }

    /// Ends everything that is not in flight, oldest first.
    @discardableResult
    func failWaiting(_ failure: RequestFailure) -> Int {
        var count = 0
        var slot = oldest
        while slot >= 0 {
            let younger = slots[Int(slot)].younger
            if slots[Int(slot)].state != .inFlight {
                fail(slot, failure)
                count += 1
            }
            slot = younger
        }
        return count
    }

    func updateDeadline() {
        var deadline = min(dsm.nextDeadline, staleWrites.nextDeadline, resetDeadline)
        if bestGrade == .unusable { deadline = min(deadline, transitionAt) }
        if let since = noPathSince, !isExpired, case .after(let period) = settings.timers.pdoRemovePeriod {
            deadline = min(deadline, since + period)
        }
        if !staleWrites.isClear || paths.contains(where: { $0.fence == .aborting }) {
            for index in paths.indices { deadline = min(deadline, sessionDropDeadline(index)) }
        }
        for record in paths {
            switch record.link {
            case .down(_, let nextTry), .refused(_, let nextTry): deadline = min(deadline, nextTry)
            case .up:
                deadline = min(deadline, record.verifyAt, record.refreshAt)
                deadline = min(deadline, record.marginalUntil ?? .distantFuture)
                if record.accessState == .transitioning {
                    deadline = min(deadline, record.transitionDeadline)
                }
            case .connecting, .probing, .fencing, .takenOut, .removed: break
            }
        }
        controlDeadline = deadline
    }

    /// Ends the LUN: whatever waits fails now, whatever is in flight as `closed` when it comes back with
    /// an error. To close cleanly, wait until ``requestCount`` is 0 first.
    public func close(at now: Instant) {
        guard !isClosed else { return }
        isClosed = true
        settle(at: now)
    }
}
