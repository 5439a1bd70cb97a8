import ArgumentParser
import Foundation
import MPIO

struct PathsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "paths",
        abstract: "Show every LUN's paths: state, load, speed, errors.",
        discussion: """
            Asks the processes that hold LUNs, and shows what they say at once. A configured LUN that nobody holds is then \
            logged in to, looked at, and left; a sick array is waited for no longer than --timeout, and a path that has not \
            answered by then is shown as connecting. With --json all of it is one document, at the end.
            Rates and latencies are those of the last seconds where the LUN is held, else of all requests so far.
            On a terminal --watch scrolls by the arrow keys, space and b, and ends with q.
            With --record, samples and events of LUNs that are held go into a file as JSON lines, to be drawn by 'mpio plot'; \
            with --watch as well, they are also shown.
            With --check, the exit status is 0 for optimal, 1 for degraded, 2 for failed: the worst of the LUNs shown.

            Examples:
              mpio paths
              mpio paths vm-store --watch=1
              mpio paths vm-store --watch --record run.jsonl
              mpio paths --json | jq '.luns[].state'
              mpio paths --check --json > /dev/null || page-somebody
            """)

    @Argument(help: "LUNs by name or identity; all of them where none is given.", completion: Completions.luns)
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

    @OptionGroup var recording: RecordingOptions

    func validate() throws {
        if let watch, watch.duration < .milliseconds(50) { throw ValidationError("--watch takes at least 50ms.") }
        if brief, json { throw ValidationError("--brief and --json don't go together.") }
        if let timeout, timeout.duration < .milliseconds(10) { throw ValidationError("--timeout takes at least 10ms.") }
        if recording.record != nil, watch == nil, json || brief || check {
            throw ValidationError("--record without --watch shows nothing: --json, --brief and --check don't go with it.")
        }
        if watch != nil, check { throw ValidationError("--check and --watch don't go together.") }
    }

    func run() async throws {
        let command = self
        let recorder = try recording.recorder(luns: luns)
        if let recorder {
            return try await cancelledByInterrupt {
                let show: (@Sendable () async throws -> Void)? = if let watch = command.watch { { try await command.show(every: watch) } } else { nil }
                try await command.recording.run(recorder, beside: show)
            }
        }
        guard let watch else {
            let report = try await look(early: { try command.show($0, awaiting: $1) }, deliver: { try command.show($0, after: $1) })
            if check, let status = Self.checkStatus(report) { throw status }
            return
        }
        try await cancelledByInterrupt { try await command.show(every: watch) }
    }

    /// Until the task is cancelled, or the user ends it.
    private func show(every period: TimeSpan) async throws {
        if !json, StandardOutput.isTerminal {
            let watch = PathsWatch(period: period.duration, render: { text($0) }) { shown, early in
                try await look(isQuiet: true) { held, missing in
                    // Of the others, what the last look saw.
                    let old = shown.luns.filter { missing.contains($0.name) }
                    if !(held.luns.isEmpty && old.isEmpty) { try early(PathsReport(luns: held.luns + old)) }
                }
            }
            return try await watch.run()
        }
        while true {
            _ = try await look(early: { try show($0, awaiting: $1) }, deliver: { try show($0, after: $1) })
            do {
                try await Task.sleep(for: period.duration)
            } catch {
                return
            }
        }
    }

    /// What processes hold, as soon as they have said it. JSON is one document.
    private func show(_ held: PathsReport, awaiting missing: [String]) throws {
        guard !json, !held.luns.isEmpty else { return }
        try StandardOutput.write(renderer.renderHeld(held, awaited: missing.count, isBrief: brief))
    }

    /// - Parameter shown: what ``show(_:awaiting:)`` was given before; nil where it was not called.
    private func show(_ report: PathsReport, after shown: PathsReport?) throws {
        if json { return try StandardOutput.writeJSON(report, compact: watch != nil) }
        guard let shown, !shown.luns.isEmpty else { return try StandardOutput.write(text(report)) }
        let rest = PathsReport(luns: Array(report.luns.dropFirst(shown.luns.count)))
        if !rest.luns.isEmpty { try StandardOutput.write(renderer.renderLookedAt(rest, isBrief: brief)) }
    }

    private var renderer: PathsRenderer { PathsRenderer(style: Terminal.style(), now: Date()) }

    private func text(_ report: PathsReport) -> String {
        brief ? renderer.renderBrief(report) : renderer.render(report)
    }

    /// Somebody who looks is shown a table at once; who says how long, or pages somebody for a path that is missing, gets
    /// every path that answers in time.
    private var lookLimits: OpeningLimits {
        let total = timeout?.duration ?? .seconds(1)
        return OpeningLimits(patience: timeout != nil || check ? total : .milliseconds(100), total: total)
    }

    /// What the holders say, and a look of our own at what they don't hold. `early` gets what they say, where there is more to
    /// look at: no sick array delays it. `deliver` gets all of it, with what `early` got, as soon as it is known: to leave the
    /// targets takes as long again.
    private func look(
        isQuiet: Bool = false, early: (_ held: PathsReport, _ missing: [String]) throws -> Void = { _, _ in },
        deliver: @escaping @Sendable (_ report: PathsReport, _ shown: PathsReport?) throws -> Void = { _, _ in }
    ) async throws -> PathsReport {
        let (held, silent) = Holders().report(luns: luns)
        if !isQuiet { Holders.warn(silent) }
        let policy = try policyIfNeeded(held)
        let missing = try Self.unheld(asked: luns, held: held, policy: policy)
        guard let policy, !missing.isEmpty else {
            try deliver(held, nil)
            return held
        }
        try early(held, missing)
        return try await PathsLook.look(at: missing, policy, limits: lookLimits) { found in
            let report = PathsReport(luns: held.luns + found)
            try deliver(report, held)
            return report
        }
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
            throw CommandFailure("no process holds a LUN '\(name)', and \(policy?.hasNone(name) ?? "no policy file was found")", status: ExitStatus.usage)
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
