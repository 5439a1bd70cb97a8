import SCSI
import Testing
import Timebase

@testable import Multipath

@Suite struct FailOverTests {
    @Test func requestsOfALostPathGoToAnotherAtOnceInTheirOriginalOrder() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let requests = (0..<10).map { harness.read(UInt64($0) * 8) }
        let onA = requests.filter { harness.path(of: $0) == PathIndex(0) }.map { $0!.slot }
        harness.issued.removeAll()
        harness.down(PathIndex(0))
        #expect(harness.issued.map(\.request.slot) == onA)
        #expect(harness.issued.allSatisfy { $0.path == PathIndex(1) })
        #expect(harness.events.contains(.pathLost(PathIndex(0), PathFailure(.connectionReset), redriven: 5)))
        #expect(
            harness.events.contains(.failOver(from: PathIndex(0), to: PathIndex(1), redriven: 5, pause: .zero)))
        harness.completeAll()
        #expect(harness.finished.allSatisfy { $0.result == .done })
        #expect(harness.finishCount == 10)
    }

    private func failOvers(_ harness: Harness) -> [(redriven: Int, pause: Duration)] {
        harness.events.compactMap { if case .failOver(_, _, let redriven, let pause) = $0 { (redriven, pause) } else { nil } }
    }

    /// From the last answer, where requests had been under way before it.
    @Test func thePauseBeginsWithThePathsLastAnswer() throws {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let first = harness.read()
        harness.read(8)
        harness.now = harness.now + .milliseconds(100)
        harness.complete(first)
        harness.now = harness.now + .milliseconds(250)
        harness.down(PathIndex(0))
        let found = try #require(failOvers(harness).first)
        #expect(found.redriven == 1 && found.pause == .milliseconds(250) && failOvers(harness).count == 1)
        let event = try #require(harness.events.first { if case .failOver = $0 { true } else { false } })
        #expect(event.redriven == 1 && event.pause == .milliseconds(250))
    }

    /// An idle path had nobody waiting, however long it was idle.
    @Test func thePauseBeginsWithTheFirstRequestWhereThePathWasIdle() throws {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.now = harness.now + .seconds(30)
        for block in 0..<3 {
            harness.read(UInt64(block) * 8)
            harness.now = harness.now + .milliseconds(40)
        }
        harness.lun.pathStalled(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(failOvers(harness).count == 1)
        let found = try #require(failOvers(harness).first)
        #expect(found.redriven == 3 && found.pause == .milliseconds(120))
    }

    /// The first request that comes back takes the path along; it counts as well.
    @Test func thePauseIsKnownAlsoWhereTheFirstAbandonedRequestTellsOfTheLoss() throws {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        for block in 0..<2 { harness.read(UInt64(block) * 8) }
        let old = harness.inFlight
        harness.now = harness.now + .milliseconds(7)
        for copy in old { harness.complete(copy, .returned(wasSent: true, .connectionReset)) }
        harness.down(PathIndex(0))
        #expect(failOvers(harness).count == 1)
        let found = try #require(failOvers(harness).first)
        #expect(found.redriven == 2 && found.pause == .milliseconds(7))
    }

    @Test func withNothingUnderWayNobodyWaited() throws {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.now = harness.now + .seconds(3)
        harness.down(PathIndex(0))
        let found = try #require(failOvers(harness).first)
        #expect(found.redriven == 0 && found.pause == .zero)
    }

    @Test func aRetriedRequestKeepsItsPlaceWhenItsPathIsLost() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let requests = (0..<4).map { harness.read(UInt64($0) * 8) }
        harness.complete(requests[1], .sense(.unitAttention, 0x29, 0))
        harness.issued.removeAll()
        harness.down(PathIndex(0))
        #expect(harness.issued.map(\.request.slot) == requests.map { $0!.slot })
    }

    @Test func theFirstAbandonedRequestFailsThePathAndTheOthersFollowInOrder() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        let requests = (0..<4).map { harness.write(UInt64($0) * 8) }
        let old = harness.inFlight
        harness.issued.removeAll()
        for copy in old { harness.complete(copy, .returned(wasSent: false, .connectionReset)) }
        // Until it is told that the session is over, its memory may be touched.
        #expect(harness.withdrawn == Array(old.dropFirst()))
        harness.down(PathIndex(0))
        #expect(harness.issued.map(\.request.slot) == requests.map { $0!.slot })
        #expect(harness.lun.guardState == .clear)
        let lost = harness.events.count { if case .pathLost = $0 { true } else { false } }
        #expect(lost == 1)
    }

    @Test func withAllPathsLostRequestsWaitForTheRemovePeriodThenFail() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let first = harness.read()
        harness.down(PathIndex(0))
        harness.down(PathIndex(1))
        #expect(harness.events.contains(.allPathsLost))
        harness.advance(.seconds(19))
        let second = harness.read(8)
        #expect(harness.result(of: first) == nil)
        harness.advance(.seconds(1))
        #expect(harness.result(of: first) == .failed(.noPathsAvailable))
        #expect(harness.result(of: second) == .failed(.noPathsAvailable))
        // Later ones do not wait again.
        let third = harness.read(16)
        #expect(harness.result(of: third) == .failed(.noPathsAvailable))
        harness.up(PathIndex(0))
        let fourth = harness.read(24)
        harness.complete(fourth)
        #expect(harness.result(of: fourth) == .done)
    }

    @Test func onePathBackInTimeFailsNone() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let requests = (0..<6).map { harness.write(UInt64($0) * 8) }
        harness.down(PathIndex(0))
        harness.down(PathIndex(1))
        harness.advance(.seconds(19.9))
        harness.issued.removeAll()
        harness.up(PathIndex(1))
        for fence in harness.fences where fence.step == .abortTaskSet {
            harness.lun.fenceResult(fence.path, fence.step, .done, at: harness.now)
        }
        harness.drain()
        #expect(harness.issued.map(\.request.slot) == requests.map { $0!.slot })
        harness.completeAll()
        #expect(harness.finished.allSatisfy { $0.result == .done })
    }

    @Test func aRemovePeriodOfZeroFailsAtOnce() {
        let harness = Harness(policy: .roundRobin, paths: 1) {
            $0.timers.pdoRemovePeriod = .after(.zero)
        }
        let request = harness.read()
        harness.down(PathIndex(0))
        #expect(harness.result(of: request) == .failed(.noPathsAvailable))
    }

    @Test func neverWaitsUntilAPathIsBack() {
        let harness = Harness(policy: .roundRobin, paths: 1) { $0.timers.pdoRemovePeriod = .never }
        let request = harness.read()
        harness.down(PathIndex(0))
        harness.advance(.seconds(3600))
        #expect(harness.result(of: request) == nil)
        harness.up(PathIndex(0))
        #expect(harness.path(of: request) == PathIndex(0))
        // And its time began anew.
        harness.advance(.seconds(59))
        #expect(harness.result(of: request) == nil)
        harness.advance(.seconds(1))
        #expect(harness.result(of: request) == .failed(.timedOut))
    }

    @Test func commandTimeoutBoundsARequestThatIsNeverAnswered() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let request = harness.write()
        harness.advance(.seconds(59))
        #expect(harness.result(of: request) == nil)
        harness.advance(.seconds(1))
        #expect(harness.result(of: request) == .failed(.timedOut))
        #expect(harness.withdrawn.count == 1)
        // What may still land bars later writes until it is answered.
        let later = harness.write()
        #expect(harness.path(of: later) == nil)
        harness.complete(harness.withdrawn[0])
        #expect(harness.path(of: later) != nil)
    }

    @Test func whatADrainedPathCarriesIsBoundedByItsTimeoutAlsoWhereNoPathIsLeft() throws {
        let harness = Harness(policy: .roundRobin, paths: 1) { $0.timers.pdoRemovePeriod = .never }
        let flying = harness.write()
        harness.lun.takeOut(PathIndex(0), .drain, at: harness.now)
        harness.drain()
        harness.advance(.seconds(30))
        let waiting = harness.read(64)
        harness.advance(.seconds(29))
        #expect(harness.result(of: flying) == nil)
        harness.advance(.seconds(1))
        #expect(harness.result(of: flying) == .failed(.timedOut))
        let old = try #require(harness.aborted.first)
        // What was not sent waits for a path, as it may for ever.
        harness.advance(.seconds(600))
        #expect(harness.result(of: waiting) == nil)
        harness.lun.completed(
            old.request, on: PathIndex(0), outcome: .status(.taskAborted, nil), at: harness.now)
        harness.lun.restore(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.path(of: waiting) == PathIndex(0))
        #expect(harness.path(of: harness.write()) == PathIndex(0))
    }

    @Test func whatAStandbyPathCarriesIsBoundedByItsTimeoutTooAndWhatWaitsByTheRemovePeriod() {
        let harness = Harness(policy: .roundRobin, paths: 1)
        let flying = harness.read()
        harness.lun.accessStatesReported(
            PathIndex(0), [TargetPortGroup(identifier: 1, state: .standby, relativePorts: [1])], at: harness.now)
        harness.drain()
        let waiting = harness.read(64)
        #expect(harness.path(of: waiting) == nil)
        harness.advance(.seconds(20))
        #expect(harness.result(of: waiting) == .failed(.noPathsAvailable))
        #expect(harness.result(of: flying) == nil)
        harness.advance(.seconds(40))
        #expect(harness.result(of: flying) == .failed(.timedOut))
    }

    @Test func aTableThatIsFullTurnsRequestsAway() {
        let harness = Harness(policy: .roundRobin, paths: 1, capacity: 2)
        let first = harness.read()
        harness.read(8)
        #expect(harness.read(16) == nil)
        harness.complete(first)
        #expect(harness.read(16) != nil)
    }

    @Test func closingFailsWhatWaitsAndWhatIsAdmittedLater() {
        let harness = Harness(policy: .roundRobin, paths: 1)
        let flying = harness.write()
        let waiting = harness.write()
        harness.lun.close(at: harness.now)
        harness.drain()
        #expect(harness.result(of: waiting) == .failed(.closed))
        #expect(harness.result(of: flying) == nil)
        harness.complete(flying)
        #expect(harness.result(of: flying) == .done)
        #expect(harness.result(of: harness.read()) == .failed(.closed))
    }
}

