import Foundation
import MPIO
import TestSupport
import Testing

@testable import MPIOCommand

@Suite struct WatchScreenTests {
    private final class Paper {
        var text = ""
        var size = (columns: 40, rows: 11)
    }

    private func screen(_ paper: Paper) -> WatchScreen {
        WatchScreen(size: { paper.size }) { paper.text = $0 }
    }

    /// What is to be seen, without the sequences that put it there.
    private func visible(_ text: String) -> [String] {
        text.replacing(/\u{1B}\[[0-9;]*[A-Za-z]/, with: "").split(separator: "\r\n", omittingEmptySubsequences: false).map(String.init)
    }

    private static let long = (1...100).map { "line \($0)" }.joined(separator: "\n") + "\n"

    @Test func aLongTextIsScrolled() throws {
        let paper = Paper()
        let screen = screen(paper)
        try screen.show(Self.long)
        #expect(visible(paper.text).prefix(10) == (1...10).map { "line \($0)" }.prefix(10))
        #expect(visible(paper.text).last?.hasPrefix("lines 1–10 of 100") == true, "\(visible(paper.text))")
        #expect(try !screen.handle([.pageDown, .down, .down, .up]))
        #expect(visible(paper.text).first == "line 12")
        #expect(try !screen.handle([.bottom, .pageDown]))
        #expect(visible(paper.text).dropLast().last == "line 100")
        _ = try screen.handle([.top])
        #expect(screen.offset == 0)
        #expect(try screen.handle([.quit]))
    }

    @Test func aLargerWindowShowsMoreAndAShorterTextMovesUp() throws {
        let paper = Paper()
        let screen = screen(paper)
        try screen.show(Self.long)
        _ = try screen.handle([.bottom])
        paper.size.rows = 60
        try screen.draw()
        #expect(visible(paper.text).first == "line 42" && visible(paper.text).count == 60)
        try screen.show("one\ntwo\n")
        #expect(visible(paper.text) == ["one", "two", "q quits"])
    }

    @Test func linesAreCutAndColoursTakeNoRoom() {
        #expect(WatchScreen.cut("abcdef", 4) == "abcd")
        #expect(WatchScreen.cut("\u{1B}[31mabcdef\u{1B}[0mgh", 4) == "\u{1B}[31mabcd\u{1B}[0m")
        #expect(WatchScreen.cut("", 0) == "" && WatchScreen.cut("ab", 0) == "")
    }

    @Test func keysAreReadAsTheyCome() {
        var bytes: [UInt8] = Array("\u{1B}[A\u{1B}[Bjk \u{1B}[5~\u{1B}[6~gG\u{1B}[H\u{1B}OFxq".utf8)
        #expect(WatchScreen.keys(&bytes) == [.up, .down, .down, .up, .pageDown, .pageUp, .pageDown, .top, .bottom, .top, .bottom, .other, .quit])
        // A sequence in two pieces, one that never ends, and an escape alone.
        bytes = Array("\u{1B}[".utf8)
        #expect(WatchScreen.keys(&bytes).isEmpty && bytes.count == 2)
        bytes += Array("A".utf8)
        #expect(WatchScreen.keys(&bytes) == [.up] && bytes.isEmpty)
        bytes = Array("\u{1B}[".utf8) + [UInt8](repeating: 0x31, count: 100)
        _ = WatchScreen.keys(&bytes)
        #expect(bytes.isEmpty)
        bytes = Array("\u{1B}q".utf8) + Array("abc".utf8)
        #expect(WatchScreen.keys(&bytes).contains(.quit))
    }
}

@Suite(.serialized) struct PathsWatchTests {
    /// A terminal of its own (script(1) of util-linux), 80 columns wide, in which `q` is typed after a while.
    @Test func theWatchRedrawsInPlaceAndEndsWithQ() async throws {
        let array = try HeldArray()
        try await array.hold()
        let line = "stty cols 80 rows 12; \(Mpio.binary) paths --watch=0.2"
        // What script reads is typed on the terminal that it makes.
        let result = try await CommandRunner.run(
            "sh", ["-c", "(sleep 2; printf q; sleep 1) | script -qec '\(line)' /dev/null"],
            environment: ["XDG_RUNTIME_DIR": array.folder.path, "HOME": array.folder.path, "TERM": "xterm", "MPIO_CONFIG": array.folder.path + "/mpio.yaml"],
            timeout: .seconds(15))
        let text = result.standardOutput
        #expect(result.succeeded, "\(result)")
        #expect(text.contains("\u{1B}[?1049h") && text.contains("\u{1B}[?1049l") && text.contains("\u{1B}[?25h"), "\(text)")
        #expect(text.matches(of: /\u{1B}\[H/).count >= 3 && text.contains("q quits") && text.contains("active/optimized"))
    }

    @Test func aLookNeedsNoFolderToWriteIn() async throws {
        let array = try HeldArray()
        // A file in the folder's place: nobody can make it, root included.
        try array.folder.write("", to: "file")
        let result = try await CommandRunner.run(
            Mpio.binary, ["paths", "--json", "--timeout", "20s", "--config", array.folder.path + "/mpio.yaml"],
            environment: ["XDG_RUNTIME_DIR": array.folder.path + "/file", "HOME": array.folder.path])
        let report = try JSONDecoder().decode(PathsReport.self, from: Data(result.standardOutputBytes))
        #expect(result.succeeded && report.luns.map(\.state) == [.optimal], "\(result)")
        // Who writes needs a lease, and says why there is none.
        let bench = try await CommandRunner.run(
            Mpio.binary, ["read", "vm-store", "--length", "4k", "--config", array.folder.path + "/mpio.yaml"],
            environment: ["XDG_RUNTIME_DIR": array.folder.path + "/file", "HOME": array.folder.path])
        #expect(bench.exitStatus == 1 && bench.standardError.contains("runtime folder"), "\(bench)")
    }

