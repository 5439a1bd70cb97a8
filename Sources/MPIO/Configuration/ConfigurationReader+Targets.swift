import Multipath
import Yams

extension ConfigurationReader {
    mutating func readTargets(_ node: PolicyNode) {
        guard let list = node.list(expected: "a list of targets, each with a name and portals") else { return }
        var firstLines: [String: Int] = [:]
        for entry in list {
            guard let (target, nameNode) = readTarget(entry) else { continue }
            if let line = firstLines[target.name.lowercased()] {
                nameNode.report("the target '\(target.name)' is listed twice; first in line \(line)")
                continue
            }
            firstLines[target.name.lowercased()] = nameNode.mark?.line ?? 1
            configuration.targets.append(target)
        }
        nameSessions()
    }

    private func readTarget(_ node: PolicyNode) -> (TargetConfiguration, PolicyNode)? {
        let keys = ["name", "portals", "chap", "digests", "connections", "connection-policy", "iscsi"]
        guard let mapping = node.mapping(keys: keys, expected: "a mapping with a name and portals") else { return nil }
        // Everything is looked at, so that one run names every mistake.
        let nameNode = mapping.required("name", expected: "the target's iSCSI name")
        let name = nameNode.flatMap { Self.iscsiName($0, example: "iqn.2026-11.org.example:array-1") }
        let count = mapping["connections"]?.whole(1...16) ?? 1
        let portals = mapping.required("portals", expected: "a list of portals")
            .map { readPortals($0, connectionCount: count) } ?? []
        var target = TargetConfiguration(name: name ?? "", portals: portals)
        if let chap = mapping["chap"] { target.chap = readCHAP(chap) }
        if let digests = mapping["digests"] { readDigests(digests, into: &target) }
        if let policy = mapping["connection-policy"], let kind = Self.policy(policy, forConnections: true) {
            // Of no effect, and no harm, where every session has one connection: they may become more.
            target.connectionPolicy.kind = kind
        }
        if let iscsi = mapping["iscsi"] { readTuning(iscsi, into: &target.iscsi) }
        guard let nameNode, name != nil else { return nil }
        return (target, nameNode)
    }

    // MARK: Portals

    private func readPortals(_ node: PolicyNode, connectionCount: Int) -> [PortalConfiguration] {
        guard let list = node.list(expected: "a list of portals such as {address: \"10.0.1.10:3260\"}") else { return [] }
        if list.isEmpty { node.report("no portal", expected: "at least one portal") }
        var portals: [PortalConfiguration] = []
        var seen: [[ConnectionConfiguration]: Int] = [:]
        for entry in list {
            guard let connections = readPortal(entry, connectionCount: connectionCount) else { continue }
            let line = entry.mark?.line ?? 1
            // What tells sessions apart are their addresses, not what else is said of them.
            let key = connections.map { ConnectionConfiguration(address: $0.address, source: $0.source) }
            if let first = seen[key] {
                let source = connections[0].source.map { " from \($0)" } ?? ""
                entry.report("the portal \(connections[0].address)\(source) is listed twice; first in line \(first)")
                continue
            }
            seen[key] = line
            portals.append(PortalConfiguration(name: connections[0].address.description, connections: connections))
        }
        return portals
    }

    /// `"10.0.1.10:3260"`, `{address, from, connections: N}` or `{connections: [{address, from, role, weight}, …]}`.
    private func readPortal(_ node: PolicyNode, connectionCount: Int) -> [ConnectionConfiguration]? {
        if case .scalar = node.node {
            return address(node).map { Array(repeating: ConnectionConfiguration(address: $0), count: connectionCount) }
        }
        guard let mapping = node.mapping(keys: ["address", "from", "connections"], expected: "an address or a mapping") else {
            return nil
        }
        if let connections = mapping["connections"], case .sequence = connections.node {
            for key in ["address", "from"] {
                mapping[key]?.report("'\(key)' beside a list of connections", expected: "'\(key)' in each entry of 'connections'")
            }
            return readConnections(connections)
        }
        let count = mapping["connections"].map { $0.whole(1...16) } ?? connectionCount
        guard let pair = readAddressPair(mapping), let count else { return nil }
        return Array(repeating: pair, count: count)
    }

    private func readConnections(_ node: PolicyNode) -> [ConnectionConfiguration]? {
        guard let list = node.list(expected: "a list of address pairs") else { return nil }
        guard (1...16).contains(list.count) else {
            node.report("\(list.count) connections in one session", expected: "1 to 16")
            return nil
        }
        var connections: [ConnectionConfiguration] = []
        for entry in list {
            guard let mapping = entry.mapping(keys: ["address", "from", "role", "weight"]) else { continue }
            guard var connection = readAddressPair(mapping) else { continue }
            connection.role = mapping["role"]?.choice(PathRole.allCases.map { ($0.rawValue, $0) }) ?? .primary
            connection.weight = mapping["weight"]?.whole(1...65_535).map { UInt16($0) } ?? 1
            connections.append(connection)
        }
        guard connections.count == list.count else { return nil }
        if connections.allSatisfy({ $0.role == .standby }) {
            node.report("every connection is standby", expected: "at least one primary connection")
        }
        return connections
    }

