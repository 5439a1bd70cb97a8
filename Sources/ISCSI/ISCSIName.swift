/// An iSCSI name (RFC 7143 section 4.2.7): `iqn.`, `eui.` or `naa.`, at most 223 bytes.
public struct ISCSIName: Hashable, Sendable {
    public let text: String

    /// Why a text is not an iSCSI name.
    public enum Fault: Error, Hashable, Sendable {
        case empty
        case tooLong(byteCount: Int)
        /// Neither iqn., eui. nor naa.
        case unknownFormat
        /// Position in bytes. Upper-case letters are not allowed in iqn names: they are to be folded before.
        case illegalCharacter(at: Int)
        /// iqn. is followed by the year and month in which the authority owned its domain: yyyy-mm.
        case malformedDate
        /// The reversed domain of the naming authority is missing.
        case missingAuthority
        /// eui. takes 16 hexadecimal digits, naa. 16 or 32.
        case wrongDigitCount(Int)
    }

    public static let maxByteCount = 223

    public init(_ text: String) throws(Fault) {
        let bytes = Array(text.utf8)
        guard !bytes.isEmpty else { throw .empty }
        guard bytes.count <= ISCSIName.maxByteCount else { throw .tooLong(byteCount: bytes.count) }
        if bytes.starts(with: "iqn.".utf8) {
            try ISCSIName.checkQualified(text, bytes)
        } else if bytes.starts(with: "eui.".utf8) {
            try ISCSIName.checkDigits(bytes, counts: [16])
        } else if bytes.starts(with: "naa.".utf8) {
            try ISCSIName.checkDigits(bytes, counts: [16, 32])
        } else {
            throw .unknownFormat
        }
        self.text = text
    }

    /// iqn.yyyy-mm.reversed.domain[:anything]
    private static func checkQualified(_ text: String, _ bytes: [UInt8]) throws(Fault) {
        for (index, byte) in bytes.enumerated() where byte < 0x80 {
            switch byte {
            case 0x30...0x39, 0x61...0x7A, UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: ":"): continue
            default: throw .illegalCharacter(at: index)
            }
        }
        guard bytes.count >= 12 else { throw .malformedDate }
        func isDigit(_ index: Int) -> Bool { (0x30...0x39).contains(bytes[index]) }
        guard (4..<8).allSatisfy(isDigit), bytes[8] == UInt8(ascii: "-"), isDigit(9), isDigit(10) else { throw .malformedDate }
        let month = (bytes[9] - 0x30) * 10 + bytes[10] - 0x30
        guard (1...12).contains(month), bytes[11] == UInt8(ascii: ".") else { throw .malformedDate }
        let authority = bytes[12...].prefix { $0 != UInt8(ascii: ":") }
        guard let first = authority.first, first != UInt8(ascii: "."), first != UInt8(ascii: "-") else { throw .missingAuthority }
    }

    private static func checkDigits(_ bytes: [UInt8], counts: [Int]) throws(Fault) {
        for (index, byte) in bytes.enumerated().dropFirst(4) {
            switch byte {
            case 0x30...0x39, 0x41...0x46, 0x61...0x66: continue
            default: throw .illegalCharacter(at: index)
            }
        }
        guard counts.contains(bytes.count - 4) else { throw .wrongDigitCount(bytes.count - 4) }
    }
}

extension ISCSIName: CustomStringConvertible {
    public var description: String { text }
}

extension ISCSIName.Fault: CustomStringConvertible {
    public var description: String {
        switch self {
        case .empty: "an iSCSI name is not empty"
        case .tooLong(let byteCount): "an iSCSI name has at most \(ISCSIName.maxByteCount) bytes, not \(byteCount)"
        case .unknownFormat: "an iSCSI name begins with iqn., eui. or naa."
        case .illegalCharacter(let index): "character \(index + 1) is not allowed in an iSCSI name"
        case .malformedDate: "iqn. is followed by yyyy-mm and a dot"
        case .missingAuthority: "the date of an iqn name is followed by a reversed domain name"
        case .wrongDigitCount(let count): "eui. takes 16 hexadecimal digits and naa. 16 or 32, not \(count)"
        }
    }
}
