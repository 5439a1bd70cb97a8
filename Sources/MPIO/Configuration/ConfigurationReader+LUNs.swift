import Multipath
import SCSI
import Yams

extension ConfigurationReader {
    /// What LUNs have claimed so far, so that none claims it again. Values are lines.
    private struct Claims {
        var names: [String: Int] = [:]
        var identifications: [LUNIdentification: Int] = [:]
        var transports: [PathTransport: Int] = [:]
        var units: [Unit: [UnitClaim]] = [:]
    }

    /// A number at a target, however a LUN spells it.
    private struct Unit: Hashable {
        var target: Int
        var lun: LogicalUnitNumber
    }

    private struct UnitClaim {
        /// Which of the file's LUNs claims it.
        var owner: Int
        var line: Int
        /// It has an identity as well, which its paths have to show.
        var isIdentified: Bool
    }

    mutating func readLUNs(_ node: PolicyNode) {
        guard let list = node.list(expected: "a list of LUNs, each with a name") else { return }
        if list.isEmpty { node.report("no LUN", expected: "at least one LUN") }
        var claims = Claims()
        for (number, entry) in list.enumerated() {
            if let lun = readLUN(entry, number, claims: &claims) { configuration.luns.append(lun) }
        }
    }

    private func readLUN(_ node: PolicyNode, _ number: Int, claims: inout Claims) -> LUNConfiguration? {
        let keys = ["name", "identity", "paths", "reactors"] + Self.settingsKeys
        guard let mapping = node.mapping(keys: keys, expected: "a mapping with a name and an identity") else { return nil }
        let nameNode = mapping.required("name", expected: "a name such as vm-store")
        let name = nameNode.flatMap { lunName($0) }
        if let name, let nameNode {
            claim(name, in: &claims.names, at: nameNode, "another LUN is named '\(name)'")
        }
        let layer = Self.readSettings(mapping, onto: configuration.defaults)
        checkOptions(layer)
        let identityNode = mapping["identity"]
        let identification = identityNode.flatMap { readIdentification($0) }
        if let identification, let identityNode {
            let message = "another LUN claims this identity"
            if case .location(let target, let lun) = identification {
                claim(target: target, lun, for: number, in: &claims, at: identityNode, message)
            } else {
                claim(identification, in: &claims.identifications, at: identityNode, message)
            }
            if mapping["paths"] == nil, !hasTargets, case .identity = identification {
                node.report("no path leads to it: the file has no targets", expected: "'targets', or 'paths' with a device")
            }
        }
        let paths = mapping["paths"].map { readPaths($0, identification: identification, number, claims: &claims) } ?? []
        if identityNode == nil, !saysWhereItIs(paths, listed: mapping["paths"]) {
            node.report(
                "the key 'identity' is missing",
                expected: "an identity such as naa.6001405…, {target: …, lun: 0}, or paths that each are a device or give a 'lun'")
        }
        guard let name, identityNode == nil || identification != nil else { return nil }
        var lun = LUNConfiguration(
            name: name, identification: identification ?? .byPaths, settings: layer.settings, paths: paths)
        lun.reactors = mapping["reactors"].flatMap { readReactors($0) } ?? 1
        return lun
    }

    /// Over how many of the file's reactors a LUN is spread.
    private func readReactors(_ node: PolicyNode) -> Int? {
        guard let count = node.whole(Configuration.reactorRange), count > 1 else { return nil }
        guard count <= configuration.reactors else {
            node.report(
                "\(count) reactors are more than the file has",
                expected: configuration.reactors == 1 ? "'reactors' at the top of the file, \(count) or more" : "1 to \(configuration.reactors)")
            return nil
        }
        return count
    }

    private func claim<Key: Hashable>(
        _ key: Key, in claims: inout [Key: Int], at node: PolicyNode, _ message: String
    ) {
        if let line = claims[key] {
            node.report("\(message), in line \(line)")
        } else {
            claims[key] = node.mark?.line ?? 1
        }
    }

    /// Numbers at one target are one unit, whichever portals lead there. Where both LUNs give an identity the portals may
    /// differ: it is then the identity that is looked at.
    private func claim(
        target name: String, _ lun: LogicalUnitNumber, for owner: Int, in claims: inout Claims, at node: PolicyNode,
        isIdentified: Bool = false, _ message: String
    ) {
        guard let target = configuration.targets.firstIndex(where: { $0.name == name }) else { return }
        let unit = Unit(target: target, lun: lun)
        let known = claims.units[unit, default: []]
        if let other = known.first(where: { $0.owner != owner && !($0.isIdentified && isIdentified) }) {
            node.report("\(message), in line \(other.line)")
        } else if !known.contains(where: { $0.owner == owner }) {
            claims.units[unit, default: []].append(UnitClaim(owner: owner, line: node.mark?.line ?? 1, isIdentified: isIdentified))
        }
    }

