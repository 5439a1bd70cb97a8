import SCSI
import Testing
import Timebase

@testable import Multipath

@Suite struct ExplanationTests {
    private func summary(_ harness: Harness) -> String { harness.lun.explain(at: harness.now).summary }

    @Test func leastQueueDepthTellsItsNumbers() {
        let harness = Harness(policy: .leastQueueDepth, paths: 2)
        harness.read(0)
        harness.read(8)
        harness.read(16)
        #expect(summary(harness) == "least-queue-depth: a has 2 outstanding, b has 1; next goes to b")
    }

    @Test func everyPolicyTellsItsState() {
        #expect(summary(Harness(policy: .roundRobin, paths: 3)) == "round-robin: a, b, c take turns; next goes to a: its turn among 3")
        #expect(summary(Harness(policy: .failOverOnly, paths: 2)) == "fail-over-only: in order a, b; next goes to a")
        #expect(
            summary(Harness(policy: .weightedPaths, paths: 2, weights: [3, 1]))
                == "weighted-paths: a has weight 3, b has 1, of 4; next goes to a: its share, 3 of 4")
        #expect(
            summary(Harness(policy: .weightedPaths, options: PolicyOptions(weights: .priority), paths: 2, weights: [3, 1]))
                == "weighted-paths: a has weight 3, b has 1, the lowest carries all; next goes to b")
        #expect(
            summary(Harness(policy: .roundRobinWithSubset, paths: 3, standbys: [2]))
                == "round-robin-with-subset: a, b are primary and take turns; c standby; next goes to a: its turn among 2")
        let blocks = Harness(policy: .leastBlocks, paths: 2)
        blocks.read(0, blocks: 8)
        #expect(summary(blocks) == "least-blocks: a has 4096 bytes outstanding, b has 0; next goes to b")
    }

    @Test func aLUNWithoutPathsSaysThatItWaits() {
        let harness = Harness(policy: .roundRobin, paths: 1)
        harness.down(PathIndex(0))
        #expect(summary(harness) == "round-robin: the next request waits: no path is usable")
    }

    @Test func manyPathsAreNotAllNamed() {
        let text = summary(Harness(policy: .roundRobin, paths: 12))
        #expect(text.contains("a, b, c, d, e, f, g, h and 4 more take turns"))
    }

    // MARK: Incidents

    @Test func whatGoesWellIsNoIncident() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let request = harness.read(0)!
        harness.complete(request)
        #expect(harness.lun.lastIncidents(10).isEmpty && harness.lun.lastDecisions(10).count == 1)
    }

    @Test func reDrivesAndErrorsAreKept() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.read(100)
        harness.down(PathIndex(0))
        let redriven = harness.lun.lastIncidents(10)
        #expect(redriven.map(\.kind) == [.redriven] && redriven[0].path == PathIndex(0) && redriven[0].request.lba == 100)
        let copy = harness.inFlight[0]
        let outcome = PathOutcome.status(.checkCondition, SenseData(key: .mediumError, additional: AdditionalSense(0x11, 0x00)))
        harness.lun.completed(copy.request, on: copy.path, outcome: outcome, at: harness.now)
        #expect(harness.lun.lastIncidents(1).map(\.kind) == [.error(outcome)])
    }

    @Test func theLastOnesAreKeptInOrder() {
        let harness = Harness(policy: .failOverOnly, paths: 1, capacity: 400)
        for block in 0..<300 { harness.read(UInt64(block) * 8) }
        harness.down(PathIndex(0))
        let kept = harness.lun.lastIncidents(1000)
        let expected: [UInt64] = (44..<300).map { block in UInt64(block) * 8 }
        let found: [UInt64] = kept.map { $0.request.lba }
        #expect(found == expected)
        let newest: [UInt64] = harness.lun.lastIncidents(3).map { $0.request.lba }
        #expect(newest == [2376, 2384, 2392])
        #expect(harness.lun.lastIncidents(-1).isEmpty)
    }

    // MARK: Changes

    @Test func changesAreEventsAndOnlyWhereTheyAreOnes() {
        let harness = Harness(policy: .weightedPaths, paths: 2)
        harness.lun.setWeight(5, of: PathIndex(1), at: harness.now)
        harness.lun.setWeight(5, of: PathIndex(1), at: harness.now)
        harness.lun.setRole(.standby, of: PathIndex(0), at: harness.now)
        harness.lun.setPlace(7, name: "z", of: PathIndex(0), at: harness.now)
        var settings = harness.lun.settings
        settings.timers.retryCount = 9
        let old = harness.lun.settings
        harness.lun.update(settings, at: harness.now)
        harness.lun.update(settings, at: harness.now)
        harness.drain()
        #expect(
            harness.events == [
                .weightChanged(PathIndex(1), from: 1, to: 5), .roleChanged(PathIndex(0), from: .primary, to: .standby),
                .settingsChanged(from: old, to: settings),
            ])
        #expect(harness.lun.path(named: "z") == PathIndex(0) && harness.lun.path(named: "a") == nil)
        #expect(summary(harness).hasPrefix("weighted-paths: b has weight 5, z has 1"))
    }
}
