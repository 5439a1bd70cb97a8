import Foundation
import ISCSITarget
import SCSI
import Synchronization
import Testing
import TestSupport

/// The Swift of the documentation is that of the programs under Examples/, and those run.
@Suite(.serialized) struct SwiftExampleTests {
    @Test func everySwiftBlockIsAFileOfTheExamples() throws {
        let blocks = try Document.blocks().filter { $0.language == "swift" }
        #expect(blocks.count >= 2)
        for block in blocks {
            let source = try String(contentsOfFile: Document.root + "/" + block.detail, encoding: .utf8)
            #expect(block.text == source, "\(block) is not \(block.detail)")
        }
    }

    private func smallestFile() throws -> String {
        try #require(try Document.read("README.md").blocks.first { $0.language == "yaml" }).text
    }

    @Test func theQuickStartRuns() async throws {
        let array = try DocumentedArray()
        try array.writePolicy(smallestFile())
        let result = try await array.runLine("QuickStart")
        #expect(result.succeeded, "\(result.standardError)")
        let output = result.standardOutput
        #expect(output.contains("event: policy changed from round-robin to least-queue-depth"), "\(output)")
        for portal in array.portals { #expect(output.contains("\(portal) active/optimized"), "\(output)") }
        #expect(output.contains("nothing was sent"))
        try array.stop()
    }

    /// Answers one read of the first portal as Acme's arrays do while a volume moves.
    private final class MovingVolume: CommandFilter, Sendable {
        private let isDone = Atomic(false)
        var wasPlayed: Bool { isDone.load(ordering: .relaxed) }
        var holdsOutliveSessions: Bool { false }

        func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
            guard portal == 0, [0x28, 0x88].contains(command.cdb.operationCode), !isDone.exchange(true, ordering: .relaxed) else {
                return .execute
            }
            return .answer(.checkCondition, SenseData(key: .notReady, additional: AdditionalSense(0x04, 0x81)))
        }
    }

    /// Runs the example on an array of this vendor, with no retry that counts.
    private func runModule(vendor: String) async throws -> (result: CommandResult, portals: [LoopbackPortal], wasPlayed: Bool) {
        let filter = MovingVolume()
        let array = try DocumentedArray(
            units: ["0=memory,size=16M,vendor=\(vendor),product=TWIN", "1=memory,size=16M"], filter: filter)
        let policy = try smallestFile()
        try array.writePolicy(policy + "defaults: {timers: {retry-count: 0, retry-interval: 20ms}}\n")
        let result = try await array.runLine("VendorDSM")
        try array.stop()
        return (result, array.portals, filter.wasPlayed)
    }

    @Test func theVendorsModuleClaimsItsArrayAndJudgesItsError() async throws {
        let run = try await runModule(vendor: "ACME")
        let output = run.result.standardOutput
        #expect(run.wasPlayed && run.result.succeeded, "\(run.result.standardError)")
        #expect(output.contains("claimed by acme"), "\(output)")
        // No path was lost for it.
        #expect(output.contains("\(run.portals[0]) active/optimized requests 4 errors 1"), "\(output)")
        #expect(output.contains("\(run.portals[1]) active/optimized requests 5 errors 0"), "\(output)")
    }

    @Test func anotherVendorsArrayIsLeftToTheDefaultModule() async throws {
        let run = try await runModule(vendor: "OTHER")
        #expect(run.wasPlayed && !run.result.succeeded, "the standard row counts, and there is no retry left")
        #expect(run.result.standardError.contains("NOT READY (04/81)"), "\(run.result.standardError)")
    }

    // MARK: Packages of their own

