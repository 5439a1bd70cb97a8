import ArgumentParser
import Foundation

/// Where metrics are served: `unix:/run/mpio/metrics.sock` or `tcp:127.0.0.1:9464`.
enum MetricsAddress: ExpressibleByArgument, Hashable, CustomStringConvertible {
    case unix(path: String)
    /// Numeric, IPv4 or IPv6.
    case tcp(host: String, port: UInt16)

    init?(argument: String) {
        if argument.hasPrefix("unix:") {
            let path = String(argument.dropFirst(5))
            guard !path.isEmpty, path.utf8.count < 108, !path.utf8.contains(0) else { return nil }
            self = .unix(path: path)
            return
        }
        guard argument.hasPrefix("tcp:"), let colon = argument.lastIndex(of: ":") else { return nil }
        var host = String(argument[argument.index(argument.startIndex, offsetBy: 4)..<max(colon, argument.index(argument.startIndex, offsetBy: 4))])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) } else if host.contains(":") { return nil }
        let digits = argument[argument.index(after: colon)...]
        guard digits.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(digits) else { return nil }
        var (four, six) = (in_addr(), in6_addr())
        guard inet_pton(AF_INET, host, &four) == 1 || inet_pton(AF_INET6, host, &six) == 1 else { return nil }
        self = .tcp(host: host, port: port)
    }

    var description: String {
        switch self {
        case .unix(let path): "unix:\(path)"
        case .tcp(let host, let port): host.contains(":") ? "tcp:[\(host)]:\(port)" : "tcp:\(host):\(port)"
        }
    }

    /// A socket that listens there; and where that is, if the port was 0.
    func listen() throws -> (Int32, MetricsAddress) {
        switch self {
        case .unix(let path): (try Self.listenUnix(path), self)
        case .tcp(let host, let port): try Self.listenTCP(host, port)
        }
    }

    private static func failure(_ operation: String, _ address: String) -> CommandFailure {
        CommandFailure("--metrics \(address): \(operation): \(String(cString: strerror(errno)))")
    }

    private static func listenUnix(_ path: String) throws -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { throw failure("socket", path) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        func call(_ body: (Int32, __CONST_SOCKADDR_ARG, socklen_t) -> Int32, on descriptor: Int32) -> Int32 {
            withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), size) }
            }
        }
        // bind(2) gives the file the mode of the socket: nobody else gets in, not for a moment.
        fchmod(descriptor, 0o600)
        var result = call(bind, on: descriptor)
        if result != 0, errno == EADDRINUSE {
            // Left behind by a process that was killed, unless somebody answers there.
            let probe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            let isDead = probe >= 0 && call(connect, on: probe) != 0 && errno == ECONNREFUSED
            if probe >= 0 { close(probe) }
            errno = EADDRINUSE
            if isDead, unlink(path) == 0 { result = call(bind, on: descriptor) }
        }
        guard result == 0, Foundation.listen(descriptor, 16) == 0 else {
            defer { close(descriptor) }
            throw failure("bind", path)
        }
        return descriptor
    }

    private static func listenTCP(_ host: String, _ port: UInt16) throws -> (Int32, MetricsAddress) {
        let isSix = host.contains(":")
        let descriptor = socket(
            isSix ? AF_INET6 : AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { throw failure("socket", "tcp:\(host)") }
        var on: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        var storage = sockaddr_storage()
        var size = socklen_t(isSix ? MemoryLayout<sockaddr_in6>.size : MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &storage) { pointer in
            if isSix {
                pointer.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                    $0.pointee.sin6_family = sa_family_t(AF_INET6)
                    $0.pointee.sin6_port = port.bigEndian
                    inet_pton(AF_INET6, host, &$0.pointee.sin6_addr)
                }
            } else {
                pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                    $0.pointee.sin_family = sa_family_t(AF_INET)
                    $0.pointee.sin_port = port.bigEndian
                    inet_pton(AF_INET, host, &$0.pointee.sin_addr)
                }
            }
        }
        let isListening = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), size) == 0 && Foundation.listen(descriptor, 16) == 0
                    && getsockname(descriptor, __SOCKADDR_ARG(__sockaddr__: $0), &size) == 0
            }
        }
        guard isListening else {
            defer { close(descriptor) }
            throw failure("bind", "tcp:\(host):\(port)")
        }
        // The port has the same place in both families.
        let bound = withUnsafePointer(to: &storage) { $0.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { UInt16(bigEndian: $0.pointee.sin_port) } }
        return (descriptor, .tcp(host: host, port: bound))
    }
}
