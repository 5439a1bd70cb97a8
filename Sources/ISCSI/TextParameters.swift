/// One `key=value` of a text or login data segment.
public struct TextPair: Hashable, Sendable {
    public var key: String
    public var value: String

    public init(_ key: String, _ value: String) {
        self.key = key
        self.value = value
    }
}

/// Bounds on text from a peer, in bytes.
public enum TextLimits {
    /// RFC 7143 section 6.1, a key's name.
    public static let keyByteCount = 63
    /// All text of one negotiation step, over all its PDUs.
    public static let totalByteCount = 65_536
    /// Pairs in one negotiation step; RFC 7143 defines under 40.
    public static let pairCount = 256

    /// A simple value is at most 255 bytes (RFC 7143 section 6.1). Lists, and binary values of up to 1024
    /// bytes in their encoding, may be longer.
    static func valueByteCount(forKey key: String) -> Int {
        switch key {
        case "CHAP_C", "CHAP_R": 2 + 2 * 1024
        case "AuthMethod", "HeaderDigest", "DataDigest", "CHAP_A", "TaskReporting": 1024
        case "TargetAddress": 320
        default: key.utf8.starts(with: "X".utf8) ? 1024 : 255
        }
    }
}

/// Reads the pairs of a whole text (RFC 7143 section 6.1), in order, repeated keys included.
public struct TextReader: Sendable {
    private let bytes: [UInt8]
    private var position = 0

    public init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// The next pair, nil at the end. Empty pairs (NULs in a row, which some targets send) are skipped.
    public mutating func next() throws(TextError) -> TextPair? {
        while position < bytes.count {
            guard let end = bytes[position...].firstIndex(of: 0) else { throw .unterminated }
            let pair = bytes[position..<end]
            position = end + 1
            if !pair.isEmpty { return try TextReader.parse(pair) }
        }
        return nil
    }

    private static func parse(_ pair: ArraySlice<UInt8>) throws(TextError) -> TextPair {
        guard let equals = pair.firstIndex(of: UInt8(ascii: "=")) else {
            throw .missingEquals(printable(pair.prefix(TextLimits.keyByteCount)))
        }
        let keyBytes = pair[..<equals]
        guard !keyBytes.isEmpty else { throw .emptyKey }
        guard keyBytes.count <= TextLimits.keyByteCount else { throw .keyTooLong(byteCount: keyBytes.count) }
        guard keyBytes.allSatisfy(isKeyCharacter) else { throw .illegalKey(printable(keyBytes)) }
        let key = printable(keyBytes)
        let valueBytes = pair[(equals + 1)...]
        guard valueBytes.count <= TextLimits.valueByteCount(forKey: key) else {
            throw .valueTooLong(key: key, byteCount: valueBytes.count)
        }
        guard let value = String(validating: valueBytes, as: UTF8.self) else { throw .notUTF8(key: key) }
        return TextPair(key, value)
    }

    /// A standard-label, and `#` for the registered extensions (X#…).
    private static func isKeyCharacter(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        case UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "@"), UInt8(ascii: "_"), UInt8(ascii: "#"): true
        default: false
        }
    }

    /// Unreadable bytes replaced: this text may end up in a message.
    private static func printable(_ bytes: ArraySlice<UInt8>) -> String {
        String(decoding: bytes.map { (0x20...0x7E).contains($0) ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
    }
}

/// The keys and values of one step of a negotiation: in order, each key once.
public struct TextParameters: Hashable, Sendable {
    public private(set) var pairs: [TextPair] = []

    public init() {}

    /// All pairs of `bytes`, at most ``TextLimits/pairCount``. A key that comes twice is an error
    /// (RFC 7143 section 6.2): text where that is legal goes through ``TextReader``.
    public init(parsing bytes: [UInt8]) throws(TextError) {
        guard bytes.count <= TextLimits.totalByteCount else {
            throw .tooLong(byteCount: bytes.count, limit: TextLimits.totalByteCount)
        }
        var reader = TextReader(bytes)
        while let pair = try reader.next() {
            guard self[pair.key] == nil else { throw .duplicateKey(pair.key) }
            guard pairs.count < TextLimits.pairCount else { throw .tooManyKeys(limit: TextLimits.pairCount) }
            pairs.append(pair)
        }
    }

    public var isEmpty: Bool { pairs.isEmpty }

    public subscript(key: String) -> String? {
        pairs.first { $0.key == key }?.value
    }

    /// Adds a pair at the end; the key must not be there yet.
    public mutating func append(_ key: String, _ value: String) {
        precondition(self[key] == nil, "a key is sent once")
        pairs.append(TextPair(key, value))
    }

    /// The data segment: each pair and its NUL.
    public var encoded: [UInt8] { TextParameters.encode(pairs) }

    /// As `encoded`, for lists in which keys may repeat.
    public static func encode(_ pairs: [TextPair]) -> [UInt8] {
        var bytes: [UInt8] = []
        for pair in pairs {
            bytes += pair.key.utf8
            bytes.append(UInt8(ascii: "="))
            bytes += pair.value.utf8
            bytes.append(0)
        }
        return bytes
    }
}

/// Puts a text together that came in several PDUs (the C bit, RFC 7143 section 6.2).
public struct TextAssembler: Sendable {
    private let limit: Int
    public private(set) var bytes: [UInt8] = []

    /// `limit` in bytes.
    public init(limit: Int = TextLimits.totalByteCount) {
        self.limit = limit
    }

    /// Adds a PDU's data segment.
    public mutating func append(_ data: UnsafeRawBufferPointer) throws(TextError) {
        guard data.count <= limit - bytes.count else {
            throw .tooLong(byteCount: bytes.count + data.count, limit: limit)
        }
        bytes.append(contentsOf: data)
    }

    /// All that was added, and starts anew.
    public mutating func take() -> [UInt8] {
        defer { bytes = [] }
        return bytes
    }
}

/// A text on its way out, cut into data segments.
struct OutgoingText: Sendable {
    private var bytes: [UInt8]
    private var sent = 0

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    var isEmpty: Bool { sent == bytes.count }

    /// The next segment of at most `limit` bytes; afterwards `isEmpty` says whether C stays unset.
    mutating func next(limit: Int) -> [UInt8] {
        let end = min(sent + max(limit, 1), bytes.count)
        defer { sent = end }
        return sent == 0 && end == bytes.count ? bytes : Array(bytes[sent..<end])
    }
}
