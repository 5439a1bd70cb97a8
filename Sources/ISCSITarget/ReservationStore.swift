public import AsyncIO
import Glibc

/// Where a unit's persistent reservations outlive a loss of power (APTPL). Called on the port's thread, seldom,
/// and may block as long as a small file takes.
public protocol ReservationStore: AnyObject {
    /// What was saved last; nil where nothing is.
    func load() throws(IOError) -> [UInt8]?
    /// Stable when it returns; nil: forget what was saved.
    func save(_ bytes: [UInt8]?) throws(IOError)
}

/// A file of its own for each unit, replaced as a whole.
public final class ReservationFile: ReservationStore {
    public let path: String
    private static let maximumByteCount = 1 << 20

    public init(path: String) { self.path = path }

    public func load() throws(IOError) -> [UInt8]? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        if file < 0, errno == ENOENT { return nil }
        guard file >= 0 else { throw failure("open") }
        defer { close(file) }
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(file, &piece, piece.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure("read") }
            if count == 0 { return bytes }
            bytes += piece[..<count]
            guard bytes.count <= Self.maximumByteCount else { throw IOError(code: EFBIG, operation: "read \(path)") }
        }
    }

    public func save(_ bytes: [UInt8]?) throws(IOError) {
        guard let bytes else {
            if unlink(path) != 0, errno != ENOENT { throw failure("remove") }
            return try synchronizeDirectory()
        }
        let temporary = path + ".new"
        let file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw failure("create") }
        do throws(IOError) {
            defer { close(file) }
            try write(bytes, to: file)
        } catch {
            unlink(temporary)
            throw error
        }
        guard rename(temporary, path) == 0 else { throw failure("replace") }
        try synchronizeDirectory()
    }

    private func write(_ bytes: [UInt8], to file: Int32) throws(IOError) {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + done, $0.count - done) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("write") }
            done += count
        }
        guard fsync(file) == 0 else { throw failure("sync") }
    }

    /// The rename itself is stable only with its directory.
    private func synchronizeDirectory() throws(IOError) {
        let parent = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let directory = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw failure("open the directory of") }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw failure("sync the directory of") }
    }

    private func failure(_ verb: String) -> IOError { IOError(code: errno, operation: "\(verb) \(path)") }
}
