/// What an oracle found wrong.
public struct Violation: Hashable, Sendable, CustomStringConvertible {
    public enum Oracle: String, Hashable, Sendable {
        case completion, data, order, policy, wire, target, path, leak, liveness, determinism, opening
    }

    public var oracle: Oracle
    public var words: String
    public var description: String { "\(oracle.rawValue): \(words)" }
}

/// Collects what oracles say. A run ends at the first violation: what follows from it is no news.
final class Verdict {
    private(set) var violation: Violation?
    private let trace: Trace

    init(trace: Trace) { self.trace = trace }

    func fail(_ oracle: Violation.Oracle, _ words: @autoclosure () -> String) {
        guard violation == nil else { return }
        let found = Violation(oracle: oracle, words: words())
        violation = found
        trace.note("VIOLATION \(found)")
    }
}
