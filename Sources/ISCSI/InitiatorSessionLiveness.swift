public import Timebase

// Signs of life. A connection is judged by what came from it, never by a ping that waits behind data:
// half a silence timeout without a byte while something is owed sends a NOP-Out, the whole of it asks
// what TCP knows. Not acknowledged: dead. Acknowledged but mute: stalled. Speaking, but no command
// moves: slow.
extension InitiatorSession {
    /// When ``timerFired(at:transport:)`` is next of use; `.distantFuture` where never. It moves with
    /// every byte and command, but calling early is harmless: a timer that fires at an older
    /// answer and is then set anew costs less than one that is moved each time.
    public var nextDeadline: Instant {
        guard !isOver else { return .distantFuture }
        var deadline = Instant.distantFuture
        if isFullFeature {
            if table.commandCount > 0 { deadline = overdueCheckAt }
            if table.commandCount > 0 || refusedCommand { deadline = min(deadline, windowWatch.checkAt) }
            deadline = min(deadline, answerCheckAt)
        }
        for index in 0..<connectionCount { deadline = min(deadline, self.deadline(of: index)) }
        // During a logout nothing is recovered any more.
        if recoveryCount > 0, isFullFeature { deadline = min(deadline, recoveryDeadline) }
        return deadline
    }

    private func deadline(of index: Int) -> Instant {
        let connection = connections + index
        let liveness = connection.pointee.liveness
        switch connection.pointee.phase {
        case .closed: return .distantFuture
        case .loggingIn, .loggingOut: return liveness.phaseDeadline
        case .leaving: return min(connection.pointee.leaveDeadline, liveDeadline(of: index))
        case .fullFeature: return liveDeadline(of: index)
        }
    }

    @inline(__always)
    private func liveDeadline(of index: Int) -> Instant {
        let connection = connections + index
        let liveness = connection.pointee.liveness
        if let stalledSince = liveness.stalledSince {
            return min(min(stalledSince + timing.command, pingDeadline(liveness)), liveness.judgeAt ?? .distantFuture)
        }
        guard connection.pointee.owedCount > 0 else { return verifyDeadline(liveness) }
        let silentSince = max(liveness.lastByteAt, liveness.owedSince)
        var deadline = silentSince + (liveness.pingSlot == nil ? timing.halfSilence : timing.silence)
        if let judgeAt = liveness.judgeAt { deadline = max(deadline, judgeAt) }
        if connection.pointee.commandCount > 0 {
            deadline = min(deadline, progressDeadline(of: index))
        }
        return min(deadline, pingDeadline(liveness))
    }

    /// A target that sends pings of its own but answers none, and no command either, does not read us: it may wait
    /// for the rest of a PDU whose length was damaged.
    @inline(__always)
    private func pingDeadline(_ liveness: Liveness) -> Instant {
        // Half a silence later than the ping, so that a stall is judged from its own beginning first.
        liveness.pingSlot == nil ? .distantFuture : liveness.pingSentAt + timing.command + timing.halfSilence
    }

    /// When an idle connection is next asked; later where the ping found no room before.
    @inline(__always)
    private func verifyDeadline(_ liveness: Liveness) -> Instant {
        max(liveness.lastByteAt + timing.verify, liveness.judgeAt ?? .zero)
    }

    /// When the lack of progress is next worth a look.
    private func progressDeadline(of index: Int) -> Instant {
        let liveness = connections[index].liveness
        if liveness.isSlow { return .distantFuture }
        return max(liveness.lastProgressAt + timing.silence, liveness.lookAgainAt)
    }

    /// Looks at every connection. `transport` reports what TCP knows of one; nil where it knows nothing.
    public mutating func timerFired(at now: Instant, transport: (ConnectionIndex) -> TransportReport?) {
        for index in 0..<connectionCount {
            guard !isOver else { return }
            let c = ConnectionIndex(rawValue: index)
            switch connections[index].phase {
            case .closed: continue
            case .loggingIn:
                if now >= connections[index].liveness.phaseDeadline { failConnection(c, .loginTimeout) }
            case .loggingOut:
                if now >= connections[index].liveness.phaseDeadline { failConnection(c, .logoutUnanswered) }
            case .fullFeature, .leaving:
                judgeSilence(of: c, at: now, transport: transport)
                if !isOver, connections[index].phase != .closed { judgeProgress(of: c, at: now) }
            }
        }
        if recoveryCount > 0, isFullFeature { recoveryTimerFired(at: now) }
        if leavingCount > 0 { advanceLeaving(at: now) }
        if isFullFeature, now >= overdueCheckAt { reportOverdue(at: now) }
        if isFullFeature, now >= answerCheckAt { checkAnswers(at: now) }
        if isFullFeature, now >= windowWatch.checkAt { watchWindow(at: now) }
    }

