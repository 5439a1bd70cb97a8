import Foundation
import MPIO
import Synchronization
import Testing
import TestSupport

/// The documentation of what programs import: comments, DocC articles, and the Swift in them.
@Suite(.serialized) struct APIDocumentationTests {
    private static let catalogues = ["MPIO", "Multipath", "SCSI"].map { "Sources/\($0)/\($0).docc" }

    private func articles() throws -> [Document] {
        try Self.catalogues.flatMap { folder in
            try FileManager.default.contentsOfDirectory(atPath: Document.root + "/" + folder).filter { $0.hasSuffix(".md") }
                .sorted().map { try Document.read(folder + "/" + $0) }
        }
    }

    @Test func everyPublicSymbolIsDescribedAndNoLinkIsDead() async throws {
        let folder = try TemporaryDirectory("docc")
        let result = try await CommandRunner.run(
            Document.root + "/scripts/docs", [DocumentedArray.builtFolder, folder.file("docs")], timeout: .seconds(300))
        #expect(result.succeeded, "\(result.standardOutput)\(result.standardError)")
        #expect(result.standardOutput.contains(" public symbols, 0 without documentation"), "\(result.standardOutput)")
        #expect(FileManager.default.fileExists(atPath: folder.file("docs/mpio.doccarchive/data/documentation/mpio/gettingstarted.json")))
    }

    @Test func everySymbolOfAModuleHasItsPlaceOnTheLandingPage() throws {
        for folder in Self.catalogues {
            let module = String(folder.split(separator: "/")[1])
            let page = try Document.read("\(folder)/\(module).md").text
            let files = try FileManager.default.subpathsOfDirectory(atPath: Document.root + "/Sources/" + module).filter { $0.hasSuffix(".swift") }
            for file in files {
                let source = try String(contentsOfFile: "\(Document.root)/Sources/\(module)/\(file)", encoding: .utf8)
                // What begins a line is no member of anything.
                for type in source.matches(of: /\n(?:@[a-z]+ )?(?:public|open) (?:final |indirect )?(?:class|struct|enum|protocol) ([A-Za-z0-9]+)/) {
                    #expect(page.contains("``\(type.output.1)``"), "\(module).md leaves out \(type.output.1)")
                }
            }
        }
    }

    // MARK: The articles

    /// Without the margin that all lines share, and without empty lines at the ends.
    private func dedented(_ text: String) -> [String] {
        let lines = text.components(separatedBy: "\n").map { $0.trimmingCharacters(in: .whitespaces).isEmpty ? "" : $0 }
        let margin = lines.filter { !$0.isEmpty }.map { $0.prefix { $0 == " " }.count }.min() ?? 0
        return Array(lines.map { String($0.dropFirst(margin)) }.drop { $0.isEmpty }.reversed().drop { $0.isEmpty }.reversed())
    }

    /// Swift that is built: the programs under Examples/ and ``ArticleSnippets``.
    private func builtSources() throws -> [[String]] {
        let root = Document.root + "/Examples"
        let examples = try FileManager.default.subpathsOfDirectory(atPath: root).filter { $0.hasSuffix(".swift") && !$0.contains(".build/") }
        let files = examples.map { root + "/" + $0 } + [Document.root + "/Tests/DocumentationTests/ArticleSnippets.swift"]
        return try files.map { try String(contentsOfFile: $0, encoding: .utf8).components(separatedBy: "\n") }
    }

    private func isPart(_ wanted: [String], of source: [String]) -> Bool {
        guard source.count >= wanted.count else { return false }
        return (0...(source.count - wanted.count)).contains { start in
            dedented(source[start..<(start + wanted.count)].joined(separator: "\n")) == wanted
        }
    }

    @Test func theSwiftOfTheArticlesIsBuilt() throws {
        let sources = try builtSources()
        let blocks = try articles().flatMap(\.blocks).filter { $0.language.hasPrefix("swift") }
        #expect(blocks.count >= 12)
        for block in blocks {
            let wanted = dedented(block.text)
            #expect(sources.contains { isPart(wanted, of: $0) }, "\(block) is part of no program under Examples/ and of no ArticleSnippets")
        }
    }

