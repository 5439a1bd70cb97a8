import Foundation
import MPIO
import TestSupport

/// Several tgtd processes over one file, each a controller of one array, killed, stopped and restarted at random while
/// a verified load runs. A seed decides what happens to whom and when (the machine decides what that leads to).
///
/// Each process is a target of its own name: the stale-write guard may end the writes of a nexus through any portal of
/// its target port group, and these processes do not know of one another's sessions.
final class Torture {
    struct Settings {
        var cycleCount = 25
        var seed: UInt64 = 1
        var policy = "round-robin"
        var controllerCount = 4
        var depth = 32
        var byteCount: UInt64 = 128 << 20
        /// Multiplies all waiting times of the schedule.
        var pace = 1.0
        /// Cycles after which memory and descriptors are counted for the first time.
        var warmUpCount = 8
        /// How often progress is shown, in cycles.
        var reportInterval = 100
        var silenceTimeout = Duration.milliseconds(500)
        /// Print each strike and what the disk says.
        var isVerbose = false
        /// While no path is left requests wait so long; the schedule never lasts as long.
        var removePeriod = Duration.seconds(20)
    }

    /// What one cycle does. It ends with the process running again.
    enum Strike: String {
        case kill = "kill -9"
        case stop = "SIGSTOP"
        /// Stopped, and killed rather than continued.
        case stopThenKill = "kill -9 of a stopped one"
        /// All that still run are killed or stopped within a moment: no path is left.
        case all = "loss of the last paths"
    }

    /// What is to be done to a controller, and when.
    private struct Errand {
        enum Kind { case restart, cont, killStopped }
        var at: ContinuousClock.Instant
        var controller: Int
        var kind: Kind
    }

    struct Count {
        var residentByteCount: Int
        var heapByteCount: Int
        var openFileCount: Int
    }

    let settings: Settings
    private let disk: MultipathDisk
    private let controllers: [TgtServer]
    private let load: VerifiedLoad
    private var random: SeededNumbers
    private var errands: [Errand] = []
    private var isStruck: [Bool]
    private(set) var strikes: [Strike: Int] = [:]
    private let begin = ContinuousClock.now
    private var events: [(kind: String, at: ContinuousClock.Instant, longest: Duration)] = []
    /// With every path well and nothing else going on: after the warm-up, and at the end.
    private(set) var counts: [Count] = []

    init(_ settings: Settings, disk: MultipathDisk, controllers: [TgtServer], load: VerifiedLoad) {
        self.settings = settings
        self.disk = disk
        self.controllers = controllers
        self.load = load
        random = SeededNumbers(state: settings.seed)
        isStruck = Array(repeating: false, count: controllers.count)
    }

    /// Runs all cycles under the load, which is running before and after.
    func run() async throws {
        var nextStrike = ContinuousClock.now
        for cycle in 1...settings.cycleCount {
            try await runErrands(until: nextStrike)
            try await strike()
            nextStrike = ContinuousClock.now + drawn(0.3...1.3)
            if cycle == settings.warmUpCount || cycle % settings.reportInterval == 0 {
                try await heal()
                report(cycle)
                nextStrike = ContinuousClock.now
            }
        }
        try await heal()
        report(settings.cycleCount)
    }

    private func drawn(_ range: ClosedRange<Double>) -> Duration {
        .seconds(Double.random(in: range, using: &random) * settings.pace)
    }

    // MARK: Striking

    private func strike() async throws {
        if Int.random(in: 0..<100, using: &random) < 4 { return try await strikeAll() }
        let controller = try await victim()
        switch Int.random(in: 0..<100, using: &random) {
        case ..<45: try apply(.kill, to: controller, name: Strike.kill.rawValue)
        case ..<85: try apply(.stop, to: controller, name: Strike.stop.rawValue)
        default: try apply(.stopThenKill, to: controller, name: Strike.stop.rawValue)
        }
    }

    /// A controller that is well, while another one is as well and its path carries data.
    private func victim() async throws -> Int {
        while true {
            let states = try await disk.paths.map(\.state)
            let well = controllers.indices.filter { !isStruck[$0] && states[$0] == .activeOptimized }
            if well.count > 1 { return well.randomElement(using: &random)! }
            try await runErrands(until: .now + .milliseconds(20))
        }
    }

    /// From a state in which all is well, so that the pause is its own.
    private func strikeAll() async throws {
        try await heal()
        note(Strike.all.rawValue)
        strikes[.all, default: 0] += 1
        for controller in controllers.indices where !isStruck[controller] {
            try apply(Bool.random(using: &random) ? .kill : .stop, to: controller, name: nil)
        }
    }

