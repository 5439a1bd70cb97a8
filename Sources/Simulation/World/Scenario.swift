import AsyncIO
import ISCSI
import ISCSITarget
import Multipath
import Timebase

/// What a seed decides about a world before it begins: the array, the disk's settings, the workload, the faults.
struct Scenario {
    var pathCount: Int
    var targetCount: Int
    /// By path.
    var targetOfPath: [Int]
    var groupTags: [UInt16]
    var blockSize: Int
    var blockCount: Int
    var settings: LUNSettings
    var roles: [PathRole]
    var weights: [UInt16]
    var operational = OperationalSettings()
    var targetOperational: (TargetConfiguration) -> TargetConfiguration
    var usesDigests: Bool
    var commandCapacity: Int
    var workload: Workload.Settings
    var plan: FaultPlan
    var diskDelay: ClosedRange<Duration>
    var turnDelay: ClosedRange<Duration>
    var readLimit: Int
    /// Nil: every session has one connection.
    var connections: ConnectionPlan?

    /// `connectionRandom`: where sessions have several connections, the stream that decides about them.
    init(random: SeededRandom, bug: PlantedBug?, connectionRandom: SeededRandom? = nil) {
        pathCount = random.pick([1, 2, 2, 3, 3, 4])
        let targets = pathCount == 1 ? 1 : random.within(1...2)
        targetCount = targets
        targetOfPath = (0..<pathCount).map { $0 % targets }
        let sharesGroup = random.chance(percent: 40)
        groupTags = (0..<pathCount).map { UInt16(sharesGroup ? $0 % targets + 1 : $0 + 1) }
        blockSize = random.chance(percent: 80) ? 512 : 4096
        // Large blocks are few, and travel in large pieces: what a seed costs is bounded.
        blockCount = blockSize == 512 ? random.within(32...128) : random.within(16...32)
        settings = Self.drawSettings(random, targetCount: targetCount)
        bug?.change(&settings)
        let standbys = random.chance(percent: 60) ? random.below(pathCount) : 0
        let pathTotal = pathCount
        roles = (0..<pathTotal).map { $0 >= pathTotal - standbys ? .standby : .primary }
        weights = (0..<pathTotal).map { _ in UInt16(random.within(1...5)) }
        usesDigests = random.chance(percent: 40)
        commandCapacity = random.pick([4, 16, 64, 64])
        plan = FaultPlan(random: random, pathCount: pathCount, hasTwoTargets: targetCount > 1)
        workload = Self.drawWorkload(random, blockCount: blockCount, duration: plan.duration, bug: bug)
        diskDelay = .microseconds(20)...(random.chance(percent: 80) ? .milliseconds(3) : .milliseconds(40))
        turnDelay = .microseconds(1)...(random.chance(percent: 85) ? .microseconds(40) : .milliseconds(4))
        readLimit = random.pick(blockSize == 512 ? [48, 500, 4096, 65_536, 65_536] : [4096, 65_536])
        targetOperational = { $0 }
        drawOperational(random)
        if let connectionRandom { drawConnections(connectionRandom) }
        if !usesDigests { plan.kinds.removeAll { $0 == .digestCorruption } }
    }

    private static let longestRecoveryInterval = Duration.seconds(8)

    private static func drawSettings(_ random: SeededRandom, targetCount: Int) -> LUNSettings {
        var settings = LUNSettings(policy: drawPolicy(random))
        var timers = Timers()
        timers.pathVerifyPeriod = random.duration(.seconds(1)...(.seconds(30)))
        timers.retryInterval = random.duration(.milliseconds(50)...(.seconds(1)))
        timers.pdoRemovePeriod = random.pick([.after(.zero), .after(.seconds(3)), .after(.seconds(20)), .never])
        timers.pathRecoveryInterval = random.duration(.milliseconds(100)...(.seconds(1)))
        timers.pathRecoveryIntervalMaximum = random.duration(.seconds(1)...longestRecoveryInterval)
        timers.loginTimeout = random.duration(.seconds(1)...(.seconds(5)))
        timers.silenceTimeout = random.duration(.milliseconds(500)...(.seconds(2)))
        timers.commandTimeout = random.duration(.seconds(5)...(.seconds(60)))
        timers.quiesceTime = random.duration(.seconds(4)...(.seconds(30)))
        settings.timers = timers
        settings.marginalPaths.firstHold = random.duration(.milliseconds(500)...(.seconds(5)))
        settings.marginalPaths.holdMaximum = .seconds(10)
        settings.marginalPaths.lossCount = random.within(2...5)
        // The simulated controllers do not tell one another of a reset.
        settings.staleWriteGuard.allowsLogicalUnitReset = targetCount == 1 && random.chance(percent: 30)
        return settings
    }

