import AsyncIO
import ISCSI
import Multipath
import SCSI
import Timebase

/// One round of logins by a spare ISID that shows which portals of a target share sessions.
///
/// The portals are logged in to one after the other, each session kept. A login ends the kept session of its own group,
/// since the ISID is the same, and leaves the others alone. So N portals cost N logins, whatever the groups; a portal
/// that is then still alone costs one more, to see whether it ends its own older session.
///
/// An end counts as proof only where the target ended the session, right when it was logged in to elsewhere, and where the
/// session that carries data through the same portal still answers after it: else it was the portal that failed. A
/// session counts as apart only where it answers after the bound. All else voids what is left of the round.
///
/// Reactor's thread. The sessions carry nothing but INQUIRY; they log out when the round is over.
final class PortalGroupProof: TimerHandler {
    struct Portal {
        var number: Int
        /// With the spare ISID.
        var settings: ISCSIPathSettings
        /// Of the session that carries data.
        var dataSession: ControlChannel
    }

    enum Finding {
        case shared(Int, Int)
        case apart(Int, Int)
    }

    private enum Phase {
        case loggingIn
        /// Logged in; a kept session may end now.
        case waiting
        case asking
        case over
    }

    private let host: EngineHost
    let portals: [Portal]
    private var queue: ArraySlice<Portal>
    /// Whether a portal has to be logged in to a second time.
    private let isUnjudged: (Int) -> Bool
    private let found: (Finding) -> Void
    /// Called once, when no session of this is left; true where all logins came about.
    private var over: ((Bool) -> Void)?

    private var phase = Phase.loggingIn
    /// Counts steps; what belongs to an earlier one comes too late.
    private var step: UInt64 = 0
    private var timer: TimerID?
    private var sessions: [ProofSession] = []
    /// One of each group found so far.
    private var kept: [ProofSession] = []
    private var newest: ProofSession?
    /// The kept session that the target ended when `newest` logged in.
    private var ended: ProofSession?
    private var isSecondTurn = false
    private var isComplete = true

    init(
        _ portals: [Portal], host: EngineHost, isUnjudged: @escaping (Int) -> Bool,
        found: @escaping (Finding) -> Void, over: @escaping (Bool) -> Void
    ) {
        self.portals = portals
        self.host = host
        self.isUnjudged = isUnjudged
        self.found = found
        self.over = over
        queue = portals[...]
    }

    func start() { next() }

    /// Ends the round; what was found is kept.
    func cancel() { end(isComplete: false) }

    /// Sockets that this has.
    var paths: [ISCSIPath] { sessions.map(\.path) }

    private func next() {
        beginStep(.loggingIn)
        newest = nil
        ended = nil
        guard let portal = queue.popFirst() else { return secondTurn() }
        let session = ProofSession(portal, host: host, proof: self)
        sessions.append(session)
        newest = session
        session.path.connect(for: session.channel.client)
    }

    private func secondTurn() {
        let alone = kept.map(\.portal).filter { isUnjudged($0.number) }
        guard !isSecondTurn, !alone.isEmpty else { return end(isComplete: isComplete) }
        isSecondTurn = true
        queue = alone[...]
        next()
    }

    private func beginStep(_ next: Phase, bound: Duration? = nil) {
        phase = next
        step += 1
        if let timer { host.port.cancelTimer(timer) }
        timer = bound.map { host.port.setTimer(at: host.port.now + $0, handler: self, token: step) }
    }

    private func end(isComplete: Bool) {
        guard phase != .over else { return }
        beginStep(.over)
        var open = sessions.count
        guard open > 0 else { return tellOver(isComplete) }
        for session in sessions {
            session.path.release(session.channel.client)
            session.path.whenOver { [weak self] in
                open -= 1
                if open == 0 { self?.tellOver(isComplete) }
            }
        }
    }

    private func tellOver(_ isComplete: Bool) {
        let over = over
        self.over = nil
        over?(isComplete)
    }

    // MARK: What happens to the sessions

