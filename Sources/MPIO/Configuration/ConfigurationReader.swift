import Multipath
import SCSI
import Yams

/// Reads a ``Configuration`` out of a document's nodes: section by section, noting every mistake and going on.
struct ConfigurationReader {
    let collector: ConfigurationErrorCollector
    /// The folder of the policy file, against which relative file names count.
    let folder: String
    var configuration = Configuration()
    /// Whether the file lists any, right or wrong.
    private(set) var hasTargets = false

    /// What a LUN's settings are built from: the values, and which policy options were written down, and where.
    struct SettingsLayer {
        var settings: LUNSettings
        var writtenOptions: [PolicyOption: PolicyNode] = [:]
    }

    init(collector: ConfigurationErrorCollector, folder: String) {
        self.collector = collector
        self.folder = folder
    }

    static let topKeysWords = "the keys initiator, reactors, defaults, targets and luns"

    mutating func read(_ root: Node) {
        let node = PolicyNode(node: root, keyPath: "", collector: collector)
        guard
            let top = node.mapping(keys: ["initiator", "reactors", "defaults", "targets", "luns"], expected: Self.topKeysWords)
        else { return }
        if let initiator = top["initiator"] { readInitiator(initiator) }
        if let count = top["reactors"]?.whole(Configuration.reactorRange) { configuration.reactors = count }
        if let defaults = top["defaults"], let mapping = defaults.mapping(keys: Self.settingsKeys) {
            configuration.defaults = Self.readSettings(mapping, onto: LUNSettings()).settings
        }
        if let targets = top["targets"] {
            if case .sequence(let list) = targets.node, list.isEmpty {} else { hasTargets = true }
            readTargets(targets)
        }
        guard let luns = top.required("luns", expected: "a list of LUNs, each with a name") else { return }
        readLUNs(luns)
    }

    private mutating func readInitiator(_ node: PolicyNode) {
        guard let mapping = node.mapping(keys: ["name", "busy-poll"]) else { return }
        if let name = mapping["name"] {
            configuration.initiatorName = Self.iscsiName(name, example: "iqn.2026-11.org.example:host-1")
        }
        if let node = mapping["busy-poll"], let value = Self.busyPoll(node) { configuration.busyPoll = value }
    }

    private static func busyPoll(_ node: PolicyNode) -> BusyPoll? {
        node.value(expected: "adaptive, never or a duration from 1us to 10ms, such as 50us") { text in
            switch text {
            case "adaptive": return .adaptive
            case "never": return .never
            default:
                guard let span = Units.parseDuration(text), (.microseconds(1) ... .milliseconds(10)).contains(span) else { return nil }
                return .always(span)
            }
        }
    }

    /// An iSCSI name, in the folded form in which names are compared.
    static func iscsiName(_ node: PolicyNode, example: String) -> String? {
        guard let text = node.text(expected: "an iSCSI name such as \(example)") else { return nil }
        if let problem = ISCSINameProblem.find(in: text) {
            node.report("'\(shortened(text))' is no iSCSI name: \(problem)", expected: "a name such as \(example)")
            return nil
        }
        return text
    }

    // MARK: Settings of defaults and LUNs

    static let settingsKeys =
        ["policy"] + PolicyOption.allCases.map(\.rawValue) + ["timers", "marginal-paths", "allow-lun-reset", "asymmetric-access"]

    static func readSettings(_ mapping: PolicyMapping, onto base: LUNSettings) -> SettingsLayer {
        var layer = SettingsLayer(settings: base)
        if let node = mapping["policy"], let kind = policy(node) { layer.settings.policy.kind = kind }
        for option in PolicyOption.allCases {
            guard let node = mapping[option.rawValue] else { continue }
            layer.writtenOptions[option] = node
            read(option, from: node, into: &layer.settings.policy.options)
        }
        if let node = mapping["timers"] { readTimers(node, into: &layer.settings.timers) }
        if let node = mapping["marginal-paths"] { readMarginal(node, into: &layer.settings.marginalPaths) }
        if let value = mapping["allow-lun-reset"]?.boolean() {
            layer.settings.staleWriteGuard.allowsLogicalUnitReset = value
        }
        if let node = mapping["asymmetric-access"] { readAsymmetricAccess(node, into: &layer.settings.asymmetricAccess) }
        return layer
    }

