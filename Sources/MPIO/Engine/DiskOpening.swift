import AsyncIO
import Multipath
import SCSI
import Timebase

/// Waits for a disk to be usable after its paths were added: until every path is up or down, or a little
/// after the first one is up, so that the first requests already spread; at the latest when logins
/// time out. Several may wait for one disk.
final class DiskOpening: TimerHandler {
    enum Outcome: Sendable {
        case opened(DeviceDescription)
        /// What each path says, in their order.
        case failed([PathTrouble])
        /// Nobody waits for it any more, or it must not be opened.
        case ended(PathManagerError)
    }

    /// Whose it is; nil: nobody cancels it.
    let ticket: CancellationFlag?
    private let patience: Duration

    private let disk: DiskEngine
    private var report: ((Outcome) -> Void)?
    private var definedAt: Instant?
    private let deadline: Instant

    /// Calls `report` once, perhaps before it returns.
    @discardableResult
    init(
        _ disk: DiskEngine, limits: OpeningLimits, ticket: CancellationFlag? = nil, report: @escaping (Outcome) -> Void
    ) {
        self.disk = disk
        self.ticket = ticket
        self.report = report
        patience = limits.patience
        deadline = disk.now + limits.total
        disk.openings.append(self)
        _ = disk.host.port.setTimer(at: deadline, handler: self, token: 0)
        check()
    }

    /// Called whenever the disk's state may have changed.
    func check() {
        guard report != nil else { return }
        if let conflict = disk.conflict { return finish(.ended(conflict.error(for: disk.name))) }
        let snapshot = disk.lun.snapshot()
        let isSettled = snapshot.paths.allSatisfy { !$0.state.isConnecting }
        if let device = disk.device, snapshot.paths.contains(where: \.state.isUsable) {
            if definedAt == nil {
                definedAt = disk.now
                _ = disk.host.port.setTimer(at: disk.now + patience, handler: self, token: 0)
            }
            if isSettled || disk.now >= min(definedAt! + patience, deadline) { finish(.opened(device)) }
        } else if isSettled && !snapshot.paths.contains(where: \.state.mayBecomeUsable) || disk.now >= deadline {
            finish(.failed(snapshot.paths.map { PathTrouble(name: $0.name, words: $0.troubleWords) }))
        }
    }

    private func finish(_ outcome: Outcome) {
        let report = report
        self.report = nil
        disk.openings.removeAll { $0 === self }
        report?(outcome)
    }

    /// Ends the waiting; the disk goes on with what it does.
    func end(_ error: PathManagerError) { finish(.ended(error)) }

    func timerFired(_ timer: TimerID, token: UInt64) { check() }
}

/// What opening a disk waits for.
package struct OpeningLimits: Sendable {
    /// How long the first usable path waits for the others.
    package var patience: Duration
    /// How long all of them are waited for.
    package var total: Duration

    package init(patience: Duration, total: Duration) {
        self.patience = patience
        self.total = total
    }

    /// One login for a session, one more where the first was redirected.
    static func use(_ timers: Timers) -> OpeningLimits {
        OpeningLimits(patience: .milliseconds(250), total: timers.loginTimeout + timers.loginTimeout)
    }

    /// The same for a disk that may have writes of a dead process in its sessions: each is logged in to, or has failed, before there is
    /// a new write for an old one to undo.
    static func takeOver(_ timers: Timers) -> OpeningLimits {
        var limits = use(timers)
        limits.patience = limits.total
        return limits
    }
}

/// A path that cannot be used, and why.
public struct PathTrouble: Hashable, Sendable, CustomStringConvertible {
    /// The path's name.
    public var name: String
    /// What is wrong with it, in words.
    public var words: String
    public var description: String { "\(name): \(words)" }
}

extension Multipath.PathState {
    var isConnecting: Bool { self == .connecting }

    /// Whether the array may let it carry data any moment, by itself or because it is asked to.
    var mayBecomeUsable: Bool { self == .standby || self == .transitioning }

    /// Whether it can carry data.
    var isUsable: Bool {
        switch self {
        case .activeOptimized, .activeNonOptimized, .marginal: true
        default: false
        }
    }
}

extension Multipath.PathSnapshot {
    var troubleWords: String {
        switch state {
        case .failed(let failure, _): "\(failure)"
        case .refused(let reason): "refused: \(reason)"
        default: state.name
        }
    }
}
