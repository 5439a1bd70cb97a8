/// How well a target port group reaches a unit (ASYMMETRIC ACCESS STATE, SPC-4 table 307).
@frozen
public enum AccessState: UInt8, Hashable, Sendable, CaseIterable {
    /// Active/optimized: the best way to the unit.
    case optimized = 0x0
    /// Active/non-optimized: a way that costs the array something.
    case nonOptimized = 0x1
    /// Standby: commands that touch blocks are refused.
    case standby = 0x2
    /// Unavailable: hardly any command is served.
    case unavailable = 0x3
    /// Some blocks are better reached through this group, others through another one.
    case lbaDependent = 0x4
    /// Offline: the ports are out of work.
    case offline = 0xE
    /// On the way from one state to another.
    case transitioning = 0xF
}

extension AccessState: CustomStringConvertible {
    /// As users read it, such as `active/optimized`.
    public var description: String {
        switch self {
        case .optimized: "active/optimized"
        case .nonOptimized: "active/non-optimized"
        case .standby: "standby"
        case .unavailable: "unavailable"
        case .lbaDependent: "LBA dependent"
        case .offline: "offline"
        case .transitioning: "transitioning"
        }
    }
}

/// Which states a group can be in (SPC-4 table 306, byte 1), in their places on the wire.
public struct SupportedAccessStates: OptionSet, Hashable, Sendable {
    /// The field's bits.
    public var rawValue: UInt8
    /// By its bits.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// AO_SUP.
    public static let optimized = SupportedAccessStates(rawValue: 0x01)
    /// AN_SUP.
    public static let nonOptimized = SupportedAccessStates(rawValue: 0x02)
    /// S_SUP.
    public static let standby = SupportedAccessStates(rawValue: 0x04)
    /// U_SUP.
    public static let unavailable = SupportedAccessStates(rawValue: 0x08)
    /// LBD_SUP.
    public static let lbaDependent = SupportedAccessStates(rawValue: 0x10)
    /// O_SUP.
    public static let offline = SupportedAccessStates(rawValue: 0x40)
    /// T_SUP.
    public static let transitioning = SupportedAccessStates(rawValue: 0x80)

    /// Whether the group can be in this state.
    public func contains(_ state: AccessState) -> Bool {
        switch state {
        case .optimized: contains(.optimized as SupportedAccessStates)
        case .nonOptimized: contains(.nonOptimized as SupportedAccessStates)
        case .standby: contains(.standby as SupportedAccessStates)
        case .unavailable: contains(.unavailable as SupportedAccessStates)
        case .lbaDependent: contains(.lbaDependent as SupportedAccessStates)
        case .offline: contains(.offline as SupportedAccessStates)
        case .transitioning: contains(.transitioning as SupportedAccessStates)
        }
    }
}

/// Why the group is in its state (STATUS CODE, SPC-4 table 308). An open set.
public struct TargetPortGroupStatus: RawRepresentable, Hashable, Sendable {
    /// The code.
    public var rawValue: UInt8
    /// A status by its code.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Nothing is told.
    public static let none = TargetPortGroupStatus(rawValue: 0)
    /// By SET TARGET PORT GROUPS.
    public static let alteredExplicitly = TargetPortGroupStatus(rawValue: 1)
    /// By the target itself.
    public static let alteredImplicitly = TargetPortGroupStatus(rawValue: 2)
}

/// A target port group descriptor (SPC-4 table 306).
public struct TargetPortGroup: Hashable, Sendable {
    /// TARGET PORT GROUP: the group's number.
    public var identifier: UInt16
    /// The state as the target wrote it, 0…15; see `state`.
    public var stateCode: UInt8
    /// PREF: the target would like this group to be used.
    public var isPreferred: Bool
    /// The states that the group can be in.
    public var supportedStates: SupportedAccessStates
    /// Why the group is in its state.
    public var status: TargetPortGroupStatus
    /// VENDOR SPECIFIC.
    public var vendorSpecific: UInt8
    /// The ports of the group, by relative target port identifier; at most 255.
    public var relativePorts: [UInt16]

    /// A group in a state; what is not given is not told.
    public init(
        identifier: UInt16, state: AccessState, isPreferred: Bool = false,
        supportedStates: SupportedAccessStates = [.optimized], status: TargetPortGroupStatus = .none,
        vendorSpecific: UInt8 = 0, relativePorts: [UInt16]
    ) {
        self.identifier = identifier
        self.stateCode = state.rawValue
        self.isPreferred = isPreferred
        self.supportedStates = supportedStates
        self.status = status
        self.vendorSpecific = vendorSpecific
        self.relativePorts = relativePorts
    }

    /// The access state; a reserved code counts as unavailable, since nothing is known to work there.
    public var state: AccessState {
        get { AccessState(rawValue: stateCode) ?? .unavailable }
        set { stateCode = newValue.rawValue }
    }

