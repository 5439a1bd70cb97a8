import ArgumentParser
import Foundation
import MPIO

struct PathsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "paths",
        abstract: "Show every LUN's paths: state, load, speed, errors.",
        discussion: """
            Asks the processes that hold LUNs. A configured LUN that nobody holds is logged in to, looked at, and left; a sick
            array is waited for no longer than --timeout, and a path that has not answered by then is shown as connecting.
            Rates and latencies are those of the last seconds where the LUN is held, else of all requests so far.
            On a terminal --watch scrolls by the arrow keys, space and b, and ends with q.
            With --check, the exit status is 0 for optimal, 1 for degraded, 2 for failed: the worst of the LUNs shown.

            Examples:
              mpio paths
              mpio paths vm-store --watch=1
              mpio paths --json | jq '.luns[].state'
              mpio paths --check --json > /dev/null || page-somebody
            """)

    @Argument(help: "LUNs by name or identity; all of them where none is given.")
    var luns: [String] = []

    @OptionGroup var policyFile: PolicyFileOptions

    @Flag(help: "Print JSON: one document, or one line each time with --watch.")
    var json = false

    @Option(
        name: .long, defaultAsFlag: TimeSpan(.seconds(2)),
        help: ArgumentHelp("Show it again and again, every so many seconds.", valueName: "seconds"))
    var watch: TimeSpan?

    @Flag(help: "One line for each LUN.")
    var brief = false

    @Option(
        help: ArgumentHelp(
            "How long the paths of a LUN that nobody holds are waited for (default: 1s for the first one that is usable, then 100ms for the others).",
            valueName: "time"))
    var timeout: TimeSpan?

    @Flag(help: "Tell by the exit status how the LUNs are.")
    var check = false

    func validate() throws {
        if let watch, watch.duration < .milliseconds(50) { throw ValidationError("--watch takes at least 50ms.") }
        if brief, json { throw ValidationError("--brief and --json don't go together.") }
        if let timeout, timeout.duration < .milliseconds(10) { throw ValidationError("--timeout takes at least 10ms.") }
        if watch != nil, check { throw ValidationError("--check and --watch don't go together.") }
    }

    func run() async throws {
        guard let watch else {
            let report = try await look()
            try show(report)
            if check, let status = Self.checkStatus(report) { throw status }
            return
        }
        let command = self
        try await cancelledByInterrupt {
            if !command.json, StandardOutput.isTerminal {
                let watch = PathsWatch(
                    period: watch.duration, render: { command.text($0) }, look: { try await command.look(isQuiet: true) })
                return try await watch.run()
            }
            while true {
                try command.show(try await command.look())
                do {
                    try await Task.sleep(for: watch.duration)
                } catch {
                    return
                }
            }
        }
    }

    private func show(_ report: PathsReport) throws {
        if json { return try StandardOutput.writeJSON(report, compact: watch != nil) }
        try StandardOutput.write(text(report))
    }

    private func text(_ report: PathsReport) -> String {
        let renderer = PathsRenderer(style: Terminal.style(), now: Date())
        return brief ? renderer.renderBrief(report) : renderer.render(report)
    }

    /// Somebody who looks is shown a table at once; who says how long, or pages somebody for a path that is missing, gets
    /// every path that answers in time.
    private var lookLimits: OpeningLimits {
        let total = timeout?.duration ?? .seconds(1)
        return OpeningLimits(patience: timeout != nil || check ? total : .milliseconds(100), total: total)
    }

    /// What the holders say, and a look of our own at what they don't hold.
    private func look(isQuiet: Bool = false) async throws -> PathsReport {
        let (held, silent) = Holders().report(luns: luns)
        for line in silent where !isQuiet { StandardError.write("mpio: \(HumanText.printable(line))\n") }
        let policy = try policyIfNeeded(held)
        let missing = try Self.unheld(asked: luns, held: held, policy: policy)
        guard let policy, !missing.isEmpty else { return held }
        return PathsReport(luns: held.luns + (try await PathsLook.look(at: missing, policy, limits: lookLimits)))
    }

    /// The policy file matters only where the holders don't say all that was asked for.
    private func policyIfNeeded(_ held: PathsReport) throws -> Configuration? {
        let isAnswered = !luns.isEmpty && luns.allSatisfy { held.holds($0) }
        if isAnswered { return nil }
        do {
            return try policyFile.load()
        } catch ConfigurationFileError.notFound where policyFile.config == nil && !held.luns.isEmpty && luns.isEmpty {
            return nil
        }
    }

    /// The names of configured LUNs that were asked for and that nobody holds. Throws for names that nobody knows.
    static func unheld(asked: [String], held: PathsReport, policy: Configuration?) throws -> [String] {
        guard !asked.isEmpty else { return policy?.luns.map(\.name).filter { !held.holds($0) } ?? [] }
        return try asked.filter { !held.holds($0) }.map { name in
            if let found = policy?.luns.first(where: { $0.isNamed(name) }) { return found.name }
            throw CommandFailure("no LUN '\(name)' in the policy file\(policy?.file.map { " \($0)" } ?? ""), and no process holds one", status: ExitStatus.usage)
        }
    }

    /// Nil where every LUN is optimal.
    static func checkStatus(_ report: PathsReport) -> ExitCode? {
        if report.luns.contains(where: { $0.state == .failed }) { return ExitCode(2) }
        if report.luns.contains(where: { $0.state == .degraded }) { return ExitCode(1) }
        return nil
    }
}

extension PathsReport {
    fileprivate func holds(_ name: String) -> Bool {
        luns.contains { $0.name == name || $0.identity == name }
    }
}

extension LUNConfiguration {
    func isNamed(_ text: String) -> Bool {
        if name == text { return true }
        guard case .identity(let identity) = identification else { return false }
        return identity.description == text
    }
}
