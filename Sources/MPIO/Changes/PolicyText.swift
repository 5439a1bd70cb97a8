import Yams

/// Why a change can't be written into a policy file without risk to what else is in it.
public struct PolicyFileRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    /// The reason, in words.
    public var description: String

    init(_ description: String) {
        self.description = description
    }
}

/// The text of a policy file by the places of its nodes, and changes to it that leave every other character alone.
///
/// It does not understand all of YAML, and need not: what it makes is read again and compared before it is used.
struct PolicyText {
    private let scalars: [Unicode.Scalar]
    /// Where each line begins.
    private let lines: [Int]
    private let newline: String
    private var edits: [(range: Range<Int>, text: String)] = []

    init(_ text: String) {
        let all = Array(text.unicodeScalars)
        scalars = all
        lines = [0] + all.indices.filter { all[$0] == "\n" }.map { $0 + 1 }
        newline = text.unicodeScalars.contains("\r") ? "\r\n" : "\n"
    }

    /// The text with all changes made. Throws where two of them touch.
    func edited() throws(PolicyFileRefusal) -> String {
        var result = String.UnicodeScalarView()
        var position = 0
        let ordered = edits.enumerated().sorted { ($0.element.range.lowerBound, $0.offset) < ($1.element.range.lowerBound, $1.offset) }
        for (_, edit) in ordered {
            guard edit.range.lowerBound >= position else { throw PolicyFileRefusal("the change touches one place twice") }
            result.append(contentsOf: scalars[position..<edit.range.lowerBound])
            result.append(contentsOf: edit.text.unicodeScalars)
            position = edit.range.upperBound
        }
        result.append(contentsOf: scalars[position...])
        return String(result)
    }

    // MARK: Places

    private func refuse(_ offset: Int, _ what: String) -> PolicyFileRefusal {
        PolicyFileRefusal("line \(line(of: offset) + 1): \(what)")
    }

    private func line(of offset: Int) -> Int { (lines.lastIndex { $0 <= offset }) ?? 0 }

    /// Where the text of the line ends that `offset` is in, its end excluded.
    private func lineEnd(_ offset: Int) -> Int {
        var end = offset
        while end < scalars.count, scalars[end] != "\n" { end += 1 }
        return end > offset && end > 0 && scalars[end - 1] == "\r" ? end - 1 : end
    }

    private func indentation(_ offset: Int) -> Int { offset - lines[line(of: offset)] }

    private func offset(of node: Node) throws(PolicyFileRefusal) -> Int {
        guard let mark = node.mark, lines.indices.contains(mark.line - 1) else { throw PolicyFileRefusal("the file has a place that is not known") }
        let offset = lines[mark.line - 1] + mark.column - 1
        guard offset <= scalars.count else { throw PolicyFileRefusal("the file has a place that is not known") }
        return offset
    }

    /// From a node's first character to its last.
    private func span(_ node: Node) throws(PolicyFileRefusal) -> Range<Int> {
        let start = try offset(of: node)
        if start < scalars.count, scalars[start] == "&" || scalars[start] == "!" || scalars[start] == "*" {
            throw refuse(start, "an anchor, alias or tag")
        }
        switch node {
        case .scalar(let scalar): return start..<(try scalarEnd(scalar, start))
        case .sequence(let sequence):
            if isFlow(start) { return start..<(try flowEnd(start)) }
            guard let last = sequence.last else { throw refuse(start, "an empty list") }
            return start..<(try span(last).upperBound)
        case .mapping(let mapping):
            if isFlow(start) { return start..<(try flowEnd(start)) }
            var end = start
            for (key, value) in mapping { end = max(end, try span(key).upperBound, try span(value).upperBound) }
            return start..<end
        case .alias: throw refuse(start, "an alias")
        }
    }

    /// Whether what begins there is in brackets; the parser does not tell.
    private func isFlow(_ start: Int) -> Bool { start < scalars.count && (scalars[start] == "{" || scalars[start] == "[") }

    private func isFlow(_ mapping: Node.Mapping) throws(PolicyFileRefusal) -> Bool { isFlow(try offset(of: .mapping(mapping))) }

    private func isFlow(_ sequence: Node.Sequence) throws(PolicyFileRefusal) -> Bool { isFlow(try offset(of: .sequence(sequence))) }

    private func scalarEnd(_ scalar: Node.Scalar, _ start: Int) throws(PolicyFileRefusal) -> Int {
        switch scalar.style {
        case .singleQuoted, .doubleQuoted: return try quoteEnd(start)
        case .literal, .folded: throw refuse(start, "a text of several lines")
        default:
            let text = Array(scalar.string.unicodeScalars)
            guard start + text.count <= scalars.count, Array(scalars[start..<start + text.count]) == text else {
                throw refuse(start, "a value of several lines")
            }
            return start + text.count
        }
    }

    private func quoteEnd(_ start: Int) throws(PolicyFileRefusal) -> Int {
        let quote = scalars[start]
        var place = start + 1
        while place < scalars.count {
            if scalars[place] == "\\", quote == "\"" {
                place += 1
            } else if scalars[place] == quote {
                guard quote == "'", place + 1 < scalars.count, scalars[place + 1] == "'" else { return place + 1 }
                place += 1
            }
            place += 1
        }
        throw refuse(start, "a quote that does not end")
    }

