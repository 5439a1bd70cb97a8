import Glibc

/// Memory for block transfers: aligned to 4096 bytes, so that sockets and O_DIRECT devices move data
/// to and from it without a copy. Make one, reuse it.
///
/// **Ownership.** While a request uses a part of a buffer, that part belongs to mpio: reading it or
/// writing to it is a race that mpio cannot see. Different requests may use different parts at once.
/// The buffer is kept alive until no socket and no device can touch it any more, cancelled tasks
/// included.
public final class IOBuffer: @unchecked Sendable {
    /// The whole buffer. Valid as long as the `IOBuffer` lives.
    public let bytes: UnsafeMutableRawBufferPointer

    /// The size in bytes.
    public var byteCount: Int { bytes.count }

    /// A zeroed buffer of `byteCount` bytes, at least 1.
    public init(byteCount: Int) {
        precondition(byteCount > 0, "an IOBuffer holds at least one byte")
        var memory: UnsafeMutableRawPointer?
        let status = posix_memalign(&memory, 4096, byteCount)
        guard status == 0, let memory else { preconditionFailure("no memory for \(byteCount) bytes") }
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
        bytes = UnsafeMutableRawBufferPointer(start: memory, count: byteCount)
    }

    deinit { free(bytes.baseAddress) }

    /// The byte at `offset`, 0 ..< ``byteCount``; any other offset traps.
    public subscript(offset: Int) -> UInt8 {
        get { bytes[offset] }
        set { bytes[offset] = newValue }
    }
}
