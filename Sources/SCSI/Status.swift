/// The status byte that ends a command (SAM-5 clause 5.3.1). An open set: a target may send any value.
@frozen
public struct SCSIStatus: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable public static var good: SCSIStatus { .init(rawValue: 0x00) }
    @inlinable public static var checkCondition: SCSIStatus { .init(rawValue: 0x02) }
    @inlinable public static var conditionMet: SCSIStatus { .init(rawValue: 0x04) }
    @inlinable public static var busy: SCSIStatus { .init(rawValue: 0x08) }
    @inlinable public static var reservationConflict: SCSIStatus { .init(rawValue: 0x18) }
    @inlinable public static var taskSetFull: SCSIStatus { .init(rawValue: 0x28) }
    @inlinable public static var acaActive: SCSIStatus { .init(rawValue: 0x30) }
    @inlinable public static var taskAborted: SCSIStatus { .init(rawValue: 0x40) }
}

extension SCSIStatus: CustomStringConvertible {
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
