import ArgumentParser
import MPIO

struct MetricsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics",
        abstract: "Print OpenMetrics text from the processes that hold LUNs.",
        discussion: """
            Example, for the textfile collector of node_exporter:
              mpio metrics > /var/lib/node_exporter/mpio.prom
            """)

    func run() throws {
        let holders = Holders()
        let (report, silent) = holders.report(luns: [])
        for line in silent { StandardError.write("mpio: \(line)\n") }
        guard !report.luns.isEmpty else { throw CommandFailure("no running process holds a LUN") }
        try StandardOutput.write(MetricsText.render(report))
    }
}
