import ArgumentParser
import MPIO
import Multipath

struct PolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy",
        abstract: "Show a LUN's policy, or change it while I/O runs.",
        usage: "mpio policy LUN [POLICY] [OPTIONS]",
        discussion: """
            Policies: \(PolicyKind.allCases.map { "\($0.rawValue) (\($0.shortName))" }.joined(separator: ", ")).
            The change lasts until the process that holds the LUN ends; --save writes it into the policy file too.

            Examples:
              mpio policy vm-store
              mpio policy vm-store least-queue-depth
              mpio policy vm-store round-robin --switch-after 64k
              mpio policy vm-store least-queue-depth --session 10.0.1.10:3260
            """)

    @Argument(help: "The LUN's name or identity.", completion: Completions.luns)
    var lun: String

    @Argument(help: "The policy to change to, by its name or abbreviation.", completion: .list(PolicyKind.allCases.map(\.rawValue)))
    var policy: String?

    @Option(help: ArgumentHelp("Show or change how the connections of one session are chosen instead; a path's name.", valueName: "path"), completion: Completions.paths)
    var session: String?

    @Option(help: ArgumentHelp("Round robin: how much goes to one path in turn, a number of requests or a size.", valueName: "count|size"))
    var switchAfter: String?

    @Option(help: ArgumentHelp("Fail-over only: when traffic goes back to a path of earlier order; immediate, manual or after a time.", valueName: "when"), completion: .list(["immediate", "manual", "30s"]))
    var failBack: String?

    @Option(help: ArgumentHelp("Round robin with subset: per-failed-primary or when-none-left.", valueName: "when"), completion: .list(ActivateStandby.allCases.map(\.rawValue)))
    var activateStandby: String?

    @Option(help: ArgumentHelp("Weighted paths: proportional or priority.", valueName: "meaning"), completion: .list(WeightMeaning.allCases.map(\.rawValue)))
    var weights: String?

    @Flag(inversion: .prefixedNo, help: "Least blocks: keep a sequential stream on its path.")
    var sequentialAffinity: Bool?

    @Flag(help: "Write the change into the policy file as well; comments and order stay.")
    var save = false

    @Flag(help: "Print the result as JSON.")
    var json = false

    @OptionGroup var holderOptions: HolderOptions

    func validate() throws {
        for (name, text) in options {
            var scratch = PolicyOptions()
            guard let option = PolicyOption(rawValue: name), !scratch.set(option, from: text) else { continue }
            throw ValidationError("--\(name) '\(text)' is not \(option.expected).")
        }
        if save, session != nil { throw ValidationError("--save and --session don't go together.") }
        if save, policy == nil, options.isEmpty { throw ValidationError("--save needs something to change.") }
        guard let policy else { return }
        guard let kind = PolicyKind(name: policy) else {
            let names = PolicyKind.allCases.map(\.rawValue)
            let hint = suggestion(for: policy, among: names)
            throw ValidationError("'\(policy)' is no policy\(hint.isEmpty ? "; there are \(names.joined(separator: ", "))." : hint)")
        }
        var settings = PolicySettings(kind)
        do {
            try settings.apply(options)
        } catch {
            throw ValidationError("\(error).")
        }
    }

    /// Those that were given, by their names in the policy file.
    private var options: [String: String] {
        let given: [(PolicyOption, String?)] = [
            (.switchAfter, switchAfter), (.failBack, failBack), (.activateStandby, activateStandby), (.weights, weights),
            (.sequentialAffinity, sequentialAffinity.map { "\($0)" }),
        ]
        return Dictionary(uniqueKeysWithValues: given.compactMap { option, text in text.map { (option.rawValue, $0) } })
    }

    private func change(to name: String?) -> ControlRequest {
        guard let session else { return .setPolicy(lun: lun, policy: name, options: options) }
        return .setConnectionPolicy(lun: lun, path: session, policy: name, options: options)
    }

    func run() throws {
        let holders = try holderOptions.holders()
        if policy != nil || !options.isEmpty {
            let name = policy.flatMap { PolicyKind(name: $0)?.rawValue }
            let edit = ConfigurationEdit.policy(lun: try holders.name(of: lun), policy: name, options: options)
            let editor = try save ? holders.editor(for: edit) : nil
            _ = try holders.ask(change(to: name), of: lun)
            try Saving.save(editor)
        }
        let response = try holders.ask(session.map { .connectionPolicy(lun: lun, path: $0) } ?? .policy(lun: lun), of: lun)
        guard case .policy(let report) = response else { throw unexpected(response) }
        if json { return try StandardOutput.writeJSON(report) }
        var text = [report.lun, report.session, report.policy].compactMap { $0 }.joined(separator: "  ")
        for (option, value) in report.options.sorted(by: { $0.key < $1.key }) { text += "  \(option) \(value)" }
        try StandardOutput.write(HumanText.printable(text) + "\n")
    }
}
