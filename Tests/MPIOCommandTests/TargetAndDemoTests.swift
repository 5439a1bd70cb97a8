import Foundation
import MPIO
import Multipath
import TestSupport
import Testing

@testable import MPIOCommand

@Suite struct TargetCommandTests {
    @Test func itSaysHowToReachItAndEndsInOrder() async throws {
        let folder = Folder()
        let target = try ServedTarget(in: folder)
        // The policy file that it prints is one.
        let text = target.output
        let start = try #require(text.range(of: "targets:\n")), end = try #require(text.range(of: "\nOr: "))
        try folder.write(String(text[start.lowerBound..<end.lowerBound]), to: "mpio.yaml")
        #expect(try Mpio("check", folder: folder.path).status == 0)
        let holder = try ChildProcess(
            executable: Mpio.binary, arguments: ["hold", "--config", folder.path + "/mpio.yaml"],
            environment: ["XDG_RUNTIME_DIR": folder.path], standardError: .file(folder.path + "/hold.err"))
        #expect(try await eventually(within: .seconds(60)) {
            Holders(directories: [folder.path + "/mpio"]).report(luns: ["lun-0"]).report.luns.first?.state == .optimal
        })

        #expect(target.interrupt() == .exited(0))
        #expect(try await eventually { try Mpio("events", folder: folder.path).output.contains("lost: target asked for logout") })
        holder.send(signal: SIGINT)
        #expect(holder.wait(timeout: .seconds(20)) == .exited(0))
    }

    @Test func whatItCanNotServeIsSaidClearly() throws {
        let folder = Folder()
        let portal = try LoopbackPortal.unused()[0]
        let listener = try MutePortal(portal)
        defer { withExtendedLifetime(listener) {} }
        let taken = try Mpio("target", "--listen", "\(portal)", "--lun", "0=memory,size=1M", folder: folder.path)
        #expect(taken.status == 1 && taken.errors == "mpio: \(portal) is in use: another process listens there\n" && taken.output.isEmpty, "\(taken)")
        let kind = try Mpio("target", "--listen", "127.0.0.1:0", "--lun", "0=ram", folder: folder.path)
        #expect(kind.status == 64 && kind.errors.contains("--lun 0=ram: unknown kind 'ram'"), "\(kind)")
        let twice = try Mpio("target", "--listen", "127.0.0.1:0", "--lun", "0=null,size=1M", "--lun", "0=null,size=2M", folder: folder.path)
        #expect(twice.status == 64 && twice.errors.contains("--lun 0 is given twice"), "\(twice)")
        let file = try Mpio("target", "--listen", "127.0.0.1:0", "--lun", "3=file:none/x", folder: folder.path)
        #expect(file.status == 1 && file.errors.contains("LUN 3") && file.errors.contains("No such file"), "\(file)")
        let address = try Mpio("target", "--listen", "host:3260", "--lun", "0=null,size=1M", folder: folder.path)
        #expect(address.status == 64 && address.errors.contains("--listen 'host:3260'"), "\(address)")
    }
}

@Suite struct HeldDiskTests {
    @Test func ratesChoicesAndPolicyOptionsOfADiskUnderLoad() throws {
        let folder = Folder()
        let target = try ServedTarget(in: folder)
        #expect(try Mpio("discover", "\(target.portals[0])", "--write-config", "mpio.yaml", folder: folder.path).status == 0)
        let load = try ChildProcess(
            executable: Mpio.binary, arguments: ["bench", "served-0", "--time", "60s", "--depth", "4", "--config", folder.path + "/mpio.yaml"],
            environment: ["XDG_RUNTIME_DIR": folder.path])
        var lun: LUNSnapshot?
        for _ in 0..<600 {
            usleep(50_000)
            lun = Holders(directories: [folder.path + "/mpio"]).report(luns: ["served-0"]).report.luns.first
            // Thousands: what is under way must not count.
            if lun?.paths.allSatisfy({ $0.requestsPerSecond ?? 0 > 0 && $0.requests > 2000 }) == true { break }
        }
        let paths = try #require(lun?.paths)
        for path in paths {
            let requests = try #require(path.requestsPerSecond), bytes = try #require(path.bytesPerSecond)
            #expect(requests > 0 && abs(bytes / requests - 4096) < 400, "requests count when issued, bytes when done")
        }

        let changed = try Mpio("policy", "served-0", "RR", "--switch-after", "8k", folder: folder.path)
        #expect(changed.output == "served-0  round-robin  switch-after 8192 bytes\n", "\(changed)")
        let option = try Mpio("policy", "served-0", "--switch-after", "3", folder: folder.path)
        #expect(option.output == "served-0  round-robin  switch-after 3 requests\n", "\(option)")
        let foreign = try Mpio("policy", "served-0", "--fail-back", "manual", folder: folder.path)
        #expect(foreign.status == 64 && foreign.errors.contains("means nothing to round-robin"), "\(foreign)")
        let bad = try Mpio("policy", "served-0", "RR", "--switch-after", "0", folder: folder.path)
        #expect(bad.status == 64 && bad.errors.contains("--switch-after '0'"), "\(bad)")

        let explained = try Mpio("explain", "served-0", "--last", "5", folder: folder.path)
        #expect(explained.output.contains("the last 5, newest last:") && explained.output.contains("+8"), "\(explained)")
        let json = try Mpio("explain", "served-0", "--last", "7", "--json", folder: folder.path)
        let report = try JSONDecoder().decode(ExplanationReport.self, from: Data(json.output.utf8))
        #expect(report.decisions?.count == 7 && report.decisions?.allSatisfy { $0.request == "read" && $0.blocks == 8 } == true)
        #expect(try Mpio("explain", "served-0", "--last", "0", folder: folder.path).status == 64)
        load.send(signal: SIGINT)
        #expect(load.wait(timeout: .seconds(20)) != nil)
    }
}