    /// Nothing waits for a sick array longer than it says.
    @Test func aStoppedArrayIsShownAndNotWaitedFor() async throws {
        let array = try HeldArray()
        try array.write(array.policy(used: 2, lun: "    timers: {login-timeout: 10m}\n"))
        array.target.process.send(signal: SIGSTOP)
        defer { array.target.process.send(signal: SIGCONT) }
        let clock = ContinuousClock.now
        let result = try await array.run("paths", "--timeout", "300ms")
        #expect(ContinuousClock.now - clock < .seconds(30))
        #expect(result.standardOutput.contains("connecting") && result.standardOutput.contains("no answer within 0.3 s"), "\(result)")
    }

    /// What is held is there while a sick array, which nobody holds, is still waited for.
    @Test(arguments: [[], ["--brief"]])
    func whatIsHeldIsShownBeforeASickArrayIsWaitedFor(_ how: [String]) async throws {
        let array = try HeldArray()
        let portal = try LoopbackPortal.unused()[0]
        let mute = try MutePortal(portal)
        defer { withExtendedLifetime(mute) {} }
        let more = """
              - name: sick
                identity: {target: "iqn.2026-11.org.example:sick", lun: 0}
                timers: {login-timeout: 10m}

            """
        let text = array.policy(used: 2).replacing("luns:", with: "  - {name: \"iqn.2026-11.org.example:sick\", portals: [\"\(portal)\"]}\nluns:")
        try array.write(text + more)
        try await array.hold(["vm-store"])
        let output = array.folder.path + "/paths.out"
        let shown = { (try? String(contentsOfFile: output, encoding: .utf8)) ?? "" }
        let paths = try ChildProcess(
            executable: Mpio.binary, arguments: ["paths", "--timeout", "10m"] + how,
            environment: ["XDG_RUNTIME_DIR": array.folder.path, "HOME": array.folder.path, "MPIO_CONFIG": array.folder.path + "/mpio.yaml"],
            standardOutput: .file(output), standardError: .file(array.folder.path + "/paths.err"))
        #expect(try await eventually(within: .seconds(60)) { shown().contains("vm-store") })
        #expect(paths.isRunning && !shown().contains("sick"), "\(shown())")
        paths.send(signal: SIGKILL)
        // To the end, all of it is there, and once.
        let whole = try await array.run("paths", "--timeout", "300ms", how.first ?? "--timeout=300ms")
        #expect(whole.standardOutput.contains("sick") && whole.standardOutput.components(separatedBy: "vm-store").count == 2, "\(whole)")
        let json = try await array.run("paths", "--json", "--timeout", "300ms")
        let report = try JSONDecoder().decode(PathsReport.self, from: Data(json.standardOutputBytes))
        #expect(report.luns.map(\.name) == ["vm-store", "sick"] && report.luns.map(\.state) == [.optimal, .failed], "\(json)")
    }

    @Test func oneStoppedTargetOfTwoIsNamed() async throws {
        let folder = Folder()
        let unit = "0=memory,size=16M,identity=\(HeldArray.identity)"
        let well = try ServedTarget(portalCount: 1, luns: [unit], name: "iqn.2026-11.org.example:well", log: "well", in: folder)
        let sick = try ServedTarget(portalCount: 1, luns: [unit], name: "iqn.2026-11.org.example:sick", log: "sick", in: folder)
        try folder.write("""
            targets:
              - {name: "iqn.2026-11.org.example:well", portals: ["\(well.portals[0])"]}
              - {name: "iqn.2026-11.org.example:sick", portals: ["\(sick.portals[0])"]}
            luns: [{name: vm-store, identity: \(HeldArray.identity), timers: {login-timeout: 10m}}]

            """, to: "mpio.yaml")
        sick.process.send(signal: SIGSTOP)
        defer { sick.process.send(signal: SIGCONT) }
        let clock = ContinuousClock.now
        let result = try await CommandRunner.run(
            Mpio.binary, ["paths", "--json", "--config", folder.path + "/mpio.yaml"],
            environment: ["XDG_RUNTIME_DIR": folder.path, "HOME": folder.path])
        // 200 ms on a quiet machine; what counts is that no login's time-out is waited for.
        #expect(ContinuousClock.now - clock < .seconds(30))
        let report = try JSONDecoder().decode(PathsReport.self, from: Data(result.standardOutputBytes))
        #expect(report.luns.map(\.state) == [.degraded], "\(result)")
        #expect(report.luns.first?.paths.map(\.state) == [.activeOptimized, .connecting], "\(result)")
    }

    @Test func oneLineForEachLUN() async throws {
        let array = try HeldArray()
        try await array.hold()
        let result = try await array.run("paths", "--brief")
        let lines = result.standardOutput.split(separator: "\n")
        #expect(lines.first == "1 LUN, 2 paths: 1 optimal", "\(result)")
        #expect(lines.last?.hasPrefix("vm-store  optimal     2/2") == true, "\(result)")
    }
}
