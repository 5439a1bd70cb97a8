import SCSI
import Testing
import Timebase

@testable import Multipath

/// Asymmetric access: which group is used, and when the array is asked to make one active.
@Suite struct ALUATests {
    private static let all: SupportedAccessStates = [.optimized, .nonOptimized, .standby, .unavailable, .transitioning]

    private static func group(
        _ identifier: UInt16, _ state: AccessState, preferred: Bool = false, status: TargetPortGroupStatus = .none,
        supported: SupportedAccessStates = ALUATests.all
    ) -> TargetPortGroup {
        TargetPortGroup(
            identifier: identifier, state: state, isPreferred: preferred, supportedStates: supported, status: status,
            relativePorts: [identifier])
    }

    /// A path for each group, told apart by name: a, b, c …
    private func array(
        _ groups: [TargetPortGroup], support: TargetPortGroupSupport = .explicit, policy: PolicyKind = .roundRobin,
        transitionTime: Duration? = nil, _ change: (inout LUNSettings) -> Void = { _ in }
    ) -> Harness {
        var settings = LUNSettings(policy: PolicySettings(policy))
        change(&settings)
        let harness = Harness(settings)
        let paths = groups.indices.map { harness.add(String(UnicodeScalar(UInt8(97 + $0)))) }
        for (path, group) in zip(paths, groups) {
            harness.lun.pathLoggedIn(path, at: harness.now)
            let device = Harness.device(alua: support, group: group.identifier, port: group.identifier)
            harness.lun.pathConnected(
                path, PathReport(device: device, targetPortGroups: groups, implicitTransitionTime: transitionTime),
                at: harness.now)
            harness.drain()
        }
        harness.probes.removeAll()
        harness.events.removeAll()
        return harness
    }

    /// Answers every question for access states that is out, by what `groups` says.
    private func report(_ groups: [TargetPortGroup], _ harness: Harness) {
        let asked = harness.probes.filter { $0.reason == .accessStates }.map(\.path)
        harness.probes.removeAll()
        for path in asked {
            harness.lun.accessStatesReported(path, groups, at: harness.now)
            harness.drain()
        }
    }

    private func answer(_ outcome: PathOutcome, _ harness: Harness) {
        guard let transition = harness.transitions.last else {
            Issue.record("nothing was asked for")
            return
        }
        harness.lun.transitionFinished(transition.path, transition.change, outcome, at: harness.now)
        harness.drain()
    }

    /// Path a on the optimized group is lost under a read; b waits in standby.
    private func orphaned(
        support: TargetPortGroupSupport = .explicit, status: TargetPortGroupStatus = .none,
        _ change: (inout LUNSettings) -> Void = { _ in }
    ) -> (Harness, RequestIndex?) {
        let harness = array([Self.group(1, .optimized), Self.group(2, .standby)], support: support, change)
        let read = harness.read()
        harness.down(PathIndex(0))
        report([Self.group(1, .optimized), Self.group(2, .standby, status: status)], harness)
        return (harness, read)
    }

    private static let toSecond = ExplicitTransition(
        path: PathIndex(1), change: TargetPortGroupChange(identifier: 2, state: .optimized))

    // MARK: Who claims

    @Test func unitsWithAccessStatesAreClaimedByTheALUAModule() {
        #expect(array([Self.group(1, .optimized)]).lun.dsm.name == "alua")
        #expect(Harness(policy: .roundRobin, paths: 1).lun.dsm.name == "default")
    }

    // MARK: Preferred groups

