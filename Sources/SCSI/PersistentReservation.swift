// The words of persistent reservations (SPC-4 clause 5.13).

/// The kind of a persistent reservation (TYPE, SPC-4 table 219). An open set, four bits.
public struct ReservationType: RawRepresentable, Hashable, Sendable {
    /// The code, four bits.
    public var rawValue: UInt8
    /// Higher bits are dropped.
    public init(rawValue: UInt8) { self.rawValue = rawValue & 0x0F }

    /// Others may read, but not write.
    public static let writeExclusive = ReservationType(rawValue: 0x1)
    /// Others may neither read nor write.
    public static let exclusiveAccess = ReservationType(rawValue: 0x3)
    /// Only registrants may write; one of them holds the reservation.
    public static let writeExclusiveRegistrantsOnly = ReservationType(rawValue: 0x5)
    /// Only registrants may read or write; one of them holds the reservation.
    public static let exclusiveAccessRegistrantsOnly = ReservationType(rawValue: 0x6)
    /// Only registrants may write; all of them hold the reservation.
    public static let writeExclusiveAllRegistrants = ReservationType(rawValue: 0x7)
    /// Only registrants may read or write; all of them hold the reservation.
    public static let exclusiveAccessAllRegistrants = ReservationType(rawValue: 0x8)

    /// One of the six that SPC-4 defines.
    public var isDefined: Bool { [1, 3, 5, 6, 7, 8].contains(rawValue) }
    /// Every registered I_T nexus holds the reservation.
    public var isAllRegistrants: Bool {
        self == .writeExclusiveAllRegistrants || self == .exclusiveAccessAllRegistrants
    }
    /// Registered I_T nexuses may do what the reservation keeps from others.
    public var admitsRegistrants: Bool { 5...8 ~= rawValue }
    /// Reads are kept from others too.
    public var excludesReads: Bool { [3, 6, 8].contains(rawValue) }
}

extension ReservationType: CustomStringConvertible {
    /// As SPC-4 writes it, in lower case.
    public var description: String {
        switch self {
        case .writeExclusive: "write exclusive"
        case .exclusiveAccess: "exclusive access"
        case .writeExclusiveRegistrantsOnly: "write exclusive, registrants only"
        case .exclusiveAccessRegistrantsOnly: "exclusive access, registrants only"
        case .writeExclusiveAllRegistrants: "write exclusive, all registrants"
        case .exclusiveAccessAllRegistrants: "exclusive access, all registrants"
        default: "reservation type \(rawValue)"
        }
    }
}

/// PERSISTENT RESERVE IN's service actions (SPC-4 table 215).
public enum PersistentReserveInAction: UInt8, Hashable, Sendable, CaseIterable {
    /// The registered keys.
    case readKeys = 0
    /// The reservation, if there is one.
    case readReservation = 1
    /// What the device can do.
    case reportCapabilities = 2
    /// Every registration with its key and port.
    case readFullStatus = 3
}

/// PERSISTENT RESERVE OUT's service actions (SPC-4 table 222).
public enum PersistentReserveOutAction: UInt8, Hashable, Sendable, CaseIterable {
    /// Registers this nexus' key, or with a new key of 0 ends the registration.
    case register = 0
    /// Reserves the unit.
    case reserve = 1
    /// Gives the reservation up.
    case release = 2
    /// Ends the reservation and all registrations.
    case clear = 3
    /// Ends others' registrations, and takes their reservation.
    case preempt = 4
    /// The same, and ends their commands.
    case preemptAndAbort = 5
    /// As ``register``, whatever key this nexus has now.
    case registerAndIgnoreExistingKey = 6
    /// Registers another nexus, and gives it the reservation.
    case registerAndMove = 7
    /// Takes the place of a reservation that the device has lost.
    case replaceLostReservation = 8
}

