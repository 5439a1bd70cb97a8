import Foundation
import MPIO
import Testing
import TestSupport

/// A controller that dies, falls silent or comes back under verified load: what the program sees of it.
@Suite(.serialized)
struct PathLossTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory("loss")
    }

    private static let up = Array(repeating: PathState.activeOptimized, count: 4)

    @Test func aKilledTargetIsHardlyNoticedAndComesBackByItself() async throws {
        let (first, second) = try TgtServer.dualController(in: directory)
        try await DiskSetup(first, second).withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Self.up))
            let load = VerifiedLoad(disk, .init(depth: 32))
            load.start()
            try await load.proceed(1000)
            var pauses: [Duration] = []
            for (round, controller) in [first, second, first].enumerated() {
                let lost = controller === first ? [0, 1] : [2, 3]
                let redriven = try await disk.redrivenCount
                _ = load.takeLongestPause()
                controller.kill9()
                try await load.proceed(1000)
                let pause = load.takeLongestPause()
                print("kill -9 of a target under load, round \(round): longest pause \(pause), "
                    + "\(try await disk.redrivenCount - redriven) requests re-driven")
                pauses.append(pause)
                for index in lost { #expect(try await disk.waitForPath(index, .failed)) }
                let path = try await disk.paths[lost[0]]
                #expect(path.lastError?.reason.hasPrefix("connection") == true, "\(String(describing: path.lastError))")

                let before = try await disk.requestCounts()
                try controller.restart()
                #expect(try await disk.waitForStates(Self.up))
                try await load.proceed(1000)
                let carried = differences(try await disk.requestCounts(), before)
                for count in carried { #expect(count > 100, "\(carried)") }
            }
            expectBrief(pauses)
            try await load.stop()
            expectClean(load)
            try await load.verifyDisk()
            try load.verify(file: first.backingFile)
            expectClean(load)
            #expect(try await disk.status.fence == "clear")
        }
    }

    /// The connection is reset, the target lives: the case in which the network is at fault.
    @Test func aConnectionThatIsResetOverAndOverLosesNothing() async throws {
        let server = try TgtServer.withFile(in: directory)
        let links = try server.portals.map { try FaultyLink(to: $0) }
        var setup = DiskSetup(server)
        for (index, link) in links.enumerated() { setup.paths[index] = .init(target: server.targetName, portal: link.portal) }
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Self.up))
            // Few blocks: that overlapping writes wait for the guard is part of what is tried.
            let load = VerifiedLoad(disk, .init(depth: 32, blockCount: 512))
            load.start()
            var worst = Duration.zero
            for round in 0..<16 {
                try await load.proceed(100)
                _ = load.takeLongestPause()
                links[round % 4].reset()
                try await load.proceed(200)
                worst = max(worst, load.takeLongestPause())
            }
            try await load.stop()
            print("connection reset under load, 16 times: longest pause \(worst)")
            #expect(worst < .seconds(2))
            #expect(try await disk.redrivenCount > 0)
            expectClean(load)
            try await load.verifyDisk()
            try load.verify(file: server.backingFile)
            expectClean(load)
        }
    }

    @Test func aSilentTargetIsLeftAfterTheSilenceTimeoutAndUsedAgainOnceItSpeaks() async throws {
        let (first, second) = try TgtServer.dualController(in: directory)
        var setup = DiskSetup(first, second)
        setup.timers["silence-timeout"] = "500ms"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Self.up))
            let load = VerifiedLoad(disk, .init(depth: 32, blockCount: 16_000))
            load.start()
            try await load.proceed(500)
            _ = load.takeLongestPause()
            try first.stop()
            #expect(try await disk.waitForStates([.stalled, .stalled, .activeOptimized, .activeOptimized]))
            try await load.proceed(500)
            let pause = load.takeLongestPause()
            print("SIGSTOP of a target under load, silence-timeout 500 ms: longest pause \(pause)")
            #expect(pause > .milliseconds(200) && pause < .seconds(5))
            try first.cont()
            #expect(try await disk.waitForStates(Self.up))
            let before = try await disk.requestCounts()
            try await load.proceed(500)
            let carried = differences(try await disk.requestCounts(), before)
            for count in carried { #expect(count > 50, "\(carried)") }
            try await load.stop()
            expectClean(load)
            try await load.verifyDisk()
            try load.verify(file: first.backingFile)
            expectClean(load)
        }
    }

    /// What the stale-write guard is there for, with a real target: a write that is held by the network, re-driven
    /// over another path and done, lands late. The next write to the same block must be the last all the same.
    @Test func aWriteThatLandsLateIsNeverSeen() async throws {
        let server = try TgtServer.withFile(portalCount: 2, in: directory)
        let link = try FaultyLink(to: server.portals[0])
        var setup = DiskSetup(server, policy: "fail-over-only")
        setup.paths[0] = .init(target: server.targetName, portal: link.portal)
        setup.timers["silence-timeout"] = "200ms"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            let (old, new, back) = (IOBuffer(byteCount: 4096), IOBuffer(byteCount: 4096), IOBuffer(byteCount: 4096))
            memset(old.bytes.baseAddress!, 1, 4096)
            memset(new.bytes.baseAddress!, 2, 4096)
            link.hold(.toTarget)
            // Goes over the link first, is held there, and is done over the other path.
            try await disk.write(old, at: 0)
            #expect(link.heldByteCount(.toTarget) >= 4096)
            let isDone = Locked(false)
            async let later: Void = {
                try await disk.write(new, at: 0)
                isDone.withLock { $0 = true }
            }()
            // Other blocks and reads go on while it waits.
            try await disk.write(old, at: 8192)
            try await disk.read(into: back, at: 0)
            #expect(back[0] == 1)
            #expect(!isDone.withLock { $0 })
            #expect(try await disk.status.fence != "clear")
            link.release()
            try await later
            #expect(try await eventually { try await disk.status.fence == "clear" })
            try await disk.read(into: back, at: 0)
            #expect(back[0] == 2 && back[4095] == 2)
            try await QemuIO(server.url(portal: 1)).verify(pattern: 2, at: 0, byteCount: 4096)
        }
    }

    /// The same where the connection is lost: a login by the same ISID through the other portal of the group
    /// ends the old session's commands, while the path's own portal is still cut off.
    @Test func aWriteOfALostSessionIsNeverSeen() async throws {
        let server = try TgtServer.withFile(portalCount: 2, in: directory)
        let link = try FaultyLink(to: server.portals[0])
        var setup = DiskSetup(server, policy: "fail-over-only")
        setup.paths[0] = .init(target: server.targetName, portal: link.portal)
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            let (old, new, back) = (IOBuffer(byteCount: 4096), IOBuffer(byteCount: 4096), IOBuffer(byteCount: 4096))
            memset(old.bytes.baseAddress!, 1, 4096)
            memset(new.bytes.baseAddress!, 2, 4096)
            link.hold(.toTarget)
            async let first: Void = disk.write(old, at: 0)
            #expect(try await eventually { link.heldByteCount(.toTarget) >= 4096 })
            link.cut()
            try await first
            #expect(try await disk.waitForPath(0, .failed))
            try await disk.write(new, at: 0)
            #expect(try await disk.status.fence == "clear")
            link.release()
            try link.restore()
            #expect(try await disk.waitForPath(0, .activeOptimized))
            try await disk.read(into: back, at: 0)
            #expect(back[0] == 2 && back[4095] == 2)
        }
    }

    // MARK: All paths

    @Test func withoutAnyPathRequestsWaitForTheRemovePeriodAndThenFail() async throws {
        let (first, second) = try TgtServer.dualController(portalCount: 1, in: directory)
        var setup = DiskSetup(first, second)
        setup.timers["pdo-remove-period"] = "3s"
        try await setup.withDisk(in: directory) { disk in
            let buffer = IOBuffer(byteCount: 4096)
            try await disk.write(buffer, at: 0)
            for server in [first, second] { server.kill9() }
            #expect(try await eventually { try await disk.status.state == .failed })
            let lostAt = ContinuousClock.now
            await #expect(throws: DiskError.noPathsAvailable) { try await disk.write(buffer, at: 0) }
            let waited = lostAt.duration(to: .now)
            print("all paths gone, pdo-remove-period 3 s: failed after \(waited)")
            #expect(waited > .seconds(1) && waited < .seconds(10))
            // The period is over: what comes now does not wait again.
            let again = ContinuousClock.now
            await #expect(throws: DiskError.noPathsAvailable) { try await disk.read(into: buffer, at: 0) }
            #expect(again.duration(to: .now) < .seconds(2))
            try first.restart()
            #expect(try await disk.waitForPath(0, .activeOptimized))
            try await disk.read(into: buffer, at: 0)
        }
    }

    @Test func withoutAnyPathAndARemovePeriodOfZeroRequestsFailAtOnce() async throws {
        let server = try TgtServer.withFile(portalCount: 2, in: directory)
        var setup = DiskSetup(server)
        setup.timers["pdo-remove-period"] = "0s"
        try await setup.withDisk(in: directory) { disk in
            server.kill9()
            let isLost = try await eventually { try await disk.status.state == .failed }
            #expect(isLost)
            let buffer = IOBuffer(byteCount: 4096)
            let start = ContinuousClock.now
            await #expect(throws: DiskError.noPathsAvailable) { try await disk.read(into: buffer, at: 0) }
            #expect(start.duration(to: .now) < .seconds(10))
        }
    }

    @Test func aPathThatIsBackInTimeFailsNoRequest() async throws {
        let (first, second) = try TgtServer.dualController(portalCount: 1, in: directory)
        var setup = DiskSetup(first, second)
        setup.timers["pdo-remove-period"] = "20s"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            let load = VerifiedLoad(disk)
            load.start()
            try await load.proceed(500)
            first.kill9()
            second.kill9()
            #expect(try await eventually { try await disk.status.state == .failed })
            #expect(try await eventually { try await disk.status.queued == 32 })
            try await Task.sleep(for: .milliseconds(300))
            try second.restart()
            try await load.proceed(500)
            // The first one's writes may still be alive for all anybody knows; it has to come back to say no.
            try first.restart()
            try await load.stop()
            expectClean(load)
            try await load.verifyDisk()
            try load.verify(file: first.backingFile)
            expectClean(load)
        }
    }
}
