/// A mode page, by its code and the bytes after its header (SPC-4 clause 7.5.7).
public struct ModePage: Hashable, Sendable {
    /// 0…62.
    public var code: UInt8
    /// 0 for a page in the short format.
    public var subpage: UInt8
    /// PS: the page can be saved.
    public var isSavable: Bool
    /// What follows the header; at most 255 bytes without a subpage, 65,535 with one.
    public var content: [UInt8]

    /// A page of these bytes.
    public init(code: UInt8, subpage: UInt8 = 0, isSavable: Bool = false, content: [UInt8]) {
        self.code = code & 0x3F
        self.subpage = subpage
        self.isSavable = isSavable
        self.content = content
    }

    /// The page at `offset` and where the next begins; nil where it is cut. Page 0, the vendor's, need have no
    /// header and then be last (SPC-4 table 451); but tgt sends it first and with one, so it is read as any.
    static func parse(_ bytes: [UInt8], at offset: Int) -> (page: ModePage, next: Int)? {
        guard let first = bytes.byte(at: offset), let second = bytes.byte(at: offset + 1) else { return nil }
        var start = offset + 2
        var count = Int(second)
        var subpage: UInt8 = 0
        if first & 0x40 != 0 {
            guard let long = bytes.uint16(at: offset + 2) else { return nil }
            (start, count, subpage) = (offset + 4, Int(long), second)
        }
        guard bytes.count - start >= count else { return nil }
        let page = ModePage(
            code: first, subpage: subpage, isSavable: first & 0x80 != 0, content: Array(bytes[start..<(start + count)]))
        return (page, start + count)
    }

    func encode() -> [UInt8] {
        let first = (isSavable ? 0x80 : 0) | code & 0x3F
        guard subpage != 0 else {
            let content = content.prefix(255)
            return [first, UInt8(content.count)] + content
        }
        let content = content.prefix(Int(UInt16.max))
        return [first | 0x40, subpage, UInt8(content.count >> 8), UInt8(content.count & 0xFF)] + content
    }
}

/// Codes of the pages that a block device has.
public enum ModePageCode {
    /// Read-write error recovery.
    public static let readWriteErrorRecovery: UInt8 = 0x01
    /// Disconnect-reconnect.
    public static let disconnectReconnect: UInt8 = 0x02
    /// Rigid disk geometry, of SCSI-2.
    public static let rigidDiskGeometry: UInt8 = 0x04
    /// Caching (SBC-3 clause 6.4.5).
    public static let caching: UInt8 = 0x08
    /// Control (SPC-4 clause 7.5.8).
    public static let control: UInt8 = 0x0A
    /// Power condition.
    public static let powerCondition: UInt8 = 0x1A
    /// Informational exceptions control.
    public static let informationalExceptions: UInt8 = 0x1C
    /// In a request: every page.
    public static let all: UInt8 = 0x3F
}

/// The caching page (SBC-3 clause 6.4.5).
public struct CachingModePage: Hashable, Sendable {
    /// WCE: a write may end before it is on the medium.
    public var isWriteCacheEnabled: Bool
    /// RCD: reads come from the medium.
    public var isReadCacheDisabled: Bool
    /// DRA: nothing is read ahead.
    public var isReadAheadDisabled: Bool

    /// A page; caches are on where nothing else is said.
    public init(isWriteCacheEnabled: Bool, isReadCacheDisabled: Bool = false, isReadAheadDisabled: Bool = false) {
        self.isWriteCacheEnabled = isWriteCacheEnabled
        self.isReadCacheDisabled = isReadCacheDisabled
        self.isReadAheadDisabled = isReadAheadDisabled
    }

    /// Nil where this is another page or has not even its first byte.
    public init?(_ page: ModePage) {
        guard page.code == ModePageCode.caching, page.subpage == 0, let flags = page.content.first else { return nil }
        self.init(
            isWriteCacheEnabled: flags & 0x04 != 0, isReadCacheDisabled: flags & 0x01 != 0,
            isReadAheadDisabled: page.content.bit(5, at: 10))
    }

    /// The page as a device sends it.
    public var page: ModePage {
        var content = [UInt8](repeating: 0, count: 18)
        content[0] = (isWriteCacheEnabled ? 0x04 : 0) | (isReadCacheDisabled ? 0x01 : 0)
        content[10] = isReadAheadDisabled ? 0x20 : 0
        return ModePage(code: ModePageCode.caching, content: content)
    }
}

