/// Asymmetric access state of a target port group (SPC-4 table 308).
public enum PortGroupState: UInt8, Hashable, Sendable, CaseIterable {
    case activeOptimized = 0x0
    case activeNonOptimized = 0x1
    case standby = 0x2
    case unavailable = 0x3
    case transitioning = 0xF
}

/// A portal group, which is a SCSI target port (RFC 7143 section 4.6.2) and here also a target port group.
public struct PortGroup: Sendable {
    /// The portal group tag; as well the number of the target port group.
    public let tag: UInt16
    /// 1…65,535
    public let relativePortIdentifier: UInt16
    public var state: PortGroupState = .activeOptimized
    public var isPreferred = false
}

/// What the logical units of a target share: its name, its ports, and one another.
public final class TargetNode {
    public let name: String
    /// In the order of their tags.
    public internal(set) var portGroups: [PortGroup]
    /// By LUN index, in ascending order.
    public private(set) var units: [LogicalUnit] = []
    /// LUN index → unit, so that a lookup is one load.
    private var unitsByNumber: [LogicalUnit?] = []
    /// Initiators may change access states (SET TARGET PORT GROUPS).
    public let allowsExplicitTransitions: Bool

    /// Nexuses that exist: an index is in use where it is true.
    private(set) var nexusIsActive: [Bool] = []

    public init(name: String, portGroupTags: [UInt16], allowsExplicitTransitions: Bool = false) {
        self.name = name
        self.allowsExplicitTransitions = allowsExplicitTransitions
        portGroups = Set(portGroupTags).sorted().enumerated().map {
            PortGroup(tag: $0.element, relativePortIdentifier: UInt16($0.offset + 1))
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

    /// A nexus came up: its units owe it `attention`.
    func nexusStarted(_ nexus: NexusIndex, attention: UnitAttentions) {
        while nexusIsActive.count <= nexus.rawValue { nexusIsActive.append(false) }
        nexusIsActive[nexus.rawValue] = true
        for unit in units { unit.nexusStarted(nexus, attention: attention) }
    }

    func nexusEnded(_ nexus: NexusIndex) {
        nexusIsActive[nexus.rawValue] = false
        for unit in units { unit.nexusEnded(nexus) }
    }

    /// Changes a group's access state by itself (an implicit transition): all nexuses are told.
    public func setState(_ state: PortGroupState, ofGroupTag tag: UInt16) {
        guard let index = portGroupIndex(tag: tag), portGroups[index].state != state else { return }
        portGroups[index].state = state
        for unit in units { unit.raise(.accessStateChanged) }
    }
}