    private func readAddressPair(_ mapping: PolicyMapping) -> ConnectionConfiguration? {
        let destination = mapping.required("address", expected: "an address such as \"10.0.1.10:3260\"")
        let portal = destination.flatMap { address($0) }
        let sourceNode = mapping["from"]
        let source = sourceNode.flatMap { Self.source($0) }
        guard let portal, sourceNode == nil || source != nil else { return nil }
        if let source, !source.socketAddress.hasSameFamily(as: portal.socketAddress) {
            sourceNode?.report("the address \(source) can't reach \(portal)", expected: "both IPv4 or both IPv6")
            return nil
        }
        return ConnectionConfiguration(address: portal, source: source)
    }

    func address(_ node: PolicyNode) -> PortalAddress? {
        let expected = "an IP address and port such as \"10.0.1.10:3260\" or \"[2001:db8::1]:3260\""
        guard let text = node.text(expected: expected) else { return nil }
        do throws(AddressProblem) {
            return try PortalAddress(parsing: text)
        } catch {
            node.report("'\(shortened(text))': \(error)", expected: expected)
            return nil
        }
    }

    static func source(_ node: PolicyNode) -> SourceAddress? {
        let expected = "an IP address of this machine such as 10.0.1.5"
        guard let text = node.text(expected: expected) else { return nil }
        do throws(AddressProblem) {
            return try SourceAddress(parsing: text)
        } catch {
            node.report("'\(shortened(text))': \(error)", expected: expected)
            return nil
        }
    }

    /// Gives every session its name: as short as it can be and still be the only one.
    private mutating func nameSessions() {
        configuration.nameSessions()
    }

    // MARK: The rest of a target

    private func readDigests(_ node: PolicyNode, into target: inout TargetConfiguration) {
        guard let mapping = node.mapping(keys: ["header", "data"]) else { return }
        if let value = mapping["header"].flatMap({ digests($0) }) { target.headerDigests = value }
        if let value = mapping["data"].flatMap({ digests($0) }) { target.dataDigests = value }
    }

    /// One digest, or a list in order of preference.
    private func digests(_ node: PolicyNode) -> [DigestName]? {
        let choices = DigestName.allCases.map { ($0.rawValue, $0) }
        guard case .sequence = node.node else { return node.choice(choices).map { [$0] } }
        guard let list = node.list(expected: "none, crc32c or a list of them") else { return nil }
        var found: [DigestName] = []
        for entry in list {
            guard let digest = entry.choice(choices) else { continue }
            if found.contains(digest) { entry.report("'\(digest.rawValue)' is listed twice") }
            found.append(digest)
        }
        if list.isEmpty { node.report("an empty list", expected: "none, crc32c or both") }
        return found.isEmpty ? nil : found
    }

    private func readTuning(_ node: PolicyNode, into tuning: inout SessionTuning) {
        let keys = [
            "immediate-data", "initial-r2t", "max-recv-data-segment-length", "max-burst-length", "first-burst-length",
            "max-outstanding-r2t", "error-recovery-level", "queue-depth",
        ]
        guard let mapping = node.mapping(keys: keys) else { return }
        // RFC 7143 sections 13.12 to 13.14 allow 512 to 2^24 - 1; 16 MiB - 1 is odd to write, so 16M is taken for it.
        let lengths: ClosedRange<UInt64> = 512...(1 << 24)
        func length(_ key: String) -> Int? {
            mapping[key]?.size(lengths).map { min(Int($0), (1 << 24) - 1) }
        }
        if let value = mapping["immediate-data"]?.boolean() { tuning.immediateData = value }
        if let value = mapping["initial-r2t"]?.boolean() { tuning.initialR2T = value }
        if let value = length("max-recv-data-segment-length") { tuning.maxReceiveDataSegment = value }
        if let value = length("max-burst-length") { tuning.maxBurst = value }
        if let value = length("first-burst-length") { tuning.firstBurst = value }
        if let value = mapping["max-outstanding-r2t"]?.whole(1...65_535) { tuning.maxOutstandingR2T = value }
        if let value = mapping["error-recovery-level"]?.whole(0...2) { tuning.errorRecoveryLevel = value }
        if let value = mapping["queue-depth"]?.whole(1...65_535) { tuning.queueDepth = value }
        // RFC 7143 section 13.14: FirstBurstLength must not exceed MaxBurstLength.
        if tuning.firstBurst > tuning.maxBurst {
            if mapping["first-burst-length"] == nil {
                tuning.firstBurst = tuning.maxBurst
            } else {
                mapping["first-burst-length"]?.report("first-burst-length is larger than max-burst-length (\(tuning.maxBurst))")
            }
        }
    }

