import Foundation
import MPIO
import Multipath
import Testing
import TestSupport

/// Dead, stalled and slow, each under its own name and in time, over real sockets.
@Suite(.serialized)
struct LivenessTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("liveness") }

    private static func isPathLost(_ event: MultipathEvent) -> Bool {
        if case .pathLost = event { true } else { false }
    }

    private static func isStalled(_ event: MultipathEvent) -> Bool {
        if case .pathStalled = event { true } else { false }
    }

    @Test(.enabled("making a network takes root, or user namespaces, which this system does not give its users") {
        try Privileges.canMakeNetworks()
    })
    func aBlackHoleIsDead() async throws {
        guard geteuid() == 0 else {
            print(try await Privileges.runAgainInNamespaces("aBlackHoleIsDead", of: "LivenessTests", in: directory))
            return
        }
        let network = try PrivateNetwork(cables: 2)
        let portals = (0..<2).map { LoopbackPortal(address: PrivateNetwork.address($0), port: 3260) }
        let array = try EmbeddedArray(tags: [1, 1], portals: portals) { network.enter(PrivateNetwork.target) }
        let disk = try await WatchedDisk(over: portals, in: directory) { network.enter(PrivateNetwork.initiator) }
        #expect(try await disk.provenNexuses() == [.shared, .shared])
        try await disk.write(1)
        try network.swallow(cable: 0)
        let start = ContinuousClock.now
        try await disk.write(2)
        let took = start.seconds
        let lost = try #require(try await disk.first(Self.isPathLost))
        let detection = Double((lost - start).wholeMilliseconds) / 1000
        #expect(detection <= 3, "\(detection) s; silence-timeout is 2 s")
        let isNamed = disk.events.contains {
            if case .pathLost(PathIndex(0), let failure, redriven: 1) = $0 { failure.reason == .notAcknowledged } else { false }
        }
        #expect(isNamed, "\(disk.events)")
        #expect(!disk.events.contains(where: Self.isStalled))
        // Its late write is ended through the other portal of the group, without waiting for the dead one.
        let newer = ContinuousClock.now
        try await disk.write(3)
        let newerTook = newer.seconds
        #expect(newerTook < 2)
        #expect(try await disk.pattern() == 3)
        print("black hole: dead after \(detection) s, write took \(took) s, the next over the same blocks \(newerTook) s")
        try await disk.close()
        try array.stop()
    }

    @Test func aTargetThatOnlyItsKernelSpeaksForIsStalled() async throws {
        let array = try EmbeddedArray(tags: [1, 2])
        let link = try FaultyLink(to: array.portals[0])
        let disk = try await WatchedDisk(over: [link.portal, array.portals[1]], in: directory)
        try await disk.write(1)
        link.hold(.toTarget, .fromTarget)
        let start = ContinuousClock.now
        try await disk.write(2)
        let took = start.seconds
        let stalled = try #require(try await disk.first(Self.isStalled))
        let detection = Double((stalled - start).wholeMilliseconds) / 1000
        #expect(detection <= 3, "\(detection) s; silence-timeout is 2 s")
        #expect(disk.events.contains(.pathStalled(PathIndex(0), redriven: 1)), "\(disk.events)")
        #expect(!disk.events.contains(where: Self.isPathLost))
        #expect(try await disk.disk.paths[0].state == .stalled)
        link.release()
        #expect(try await disk.first { $0 == .pathResumed(PathIndex(0)) } != nil)
        #expect(link.acceptedCount == 1, "the session was kept")
        #expect(try await disk.pattern() == 2)
        print("held link: stalled after \(detection) s, write took \(took) s")
        try await disk.close()
        try array.stop()
    }

    @Test func aStoppedTgtdIsStalled() async throws {
        let (first, second) = try TgtServer.dualController(byteCount: 8 << 20, portalCount: 1, in: directory)
        let disk = try await WatchedDisk(
            over: first.portals + second.portals, of: first.targetName, lun: 1, in: directory)
        try await disk.write(1)
        try first.stop()
        let start = ContinuousClock.now
        try await disk.write(2)
        let took = start.seconds
        #expect(took <= 3, "\(took) s; silence-timeout is 2 s")
        #expect(disk.events.contains(.pathStalled(PathIndex(0), redriven: 1)), "\(disk.events)")
        #expect(!disk.events.contains(where: Self.isPathLost))
        try first.cont()
        #expect(try await disk.first { $0 == .pathResumed(PathIndex(0)) } != nil)
        print("SIGSTOP: write took \(took) s")
        try await disk.close()
    }

    @Test func aDiskThatTakesTenSecondsBehindATargetThatAnswersIsSlowAndLosesNothing() async throws {
        let array = try EmbeddedArray(tags: [1, 2])
        let disk = try await WatchedDisk(over: array.portals, in: directory)
        try await disk.write(1)
        try array.hold(Hold(Hold.writes))
        let start = ContinuousClock.now
        async let written: Void = disk.write(2)
        let slow = try #require(try await disk.first { $0 == .pathSlow(PathIndex(0), true) })
        let detection = Double((slow - start).wholeMilliseconds) / 1000
        #expect(detection <= 3, "\(detection) s; silence-timeout is 2 s")
        #expect(try await disk.pattern() == 1, "reads go on")
        try await Task.sleep(until: start + .seconds(10))
        try array.releaseAll()
        try await written
        let took = start.seconds
        #expect(took >= 10 && took < 11)
        #expect(try await disk.first { $0 == .pathSlow(PathIndex(0), false) } != nil)
        #expect(try await disk.pattern() == 2)
        #expect(!disk.events.contains(where: Self.isPathLost) && !disk.events.contains(where: Self.isStalled))
        #expect(try await disk.disk.redrivenCount == 0)
        print("10 s disk: slow after \(detection) s, write took \(took) s")
        try await disk.close()
        try array.stop()
    }

    @Test func aCommandThatIsNeverAnsweredEndsWithItsTimeAndLeavesTheBufferAlone() async throws {
        let array = try EmbeddedArray(tags: [1, 2])
        let disk = try await WatchedDisk(over: array.portals, timers: "command-timeout: 3s", in: directory)
        try await disk.write(1)
        try array.hold(Hold(Hold.reads))
        let buffer = IOBuffer(byteCount: 4096)
        let start = ContinuousClock.now
        await #expect(throws: DiskError.timedOut) { try await disk.disk.read(into: buffer, at: 0) }
        let took = start.seconds
        #expect(took >= 3 && took < 4, "\(took) s")
        // The buffer is the caller's again: the late data must not come into it.
        memset(buffer.bytes.baseAddress!, 9, buffer.byteCount)
        try array.releaseAll()
        for _ in 0..<4 { #expect(try await disk.pattern() == 1) }
        #expect(buffer.bytes.allSatisfy { $0 == 9 })
        #expect(!disk.events.contains(where: Self.isPathLost))
        print("never answered: ended after \(took) s of command-timeout 3 s")
        try await disk.close()
        try array.stop()
    }
}