    @Test func amongOptimizedGroupsThePreferredOneCarriesAll() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .optimized, preferred: true)])
        #expect(harness.route(3) == "bbb")
        #expect(harness.lun.explain(at: harness.now).paths[0].words.contains("prefers"))
        harness.down(PathIndex(1))
        #expect(harness.route(2) == "aa")
    }

    @Test func thePreferredBitCanBeIgnored() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .optimized, preferred: true)]) {
            $0.asymmetricAccess.followsPreferredBit = false
        }
        #expect(harness.route(4) == "abab")
    }

    @Test func anOptimizedGroupGoesBeforeAPreferredOneThatIsNot() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .nonOptimized, preferred: true)])
        #expect(harness.route(2) == "aa")
    }

    @Test func aMarginalPathIsNoBetterForBeingPreferred() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .optimized, preferred: true)])
        for _ in 0..<3 {
            harness.down(PathIndex(1))
            harness.up(
                PathIndex(1), device: Harness.device(alua: .explicit, group: 2, port: 2),
                groups: [Self.group(1, .optimized), Self.group(2, .optimized, preferred: true)])
        }
        #expect(harness.lun.pathState(PathIndex(1))?.name == "marginal")
        #expect(harness.route(2) == "aa")
    }

    // MARK: Explicit transitions

    @Test func theArrayIsAskedToMakeAStandbyGroupActiveWhenNoOtherIsLeft() {
        let (harness, read) = orphaned()
        #expect(harness.transitions == [Self.toSecond])
        answer(.good, harness)
        #expect(harness.path(of: read) == nil, "the group has not said yet that it is active")
        report([Self.group(1, .standby), Self.group(2, .optimized, status: .alteredExplicitly)], harness)
        #expect(harness.path(of: read) == PathIndex(1))
        #expect(harness.transitions.count == 1)
        #expect(harness.events.contains(.transitionEnded(PathIndex(1), Self.toSecond.change, .good)))
    }

    @Test func nothingIsAskedBeforeTheStatesWereReadAnew() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .standby)])
        harness.read()
        harness.down(PathIndex(0))
        #expect(harness.transitions.isEmpty)
        #expect(harness.probes.map(\.path) == [PathIndex(1)])
        // The array had moved already.
        report([Self.group(1, .standby), Self.group(2, .optimized)], harness)
        #expect(harness.transitions.isEmpty)
    }

    @Test func anIdleHostPullsNothing() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .standby)])
        harness.down(PathIndex(0))
        report([Self.group(1, .optimized), Self.group(2, .standby)], harness)
        harness.advance(.seconds(1))
        #expect(harness.transitions.isEmpty)
        let read = harness.read()
        harness.advance(.seconds(2))
        report([Self.group(1, .optimized), Self.group(2, .standby)], harness)
        #expect(harness.transitions == [Self.toSecond])
        #expect(harness.path(of: read) == nil)
    }

    @Test func aUnitThatIsStandbyEverywhereIsMadeActiveToBeOpened() {
        let harness = array([Self.group(1, .standby), Self.group(2, .standby, preferred: true)])
        #expect(harness.transitions == [Self.toSecond], "the preferred one, once both paths have told")
    }

    @Test func anImplicitArrayIsNeverAskedAndOneThatIsBothGetsAMomentFirst() {
        let (implicit, _) = orphaned(support: .implicit)
        implicit.advance(.seconds(10))
        #expect(implicit.transitions.isEmpty)
        let (both, _) = orphaned(support: [.implicit, .explicit])
        #expect(both.transitions.isEmpty)
        both.advance(.milliseconds(1_900))
        #expect(both.transitions.isEmpty)
        both.advance(.milliseconds(200))
        report([Self.group(1, .optimized), Self.group(2, .standby)], both)
        #expect(both.transitions == [Self.toSecond])
    }

    @Test func theOptionLeavesTheArrayAlone() {
        let (harness, _) = orphaned { $0.asymmetricAccess.setsTargetPortGroups = false }
        harness.advance(.seconds(10))
        #expect(harness.transitions.isEmpty)
    }

    @Test func aTransitionThatIsUnderWayIsWaitedForAndNotPushed() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .standby)])
        let read = harness.read()
        harness.down(PathIndex(0))
        report([Self.group(1, .standby), Self.group(2, .transitioning)], harness)
        for _ in 0..<10 {
            harness.advance(.seconds(2))
            report([Self.group(1, .standby), Self.group(2, .transitioning)], harness)
        }
        #expect(harness.transitions.isEmpty)
        #expect(harness.result(of: read) == nil, "waited for beyond pdo-remove-period: it is on its way")
        harness.advance(.seconds(2))
        report([Self.group(1, .standby), Self.group(2, .optimized)], harness)
        #expect(harness.path(of: read) == PathIndex(1))
    }

    @Test func triesAreFartherAndFartherApart() {
        let (harness, _) = orphaned { $0.timers.pdoRemovePeriod = .never }
        let start = harness.now
        var times: [Double] = []
        while harness.now - start < .seconds(40) {
            if harness.transitions.count > times.count {
                times.append(Double((harness.now - start).wholeNanoseconds) / 1e9)
                answer(.sense(.hardwareError, 0x67, 0x0A), harness)
            }
            report([Self.group(1, .optimized), Self.group(2, .standby)], harness)
            harness.advance(.milliseconds(100))
        }
        #expect(times.count == 6, "\(times)")
        let pauses = zip(times.dropFirst(), times).map { $0 - $1 }
        for (pause, wanted) in zip(pauses, [1.0, 2, 4, 8, 16]) { #expect(abs(pause - wanted) < 0.3, "\(pauses)") }
    }

    @Test func theChoiceOfAnotherInitiatorStandsForAMoment() {
        // Group 1 was made active by somebody else and is out of our reach.
        let harness = array([Self.group(1, .optimized), Self.group(2, .standby)])
        harness.read()
        harness.down(PathIndex(0))
        report([Self.group(1, .optimized), Self.group(2, .standby, status: .alteredExplicitly)], harness)
        harness.advance(.milliseconds(4_900))
        report([Self.group(1, .optimized), Self.group(2, .standby, status: .alteredExplicitly)], harness)
        #expect(harness.transitions.isEmpty)
        harness.advance(.milliseconds(200))
        report([Self.group(1, .optimized), Self.group(2, .standby, status: .alteredExplicitly)], harness)
        #expect(harness.transitions == [Self.toSecond])
    }

    @Test func twoHostsThatPullInTurnSlowDown() {
        // Each time our group was made active the other host takes it back at once.
        let (harness, _) = orphaned { $0.timers.pdoRemovePeriod = .never }
        let start = harness.now
        var count = 0
        while harness.now - start < .seconds(120) {
            if harness.transitions.count > count {
                count = harness.transitions.count
                answer(.good, harness)
                report([Self.group(1, .standby), Self.group(2, .optimized)], harness)
                for copy in harness.inFlight { harness.complete(copy, .sense(.notReady, 0x04, 0x0B)) }
            }
            report([Self.group(1, .optimized), Self.group(2, .standby, status: .alteredExplicitly)], harness)
            harness.advance(.milliseconds(100))
        }
        #expect((4...9).contains(count), "\(count)")
    }

    @Test func aGroupThatRefusesIsTriedAfterTheOthers() {
        let groups = [Self.group(1, .optimized), Self.group(2, .standby), Self.group(3, .standby)]
        let harness = array(groups)
        harness.read()
        harness.down(PathIndex(0))
        report(groups, harness)
        #expect(harness.transitions.last?.change.identifier == 2)
        answer(.sense(.illegalRequest, 0x26, 0x00), harness)
        report(groups, harness)
        harness.advance(.milliseconds(1_100))
        report(groups, harness)
        #expect(harness.transitions.map(\.change.identifier) == [2, 3])
    }

    @Test func aGroupThatCannotBeOptimizedIsNotAskedForAndStandbyGoesBeforeUnavailable() {
        let groups = [
            Self.group(1, .optimized), Self.group(2, .standby, supported: [.standby]), Self.group(3, .unavailable),
            Self.group(4, .standby),
        ]
        let harness = array(groups)
        harness.read()
        harness.down(PathIndex(0))
        report(groups, harness)
        #expect(harness.transitions.map(\.change.identifier) == [4])
    }

    @Test func aUnitAttentionBeforeTheTransitionCostsNothing() {
        let (harness, _) = orphaned()
        answer(.sense(.unitAttention, 0x2A, 0x06), harness)
        report([Self.group(1, .optimized), Self.group(2, .standby)], harness)
        #expect(harness.transitions == [Self.toSecond, Self.toSecond])
    }

    @Test func aPathLostUnderATransitionHoldsNothingUp() {
        let groups = [Self.group(1, .optimized), Self.group(2, .standby), Self.group(3, .standby)]
        let harness = array(groups)
        harness.read()
        harness.down(PathIndex(0))
        report(groups, harness)
        #expect(harness.transitions.map(\.path) == [PathIndex(1)])
        harness.down(PathIndex(1))
        harness.advance(.milliseconds(1_100))
        report(groups, harness)
        #expect(harness.transitions.map(\.path) == [PathIndex(1), PathIndex(2)])
        // The late answer of the first is nobody's.
        harness.lun.transitionFinished(PathIndex(1), Self.toSecond.change, .good, at: harness.now)
        answer(.good, harness)
    }

    @Test func aStalledControllerIsLeftForAStandbyOne() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .standby)])
        let write = harness.write(100)
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        report([Self.group(1, .optimized), Self.group(2, .standby)], harness)
        #expect(harness.transitions == [Self.toSecond])
        answer(.good, harness)
        report([Self.group(1, .standby), Self.group(2, .optimized)], harness)
        #expect(harness.path(of: write) == PathIndex(1))
    }

    // MARK: The two controllers

    @Test func controllersThatBothCallThemselvesStandbyAreEachBelieved() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .standby)])
        let read = harness.read()
        harness.complete(read, .sense(.notReady, 0x04, 0x0B))
        // Each says that the other is the active one.
        harness.lun.accessStatesReported(PathIndex(0), [Self.group(1, .standby), Self.group(2, .optimized)], at: harness.now)
        harness.lun.accessStatesReported(PathIndex(1), [Self.group(1, .optimized), Self.group(2, .standby)], at: harness.now)
        harness.drain()
        #expect(harness.path(of: read) == nil)
        #expect(harness.transitions.map(\.path) == [PathIndex(0)], "the first configured is asked to take over")
    }

    @Test func controllersThatBothCallThemselvesActiveAreBothUsed() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .standby)])
        harness.lun.accessStatesReported(PathIndex(1), [Self.group(1, .standby), Self.group(2, .optimized)], at: harness.now)
        harness.drain()
        #expect(harness.route(4) == "abab")
    }

    // MARK: Transitions of its own

    @Test func anArrayThatSaysHowLongATransitionTakesIsBelieved() {
        let harness = array([Self.group(1, .optimized), Self.group(2, .standby)], support: .implicit, transitionTime: .seconds(200))
        harness.complete(harness.read(), .sense(.notReady, 0x04, 0x0A))
        for _ in 0..<90 {
            harness.advance(.seconds(2))
            report([Self.group(1, .transitioning), Self.group(2, .transitioning)], harness)
        }
        #expect(harness.lun.pathState(PathIndex(0)) == .transitioning)
        for _ in 0..<15 {
            harness.advance(.seconds(2))
            report([Self.group(1, .transitioning), Self.group(2, .transitioning)], harness)
        }
        #expect(harness.lun.pathState(PathIndex(0)) == .standby)
    }

    @Test func theProbeAsksForTheTransitionTimeAndTakesARefusalOfIt() {
        var probe = PathProbe(
            reason: .connected, targetName: nil, known: nil, dsm: DefaultDSM(policy: PolicySettings(.roundRobin)))
        var step = probe.start()
        var asked: [Bool] = []
        var report: PathReport?
        loop: for _ in 0..<20 {
            guard case .send(let cdb, _) = step else { break }
            switch (cdb.bytes[0], cdb.bytes[1] & 0x1F) {
            case (0x12, 0): step = probe.answered(.good, data: InquiryData(
                targetPortGroupSupport: .implicit, vendor: "V", product: "P", revision: "1").encode())
            case (0x12, _), (0x9E, _): 
                step = probe.answered(cdb.bytes[0] == 0x12 ? .sense(.illegalRequest, 0x24, 0) : .good,
                    data: cdb.bytes[0] == 0x12 ? [] : ReadCapacity16Data(blockCount: 8, blockSize: 512).encode())
            case (0xA3, _):
                asked.append(cdb.bytes[1] & 0xE0 == 0x20)
                step = asked.last! && asked.count == 1
                    ? probe.answered(.sense(.illegalRequest, 0x24, 0), data: [])
                    : probe.answered(.good, data: TargetPortGroupReport(groups: [Self.group(1, .optimized)]).encode())
            default: step = probe.answered(.good, data: [])
            }
            if case .finished(.usable(let found)) = step { report = found; break loop }
        }
        #expect(asked == [true, false])
        #expect(report?.targetPortGroups.count == 1 && report?.implicitTransitionTime == nil)
    }
}

