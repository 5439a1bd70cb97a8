import ISCSI
import SCSI

/// What is wrong with the text of a fault.
public enum FaultParseError: Error, Hashable, Sendable {
    case unknownKind(String)
    case missingValue(String)
    case valueNotAllowed(String)
    case badValue(option: String, value: String, expected: String)
    case unknownOption(String)
    case duplicateOption(String)
    case optionNotAllowed(String, kind: String)
}

extension FaultParseError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .unknownKind(let kind):
            "unknown fault '\(kind)': expected \(FaultCommand.kindNames.joined(separator: ", "))"
        case .missingValue(let name): "\(name) needs a value: \(name)=VALUE"
        case .valueNotAllowed(let name): "\(name) takes no value"
        case .badValue(let option, let value, let expected): "\(option)=\(value): expected \(expected)"
        case .unknownOption(let option):
            "unknown option '\(option)': expected portal, node, group, connection, lun, op, lba, from, count, chance, after or for"
        case .duplicateOption(let option): "\(option) is given twice"
        case .optionNotAllowed(let option, let kind): "\(kind) takes no \(option)"
        }
    }
}

extension FaultCommand {
    /// The words that a text may begin with.
    public static let kindNames = [
        "reset", "silence", "mute", "deaf", "slow-drip", "refuse", "hang-in-login", "busy", "task-set-full", "sense", "reject",
        "digest-corruption", "async-logout", "async-drop", "delay", "late-execution", "alua-transition", "restart", "identity", "capacity",
    ]

    /// Strict: an unknown word, a value that is none, or an option given twice is an error.
    public init(parsing text: String) throws(FaultParseError) {
        let colon = text.firstIndex(of: ":")
        let head = text[..<(colon ?? text.endIndex)]
        let equals = head.firstIndex(of: "=")
        let name = String(head[..<(equals ?? head.endIndex)])
        let value = equals.map { String(head[head.index(after: $0)...]) }
        self.init(try Self.kind(name, value))
        guard let colon else { return }
        var seen: [String] = []
        for part in text[text.index(after: colon)...].split(separator: ",", omittingEmptySubsequences: false) {
            guard let equals = part.firstIndex(of: "=") else {
                throw part.isEmpty ? .unknownOption("") : .missingValue(String(part))
            }
            let option = String(part[..<equals])
            guard !seen.contains(option) else { throw .duplicateOption(option) }
            seen.append(option)
            try apply(option, String(part[part.index(after: equals)...]))
        }
        try check(seen, name)
    }

    private func check(_ options: [String], _ name: String) throws(FaultParseError) {
        for option in options {
            let isAllowed =
                switch (option, kind) {
                case ("connection", .refuse), ("connection", .hangInLogin): false
                case ("op", .refuse), ("lba", .refuse), ("op", .hangInLogin), ("lba", .hangInLogin): false
                case ("for", .reset), ("for", .digestCorruption), ("for", .asyncLogout), ("for", .asyncDrop), ("for", .restart): trigger.needsCommand
                default: true
                }
            if !isAllowed { throw .optionNotAllowed(option, kind: name) }
        }
    }

