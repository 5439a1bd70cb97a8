import ArgumentParser
import Foundation
import Testing
import TestSupport

@testable import MPIOCommand

/// Every `mpio` line of the documentation is run as it stands, against an array on loopback.
@Suite(.serialized) struct CommandExampleTests {
    /// The lines of `sh` blocks, without comments.
    func lines() throws -> [(block: FencedBlock, line: String)] {
        try Document.blocks().filter { $0.language == "sh" }.flatMap { block in
            block.lines.compactMap { line in
                let command = line.replacing(/(^|\s+)#.*$/, with: "")
                return command.isEmpty ? nil : (block, String(command))
            }
        }
    }

    /// The first policy file of the README.
    private func smallestFile() throws -> String {
        try #require(try Document.read("README.md").blocks.first { $0.language == "yaml" }).text
    }

    private func goesOn(_ line: String) -> Bool {
        line.contains("--follow") || line.contains("--watch") || line.hasPrefix("mpio hold") || line.hasPrefix("mpio target")
    }

    @Test func everyCommandLineDoesWhatItSays() async throws {
        let array = try DocumentedArray()
        try array.writePolicy(smallestFile())
        try array.folder.file("image.raw", contents: [UInt8](repeating: 7, count: 64 << 10))
        // `mpio hold` is one of the examples, and what the inspecting ones ask.
        let holder = try array.startLine("mpio hold")
        #expect(try await eventually(within: .seconds(60)) { try await array.runLine("mpio policy vm-store && mpio policy scratch").succeeded })
        for (block, line) in try lines() where line.hasPrefix("mpio ") {
            if line.hasPrefix("mpio hold") { continue }
            if line.hasPrefix("mpio demo") { continue }  // below
            if goesOn(line) {
                let child = try array.startLine(line.replacing(" &", with: ""))
                try await Task.sleep(for: .milliseconds(400))
                #expect(try await eventually { child.catches(signal: SIGINT) }, "\(block): \(line)")
                #expect(child.isRunning, "\(block): \(line) ended by itself")
                child.send(signal: SIGINT)
                let end = child.wait(timeout: .seconds(20))
                #expect(end == .exited(0) || end == .exited(130), "\(block): \(line): \(String(describing: end))")
            } else {
                let result = try await array.runLine(line)
                #expect(result.succeeded, "\(block): \(line): \(result.end)\n\(result.standardOutput)\(result.standardError)")
                #expect(!result.standardOutputBytes.isEmpty || line.contains(">") || isSilent(line), "\(block): \(line) said nothing")
            }
        }
        holder.send(signal: SIGINT)
        #expect(holder.wait(timeout: .seconds(10)) != nil)
        try array.stop()
    }

    private func isSilent(_ line: String) -> Bool {
        ["mpio read", "mpio write", "mpio copy"].contains { line.hasPrefix($0) }
    }

    @Test func everySubcommandHasAnExampleInTheReadme() throws {
        let lines = try lines().filter { $0.block.file == "README.md" }.map(\.line)
        for command in MPIOCommand.configuration.subcommands {
            let name = command._commandName
            #expect(lines.contains { $0 == "mpio \(name)" || $0.hasPrefix("mpio \(name) ") }, "mpio \(name)")
        }
        let names = MPIOCommand.configuration.subcommands.map { $0._commandName }
        for line in lines where line.hasPrefix("mpio ") {
            let word = line.split(separator: " ")[1]
            #expect(word.hasPrefix("-") || names.contains(String(word)), "\(line)")
        }
    }

    @Test func everyOtherLineIsAMakeTargetThatExists() throws {
        let makefile = try String(contentsOfFile: Document.root + "/Makefile", encoding: .utf8)
        for (block, line) in try lines() where !line.hasPrefix("mpio ") && !block.isOfNBD {
            let words = line.replacing(/"[^"]*"/, with: "quoted").split(separator: " ").map(String.init)
            guard words[0] == "make" else {
                Issue.record("\(block): nothing tests '\(line)'")
                continue
            }
            for word in words.dropFirst() where !word.contains("=") {
                #expect(makefile.contains("\n\(word):"), "\(block): no make target '\(word)'")
            }
            for word in words.dropFirst() where word.contains("=") {
                let variable = word.prefix { $0 != "=" }
                #expect(makefile.contains("\n\(variable) ?="), "\(block): no make variable '\(variable)'")
            }
        }
    }

    /// Headings, policies, modules and states; figures, addresses and what depends on them differ each time.
    private func skeleton(_ text: String) -> [String] {
        text.split(separator: "\n").map(String.init).compactMap { line in
            if let heading = line.wholeMatch(of: /[0-9]  (.*)/) { return String(heading.output.1) }
            if let policy = line.wholeMatch(of: /\s\s([a-z-]+) +[0-9.,k]+ requests\/s .*/) { return String(policy.output.1) }
            if let facts = line.wholeMatch(of: /\s\spolicy ([a-z-]+) .*dsm ([a-z-]+) .*state ([a-z]+).*/) {
                return "\(facts.output.1) \(facts.output.2) \(facts.output.3)"
            }
            return nil
        }
    }

    @Test func theDemoShowsWhatTheReadmeShows() async throws {
        let shown = try #require(try Document.read("README.md").blocks.first { $0.info == "text demo" })
        let folder = try TemporaryDirectory("demo")
        let result = try await CommandRunner.run(
            DocumentedArray.builtFolder + "/mpio", ["demo", "--fast"], environment: ["XDG_RUNTIME_DIR": folder.path])
        #expect(result.succeeded, "\(result.standardError)")
        // The README abridges: what it shows has to come, in that order.
        var rest = skeleton(result.standardOutput)[...]
        #expect(skeleton(shown.text).count >= 6)
        for line in skeleton(shown.text) {
            guard let place = rest.firstIndex(of: line) else {
                Issue.record("'\(line)' is not what the demo shows now")
                return
            }
            rest = rest[(place + 1)...]
        }
    }

    @Test func theExitStatusesAreTheCommands() throws {
        let section = try #require(try Document.read("README.md").section("exit statuses"))
        let shown = section.matches(of: /\| (\d+) \|/).compactMap { Int32($0.output.1) }
        let real = [ExitStatus.failed, ExitStatus.usage, ExitStatus.badPolicyFile, ExitStatus.noPath, ExitStatus.interrupted].map(\.rawValue)
        #expect(shown == [0] + real)
    }

    @Test func aPathTakenOutByHandSaysSo() async throws {
        let array = try DocumentedArray()
        try array.writePolicy(smallestFile())
        let holder = try array.startLine("mpio hold")
        #expect(try await eventually(within: .seconds(60)) { try await array.runLine("mpio policy vm-store").succeeded })
        #expect(try await array.runLine("mpio path fail vm-store 10.0.1.10:3260").succeeded)
        let shown = try await array.runLine("mpio paths vm-store").standardOutput
        #expect(shown.contains("taken out by hand") && shown.contains("degraded (1 of 2 paths failed)"), "\(shown)")
        #expect(try await array.runLine("mpio paths vm-store --check").exitStatus == 1)
        holder.send(signal: SIGINT)
        #expect(holder.wait(timeout: .seconds(10)) == .exited(0))
        try array.stop()
    }

    @Test func aPortalThatRefusesIsStatus69() async throws {
        let array = try DocumentedArray()
        try array.writePolicy(smallestFile())
        try array.stop()
        let result = try await array.runLine("mpio read vm-store --length 4k > /dev/null")
        #expect(result.exitStatus == 69, "\(result.standardError)")
        #expect(result.standardError.contains("connection refused"))
    }
}
