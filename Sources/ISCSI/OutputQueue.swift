/// The bytes one connection has still to send, as a queue of memory segments.
///
/// Headers, padding, digests and small control data are copied into a ring of bytes of the queue's own,
/// so that the headers of adjacent PDUs lie side by side and leave as one segment; the data of a
/// command is named where the caller has it. Positions count bytes of the connection's stream from its
/// first one, so "is anything of this still queued" is one comparison, with no count kept per command.
struct OutputQueue: ~Copyable {
    private let bytes: UnsafeMutableRawPointer
    private let byteCapacity: Int
    /// Offset of the oldest own byte not yet sent, and of the next one to write. Equal only when
    /// no own byte is queued: the ring is never filled to the last byte.
    private var byteHead = 0
    private var byteTail = 0

    private let segments: UnsafeMutablePointer<UnsafeRawBufferPointer>
    private let segmentMask: Int
    private var segmentHead = 0
    private var segmentTail = 0
    /// Bytes of the first segment that were sent.
    private var headSentByteCount = 0
    /// The newest segment is of own bytes, and may be extended.
    private var endsInOwnBytes = false

    /// Position after the last byte queued.
    private(set) var queuedPosition: UInt64 = 0
    /// Position after the last byte the kernel is known to have taken.
    private(set) var sentPosition: UInt64 = 0
    /// Position after the last byte the kernel may have taken: ``gather(into:)`` named it and no report
    /// has come since.
    private(set) var offeredPosition: UInt64 = 0

    /// - Parameters:
    ///   - byteCapacity: own bytes that can wait; a power of two is not needed.
    ///   - segmentCapacity: rounded up to a power of two.
    init(byteCapacity: Int, segmentCapacity: Int) {
        precondition(byteCapacity >= 1024 && segmentCapacity >= 8)
        self.byteCapacity = byteCapacity
        bytes = .allocate(byteCount: byteCapacity, alignment: 64)
        var capacity = 8
        while capacity < segmentCapacity { capacity *= 2 }
        segmentMask = capacity - 1
        segments = .allocate(capacity: capacity)
    }

    deinit {
        bytes.deallocate()
        segments.deallocate()
    }

    /// As new, in the same memory. No transport may still be sending from it.
    mutating func removeAll() {
        byteHead = 0
        byteTail = 0
        segmentHead = 0
        segmentTail = 0
        headSentByteCount = 0
        endsInOwnBytes = false
        queuedPosition = 0
        sentPosition = 0
        offeredPosition = 0
    }

    var isEmpty: Bool { queuedPosition == sentPosition }
    var segmentCount: Int { segmentTail &- segmentHead }
    var queuedByteCount: Int { Int(queuedPosition &- sentPosition) }

    /// Whether `count` own bytes, in one piece, and three segments more find room.
    @inline(__always)
    func hasRoom(for count: Int) -> Bool {
        guard segmentTail &- segmentHead &+ 3 <= segmentMask else { return false }
        if byteHead <= byteTail {
            return byteCapacity - byteTail > count || byteHead > count
        }
        return byteHead - byteTail > count
    }

    /// Queues `count` own bytes, to be filled by the caller at once. Check ``hasRoom(for:)`` first.
    @inline(__always)
    mutating func appendOwnBytes(_ count: Int) -> UnsafeMutableRawPointer {
        if byteHead <= byteTail, byteCapacity - byteTail <= count {
            // The rest of the ring is too short for one piece; it stays unused this time round.
            precondition(byteHead > count, "no room in the output queue")
            byteTail = 0
            endsInOwnBytes = false
        }
        let start = bytes + byteTail
        byteTail += count
        queuedPosition &+= UInt64(count)
        if endsInOwnBytes {
            let last = (segmentTail &- 1) & segmentMask
            segments[last] = UnsafeRawBufferPointer(start: segments[last].baseAddress, count: segments[last].count + count)
        } else {
            appendSegment(UnsafeRawBufferPointer(start: start, count: count))
            endsInOwnBytes = true
        }
        return start
    }

