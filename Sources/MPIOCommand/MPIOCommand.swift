import ArgumentParser
import Foundation
import MPIO

enum Version {
    static let text = "0.1.0"
}

/// The `mpio` command.
@main
struct MPIOCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mpio",
        abstract: "Multipath I/O for iSCSI: several sessions, one disk.",
        discussion: """
            See what it does, with nothing installed:
              mpio demo

            Start with storage of your own:
              mpio discover 10.0.1.10 --write-config mpio.yaml   find LUNs
              mpio paths                                         how are they?
              mpio copy ./image.raw vm-store --verify            blocks in
              mpio bench vm-store                                how fast?

            While another process holds a LUN open (or 'mpio hold &'):
              mpio paths --watch
              mpio plot vm-store --out now.svg --for 30s         what happened when, as a picture
              mpio policy vm-store least-queue-depth
              mpio path drain vm-store 10.0.1.10:3260

            The policy file is looked for at --config, $MPIO_CONFIG, ./mpio.yaml, ~/.config/mpio/mpio.yaml and \
            /etc/mpio/mpio.yaml.
            Exit status: 0 done, 1 the work failed, 64 usage, 65 bad policy file, 69 no path, 130 interrupted.
            """,
        version: "mpio \(Version.text)",
        groupedSubcommands: [
            CommandGroup(name: "Look and find", subcommands: [
                PathsCommand.self, DiscoverCommand.self, CheckCommand.self, ExplainCommand.self, EventsCommand.self, PlotCommand.self, MetricsCommand.self,
            ]),
            CommandGroup(name: "Blocks", subcommands: [ReadCommand.self, WriteCommand.self, CopyCommand.self, BenchCommand.self]),
            CommandGroup(name: "Change while I/O runs", subcommands: [PolicyCommand.self, PathCommand.self, ReloadCommand.self, HoldCommand.self]),
            CommandGroup(name: "Without storage of your own", subcommands: [DemoCommand.self, TargetCommand.self]),
        ])

    static func main() async {
        // A reader that goes away is an error of write(2), not the end of the process with sessions open.
        signal(SIGPIPE, SIG_IGN)
        do {
            try checkSubcommand(Array(CommandLine.arguments.dropFirst()))
            var command = try parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch {
            ExitStatus.exit(after: error)
        }
    }

    /// The parser calls a mistyped command an unexpected argument, and leaves it at that.
    private static func checkSubcommand(_ words: [String]) throws {
        let known = configuration.subcommands.map { $0._commandName } + ["help"]
        // Names that begin with two dashes are the parser's own, for completions.
        guard let word = words.first, !word.hasPrefix("-") else { return }
        guard known.contains(word) else {
            let hint = suggestion(for: word, among: known)
            throw ValidationError("There is no command '\(word)'\(hint.isEmpty ? "." : hint)")
        }
        let actions = PathCommand.configuration.subcommands.map { $0._commandName }
        guard word == PathCommand._commandName, words.count > 1, !words[1].hasPrefix("-"), !actions.contains(words[1]) else { return }
        let hint = suggestion(for: words[1], among: actions)
        let ways = "; \(actions.joined(separator: ", ")) change a path, and 'mpio paths' shows them"
        throw CommandFailure("there is no command 'path \(words[1])'\(hint.isEmpty ? ways : hint)", status: ExitStatus.usage)
    }
}
