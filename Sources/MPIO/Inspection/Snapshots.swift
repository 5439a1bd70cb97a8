// What `mpio paths --json`, `mpio bench --json` and the control socket say. The JSON names are an
// interface: names may be added, none renamed. Byte counts are bytes, times seconds unless the
// name says otherwise; moments are RFC 3339 texts in UTC.

/// The state of every LUN that one process holds, or that was looked at.
public struct PathsReport: Codable, Hashable, Sendable {
    /// Of this form; see ``currentVersion``.
    public var version: Int
    /// The LUNs, in configured order.
    public var luns: [LUNSnapshot]

    /// The version of this form: it changes only where a reader would misunderstand.
    public static var currentVersion: Int { 1 }

    /// A report of these LUNs, in the current version.
    public init(luns: [LUNSnapshot] = []) {
        version = Self.currentVersion
        self.luns = luns
    }
}

/// How a LUN is, in one word.
public enum LUNState: String, Codable, Hashable, Sendable, CaseIterable {
    /// Every path is as it should be.
    case optimal
    /// It works, with fewer or worse paths than configured.
    case degraded
    /// No path is usable.
    case failed
}

/// How a path is. The raw values are what users read and programs compare.
public enum PathState: String, Codable, Hashable, Sendable, CaseIterable {
    /// It carries requests; ALUA active/optimized, or a target without ALUA.
    case activeOptimized = "active/optimized"
    /// It can carry requests and does where no optimized path is left; ALUA active/non-optimized.
    case activeNonOptimized = "active/non-optimized"
    /// The array keeps it in reserve (ALUA).
    case standby
    /// The array does not let it carry data (ALUA).
    case unavailable
    /// Its ALUA state is changing.
    case transitioning
    /// TCP answers, the target does not.
    case stalled
    /// Lost. It is tried again; ``PathSnapshot/lastError`` says why it went.
    case failed
    /// Failed too often; held out.
    case marginal
    /// Taken out by hand.
    case drained
    /// Leads to another unit, or one that has changed.
    case refused
    /// Being connected, or verified.
    case connecting

    /// Whether requests can be sent there.
    public var isUsable: Bool { self == .activeOptimized || self == .activeNonOptimized }
}

/// A LUN as it is now.
public struct LUNSnapshot: Codable, Hashable, Sendable {
    /// The name in the policy file.
    public var name: String
    /// Nil while no path has told it.
    public var identity: String?
    /// As INQUIRY gives it; empty while no path has told it, as the three below.
    public var vendor: String
    /// As INQUIRY gives it.
    public var product: String
    /// As INQUIRY gives it.
    public var revision: String
    /// VPD page 80h.
    public var serial: String
    /// Its size in bytes; 0 while no path has told it.
    public var capacityBytes: UInt64
    /// In bytes; 0 while no path has told it.
    public var blockSize: Int
    /// The policy's name.
    public var policy: String
    /// The name of the device-specific module that claimed it.
    public var dsm: String
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
    /// In how many seconds requests that wait for a path will fail; nil where they do not wait, or wait for ever.
    public var failsInSeconds: Double?
    /// On which of its process's reactors it, or its first lane, lives, from 0; nil where it is not held.
    public var reactor: Int?
    /// Where it is spread over several reactors: each lane, of which the LUN's state is the worst and its counts are the sums.
    public var lanes: [LaneSnapshot]?
    /// When it was looked at, in seconds of its machine's monotonic clock; only in samples (``ControlRequest/sample(luns:)``).
    public var clockSeconds: Double?
    /// Nil where no process holds the LUN and it was only looked at.
    public var holder: Holder?
    /// Why it could not be opened, in words, where that is no matter of its paths; nil for LUNs that are held.
    public var error: String?
    /// Its paths, in configured order.
    public var paths: [PathSnapshot]

    /// The process that holds a LUN.
    public struct Holder: Codable, Hashable, Sendable {
        /// Its number.
        public var pid: Int32
        /// What it was started as.
        public var command: String
        /// How many reactors it has; nil where it is one.
        public var reactors: Int?

        /// A process that holds LUNs.
        public init(pid: Int32, command: String, reactors: Int? = nil) {
            self.pid = pid
            self.command = command
            self.reactors = reactors
        }
    }

    enum CodingKeys: String, CodingKey {
        case name, identity, vendor, product, revision, serial, policy, dsm, state, fence, queued, failovers, redriven, reactor, lanes, holder, error, paths
        case capacityBytes = "capacity_bytes"
        case blockSize = "block_size"
        case noPathSeconds = "no_path_s"
        case failsInSeconds = "fails_in_s"
        case clockSeconds = "clock_s"
    }

