import SCSI
import Testing
import Timebase

@testable import Multipath

@Suite struct RoundRobinTests {
    @Test func requestsRotateOverAllPaths() {
        let harness = Harness(policy: .roundRobin, paths: 3)
        #expect(harness.route(7) == "abcabca")
    }

    @Test func switchAfterRequestsStaysThatLong() {
        let harness = Harness(
            policy: .roundRobin, options: PolicyOptions(switchAfter: .requests(3)), paths: 2)
        #expect(harness.route(9) == "aaabbbaaa")
    }

    @Test func switchAfterBytesCountsData() {
        let harness = Harness(
            policy: .roundRobin, options: PolicyOptions(switchAfter: .bytes(8192)), paths: 2)
        #expect(harness.route(6, blocks: 8) == "aabbaa")
    }

    @Test func aLostPathLeavesTheRotationAndComesBack() {
        let harness = Harness(policy: .roundRobin, paths: 3)
        harness.down(PathIndex(1))
        #expect(harness.route(4) == "acac")
        harness.up(PathIndex(1))
        let route = harness.route(6)
        #expect(Set(route) == ["a", "b", "c"])
        #expect(route.filter { $0 == "b" }.count == 2)
    }
}

@Suite struct RoundRobinWithSubsetTests {
    private func harness(_ mode: ActivateStandby = .perFailedPrimary) -> Harness {
        Harness(
            policy: .roundRobinWithSubset, options: PolicyOptions(activateStandby: mode), paths: 5,
            standbys: [3, 4])
    }

    @Test func standbysWaitWhileAllPrimariesWork() {
        #expect(harness().route(6) == "abcabc")
    }

    @Test func oneStandbyJoinsForEachLostPrimaryAndLeavesWhenItReturns() {
        let harness = harness()
        harness.down(PathIndex(0))
        #expect(Set(harness.route(12)) == ["b", "c", "d"])
        harness.down(PathIndex(2))
        #expect(Set(harness.route(12)) == ["b", "d", "e"])
        // The first one back sends its own stand-in home, not the other.
        harness.up(PathIndex(0))
        #expect(Set(harness.route(12)) == ["a", "b", "e"])
        harness.up(PathIndex(2))
        #expect(Set(harness.route(12)) == ["a", "b", "c"])
    }

    @Test func aLostStandInIsReplaced() {
        let harness = harness()
        harness.down(PathIndex(0))
        harness.down(PathIndex(3))
        #expect(Set(harness.route(12)) == ["b", "c", "e"])
    }

    @Test func withMoreLossesThanStandbysTheSurvivorsCarryAll() {
        let harness = harness()
        for path in [0, 1, 2, 3] { harness.down(PathIndex(path)) }
        #expect(harness.route(3) == "eee")
    }

    @Test func windowsWayCallsStandbysOnlyWhenNoPrimaryIsLeft() {
        let harness = harness(.whenNoneLeft)
        harness.down(PathIndex(0))
        harness.down(PathIndex(1))
        #expect(harness.route(3) == "ccc")
        harness.down(PathIndex(2))
        #expect(Set(harness.route(8)) == ["d", "e"])
        harness.up(PathIndex(1))
        #expect(harness.route(3) == "bbb")
    }

    @Test func withoutAnyPrimaryOneStandbyCarries() {
        let harness = Harness(policy: .roundRobinWithSubset, paths: 2, standbys: [0, 1])
        #expect(harness.route(3) == "aaa")
    }
}

@Suite struct FailOverOnlyTests {
    private func harness(_ mode: FailBack = .immediate) -> Harness {
        Harness(policy: .failOverOnly, options: PolicyOptions(failBack: mode), paths: 3)
    }

    @Test func onePathCarriesAllAndTheNextInOrderTakesOver() {
        let harness = harness()
        #expect(harness.route(3) == "aaa")
        harness.down(PathIndex(0))
        #expect(harness.route(3) == "bbb")
        harness.down(PathIndex(1))
        #expect(harness.route(2) == "cc")
    }

    @Test func immediateFailBackReturnsAtOnce() {
        let harness = harness()
        harness.down(PathIndex(0))
        harness.events.removeAll()
        harness.up(PathIndex(0))
        #expect(harness.route(2) == "aa")
        #expect(harness.events.contains(.failBack(from: PathIndex(1), to: PathIndex(0))))
    }

    @Test func failBackAfterATimeWaitsThatLong() {
        let harness = harness(.after(.seconds(30)))
        harness.down(PathIndex(0))
        harness.up(PathIndex(0))
        #expect(harness.route(1) == "b")
        harness.advance(.seconds(29))
        #expect(harness.route(1) == "b")
        harness.advance(.seconds(1))
        #expect(harness.route(1) == "a")
    }

