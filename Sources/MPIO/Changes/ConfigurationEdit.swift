public import Multipath
import SCSI

/// A change by hand: what commands make of a configuration, and `--save` of the policy file.
public enum ConfigurationEdit: Hashable, Sendable {
    /// Another policy (nil: the same), with options by their names in the policy file.
    case policy(lun: String, policy: String?, options: [String: String] = [:])
    /// What is nil stays.
    case setPath(lun: String, path: String, role: PathRole? = nil, weight: UInt16? = nil)
    /// Another path, after those that the LUN has.
    case addPath(lun: String, NewPath)
    /// One path less; the last one can't be removed.
    case removePath(lun: String, path: String)

    /// A path that a LUN is to get.
    public struct NewPath: Hashable, Codable, Sendable {
        /// A portal's address, or the absolute path of a device or file.
        public var address: String
        /// The address of this host to connect from.
        public var source: String?
        /// Whose portal it is, where that is not plain: a target's name.
        public var target: String?
        /// `primary` or `standby`; nil: primary.
        public var role: String?
        /// 1…65535, for policies that weigh; nil: 1.
        public var weight: Int?

        enum CodingKeys: String, CodingKey {
            case address, target, role, weight
            case source = "from"
        }

        /// A path to this address; what is nil is left to the policy file's defaults.
        public init(address: String, source: String? = nil, target: String? = nil, role: String? = nil, weight: Int? = nil) {
            self.address = address
            self.source = source
            self.target = target
            self.role = role
            self.weight = weight
        }
    }

    /// The LUN that is changed, by its name.
    public var lun: String {
        switch self {
        case .policy(let lun, _, _), .setPath(let lun, _, _, _), .addPath(let lun, _), .removePath(let lun, _): lun
        }
    }
}

extension Configuration {
    /// Makes a change. Throws what is wrong with it, in words, and then nothing is changed.
    mutating func apply(_ edit: ConfigurationEdit) throws(ControlFailure) {
        guard let index = luns.firstIndex(where: { $0.name == edit.lun }) else {
            throw ControlFailure(.noSuchLUN, "no LUN '\(edit.lun)' is configured")
        }
        switch edit {
        case .policy(_, let policy, let options): try setPolicy(policy, options, ofLUN: index)
        case .setPath(_, let path, let role, let weight): try setPath(path, role, weight, ofLUN: index)
        case .addPath(_, let path): try addPath(path, toLUN: index)
        case .removePath(_, let path): try removePath(path, fromLUN: index)
        }
    }