    /// A LUN of these facts; what is not given is empty, zero or nil.
    public init(
        name: String, identity: String? = nil, vendor: String = "", product: String = "", revision: String = "",
        serial: String = "", capacityBytes: UInt64 = 0, blockSize: Int = 0, policy: String, dsm: String = "default",
        state: LUNState, fence: String = "clear", queued: Int = 0, failovers: UInt64 = 0, redriven: UInt64 = 0, holder: Holder? = nil,
        paths: [PathSnapshot] = []
    ) {
        self.name = name
        self.identity = identity
        self.vendor = vendor
        self.product = product
        self.revision = revision
        self.serial = serial
        self.capacityBytes = capacityBytes
        self.blockSize = blockSize
        self.policy = policy
        self.dsm = dsm
        self.state = state
        self.fence = fence
        self.queued = queued
        self.failovers = failovers
        self.redriven = redriven
        self.holder = holder
        self.paths = paths
    }
}

/// What proof there is that a new login ends what a lost session left behind (`docs/stale-writes.md`).
public enum NexusProof: String, Codable, Hashable, Sendable, CaseIterable {
    /// Not tried, or not yet: the path's own portal is believed, no other.
    case unproven
    /// A login through another portal ended a session of this one.
    case shared
    /// Only a login through the portal itself does.
    case single
    /// No login ended an older session of the same ISID: none is believed.
    case notReinstated = "not reinstated"
}

/// A path as it is now. Counts are from when the path was added to its LUN, byte counts in bytes.
public struct PathSnapshot: Codable, Hashable, Sendable {
    /// What carries the path's requests.
    public enum Transport: String, Codable, Hashable, Sendable {
        /// An iSCSI session.
        case iscsi
        /// A kernel block device, or a file.
        case device
    }

    /// The name by which commands take it.
    public var id: String
    /// What carries its requests.
    public var transport: Transport
    /// The portal's address, or the device.
    public var portal: String
    /// The address it leaves from; nil for a device or while unconnected with none configured.
    public var source: String?
    /// The target's iSCSI name; nil for a device.
    public var target: String?
    /// The unit's number there; nil for a device, or while unknown.
    public var lun: UInt64?
    /// Twelve hexadecimal digits.
    public var isid: String?
    /// The target portal group tag.
    public var tpg: Int?
    /// How it is, in one word.
    public var state: PathState
    /// `primary` or `standby`.
    public var role: String
    /// Nil where the policy gives weights no meaning.
    public var weight: Int?
    /// Requests that were sent and not answered yet.
    public var inFlight: Int
    /// The blocks of those requests.
    public var inFlightBlocks: UInt64
    /// Requests that were issued here, retries and re-drives included.
    public var requests: UInt64
    /// Data that was read.
    public var bytesRead: UInt64
    /// Data that was written.
    public var bytesWritten: UInt64
    /// Attempts that ended other than well here, whatever became of the request.
    public var errors: UInt64
    /// Latency of all requests so far.
    public var latency: LatencySummary
    /// The last thing that went wrong; nil: nothing did.
    public var lastError: LastError?
    /// The session's connections, in configured order; one, mostly.
    public var connections: [ConnectionSnapshot]
    /// How a connection is chosen for each command, where the session has several.
    public var connectionPolicy: String?
    /// The ErrorRecoveryLevel of a session with several connections, once it was agreed.
    public var errorRecoveryLevel: Int?
    /// Requests and bytes per second over the last seconds; nil where it was not watched for long enough.
    public var requestsPerSecond: Double?
    /// Bytes per second, read and written.
    public var bytesPerSecond: Double?
    /// Latency over the last seconds, as the rates; nil where it was not watched for long enough, or nothing was carried.
    public var recentLatency: LatencySummary?
    /// Latency since the recording's sample before; only in recordings, nil where nothing was carried.
    public var intervalLatency: LatencySummary?
    /// Only in samples.
    public var latencyCounts: LatencyCounts?
    /// The target answers NOP-Outs but not commands. Nil for a device.
    public var isSlow: Bool?
    /// Seconds until a failed path is tried again.
    public var nextTrySeconds: Double?
    /// Nil for a device.
    public var nexus: NexusProof?
    /// The names of the portals through which this session's nexus can be reinstated, beside its own; nil for a device.
    public var nexusSharedWith: [String]?
    /// Where the LUN has several lanes: the path as each of them has it. Its state is the worst of theirs, its counts are the sums,
    /// and what belongs to one session (``isid``, ``source``) is the first lane's.
    public var lanes: [PathLaneSnapshot]?

