import Yams

/// Where the mistakes of one policy file are gathered.
final class ConfigurationErrorCollector {
    let file: String
    private(set) var errors: [ConfigurationError]
    /// Aliases can make a small text a huge tree; what is looked at is bounded instead.
    private var remainingNodes = 200_000

    init(file: String, errors: [ConfigurationError]) {
        self.file = file
        self.errors = errors
    }

    func report(_ mark: Mark?, _ keyPath: String, _ message: String, expected: String? = nil) {
        guard errors.count < InvalidConfiguration.maximumErrorCount else { return }
        errors.append(
            ConfigurationError(
                file: file, line: mark?.line ?? 1, column: mark?.column ?? 1, keyPath: keyPath, message: message,
                expected: expected))
    }

    /// False once the file has been found too large a tree; said once.
    func visit(_ mark: Mark?) -> Bool {
        if remainingNodes == 0 { return false }
        remainingNodes -= 1
        if remainingNodes == 0 { report(mark, "", "the file's aliases multiply to more values than a policy file can have") }
        return remainingNodes > 0
    }

    /// In the order of the file.
    var sortedErrors: [ConfigurationError] {
        errors.enumerated().sorted { left, right in
            (left.element.line, left.element.column, left.offset) < (right.element.line, right.element.column, right.offset)
        }.map(\.element)
    }
}

/// One value of the policy file: what it is, where it is, and where to complain.
struct PolicyNode {
    let node: Node
    let keyPath: String
    let collector: ConfigurationErrorCollector

    var mark: Mark? { node.mark }

    func report(_ message: String, expected: String? = nil) {
        collector.report(mark, keyPath, message, expected: expected)
    }

    /// What the user wrote, for a message.
    private var kind: String {
        switch node {
        case .mapping: "a mapping"
        case .sequence: "a list"
        case .alias: "an alias"
        case .scalar(let scalar): isNull(scalar) ? "nothing" : "'\(shortened(scalar.string))'"
        }
    }

    private func isNull(_ scalar: Node.Scalar) -> Bool {
        scalar.style == .plain && ["", "~", "null"].contains(scalar.string)
    }

    /// The text of a scalar, quoted or not.
    func text(expected: String) -> String? {
        guard collector.visit(mark) else { return nil }
        guard case .scalar(let scalar) = node, !isNull(scalar) else {
            report("\(kind) where a value belongs", expected: expected)
            return nil
        }
        return scalar.string
    }

    /// A value that `parse` makes of the text; nil from it means that the text is not `expected`.
    func value<Value>(expected: String, _ parse: (String) -> Value?) -> Value? {
        guard let text = text(expected: expected) else { return nil }
        guard let value = parse(text) else {
            report(text.isEmpty ? "empty" : "'\(shortened(text))' is not valid", expected: expected)
            return nil
        }
        return value
    }

    /// One of a fixed list of words.
    func choice<Value>(_ choices: [(String, Value)]) -> Value? {
        let expected = listed(choices.map(\.0))
        guard let text = text(expected: expected) else { return nil }
        if let found = choices.first(where: { $0.0 == text }) { return found.1 }
        report("'\(shortened(text))' is not valid" + suggestion(for: text, among: choices.map(\.0)), expected: expected)
        return nil
    }

    func whole(_ range: ClosedRange<Int>) -> Int? {
        value(expected: "a whole number from \(range.lowerBound) to \(range.upperBound)") { text in
            guard case .scalar(let scalar) = node, scalar.style == .plain, text.allSatisfy({ $0.isASCII && $0.isNumber }),
                let number = Int(text), range.contains(number)
            else { return nil }
            return number
        }
    }

    func boolean() -> Bool? {
        value(expected: "true or false") { text in
            guard case .scalar(let scalar) = node, scalar.style == .plain else { return nil }
            return ["true": true, "false": false][text]
        }
    }

    func size(_ range: ClosedRange<UInt64>) -> UInt64? {
        value(expected: "a size from \(sizeText(range.lowerBound)) to \(sizeText(range.upperBound)), such as 256k") { text in
            Units.parseSize(text).flatMap { range.contains($0) ? $0 : nil }
        }
    }

    /// A duration in `range`; `words` are what may stand in its place.
    func duration(_ range: ClosedRange<Duration>, words: [String: Duration] = [:]) -> Duration? {
        var expected = "a duration from \(Units.format(range.lowerBound)) to \(Units.format(range.upperBound)), such as 500ms or 20s"
        for word in words.keys.sorted() { expected += ", or \(word)" }
        return value(expected: expected) { text in
            if let meaning = words[text] { return meaning }
            return Units.parseDuration(text).flatMap { range.contains($0) ? $0 : nil }
        }
    }

