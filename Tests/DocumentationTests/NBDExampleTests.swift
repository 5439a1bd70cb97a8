import Foundation
import Testing
import TestSupport

extension FencedBlock {
    /// One of its lines exports LUNs, which those behind it use.
    var isOfNBD: Bool { lines.contains { $0.hasPrefix("mpio hold --nbd") } }
}

/// What the documentation shows of NBD, with the clients that it names.
@Suite(.serialized) struct NBDExampleTests {
    @Test func clientsFindTheDisksThere() async throws {
        let examples = try CommandExampleTests().lines().filter { $0.block.language == "sh" && $0.block.isOfNBD }
        let documents = Set(examples.map(\.block.file))
        #expect(documents == ["README.md", "docs/nbd.md"])
        for number in Set(examples.map { "\($0.block)" }).sorted() {
            let array = try DocumentedArray()
            try array.writePolicy(try #require(try Document.read("README.md").blocks.first { $0.language == "yaml" }).text)
            try array.folder.file("image.raw", contents: [UInt8](repeating: 7, count: 64 << 10))
            // An address of its own: the port is the protocol's.
            let lines = examples.filter { "\($0.block)" == number }
                .map { ($0.block, $0.line.replacing("127.0.0.1", with: array.portals[0].address)) }
            let place = try #require(lines.firstIndex { $0.1.hasPrefix("mpio hold --nbd") })
            for (block, line) in lines[..<place] { #expect(try await array.runLine(line).succeeded, "\(block): \(line)") }
            let holder = try array.startLine(lines[place].1.replacing(" &", with: ""))
            let isReady = try await eventually(within: .seconds(60)) {
                let said = (try? String(contentsOfFile: array.folder.file("background.err"), encoding: .utf8)) ?? ""
                return said.contains("vm-store: nbd") && said.contains("scratch: nbd")
            }
            #expect(isReady, "\(number)")
            for (block, line) in lines[(place + 1)...] {
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
