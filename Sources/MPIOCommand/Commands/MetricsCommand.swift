import ArgumentParser
import MPIO

struct MetricsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics",
        abstract: "Print OpenMetrics text from the processes that hold LUNs.",
        discussion: """
            Every sample names by the label 'pid' the process that it is from: two may hold one LUN.

            Example, for the textfile collector of node_exporter:
              mpio metrics > /var/lib/node_exporter/mpio.prom
            """)

    @OptionGroup var options: HolderOptions

    func run() throws {
        let holders = try options.holders()
        let (report, silent) = holders.report(luns: [])
        guard !report.luns.isEmpty else { throw holders.nobodyHolds(silent: silent) }
        Holders.warn(silent)
        try StandardOutput.write(MetricsText.render(report, as: .textfile))
    }
}
