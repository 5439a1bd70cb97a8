/// The initiator's part of a session identifier (RFC 7143 section 11.12.5): six bytes that, together with the
/// initiator's name and the target portal group, name a session. A login with the ISID of a live session
/// reinstates it.
@frozen
public struct ISID: Hashable, Sendable {
    /// The six bytes as a big-endian number of 48 bits; the top two bits are the type.
    public let rawValue: UInt64

    /// Bits above the lower 48 are dropped.
    @inlinable
    public init(rawValue: UInt64) {
        self.rawValue = rawValue & 0xFFFF_FFFF_FFFF
    }

    /// T = 00b: `oui` is a 24-bit IEEE company identifier, of which 22 bits fit (the two that Ethernet uses
    /// for group and local addresses are dropped with the type), `qualifier` 24 bits.
    public static func oui(_ oui: UInt32, qualifier: UInt32) -> ISID {
        ISID(rawValue: UInt64(oui & 0x3F_FFFF) << 24 | UInt64(qualifier & 0xFF_FFFF))
    }

    /// T = 01b: `number` is an IANA enterprise number of 24 bits, `qualifier` 16 bits.
    public static func enterprise(_ number: UInt32, qualifier: UInt32) -> ISID {
        ISID(rawValue: 1 << 46 | UInt64(number & 0xFF_FFFF) << 16 | UInt64(qualifier & 0xFFFF))
    }

    /// T = 10b: 24 random bits that name the initiator's instance, here a leased slot, and a
    /// qualifier of 16 bits that tells that instance's sessions apart.
    public static func random(_ random: UInt32, qualifier: UInt16) -> ISID {
        ISID(rawValue: 2 << 46 | UInt64(random & 0xFF_FFFF) << 16 | UInt64(qualifier))
    }

    /// The type of naming authority, from the top two bits.
    public enum Format: UInt8, Hashable, Sendable {
        case oui = 0
        case enterpriseNumber = 1
        case random = 2
        case reserved = 3
    }

    public var format: Format { Format(rawValue: UInt8(rawValue >> 46))! }

    /// 16 bits, or 24 where the format is `.oui`.
    public var qualifier: UInt32 {
        UInt32(rawValue & (format == .oui ? 0xFF_FFFF : 0xFFFF))
    }
}

extension ISID: CustomStringConvertible {
    /// Twelve hexadecimal digits.
    public var description: String {
        let digits = String(rawValue, radix: 16)
        return String(repeating: "0", count: 12 - digits.count) + digits
    }
}