    static func policy(_ node: PolicyNode, forConnections: Bool = false) -> PolicyKind? {
        let kinds = PolicyKind.allCases.filter { !forConnections || $0.appliesToConnections }
        let expected = listed(kinds.map(\.rawValue))
        guard let text = node.text(expected: expected) else { return nil }
        if let kind = PolicyKind(name: text) {
            if kinds.contains(kind) { return kind }
            node.report("'\(text)' can't choose among the connections of a session", expected: expected)
            return nil
        }
        let hint = suggestion(for: text, among: kinds.map(\.rawValue))
        node.report("'\(shortened(text))' is no policy" + hint, expected: expected)
        return nil
    }

    private static func read(_ option: PolicyOption, from node: PolicyNode, into options: inout PolicyOptions) {
        switch option {
        case .switchAfter: if let value = switchAfter(node) { options.switchAfter = value }
        case .failBack: if let value = failBack(node) { options.failBack = value }
        case .activateStandby:
            let choices = ActivateStandby.allCases.map { ($0.rawValue, $0) }
            if let value = node.choice(choices) { options.activateStandby = value }
        case .weights:
            if let value = node.choice(WeightMeaning.allCases.map { ($0.rawValue, $0) }) { options.weights = value }
        case .sequentialAffinity: if let value = node.boolean() { options.sequentialAffinity = value }
        }
    }

    /// A number counts requests; a size with a unit counts bytes.
    private static func switchAfter(_ node: PolicyNode) -> SwitchAfter? {
        node.value(expected: PolicyOption.switchAfter.expected) { SwitchAfter($0) }
    }

    /// `immediate`, `manual` or `{after: 30s}`.
    private static func failBack(_ node: PolicyNode) -> FailBack? {
        if case .mapping = node.node {
            guard let mapping = node.mapping(keys: ["after"]),
                let after = mapping.required("after", expected: "a duration such as 30s")
            else { return nil }
            return after.duration(.zero ... .seconds(86_400)).map { .after($0) }
        }
        return node.value(expected: "immediate, manual or {after: 30s}") { text in
            switch text {
            case "immediate": .immediate
            case "manual": .manual
            default: nil
            }
        }
    }

    private static func readTimers(_ node: PolicyNode, into timers: inout Timers) {
        let keys = [
            "path-verify-period", "retry-count", "retry-interval", "pdo-remove-period", "path-recovery-interval",
            "path-recovery-interval-maximum", "login-timeout", "command-timeout", "silence-timeout", "quiesce-time",
        ]
        guard let mapping = node.mapping(keys: keys) else { return }
        let shortest = Duration.milliseconds(10)
        let day = Duration.seconds(86_400)
        let hour = Duration.seconds(3600)
        func set(
            _ key: String, _ range: ClosedRange<Duration>, _ target: WritableKeyPath<Timers, Duration>,
            neverIsZero: Bool = false
        ) {
            guard let value = mapping[key]?.duration(range, words: neverIsZero ? ["never": .zero] : [:]) else { return }
            timers[keyPath: target] = value
        }
        set("path-verify-period", .zero...day, \.pathVerifyPeriod, neverIsZero: true)
        set("retry-interval", .zero...hour, \.retryInterval)
        set("path-recovery-interval", shortest...hour, \.pathRecoveryInterval)
        set("path-recovery-interval-maximum", shortest...hour, \.pathRecoveryIntervalMaximum)
        set("login-timeout", shortest...hour, \.loginTimeout)
        // Not 0, which elsewhere means at once: who wants no bound says so.
        set("command-timeout", shortest...day, \.commandTimeout, neverIsZero: true)
        set("silence-timeout", shortest...hour, \.silenceTimeout)
        set("quiesce-time", .zero...day, \.quiesceTime)
        if let count = mapping["retry-count"]?.whole(0...1000) { timers.retryCount = count }
        if let node = mapping["pdo-remove-period"] {
            // A word of its own: zero already means "fail at once" here.
            if case .scalar(let scalar) = node.node, scalar.string == "never" {
                timers.pdoRemovePeriod = .never
            } else if let value = node.duration(.zero...day, words: ["never": .zero]) {
                timers.pdoRemovePeriod = .after(value)
            }
        }
        checkTimers(mapping, timers)
    }

