import Glibc

/// An address of a stream socket. IPv6 scope identifiers are kept; names are not resolved here.
public enum SocketAddress: Hashable, Sendable {
    /// Four bytes in network order as a big-endian number: 127.0.0.1 is 0x7F000001.
    case ipv4(address: UInt32, port: UInt16)
    case ipv6(high: UInt64, low: UInt64, scope: UInt32, port: UInt16)
    /// A path in the file system, at most 107 bytes.
    case unix(path: String)
}

extension SocketAddress {
    /// The longest path that `sockaddr_un` holds, in bytes, its closing zero left out.
    public static let maximumPathByteCount = 107

    /// Parses `10.0.1.10:3260`, `[fe80::1%eth0]:3260` or `unix:/path`. Where the port is left out (and then
    /// the brackets may be as well), `defaultPort` stands in; without one the text is refused.
    /// An interface after `%` is a name or a number.
    public init?(_ text: String, defaultPort: UInt16? = nil) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            guard !path.isEmpty, path.utf8.count <= Self.maximumPathByteCount, !path.utf8.contains(0) else {
                return nil
            }
            self = .unix(path: path)
            return
        }
        guard let (host, port) = Self.splitHostAndPort(text, defaultPort: defaultPort),
            let address = Self.parseNumeric(host: host, port: port)
        else { return nil }
        self = address
    }

    /// An address from a numeric host without brackets ("10.0.1.10", "fe80::1%eth0") and a port.
    public init?(numericHost host: String, port: UInt16) {
        guard let address = Self.parseNumeric(host: Substring(host), port: port) else { return nil }
        self = address
    }

    /// The TCP port; nil for a Unix socket.
    public var port: UInt16? {
        switch self {
        case .ipv4(_, let port), .ipv6(_, _, _, let port): port
        case .unix: nil
        }
    }

    /// The same address with another port; a Unix address is returned unchanged.
    public func withPort(_ port: UInt16) -> SocketAddress {
        switch self {
        case .ipv4(let address, _): .ipv4(address: address, port: port)
        case .ipv6(let high, let low, let scope, _): .ipv6(high: high, low: low, scope: scope, port: port)
        case .unix: self
        }
    }

    /// The address without port and brackets ("10.0.1.10", "fe80::1%eth0"), or the path.
    public var host: String {
        switch self {
        case .ipv4(let address, _):
            return "\(address >> 24).\(address >> 16 & 0xFF).\(address >> 8 & 0xFF).\(address & 0xFF)"
        case .ipv6(let high, let low, let scope, _):
            let text = Self.ipv6Text(high: high, low: low)
            return scope == 0 ? text : text + "%" + Self.interfaceText(scope)
        case .unix(let path):
            return path
        }
    }

    private static func splitHostAndPort(
        _ text: String, defaultPort: UInt16?
    ) -> (host: Substring, port: UInt16)? {
        if text.hasPrefix("[") {
            guard let close = text.firstIndex(of: "]") else { return nil }
            let host = text[text.index(after: text.startIndex)..<close]
            guard host.contains(":") else { return nil }
            let rest = text[text.index(after: close)...]
            if rest.isEmpty { return defaultPort.map { (host, $0) } }
            guard rest.hasPrefix(":"), let port = parsePort(rest.dropFirst()) else { return nil }
            return (host, port)
        }
        guard let first = text.firstIndex(of: ":") else { return defaultPort.map { (text[...], $0) } }
        if text.lastIndex(of: ":") != first {
            // An IPv6 address without brackets: all of it is the host.
            return defaultPort.map { (text[...], $0) }
        }
        guard let port = parsePort(text[text.index(after: first)...]) else { return nil }
        return (text[..<first], port)
    }

    /// Digits only: `UInt16("+1")` would pass.
    private static func parsePort(_ text: Substring) -> UInt16? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return UInt16(text)
    }

    private static func parseNumeric(host: Substring, port: UInt16) -> SocketAddress? {
        guard !host.utf8.contains(0) else { return nil }
        guard host.contains(":") else {
            var bytes = in_addr()
            guard inet_pton(AF_INET, String(host), &bytes) == 1 else { return nil }
            return .ipv4(address: UInt32(bigEndian: bytes.s_addr), port: port)
        }
        var scope: UInt32 = 0
        var literal = host
        if let percent = host.firstIndex(of: "%") {
            guard let parsed = parseScope(host[host.index(after: percent)...]) else { return nil }
            scope = parsed
            literal = host[..<percent]
        }
        var bytes = in6_addr()
        guard inet_pton(AF_INET6, String(literal), &bytes) == 1 else { return nil }
        let (high, low) = withUnsafeBytes(of: &bytes) {
            (UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
        return .ipv6(high: high, low: low, scope: scope, port: port)
    }

    private static func parseScope(_ text: Substring) -> UInt32? {
        guard !text.isEmpty else { return nil }
        if text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) { return UInt32(text) }
        let index = if_nametoindex(String(text))
        return index == 0 ? nil : index
    }

    private static func interfaceText(_ scope: UInt32) -> String {
        var name = [CChar](repeating: 0, count: Int(IF_NAMESIZE) + 1)
        guard if_indextoname(scope, &name) != nil else { return String(scope) }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static func ipv6Text(high: UInt64, low: UInt64) -> String {
        var bytes = (high.bigEndian, low.bigEndian)
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN) + 1)
        guard inet_ntop(AF_INET6, &bytes, &text, socklen_t(text.count)) != nil else { return "::" }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

extension SocketAddress: CustomStringConvertible {
    /// What ``init(_:defaultPort:)`` reads: `10.0.1.10:3260`, `[fe80::1%eth0]:3260`, `unix:/path`.
    public var description: String {
        switch self {
        case .ipv4(_, let port): "\(host):\(port)"
        case .ipv6(_, _, _, let port): "[\(host)]:\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }
}
