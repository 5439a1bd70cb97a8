import Timebase

/// Which worlds are played with a seed.
public enum SeedWorlds: String, CaseIterable, Sendable {
    /// Sessions of one connection.
    case single
    /// Sessions of several connections, and faults of single ones.
    case connections
    /// The one for odd seeds, the other for even ones.
    case both
    /// A disk with several lanes.
    case lanes

    func hasConnections(_ seed: UInt64) -> Bool {
        switch self {
        case .single, .lanes: false
        case .connections: true
        case .both: seed.isMultiple(of: 2)
        }
    }
}

/// Runs seed after seed, a few at a time.
public struct SeedRunner: Sendable {
    private let first: UInt64
    private let count: UInt64?
    private let seconds: Int
    private let jobs: Int
    private let bug: PlantedBug?
    private let repeats: UInt64
    private let worlds: SeedWorlds

    /// Every `repeats`th seed runs twice, and must do the same.
    public init(
        first: UInt64, count: UInt64?, seconds: Int, jobs: Int, bug: PlantedBug? = nil, repeats: UInt64 = 1,
        worlds: SeedWorlds = .single
    ) {
        self.worlds = worlds
        self.repeats = max(repeats, 1)
        self.first = first
        self.count = count
        self.seconds = seconds
        self.jobs = max(jobs, 1)
        self.bug = bug
    }

    /// `failed` is told of each seed that shows a violation, as it is found.
    public func run(failed: @escaping @Sendable (RunResult) -> Void) async -> SoakSummary {
        let clock = ContinuousClock()
        let begin = clock.now
        let deadline = begin + .seconds(seconds)
        var summary = await withTaskGroup(of: SoakSummary.self) { group in
            for job in 0..<jobs {
                group.addTask { [self] in
                    var part = SoakSummary()
                    var number = UInt64(job)
                    while count.map({ number < $0 }) ?? true, clock.now < deadline {
                        let seed = first + number
                        let connections = worlds.hasConnections(seed)
                        let result = (number / UInt64(jobs)).isMultiple(of: repeats)
                            ? Simulation.runTwice(seed: seed, bug: bug, connections: connections, lanes: worlds == .lanes)
                            : Simulation(seed: seed, bug: bug, connections: connections, lanes: worlds == .lanes).run()
                        part.add(result)
                        if result.violation != nil { failed(result) }
                        number += UInt64(jobs)
                    }
                    return part
                }
            }
            var all = SoakSummary()
            for await part in group { all.merge(part) }
            return all
        }
        summary.elapsed = clock.now - begin
        return summary
    }
}

/// What many seeds showed.
public struct SoakSummary: Sendable {
    public private(set) var seedCount = 0
    /// Seeds whose sessions had several connections.
    public private(set) var connectionSeedCount = 0
    /// Connections that were lost from sessions which went on.
    public private(set) var connectionLossCount = 0
    public private(set) var requestCount = 0
    public private(set) var faults: [FaultKind: Int] = [:]
    public private(set) var requestFailures: [String: Int] = [:]
    public private(set) var virtualTime = Duration.zero
    public private(set) var eventCount = 0
    public private(set) var pathLossCount = 0
    public private(set) var redrivenCount = 0
    public private(set) var failures: [RunResult] = []
    public internal(set) var elapsed = Duration.zero

    mutating func add(_ result: RunResult) {
        seedCount += 1
        if result.hasConnections { connectionSeedCount += 1 }
        connectionLossCount += result.connectionLossCount
        requestCount += result.requestCount
        for (kind, count) in result.faults { faults[kind, default: 0] += count }
        for (name, count) in result.failures { requestFailures[name, default: 0] += count }
        virtualTime += result.virtualTime
        eventCount += result.eventCount
        pathLossCount += result.pathLossCount
        redrivenCount += result.redrivenCount
        if result.violation != nil { failures.append(result) }
    }

    mutating func merge(_ other: SoakSummary) {
        seedCount += other.seedCount
        connectionSeedCount += other.connectionSeedCount
        connectionLossCount += other.connectionLossCount
        requestCount += other.requestCount
        faults.merge(other.faults, uniquingKeysWith: +)
        requestFailures.merge(other.requestFailures, uniquingKeysWith: +)
        virtualTime += other.virtualTime
        eventCount += other.eventCount
        pathLossCount += other.pathLossCount
        redrivenCount += other.redrivenCount
        failures += other.failures
    }

    public var text: String {
        let seconds = max(elapsed / .seconds(1), 0.001)
        var lines = [
            "\(seedCount) seeds in \(Int(seconds)) s, \(Int(Double(seedCount) * 10 / seconds)) seeds in 10 s; \(Int(virtualTime / .seconds(3600))) h of virtual time",
            "\(requestCount) requests, \(redrivenCount) driven again, \(pathLossCount) paths lost, \(eventCount) events",
            "\(connectionSeedCount) seeds with several connections in each session, \(connectionLossCount) connections lost",
            "faults: " + faults.sorted { $0.key < $1.key }.map { "\($0.key.rawValue) \($0.value)" }.joined(separator: ", "),
            "request errors, all allowed: "
                + requestFailures.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "),
            "failed seeds: \(failures.count)",
        ]
        for failure in failures.sorted(by: { $0.seed < $1.seed }).prefix(50) { lines.append("  " + failure.replayLine) }
        return lines.joined(separator: "\n")
    }
}

extension RunResult {
    /// The command that shows it again.
    public var replayLine: String { "\(replayCommand) --steps   # \(violation.map { "\($0)" } ?? "no violation")" }

    private var replayCommand: String { "swift run simulate \(seed)\(hasConnections ? " --connections" : "")\(hasLanes ? " --lanes" : "")" }

    public var summary: String {
        let made = faults.filter { $0.1 > 0 }.map { "\($0.0.rawValue) \($0.1)" }.joined(separator: ", ")
        var lines = [
            "seed \(seed): \(violation.map { "FAILED: \($0)" } ?? "ok"), trace \(String(traceHash, radix: 16))",
            "  \(scenario)",
            "  \(requestCount) requests, \(redrivenCount) driven again, \(pathLossCount) paths lost, \(connectionLossCount) connections lost, \(virtualTime) of virtual time, \(eventCount) events",
            "  faults made: \(made.isEmpty ? "none" : made)",
        ]
        if !failures.isEmpty { lines.append("  request errors: " + failures.map { "\($0.0) \($0.1)" }.joined(separator: ", ")) }
        if violation != nil { lines.append("  replay: \(replayCommand) --steps") }
        return lines.joined(separator: "\n")
    }
}

/// Looks for a planted bug, seed after seed.
public enum PlantedBugSearch {
    /// How many seeds it took, and what was found; nil where the limit came first. A seed that fails without the bug
    /// as well shows nothing of it.
    public static func find(_ bug: PlantedBug, first: UInt64 = 1, limit: UInt64) -> (seeds: UInt64, violation: Violation)? {
        for number in 0..<limit {
            let seed = first + number
            let connections = bug.needsConnections
            let lanes = bug.needsLanes
            guard let violation = Simulation(seed: seed, bug: bug, connections: connections, lanes: lanes).run().violation else { continue }
            if Simulation(seed: seed, connections: connections, lanes: lanes).run().violation == nil { return (number + 1, violation) }
        }
        return nil
    }
}
