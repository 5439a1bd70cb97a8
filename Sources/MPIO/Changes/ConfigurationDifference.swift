import Multipath

/// One value as it is shown and as it is compared; a secret is compared and not shown.
private struct ConfigurationFact {
    var key: String
    var shown: String
    var compared: [UInt8]
    var effect: ConfigurationChange.Effect

    init(_ key: String, _ shown: String, effect: ConfigurationChange.Effect = .now) {
        self.key = key
        self.shown = shown
        self.effect = effect
        compared = Array(shown.utf8)
    }

    init(_ key: String, secret: Secret) {
        self.init(key, "\(secret)", effect: .nextLogin)
        compared = secret.bytes
    }
}

extension Configuration {
    /// What has to change to come from this configuration to `new`, in the order of the file. Empty: they mean the same.
    func differences(to new: Configuration) -> [ConfigurationChange] {
        var changes: [ConfigurationChange] = []
        if initiatorName != new.initiatorName {
            changes.append(
                ConfigurationChange(
                    key: "initiator.name", old: initiatorName ?? "of the machine", new: new.initiatorName ?? "of the machine",
                    effect: .left, note: "sessions belong to it; it takes a restart"))
        }
        if busyPoll != new.busyPoll {
            changes.append(
                ConfigurationChange(
                    key: "initiator.busy-poll", old: "\(busyPoll)", new: "\(new.busyPoll)", effect: .left,
                    note: "the loop began with it; it takes a restart"))
        }
        if reactors != new.reactors {
            changes.append(
                ConfigurationChange(
                    key: "reactors", old: "\(reactors)", new: "\(new.reactors)", effect: .left,
                    note: "LUNs stay on their reactors; it takes a restart"))
        }
        changes += targetDifferences(to: new)
        for lun in luns where new.lun(named: lun.name) == nil {
            changes.append(ConfigurationChange(lun: lun.name, key: "lun", old: lun.name, new: nil))
        }
        for lun in new.luns {
            guard let old = self.lun(named: lun.name) else {
                changes.append(ConfigurationChange(lun: lun.name, key: "lun", old: nil, new: lun.name))
                continue
            }
            changes += lunDifferences(old, new, lun)
        }
        return changes
    }

    // MARK: Targets

    private func targetDifferences(to new: Configuration) -> [ConfigurationChange] {
        var changes: [ConfigurationChange] = []
        func find(_ name: String, in configuration: Configuration) -> TargetConfiguration? {
            configuration.targets.first { $0.name.lowercased() == name.lowercased() }
        }
        for target in targets where find(target.name, in: new) == nil {
            changes.append(ConfigurationChange(target: target.name, key: "target", old: target.name, new: nil))
        }
        for target in new.targets {
            guard let old = find(target.name, in: self) else {
                changes.append(ConfigurationChange(target: target.name, key: "target", old: nil, new: target.name))
                continue
            }
            changes += Self.compare(old.facts, target.facts) {
                ConfigurationChange(target: target.name, key: $0, old: $1, new: $2, effect: $3)
            }
            changes += Self.portalDifferences(old, target)
        }
        return changes
    }

    private static func portalDifferences(_ old: TargetConfiguration, _ new: TargetConfiguration) -> [ConfigurationChange] {
        var changes: [ConfigurationChange] = []
        let (before, after) = (old.portals.map { SessionPlace(target: old.name, $0) }, new.portals.map { SessionPlace(target: new.name, $0) })
        for (portal, place) in zip(old.portals, before) where !after.contains(place) {
            changes.append(ConfigurationChange(target: new.name, key: "portal", old: portal.name, new: nil))
        }
        for (portal, place) in zip(new.portals, after) {
            guard let known = before.firstIndex(of: place) else {
                changes.append(ConfigurationChange(target: new.name, key: "portal", old: nil, new: portal.name))
                continue
            }
            for (number, pair) in zip(old.portals[known].connections, portal.connections).enumerated() {
                changes += compare(pair.0.facts, pair.1.facts) {
                    ConfigurationChange(
                        path: portal.name, target: new.name, key: "connections[\(number)].\($0)", old: $1, new: $2, effect: $3,
                        note: "a session keeps its connections; take the path out of the file and in again")
                }
            }
        }
        return changes
    }

    // MARK: LUNs