    private func lunName(_ node: PolicyNode) -> String? {
        node.value(expected: "1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit") { text in
            Self.isLUNName(text) ? text : nil
        }
    }

    /// By bytes: a pattern would be compiled anew for each of a thousand LUNs, and take most of the time of reading them.
    static func isLUNName(_ text: String) -> Bool {
        func isAlphanumeric(_ byte: UInt8) -> Bool {
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
            default: false
            }
        }
        guard let first = text.utf8.first, isAlphanumeric(first), text.utf8.count <= 64 else { return false }
        return text.utf8.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-") }
    }

    private func checkOptions(_ layer: SettingsLayer) {
        let policy = layer.settings.policy.kind
        for option in PolicyOption.allCases where !policy.options.contains(option) {
            layer.writtenOptions[option]?.report(
                "'\(option.rawValue)' means nothing to the policy \(policy.rawValue)",
                expected: "it beside \(listed(PolicyKind.allCases.filter { $0.options.contains(option) }.map(\.rawValue)))")
        }
    }

    /// `naa.6001405…`, or `{target: iqn…, lun: 3}`.
    private func readIdentification(_ node: PolicyNode) -> LUNIdentification? {
        let expected = "an identity such as naa.6001405abcdef01234567890abcdef01, or {target: iqn…, lun: 0}"
        guard case .mapping = node.node else {
            guard let text = node.text(expected: expected) else { return nil }
            if let identity = LogicalUnitIdentity(text) { return .identity(identity) }
            let hint =
                text.lowercased().hasPrefix("naa.3")
                ? "; a locally assigned NAA counts only with its target: local.\(text.lowercased().dropFirst(4)):TARGET" : ""
            node.report("'\(shortened(text))' is no identity" + hint, expected: expected)
            return nil
        }
        guard let mapping = node.mapping(keys: ["target", "lun"]) else { return nil }
        let target = mapping.required("target", expected: "the name of a target").flatMap { targetIndex($0) }
        let lun = mapping.required("lun", expected: "a logical unit number").flatMap { lunNumber($0) }
        guard let target, let lun else { return nil }
        return .location(target: configuration.targets[target].name, lun: lun)
    }

    private func targetIndex(_ node: PolicyNode) -> Int? {
        guard let name = Self.iscsiName(node, example: "iqn.2026-11.org.example:array-1") else { return nil }
        let folded = name.lowercased()
        if let index = configuration.targets.firstIndex(where: { $0.name.lowercased() == folded }) { return index }
        let hint = suggestion(for: name, among: configuration.targets.map(\.name))
        node.report("no target '\(shortened(name))' under 'targets'" + hint)
        return nil
    }

    private func lunNumber(_ node: PolicyNode) -> LogicalUnitNumber? {
        node.whole(0...16_383).flatMap { LogicalUnitNumber(index: $0) }
    }

    // MARK: Paths

    private func readPaths(
        _ node: PolicyNode, identification: LUNIdentification?, _ number: Int, claims: inout Claims
    ) -> [PathConfiguration] {
        guard let list = node.list(expected: "a list of paths such as {portal: \"10.0.1.10:3260\"}") else { return [] }
        if list.isEmpty { node.report("an empty list", expected: "at least one path, or no 'paths' for all that lead to the LUN") }
        var paths: [PathConfiguration] = []
        var own: [PathTransport: Int] = [:]
        for entry in list {
            guard let path = readPath(entry, order: paths.count, identification: identification) else { continue }
            if let line = own[path.transport] {
                entry.report("the path \(path.settings.name) is listed twice; first in line \(line)")
                continue
            }
            own[path.transport] = entry.mark?.line ?? 1
            claim(path, identification, number, in: &claims, at: entry)
            paths.append(path)
        }
        if !paths.isEmpty, paths.count == list.count, paths.allSatisfy({ $0.settings.role == .standby }) {
            node.report("every path is standby", expected: "at least one primary path")
        }
        return paths
    }

    /// A device is one LUN, and so is a numbered unit of a target; without a number the portal leads to many.
    private func claim(
        _ path: PathConfiguration, _ identification: LUNIdentification?, _ number: Int, in claims: inout Claims, at node: PolicyNode
    ) {
        guard path.transport.isWholeUnit else { return }
        if let line = claims.transports[path.transport] {
            return node.report("another LUN has the path \(path.settings.name), in line \(line)")
        }
        claims.transports[path.transport] = node.mark?.line ?? 1
        guard case .portal(let target, _, let lun?) = path.transport else { return }
        let name = configuration.targets[target].name
        // It is told where its own identity says so.
        if case .location(name, lun)? = identification { return }
        var isIdentified = false
        if case .identity? = identification { isIdentified = true }
        claim(
            target: name, lun, for: number, in: &claims, at: node, isIdentified: isIdentified,
            "another LUN has the unit \(lun.index ?? 0) of \(name)")
    }

    private func readPath(_ node: PolicyNode, order: Int, identification: LUNIdentification?) -> PathConfiguration? {
        let keys = ["portal", "from", "target", "lun", "device", "role", "weight"]
        guard let mapping = node.mapping(keys: keys, expected: "a mapping with a portal or a device") else { return nil }
        let role = mapping["role"]?.choice(PathRole.allCases.map { ($0.rawValue, $0) }) ?? .primary
        let weight = mapping["weight"]?.whole(1...65_535).map { UInt16($0) } ?? 1
        var settings = PathSettings(name: "", role: role, weight: weight, order: order)
        if let device = mapping["device"] {
            for key in ["portal", "from", "target", "lun"] {
                mapping[key]?.report("'\(key)' beside 'device'", expected: "one of 'portal' and 'device'")
            }
            guard let path = device.value(expected: "the path of a block device or file", { $0.isEmpty || $0.utf8.contains(0) ? nil : absolute($0) })
            else { return nil }
            settings.name = path
            return PathConfiguration(transport: .device(path: path), settings: settings)
        }
        guard let portalNode = mapping["portal"] else {
            node.report("a path that leads nowhere", expected: "'portal' or 'device'")
            return nil
        }
        guard let (target, portal) = findPortal(portalNode, mapping, identification) else { return nil }
        var lun = mapping["lun"].flatMap { lunNumber($0) }
        if case .location(let name, let number)? = identification, name == configuration.targets[target].name {
            if let written = lun, written != number {
                mapping["lun"]?.report("the LUN's identity gives another number", expected: "\(number.index ?? 0), or none here")
            }
            lun = number
        }
        settings.name = configuration.targets[target].portals[portal].name
        return PathConfiguration(transport: .portal(target: target, portal: portal, lun: lun), settings: settings)
    }

    /// The one configured session that a path's `portal`, `from` and `target` mean.
    private func findPortal(
        _ node: PolicyNode, _ mapping: PolicyMapping, _ identification: LUNIdentification?
    ) -> (target: Int, portal: Int)? {
        let address = address(node)
        let source = mapping["from"].flatMap { Self.source($0) }
        let target = mapping["target"].flatMap { targetIndex($0) }
        guard let address, mapping["from"] == nil || source != nil, mapping["target"] == nil || target != nil else { return nil }
        var found: [(target: Int, portal: Int)] = []
        for (index, candidate) in configuration.targets.enumerated() where target == nil || target == index {
            for (place, portal) in candidate.portals.enumerated()
            where portal.address == address && (source == nil || portal.source == source) {
                found.append((index, place))
            }
        }
        // The LUN's own target is meant where nothing else is said.
        if target == nil, found.count > 1, case .location(let name, _)? = identification {
            let own = found.filter { configuration.targets[$0.target].name == name }
            if !own.isEmpty { found = own }
        }
        if found.count == 1 { return found[0] }
        if found.isEmpty {
            let known = configuration.targets.flatMap { $0.portals.map(\.address.description) }
            let from = source.map { " from \($0)" } ?? ""
            node.report(
                "no target has the portal \(address)\(from)" + suggestion(for: address.description, among: known),
                expected: "a portal listed under 'targets'")
        } else if Set(found.map(\.target)).count > 1 {
            node.report("several targets have the portal \(address)", expected: "'target' beside it")
        } else {
            node.report("several sessions go to the portal \(address)", expected: "'from' beside it")
        }
        return nil
    }

    /// Whether the paths alone say which unit is meant.
    private func saysWhereItIs(_ paths: [PathConfiguration], listed: PolicyNode?) -> Bool {
        guard let listed, case .sequence(let list) = listed.node, !list.isEmpty else { return false }
        // A path that was reported already is not a reason for a second complaint.
        return paths.allSatisfy(\.transport.isWholeUnit)
    }
}

extension PathTransport {
    fileprivate var isWholeUnit: Bool {
        switch self {
        case .device: true
        case .portal(_, _, let lun): lun != nil
        }
    }
}
