import ArgumentParser
import MPIO

struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Say why the next request of a LUN goes where it goes.",
        discussion: """
            Example:
              mpio explain vm-store
            """)

    @Argument(help: "The LUN's name or identity.")
    var lun: String

    @Flag(help: "Print the result as JSON.")
    var json = false

    func run() throws {
        let response = try Holders().ask(.explain(lun: lun, last: nil), of: lun)
        guard case .explanation(let report) = response else { throw unexpected(response) }
        if json { return try StandardOutput.writeJSON(report) }
        try StandardOutput.write(Self.text(report))
    }

    static func text(_ report: ExplanationReport) -> String {
        var text = "\(HumanText.printable(report.lun))  \(report.policy)\n"
        text += "  next request: \(HumanText.printable(report.next ?? "no path"))\n  \(HumanText.printable(report.reason))\n"
        let width = report.paths.map { HumanText.printable($0.id).count }.max() ?? 0
        for path in report.paths {
            let id = HumanText.printable(path.id)
            text += "  \(path.isUsed ? "✓" : "–") \(id)\(String(repeating: " ", count: width - id.count))  \(HumanText.printable(path.reason))\n"
        }
        return text
    }
}
