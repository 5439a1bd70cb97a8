import AsyncIO
import ISCSI
import SCSI
import Timebase

/// What a fault makes of a command.
enum FaultDecision {
    case execute
    case answer(SCSIStatus, SenseData?)
    case reject(RejectReason)
    /// Neither executed nor answered: its connection is about to end.
    case lose
    case hold(outlivesSession: Bool)
}

/// The faults of a target: which are set, when each begins and ends, which commands it strikes. Deterministic: the
/// same seed, clock and commands, the same faults. Exists only while a fault is set.
final class FaultSchedule: TimerHandler, TurnHandler {
    unowned let target: EmbeddedTarget
    private(set) var faults: [ActiveFault] = []
    private var random: FaultRandom
    /// Faults that end connections, which is not done from inside one's input.
    private var deferred: [ActiveFault] = []
    private var isScheduled = false

    private enum Alarm: UInt64 { case begin = 0, end = 1, release = 2, drop = 3 }

    init(target: EmbeddedTarget, random: FaultRandom) {
        self.target = target
        self.random = random
    }

    var randomState: FaultRandom { random }

    // MARK: setting and clearing

    func set(_ command: FaultCommand, id: Int) {
        let fault = ActiveFault(id: id, command: command)
        faults.append(fault)
        if let delay = command.trigger.delay {
            arm(fault, .begin, after: delay)
        } else {
            start(fault)
        }
    }

    func clear(_ id: Int) {
        guard let fault = faults.first(where: { $0.id == id }) else { return }
        end(fault)
    }

    private func start(_ fault: ActiveFault) {
        fault.phase = .armed
        if fault.kind.isOfCommands { return begin(fault) }
        if !fault.trigger.needsCommand { begin(fault) }
    }

    private func begin(_ fault: ActiveFault) {
        if fault.phase != .begun, let duration = fault.trigger.duration { arm(fault, .end, after: duration) }
        fault.phase = .begun
        play(fault)
    }

    private func end(_ fault: ActiveFault) {
        faults.removeAll { $0 === fault }
        for timer in fault.timers { target.port.cancelTimer(timer) }
        for undo in fault.undo.reversed() { undo() }
        if fault.kind == .refuse { target.updateListening() }
        target.updateImpairments()
        for token in fault.held { target.release(token) }
        target.faultsChanged()
    }

    private func arm(_ fault: ActiveFault, _ alarm: Alarm, after delay: Duration, value: UInt64 = 0) {
        let token = UInt64(fault.id) << 34 | value << 2 | alarm.rawValue
        fault.timers.append(target.port.setTimer(at: target.port.now + delay, handler: self, token: token))
    }

    func timerFired(_ timer: TimerID, token: UInt64) {
        guard let fault = faults.first(where: { UInt64($0.id) == token >> 34 }), let alarm = Alarm(rawValue: token & 3)
        else { return }
        fault.timers.removeAll { $0 == timer }
        switch alarm {
        case .begin: start(fault)
        case .end: end(fault)
        case .release:
            // The oldest: all are held for the same time.
            guard !fault.held.isEmpty else { return }
            target.release(fault.held.removeFirst())
        case .drop:
            target.dropLingering(fault)
            finishIfDone(fault)
        }
    }

    // MARK: what a fault does

    /// Begins what is done to connections, portals and units; for commands see `decide`.
    private func play(_ fault: ActiveFault) {
        switch fault.kind {
        case .status, .sense, .reject, .delay, .lateExecution: return
        case .silence, .mute, .deaf, .slowDrip: return target.updateImpairments()
        case .refuse:
            target.updateListening()
            return
        case .hangInLogin: return
        case .reset, .restart: deferAction(fault)
        case .digestCorruption(let place): target.spoilDigests(fault, place)
        case .asyncLogout(let time):
            target.requestLogout(fault, time)
            arm(fault, .drop, after: time)
            return
        case .asyncDrop(let time):
            target.announceDrop(fault)
            arm(fault, .drop, after: time)
            return
        case .aluaTransition(let state): return target.changeStates(fault, state)
        case .identity(let identity): return target.changeIdentity(fault, identity)
        case .capacity(let count): return target.changeCapacity(fault, count)
        }
        finishIfDone(fault)
    }

