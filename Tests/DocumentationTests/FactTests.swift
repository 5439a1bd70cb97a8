import Foundation
import SCSI
import Testing
import Timebase

@testable import MPIO
@testable import MPIOCommand
@testable import Multipath

/// Names and numbers that the prose and its tables give.
@Suite struct FactTests {
    @Test func everyPathStateIsExplained() throws {
        let text = try Document.read("docs/failover.md").text
        for state in MPIO.PathState.allCases { #expect(text.contains("`\(state.rawValue)`"), "\(state)") }
        for state in LUNState.allCases { #expect(text.contains("`\(state.rawValue)`"), "\(state)") }
    }

    @Test func theTimersHaveTheDefaultsShown() throws {
        let text = try Document.read("docs/failover.md").text
        var shown: [String: String] = [:]
        for row in text.matches(of: /\n\| `([a-z-]+)` \| ([0-9]+ ?s?)/) { shown[String(row.output.1)] = row.output.2.filter { $0 != " " } }
        let timers = Timers()
        guard case .after(let removePeriod) = timers.pdoRemovePeriod else { throw CancellationError() }
        let real: [String: String] = [
            "silence-timeout": Units.format(timers.silenceTimeout), "login-timeout": Units.format(timers.loginTimeout),
            "command-timeout": Units.format(timers.commandTimeout), "retry-count": "\(timers.retryCount)",
            "retry-interval": Units.format(timers.retryInterval), "pdo-remove-period": Units.format(removePeriod),
            "path-recovery-interval": Units.format(timers.pathRecoveryInterval),
            "path-verify-period": Units.format(timers.pathVerifyPeriod), "quiesce-time": Units.format(timers.quiesceTime),
        ]
        #expect(shown == real)
    }

    @Test func everyFailureToLookUpIsOneThatIsShown() throws {
        let text = try Document.read("docs/failover.md").text
        let shown = text.matches(of: /`failed … ([^`]+)`/).map { String($0.output.1) }
        #expect(shown.count >= 5)
        for reason in shown { #expect(PathFailureReason(rawValue: reason) != nil, "\(reason)") }
    }

    @Test func everyEventNamedExists() throws {
        let kinds = try String(contentsOfFile: Document.root + "/Sources/MPIO/Inspection/EventWords.swift", encoding: .utf8)
        for document in try Document.all() {
            for name in document.prose.matches(of: /`((?:path|guard|fence|fail|all-paths|access-state)-[a-z-]+)`/) {
                let isOther = PolicyKind(name: String(name.output.1)) != nil || Self.policyFileKeys.contains(String(name.output.1))
                #expect(isOther || kinds.contains("\"\(name.output.1)\""), "\(document.file): \(name.output.1)")
            }
        }
    }

    @Test func theExplanationLooksAsShown() throws {
        let shown = try #require(try Document.read("docs/administration.md").blocks.first { $0.info == "text explain" })
        var lun: PseudoLUN? = PseudoLUN(
            name: "vm-store", settings: LUNSettings(policy: PolicySettings(.leastQueueDepth)), requestCapacity: 4)
        let device = DeviceDescription(identity: nil, vendor: "", product: "", blockSize: 512, blockCount: 8)
        for (number, count) in [3, 7].enumerated() {
            let load = PathLoad()
            load.pointer.pointee.requests = count
            let path = lun!.addPath(PathSettings(name: "10.0.\(number + 1).10:3260", order: number), load: load, at: .zero)
            lun!.pathLoggedIn(path, at: .zero)
            // Without an identity only the first one would be taken.
            var known = device
            known.identity = .naa6(high: 0x6001_4050_0000_0001, low: 1)
            lun!.pathConnected(path, PathReport(device: known), at: .zero)
        }
        let explanation = lun!.explain(at: .zero)
        let report = ExplanationReport(
            lun: "vm-store", policy: explanation.policy.kind.rawValue, next: explanation.path.map { lun!.pathName($0) },
            reason: explanation.summary, paths: [])
        #expect(ExplainCommand.text(report) == shown.text)
        lun = nil
    }

    @Test func theServiceFileStartsWhatThereIs() throws {
        let unit = try String(contentsOfFile: Document.root + "/packaging/mpio.service.in", encoding: .utf8)
        let line = try #require(unit.split(separator: "\n").first { $0.hasPrefix("ExecStart=@BINDIR@/mpio ") })
        let words = line.split(separator: " ").dropFirst().map(String.init)
        #expect(throws: Never.self) { _ = try MPIOCommand.parseAsRoot(words) }
        #expect(unit.contains("\nType=notify\n") && unit.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"))
    }

    // MARK: Modules and make targets

    /// The targets of Package.swift that are the product's, with what of the package each depends on.
    private func modules() throws -> [String: Set<String>] {
        let manifest = try String(contentsOfFile: Document.root + "/Package.swift", encoding: .utf8)
        let folders = try FileManager.default.contentsOfDirectory(atPath: Document.root + "/Sources").filter { !$0.hasPrefix(".") }
        let names = Set(folders + ["CAio", "COpenSSL"])
        var found: [String: Set<String>] = [:]
        for target in manifest.matches(of: /\.(?:target|executableTarget|systemLibrary)\(\s*name: "(\w+)"(?:,\s*dependencies: \[([^\]]*)\])?/) {
            guard names.contains(String(target.output.1)) else { continue }
            let words = (target.output.2 ?? "").matches(of: /"(\w+)"/).map { String($0.output.1) }
            found[String(target.output.1)] = Set(words).intersection(names)
        }
        #expect(Set(found.keys) == names)
        return found
    }

    @Test func theModulesAndTheirArrowsAreThoseOfThePackage() throws {
        let block = try #require(try Document.read("docs/architecture.md").blocks.first { $0.info == "text" })
        var shown: [String: Set<String>] = [:]
        var name = ""
        for line in block.lines {
            if let word = line.firstMatch(of: /^\w+/) { name = String(word.output) }
            let arrows = line.split(separator: "→").dropFirst().joined()
            shown[name, default: []].formUnion(arrows.matches(of: /\b[A-Z]\w+/).map { String($0.output) })
        }
        let real = try modules()
        #expect(Set(shown.keys) == Set(real.keys))
        for (module, arrows) in shown {
            let declared = try #require(real[module])
            #expect(arrows.isSubset(of: declared), "\(module): \(arrows.subtracting(declared))")
            // What is left out lies below what is named.
            var reached = arrows
            while true {
                let more = reached.union(reached.flatMap { shown[$0] ?? [] })
                if more == reached { break }
                reached = more
            }
            #expect(declared.isSubset(of: reached.union(["Timebase"])), "\(module): \(declared.subtracting(reached))")
        }
    }

    @Test func everyMakeTargetIsInTheTableOfCommands() throws {
        let makefile = try String(contentsOfFile: Document.root + "/Makefile", encoding: .utf8)
        let list = try #require(makefile.firstMatch(of: /\n\.PHONY: (.*)\n/)).output.1
        let text = try Document.read("CONTRIBUTING.md").text
        // Part of all the others.
        let parts: Set = ["build", "setup", "setup-build"]
        for target in list.split(separator: " ").map(String.init) where !parts.contains(target) {
            #expect(text.contains(try Regex("\n\\|[^|]*`make \(target)[ `]")), "make \(target)")
        }
    }

    private static let policyFileKeys: Set = [
        "path-verify-period", "path-recovery-interval", "path-recovery-interval-maximum", "fail-back",
    ]

    @Test func noPromiseOfThePolicyTableIsWrong() throws {
        let text = try Document.read("docs/policies.md").text
        for kind in PolicyKind.allCases {
            let options = kind.options.isEmpty ? "none" : kind.options.map { "`\($0.rawValue)`" }.joined(separator: ", ")
            #expect(text.contains("| `\(kind.rawValue)` | \(kind.shortName) | \(kind.number) | \(options) |"), "\(kind)")
        }
    }
}
