/// What went wrong, in the target's words (SPC-4 clause 4.5), from fixed or descriptor format.
@frozen
public struct SenseData: Hashable, Sendable {
    public var key: SenseKey
    public var additional: AdditionalSense
    /// The INFORMATION field, where VALID was set: for most errors the first failing block.
    public var information: UInt64?
    /// Response codes 71h and 73h: the error belongs to an earlier command.
    public var isDeferred: Bool

    @inlinable
    public init(
        key: SenseKey, additional: AdditionalSense, information: UInt64? = nil, isDeferred: Bool = false
    ) {
        self.key = key
        self.additional = additional
        self.information = information
        self.isDeferred = isDeferred
    }
}

/// The sense key (SPC-4 table 48): four bits, every value named.
@frozen
public enum SenseKey: UInt8, Hashable, Sendable, CaseIterable {
    case noSense = 0x0
    case recoveredError = 0x1
    case notReady = 0x2
    case mediumError = 0x3
    case hardwareError = 0x4
    case illegalRequest = 0x5
    case unitAttention = 0x6
    case dataProtect = 0x7
    case blankCheck = 0x8
    case vendorSpecific = 0x9
    case copyAborted = 0xA
    case abortedCommand = 0xB
    case reserved = 0xC
    case volumeOverflow = 0xD
    case miscompare = 0xE
    case completed = 0xF
}

/// An additional sense code and its qualifier (SPC-4 annex F), an open set.
@frozen
public struct AdditionalSense: Hashable, Sendable {
    public var code: UInt8
    public var qualifier: UInt8
    @inlinable
    public init(_ code: UInt8, _ qualifier: UInt8) {
        self.code = code
        self.qualifier = qualifier
    }
}
