import AsyncIO
package import ISCSI
import Multipath
import Timebase

/// The connections of one session, and the policy that chooses among them: the same policies that choose
/// a LUN's path, on a table whose rows are connections.
final class ConnectionGroup {
    /// In configured order; a row of the table each.
    let members: [PathConnection]
    private(set) var policy: PolicySettings
    private var rule: any LoadBalancePolicy
    private let table: CandidateTable
    private let loads: UnsafeMutablePointer<LoadCounters>
    private unowned(unsafe) let path: ISCSIPath
    private var timers: Timers
    /// The member that leads the present session.
    private var leader = 0
    /// Members that were tried as the leader in this round.
    private var triedLeaders = 1
    /// Connections that the present session may have.
    private var granted = 1
    private var isToldLimited = false
    private var isToldStalled = false
    private var isToldSlow = false

    init(_ settings: ISCSIPathSettings, path: ISCSIPath) {
        self.path = path
        timers = settings.timers
        policy = settings.connectionPolicy
        rule = policy.makePolicy()
        members = settings.connections.enumerated().map { PathConnection(number: $0 + 1, settings: $1, path: path) }
        let count = members.count
        loads = .allocate(capacity: count)
        loads.initialize(repeating: LoadCounters(), count: count)
        table = CandidateTable(rows: .allocate(capacity: count), count: count)
        for (row, member) in members.enumerated() {
            var candidate = PathCandidate(
                role: member.settings.role, weight: member.settings.weight, order: Int32(row), load: loads + row)
            candidate.depthLimit = .max
            (table.rows + row).initialize(to: candidate)
        }
    }

    deinit {
        table.rows.deallocate()
        loads.deallocate()
    }

    private var now: Instant { path.port.now }

    // MARK: choosing

    /// The member for a command, nil where none can take one now.
    func choose(_ request: SCSICommandRequest) -> PathConnection? {
        for row in 0..<table.count { loads[row].requests = path.session.outstandingCommandCount(on: members[row].index) }
        let selection = rule.select(
            PolicyRequest(byteCount: UInt32(truncatingIfNeeded: request.byteCount), isRead: request.direction != .write),
            from: table, at: now)
        return selection.isChosen ? members[Int(selection.index)] : nil
    }

    func setPolicy(_ new: PolicySettings) {
        policy = new
        rule = new.makePolicy()
        rule.candidatesChanged(table, at: now)
    }

    func adoptTimers(_ new: Timers) { timers = new }

    /// A connection's state has changed: the policy looks at all of them anew.
    private func refresh() {
        regrade()
        tellLiveness()
    }

    private func regrade() {
        for (row, member) in members.enumerated() {
            let isUsable = member.isOpen && !member.isStalled
            let candidate = table.rows + row
            if isUsable, candidate.pointee.grade == .unusable { candidate.pointee.usableSince = now }
            candidate.pointee.grade = isUsable ? .optimized : .unusable
            candidate.pointee.wasLost = member.wasLost
        }
        rule.candidatesChanged(table, at: now)
    }

    /// Any connection that requests can go out on; nil where there is none at the moment. The session is asked, which knows
    /// of a loss before it is heard of here.
    var anyOpen: ConnectionIndex? {
        let open = members.filter { $0.isOpen && path.session.isOpen($0.index) }
        return (open.first { !$0.isStalled } ?? open.first)?.index
    }

    // MARK: the leading connection

    var leading: ISCSIConnectionSettings { members[leader].settings }

    /// The owner asks for a session: the connection that led last, and did not fail, leads again.
    func beginRound() {
        triedLeaders = 1
        // There is always one that is not taken out.
        while members[leader].isTakenOut { leader = (leader + 1) % members.count }
    }

    var canTryAnotherLeader: Bool {
        triedLeaders < Set(members.filter { !$0.isTakenOut }.map { ConnectionPlace($0.settings) }).count
    }

