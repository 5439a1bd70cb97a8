/// One lane of a LUN as it is now (``MultipathDisk/laneCount``).
public struct LaneSnapshot: Codable, Hashable, Sendable {
    /// From 0; the lane of stripe `n` is `n` modulo the number of lanes.
    public var lane: Int
    /// On which of its process's reactors it lives, from 0.
    public var reactor: Int?
    /// How it is, in one word.
    public var state: LUNState
    /// The stale-write guard: `clear`, or what it waits for.
    public var fence: String
    /// Requests that wait for a path.
    public var queued: Int
    /// How often traffic went over to another path because one was lost.
    public var failovers: UInt64
    /// Requests that were sent again on another path.
    public var redriven: UInt64
    /// For how many seconds no path could carry data; nil while one can.
    public var noPathSeconds: Double?

    enum CodingKeys: String, CodingKey {
        case lane, reactor, state, fence, queued, failovers, redriven
        case noPathSeconds = "no_path_s"
    }
}

/// A path as one lane sees it, through a session of its own.
public struct PathLaneSnapshot: Codable, Hashable, Sendable {
    /// From 0.
    public var lane: Int
    /// How it is, in one word.
    public var state: PathState
    /// Twelve hexadecimal digits; nil for a device.
    public var isid: String?
    /// Requests that were sent and not answered yet.
    public var inFlight: Int
    /// Requests that were issued here, retries and re-drives included.
    public var requests: UInt64
    /// Attempts that ended other than well here.
    public var errors: UInt64
    /// The last thing that went wrong; nil: nothing did.
    public var lastError: LastError?

    enum CodingKeys: String, CodingKey {
        case lane, state, isid, requests, errors
        case inFlight = "in_flight"
        case lastError = "last_error"
    }
}

extension LUNSnapshot {
    /// The LUN from its lanes, in their order: counts are sums, states the worst, latencies those of all requests.
    /// - Parameter isSample: with ``PathSnapshot/latencyCounts``.
    static func joined(_ lanes: [LUNSnapshot], isSample: Bool) -> LUNSnapshot {
        var whole = lanes[0]
        guard lanes.count > 1 else { return whole }
        whole.lanes = lanes.enumerated().map { number, lane in
            LaneSnapshot(
                lane: number, reactor: lane.reactor, state: lane.state, fence: lane.fence, queued: lane.queued,
                failovers: lane.failovers, redriven: lane.redriven, noPathSeconds: lane.noPathSeconds)
        }
        whole.capacityBytes = lanes.map(\.capacityBytes).max() ?? 0
        whole.state = lanes.map(\.state).max { $0.severity < $1.severity } ?? .failed
        let fences = lanes.enumerated().filter { $1.fence != "clear" }.map { "lane \($0) \($1.fence)" }
        whole.fence = fences.isEmpty ? "clear" : fences.joined(separator: "; ")
        whole.queued = lanes.reduce(0) { $0 + $1.queued }
        whole.failovers = lanes.reduce(0) { $0 &+ $1.failovers }
        whole.redriven = lanes.reduce(0) { $0 &+ $1.redriven }
        whole.noPathSeconds = lanes.compactMap(\.noPathSeconds).max()
        whole.failsInSeconds = lanes.compactMap(\.failsInSeconds).min()
        whole.paths = whole.paths.map { path in
            .joined(lanes.enumerated().compactMap { number, lane in
                lane.paths.first { $0.id == path.id }.map { (number, $0) }
            })
        }
        if !isSample { for index in whole.paths.indices { whole.paths[index].latencyCounts = nil } }
        return whole
    }
}

