public import Multipath

// The policy options as people write them, on the command line and in the policy file.

extension SwitchAfter {
    /// A number counts requests, a size with a unit (`64k`) counts bytes. Nil for anything else, and for 0.
    public init?(_ text: String) {
        if let requests = UInt32(text) {
            guard requests > 0 else { return nil }
            self = .requests(requests)
        } else {
            guard text.last?.isLetter == true, let bytes = Units.parseSize(text), bytes > 0 else { return nil }
            self = .bytes(bytes)
        }
    }
}

extension FailBack {
    /// `immediate`, `manual`, or a duration of at most a day: `30s`.
    public init?(_ text: String) {
        switch text {
        case "immediate": self = .immediate
        case "manual": self = .manual
        default:
            guard let duration = Units.parseDuration(text), duration <= .seconds(86_400) else { return nil }
            self = .after(duration)
        }
    }
}

extension PolicyOption {
    /// What its value looks like.
    public var expected: String {
        switch self {
        case .switchAfter: "a number of requests such as 8, or a size such as 64k, at least 1"
        case .failBack: "immediate, manual or a duration such as 30s"
        case .activateStandby: ActivateStandby.allCases.map(\.rawValue).joined(separator: " or ")
        case .weights: WeightMeaning.allCases.map(\.rawValue).joined(separator: " or ")
        case .sequentialAffinity: "true or false"
        }
    }

    /// The policies that it means something to.
    public var policies: [PolicyKind] { PolicyKind.allCases.filter { $0.options.contains(self) } }
}

extension PolicyOptions {
    /// Sets an option from its text. False, and nothing is changed, where that is no value of it.
    public mutating func set(_ option: PolicyOption, from text: String) -> Bool {
        switch option {
        case .switchAfter:
            guard let value = SwitchAfter(text) else { return false }
            switchAfter = value
        case .failBack:
            guard let value = FailBack(text) else { return false }
            failBack = value
        case .activateStandby:
            guard let value = ActivateStandby(rawValue: text) else { return false }
            activateStandby = value
        case .weights:
            guard let value = WeightMeaning(rawValue: text) else { return false }
            weights = value
        case .sequentialAffinity:
            guard let value = Bool(text) else { return false }
            sequentialAffinity = value
        }
        return true
    }
}

extension PolicySettings {
    /// Other options, by their names and texts. Throws what is wrong, in words, and then nothing is changed.
    public mutating func apply(_ texts: [String: String]) throws(ControlFailure) {
        var changed = options
        for (name, text) in texts.sorted(by: { $0.key < $1.key }) {
            guard let option = PolicyOption(rawValue: name) else {
                throw ControlFailure(.invalid, "'\(name)' is no policy option")
            }
            guard kind.options.contains(option) else {
                let others = option.policies.map(\.rawValue).joined(separator: " and ")
                throw ControlFailure(.invalid, "'\(name)' means nothing to \(kind.rawValue); it belongs to \(others)")
            }
            guard changed.set(option, from: text) else {
                throw ControlFailure(.invalid, "\(name): '\(text)' is not \(option.expected)")
            }
        }
        options = changed
    }
}
