import Foundation
import Multipath
import Testing

@testable import MPIO

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
