import AsyncIO
import ISCSI
import ISCSITarget
import Multipath
import Timebase

/// What a seed decides about sessions of several connections. Drawn from a stream of its own, so that a seed's
/// world without them stays what it was.
struct ConnectionPlan {
    /// Connections that the initiator asks for, in each session.
    var asked: Int
    /// MaxConnections of the targets.
    var granted: Int
    var askedLevel: Int
    var offeredLevel: Int
    var time2Wait: Int
    var time2Retain: Int
    var loss: ConnectionLossBehaviour
    var policy: PolicySettings
    var roles: [PathRole]
    var weights: [UInt16]
    /// Each connection has a portal and a network of its own; otherwise all of a session share one.
    var hasOwnPortals: Bool
    var unitNumber: Int
    /// A connection of each session to which nothing is done by itself.
    var sparedConnection: Int?

    init(random: SeededRandom) {
        let asked = random.within(2...4)
        self.asked = asked
        granted = random.chance(percent: 85) ? asked : random.within(1...asked)
        askedLevel = random.pick([0, 0, 1, 2, 2])
        offeredLevel = random.chance(percent: 90) ? askedLevel : random.within(0...askedLevel)
        time2Wait = random.chance(percent: 85) ? 0 : random.within(1...2)
        time2Retain = random.pick([0, 2, 20, 20, 20])
        loss = random.chance(percent: 80) ? .keepSession : .endSession(after: random.duration(.milliseconds(100)...(.seconds(2))))
        var options = PolicyOptions()
        options.switchAfter = random.pick([.requests(1), .requests(1), .requests(5), .bytes(8192)])
        options.failBack = random.pick([.immediate, .after(.seconds(2)), .manual])
        options.activateStandby = random.pick([.perFailedPrimary, .whenNoneLeft])
        options.weights = random.pick([.proportional, .priority])
        policy = PolicySettings(random.pick(Self.policies), options: options)
        let standbys = random.chance(percent: 40) ? random.below(asked) : 0
        roles = (0..<asked).map { $0 >= asked - standbys ? .standby : .primary }
        weights = (0..<asked).map { _ in UInt16(random.within(1...5)) }
        hasOwnPortals = random.chance(percent: 80)
        unitNumber = random.pick([0, 0, 5])
        sparedConnection = random.chance(percent: 40) ? random.below(asked) : nil
    }

    static let policies: [PolicyKind] = [
        .failOverOnly, .roundRobin, .roundRobinWithSubset, .leastQueueDepth, .weightedPaths,
    ]

    /// Portals, and networks to them, of each path.
    var portalCount: Int { hasOwnPortals ? asked : 1 }

    func change(_ settings: inout OperationalSettings) {
        settings.maxConnections = asked
        settings.errorRecoveryLevel = askedLevel
        settings.defaultTime2Wait = 0
    }

    func change(_ configuration: inout TargetConfiguration) {
        configuration.maximumConnectionsPerSession = granted
        configuration.errorRecoveryLevel = offeredLevel
        configuration.defaultTime2Wait = time2Wait
        configuration.defaultTime2Retain = time2Retain
        configuration.connectionLoss = loss
    }

    var words: String {
        let targets = loss == .keepSession ? "" : ", \(loss)"
        return """
            ; sessions of \(granted) of \(asked) connections\(hasOwnPortals ? "" : " over one portal"), level \(offeredLevel) of \(askedLevel), \
            \(policy.kind.rawValue), roles \(roles.map(\.rawValue)), weights \(weights), time2wait \(time2Wait), \
            time2retain \(time2Retain)\(targets), unit \(unitNumber), spared connection \(sparedConnection.map(String.init) ?? "none")
            """
    }
}

extension Scenario {
    /// Gives every session several connections, and the plan faults of single ones.
    mutating func drawConnections(_ random: SeededRandom) {
        let drawn = ConnectionPlan(random: random)
        connections = drawn
        drawn.change(&operational)
        let before = targetOperational
        targetOperational = {
            var result = before($0)
            drawn.change(&result)
            return result
        }
        // Half of the worlds have nothing but faults of single connections, which hide behind those of whole paths.
        if random.chance(percent: 50) { plan.kinds.removeAll { !$0.isHarmlessToPaths } }
        let share = random.pick([20, 50, 90])
        var kinds = FaultKind.allCases.filter { kind in
            kind.isOfConnections && random.chance(percent: share) && (kind != .connectionDigest || usesDigests)
        }
        if kinds.isEmpty { kinds = [random.pick([.connectionReset, .connectionSilence, .connectionSlowCut, .connectionLogout])] }
        plan.kinds += kinds
        plan.duration = max(plan.duration, .seconds(4))
        plan.interval = min(plan.interval, random.duration(.milliseconds(50)...(.seconds(2))))
        if random.chance(percent: 50) { workload.thinkTime = min(workload.thinkTime, .milliseconds(random.within(0...30))) }
        if random.chance(percent: 50) { workload.count = workload.count * 2 }
    }

    /// Nothing takes a path's last good connection: at level 2 no path may be lost.
    var sparesPathsByConnections: Bool {
        guard let connections, connections.sparedConnection != nil, connections.granted == connections.asked else { return false }
        return connections.hasOwnPortals && connections.offeredLevel == 2 && connections.time2Retain >= 20
            && plan.kinds.allSatisfy { $0.isHarmlessToPaths || $0.isOfConnections }
    }
}
