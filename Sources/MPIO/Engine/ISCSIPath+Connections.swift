import AsyncIO
import ISCSI
package import Multipath
import SCSI

/// A task management function on its way to a session.
struct WaitingFunction {
    let function: TaskManagementFunction
    let lun: LogicalUnitNumber
    /// The command that ABORT TASK is about.
    let command: UInt64?
    let token: UInt64

    init(_ function: TaskManagementFunction, _ lun: LogicalUnitNumber, referencing command: UInt64?, token: UInt64) {
        self.function = function
        self.lun = lun
        self.command = command
        self.token = token
    }
}

// A session of several connections, as its ``ConnectionGroup`` and they see it.
extension ISCSIPath {
    /// Takes a command for one of several connections; see ``submit(_:)``.
    @inline(never)
    func submitAmong(_ request: SCSICommandRequest) -> Bool {
        guard let group, isLoggedIn else { return false }
        if !backlog.isEmpty || !submit(request, to: group) { backlog.append(request) }
        return true
    }

    func submitBacklogAmong(_ group: ConnectionGroup) {
        while let request = backlog.first, submit(request, to: group) { _ = backlog.removeFirst() }
    }

    private func submit(_ request: SCSICommandRequest, to group: ConnectionGroup) -> Bool {
        // Asked first, so that a closed window costs no connection its turn.
        guard session.hasRoomForCommand(), let member = group.choose(request),
            case .accepted = session.submit(request, on: member.index, at: port.now)
        else { return false }
        member.requestCount &+= 1
        if !member.sendIsRequested, let socket = member.socket {
            member.sendIsRequested = true
            port.requestSend(socket)
        }
        return true
    }

    /// A task management function, on whatever connection there is. At level 2 a session lives on for a while without any:
    /// then it waits for the first that comes back. False: nothing was taken.
    func submitAmong(_ group: ConnectionGroup, _ request: WaitingFunction) -> Bool {
        let c = group.anyOpen
        // ABORT TASK goes where its command is, if it is anywhere.
        if c == nil, request.command == nil {
            functionBacklog.append(request)
            return true
        }
        guard
            session.submitTaskManagement(
                request.function, lun: request.lun, referencing: request.command, token: request.token, on: c ?? .leading,
                at: port.now)
        else { return false }
        group.requestSends()
        return true
    }

    func submitFunctionsAmong(_ group: ConnectionGroup) {
        while isLoggedIn, group.anyOpen != nil, let request = functionBacklog.removeFirst() {
            if submitAmong(group, request) { continue }
            client(of: request.token)?.path(self, taskManagement: request.token, answered: nil)
        }
    }

    func connected(_ member: PathConnection, _ socket: SocketID) {
        if case .connecting(socket) = state { return leadingConnected(socket) }
        group?.connected(member)
        pump()
    }

    func closed(_ member: PathConnection, _ reason: SocketCloseReason, wasConnecting: Bool) {
        switch state {
        case .connecting, .loggingIn: return leadingFailed(PathFailure(reason), closing: nil)
        case .idle, .down: return
        case .loggedIn, .loggingOut: group?.closed(member, reason, wasConnecting: wasConnecting)
        }
        pump()
    }

    /// Sending is what ends a command whose status came early, and what opens the output queue.
    func sent() {
        if session.hasResults || session.hasEnded || !backlog.isEmpty { pump() } else { rearmTimer() }
    }

    func tell(_ change: ConnectionChange) {
        for client in clients { client?.path(self, connection: change) }
    }

    /// Changes how connections are chosen, from the next command on. False: the session has but one.
    package func setConnectionPolicy(_ policy: PolicySettings) -> Bool {
        guard let group else { return false }
        group.setPolicy(policy)
        return true
    }
}