@Suite struct OverlapTests {
    @Test func aLaterOverlappingWriteWaitsForTheEarlier() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let first = harness.write(0, blocks: 16)
        let second = harness.write(8, blocks: 16)
        let apart = harness.write(64, blocks: 16)
        let read = harness.read(8)
        #expect(harness.path(of: second) == nil)
        #expect(harness.path(of: apart) != nil)
        #expect(harness.path(of: read) != nil)
        harness.complete(first)
        #expect(harness.path(of: second) != nil)
    }

    @Test func aChainOfOverlapsKeepsItsOrder() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let requests = (0..<5).map { harness.write(UInt64($0) * 4, blocks: 8) }
        var order: [UInt32] = []
        while let copy = harness.inFlight.first {
            order.append(copy.request.slot)
            harness.complete(copy)
        }
        // 0 and 2 and 4 share no block, but each waits for the one before it, which came first.
        #expect(order == requests.map { $0!.slot })
    }

    @Test func unmapsAndWideRangesAreKeptApartToo() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let unmap = harness.admit(RequestDescriptor(kind: .unmap, lba: 1 << 20, blockCount: 1 << 19))
        let inside = harness.write((1 << 20) + 5000)
        let outside = harness.write((1 << 20) - 8)
        #expect(harness.path(of: inside) == nil)
        #expect(harness.path(of: outside) != nil)
        harness.complete(unmap)
        #expect(harness.path(of: inside) != nil)
    }

    @Test func theRangeIndexIsEmptyAgainAfterAll() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        for step in 0..<200 {
            harness.write(UInt64(step % 7) * 3, blocks: UInt32(1 + step % 3000))
            if harness.inFlight.count > 3 { harness.complete(harness.inFlight[0]) }
        }
        harness.completeAll()
        let isEmpty = harness.lun.ranges.isEmpty
        let mightOverlap = harness.lun.ranges.mightOverlap(0, 100)
        #expect(isEmpty)
        #expect(!mightOverlap)
    }
}

