import ArgumentParser
import MPIO

struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Four paths, six policies, one cut, nothing lost.",
        discussion: """
            Starts an embedded target on four loopback addresses, opens its LUN over all four, writes and reads back under \
            each policy, cuts a path under load and mends it. Needs no configuration, leaves nothing behind, takes about \
            fifteen seconds. The exit status is 1 if a request was lost or data was wrong.

            Examples:
              mpio demo
              mpio demo --fast
              mpio demo --plot fail-over.svg
            """)

    @Flag(help: "The same in a few seconds: shorter loads.")
    var fast = false

    @Option(help: ArgumentHelp("Draw the cut: requests/s, MB/s and latency of each path over time, as SVG.", valueName: "file"), completion: .file(extensions: ["svg"]))
    var plot: String?

    func run() async throws {
        if let plot { try PictureFile.check(plot) }
        let demo = Demo(pace: fast ? .fast : .normal, style: Terminal.style(), picture: plot)
        let totals = try await cancelledByInterrupt { try await demo.run() }
        if !totals.isGood { throw ExitStatus.failed }
    }
}