extension PathSnapshot {
    /// A path from what its lanes say of it.
    fileprivate static func joined(_ lanes: [(number: Int, path: PathSnapshot)]) -> PathSnapshot {
        var whole = lanes[0].path
        let all = lanes.map(\.path)
        whole.lanes = lanes.map { number, path in
            PathLaneSnapshot(
                lane: number, state: path.state, isid: path.isid, inFlight: path.inFlight, requests: path.requests,
                errors: path.errors, lastError: path.lastError)
        }
        whole.state = all.map(\.state).max { $0.severity < $1.severity } ?? .failed
        whole.inFlight = all.reduce(0) { $0 + $1.inFlight }
        whole.inFlightBlocks = all.reduce(0) { $0 &+ $1.inFlightBlocks }
        whole.requests = all.reduce(0) { $0 &+ $1.requests }
        whole.bytesRead = all.reduce(0) { $0 &+ $1.bytesRead }
        whole.bytesWritten = all.reduce(0) { $0 &+ $1.bytesWritten }
        whole.errors = all.reduce(0) { $0 &+ $1.errors }
        whole.joinLatencies(all)
        // Moments are RFC 3339 texts of one form, which compare as they follow each other.
        whole.lastError = all.compactMap(\.lastError).max { $0.at < $1.at }
        whole.requestsPerSecond = sum(all.compactMap(\.requestsPerSecond))
        whole.bytesPerSecond = sum(all.compactMap(\.bytesPerSecond))
        if whole.isSlow != nil { whole.isSlow = all.contains { $0.isSlow == true } }
        whole.nextTrySeconds = all.compactMap(\.nextTrySeconds).min()
        if whole.nexus != nil { whole.nexus = all.compactMap(\.nexus).max { $0.doubt < $1.doubt } }
        whole.joinConnections(all)
        return whole
    }

    private static func sum(_ rates: [Double]) -> Double? { rates.isEmpty ? nil : rates.reduce(0, +) }

    private mutating func joinLatencies(_ all: [PathSnapshot]) {
        let counts = LatencyCounts.sum(all.compactMap(\.latencyCounts))
        latency = counts.summary(since: LatencyCounts()) ?? LatencySummary()
        latency.max = all.compactMap(\.latency.max).max()
        latencyCounts = counts
        // Of the last seconds there are no counts: the slowest lane's.
        recentLatency = all.compactMap(\.recentLatency).max { ($0.p99 ?? 0) < ($1.p99 ?? 0) }
    }

    private mutating func joinConnections(_ all: [PathSnapshot]) {
        for index in connections.indices {
            let others = all.dropFirst().compactMap { $0.connections.indices.contains(index) ? $0.connections[index] : nil }
            connections[index].inFlight += others.reduce(0) { $0 + $1.inFlight }
            connections[index].requests &+= others.reduce(0) { $0 &+ $1.requests }
            guard connections[index].state == "logged in", let worse = others.first(where: { $0.state != "logged in" }) else { continue }
            connections[index].state = worse.state
            connections[index].reason = worse.reason
        }
    }

    /// Where the lanes see the path differently: `lane 1: failed`; nil where they agree.
    var laneWords: String? {
        guard let lanes, Set(lanes.map(\.state)).count > 1 else { return nil }
        return lanes.map { "lane \($0.lane): \($0.state.rawValue)" }.joined(separator: ", ")
    }
}

extension LUNState {
    fileprivate var severity: Int {
        switch self {
        case .optimal: 0
        case .degraded: 1
        case .failed: 2
        }
    }
}

extension PathState {
    fileprivate var severity: Int {
        switch self {
        case .activeOptimized: 0
        case .activeNonOptimized: 1
        case .standby: 2
        case .transitioning: 3
        case .connecting: 4
        case .marginal: 5
        case .unavailable: 6
        case .drained: 7
        case .stalled: 8
        case .failed: 9
        case .refused: 10
        }
    }
}

extension NexusProof {
    fileprivate var doubt: Int {
        switch self {
        case .shared: 0
        case .single: 1
        case .unproven: 2
        case .notReinstated: 3
        }
    }
}

extension LatencyCounts {
    /// All that several counted.
    static func sum(_ all: [LatencyCounts]) -> LatencyCounts {
        var sums: [UInt64: UInt64] = [:]
        for counts in all { for (bucket, count) in zip(counts.nanoseconds, counts.counts) { sums[bucket, default: 0] &+= count } }
        let buckets = sums.keys.sorted()
        return LatencyCounts(nanoseconds: buckets, counts: buckets.map { sums[$0]! })
    }
}

extension ExplanationReport {
    /// What the lanes say, in their order.
    static func joined(_ lanes: [ExplanationReport]) -> ExplanationReport {
        var whole = lanes[0]
        if lanes.count > 1 { whole.lanes = lanes }
        return whole
    }
}
