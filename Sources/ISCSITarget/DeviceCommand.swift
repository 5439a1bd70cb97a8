public import ISCSI
public import SCSI

/// An I_T nexus of a target node: an index of its nexus table, so that per-nexus state is an array.
@frozen
public struct NexusIndex: Hashable, Sendable {
    public var rawValue: Int
    @inlinable public init(rawValue: Int) { self.rawValue = rawValue }
}

/// A command as a logical unit gets it, all its data-out present.
public struct DeviceCommand {
    /// Given back with the result.
    public var token: UInt64
    public var nexus: NexusIndex
    /// The port group through which it came: an index of ``TargetNode/portGroups``.
    public var portGroup: Int
    public var attribute: TaskAttribute
    public let cdb: CommandDescriptorBlock
    /// What the CDB asks, or why no device server can do it.
    public let request: Result<SCSICommand, IllegalRequest>
    /// What the initiator sent. Stays until the command is finished or reported aborted.
    public var dataOut: UnsafeRawBufferPointer
    /// The allocation of data-in that the initiator's transport made, in bytes: never send more.
    public var expectedDataInByteCount: Int

    public init(
        token: UInt64, nexus: NexusIndex, portGroup: Int = 0, attribute: TaskAttribute = .simple,
        cdb: CommandDescriptorBlock, dataOut: UnsafeRawBufferPointer = .init(start: nil, count: 0),
        expectedDataInByteCount: Int = .max
    ) {
        self.token = token
        self.nexus = nexus
        self.portGroup = portGroup
        self.attribute = attribute
        self.cdb = cdb
        do { request = .success(try cdb.decode()) } catch { request = .failure(error) }
        self.dataOut = dataOut
        self.expectedDataInByteCount = expectedDataInByteCount
    }
}

/// How a command ended.
public struct DeviceResult {
    public var status: SCSIStatus
    /// With CHECK CONDITION.
    public var sense: SenseData?
    public var senseFormat = SenseFormat.fixed
    /// Data-in. Constant until `buffer` is given back to the pool; for ever where there is none.
    public var data: UnsafeRawBufferPointer
    public var buffer: TargetBuffer
    /// How many bytes of data-out the command used; what the initiator sent beyond it is residual.
    public var dataOutByteCount: Int

    static func status(_ status: SCSIStatus, dataOutByteCount: Int = 0) -> DeviceResult {
        DeviceResult(
            status: status, sense: nil, data: .init(start: nil, count: 0), buffer: .none,
            dataOutByteCount: dataOutByteCount)
    }

    static func check(_ refusal: IllegalRequest) -> DeviceResult { .check(refusal.sense) }

    static func check(_ sense: SenseData) -> DeviceResult {
        var result = DeviceResult.status(.checkCondition)
        result.sense = sense
        return result
    }
}

/// Who a logical unit answers. Called on the port's thread, for some commands from inside
/// ``LogicalUnit/execute(_:)``.
public protocol DeviceClient: AnyObject {
    func commandFinished(token: UInt64, result: DeviceResult)
    /// An aborted command no longer touches its buffers or the medium; nothing is to be sent for it.
    func commandAborted(token: UInt64)
    /// All that the task management function `token` had to wait for is over.
    func taskManagementFinished(token: UInt64)
    /// PREEMPT AND ABORT ends the commands of a nexus for `unit`: those that have not reached it yet, too.
    func nexusPreempted(_ nexus: NexusIndex, unit: LogicalUnit)
}

extension DeviceClient {
    public func nexusPreempted(_ nexus: NexusIndex, unit: LogicalUnit) {}
}

extension SenseData {
    static func illegalRequest(_ code: UInt8, _ qualifier: UInt8) -> SenseData {
        SenseData(key: .illegalRequest, additional: AdditionalSense(code, qualifier))
    }
    static var unsupportedOperationCode: SenseData { illegalRequest(0x20, 0x00) }
    static var blockOutOfRange: SenseData { illegalRequest(0x21, 0x00) }
    static var badCDBField: SenseData { illegalRequest(0x24, 0x00) }
    static var unsupportedLogicalUnit: SenseData { illegalRequest(0x25, 0x00) }
    static var badParameterField: SenseData { illegalRequest(0x26, 0x00) }
    static var parameterValueInvalid: SenseData { illegalRequest(0x26, 0x02) }
    static var invalidRelease: SenseData { illegalRequest(0x26, 0x04) }
    static var insufficientRegistrationResources: SenseData { illegalRequest(0x55, 0x04) }
    static var writeProtected: SenseData { SenseData(key: .dataProtect, additional: AdditionalSense(0x27, 0x00)) }
    static var softwareWriteProtected: SenseData { SenseData(key: .dataProtect, additional: AdditionalSense(0x27, 0x02)) }
    static var internalTargetFailure: SenseData { SenseData(key: .hardwareError, additional: AdditionalSense(0x44, 0x00)) }
    static func miscompare(at offset: Int) -> SenseData {
        SenseData(key: .miscompare, additional: AdditionalSense(0x1D, 0x00), information: UInt64(offset))
    }
}

extension [UInt8] {
    mutating func append16(_ value: Int) {
        append(UInt8(truncatingIfNeeded: value >> 8))
        append(UInt8(truncatingIfNeeded: value))
    }
    mutating func append32(_ value: UInt32) {
        for shift: UInt32 in [24, 16, 8, 0] { append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
    mutating func append64(_ value: UInt64) {
        append32(UInt32(truncatingIfNeeded: value >> 32))
        append32(UInt32(truncatingIfNeeded: value))
    }
    mutating func set16(at offset: Int, _ value: Int) {
        self[offset] = UInt8(truncatingIfNeeded: value >> 8)
        self[offset + 1] = UInt8(truncatingIfNeeded: value)
    }
    mutating func set32(at offset: Int, _ value: UInt32) {
        set16(at: offset, Int(value >> 16))
        set16(at: offset + 2, Int(value & 0xFFFF))
    }
    mutating func set64(at offset: Int, _ value: UInt64) {
        set32(at: offset, UInt32(truncatingIfNeeded: value >> 32))
        set32(at: offset + 4, UInt32(truncatingIfNeeded: value))
    }
    /// ASCII, left-aligned, filled with spaces to `width`.
    mutating func appendText(_ text: String, width: Int) {
        let bytes = text.utf8.prefix(width)
        append(contentsOf: bytes)
        append(contentsOf: repeatElement(0x20, count: width - bytes.count))
    }
}

extension UnsafeRawBufferPointer {
    /// A big-endian field; it must lie inside.
    func field(at offset: Int, width: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in offset..<offset + width { value = value << 8 | UInt64(self[index]) }
        return value
    }
}
