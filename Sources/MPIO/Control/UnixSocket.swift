import Foundation

/// The few system calls that the control socket needs.
enum UnixSocket {
    /// `sun_path` holds 108 bytes with its NUL (unix(7)).
    static let maximumPathByteCount = 107

    static func make() throws(ControlSocketError) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { throw .system(operation: "socket", code: errno) }
        return descriptor
    }

    /// connect(2): 0 or the error number.
    static func connect(_ descriptor: Int32, to path: String) throws(ControlSocketError) -> Int32 {
        try withAddress(path) { Foundation.connect(descriptor, $0, $1) }
    }

    /// bind(2): 0 or the error number.
    static func bind(_ descriptor: Int32, to path: String) throws(ControlSocketError) -> Int32 {
        try withAddress(path) { Foundation.bind(descriptor, $0, $1) }
    }

    private static func withAddress(
        _ path: String, _ body: (__CONST_SOCKADDR_ARG, socklen_t) -> Int32
    ) throws(ControlSocketError) -> Int32 {
        guard path.utf8.count <= maximumPathByteCount, !path.utf8.contains(0) else { throw .pathTooLong(path) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body(__CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_un>.size)) == 0 ? 0 : errno
            }
        }
    }

    /// The process on the other side and its user, as the kernel recorded them when the connection was made (SO_PEERCRED).
    static func peer(_ descriptor: Int32) -> (pid: Int32, uid: UInt32)? {
        // struct ucred: pid, uid, gid.
        var credentials: (pid: Int32, uid: UInt32, gid: UInt32) = (0, .max, .max)
        var length = socklen_t(MemoryLayout.size(ofValue: credentials))
        guard getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0, length == 12 else { return nil }
        return (credentials.pid, credentials.uid)
    }

    static func peerUserID(_ descriptor: Int32) -> UInt32? { peer(descriptor)?.uid }

    /// Whether the other side is this user or root.
    static func isTrusted(_ descriptor: Int32) -> Bool {
        guard let user = peerUserID(descriptor) else { return false }
        return user == geteuid() || user == 0
    }
}

/// Why a holder could not be asked, or could not listen.
public enum ControlSocketError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The folder that the socket is in can't be trusted or used.
    case directory(RuntimeDirectoryError)
    /// The kernel takes 107 bytes for a socket's name.
    case pathTooLong(String)
    /// A system call failed; `code` is an `errno`.
    case system(operation: String, code: Int32)
    /// The other side belongs to another user.
    case untrustedPeer
    /// No answer in time.
    case timedOut
    /// The holder closed the connection before it had answered.
    case closed
    /// The answer is none that this version knows.
    case malformedResponse

    public var description: String {
        switch self {
        case .directory(let error): "\(error)"
        case .pathTooLong(let path): "the control socket's path is too long: \(path)"
        case .system(let operation, let code): "control socket: \(operation): \(errorText(code))"
        case .untrustedPeer: "the control socket belongs to another user"
        case .timedOut: "the process that holds the LUN did not answer in time"
        case .closed: "the process that holds the LUN closed the control connection"
        case .malformedResponse: "the process that holds the LUN answered something that is no response"
        }
    }
}
