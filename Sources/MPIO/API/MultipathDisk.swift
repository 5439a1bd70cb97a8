import AsyncIO
import Multipath
public import SCSI
import Glibc

/// One logical unit, whichever path leads to it: blocks in, blocks out.
///
/// Get one from ``PathManager/open(_:)``. Offsets and lengths are bytes and must be multiples of
/// ``blockSize``; anything else is an error before a byte is sent. A request may be as large as the
/// disk: what exceeds the target's limits is split.
///
/// **Threads.** Every method may be called from any thread or task. Called from ``run(_:)`` they stay on the thread of the
/// disk's reactor and cost least.
/// **Order.** Requests under way at the same time may be carried out in any order, except that writes
/// whose blocks overlap keep the order in which they were submitted.
/// **Cancellation.** A cancelled task's request ends with ``DiskError/cancelled`` if it was not sent yet;
/// otherwise the call returns when it is done, since only then is the buffer free.
public final class MultipathDisk: Sendable {
    /// The name in the policy file.
    public let name: String
    /// In bytes: 512, 4096, or what the target says. It never changes while the disk is open.
    public let blockSize: Int
    /// Vendor, product, identity, limits, as the first usable path gave them.
    public let device: DeviceDescription

    /// Of the first lane, or the only one.
    let engine: EngineReference
    let gate: SubmissionGate
    /// Of all lanes.
    let gates: [SubmissionGate]
    /// Nil where there is one lane.
    let router: LaneRouter?

    init(name: String, device: DeviceDescription, lanes: [EngineReference]) {
        self.name = name
        self.device = device
        blockSize = Int(device.blockSize)
        engine = lanes[0]
        gates = lanes.map { SubmissionGate(engine: $0) }
        gate = gates[0]
        router = lanes.count > 1 ? LaneRouter(lanes, gates: gates, blockSize: Int(device.blockSize)) : nil
    }

    /// The size in bytes when the disk was opened. ``events`` tells when a target grows a disk.
    public var capacityByteCount: UInt64 { device.blockCount * UInt64(device.blockSize) }

    /// Runs `body` on the thread of the reactor on which this disk, or its first lane, lives: no change of thread on the way in or out of its
    /// requests. `body` must not block it.
    public func run<Value: Sendable>(_ body: @Sendable () async throws -> Value) async rethrows -> Value {
        try await withTaskExecutorPreference(engine.reactor) { try await body() }
    }

    /// Over how many reactors the disk is spread (``LUNConfiguration/reactors``): 1, mostly. A lane is a set of sessions of its own to
    /// all the disk's paths, on a reactor of its own; it chooses paths, loses them and fails over by itself. Lanes share the disk's
    /// blocks, in stripes of ``stripeByteCount``.
    public var laneCount: Int { gates.count }

    /// The bytes in one piece that a lane has, a multiple of the block size: 1 MiB, or the whole blocks in it. Stripe `n` belongs to lane
    /// `n % laneCount`. A request in one stripe is done by its lane; one over several is done in parts.
    public var stripeByteCount: Int { Striping(laneCount: laneCount, blockSize: blockSize).stripeByteCount }

    /// The lane of the byte at `offset`, from 0.
    public func lane(at offset: UInt64) -> Int { Striping(laneCount: laneCount, blockSize: blockSize).lane(at: offset) }

    /// The same as ``run(_:)`` for a lane, 0 ..< ``laneCount``: requests for its own blocks cost no change of threads there.
    public func run<Value: Sendable>(onLane lane: Int, _ body: @Sendable () async throws -> Value) async rethrows -> Value {
        try await withTaskExecutorPreference(gates[lane].reference.reactor) { try await body() }
    }

    /// The size in bytes now. On the thread of the disk's reactor only.
    package var currentCapacityByteCount: UInt64 { engine.engine.device?.capacity ?? capacityByteCount }

    /// Zeroes are not sent, as far as is known: no path has refused WRITE SAME. On the reactor's thread only.
    package var zeroesWithoutData: Bool { engine.engine.limits.zeroing == .writeSame }

