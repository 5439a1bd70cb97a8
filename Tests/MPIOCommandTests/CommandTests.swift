import ArgumentParser
import Foundation
import MPIO
import Testing

@testable import MPIOCommand

/// The built `mpio`, run as a user would.
struct Mpio {
    var status: Int32
    var output: String
    var errors: String

    /// Test bundles and executables lie in one folder.
    private static var builtFolder: String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent(".build/debug").path
    }

    static var binary: String { builtFolder + "/mpio" }

    init(_ arguments: String..., environment: [String: String] = [:], folder: String) throws {
        try self.init(arguments, environment: environment, folder: folder)
    }

    init(_ arguments: [String], environment: [String: String] = [:], folder: String) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Self.binary)
        process.arguments = arguments
        process.currentDirectoryURL = URL(fileURLWithPath: folder)
        process.environment = ["PATH": "/usr/bin:/bin", "HOME": folder, "XDG_RUNTIME_DIR": folder].merging(environment) { $1 }
        let (output, errors) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = errors
        process.standardInput = FileHandle.nullDevice
        try process.run()
        self.output = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        self.errors = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        status = process.terminationStatus
    }
}

final class Folder {
    let path: String

    init() {
        // Short: a control socket's path has 107 bytes.
        var template = Array("/tmp/mpio-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ text: String, to name: String) throws {
        try text.write(toFile: path + "/" + name, atomically: false, encoding: .utf8)
    }
}

let goodPolicy = """
    targets: [{name: iqn.2026-11.org.example:a, portals: [127.0.0.1, 127.0.0.2]}]
    luns: [{name: vm-store, identity: naa.6001405abcdef01234567890abcdef01}]

    """

@Suite struct CheckCommandTests {
    @Test func aGoodFileIsSaidToBeGood() throws {
        let folder = Folder()
        try folder.write(goodPolicy, to: "mpio.yaml")
        let run = try Mpio("check", folder: folder.path)
        #expect(run.status == 0 && run.output == "mpio.yaml: good: 1 LUN, 1 target, 2 portals\n" && run.errors.isEmpty, "\(run)")
    }

    @Test func everyMistakeIsPrintedAndTheStatusIs65() throws {
        let folder = Folder()
        try folder.write(goodPolicy.replacing("127.0.0.2", with: "127.0.0.1") + "lunz: []\n", to: "bad.yaml")
        let run = try Mpio("check", "bad.yaml", folder: folder.path)
        #expect(run.status == 65 && run.output.isEmpty)
        #expect(
            run.errors == """
                bad.yaml:1:66: targets[0].portals[1]: the portal 127.0.0.1:3260 is listed twice; first in line 1
                bad.yaml:3:1: lunz: unknown key 'lunz'; did you mean 'luns'?
                2 errors

                """, "\(run.errors)")
        let json = try Mpio("check", "--json", "bad.yaml", folder: folder.path)
        let report = try JSONDecoder().decode(CheckReport.self, from: Data(json.output.utf8))
        #expect(json.status == 65 && report.errors.map(\.line) == [1, 3] && report.errors[1].key == "lunz")
    }

    @Test func aMissingFileNamesThePlacesThatWereTried() throws {
        let folder = Folder()
        let run = try Mpio("check", folder: folder.path)
        #expect(run.status == 65 && run.errors.contains("looked for ./mpio.yaml, \(folder.path)/.config/mpio/mpio.yaml, /etc/mpio/mpio.yaml"), "\(run)")
        #expect(try Mpio("check", "none.yaml", folder: folder.path).status == 65)
        #expect(try Mpio("check", "a", "--config", "b", folder: folder.path).status == 64)
    }

    @Test func usageErrorsAre64AndHelpIs0() throws {
        let folder = Folder()
        #expect(try Mpio("frobnicate", folder: folder.path).status == 64)
        #expect(try Mpio("paths", "--watch=0", folder: folder.path).status == 64)
        #expect(try Mpio("policy", "vm-store", "fastest", folder: folder.path).status == 64)
        for command in [["--help"], ["help", "paths"]] {
            let run = try command.count == 1 ? Mpio("--help", folder: folder.path) : Mpio("help", "paths", folder: folder.path)
            #expect(run.status == 0 && run.output.contains("mpio paths"))
        }
    }

