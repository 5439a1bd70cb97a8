package import AsyncIO
import Foundation

/// Where an NBD server listens: `unix:/run/disk.sock`, `tcp:127.0.0.1:10809`, `tcp:[::1]`.
package enum NBDAddress: Hashable, Sendable {
    case unix(path: String)
    case tcp(SocketAddress)

    /// The port that IANA gave the protocol.
    package static let defaultPort: UInt16 = 10_809

    package init(parsing text: String) throws(NBDServerError) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            guard !path.isEmpty, path.utf8.count <= SocketAddress.maximumPathByteCount, !path.utf8.contains(0) else {
                throw .badAddress(text, "a path of 1 to \(SocketAddress.maximumPathByteCount) bytes has to follow unix:")
            }
            self = .unix(path: path)
        } else if text.hasPrefix("tcp:") {
            guard let address = SocketAddress(String(text.dropFirst(4)), defaultPort: Self.defaultPort), address.port != nil else {
                throw .badAddress(text, "an IP address, perhaps with a port, has to follow tcp:, as in tcp:127.0.0.1:10809")
            }
            self = .tcp(address)
        } else {
            throw .badAddress(text, "it begins with unix: or tcp:, as in unix:/run/disk.sock or tcp:127.0.0.1:10809")
        }
    }

    var socketAddress: SocketAddress {
        switch self {
        case .unix(let path): .unix(path: path)
        case .tcp(let address): address
        }
    }

    /// Whether other machines may reach it: anything but 127.0.0.0/8, ::1 and a path.
    package var isReachableFromElsewhere: Bool {
        switch self {
        case .unix: false
        case .tcp(.ipv4(let address, _)): address >> 24 != 127
        case .tcp(.ipv6(let high, let low, _, _)): !(high == 0 && low == 1)
        case .tcp(.unix): false
        }
    }

    /// How NBD clients name an export here (doc/uri.md of the protocol).
    package func uri(export name: String, usesTLS: Bool = false) -> String {
        let scheme = usesTLS ? "nbds" : "nbd"
        let name = name.addingPercentEncoding(withAllowedCharacters: Self.unreserved) ?? name
        switch self {
        case .unix(let path):
            let path = path.addingPercentEncoding(withAllowedCharacters: Self.unreserved.union(["/"])) ?? path
            return "\(scheme)+unix:///\(name)?socket=\(path)"
        case .tcp(let address): return "\(scheme)://\(address)/\(name)"
        }
    }

    /// RFC 3986 section 2.3.
    private static let unreserved = CharacterSet(
        charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
}

extension NBDAddress: CustomStringConvertible {
    package var description: String {
        switch self {
        case .unix(let path): "unix:\(path)"
        case .tcp(let address): "tcp:\(address)"
        }
    }
}

/// Why disks can't be exported; in words for the user.
package enum NBDServerError: Error, Hashable, Sendable, CustomStringConvertible {
    case badAddress(String, String)
    case duplicateAddress(NBDAddress)
    /// Something listens there already.
    case inUse(NBDAddress)
    /// The path names something that is no socket.
    case notASocket(path: String)
    case cannotListen(NBDAddress, IOError)
    /// The file system says no before anything listens.
    case path(String, code: Int32)
    /// Another process is just about to listen in the same folder, and does not get done.
    case folderBusy(String)
    /// Blocks that NBD can't express.
    case blockSize(disk: String, byteCount: Int)
    case nameTooLong(disk: String)
    case stopped

    package var description: String {
        switch self {
        case .badAddress(let text, let words): "'\(text)' is no address for NBD: \(words)"
        case .duplicateAddress(let address): "\(address) is given twice"
        case .inUse(let address): "\(address) is in use: another process listens there"
        case .notASocket(let path): "\(path) exists and is no socket; it is left alone"
        case .cannotListen(let address, let error):
            switch error.code {
            case EADDRINUSE: "\(address) is in use: another process listens there"
            case EADDRNOTAVAIL: "\(address) is no address of this machine"
            case EACCES: "\(address): permission denied"
            default: "can't listen on \(address): \(String(cString: strerror(error.code)))"
            }
        case .path(let path, let code): "\(path): \(String(cString: strerror(code)))"
        case .folderBusy(let folder): "another process keeps \(folder) locked"
        case .blockSize(let disk, let count):
            "\(disk) has blocks of \(count) bytes, which NBD cannot express: a power of two from 512 to 65536"
        case .nameTooLong(let disk): "the name \(disk.prefix(40))… is longer than the 4096 bytes that NBD allows"
        case .stopped: "the path manager was shut down"
        }
    }
}