    /// The next one in order with other addresses.
    func tryAnotherLeader() {
        triedLeaders += 1
        let place = ConnectionPlace(leading)
        for _ in members.indices {
            leader = (leader + 1) % members.count
            if !members[leader].isTakenOut, ConnectionPlace(leading) != place { return }
        }
    }

    func startLeading(to destination: SocketAddress) -> SocketID {
        granted = 1
        isToldStalled = false
        isToldSlow = false
        for (row, member) in members.enumerated() {
            member.index = ConnectionIndex(rawValue: (row - leader + members.count) % members.count)
            member.state = member.isTakenOut ? .takenOut : .idle
            member.isStalled = false
            member.isSlow = false
            member.isRecovering = false
            member.deadline = .distantFuture
            member.forgetReturns()
            member.sendIsRequested = false
        }
        let member = members[leader]
        let socket = path.port.connect(to: destination, from: member.settings.source, handler: member)
        member.state = .connecting(socket)
        return socket
    }

    func sessionLoggedIn(_ login: LoginResult) {
        granted = min(members.count, login.parameters.maxConnections)
        if granted < members.count, !isToldLimited {
            path.tell(.limited(asked: members.count, granted: granted))
        }
        isToldLimited = granted < members.count
        opened(members[leader])
        for member in members where member !== members[leader] && !member.isTakenOut {
            if member.index.rawValue < granted { connect(member) } else { member.state = .notGranted }
        }
    }

    /// Every socket goes, with the session.
    func closeAll(_ mode: CloseMode?) {
        for member in members {
            if let socket = member.socket { path.port.close(socket, mode: mode ?? .reset) }
            if member.isTakenOut {
                member.state = .takenOut
            } else if case .failed = member.state {} else {
                member.state = .idle
            }
            member.deadline = .distantFuture
            member.isRecovering = false
        }
        // Whoever is told of the session's end need not hear of this.
        isToldStalled = false
        isToldSlow = false
        regrade()
    }

    // MARK: the others

    private func member(_ c: ConnectionIndex) -> PathConnection { members[(c.rawValue + leader) % members.count] }

    private func connect(_ member: PathConnection) {
        guard member.socket == nil else { return }
        member.sendIsRequested = false
        member.isStalled = false
        member.state = .connecting(
            path.port.connect(to: member.settings.portal, from: member.settings.source, handler: member))
        member.deadline = now + path.settings.session.loginTimeout
    }

    private func opened(_ member: PathConnection) {
        guard let socket = member.socket else { return }
        member.state = .open(socket)
        member.deadline = .distantFuture
        member.openedAt = now
        member.schedule.reset()
        guard !member.isTakenOut else { return leave(member, atOnce: false) }
        if member.isToldLost {
            member.isToldLost = false
            path.tell(.regained(member.number))
        }
        refresh()
    }

    /// Out of use; its socket is closed.
    private func failed(_ member: PathConnection, _ failure: PathFailure) {
        if let socket = member.socket { path.port.close(socket, mode: .reset) }
        let failure = member.isTakenOut ? PathFailure(.takenOut) : failure
        member.state = member.isTakenOut ? .takenOut : .failed(failure)
        member.wasLost = true
        member.isStalled = false
        member.isSlow = false
        member.deadline = .distantFuture
        if !member.isToldLost {
            member.isToldLost = true
            path.tell(.lost(member.number, failure))
        }
        refresh()
    }

    /// The transport of a connection after the leading one came up, or any one's that is reinstated.
    func connected(_ member: PathConnection) {
        member.deadline = .distantFuture
        path.session.connectionOpened(member.index, at: now)
    }

    func closed(_ member: PathConnection, _ reason: SocketCloseReason, wasConnecting: Bool) {
        path.session.connectionClosed(member.index, reason: ConnectionFailure(reason), at: now)
        // Where the session had no part in it yet, it says nothing of it either.
        if wasConnecting, !member.isRecovering {
            failed(member, PathFailure(reason))
            tryLater(member)
        }
    }

