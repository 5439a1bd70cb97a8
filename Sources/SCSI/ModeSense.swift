// MODE SENSE and MODE SELECT (SPC-4 clauses 6.11 to 6.14).

/// Which values of a mode page are asked for (PC, SPC-4 table 167).
public enum ModePageControl: UInt8, Hashable, Sendable {
    /// The values in force.
    case current = 0
    /// A mask: bits that MODE SELECT can change.
    case changeable = 1
    /// The values that the device was made with.
    case `default` = 2
    /// The values that a power loss leaves.
    case saved = 3
}

/// The two lengths that MODE SENSE, MODE SELECT and their headers come in.
public enum ModeHeaderFormat: Hashable, Sendable {
    /// The 6-byte commands, with a 4-byte header.
    case six
    /// The 10-byte commands, with an 8-byte header.
    case ten
}

/// What MODE SENSE asks.
public struct ModeSenseRequest: Hashable, Sendable {
    /// Which command.
    public var format: ModeHeaderFormat
    /// 0…62; 63 asks for all.
    public var page: UInt8
    /// 0 for a page without subpages; 255 asks for all.
    public var subpage: UInt8
    /// Which values.
    public var control: ModePageControl
    /// DBD: no block descriptor wanted.
    public var disableBlockDescriptors: Bool
    /// LLBAA: the block descriptor may be the long one; only with `.ten`.
    public var acceptsLongLBA: Bool
    /// At most 255 for `.six`.
    public var allocationByteCount: UInt16

    /// A question for one page, or for all.
    public init(
        format: ModeHeaderFormat, page: UInt8, subpage: UInt8 = 0, control: ModePageControl = .current,
        disableBlockDescriptors: Bool = false, acceptsLongLBA: Bool = false, allocationByteCount: UInt16
    ) {
        self.format = format
        self.page = page & 0x3F
        self.subpage = subpage
        self.control = control
        self.disableBlockDescriptors = disableBlockDescriptors
        self.acceptsLongLBA = format == .ten && acceptsLongLBA
        self.allocationByteCount = format == .six ? min(allocationByteCount, 255) : allocationByteCount
    }
}

/// What MODE SELECT announces.
public struct ModeSelectRequest: Hashable, Sendable {
    /// Which command.
    public var format: ModeHeaderFormat
    /// PF: the pages are as SPC has them.
    public var isPageFormat: Bool
    /// SP: the values shall outlive a power loss.
    public var savesPages: Bool
    /// At most 255 for `.six`.
    public var parameterByteCount: UInt16

    /// An announcement of a parameter list.
    public init(
        format: ModeHeaderFormat, isPageFormat: Bool = true, savesPages: Bool = false, parameterByteCount: UInt16
    ) {
        self.format = format
        self.isPageFormat = isPageFormat
        self.savesPages = savesPages
        self.parameterByteCount = format == .six ? min(parameterByteCount, 255) : parameterByteCount
    }
}

extension CommandDescriptorBlock {
    /// MODE SENSE (SPC-4 clauses 6.13 and 6.14).
    public static func modeSense(_ request: ModeSenseRequest) -> Self {
        let isSix = request.format == .six
        var block = Self(operationCode: isSix ? OperationCode.modeSense6 : OperationCode.modeSense10)
        block.bytes[1] = (request.acceptsLongLBA ? 0x10 : 0) | (request.disableBlockDescriptors ? 0x08 : 0)
        block.bytes[2] = request.control.rawValue << 6 | request.page & 0x3F
        block.bytes[3] = request.subpage
        block.setField(at: isSix ? 4 : 7, width: isSix ? 1 : 2, to: UInt64(request.allocationByteCount))
        return block
    }