/// The control page (SPC-4 clause 7.5.8).
public struct ControlModePage: Hashable, Sendable {
    /// TST, 0…7: 0 is one task set for all I_T nexuses, 1 one for each.
    public var taskSetType: UInt8 = 0
    /// D_SENSE: sense data come in descriptor format.
    public var usesDescriptorSense = false
    /// GLTSD.
    public var disablesGlobalLogSave = false
    /// QUEUE ALGORITHM MODIFIER, 0…15: 1 allows reordering of simple tasks.
    public var queueAlgorithmModifier: UInt8 = 0
    /// TAS: commands that another nexus aborts end with TASK ABORTED.
    public var reportsTaskAborted = false
    /// SWP: the medium is write-protected by software.
    public var isSoftwareWriteProtected = false
    /// UA_INTLCK_CTRL, 0…3.
    public var unitAttentionInterlock: UInt8 = 0
    /// In 100 ms; FFFFh means no limit.
    public var busyTimeoutPeriod: UInt16 = 0

    /// A device of the plainest kind.
    public init() {}

    /// Nil where this is another page or shorter than ten bytes.
    public init?(_ page: ModePage) {
        guard page.code == ModePageCode.control, page.subpage == 0, page.content.count >= 10 else { return nil }
        let content = page.content
        taskSetType = content[0] >> 5
        usesDescriptorSense = content.bit(2, at: 0)
        disablesGlobalLogSave = content.bit(1, at: 0)
        queueAlgorithmModifier = content[1] >> 4
        unitAttentionInterlock = (content[2] >> 4) & 0x03
        isSoftwareWriteProtected = content.bit(3, at: 2)
        reportsTaskAborted = content.bit(6, at: 3)
        busyTimeoutPeriod = content.uint16(at: 6) ?? 0
    }

    /// The page as a device sends it.
    public var page: ModePage {
        var content = [UInt8](repeating: 0, count: 10)
        content[0] = (taskSetType & 7) << 5 | (usesDescriptorSense ? 0x04 : 0) | (disablesGlobalLogSave ? 0x02 : 0)
        content[1] = (queueAlgorithmModifier & 0x0F) << 4
        content[2] = (unitAttentionInterlock & 3) << 4 | (isSoftwareWriteProtected ? 0x08 : 0)
        content[3] = reportsTaskAborted ? 0x40 : 0
        content.store(bigEndian: busyTimeoutPeriod, at: 6)
        return ModePage(code: ModePageCode.control, content: content)
    }
}

/// The rigid disk geometry page of SCSI-2 (clause 9.3.3.8), which old initiators still read.
public struct RigidDiskGeometryModePage: Hashable, Sendable {
    /// 24 bits.
    public var cylinderCount: UInt32
    /// Heads of a cylinder.
    public var headCount: UInt8
    /// Turns per minute.
    public var rotationRate: UInt16

    /// A geometry; numbers that fit the capacity are the caller's business.
    public init(cylinderCount: UInt32, headCount: UInt8, rotationRate: UInt16) {
        self.cylinderCount = cylinderCount & 0xFF_FFFF
        self.headCount = headCount
        self.rotationRate = rotationRate
    }

    /// Nil where this is another page, or one that is cut.
    public init?(_ page: ModePage) {
        guard page.code == ModePageCode.rigidDiskGeometry, page.subpage == 0,
            let cylinders = page.content.bigEndian(at: 0, width: 3), let heads = page.content.byte(at: 3)
        else { return nil }
        self.init(
            cylinderCount: UInt32(cylinders), headCount: heads, rotationRate: page.content.uint16(at: 18) ?? 0)
    }

    /// The page as a device sends it.
    public var page: ModePage {
        var content = [UInt8](repeating: 0, count: 22)
        content[0] = UInt8(truncatingIfNeeded: cylinderCount >> 16)
        content[1] = UInt8(truncatingIfNeeded: cylinderCount >> 8)
        content[2] = UInt8(truncatingIfNeeded: cylinderCount)
        content[3] = headCount
        content.store(bigEndian: rotationRate, at: 18)
        return ModePage(code: ModePageCode.rigidDiskGeometry, content: content)
    }
}
