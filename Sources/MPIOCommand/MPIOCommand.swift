import ArgumentParser
import Foundation
import MPIO

/// The `mpio` command.
@main
struct MPIOCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mpio",
        abstract: "Multipath I/O for iSCSI: several sessions, one disk.",
        discussion: """
            Start with:
              mpio discover 10.0.1.10 --write-config mpio.yaml
              mpio paths

            The policy file is looked for at --config, $MPIO_CONFIG, ./mpio.yaml, ~/.config/mpio/mpio.yaml and \
            /etc/mpio/mpio.yaml.
            Exit status: 0 done, 1 the work failed, 64 usage, 65 bad policy file, 69 no path.
            """,
        subcommands: [
            PathsCommand.self, CheckCommand.self, ReadCommand.self, WriteCommand.self, CopyCommand.self,
            BenchCommand.self, PolicyCommand.self, PathCommand.self, ExplainCommand.self, EventsCommand.self,
            HoldCommand.self, MetricsCommand.self,
        ])

    static func main() async {
        // A reader that goes away is an error of write(2), not the end of the process with sessions open.
        signal(SIGPIPE, SIG_IGN)
        do {
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
}
