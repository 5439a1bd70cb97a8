import Foundation

/// An address and TCP port on the loopback network where a target listens.
public struct LoopbackPortal: Hashable, Sendable, CustomStringConvertible {
    /// Numeric, IPv4 or IPv6 without brackets.
    public let address: String
    public let port: UInt16

    public init(address: String, port: UInt16) {
        self.address = address
        self.port = port
    }

    public var isIPv6: Bool { address.contains(":") }

    /// `127.0.0.1:3260`, `[::1]:3260`.
    public var description: String { isIPv6 ? "[\(address)]:\(port)" : "\(address):\(port)" }

    /// Portals on which nothing listens now: `count` addresses of 127.0.0.0/8 and one port for all, below the range
    /// from which the kernel takes client ports. The addresses are random, so that tests running at one time on one
    /// machine do not meet; each is bound once to see that it is free.
    public static func unused(count: Int = 1) throws -> [LoopbackPortal] {
        precondition((1...200).contains(count), "1 to 200 portals")
        for _ in 0..<100 {
            let network = "127.\(Int.random(in: 16...250)).\(Int.random(in: 0...255))"
            let port = UInt16.random(in: 20_000..<32_768)
            let portals = (1...count).map { LoopbackPortal(address: "\(network).\($0)", port: port) }
            if portals.allSatisfy(\.isFree) { return portals }
        }
        throw SystemError(call: "looking for unused loopback portals", code: EADDRINUSE)
    }

    /// Whether a server could listen here now.
    public var isFree: Bool {
        var hints = addrinfo()
        hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(address, String(port), &hints, &found) == 0, let found else { return false }
        defer { freeaddrinfo(found) }
        let descriptor = socket(found.pointee.ai_family, found.pointee.ai_socktype, 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        // As servers do: connections of the past in TIME_WAIT do not count.
        var one: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
        return bind(descriptor, .init(__sockaddr__: found.pointee.ai_addr), found.pointee.ai_addrlen) == 0
            && listen(descriptor, 1) == 0
    }
}