    @Test func theFilesThatArticlesNameExist() throws {
        for article in try articles() {
            for name in article.prose.matches(of: /`((?:docs|Examples)\/[A-Za-z0-9_\/.-]*)`/) {
                #expect(FileManager.default.fileExists(atPath: Document.root + "/" + String(name.output.1)), "\(article.file): \(name.output.1)")
            }
        }
    }

    // MARK: What the snippets do

    private func withDisk(_ body: (MultipathDisk, DocumentedArray) async throws -> Void) async throws {
        let array = try DocumentedArray()
        try array.writePolicy(try #require(try Document.read("README.md").blocks.first { $0.language == "yaml" }).text)
        var options = PathManager.Options()
        options.runtimeDirectory = array.folder.path + "/run"
        let manager = try await PathManager(configuration: Configuration(contentsOf: array.folder.file("mpio.yaml")), options: options)
        let disk = try await manager.open("vm-store")
        try await body(disk, array)
        try await manager.shutdown()
        try array.stop()
    }

    @Test func storageIsFoundByProgram() async throws {
        let array = try DocumentedArray()
        let configuration = try await ArticleSnippets.discover(array.portals[0].description)
        #expect(configuration.luns.count == 2)
        #expect(configuration.targets.first?.portals.count == 2)
        try array.stop()
    }

    @Test func aPolicyIsChangedAndExplained() async throws {
        try await withDisk { disk, _ in
            try await ArticleSnippets.changePolicy(of: disk)
            let status = try await disk.status
            #expect(status.policy == "round-robin")
            try await ArticleSnippets.explain(disk)
            let explanation = try await disk.explain()
            #expect(explanation.reason.contains("round-robin"))
        }
    }

    @Test func eventsAreWatchedWhileAPathIsTakenOutAndBack() async throws {
        try await withDisk { disk, array in
            let path = array.portals[0].description
            let lines = Mutex<[String]>([])
            let watching = Task { await ArticleSnippets.watch(disk) { line in lines.withLock { $0.append(line) } } }
            // The stream begins when the task does: the first thing that happens may come before.
            #expect(try await eventually(within: .seconds(60)) {
                try await disk.setPolicy(.leastQueueDepth)
                try await disk.setPolicy(.roundRobin)
                return lines.withLock { $0.contains { $0.contains("policy changed") } }
            })
            try await ArticleSnippets.replaceCable(disk, path: path) {
                let paths = try await disk.paths
                #expect(paths.first { $0.id == path }?.state == .drained)
            }
            #expect(try await eventually(within: .seconds(60)) { lines.withLock { $0.contains { $0.contains(path) } } })
            watching.cancel()
            await watching.value
        }
    }

    @Test func aLockIsTakenOnce() async throws {
        try await withDisk { disk, _ in
            let free = [UInt8](repeating: 0, count: disk.blockSize)
            let taken = [UInt8](repeating: 1, count: disk.blockSize)
            let first = try await ArticleSnippets.takeLock(disk, old: free, new: taken)
            let second = try await ArticleSnippets.takeLock(disk, old: free, new: taken)
            #expect(first && !second)
        }
    }

    @Test func requestsGoInManyAndInBatches() async throws {
        try await withDisk { disk, _ in
            try await ArticleSnippets.readAll(disk, offsets: (0..<64).map { $0 * 4096 })
            let ends = Mutex((count: 0, errors: 0))
            let held = ArticleSnippets.readInBatches(disk, count: 64) { end in
                ends.withLock { $0 = ($0.count + 1, $0.errors + (end.error == nil ? 0 : 1)) }
            }
            #expect(try await eventually(within: .seconds(60)) { ends.withLock { $0.count == 64 } })
            #expect(ends.withLock { $0.errors } == 0)
            withExtendedLifetime(held) {}
            let paths = try await disk.paths
            #expect(paths.reduce(0) { $0 + $1.requests } >= 128)
        }
    }
}