    @Test func everySubcommandsHelpShowsAnExample() {
        func check(_ command: any ParsableCommand.Type, _ names: [String]) {
            let help = MPIOCommand.helpMessage(for: command, columns: 100)
            #expect(help.contains("Example"), "\(names.joined(separator: " "))")
            for child in command.configuration.subcommands { check(child, names + [child._commandName]) }
        }
        for command in MPIOCommand.configuration.subcommands { check(command, [command._commandName]) }
    }
}

@Suite struct CommonOptionTests {
    /// DESIGN: every command has `--config`; those that need no policy file and ask nobody who has one are left out.
    @Test func everyCommandThatCouldUseAPolicyFileTakesOne() {
        func check(_ command: any ParsableCommand.Type, _ names: [String]) {
            let children = command.configuration.subcommands
            for child in children { check(child, names + [child._commandName]) }
            let help = MPIOCommand.helpMessage(for: command, columns: 200)
            // `mpio target fault` asks a target, which has no policy file; `mpio target` itself may serve LUNs of one.
            let takesOne = names[0] == "target" ? names.count == 1 : children.isEmpty && names[0] != "demo"
            #expect(help.contains("--config <file>") == takesOne, "\(names.joined(separator: " "))")
        }
        for command in MPIOCommand.configuration.subcommands { check(command, [command._commandName]) }
    }

    @Test func everyWayToTakeAPathOutOrBackHasJSON() {
        for command in PathCommand.configuration.subcommands {
            #expect(MPIOCommand.helpMessage(for: command, columns: 200).contains("--json"), "\(command)")
        }
    }

    /// The word after `--config` is a file, not the policy to change to.
    @Test func aFileIsNotTakenForAPolicy() throws {
        let command = try #require(try MPIOCommand.parseAsRoot(["policy", "vm-store", "--config", "x.yaml"]) as? PolicyCommand)
        #expect(command.policy == nil && command.holderOptions.config == "x.yaml")
    }
}

private final class FakeHolder: ControlHandler, @unchecked Sendable {
    private let lock = NSLock()
    private var policy = "round-robin"
    private var connectionPolicy = "round-robin"
    private var taken: [ControlRequest] = []
    private var state = LUNState.optimal

    var actions: [ControlRequest] { lock.withLock { taken } }

    func set(_ state: LUNState) { lock.withLock { self.state = state } }

    func handle(_ request: ControlRequest) -> ControlResponse {
        lock.withLock {
            switch request {
            case .paths(let names):
                guard names.isEmpty || names.contains("vm-store") else { return .paths(PathsReport()) }
                var path = PathSnapshot(id: "127.0.0.1:3260", transport: .iscsi, portal: "127.0.0.1:3260", state: .activeOptimized)
                path.requests = 42
                return .paths(PathsReport(luns: [
                    LUNSnapshot(name: "vm-store", identity: "naa.6001405abcdef01234567890abcdef01", policy: policy, state: state, holder: .init(pid: 7, command: "test"), paths: [path])
                ]))
            case .policy: return .policy(PolicyReport(lun: "vm-store", policy: policy))
            case .setPolicy(_, let name, _):
                policy = name ?? policy
                return .done("changed")
            case .connectionPolicy(_, let path):
                return .policy(PolicyReport(lun: "vm-store", policy: connectionPolicy, session: path))
            case .setConnectionPolicy(_, _, let name, _):
                connectionPolicy = name ?? connectionPolicy
                return .done("changed")
            case .path(_, _, let path):
                taken.append(request)
                return path == "127.0.0.1:3260" ? .done("path \(path) changed") : .failed(ControlFailure(.noSuchPath, "no path '\(path)'"))
            case .connection(_, _, _, let number):
                taken.append(request)
                return number == 2 ? .done("connection 2 changed") : .failed(ControlFailure(.noSuchPath, "no connection \(number)"))
            case .explain:
                return .explanation(ExplanationReport(lun: "vm-store", policy: policy, next: "127.0.0.1:3260", reason: "the only one", paths: [.init(id: "127.0.0.1:3260", isUsed: true, reason: "usable")]))
            case .events(let after):
                return .events(after == nil ? [EventRecord(serial: 1, at: "2026-11-21T10:00:00.000Z", lun: "vm-store", kind: "path-lost", message: "gone")] : [], next: 1)
            case .identify, .metrics, .reload, .edit, .sample: return .failed(ControlFailure(.invalid, "not asked here"))
            }
        }
    }
}

