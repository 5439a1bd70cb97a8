import Foundation

/// A fenced block of a Markdown file.
struct FencedBlock: CustomStringConvertible {
    /// Relative to the package's folder.
    var file: String
    /// Where its first line of text is.
    var line: Int
    /// What follows the opening fence: a language, perhaps with a second word that tells the tests what to do with it.
    var info: String
    /// With a line break at the end of each line.
    var text: String

    var language: String { String(info.prefix { $0 != " " }) }
    var detail: String { String(info.dropFirst(language.count)).trimmingCharacters(in: .whitespaces) }
    var lines: [String] { text.split(separator: "\n").map(String.init) }
    var description: String { "\(file):\(line)" }
}

/// A Markdown file of the project.
struct Document {
    var file: String
    var text: String

    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path

    static func read(_ file: String) throws -> Document {
        Document(file: file, text: try String(contentsOfFile: root + "/" + file, encoding: .utf8))
    }

    /// README, CONTRIBUTING and everything under docs/.
    static func all() throws -> [Document] {
        let docs = try FileManager.default.contentsOfDirectory(atPath: root + "/docs").filter { $0.hasSuffix(".md") }.sorted()
        return try (["README.md", "CONTRIBUTING.md"] + docs.map { "docs/" + $0 }).map(read)
    }

    static func blocks() throws -> [FencedBlock] { try all().flatMap(\.blocks) }

    var blocks: [FencedBlock] {
        var found: [FencedBlock] = []
        var open: FencedBlock?
        for (index, line) in text.components(separatedBy: "\n").enumerated() {
            if line.hasPrefix("```") {
                if let block = open {
                    found.append(block)
                    open = nil
                } else {
                    let info = line.dropFirst(3).trimmingCharacters(in: .whitespaces)
                    open = FencedBlock(file: file, line: index + 2, info: info, text: "")
                }
            } else {
                open?.text += line + "\n"
            }
        }
        return found
    }

    /// The text outside fenced blocks.
    var prose: String {
        var isInside = false
        var kept: [String] = []
        for line in text.components(separatedBy: "\n") {
            if line.hasPrefix("```") { isInside.toggle() } else if !isInside { kept.append(line) }
        }
        return kept.joined(separator: "\n")
    }

    /// What stands between the comments `<!-- NAME -->` and `<!-- end of NAME -->`.
    func section(_ name: String) -> String? {
        guard let start = text.range(of: "<!-- \(name) -->\n"), let end = text.range(of: "<!-- end of \(name) -->") else { return nil }
        return String(text[start.upperBound..<end.lowerBound])
    }
}
