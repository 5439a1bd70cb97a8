/// An address of a stream socket. IPv6 scope identifiers are kept; names are not resolved here.
public enum SocketAddress: Hashable, Sendable {
    /// Four bytes in network order as a big-endian number: 127.0.0.1 is 0x7F000001.
    case ipv4(address: UInt32, port: UInt16)
    case ipv6(high: UInt64, low: UInt64, scope: UInt32, port: UInt16)
    /// A path in the file system, at most 107 bytes.
    case unix(path: String)
}
