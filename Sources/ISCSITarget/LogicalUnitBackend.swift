public import AsyncIO
public import SCSI

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
    /// ``LogicalUnitBackend/compareAndWrite(offset:expected:new:token:)``: the first byte that differs, counted
    /// from the range's start. Nothing was written.
    case miscompare(offset: Int)
    /// The storage is a SCSI device itself: its sense data is passed on.
    case sense(SenseData)
    /// Likewise its status (BUSY, TASK SET FULL, RESERVATION CONFLICT).
    case status(SCSIStatus)
}

/// Who is told that an operation ended.
public protocol BackendClient: AnyObject {
    func backendCompleted(token: UInt32, failure: BackendFailure?)
    /// ``LogicalUnitBackend/byteCount`` is another now.
    func backendCapacityChanged()
}

extension BackendClient {
    public func backendCapacityChanged() {}
}

/// Neighbouring bytes that are, or are not, backed by storage.
public struct BackendExtent: Hashable, Sendable {
    public var byteCount: UInt64
    public var isMapped: Bool

    public init(byteCount: UInt64, isMapped: Bool) {
        self.byteCount = byteCount
        self.isMapped = isMapped
    }
}

/// What a range holds after ``LogicalUnitBackend/deallocate(offset:byteCount:token:)``.
public enum DeallocatedContent: Sendable {
    /// Zeroes, all of it.
    case zeroes
    /// Zeroes where the storage deallocated; it may leave parts of the range as they were (SBC-3 clause 4.7.3.3).
    case zeroesWhereDeallocated
    case anything
}

/// What holds a logical unit's blocks.
///
/// Offsets and lengths are bytes, multiples of the unit's block size and inside its capacity: the unit
/// checks them. Memory handed to an operation stays alive and unchanged until the operation is done.
/// Everything happens on the thread of the target's `IOPort`. An operation that returned `.pending` ends by
/// exactly one ``BackendClient/backendCompleted(token:failure:)`` with its token, never from inside the call that
/// began it; tokens are reused once their operation ended. Operations under way may end in any order; the
/// unit starts no COMPARE AND WRITE, ORWRITE or ORDERED command beside another.
///
/// **A gateway**, that is a unit on another disk (`MPIO`'s, of several paths), is a backend of the caller's own,
/// handed to ``EmbeddedTarget/init(configuration:port:cryptography:backend:)``:
/// - It calls the disk from this thread and comes back to it before it calls the client (both may live on
///   one reactor, then this costs nothing).
/// - `read`, `write` → the disk's; their memory may be lent to a socket until the completion.
/// - `synchronize` → flush; it must be answered only when all writes completed before are stable. A write
///   with FUA arrives as `writeThrough` where `writesThrough` is true; otherwise as `write`, then `synchronize`.
/// - `deallocate` → unmap; where `isThinlyProvisioned` is false it is never called and UNMAP is refused.
/// - `writeZeroes` and `compareAndWrite` → the disk's own, `writesZeroes` and `comparesAndWrites` true. A
///   compare-and-write must be passed on: done here by read and write it would be no guard against other hosts.
/// - Errors: `.sense` and `.status` pass on what the device said; `.io` becomes a medium error.
/// - Abort: the unit waits for the completion, so that an answered ABORT TASK SET means that nothing lands
///   any more. A disk that retries on another path completes when it no longer may.
/// - `close` is called once, when no operation is under way or all were aborted; completions may still follow.
/// - Reservations that initiators make at the gateway are the gateway's; they are not carried to the disk.
public protocol LogicalUnitBackend: AnyObject {
    var byteCount: UInt64 { get }
    /// Told of pending operations' ends. Not retained.
    var client: (any BackendClient)? { get set }
    /// Ranges can be deallocated.
    var isThinlyProvisioned: Bool { get }
    var deallocatedContent: DeallocatedContent { get }
    /// A write is all done within the call: nothing can come between. WRITE ATOMIC is served only then.
    var writesAtOnce: Bool { get }
    /// Of two overlapping writes under way at once the one that was begun later stands.
    var keepsWriteOrder: Bool { get }
    /// ``writeZeroes(offset:byteCount:token:)`` is there; otherwise zeroes are written as data.
    var writesZeroes: Bool { get }
    /// ``compareAndWrite(offset:expected:new:token:)`` is there; otherwise the unit reads, compares and writes while
    /// it executes nothing else.
    var comparesAndWrites: Bool { get }
    /// The most that ``compareAndWrite(offset:expected:new:token:)`` takes; the block limits page says it.
    var compareAndWriteLimitByteCount: Int { get }
    /// ``writeThrough(offset:from:token:)`` is there; otherwise a write with FUA is a write and a flush.
    var writesThrough: Bool { get }
    /// A write that is done may still be lost with the power until ``synchronize(token:)``: the caching page's WCE.
    var hasVolatileCache: Bool { get }