    /// A connection that is lost comes back at once. One that was of no use between its login and its loss, and again when it had
    /// come back, has a network that lets nothing but logins through: it comes back after pauses that grow.
    private func scheduleReturn(of member: PathConnection) {
        if path.session.hasServed(member.index) || now >= member.openedAt + timers.pathRecoveryIntervalMaximum {
            member.forgetReturns()
        } else if member.wasOfNoUse {
            member.returnsAt = now + member.returnSchedule.nextPause(timers)
        } else {
            member.wasOfNoUse = true
        }
    }

    private func tryLater(_ member: PathConnection) {
        guard !member.isRecovering, !member.isTakenOut, member.index.rawValue < granted else { return }
        member.deadline = now + member.schedule.nextPause(timers)
    }

    /// What the session says of its connections.
    func handle(_ event: SessionEvent) {
        switch event {
        case .connectionAdded(let c): opened(member(c))
        case .connectionFailed(let c, let reason):
            let member = member(c)
            failed(member, PathFailure(reason))
            tryLater(member)
        case .connectionLost(let c, let reason):
            let member = member(c)
            member.isRecovering = true
            scheduleReturn(of: member)
            failed(member, PathFailure(reason))
            path.session.beginRecovery(c, at: now)
        case .connectionWanted(let c) where member(c).isTakenOut || now < member(c).returnsAt:
            // Another connection says at the target that it is ended.
            path.session.connectionClosed(c, reason: .closedLocally, at: now)
        case .connectionWanted(let c): connect(member(c))
        case .connectionRecovered(let c):
            let member = member(c)
            member.isRecovering = false
            if member.socket == nil, !member.isTakenOut { member.deadline = max(now, member.returnsAt) }
        case .connectionLeaving(let c):
            let member = member(c)
            if let socket = member.socket { member.state = .leaving(socket) }
            refresh()
        case .connectionRemoved(let c):
            let member = member(c)
            if let socket = member.socket { path.port.close(socket, mode: .graceful) }
            failed(closedGracefully: member)
        default: break
        }
    }

    private func failed(closedGracefully member: PathConnection) {
        member.state = .idle
        failed(member, PathFailure(.logoutRequested))
        tryLater(member)
    }

    // MARK: by hand

    /// Takes a connection out, or back. What it has under way at `.fail` is done again over the others; `.drain` lets it end
    /// first. Either way it is logged out (reason code 1) and the session goes on.
    func change(_ number: Int, _ action: ControlRequest.PathAction) throws(ControlFailure) {
        guard number >= 1, number <= members.count else {
            throw ControlFailure(.noSuchPath, "the session has no connection \(number); it has 1 to \(members.count)")
        }
        let member = members[number - 1]
        if action == .restore { restore(member) } else { try takeOut(member, atOnce: action == .fail) }
        path.pump()
    }

    private func takeOut(_ member: PathConnection, atOnce: Bool) throws(ControlFailure) {
        guard !member.isTakenOut || atOnce else { return }
        guard members.contains(where: { $0 !== member && $0.isOpen }) else {
            throw ControlFailure(.invalid, "connection \(member.number) is the session's only one; take out the path instead")
        }
        member.isTakenOut = true
        switch member.state {
        case .open, .leaving: leave(member, atOnce: atOnce)
        // The session needs it to get over its loss; then it leaves.
        case .connecting, .loggingIn: if !member.isRecovering { drop(member) }
        case .idle, .notGranted, .failed, .takenOut: failed(member, PathFailure(.takenOut))
        }
    }

    private func leave(_ member: PathConnection, atOnce: Bool) {
        guard let socket = member.socket else { return }
        // One that does not answer would not answer a Logout either.
        if atOnce, member.isStalled { return drop(member) }
        if path.session.removeConnection(member.index, atOnce: atOnce, at: now) {
            member.state = .leaving(socket)
        } else {
            // All others were lost meanwhile: it stays.
            member.isTakenOut = false
        }
        refresh()
    }

