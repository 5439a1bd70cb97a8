import SCSI
import Timebase

extension PseudoLUN {
    /// An attempt ended in anything but GOOD: asks the DSM what that means and does it.
    func failedAttempt(_ slot: Int32, _ outcome: PathOutcome, at now: Instant) {
        let entry = slots + Int(slot)
        let path = Int(entry.pointee.path)
        let request = entry.pointee.descriptor
        let disposition = dsm.disposition(of: outcome, for: request, on: PathIndex(path))
        var mayHaveRun = disposition.mayHaveRun
        var mayRunLater = false
        if case .returned(let wasSent, let reason) = outcome {
            mayHaveRun = wasSent
            // A kernel device that says EIO has ended the command, and so has a session that lost it with one of its
            // connections; nothing of it is still to come.
            mayRunLater = wasSent && reason != .inputOutputError && reason != .taskLost
            if reason == .taskLost { redrivenCount += 1 }
        } else {
            hot[path].lastHeard = now.nanoseconds
        }
        if mayHaveRun { entry.pointee.mayHaveRun = true }
        if disposition.action != .complete { note(.error(outcome), slot, at: now) }
        // The unit attention comes with the first command after what caused it: those before it may have been ended.
        if disposition.notice?.endsCommands == true { askBack(path, before: slot) }
        apply(disposition, to: path, at: now)
        if case .failPath(let reason) = disposition.action {
            return failPath(slot, path, reason, outcome, mayRunLater: mayRunLater, mayHaveRun, at: now)
        }
        if mayRunLater { keepCopy(slot, at: now) }
        unissue(slot)
        if case .complete = disposition.action {
            hot[path].completed &+= 1
            finish(slot, .done)
        } else {
            hot[path].errors &+= 1
            decide(slot, disposition, outcome, mayHaveRun: mayHaveRun, at: now)
        }
        settle(at: now)
    }

    /// The path is lost by what an attempt on it showed.
    private func failPath(
        _ slot: Int32, _ path: Int, _ reason: PathFailureReason, _ outcome: PathOutcome,
        mayRunLater: Bool, _ mayHaveRun: Bool, at now: Instant
    ) {
        let (failure, isTransportUp) =
            switch outcome {
            // A session that takes no more commands (a logout is under way) still touches the buffers of those
            // it has; that it is over is told by pathFailed.
            case .returned(_, let returned): (PathFailure(returned), paths[path].transport == .iSCSI && paths[path].isTransportUp)
            case .status(_, let sense): (PathFailure(reason, detail: sense.map { "\($0)" } ?? ""), true)
            case .good, .targetFailure, .short: (PathFailure(reason), true)
            }
        let unanswered = unansweredSince(path)
        // It is off the path's books before the others are re-driven, so that it keeps its own answer.
        if mayRunLater { keepCopy(slot, at: now) }
        unissue(slot)
        hot[path].errors &+= 1
        if mayHaveRun, !slots[Int(slot)].descriptor.isRepeatable {
            finish(slot, .failed(.outcomeUnknown))
        } else {
            redrivenCount += 1
            makeReady(slot)
        }
        losePath(path, failure, isTransportUp: isTransportUp, alreadyRedriven: 1, unansweredSince: unanswered, at: now)
        settle(at: now)
    }

    private func decide(
        _ slot: Int32, _ disposition: ErrorDisposition, _ outcome: PathOutcome, mayHaveRun: Bool,
        at now: Instant
    ) {
        let entry = slots + Int(slot)
        let path = entry.pointee.path
        switch disposition.action {
        case .complete, .failPath: preconditionFailure("handled before")
        case .surface:
            finish(slot, .failed(failure(of: outcome)))
        case .failLUN:
            finish(slot, .failed(failure(of: outcome)))
            failLUN(Int(path), at: now)
        case .retrySamePath, .retryOtherPath:
            if mayHaveRun, !entry.pointee.descriptor.isRepeatable {
                return finish(slot, .failed(failure(of: outcome)))
            }
            guard outcome.isLostWithConnection || countRetry(slot, disposition) else {
                return finish(slot, .failed(failure(of: outcome)))
            }
            if case .retrySamePath = disposition.action {
                entry.pointee.wanted = path
            } else {
                entry.pointee.avoided = path
            }
            let pause = pauseNanoseconds(slot, disposition)
            if pause == 0 { return makeReady(slot) }
            entry.pointee.state = .delayed
            entry.pointee.dueAt = now.nanoseconds.addingReportingOverflow(pause).partialValue
            delayed.insert(slot, slots)
        }
    }