    /// `name`: what the pause that follows is counted under; nil where that is said already.
    private func apply(_ strike: Strike, to controller: Int, name: String?) throws {
        if let name {
            note(name)
            strikes[strike, default: 0] += 1
        }
        isStruck[controller] = true
        say("\(strike.rawValue), controller \(controller)")
        let isLong = Int.random(in: 0..<100, using: &random) < 15
        let end = ContinuousClock.now + drawn(isLong ? 1.5...4 : 0.05...1.5)
        switch strike {
        case .kill:
            controllers[controller].kill9()
            errands.append(Errand(at: end, controller: controller, kind: .restart))
        case .stop, .all:
            try controllers[controller].stop()
            errands.append(Errand(at: end, controller: controller, kind: .cont))
        case .stopThenKill:
            try controllers[controller].stop()
            errands.append(Errand(at: end, controller: controller, kind: .killStopped))
        }
    }

    // MARK: Healing

    /// Does what falls due before `deadline`, and returns then.
    private func runErrands(until deadline: ContinuousClock.Instant) async throws {
        while let next = errands.indices.min(by: { errands[$0].at < errands[$1].at }), errands[next].at < deadline {
            let errand = errands.remove(at: next)
            try await Task.sleep(until: errand.at)
            try run(errand)
        }
        try await Task.sleep(until: deadline)
    }

    private func run(_ errand: Errand) throws {
        let controller = controllers[errand.controller]
        say("\(errand.kind), controller \(errand.controller)")
        switch errand.kind {
        case .cont:
            note("SIGCONT")
            try controller.cont()
            isStruck[errand.controller] = false
        case .restart:
            note("restart")
            try controller.restart()
            isStruck[errand.controller] = false
        case .killStopped:
            note(Strike.stopThenKill.rawValue)
            controller.kill9()
            errands.append(Errand(at: .now + drawn(0.05...1.5), controller: errand.controller, kind: .restart))
        }
    }

    /// Lets all that was struck come back, and waits until every path carries data.
    private func heal() async throws {
        while let last = errands.map(\.at).max() { try await runErrands(until: last + .milliseconds(1)) }
        let up = Array(repeating: PathState.activeOptimized, count: controllers.count)
        guard try await disk.waitForStates(up, within: .seconds(60)) else {
            throw TortureFailure.pathsStayLost(try await disk.paths.map { "\($0.id) \($0.state)" })
        }
        try await load.proceed(100)
    }

    private func report(_ cycle: Int) {
        attributePauses()
        let stat = ProcessStat.current
        let heapByteCount = HeapUsage.inUseByteCount ?? 0
        counts.append(
            Count(
                residentByteCount: stat.residentByteCount, heapByteCount: heapByteCount,
                openFileCount: stat.openFileCount))
        let soFar = load.soFar
        print(
            "cycle \(cycle): \(soFar.requestCount) requests, \(soFar.errorCount) errors, \(soFar.mismatchCount) mismatches, "
                + "\(stat.residentByteCount >> 10) KiB resident, \(heapByteCount >> 10) KiB of heap, \(stat.openFileCount) descriptors")
        fflush(nil)
    }

    // MARK: Pauses

    private func note(_ kind: String) {
        attributePauses()
        events.append((kind, .now, .zero))
    }

    /// Seconds since the beginning.
    func time(_ instant: ContinuousClock.Instant = .now) -> String {
        String(format: "%.3f", begin.duration(to: instant) / .seconds(1))
    }

    private func say(_ words: String) { if settings.isVerbose { print("\(time()) \(words)") } }

    func printEvents(of disk: MultipathDisk) -> Task<Void, Never> {
        let (events, begin) = (disk.events, begin)
        return Task {
            for await event in events { print("\(begin.duration(to: .now) / .seconds(1)) disk: \(event.event)") }
        }
    }

    /// A pause belongs to the event that came last before it began, however many others it outlasts; but a process
    /// that stands still lets the load run on until all of the queue waits for it, so a stop goes before what
    /// followed it at once.
    private func attributePauses() {
        for pause in load.takePauses() {
            // The last completion may have come a moment before the event took effect.
            guard var cause = events.lastIndex(where: { $0.at <= pause.begin + .milliseconds(5) }) else { continue }
            if let stop = events[..<cause].lastIndex(where: {
                $0.kind == Strike.stop.rawValue && $0.at >= pause.begin - .milliseconds(200)
            }), pause.length >= .milliseconds(50) { cause = stop }
            events[cause].longest = max(events[cause].longest, pause.length)
        }
    }

    /// The longest pause that each event led to.
    var histogram: PauseHistogram {
        var histogram = PauseHistogram()
        for event in events { histogram.add(event.longest, after: event.kind) }
        return histogram
    }
}

enum TortureFailure: Error, CustomStringConvertible {
    case pathsStayLost([String])

    var description: String {
        switch self {
        case .pathsStayLost(let paths): "60 s after every process was started again the paths are \(paths)"
        }
    }
}

/// SplitMix64: the same numbers for the same seed.
struct SeededNumbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
