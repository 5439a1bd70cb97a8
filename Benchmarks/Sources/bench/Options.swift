/// What one run of `bench` does.
struct Options {
    var sessionCount = 4
    var depth = 32
    var blockByteCount = 4096
    var writePercent = 0
    var isSequential = false
    var seconds = 3.0
    var rampSeconds = 0.5
    var roundCount = 5
    var baseline = "libiscsi"
    var only: [String] = []
    var mpio: String?
    var extra: [(name: String, command: String)] = []
    var isJSON = false

    static let usage = """
        usage: bench [options]
          --sessions N          iSCSI sessions, each through a portal of its own, 1 to 8 (4)
          --depth N             requests outstanding over all sessions (32)
          --block-size N        bytes per request, k and M are understood (4k)
          --write-percent N     0 reads only, 100 writes only (0)
          --sequential          instead of random
          --seconds S           that count, each run (3)
          --ramp S              before they count (0.5)
          --rounds N            every contender runs once a round, in turn (5)
          --baseline NAME       the contender that the others are divided by (libiscsi)
          --only NAME,NAME      of the contenders: libiscsi, mpio-queue (our batch API), mpio-mcs (the same over one session of as
                                many connections as --sessions says), mpio (the command), qemu-img, tcp-floor, and those of
                                --contender
          --mpio PATH           the mpio command, where it is not beside this program
          --contender NAME=CMD  another program that prints the JSON keys of `mpio bench --json`. In CMD are filled in:
                                {urls} {portals} {flags} {config} {mcs-config} {sessions} {depth} {block-size}
                                {write-percent} {seconds} {ramp}
          --json                one line of JSON instead of the table

        The target is a private tgtd with a null LUN, pinned to processor 0; clients run on processor 1.
        Numbers of one machine and one run compare; absolute ones do not.
        """
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
            case "--sequential": isSequential = true
            case "--json": isJSON = true
            default: try take(option, value: rest.popFirst())
            }
        }
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
        switch option {
        case "--sessions": sessionCount = try integer(1...8)
        case "--depth": depth = try integer(1...4096)
        case "--block-size": blockByteCount = try Self.size(text(), option: option)
        case "--write-percent": writePercent = try integer(0...100)
        case "--seconds": seconds = try duration()
        case "--ramp": rampSeconds = try duration()
        case "--rounds": roundCount = try integer(1...1000)
        case "--baseline": baseline = try text()
        case "--only": only = try text().split(separator: ",").map(String.init)
        case "--mpio": mpio = try text()
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
