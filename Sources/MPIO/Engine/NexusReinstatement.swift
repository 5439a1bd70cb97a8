import AsyncIO
import ISCSI
import Multipath
import SCSI
import Timebase

/// Ends the old commands of a nexus whose own portal cannot be reached: logs in by the same ISID through another
/// portal of the target port group, which is the same nexus (RFC 7143 section 6.3.5), sends ABORT TASK SET for
/// each unit that asks for it, and logs out.
///
/// Two logins by one ISID throw each other out, so an ``ISCSIPath`` makes no connection of its own while it has one of
/// these.
final class NexusReinstatement: SessionObserver, TimerHandler {
    private let host: EngineHost
    private var portals: ArraySlice<ISCSIPathSettings>
    /// Called once, when no session of this is left.
    private var over: (() -> Void)?
    private var waiting: [(lun: LogicalUnitNumber, isSent: Bool, answer: (Bool) -> Void)] = []
    private var session: (path: ISCSIPath, channel: ControlChannel)?
    /// A session that has ended may still be telling its clients; it lives as long as this.
    private var ended: [ISCSIPath] = []
    private var attempt: UInt64 = 0
    private var timer: TimerID?

    /// - Parameter portals: the settings of the lost session, each with another portal; tried in this order.
    init(through portals: [ISCSIPathSettings], host: EngineHost, over: @escaping () -> Void) {
        self.portals = portals[...]
        self.host = host
        self.over = over
    }

    func start() { tryNext() }

    /// Asks for one unit's old commands to be ended: true once ABORT TASK SET was answered well. False in a later step
    /// or, where the end has come already, at once.
    func abortTaskSet(of lun: LogicalUnitNumber, answer: @escaping (Bool) -> Void) {
        guard over != nil else { return answer(false) }
        waiting.append((lun, false, answer))
        if let session, session.path.isLoggedIn { sendAborts(session.channel) }
    }

    /// Gives up.
    func cancel() {
        portals = []
        if let session, !session.path.isOver { session.path.fail(PathFailure(.takenOut)) } else { finish() }
    }

    private func tryNext() {
        if let session { ended.append(session.path) }
        session = nil
        if let timer { host.port.cancelTimer(timer) }
        timer = nil
        guard let settings = portals.popFirst() else { return finish() }
        attempt += 1
        for index in waiting.indices { waiting[index].isSent = false }
        let path = ISCSIPath(settings: settings, host: host)
        let channel = ControlChannel(path: path)
        channel.owner = self
        session = (path, channel)
        // One bound on login and answers together: a portal that does neither is no better than none.
        timer = host.port.setTimer(
            at: host.port.now + settings.session.loginTimeout, handler: self, token: attempt)
        path.connect(for: channel.client)
    }

    private func finish() {
        guard let over else { return }
        self.over = nil
        let unanswered = waiting
        waiting.removeAll()
        for entry in unanswered { entry.answer(false) }
        over()
    }

    private func sendAborts(_ channel: ControlChannel) {
        for index in waiting.indices where !waiting[index].isSent {
            waiting[index].isSent = true
            let lun = waiting[index].lun
            let attempt = attempt
            channel.manage(.abortTaskSet, lun: lun) { [weak self] response in
                guard let self, self.attempt == attempt, let response else { return }
                self.answered(lun, response == .functionComplete)
            }
        }
    }

    private func answered(_ lun: LogicalUnitNumber, _ isDone: Bool) {
        let answered = waiting.filter { $0.lun == lun }
        waiting.removeAll { $0.lun == lun }
        for entry in answered { entry.answer(isDone) }
        guard waiting.isEmpty, let session else { return }
        portals = []
        session.path.release(session.channel.client)
    }

    // MARK: The session

    func sessionLoggedIn() {
        guard let session else { return }
        sendAborts(session.channel)
    }

    func sessionLost(_ failure: PathFailure) { tryNext() }

    func timerFired(_ timer: TimerID, token: UInt64) {
        guard token == attempt, let session else { return }
        self.timer = nil
        session.path.fail(PathFailure(.loginTimedOut))
    }
}
