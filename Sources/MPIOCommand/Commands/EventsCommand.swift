import ArgumentParser
import Foundation
import MPIO

struct EventsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Show what happened to LUNs and their paths.",
        discussion: """
            With --follow, go on until interrupted, also when holders come and go. What happened while a holder gave no \
            answer is shown when it does again.

            Example:
              mpio events --follow
            """)

    @Flag(help: "Go on and show events as they happen.")
    var follow = false

    @Flag(help: "Print one JSON object per line.")
    var json = false

    @OptionGroup var options: HolderOptions

    func run() async throws {
        let (follow, json, holders) = (follow, json, try options.holders())
        try await cancelledByInterrupt {
            var follower = EventFollower(holders)
            var isFirst = true
            repeat {
                let turn = follower.turn()
                if isFirst, !follow, !turn.isAnswered { throw holders.nobodyHolds(silent: turn.silent) }
                isFirst = false
                Holders.warn(turn.silent)
                for record in turn.records {
                    if json {
                        try StandardOutput.writeJSON(record, compact: true)
                    } else {
                        try StandardOutput.write(Self.text(record))
                    }
                }
                if follow {
                    do {
                        try await Task.sleep(for: .milliseconds(200))
                    } catch {
                        return
                    }
                }
            } while follow
        }
    }

    static func text(_ record: EventRecord) -> String {
        let subject = [record.lun, record.path ?? ""].filter { !$0.isEmpty }.joined(separator: " ")
        let lane = record.lane.map { "  (lane \($0))" } ?? ""
        let who = record.by.map { "  (by \($0))" } ?? ""
        return HumanText.printable("\(record.at)  \(subject.isEmpty ? "–" : subject)  \(record.kind)  \(record.message)\(lane)\(who)") + "\n"
    }
}
