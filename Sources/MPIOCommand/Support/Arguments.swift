import ArgumentParser
import MPIO

/// A byte count on the command line: `4k`, `1M`.
struct ByteSize: ExpressibleByArgument, Hashable {
    var byteCount: UInt64

    init(_ byteCount: UInt64) {
        self.byteCount = byteCount
    }

    init?(argument: String) {
        guard let size = Units.parseSize(argument) else { return nil }
        byteCount = size
    }

    var defaultValueDescription: String {
        for (unit, shift) in [("G", 30), ("M", 20), ("k", 10)] as [(String, UInt64)] where byteCount > 0 && byteCount % (1 << shift) == 0 {
            return "\(byteCount >> shift)\(unit)"
        }
        return String(byteCount)
    }
}

/// A time on the command line: `10s`, `500ms`, or bare seconds.
struct TimeSpan: ExpressibleByArgument, Hashable {
    var duration: Duration

    init(_ duration: Duration) {
        self.duration = duration
    }

    init?(argument: String) {
        guard let duration = Units.parseDuration(argument) ?? Units.parseDuration(argument + "s") else { return nil }
        self.duration = duration
    }

    var defaultValueDescription: String { Units.format(duration) }
}

extension TimeSpan: CustomStringConvertible {
    var description: String { Units.format(duration) }
}

/// What every command that reads the policy file takes.
struct PolicyFileOptions: ParsableArguments {
    @Option(name: .long, help: ArgumentHelp("The policy file.", valueName: "file"), completion: .file(extensions: ["yaml", "yml"]))
    var config: String?

    /// The policy, from where it is looked for.
    func load() throws -> Configuration {
        try Configuration(contentsOf: Configuration.search(explicit: config))
    }
}
