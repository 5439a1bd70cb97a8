public import SCSI
public import Timebase

extension PseudoLUN {
    /// Which unit it must be by configuration; nil where the first path defines it.
    public var pinned: LogicalUnitIdentity? { pinnedIdentity }

    /// Ends a request that waits (for a path, a retry, or an overlapping write) as `cancelled`; as
    /// `outcomeUnknown` where it changes blocks and an earlier attempt may have done so. One that is in
    /// flight goes on: its memory may be in use. False: not waiting.
    @discardableResult
    public func cancel(slot: UInt32, at now: Instant) -> Bool {
        guard slot < UInt32(untouchedSlots) else { return false }
        let index = Int32(truncatingIfNeeded: slot)
        switch slots[Int(index)].state {
        case .ready, .delayed, .blocked:
            let entry = slots[Int(index)]
            fail(index, entry.mayHaveRun && entry.descriptor.kind.changesBlocks ? .outcomeUnknown : .cancelled)
            settle(at: now)
            return true
        case .free, .inFlight, .finished: return false
        }
    }

    /// The target reported sense data outside any command (an iSCSI Asynchronous Message, SAM-5 clause 5.14): what
    /// the device-specific module makes of it is done, but nothing is retried.
    public func reported(_ sense: SenseData, on path: PathIndex, at now: Instant) {
        guard let index = known(path) else { return }
        let disposition = dsm.disposition(
            of: .status(.checkCondition, sense), for: RequestDescriptor(kind: .other), on: path)
        apply(disposition, to: index, at: now)
        settle(at: now)
    }
}