    /// Constant memory with the contents of the range, where the backend has such: it is sent as it is.
    func lend(offset: UInt64, byteCount: Int) -> UnsafeRawPointer?
    func read(offset: UInt64, into: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress
    func write(offset: UInt64, from: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress
    /// A write that is on stable storage when it is done.
    func writeThrough(offset: UInt64, from: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress
    /// All that was written reaches stable storage.
    func synchronize(token: UInt32) -> BackendProgress
    func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress
    func writeZeroes(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress
    /// Writes `new` where the range holds `expected`, with nothing in between; both are of one length, and `new` lies
    /// in memory right behind `expected`.
    func compareAndWrite(
        offset: UInt64, expected: UnsafeRawBufferPointer, new: UnsafeRawBufferPointer, token: UInt32
    ) -> BackendProgress
    /// Fills `list` from its start with what is mapped from `offset` on, until it is full or the unit ends; elements
    /// that it does not need stay as they are, all zero.
    func listExtents(
        from offset: UInt64, into list: UnsafeMutableBufferPointer<BackendExtent>, token: UInt32
    ) -> BackendProgress
    /// Whether the byte at `offset` is backed by storage, and how many bytes from there share the answer.
    func mapping(at offset: UInt64) -> (isMapped: Bool, byteCount: UInt64)
    func close()
}

extension LogicalUnitBackend {
    public var writesAtOnce: Bool { false }
    public var keepsWriteOrder: Bool { writesAtOnce }
    public var writesZeroes: Bool { false }
    public var comparesAndWrites: Bool { false }
    public var compareAndWriteLimitByteCount: Int { .max }
    public var writesThrough: Bool { false }
    public var deallocatedContent: DeallocatedContent { .zeroes }
    public var hasVolatileCache: Bool { true }

    public func lend(offset: UInt64, byteCount: Int) -> UnsafeRawPointer? { nil }
    /// By ``mapping(at:)``.
    public func listExtents(
        from offset: UInt64, into list: UnsafeMutableBufferPointer<BackendExtent>, token: UInt32
    ) -> BackendProgress {
        var position = offset
        for index in list.indices where position < byteCount {
            let (isMapped, count) = mapping(at: position)
            list[index] = BackendExtent(byteCount: count, isMapped: isMapped)
            position += count
        }
        return .done
    }
    /// All mapped: what a backend says that does not know better.
    public func mapping(at offset: UInt64) -> (isMapped: Bool, byteCount: UInt64) { (true, byteCount - offset) }
    public func writeThrough(offset: UInt64, from: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress {
        preconditionFailure("writesThrough is false")
    }
    public func writeZeroes(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        preconditionFailure("writesZeroes is false")
    }
    public func compareAndWrite(
        offset: UInt64, expected: UnsafeRawBufferPointer, new: UnsafeRawBufferPointer, token: UInt32
    ) -> BackendProgress {
        preconditionFailure("comparesAndWrites is false")
    }
}
