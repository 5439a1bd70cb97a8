import Foundation
import Testing
import TestSupport

extension FencedBlock {
    /// Its first line exports LUNs, which the others use.
    var isOfNBD: Bool { lines.first?.hasPrefix("mpio hold --nbd") == true }
}

/// What the documentation shows of NBD, with the clients that it names.
@Suite(.serialized) struct NBDExampleTests {
    @Test func clientsFindTheDisksThere() async throws {
        let examples = try CommandExampleTests().lines().filter { $0.block.language == "sh" && $0.block.isOfNBD }
        let documents = Set(examples.map(\.block.file))
        #expect(documents == ["README.md", "docs/nbd.md"])
        for document in documents.sorted() {
            let array = try DocumentedArray()
            try array.writePolicy(try #require(try Document.read("README.md").blocks.first { $0.language == "yaml" }).text)
            try array.folder.file("image.raw", contents: [UInt8](repeating: 7, count: 64 << 10))
            let lines = examples.filter { $0.block.file == document }
            let holder = try array.startLine(lines[0].line.replacing(" &", with: ""))
            let isReady = try await eventually(within: .seconds(30)) {
                let said = (try? String(contentsOfFile: array.folder.file("background.err"), encoding: .utf8)) ?? ""
                return said.contains("vm-store: nbd") && said.contains("scratch: nbd")
            }
            #expect(isReady)
            for (block, line) in lines.dropFirst() {
                #expect(!line.hasPrefix("mpio"), "\(block): one line that exports, the others use it")
                let result = try await array.runLine(line)
                #expect(result.succeeded, "\(block): \(line): \(result.end)\n\(result.standardOutput)\(result.standardError)")
            }
            holder.send(signal: SIGTERM)
            #expect(holder.wait(timeout: .seconds(10)) == .exited(0))
            try array.stop()
        }
    }
}
