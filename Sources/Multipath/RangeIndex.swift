/// A quick "certainly nothing there" for ranges of blocks: counters of small pieces of the disk, hashed.
///
/// `mightOverlap` is exact when it says no; when it says yes the caller compares ranges.
struct RangeIndex: ~Copyable {
    /// Eight blocks: 4 KiB of 512-byte blocks, the smallest request that is common.
    private static let pieceShift: UInt64 = 3
    /// Ranges of more pieces are only counted as wide; each of them makes every check exact.
    private static let widePieceCount: UInt64 = 256
    private static let slotCount = 8192

    private let counts: UnsafeMutablePointer<UInt32>
    private var wideCount = 0
    private var count = 0

    init() {
        counts = .allocate(capacity: Self.slotCount)
        counts.initialize(repeating: 0, count: Self.slotCount)
    }

    deinit { counts.deallocate() }

    @inline(__always)
    private static func slot(_ piece: UInt64) -> Int {
        // Neighbouring pieces keep neighbouring counters, so that a long range walks memory in order.
        Int(truncatingIfNeeded: (piece &+ (piece >> 13) &* 0x9E37) & UInt64(slotCount - 1))
    }

    @inline(__always)
    private static func pieces(_ lba: UInt64, _ blockCount: UInt32) -> (first: UInt64, last: UInt64) {
        let end = lba.addingReportingOverflow(UInt64(max(blockCount, 1)) - 1)
        return (lba >> pieceShift, (end.overflow ? .max : end.partialValue) >> pieceShift)
    }

    @inline(__always)
    mutating func insert(_ lba: UInt64, _ blockCount: UInt32) { change(lba, blockCount, by: 1) }

    @inline(__always)
    mutating func remove(_ lba: UInt64, _ blockCount: UInt32) { change(lba, blockCount, by: .max) }

    private mutating func change(_ lba: UInt64, _ blockCount: UInt32, by step: UInt32) {
        count += step == 1 ? 1 : -1
        let (first, last) = Self.pieces(lba, blockCount)
        if last - first >= Self.widePieceCount {
            wideCount += step == 1 ? 1 : -1
            return
        }
        var piece = first
        while piece <= last {
            counts[Self.slot(piece)] &+= step
            piece += 1
        }
    }

    func mightOverlap(_ lba: UInt64, _ blockCount: UInt32) -> Bool {
        if count == 0 { return false }
        if wideCount > 0 { return true }
        let (first, last) = Self.pieces(lba, blockCount)
        if last - first >= Self.widePieceCount { return true }
        var piece = first
        while piece <= last {
            if counts[Self.slot(piece)] != 0 { return true }
            piece += 1
        }
        return false
    }

    var isEmpty: Bool { count == 0 }
}
