/// What one run of `bench` does.
struct Options {
    enum Mode {
        /// One load, all contenders.
        case load
        /// Depths, sizes, numbers of paths.
        case sweep
        /// The embedded target against tgtd.
        case servers
        /// All that docs/performance.md shows.
        case all
        /// Draws the figures of a sweep again.
        case redraw(String)
        /// Another program beside this one.
        case program(String, arguments: [String])
    }

    var mode = Mode.load
    var load = Load()
    var target: TargetKind?
    private var seconds: Double?
    private var rampSeconds: Double?
    private var roundCount: Int?
    /// Few and short rounds.
    var isQuick = false
    /// Before the other programs of the machine.
    var isUrgent = false
    var outputDirectory = "bench-results"
    var baseline = "libiscsi"
    var only: [String] = []
    private var mpio: String?
    /// The largest CPU ratio allowed, by contender.
    var limits: [(name: String, ratio: Double)] = []
    var extra: [(name: String, command: String)] = []
    var isJSON = false

    static let usage = """
        usage: bench [options]
          --sessions N          iSCSI sessions, each through a portal of its own, 1 to 8 (4)
          --depth N             requests outstanding over all sessions (32)
          --block-size N        bytes per request, k and M are understood (4k)
          --write-percent N     0 reads only, 100 writes only (0)
          --sequential          instead of random
          --digests WHICH       CRC32C digests: none, header, data or header,data (none); who cannot do that is left out
          --switch-after N      requests that our round robin gives to one path before the next (1)
          --target WHICH        tgtd-null, tgtd-file (a file in memory) or embedded, which is mpio target (tgtd-null)
          --seconds S           that count, each run (3)
          --ramp S              before they count (0.5)
          --rounds N            every contender runs once a round, in turn (5)
          --baseline NAME       the contender that the others are divided by (libiscsi)
          --only NAME,NAME      of the contenders: libiscsi, mpio-queue (our batch API), mpio-mcs (the same over one session of as
                                many connections as --sessions says), mpio (the command), qemu-img, tcp-floor, those of
                                --contender, and three that run only when asked for: mpio-async (our async API on the
                                reactor's thread), mpio-async-elsewhere (off it), iscsi-perf (reads, for whole seconds)
          --limit NAME=RATIO    fail where this contender's CPU per request, in the median, is more than so many times
                                the baseline's
          --mpio PATH           the mpio command, where it is not beside this program
          --contender NAME=CMD  another program that prints the JSON keys of `mpio bench --json`. In CMD are filled in:
                                {urls} {portals} {flags} {config} {mcs-config} {sessions} {depth} {block-size}
                                {write-percent} {seconds} {ramp}
          --json                one line of JSON instead of the table

        Other measurements, instead of that of one load:
          --sweep               depths 1 to 256, sizes 512 B to 1 MiB, 1 to 8 paths, digests; reads and writes. Writes JSON and
                                plots (SVG) into the directory --output, for --target, or for tgtd-null and embedded
          --servers             the embedded target against tgtd, libiscsi as their client
          --all                 both, and the tables of docs/performance.md, --scale and --choosing as well; a report in
                                Markdown goes to --output
          --redraw FILE         draws the plots of a sweep's JSON file again
          --scale …             up to 1,000 LUNs of four paths; --scale --help tells more
          --choosing …          nanoseconds to choose a path; --choosing --help tells more

          --output DIRECTORY    (bench-results)
          --quick               few and short rounds: --all takes less than ten minutes
          --urgent              before the machine's other programs, where it is not quiet (root)

        The target runs on processor 0, clients on processor 1. Numbers of one machine and one run compare; absolute ones do not.
        """

    /// What is measured takes different times: one load is measured longest, the many of a sweep shortest.
    enum Purpose { case load, servers, cases, sweep }

    /// How long something is measured, where the command line does not say it.
    func timing(_ purpose: Purpose) -> Timing {
        let usual: Timing =
            switch (purpose, isQuick) {
            case (.load, false): Timing(seconds: 3, rampSeconds: 0.5, roundCount: 5)
            case (.load, true): Timing(seconds: 0.5, rampSeconds: 0.2, roundCount: 3)
            case (.servers, false): Timing(seconds: 2, rampSeconds: 0.3, roundCount: 7)
            case (.servers, true): Timing(seconds: 0.3, rampSeconds: 0.1, roundCount: 5)
            case (.cases, false): Timing(seconds: 2, rampSeconds: 0.3, roundCount: 5)
            case (.cases, true): Timing(seconds: 0.2, rampSeconds: 0.1, roundCount: 3)
            case (.sweep, false): Timing(seconds: 1, rampSeconds: 0.2, roundCount: 5)
            case (.sweep, true): Timing(seconds: 0.15, rampSeconds: 0.05, roundCount: 2)
            }
        return Timing(
            seconds: seconds ?? usual.seconds, rampSeconds: rampSeconds ?? usual.rampSeconds,
            roundCount: roundCount ?? usual.roundCount)
    }

