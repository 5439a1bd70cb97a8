package import Timebase

/// A write whose old copy was not known to be dead when its LUN was closed.
package struct RemainingWrite: Hashable, Sendable {
    package var lba: UInt64
    package var blockCount: UInt32
    package var since: Instant
    /// When `quiesce-time` has passed since its session ended; `.distantFuture` while nobody has seen that end.
    package var deadline: Instant

    /// The same, feared until `end` at the latest.
    package func ended(by end: Instant) -> RemainingWrite {
        RemainingWrite(lba: lba, blockCount: blockCount, since: since, deadline: min(deadline, end))
    }
}

// What an earlier opening of the LUN left behind, in this process or in one that was killed.
extension PseudoLUN {
    /// What is still feared on a path, for whoever opens the LUN next.
    package func remainingWrites(on path: PathIndex) -> [RemainingWrite] {
        staleWrites.copies.filter { $0.path == path.rawValue }.map {
            RemainingWrite(lba: $0.lba, blockCount: $0.blockCount, since: $0.since, deadline: $0.deadline)
        }
    }

    /// Takes over what ``remainingWrites(on:)`` told: later writes wait for it as for copies of this LUN's own. To be called before
    /// the path is connected.
    package func inherit(_ writes: [RemainingWrite], on path: PathIndex, at now: Instant) {
        guard settings.staleWriteGuard.isEnabled, let index = known(path) else { return }
        for write in writes where write.deadline > now {
            staleWrites.add(
                StaleCopy(
                    request: RequestIndex(slot: .max, attempt: 0), path: path.rawValue, lba: write.lba, blockCount: write.blockCount,
                    sequence: 0, since: write.since,
                    // Of a device's answer the next opening hears nothing.
                    deadline: paths[index].transport == .iSCSI ? write.deadline : min(write.deadline, now + settings.timers.quiesceTime)))
            ranges.insert(write.lba, write.blockCount)
        }
        guard staleWrites.count(on: path.rawValue) > 0, paths[index].fence == .none else { return }
        paths[index].fence = .waiting
        post(.guardRaised(path, copies: staleWrites.count(on: path.rawValue)))
        updateDeadline()
    }

    /// A process that was killed may have left writes on the path's nexus. Its login ends their session, and the path carries nothing before
    /// ABORT TASK SET is answered as well, for a target may execute what it took before. A target that refuses it has nothing more to
    /// offer: told as ``MultipathEvent/fenceFailed(_:_:_:)``.
    package func expectUnknownWrites(on path: PathIndex) {
        guard settings.staleWriteGuard.isEnabled, let index = known(path), paths[index].transport == .iSCSI else { return }
        paths[index].mayHoldUnknownWrites = true
    }
}
