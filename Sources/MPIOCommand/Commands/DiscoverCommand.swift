import ArgumentParser
import Foundation
import MPIO
import Multipath

struct DiscoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "discover",
        abstract: "Ask portals for their targets and LUNs; write a policy file.",
        usage: "mpio discover PORTAL… [--write-config FILE] [OPTIONS]",
        discussion: """
            One portal is enough: a target names its others. Each of them is then logged in to, its LUNs are looked at, and \
            it is left again. Nothing is written to any LUN.

            Examples:
              mpio discover 10.0.1.10
              mpio discover 10.0.1.10 10.0.2.10 --write-config mpio.yaml && mpio paths
              mpio discover 10.0.1.10 --user host-1 --secret-file chap.secret --json
            """)

    @Argument(help: "Portals: an IP address, with a port where it is not 3260.")
    var portals: [String]

    @OptionGroup var chap: CHAPOptions

    @Option(help: ArgumentHelp("The initiator's name to log in by; this machine's where left out.", valueName: "iqn"))
    var initiator: String?

    @Option(
        help: ArgumentHelp("Log in by the initiator's name that this policy file has.", valueName: "file"),
        completion: .file(extensions: ["yaml", "yml"]))
    var config: String?

    @Option(help: ArgumentHelp("The address that connections leave from.", valueName: "address"))
    var from: String?

    @Option(help: ArgumentHelp("How long a portal has for its answer.", valueName: "time"))
    var timeout = TimeSpan(.seconds(5))

    @Option(help: ArgumentHelp("Write a policy file for what was found.", valueName: "file"), completion: .file(extensions: ["yaml", "yml"]))
    var writeConfig: String?

    @Flag(help: "With --write-config: replace a file that exists.")
    var force = false

    @Flag(help: "Print the result as JSON.")
    var json = false

    func validate() throws {
        if let from, (try? SourceAddress(parsing: from)) == nil { throw ValidationError("'\(from)' is no address to leave from: give an IP address without a port.") }
        if initiator != nil, config != nil { throw ValidationError("--initiator and --config both give the initiator's name: give one of them.") }
        if timeout.duration < .milliseconds(10) { throw ValidationError("--timeout is at least 10ms.") }
        if let initiator, let problem = Configuration.problem(ofName: initiator) {
            throw ValidationError("'\(initiator)' is no iSCSI name: \(problem).")
        }
        if force, writeConfig == nil { throw ValidationError("--force is for --write-config.") }
    }

    private static func portal(_ text: String) throws -> PortalAddress {
        do {
            return try PortalAddress(parsing: text)
        } catch {
            throw CommandFailure("'\(text)' is no portal: \(error); give one such as 10.0.1.10 or [2001:db8::1]:3260", status: ExitStatus.usage)
        }
    }

    func run() async throws {
        // Not in validate(): there a mistyped option's value would be taken for a portal, and called no address.
        var seen: Set<PortalAddress> = []
        var discovery = Discovery(portals: try portals.map(Self.portal).filter { seen.insert($0).inserted })
        // Before the work: whoever can't keep its result would have to do it twice.
        if let writeConfig { try checkWritable(writeConfig) }
        discovery.source = try from.map { try SourceAddress(parsing: $0) }
        discovery.initiatorName = try initiator ?? config.flatMap { try Configuration(contentsOf: Configuration.search(explicit: $0)).initiatorName }
        discovery.chap = try chap.credentials()
        discovery.loginTimeout = timeout.duration
        let question = discovery
        var report = try await cancelledByInterrupt { try await question.run() }
        let storage = report.storage(source: discovery.source, chap: chap.written)
        for (index, name) in PolicyFileWriter().names(storage).enumerated() { report.luns[index].name = name }
        if json {
            try StandardOutput.writeJSON(report)
        } else {
            try StandardOutput.write(DiscoverText(style: Terminal.style()).render(report))
        }
        try judge(report)
        if let writeConfig { try write(storage, to: writeConfig) }
        if !json { hint(report) }
    }

    /// Throws where nothing was found that could be used.
    private func judge(_ report: DiscoveryReport) throws {
        if report.portals.allSatisfy({ $0.error != nil }) {
            throw CommandFailure(report.portals.count == 1 ? "the portal did not answer" : "no portal answered", status: ExitStatus.noPath)
        }
        if report.targets.isEmpty { throw CommandFailure("no target is offered to \(report.initiator)") }
        if report.targets.allSatisfy({ $0.portals.allSatisfy { $0.error != nil } }) {
            throw CommandFailure("no target could be logged in to" + loginAdvice(report), status: ExitStatus.noPath)
        }
        if writeConfig != nil, report.luns.isEmpty {
            throw CommandFailure("no LUN was found, so no policy file was written; does the target map any to \(report.initiator)?")
        }
    }

    /// What to do next, where that is not plain; for people.
    private func hint(_ report: DiscoveryReport) {
        let given = portals.joined(separator: " ")
        if !report.luns.isEmpty, report.luns.allSatisfy({ $0.paths.count == 1 }) {
            StandardError.write("There is one path to each LUN. If the target has more portals, name them as well.\n")
        }
        if writeConfig == nil, !report.luns.isEmpty, StandardError.isTerminal {
            StandardError.write("To use it: mpio discover \(given) --write-config mpio.yaml && mpio paths\n")
        }
    }

    /// Why logging in was refused, and what to do about it.
    private func loginAdvice(_ report: DiscoveryReport) -> String {
        let reasons = report.targets.flatMap(\.portals).compactMap(\.error)
        guard reasons.contains(where: { $0.hasPrefix(PathFailureReason.authenticationFailed.rawValue) }) else { return "" }
        guard let user = chap.user else { return "; the target wants CHAP: name --user and --secret-file" }
        return "; does the target know the user '\(user)', by this secret?"
    }

    private static func exists(_ path: String) -> CommandFailure {
        CommandFailure("\(path) exists; --force replaces it", status: ExitStatus.usage)
    }

    private func checkWritable(_ path: String) throws {
        if access(path, F_OK) == 0, !force { throw Self.exists(path) }
        let folder = (path as NSString).deletingLastPathComponent
        if access(folder.isEmpty ? "." : folder, W_OK) != 0 {
            throw CommandFailure("\(path) can't be written: the folder \(folder.isEmpty ? "." : folder): \(String(cString: strerror(errno)))", status: ExitStatus.usage)
        }
    }

    private func write(_ storage: DiscoveredStorage, to path: String) throws {
        let text = PolicyFileWriter().text(storage)
        // A file that came into being meanwhile is not replaced either.
        let flags = O_WRONLY | O_CREAT | O_CLOEXEC | (force ? O_TRUNC : O_EXCL)
        let descriptor = open(path, flags, 0o644)
        guard descriptor >= 0 else {
            if errno == EEXIST { throw Self.exists(path) }
            throw CommandFailure("\(path): \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        let bytes = Array(text.utf8)
        do {
            try bytes.withUnsafeBytes { try writeAll($0, to: descriptor) }
        } catch let error as POSIXError {
            throw CommandFailure("\(path): \(String(cString: strerror(error.code.rawValue)))")
        }
        let isDefault = path == "mpio.yaml" || path == "./mpio.yaml"
        StandardError.write("\(path) written; look at it with: mpio paths\(isDefault ? "" : " --config \(path)")\n")
    }
}

/// What `mpio discover` prints.
struct DiscoverText {
    var style = TextStyle()

    func render(_ report: DiscoveryReport) -> String {
        var text = ""
        for portal in report.portals where portal.error != nil { text += line(portal, indentation: "", tag: false) }
        for target in report.targets {
            text += style.paint(HumanText.printable(target.name), .bold) + "\n"
            for portal in target.portals { text += line(portal, indentation: "  ", tag: true) }
            for lun in report.luns where lun.paths.contains(where: { $0.target == target.name }) {
                // A LUN of several targets is shown with the first of them.
                guard lun.paths.first?.target == target.name else { continue }
                text += self.lun(lun)
            }
            for path in report.unidentified where path.target == target.name {
                text += "  lun \(path.lun) over \(path.portal) " + style.paint("gives no identity; it can't be used over several paths", .yellow) + "\n"
            }
        }
        return text
    }

    private func line(_ portal: DiscoveryReport.Portal, indentation: String, tag: Bool) -> String {
        let name = HumanText.printable(portal.portal)
        var text = indentation + "portal " + name + String(repeating: " ", count: max(2, 24 - name.count))
        if tag { text += portal.tpg.map { "group \($0)  " } ?? "" }
        guard let error = portal.error else { return text + style.paint("answers", .green) + "\n" }
        let words = HumanText.printable(error).split(separator: " ").map { style.paint(String($0), .red) }
        return style.wrapped([text + (words.first ?? "")] + words.dropFirst(), separator: " ", indentation: indentation.count + 4, hanging: true)
    }

    private func lun(_ lun: DiscoveryReport.LUN) -> String {
        let model = [lun.vendor, lun.product].map { HumanText.printable($0) }.filter { !$0.isEmpty }.joined(separator: " ")
        let paths = lun.paths.count == 1 ? "1 path" : "\(lun.paths.count) paths"
        let numbers = Set(lun.paths.map(\.lun)).sorted().map(String.init).joined(separator: ", ")
        let facts = [lun.identity, model, "\(HumanText.size(lun.capacityBytes)), \(lun.blockSize) B blocks", paths].filter { !$0.isEmpty }
        return style.wrapped(
            ["  lun \(numbers)  " + style.paint(lun.name, .bold)] + facts, separator: "  ", indentation: 6, hanging: true)
    }
}
