/// What is outstanding on one transport; plain counters behind a pointer.
@frozen
public struct LoadCounters: Sendable {
    /// Requests that are outstanding.
    public var requests: Int = 0
    /// Their bytes, either way.
    public var bytes: Int = 0
    /// Nothing outstanding.
    @inlinable public init() {}
}

/// The load of one transport (an iSCSI session, a block device), shared by all LUNs whose paths use it:
/// least-queue-depth and least-blocks look at all of it, not at one LUN's part.
///
/// Owned by one thread, the one that owns the LUNs. Bytes stand for blocks, because LUNs that share a
/// session may differ in block size; within one block size the order is the same.
public final class PathLoad {
    @usableFromInline let pointer: UnsafeMutablePointer<LoadCounters>

    /// Nothing outstanding.
    public init() {
        pointer = .allocate(capacity: 1)
        pointer.initialize(to: LoadCounters())
    }

    deinit { pointer.deallocate() }

    /// The counters as they are now.
    @inlinable public var counters: LoadCounters { pointer.pointee }
}
