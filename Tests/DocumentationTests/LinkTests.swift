import Foundation
import Testing

@Suite struct LinkTests {
    @Test func everyRelativeLinkLeadsToAFile() throws {
        for document in try Document.all() {
            let folder = URL(fileURLWithPath: Document.root + "/" + document.file).deletingLastPathComponent()
            for link in document.prose.matches(of: /\]\(([^)#]+)(#[^)]*)?\)/) where !link.output.1.contains("://") {
                let file = folder.appendingPathComponent(String(link.output.1)).path
                #expect(FileManager.default.fileExists(atPath: file), "\(document.file): \(link.output.1)")
            }
        }
    }

    @Test func everyFileAndFolderNamedInCodeExists() throws {
        for document in try Document.all() {
            for name in document.prose.matches(of: /`((?:Sources|Tests|Examples|Benchmarks|scripts|docs|CAio)\/[A-Za-z0-9_\/.+-]*)`/) {
                #expect(FileManager.default.fileExists(atPath: Document.root + "/" + String(name.output.1)), "\(document.file): \(name.output.1)")
            }
        }
    }

    @Test func everyDocumentIsReachedFromTheReadme() throws {
        let readme = try Document.read("README.md").text
        for document in try Document.all() where document.file != "README.md" {
            #expect(readme.contains("](\(document.file))"), "\(document.file)")
        }
    }
}