    /// What is done once and leaves nothing to undo is not kept.
    private func finishIfDone(_ fault: ActiveFault) {
        switch fault.kind {
        case .reset, .digestCorruption, .asyncLogout, .asyncDrop: break
        case .restart: break
        default: return
        }
        guard !fault.trigger.needsCommand, !deferred.contains(where: { $0 === fault }) else { return }
        end(fault)
    }

    private func deferAction(_ fault: ActiveFault) {
        deferred.append(fault)
        guard !isScheduled else { return }
        isScheduled = true
        target.port.schedule(self)
    }

    func turn() {
        isScheduled = false
        let actions = deferred
        deferred = []
        for fault in actions {
            switch fault.kind {
            case .reset: target.resetConnections(fault)
            case .restart(let time): target.restart(fault, downFor: time)
            default: break
            }
            finishIfDone(fault)
        }
    }

    // MARK: commands

    /// The first fault that has something to say decides.
    func decide(
        _ command: DeviceCommand, unit: Int, portal: Int, group: UInt16, node: String, connection: UInt16?
    ) -> FaultDecision {
        var decision = FaultDecision.execute
        for fault in faults where fault.phase != .waiting && (fault.kind.isOfCommands || fault.trigger.needsCommand) {
            guard fault.trigger.matches(
                command, unit: unit, portal: portal, group: group, node: node, connection: connection),
                fault.strikes(&random)
            else { continue }
            let own = strike(fault, command)
            if case .execute = decision { decision = own }
        }
        return decision
    }

    private func strike(_ fault: ActiveFault, _ command: DeviceCommand) -> FaultDecision {
        switch fault.kind {
        case .status(let status): return .answer(status, nil)
        case .sense(let sense): return .answer(.checkCondition, sense)
        case .reject(let reason): return .reject(reason)
        case .delay(let time):
            hold(fault, command, time)
            return .hold(outlivesSession: false)
        case .lateExecution(let time):
            hold(fault, command, time)
            return .hold(outlivesSession: true)
        case .reset, .restart:
            begin(fault)
            return .lose
        default:
            begin(fault)
            return .execute
        }
    }

    private func hold(_ fault: ActiveFault, _ command: DeviceCommand, _ time: Duration?) {
        fault.held.append(command.token)
        if let time { arm(fault, .release, after: time) }
    }

    /// A held command was released by hand, or aborted.
    func letGo(_ token: UInt64) {
        for fault in faults {
            guard let index = fault.held.firstIndex(of: token) else { continue }
            fault.held[index] = FaultSchedule.gone
        }
    }

    /// Stands in for a command that is no longer there, so that the timers' order stays right.
    private static let gone = UInt64.max

    // MARK: links

    /// `connection` is the CID, once it is known.
    func impairment(portal: Int, group: UInt16, nodes: [String], connection: UInt16?) -> LinkImpairment {
        var sum = LinkImpairment()
        for fault in faults where fault.phase == .begun && fault.concerns(portal: portal, group: group, nodes: nodes) {
            if let wanted = fault.trigger.connection, wanted != connection { continue }
            switch fault.kind {
            case .silence: sum = sum.union(.silence)
            case .mute: sum.isMute = true
            case .deaf: sum.isDeaf = true
            case .slowDrip(let rate): sum = sum.union(LinkImpairment(bytesPerSecond: rate))
            default: break
            }
        }
        return sum
    }

    func isRefusing(portal: Int, group: UInt16, nodes: [String]) -> Bool { has(.refuse, portal, group, nodes) }
    func hangsLogins(portal: Int, group: UInt16, nodes: [String]) -> Bool { has(.hangInLogin, portal, group, nodes) }

    private func has(_ kind: FaultKind, _ portal: Int, _ group: UInt16, _ nodes: [String]) -> Bool {
        faults.contains { $0.kind == kind && $0.phase == .begun && $0.concerns(portal: portal, group: group, nodes: nodes) }
    }
}
