public import AsyncIO
import Glibc

/// The address of an iSCSI portal: an IP address and a TCP port. Names are not resolved: a path must keep its
/// meaning while the network is sick.
public struct PortalAddress: Hashable, Sendable, CustomStringConvertible {
    /// Always `.ipv4` or `.ipv6`; its port is never 0.
    public let socketAddress: SocketAddress

    /// iSCSI's registered port (RFC 7143 section 14).
    public static var defaultPort: UInt16 { 3260 }

    /// Reads `10.0.1.10`, `10.0.1.10:3260`, `fe80::1%eth0`, `[2001:db8::1]:3260`. Throws what is wrong.
    public init(parsing text: String) throws(AddressProblem) {
        let host: Substring
        let port: UInt16
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { throw .malformed }
            host = text[text.index(after: text.startIndex)..<end]
            guard host.contains(":") else { throw .malformed }
            port = try Self.parsePort(text[text.index(after: end)...])
        } else if text.filter({ $0 == ":" }).count > 1 {
            host = text[...]
            port = Self.defaultPort
        } else {
            let end = text.firstIndex(of: ":") ?? text.endIndex
            host = text[..<end]
            port = try Self.parsePort(text[end...])
        }
        let address = try parseHost(String(host), port: port)
        guard address.isUnicast else { throw .notUnicast }
        socketAddress = address
    }

    /// The text after the host: nothing, or a colon and a port.
    private static func parsePort(_ text: Substring) throws(AddressProblem) -> UInt16 {
        if text.isEmpty { return defaultPort }
        guard text.hasPrefix(":") else { throw .malformed }
        let digits = text.dropFirst()
        guard digits.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(digits), port > 0 else { throw .badPort }
        return port
    }

    /// `10.0.1.10:3260`, `[2001:db8::1]:3260`: the name of the portal's path.
    public var description: String {
        switch socketAddress {
        case .ipv4(_, let port): "\(hostText(of: socketAddress)):\(port)"
        case .ipv6(_, _, _, let port): "[\(hostText(of: socketAddress))]:\(port)"
        case .unix(let path): path
        }
    }
}

/// The address that a connection leaves from; the kernel picks its port.
public struct SourceAddress: Hashable, Sendable, CustomStringConvertible {
    /// Always `.ipv4` or `.ipv6`, with port 0.
    public let socketAddress: SocketAddress

    /// Reads `10.0.1.5`, `2001:db8::5`, `[2001:db8::5]`.
    public init(parsing text: String) throws(AddressProblem) {
        var host = text
        if host.hasPrefix("[") && host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        if host.filter({ $0 == ":" }).count == 1 { throw .portNotAllowed }
        let address = try parseHost(host, port: 0)
        guard address.isUnicast else { throw .notUnicast }
        socketAddress = address
    }

    public var description: String { hostText(of: socketAddress) }
}

/// Why a text is no address that can be used.
public enum AddressProblem: Error, Hashable, Sendable, CustomStringConvertible {
    /// It is no IP address (names are not resolved).
    case malformed
    /// What follows the address is no port from 1 to 65535.
    case badPort
    /// A port, where only an address may be.
    case portNotAllowed
    /// An unspecified, multicast or broadcast address.
    case notUnicast
    /// The interface of a link-local address (`%eth0`) does not exist.
    case noSuchInterface(String)

    public var description: String {
        switch self {
        case .malformed: "not an IP address (names are not resolved)"
        case .badPort: "a port is 1 to 65535"
        case .portNotAllowed: "a source address has no port"
        case .notUnicast: "an unspecified, multicast or broadcast address can't be used"
        case .noSuchInterface(let name): "no network interface '\(name)' for this scope"
        }
    }
}

extension SocketAddress {
    fileprivate var isUnicast: Bool {
        switch self {
        case .ipv4(let address, _): address != 0 && address >> 28 != 0xE && address != .max
        case .ipv6(let high, let low, _, _): (high != 0 || low != 0) && high >> 56 != 0xFF
        case .unix: false
        }
    }

    /// Whether both are IPv4 or both IPv6.
    func hasSameFamily(as other: SocketAddress) -> Bool {
        switch (self, other) {
        case (.ipv4, .ipv4), (.ipv6, .ipv6): true
        default: false
        }
    }
}

private func parseHost(_ text: String, port: UInt16) throws(AddressProblem) -> SocketAddress {
    // `inet_pton` stops at a NUL, which would hide what follows it.
    guard !text.utf8.contains(0) else { throw .malformed }
    var v4 = in_addr()
    if inet_pton(AF_INET, text, &v4) == 1 {
        return .ipv4(address: UInt32(bigEndian: v4.s_addr), port: port)
    }
    let parts = text.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
    guard let address = parts.first, !address.isEmpty else { throw .malformed }
    var v6 = in6_addr()
    guard inet_pton(AF_INET6, String(address), &v6) == 1 else { throw .malformed }
    let (high, low) = withUnsafeBytes(of: &v6) { bytes in
        (
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        )
    }
    // An IPv4-mapped address is that IPv4 address; written both ways it is still one portal.
    if high == 0, low >> 32 == 0xFFFF {
        return .ipv4(address: UInt32(truncatingIfNeeded: low), port: port)
    }
    var scope: UInt32 = 0
    if parts.count == 2 {
        let name = String(parts[1])
        if let number = UInt32(name), number > 0 {
            scope = number
        } else {
            scope = if_nametoindex(name)
            guard scope != 0 else { throw .noSuchInterface(name) }
        }
    }
    return .ipv6(high: high, low: low, scope: scope, port: port)
}

/// The address without its port, IPv6 in its canonical form (RFC 5952) with its scope.
func hostText(of address: SocketAddress) -> String {
    var buffer = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    switch address {
    case .ipv4(let number, _):
        var raw = in_addr(s_addr: number.bigEndian)
        inet_ntop(AF_INET, &raw, &buffer, socklen_t(buffer.count))
    case .ipv6(let high, let low, let scope, _):
        var raw = in6_addr()
        withUnsafeMutableBytes(of: &raw) { bytes in
            bytes.storeBytes(of: high.bigEndian, toByteOffset: 0, as: UInt64.self)
            bytes.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        inet_ntop(AF_INET6, &raw, &buffer, socklen_t(buffer.count))
        if scope != 0 { return text(of: buffer) + "%" + interfaceName(scope) }
    case .unix(let path):
        return path
    }
    return text(of: buffer)
}

private func interfaceName(_ index: UInt32) -> String {
    var buffer = [CChar](repeating: 0, count: Int(IF_NAMESIZE))
    return if_indextoname(index, &buffer) == nil ? String(index) : text(of: buffer)
}

private func text(of buffer: [CChar]) -> String {
    String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// What an `errno` value means, in the C library's words.
func errorText(_ code: Int32) -> String {
    guard let raw = strerror(code) else { return "error \(code)" }
    return String(cString: raw)
}
