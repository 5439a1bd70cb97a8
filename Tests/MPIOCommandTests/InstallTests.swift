import Foundation
import MPIO
import TestSupport
import Testing

@testable import MPIOCommand
@testable import ManualPages

private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path

/// What `make install` puts where, from binaries that are built already.
@Suite(.serialized) struct InstallTests {
    private func install(_ verb: [String], _ folder: Folder) async throws -> CommandResult {
        try await CommandRunner.run(
            root + "/scripts/install-files", verb, environment: ["DESTDIR": folder.path, "PREFIX": "/usr", "SOURCE_DATE_EPOCH": "1795341600"])
    }

    private func installed(_ folder: Folder) async throws {
        let result = try await install(["install", URL(fileURLWithPath: Mpio.binary).deletingLastPathComponent().path], folder)
        try #require(result.succeeded, "\(result.standardOutput)\(result.standardError)")
    }

    private func files(_ folder: Folder) -> Set<String> {
        let all = FileManager.default.enumerator(atPath: folder.path)!.compactMap { $0 as? String }
        return Set(all.filter {
            var status = stat()
            return stat(folder.path + "/" + $0, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
        })
    }

    @Test func everyFileHasItsPlaceAndGoesAgain() async throws {
        let folder = Folder()
        try await installed(folder)
        let pages = MPIOCommand.configuration.subcommands.map { "usr/share/man/man1/mpio-\($0._commandName).1" }
        let expected = Set(pages).union([
            "usr/bin/mpio", "usr/lib/systemd/system/mpio.service", "usr/share/bash-completion/completions/mpio",
            "usr/share/zsh/site-functions/_mpio", "usr/share/fish/vendor_completions.d/mpio.fish", "usr/share/man/man1/mpio.1",
            "usr/share/man/man5/mpio.yaml.5",
        ])
        #expect(files(folder) == expected, "\(files(folder).symmetricDifference(expected))")
        let unit = try String(contentsOfFile: folder.path + "/usr/lib/systemd/system/mpio.service", encoding: .utf8)
        #expect(unit.contains("ExecStart=/usr/bin/mpio hold") && !unit.contains("@"))
        // What others have there stays.
        try folder.write("", to: "usr/share/man/man1/other.1")
        #expect(try await install(["uninstall"], folder).succeeded)
        #expect(files(folder) == ["usr/share/man/man1/other.1"])
        #expect(try await install([], folder).exitStatus == 64)
    }

    /// groff finds nothing to warn of, and what it sets has what the page has to have.
    @Test func thePagesAreGoodManualPages() async throws {
        let folder = Folder()
        try await installed(folder)
        for file in files(folder).sorted() where file.contains("/man/") {
            let set = try await CommandRunner.run("groff", ["-mandoc", "-ww", "-Tutf8", "-P-cbou", folder.path + "/" + file])
            #expect(set.succeeded && set.standardError.isEmpty, "\(file): \(set.standardError)")
            let page = set.standardOutput
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"] where section != "SYNOPSIS" || !file.hasSuffix(".5") {
                #expect(page.contains("\n\(section)\n"), "\(file): \(section)")
            }
            #expect(page.contains("November 22, 2026") && !page.contains("\\f") && !page.contains("\\["), "\(file)\n\(page)")
        }
        func page(_ name: String) async throws -> String {
            try await CommandRunner.require("groff", ["-mandoc", "-Tutf8", "-P-cbou", "-rLL=200n", "\(folder.path)/usr/share/man/\(name)"]).standardOutput
        }
        let overview = try await page("man1/mpio.1")
        for command in MPIOCommand.configuration.subcommands {
            #expect(overview.contains("mpio-\(command._commandName)(1)") && overview.contains(command.configuration.abstract), "\(command)")
        }
        for status in [0, 1, 64, 65, 69, 130] { #expect(overview.contains(try Regex("\n +\(status) +[a-z]")), "\(status)") }
        #expect(overview.contains("MPIO_CONFIG") && overview.contains("/etc/mpio/mpio.yaml") && overview.contains("EXIT STATUS"))
        let paths = try await page("man1/mpio-paths.1")
        for option in ["--json", "--watch[=seconds]", "--record file", "--config file", "mpio paths vm-store --watch=1"] {
            #expect(paths.contains(option), "\(option)\n\(paths)")
        }
        let nested = try await page("man1/mpio-path.1")
        for form in ["mpio path fail", "mpio path add", "--weight weight", "mpio path remove lun path", "Take a path out at once"] { #expect(nested.contains(form), "\(form)\n\(nested)") }
        let target = try await page("man1/mpio-target.1")
        for form in ["mpio target --listen", "mpio target fault add", "kind[=value][:option=value,…]"] { #expect(target.contains(form), "\(form)\n\(target)") }
        // Every key of the policy file, as docs/configuration.md has them.
        let policy = try await page("man5/mpio.yaml.5")
        for key in ["pdo-remove-period: 20s", "EVERY KEY", "identity: naa.6001405abcdef01234567890abcdef01", "error-recovery-level: 0"] {
            #expect(policy.contains(key), "\(key)")
        }
    }

    @Test func theCompletionsAreGoodShell() async throws {
        let folder = Folder()
        try await installed(folder)
        let file = folder.path + "/usr/share/bash-completion/completions/mpio"
        let checked = try await CommandRunner.run("bash", ["-n", file])
        #expect(checked.succeeded && checked.standardError.isEmpty, "\(checked)")
        let zsh = try String(contentsOfFile: folder.path + "/usr/share/zsh/site-functions/_mpio", encoding: .utf8)
        #expect(zsh.hasPrefix("#compdef mpio\n"))
        for line in ["mpio pl:plot", "mpio paths --rec:--record", "mpio policy x lea:least-queue-depth least-blocks"] {
            let parts = line.split(separator: ":")
            let found = try await complete(String(parts[0]), file, folder)
            for word in parts[1].split(separator: " ") { #expect(found.contains(String(word)), "\(line): \(found)") }
        }
    }

    /// What bash offers for the end of a line: its words as readline parts them, by spaces and colons.
    private func complete(_ line: String, _ file: String, _ folder: Folder, environment: [String: String] = [:]) async throws -> [String] {
        var words: [String] = []
        for part in line.split(separator: " ", omittingEmptySubsequences: false) {
            let pieces = part.matches(of: /:|[^:]+/).map { String($0.output) }
            words += pieces.isEmpty ? [""] : pieces
            if part.hasSuffix(":") { words.append("") }
        }
        let script = """
            source "$1"
            shift
            COMP_LINE="$1"
            shift
            COMP_POINT=${#COMP_LINE}
            COMP_WORDS=("$@")
            COMP_CWORD=$(( $# - 1 ))
            _mpio_whole_words mpio "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\\n' "${COMPREPLY[@]}"
            """
        let path = URL(fileURLWithPath: Mpio.binary).deletingLastPathComponent().path + ":/usr/bin:/bin"
        let result = try await CommandRunner.run(
            "bash", ["-c", script, "bash", file, line] + words,
            environment: ["PATH": path, "XDG_RUNTIME_DIR": folder.path, "HOME": folder.path].merging(environment) { $1 })
        #expect(result.succeeded && result.standardError.isEmpty, "\(line): \(result.standardError)")
        return result.standardOutput.split(separator: "\n").map(String.init)
    }

    @Test func LUNsAndPathsAreOffered() async throws {
        let array = try HeldArray()
        let folder = array.folder
        let file = folder.path + "/completion"
        let script = try await array.run("--generate-completion-script", "bash")
        let ours = try String(contentsOfFile: root + "/packaging/completion.bash", encoding: .utf8)
        try (script.standardOutput + ours).write(toFile: file, atomically: false, encoding: .utf8)
        // Nobody holds anything: the policy file's LUNs, and no path; nothing on standard error.
        let configured = ["MPIO_CONFIG": folder.path + "/mpio.yaml"]
        #expect(try await complete("mpio read ", file, folder, environment: configured) == ["vm-store"])
        #expect(try await complete("mpio path fail vm-store ", file, folder).filter { $0.contains(":") } == [])
        try await array.hold()
        let portals = try await array.paths()
        #expect(portals.count == 2)
        #expect(try await complete("mpio explain v", file, folder) == ["vm-store"])
        #expect(try await complete("mpio path fail vm-store ", file, folder) == portals)
        #expect(try await complete("mpio policy vm-store --session ", file, folder) == portals)
        // A name that is typed past its colon: readline replaces what follows that.
        let (address, port) = (array.portals[0].prefix { $0 != ":" }, array.portals[0].drop { $0 != ":" }.dropFirst())
        #expect(try await complete("mpio path fail vm-store \(address):", file, folder).contains(String(port)))
        #expect(try await complete("mpio path fail vm-store \(address):\(port.prefix(2))", file, folder) == [String(port)])
    }

    @Test func whatCompletionsOfferIsWords() {
        #expect(Completions.fileNames(root + "/Mak") == [root + "/Makefile"])
        #expect(Completions.fileNames(root + "/Sourc") == [root + "/Sources/"])
        #expect(Completions.fileNames("/none/x").isEmpty)
        let nobody = Holders(directories: ["/none"], timeout: .milliseconds(50))
        #expect(Completions.lunNames(["mpio", "read", "--config", "/none.yaml"], holders: nobody).isEmpty)
        #expect(Completions.pathNames(["mpio"], holders: nobody).isEmpty)
    }
}

@Suite struct ManualPageTests {
    @Test func textMeansItself() {
        #expect(Mdoc.escaped("a\\b µ") == "a\\eb \\[u00B5]")
        #expect(Mdoc.running(".dot first") == "\\&.dot first" && Mdoc.running("'quote") == "\\&'quote")
        // Each sentence begins a line.
        #expect(Mdoc.running("One. Two\nthree.\n.Four") == "One.\nTwo three. .Four")
        #expect(Mdoc.running("see `a-b` and **c** and [d](e.md)", markup: true) == "see \\fBa\\-b\\fP and \\fBc\\fP and d")
        #expect(Mdoc.running("*so*, 2 * 3", markup: true) == "\\fIso\\fP, 2 * 3")
        #expect(Mdoc.argument("say \"x\"") == "\"say \\(dqx\\(dq\"")
        var page = Mdoc()
        page.literal([".x", "a-b", ""])
        #expect(page.text == ".Bd -literal -offset indent\n\\&.x\na\\-b\n\n.Ed\n")
    }

    @Test func aDiscussionHasParts() {
        let parts = CommandPages.parts("Some text\ngoes on.\n\nLike this:\n  one\n    two\n\nExamples:\n  mpio x\n\nExample, for y:\n  z")
        #expect(parts.map(\.isExample) == [false, false, true, true])
        #expect(parts[1] == .init(heading: "Like this:", lines: ["one", "  two"]) && parts[0].lines.isEmpty)
        #expect(CommandPages.parts(nil).isEmpty)
    }

    @Test func markdownHasBlocks() {
        let blocks = MarkdownPage.blocks("# T\n\nOne\ntwo\n\n## S\n- a\n  b\n- c\n\n```yaml\nx: 1\n\n```\n| h |\n|---|\n")
        #expect(
            blocks == [
                .heading(1, "T"), .paragraph("One\ntwo"), .heading(2, "S"), .list(["a\n  b", "c"]), .literal(["x: 1", ""]),
                .literal(["| h |", "|---|"]),
            ], "\(blocks)")
    }

    @Test func aReadmeWithoutItsTableIsRefused() {
        #expect(throws: ManualPages.Failure.self) { try ManualPages.exitStatuses("nothing") }
        #expect(throws: ManualPages.Failure.self) { try ManualPages.exitStatuses("<!-- exit statuses -->\n<!-- end of exit statuses -->") }
    }
}