    @Test func everyExampleIsAPackageOfItsOwn() async throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: Document.root + "/Examples").filter { !$0.hasPrefix(".") }.sorted()
        #expect(names == ["CopyTool", "KeyValueLog", "QuickStart", "VendorDSM"])
        let readme = try Document.read("README.md").text
        for name in names {
            let folder = Document.root + "/Examples/" + name
            #expect(readme.contains("](Examples/\(name))"), "the README does not name \(name)")
            #expect(FileManager.default.fileExists(atPath: folder + "/README.md"))
            // What it is made of is built as a target of this package.
            let manifest = try String(contentsOfFile: folder + "/Package.swift", encoding: .utf8)
            #expect(manifest.contains("name: \"\(name)\""))
            #expect(manifest.contains(".product(name: \"MPIO\", package: \"mpio\")"))
            #expect(manifest.contains(".package(name: \"mpio\", path: \"../..\")"))
            #expect(FileManager.default.isExecutableFile(atPath: DocumentedArray.builtFolder + "/" + name))
        }
    }

    private func readyArray() throws -> DocumentedArray {
        let array = try DocumentedArray(units: ["0=memory,size=8M", "1=memory,size=8M"])
        try array.writePolicy(smallestFile())
        return array
    }

    /// Bytes that look alike nowhere.
    private func noise(_ count: Int) -> [UInt8] {
        var state: UInt64 = 88_172_645_463_325_252
        return (0..<count).map { _ in
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return UInt8(truncatingIfNeeded: state)
        }
    }

    @Test func theCopyToolCopiesEachWay() async throws {
        let array = try readyArray()
        // Ends within a block.
        let image = noise(3 << 20 + 1000)
        try array.folder.file("image.raw", contents: image)
        try array.folder.file("ones.raw", contents: [UInt8](repeating: 1, count: 4 << 20))
        func run(_ line: String) async throws -> CommandResult { try await array.runLine("CopyTool " + line) }

        #expect(try await run("./ones.raw vm-store").succeeded)
        let written = try await run("./image.raw vm-store --verify --depth 3")
        #expect(written.succeeded && written.standardOutput == "verified\n" && written.standardError.isEmpty, "\(written.standardError)")
        let copied = try await run("vm-store scratch --verify")
        #expect(copied.succeeded && copied.standardOutput == "verified\n", "\(copied.standardError)")
        #expect(try await run("scratch ./back.raw").succeeded)
        let back = [UInt8](try Data(contentsOf: URL(fileURLWithPath: array.folder.file("back.raw"))))
        #expect(back.count == 8 << 20)
        #expect(back.prefix(image.count).elementsEqual(image))
        // The rest of the block in which the image ends is what it was.
        #expect(back[image.count..<(4 << 20)].allSatisfy { $0 == 1 })
        try array.stop()
    }

    @Test func theCopyToolSaysWhatIsWrong() async throws {
        let array = try readyArray()
        try array.folder.sparseFile("large.raw", byteCount: 9 << 20)
        for (line, status, words) in [
            ("./large.raw vm-store", 1, "9437184 bytes do not fit into 8388608"), ("vm-store", 64, "one source and one destination"),
            ("vm-store vm-store", 64, "are the same"), ("./missing.raw vm-store", 1, "No such file"), ("vm-store other", 1, "has no LUN 'other'"),
            ("--fast vm-store scratch", 64, "no option --fast"),
        ] as [(String, Int32, String)] {
            let result = try await array.runLine("CopyTool " + line)
            #expect(result.exitStatus == status && result.standardError.contains(words), "\(line): \(result.end) \(result.standardError)")
        }
        try array.stop()
    }

    @Test func theLogKeepsWhatWasAcknowledgedWhenItsProcessIsKilled() async throws {
        let array = try readyArray()
        #expect(try await array.runLine("KeyValueLog scratch list").standardError.contains("there is no log on this disk"))
        #expect(try await array.runLine("KeyValueLog scratch create").succeeded)
        let filling = try array.startLine("KeyValueLog scratch fill 1000000")
        func printed() throws -> [String] {
            let text = try String(contentsOfFile: array.folder.file("background.out"), encoding: .utf8)
            // The last line may be cut.
            return text.components(separatedBy: "\n").dropLast()
        }
        #expect(try await eventually(within: .seconds(60)) { try printed().count > 50 })
        filling.send(signal: SIGKILL)
        #expect(filling.wait(timeout: .seconds(10)) == .signalled(SIGKILL))
        let kept = try await array.runLine("KeyValueLog scratch list")
        #expect(kept.succeeded, "\(kept.standardError)")
        let keys = Set(kept.standardOutput.split(separator: "\n").map(String.init))
        for key in try printed() { #expect(keys.contains(key)) }
        #expect(try await array.runLine("KeyValueLog scratch get key-7").standardOutput == "value 7\n")
        try array.stop()
    }

    @Test func theLogEndsBeforeARecordThatIsNotWhole() async throws {
        let array = try readyArray()
        func log(_ line: String) async throws -> CommandResult { try await array.runLine("KeyValueLog scratch " + line) }
        #expect(try await log("create && KeyValueLog scratch put a 1 && KeyValueLog scratch put b 2 && KeyValueLog scratch put c 3").succeeded)
        // The header, then a block for each record: the third one was not written to its end.
        try array.folder.file("torn.raw", contents: [UInt8](repeating: 0xEE, count: 512))
        #expect(try await array.runLine("mpio write scratch --offset 1536 --input torn.raw").succeeded)
        #expect(try await log("list").standardOutput == "a\nb\n")
        // What follows on it goes where it was.
        #expect(try await log("put d 4").succeeded)
        #expect(try await log("list").standardOutput == "a\nb\nd\n")
        #expect(try await log("get b").standardOutput == "2\n")
        try array.stop()
    }

    @Test func theLogForgetsWhatIsDeletedAndNothingElseWhenItIsCompacted() async throws {
        let array = try readyArray()
        func log(_ line: String) async throws -> CommandResult { try await array.runLine("KeyValueLog scratch " + line) }
        #expect(try await log("create && KeyValueLog scratch fill 20 > /dev/null").succeeded)
        #expect(try await log("put key-3 other && KeyValueLog scratch delete key-4").succeeded)
        let compacted = try await log("compact")
        // A header block; 20 records, one more, and that of the deletion. Then 19.
        #expect(compacted.standardOutput == "11776 bytes before, 10240 now, of 4194304\n", "\(compacted.standardOutput)\(compacted.standardError)")
        #expect(try await log("list").standardOutput.split(separator: "\n").count == 19)
        #expect(try await log("get key-3").standardOutput == "other\n")
        #expect(try await log("get key-4").exitStatus == 1)
        // Another log in its place knows nothing of this one, though its records are still there.
        #expect(try await log("create && KeyValueLog scratch list").standardOutput.isEmpty)
        try array.stop()
    }
}
