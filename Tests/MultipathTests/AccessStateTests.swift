import SCSI
import Testing
import Timebase

@testable import Multipath

@Suite struct AccessStateTests {
    private static func groups(_ first: AccessState, _ second: AccessState) -> [TargetPortGroup] {
        [
            TargetPortGroup(identifier: 1, state: first, relativePorts: [1]),
            TargetPortGroup(identifier: 2, state: second, relativePorts: [2]),
        ]
    }

    /// Two controllers: path a to the optimized one, b to the other.
    private func array(_ second: AccessState = .nonOptimized, _ kind: PolicyKind = .roundRobin) -> Harness {
        let harness = Harness(LUNSettings(policy: PolicySettings(kind)))
        for (name, port) in [("a", 1), ("b", 2)] {
            let path = harness.add(name)
            harness.up(
                path, device: Harness.device(alua: .implicit, group: UInt16(port), port: UInt16(port)),
                groups: Self.groups(.optimized, second))
        }
        harness.probes.removeAll()
        harness.events.removeAll()
        return harness
    }

    @Test func eachPathTakesTheStateOfItsOwnGroup() {
        let harness = array()
        #expect(harness.lun.pathState(PathIndex(0)) == .activeOptimized)
        #expect(harness.lun.pathState(PathIndex(1)) == .activeNonOptimized)
        #expect(harness.route(3) == "aaa")
    }