@Suite struct HolderCommandTests {
    private func withHolder(_ body: (Folder, FakeHolder) throws -> Void) throws {
        let folder = Folder()
        let holder = FakeHolder()
        let server = try ControlServer(handler: holder, directory: folder.path + "/mpio")
        try body(folder, holder)
        server.stop()
    }

    @Test func pathsAreShownFromTheProcessThatHoldsThem() throws {
        try withHolder { folder, holder in
            let run = try Mpio("paths", folder: folder.path)
            #expect(run.status == 0 && run.output.contains("127.0.0.1:3260") && run.output.contains("held by pid 7 (test)"), "\(run)")
            #expect(!run.output.contains("\u{1B}"))
            let json = try Mpio("paths", "vm-store", "--json", folder: folder.path)
            let report = try JSONDecoder().decode(PathsReport.self, from: Data(json.output.utf8))
            #expect(report.luns[0].paths[0].requests == 42)
        }
    }

    @Test func checkTellsTheStateByItsStatus() throws {
        try withHolder { folder, holder in
            for (state, expected) in [(LUNState.optimal, 0), (.degraded, 1), (.failed, 2)] as [(LUNState, Int32)] {
                holder.set(state)
                let status = try Mpio("paths", "--check", folder: folder.path).status
                #expect(status == expected)
            }
        }
    }

    @Test func thePolicyIsShownAndChanged() throws {
        try withHolder { folder, _ in
            #expect(try Mpio("policy", "vm-store", folder: folder.path).output == "vm-store  round-robin\n")
            #expect(try Mpio("policy", "vm-store", "LQD", folder: folder.path).output == "vm-store  least-queue-depth\n")
            let unknown = try Mpio("policy", "other", folder: folder.path)
            #expect(unknown.status == 1 && unknown.errors.contains("no running process holds 'other'"))
        }
    }

    @Test func pathsAreTakenOutAndBack() throws {
        try withHolder { folder, holder in
            #expect(try Mpio("path", "fail", "vm-store", "127.0.0.1:3260", folder: folder.path).status == 0)
            #expect(try Mpio("path", "drain", "vm-store", "127.0.0.1:3260", folder: folder.path).status == 0)
            #expect(try Mpio("path", "drain", "vm-store", "127.0.0.1:3260", "--connection", "2", folder: folder.path).status == 0)
            #expect(holder.actions.last == .connection(.drain, lun: "vm-store", path: "127.0.0.1:3260", number: 2))
            let run = try Mpio("path", "restore", "vm-store", "nowhere", folder: folder.path)
            #expect(run.status == 1 && run.errors == "mpio: no path 'nowhere'\n")
            #expect(holder.actions.count == 4)
            for action in ControlRequest.PathAction.allCases {
                let json = try Mpio("path", action.rawValue, "vm-store", "127.0.0.1:3260", "--json", folder: folder.path)
                let report = try JSONDecoder().decode(PathActionReport.self, from: Data(json.output.utf8))
                #expect(report == PathActionReport(lun: "vm-store", path: "127.0.0.1:3260", connection: nil, action: action, message: "path 127.0.0.1:3260 changed"))
                #expect(json.output.contains("\"connection\" : null"), "\(json)")
            }
        }
    }

    @Test func explanationsEventsAndMetricsArePrinted() throws {
        try withHolder { folder, _ in
            #expect(try Mpio("explain", "vm-store", folder: folder.path).output.contains("next request: 127.0.0.1:3260"))
            #expect(try Mpio("events", folder: folder.path).output == "2026-11-21T10:00:00.000Z  vm-store  path-lost  gone\n")
            let metrics = try Mpio("metrics", folder: folder.path).output
            #expect(metrics.contains("mpio_path_requests_total{lun=\"vm-store\",pid=\"7\",path=\"127.0.0.1:3260\"} 42\n") && metrics.hasSuffix("# EOF\n"))
            // A type that node_exporter's textfile collector does not know costs the whole file.
            #expect(metrics.contains("# TYPE mpio_lun_info gauge\n") && !metrics.contains(" stateset") && !metrics.contains(" info\n"), "\(metrics)")
        }
    }

