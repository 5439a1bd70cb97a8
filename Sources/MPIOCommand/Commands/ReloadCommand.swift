import ArgumentParser
import Foundation
import MPIO

struct ReloadCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reload",
        abstract: "Let the processes that hold LUNs take over their policy file, while I/O runs.",
        discussion: """
            Shows what would change and asks; with --yes, or without a terminal, it does not ask. A file with a mistake \
            changes nothing: every mistake is named, and the status is 65. What can't change while a process lives is \
            said, and left. Paths that go finish what they carry.

            Examples:
              mpio reload --dry-run
              mpio reload --yes
            """)

    @Argument(help: "The policy file to take over, where it is not the one that the process was started with.", completion: .file(extensions: ["yaml", "yml"]))
    var file: String?

    @Flag(help: "Only show what would change.")
    var dryRun = false

    @Flag(help: "Don't ask.")
    var yes = false

    @Option(help: ArgumentHelp("Only this process.", valueName: "number"))
    var pid: Int32?

    @Flag(help: "Print the result as JSON, one line for each process.")
    var json = false

    @OptionGroup var options: HolderOptions

    func run() throws {
        let holders = try options.holders()
        let (answering, silent) = holders.all()
        if answering.isEmpty, pid == nil || !silent.isEmpty { throw holders.nobodyHolds(silent: silent) }
        Holders.warn(silent)
        let chosen = try choose(answering)
        for (client, holder) in chosen {
            let name = chosen.count > 1 ? "pid \(holder.pid) (\(holder.command)): " : ""
            let named = file.map { URL(fileURLWithPath: $0).path }
            let planned = try ask(client, .reload(file: named, isDryRun: true))
            if dryRun || planned.changes.isEmpty {
                try show(planned, name)
                continue
            }
            if asks {
                try show(planned, name)
                guard confirm() else { throw CommandFailure("nothing was changed") }
                let done = try ask(client, .reload(file: named, expecting: planned.fingerprint, isDryRun: false))
                try StandardOutput.write("\(name)done: \(ChangesText.count(done.changes))\n")
            } else {
                try show(try ask(client, .reload(file: named, expecting: planned.fingerprint, isDryRun: false)), name)
            }
        }
    }

    private var asks: Bool { !yes && !json && StandardOutput.isTerminal && isatty(STDIN_FILENO) == 1 }

    private func confirm() -> Bool {
        StandardError.write("Change this now? [y/N] ")
        return ["y", "yes"].contains(readLine()?.trimmingCharacters(in: .whitespaces).lowercased())
    }

    private func show(_ report: ChangesReport, _ name: String) throws {
        if json { return try StandardOutput.writeJSON(report, compact: true) }
        try StandardOutput.write(name + ChangesText.render(report))
    }

    private func ask(_ client: ControlClient, _ request: ControlRequest) throws -> ChangesReport {
        switch try client.request(request) {
        case .changes(let report): return report
        case .failed(let failure): throw CommandFailure(failure)
        case let other: throw unexpected(other)
        }
    }

    /// The processes that are meant: all that have a policy file; with a file that is not theirs, the only one there is.
    private func choose(_ holders: [(ControlClient, HolderReport)]) throws -> [(ControlClient, HolderReport)] {
        var found = holders.filter { pid == nil || $0.1.pid == pid }
        guard !found.isEmpty else {
            throw CommandFailure(pid.map { "process \($0) holds no LUN" } ?? "no running process holds a LUN")
        }
        guard let file else {
            found.removeAll { $0.1.policyFile == nil }
            guard !found.isEmpty else { throw CommandFailure("the process that holds LUNs has no policy file; name one") }
            return found
        }
        let real = URL(fileURLWithPath: file).resolvingSymlinksInPath().path
        let own = found.filter { $0.1.policyFile.map { URL(fileURLWithPath: $0).resolvingSymlinksInPath().path } == real }
        if !own.isEmpty { return own }
        guard found.count == 1 else {
            let list = found.map { "\($0.1.pid) (\($0.1.command))" }.joined(separator: ", ")
            throw CommandFailure("several processes hold LUNs, and \(file) is the policy file of none: \(list); choose by --pid", status: ExitStatus.usage)
        }
        return found
    }
}

/// Changes as people read them.
enum ChangesText {
    static func render(_ report: ChangesReport) -> String {
        guard !report.changes.isEmpty else { return "nothing has changed\n" }
        let lines = report.changes.map { "  " + HumanText.printable("\($0)") + "\n" }.joined()
        return (report.isApplied ? "changed" : "would change") + (report.file.map { " by \(HumanText.printable($0))" } ?? "") + ":\n" + lines
    }

    static func count(_ changes: [ConfigurationChange]) -> String {
        let left = changes.count { $0.effect == .left }
        let made = changes.count - left
        return "\(made) \(made == 1 ? "change" : "changes")" + (left > 0 ? ", \(left) left as it is" : "")
    }
}

extension CommandFailure {
    /// A holder's refusal.
    init(_ failure: ControlFailure) {
        switch failure.code {
        case .badPolicyFile:
            let mistakes = failure.mistakes ?? []
            let count = mistakes.isEmpty ? "" : mistakes.joined(separator: "\n") + "\n" + (mistakes.count == 1 ? "1 error" : "\(mistakes.count) errors") + "; "
            self.init(count + failure.message, status: ExitStatus.badPolicyFile)
        case .invalid: self.init(failure.message, status: ExitStatus.usage)
        default: self.init(failure.message)
        }
    }
}
