import Foundation

/// A directory for one test's files, removed with everything in it when its owner lets go.
///
/// All of them lie in one directory per process under the system's temporary directory, removed at exit. What a
/// killed process left behind is swept by the next one: a lock tells the living from the dead.
public final class TemporaryDirectory: Sendable {
    public let path: String

    public init(_ name: String = "test") throws {
        path = try ProcessDirectory.shared.makeDirectory(name)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// The path of a file in this directory, which need not exist.
    public func file(_ name: String) -> String { path + "/" + name }

    /// Makes a file of `byteCount` zero bytes without using space for them.
    @discardableResult
    public func sparseFile(_ name: String, byteCount: UInt64) throws -> String {
        try makeSparseFile(file(name), byteCount: byteCount)
        return file(name)
    }

    /// Makes a file with these bytes.
    @discardableResult
    public func file(_ name: String, contents: [UInt8]) throws -> String {
        try Data(contents).write(to: URL(fileURLWithPath: file(name)))
        return file(name)
    }
}

func makeSparseFile(_ path: String, byteCount: UInt64) throws {
    let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw SystemError(call: "open \(path)") }
    defer { close(descriptor) }
    guard ftruncate(descriptor, off_t(byteCount)) == 0 else { throw SystemError(call: "ftruncate \(path)") }
}

final class ProcessDirectory: Sendable {
    static let shared = ProcessDirectory()

    private static let prefix = "mpio-tests."
    private let parent: String
    private let path: String
    private let sequence = Locked(0)

    private init() {
        // tgtd's control socket lives here: sun_path holds 108 bytes, and TMPDIR may be anything.
        let wished = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
        parent = wished.utf8.count <= 48 && access(wished, W_OK) == 0 ? wished : "/tmp"
        var template = Array("\(parent)/\(Self.prefix)XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { preconditionFailure("\(SystemError(call: "mkdtemp in \(parent)"))") }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        // Held, never closed: the lock says that this directory's process lives.
        let lock = open(path + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        flock(lock, LOCK_EX)
        sweep()
        atexit { try? FileManager.default.removeItem(atPath: ProcessDirectory.shared.path) }
    }

    func makeDirectory(_ name: String) throws -> String {
        let directory = path + "/" + nextName(name)
        guard mkdir(directory, 0o700) == 0 else { throw SystemError(call: "mkdir \(directory)") }
        return directory
    }

    func file(_ name: String, contents: [UInt8]) throws -> String {
        let file = path + "/" + nextName(name)
        try Data(contents).write(to: URL(fileURLWithPath: file))
        return file
    }

    private func nextName(_ name: String) -> String {
        sequence.withLock { sequence in
            sequence += 1
            return "\(sequence).\(name)"
        }
    }

    private func sweep() {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? []
        where name.hasPrefix(Self.prefix) {
            let directory = parent + "/" + name
            let lock = open(directory + "/lock", O_RDWR | O_CLOEXEC)
            // No lock file: a process that has just made its directory and not yet locked it, or not ours.
            guard lock >= 0 else { continue }
            defer { close(lock) }
            if flock(lock, LOCK_EX | LOCK_NB) == 0 { try? FileManager.default.removeItem(atPath: directory) }
        }
    }
}
