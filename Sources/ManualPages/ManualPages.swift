import Foundation

/// Writes the manual pages: `mpio --experimental-dump-help | ManualPages ROOT FOLDER`, where ROOT is the package's folder and
/// FOLDER gets man1/ and man5/. The date is SOURCE_DATE_EPOCH's where that is set.
@main
struct ManualPages {
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    static func main() {
        do {
            let arguments = CommandLine.arguments
            guard arguments.count == 3 else { throw Failure(description: "usage: ManualPages ROOT FOLDER < help.json") }
            try write(help: FileHandle.standardInput.readDataToEndOfFile(), root: arguments[1], to: arguments[2])
        } catch {
            FileHandle.standardError.write(Data("ManualPages: \(error)\n".utf8))
            exit(1)
        }
    }

    static func write(help: Data, root: String, to folder: String) throws {
        let epoch = ProcessInfo.processInfo.environment["SOURCE_DATE_EPOCH"].flatMap(Double.init)
        let date = epoch.map { Date(timeIntervalSince1970: $0) } ?? Date()
        let tree = try JSONDecoder().decode(HelpTree.self, from: help)
        let readme = try String(contentsOfFile: root + "/README.md", encoding: .utf8)
        let pages = CommandPages(root: tree.command, exitStatuses: try exitStatuses(readme), date: date).pages()
        let policy = try String(contentsOfFile: root + "/docs/configuration.md", encoding: .utf8)
        let format = MarkdownPage(name: "mpio.yaml", abstract: "the policy file of mpio: targets, LUNs, paths and policies", date: date)
        for (section, files) in [("man1", pages), ("man5", [(file: "mpio.yaml.5", text: format.page(policy))])] {
            try FileManager.default.createDirectory(atPath: folder + "/" + section, withIntermediateDirectories: true)
            for page in files { try Data(page.text.utf8).write(to: URL(fileURLWithPath: "\(folder)/\(section)/\(page.file)")) }
        }
    }

    /// The table that the README has between its two comments.
    static func exitStatuses(_ readme: String) throws -> [(status: String, meaning: String)] {
        guard let start = readme.range(of: "<!-- exit statuses -->"), let end = readme.range(of: "<!-- end of exit statuses -->") else {
            throw Failure(description: "README.md has no table of exit statuses")
        }
        let rows = readme[start.upperBound..<end.lowerBound].matches(of: /\| (\d+) \| ([^|]+) \|/)
        guard !rows.isEmpty else { throw Failure(description: "README.md's table of exit statuses is empty") }
        return rows.map { (String($0.output.1), String($0.output.2)) }
    }
}
