/// One logical unit of an ``EmbeddedTarget``.
public struct LogicalUnitConfiguration: Hashable, Sendable {
    public enum Storage: Hashable, Sendable {
        /// Blocks in memory, allocated when first written.
        case memory
        /// A file or block device.
        case file(path: String)
        /// Reads zeroes, forgets writes.
        case null
        /// A disk of the caller's own, which gives the backend: see ``LogicalUnitBackend``, "A gateway".
        case disk(name: String)
    }

    /// 0…16,383.
    public var number: Int
    public var storage: Storage
    /// nil: as large as the file.
    public var byteCount: UInt64?
    /// 512 or 4096.
    public var blockSize = 512
    /// The unit serial number (VPD page 80h); derived from the target's name and the number where nil.
    public var serial: String?
    /// The 16 bytes of an NAA type 6 designator; derived from the serial number where nil.
    public var identity: [UInt8]?
    public var isReadOnly = false
    /// A file in which persistent reservations outlive the process (APTPL); nil: they do not.
    public var reservationFile: String?
    public var vendor = "MPIO"
    public var product = "EMBEDDED TARGET"
    public var revision = "0001"

    public init(number: Int, storage: Storage, byteCount: UInt64? = nil, blockSize: Int = 512) {
        self.number = number
        self.storage = storage
        self.byteCount = byteCount
        self.blockSize = blockSize
    }
}

/// What is wrong with a `N=KIND[:PATH][,option=value]…` description of a logical unit.
public enum LogicalUnitParseError: Error, Hashable, Sendable {
    case missingNumber(String)
    case badNumber(String)
    case unknownKind(String)
    case missingPath
    case missingDiskName
    case optionNotAllowed(String, kind: String)
    case pathNotAllowed(kind: String)
    case missingSize(kind: String)
    case badSize(option: String, value: String)
    case badBlockSize(String)
    case sizeNotWholeBlocks(byteCount: UInt64, blockSize: Int)
    case badIdentity(String)
    case badSerial(String)
    case textTooLong(option: String, maximum: Int)
    case unknownOption(String)
    case missingValue(option: String)
    case duplicateOption(String)
}

extension LogicalUnitParseError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .missingNumber(let text): "'\(text)': expected N=KIND, such as 0=memory,size=1G"
        case .badNumber(let text): "'\(text)' is not a logical unit number (0 to 16383)"
        case .unknownKind(let kind): "unknown kind '\(kind)': expected memory, file:PATH, mpio:NAME or null"
        case .missingPath: "file needs a path: file:PATH"
        case .missingDiskName: "mpio needs the name of a LUN of the policy file: mpio:NAME"
        case .optionNotAllowed(let option, let kind): "\(kind) takes no \(option): the disk says it"
        case .pathNotAllowed(let kind): "\(kind) takes no path"
        case .missingSize(let kind): "\(kind) needs a size, such as size=1G"
        case .badSize(let option, let value): "\(option)=\(value): expected a number of bytes, such as 4096, 64k, 512M, 1G or 2T"
        case .badBlockSize(let value): "block-size=\(value): expected 512 or 4096"
        case .sizeNotWholeBlocks(let byteCount, let blockSize):
            "a size of \(byteCount) bytes is not a whole number of \(blockSize)-byte blocks"
        case .badIdentity(let value): "identity=\(value): expected naa.6 and 31 more hexadecimal digits"
        case .badSerial(let value): "serial=\(value): expected 1 to 64 printable ASCII characters"
        case .textTooLong(let option, let maximum): "\(option): expected at most \(maximum) printable ASCII characters"
        case .unknownOption(let option):
            "unknown option '\(option)': expected size, block-size, serial, identity, reservations, read-only, vendor, product or revision"
        case .missingValue(let option): "\(option) needs a value: \(option)=VALUE"
        case .duplicateOption(let option): "\(option) is given twice"
        }
    }
}

