public import AsyncIO
public import ISCSI

/// A further iSCSI node of an ``EmbeddedTarget``.
public struct TargetNodeConfiguration: Sendable {
    public enum Units: Sendable {
        case own([LogicalUnitConfiguration])
        /// Those of the node with this name: the second controller of an array. What belongs to a unit (reservations,
        /// unit attentions, mode parameters) is shared; access states belong to the port groups of each.
        case sharedWith(node: String)
    }

    public var name: String
    public var alias: String
    /// A portal may lead to several nodes. The tags of nodes that share units must differ.
    public var portals: [TargetPortalConfiguration]
    public var units: Units
    public var authentication: TargetAuthentication

    public init(
        name: String, portals: [TargetPortalConfiguration], units: Units, alias: String = "",
        authentication: TargetAuthentication = .none
    ) {
        self.name = name
        self.alias = alias
        self.portals = portals
        self.units = units
        self.authentication = authentication
    }
}

/// What is wrong with the nodes of a configuration.
public enum TargetNodeProblem: Error, Hashable, Sendable {
    case duplicateName(String)
    case noPortal(node: String)
    /// The node whose units are to be shared does not exist before this one.
    case unknownPeer(String, node: String)
    /// One portal was given two portal group tags.
    case portalInTwoGroups(SocketAddress)
    /// Two nodes that share units have one tag.
    case groupOfTwoNodes(tag: UInt16)
}

extension TargetNodeProblem: CustomStringConvertible {
    public var description: String {
        switch self {
        case .duplicateName(let name): "the target \(name) is given twice"
        case .noPortal(let node): "the target \(node) has no portal"
        case .unknownPeer(let name, let node): "\(node) is to share the units of \(name), which is not given before it"
        case .portalInTwoGroups(let address): "the portal \(address) is in two portal groups"
        case .groupOfTwoNodes(let tag): "portal group \(tag) belongs to two targets that share their units"
        }
    }
}

/// A configuration worked out: which devices there are, and which nodes and portals lead to each.
struct TargetPlan {
    struct Device {
        var name: String
        var ports: [(tag: UInt16, nodeName: String)] = []
        var units: [LogicalUnitConfiguration]
    }

    struct Node {
        var node: TargetNodeConfiguration
        var device: Int
        var portals: [Int] = []
    }

    private(set) var devices: [Device] = []
    private(set) var nodes: [Node] = []
    /// Each address once.
    private(set) var portals: [TargetPortalConfiguration] = []

    init(_ configuration: TargetConfiguration) throws(EmbeddedTargetError) {
        guard !configuration.portals.isEmpty else { throw .noPortal }
        let first = TargetNodeConfiguration(
            name: configuration.name, portals: configuration.portals, units: .own(configuration.logicalUnits),
            alias: configuration.alias, authentication: configuration.authentication)
        for node in [first] + configuration.furtherNodes { try add(node) }
    }

    private mutating func add(_ node: TargetNodeConfiguration) throws(EmbeddedTargetError) {
        guard !nodes.contains(where: { $0.node.name == node.name }) else { throw .badNode(.duplicateName(node.name)) }
        guard !node.portals.isEmpty else { throw .badNode(.noPortal(node: node.name)) }
        let device: Int
        switch node.units {
        case .own(let units):
            device = devices.count
            devices.append(Device(name: node.name, units: units))
        case .sharedWith(let name):
            guard let peer = nodes.first(where: { $0.node.name == name }) else {
                throw .badNode(.unknownPeer(name, node: node.name))
            }
            device = peer.device
        }
        var planned = Node(node: node, device: device)
        for portal in node.portals {
            planned.portals.append(try place(portal, planned.portals))
            let known = devices[device].ports.first { $0.tag == portal.groupTag }
            if let known, known.nodeName != node.name { throw .badNode(.groupOfTwoNodes(tag: portal.groupTag)) }
            if known == nil { devices[device].ports.append((portal.groupTag, node.name)) }
        }
        nodes.append(planned)
    }

    /// The index of a portal, which another node may have brought along.
    private mutating func place(
        _ portal: TargetPortalConfiguration, _ own: [Int]
    ) throws(EmbeddedTargetError) -> Int {
        // Port 0 is another one each time.
        if portal.address.port != 0, let known = portals.firstIndex(where: { $0.address == portal.address }) {
            guard !own.contains(known) else { throw .duplicatePortal(portal.address) }
            guard portals[known].groupTag == portal.groupTag else { throw .badNode(.portalInTwoGroups(portal.address)) }
            return known
        }
        portals.append(portal)
        return portals.count - 1
    }
}