    fileprivate func loggedIn(_ session: ProofSession) {
        guard session === newest, phase == .loggingIn else { return }
        // Who sends logins on may send the next one elsewhere.
        guard !session.path.isRedirected else { return end(isComplete: false) }
        if let ended { return confirm(ended, session) }
        guard !kept.isEmpty else { return keep(session) }
        beginStep(.waiting, bound: session.portal.settings.session.silenceTimeout)
    }

    fileprivate func lost(_ session: ProofSession, _ failure: PathFailure) {
        guard phase != .over else { return }
        if session === newest {
            // Nothing can be learnt of this portal now. But where it had ended a session already, who knows what it did.
            guard phase == .loggingIn, ended == nil else { return end(isComplete: false) }
            isComplete = false
            return next()
        }
        guard kept.contains(where: { $0 === session }) else { return }
        kept.removeAll { $0 === session }
        guard ended == nil, phase == .loggingIn || phase == .waiting, failure.isTargetsDoing else {
            return end(isComplete: false)
        }
        ended = session
        if phase == .waiting, let newest { confirm(session, newest) }
    }

    private func keep(_ session: ProofSession) {
        kept.append(session)
        next()
    }

    // MARK: Conclusions

    /// The target ended `old` when `new` logged in, unless the portal of `old` is gone altogether.
    private func confirm(_ old: ProofSession, _ new: ProofSession) {
        beginStep(.asking, bound: new.portal.settings.session.silenceTimeout)
        let step = step
        old.portal.dataSession.askForLife { [weak self] isAlive in
            guard let self, self.step == step else { return }
            guard isAlive else { return self.end(isComplete: false) }
            self.found(.shared(old.portal.number, new.portal.number))
            self.keep(new)
        }
    }

    /// No kept session has ended: do they live?
    private func askAll(_ new: ProofSession) {
        beginStep(.asking, bound: new.portal.settings.session.silenceTimeout)
        let step = step
        let asked = kept
        var silent = asked.count
        for old in asked {
            guard self.step == step else { return }
            old.channel.askForLife { [weak self] isAlive in
                guard let self, self.step == step else { return }
                guard isAlive else { return self.end(isComplete: false) }
                silent -= 1
                guard silent == 0 else { return }
                for old in asked { self.found(.apart(old.portal.number, new.portal.number)) }
                self.keep(new)
            }
        }
    }

    func timerFired(_ timer: TimerID, token: UInt64) {
        guard token == step else { return }
        self.timer = nil
        if phase == .waiting, let newest { askAll(newest) } else { end(isComplete: false) }
    }
}

/// One session of a proof.
private final class ProofSession: SessionObserver {
    let portal: PortalGroupProof.Portal
    let path: ISCSIPath
    let channel: ControlChannel
    private weak var proof: PortalGroupProof?

    init(_ portal: PortalGroupProof.Portal, host: EngineHost, proof: PortalGroupProof) {
        self.portal = portal
        self.proof = proof
        path = ISCSIPath(settings: portal.settings, host: host)
        channel = ControlChannel(path: path)
        channel.owner = self
    }

    func sessionLoggedIn() { proof?.loggedIn(self) }
    func sessionLost(_ failure: PathFailure) { proof?.lost(self, failure) }
}

extension PathFailure {
    /// The target closed, reset or dropped the session; nothing here or on the way did.
    fileprivate var isTargetsDoing: Bool {
        switch reason {
        case .connectionClosed, .connectionReset, .targetDroppedSession: true
        default: false
        }
    }
}

extension ControlChannel {
    /// Whether the session answers. INQUIRY, because it is answered whatever the unit's state and takes no unit attention
    /// from those whom it is for.
    fileprivate func askForLife(_ answer: @escaping (Bool) -> Void) {
        execute(.inquiry(allocationByteCount: 36), lun: LogicalUnitNumber(rawValue: 0), byteCount: 36) {
            if case .returned = $0.outcome { answer(false) } else { answer(true) }
        }
    }
}
