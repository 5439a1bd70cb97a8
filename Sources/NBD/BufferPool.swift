/// Memory for the data of one request, lent by a ``BufferPool``.
struct PooledBuffer {
    var base: UnsafeMutableRawPointer
    /// The base-two logarithm of its size.
    var sizeClass: UInt8

    var byteCount: Int { 1 << Int(sizeClass) }
}

/// Memory for requests of all sessions: page-aligned powers of two, used again, with a bound on the sum.
///
/// One thread uses a pool and the sessions that were made with it.
public final class BufferPool {
    private static let smallestClass = 12
    /// 32 MiB, the largest payload.
    private static let largestClass = 25

    /// The most that may be lent at once.
    public let limitByteCount: Int
    /// How much free memory is kept rather than given back.
    private let cacheLimitByteCount: Int
    /// Lent out now.
    public private(set) var lentByteCount = 0
    private var cachedByteCount = 0
    /// Set while sessions wait for memory: none that did not wait gets past them.
    public var isReservedForWaiting = false
    /// Heads of the free lists, one per size; the link is the first word of a free buffer.
    private let free: UnsafeMutablePointer<UnsafeMutableRawPointer?>

    /// - Parameter limitByteCount: at least 32 MiB, so that every request finds room at last.
    public init(limitByteCount: Int = 256 << 20, cacheLimitByteCount: Int = 32 << 20) {
        precondition(limitByteCount >= 1 << Self.largestClass, "a pool holds the largest request at least")
        self.limitByteCount = limitByteCount
        self.cacheLimitByteCount = cacheLimitByteCount
        free = .allocate(capacity: Self.largestClass + 1)
        free.initialize(repeating: nil, count: Self.largestClass + 1)
    }

    deinit {
        for sizeClass in Self.smallestClass...Self.largestClass {
            while let base = take(sizeClass) { base.deallocate() }
        }
        free.deallocate()
    }

    static func roundedByteCount(_ byteCount: Int) -> Int { 1 << sizeClass(of: byteCount) }

    private static func sizeClass(of byteCount: Int) -> Int {
        byteCount <= 1 << smallestClass ? smallestClass : Int.bitWidth - (byteCount - 1).leadingZeroBitCount
    }

    /// A buffer of arbitrary contents; nil where the bound does not allow it now.
    func allocate(byteCount: Int, hasWaited: Bool) -> PooledBuffer? {
        precondition(byteCount > 0 && byteCount <= 1 << Self.largestClass, "no request is so large")
        guard hasWaited || !isReservedForWaiting else { return nil }
        let sizeClass = Self.sizeClass(of: byteCount)
        let size = 1 << sizeClass
        guard lentByteCount + size <= limitByteCount else { return nil }
        lentByteCount += size
        if let base = take(sizeClass) {
            cachedByteCount -= size
            return PooledBuffer(base: base, sizeClass: UInt8(sizeClass))
        }
        return PooledBuffer(
            base: .allocate(byteCount: size, alignment: 4096), sizeClass: UInt8(sizeClass))
    }

    func release(_ buffer: PooledBuffer) {
        lentByteCount -= buffer.byteCount
        guard cachedByteCount + buffer.byteCount <= cacheLimitByteCount else { return buffer.base.deallocate() }
        cachedByteCount += buffer.byteCount
        buffer.base.storeBytes(of: free[Int(buffer.sizeClass)], as: UnsafeMutableRawPointer?.self)
        free[Int(buffer.sizeClass)] = buffer.base
    }

    private func take(_ sizeClass: Int) -> UnsafeMutableRawPointer? {
        guard let base = free[sizeClass] else { return nil }
        free[sizeClass] = base.load(as: UnsafeMutableRawPointer?.self)
        return base
    }
}
