// Commands about the device as a whole (SPC-4 clause 6, SBC-3 clauses 5.15 to 5.25).

/// What PREVENT ALLOW MEDIUM REMOVAL asks (SBC-3 clause 5.10): the PREVENT field.
public enum MediumRemoval: UInt8, Hashable, Sendable {
    /// The medium may be taken out.
    case allow = 0
    /// The medium is locked.
    case prevent = 1
}

/// What START STOP UNIT asks (SBC-3 clause 5.25).
public struct StartStopRequest: Hashable, Sendable {
    /// START: become ready, or stop.
    public var start: Bool
    /// LOEJ: load or eject the medium.
    public var loadEject: Bool
    /// IMMED: answer before it is done.
    public var isImmediate: Bool
    /// NO_FLUSH: leave the cache as it is.
    public var skipsFlush: Bool
    /// POWER CONDITION, 0…15, and its modifier, 0…15.
    public var powerCondition: UInt8
    /// See ``powerCondition``.
    public var powerConditionModifier: UInt8

    /// A request; by default the unit is started, and the answer waited for.
    public init(
        start: Bool, loadEject: Bool = false, isImmediate: Bool = false, skipsFlush: Bool = false,
        powerCondition: UInt8 = 0, powerConditionModifier: UInt8 = 0
    ) {
        self.start = start
        self.loadEject = loadEject
        self.isImmediate = isImmediate
        self.skipsFlush = skipsFlush
        self.powerCondition = powerCondition & 0x0F
        self.powerConditionModifier = powerConditionModifier & 0x0F
    }
}

/// Which logical units REPORT LUNS lists (SPC-4 table 291). An open set.
public struct LUNReportSelection: RawRepresentable, Hashable, Sendable {
    /// The code.
    public var rawValue: UInt8
    /// A selection by its code.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// All but the well-known logical units.
    public static let ordinary = LUNReportSelection(rawValue: 0x00)
    /// Only the well-known logical units.
    public static let wellKnown = LUNReportSelection(rawValue: 0x01)
    /// All there are.
    public static let all = LUNReportSelection(rawValue: 0x02)
}

extension CommandDescriptorBlock {
    /// TEST UNIT READY.
    @inlinable
    public static func testUnitReady() -> Self { Self(operationCode: 0x00) }

    /// REQUEST SENSE; `descriptorFormat` asks for descriptor format sense data (DESC).
    public static func requestSense(descriptorFormat: Bool = false, allocationByteCount: UInt8 = 252) -> Self {
        var block = Self(operationCode: OperationCode.requestSense)
        block.bytes[1] = descriptorFormat ? 1 : 0
        block.bytes[4] = allocationByteCount
        return block
    }

    /// INQUIRY: standard data where `page` is nil, that VPD page otherwise.
    public static func inquiry(page: VPDPage? = nil, allocationByteCount: UInt16) -> Self {
        var block = Self(operationCode: OperationCode.inquiry)
        if let page {
            block.bytes[1] = 1
            block.bytes[2] = page.rawValue
        }
        block.setField(at: 3, width: 2, to: UInt64(allocationByteCount))
        return block
    }

    /// REPORT LUNS; the allocation length must be at least 16.
    public static func reportLUNs(
        selection: LUNReportSelection = .ordinary, allocationByteCount: UInt32
    ) -> Self {
        var block = Self(operationCode: OperationCode.reportLUNs)
        block.bytes[2] = selection.rawValue
        block.setField(at: 6, width: 4, to: UInt64(allocationByteCount))
        return block
    }

    /// READ CAPACITY (10); the answer is 8 bytes.
    public static func readCapacity10() -> Self { Self(operationCode: OperationCode.readCapacity10) }

    /// READ CAPACITY (16); the answer is 32 bytes.
    public static func readCapacity16(allocationByteCount: UInt32 = 32) -> Self {
        var block = Self(operationCode: OperationCode.serviceActionIn16)
        block.bytes[1] = ServiceAction.readCapacity16
        block.setField(at: 10, width: 4, to: UInt64(allocationByteCount))
        return block
    }

    /// START STOP UNIT.
    public static func startStopUnit(_ request: StartStopRequest) -> Self {
        var block = Self(operationCode: OperationCode.startStopUnit)
        block.bytes[1] = request.isImmediate ? 1 : 0
        block.bytes[3] = request.powerConditionModifier
        block.bytes[4] =
            request.powerCondition << 4 | (request.skipsFlush ? 4 : 0) | (request.loadEject ? 2 : 0)
            | (request.start ? 1 : 0)
        return block
    }

    /// PREVENT ALLOW MEDIUM REMOVAL.
    public static func preventAllowMediumRemoval(_ removal: MediumRemoval) -> Self {
        var block = Self(operationCode: OperationCode.preventAllowMediumRemoval)
        block.bytes[4] = removal.rawValue
        return block
    }

    /// RESERVE (6), of the whole unit for this I_T nexus (SPC-2 clause 7.21).
    public static func reserve6() -> Self { Self(operationCode: OperationCode.reserve6) }
    /// RELEASE (6) (SPC-2 clause 7.17).
    public static func release6() -> Self { Self(operationCode: OperationCode.release6) }
    /// RESERVE (10), of the whole unit for this I_T nexus.
    public static func reserve10() -> Self { Self(operationCode: OperationCode.reserve10) }
    /// RELEASE (10), of the whole unit.
    public static func release10() -> Self { Self(operationCode: OperationCode.release10) }

    /// READ DEFECT DATA (10); `format` is the defect list format, 0…7.
    public static func readDefectData10(
        primaryList: Bool, grownList: Bool, format: UInt8, allocationByteCount: UInt16
    ) -> Self {
        var block = Self(operationCode: OperationCode.readDefectData10)
        block.bytes[2] = (primaryList ? 0x10 : 0) | (grownList ? 0x08 : 0) | format & 0x07
        block.setField(at: 7, width: 2, to: UInt64(allocationByteCount))
        return block
    }

    /// READ DEFECT DATA (12); `format` is the defect list format, 0…7.
    public static func readDefectData12(
        primaryList: Bool, grownList: Bool, format: UInt8, allocationByteCount: UInt32
    ) -> Self {
        var block = Self(operationCode: OperationCode.readDefectData12)
        block.bytes[1] = (primaryList ? 0x10 : 0) | (grownList ? 0x08 : 0) | format & 0x07
        block.setField(at: 6, width: 4, to: UInt64(allocationByteCount))
        return block
    }
}