    private func drop(_ member: PathConnection) {
        guard let socket = member.socket else { return }
        let wasConnecting = if case .connecting = member.state { true } else { false }
        path.port.close(socket, mode: .reset)
        member.state = .takenOut
        path.session.connectionClosed(member.index, reason: .closedLocally, at: now)
        if wasConnecting { failed(member, PathFailure(.takenOut)) }
    }

    private func restore(_ member: PathConnection) {
        guard member.isTakenOut else { return }
        member.isTakenOut = false
        // One that leaves just now comes back when it has left.
        guard case .takenOut = member.state else { return }
        member.state = .idle
        guard path.isLoggedIn, !member.isRecovering else { return }
        if member.index.rawValue < granted { connect(member) } else { member.state = .notGranted }
    }

    // MARK: signs of life

    func changed(_ c: ConnectionIndex, isStalled: Bool) {
        member(c).isStalled = isStalled
        refresh()
    }

    func changed(_ c: ConnectionIndex, isSlow: Bool) {
        member(c).isSlow = isSlow
        tellLiveness()
    }

    /// A session is stalled when all that it has is. One that waits for its first connection to come back (level 2) is as it was: that
    /// the last of a stalled one is lost makes it no better.
    private func tellLiveness() {
        let open = members.filter(\.isOpen)
        guard !open.isEmpty else { return }
        let isStalled = open.allSatisfy(\.isStalled)
        if isStalled != isToldStalled {
            isToldStalled = isStalled
            path.tell(isStalled ? .stalled : .resumed)
        }
        let isSlow = open.contains(where: \.isSlow)
        if isSlow != isToldSlow {
            isToldSlow = isSlow
            path.tell(.slow(isSlow))
        }
    }

    // MARK: turns and time

    func requestSends() {
        for member in members where !member.sendIsRequested {
            guard let socket = member.socket, path.session.needsToSend(member.index) else { continue }
            if case .connecting = member.state { continue }
            member.sendIsRequested = true
            path.port.requestSend(socket)
        }
    }

    var nextDeadline: Instant {
        // A session that ends tries nothing again: a deadline that nobody heeds would be due for ever.
        guard path.isLoggedIn else { return .distantFuture }
        var deadline = rule.nextDeadline
        for member in members { deadline = min(deadline, member.deadline) }
        return deadline
    }

    func timerFired(at now: Instant) {
        if path.session.nextDeadline <= now {
            let port = path.port
            let sockets = members
            let leader = leader
            path.session.timerFired(at: now) { c in
                sockets[(c.rawValue + leader) % sockets.count].socket.flatMap { port.transportHealth(of: $0) }
                    .map(TransportReport.init)
            }
        }
        if rule.nextDeadline <= now { rule.candidatesChanged(table, at: now) }
        guard path.isLoggedIn, !path.session.hasEnded else { return }
        for member in members where member.deadline <= now {
            member.deadline = .distantFuture
            if case .connecting(let socket) = member.state {
                path.port.close(socket, mode: .reset)
                member.state = .idle
                failed(member, PathFailure(.connectTimedOut))
                path.session.connectionClosed(member.index, reason: .loginTimeout, at: now)
                tryLater(member)
            } else {
                connect(member)
            }
        }
    }
}

/// Where a connection goes, and from where.
private struct ConnectionPlace: Hashable {
    var portal: String
    var source: String?

    init(_ settings: ISCSIConnectionSettings) {
        portal = "\(settings.portal)"
        source = settings.source.map { "\($0)" }
    }
}

extension ConnectionFailure {
    init(_ reason: SocketCloseReason) {
        switch reason {
        case .endOfStream: self = .endOfStream
        case .connectFailed(let error): self = .connectFailed(code: error.code)
        case .failed(let error): self = .transportFailed(code: error.code)
        }
    }
}

extension ISCSIPath {
    /// The states of a session's connections, in configured order, in the inspector's words; empty where it has but one.
    package var connectionStates: [String] { group?.members.map(\.stateName) ?? [] }

    /// For the simulator alone.
    package func plantConnectionMistake(_ mistake: PlantedConnectionMistake?) { session.plantedMistake = mistake }
}