    // MARK: CHAP

    private func readCHAP(_ node: PolicyNode) -> CHAPConfiguration? {
        let keys = ["user", "secret-file", "mutual-user", "mutual-secret-file", "algorithms"]
        if case .mapping(let raw) = node.node {
            for (key, _) in raw {
                guard case .scalar(let scalar) = key, ["secret", "password", "mutual-secret"].contains(scalar.string) else { continue }
                collector.report(key.mark, "\(node.keyPath).\(scalar.string)", "a secret has no place in the policy file", expected: "'secret-file' with the name of a file of mode 0600")
                return nil
            }
        }
        guard let mapping = node.mapping(keys: keys) else { return nil }
        let user = mapping.required("user", expected: "the name that CHAP gives").flatMap { userName($0) }
        let secret = mapping.required("secret-file", expected: "the file that holds the secret").flatMap { readSecret($0) }
        let mutual = readMutual(mapping, secret: secret)
        let algorithms = mapping["algorithms"].map { readAlgorithms($0) } ?? CHAPAlgorithmName.defaultOrder
        guard let user, let secret else { return nil }
        return CHAPConfiguration(user: user, secret: secret, mutual: mutual, algorithms: algorithms)
    }

    private func readMutual(_ mapping: PolicyMapping, secret: Secret?) -> CHAPConfiguration.Mutual? {
        let userNode = mapping["mutual-user"]
        let fileNode = mapping["mutual-secret-file"]
        if let userNode, fileNode == nil { userNode.report("a mutual-user without 'mutual-secret-file'") }
        if let fileNode, userNode == nil { fileNode.report("a mutual-secret-file without 'mutual-user'") }
        guard let user = userNode.flatMap({ userName($0) }), let mutual = fileNode.flatMap({ readSecret($0) }) else { return nil }
        // RFC 7143 section 9.2.1: the two directions must not share a secret, or an answer can be reflected.
        if let secret, secret.isSame(as: mutual) {
            fileNode?.report("both directions have the same secret", expected: "a secret of the target's own")
            return nil
        }
        return CHAPConfiguration.Mutual(user: user, secret: mutual)
    }

    private func userName(_ node: PolicyNode) -> String? {
        node.value(expected: "a name of 1 to 255 bytes") { (1...255).contains($0.utf8.count) && !$0.utf8.contains(0) ? $0 : nil }
    }

    private func readAlgorithms(_ node: PolicyNode) -> [CHAPAlgorithmName] {
        guard let list = node.list(expected: "a list of \(listed(CHAPAlgorithmName.allCases.map(\.rawValue)))") else { return [] }
        if list.isEmpty { node.report("an empty list", expected: listed(CHAPAlgorithmName.allCases.map(\.rawValue))) }
        var found: [CHAPAlgorithmName] = []
        for entry in list {
            guard let algorithm = entry.choice(CHAPAlgorithmName.allCases.map { ($0.rawValue, $0) }) else { continue }
            if found.contains(algorithm) { entry.report("'\(algorithm.rawValue)' is listed twice") }
            found.append(algorithm)
        }
        return found
    }

    private func readSecret(_ node: PolicyNode) -> Secret? {
        guard let text = node.text(expected: "the name of a file"), !text.isEmpty, !text.utf8.contains(0) else {
            if case .scalar(let scalar) = node.node, scalar.style != .plain { node.report("no file name", expected: "the name of a file") }
            return nil
        }
        do throws(SecretProblem) {
            return try Secret(contentsOfFile: absolute(text))
        } catch {
            node.report("\(error)")
            return nil
        }
    }

    /// `name` as seen from the policy file's folder.
    func absolute(_ name: String) -> String {
        name.hasPrefix("/") ? name : folder + "/" + name
    }
}

extension Configuration {
    /// Gives every session its name: as short as it can be and still be the only one.
    mutating func nameSessions() {
        var targetsByAddress: [String: Set<Int>] = [:]
        for (index, target) in targets.enumerated() {
            for portal in target.portals { targetsByAddress[portal.address.description, default: []].insert(index) }
        }
        for index in targets.indices {
            let addresses = targets[index].portals.map(\.address)
            var taken: Set<String> = []
            for place in targets[index].portals.indices {
                let portal = targets[index].portals[place]
                var name = portal.address.description
                if addresses.filter({ $0 == portal.address }).count > 1 {
                    name += portal.source.map { "@\($0)" } ?? "@any"
                }
                if (targetsByAddress[portal.address.description]?.count ?? 0) > 1 { name += ",\(targets[index].name)" }
                // Sessions that differ only in their further connections.
                let base = name
                var number = 2
                while !taken.insert(name).inserted {
                    name = "\(base)#\(number)"
                    number += 1
                }
                targets[index].portals[place].name = name
            }
        }
    }
}
