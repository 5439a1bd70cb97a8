import Foundation
import MPIO
import Multipath
import Testing
import TestSupport

/// How the six policies spread requests over four sessions to a real tgtd, counted here and by tgtd.
@Suite(.serialized)
struct PolicyInteropTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory("policies")
    }

    /// Runs verified requests and returns how many each path carried, as mpio and as the target counted them.
    private func spread(
        _ count: Int, depth: Int = 16, over server: TgtServer, _ setup: DiskSetup
    ) async throws -> (paths: [UInt64], target: [UInt64]) {
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Array(repeating: .activeOptimized, count: setup.paths.count)))
            func atTarget() throws -> [UInt64] {
                let statistics = try server.statisticsByPeer()
                return try setup.paths.map { path in
                    let statistic = try #require(statistics[path.source ?? ""])
                    return statistic.readCommandCount + statistic.writeCommandCount
                }
            }
            let load = VerifiedLoad(disk, .init(depth: depth))
            let before = (try await disk.requestCounts(), try atTarget())
            try await load.run(requestCount: count)
            let after = (try await disk.requestCounts(), try atTarget())
            expectClean(load)
            return (differences(after.0, before.0), differences(after.1, before.1))
        }
    }

    @Test func roundRobinGivesEveryPathTheSame() async throws {
        let server = try TgtServer.withFile(in: directory)
        let (paths, target) = try await spread(4000, over: server, DiskSetup(server))
        #expect(paths == [1000, 1000, 1000, 1000])
        #expect(target == paths)
    }

    @Test func roundRobinMovesOnAfterSoManyRequests() async throws {
        let server = try TgtServer.withFile(in: directory)
        var setup = DiskSetup(server)
        setup.lunKeys = "switch-after: 500"
        // 500 for each path, and then the first one's turn again.
        let (paths, target) = try await spread(2500, over: server, setup)
        #expect(paths.sorted() == [500, 500, 500, 1000])
        #expect(target == paths)
    }

    @Test func weightedPathsShareInProportion() async throws {
        let server = try TgtServer.withFile(portalCount: 3, in: directory)
        var setup = DiskSetup(server, policy: "weighted-paths")
        let weights = [5, 3, 1]
        for (index, weight) in weights.enumerated() { setup.paths[index].keys = "weight: \(weight)" }
        let (paths, target) = try await spread(10_000, depth: 32, over: server, setup)
        for (count, weight) in zip(paths, weights) {
            let share = 10_000.0 * Double(weight) / 9
            #expect(abs(Double(count) - share) <= share * 0.02, "\(paths)")
        }
        #expect(target == paths)
        #expect(paths.reduce(0, +) == 10_000)
    }

    @Test func byPriorityTheLowestWeightCarriesAll() async throws {
        let server = try TgtServer.withFile(portalCount: 3, in: directory)
        var setup = DiskSetup(server, policy: "weighted-paths")
        setup.lunKeys = "weights: priority"
        for (index, weight) in [5, 1, 3].enumerated() { setup.paths[index].keys = "weight: \(weight)" }
        let (paths, target) = try await spread(1000, over: server, setup)
        #expect(paths == [0, 1000, 0])
        #expect(target == paths)
    }

    @Test func failOverOnlyUsesOnePathAndReturnsToIt() async throws {
        let controllers = try TgtServer.controllers(3, in: directory)
        let setup = DiskSetup(controllers[0], controllers[1], controllers[2], policy: "fail-over-only")
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized, .activeOptimized]))
            let load = VerifiedLoad(disk)
            func carried(_ count: Int = 400) async throws -> [UInt64] {
                let before = try await disk.requestCounts()
                let atTarget = try controllers.map { $0.isRunning ? try $0.commandCount() : 0 }
                try await load.run(requestCount: count)
                let paths = differences(try await disk.requestCounts(), before)
                for (controller, (path, old)) in zip(controllers, zip(paths, atTarget)) where controller.isRunning {
                    #expect(try controller.commandCount() - old == path)
                }
                return paths
            }
            #expect(try await carried() == [400, 0, 0])
            controllers[0].kill9()
            #expect(try await disk.waitForPath(0, .failed))
            #expect(try await carried() == [0, 400, 0])
            controllers[1].kill9()
            #expect(try await disk.waitForPath(1, .failed))
            #expect(try await carried() == [0, 0, 400])
            try controllers[0].restart()
            #expect(try await disk.waitForPath(0, .activeOptimized))
            #expect(try await carried() == [400, 0, 0])
            try controllers[1].restart()
            #expect(try await disk.waitForPath(1, .activeOptimized))
            #expect(try await carried() == [400, 0, 0])
            expectClean(load)
            try await load.verifyDisk()
            try load.verify(file: controllers[0].backingFile)
            expectClean(load)
        }
    }

    @Test func failOverOnlyStaysWhereFailBackIsManual() async throws {
        let server = try TgtServer.withFile(portalCount: 2, in: directory)
        let link = try FaultyLink(to: server.portals[0])
        var setup = DiskSetup(server, policy: "fail-over-only")
        setup.paths[0] = .init(target: server.targetName, portal: link.portal)
        setup.lunKeys = "fail-back: manual"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            let load = VerifiedLoad(disk)
            try await load.run(requestCount: 100)
            #expect(try await disk.requestCounts() == [100, 0])
            link.cut()
            #expect(try await disk.waitForPath(0, .failed))
            try link.restore()
            #expect(try await disk.waitForPath(0, .activeOptimized))
            try await load.run(requestCount: 100)
            #expect(try await disk.requestCounts() == [100, 100])
            expectClean(load)
        }
    }

    @Test func withASubsetExactlyOneStandbyStandsInForEachLostPrimary() async throws {
        let controllers = try TgtServer.controllers(4, in: directory)
        var setup = DiskSetup(
            controllers[0], controllers[1], controllers[2], controllers[3], policy: "round-robin-with-subset")
        for standby in [2, 3] { setup.paths[standby].keys = "role: standby" }
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Array(repeating: .activeOptimized, count: 4)))
            let load = VerifiedLoad(disk)
            func carried() async throws -> [UInt64] {
                let before = try await disk.requestCounts()
                let atTarget = try controllers.map { $0.isRunning ? try $0.commandCount() : 0 }
                try await load.run(requestCount: 400)
                let paths = differences(try await disk.requestCounts(), before)
                for (controller, (path, old)) in zip(controllers, zip(paths, atTarget)) where controller.isRunning {
                    #expect(try controller.commandCount() - old == path)
                }
                return paths
            }
            #expect(try await carried() == [200, 200, 0, 0])
            controllers[0].kill9()
            #expect(try await disk.waitForPath(0, .failed))
            #expect(try await carried() == [0, 200, 200, 0])
            controllers[1].kill9()
            #expect(try await disk.waitForPath(1, .failed))
            #expect(try await carried() == [0, 0, 200, 200])
            try controllers[0].restart()
            #expect(try await disk.waitForPath(0, .activeOptimized))
            // The second primary is still missing, so one standby stays: the one that stands in for it.
            #expect(try await carried() == [200, 0, 0, 200])
            try controllers[1].restart()
            #expect(try await disk.waitForPath(1, .activeOptimized))
            #expect(try await carried() == [200, 200, 0, 0])
            expectClean(load)
        }
    }

    @Test func leastQueueDepthAndLeastBlocksCountDifferentThings() async throws {
        let server = try TgtServer.withFile(in: directory)
        try await DiskSetup(server, policy: "least-queue-depth").withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Array(repeating: .activeOptimized, count: 4)))
            let done = Locked(0)
            let queue = IOQueue(disk: disk) { completions in
                for completion in completions { #expect(completion.error == nil) }
                done.withLock { $0 += completions.count }
            }
            let buffer = IOBuffer(byteCount: 1 << 20)
            // One batch, so that all are given out before the first is done: 2048 blocks, then 30 times 8.
            func carried() async throws -> [UInt64] {
                let before = try await disk.requestCounts()
                done.withLock { $0 = 0 }
                var batch = [IORequest(.read, offset: 0, byteCount: 1 << 20, memory: buffer.bytes.baseAddress, token: 0)]
                let small = IOBuffer(byteCount: 30 * 4096)
                for index in 0..<30 {
                    batch.append(
                        IORequest(
                            .read, offset: UInt64(index * 4096), byteCount: 4096,
                            memory: small.bytes.baseAddress! + index * 4096, token: UInt64(index + 1)))
                }
                queue.submit(batch)
                #expect(try await eventually { done.withLock { $0 == 31 } })
                withExtendedLifetime(small) {}
                return differences(try await disk.requestCounts(), before).sorted()
            }
            #expect(try await carried() == [7, 8, 8, 8])
            try await disk.setPolicy(.leastBlocks)
            #expect(try await carried() == [1, 10, 10, 10])
            withExtendedLifetime(buffer) {}
        }
    }

    /// A target that does not answer for a while gets no more than its share of the queue; round robin would give it
    /// everything.
    @Test(arguments: ["least-queue-depth", "least-blocks"])
    func loadGoesAroundAPathThatHangs(policy: String) async throws {
        let controllers = try TgtServer.controllers(4, in: directory)
        var setup = DiskSetup(controllers[0], controllers[1], controllers[2], controllers[3], policy: policy)
        setup.timers["silence-timeout"] = "10s"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Array(repeating: .activeOptimized, count: 4)))
            let load = VerifiedLoad(disk, .init(depth: 16))
            try await load.run(requestCount: 800)
            let even = try await disk.requestCounts()
            // How evenly is up to the kernel's scheduler: whichever server runs answers, and so gets the next request.
            #expect(even.reduce(0, +) == 800 && even.allSatisfy { $0 > 0 }, "\(even)")

            try controllers[0].stop()
            let before = try await disk.requestCounts()
            try await load.startAndProceed(1000)
            let carried = differences(try await disk.requestCounts(), before)
            #expect(carried[0] <= 5, "\(carried)")
            #expect(try await disk.paths[0].inFlight <= 5)
            try controllers[0].cont()
            try await load.stop()
            #expect(try await disk.paths[0].state == .activeOptimized)
            #expect(try await disk.redrivenCount == 0)
            expectClean(load)
        }
    }

    @Test func aPolicyChangeUnderLoadLosesNothing() async throws {
        let server = try TgtServer.withFile(in: directory)
        try await DiskSetup(server).withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Array(repeating: .activeOptimized, count: 4)))
            let load = VerifiedLoad(disk, .init(blockCount: 1024))
            load.start()
            for _ in 0..<3 {
                for kind in PolicyKind.allCases {
                    try await disk.setPolicy(kind)
                    #expect(try await disk.status.policy == kind.rawValue)
                    try await load.proceed(100)
                }
            }
            try await load.stop()
            let count = UInt64(load.soFar.requestCount)
            #expect(try await disk.requestCounts().reduce(0, +) == count)
            #expect(try server.commandCount() >= count)
            #expect(try await disk.redrivenCount == 0)
            try await load.verifyDisk()
            try load.verify(file: server.backingFile)
            expectClean(load)
        }
    }
}

extension VerifiedLoad {
    /// Starts an endless run and returns after so many requests.
    fileprivate func startAndProceed(_ count: Int) async throws {
        start()
        try await proceed(count)
    }
}

/// The median is under 100 ms. A machine that is shared may stand still for longer now and then, whatever runs on it; but
/// none lasts as long as the default `silence-timeout`, as it would where a loss is found out by waiting for it.
func expectBrief(_ pauses: [Duration], sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(pauses.sorted()[pauses.count / 2] < .milliseconds(100), "\(pauses)", sourceLocation: sourceLocation)
    #expect(pauses.allSatisfy { $0 < Timers().silenceTimeout }, "\(pauses)", sourceLocation: sourceLocation)
}

/// No request failed, and every block read was what was written.
func expectClean(_ load: VerifiedLoad, sourceLocation: SourceLocation = #_sourceLocation) {
    let report = load.soFar
    #expect(report.errorCount == 0 && report.mismatchCount == 0, "\(report.complaints)", sourceLocation: sourceLocation)
}
