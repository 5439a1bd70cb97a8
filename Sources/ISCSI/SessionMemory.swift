/// The large pieces of memory of an ``InitiatorSession``, on their way from one that is over to the next.
///
/// Made anew for each login, they would leave holes between whatever else was allocated meanwhile, and a process would
/// grow with each path that comes back.
struct SessionMemory: ~Copyable {
    var table: CommandTable
    var bursts: BurstTable
    var completions: CompletionRing
    /// Where an earlier session needed it.
    var retained: UnsafeMutablePointer<RetainedCommand>?
    /// One of each connection. Who consumes this moves them out and deallocates.
    let outputs: UnsafeMutablePointer<OutputQueue>

    init(_ settings: SessionSettings) {
        table = CommandTable(commandCapacity: settings.commandCapacity)
        bursts = BurstTable(capacity: settings.commandCapacity * (settings.maxOutstandingR2T + 1))
        completions = CompletionRing(capacity: settings.completionCapacity)
        outputs = .allocate(capacity: settings.connectionCapacity)
        for index in 0..<settings.connectionCapacity {
            (outputs + index).initialize(to: InitiatorConnection.output(commandCapacity: settings.commandCapacity))
        }
    }

    /// Takes what `session` has and leaves the smallest there is in its place.
    init(takenFrom session: inout InitiatorSession) {
        table = CommandTable(commandCapacity: 1)
        bursts = BurstTable(capacity: 1)
        completions = CompletionRing(capacity: 1)
        swap(&table, &session.table)
        swap(&bursts, &session.bursts)
        swap(&completions, &session.completions)
        table.removeAll()
        bursts.removeAll()
        completions.removeAll()
        retained = session.retained
        session.retained = nil
        outputs = .allocate(capacity: session.connectionCount)
        for index in 0..<session.connectionCount {
            (outputs + index).initialize(to: OutputQueue(byteCapacity: 1024, segmentCapacity: 8))
            swap(&outputs[index], &session.connections[index].output)
            outputs[index].removeAll()
        }
    }
}

extension SessionSettings {
    /// What is asked for: the bursts that it allows have room.
    var maxOutstandingR2T: Int { min(max(login.operational.maxOutstandingR2T, 1), 64) }
    var completionCapacity: Int { 2 * commandCapacity }
    var connectionCapacity: Int { max(login.operational.maxConnections, 1) }
}

extension InitiatorSession {
    /// Makes this a new session with the same settings, as ``init(settings:cryptography:crc32c:)`` would, in the memory
    /// that it has. Every transport must be closed, and what ``nextCompletion()`` and ``nextEvent()`` had must have been
    /// taken: what is left of either is forgotten.
    public mutating func renew() {
        let memory = SessionMemory(takenFrom: &self)
        let mistake = plantedMistake
        self = InitiatorSession(settings: settings, cryptography: cryptography, crc32c: crc32c, memory: memory)
        plantedMistake = mistake
    }
}