    @Test func aStateChangeIsAskedForOnEveryPathAndFollowed() {
        let harness = array()
        let read = harness.read()
        harness.complete(read, .sense(.unitAttention, 0x2A, 0x06))
        #expect(harness.path(of: read) == PathIndex(0))
        #expect(harness.probes.map(\.path) == [PathIndex(0), PathIndex(1)])
        #expect(harness.probes.allSatisfy { $0.reason == .accessStates })
        for path in [0, 1] {
            harness.lun.accessStatesReported(
                PathIndex(path), Self.groups(.standby, .optimized), at: harness.now)
        }
        harness.drain()
        #expect(harness.route(3) == "bbb")
        #expect(
            harness.events.contains(
                .accessStateChanged(PathIndex(1), from: .nonOptimized, to: .optimized)))
    }

    @Test func aRefreshWhoseAnswerIsDroppedForAFullProbeIsNotWaitedForEver() {
        let harness = array()
        let (first, second) = (harness.read(), harness.read(16))
        harness.complete(first, .sense(.unitAttention, 0x2A, 0x06))
        // A path has one probe at a time: this one takes the place of the refresh.
        harness.complete(second, .sense(.unitAttention, 0x3F, 0x0E))
        #expect(harness.probes.filter { $0.path == PathIndex(0) }.map(\.reason) == [.accessStates, .recheck])
        harness.lun.accessStatesReported(PathIndex(1), Self.groups(.optimized, .nonOptimized), at: harness.now)
        harness.up(
            PathIndex(0), device: Harness.device(alua: .implicit, group: 1, port: 1), groups: Self.groups(.optimized, .nonOptimized))
        harness.probes.removeAll()
        let third = harness.read(32)
        #expect(harness.path(of: third) == PathIndex(0))
        harness.complete(third, .sense(.unitAttention, 0x2A, 0x06))
        #expect(harness.probes.map(\.path) == [PathIndex(0), PathIndex(1)])
    }

    @Test func whereControllersDisagreeEachIsBelievedForItself() {
        let harness = array()
        // a's port claims that the other group is gone; b is asked itself.
        harness.lun.accessStatesReported(
            PathIndex(0), Self.groups(.optimized, .unavailable), at: harness.now)
        harness.drain()
        #expect(harness.lun.pathState(PathIndex(1)) == .activeNonOptimized)
    }

    @Test func aTransitionIsWaitedForOnTheOtherGroupAtNoCost() {
        let harness = array()
        let read = harness.read()
        harness.complete(read, .sense(.notReady, 0x04, 0x0A))
        #expect(harness.lun.pathState(PathIndex(0)) == .transitioning)
        #expect(harness.path(of: read) == PathIndex(1))
        harness.probes.removeAll()
        harness.lun.accessStatesReported(
            PathIndex(0), Self.groups(.transitioning, .nonOptimized), at: harness.now)
        harness.advance(.seconds(2))
        #expect(harness.probes.contains { $0.path == PathIndex(0) && $0.reason == .accessStates })
        harness.lun.accessStatesReported(
            PathIndex(0), Self.groups(.optimized, .nonOptimized), at: harness.now)
        #expect(harness.route(2) == "aa")
    }

    @Test func whenAllPathsAreInTransitionRequestsWaitAndNoPathFails() {
        let harness = array()
        let read = harness.read()
        harness.complete(read, .sense(.notReady, 0x04, 0x0A))
        harness.complete(read, .sense(.notReady, 0x04, 0x0A))
        #expect(harness.path(of: read) == nil)
        #expect(harness.lun.noPathSince == nil)
        harness.advance(.seconds(30))
        #expect(harness.result(of: read) == nil)
        harness.lun.accessStatesReported(
            PathIndex(1), Self.groups(.standby, .optimized), at: harness.now)
        harness.drain()
        #expect(harness.path(of: read) == PathIndex(1))
        #expect(!harness.events.contains { if case .pathLost = $0 { true } else { false } })
    }

    @Test func aTransitionWithoutEndCountsAsStandbyAndIsAskedOn() {
        let harness = array()
        harness.complete(harness.read(), .sense(.notReady, 0x04, 0x0A))
        for _ in 0..<40 {
            harness.advance(.seconds(2))
            harness.lun.accessStatesReported(
                PathIndex(0), Self.groups(.transitioning, .nonOptimized), at: harness.now)
            harness.drain()
        }
        #expect(harness.lun.pathState(PathIndex(0)) == .standby)
        harness.probes.removeAll()
        harness.advance(.seconds(2))
        #expect(harness.probes.contains { $0.path == PathIndex(0) })
        harness.lun.accessStatesReported(
            PathIndex(0), Self.groups(.optimized, .nonOptimized), at: harness.now)
        #expect(harness.route(1) == "a")
    }

    @Test(arguments: [(UInt8(0x0B), "standby"), (0x0C, "unavailable"), (0x12, "unavailable")])
    func aPathThatSaysItMustNotCarryDataIsNotUsedAgain(_ qualifier: UInt8, _ state: String) {
        let harness = array()
        let read = harness.read()
        harness.complete(read, .sense(.notReady, 0x04, qualifier))
        #expect(harness.lun.pathState(PathIndex(0))?.name == state)
        #expect(harness.path(of: read) == PathIndex(1))
    }

    @Test func standbyPathsAreAskedOftenWhileNoOtherIsLeft() {
        let harness = array(.standby)
        let read = harness.read()
        harness.down(PathIndex(0))
        #expect(harness.probes.contains { $0.path == PathIndex(1) && $0.reason == .accessStates })
        #expect(harness.path(of: read) == nil, "standby never carries data")
        harness.lun.accessStatesReported(PathIndex(1), Self.groups(.optimized, .standby), at: harness.now)
        harness.drain()
        harness.probes.removeAll()
        harness.advance(.seconds(2))
        #expect(!harness.probes.isEmpty)
        harness.lun.accessStatesReported(
            PathIndex(1), Self.groups(.unavailable, .optimized), at: harness.now)
        harness.drain()
        #expect(harness.path(of: read) == PathIndex(1))
    }

    @Test func withoutALUAAPathThatWasInTransitionIsVerifiedAndUsedAgain() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.probes.removeAll()
        let read = harness.read()
        harness.complete(read, .sense(.notReady, 0x04, 0x0A))
        #expect(harness.path(of: read) == PathIndex(1))
        #expect(harness.probes.contains { $0.path == PathIndex(0) && $0.reason == .verify })
        harness.lun.pathVerified(PathIndex(0), nil, at: harness.now)
        #expect(harness.route(1) == "a")
    }

    @Test func aStandbyPathWhoseCapacityIsUnverifiedMustShowItBeforeItCarriesData() {
        let harness = Harness(LUNSettings(policy: PolicySettings(.failOverOnly)))
        let a = harness.add("a")
        let b = harness.add("b")
        harness.up(a)
        let device = Harness.device(alua: .implicit, group: 2, port: 2)
        harness.lun.pathLoggedIn(b, at: harness.now)
        harness.lun.pathConnected(
            b,
            PathReport(
                device: device, accessState: .standby,
                targetPortGroups: Self.groups(.optimized, .standby), isCapacityVerified: false),
            at: harness.now)
        harness.drain()
        harness.down(a)
        harness.probes.removeAll()
        harness.lun.accessStatesReported(b, Self.groups(.unavailable, .optimized), at: harness.now)
        harness.drain()
        #expect(harness.probes.map(\.reason) == [.recheck])
        let read = harness.read()
        #expect(harness.path(of: read) == nil)
        harness.lun.pathConnected(
            b, PathReport(device: device, targetPortGroups: Self.groups(.unavailable, .optimized)),
            at: harness.now)
        harness.drain()
        #expect(harness.path(of: read) == b)
    }
}
