import ArgumentParser
import MPIO

struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Check a policy file, and name every mistake in it.",
        discussion: """
            Nothing is contacted: the file and the secret files that it names are read, and that is all.

            Example:
              mpio check mpio.yaml
            """)

    @Argument(help: "The policy file; looked for as by every other command where left out.", completion: .file(extensions: ["yaml", "yml"]))
    var file: String?

    @OptionGroup var policyFile: PolicyFileOptions

    @Flag(help: "Print the result as JSON.")
    var json = false

    func validate() throws {
        if file != nil, policyFile.config != nil { throw ValidationError("Give the file as the argument or by --config, not both.") }
    }

    func run() throws {
        let path = try Configuration.search(explicit: file ?? policyFile.config)
        do {
            let policy = try Configuration(contentsOf: path)
            if json { return try StandardOutput.writeJSON(CheckReport(file: path, errors: [])) }
            try StandardOutput.write("\(path): good: \(summary(policy))\n")
        } catch let invalid as InvalidConfiguration where json {
            try StandardOutput.writeJSON(CheckReport(file: path, errors: invalid.errors.map(CheckReport.Mistake.init)))
            throw ExitStatus.badPolicyFile
        }
    }

    private func summary(_ policy: Configuration) -> String {
        let portals = policy.targets.reduce(0) { $0 + $1.portals.count }
        return [counted(policy.luns.count, "LUN"), counted(policy.targets.count, "target"), counted(portals, "portal")]
            .joined(separator: ", ")
    }

    private func counted(_ count: Int, _ noun: String) -> String {
        count == 1 ? "1 \(noun)" : "\(count) \(noun)s"
    }
}

/// `mpio check --json`.
struct CheckReport: Codable, Equatable {
    var file: String
    var errors: [Mistake]

    struct Mistake: Codable, Equatable {
        var line: Int
        var column: Int
        var key: String
        var message: String
        var expected: String?

        init(_ error: ConfigurationError) {
            line = error.line
            column = error.column
            key = error.keyPath
            message = error.message
            expected = error.expected
        }
    }
}
