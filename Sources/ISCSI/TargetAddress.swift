/// TargetAddress (RFC 7143 section 13.8): `host[:port][,portal-group-tag]`. The host is a dotted IPv4
/// address, a bracketed IPv6 one or a DNS name; the port is 3260 where none is given.
public struct TargetAddress: Hashable, Sendable {
    /// Without brackets; not resolved.
    public var host: String
    public var port: UInt16
    public var portalGroupTag: UInt16?

    public static let defaultPort: UInt16 = 3260

    public init(host: String, port: UInt16 = TargetAddress.defaultPort, portalGroupTag: UInt16? = nil) {
        self.host = host
        self.port = port
        self.portalGroupTag = portalGroupTag
    }

    /// nil where the text is not an address.
    public init?(parsing text: some StringProtocol) {
        guard let slice = TargetAddress.split(text.utf8.map { $0 }) else { return nil }
        self = slice
    }

    private static func split(_ bytes: [UInt8]) -> TargetAddress? {
        guard bytes.count <= 320 else { return nil }
        var rest = bytes[...]
        var tag: UInt16?
        if let comma = rest.lastIndex(of: UInt8(ascii: ",")) {
            guard let number = decimal(rest[(comma + 1)...]) else { return nil }
            tag = number
            rest = rest[..<comma]
        }
        let host: ArraySlice<UInt8>
        if rest.first == UInt8(ascii: "[") {
            guard let end = rest.firstIndex(of: UInt8(ascii: "]")) else { return nil }
            host = rest[(rest.startIndex + 1)..<end]
            rest = rest[(end + 1)...]
            guard host.contains(UInt8(ascii: ":")), host.allSatisfy(isIPv6Character) else { return nil }
        } else {
            let end = rest.firstIndex(of: UInt8(ascii: ":")) ?? rest.endIndex
            host = rest[..<end]
            rest = rest[end...]
            guard !host.isEmpty, host.allSatisfy(isHostCharacter) else { return nil }
        }
        var port = defaultPort
        if let colon = rest.first {
            guard colon == UInt8(ascii: ":"), let number = decimal(rest.dropFirst()), number > 0 else { return nil }
            port = number
        }
        return TargetAddress(host: String(decoding: host, as: UTF8.self), port: port, portalGroupTag: tag)
    }

    private static func decimal(_ digits: ArraySlice<UInt8>) -> UInt16? {
        guard !digits.isEmpty, digits.count <= 5 else { return nil }
        var value = 0
        for digit in digits {
            guard (0x30...0x39).contains(digit) else { return nil }
            value = value * 10 + Int(digit - 0x30)
        }
        return UInt16(exactly: value)
    }

    private static func isHostCharacter(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"): true
        default: false
        }
    }

    /// A zone (`%eth0`) may follow a link-local address.
    private static func isIPv6Character(_ byte: UInt8) -> Bool {
        isHostCharacter(byte) || byte == UInt8(ascii: ":") || byte == UInt8(ascii: "%")
    }
}

extension TargetAddress: CustomStringConvertible {
    /// As the key's value spells it, always with a port.
    public var description: String {
        let name = host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]" : host
        let tag = portalGroupTag.map { ",\($0)" } ?? ""
        return "\(name):\(port)\(tag)"
    }
}

/// A target that SendTargets named.
public struct DiscoveredTarget: Hashable, Sendable {
    public var name: String
    /// In the target's order. Empty: the target is reached where it was asked (RFC 7143 appendix C).
    public var addresses: [TargetAddress]

    public init(name: String, addresses: [TargetAddress] = []) {
        self.name = name
        self.addresses = addresses
    }
}
