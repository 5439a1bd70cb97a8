// check-docs FOLDER: every public symbol in the symbol graphs of the folder has a documentation comment, its own or one that it
// inherits from a protocol's requirement. Prints those that have none, and fails.
import Foundation

struct SymbolGraph: Decodable {
    struct Symbol: Decodable {
        struct Identifier: Decodable { var precise: String }
        struct Kind: Decodable { var identifier: String }
        struct Comment: Decodable {
            struct Line: Decodable { var text: String }
            var lines: [Line]
        }
        struct Location: Decodable {
            struct Position: Decodable { var line: Int }
            var uri: String
            var position: Position
        }
        var identifier: Identifier
        var kind: Kind
        var pathComponents: [String]
        var docComment: Comment?
        var location: Location?

        var name: String { pathComponents.joined(separator: ".") }
        /// What the compiler or another module's protocol makes, and what adds to another symbol, are nobody's to describe.
        var isWritten: Bool { !identifier.precise.contains("::SYNTHESIZED::") && kind.identifier != "swift.extension" }
        var isDescribed: Bool { docComment?.lines.contains { !$0.text.trimmingCharacters(in: .whitespaces).isEmpty } ?? false }
        var place: String { location.map { "\($0.uri.replacingOccurrences(of: "file://", with: "")):\($0.position.line + 1): " } ?? "" }
    }
    var symbols: [Symbol]
}

guard CommandLine.arguments.count == 2 else {
    print("usage: check-docs FOLDER")
    exit(64)
}
let folder = URL(fileURLWithPath: CommandLine.arguments[1])
let files = try FileManager.default.subpathsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".symbols.json") }.sorted()
guard !files.isEmpty else {
    print("check-docs: \(folder.path) has no symbol graphs")
    exit(1)
}
var count = 0
var undocumented: [String] = []
for file in files {
    let graph = try JSONDecoder().decode(SymbolGraph.self, from: Data(contentsOf: folder.appendingPathComponent(file)))
    for symbol in graph.symbols where symbol.isWritten {
        count += 1
        if !symbol.isDescribed { undocumented.append("\(symbol.place)\(symbol.name) has no documentation comment") }
    }
}
for line in undocumented.sorted() { print(line) }
print("\(count) public symbols, \(undocumented.count) without documentation")
exit(undocumented.isEmpty ? 0 : 1)
