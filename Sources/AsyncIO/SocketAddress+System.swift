import CAio
import Glibc

extension SocketAddress {
    /// Calls `body` with the address in the system's form; nil where a path is too long for it.
    func withSystemAddress<Value>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Value
    ) -> Value? {
        switch self {
        case .ipv4(let address, let port):
            var system = sockaddr_in()
            system.sin_family = sa_family_t(AF_INET)
            system.sin_port = port.bigEndian
            system.sin_addr.s_addr = address.bigEndian
            return Self.call(&system, MemoryLayout<sockaddr_in>.size, body)
        case .ipv6(let high, let low, let scope, let port):
            var system = sockaddr_in6()
            system.sin6_family = sa_family_t(AF_INET6)
            system.sin6_port = port.bigEndian
            system.sin6_scope_id = scope
            withUnsafeMutableBytes(of: &system.sin6_addr) {
                $0.storeBytes(of: high.bigEndian, as: UInt64.self)
                $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            return Self.call(&system, MemoryLayout<sockaddr_in6>.size, body)
        case .unix(let path):
            var system = sockaddr_un()
            system.sun_family = sa_family_t(AF_UNIX)
            let bytes = path.utf8
            guard !bytes.isEmpty, bytes.count <= Self.maximumPathByteCount, !bytes.contains(0) else { return nil }
            withUnsafeMutableBytes(of: &system.sun_path) { $0.copyBytes(from: bytes) }
            return Self.call(&system, MemoryLayout<sockaddr_un>.size, body)
        }
    }

    private static func call<System, Value>(
        _ system: inout System, _ byteCount: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Value
    ) -> Value {
        withUnsafeBytes(of: &system) {
            body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(byteCount))
        }
    }

    /// The address that a system call filled in; nil for a family that is none of ours. A Unix socket
    /// without a name has an empty path.
    init?(_ storage: inout sockaddr_storage, byteCount: socklen_t) {
        let parsed: SocketAddress? = withUnsafeBytes(of: &storage) { bytes in
            switch Int32(bytes.load(as: sa_family_t.self)) {
            case AF_INET:
                let system = bytes.load(as: sockaddr_in.self)
                return .ipv4(
                    address: UInt32(bigEndian: system.sin_addr.s_addr), port: UInt16(bigEndian: system.sin_port))
            case AF_INET6:
                let system = bytes.load(as: sockaddr_in6.self)
                let address = MemoryLayout<sockaddr_in6>.offset(of: \.sin6_addr)!
                return .ipv6(
                    high: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: address, as: UInt64.self)),
                    low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: address + 8, as: UInt64.self)),
                    scope: system.sin6_scope_id, port: UInt16(bigEndian: system.sin6_port))
            case AF_UNIX:
                let start = MemoryLayout<sa_family_t>.size
                let end = max(start, min(Int(byteCount), bytes.count))
                return .unix(path: String(decoding: bytes[start..<end].prefix { $0 != 0 }, as: UTF8.self))
            default:
                return nil
            }
        }
        guard let parsed else { return nil }
        self = parsed
    }

    /// Every stream address of a host name, in the order the resolver prefers. Blocks for as long as the
    /// resolver does: for control paths, never on a reactor's thread.
    /// - Throws: ``ResolutionError`` where the name has no address.
    public static func resolve(host: String, port: UInt16) throws(ResolutionError) -> [SocketAddress] {
        if let numeric = SocketAddress(numericHost: host, port: port) { return [numeric] }
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        let code = host.utf8.contains(0) ? EAI_NONAME : getaddrinfo(host, nil, &hints, &list)
        guard code == 0 else {
            let detail = code == EAI_SYSTEM ? String(cString: strerror(errno)) : String(cString: gai_strerror(code))
            throw ResolutionError(host: host, code: code, detail: detail)
        }
        defer { freeaddrinfo(list) }

        var found: [SocketAddress] = []
        var next = list
        while let entry = next {
            next = entry.pointee.ai_next
            guard let system = entry.pointee.ai_addr else { continue }
            var storage = sockaddr_storage()
            let byteCount = min(Int(entry.pointee.ai_addrlen), MemoryLayout<sockaddr_storage>.size)
            withUnsafeMutableBytes(of: &storage) {
                $0.copyMemory(from: UnsafeRawBufferPointer(start: system, count: byteCount))
            }
            guard let address = SocketAddress(&storage, byteCount: socklen_t(byteCount)) else { continue }
            let withPort = address.withPort(port)
            if !found.contains(withPort) { found.append(withPort) }
        }
        guard !found.isEmpty else {
            throw ResolutionError(host: host, code: EAI_NONAME, detail: "no IPv4 or IPv6 address")
        }
        return found
    }
}

/// A host name that could not be turned into an address.
public struct ResolutionError: Error, Hashable, Sendable, CustomStringConvertible {
    public var host: String
    /// The `EAI_…` code of getaddrinfo.
    public var code: Int32
    public var detail: String

    public var description: String { "cannot resolve \(host): \(detail)" }
}

extension IOError: CustomStringConvertible {
    /// "connect to 10.0.0.1:3260: Connection refused"
    public var description: String { "\(operation): \(String(cString: strerror(code)))" }
}