    /// MODE SELECT (SPC-4 clauses 6.11 and 6.12).
    public static func modeSelect(_ request: ModeSelectRequest) -> Self {
        let isSix = request.format == .six
        var block = Self(operationCode: isSix ? OperationCode.modeSelect6 : OperationCode.modeSelect10)
        block.bytes[1] = (request.isPageFormat ? 0x10 : 0) | (request.savesPages ? 0x01 : 0)
        block.setField(at: isSix ? 4 : 7, width: isSix ? 1 : 2, to: UInt64(request.parameterByteCount))
        return block
    }
}

/// The mode parameter list: header, block descriptor and pages (SPC-4 clause 7.5).
public struct ModeParameters: Hashable, Sendable {
    /// A direct-access device's block descriptor (SBC-3 clause 6.4.2).
    public struct BlockDescriptor: Hashable, Sendable {
        /// The unit's blocks; 2^32 − 1 in the short form where there are more.
        public var blockCount: UInt64
        /// In bytes; 24 bits in the short form.
        public var blockSize: UInt32
        /// The 16-byte form (LONGLBA).
        public var isLong: Bool

        /// A descriptor.
        public init(blockCount: UInt64, blockSize: UInt32, isLong: Bool = false) {
            self.blockCount = blockCount
            self.blockSize = blockSize
            self.isLong = isLong
        }
    }

    /// MEDIUM TYPE; 0 for block devices.
    public var mediumType: UInt8
    /// WP.
    public var isWriteProtected: Bool
    /// DPOFUA: the device heeds DPO and FUA.
    public var supportsForceUnitAccess: Bool
    /// Nil where none was asked for or given.
    public var blockDescriptor: BlockDescriptor?
    /// The pages, in the device's order.
    public var pages: [ModePage]

    /// A list of pages and what goes before them.
    public init(
        mediumType: UInt8 = 0, isWriteProtected: Bool = false, supportsForceUnitAccess: Bool = false,
        blockDescriptor: BlockDescriptor? = nil, pages: [ModePage] = []
    ) {
        self.mediumType = mediumType
        self.isWriteProtected = isWriteProtected
        self.supportsForceUnitAccess = supportsForceUnitAccess
        self.blockDescriptor = blockDescriptor
        self.pages = pages
    }

    /// The answer to a MODE SENSE, cut at any byte: nil where the header was not received whole; a page
    /// that is cut ends the list.
    public init?(parsing received: [UInt8], format: ModeHeaderFormat) {
        guard let declared = Self.declaredByteCount(received, format: format) else { return nil }
        guard let header = Header(received, format: format) else { return nil }
        self.init(header)
        let bytes = received.clamped(0..<declared)
        if header.blockDescriptorByteCount > 0 {
            blockDescriptor = BlockDescriptor(bytes, at: header.byteCount, isLong: header.isLongLBA)
        }
        var offset = header.byteCount + header.blockDescriptorByteCount
        while let (page, next) = ModePage.parse(bytes, at: offset) {
            pages.append(page)
            offset = next
        }
    }

    /// The parameter list of a MODE SELECT, as a target received it: every byte must belong to something.
    public init(selecting bytes: [UInt8], format: ModeHeaderFormat) throws(IllegalRequest) {
        guard let header = Header(bytes, format: format) else { throw .parameterListLength }
        self.init(header)
        let lengthByte: UInt16 = format == .six ? 3 : 6
        var offset = header.byteCount
        if header.blockDescriptorByteCount > 0 {
            guard header.blockDescriptorByteCount == (header.isLongLBA ? 16 : 8) else {
                throw .fieldInParameterList(byte: lengthByte)
            }
            guard let descriptor = BlockDescriptor(bytes, at: offset, isLong: header.isLongLBA) else {
                throw .parameterListLength
            }
            blockDescriptor = descriptor
            offset += header.blockDescriptorByteCount
        }
        while offset < bytes.count {
            guard let (page, next) = ModePage.parse(bytes, at: offset) else { throw .parameterListLength }
            pages.append(page)
            offset = next
        }
    }

