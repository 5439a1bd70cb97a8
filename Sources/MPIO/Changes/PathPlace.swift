import Multipath
import SCSI

/// What makes a session itself, whatever it is called and wherever a policy file lists it.
struct SessionPlace: Hashable {
    struct Ends: Hashable {
        var address: PortalAddress
        var source: SourceAddress?
    }

    /// Folded, as iSCSI names are compared.
    var target: String
    var connections: [Ends]

    init(target: String, _ portal: PortalConfiguration) {
        self.target = target.lowercased()
        connections = portal.connections.map { Ends(address: $0.address, source: $0.source) }
    }
}

/// What makes a path of a LUN itself.
enum PathPlace: Hashable {
    case session(SessionPlace, lun: LogicalUnitNumber?)
    case device(path: String)
}

extension Configuration {
    /// The LUN's paths: those that are listed, or else every portal that may lead to the unit.
    func effectivePaths(of lun: LUNConfiguration) -> [PathConfiguration] {
        guard lun.paths.isEmpty else { return lun.paths }
        var paths: [PathConfiguration] = []
        for (index, target) in targets.enumerated() {
            var number: LogicalUnitNumber?
            if case .location(let name, let given) = lun.identification {
                guard name.lowercased() == target.name.lowercased() else { continue }
                number = given
            }
            for (portal, entry) in target.portals.enumerated() {
                let isTaken = paths.contains { $0.settings.name == entry.name }
                paths.append(
                    PathConfiguration(
                        transport: .portal(target: index, portal: portal, lun: number),
                        settings: PathSettings(
                            name: isTaken ? "\(entry.name)/\(target.name)" : entry.name, order: paths.count)))
            }
        }
        return paths
    }

    func place(of transport: PathTransport) -> PathPlace {
        switch transport {
        case .device(let path): .device(path: path)
        case .portal(let target, let portal, let lun):
            .session(SessionPlace(target: targets[target].name, targets[target].portals[portal]), lun: lun)
        }
    }

    /// Every session that is configured.
    var sessionPlaces: [SessionPlace] {
        targets.flatMap { target in target.portals.map { SessionPlace(target: target.name, $0) } }
    }

    /// Keeps a LUN of `old` that must not go, with the targets and portals that it needs.
    mutating func keep(_ lun: LUNConfiguration, of old: Configuration) {
        var kept = lun
        kept.paths = old.effectivePaths(of: lun).map { path in
            guard case .portal(let target, let portal, let number) = path.transport else { return path }
            var path = path
            let (newTarget, newPortal) = session(old.targets[target].portals[portal], of: old.targets[target])
            path.transport = .portal(target: newTarget, portal: newPortal, lun: number)
            return path
        }
        luns.append(kept)
    }

    /// The indices of a session, which is added where it is not there.
    private mutating func session(_ portal: PortalConfiguration, of target: TargetConfiguration) -> (Int, Int) {
        let place = SessionPlace(target: target.name, portal)
        guard let index = targets.firstIndex(where: { $0.name.lowercased() == place.target }) else {
            var alone = target
            alone.portals = [portal]
            targets.append(alone)
            return (targets.count - 1, 0)
        }
        if let known = targets[index].portals.firstIndex(where: { SessionPlace(target: target.name, $0) == place }) {
            return (index, known)
        }
        targets[index].portals.append(portal)
        return (index, targets[index].portals.count - 1)
    }
}
