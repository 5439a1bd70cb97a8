extension InitiatorSession {
    /// Whether a command or task management function with such a token is in the session: one that the target has not ended, or whose
    /// outcome was not taken yet (then of any token). Looks through the whole table: not for every request.
    package func hasTask(where matches: (UInt64) -> Bool) -> Bool { hasUntaken || table.hasTask(where: matches) }
}

extension CommandTable {
    func hasTask(where matches: (UInt64) -> Bool) -> Bool {
        (0..<usedCapacity).contains { slot in
            switch slots[slot].kind {
            case .command, .draining, .lost, .taskManagement: matches(slots[slot].token)
            case .free, .ping, .control: false
            }
        }
    }
}