    /// Counts the retry; false where there have been enough. A lost connection is as little the device's word as a lost path:
    /// what it took is done again however often that happens, and not counted.
    private func countRetry(_ slot: Int32, _ disposition: ErrorDisposition) -> Bool {
        let entry = slots + Int(slot)
        let isTimed = disposition.delay != .none
        if !disposition.usesRetry, isTimed || Int(entry.pointee.freeRetries) < Self.freeRetryLimit {
            entry.pointee.freeRetries = min(entry.pointee.freeRetries, .max - 1) + 1
            return true
        }
        guard Int(entry.pointee.retries) < min(max(settings.timers.retryCount, 0), Int(UInt16.max)) else { return false }
        entry.pointee.retries += 1
        return true
    }

    private func pauseNanoseconds(_ slot: Int32, _ disposition: ErrorDisposition) -> UInt64 {
        switch disposition.delay {
        case .none: return 0
        case .retryInterval:
            // Where nothing else bounds the retries, a target would otherwise be asked as fast as it answers.
            let least: Int64 = disposition.usesRetry ? 0 : 1_000_000
            return UInt64(max(settings.timers.retryInterval.wholeNanoseconds, least))
        case .backOff(let milliseconds):
            let step = min(Int(slots[Int(slot)].freeRetries) + Int(slots[Int(slot)].retries), 11)
            return min(UInt64(max(milliseconds, 1)) << UInt64(max(step, 1) - 1), 1000) * 1_000_000
        }
    }

    func failure(of outcome: PathOutcome) -> RequestFailure {
        switch outcome {
        case .good: preconditionFailure("GOOD is no failure")
        case .status(let status, let sense): .status(status, sense)
        case .targetFailure(let code): .targetFailure(code)
        case .short(let count): .shortTransfer(count)
        case .returned: .outcomeUnknown
        }
    }

    /// Every request fails from now on, those in flight when they come back.
    private func failLUN(_ path: Int, at now: Instant) {
        guard !isLUNFailed else { return }
        isLUNFailed = true
        post(.lunFailed(PathIndex(path)))
        failWaiting(.lunFailed)
    }

    // MARK: Effects on the path

    /// What a probe swallowed is told and acted on as if a request had met it. A full probe has asked
    /// everything anew already; only that the capacity may differ must be known before it is judged.
    func noteUnitAttentions(_ all: [SenseData], on path: Int, isFullProbe: Bool, at now: Instant) {
        for sense in all {
            var disposition = dsm.disposition(
                of: .status(.checkCondition, sense), for: RequestDescriptor(kind: .other),
                on: PathIndex(path))
            if isFullProbe { disposition.effects = [] }
            if disposition.notice?.endsCommands == true { askBack(path) }
            // A session's first command always meets a reset; that is no news.
            if isFullProbe, disposition.notice == .reset { continue }
            apply(disposition, to: path, at: now)
        }
    }

    func apply(_ disposition: ErrorDisposition, to path: Int, at now: Instant) {
        let effects = disposition.effects
        if let notice = disposition.notice {
            post(.notice(PathIndex(path), notice))
            if notice == .capacityChanged {
                for other in paths.indices { paths[other].expectsNewCapacity = true }
            }
        }
        if effects.isEmpty { return }
        if effects.contains(.shrinkQueue) { shrinkQueue(path) }
        if effects.contains(.transitioning) { setAccessState(path, .transitioning, at: now) }
        if effects.contains(.standby) { setAccessState(path, .standby, at: now) }
        if effects.contains(.unavailable) { setAccessState(path, .unavailable, at: now) }
        if effects.contains(.reprobe) { recheck(path, at: now) }
        if effects.contains(.refreshAccessStates) { refreshAccessStates(at: now) }
        if effects.contains(.verify) { verify(path, at: now) }
    }

    /// Half of what is outstanding: the device said that it was too much (multiplicative decrease).
    private func shrinkQueue(_ path: Int) {
        let row = rows + path
        // One BUSY answers for a whole burst: until the queue is down to the limit, more say nothing new.
        guard row.pointee.depthLimit == .max || row.pointee.inFlight <= row.pointee.depthLimit else { return }
        let limit = max(1, min(row.pointee.depthLimit, row.pointee.inFlight) / 2)
        hot[path].growth = 0
        guard limit != row.pointee.depthLimit else { return }
        row.pointee.depthLimit = limit
        post(.queueShrunk(PathIndex(path), to: Int(limit)))
    }

    /// One more for each full queue that went well (additive increase).
    func growQueue(_ path: Int) {
        hot[path].growth += 1
        guard hot[path].growth >= rows[path].depthLimit else { return }
        hot[path].growth = 0
        rows[path].depthLimit += 1
        if Int(rows[path].depthLimit) >= requestCapacity { rows[path].depthLimit = .max }
    }
}
