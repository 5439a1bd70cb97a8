import AsyncIO
import ISCSITarget
import MPIO
import SCSI

/// What `mpio target` prints.
struct TargetText {
    var style = TextStyle()

    func serving(_ command: TargetCommand, _ host: TargetHost, _ configuration: ISCSITarget.TargetConfiguration) -> String {
        var text = ""
        for node in nodes(host, configuration) {
            text += style.paint(node.name, .bold) + "\n"
            for (address, portal) in node.portals {
                let state = configuration.accessStates[portal.groupTag].map { "  \($0.words)" } ?? ""
                text += "  portal \(address)  group \(portal.groupTag)\(state)\n"
            }
        }
        let units = configuration.logicalUnits
        for unit in units {
            let size = unit.byteCount.map { "  \(HumanText.size($0))" } ?? ""
            text += "  lun \(unit.number)  \(unit.storage.words)\(size), \(unit.blockSize) B blocks\(unit.isReadOnly ? ", read-only" : "")\n"
        }
        text += "\nTo use it, as mpio.yaml:\n\n" + policy(command, host, configuration)
        text += "\nOr: mpio discover \(host.addresses[0])\(discoverFlags(command)) --write-config mpio.yaml\nCtrl-C ends it.\n"
        return text
    }

    private typealias Node = (name: String, portals: [(SocketAddress, TargetPortalConfiguration)])

    /// Each with its portals, where they listen.
    private func nodes(_ host: TargetHost, _ configuration: ISCSITarget.TargetConfiguration) -> [Node] {
        var addresses = host.addresses[...]
        let all = [(configuration.name, configuration.portals)] + configuration.furtherNodes.map { ($0.name, $0.portals) }
        return all.map { name, portals in
            defer { addresses = addresses.dropFirst(portals.count) }
            return (name, Array(zip(addresses, portals)))
        }
    }

    private func discoverFlags(_ command: TargetCommand) -> String {
        guard let user = command.chapUser, let file = command.chapSecretFile else { return "" }
        var text = " --user \(user) --secret-file \(file)"
        if let user = command.mutualUser, let file = command.mutualSecretFile {
            text += " --mutual-user \(user) --mutual-secret-file \(file)"
        }
        return text
    }

    /// A policy file for the target.
    private func policy(_ command: TargetCommand, _ host: TargetHost, _ configuration: ISCSITarget.TargetConfiguration) -> String {
        let nodes = nodes(host, configuration)
        var text = "targets:\n"
        for node in nodes {
            text += "  - name: \(node.name)\n    portals:\n"
            for (address, _) in node.portals { text += "      - {address: \"\(address)\"}\n" }
            text += chap(command)
        }
        text += "luns:\n"
        for unit in configuration.logicalUnits {
            // With two controllers, the unit's own name: a place is one target's.
            let place = nodes.count == 1 ? "{target: \"\(command.name)\", lun: \(unit.number)}" : host.identity(ofUnit: unit.number)
            text += "  - {name: lun-\(unit.number), identity: \(place)}\n"
        }
        return text
    }

    private func chap(_ command: TargetCommand) -> String {
        guard let user = command.chapUser, let file = command.chapSecretFile else { return "" }
        var text = "    chap: {user: \"\(user)\", secret-file: \"\(file)\""
        if let user = command.mutualUser, let file = command.mutualSecretFile {
            text += ", mutual-user: \"\(user)\", mutual-secret-file: \"\(file)\""
        }
        return text + "}\n"
    }
}

extension LogicalUnitConfiguration.Storage {
    fileprivate var words: String {
        switch self {
        case .memory: "memory"
        case .null: "null"
        case .file(let path): HumanText.printable(path)
        case .disk(let name): "mpio \(HumanText.printable(name))"
        }
    }
}

extension AccessState {
    fileprivate var words: String {
        switch self {
        case .optimized: "active/optimized"
        case .nonOptimized: "active/non-optimized"
        case .standby: "standby"
        case .unavailable: "unavailable"
        default: "\(self)"
        }
    }
}
