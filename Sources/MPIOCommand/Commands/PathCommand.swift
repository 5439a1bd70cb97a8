import ArgumentParser
import Foundation
import MPIO
import Multipath

struct PathCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "path",
        abstract: "Change the paths of a LUN while I/O runs.",
        discussion: """
            Examples:
              mpio path drain vm-store 10.0.1.10:3260
              mpio path drain vm-store 10.0.1.10:3260 --connection 2
              mpio path set vm-store 10.0.1.10:3260 --weight 3
            """,
        subcommands: [Fail.self, Restore.self, Drain.self, Set.self, Add.self, Remove.self])

    struct Which: ParsableArguments {
        @Argument(help: "The LUN's name or identity.", completion: Completions.luns)
        var lun: String

        @Argument(help: "The path's name, as 'mpio paths' shows it.", completion: Completions.paths)
        var path: String

        @Option(help: ArgumentHelp("Only this connection of the path's session, for all LUNs of the session; 'mpio paths' shows the numbers.", valueName: "number"))
        var connection: Int?

        @OptionGroup var options: HolderOptions

        func perform(_ action: ControlRequest.PathAction, json: Bool) throws {
            let holders = try options.holders()
            let name = try holders.name(of: lun)
            let request: ControlRequest =
                if let connection {
                    .connection(action, lun: name, path: path, number: connection)
                } else {
                    .path(action, lun: name, path: path)
                }
            let response = try holders.ask(request, of: name)
            guard case .done(let message) = response else { throw unexpected(response) }
            if json {
                return try StandardOutput.writeJSON(
                    PathActionReport(lun: name, path: path, connection: connection, action: action, message: message))
            }
            try StandardOutput.write(HumanText.printable(message) + "\n")
        }
    }

    struct Printing: ParsableArguments {
        @Flag(help: "Print the result as JSON.")
        var json = false
    }

    /// Waiting for requests under way.
    struct Waiting: ParsableArguments {
        @Flag(help: "Return only when the path carries nothing any more.")
        var wait = false

        @Option(help: ArgumentHelp("How long to wait for that at most; then the status is 1.", valueName: "time"))
        var timeout = TimeSpan(.seconds(60))

        /// Asks again and again until `isDone` says so of the path, which is nil where it is gone.
        func waitUntil(path: String, of lun: String, _ holders: Holders, _ isDone: (_ inFlight: Int?) -> Bool) throws {
            guard wait else { return }
            let deadline = ContinuousClock.now + timeout.duration
            while true {
                let response = try holders.ask(.paths(luns: [lun]), of: lun)
                guard case .paths(let report) = response, let found = report.luns.first else { throw unexpected(response) }
                let shown = found.paths.first { $0.id == path }
                if isDone(shown?.inFlight) { return }
                guard ContinuousClock.now < deadline else {
                    throw CommandFailure("\(path) still carries \(shown?.inFlight ?? 0) requests after \(timeout.defaultValueDescription)")
                }
                usleep(50_000)
            }
        }
    }

    struct Fail: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a path out at once; its requests go elsewhere.",
            discussion: "Example:\n  mpio path fail vm-store 10.0.1.10:3260")
        @OptionGroup var which: Which
        @OptionGroup var printing: Printing
        func run() throws { try which.perform(.fail, json: printing.json) }
    }

    struct Restore: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a path back, once it is verified.",
            discussion: "Example:\n  mpio path restore vm-store 10.0.1.10:3260")
        @OptionGroup var which: Which
        @OptionGroup var printing: Printing
        func run() throws { try which.perform(.restore, json: printing.json) }
    }

    struct Drain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give a path no new requests; those under way finish.",
            discussion: "Example:\n  mpio path drain vm-store 10.0.1.10:3260 --wait")
        @OptionGroup var which: Which
        @OptionGroup var waiting: Waiting
        @OptionGroup var printing: Printing

        func run() throws {
            try which.perform(.drain, json: printing.json)
            try waiting.waitUntil(path: which.path, of: which.lun, which.options.holders()) { ($0 ?? 0) == 0 }
        }
    }

    struct Set: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change a path's weight or role.",
            discussion: """
                Example:
                  mpio path set vm-store 10.0.1.10:3260 --weight 3 --role primary
                """)
        @OptionGroup var which: Which

        @Option(help: "For weighted-paths: 1 to 65535.")
        var weight: UInt16?

        @Option(help: "primary or standby; round-robin-with-subset and fail-over-only tell them apart.", completion: .list(PathRole.allCases.map(\.rawValue)))
        var role: String?

        @OptionGroup var saving: Saving

        func validate() throws {
            if weight == nil, role == nil { throw ValidationError("Give --weight or --role.") }
            if weight == 0 { throw ValidationError("--weight is 1 to 65535.") }
            if let role, PathRole(rawValue: role) == nil { throw ValidationError("--role is primary or standby.") }
        }

        func run() throws {
            let holders = try which.options.holders()
            let name = try holders.name(of: which.lun)
            try saving.change(.setPath(lun: name, path: which.path, role: role.flatMap(PathRole.init), weight: weight), holders)
        }
    }

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Add a path to a LUN.",
            discussion: """
                A portal that is not configured yet is added to the LUN's target, and so to every LUN that lists no paths.

                Example:
                  mpio path add vm-store 10.0.1.10:3260 --from 10.0.1.6
                """)

        @Argument(help: "The LUN's name or identity.", completion: Completions.luns)
        var lun: String

        @Argument(help: "A portal's address, or the absolute path of a block device or file.")
        var portal: String

        @Option(help: ArgumentHelp("The address of this host to connect from.", valueName: "address"))
        var from: String?

        @Option(help: ArgumentHelp("Whose portal it is, where the LUN has several targets.", valueName: "name"))
        var target: String?

        @Option(help: "1 to 65535; 1 by default.")
        var weight: Int?

        @Option(help: "primary, which is the default, or standby.", completion: .list(PathRole.allCases.map(\.rawValue)))
        var role: String?

        @OptionGroup var saving: Saving
        @OptionGroup var options: HolderOptions

        func run() throws {
            let holders = try options.holders()
            let name = try holders.name(of: lun)
            let path = ConfigurationEdit.NewPath(address: portal, source: from, target: target, role: role, weight: weight)
            try saving.change(.addPath(lun: name, path), holders)
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove a path from a LUN; requests under way finish first.",
            discussion: """
                After 30 seconds it goes whatever it carries, and that goes elsewhere. A session that no LUN needs any \
                more is logged out.

                Example:
                  mpio path remove vm-store 10.0.2.10:3260 --wait
                """)
        @OptionGroup var which: Which
        @OptionGroup var waiting: Waiting
        @OptionGroup var saving: Saving

        func run() throws {
            let holders = try which.options.holders()
            let name = try holders.name(of: which.lun)
            try saving.change(.removePath(lun: name, path: which.path), holders)
            try waiting.waitUntil(path: which.path, of: name, holders) { $0 == nil }
        }
    }
}