    @Test func aBreakDuringTheWaitStartsItAnew() {
        let harness = harness(.after(.seconds(30)))
        harness.down(PathIndex(0))
        harness.up(PathIndex(0))
        harness.advance(.seconds(20))
        harness.down(PathIndex(0))
        harness.up(PathIndex(0))
        harness.advance(.seconds(20))
        #expect(harness.route(1) == "b")
        harness.advance(.seconds(10))
        #expect(harness.route(1) == "a")
    }

    @Test func manualFailBackWaitsForTheCommandOrAFailure() {
        let harness = harness(.manual)
        harness.down(PathIndex(0))
        harness.up(PathIndex(0))
        harness.advance(.seconds(600))
        #expect(harness.route(1) == "b")
        harness.lun.failBack(at: harness.now)
        #expect(harness.route(1) == "a")
        harness.down(PathIndex(0))
        harness.up(PathIndex(0))
        harness.down(PathIndex(1))
        #expect(harness.route(1) == "a")
    }

    @Test func aFirstPathThatIsOnlySlowToStartTakesOverEvenWithManualFailBack() {
        let harness = Harness(
            LUNSettings(policy: PolicySettings(.failOverOnly, options: PolicyOptions(failBack: .manual))))
        let a = harness.add("a")
        let b = harness.add("b")
        harness.up(b)
        #expect(harness.route(1) == "b")
        harness.up(a)
        #expect(harness.route(1) == "a")
    }

    @Test func configuredOrderCountsNotTheOrderOfArrival() {
        let harness = Harness(LUNSettings(policy: PolicySettings(.failOverOnly)))
        let late = harness.add("late", order: 2)
        let early = harness.add("early", order: 1)
        harness.up(late)
        harness.up(early)
        #expect(harness.route(1) == "early")
    }

    @Test func primariesComeBeforeStandbys() {
        let harness = Harness(policy: .failOverOnly, paths: 2, standbys: [0])
        #expect(harness.route(2) == "bb")
    }
}

@Suite struct LeastQueueDepthTests {
    @Test func tiesRotate() {
        let harness = Harness(policy: .leastQueueDepth, paths: 3)
        #expect(harness.route(6) == "abcabc")
    }

    @Test func thePathWithTheFewestOutstandingIsChosen() {
        let harness = Harness(policy: .leastQueueDepth, paths: 3)
        let requests = (0..<6).map { harness.read(UInt64($0) * 8) }
        let onB = requests.filter { harness.path(of: $0) == PathIndex(1) }
        #expect(onB.count == 2)
        onB.forEach { harness.complete($0) }
        #expect(harness.name(harness.path(of: harness.read())) == "b")
        #expect(harness.name(harness.path(of: harness.read())) == "b")
    }

    @Test func loadOfOtherLUNsOnTheSameTransportCounts() {
        let shared = PathLoad()
        let first = Harness(LUNSettings(policy: PolicySettings(.leastQueueDepth)))
        let second = Harness(LUNSettings(policy: PolicySettings(.roundRobin)))
        first.up(first.add("shared", load: shared))
        first.up(first.add("own"))
        second.up(second.add("shared", load: shared))
        let others = (0..<4).map { second.read(UInt64($0)) }
        #expect(first.read().map { first.name(first.path(of: $0)) } == "own")
        #expect(shared.counters.requests == 4)
        others.forEach { second.complete($0) }
        #expect(first.read().map { first.name(first.path(of: $0)) } == "shared")
    }
}

@Suite struct WeightedPathsTests {
    @Test func fiveThreeOneIsWithinTwoPerCentOverTenThousand() {
        let harness = Harness(policy: .weightedPaths, paths: 3, weights: [5, 3, 1])
        let route = harness.route(10_000)
        for (name, share) in [("a", 5.0 / 9), ("b", 3.0 / 9), ("c", 1.0 / 9)] {
            let count = Double(route.filter { String($0) == name }.count)
            #expect(abs(count - share * 10_000) <= 0.02 * share * 10_000, "\(name): \(count)")
        }
    }

    @Test func sharesAreInterleavedSmoothly() {
        let harness = Harness(policy: .weightedPaths, paths: 3, weights: [5, 3, 1])
        #expect(harness.route(18) == "abacababaabacababa")
    }

    @Test func aChangedWeightCountsFromTheNextRequest() {
        let harness = Harness(policy: .weightedPaths, paths: 2, weights: [1, 1])
        harness.lun.setWeight(3, of: PathIndex(1), at: harness.now)
        #expect(harness.route(8).filter { $0 == "b" }.count == 6)
    }

    @Test func priorityGivesAllToTheLowestWeight() {
        let harness = Harness(
            policy: .weightedPaths, options: PolicyOptions(weights: .priority), paths: 3, weights: [5, 1, 3])
        #expect(harness.route(3) == "bbb")
        harness.down(PathIndex(1))
        #expect(harness.route(3) == "ccc")
    }
}

