/// The status byte that ends a command (SAM-5 clause 5.3.1). An open set: a target may send any value.
@frozen
public struct SCSIStatus: RawRepresentable, Hashable, Sendable {
    /// The status byte.
    public var rawValue: UInt8
    /// A status by its byte.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// GOOD.
    @inlinable public static var good: SCSIStatus { .init(rawValue: 0x00) }
    /// CHECK CONDITION: sense data says what is wrong.
    @inlinable public static var checkCondition: SCSIStatus { .init(rawValue: 0x02) }
    /// CONDITION MET: PRE-FETCH found room for all blocks.
    @inlinable public static var conditionMet: SCSIStatus { .init(rawValue: 0x04) }
    /// BUSY: not now.
    @inlinable public static var busy: SCSIStatus { .init(rawValue: 0x08) }
    /// RESERVATION CONFLICT: another initiator reserved the unit.
    @inlinable public static var reservationConflict: SCSIStatus { .init(rawValue: 0x18) }
    /// TASK SET FULL: no room for another command.
    @inlinable public static var taskSetFull: SCSIStatus { .init(rawValue: 0x28) }
    /// ACA ACTIVE.
    @inlinable public static var acaActive: SCSIStatus { .init(rawValue: 0x30) }
    /// TASK ABORTED: another initiator ended it.
    @inlinable public static var taskAborted: SCSIStatus { .init(rawValue: 0x40) }
}

extension SCSIStatus: CustomStringConvertible {
    /// As SAM-5 writes it; others in hexadecimal.
    public var description: String {
        switch self {
        case .good: "GOOD"
        case .checkCondition: "CHECK CONDITION"
        case .conditionMet: "CONDITION MET"
        case .busy: "BUSY"
        case .reservationConflict: "RESERVATION CONFLICT"
        case .taskSetFull: "TASK SET FULL"
        case .acaActive: "ACA ACTIVE"
        case .taskAborted: "TASK ABORTED"
        default: "status 0x" + String(rawValue, radix: 16)
        }
    }
}