    private static func kind(_ name: String, _ value: String?) throws(FaultParseError) -> FaultKind {
        func plain(_ kind: FaultKind) throws(FaultParseError) -> FaultKind {
            guard value == nil else { throw .valueNotAllowed(name) }
            return kind
        }
        func required() throws(FaultParseError) -> String {
            guard let value, !value.isEmpty else { throw .missingValue(name) }
            return value
        }
        func time(_ standard: Duration?) throws(FaultParseError) -> Duration {
            guard let text = value else {
                guard let standard else { throw .missingValue(name) }
                return standard
            }
            return try duration(text, name)
        }
        switch name {
        case "reset": return try plain(.reset)
        case "silence": return try plain(.silence)
        case "mute": return try plain(.mute)
        case "deaf": return try plain(.deaf)
        case "refuse": return try plain(.refuse)
        case "hang-in-login": return try plain(.hangInLogin)
        case "busy": return try plain(.status(.busy))
        case "task-set-full": return try plain(.status(.taskSetFull))
        case "slow-drip":
            guard let value else { return .slowDrip(bytesPerSecond: 1024) }
            guard let rate = LogicalUnitConfiguration.parseByteCount(value), (1...1 << 30).contains(rate) else {
                throw .badValue(option: name, value: value, expected: "bytes a second, such as 100 or 4k")
            }
            return .slowDrip(bytesPerSecond: Int(rate))
        case "sense": return .sense(try sense(try required()))
        case "reject":
            guard let value else { return .reject(.commandNotSupported) }
            guard let code = UInt8(value, radix: 16) else {
                throw .badValue(option: name, value: value, expected: "a reason of RFC 7143 section 11.17.1 in hexadecimal, such as 05")
            }
            return .reject(RejectReason(rawValue: code))
        case "digest-corruption":
            guard let value else { return .digestCorruption(.data) }
            guard let place = FaultKind.DigestPlace(rawValue: value) else {
                throw .badValue(option: name, value: value, expected: "header or data")
            }
            return .digestCorruption(place)
        case "async-logout": return .asyncLogout(within: try time(.seconds(3)))
        case "async-drop": return .asyncDrop(after: try time(.milliseconds(50)))
        case "delay": return .delay(try time(nil))
        case "late-execution": return .lateExecution(after: value == nil ? nil : try time(nil))
        case "restart": return .restart(downFor: try time(.zero))
        case "alua-transition":
            guard let value else { return .aluaTransition(.transitioning) }
            guard let state = stateNames.first(where: { $0.name == value })?.state else {
                throw .badValue(
                    option: name, value: value, expected: stateNames.map(\.name).joined(separator: ", "))
            }
            return .aluaTransition(state)
        case "identity":
            guard let value else { return .identity(nil) }
            guard let bytes = LogicalUnitConfiguration.parseNAA6(value) else {
                throw .badValue(option: name, value: value, expected: "naa.6 and 31 more hexadecimal digits")
            }
            return .identity(bytes)
        case "capacity":
            let text = try required()
            guard let count = LogicalUnitConfiguration.parseByteCount(text), count > 0 else {
                throw .badValue(option: name, value: text, expected: "a number of blocks")
            }
            return .capacity(blockCount: count)
        default: throw .unknownKind(name)
        }
    }

    private static let stateNames: [(name: String, state: AccessState)] = [
        ("optimized", .optimized), ("non-optimized", .nonOptimized), ("standby", .standby),
        ("unavailable", .unavailable), ("offline", .offline), ("transitioning", .transitioning),
    ]

    /// `KEY/ASC/ASCQ`, each in hexadecimal.
    private static func sense(_ text: String) throws(FaultParseError) -> SenseData {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map { $0.count <= 2 ? UInt8($0, radix: 16) : nil }
        guard parts.count == 3, let first = parts[0], let key = SenseKey(rawValue: first), let code = parts[1],
            let qualifier = parts[2]
        else { throw .badValue(option: "sense", value: text, expected: "KEY/ASC/ASCQ in hexadecimal, such as 03/11/00") }
        return SenseData(key: key, additional: AdditionalSense(code, qualifier))
    }

    // MARK: options

    private mutating func apply(_ option: String, _ value: String) throws(FaultParseError) {
        switch option {
        case "portal": trigger.portal = Int(try Self.number(value, option, 0...65_535))
        case "group": trigger.group = UInt16(try Self.number(value, option, 0...65_535))
        case "connection": trigger.connection = UInt16(try Self.number(value, option, 0...65_535))
        case "lun": trigger.lun = Int(try Self.number(value, option, 0...16_383))
        case "from": trigger.firstCommand = try Self.number(value, option, 1...UInt64.max)
        case "count": trigger.count = try Self.number(value, option, 1...UInt64.max)
        case "node":
            guard !value.isEmpty else { throw .missingValue(option) }
            trigger.node = value
        case "op":
            guard let direction = FaultTrigger.Direction(rawValue: value) else {
                throw .badValue(option: option, value: value, expected: "read or write")
            }
            trigger.direction = direction
        case "lba":
            let ends = value.split(separator: "-", omittingEmptySubsequences: false)
            let first = ends.first.flatMap(Self.digits)
            let last = ends.count == 1 ? first : ends.last.flatMap(Self.digits)
            guard ends.count <= 2, let first, let last, first <= last else {
                throw .badValue(option: option, value: value, expected: "blocks, such as 7 or 0-2047")
            }
            trigger.blocks = first...last
        case "chance":
            guard let millionths = Self.millionths(value) else {
                throw .badValue(option: option, value: value, expected: "a probability of 0 to 1 with at most six decimals")
            }
            trigger.chanceMillionths = millionths
        case "after": trigger.delay = try Self.duration(value, option)
        case "for": trigger.duration = try Self.duration(value, option)
        default: throw .unknownOption(option)
        }
    }

    private static func digits(_ text: some StringProtocol) -> UInt64? {
        !text.isEmpty && text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? UInt64(text) : nil
    }

