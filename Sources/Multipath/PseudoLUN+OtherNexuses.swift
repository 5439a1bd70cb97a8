public import Timebase

// What other nexuses of the unit do to the requests of this one: other hosts', or other lanes' of the same disk.
extension PseudoLUN {
    /// LOGICAL UNIT RESET or CLEAR TASK SET of another nexus may have ended what is in flight, and without an answer (SAM-5
    /// clause 5.14 with TAS 0). Everything that a session carries is asked back, which brings an answer in either case; what was
    /// ended is sent again.
    public func commandsMayBeCleared(at now: Instant) {
        for index in paths.indices { askBack(index) }
        settle(at: now)
    }

    /// Another nexus of the unit has seen another capacity: one path is asked for it, and where it grew, all are.
    public func capacityMayHaveChanged(at now: Instant) {
        for index in paths.indices { paths[index].expectsNewCapacity = true }
        guard let index = paths.indices.first(where: { paths[$0].link == .up }) else { return }
        recheck(index, at: now)
        settle(at: now)
    }

    /// ABORT TASK for each request in flight on a path, or for those that were issued before `slot`. One that ended well
    /// meanwhile keeps its answer.
    func askBack(_ index: Int, before slot: Int32 = -1) {
        guard paths[index].transport == .iSCSI, paths[index].isTransportUp, paths[index].stalledSince == nil else { return }
        var other = hot[index].inFlight.head
        while other >= 0, other != slot {
            let request = RequestIndex(slot: UInt32(other), attempt: slots[Int(other)].attempt)
            actions.push(.abort(request, on: PathIndex(index)))
            other = slots[Int(other)].next
        }
    }
}
