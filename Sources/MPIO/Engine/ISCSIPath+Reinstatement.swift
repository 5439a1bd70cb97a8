import Multipath
import SCSI

// Ending the old commands of a lost session's nexus through another portal of the same target port group.
extension ISCSIPath {
    /// What the last failure says of the own portal: where it cannot be reached, trying it first would only take time.
    var isOwnPortalUnreachable: Bool {
        guard case .down(let failure) = state else { return false }
        switch failure.reason {
        case .connectionRefused, .unreachable, .connectTimedOut, .loginTimedOut, .notAcknowledged, .silent: return true
        default: return false
        }
    }

    /// Ends the old commands of this session's nexus on one unit, through another portal of the same target port group.
    /// False: nothing to do it through, or this session is being made itself; `answer` is not called.
    func abortTaskSetElsewhere(
        of unit: UnitOnNexus, for client: PathClientID, answer: @escaping (Bool) -> Void
    ) -> Bool {
        guard socketInUse == nil else { return false }
        users.insert(client)
        if let reinstatement {
            reinstatement.abortTaskSet(of: unit, answer: answer)
            return true
        }
        let portals = alternatives()
        guard !portals.isEmpty else { return false }
        let started = NexusReinstatement(through: portals, host: host) { [weak self] in self?.reinstatementEnded() }
        reinstatement = started
        started.abortTaskSet(of: unit, answer: answer)
        started.start()
        return true
    }

    private func reinstatementEnded() {
        endedReinstatement = reinstatement
        reinstatement = nil
        if connectAfterReinstatement {
            connectAfterReinstatement = false
            connect()
        }
        host.runDirtyDisks()
        if isOver { tellEndings() }
    }
}
