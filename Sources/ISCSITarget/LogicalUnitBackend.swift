public import AsyncIO

/// How far an operation of a ``LogicalUnitBackend`` got during the call that began it.
public enum BackendProgress: Sendable {
    case done
    /// The backend calls ``BackendClient/backendCompleted(token:failure:)`` in a later step of the loop.
    case pending
    case failed(BackendFailure)
}

public enum BackendFailure: Error, Hashable, Sendable {
    /// The file or device answered with an error.
    case io(IOError)
    /// Fewer bytes were transferred than asked for.
    case short(expected: Int, transferred: Int)
    /// No room is left in the file system or the memory bound.
    case noSpace
}

/// Who is told that an operation ended.
public protocol BackendClient: AnyObject {
    func backendCompleted(token: UInt32, failure: BackendFailure?)
}

/// What holds a logical unit's blocks.
///
/// Offsets and lengths are bytes, multiples of the unit's block size and inside its capacity: the unit
/// checks them. Memory handed to an operation stays alive and unchanged until the operation is done.
/// Everything happens on the thread of the target's `IOPort`.
public protocol LogicalUnitBackend: AnyObject {
    var byteCount: UInt64 { get }
    /// Told of pending operations' ends. Not retained.
    var client: (any BackendClient)? { get set }
    /// Ranges can be deallocated and then read as zeroes.
    var isThinlyProvisioned: Bool { get }

    /// Constant memory with the contents of the range, where the backend has such: it is sent as it is.
    func lend(offset: UInt64, byteCount: Int) -> UnsafeRawPointer?
    func read(offset: UInt64, into: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress
    func write(offset: UInt64, from: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress
    /// All that was written reaches stable storage.
    func synchronize(token: UInt32) -> BackendProgress
    func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress
    /// Whether the byte at `offset` is backed by storage, and how many bytes from there share the answer.
    func mapping(at offset: UInt64) -> (isMapped: Bool, byteCount: UInt64)
    func close()
}