    private mutating func judgeSilence(
        of c: ConnectionIndex, at now: Instant, transport: (ConnectionIndex) -> TransportReport?
    ) {
        let connection = connections + c.rawValue
        let liveness = connection.pointee.liveness
        if now >= pingDeadline(liveness) { return failConnection(c, .commandTimeout) }
        if let stalledSince = liveness.stalledSince {
            if now >= stalledSince + timing.command {
                failConnection(c, .commandTimeout)
            } else if let judgeAt = liveness.judgeAt, now >= judgeAt {
                connection.pointee.liveness.judgeAt = now + timing.halfSilence
                if let report = transport(c), isDead(report) {
                    failConnection(c, .dead)
                } else if anotherSpoke(than: c, since: stalledSince) {
                    failConnection(c, .silent)
                }
            }
            return
        }
        if connection.pointee.owedCount == 0 {
            if now >= verifyDeadline(liveness) { beginPing(on: c, at: now, transport: transport) }
            return
        }
        let silentSince = max(liveness.lastByteAt, liveness.owedSince)
        if liveness.pingSlot == nil, now >= silentSince + timing.halfSilence {
            beginPing(on: c, at: now, transport: transport)
        }
        guard now >= silentSince + timing.silence, now >= liveness.judgeAt ?? .zero else { return }
        judge(c, at: now, report: transport(c))
    }

    private mutating func beginPing(
        on c: ConnectionIndex, at now: Instant, transport: (ConnectionIndex) -> TransportReport?
    ) {
        let connection = connections + c.rawValue
        guard sendPing(on: c, at: now) else {
            // No room in the output: there is enough under way for TCP to be judged by.
            connection.pointee.liveness.judgeAt = now + timing.halfSilence
            if connection.pointee.owedCount == 0 { pingWasRefused(on: c, at: now, report: transport(c)) }
            return
        }
        let report = transport(c)
        connection.pointee.liveness.acknowledgedPosition = acknowledgedPosition(c, report)
        if let report, report.unacknowledgedByteCount > 0 { connection.pointee.liveness.pingWaitedBehindData = true }
    }

    /// An idle connection cannot even be asked: the target does not take what it asked for, or keeps all answers. Bytes of its own
    /// begin the time anew, as for any verification.
    private mutating func pingWasRefused(on c: ConnectionIndex, at now: Instant, report: TransportReport?) {
        let connection = connections + c.rawValue
        if let report, isDead(report) { return failConnection(c, .dead) }
        var since = connection.pointee.liveness.pingRefusedAt ?? now
        if since < connection.pointee.liveness.lastByteAt { since = now }
        connection.pointee.liveness.pingRefusedAt = since
        if now >= since + timing.command { failConnection(c, .commandTimeout) }
    }

    /// The position in our stream up to which the peer's TCP has acknowledged.
    private func acknowledgedPosition(_ c: ConnectionIndex, _ report: TransportReport?) -> UInt64 {
        guard let report else { return .max }
        let sent = connections[c.rawValue].output.sentPosition
        return sent - min(sent, UInt64(max(report.unacknowledgedByteCount, 0)))
    }

    /// Nothing came for the whole silence timeout.
    private mutating func judge(_ c: ConnectionIndex, at now: Instant, report: TransportReport?) {
        let connection = connections + c.rawValue
        if let report {
            if isDead(report) {
                failConnection(c, .dead)
                return
            }
            // Our own data is still on its way and the ping behind it: the peer could not answer yet.
            let acknowledged = acknowledgedPosition(c, report)
            let moved = acknowledged > connection.pointee.liveness.acknowledgedPosition
            let isDelivered = acknowledged >= connection.pointee.liveness.pingEndPosition
            connection.pointee.liveness.acknowledgedPosition = acknowledged
            if connection.pointee.liveness.pingSlot != nil, connection.pointee.liveness.pingWaitedBehindData {
                if !isDelivered, moved {
                    connection.pointee.liveness.judgeAt = now + timing.halfSilence
                    return
                }
                if isDelivered, moved, !connection.pointee.liveness.pingDeliveryNoticed,
                    report.sinceLastAcknowledgement < settings.silenceTimeout / 4
                {
                    connection.pointee.liveness.pingDeliveryNoticed = true
                    connection.pointee.liveness.judgeAt = now + timing.quarterSilence
                    return
                }
            }
        }
        connection.pointee.liveness.stalledSince = now
        connection.pointee.liveness.judgeAt = now + timing.halfSilence
        events.append(.stalled(c))
        // Whether it is the connection or the whole target that is mute shows in what the others say.
        for index in 0..<connectionCount where index != c.rawValue && connections[index].phase == .fullFeature {
            if connections[index].liveness.pingSlot == nil { _ = sendPing(on: ConnectionIndex(rawValue: index), at: now) }
        }
    }