    /// Queues memory of the caller's, which must stay unchanged until ``sentPosition`` has passed it.
    @inline(__always)
    mutating func appendCallerBytes(_ memory: UnsafeRawBufferPointer) {
        guard memory.count > 0 else { return }
        queuedPosition &+= UInt64(memory.count)
        appendSegment(memory)
        endsInOwnBytes = false
    }

    @inline(__always)
    private mutating func appendSegment(_ segment: UnsafeRawBufferPointer) {
        precondition(segmentTail &- segmentHead <= segmentMask, "no segment left in the output queue")
        segments[segmentTail & segmentMask] = segment
        segmentTail &+= 1
    }

    /// Names the same bytes at another place: every queued segment that lies within `memory` from now on
    /// lies at the same offset of `copy`. A segment that only overlaps it stays where it is: it is another
    /// command's, from memory that the two share.
    ///
    /// Returns the position after the last byte that now leaves from `copy`, which must live until then: segments
    /// of other commands may be among them, queued behind those that are meant. 0 where there are none.
    mutating func relocate(_ memory: UnsafeRawBufferPointer, to copy: UnsafeMutableRawPointer) -> UInt64 {
        let start = UInt(bitPattern: memory.baseAddress)
        var position = sentPosition &- UInt64(headSentByteCount)
        var end: UInt64 = 0
        for index in 0..<(segmentTail &- segmentHead) {
            let segment = segments[(segmentHead &+ index) & segmentMask]
            position &+= UInt64(segment.count)
            let offset = UInt(bitPattern: segment.baseAddress) &- start
            guard offset < UInt(memory.count), segment.count <= memory.count - Int(offset) else { continue }
            segments[(segmentHead &+ index) & segmentMask] = UnsafeRawBufferPointer(
                start: copy + Int(offset), count: segment.count)
            end = position
        }
        return end
    }

    /// Names what to send next, from the first unsent byte on; returns the number of segments filled.
    mutating func gather(into target: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        let count = min(target.count, segmentTail &- segmentHead)
        guard count > 0 else { return 0 }
        var named: UInt64 = 0
        for index in 0..<count {
            let segment = segments[(segmentHead &+ index) & segmentMask]
            target[index] = segment
            named &+= UInt64(segment.count)
        }
        if headSentByteCount > 0 {
            target[0] = UnsafeRawBufferPointer(rebasing: target[0][headSentByteCount...])
            named &-= UInt64(headSentByteCount)
        }
        offeredPosition = max(offeredPosition, sentPosition &+ named)
        return count
    }

    /// The kernel took the next `count` bytes and, until the next gather, no more.
    mutating func sent(_ count: Int) {
        precondition(count >= 0 && UInt64(count) <= offeredPosition &- sentPosition, "more sent than was offered")
        sentPosition &+= UInt64(count)
        offeredPosition = sentPosition
        var rest = count
        while rest > 0 {
            let segment = segments[segmentHead & segmentMask]
            let left = segment.count - headSentByteCount
            let isOwn = isOwn(segment)
            if rest < left {
                headSentByteCount += rest
                if isOwn { byteHead = offset(of: segment) + headSentByteCount }
                return
            }
            rest -= left
            headSentByteCount = 0
            segmentHead &+= 1
            if isOwn { byteHead = offset(of: segment) + segment.count }
        }
        if segmentHead == segmentTail {
            // Start over at the front: the ring's used part stays small and in the cache.
            byteHead = 0
            byteTail = 0
            endsInOwnBytes = false
        }
    }

    @inline(__always)
    private func isOwn(_ segment: UnsafeRawBufferPointer) -> Bool {
        let start = UInt(bitPattern: segment.baseAddress)
        return start &- UInt(bitPattern: bytes) < UInt(byteCapacity)
    }

    @inline(__always)
    private func offset(of segment: UnsafeRawBufferPointer) -> Int {
        Int(UInt(bitPattern: segment.baseAddress) &- UInt(bitPattern: bytes))
    }
}