    /// The command: the one that was named, or that beside this program.
    var mpioPath: String? {
        let beside = Arena.programs + "/mpio"
        return mpio ?? (isExecutable(beside) ? beside : nil)
    }
}

struct Timing: Codable {
    var seconds: Double
    var rampSeconds: Double
    var roundCount: Int
}

enum UsageError: Error, CustomStringConvertible {
    case helpWanted
    case unknown(String)
    case missingValue(String)
    case badValue(option: String, value: String, expected: String)

    var description: String {
        switch self {
        case .helpWanted: Options.usage
        case .unknown(let option): "unknown option \(option)\n\n\(Options.usage)"
        case .missingValue(let option): "\(option) needs a value"
        case .badValue(let option, let value, let expected): "\(option): \(value) is not \(expected)"
        }
    }
}

extension Options {
    init(_ arguments: [String]) throws(UsageError) {
        var rest = arguments[...]
        while let option = rest.popFirst() {
            switch option {
            case "--help", "-h": throw .helpWanted
            case "--sequential": load.isSequential = true
            case "--json": isJSON = true
            case "--quick": isQuick = true
            case "--urgent": isUrgent = true
            case "--sweep": mode = .sweep
            case "--servers": mode = .servers
            case "--all": mode = .all
            case "--scale", "--choosing":
                // The rest is the other program's.
                mode = .program(option == "--scale" ? "scale" : "path-choice", arguments: Array(rest))
                return
            default: try take(option, value: rest.popFirst())
            }
        }
        (load.seconds, load.rampSeconds) = (timing(.load).seconds, timing(.load).rampSeconds)
    }

    private mutating func take(_ option: String, value: String?) throws(UsageError) {
        func text() throws(UsageError) -> String {
            guard let value else { throw .missingValue(option) }
            return value
        }
        func integer(_ range: ClosedRange<Int>) throws(UsageError) -> Int {
            let value = try text()
            guard let number = Int(value), range.contains(number) else {
                throw .badValue(
                    option: option, value: value, expected: "a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
        func duration() throws(UsageError) -> Double {
            let value = try text()
            guard let number = Double(value), number >= 0, number <= 3600 else {
                throw .badValue(option: option, value: value, expected: "a number of seconds up to 3600")
            }
            return number
        }
        func choice<Choice: RawRepresentable & CaseIterable>(_: Choice.Type) throws(UsageError) -> Choice
        where Choice.RawValue == String {
            let value = try text()
            guard let choice = Choice(rawValue: value) else {
                let words = Choice.allCases.map(\.rawValue).joined(separator: ", ")
                throw .badValue(option: option, value: value, expected: "one of \(words)")
            }
            return choice
        }
        switch option {
        case "--sessions": load.sessionCount = try integer(1...8)
        case "--depth": load.depth = try integer(1...4096)
        case "--block-size": load.blockByteCount = try Self.size(text(), option: option)
        case "--write-percent": load.writePercent = try integer(0...100)
        case "--digests": load.digests = try choice(Digests.self)
        case "--target": target = try choice(TargetKind.self)
        case "--seconds": seconds = try duration()
        case "--ramp": rampSeconds = try duration()
        case "--rounds": roundCount = try integer(1...1000)
        case "--switch-after": load.switchAfter = try integer(1...4096)
        case "--baseline": baseline = try text()
        case "--only": only = try text().split(separator: ",").map(String.init)
        case "--mpio": mpio = try text()
        case "--output": outputDirectory = try text()
        case "--redraw": mode = .redraw(try text())
        case "--limit":
            let parts = try text().split(separator: "=").map(String.init)
            guard parts.count == 2, let ratio = Double(parts[1]), ratio > 0 else {
                throw .badValue(option: option, value: value ?? "", expected: "NAME=RATIO")
            }
            limits.append((parts[0], ratio))
        case "--contender":
            let parts = try text().split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else {
                throw .badValue(option: option, value: value ?? "", expected: "NAME=COMMAND")
            }
            extra.append((parts[0], parts[1]))
        default: throw .unknown(option)
        }
    }

    private static func size(_ text: String, option: String) throws(UsageError) -> Int {
        let units: [Character: Int] = ["k": 1 << 10, "K": 1 << 10, "M": 1 << 20]
        let unit = text.last.flatMap { units[$0] }
        let digits = unit == nil ? text[...] : text.dropLast()
        guard let number = Int(digits), (1...(1 << 20)).contains(number),
            (512...(1 << 20)).contains(number * (unit ?? 1)), number * (unit ?? 1) % 512 == 0
        else { throw .badValue(option: option, value: text, expected: "a multiple of 512 up to 1M") }
        return number * (unit ?? 1)
    }
}
