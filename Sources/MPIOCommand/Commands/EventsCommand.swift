import ArgumentParser
import Foundation
import MPIO

struct EventsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Show what happened to LUNs and their paths.",
        discussion: """
            With --follow, go on until interrupted, also when holders come and go.

            Example:
              mpio events --follow
            """)

    @Flag(help: "Go on and show events as they happen.")
    var follow = false

    @Flag(help: "Print one JSON object per line.")
    var json = false

    func run() async throws {
        let (follow, json) = (follow, json)
        try await cancelledByInterrupt {
            var followed: [String: Followed] = [:]
            var isFirst = true
            repeat {
                let found = try Self.poll(&followed, isFirst: isFirst, json: json)
                if isFirst, !follow, !found { throw CommandFailure("no running process holds a LUN") }
                isFirst = false
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

    private struct Followed {
        var client: ControlClient
        var next: UInt64?
    }

    /// Asks every holder for what is new. False where there is no holder.
    private static func poll(_ followed: inout [String: Followed], isFirst: Bool, json: Bool) throws -> Bool {
        for client in ControlClient.discover() where followed[client.path] == nil {
            followed[client.path] = Followed(client: client)
        }
        var records: [EventRecord] = []
        for (path, holder) in followed {
            var holder = holder
            do throws(ControlSocketError) {
                guard case .events(let new, let next) = try holder.client.request(.events(after: holder.next)) else { continue }
                records += new
                holder.next = next
                followed[path] = holder
            } catch {
                // The holder ended; another may come.
                followed[path] = nil
            }
        }
        for record in records.sorted(by: { ($0.at, $0.serial) < ($1.at, $1.serial) }) {
            if json {
                try StandardOutput.writeJSON(record, compact: true)
            } else {
                try StandardOutput.write(text(record))
            }
        }
        return !followed.isEmpty
    }

    static func text(_ record: EventRecord) -> String {
        let subject = [record.lun, record.path ?? ""].filter { !$0.isEmpty }.joined(separator: " ")
        let lane = record.lane.map { "  (lane \($0))" } ?? ""
        let who = record.by.map { "  (by \($0))" } ?? ""
        return HumanText.printable("\(record.at)  \(subject.isEmpty ? "–" : subject)  \(record.kind)  \(record.message)\(lane)\(who)") + "\n"
    }
}
