import Foundation

/// How long the load stood still after events of several kinds.
struct PauseHistogram {
    /// The longest pause after each event, by kind, in the order of the first event of a kind.
    private(set) var kinds: [(name: String, pauses: [Duration])] = []

    mutating func add(_ pause: Duration, after kind: String) {
        if let index = kinds.firstIndex(where: { $0.name == kind }) {
            kinds[index].pauses.append(pause)
        } else {
            kinds.append((kind, [pause]))
        }
    }

    func longest(after kind: String) -> Duration? { kinds.first { $0.name == kind }?.pauses.max() }

    private static let bounds: [(words: String, limit: Duration)] = [
        ("<5ms", .milliseconds(5)), ("<10", .milliseconds(10)), ("<20", .milliseconds(20)), ("<50", .milliseconds(50)),
        ("<100", .milliseconds(100)), ("<200", .milliseconds(200)), ("<500", .milliseconds(500)),
        ("<1s", .seconds(1)), ("<2s", .seconds(2)), ("<5s", .seconds(5)), (">=5s", .seconds(1_000_000)),
    ]

    /// A table of one line for each kind.
    var text: String {
        let width = max(24, kinds.map(\.name.count).max() ?? 0)
        let head = ["events"] + Self.bounds.map(\.words) + ["median", "p99", "longest"]
        var lines = ["pause after".padded(to: width) + head.map { $0.paddedLeft(to: 8) }.joined()]
        for (name, pauses) in kinds {
            let sorted = pauses.sorted()
            var cells = ["\(sorted.count)"]
            var lower = Duration.zero
            for bound in Self.bounds {
                let count = sorted.count { $0 >= lower && $0 < bound.limit }
                cells.append(count == 0 ? "." : "\(count)")
                lower = bound.limit
            }
            cells += [sorted[sorted.count / 2], sorted[sorted.count * 99 / 100], sorted[sorted.count - 1]].map {
                $0 == .zero ? "-" : "\(Int(milliseconds($0).rounded())) ms"
            }
            lines.append(name.padded(to: width) + cells.map { $0.paddedLeft(to: 8) }.joined())
        }
        return lines.joined(separator: "\n")
    }
}

extension String {
    fileprivate func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
    fileprivate func paddedLeft(to width: Int) -> String { String(repeating: " ", count: max(1, width - count)) + self }
}
