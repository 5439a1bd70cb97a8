import Foundation
import MPIO

/// Asks every holder for its events, again and again, and gives each once: also those of a holder that was silent for a while.
struct EventFollower {
    private struct Followed {
        /// Nil after an error; the next turn connects anew.
        var client: ControlClient?
        /// What was seen of it, by its serial numbers.
        var next: UInt64?
        /// Not to be asked before then; nil for one that answers.
        var silentUntil: ContinuousClock.Instant?
    }

    /// What one turn brought.
    struct Turn {
        /// Oldest first.
        var records: [EventRecord] = []
        /// Holders that have fallen silent.
        var silent: [Holders.Silent] = []
        /// Whether any holder answered.
        var isAnswered = false
    }

    private let holders: Holders
    private let silencePause: Duration
    /// By their sockets.
    private var followed: [String: Followed] = [:]

    /// - Parameter silencePause: how long a silent holder is left alone: each try takes its time from the others.
    init(_ holders: Holders, silencePause: Duration = .seconds(2)) {
        self.holders = holders
        self.silencePause = silencePause
    }

    /// Asks all that are there now. Blocks for as long as a silent one is waited for.
    mutating func turn() -> Turn {
        var turn = Turn()
        connect(&turn)
        let asked = followed.filter { $0.value.client != nil }.sorted { $0.key < $1.key }
        let answers = Holders.ask(asked.compactMap { $0.value.client }) { .events(after: asked[$0].value.next) }
        for ((path, holder), answer) in zip(asked, answers) { take(answer, from: path, holder, into: &turn) }
        turn.records.sort { ($0.at, $0.serial) < ($1.at, $1.serial) }
        return turn
    }

    /// Finds holders that came, those that are to be connected anew, and those that are gone.
    private mutating func connect(_ turn: inout Turn) {
        let now = ContinuousClock.now
        let leftAlone = Set(followed.filter { $0.value.client != nil || $0.value.silentUntil.map { $0 > now } ?? false }.keys)
        let found = holders.find(except: leftAlone)
        for client in found.clients { followed[client.path, default: Followed()].client = client }
        for socket in found.silent { silence(socket, &turn) }
        // The socket of a process that has ended is removed, by it or by the search.
        followed = followed.filter { $0.value.client != nil || access($0.key, F_OK) == 0 }
    }

    private mutating func take(
        _ answer: Result<ControlResponse, ControlSocketError>, from path: String, _ holder: Followed, into turn: inout Turn
    ) {
        switch answer {
        case .success(.events(var new, var next)):
            // It counts from the beginning: another process by the same name.
            if let seen = holder.next, next < seen, case .events(let all, let last)? = try? holder.client?.request(.events(after: nil)) {
                (new, next) = (all, last)
            }
            turn.records += new
            turn.isAnswered = true
            followed[path]?.next = next
            followed[path]?.silentUntil = nil
        case .success:
            turn.isAnswered = true
            followed[path]?.silentUntil = nil
        case .failure(.timedOut): silence(.init(path: path, error: .timedOut), &turn)
        // It ended, or let this client go; if it lives, the next turn connects.
        case .failure: followed[path]?.client = nil
        }
    }

    /// Told once, until it answers again.
    private mutating func silence(_ socket: Holders.Silent, _ turn: inout Turn) {
        var holder = followed[socket.path] ?? Followed()
        if holder.silentUntil == nil { turn.silent.append(socket) }
        holder.client = nil
        holder.silentUntil = .now + silencePause
        followed[socket.path] = holder
    }
}