@Suite struct UnsizedPathTests {
    @Test func aUnitThatNoPathTellsTheSizeOfIsMadeActiveBeforeItIsDefined() {
        let harness = Harness(LUNSettings(policy: PolicySettings(.roundRobin)))
        let path = harness.add("a")
        let standby = TargetPortGroup(
            identifier: 1, state: .standby, supportedStates: [.optimized, .standby], relativePorts: [1])
        var active = standby
        active.state = .optimized
        let device = Harness.device(blockCount: 1, alua: .explicit, group: 1, port: 1)
        harness.lun.pathLoggedIn(path, at: harness.now)
        harness.lun.pathConnected(
            path, PathReport(device: device, targetPortGroups: [standby], isCapacityVerified: false), at: harness.now)
        harness.drain()
        #expect(harness.lun.device == nil)
        #expect(harness.transitions.map(\.path) == [path])
        harness.probes.removeAll()
        harness.lun.transitionFinished(path, harness.transitions[0].change, .good, at: harness.now)
        harness.lun.accessStatesReported(path, [active], at: harness.now)
        harness.drain()
        #expect(harness.probes.map(\.reason) == [.accessStates, .recheck])
        let sized = Harness.device(alua: .explicit, group: 1, port: 1)
        harness.lun.pathConnected(path, PathReport(device: sized, targetPortGroups: [active]), at: harness.now)
        harness.drain()
        #expect(harness.lun.device == sized)
        #expect(harness.route(1) == "a")
    }
}
