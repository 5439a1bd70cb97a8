import AsyncIO
import ISCSI
import Multipath
import Timebase

/// What is known of the nexus behind a portal, for the stale-write guard and the inspector.
struct NexusKnowledge {
    /// Whether a login by an ISID in use ends the older session; nil: not known.
    var reinstates: Bool?
    /// The names of the other portals through which that works as well.
    var sharedWith: [String] = []
}

/// Keeps ``NexusGroups`` of all targets up to date in the background: soon after the second portal of a port group
/// is logged in to, and after each later login, a ``PortalGroupProof`` finds out what is unknown. One at a time.
///
/// Reactor's thread.
final class NexusSurvey: TimerHandler {
    /// From a login to the proof: the other portals' logins, and a disk's opening, come first.
    static let delay = Duration.milliseconds(250)
    static let firstPause = Duration.seconds(1)
    static let longestPause = Duration.seconds(300)

    private struct Target {
        var groups = NexusGroups()
        /// The portals that work, with their data sessions' channels.
        var channels: [Int: ControlChannel] = [:]
        var due = Instant.distantFuture
        var failures = 0

        var unproven: [Int] { groups.unproven(among: Array(channels.keys)) }
    }

    private let host: EngineHost
    /// A portal's session settings with the target's spare ISID.
    private let settings: (SessionPool.Key) -> ISCSIPathSettings?
    private var targets: [Int: Target] = [:]
    private var round: (target: Int, proof: PortalGroupProof)?
    /// Is kept for a step: its sessions may still be telling it of their end.
    private var finished: PortalGroupProof?
    private var timer: TimerID?
    private var isStopped = false

    init(host: EngineHost, settings: @escaping (SessionPool.Key) -> ISCSIPathSettings?) {
        self.host = host
        self.settings = settings
    }

    /// From now on told of the session's logins and losses.
    func watch(_ inventory: SessionInventory, _ key: SessionPool.Key) {
        _ = inventory.channel.observe(PortalWatch(key, inventory, self))
    }

    func groups(ofTarget target: Int) -> NexusGroups { targets[target]?.groups ?? NexusGroups() }

    /// The sessions of proofs that may be open.
    var paths: [ISCSIPath] { round?.proof.paths ?? [] }

    /// Ends all for good; ``paths`` log out.
    func stop() {
        isStopped = true
        rearm()
        round?.proof.cancel()
    }

    // MARK: News

    fileprivate func loggedIn(_ key: SessionPool.Key, _ inventory: SessionInventory) {
        guard let tag = inventory.path.portalGroupTag else { return }
        targets[key.target, default: Target()].groups.enter(key.portal, tag: tag)
        // One that sends logins on can't say where to.
        guard !inventory.path.isRedirected else { return }
        targets[key.target]?.channels[key.portal] = inventory.channel
        postpone(key.target)
    }

    fileprivate func lost(_ key: SessionPool.Key) {
        guard targets[key.target]?.channels.removeValue(forKey: key.portal) != nil else { return }
        guard let round, round.target == key.target, round.proof.portals.contains(where: { $0.number == key.portal })
        else { return }
        round.proof.cancel()
    }

    private func postpone(_ target: Int) {
        let soon = host.port.now + Self.delay
        if let known = targets[target], known.failures == 0 || known.due == .distantFuture || known.due < soon {
            targets[target]?.due = soon
        }
        rearm()
    }

    // MARK: Rounds

    private func rearm() {
        if let timer { host.port.cancelTimer(timer) }
        timer = nil
        guard !isStopped, round == nil else { return }
        let due = finished != nil ? host.port.now : targets.values.map(\.due).min() ?? .distantFuture
        guard due < .distantFuture else { return }
        timer = host.port.setTimer(at: due, handler: self, token: 0)
    }

    func timerFired(_ timer: TimerID, token: UInt64) {
        guard timer == self.timer else { return }
        self.timer = nil
        finished = nil
        let now = host.port.now
        for target in targets.keys.sorted() where round == nil && targets[target]!.due <= now {
            targets[target]!.due = .distantFuture
            begin(target)
        }
        rearm()
    }

    private func begin(_ target: Int) {
        let portals = targets[target]!.unproven.compactMap { portal in
            settings(SessionPool.Key(target: target, portal: portal)).map {
                PortalGroupProof.Portal(number: portal, settings: $0, dataSession: targets[target]!.channels[portal]!)
            }
        }
        guard !portals.isEmpty else { return }
        let proof = PortalGroupProof(portals, host: host) { [weak self] portal in
            self?.targets[target]?.groups.isUnjudged(portal) ?? false
        } found: { [weak self] finding in
            switch finding {
            case .shared(let a, let b): self?.targets[target]?.groups.share(a, b)
            case .apart(let a, let b): self?.targets[target]?.groups.separate(a, b)
            }
        } over: { [weak self] isComplete in
            self?.ended(target, isComplete: isComplete)
        }
        round = (target, proof)
        proof.start()
    }

    private func ended(_ target: Int, isComplete: Bool) {
        finished = round?.proof
        round = nil
        let failures = isComplete ? 0 : (targets[target]?.failures ?? 0) + 1
        targets[target]?.failures = failures
        let pause = failures == 0 ? Self.delay : min(Self.firstPause * (1 << min(failures - 1, 10)), Self.longestPause)
        // What is still unknown is tried again; so is what became so meanwhile.
        let isUnproven = targets[target]?.unproven.isEmpty == false
        targets[target]?.due = isUnproven ? host.port.now + pause : .distantFuture
        rearm()
    }
}

/// Passes one session's news on.
private final class PortalWatch: SessionObserver {
    private let key: SessionPool.Key
    private unowned let inventory: SessionInventory
    private weak var survey: NexusSurvey?

    init(_ key: SessionPool.Key, _ inventory: SessionInventory, _ survey: NexusSurvey) {
        self.key = key
        self.inventory = inventory
        self.survey = survey
    }

    func sessionLoggedIn() { survey?.loggedIn(key, inventory) }
    func sessionLost(_ failure: PathFailure) { survey?.lost(key) }
}
