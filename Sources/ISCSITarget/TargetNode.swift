public import ISCSI
public import SCSI

/// A portal group, which is a SCSI target port (RFC 7143 section 4.6.2) and here also a target port group.
public struct PortGroup: Sendable {
    /// The iSCSI name of the node that the portals lead to.
    public let nodeName: String
    /// The portal group tag; as well the number of the target port group.
    public let tag: UInt16
    /// 1…65,535
    public let relativePortIdentifier: UInt16
    public var state: AccessState = .optimized
    public var isPreferred = false
    /// Why it is in its state.
    public internal(set) var lastChange = TargetPortGroupStatus.none
}

/// The initiator port and target port that make an I_T nexus (RFC 7143 section 4.4.1): a session between
/// the same two is the same nexus, the next time too.
public struct NexusIdentity: Hashable, Sendable {
    public var initiatorName: String
    public var isid: ISID
    /// An index of ``TargetNode/portGroups``.
    public var portGroup: Int

    public init(initiatorName: String, isid: ISID, portGroup: Int) {
        self.initiatorName = initiatorName
        self.isid = isid
        self.portGroup = portGroup
    }
}

/// A SCSI target device: what its logical units share, that is its ports and one another. It may be reached under
/// several iSCSI names: the controllers of an array, each a node with port groups of its own.
public final class TargetNode {
    /// The first iSCSI name.
    public let name: String
    /// In the order of their tags.
    @exclusivity(unchecked) public internal(set) var portGroups: [PortGroup]
    /// By LUN index, in ascending order.
    @exclusivity(unchecked) public private(set) var units: [LogicalUnit] = []
    /// LUN index → unit, so that a lookup is one load.
    @exclusivity(unchecked) private var unitsByNumber: [LogicalUnit?] = []
    /// Initiators may change access states (SET TARGET PORT GROUPS).
    public let allowsExplicitTransitions: Bool

    private var nexuses: [Nexus] = []

    private struct Nexus {
        var identity: NexusIdentity
        var isActive: Bool
        /// It had a session; otherwise it was only named, by a reservation.
        var hadSession: Bool
        /// Counts uses, to find the nexus that was gone longest.
        var lastUse: UInt64
    }

    private var useCount: UInt64 = 0
    /// Nexuses that are remembered after their session ended, beyond those that hold a registration.
    private static let rememberedNexuses = 256

    public convenience init(name: String, portGroupTags: [UInt16], allowsExplicitTransitions: Bool = false) {
        self.init(
            name: name, ports: Set(portGroupTags).map { (tag: $0, nodeName: name) },
            allowsExplicitTransitions: allowsExplicitTransitions)
    }

    /// No two of `ports` may have one tag.
    public init(name: String, ports: [(tag: UInt16, nodeName: String)], allowsExplicitTransitions: Bool = false) {
        precondition(Set(ports.map(\.tag)).count == ports.count, "a portal group tag names one group")
        self.name = name
        self.allowsExplicitTransitions = allowsExplicitTransitions
        portGroups = ports.sorted { $0.tag < $1.tag }.enumerated().map {
            PortGroup(
                nodeName: $0.element.nodeName, tag: $0.element.tag, relativePortIdentifier: UInt16($0.offset + 1))
        }
    }

    func add(_ unit: LogicalUnit) {
        let place = units.firstIndex { $0.number > unit.number } ?? units.endIndex
        units.insert(unit, at: place)
        if unitsByNumber.count <= unit.number {
            unitsByNumber += Array(repeating: nil, count: unit.number + 1 - unitsByNumber.count)
        }
        unitsByNumber[unit.number] = unit
    }

    func unit(_ number: Int) -> LogicalUnit? {
        number < unitsByNumber.count ? unitsByNumber[number] : nil
    }

    func portGroupIndex(tag: UInt16) -> Int? { portGroups.firstIndex { $0.tag == tag } }

