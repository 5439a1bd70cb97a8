import Foundation
import MPIO

/// What blocks are copied from or to: a LUN or a file.
protocol BlockStore: Sendable {
    /// For messages.
    var name: String { get }
    /// In bytes.
    var byteCount: UInt64 { get }
    /// Offsets and lengths are multiples of it; 1 for a file.
    var blockSize: Int { get }
    /// The first `byteCount` bytes of the buffer.
    func read(into buffer: IOBuffer, byteCount: Int, at offset: UInt64) async throws
    func write(_ buffer: IOBuffer, byteCount: Int, at offset: UInt64) async throws
    /// What was written is on stable storage.
    func flush() async throws
}

/// A regular file or block device, read and written on threads that may block.
final class FileStore: BlockStore, Sendable {
    let name: String
    let byteCount: UInt64
    let blockSize = 1
    private let descriptor: Int32
    private let queue = DispatchQueue(label: "mpio.file", attributes: .concurrent)

    init(reading path: String) throws {
        name = path
        descriptor = try Self.open(path, O_RDONLY | O_CLOEXEC)
        let end = lseek(descriptor, 0, SEEK_END)
        guard end >= 0 else {
            close(descriptor)
            throw CommandFailure("\(path): neither a file nor a block device")
        }
        byteCount = UInt64(end)
    }

    /// Creates a file of this size, or takes one that exists (cut or grown to it) or a block device that is large enough.
    init(writing path: String, byteCount: UInt64) throws {
        name = path
        self.byteCount = byteCount
        descriptor = try Self.open(path, O_RDWR | O_CREAT | O_CLOEXEC)
        // Whatever throws from here on, the deinitializer closes the descriptor: the object is whole.
        var status = stat()
        fstat(descriptor, &status)
        if status.st_mode & S_IFMT == S_IFREG {
            guard let size = off_t(exactly: byteCount), ftruncate(descriptor, size) == 0 else {
                throw CommandFailure("\(path): \(String(cString: strerror(errno)))")
            }
        } else if lseek(descriptor, 0, SEEK_END) < off_t(clamping: byteCount) {
            throw CommandFailure("\(path) is too small for \(HumanText.size(byteCount))")
        }
    }

    deinit { close(descriptor) }

    private static func open(_ path: String, _ flags: Int32) throws -> Int32 {
        let descriptor = Foundation.open(path, flags, 0o644)
        guard descriptor >= 0 else { throw CommandFailure("\(path): \(String(cString: strerror(errno)))") }
        return descriptor
    }

    func read(into buffer: IOBuffer, byteCount: Int, at offset: UInt64) async throws {
        try await perform {
            try self.transfer(byteCount) { pread(self.descriptor, buffer.bytes.baseAddress! + $0, byteCount - $0, off_t(offset) + off_t($0)) }
        }
    }

    func write(_ buffer: IOBuffer, byteCount: Int, at offset: UInt64) async throws {
        try await perform {
            try self.transfer(byteCount) { pwrite(self.descriptor, buffer.bytes.baseAddress! + $0, byteCount - $0, off_t(offset) + off_t($0)) }
        }
    }

    func flush() async throws {
        try await perform {
            // A pipe or a device without a cache has nothing to flush.
            guard fsync(self.descriptor) == 0 || errno == EINVAL else { throw self.failure(errno) }
        }
    }

    private func transfer(_ byteCount: Int, _ step: (Int) -> Int) throws {
        var done = 0
        while done < byteCount {
            let count = step(done)
            if count > 0 {
                done += count
            } else if count == 0 {
                throw CommandFailure("\(name): shorter than it was")
            } else if errno != EINTR {
                throw failure(errno)
            }
        }
    }

    private func failure(_ code: Int32) -> CommandFailure {
        CommandFailure("\(name): \(String(cString: strerror(code)))")
    }

    private func perform(_ work: @escaping @Sendable () throws -> Void) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            queue.async { continuation.resume(with: Result(catching: work)) }
        }
    }
}
