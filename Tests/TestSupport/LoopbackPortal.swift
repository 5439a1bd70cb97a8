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
        guard let descriptor = try? Socket.listen(on: self) else { return false }
        close(descriptor)
        return true
    }
}
