import ArgumentParser
import MPIO

struct PathCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "path",
        abstract: "Take a path, or one connection of its session, out and back by hand.",
        discussion: """
            Examples:
              mpio path drain vm-store 10.0.1.10:3260
              mpio path drain vm-store 10.0.1.10:3260 --connection 2
            """,
        subcommands: [Fail.self, Restore.self, Drain.self])

    struct Which: ParsableArguments {
        @Argument(help: "The LUN's name or identity.")
        var lun: String

        @Argument(help: "The path's name, as 'mpio paths' shows it.")
        var path: String

        @Option(help: ArgumentHelp("Only this connection of the path's session, for all LUNs of the session; 'mpio paths' shows the numbers.", valueName: "number"))
        var connection: Int?

        func perform(_ action: ControlRequest.PathAction) throws {
            let request: ControlRequest =
                if let connection {
                    .connection(action, lun: lun, path: path, number: connection)
                } else {
                    .path(action, lun: lun, path: path)
                }
            let response = try Holders().ask(request, of: lun)
            guard case .done(let message) = response else { throw unexpected(response) }
            try StandardOutput.write(HumanText.printable(message) + "\n")
        }
    }

    struct Fail: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a path out at once; its requests go elsewhere.",
            discussion: "Example:\n  mpio path fail vm-store 10.0.1.10:3260")
        @OptionGroup var which: Which
        func run() throws { try which.perform(.fail) }
    }

    struct Restore: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a path back, once it is verified.",
            discussion: "Example:\n  mpio path restore vm-store 10.0.1.10:3260")
        @OptionGroup var which: Which
        func run() throws { try which.perform(.restore) }
    }

    struct Drain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give a path no new requests; those under way finish.",
            discussion: "Example:\n  mpio path drain vm-store 10.0.1.10:3260")
        @OptionGroup var which: Which
        func run() throws { try which.perform(.drain) }
    }
}