    /// Reads blocks into `range` of the buffer (all of it by default) from `offset`, in bytes.
    ///
    /// SBC-4 READ (10) and READ (16).
    public func read(into buffer: IOBuffer, range: Range<Int>? = nil, at offset: UInt64) async throws(DiskError) {
        let part = Self.part(of: buffer, range)
        defer { withExtendedLifetime(buffer) {} }
        try await perform(.read, offset: offset, memory: part)
    }

    /// Writes `range` of the buffer (all of it by default) to the blocks from `offset`, in bytes.
    ///
    /// When it returns, the target has acknowledged the data and no path can undo it any more. With
    /// ``WriteOptions/forceUnitAccess`` the data is on stable storage; otherwise call ``flush()``.
    /// SBC-4 WRITE (10) and WRITE (16).
    public func write(
        _ buffer: IOBuffer, range: Range<Int>? = nil, at offset: UInt64, options: WriteOptions = []
    ) async throws(DiskError) {
        let part = Self.part(of: buffer, range)
        defer { withExtendedLifetime(buffer) {} }
        try await perform(
            .write, offset: offset, memory: part, forceUnitAccess: options.contains(.forceUnitAccess))
    }

    /// Brings all acknowledged writes to stable storage (SBC-4 SYNCHRONIZE CACHE).
    public func flush() async throws(DiskError) {
        try await perform(.flush, offset: 0, byteCount: 0)
    }

    /// Gives blocks back to a thin-provisioned target (SBC-4 UNMAP). What they read as afterwards is the
    /// target's choice; ``writeZeroes(at:byteCount:)`` is for those who need zeroes.
    ///
    /// Throws ``DiskError/unsupported`` where the target has no UNMAP.
    public func unmap(at offset: UInt64, byteCount: UInt64) async throws(DiskError) {
        try await perform(.unmap, offset: offset, byteCount: Self.length(byteCount))
    }

    /// Makes a range read as zeroes, without sending them where the target has WRITE SAME (SBC-4).
    public func writeZeroes(at offset: UInt64, byteCount: UInt64) async throws(DiskError) {
        try await perform(.writeZeroes, offset: offset, byteCount: Self.length(byteCount))
    }

    /// Atomically compares blocks with the buffer's first half and, where they are equal, replaces them
    /// by its second half (SBC-4 COMPARE AND WRITE). The buffer holds twice the range.
    ///
    /// Throws ``DiskError/miscompare(offset:)`` where they differ, ``DiskError/unsupported`` where the target has
    /// no such command or not for so many blocks, and ``DiskError/outcomeUnknown`` where the path was lost
    /// before the answer: it is never repeated blindly. ``DiskError/crossesStripe(offset:byteCount:stripeByteCount:)`` where the disk has
    /// several lanes and the range is not in one stripe.
    public func compareAndWrite(_ buffer: IOBuffer, at offset: UInt64) async throws(DiskError) {
        precondition(buffer.byteCount % 2 == 0, "compareAndWrite takes the old and the new blocks, equally many")
        defer { withExtendedLifetime(buffer) {} }
        try await perform(
            .compareAndWrite, offset: offset, byteCount: buffer.byteCount / 2, memory: buffer.bytes.baseAddress)
    }

    static func part(of buffer: IOBuffer, _ range: Range<Int>?) -> UnsafeMutableRawBufferPointer {
        guard let range else { return buffer.bytes }
        precondition(range.lowerBound >= 0 && range.upperBound <= buffer.byteCount, "range \(range) lies outside the buffer")
        return UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[range])
    }

    /// A length that does not fit is out of any disk's range; the engine says so.
    private static func length(_ byteCount: UInt64) -> Int { Int(clamping: byteCount) }
}

/// How a write is to be carried out.
public struct WriteOptions: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// FUA: acknowledged only once on stable storage.
    public static let forceUnitAccess = WriteOptions(rawValue: 1)
}
