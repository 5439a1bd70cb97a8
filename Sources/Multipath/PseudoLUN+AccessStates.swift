public import SCSI
public import Timebase

extension PseudoLUN {
    /// How often a path in transition is asked.
    static let accessStateInterval = Duration.seconds(2)
    /// How long a transition may take where the target says nothing.
    static let transitionLimit = Duration.seconds(60)

    /// REPORT TARGET PORT GROUPS was answered on the path. Each path believes only what its own port says
    /// of its own group: two controllers may disagree, and the one that is asked knows itself.
    public func accessStatesReported(
        _ path: PathIndex, _ groups: [TargetPortGroup], unitAttentions: [SenseData] = [], at now: Instant
    ) {
        guard let index = known(path) else { return }
        paths[index].isRefreshing = false
        paths[index].isVerifying = false
        noteUnitAttentions(unitAttentions, on: index, isFullProbe: false, at: now)
        adopt(groups, fallback: paths[index].accessState, on: index, at: now)
        settle(at: now)
    }

    /// A `.verify` probe ended well. `groups` is what the path said of its access states; nil where it has
    /// none.
    public func pathVerified(
        _ path: PathIndex, _ groups: [TargetPortGroup]?, unitAttentions: [SenseData] = [], at now: Instant
    ) {
        guard let index = known(path) else { return }
        paths[index].isVerifying = false
        paths[index].isRefreshing = false
        hot[index].lastHeard = now.nanoseconds
        noteUnitAttentions(unitAttentions, on: index, isFullProbe: false, at: now)
        if let groups {
            adopt(groups, fallback: paths[index].accessState, on: index, at: now)
        } else if !paths[index].hasAccessStates {
            // Without ALUA only an error told of the state, and the path now says that it is well.
            setAccessState(index, .optimized, at: now)
        }
        scheduleVerification(index, at: now)
        settle(at: now)
    }

    /// Takes the state of the path's own group, what the path says of others being hearsay; `fallback` where the answer does not name it.
    func adopt(_ groups: [TargetPortGroup], fallback: AccessState, on index: Int, at now: Instant) {
        guard let own = ownGroup(groups, on: index) else {
            return setAccessState(index, fallback, at: now)
        }
        paths[index].isPreferred = own.isPreferred
        paths[index].group = own
        setAccessState(index, own.state, at: now)
    }

    private func ownGroup(_ groups: [TargetPortGroup], on index: Int) -> TargetPortGroup? {
        if let port = paths[index].device?.relativeTargetPort,
            let group = groups.first(where: { $0.relativePorts.contains(port) })
        {
            return group
        }
        if let identifier = paths[index].device?.targetPortGroup,
            let group = groups.first(where: { $0.identifier == identifier })
        {
            return group
        }
        return groups.count == 1 ? groups[0] : nil
    }

    func setAccessState(_ index: Int, _ state: AccessState, at now: Instant) {
        let old = paths[index].accessState
        if state == .transitioning {
            paths[index].refreshAt = min(paths[index].refreshAt, now + Self.accessStateInterval)
            // A target that is still in transition after its time is treated as standby, and asked on.
            if old == .standby, paths[index].transitionDeadline <= now { return }
            if old != .transitioning {
                paths[index].transitionDeadline = now + (paths[index].transitionTime ?? Self.transitionLimit)
            }
        } else {
            paths[index].transitionDeadline = .distantFuture
            paths[index].refreshAt = .distantFuture
        }
        guard state != old else { return }
        paths[index].accessState = state
        if paths[index].carriesData, !paths[index].isCapacityVerified { recheck(index, at: now) }
        if paths[index].link == .up {
            post(.accessStateChanged(PathIndex(index), from: old, to: state))
        }
    }

    /// Asks every path that is up for its access state.
    func refreshAccessStates(at now: Instant) {
        for index in paths.indices where paths[index].link == .up && paths[index].stalledSince == nil {
            refreshAccessState(index, at: now)
        }
    }

    func refreshAccessState(_ index: Int, at now: Instant) {
        guard paths[index].hasAccessStates else {
            // No ALUA: only asking the unit itself tells whether it is ready again.
            if !paths[index].carriesData { verify(index, at: now) }
            return
        }
        guard !paths[index].isRefreshing else { return }
        paths[index].isRefreshing = true
        actions.push(.probe(PathIndex(index), .accessStates))
    }

    /// Asks the path whether it is well.
    func verify(_ index: Int, at now: Instant) {
        guard paths[index].link == .up, !paths[index].isVerifying else { return }
        paths[index].isVerifying = true
        actions.push(.probe(PathIndex(index), .verify))
    }

    func scheduleVerification(_ index: Int, at now: Instant) {
        let period = settings.timers.pathVerifyPeriod
        paths[index].verifyAt = period > .zero ? now + period : .distantFuture
    }
}