    func list(expected: String) -> [PolicyNode]? {
        guard collector.visit(mark) else { return nil }
        guard case .sequence(let sequence) = node else {
            report("\(kind) where a list belongs", expected: expected)
            return nil
        }
        return sequence.enumerated().map { PolicyNode(node: $1, keyPath: "\(keyPath)[\($0)]", collector: collector) }
    }

    /// A mapping of these keys only; every other key is reported.
    func mapping(keys: [String], expected: String = "a mapping") -> PolicyMapping? {
        guard collector.visit(mark) else { return nil }
        guard case .mapping(let mapping) = node else {
            report("\(kind) where a mapping belongs", expected: expected)
            return nil
        }
        var values: [String: PolicyNode] = [:]
        for (key, value) in mapping {
            guard case .scalar(let scalar) = key else {
                collector.report(key.mark ?? mark, keyPath, "a key that is not a word", expected: listed(keys))
                continue
            }
            if let first = scalar.string.unicodeScalars.first, (0xE000..<0xF000).contains(first.value) { continue }
            let path = keyPath.isEmpty ? scalar.string : "\(keyPath).\(scalar.string)"
            guard keys.contains(scalar.string) else {
                reportUnknown(scalar, keys: keys)
                continue
            }
            values[scalar.string] = PolicyNode(node: value, keyPath: path, collector: collector)
        }
        return PolicyMapping(node: self, values: values)
    }

    private func reportUnknown(_ key: Node.Scalar, keys: [String]) {
        let name = shortened(key.string)
        let path = keyPath.isEmpty ? name : "\(keyPath).\(name)"
        if key.string == "<<" {
            collector.report(key.mark, path, "merging mappings by '<<' is not supported", expected: "what LUNs share under 'defaults'")
            return
        }
        let hint = suggestion(for: key.string, among: keys)
        collector.report(key.mark, path, "unknown key '\(name)'" + hint, expected: hint.isEmpty ? listed(keys) : nil)
    }
}

/// A mapping whose keys are known ones.
struct PolicyMapping {
    let node: PolicyNode
    let values: [String: PolicyNode]

    subscript(key: String) -> PolicyNode? { values[key] }

    func required(_ key: String, expected: String) -> PolicyNode? {
        if let found = values[key] { return found }
        node.report("the key '\(key)' is missing", expected: expected)
        return nil
    }
}

/// `a, b or c`.
func listed(_ words: [String]) -> String {
    guard words.count > 1, let last = words.last else { return words.first ?? "" }
    return words.dropLast().joined(separator: ", ") + " or " + last
}

/// `; did you mean 'x'?`, or nothing where no word is near.
public func suggestion(for text: String, among words: [String]) -> String {
    let lowered = text.lowercased().replacing("_", with: "-")
    guard lowered.count <= 64 else { return "" }
    let near = words.map { (word: $0, distance: editDistance(lowered, $0)) }.min { $0.distance < $1.distance }
    guard let near, near.distance <= max(1, near.word.count / 3) else { return "" }
    return "; did you mean '\(near.word)'?"
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
func editDistance(_ left: String, _ right: String) -> Int {
    let a = Array(left)
    let b = Array(right)
    var rows = [[Int]](repeating: [Int](repeating: 0, count: b.count + 1), count: a.count + 1)
    for i in 0...a.count { rows[i][0] = i }
    for j in 0...b.count { rows[0][j] = j }
    for i in 0..<a.count {
        for j in 0..<b.count {
            var best = min(rows[i][j + 1] + 1, rows[i + 1][j] + 1, rows[i][j] + (a[i] == b[j] ? 0 : 1))
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { best = min(best, rows[i - 1][j - 1] + 1) }
            rows[i + 1][j + 1] = best
        }
    }
    return rows[a.count][b.count]
}

/// Text of a stranger, fit for one line of a message.
func shortened(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars.prefix(60) {
        result += scalar.properties.generalCategory == .control ? "?" : String(scalar)
    }
    return text.unicodeScalars.count > 60 ? result + "…" : result
}

private func sizeText(_ byteCount: UInt64) -> String {
    for (unit, shift) in [("P", 50), ("T", 40), ("G", 30), ("M", 20), ("k", 10)] as [(String, UInt64)]
    where byteCount != 0 && byteCount % (1 << shift) == 0 {
        return "\(byteCount >> shift)\(unit)"
    }
    return String(byteCount)
}