    private init(_ header: Header) {
        self.init(
            mediumType: header.mediumType, isWriteProtected: header.deviceSpecific & 0x80 != 0,
            supportsForceUnitAccess: header.deviceSpecific & 0x10 != 0)
    }

    /// How many bytes the device has for the answer that `bytes` begin; nil where that was not received.
    public static func declaredByteCount(_ bytes: [UInt8], format: ModeHeaderFormat) -> Int? {
        switch format {
        case .six: bytes.byte(at: 0).map { 1 + Int($0) }
        case .ten: bytes.uint16(at: 0).map { 2 + Int($0) }
        }
    }

    /// The answer to a MODE SENSE; MODE DATA LENGTH saturates. For a MODE SELECT the length is reserved, so
    /// the caller sends it with `zeroesLength`.
    public func encode(format: ModeHeaderFormat, zeroesLength: Bool = false) -> [UInt8] {
        // The six-byte header has no LONGLBA bit.
        let isLong = format == .ten && blockDescriptor?.isLong == true
        var body: [UInt8] = blockDescriptor?.encode(isLong: isLong) ?? []
        let descriptorCount = body.count
        for page in pages { body += page.encode() }
        let deviceSpecific: UInt8 = (isWriteProtected ? 0x80 : 0) | (supportsForceUnitAccess ? 0x10 : 0)
        switch format {
        case .six:
            let length = zeroesLength ? 0 : (body.count + 3).saturated(to: UInt8.self)
            return [length, mediumType, deviceSpecific, UInt8(descriptorCount)] + body
        case .ten:
            var bytes: [UInt8] = []
            bytes.append(bigEndian: zeroesLength ? 0 : (body.count + 6).saturated(to: UInt16.self))
            bytes += [mediumType, deviceSpecific, isLong ? 1 : 0, 0]
            bytes.append(bigEndian: UInt16(descriptorCount))
            return bytes + body
        }
    }

    private struct Header {
        var mediumType: UInt8
        var deviceSpecific: UInt8
        var isLongLBA: Bool
        var blockDescriptorByteCount: Int
        var byteCount: Int

        init?(_ bytes: [UInt8], format: ModeHeaderFormat) {
            switch format {
            case .six:
                guard bytes.count >= 4 else { return nil }
                (mediumType, deviceSpecific, isLongLBA) = (bytes[1], bytes[2], false)
                (blockDescriptorByteCount, byteCount) = (Int(bytes[3]), 4)
            case .ten:
                guard bytes.count >= 8, let count = bytes.uint16(at: 6) else { return nil }
                (mediumType, deviceSpecific, isLongLBA) = (bytes[2], bytes[3], bytes.bit(0, at: 4))
                (blockDescriptorByteCount, byteCount) = (Int(count), 8)
            }
        }
    }
}

extension ModeParameters.BlockDescriptor {
    fileprivate init?(_ bytes: [UInt8], at offset: Int, isLong: Bool) {
        if isLong {
            guard let count = bytes.uint64(at: offset), let size = bytes.uint32(at: offset + 12) else { return nil }
            self.init(blockCount: count, blockSize: size, isLong: true)
        } else {
            guard let count = bytes.uint32(at: offset), let size = bytes.uint32(at: offset + 4) else { return nil }
            self.init(blockCount: UInt64(count), blockSize: size & 0xFF_FFFF)
        }
    }

    /// Counts past 32 bits are written FFFFFFFFh in the short form.
    fileprivate func encode(isLong: Bool) -> [UInt8] {
        var bytes: [UInt8] = []
        if isLong {
            bytes.append(bigEndian: blockCount)
            bytes += [0, 0, 0, 0]
            bytes.append(bigEndian: blockSize)
        } else {
            bytes.append(bigEndian: blockCount.saturated(to: UInt32.self))
            bytes.append(bigEndian: blockSize & 0xFF_FFFF)
        }
        return bytes
    }
}
