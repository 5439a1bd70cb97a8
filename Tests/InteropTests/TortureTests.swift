import Foundation
import MPIO
import Testing
import TestSupport

/// Processes killed, stopped and restarted at random under verified load: some twenty cycles here, as many as wanted by
/// `make torture CYCLES=1000 SEED=7`.
@Suite(.serialized)
struct TortureTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("torture") }

    private static var settings: Torture.Settings {
        var settings = Torture.Settings()
        let environment = ProcessInfo.processInfo.environment
        if let count = environment["MPIO_TORTURE_CYCLES"].flatMap(Int.init) {
            settings.cycleCount = max(count, settings.warmUpCount)
            settings.warmUpCount = max(settings.warmUpCount, settings.cycleCount / 20)
        } else {
            settings.pace = 0.4
            settings.byteCount = 32 << 20
        }
        if let pace = environment["MPIO_TORTURE_PACE"].flatMap(Double.init) { settings.pace = pace }
        if let interval = environment["MPIO_TORTURE_REPORT"].flatMap(Int.init) { settings.reportInterval = max(interval, 1) }
        if let silence = environment["MPIO_TORTURE_SILENCE_MS"].flatMap(Int.init) {
            settings.silenceTimeout = .milliseconds(silence)
        }
        settings.isVerbose = environment["MPIO_TORTURE_VERBOSE"] != nil
        if let seed = environment["MPIO_TORTURE_SEED"].flatMap(UInt64.init) { settings.seed = seed }
        if let policy = environment["MPIO_TORTURE_POLICY"], !policy.isEmpty { settings.policy = policy }
        return settings
    }

    @Test func targetsThatAreKilledAndStoppedAtRandomLoseNothingAndLeakNothing() async throws {
        let settings = Self.settings
        let controllers = try (0..<settings.controllerCount).map {
            try TgtServer.withFile(
                byteCount: settings.byteCount, portalCount: 1,
                targetName: "iqn.2026-11.org.example:array-1-controller-\($0)", in: directory)
        }
        var setup = DiskSetup(controllers, policy: settings.policy)
        for index in setup.paths.indices { setup.paths[index].keys = "lun: 1" }
        setup.identity = nil
        setup.timers["silence-timeout"] = settings.silenceTimeout.inMilliseconds
        setup.timers["pdo-remove-period"] = settings.removePeriod.inMilliseconds
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Array(repeating: .activeOptimized, count: controllers.count)))
            let load = VerifiedLoad(
                disk,
                .init(
                    depth: settings.depth, blockCount: Int(settings.byteCount) / 4096, seed: settings.seed | 1,
                    notedPause: .milliseconds(5)))
            let torture = Torture(settings, disk: disk, controllers: controllers, load: load)
            let start = ContinuousClock.now
            let watcher = settings.isVerbose ? torture.printEvents(of: disk) : nil
            defer { watcher?.cancel() }
            load.start()
            try await torture.run()
            try await load.stop()
            let (requests, elapsed) = (load.soFar.requestCount, start.duration(to: .now))
            let redriven = try await disk.redrivenCount
            // What was left on lost paths is known dead by now, or the paths would not be back.
            #expect(try await eventually { try await disk.status.fence == "clear" })
            try await load.verifyDisk()
            try load.verify(file: controllers[0].backingFile)
            expectClean(load)
            print("\(settings.cycleCount) cycles with seed \(settings.seed), \(settings.policy), in \(Int(elapsed / .seconds(1))) s: "
                + "\(requests) requests, \(redriven) driven again, "
                + "the longest a \(load.soFar.longestRequestWords), \(load.soFar.longestRequest) from \(torture.time(load.soFar.longestRequestBegin))")
            print("strikes: " + torture.strikes.map { "\($0.key.rawValue) \($0.value)" }.sorted().joined(separator: ", "))
            print(torture.histogram.text)
            expectPauses(torture)
            expectNoLeak(torture)
        }
    }

    private func expectPauses(_ torture: Torture) {
        // A kill is known at once, a stop after the silence; the rest is room for a machine that does other things.
        for strike in [Torture.Strike.kill, .stop, .stopThenKill] {
            guard let longest = torture.histogram.longest(after: strike.rawValue) else { continue }
            #expect(longest < .seconds(5), "\(strike.rawValue)")
        }
        #expect(torture.strikes.count > 2, "\(torture.strikes)")
    }

    private func expectNoLeak(_ torture: Torture) {
        guard let first = torture.counts.first, let last = torture.counts.last else { return }
        #expect(last.openFileCount <= first.openFileCount)
        let growth = last.residentByteCount - first.residentByteCount
        let heapGrowth = last.heapByteCount - first.heapByteCount
        print("after the warm-up: \(growth >> 10) KiB more resident, \(heapGrowth >> 10) KiB more of heap, "
            + "\(last.openFileCount - first.openFileCount) more descriptors")
        // The log of events fills up to 2,048 of them.
        #expect(heapGrowth < 2 << 20)
        // What malloc holds, used or not: sessions that allocated anew at each login would leave holes.
        #expect(growth < 16 << 20)
    }
}

extension Duration {
    /// As the policy file takes it.
    fileprivate var inMilliseconds: String { "\(wholeMilliseconds)ms" }
}