    /// Whether the target spoke on another connection of the session: then it is not the target that is mute.
    private func anotherSpoke(than c: ConnectionIndex, since moment: Instant) -> Bool {
        (0..<connectionCount).contains {
            $0 != c.rawValue && connections[$0].phase == .fullFeature && connections[$0].liveness.lastByteAt >= moment
        }
    }

    /// A peer's kernel acknowledges, or answers a zero-window probe, even for a stopped process; one
    /// that leaves retransmissions unanswered for half the silence timeout is not there.
    private func isDead(_ report: TransportReport) -> Bool {
        report.unacknowledgedByteCount > 0 && report.unansweredRetransmissions > 0
            && report.sinceLastAcknowledgement >= settings.silenceTimeout / 2
    }

    /// The target speaks; do its commands move?
    private mutating func judgeProgress(of c: ConnectionIndex, at now: Instant) {
        let connection = connections + c.rawValue
        let liveness = connection.pointee.liveness
        guard connection.pointee.commandCount > 0, liveness.stalledSince == nil, now >= progressDeadline(of: c.rawValue)
        else { return }
        if liveness.lastByteAt > liveness.lastProgressAt {
            connection.pointee.liveness.isSlow = true
            events.append(.slow(c, isSlow: true))
        } else {
            // Nothing came at all: that is silence, judged above.
            connection.pointee.liveness.lookAgainAt = now + timing.quarterSilence
        }
    }

    /// Names the commands that have been open for the command timeout; they are in order of age.
    private mutating func reportOverdue(at now: Instant) {
        overdueCheckAt = .distantFuture
        var next = table.firstSlot
        while let slot = next {
            next = table.slotAfter(slot)
            let task = table.slots + slot
            guard task.pointee.kind == .command, !task.pointee.isOverdue else { continue }
            guard now >= task.pointee.submittedAt + timing.command else {
                overdueCheckAt = task.pointee.submittedAt + timing.command
                return
            }
            task.pointee.isOverdue = true
            events.append(.commandOverdue(token: task.pointee.token))
        }
    }

    /// A byte came on a stalled connection.
    mutating func resume(_ c: ConnectionIndex) {
        connections[c.rawValue].liveness.stalledSince = nil
        connections[c.rawValue].liveness.judgeAt = nil
        events.append(.resumed(c))
    }

    mutating func noLongerSlow(_ c: ConnectionIndex) {
        connections[c.rawValue].liveness.isSlow = false
        connections[c.rawValue].liveness.lookAgainAt = .zero
        events.append(.slow(c, isSlow: false))
    }
}

/// The settings' durations in nanoseconds: `Duration` arithmetic is 128 bits wide, and deadlines are
/// asked for at every turn.
struct SessionTiming {
    let silence: Nanoseconds
    let halfSilence: Nanoseconds
    let quarterSilence: Nanoseconds
    let command: Nanoseconds
    let twiceCommand: Nanoseconds
    let halfCommand: Nanoseconds
    let eighthCommand: Nanoseconds
    let verify: Nanoseconds
    let login: Nanoseconds
    let recovery: Nanoseconds

    init(_ settings: SessionSettings) {
        silence = Nanoseconds(settings.silenceTimeout)
        halfSilence = Nanoseconds(settings.silenceTimeout / 2)
        quarterSilence = Nanoseconds(settings.silenceTimeout / 4)
        let isBounded = settings.commandTimeout > .zero
        command = isBounded ? Nanoseconds(settings.commandTimeout) : .unbounded
        twiceCommand = isBounded ? Nanoseconds(settings.commandTimeout * 2) : .unbounded
        halfCommand = isBounded ? Nanoseconds(settings.commandTimeout / 2) : .unbounded
        eighthCommand = isBounded ? Nanoseconds(settings.commandTimeout / 8) : .unbounded
        verify = Nanoseconds(settings.verifyPeriod)
        login = Nanoseconds(settings.loginTimeout)
        recovery = Nanoseconds(settings.connectionRecoveryTimeout)
    }
}

/// A span of time, never negative.
struct Nanoseconds {
    let count: UInt64

    /// At least a nanosecond, so that no deadline is due for ever.
    init(_ duration: Duration) { count = UInt64(max(duration.wholeNanoseconds, 1)) }

    private init(count: UInt64) { self.count = count }

    /// It never passes.
    static let unbounded = Nanoseconds(count: .max)

    @inline(__always)
    static func + (instant: Instant, step: Nanoseconds) -> Instant {
        let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(step.count)
        return overflow ? .distantFuture : Instant(nanoseconds: sum)
    }
}