    private mutating func setPolicy(_ name: String?, _ options: [String: String], ofLUN lun: Int) throws(ControlFailure) {
        var policy = luns[lun].settings.policy
        if let name {
            guard let kind = PolicyKind(name: name) else {
                throw ControlFailure(.invalid, "'\(name)' is no policy; there are \(PolicyKind.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            policy.kind = kind
        }
        try policy.apply(options)
        luns[lun].settings.policy = policy
    }

    /// The LUN's paths as a list to change, and the place of one in it.
    private func listedPaths(ofLUN lun: Int, finding name: String) throws(ControlFailure) -> ([PathConfiguration], Int) {
        let paths = effectivePaths(of: luns[lun])
        guard let place = paths.firstIndex(where: { $0.settings.name == name }) else {
            let known = paths.map(\.settings.name).joined(separator: ", ")
            throw ControlFailure(.noSuchPath, "\(luns[lun].name) has no path '\(name)'; it has \(known)")
        }
        return (paths, place)
    }

    private mutating func setPath(_ name: String, _ role: PathRole?, _ weight: UInt16?, ofLUN lun: Int) throws(ControlFailure) {
        var (paths, place) = try listedPaths(ofLUN: lun, finding: name)
        if let weight, weight == 0 { throw ControlFailure(.invalid, "a weight is 1 to 65535") }
        paths[place].settings.role = role ?? paths[place].settings.role
        paths[place].settings.weight = weight ?? paths[place].settings.weight
        guard paths.contains(where: { $0.settings.role == .primary }) else {
            throw ControlFailure(.invalid, "'\(name)' is the last primary path of \(luns[lun].name); one has to be left")
        }
        luns[lun].paths = paths
    }

    private mutating func removePath(_ name: String, fromLUN lun: Int) throws(ControlFailure) {
        var (paths, place) = try listedPaths(ofLUN: lun, finding: name)
        paths.remove(at: place)
        guard !paths.isEmpty else {
            throw ControlFailure(.invalid, "'\(name)' is the last path of \(luns[lun].name); 'path fail' takes it out for a while")
        }
        guard paths.contains(where: { $0.settings.role == .primary }) else {
            throw ControlFailure(.invalid, "'\(name)' is the last primary path of \(luns[lun].name); one has to be left")
        }
        for order in paths.indices { paths[order].settings.order = order }
        luns[lun].paths = paths
    }

    // MARK: A new path

    private mutating func addPath(_ new: ConfigurationEdit.NewPath, toLUN lun: Int) throws(ControlFailure) {
        var changed = self
        let transport = new.address.hasPrefix("/") ? PathTransport.device(path: new.address) : try changed.portal(for: new, lun: luns[lun])
        var paths = changed.effectivePaths(of: luns[lun])
        let name: String
        switch transport {
        case .device(let path): name = path
        case .portal(let target, let portal, _): name = changed.targets[target].portals[portal].name
        }
        if effectivePaths(of: luns[lun]).contains(where: { place(of: $0.transport).isSame(as: changed.place(of: transport)) }) {
            throw ControlFailure(.invalid, "'\(name)' is a path of \(luns[lun].name) already")
        }
        var settings = PathSettings(name: name, order: paths.count)
        if let text = new.role {
            guard let role = PathRole(rawValue: text) else { throw ControlFailure(.invalid, "'\(text)' is no role; there are primary and standby") }
            settings.role = role
        }
        if let weight = new.weight {
            guard let weight = UInt16(exactly: weight), weight > 0 else { throw ControlFailure(.invalid, "a weight is 1 to 65535") }
            settings.weight = weight
        }
        if luns[lun].paths.isEmpty, case .portal = transport, settings.role == .primary, settings.weight == 1 {
            // The new portal is a path of every LUN that lists none.
            self = changed
            return
        }
        paths.removeAll { changed.place(of: $0.transport).isSame(as: changed.place(of: transport)) }
        settings.order = paths.count
        paths.append(PathConfiguration(transport: transport, settings: settings))
        changed.luns[lun].paths = paths
        self = changed
    }

    /// The session that a new path uses; added to its target where that does not have it.
    private mutating func portal(for new: ConfigurationEdit.NewPath, lun: LUNConfiguration) throws(ControlFailure) -> PathTransport {
        let address: PortalAddress
        let source: SourceAddress?
        do throws(AddressProblem) {
            address = try PortalAddress(parsing: new.address)
            if let text = new.source { source = try SourceAddress(parsing: text) } else { source = nil }
        } catch {
            throw ControlFailure(.invalid, "\(new.address): \(error)")
        }
        if let source, !source.socketAddress.hasSameFamily(as: address.socketAddress) {
            throw ControlFailure(.invalid, "the address \(source) can't reach \(address)")
        }
        let target = try target(for: new, address, lun)
        var number: LogicalUnitNumber?
        if case .location(let name, let lun) = lun.identification, name.lowercased() == targets[target].name.lowercased() { number = lun }
        if case .byPaths = lun.identification {
            number = numberOfUnit(lun, on: target)
            if number == nil { throw ControlFailure(.invalid, "\(lun.name) is known by its paths, and none of them tells its number at \(targets[target].name)") }
        }
        let known = targets[target].portals.firstIndex { portal in
            portal.address == address && (source == nil || portal.source == source)
        }
        if let known { return .portal(target: target, portal: known, lun: number) }
        let connection = ConnectionConfiguration(address: address, source: source)
        let count = targets[target].portals.map(\.connections.count).min() ?? 1
        targets[target].portals.append(PortalConfiguration(name: "\(address)", connections: Array(repeating: connection, count: count)))
        nameSessions()
        namePaths()
        return .portal(target: target, portal: targets[target].portals.count - 1, lun: number)
    }

    /// Gives listed paths the names that their sessions have now.
    private mutating func namePaths() {
        for lun in luns.indices {
            for path in luns[lun].paths.indices {
                guard case .portal(let target, let portal, _) = luns[lun].paths[path].transport else { continue }
                luns[lun].paths[path].settings.name = targets[target].portals[portal].name
            }
        }
    }

    /// The unit's number on a target, where another path of a LUN that is known by its paths says it.
    private func numberOfUnit(_ lun: LUNConfiguration, on target: Int) -> LogicalUnitNumber? {
        for path in lun.paths {
            if case .portal(target, _, let number?) = path.transport { return number }
        }
        return nil
    }

    private func target(for new: ConfigurationEdit.NewPath, _ address: PortalAddress, _ lun: LUNConfiguration) throws(ControlFailure) -> Int {
        if let name = new.target {
            if let index = targets.firstIndex(where: { $0.name.lowercased() == name.lowercased() }) { return index }
            throw ControlFailure(.invalid, "no target '\(name)' is configured" + suggestion(for: name, among: targets.map(\.name)))
        }
        let having = targets.indices.filter { targets[$0].portals.contains { $0.address == address } }
        if having.count == 1 { return having[0] }
        let own = Set(
            effectivePaths(of: lun).compactMap { path -> Int? in
                if case .portal(let target, _, _) = path.transport { target } else { nil }
            })
        if own.count == 1, let only = own.first, having.isEmpty || having.contains(only) { return only }
        throw ControlFailure(.invalid, "which target has \(address)? Name it; there are \(targets.map(\.name).joined(separator: ", "))")
    }
}

extension PathPlace {
    /// A unit's number says how it is found on a session; the session is the path.
    fileprivate func isSame(as other: PathPlace) -> Bool {
        switch (self, other) {
        case (.session(let left, _), .session(let right, _)): left == right
        default: self == other
        }
    }
}