@Suite struct RecoveryTests {
    @Test func aLostPathIsTriedAgainAfterOneSecondDoublingToForty() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        harness.connects.removeAll()
        var pauses: [Int] = []
        var last = harness.now
        harness.down(PathIndex(0))
        for _ in 0..<8 {
            while harness.connects.isEmpty { harness.advance(.milliseconds(500)) }
            pauses.append(Int((harness.now - last).components.seconds))
            last = harness.now
            harness.connects.removeAll()
            harness.down(PathIndex(0), .connectionRefused)
        }
        #expect(pauses == [1, 2, 4, 8, 16, 32, 40, 40])
    }

    @Test func aPathMustProveItselfBeforeItCarriesData() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.down(PathIndex(0))
        harness.probes.removeAll()
        harness.advance(.seconds(1))
        harness.lun.pathLoggedIn(PathIndex(0), at: harness.now)
        harness.drain()
        #expect(harness.probes.map(\.reason) == [.connected])
        #expect(harness.route(2) == "bb")
        harness.lun.pathConnected(PathIndex(0), PathReport(device: Harness.device()), at: harness.now)
        harness.drain()
        #expect(harness.route(2) == "aa")
    }

    @Test func aProbeThatFailsIsRepeatedWithoutConnectingAnew() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.down(PathIndex(0))
        harness.advance(.seconds(1))
        harness.lun.pathLoggedIn(PathIndex(0), at: harness.now)
        harness.lun.pathProbeFailed(
            PathIndex(0), .connected, PathFailure(.logicalUnitMissing), at: harness.now)
        harness.drain()
        harness.probes.removeAll()
        harness.connects.removeAll()
        harness.advance(.seconds(2))
        #expect(harness.probes.map(\.reason) == [.connected])
        #expect(harness.connects.isEmpty)
    }

    @Test func anIdlePathIsVerifiedAndABusyOneIsNot() {
        let harness = Harness(policy: .failOverOnly, paths: 2)
        harness.probes.removeAll()
        var verified: [PathIndex] = []
        for _ in 0..<70 {
            harness.complete(harness.read())
            harness.advance(.seconds(1))
            for probe in harness.probes where probe.reason == .verify {
                verified.append(probe.path)
                harness.lun.pathVerified(probe.path, nil, at: harness.now)
            }
            harness.probes.removeAll()
        }
        #expect(verified == [PathIndex(1), PathIndex(1)])
    }

    @Test func aFailedVerificationFailsThePath() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        harness.advance(.seconds(30))
        #expect(harness.probes.contains { $0.path == PathIndex(1) && $0.reason == .verify })
        harness.lun.pathProbeFailed(
            PathIndex(1), .verify, PathFailure(.logicalUnitMissing), at: harness.now)
        harness.drain()
        #expect(harness.route(2) == "aa")
    }

    @Test func aFlappingPathIsMarginalAndStaysOutLongerEachTime() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        var holds: [Duration] = []
        for _ in 0..<6 {
            harness.down(PathIndex(0))
            harness.advance(.seconds(1))
            harness.up(PathIndex(0))
            for case .pathMarginal(_, let hold) in harness.events { holds.append(hold) }
            harness.events.removeAll()
        }
        #expect(holds == [.seconds(10), .seconds(20), .seconds(40), .seconds(80)])
        #expect(harness.lun.pathState(PathIndex(0))?.name == "marginal")
        #expect(harness.route(3) == "bbb")
        harness.advance(.seconds(80))
        #expect(Set(harness.route(4)) == ["a", "b"])
        #expect(harness.events.contains(.pathNoLongerMarginal(PathIndex(0))))
    }

    @Test func aMarginalPathCarriesWhenNothingElseIsLeft() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        for _ in 0..<3 {
            harness.down(PathIndex(0))
            harness.up(PathIndex(0))
        }
        #expect(harness.route(2) == "bb")
        harness.down(PathIndex(1))
        #expect(harness.route(2) == "aa")
    }

    @Test func aLongTimeWithoutLossForgivesFlapping() {
        var tracker = MarginalTracker()
        let settings = MarginalPathSettings()
        for second in [0.0, 1, 2] { _ = tracker.lost(at: .seconds(1000 + second), settings) }
        #expect(tracker.lost(at: .seconds(1010), settings) == .seconds(20))
        #expect(tracker.lost(at: .seconds(1400), settings) == nil)
    }
}

