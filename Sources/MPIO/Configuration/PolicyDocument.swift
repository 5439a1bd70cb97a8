import Yams

/// A place in a text, 1-based, columns in Unicode scalars.
struct TextPlace: Hashable {
    var line: Int
    var column: Int

    init(line: Int, column: Int) {
        self.line = line
        self.column = column
    }

    init(_ mark: Mark) {
        self.init(line: mark.line, column: mark.column)
    }
}

/// Turns text into YAML nodes with places, or into the errors that say why it is none.
///
/// Yams alone isn't enough for text that anybody may have written: it stops at the first duplicate key, and it
/// compares keys deeply, which a few nested aliases used as a key turn into hours. So the text is looked at before
/// it, and duplicates are noted and masked until it accepts the rest.
struct PolicyDocument {
    let file: String
    private(set) var errors: [ConfigurationError] = []

    /// Keys that were masked start with this, from the private-use area; they are no keys of ours and were reported.
    static let maskFirst: UInt32 = 0xE000

    init(file: String) {
        self.file = file
    }

    /// The root of the document, or nil, with ``errors``, where the text is not YAML.
    mutating func compose(_ text: String) -> Node? {
        if let problem = Self.firstUnprintable(text) {
            report(problem.place, "the character U+\(problem.hex) can't be in a policy file", expected: "a text file in UTF-8")
            return nil
        }
        if let place = Self.firstComplexKey(text) {
            report(place, "a key that is a list, a mapping or an alias", expected: "plain words as keys")
            return nil
        }
        var text = text
        while true {
            do {
                return try Yams.Parser(yaml: text, resolver: .basic, encoding: .utf8).singleRoot()
            } catch YamlError.duplicatedKeysInMapping(let names, let context) {
                let mark = TextPlace(context.mark)
                guard errors.count < InvalidConfiguration.maximumErrorCount, let name = names.first,
                    let masked = DuplicateKey.mask(name, after: mark, in: text, serial: UInt32(errors.count))
                else {
                    report(mark, "the key '\(names.first ?? "")' is given twice")
                    return nil
                }
                report(masked.place, "the key '\(name)' is given twice; the first is in line \(mark.line)")
                text = masked.text
            } catch {
                report(error)
                return nil
            }
        }
    }

    private mutating func report(_ mark: TextPlace, _ message: String, expected: String? = nil) {
        errors.append(
            ConfigurationError(
                file: file, line: mark.line, column: mark.column, keyPath: "", message: message, expected: expected))
    }

    private mutating func report(_ error: any Error) {
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            report(TextPlace(mark), "not valid YAML: " + problem)
        case .reader(let problem, _, _, _):
            report(TextPlace(line: 1, column: 1), "not valid YAML: " + problem)
        default:
            report(TextPlace(line: 1, column: 1), "not valid YAML: \(error)")
        }
    }

    /// The first character that YAML does not allow (YAML 1.2 section 5.1).
    private static func firstUnprintable(_ text: String) -> (place: TextPlace, hex: String)? {
        var line = 1
        var column = 1
        for (offset, scalar) in text.unicodeScalars.enumerated() {
            switch scalar.value {
            case 0x0A:
                line += 1
                column = 0
            case 0x09, 0x0D, 0x20...0x7E, 0x85, 0xA0...0xD7FF, 0xF900...0xFEFE, 0xFF00...0xFFFD, 0x10000...0x10FFFF: break
            case 0xFEFF where offset == 0: break
            default:
                let digits = String(scalar.value, radix: 16, uppercase: true)
                return (TextPlace(line: line, column: column), String(repeating: "0", count: max(0, 4 - digits.count)) + digits)
            }
            column += 1
        }
        return nil
    }

    /// Where a file that uses aliases seems to use something other than a word as a key. Errs towards finding one;
    /// what it passes has none. Files without an alias are never touched.
    private static func firstComplexKey(_ text: String) -> TextPlace? {
        var usesAlias = false
        var suspect: TextPlace?
        var line = 1
        var column = 1
        var previous: Unicode.Scalar = "\n"
        // `*name`, `]` and `}` make a key where the next thing in the line is a colon.
        var awaitsColon = false
        var inAlias = false
        // `[2001:db8::1]:3260` is an address: brackets around nothing but its characters hold no alias.
        var isAddress = false
        for scalar in text.unicodeScalars {
            let startsToken = !isWord(previous)
            if inAlias && (scalar == " " || scalar == "\t" || scalar == "\n" || scalar == "," || scalar == "]" || scalar == "}") {
                inAlias = false
            }
            switch scalar {
            case "*" where startsToken:
                usesAlias = true
                inAlias = true
                awaitsColon = true
            case "?" where startsToken, ":" where awaitsColon:
                suspect = suspect ?? TextPlace(line: line, column: column)
                awaitsColon = false
            case "[": isAddress = true
            case "]": awaitsColon = !isAddress
            case "}": awaitsColon = true
            case " ", "\t": break
            default: if !inAlias { awaitsColon = false }
            }
            if scalar != "[" && !":.%-_".unicodeScalars.contains(scalar) && !isWord(scalar) { isAddress = false }
            if scalar == "\n" {
                line += 1
                column = 0
                awaitsColon = false
            }
            column += 1
            previous = scalar
        }
        return usesAlias ? suspect : nil
    }
}