    static func drawPolicy(_ random: SeededRandom) -> PolicySettings {
        var options = PolicyOptions()
        options.switchAfter = random.pick([.requests(1), .requests(1), .requests(5), .bytes(8192)])
        options.failBack = random.pick([.immediate, .immediate, .after(.seconds(2)), .manual])
        options.activateStandby = random.pick([.perFailedPrimary, .whenNoneLeft])
        options.weights = random.pick([.proportional, .proportional, .priority])
        options.sequentialAffinity = random.chance(percent: 30)
        return PolicySettings(random.pick(PolicyKind.allCases), options: options)
    }

    private static func drawWorkload(
        _ random: SeededRandom, blockCount: Int, duration: Duration, bug: PlantedBug?
    ) -> Workload.Settings {
        let depth = random.pick([1, 2, 4, 8, 16])
        let count = random.within(30...160)
        let share = duration.wholeNanoseconds * Int64(depth) / Int64(count)
        return Workload.Settings(
            depth: depth, count: count, thinkTime: .nanoseconds(random.chance(percent: 20) ? 0 : share),
            largestBlockCount: random.pick(blockCount <= 32 ? [1, 2, 4] : [1, 4, 8, 16]), hotBlockCount: min(blockCount, random.pick([2, 4, 16, 32])),
            writePercent: random.pick([20, 50, 80]), hasRareOperations: random.chance(percent: 50),
            cancelPercent: random.pick([0, 0, 5]), swapsWrites: bug == .writesSwapped)
    }

    private mutating func drawOperational(_ random: SeededRandom) {
        let digests: [DigestKind] = usesDigests ? [.crc32c] : [.none]
        operational.headerDigest = digests
        operational.dataDigest = digests
        operational.initialR2T = random.chance(percent: 40)
        operational.immediateData = random.chance(percent: 60)
        operational.maxRecvDataSegmentByteCount = random.pick([512, 1024, 4096, 65_536])
        operational.maxBurstByteCount = random.pick([1024, 8192, 65_536])
        operational.firstBurstByteCount = min(operational.maxBurstByteCount, random.pick([512, 2048, 16_384]))
        operational.maxOutstandingR2T = random.within(1...4)
        let digest = usesDigests
        let depth = random.pick([2, 8, 32, 128])
        let receive = random.pick([512, 1024, 8192, 65_536])
        let burst = random.pick([1024, 4096, 65_536])
        let first = min(burst, random.pick([512, 4096, 65_536]))
        let requests = random.within(1...4)
        let immediate = random.chance(percent: 70)
        let initial = random.chance(percent: 30)
        let ping = random.duration(.seconds(2)...(.seconds(30)))
        targetOperational = { configuration in
            var result = configuration
            result.allowsHeaderDigest = digest
            result.allowsDataDigest = digest
            result.queueDepth = depth
            result.maximumReceiveDataSegmentByteCount = receive
            result.maximumBurstByteCount = burst
            result.firstBurstByteCount = first
            result.maximumOutstandingR2T = requests
            result.allowsImmediateData = immediate
            result.requiresInitialR2T = initial
            result.pingInterval = ping
            return result
        }
    }

    /// Longer than this after its session died no command is executed: what the guard's `quiesce-time` assumes.
    /// A hold, a stop before and one during it, and the disk's own time add up to less.
    var longestHold: Duration { settings.timers.quiesceTime * 0.4 }
    var longestStop: Duration { settings.timers.quiesceTime * 0.2 }
    var longestDiskDelay: Duration { settings.timers.quiesceTime * 0.1 }

    /// After this, with nothing wrong any more, everything must have finished.
    var patience: Duration {
        let timers = settings.timers
        // No more than is drawn: a planted bug may have put the next try far off.
        let recovery = min(timers.pathRecoveryIntervalMaximum, Self.longestRecoveryInterval)
        return timers.commandTimeout + timers.quiesceTime + timers.loginTimeout * 4 + recovery * 2
            + settings.marginalPaths.holdMaximum + .seconds(120)
    }

    var words: String {
        let timers = settings.timers
        return """
            \(pathCount) paths to \(targetCount) targets, groups \(groupTags), roles \(roles.map(\.rawValue)), weights \(weights), \
            \(blockCount) blocks of \(blockSize), \(settings.policy.kind.rawValue), depth \(workload.depth), \(workload.count) requests, \
            faults \(plan.kinds.map(\.rawValue)), spared \(plan.sparedPath.map(String.init) ?? "none"), for \(plan.duration), \
            digests \(usesDigests), silence \(timers.silenceTimeout), command \(timers.commandTimeout), quiesce \(timers.quiesceTime), \
            remove \(timers.pdoRemovePeriod), login \(timers.loginTimeout), window \(commandCapacity)\(connections?.words ?? "")
            """
    }
}