    private func lunDifferences(_ old: LUNConfiguration, _ new: Configuration, _ lun: LUNConfiguration) -> [ConfigurationChange] {
        var changes = Self.compare(old.facts, lun.facts) {
            ConfigurationChange(lun: lun.name, key: $0, old: $1, new: $2, effect: $3)
        }
        let (before, after) = (effectivePaths(of: old), new.effectivePaths(of: lun))
        let (oldPlaces, newPlaces) = (places(of: before, old), new.places(of: after, lun))
        for (path, place) in zip(before, oldPlaces) where !newPlaces.contains(place) {
            changes.append(
                ConfigurationChange(lun: lun.name, path: path.settings.name, key: "path", old: path.settings.name, new: nil))
        }
        for (path, place) in zip(after, newPlaces) {
            guard let known = oldPlaces.firstIndex(of: place) else {
                changes.append(
                    ConfigurationChange(lun: lun.name, path: path.settings.name, key: "path", old: nil, new: path.settings.name))
                continue
            }
            changes += Self.compare(before[known].settings.facts, path.settings.facts) {
                ConfigurationChange(lun: lun.name, path: path.settings.name, key: $0, old: $1, new: $2, effect: $3)
            }
        }
        let common = { (places: [PathPlace], others: [PathPlace]) in places.filter { others.contains($0) } }
        if common(oldPlaces, newPlaces) != common(newPlaces, oldPlaces) {
            let names = { (paths: [PathConfiguration]) in paths.map(\.settings.name).joined(separator: ", ") }
            changes.append(ConfigurationChange(lun: lun.name, key: "order", old: names(before), new: names(after)))
        }
        return changes
    }

    /// The number that the LUN's identity gives is the identity's, and told of there.
    private func places(of paths: [PathConfiguration], _ lun: LUNConfiguration) -> [PathPlace] {
        paths.map { path in
            let place = place(of: path.transport)
            guard case .location(_, let number) = lun.identification, case .session(let session, number) = place else { return place }
            return .session(session, lun: nil)
        }
    }

    private static func compare(
        _ old: [ConfigurationFact], _ new: [ConfigurationFact],
        _ change: (String, String?, String?, ConfigurationChange.Effect) -> ConfigurationChange
    ) -> [ConfigurationChange] {
        var changes: [ConfigurationChange] = []
        for fact in old where !new.contains(where: { $0.key == fact.key }) {
            changes.append(change(fact.key, fact.shown, nil, fact.effect))
        }
        for fact in new {
            let before = old.first { $0.key == fact.key }
            if let before, before.compared == fact.compared { continue }
            changes.append(change(fact.key, before?.shown, fact.shown, fact.effect))
        }
        return changes
    }
}

// MARK: What there is to compare

extension TargetConfiguration {
    fileprivate var facts: [ConfigurationFact] {
        func later(_ key: String, _ text: String) -> ConfigurationFact { ConfigurationFact(key, text, effect: .nextLogin) }
        var facts: [ConfigurationFact] = []
        if let chap {
            facts += [later("chap.user", chap.user), ConfigurationFact("chap.secret-file", secret: chap.secret)]
            if let mutual = chap.mutual {
                facts += [later("chap.mutual-user", mutual.user), ConfigurationFact("chap.mutual-secret-file", secret: mutual.secret)]
            }
            facts.append(later("chap.algorithms", chap.algorithms.map(\.rawValue).joined(separator: ", ")))
        }
        facts += [
            later("digests.header", headerDigests.map(\.rawValue).joined(separator: ", ")),
            later("digests.data", dataDigests.map(\.rawValue).joined(separator: ", ")),
            ConfigurationFact("connection-policy", connectionPolicy.kind.rawValue),
            later("iscsi.immediate-data", "\(iscsi.immediateData)"),
            later("iscsi.initial-r2t", "\(iscsi.initialR2T)"),
            later("iscsi.max-recv-data-segment-length", "\(iscsi.maxReceiveDataSegment)"),
            later("iscsi.max-burst-length", "\(iscsi.maxBurst)"),
            later("iscsi.first-burst-length", "\(iscsi.firstBurst)"),
            later("iscsi.max-outstanding-r2t", "\(iscsi.maxOutstandingR2T)"),
            ConfigurationFact("iscsi.error-recovery-level", "\(iscsi.errorRecoveryLevel)", effect: .left),
            later("iscsi.queue-depth", "\(iscsi.queueDepth)"),
        ]
        return facts
    }
}