@Suite struct LeastBlocksTests {
    @Test func thePathWithTheLeastDataOutstandingIsChosen() {
        let harness = Harness(policy: .leastBlocks, paths: 2)
        let large = harness.read(0, blocks: 1024)
        #expect(harness.name(harness.path(of: large)) == "a")
        for lba in 0..<5 { #expect(harness.name(harness.path(of: harness.read(UInt64(lba)))) == "b") }
        harness.complete(large)
        #expect(harness.name(harness.path(of: harness.read())) == "a")
    }

    @Test func sequentialAffinityKeepsStreamsOnTheirPaths() {
        let harness = Harness(
            policy: .leastBlocks, options: PolicyOptions(sequentialAffinity: true), paths: 2)
        let first = harness.read(0)
        let second = harness.read(100_000)
        #expect(harness.name(harness.path(of: first)) == "a")
        #expect(harness.name(harness.path(of: second)) == "b")
        for step in 1..<5 {
            #expect(harness.name(harness.path(of: harness.read(UInt64(step) * 8))) == "a")
            #expect(harness.name(harness.path(of: harness.read(100_000 + UInt64(step) * 8))) == "b")
        }
    }

    @Test func sequentialWritesLeaveAPathThatHasAMebibyteOutstanding() {
        let harness = Harness(
            policy: .leastBlocks, options: PolicyOptions(sequentialAffinity: true), paths: 2)
        let names = (0..<4).map { harness.name(harness.path(of: harness.write(UInt64($0) * 1024, blocks: 1024))) }
        #expect(names == ["a", "a", "b", "b"])
        #expect(harness.lun.lastDecisions(4)[1].reason == .sequentialStream)
        #expect(harness.lun.lastDecisions(4)[2].reason == .fewestBytes(count: 0, next: 1 << 20))
    }
}

@Suite struct SelectionTests {
    @Test(arguments: PolicyKind.allCases)
    func explainSaysWhereTheNextRequestGoesAndDisturbsNothing(_ kind: PolicyKind) {
        let harness = Harness(policy: kind, paths: 4, weights: [5, 3, 1, 2], standbys: [3])
        for step in 0..<200 {
            let said = harness.lun.explain(at: harness.now)
            #expect(harness.lun.explain(at: harness.now) == said)
            let request = harness.read(UInt64(step) * 8)
            #expect(harness.path(of: request) == said.path)
            #expect(harness.lun.lastDecisions(1).first?.reason == said.selection.reason)
            #expect(said.summary.contains(harness.name(said.path)))
            if step % 3 != 0 || harness.inFlight.count > 20 { harness.complete(harness.inFlight[0]) }
        }
    }

    @Test(arguments: PolicyKind.allCases)
    func nonOptimizedPathsCarryOnlyWhenNoOptimizedOneIsLeft(_ kind: PolicyKind) {
        let harness = Harness(LUNSettings(policy: PolicySettings(kind)))
        let a = harness.add("a")
        let b = harness.add("b")
        let c = harness.add("c")
        harness.up(a, state: .nonOptimized)
        harness.up(b, state: .optimized)
        harness.up(c, state: .standby)
        #expect(Set(harness.route(6)) == ["b"])
        harness.down(b)
        #expect(Set(harness.route(6)) == ["a"])
        harness.down(a)
        let waiting = harness.read()
        #expect(harness.path(of: waiting) == nil)
        #expect(harness.result(of: waiting) == nil)
    }

    @Test(arguments: PolicyKind.allCases)
    func aPolicyChangeUnderLoadLosesNothing(_ kind: PolicyKind) {
        let harness = Harness(policy: .roundRobin, paths: 3)
        for lba in 0..<20 { harness.write(UInt64(lba) * 8) }
        harness.lun.setPolicy(PolicySettings(kind), at: harness.now)
        harness.drain()
        for lba in 20..<40 { harness.write(UInt64(lba) * 8) }
        harness.completeAll()
        #expect(harness.finishCount == 40)
        #expect(harness.finished.allSatisfy { $0.result == .done })
    }

    @Test func namesAndNumbersAreTheDocumentedOnes() {
        #expect(PolicyKind.allCases.map(\.shortName) == ["FOO", "RR", "RRWS", "LQD", "WP", "LB"])
        #expect(PolicyKind.allCases.map(\.number) == [1, 2, 3, 4, 5, 6])
        #expect(PolicyKind(name: "rrws") == .roundRobinWithSubset)
        #expect(PolicyKind(name: "Weighted-Paths") == .weightedPaths)
        #expect(PolicyKind(name: "rr2") == nil)
    }
}