    private static func number(_ text: String, _ option: String, _ range: ClosedRange<UInt64>) throws(FaultParseError) -> UInt64 {
        guard let number = digits(text), range.contains(number) else {
            throw .badValue(option: option, value: text, expected: "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private static func millionths(_ text: String) -> UInt32? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count <= 2, let whole = parts.first.flatMap(digits), whole <= 1 else { return nil }
        guard parts.count == 2 else { return UInt32(whole) * 1_000_000 }
        guard (1...6).contains(parts[1].count), let part = digits(parts[1]) else { return nil }
        var value = UInt32(part)
        for _ in parts[1].count..<6 { value *= 10 }
        return whole == 1 ? (value == 0 ? 1_000_000 : nil) : value
    }

    private static let units: [(suffix: String, nanoseconds: UInt64)] = [
        ("ms", 1_000_000), ("us", 1_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000),
    ]

    private static func duration(_ text: String, _ option: String) throws(FaultParseError) -> Duration {
        for unit in units where text.hasSuffix(unit.suffix) {
            guard let number = digits(text.dropLast(unit.suffix.count)), number <= UInt64(Int64.max) else { break }
            let (product, overflow) = number.multipliedReportingOverflow(by: unit.nanoseconds)
            guard !overflow, product <= UInt64(Int64.max) else { break }
            return .nanoseconds(Int64(product))
        }
        throw .badValue(option: option, value: text, expected: "a time, such as 200ms, 3s or 1m")
    }

    private static func text(_ duration: Duration) -> String {
        let parts = duration.components
        let nanoseconds = UInt64(max(0, parts.seconds)) * 1_000_000_000 + UInt64(max(0, parts.attoseconds / 1_000_000_000))
        for unit in ["h", "m", "s", "ms"] {
            let size = units.first { $0.suffix == unit }!.nanoseconds
            if nanoseconds % size == 0, nanoseconds > 0 { return "\(nanoseconds / size)\(unit)" }
        }
        return "\(nanoseconds / 1000)us"
    }
}

extension FaultCommand: CustomStringConvertible {
    /// The text that `init(parsing:)` reads.
    public var description: String {
        var options: [String] = []
        if let portal = trigger.portal { options.append("portal=\(portal)") }
        if let node = trigger.node { options.append("node=\(node)") }
        if let group = trigger.group { options.append("group=\(group)") }
        if let connection = trigger.connection { options.append("connection=\(connection)") }
        if let lun = trigger.lun { options.append("lun=\(lun)") }
        if let direction = trigger.direction { options.append("op=\(direction.rawValue)") }
        if let blocks = trigger.blocks { options.append("lba=\(blocks.lowerBound)-\(blocks.upperBound)") }
        if let first = trigger.firstCommand { options.append("from=\(first)") }
        if let count = trigger.count { options.append("count=\(count)") }
        if let chance = trigger.chanceMillionths {
            let digits = String(chance % 1_000_000)
            options.append("chance=\(chance / 1_000_000).\(String(repeating: "0", count: 6 - digits.count))\(digits)")
        }
        if let delay = trigger.delay { options.append("after=\(Self.text(delay))") }
        if let duration = trigger.duration { options.append("for=\(Self.text(duration))") }
        return kindText + (options.isEmpty ? "" : ":" + options.joined(separator: ","))
    }

    private var kindText: String {
        func hex(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }
        switch kind {
        case .reset: return "reset"
        case .silence: return "silence"
        case .mute: return "mute"
        case .deaf: return "deaf"
        case .slowDrip(let rate): return "slow-drip=\(rate)"
        case .refuse: return "refuse"
        case .hangInLogin: return "hang-in-login"
        case .status(let status): return status == .busy ? "busy" : "task-set-full"
        case .sense(let sense):
            return "sense=\(hex(sense.key.rawValue))/\(hex(sense.additional.code))/\(hex(sense.additional.qualifier))"
        case .reject(let reason): return "reject=\(hex(reason.rawValue))"
        case .digestCorruption(let place): return "digest-corruption=\(place.rawValue)"
        case .asyncLogout(let within): return "async-logout=\(Self.text(within))"
        case .asyncDrop(let after): return "async-drop=\(Self.text(after))"
        case .delay(let time): return "delay=\(Self.text(time))"
        case .lateExecution(let time): return "late-execution" + (time.map { "=" + Self.text($0) } ?? "")
        case .aluaTransition(let state):
            return "alua-transition=\(Self.stateNames.first { $0.state == state }?.name ?? "transitioning")"
        case .restart(let time): return "restart=\(Self.text(time))"
        case .identity(let bytes): return "identity" + (bytes.map { "=naa." + $0.map(hex).joined() } ?? "")
        case .capacity(let count): return "capacity=\(count)"
        }
    }
}

/// As its text.
extension FaultCommand: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        do {
            try self.init(parsing: container.decode(String.self))
        } catch let error as FaultParseError {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: error.description)
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
