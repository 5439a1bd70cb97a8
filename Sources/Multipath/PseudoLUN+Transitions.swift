public import SCSI
public import Timebase

extension PseudoLUN {
    /// The answer to a `.setTargetPortGroup` action.
    public func transitionFinished(
        _ path: PathIndex, _ change: TargetPortGroupChange, _ outcome: PathOutcome, at now: Instant
    ) {
        guard let index = known(path), transition == ExplicitTransition(path: path, change: change) else { return }
        endTransition(outcome, at: now)
        switch outcome {
        case .good: break
        case .returned: break  // the loss of the path is told for itself
        case .status, .targetFailure, .short:
            let disposition = dsm.disposition(of: outcome, for: RequestDescriptor(kind: .other), on: path)
            apply(disposition, to: index, at: now)
        }
        // GOOD may come before the transition has ended (SPC-4 clause 6.45); the group says how far it is.
        refreshAccessStates(at: now)
        settle(at: now)
    }

    private func endTransition(_ outcome: PathOutcome, at now: Instant) {
        guard let ended = transition else { return }
        transition = nil
        dsm.transitionEnded(ended, outcome, at: now)
        post(.transitionEnded(ended.path, ended.change, outcome))
    }

    /// Where no path carries data and somebody wants it to, the module may have a group made active. Only on
    /// fresh reports: nothing is being asked, connected for the first time, or on its way by itself.
    func considerTransition(at now: Instant) {
        transitionAt = .distantFuture
        if let path = transition?.path, paths[path.index].link != .up {
            endTransition(.returned(wasSent: true, .connectionClosed), at: now)
        }
        guard transition == nil, bestGrade == .unusable, settings.asymmetricAccess.setsTargetPortGroups, !isClosed,
            !isLUNFailed, liveCount > 0 || !hadPath, !paths.contains(where: \.mayChangeSoon)
        else { return }
        let groups = paths.indices.compactMap { index -> GroupAccess? in
            let record = paths[index]
            guard record.link == .up, record.transport == .iSCSI, !record.isDrained, record.stalledSince == nil, let group = record.group,
                record.device?.targetPortGroupSupport.contains(.explicit) == true
            else { return nil }
            return GroupAccess(path: PathIndex(index), group: group, order: rows[index].order)
        }
        guard !groups.isEmpty else { return }
        let isImplicit = groups.contains { paths[$0.path.index].device?.targetPortGroupSupport.contains(.implicit) == true }
        let since = noPathSince ?? paths.compactMap(\.stalledSince).min() ?? now
        transition = dsm.wantedTransition(groups, since: since, isImplicit: isImplicit, at: now)
        guard let transition else {
            transitionAt = dsm.nextTransition
            return
        }
        post(.transitionRequested(transition.path, transition.change))
        actions.push(.setTargetPortGroup(transition.path, transition.change))
    }
}

extension PathRecord {
    /// Its state is not known for sure, or changes by itself.
    fileprivate var mayChangeSoon: Bool {
        switch link {
        case .connecting: recovery.attempts == 0
        case .probing, .fencing: true
        case .up: stalledSince == nil && (isRefreshing || isVerifying || accessState == .transitioning)
        case .down, .refused, .takenOut, .removed: false
        }
    }
}
