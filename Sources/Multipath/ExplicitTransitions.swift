public import SCSI
public import Timebase

/// A port group as the path that leads to it describes it.
public struct GroupAccess: Hashable, Sendable {
    /// The path that was asked.
    public var path: PathIndex
    /// What it said of its group.
    public var group: TargetPortGroup
    /// The path's place in the configured order.
    public var order: Int32

    /// A group as a path describes it.
    public init(path: PathIndex, group: TargetPortGroup, order: Int32) {
        self.path = path
        self.group = group
        self.order = order
    }
}

/// A SET TARGET PORT GROUPS to be sent: one group, through a port of its own, which knows itself best.
@frozen
public struct ExplicitTransition: Hashable, Sendable {
    /// The path on which to ask.
    public var path: PathIndex
    /// The group, and the state that it is to take.
    public var change: TargetPortGroupChange

    /// A request for a transition.
    public init(path: PathIndex, change: TargetPortGroupChange) {
        self.path = path
        self.change = change
    }
}

/// When to ask an array to make a port group active, and which one.
///
/// Two hosts that each reach another controller only would pull a unit back and forth for ever. So nothing is asked
/// before it is needed, a group that somebody else chose is left to them for a moment, and every
/// further try waits twice as long as the one before.
public struct ExplicitTransitions: Sendable {
    /// An array that also moves by itself gets this long to do so first.
    public static let implicitGrace = Duration.seconds(2)
    /// How long the choice of another initiator stands.
    public static let contentionPause = Duration.seconds(5)
    /// The pause after the first try.
    public static let firstPause = Duration.seconds(1)
    /// The longest pause.
    public static let pauseMaximum = Duration.seconds(60)
    /// So long after the last try the next counts as the first.
    public static let forgiveness = Duration.seconds(240)

    private var tries = 0
    private var lastTry: Instant?
    /// Groups that would not, with what they were when they refused; the others come first.
    private var refusals: [UInt16] = []
    /// The group that was made active last.
    private var chosen: UInt16?
    /// Not before this moment; `.distantFuture` where nothing is wanted.
    public private(set) var nextTry = Instant.distantFuture

    /// Nothing was tried yet.
    public init() {}

    /// What to ask for now. Nil: nothing, or not before ``nextTry``.
    ///
    /// - Parameters:
    ///   - groups: of all paths that are up; none of them carries data or is in transition.
    ///   - since: since when no path carries data.
    ///   - isImplicit: the array also changes states by itself.
    ///   - now: the present.
    public mutating func wanted(
        _ groups: [GroupAccess], since: Instant, isImplicit: Bool, at now: Instant
    ) -> ExplicitTransition? {
        nextTry = .distantFuture
        if let lastTry, now - lastTry > Self.forgiveness {
            tries = 0
            refusals.removeAll()
        }
        guard let best = best(of: groups) else { return nil }
        var earliest = since
        if isImplicit { earliest = since + Self.implicitGrace }
        if isAnothers(groups) { earliest = max(earliest, since + Self.contentionPause) }
        if let lastTry, tries > 0 { earliest = max(earliest, lastTry + pause) }
        guard earliest <= now else {
            nextTry = earliest
            return nil
        }
        tries += 1
        lastTry = now
        return ExplicitTransition(
            path: best.path, change: TargetPortGroupChange(identifier: best.group.identifier, state: .optimized))
    }

    /// The array's answer. A unit attention told of something else, so the try does not count.
    public mutating func ended(_ transition: ExplicitTransition, _ outcome: PathOutcome) {
        let group = transition.change.identifier
        switch outcome {
        case .good:
            chosen = group
            refusals.removeAll { $0 == group }
        case .status(.checkCondition, let sense?) where sense.key == .unitAttention: tries = max(0, tries - 1)
        case .status(.checkCondition, let sense?) where sense.key == .illegalRequest || sense.key == .hardwareError:
            if !refusals.contains(group) { refusals.append(group) }
        case .status, .targetFailure, .short, .returned: break
        }
    }

    private var pause: Duration {
        var pause = Self.firstPause
        for _ in 1..<max(min(tries, 32), 1) where pause < Self.pauseMaximum { pause += pause }
        return min(pause, Self.pauseMaximum)
    }

    /// A group was made active by an initiator, and not by us.
    private func isAnothers(_ groups: [GroupAccess]) -> Bool {
        groups.contains { $0.group.status == .alteredExplicitly && $0.group.identifier != chosen }
    }

    /// In this order: has not refused, standby before unavailable, preferred, configured first.
    private func best(of groups: [GroupAccess]) -> GroupAccess? {
        groups.filter { ($0.group.state == .standby || $0.group.state == .unavailable) && $0.group.supportedStates.contains(.optimized as AccessState) }
            .min { rank($0) < rank($1) }
    }

    private func rank(_ access: GroupAccess) -> (Int, Int, Int, Int32) {
        (
            refusals.firstIndex(of: access.group.identifier).map { $0 + 1 } ?? 0, access.group.state == .standby ? 0 : 1,
            access.group.isPreferred ? 0 : 1, access.order
        )
    }
}
