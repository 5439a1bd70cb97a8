import ArgumentParser
import MPIO
import Multipath

struct PolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy",
        abstract: "Show a LUN's policy, or change it while I/O runs.",
        discussion: """
            Policies: \(PolicyKind.allCases.map { "\($0.rawValue) (\($0.shortName))" }.joined(separator: ", ")).
            The change lasts until the process that holds the LUN ends; the policy file stays as it is.

            Examples:
              mpio policy vm-store
              mpio policy vm-store least-queue-depth
            """)

    @Argument(help: "The LUN's name or identity.")
    var lun: String

    @Argument(help: "The policy to change to, by its name or abbreviation.", completion: .list(PolicyKind.allCases.map(\.rawValue)))
    var policy: String?

    @Flag(help: "Print the result as JSON.")
    var json = false

    func validate() throws {
        guard let policy, PolicyKind(name: policy) == nil else { return }
        throw ValidationError("'\(policy)' is no policy; there are \(PolicyKind.allCases.map(\.rawValue).joined(separator: ", ")).")
    }

    func run() throws {
        let holders = Holders()
        if let policy, let kind = PolicyKind(name: policy) {
            _ = try holders.ask(.setPolicy(lun: lun, policy: kind.rawValue), of: lun)
        }
        let response = try holders.ask(.policy(lun: lun), of: lun)
        guard case .policy(let report) = response else { throw unexpected(response) }
        if json { return try StandardOutput.writeJSON(report) }
        var text = "\(report.lun)  \(report.policy)"
        for (option, value) in report.options.sorted(by: { $0.key < $1.key }) { text += "  \(option) \(value)" }
        try StandardOutput.write(HumanText.printable(text) + "\n")
    }
}
