import Foundation
import MPIO

/// A file, or a block device of the kernel's. Its calls block their thread for a moment, as page-cache reads and writes do.
final class File: BlockStore {
    let byteCount: UInt64
    var blockSize: Int { 1 }
    private let path: String
    private let descriptor: Int32

    init(reading path: String) throws {
        self.path = path
        descriptor = try Self.open(path, O_RDONLY)
        let end = lseek(descriptor, 0, SEEK_END)
        byteCount = UInt64(max(end, 0))
        if end < 0 { throw FileError(path, errno) }
    }

    /// Made where it is missing, and cut or grown to `byteCount`.
    init(writing path: String, byteCount: UInt64) throws {
        self.path = path
        self.byteCount = byteCount
        descriptor = try Self.open(path, O_RDWR | O_CREAT)
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw FileError(path, errno) }
        let isRegular = status.st_mode & S_IFMT == S_IFREG
        if isRegular, ftruncate(descriptor, off_t(clamping: byteCount)) != 0 { throw FileError(path, errno) }
    }

    deinit { close(descriptor) }

    private static func open(_ path: String, _ flags: Int32) throws -> Int32 {
        let descriptor = Foundation.open(path, flags | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw FileError(path, errno) }
        return descriptor
    }

    func load(_ part: Range<Int>, of buffer: IOBuffer, from offset: UInt64) throws {
        try transfer(part, of: buffer, offset) { pread(descriptor, $0.baseAddress, $0.count, $1) }
    }

    func store(_ part: Range<Int>, of buffer: IOBuffer, to offset: UInt64) throws {
        try transfer(part, of: buffer, offset) { pwrite(descriptor, $0.baseAddress, $0.count, $1) }
    }

    func sync() throws {
        if fsync(descriptor) != 0 { throw FileError(path, errno) }
    }

    /// A call may move less than it was asked for.
    private func transfer(
        _ part: Range<Int>, of buffer: IOBuffer, _ offset: UInt64, _ call: (UnsafeMutableRawBufferPointer, off_t) -> Int
    ) throws {
        var rest = part
        while !rest.isEmpty {
            let place = offset + UInt64(rest.lowerBound - part.lowerBound)
            let count = call(UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[rest]), off_t(place))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw FileError(path, count < 0 ? errno : EIO) }
            rest = (rest.lowerBound + count)..<rest.upperBound
        }
    }
}

struct FileError: Error, CustomStringConvertible {
    var description: String

    init(_ path: String, _ code: Int32) {
        description = "\(path): \(String(cString: strerror(code)))"
    }
}
