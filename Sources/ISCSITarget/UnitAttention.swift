import SCSI

/// Unit attention conditions waiting for one I_T nexus (SAM-5 clause 5.14), reported one at a time, the
/// lowest bit first: SAM ranks resets above all else.
public struct UnitAttentions: OptionSet, Hashable, Sendable {
    public var rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let powerOn = UnitAttentions(rawValue: 1 << 0)
    public static let targetReset = UnitAttentions(rawValue: 1 << 1)
    public static let logicalUnitReset = UnitAttentions(rawValue: 1 << 2)
    public static let nexusLoss = UnitAttentions(rawValue: 1 << 3)
    public static let commandsCleared = UnitAttentions(rawValue: 1 << 4)
    public static let capacityChanged = UnitAttentions(rawValue: 1 << 5)
    public static let modeParametersChanged = UnitAttentions(rawValue: 1 << 6)
    public static let reservationsPreempted = UnitAttentions(rawValue: 1 << 7)
    public static let reservationsReleased = UnitAttentions(rawValue: 1 << 8)
    public static let registrationsPreempted = UnitAttentions(rawValue: 1 << 9)
    public static let accessStateChanged = UnitAttentions(rawValue: 1 << 10)
    public static let logicalUnitsChanged = UnitAttentions(rawValue: 1 << 11)
    public static let inquiryDataChanged = UnitAttentions(rawValue: 1 << 12)
    public static let stateTransitionFailed = UnitAttentions(rawValue: 1 << 13)

    /// Takes the first waiting condition out.
    mutating func takeFirst() -> SenseData? {
        guard rawValue != 0 else { return nil }
        let bit = UnitAttentions(rawValue: rawValue & (~rawValue &+ 1))
        subtract(bit)
        return SenseData(key: .unitAttention, additional: bit.additional)
    }

    /// The code of a single condition.
    private var additional: AdditionalSense {
        switch self {
        case .powerOn: AdditionalSense(0x29, 0x00)
        case .targetReset: AdditionalSense(0x29, 0x02)
        case .logicalUnitReset: AdditionalSense(0x29, 0x03)
        case .nexusLoss: AdditionalSense(0x29, 0x07)
        case .commandsCleared: AdditionalSense(0x2F, 0x00)
        case .capacityChanged: AdditionalSense(0x2A, 0x09)
        case .modeParametersChanged: AdditionalSense(0x2A, 0x01)
        case .reservationsPreempted: AdditionalSense(0x2A, 0x03)
        case .reservationsReleased: AdditionalSense(0x2A, 0x04)
        case .registrationsPreempted: AdditionalSense(0x2A, 0x05)
        case .accessStateChanged: AdditionalSense(0x2A, 0x06)
        case .stateTransitionFailed: AdditionalSense(0x2A, 0x07)
        case .logicalUnitsChanged: AdditionalSense(0x3F, 0x0E)
        case .inquiryDataChanged: AdditionalSense(0x3F, 0x03)
        default: preconditionFailure("\(self) is not one condition")
        }
    }
}