extension LogicalUnitConfiguration {
    /// Parses `N=KIND[:PATH][,size=1G][,block-size=4096][,serial=…][,identity=naa.…][,reservations=FILE][,read-only][,vendor=…][,product=…][,revision=…]`,
    /// KIND being `memory`, `null`, `file` or `mpio`, whose path is a disk's name. A path cannot contain a comma.
    public init(parsing text: String) throws(LogicalUnitParseError) {
        guard let equals = text.firstIndex(of: "=") else { throw .missingNumber(text) }
        let numberText = String(text[..<equals])
        guard let number = Int(numberText), (0...16_383).contains(number), numberText.allSatisfy(\.isNumber) else {
            throw .badNumber(numberText)
        }
        let parts = text[text.index(after: equals)...].split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        self.init(number: number, storage: try Self.parseStorage(parts[0]))
        var seen: [String] = []
        for part in parts.dropFirst() {
            let separator = part.firstIndex(of: "=")
            let key = String(separator.map { part[..<$0] } ?? part[...])
            let value = separator.map { String(part[part.index(after: $0)...]) }
            if seen.contains(key) { throw .duplicateOption(key) }
            seen.append(key)
            try apply(key, value)
        }
        if case .disk = storage, let option = seen.first(where: { $0 == "size" || $0 == "block-size" }) {
            throw .optionNotAllowed(option, kind: "mpio")
        }
        if byteCount == nil {
            switch storage {
            case .memory: throw .missingSize(kind: "memory")
            case .null: throw .missingSize(kind: "null")
            case .file, .disk: break
            }
        }
        if let byteCount, byteCount % UInt64(blockSize) != 0 || byteCount == 0 {
            throw .sizeNotWholeBlocks(byteCount: byteCount, blockSize: blockSize)
        }
    }

    private static func parseStorage(_ text: String) throws(LogicalUnitParseError) -> Storage {
        let colon = text.firstIndex(of: ":")
        let kind = String(colon.map { text[..<$0] } ?? text[...])
        let path = colon.map { String(text[text.index(after: $0)...]) }
        switch kind {
        case "memory", "null":
            if path != nil { throw .pathNotAllowed(kind: kind) }
            return kind == "memory" ? .memory : .null
        case "file":
            guard let path, !path.isEmpty else { throw .missingPath }
            return .file(path: path)
        case "mpio":
            guard let path, !path.isEmpty else { throw .missingDiskName }
            return .disk(name: path)
        default: throw .unknownKind(kind)
        }
    }

    private mutating func apply(_ key: String, _ value: String?) throws(LogicalUnitParseError) {
        if key == "read-only" {
            if value != nil { throw .unknownOption("read-only=\(value!)") }
            isReadOnly = true
            return
        }
        guard ["size", "block-size", "serial", "identity", "reservations", "vendor", "product", "revision"].contains(key) else {
            throw .unknownOption(key)
        }
        guard let value, !value.isEmpty else { throw .missingValue(option: key) }
        switch key {
        case "size":
            guard let size = Self.parseByteCount(value) else { throw .badSize(option: key, value: value) }
            byteCount = size
        case "block-size":
            guard let size = Self.parseByteCount(value), size == 512 || size == 4096 else { throw .badBlockSize(value) }
            blockSize = Int(size)
        case "serial":
            guard value.utf8.count <= 64, Self.isPrintable(value) else { throw .badSerial(value) }
            serial = value
        case "identity":
            guard let bytes = Self.parseNAA6(value) else { throw .badIdentity(value) }
            identity = bytes
        case "reservations": reservationFile = value
        case "vendor": vendor = try Self.text(value, key, maximum: 8)
        case "product": product = try Self.text(value, key, maximum: 16)
        default: revision = try Self.text(value, key, maximum: 4)
        }
    }

    private static func text(_ value: String, _ option: String, maximum: Int) throws(LogicalUnitParseError) -> String {
        guard value.utf8.count <= maximum, isPrintable(value) else { throw .textTooLong(option: option, maximum: maximum) }
        return value
    }

    private static func isPrintable(_ text: String) -> Bool { text.utf8.allSatisfy { (0x20...0x7E).contains($0) } }

    /// A number of bytes with an optional binary suffix k, M, G or T in either case; nil where it is no such or over 2^63.
    static func parseByteCount(_ text: String) -> UInt64? {
        var digits = text[...]
        var shift: UInt64 = 0
        switch text.last {
        case "k", "K": shift = 10
        case "m", "M": shift = 20
        case "g", "G": shift = 30
        case "t", "T": shift = 40
        default: break
        }
        if shift > 0 { digits = digits.dropLast() }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = UInt64(digits),
            number <= UInt64(Int64.max) >> shift
        else { return nil }
        return number << shift
    }

    static func parseNAA6(_ text: String) -> [UInt8]? {
        guard text.hasPrefix("naa.6"), text.utf8.count == 36 else { return nil }
        var bytes: [UInt8] = []
        var high: UInt8?
        for character in text.dropFirst(4) {
            guard character.isASCII, let digit = character.hexDigitValue else { return nil }
            if let first = high {
                bytes.append(first << 4 | UInt8(digit))
                high = nil
            } else {
                high = UInt8(digit)
            }
        }
        return bytes
    }
}