    fileprivate init?(descriptor bytes: [UInt8], at offset: Int) {
        guard bytes.count - offset >= 8, let group = bytes.uint16(at: offset + 2) else { return nil }
        let portCount = Int(bytes[offset + 7])
        guard bytes.count - offset - 8 >= 4 * portCount else { return nil }
        self.init(
            identifier: group, state: .unavailable, isPreferred: bytes.bit(7, at: offset),
            supportedStates: SupportedAccessStates(rawValue: bytes[offset + 1]),
            status: TargetPortGroupStatus(rawValue: bytes[offset + 5]), vendorSpecific: bytes[offset + 6],
            relativePorts: (0..<portCount).compactMap { bytes.uint16(at: offset + 8 + 4 * $0 + 2) })
        stateCode = bytes[offset] & 0x0F
    }

    fileprivate var byteCount: Int { 8 + 4 * relativePorts.count }

    fileprivate func encode(into bytes: inout [UInt8]) {
        bytes += [(isPreferred ? 0x80 : 0) | stateCode & 0x0F, supportedStates.rawValue]
        bytes.append(bigEndian: identifier)
        bytes += [0, status.rawValue, vendorSpecific, UInt8(min(relativePorts.count, 255))]
        for port in relativePorts.prefix(255) {
            bytes += [0, 0]
            bytes.append(bigEndian: port)
        }
    }
}

/// The answer to REPORT TARGET PORT GROUPS (SPC-4 clause 6.37), with or without the extended header.
public struct TargetPortGroupReport: Hashable, Sendable {
    /// The groups, in the target's order.
    public var groups: [TargetPortGroup]
    /// IMPLICIT TRANSITION TIME, in seconds, of an extended header; 0 where it says nothing.
    public var implicitTransitionSeconds: UInt8?
    /// How many bytes the target has, header included; over what was received, the list is cut.
    public var declaredByteCount: Int

    /// An answer.
    public init(groups: [TargetPortGroup], implicitTransitionSeconds: UInt8? = nil) {
        self.groups = groups
        self.implicitTransitionSeconds = implicitTransitionSeconds
        declaredByteCount =
            groups.reduce(implicitTransitionSeconds == nil ? 4 : 8) { $0 + 8 + 4 * min($1.relativePorts.count, 255) }
    }

    /// Nil below 4 bytes. A descriptor that runs past the end ends the list. The two formats tell themselves
    /// apart: bits 6…4 of byte 4 are 1 in an extended header and 0 in a descriptor.
    public init?(parsing received: [UInt8]) {
        guard let count = received.uint32(at: 0) else { return nil }
        declaredByteCount = 4 + Int(count)
        let bytes = received.clamped(0..<declaredByteCount)
        var offset = 4
        implicitTransitionSeconds = nil
        if let format = bytes.byte(at: 4), format & 0x70 == 0x10 {
            implicitTransitionSeconds = bytes.byte(at: 5) ?? 0
            offset = 8
        }
        groups = []
        while offset < bytes.count, let group = TargetPortGroup(descriptor: bytes, at: offset) {
            groups.append(group)
            offset += group.byteCount
        }
    }

    /// With an extended header where a transition time is given.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = [0, 0, 0, 0]
        if let implicitTransitionSeconds { bytes += [0x10, implicitTransitionSeconds, 0, 0] }
        for group in groups { group.encode(into: &bytes) }
        bytes.store(bigEndian: UInt32(bytes.count - 4), at: 0)
        return bytes
    }

    /// The group that holds the port with this relative identifier.
    public func group(ofRelativePort port: UInt16) -> TargetPortGroup? {
        groups.first { $0.relativePorts.contains(port) }
    }
}

/// The parameter list of SET TARGET PORT GROUPS (SPC-4 clause 6.45).
public struct TargetPortGroupChange: Hashable, Sendable {
    /// The group's number.
    public var identifier: UInt16
    /// The state asked for.
    public var state: AccessState
    /// A group and the state that it is to take.
    public init(identifier: UInt16, state: AccessState) {
        self.identifier = identifier
        self.state = state
    }

    /// Header and descriptors.
    public static func encode(_ changes: [TargetPortGroupChange]) -> [UInt8] {
        var bytes: [UInt8] = [0, 0, 0, 0]
        for change in changes {
            bytes += [change.state.rawValue, 0]
            bytes.append(bigEndian: change.identifier)
        }
        return bytes
    }

    /// The list as a target received it. Only the states that SPC-4 table 331 lets an initiator ask for pass.
    public static func parse(_ bytes: [UInt8]) throws(IllegalRequest) -> [TargetPortGroupChange] {
        guard bytes.count >= 4, bytes.count.isMultiple(of: 4) else { throw .parameterListLength }
        var changes: [TargetPortGroupChange] = []
        for offset in stride(from: 4, to: bytes.count, by: 4) {
            guard let state = AccessState(rawValue: bytes[offset] & 0x0F), state != .lbaDependent,
                state != .transitioning
            else { throw .fieldInParameterList(byte: offset.saturated(to: UInt16.self), bit: 3) }
            changes.append(TargetPortGroupChange(identifier: bytes.uint16(at: offset + 2) ?? 0, state: state))
        }
        return changes
    }
}