    @Test func withoutAHolderTheRefusalIsClear() throws {
        let folder = Folder()
        for name in ["explain", "policy"] {
            let run = try Mpio(name, "vm-store", folder: folder.path)
            #expect(run.status == 1 && run.errors.contains("no running process holds 'vm-store'"), "\(run)")
        }
        #expect(try Mpio("metrics", folder: folder.path).status == 1)
    }

    @Test func aReaderThatLeavesEndsTheCommandQuietly() throws {
        try withHolder { folder, _ in
            let shell = Process()
            shell.executableURL = URL(fileURLWithPath: "/bin/sh")
            let binary = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent(".build/debug/mpio").path
            shell.arguments = ["-c", "\(binary) paths --watch=0.05 | head -n 1; \(binary) paths | head -n 0"]
            shell.environment = ["PATH": "/usr/bin:/bin", "HOME": folder.path, "XDG_RUNTIME_DIR": folder.path]
            let errors = Pipe()
            shell.standardError = errors
            shell.standardOutput = FileHandle.nullDevice
            try shell.run()
            let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            shell.waitUntilExit()
            #expect(text.isEmpty, "\(text)")
        }
    }
}

@Suite struct CommandTextTests {
    @Test func progressFitsItsLine() {
        for width in [10, 20, 40, 80, 200] {
            let line = Progress.line(done: 6 << 30, total: 10 << 30, elapsed: .seconds(8), width: width)
            #expect(line.count < max(width, 5), "\(line)")
            #expect(line.contains("60%"))
        }
        #expect(Progress.line(done: 0, total: 0, elapsed: .zero, width: 80).contains("100%"))
    }

    @Test func colourNeedsATerminalThatWantsIt() {
        #expect(Terminal.style(isTerminal: false, environment: [:]) == TextStyle())
        #expect(Terminal.style(isTerminal: true, environment: [:]).usesColour)
        #expect(Terminal.style(isTerminal: true, environment: ["NO_COLOR": ""]).usesColour)
        #expect(!Terminal.style(isTerminal: true, environment: ["NO_COLOR": "1"]).usesColour)
        #expect(!Terminal.style(isTerminal: true, environment: ["TERM": "dumb"]).usesColour)
    }

    @Test func sizesAndTimesAreReadAsPeopleWriteThem() {
        #expect(ByteSize(argument: "4k")?.byteCount == 4096 && ByteSize(argument: "four") == nil)
        #expect(TimeSpan(argument: "2")?.duration == .seconds(2) && TimeSpan(argument: "250ms")?.duration == .milliseconds(250))
        #expect(ByteSize(1 << 20).defaultValueDescription == "1M" && TimeSpan(.seconds(10)).defaultValueDescription == "10s")
    }

    /// Terminals differ in width: the parser breaks the lines, and a text that is broken already gets a stump after each of them.
    @Test func noHelpTextIsBrokenWithinASentence() {
        func check(_ command: any ParsableCommand.Type) {
            for paragraph in command.configuration.discussion.components(separatedBy: "\n\n") where !paragraph.isEmpty {
                let text = paragraph.components(separatedBy: "\n").prefix { !$0.hasPrefix("  ") }
                for line in text { #expect(line.last == "." || line.last == ":", "\(command): \(line)") }
            }
            for nested in command.configuration.subcommands { check(nested) }
        }
        #expect(MPIOCommand.configuration.subcommands.count > 10)
        check(MPIOCommand.self)
    }

    @Test func pathsThatWereAskedForByNameMustExist() throws {
        let held = PathsReport(luns: [LUNSnapshot(name: "a", policy: "round-robin", state: .optimal)])
        let policy = try Configuration(yaml: goodPolicy)
        #expect(try PathsCommand.unheld(asked: [], held: held, policy: policy) == ["vm-store"])
        #expect(try PathsCommand.unheld(asked: ["a"], held: held, policy: nil) == [])
        #expect(try PathsCommand.unheld(asked: ["naa.6001405abcdef01234567890abcdef01"], held: held, policy: policy) == ["vm-store"])
        #expect(throws: CommandFailure.self) { try PathsCommand.unheld(asked: ["b"], held: held, policy: policy) }
    }
}