    private static func checkTimers(_ mapping: PolicyMapping, _ timers: Timers) {
        if timers.pathRecoveryInterval > timers.pathRecoveryIntervalMaximum,
            let node = mapping["path-recovery-interval"] ?? mapping["path-recovery-interval-maximum"]
        {
            node.report("path-recovery-interval is longer than path-recovery-interval-maximum (\(Units.format(timers.pathRecoveryIntervalMaximum)))")
        }
        if timers.commandTimeout > .zero, timers.silenceTimeout >= timers.commandTimeout,
            let node = mapping["silence-timeout"] ?? mapping["command-timeout"]
        {
            node.report("silence-timeout (\(Units.format(timers.silenceTimeout))) has to be shorter than command-timeout (\(Units.format(timers.commandTimeout)))")
        }
    }

    private static func readAsymmetricAccess(_ node: PolicyNode, into access: inout AsymmetricAccessSettings) {
        guard let mapping = node.mapping(keys: ["preferred-bit", "set-target-port-groups"]) else { return }
        if let value = mapping["preferred-bit"]?.choice([("follow", true), ("ignore", false)]) {
            access.followsPreferredBit = value
        }
        if let value = mapping["set-target-port-groups"]?.boolean() { access.setsTargetPortGroups = value }
    }

    private static func readMarginal(_ node: PolicyNode, into marginal: inout MarginalPathSettings) {
        guard let mapping = node.mapping(keys: ["loss-count", "window", "first-hold", "hold-maximum"]) else { return }
        let range = Duration.milliseconds(100) ... Duration.seconds(86_400)
        if let value = mapping["loss-count"]?.whole(2...1000) { marginal.lossCount = value }
        if let value = mapping["window"]?.duration(range) { marginal.window = value }
        if let value = mapping["first-hold"]?.duration(range) { marginal.firstHold = value }
        if let value = mapping["hold-maximum"]?.duration(range) { marginal.holdMaximum = value }
        if marginal.firstHold > marginal.holdMaximum, let node = mapping["first-hold"] ?? mapping["hold-maximum"] {
            node.report("first-hold is longer than hold-maximum (\(Units.format(marginal.holdMaximum)))")
        }
    }
}

/// Why a text is no iSCSI name (RFC 7143 section 4.2.7). As lenient as the targets in the field: upper case and
/// underscores, which the standard folds or forbids, are taken as they are.
enum ISCSINameProblem: CustomStringConvertible {
    case tooLong
    case unknownType
    case badIQN
    case badHexadecimal
    case badCharacter(Unicode.Scalar)

    static func find(in text: String) -> ISCSINameProblem? {
        if text.utf8.count > 223 { return .tooLong }
        for scalar in text.unicodeScalars {
            let isWord = scalar.properties.isAlphabetic || scalar.properties.numericType != nil
            if !isWord && !"-.:_".unicodeScalars.contains(scalar) { return .badCharacter(scalar) }
        }
        let lowered = text.lowercased()
        if lowered.hasPrefix("iqn.") {
            // iqn.YYYY-MM.reversed.domain[:anything]
            let rest = lowered.dropFirst(4)
            let isDated =
                rest.wholeMatch(of: /[0-9]{4}-(0[1-9]|1[0-2])\.[^.:]+(\.[^.:]+)*(:.*)?/) != nil
            return isDated ? nil : .badIQN
        }
        let digits = lowered.dropFirst(4)
        let isHexadecimal = digits.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
        if lowered.hasPrefix("eui.") { return isHexadecimal && digits.count == 16 ? nil : .badHexadecimal }
        if lowered.hasPrefix("naa.") { return isHexadecimal && [16, 32].contains(digits.count) ? nil : .badHexadecimal }
        return .unknownType
    }

    var description: String {
        switch self {
        case .tooLong: "it has more than 223 bytes"
        case .unknownType: "it starts with none of iqn., eui. and naa."
        case .badIQN: "after iqn. come a year and month, a dot and a domain, reversed"
        case .badHexadecimal: "eui. is followed by 16 hexadecimal digits, naa. by 16 or 32"
        case .badCharacter(let scalar): "it contains '\(shortened(String(scalar)))'"
        }
    }
}
