import AsyncIO
import Foundation

/// The name of a listening Unix socket in the file system: made beside nobody else's, removed only if it is still ours.
struct UnixSocketFile {
    let path: String
    private let device: UInt64
    private let number: UInt64

    /// Listens by `listen`, after a socket that nobody listens on was removed. The folder is locked meanwhile, so that
    /// of two processes that find a dead socket none takes away the other's new one.
    static func make(
        _ path: String, listen: () throws(NBDServerError) -> Void
    ) throws(NBDServerError) -> UnixSocketFile {
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
        let lock = try lockFolder(folder)
        defer { close(lock) }
        try removeIfDead(path)
        try listen()
        var status = stat()
        guard lstat(path, &status) == 0 else { throw .path(path, code: errno) }
        return UnixSocketFile(path: path, device: UInt64(status.st_dev), number: UInt64(status.st_ino))
    }

    func remove() {
        var status = stat()
        guard lstat(path, &status) == 0, UInt64(status.st_dev) == device, UInt64(status.st_ino) == number else { return }
        unlink(path)
    }

    private static func lockFolder(_ folder: String) throws(NBDServerError) -> Int32 {
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .path(folder, code: errno) }
        for _ in 0..<200 {
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return descriptor }
            usleep(10_000)
        }
        close(descriptor)
        throw .folderBusy(folder)
    }

    private static func removeIfDead(_ path: String) throws(NBDServerError) {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            if errno == ENOENT { return }
            throw .path(path, code: errno)
        }
        guard status.st_mode & S_IFMT == S_IFSOCK else { throw .notASocket(path: path) }
        switch connectResult(path) {
        case ECONNREFUSED:
            guard unlink(path) == 0 else { throw .path(path, code: errno) }
        case 0, EAGAIN: throw .inUse(.unix(path: path))
        case let code: throw .path(path, code: code)
        }
    }

    private static func connectResult(_ path: String) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_un>.size)) == 0 ? 0 : errno
            }
        }
    }
}
