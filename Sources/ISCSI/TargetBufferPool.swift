/// Memory for the data of one command, lent by a ``TargetBufferPool``.
@frozen
public struct TargetBuffer: @unchecked Sendable {
    /// nil: no memory is held.
    public var base: UnsafeMutableRawPointer?
    /// The base-two logarithm of the capacity.
    @usableFromInline var sizeClass: UInt8

    @inlinable
    init(base: UnsafeMutableRawPointer?, sizeClass: UInt8) {
        self.base = base
        self.sizeClass = sizeClass
    }

    @inlinable public static var none: TargetBuffer { TargetBuffer(base: nil, sizeClass: 0) }
    @inlinable public var capacity: Int { base == nil ? 0 : 1 << Int(sizeClass) }
}

/// The data buffers of a target: page-aligned powers of two, kept for reuse, with a bound on the sum.
///
/// One thread uses a pool. A buffer must be given back to the pool that lent it, once.
public final class TargetBufferPool {
    public static let alignment = 4096
    private static let smallestClass = 12
    private static let largestClass = 27

    /// Bytes that lent and cached buffers may occupy together.
    public let limitByteCount: Int
    /// Bytes of buffers that are lent out now.
    @exclusivity(unchecked) public private(set) var lentByteCount = 0
    @exclusivity(unchecked) private var cachedByteCount = 0
    /// Further owners of the few buffers that have more than one: data that is kept for retransmission.
    @exclusivity(unchecked) private var furtherOwners: [UnsafeMutableRawPointer: Int] = [:]
    /// Heads of the free lists, one per size; the link is the first word of a free buffer.
    private let free: UnsafeMutablePointer<UnsafeMutableRawPointer?>

    public init(limitByteCount: Int) {
        precondition(limitByteCount >= 1 << Self.smallestClass)
        self.limitByteCount = limitByteCount
        free = .allocate(capacity: Self.largestClass + 1)
        free.initialize(repeating: nil, count: Self.largestClass + 1)
    }

    deinit {
        drainCache()
        free.deallocate()
    }

    /// A buffer of at least `byteCount` bytes with arbitrary contents; nil where the bound (or the largest
    /// size, 128 MiB) does not allow it.
    public func allocate(byteCount: Int) -> TargetBuffer? {
        guard byteCount >= 0, byteCount <= 1 << Self.largestClass else { return nil }
        var sizeClass = Self.smallestClass
        if byteCount > 1 << sizeClass { sizeClass = Int.bitWidth - (byteCount - 1).leadingZeroBitCount }
        let size = 1 << sizeClass
        if let base = free[sizeClass] {
            free[sizeClass] = base.load(as: UnsafeMutableRawPointer?.self)
            cachedByteCount -= size
            lentByteCount += size
            return TargetBuffer(base: base, sizeClass: UInt8(sizeClass))
        }
        guard lentByteCount + size <= limitByteCount else { return nil }
        if lentByteCount + cachedByteCount + size > limitByteCount { drainCache() }
        lentByteCount += size
        return TargetBuffer(
            base: .allocate(byteCount: size, alignment: Self.alignment), sizeClass: UInt8(sizeClass))
    }

    /// Another owner of a buffer: it is back in the pool when each has released it.
    func share(_ buffer: TargetBuffer) -> TargetBuffer {
        if let base = buffer.base { furtherOwners[base, default: 0] += 1 }
        return buffer
    }

    public func release(_ buffer: TargetBuffer) {
        guard let base = buffer.base else { return }
        if !furtherOwners.isEmpty, let count = furtherOwners[base] {
            furtherOwners[base] = count > 1 ? count - 1 : nil
            return
        }
        let sizeClass = Int(buffer.sizeClass)
        base.storeBytes(of: free[sizeClass], as: UnsafeMutableRawPointer?.self)
        free[sizeClass] = base
        lentByteCount -= 1 << sizeClass
        cachedByteCount += 1 << sizeClass
    }

    private func drainCache() {
        for sizeClass in Self.smallestClass...Self.largestClass {
            while let base = free[sizeClass] {
                free[sizeClass] = base.load(as: UnsafeMutableRawPointer?.self)
                base.deallocate()
            }
        }
        cachedByteCount = 0
    }
}