    enum CodingKeys: String, CodingKey {
        case id, transport, portal, source, target, lun, isid, tpg, state, role, weight, requests, errors, connections, lanes
        case inFlight = "in_flight"
        case inFlightBlocks = "in_flight_blocks"
        case bytesRead = "bytes_read"
        case bytesWritten = "bytes_written"
        case latency = "latency_us"
        case lastError = "last_error"
        case connectionPolicy = "connection_policy"
        case errorRecoveryLevel = "error_recovery_level"
        case requestsPerSecond = "requests_per_s"
        case bytesPerSecond = "bytes_per_s"
        case nextTrySeconds = "next_try_s"
        case recentLatency = "recent_latency_us"
        case intervalLatency = "interval_latency_us"
        case latencyCounts = "latency_counts"
        case isSlow = "slow"
        case nexus
        case nexusSharedWith = "nexus_shared_with"
    }

    /// A path of which nothing is known but this.
    public init(id: String, transport: Transport, portal: String, state: PathState, role: String = "primary") {
        self.id = id
        self.transport = transport
        self.portal = portal
        self.state = state
        self.role = role
        inFlight = 0
        inFlightBlocks = 0
        requests = 0
        bytesRead = 0
        bytesWritten = 0
        errors = 0
        latency = LatencySummary()
        connections = []
    }
}

/// Microseconds, with decimals; nil where nothing was measured.
public struct LatencySummary: Codable, Hashable, Sendable {
    /// Half of the requests were faster.
    public var p50: Double?
    /// 99 of 100 were faster.
    public var p99: Double?
    /// The slowest.
    public var max: Double?

    enum CodingKeys: String, CodingKey {
        case p50, p99, max
    }

    /// Latencies in microseconds.
    public init(p50: Double? = nil, p99: Double? = nil, max: Double? = nil) {
        self.p50 = p50
        self.p99 = p99
        self.max = max
    }

    /// The summary of a histogram.
    public init(_ histogram: borrowing LatencyHistogram) {
        guard histogram.count > 0 else {
            self.init()
            return
        }
        self.init(
            p50: Double(histogram.percentile(50)) / 1000, p99: Double(histogram.percentile(99)) / 1000,
            max: Double(histogram.maximum) / 1000)
    }
}

/// The last thing that went wrong on a path.
public struct LastError: Codable, Hashable, Sendable {
    /// When, in RFC 3339.
    public var at: String
    /// Which kind, from a fixed vocabulary: `connection reset`, `login refused`, ….
    public var reason: String
    /// What else is known, for people.
    public var detail: String?

    /// An error at a moment.
    public init(at: String, reason: String, detail: String? = nil) {
        self.at = at
        self.reason = reason
        self.detail = detail
    }
}

/// One connection of a session (MCS).
public struct ConnectionSnapshot: Codable, Hashable, Sendable {
    /// From 1, as configured; it stays the same over logins, unlike ``cid``. Nil where the path has but one connection.
    public var number: Int?
    /// The connection's CID in the login that it has now.
    public var cid: Int
    /// The portal's address.
    public var portal: String
    /// The address that it leaves from; nil while it is not known.
    public var source: String?
    /// In words: `logged in`, `connecting`, `down` and others.
    public var state: String
    /// Commands that were sent on it and not answered yet.
    public var inFlight: Int
    /// Commands that it was chosen for, since the program began.
    public var requests: UInt64
    /// `primary` or `standby`; nil where the policy gives roles no meaning.
    public var role: String?
    /// Nil where the policy gives weights no meaning.
    public var weight: Int?
    /// Why it failed, where it did.
    public var reason: String?

    enum CodingKeys: String, CodingKey {
        case number, cid, portal, source, state, requests, role, weight, reason
        case inFlight = "in_flight"
    }

    /// A connection of these facts; what is not given is zero or nil.
    public init(cid: Int, portal: String, source: String? = nil, state: String, inFlight: Int = 0, requests: UInt64 = 0) {
        self.cid = cid
        self.portal = portal
        self.source = source
        self.state = state
        self.inFlight = inFlight
        self.requests = requests
    }
}

/// What `mpio bench` measured.
public struct BenchReport: Codable, Hashable, Sendable {
    /// Requests that ended.
    public var requests: UInt64
    /// Requests that failed.
    public var errors: UInt64
    /// Requests that were sent again on another path.
    public var redriven: UInt64
    /// How long it ran.
    public var seconds: Double
    /// Requests per second.
    public var iops: Double
    /// Millions of bytes (10^6) per second.
    public var megabytesPerSecond: Double
    /// Processor time of the process, per request, in microseconds.
    public var cpuMicrosecondsPerRequest: Double
    /// From the call to the completion.
    public var latency: LatencySummary
    /// The longest time in which no request completed.
    public var longestPauseMilliseconds: Double
    /// Counts of this run only.
    public var paths: [PathSnapshot]
    /// Whose it is, where several LUNs were measured at once.
    public var lun: String?
    /// Each LUN's, where there were several and this is the sum; CPU per request is the process's in each.
    public var luns: [BenchReport]?

