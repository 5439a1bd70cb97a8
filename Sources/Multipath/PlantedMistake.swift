/// A mistake made on purpose, to show that the simulator's oracles would find it.
///
/// Only rare code looks at ``PseudoLUN/plantedMistake`` (a path was lost, stalled or is being fenced), and nothing but a
/// simulation sets it.
package enum PlantedMistake: Hashable, Sendable {
    /// What was in flight on a lost path counts as done.
    case lostCommandCountsAsDone
    /// What was in flight on a lost path fails.
    case lostCommandFails
    /// The youngest of what was in flight on a lost path is left out when the rest is re-driven, and never ends.
    case lostCommandForgotten
    /// A stalled path's request goes elsewhere while the session still sends from the caller's memory.
    case bufferReleasedEarly
    /// The fence says that it aborted the old task set, and did not.
    case fenceWithoutAbort
    /// A command that a lost session hands back ends for the caller, and is driven elsewhere as well.
    case doubleCompletion
}

extension PseudoLUN {
    /// Ends a request of a lost path as a planted mistake would; false where none is planted here.
    func mistreatLost(_ slot: Int32, isYoungest: Bool) -> Bool {
        switch plantedMistake {
        case .lostCommandCountsAsDone: finish(slot, .done)
        case .lostCommandFails: finish(slot, .failed(.outcomeUnknown))
        case .lostCommandForgotten where isYoungest: forget(slot)
        default: return false
        }
        return true
    }
}