    // MARK: nexuses

    /// The index of a nexus whose session begins. Its units owe it a unit attention: POWER ON to one that is
    /// new here, I_T NEXUS LOSS to one that had a session before.
    public func nexusStarted(_ identity: NexusIdentity) -> NexusIndex {
        useCount += 1
        let index = place(identity, idleSince: useCount)
        let attention: UnitAttentions = nexuses[index].hadSession ? .nexusLoss : .powerOn
        nexuses[index].isActive = true
        nexuses[index].hadSession = true
        return start(index, attention)
    }

    /// The indexes of nexuses that have no session, or not yet: persistent reservations name them.
    func remember(_ identities: [NexusIdentity]) -> [NexusIndex] {
        let start = useCount + 1
        return identities.map {
            useCount += 1
            return NexusIndex(rawValue: place($0, idleSince: start))
        }
    }

    /// The slot of a nexus, an old one or one that is made. None that was used at or after `limit` makes room for it.
    private func place(_ identity: NexusIdentity, idleSince limit: UInt64) -> Int {
        if let index = nexuses.firstIndex(where: { $0.identity == identity }) {
            nexuses[index].lastUse = useCount
            return index
        }
        let nexus = Nexus(identity: identity, isActive: false, hadSession: false, lastUse: useCount)
        let index: Int
        if nexuses.count >= Self.rememberedNexuses, let old = forgettable(idleSince: limit) {
            for unit in units { unit.nexusForgotten(NexusIndex(rawValue: old)) }
            nexuses[old] = nexus
            index = old
        } else {
            index = nexuses.count
            nexuses.append(nexus)
        }
        for unit in units { unit.nexusRemembered(NexusIndex(rawValue: index)) }
        return index
    }

    /// A target port lost its power: to whoever comes back to it, it is new.
    func portGroupRestarted(_ group: Int) {
        for index in nexuses.indices where nexuses[index].identity.portGroup == group { nexuses[index].hadSession = false }
    }

    var identities: [NexusIdentity] { nexuses.map(\.identity) }

    private func start(_ index: Int, _ attention: UnitAttentions) -> NexusIndex {
        let nexus = NexusIndex(rawValue: index)
        for unit in units { unit.nexusStarted(nexus, attention: attention) }
        return nexus
    }

    /// Initiators that take a random ISID at each login would fill the table: the nexus that is gone
    /// longest makes room, unless a registration or a command still names it.
    private func forgettable(idleSince limit: UInt64) -> Int? {
        nexuses.indices
            .filter { index in
                !nexuses[index].isActive && nexuses[index].lastUse < limit && !units.contains { $0.needsNexus(NexusIndex(rawValue: index)) }
            }
            .min { nexuses[$0].lastUse < nexuses[$1].lastUse }
    }

    public func nexusEnded(_ nexus: NexusIndex) {
        nexuses[nexus.rawValue].isActive = false
        for unit in units { unit.nexusEnded(nexus) }
    }

    func isActive(_ nexus: NexusIndex) -> Bool { nexuses[nexus.rawValue].isActive }
    func nexusPort(_ nexus: NexusIndex) -> NexusIdentity { nexuses[nexus.rawValue].identity }

    /// Changes a group's access state by itself (an implicit transition): all nexuses are told.
    public func setState(_ state: AccessState, ofGroupTag tag: UInt16) {
        setState(state, ofGroupTag: tag, status: .alteredImplicitly, except: nil)
    }

    /// The nexus that asked for an explicit transition knows of it (SPC-4 clause 6.45).
    func setState(_ state: AccessState, ofGroupTag tag: UInt16, status: TargetPortGroupStatus, except: NexusIndex?) {
        guard let index = portGroupIndex(tag: tag), portGroups[index].state != state else { return }
        portGroups[index].state = state
        portGroups[index].lastChange = status
        for unit in units { unit.raise(.accessStateChanged, except: except) }
    }
}