extension ConnectionConfiguration {
    fileprivate var facts: [ConfigurationFact] {
        [ConfigurationFact("role", role.rawValue, effect: .left), ConfigurationFact("weight", "\(weight)", effect: .left)]
    }
}

extension PathSettings {
    fileprivate var facts: [ConfigurationFact] {
        [ConfigurationFact("name", name), ConfigurationFact("role", role.rawValue), ConfigurationFact("weight", "\(weight)")]
    }
}

extension LUNConfiguration {
    fileprivate var facts: [ConfigurationFact] {
        let identity =
            switch identification {
            case .identity(let identity): "\(identity)"
            case .location(let target, let lun): "\(target) LUN \(lun.index ?? Int(truncatingIfNeeded: lun.rawValue))"
            case .byPaths: "by its paths"
            }
        return [ConfigurationFact("identity", identity), ConfigurationFact("reactors", "\(reactors)")] + settings.facts
    }
}

extension LUNSettings {
    /// The settings by their names in the policy file.
    fileprivate var facts: [ConfigurationFact] {
        var facts = [ConfigurationFact("policy", policy.kind.rawValue)]
        for option in policy.kind.options { facts.append(ConfigurationFact(option.rawValue, policy.options.text(of: option))) }
        facts += timers.texts.map { ConfigurationFact("timers.\($0)", $1) }
        facts += [
            ConfigurationFact("marginal-paths.loss-count", "\(marginalPaths.lossCount)"),
            ConfigurationFact("marginal-paths.window", Units.format(marginalPaths.window)),
            ConfigurationFact("marginal-paths.first-hold", Units.format(marginalPaths.firstHold)),
            ConfigurationFact("marginal-paths.hold-maximum", Units.format(marginalPaths.holdMaximum)),
            ConfigurationFact("allow-lun-reset", "\(staleWriteGuard.allowsLogicalUnitReset)"),
            ConfigurationFact("asymmetric-access.preferred-bit", asymmetricAccess.followsPreferredBit ? "follow" : "ignore"),
            ConfigurationFact("asymmetric-access.set-target-port-groups", "\(asymmetricAccess.setsTargetPortGroups)"),
        ]
        return facts
    }

    /// The settings other than the policy that differ, as `key old → new`.
    func changesBesidePolicy(to new: LUNSettings) -> [String] {
        let ignored = Set(["policy"] + PolicyOption.allCases.map(\.rawValue))
        let before = facts
        return new.facts.filter { !ignored.contains($0.key) }.compactMap { fact in
            guard let old = before.first(where: { $0.key == fact.key }), old.shown != fact.shown else { return nil }
            return "\(fact.key) \(old.shown) → \(fact.shown)"
        }
    }
}

extension Timers {
    /// By their names in the policy file.
    var texts: [(String, String)] {
        let period: String
        if case .after(let duration) = pdoRemovePeriod { period = Units.format(duration) } else { period = "never" }
        return [
            ("path-verify-period", pathVerifyPeriod == .zero ? "never" : Units.format(pathVerifyPeriod)),
            ("retry-count", "\(retryCount)"),
            ("retry-interval", Units.format(retryInterval)),
            ("pdo-remove-period", period),
            ("path-recovery-interval", Units.format(pathRecoveryInterval)),
            ("path-recovery-interval-maximum", Units.format(pathRecoveryIntervalMaximum)),
            ("login-timeout", Units.format(loginTimeout)),
            ("command-timeout", commandTimeout == .zero ? "never" : Units.format(commandTimeout)),
            ("silence-timeout", Units.format(silenceTimeout)),
            ("quiesce-time", Units.format(quiesceTime)),
        ]
    }
}

extension PolicyOptions {
    /// An option's value as the policy file spells it.
    func text(of option: PolicyOption) -> String {
        switch option {
        case .switchAfter:
            switch switchAfter {
            case .requests(let count): "\(count)"
            // A bare number counts requests.
            case .bytes(let count): count % 1024 == 0 ? "\(count / 1024)k" : "\(count)B"
            }
        case .failBack:
            switch failBack {
            case .immediate: "immediate"
            case .after(let duration): "{after: \(Units.format(duration))}"
            case .manual: "manual"
            }
        case .activateStandby: activateStandby.rawValue
        case .weights: weights.rawValue
        case .sequentialAffinity: "\(sequentialAffinity)"
        }
    }
}