    /// After the bracket that closes the one at `start`.
    private func flowEnd(_ start: Int) throws(PolicyFileRefusal) -> Int {
        var depth = 0
        var place = start
        while place < scalars.count {
            let before: Unicode.Scalar = place > 0 ? scalars[place - 1] : "\n"
            switch scalars[place] {
            case "[", "{": depth += 1
            case "]", "}":
                depth -= 1
                if depth == 0 { return place + 1 }
            case let quote where (quote == "\"" || quote == "'") && " \t\n[{,:".unicodeScalars.contains(before):
                place = try quoteEnd(place)
                continue
            case "#" where before == " " || before == "\t" || before == "\n": place = lineEnd(place)
            default: break
            }
            place += 1
        }
        throw refuse(start, "a bracket that is not closed")
    }

    /// Whether nothing but blanks and a comment follows in the line.
    private func restIsBlank(_ offset: Int) -> Bool {
        for place in offset..<max(offset, lineEnd(offset)) {
            if scalars[place] == "#" { return true }
            if scalars[place] != " " && scalars[place] != "\t" { return false }
        }
        return true
    }

    /// Whether nothing but blanks comes before it in its line.
    private func isFirstInLine(_ offset: Int) -> Bool {
        scalars[lines[line(of: offset)]..<offset].allSatisfy { $0 == " " }
    }

    // MARK: Keys

    /// Gives a key of a mapping another value; where it is not there it comes after the first of `neighbours` that is.
    mutating func set(_ key: String, _ value: String, in mapping: Node.Mapping, after neighbours: [String]) throws(PolicyFileRefusal) {
        if let old = mapping.first(where: { $0.key.string == key }) {
            edits.append((try span(old.value), value))
        } else {
            try insert("\(key): \(value)", into: mapping, after: neighbours)
        }
    }

    /// `lines` are what a mapping in block style gets below its key; in flow style `flow` is used.
    mutating func insert(
        _ flow: String, lines block: [String] = [], into mapping: Node.Mapping, after neighbours: [String]
    ) throws(PolicyFileRefusal) {
        let pairs = Array(mapping)
        guard let neighbour = neighbours.lazy.compactMap({ name in pairs.first { $0.key.string == name } }).first ?? pairs.first else {
            throw PolicyFileRefusal("a mapping without a key")
        }
        let end = try span(neighbour.value).upperBound
        if try isFlow(mapping) { return edits.append((end..<end, ", " + flow)) }
        guard restIsBlank(end) else { throw refuse(end, "more in one line than a key and its value") }
        let margin = String(repeating: " ", count: indentation(try offset(of: pairs[0].key)))
        let text = (block.isEmpty ? [flow] : block).map { newline + margin + $0 }.joined()
        let place = lineEnd(end)
        edits.append((place..<place, text))
    }

    /// Removes a key and its value; where they have lines of their own, with these.
    mutating func remove(_ key: String, from mapping: Node.Mapping) throws(PolicyFileRefusal) {
        let pairs = Array(mapping)
        guard let index = pairs.firstIndex(where: { $0.key.string == key }) else { return }
        let range = try offset(of: pairs[index].key)..<(try span(pairs[index].value).upperBound)
        guard try isFlow(mapping) else { return try removeLines(range) }
        let before = index > 0 ? try span(pairs[index - 1].value).upperBound : nil
        let after = index + 1 < pairs.count ? try offset(of: pairs[index + 1].key) : nil
        removeFromFlow(range, before: before, after: after)
    }

    // MARK: Items

    /// Adds an item at the end of a list.
    mutating func append(_ item: String, to sequence: Node.Sequence) throws(PolicyFileRefusal) {
        guard let first = sequence.first, let last = sequence.last else { throw PolicyFileRefusal("an empty list") }
        let end = try span(last).upperBound
        if try isFlow(sequence) { return edits.append((end..<end, ", " + item)) }
        guard restIsBlank(end) else { throw refuse(end, "more in one line than an item of a list") }
        let margin = String(repeating: " ", count: indentation(try dash(of: first)))
        let place = lineEnd(end)
        edits.append((place..<place, newline + margin + "- " + item))
    }

    mutating func removeItem(_ index: Int, from sequence: Node.Sequence) throws(PolicyFileRefusal) {
        guard sequence.count > 1, sequence.indices.contains(index) else { throw PolicyFileRefusal("the only item of a list") }
        let item = try span(sequence[index])
        guard try isFlow(sequence) else { return try removeLines(try dash(of: sequence[index])..<item.upperBound) }
        let before = index > 0 ? try span(sequence[index - 1]).upperBound : nil
        let after = index + 1 < sequence.count ? try offset(of: sequence[index + 1]) : nil
        removeFromFlow(item, before: before, after: after)
    }

    /// The dash before an item of a list in block style.
    private func dash(of item: Node) throws(PolicyFileRefusal) -> Int {
        var place = try offset(of: item) - 1
        while place >= 0, scalars[place] == " " { place -= 1 }
        guard place >= 0, scalars[place] == "-", isFirstInLine(place) else {
            throw refuse(max(place, 0), "an item that does not begin its line")
        }
        return place
    }

    private mutating func removeFromFlow(_ range: Range<Int>, before: Int?, after: Int?) {
        if let before {
            edits.append((before..<range.upperBound, ""))
        } else {
            edits.append((range.lowerBound..<(after ?? range.upperBound), ""))
        }
    }

    private mutating func removeLines(_ range: Range<Int>) throws(PolicyFileRefusal) {
        guard isFirstInLine(range.lowerBound), restIsBlank(range.upperBound) else {
            throw refuse(range.lowerBound, "it shares its line with something else")
        }
        var end = lineEnd(range.upperBound)
        if end < scalars.count, scalars[end] == "\r" { end += 1 }
        if end < scalars.count { end += 1 }
        edits.append((lines[line(of: range.lowerBound)]..<end, ""))
    }
}