@Suite struct DemoTests {
    @Test func itShowsThatNothingIsLost() throws {
        let folder = Folder()
        let run = try Mpio("demo", "--fast", folder: folder.path)
        #expect(run.status == 0 && run.errors.isEmpty, "\(run)")
        #expect(!run.output.contains("\u{1B}"), "no colour in a pipe")
        for kind in PolicyKind.allCases { #expect(run.output.contains("  \(kind.rawValue)")) }
        #expect(run.output.contains("state degraded (1 of 4 paths failed)") && run.output.contains("is back"))
        let counts = run.output.split(separator: "\n").filter { $0.hasPrefix("  lost ") || $0.hasPrefix("  wrong data ") }
        #expect(counts.count == 2 && counts.allSatisfy { $0.hasSuffix(" 0") }, "\(run.output)")
        #expect(run.output.contains("Nothing was lost."))
    }

    @Test func anInterruptionEndsItWithoutAMess() throws {
        let folder = Folder()
        let demo = try ChildProcess(
            executable: Mpio.binary, arguments: ["demo"], environment: ["XDG_RUNTIME_DIR": folder.path],
            standardOutput: .file(folder.path + "/out"), standardError: .file(folder.path + "/err"))
        for _ in 0..<1500 where !(try String(contentsOfFile: folder.path + "/out", encoding: .utf8)).contains("fail-over-only ") { usleep(20_000) }
        demo.send(signal: SIGINT)
        #expect(demo.wait(timeout: .seconds(20)) == .exited(130))
        #expect(try String(contentsOfFile: folder.path + "/err", encoding: .utf8) == "mpio: interrupted\n")
        let left = try FileManager.default.contentsOfDirectory(atPath: folder.path + "/mpio")
        #expect(!left.contains { $0.hasSuffix(".sock") }, "\(left)")
    }

    @Test func itWorksWithoutARuntimeFolder() throws {
        let folder = Folder()
        let run = try Mpio("demo", "--fast", environment: ["XDG_RUNTIME_DIR": "/proc"], folder: folder.path)
        #expect(run.status == 0, "\(run)")
    }

    @Test func barsAndCurvesFitTheirPlace() {
        let text = DemoText()
        for share in [-1, 0, 0.001, 0.333, 0.5, 0.999, 1, 2] { #expect(text.bar(share).count == DemoText.barWidth) }
        #expect(text.bar(1) == String(repeating: "█", count: DemoText.barWidth))
        #expect(DemoText.condensed([4, 6, 10, 0], to: 2) == [5, 5])
        #expect(DemoText.condensed([1, 2], to: 2) == [1, 2])
        #expect(DemoText.grouped(0) == "0" && DemoText.grouped(999) == "999" && DemoText.grouped(1_234_567) == "1,234,567")
        var curve = Curve(sample: .milliseconds(100))
        let start = ContinuousClock.now
        curve.add(total: 50, at: start)
        curve.add(total: 150, at: start + .milliseconds(100))
        curve.mark("cut")
        // Twice as long, so half the rate.
        curve.add(total: 250, at: start + .milliseconds(300))
        #expect(curve.counts == [100, 50])
        #expect(DemoText(style: TextStyle(width: 80)).curve(curve).contains("█▅\n   ↑cut\n"))
    }

    @Test func anythingLostIsAFailure() {
        var totals = Demo.Totals()
        totals.isBack = true
        var result = BenchResult()
        result.requests = 10
        totals.add(result)
        #expect(totals.isGood)
        result.errors = 1
        result.mismatches = 1
        totals.add(result)
        #expect(!totals.isGood && totals.lost == 0 && totals.mismatches == 1 && totals.requests == 20)
        result.mismatches = 0
        totals.add(result)
        #expect(totals.lost == 1)
    }
}

@Suite struct TopLevelTests {
    @Test func versionTyposAndCompletions() throws {
        let folder = Folder()
        #expect(try Mpio("--version", folder: folder.path).output == "mpio \(Version.text)\n")
        let typo = try Mpio("discovr", folder: folder.path)
        #expect(typo.status == 64 && typo.errors.contains("There is no command 'discovr'; did you mean 'discover'?"), "\(typo)")
        let help = try Mpio("--help", folder: folder.path)
        #expect(help.status == 0 && help.output.contains("mpio demo") && help.output.contains("--write-config mpio.yaml"))
        let script = try Mpio("--generate-completion-script", "bash", folder: folder.path)
        #expect(script.status == 0 && script.output.contains("discover"))
    }
}
