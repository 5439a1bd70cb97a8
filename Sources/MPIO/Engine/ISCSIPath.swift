package import AsyncIO
package import ISCSI
package import Multipath
package import SCSI
import Timebase

/// One session's sockets and timer: moves bytes between an ``InitiatorSession`` and an ``IOPort``, and
/// hands results to its clients. It decides nothing: what a failure means, and when to try again, is
/// the DSM's.
package final class ISCSIPath {
    package enum State {
        case idle
        case connecting(SocketID)
        case loggingIn(SocketID)
        case loggedIn(SocketID, LoginResult)
        case loggingOut(SocketID)
        case down(PathFailure)
    }

    /// A target may send us on this often before we call it a loop.
    static let redirectLimit = 4

    package internal(set) var settings: ISCSIPathSettings
    /// What the next session is made from, where that has changed; see ``adopt(_:)``.
    var nextSession: SessionSettings?
    /// Requests and bytes outstanding over all disks that use this session.
    package let load: PathLoad
    package internal(set) var state: State = .idle {
        didSet {
            switch state {
            case .connecting(let socket), .loggingIn(let socket), .loggingOut(let socket):
                socketInUse = socket
                openSocket = nil
            case .loggedIn(let socket, _):
                socketInUse = socket
                openSocket = group == nil ? socket : nil
            case .idle, .down:
                socketInUse = nil
                openSocket = nil
            }
        }
    }
    // Beside the state, because taking them out of it copies the login's result for every request.
    /// The socket of ``state``.
    @exclusivity(unchecked) private(set) var socketInUse: SocketID?
    /// The same, while commands may be submitted; nil where there are connections to choose from.
    @exclusivity(unchecked) private var openSocket: SocketID?
    /// This host's end, once connected.
    package internal(set) var localAddress: SocketAddress?
    package private(set) var loginCount = 0
    /// The target port group that the last login reached.
    private(set) var portalGroupTag: UInt16?
    /// This session's settings with other portals that are proven to lead to the same nexus, and work now.
    var alternatives: () -> [ISCSIPathSettings] = { [] }
    /// What is known of this session's nexus.
    var nexus: () -> NexusKnowledge = { NexusKnowledge() }

    let port: any IOPort
    let host: EngineHost
    /// The connections to choose from; nil in a session that has but one, and must not outlive it.
    private(set) var group: ConnectionGroup?
    // Exclusivity is not checked where every request passes: one thread owns the path, and a session or
    // a queue calls nobody.
    @exclusivity(unchecked) var session: InitiatorSession
    @exclusivity(unchecked) private(set) var clients: [(any ISCSIPathClient)?] = []
    /// Those of ``clients`` that are paths of disks, not counted: they take nearly all completions.
    @exclusivity(unchecked) private var diskClients: [Unmanaged<DiskPath>?] = []
    /// Commands that the target's window has no room for, oldest first.
    @exclusivity(unchecked) var backlog = FIFO<SCSICommandRequest>()
    /// Task management functions that wait for a connection of a session that has lost all it had.
    var functionBacklog = FIFO<WaitingFunction>()
    var users: Set<PathClientID> = []
    /// Clients that came while the session was logging out. It was never theirs: its end is no news to them, and they get
    /// the next one.
    private var newcomers: Set<PathClientID> = []
    private var endings: [() -> Void] = []
    @exclusivity(unchecked) var timer: (id: TimerID, deadline: Instant)?
    @exclusivity(unchecked) var connectDeadline = Instant.distantFuture
    private var destination: SocketAddress
    private var redirectCount = 0
    @exclusivity(unchecked) var sendIsRequested = false
    @exclusivity(unchecked) private var isDraining = false
    /// The target wants this session to end.
    private(set) var isAskedToLogOut = false
    /// While it lives no connection is made here: both have the same ISID.
    var reinstatement: NexusReinstatement?
    var connectAfterReinstatement = false
    /// The last one that ended: it may still be at work when it says so.
    var endedReinstatement: NexusReinstatement?

    package init(settings: ISCSIPathSettings, host: EngineHost) {
        self.settings = settings
        self.host = host
        port = host.port
        load = PathLoad()
        destination = settings.portal
        session = InitiatorSession(
            settings: settings.session, cryptography: host.cryptography, crc32c: host.crc32c)
        if settings.connections.count > 1 || settings.session.login.operational.errorRecoveryLevel == 2 {
            group = ConnectionGroup(settings, path: self)
        }
    }

    // MARK: Clients

    package func addClient(_ client: any ISCSIPathClient) -> PathClientID {
        let id = take(client)
        if case .loggingOut = state { newcomers.insert(id) }
        return id
    }

    private func take(_ client: any ISCSIPathClient) -> PathClientID {
        let disk = Self.unmanaged(client)
        // An answer to a former client's command, given up and not ended yet, must not find another one in its place.
        if let free = clients.indices.first(where: { clients[$0] == nil && !hasCommands(of: $0) }) {
            clients[free] = client
            diskClients[free] = disk
            return PathClientID(rawValue: UInt16(free))
        }
        precondition(clients.count < Int(UInt16.max), "a session serves at most 65,535 disks")
        clients.append(client)
        diskClients.append(disk)
        return PathClientID(rawValue: UInt16(clients.count - 1))
    }

    private func hasCommands(of client: Int) -> Bool { socketInUse != nil && session.hasTask { Int($0 >> 48) == client } }

    // Not inlined: the optimiser of this compiler crashes over it.
    @inline(never)
    private static func unmanaged(_ client: any ISCSIPathClient) -> Unmanaged<DiskPath>? {
        if let disk = client as? DiskPath { return .passUnretained(disk) }
        return nil
    }

    /// Of the client's commands only such may be left as it has given up: it hears no more of them.
    package func removeClient(_ id: PathClientID) {
        clients[Int(id.rawValue)] = nil
        diskClients[Int(id.rawValue)] = nil
        newcomers.remove(id)
    }

    package var isLoggedIn: Bool {
        if case .loggedIn = state { true } else { false }
    }

    package var login: LoginResult? {
        if case .loggedIn(_, let result) = state { result } else { nil }
    }

    /// Whether the last login was sent on to another address.
    var isRedirected: Bool { redirectCount > 0 }

    // MARK: Life

    /// Notes that the client needs the session, and sees to it that there is one: connects and logs in,
    /// unless that is under way or done. The result goes to all clients.
    package func connect(for client: PathClientID) {
        users.insert(client)
        connect()
    }

    /// The client needs the session no longer; with the last one it is logged out.
    package func release(_ client: PathClientID) {
        users.remove(client)
        guard users.isEmpty else { return }
        connectAfterReinstatement = false
        reinstatement?.cancel()
        logOut()
    }

    /// Whether no session exists or is being made.
    package var isOver: Bool { socketInUse == nil && reinstatement == nil }

    /// Calls `body` when the session that exists has ended; at once where none does.
    package func whenOver(_ body: @escaping () -> Void) {
        guard !isOver else { return body() }
        endings.append(body)
    }

    func connect() {
        guard reinstatement == nil else {
            connectAfterReinstatement = true
            return
        }
        switch state {
        case .idle, .down:
            redirectCount = 0
            group?.beginRound()
            destination = leading.portal
            startConnection()
        // Whoever comes during a logout is connected when it is over, which its time limit sees to.
        case .connecting, .loggingIn, .loggedIn, .loggingOut: break
        }
    }

    func tellEndings() {
        let endings = endings
        self.endings.removeAll()
        for ending in endings { ending() }
    }

    /// Ends the session in an orderly way where there is one; clients get ``ISCSIPathClient/pathLost(_:failure:)``.
    private func logOut() {
        switch state {
        case .loggedIn(let socket, _):
            state = .loggingOut(socket)
            guard session.beginLogout(at: port.now) else { return fail(PathFailure(.takenOut)) }
            pump()
        case .connecting, .loggingIn: fail(PathFailure(.takenOut))
        case .idle, .loggingOut, .down: break
        }
    }

    /// Drops the connection at once; queued bytes are discarded.
    package func fail(_ failure: PathFailure) {
        guard socketInUse != nil else { return }
        end(failure, closing: .reset)
    }

    private func startConnection() {
        renewSession()
        sendIsRequested = false
        isAskedToLogOut = false
        connectDeadline = port.now + settings.session.loginTimeout
        if let group {
            state = .connecting(group.startLeading(to: destination))
        } else {
            state = .connecting(port.connect(to: destination, from: settings.source, handler: self))
        }
        rearmTimer()
    }

    /// The connection that makes the session.
    private var leading: ISCSIConnectionSettings { group?.leading ?? settings.connections[0] }

    /// The leading connection came to nothing. Another one may lead, where there is one that was not tried.
    func leadingFailed(_ failure: PathFailure, closing mode: CloseMode?) {
        guard let socket = socketInUse, let group, group.canTryAnotherLeader else { return end(failure, closing: mode) }
        if let mode { port.close(socket, mode: mode) }
        group.tryAnotherLeader()
        destination = leading.portal
        startConnection()
    }

    /// The one way in which a session ends: the socket goes, the clients are told, and open commands are
    /// handed back in the order of their submission.
    func end(_ failure: PathFailure, closing mode: CloseMode?) {
        if let socket = socketInUse {
            // Before the buffers of abandoned commands are used again, no socket may still send from them.
            if let group { group.closeAll(mode) } else if let mode { port.close(socket, mode: mode) }
            session.abandon(.closedLocally)
        }
        state = .down(failure)
        connectDeadline = .distantFuture
        if let timer { port.cancelTimer(timer.id) }
        timer = nil
        // Taken before anybody is told, because whoever is told may connect anew.
        let leftovers = takeLeftovers()
        let newcomers = newcomers
        self.newcomers.removeAll()
        for (id, client) in clients.enumerated() where !newcomers.contains(PathClientID(rawValue: UInt16(id))) {
            client?.pathLost(self, failure: failure)
        }
        for leftover in leftovers { handBack(leftover) }
        if !newcomers.isDisjoint(with: users) { connect() }
        host.runDirtyDisks()
        if isOver { tellEndings() }
    }

    private enum Leftover {
        case command(UInt64, wasSent: Bool)
        case taskManagement(UInt64)
    }

    /// Delivers what was answered, and returns what was not.
    private func takeLeftovers() -> [Leftover] {
        while let completion = session.nextCompletion() {
            client(of: completion.token)?.path(self, completed: completion)
        }
        var leftovers: [Leftover] = []
        while let event = session.nextEvent() {
            switch event {
            case .commandAbandoned(let token, let wasSent), .commandLost(let token, let wasSent):
                leftovers.append(.command(token, wasSent: wasSent))
            case .taskManagementAbandoned(let token): leftovers.append(.taskManagement(token))
            default: break
            }
        }
        while let request = backlog.removeFirst() { leftovers.append(.command(request.token, wasSent: false)) }
        while let request = functionBacklog.removeFirst() { leftovers.append(.taskManagement(request.token)) }
        return leftovers
    }

    private func handBack(_ leftover: Leftover) {
        switch leftover {
        case .command(let token, let wasSent): client(of: token)?.path(self, abandoned: token, wasSent: wasSent)
        case .taskManagement(let token): client(of: token)?.path(self, taskManagement: token, answered: nil)
        }
    }

    @inline(__always)
    func client(of token: UInt64) -> (any ISCSIPathClient)? { clients[Int(token >> 48)] }

    // MARK: Commands

    /// Takes a command whose token bears a client's ID. What the command window has no room for waits
    /// here, in order. False: not logged in; nothing was taken.
    package func submit(_ request: SCSICommandRequest) -> Bool {
        guard let socket = openSocket else { return submitAmong(request) }
        guard backlog.isEmpty else {
            backlog.append(request)
            return true
        }
        switch session.submit(request, on: .leading, at: port.now) {
        case .accepted: requestSend(socket)
        case .windowFull: backlog.append(request)
        case .notLoggedIn: return false
        }
        return true
    }

    /// Sends a task management function; its answer comes with `token`. False: not logged in, or no room.
    package func submit(
        _ function: TaskManagementFunction, lun: LogicalUnitNumber, referencing command: UInt64? = nil, token: UInt64
    ) -> Bool {
        guard case .loggedIn(let socket, _) = state else { return false }
        if let group { return submitAmong(group, WaitingFunction(function, lun, referencing: command, token: token)) }
        guard
            session.submitTaskManagement(
                function, lun: lun, referencing: command, token: token, on: .leading, at: port.now)
        else { return false }
        requestSend(socket)
        return true
    }

    /// Lets go of the caller's memory: after it, neither this command's data nor what still has to be sent
    /// of it touches the buffer. Its answer comes as any other.
    package func detach(_ token: UInt64) {
        if let waiting = backlog.removeFirst(where: { $0.token == token }) {
            client(of: waiting.token)?.path(self, abandoned: waiting.token, wasSent: false)
        } else {
            session.detach(token)
        }
    }

    /// ``InitiatorSession/endUnanswered(_:at:)``
    package func endUnanswered(_ token: UInt64) {
        guard isLoggedIn else { return }
        session.endUnanswered(token, at: port.now)
        pump()
    }

    private func submitBacklog(_ socket: SocketID) {
        while let request = backlog.first {
            guard case .accepted = session.submit(request, on: .leading, at: port.now) else { return }
            _ = backlog.removeFirst()
            requestSend(socket)
        }
    }

    @inline(__always)
    private func requestSend(_ socket: SocketID) {
        guard !sendIsRequested else { return }
        sendIsRequested = true
        port.requestSend(socket)
    }

    // MARK: Results

    /// Hands out all that the session has, then lets it send and re-arms its timer.
    func pump() {
        guard !isDraining else { return }
        if let group { return pump(group) }
        if session.hasEnded { return sessionEnded() }
        isDraining = true
        handOutCompletions()
        while let event = session.nextEvent() {
            handle(event)
            guard socketInUse != nil else { break }
        }
        isDraining = false
        host.runDirtyDisks()
        if let socket = socketInUse {
            if !backlog.isEmpty { submitBacklog(socket) }
            if session.needsToSend(.leading) { requestSend(socket) }
            rearmTimer()
        }
    }

    /// The same for several connections. One that is lost, and closed, brings results of its own.
    private func pump(_ group: ConnectionGroup) {
        if session.hasEnded { return sessionEnded() }
        isDraining = true
        repeat {
            handOutCompletions()
            while let event = session.nextEvent() {
                handle(event)
                guard socketInUse != nil else { break }
            }
        } while session.hasUntaken && socketInUse != nil && !session.hasEnded
        isDraining = false
        host.runDirtyDisks()
        if session.hasEnded, socketInUse != nil { return sessionEnded() }
        guard socketInUse != nil else { return }
        if !functionBacklog.isEmpty { submitFunctionsAmong(group) }
        if !backlog.isEmpty { submitBacklogAmong(group) }
        group.requestSends()
        rearmTimer()
    }

    private func handOutCompletions() {
        while let completion = session.nextCompletion() {
            let id = Int(completion.token >> 48)
            if let disk = diskClients[id] {
                // It is a client, so it lives; and it does no more now than note what happened.
                disk._withUnsafeGuaranteedRef { $0.completed(completion) }
            } else {
                clients[id]?.path(self, completed: completion)
            }
        }
    }

    private func handle(_ event: SessionEvent) {
        switch event {
        case .loggedIn(let result): enter(result)
        case .redirected, .loginFailed, .commandAbandoned, .sessionFailed, .loggedOut:
            break  // only of a session that has ended, which is dealt with as a whole
        case .taskManagementCompleted(let token, let response):
            client(of: token)?.path(self, taskManagement: token, answered: response)
        case .taskManagementRejected(let token, _):
            client(of: token)?.path(self, taskManagement: token, answered: nil)
        case .taskManagementAbandoned(let token): client(of: token)?.path(self, lostTaskManagement: token)
        case .stalled(let c): if let group { group.changed(c, isStalled: true) } else { tell(.stalled) }
        case .resumed(let c): if let group { group.changed(c, isStalled: false) } else { tell(.resumed) }
        case .slow(let c, let isSlow): if let group { group.changed(c, isSlow: isSlow) } else { tell(.slow(isSlow)) }
        case .asyncMessage(let message, let sense): handle(message, sense)
        case .commandOverdue(let token): client(of: token)?.path(self, overdue: token)
        case .windowOpened, .pingAnswered: break
        case .commandLost(let token, let wasSent): client(of: token)?.path(self, lost: token, wasSent: wasSent)
        case .connectionAdded, .connectionFailed, .connectionLost, .connectionWanted, .connectionRecovered,
            .connectionLeaving, .connectionRemoved:
            group?.handle(event)  // without one a second connection is never asked for
        case .text, .targets, .discoveryFailed: break  // only discovery sessions ask
        }
    }

    func tell(_ liveness: PathLiveness) {
        for client in clients { client?.path(self, liveness: liveness) }
    }

    private func enter(_ result: LoginResult) {
        guard case .loggingIn(let socket) = state else { return }
        state = .loggedIn(socket, result)
        connectDeadline = .distantFuture
        loginCount += 1
        portalGroupTag = result.portalGroupTag
        group?.sessionLoggedIn(result)
        for client in clients { client?.pathLoggedIn(self) }
    }

    /// The session says that it is over. Its socket is closed before what it still holds is handed out.
    private func sessionEnded() {
        switch session.state {
        case .failed(.redirected):
            while let event = session.nextEvent() {
                if case .redirected(let redirection) = event { return follow(redirection) }
            }
            end(PathFailure(SessionFailure.redirected), closing: .reset)
        case .failed(let reason):
            // A login that failed may do better over another pair of addresses.
            if case .loggingIn = state { leadingFailed(PathFailure(reason), closing: .reset) } else { end(PathFailure(reason), closing: .reset) }
        case .loggedOut: end(PathFailure(isAskedToLogOut ? .logoutRequested : .takenOut), closing: .graceful)
        case .free, .loggingIn, .loggedIn, .loggingOut: preconditionFailure("the session has not ended")
        }
    }

    private func follow(_ redirection: LoginRedirection) {
        guard redirectCount < Self.redirectLimit else {
            return end(PathFailure(.loginRejected, detail: "redirected more than \(Self.redirectLimit) times"), closing: .graceful)
        }
        guard let address = SocketAddress(redirection.address) else {
            let detail = "redirected to \(redirection.address), which is not an IP address"
            return end(PathFailure(.loginRejected, detail: detail), closing: .graceful)
        }
        if let group {
            group.closeAll(.graceful)
        } else if let socket = socketInUse {
            port.close(socket, mode: .graceful)
        }
        redirectCount += 1
        destination = address
        startConnection()
    }

    private func handle(_ message: AsyncMessage, _ sense: SenseData?) {
        switch message {
        case .scsiEvent:
            for client in clients { client?.path(self, asyncSense: sense) }
        case .logoutRequested:
            isAskedToLogOut = true
            logOut()
        default: break  // a drop follows as the session's failure; the rest asks nothing of us
        }
    }
}
