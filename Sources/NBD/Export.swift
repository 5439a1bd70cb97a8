/// A disk as clients see it. Plain data: whoever serves it keeps it true.
public struct Export: Hashable, Sendable {
    public struct Features: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        public static let readOnly = Features(rawValue: 1)
        /// TRIM does something.
        public static let trim = Features(rawValue: 2)
        /// WRITE_ZEROES may be asked to be fast or to fail.
        public static let fastZero = Features(rawValue: 4)
    }

    /// What clients name it by; at most 4096 bytes of UTF-8, not empty.
    public var name: String
    /// For people; at most 4096 bytes.
    public var description: String
    /// A multiple of ``minimumBlockByteCount``.
    public var byteCount: UInt64
    /// What offsets and lengths must be multiples of: a power of two, 65,536 at most.
    public var minimumBlockByteCount: UInt32
    /// A power of two, at least 512 and the minimum.
    public var preferredBlockByteCount: UInt32
    /// The most that one READ or WRITE carries; at least the preferred block.
    public var maximumPayloadByteCount: UInt32
    public var features: Features

    /// What a client may send that was told no limit: so much has to be taken (the specification, "Size constraints").
    public static let defaultMaximumPayloadByteCount: UInt32 = 32 << 20

    public init(
        name: String, description: String = "", byteCount: UInt64, minimumBlockByteCount: UInt32 = 512,
        preferredBlockByteCount: UInt32 = 4096,
        maximumPayloadByteCount: UInt32 = Self.defaultMaximumPayloadByteCount, features: Features = []
    ) {
        precondition(
            minimumBlockByteCount.nonzeroBitCount == 1 && minimumBlockByteCount <= 65_536
                && preferredBlockByteCount.nonzeroBitCount == 1
                && preferredBlockByteCount >= max(512, minimumBlockByteCount)
                && maximumPayloadByteCount >= preferredBlockByteCount, "block sizes that the protocol does not allow")
        self.name = name
        self.description = description
        self.byteCount = byteCount
        self.minimumBlockByteCount = minimumBlockByteCount
        self.preferredBlockByteCount = preferredBlockByteCount
        self.maximumPayloadByteCount = maximumPayloadByteCount
        self.features = features
    }

    var shape: ExportShape {
        ExportShape(
            byteCount: byteCount, blockMask: UInt64(minimumBlockByteCount) - 1, maximumPayloadByteCount: Int(maximumPayloadByteCount),
            largestCacheByteCount: Int(maximumPayloadByteCount / minimumBlockByteCount * minimumBlockByteCount), features: features)
    }

    /// A flush on one connection covers what was answered on every other: nothing is cached between the
    /// connections and the disk, and the disk's own cache is one for all.
    public func transmissionFlags(structuredReplies: Bool) -> TransmissionFlags {
        var flags: TransmissionFlags = [.hasFlags, .sendFlush, .sendFUA, .canMultiConn, .sendCache]
        if structuredReplies { flags.insert(.sendDF) }
        guard !features.contains(.readOnly) else { return flags.union(.readOnly) }
        flags.insert(.sendWriteZeroes)
        if features.contains(.trim) { flags.insert(.sendTrim) }
        if features.contains(.fastZero) { flags.insert(.sendFastZero) }
        return flags
    }
}

/// What requests are checked against: an ``Export`` without its names, which would be counted references.
struct ExportShape {
    var byteCount: UInt64 = 0
    var blockMask: UInt64 = 0
    var maximumPayloadByteCount = 0
    /// The same in whole blocks: a maximum that is no multiple of the block would make a request that no disk takes.
    var largestCacheByteCount = 0
    var features: Export.Features = []
}