/// `mpio path fail --json`, and `restore` and `drain`.
struct PathActionReport: Codable, Equatable {
    var lun: String
    var path: String
    /// Null where it is about the whole path.
    var connection: Int?
    var action: ControlRequest.PathAction
    /// As it is said without `--json`.
    var message: String

    func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(lun, forKey: .lun)
        try values.encode(path, forKey: .path)
        try values.encode(connection, forKey: .connection)
        try values.encode(action, forKey: .action)
        try values.encode(message, forKey: .message)
    }
}

/// Changes that can be written back into the policy file.
struct Saving: ParsableArguments {
    @Flag(help: "Write the change into the policy file as well; comments and order stay.")
    var save = false

    @Flag(help: "Print the result as JSON.")
    var json = false

    /// Makes the change, and writes it down where that was asked for: not at all where it can't be written down.
    func change(_ edit: ConfigurationEdit, _ holders: Holders) throws {
        let editor = try save ? holders.editor(for: edit) : nil
        let response = try holders.ask(.edit(edit), of: edit.lun)
        guard case .changes(var report) = response else { throw unexpected(response) }
        try Self.save(editor)
        report.file = editor?.file
        if json { return try StandardOutput.writeJSON(report) }
        try StandardOutput.write(ChangesText.render(ChangesReport(isApplied: true, changes: report.changes)))
        if let editor { try StandardOutput.write("saved in \(HumanText.printable(editor.file))\n") }
    }

    static func save(_ editor: PolicyFileEditor?) throws {
        do {
            try editor?.save()
        } catch {
            throw CommandFailure("changed, but not saved: \(error)")
        }
    }
}

extension Holders {
    /// The LUN's name in the process that holds it.
    func name(of lun: String) throws -> String {
        let client = try holder(of: lun)
        guard case .paths(let report)? = try? client.request(.paths(luns: [])) else { return lun }
        return report.luns.first { $0.name == lun || $0.identity == lun }?.name ?? lun
    }

    /// The change in the text of the policy file that the LUN's holder has; nothing is written yet.
    func editor(for edit: ConfigurationEdit) throws -> PolicyFileEditor {
        guard case .holder(let report) = try holder(of: edit.lun).request(.identify), let file = report.policyFile else {
            throw CommandFailure("the process that holds '\(edit.lun)' has no policy file to save the change in; nothing was changed")
        }
        do {
            return try PolicyFileEditor(file, applying: edit)
        } catch let refusal as PolicyFileRefusal {
            throw CommandFailure("\(file): \(refusal); nothing was changed")
        } catch let failure as ControlFailure {
            throw CommandFailure("\(file): \(failure.message); nothing was changed", status: ExitStatus.usage)
        }
    }
}
