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
}
