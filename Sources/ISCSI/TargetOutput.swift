/// What one connection of a target has to send: small things (headers, digests, padding, sense, text)
/// copied into a ring so that neighbours leave as one segment, large data named where it lies.
///
/// Memory that was named stays unchanged until it was sent. Owned by one thread.
struct TargetOutput: ~Copyable {
    private struct Entry {
        var base: UnsafeRawPointer
        var count: Int
        /// Given back to the pool when the entry was sent.
        var buffer: TargetBuffer
        /// End of the entry's part of the ring; -1 for data that lies elsewhere.
        var ringEnd: Int
    }

    /// Large enough for what one receive of the largest size can provoke; touched only as far as used.
    static let ringByteCount = 1 << 20
    private static let entryCapacity = 2048
    private static let ringReserve = 64 << 10

    private let ring: UnsafeMutableRawPointer
    private var ringHead = 0
    private var ringTail = 0
    private let entries: UnsafeMutablePointer<Entry>
    private var first = 0
    private var entryCount = 0
    /// Bytes of the first entry that were sent.
    private var firstSent = 0
    /// Bytes queued and not yet sent.
    private(set) var byteCount = 0
    private var ringUsed = 0
    private let pool: TargetBufferPool
    /// Memory that entries may still name after its command is over; given back with the queue.
    private var adopted: [TargetBuffer] = []

    init(pool: TargetBufferPool) {
        self.pool = pool
        ring = .allocate(byteCount: Self.ringByteCount, alignment: 64)
        entries = .allocate(capacity: Self.entryCapacity)
    }

    deinit {
        for index in 0..<entryCount { pool.release(entries[(first + index) % Self.entryCapacity].buffer) }
        for buffer in adopted { pool.release(buffer) }
        entries.deallocate()
        ring.deallocate()
    }

    /// Keeps a buffer for as long as the queue may be sent from.
    mutating func adopt(_ buffer: TargetBuffer) {
        guard buffer.base != nil else { return }
        if isEmpty { pool.release(buffer) } else { adopted.append(buffer) }
    }

    var isEmpty: Bool { entryCount == 0 }

    /// Room for another PDU with data, and a reserve left for answers that cannot wait.
    var hasRoom: Bool {
        entryCount + 8 < Self.entryCapacity / 2 && ringUsed + Self.ringReserve < Self.ringByteCount / 2
    }

    /// So much waits that no more input should be taken.
    var isCongested: Bool { !hasRoom || byteCount > 8 << 20 }

    // MARK: putting in

    /// `count` contiguous bytes at the end of the queue, to be filled by the caller; nil where the ring or
    /// the table is full: the peer makes us answer more than it takes.
    @inline(__always)
    mutating func reserve(_ count: Int) -> UnsafeMutableRawPointer? {
        if entryCount == 0 || ringUsed == 0 { (ringHead, ringTail, ringUsed) = (0, 0, 0) }
        var offset = ringHead
        if ringHead >= ringTail, ringUsed == 0 || ringHead > ringTail {
            if Self.ringByteCount - ringHead < count {
                guard ringTail > count else { return nil }
                ringUsed += Self.ringByteCount - ringHead
                offset = 0
            }
        } else if ringTail - ringHead <= count {
            return nil
        }
        if entryCount > 0 {
            let last = entries + (first + entryCount - 1) & (Self.entryCapacity - 1)
            if last.pointee.ringEnd == offset {
                last.pointee.count += count
                last.pointee.ringEnd += count
                return took(offset, count)
            }
        }
        guard entryCount < Self.entryCapacity else { return nil }
        append(Entry(base: UnsafeRawPointer(ring + offset), count: count, buffer: .none, ringEnd: offset + count))
        return took(offset, count)
    }

    private mutating func took(_ offset: Int, _ count: Int) -> UnsafeMutableRawPointer {
        ringHead = offset + count
        ringUsed += count
        byteCount += count
        return ring + offset
    }

    /// Data sent from where it lies; `buffer` goes back to the pool when it is out. `hasRoom` was asked before.
    @inline(__always)
    mutating func appendData(_ data: UnsafeRawBufferPointer, buffer: TargetBuffer) {
        precondition(entryCount < Self.entryCapacity, "asked for room before")
        append(Entry(base: data.baseAddress!, count: data.count, buffer: buffer, ringEnd: -1))
        byteCount += data.count
    }

    private mutating func append(_ entry: Entry) {
        (entries + (first + entryCount) & (Self.entryCapacity - 1)).initialize(to: entry)
        entryCount += 1
    }

    // MARK: taking out

    func segments(into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        let count = min(entryCount, segments.count)
        for index in 0..<count {
            let entry = entries + (first + index) & (Self.entryCapacity - 1)
            let skipped = index == 0 ? firstSent : 0
            segments[index] = UnsafeRawBufferPointer(
                start: entry.pointee.base + skipped, count: entry.pointee.count - skipped)
        }
        return count
    }

    mutating func sent(_ sentByteCount: Int) {
        precondition(sentByteCount <= byteCount, "more was sent than was there")
        byteCount -= sentByteCount
        var rest = sentByteCount
        while entryCount > 0 {
            let entry = entries[first]
            let left = entry.count - firstSent
            guard rest >= left else {
                firstSent += rest
                return
            }
            rest -= left
            firstSent = 0
            if entry.ringEnd >= 0 { freeRing(upTo: entry.ringEnd) } else { pool.release(entry.buffer) }
            first = (first + 1) & (Self.entryCapacity - 1)
            entryCount -= 1
            if rest == 0 { return }
        }
    }

    private mutating func freeRing(upTo end: Int) {
        if end <= ringTail {
            // Past the gap that was left at the ring's end.
            ringUsed -= Self.ringByteCount - ringTail + end
        } else {
            ringUsed -= end - ringTail
        }
        ringTail = end
    }
}