@Suite struct IdentityTests {
    private static let other = LogicalUnitIdentity.naa6(high: 0x6001_4050_0000_0002, low: 2)

    @Test func aPathToAnotherUnitIsRefusedAndBothAreNamed() {
        let harness = Harness()
        harness.up(harness.add("a"))
        let b = harness.add("b")
        harness.up(b, device: Harness.device(identity: Self.other))
        guard case .refused(let reason)? = harness.lun.pathState(b) else {
            Issue.record("not refused")
            return
        }
        #expect(reason.description.contains(Harness.identity.description))
        #expect(reason.description.contains(Self.other.description))
        #expect(harness.route(4) == "aaaa")
        #expect(harness.events.contains(.pathRefused(b, reason)))
    }

    @Test(arguments: [Harness.device(blockCount: 1000), Harness.device(blockSize: 4096)])
    func anotherCapacityOrBlockSizeIsRefused(_ device: DeviceDescription) {
        let harness = Harness()
        harness.up(harness.add("a"))
        let b = harness.add("b")
        harness.up(b, device: device)
        #expect(harness.lun.pathState(b)?.name == "refused")
    }

    @Test func aUnitSwappedBehindAReconnectingPathGetsNoWrite() {
        let harness = Harness(policy: .roundRobin, paths: 1)
        harness.down(PathIndex(0))
        let write = harness.write()
        harness.up(PathIndex(0), device: Harness.device(identity: Self.other))
        #expect(harness.path(of: write) == nil)
        harness.advance(.seconds(5))
        harness.up(PathIndex(0))
        #expect(harness.path(of: write) != nil)
    }

