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
