import Foundation
import Simulation
import TestSupport
import Testing

/// The shipped code over a virtual network and clock. `make soak` runs as many seeds as there is time for; here a
/// thousand, in an optimized program where one was built, because an unoptimized one takes ten times as long.
@Suite(.serialized)
struct SimulationTests {
    @Test("a hundred seeds keep every rule and do the same twice")
    func seedsKeepEveryRule() async {
        let summary = await SeedRunner(first: 1, count: 100, seconds: 150, jobs: 2, bug: nil).run { _ in }
        #expect(summary.failures.isEmpty, "\(summary.text)")
        #expect(summary.seedCount == 100, "only \(summary.seedCount) seeds in the time")
        #expect(summary.pathLossCount > 100 && summary.redrivenCount > 20, "the faults do nothing: \(summary.text)")
    }

    @Test("another process does the same with a seed")
    func sameInAnotherProcess() async throws {
        // Dictionaries and sets are ordered differently in each process.
        let program = Bundle.main.executableURL!.deletingLastPathComponent().appendingPathComponent("simulate").path
        for seed in [3, 5, 19] as [UInt64] {
            let here = Simulation(seed: seed).run()
            let there = try await CommandRunner.run(program, ["\(seed)"], timeout: .seconds(60))
            #expect(there.standardOutput.contains("trace \(String(here.traceHash, radix: 16))\n"), "\(there.standardOutput)")
        }
    }

    @Test("another seed does something else")
    func seedsDiffer() {
        #expect(Simulation(seed: 1).run().traceHash != Simulation(seed: 2).run().traceHash)
    }
}