    @Test func aPinnedIdentityRefusesEvenTheFirstPath() {
        let harness = Harness()
        harness.lun.pin(Self.other)
        let a = harness.add("a")
        harness.up(a)
        #expect(harness.lun.pathState(a)?.name == "refused")
        #expect(harness.lun.device == nil)
    }

    @Test func aDeviceWithoutIdentityIsAcceptedAloneButNeverAsASecondPath() {
        let harness = Harness()
        let a = harness.add("a")
        let b = harness.add("b")
        harness.up(a, device: Harness.device(identity: nil))
        harness.up(b, device: Harness.device(identity: nil))
        #expect(harness.lun.pathState(a)?.name == "active/optimized")
        #expect(harness.lun.pathState(b) == .refused(.unidentified))
    }

    @Test func afterAnInventoryChangeNothingGoesOutBeforeThePathProvedItself() {
        let harness = Harness(policy: .roundRobin, paths: 1)
        harness.probes.removeAll()
        let write = harness.write()
        harness.complete(write, .sense(.unitAttention, 0x3F, 0x0E))
        #expect(harness.probes.map(\.reason) == [.recheck])
        #expect(harness.path(of: write) == nil)
        #expect(harness.events.contains(.notice(PathIndex(0), .inventoryChanged)))
        harness.lun.pathConnected(PathIndex(0), PathReport(device: Harness.device()), at: harness.now)
        harness.drain()
        #expect(harness.path(of: write) != nil)
    }

    @Test func aUnitThatGrewAndSaidSoIsTakenOver() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        let read = harness.read()
        harness.complete(read, .sense(.unitAttention, 0x2A, 0x09))
        harness.lun.pathConnected(
            PathIndex(0), PathReport(device: Harness.device(blockCount: 1 << 22)), at: harness.now)
        harness.drain()
        #expect(harness.lun.device?.blockCount == 1 << 22)
        // The other path must show the new size before it carries on.
        #expect(harness.probes.last?.path == PathIndex(1))
        harness.lun.pathConnected(
            PathIndex(1), PathReport(device: Harness.device(blockCount: 1 << 22)), at: harness.now)
        harness.drain()
        #expect(Set(harness.route(4)) == ["a", "b"])
    }

    @Test func aShrunkUnitIsRefused() {
        let harness = Harness(policy: .roundRobin, paths: 2)
        harness.complete(harness.read(), .sense(.unitAttention, 0x2A, 0x09))
        harness.lun.pathConnected(
            PathIndex(0), PathReport(device: Harness.device(blockCount: 1 << 20)), at: harness.now)
        harness.drain()
        #expect(harness.lun.pathState(PathIndex(0))?.name == "refused")
    }
}