extension CommandDescriptorBlock {
    /// PERSISTENT RESERVE IN (SPC-4 clause 6.15).
    public static func persistentReserveIn(
        _ action: PersistentReserveInAction, allocationByteCount: UInt16
    ) -> Self {
        var block = Self(operationCode: OperationCode.persistentReserveIn)
        block.bytes[1] = action.rawValue
        block.setField(at: 7, width: 2, to: UInt64(allocationByteCount))
        return block
    }

    /// The scope is the logical unit, the only one that SPC-4 has. `type` is heeded by RESERVE, RELEASE,
    /// PREEMPT, PREEMPT AND ABORT and REPLACE LOST RESERVATION.
    public static func persistentReserveOut(
        _ action: PersistentReserveOutAction, type: ReservationType = ReservationType(rawValue: 0),
        parameterByteCount: UInt32 = 24
    ) -> Self {
        var block = Self(operationCode: OperationCode.persistentReserveOut)
        block.bytes[1] = action.rawValue
        block.bytes[2] = type.rawValue
        block.setField(at: 5, width: 4, to: UInt64(parameterByteCount))
        return block
    }
}

/// The name of an initiator or target port (SPC-4 clause 7.6).
public struct TransportID: Hashable, Sendable {
    /// 5 is iSCSI.
    public var protocolIdentifier: UInt8
    /// FORMAT CODE, 0…3; for iSCSI 0 is a device's name, 1 a port's name.
    public var format: UInt8
    /// What follows the first byte, with reserved fields and padding; 23 bytes at least.
    public var content: [UInt8]

    init(protocolIdentifier: UInt8, format: UInt8, content: [UInt8]) {
        self.protocolIdentifier = protocolIdentifier
        self.format = format
        self.content = content
    }

    /// An iSCSI initiator port: its name and, where given, its ISID (48 bits). SPC-4 clause 7.6.4.6.
    public init(iSCSIName name: String, isid: UInt64?) {
        protocolIdentifier = 5
        format = isid == nil ? 0 : 1
        var text = Array(name.utf8)
        if let isid { text += Array(",i,0x\(DeviceText.hex(isid & 0xFFFF_FFFF_FFFF, digits: 12))".utf8) }
        text.append(0)
        // ADDITIONAL LENGTH is a multiple of four and 20 at least.
        while text.count < 20 || !text.count.isMultiple(of: 4) { text.append(0) }
        text = Array(text.prefix(65_532))
        content = [0]
        content.append(bigEndian: UInt16(text.count))
        content += text
    }

    /// The iSCSI name and ISID; nil for other protocols and for what is none.
    public var iSCSIPort: (name: String, isid: UInt64?)? {
        guard protocolIdentifier == 5, content.count > 3 else { return nil }
        let text = content[3...].prefix { $0 != 0 }
        guard let string = String(validating: text, as: UTF8.self), !string.isEmpty else { return nil }
        guard format == 1 else { return (string, nil) }
        guard let comma = string.firstIndex(of: ",") else { return nil }
        let suffix = string[comma...]
        guard suffix.hasPrefix(",i,0x"), let isid = UInt64(suffix.dropFirst(5), radix: 16), isid < 1 << 48 else {
            return nil
        }
        return (String(string[..<comma]), isid)
    }

    /// The TransportID at `offset`: 24 bytes, or for iSCSI as many as its length field says.
    init?(_ bytes: [UInt8], at offset: Int) {
        guard let first = bytes.byte(at: offset) else { return nil }
        protocolIdentifier = first & 0x0F
        format = first >> 6
        var count = 24
        if protocolIdentifier == 5 {
            guard let length = bytes.uint16(at: offset + 2) else { return nil }
            count = 4 + Int(length)
        }
        guard count >= 24, count <= bytes.count - offset else { return nil }
        content = Array(bytes[(offset + 1)..<(offset + count)])
    }

    /// The bytes as a parameter list holds them.
    public func encode() -> [UInt8] { [format << 6 | protocolIdentifier & 0x0F] + content }
}