private func isWord(_ scalar: Unicode.Scalar) -> Bool {
    scalar.properties.isAlphabetic || ("0"..."9").contains(scalar)
}

/// Finds the second of two equal keys and puts a placeholder of the same width over it, so that every place in
/// the text stays true.
private enum DuplicateKey {
    static func mask(_ name: String, after first: TextPlace, in text: String, serial: UInt32) -> (place: TextPlace, text: String)? {
        let isPlain = name.unicodeScalars.allSatisfy { scalar in
            scalar == "-" || scalar == "_" || (scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar)))
        }
        guard isPlain, !name.isEmpty, serial < 0x1000,
            let placeholder = Unicode.Scalar(PolicyDocument.maskFirst + serial)
        else { return nil }
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map { Array($0.unicodeScalars) }
        guard lines.indices.contains(first.line - 1) else { return nil }
        let key = Array(name.unicodeScalars)
        guard let place = findInFlow(key, after: first, in: lines) ?? findInBlock(key, after: first, in: lines) else {
            return nil
        }
        for offset in key.indices {
            lines[place.line - 1][place.column - 1 + offset] = offset == 0 ? placeholder : "x"
        }
        var masked = String.UnicodeScalarView()
        for (index, line) in lines.enumerated() {
            if index > 0 { masked.append("\n") }
            masked.append(contentsOf: line)
        }
        return (place, String(masked))
    }

    /// A line of the same indentation that starts with the key, before the mapping ends.
    private static func findInBlock(_ key: [Unicode.Scalar], after first: TextPlace, in lines: [[Unicode.Scalar]]) -> TextPlace? {
        for index in first.line..<max(first.line, lines.count) {
            let line = lines[index]
            guard let start = line.firstIndex(where: { $0 != " " }), line[start] != "#", line[start] != "\r" else { continue }
            if start < first.column - 1 { return nil }
            if start == first.column - 1, isKey(key, at: start, in: line) {
                return TextPlace(line: index + 1, column: start + 1)
            }
        }
        return nil
    }

    /// Within the same braces, at their level.
    private static func findInFlow(_ key: [Unicode.Scalar], after first: TextPlace, in lines: [[Unicode.Scalar]]) -> TextPlace? {
        var depth = 0
        var quote: Unicode.Scalar?
        for index in (first.line - 1)..<lines.count {
            let line = lines[index]
            var column = index == first.line - 1 ? first.column - 1 + key.count : 0
            while column < line.count {
                let scalar = line[column]
                if let open = quote {
                    if scalar == open { quote = nil }
                } else if scalar == "\"" || scalar == "'" {
                    quote = scalar
                } else if scalar == "{" || scalar == "[" {
                    depth += 1
                } else if scalar == "}" || scalar == "]" {
                    depth -= 1
                    if depth < 0 { return nil }
                } else if scalar == "#", column == 0 || line[column - 1] == " " {
                    break
                } else if depth == 0, column == 0 || line[column - 1] == " " || line[column - 1] == ",",
                    isKey(key, at: column, in: line), isAfterComma(column, in: line)
                {
                    return TextPlace(line: index + 1, column: column + 1)
                }
                column += 1
            }
        }
        return nil
    }

    private static func isAfterComma(_ column: Int, in line: [Unicode.Scalar]) -> Bool {
        let before = line[..<column].last { $0 != " " }
        return before == ","
    }

    private static func isKey(_ key: [Unicode.Scalar], at start: Int, in line: [Unicode.Scalar]) -> Bool {
        let end = start + key.count
        guard end < line.count, Array(line[start..<end]) == key else { return false }
        return line[end...].first { $0 != " " } == ":"
    }
}
