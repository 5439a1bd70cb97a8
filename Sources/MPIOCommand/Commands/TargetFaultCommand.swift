import ArgumentParser
import ISCSITarget
import MPIO

struct TargetFaultCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fault",
        abstract: "Make a running mpio target fail, and mend it.",
        discussion: """
            A fault is KIND[=VALUE][:option=value,…]; docs/target.md says what the kinds and options mean. Faults stack. They end when \
            they are removed, after their for=TIME, or when they struck.

            Kinds: \(FaultCommand.kindNames.joined(separator: ", ")).

            Examples:
              mpio target fault add busy:portal=1,count=100 silence:portal=0,for=5s
              mpio target fault list
              mpio target fault remove 2
            """,
        subcommands: [ListFaults.self, AddFaults.self, RemoveFaults.self, ReleaseHeld.self],
        defaultSubcommand: ListFaults.self)
}

private struct FaultOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Which target, where several run: its iSCSI name or process id.", valueName: "name"))
    var target: String?

    @Flag(help: "Print JSON.")
    var json = false

    func ask(_ request: TargetRequest) throws {
        let faults = try RunningTargets().ask(request, of: target)
        if json { return try StandardOutput.writeJSON(faults) }
        try StandardOutput.write(FaultText.table(faults))
    }
}

private struct ListFaults: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Show the faults that are set.",
        discussion: """
            Example:
              mpio target fault list --json
            """)

    @OptionGroup var options: FaultOptions

    func run() throws { try options.ask(TargetRequest(request: .list)) }
}

private struct AddFaults: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Set faults, all or none, and show those that are set.",
        discussion: """
            Example:
              mpio target fault add sense=03/11/00:lba=2048-4095,op=read
            """)

    @Argument(help: ArgumentHelp("What goes wrong, when and where.", valueName: "kind[=value][:option=value,…]"))
    var faults: [String]

    @OptionGroup var options: FaultOptions

    func validate() throws { _ = try parsed() }
    func run() throws { try options.ask(TargetRequest(request: .add, faults: try parsed())) }

    private func parsed() throws -> [FaultCommand] {
        try faults.map { text in
            do throws(FaultParseError) {
                return try FaultCommand(parsing: text)
            } catch {
                throw ValidationError("\(text): \(error).")
            }
        }
    }
}

private struct RemoveFaults: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "End faults, and show those that are left.",
        discussion: """
            What a fault changed is undone, and the commands it holds are executed.

            Example:
              mpio target fault remove --all
            """)

    @Argument(help: "Their numbers, as 'list' shows them.")
    var ids: [Int] = []

    @Flag(help: "All of them.")
    var all = false

    @OptionGroup var options: FaultOptions

    func validate() throws {
        guard all != !ids.isEmpty else { throw ValidationError("Give the faults' numbers, or --all.") }
    }

    func run() throws {
        try options.ask(all ? TargetRequest(request: .clear) : TargetRequest(request: .remove, ids: ids))
    }
}

private struct ReleaseHeld: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "release", abstract: "Execute the commands that faults hold, and keep the faults.",
        discussion: """
            Example:
              mpio target fault release
            """)

    @OptionGroup var options: FaultOptions

    func run() throws { try options.ask(TargetRequest(request: .release)) }
}

enum FaultText {
    static func table(_ faults: [FaultStatus]) -> String {
        guard !faults.isEmpty else { return "no faults\n" }
        let rows = [["ID", "STATE", "MATCHED", "STRUCK", "FAULT"]] + faults.map {
            [String($0.id), $0.isActive ? "active" : "waiting", String($0.matchedCommands), String($0.struckCommands), "\($0.fault)"]
        }
        let widths = (0..<4).map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let cells = (0..<4).map { column in
                let padding = String(repeating: " ", count: widths[column] - row[column].count)
                return column == 1 ? row[column] + padding : padding + row[column]
            }
            return (cells + [row[4]]).joined(separator: "  ") + "\n"
        }.joined()
    }
}