    enum CodingKeys: String, CodingKey {
        case requests, errors, redriven, seconds, iops, paths, lun, luns
        case megabytesPerSecond = "mb_per_s"
        case cpuMicrosecondsPerRequest = "cpu_us_per_request"
        case latency = "latency_us"
        case longestPauseMilliseconds = "longest_pause_ms"
    }

    /// What was measured in one run.
    public init(
        requests: UInt64, errors: UInt64, redriven: UInt64, seconds: Double, iops: Double, megabytesPerSecond: Double,
        cpuMicrosecondsPerRequest: Double, latency: LatencySummary, longestPauseMilliseconds: Double,
        paths: [PathSnapshot]
    ) {
        self.requests = requests
        self.errors = errors
        self.redriven = redriven
        self.seconds = seconds
        self.iops = iops
        self.megabytesPerSecond = megabytesPerSecond
        self.cpuMicrosecondsPerRequest = cpuMicrosecondsPerRequest
        self.latency = latency
        self.longestPauseMilliseconds = longestPauseMilliseconds
        self.paths = paths
    }
}

// MARK: JSON

// What is not known is written as null rather than left out, so that the documented names are always there.

extension LUNSnapshot {
    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(name, forKey: .name)
        try values.encode(identity, forKey: .identity)
        try values.encode(vendor, forKey: .vendor)
        try values.encode(product, forKey: .product)
        try values.encode(revision, forKey: .revision)
        try values.encode(serial, forKey: .serial)
        try values.encode(capacityBytes, forKey: .capacityBytes)
        try values.encode(blockSize, forKey: .blockSize)
        try values.encode(policy, forKey: .policy)
        try values.encode(dsm, forKey: .dsm)
        try values.encode(state, forKey: .state)
        try values.encode(fence, forKey: .fence)
        try values.encode(queued, forKey: .queued)
        try values.encode(failovers, forKey: .failovers)
        try values.encode(redriven, forKey: .redriven)
        try values.encodeIfPresent(noPathSeconds, forKey: .noPathSeconds)
        try values.encodeIfPresent(failsInSeconds, forKey: .failsInSeconds)
        try values.encode(reactor, forKey: .reactor)
        try values.encodeIfPresent(lanes, forKey: .lanes)
        try values.encodeIfPresent(clockSeconds, forKey: .clockSeconds)
        try values.encode(holder, forKey: .holder)
        try values.encodeIfPresent(error, forKey: .error)
        try values.encode(paths, forKey: .paths)
    }
}

extension PathSnapshot {
    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(id, forKey: .id)
        try values.encode(transport, forKey: .transport)
        try values.encode(portal, forKey: .portal)
        try values.encode(source, forKey: .source)
        try values.encode(target, forKey: .target)
        try values.encode(lun, forKey: .lun)
        try values.encode(isid, forKey: .isid)
        try values.encode(tpg, forKey: .tpg)
        try values.encode(state, forKey: .state)
        try values.encode(role, forKey: .role)
        try values.encode(weight, forKey: .weight)
        try values.encode(inFlight, forKey: .inFlight)
        try values.encode(inFlightBlocks, forKey: .inFlightBlocks)
        try values.encode(requests, forKey: .requests)
        try values.encode(bytesRead, forKey: .bytesRead)
        try values.encode(bytesWritten, forKey: .bytesWritten)
        try values.encode(errors, forKey: .errors)
        try values.encode(latency, forKey: .latency)
        try values.encode(lastError, forKey: .lastError)
        try values.encode(connections, forKey: .connections)
        try values.encodeIfPresent(connectionPolicy, forKey: .connectionPolicy)
        try values.encodeIfPresent(errorRecoveryLevel, forKey: .errorRecoveryLevel)
        try values.encodeIfPresent(requestsPerSecond, forKey: .requestsPerSecond)
        try values.encodeIfPresent(bytesPerSecond, forKey: .bytesPerSecond)
        try values.encodeIfPresent(nextTrySeconds, forKey: .nextTrySeconds)
        try values.encodeIfPresent(recentLatency, forKey: .recentLatency)
        try values.encodeIfPresent(intervalLatency, forKey: .intervalLatency)
        try values.encodeIfPresent(latencyCounts, forKey: .latencyCounts)
        try values.encodeIfPresent(isSlow, forKey: .isSlow)
        try values.encodeIfPresent(nexus, forKey: .nexus)
        try values.encodeIfPresent(nexusSharedWith, forKey: .nexusSharedWith)
        try values.encodeIfPresent(lanes, forKey: .lanes)
    }
}

extension LatencySummary {
    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(p50, forKey: .p50)
        try values.encode(p99, forKey: .p99)
        try values.encode(max, forKey: .max)
    }
}
