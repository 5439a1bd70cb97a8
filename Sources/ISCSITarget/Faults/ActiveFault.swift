import AsyncIO
import SCSI

/// A fault that is set: its counts, and what it must undo.
final class ActiveFault {
    let id: Int
    let command: FaultCommand
    /// After `after=` and before the end of `for=`; a fault that waits for commands is armed until the first.
    enum Phase { case waiting, armed, begun }
    var phase = Phase.waiting
    /// Commands that its conditions let through, and those that it struck.
    var matched: UInt64 = 0
    var struck: UInt64 = 0
    var timers: [TimerID] = []
    /// Undoes what it did to groups and units, the last first.
    var undo: [() -> Void] = []
    /// Tokens of the commands it holds.
    var held: [UInt64] = []

    init(id: Int, command: FaultCommand) {
        self.id = id
        self.command = command
    }

    var kind: FaultKind { command.kind }
    var trigger: FaultTrigger { command.trigger }

    func concerns(portal: Int, group: UInt16, nodes: [String]) -> Bool {
        (trigger.portal ?? portal) == portal && (trigger.group ?? group) == group
            && (trigger.node.map(nodes.contains) ?? true)
    }

    /// Counts a command that matches, and says whether it is one to strike.
    func strikes(_ random: inout FaultRandom) -> Bool {
        matched += 1
        guard matched >= trigger.firstCommand ?? 1, struck < limit else { return false }
        if let chance = trigger.chanceMillionths, random.next(below: 1_000_000) >= UInt64(chance) { return false }
        struck += 1
        return true
    }

    /// What is done to connections and units is done once, unless the trigger says more.
    private var limit: UInt64 {
        if let count = trigger.count { return count }
        return kind.isOfCommands || trigger.chanceMillionths != nil ? .max : 1
    }
}

/// SplitMix64: small, and the same everywhere.
struct FaultRandom {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func next(below limit: UInt64) -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return (value ^ value >> 31).multipliedFullWidth(by: limit).high
    }
}
