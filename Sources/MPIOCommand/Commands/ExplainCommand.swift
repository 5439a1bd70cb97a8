import ArgumentParser
import MPIO

struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Say why the next request of a LUN goes where it goes.",
        discussion: """
            Of the past choices the last 256 are kept, and as many retries, re-drives and errors.

            Examples:
              mpio explain vm-store
              mpio explain vm-store --last 20
            """)

    @Argument(help: "The LUN's name or identity.", completion: Completions.luns)
    var lun: String

    @Option(help: ArgumentHelp("Show so many of the latest choices, and of the latest errors and re-drives, as well; 1 to 256.", valueName: "count"))
    var last: Int?

    @Flag(help: "Print the result as JSON.")
    var json = false

    @OptionGroup var options: HolderOptions

    func validate() throws {
        if let last, !(1...256).contains(last) { throw ValidationError("--last is 1 to 256.") }
    }

    func run() throws {
        let response = try options.holders().ask(.explain(lun: lun, last: last), of: lun)
        guard case .explanation(let report) = response else { throw unexpected(response) }
        if json { return try StandardOutput.writeJSON(report) }
        try StandardOutput.write(Self.text(report))
    }

    static func text(_ report: ExplanationReport) -> String {
        guard let lanes = report.lanes else { return text(report, heading: "") }
        return lanes.enumerated().map { text($1, heading: "  lane \($0) of \(lanes.count)") }.joined()
    }

    private static func text(_ report: ExplanationReport, heading: String) -> String {
        var text = "\(HumanText.printable(report.lun))  \(report.policy)\(heading)\n"
        text += "  next request: \(HumanText.printable(report.next ?? "no path"))\n  \(HumanText.printable(report.reason))\n"
        let width = report.paths.map { HumanText.printable($0.id).count }.max() ?? 0
        for path in report.paths {
            let id = HumanText.printable(path.id)
            let since = path.sinceSeconds.map { ", for \(HumanText.span(seconds: $0))" } ?? ""
            text += "  \(path.isUsed ? "✓" : "–") \(id)\(String(repeating: " ", count: width - id.count))  \(HumanText.printable(path.reason))\(since)\n"
            if let nexus = path.nexusReason { text += "      \(HumanText.printable(nexus))\n" }
        }
        return text + decisions(report.decisions) + incidents(report.incidents)
    }

    private static func incidents(_ records: [ExplanationReport.IncidentRecord]?) -> String {
        guard let records else { return "" }
        guard !records.isEmpty else { return "  no request was retried, re-driven or failed yet\n" }
        let rows = records.map { record in
            [
                HumanText.span(seconds: record.secondsAgo) + " ago", HumanText.printable(record.request),
                "block \(record.lba)", "+\(record.blocks)", HumanText.printable(record.path), HumanText.printable(record.kind),
                HumanText.printable(record.reason) + (record.tries > 1 ? " (try \(record.tries))" : ""),
            ]
        }
        return "  the last \(records.count) that did not go as they were meant to, newest last:\n" + table(rows)
    }

    private static func table(_ rows: [[String]]) -> String {
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.reduce("") { text, row in
            let cells = row.enumerated().map { column, cell in
                column == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[column] - cell.count)
            }
            return text + "    " + cells.joined(separator: "  ") + "\n"
        }
    }

    private static func decisions(_ records: [ExplanationReport.DecisionRecord]?) -> String {
        guard let records else { return "" }
        guard !records.isEmpty else { return "  no request was sent yet\n" }
        let rows = records.map { record in
            [
                HumanText.span(seconds: record.secondsAgo) + " ago", HumanText.printable(record.request),
                "block \(record.lba)", "+\(record.blocks)", HumanText.printable(record.path),
                HumanText.printable(record.reason) + (record.tries > 1 ? " (try \(record.tries))" : ""),
            ]
        }
        return "  the last \(records.count), newest last:\n" + table(rows)
    }
}
