import Foundation
import Multipath
import Testing
import TestSupport

@testable import MPIO

@Suite struct PolicyFileTests {
    /// A folder with the secret files that examples name.
    private func folder() throws -> TemporaryDirectory {
        let folder = try TemporaryDirectory("policy")
        for (name, secret) in [("chap.secret", "a-secret-of-ours"), ("array.secret", "a-secret-of-theirs")] {
            try folder.file(name, contents: Array(secret.utf8))
            chmod(folder.file(name), 0o600)
        }
        return folder
    }

    /// A block marked `yaml lun` shows some keys of a LUN, one marked `yaml target` some of a target.
    private func wholeFile(_ block: FencedBlock) -> String {
        let target = "targets:\n  - name: iqn.2026-11.org.example:array-1\n"
        let portals = "    portals: [\"10.0.1.10:3260\", \"10.0.2.10:3260\", \"10.0.3.10:3260\"]\n"
        let lun = "luns:\n  - name: vm-store\n    identity: naa.6001405abcdef01234567890abcdef01\n"
        let indented = block.lines.map { "    " + $0 + "\n" }.joined()
        switch block.detail {
        case "lun": return target + portals + lun + indented
        case "target": return target + (block.text.contains("portals:") ? "" : portals) + indented + lun
        default: return block.text
        }
    }

    @Test func everyPolicyFileIsAccepted() throws {
        let folder = try folder()
        let blocks = try Document.blocks().filter { $0.language == "yaml" }
        #expect(blocks.count >= 5)
        for block in blocks {
            #expect(["", "lun", "target"].contains(block.detail), "\(block): \(block.detail)")
            do {
                _ = try Configuration(yaml: wholeFile(block), file: block.description, folder: folder.path)
            } catch {
                Issue.record("\(error)")
            }
        }
    }

    /// The example that names every key, in docs/configuration.md.
    private func completeExample() throws -> FencedBlock {
        try #require(try Document.read("docs/configuration.md").blocks.first { $0.info == "yaml" })
    }

    @Test func theCompleteExampleGivesEveryDefaultAsItIs() throws {
        let folder = try folder()
        let example = try Configuration(yaml: completeExample().text, folder: folder.path)
        let empty = Configuration()
        #expect(example.defaults == empty.defaults)
        let target = try #require(example.targets.first)
        let plain = TargetConfiguration(name: target.name, portals: target.portals)
        #expect(target.iscsi == plain.iscsi)
        #expect(target.headerDigests == plain.headerDigests && target.dataDigests == plain.dataDigests)
        #expect(target.connectionPolicy == plain.connectionPolicy)
        let chap = try #require(target.chap)
        #expect(chap.algorithms == CHAPAlgorithmName.defaultOrder)
    }

    /// The lists of keys that the reader accepts, from its source: no list of them can then be forgotten.
    private func knownKeys() throws -> Set<String> {
        let folder = Document.root + "/Sources/MPIO/Configuration"
        var keys = Set(PolicyOption.allCases.map(\.rawValue))
        for file in try FileManager.default.contentsOfDirectory(atPath: folder) where file.hasPrefix("ConfigurationReader") {
            let source = try String(contentsOfFile: folder + "/" + file, encoding: .utf8)
            for list in source.matches(of: /(?:keys: |let keys = |settingsKeys =\s*)\[(?<names>[^\]]*)\]/) {
                for name in list.output.names.matches(of: /"([^"]+)"/) { keys.insert(String(name.output.1)) }
            }
        }
        return keys.union(["timers", "marginal-paths", "allow-lun-reset"])
    }

    @Test func theCompleteExampleNamesEveryKey() throws {
        let text = try completeExample().text
        let keys = try knownKeys()
        #expect(keys.count >= 50)
        let written = Set(text.matches(of: /([a-z][a-z0-9-]*):(?: |\n)/).map { String($0.output.1) })
        #expect(keys.subtracting(written) == [], "keys that the example lacks")
    }

    @Test func theMistakesShownAreReportedAsShown() throws {
        let document = try Document.read("docs/configuration.md")
        let bad = try #require(document.blocks.first { $0.info == "text bad policy" })
        let answer = try #require(document.blocks.first { $0.info == "text its mistakes" })
        let error = #expect(throws: InvalidConfiguration.self) { try Configuration(yaml: bad.text, file: "mpio.yaml") }
        #expect(error.map { $0.description + "\n" } == answer.text)
    }
}
