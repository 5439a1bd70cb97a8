import AsyncIO
import ISCSI
import Multipath
import SCSI
import Timebase

/// A unit whose old commands are to be ended: its number, and how to see that the number still leads to it. Meanwhile it may
/// have been given to another unit, whose answer would say nothing.
struct UnitOnNexus {
    var lun: LogicalUnitNumber
    /// Nil for a unit that names none.
    var identity: LogicalUnitIdentity?
    /// Not begun.
    var probe: PathProbe

    /// Whether its device identification page alone shows it: one command, where the whole probe takes ten.
    func isShown(by answer: ControlAnswer) -> Bool {
        guard answer.outcome == .good, let identity, let page = DeviceIdentification(parsing: answer.data) else { return false }
        let shown = LogicalUnitIdentity.best(
            designators: page.descriptors, unitSerial: nil, vendor: "", product: "", targetName: nil)
        return shown == identity
    }
}

/// Ends the old commands of a nexus whose own portal cannot be reached: logs in by the same ISID through another
/// portal of the target port group, which is the same nexus (RFC 7143 section 6.3.5), sends ABORT TASK SET to
/// each unit that asks for it, once it has shown that it is that one, and logs out.
///
/// Two logins by one ISID throw each other out, so an ``ISCSIPath`` makes no connection of its own while it has one of
/// these.
final class NexusReinstatement: SessionObserver, TimerHandler {
    private let host: EngineHost
    private var portals: ArraySlice<ISCSIPathSettings>
    /// Called once, when no session of this is left.
    private var over: (() -> Void)?
    private var waiting: [Wish] = []
    private var probers: [PathProber] = []
    private var nextWish = 0
    private var session: (path: ISCSIPath, channel: ControlChannel)?
    /// A session that has ended may still be telling its clients; it lives as long as this.
    private var ended: [ISCSIPath] = []
    private var attempt: UInt64 = 0
    private var timer: TimerID?

    private struct Wish {
        var number: Int
        var unit: UnitOnNexus
        var isAsked = false
        var answer: (Bool) -> Void
    }

    /// - Parameter portals: the settings of the lost session, each with another portal; tried in this order.
    init(through portals: [ISCSIPathSettings], host: EngineHost, over: @escaping () -> Void) {
        self.portals = portals[...]
        self.host = host
        self.over = over
    }

    func start() { tryNext() }

    /// Asks for one unit's old commands to be ended: true once ABORT TASK SET was answered well. False in a later step
    /// or, where the end has come already, at once.
    func abortTaskSet(of unit: UnitOnNexus, answer: @escaping (Bool) -> Void) {
        guard over != nil else { return answer(false) }
        nextWish += 1
        waiting.append(Wish(number: nextWish, unit: unit, answer: answer))
        if let session, session.path.isLoggedIn { askUnits(session.channel) }
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
        probers.removeAll()
        for index in waiting.indices { waiting[index].isAsked = false }
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

    private func askUnits(_ channel: ControlChannel) {
        while let index = waiting.firstIndex(where: { !$0.isAsked }) {
            waiting[index].isAsked = true
            ask(waiting[index], channel)
        }
    }

    private func ask(_ wish: Wish, _ channel: ControlChannel) {
        let attempt = attempt
        channel.execute(
            .inquiry(page: .deviceIdentification, allocationByteCount: 1024), lun: wish.unit.lun, byteCount: 1024
        ) { [weak self] answer in
            guard let self, self.attempt == attempt else { return }
            if wish.unit.isShown(by: answer) { self.sendAbort(wish, channel) } else { self.probe(wish, channel) }
        }
    }

    private func probe(_ wish: Wish, _ channel: ControlChannel) {
        let attempt = attempt
        let prober = PathProber(wish.unit.probe, channel: channel, lun: wish.unit.lun) { [weak self] result in
            guard let self, self.attempt == attempt else { return }
            guard case .usable(let report) = result, report.device.identity == wish.unit.identity else {
                return self.answered(wish.number, false)
            }
            self.sendAbort(wish, channel)
        }
        probers.append(prober)
        prober.start()
    }

    private func sendAbort(_ wish: Wish, _ channel: ControlChannel) {
        let attempt = attempt
        channel.manage(.abortTaskSet, lun: wish.unit.lun) { [weak self] response in
            guard let self, self.attempt == attempt, let response else { return }
            self.answered(wish.number, response == .functionComplete)
        }
    }

    private func answered(_ number: Int, _ isDone: Bool) {
        guard let index = waiting.firstIndex(where: { $0.number == number }) else { return }
        waiting.remove(at: index).answer(isDone)
        guard waiting.isEmpty, let session else { return }
        portals = []
        session.path.release(session.channel.client)
    }

    // MARK: The session

    func sessionLoggedIn() {
        guard let session else { return }
        askUnits(session.channel)
    }

    func sessionLost(_ failure: PathFailure) { tryNext() }

    func timerFired(_ timer: TimerID, token: UInt64) {
        guard token == attempt, let session else { return }
        self.timer = nil
        session.path.fail(PathFailure(.loginTimedOut))
    }
}
