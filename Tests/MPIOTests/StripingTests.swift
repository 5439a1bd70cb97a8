import Testing

@testable import MPIO

/// How a disk's blocks are dealt to its lanes.
@Suite struct StripingTests {
    private struct Case {
        var striping: Striping
        var offset: UInt64
        var byteCount: Int
    }

    /// Ranges of whole blocks anywhere, short and long, on disks of any block size and number of lanes.
    private func cases(_ count: Int) -> [Case] {
        var random = SystemRandomNumberGenerator()
        return (0..<count).map { _ in
            let blockSize = [512, 520, 4096, 4160].randomElement(using: &random)!
            let striping = Striping(
                laneCount: Int.random(in: 1...7, using: &random), blockSize: blockSize,
                stripeLimitByteCount: [blockSize - 1, blockSize, 3 * blockSize, 10_000, 1 << 20].randomElement(using: &random)!)
            let stripe = UInt64(striping.stripeByteCount / blockSize)
            let start = UInt64.random(in: 0...(stripe * 20), using: &random)
            return Case(
                striping: striping, offset: start * UInt64(blockSize),
                byteCount: Int.random(in: 0...Int(stripe) * 20, using: &random) * blockSize)
        }
    }

    @Test func stripesAreWholeBlocks() {
        for (blockSize, expected) in [(512, 1 << 20), (4096, 1 << 20), (520, 1_048_320), (1 << 21, 1 << 21)] {
            #expect(Striping(laneCount: 2, blockSize: blockSize).stripeByteCount == expected)
        }
        #expect(Striping(laneCount: 2, blockSize: 512, stripeLimitByteCount: 1).stripeByteCount == 512)
    }

    @Test func theLanesPiecesAreTheRangeEachByteOnce() {
        for one in cases(2000) {
            let (striping, end) = (one.striping, one.offset + UInt64(one.byteCount))
            var found: [(offset: UInt64, byteCount: Int)] = []
            for lane in 0..<striping.laneCount {
                var offset = one.offset
                while let piece = striping.piece(ofLane: lane, from: offset, rest: Int(end - offset)) {
                    let start = offset + UInt64(piece.skipped)
                    #expect(piece.byteCount > 0 && start + UInt64(piece.byteCount) <= end)
                    #expect(striping.lane(at: start) == lane)
                    #expect(striping.stripeCount(start, piece.byteCount) == 1)
                    found.append((start, piece.byteCount))
                    offset = start + UInt64(piece.byteCount)
                }
            }
            var next = one.offset
            for piece in found.sorted(by: { $0.offset < $1.offset }) {
                #expect(piece.offset == next, "a gap, or twice")
                next += UInt64(piece.byteCount)
            }
            #expect(next == end)
            if one.byteCount > 0 {
                #expect(found.count == Int(striping.stripeCount(one.offset, one.byteCount)))
            }
        }
    }

    /// What makes lanes safe: requests that overlap meet.
    @Test func everyByteHasOneLane() {
        for one in cases(500) where one.byteCount > 0 {
            let last = one.offset + UInt64(one.byteCount) - 1
            if one.striping.stripeCount(one.offset, one.byteCount) == 1 {
                #expect(one.striping.lane(at: one.offset) == one.striping.lane(at: last))
            }
        }
        let two = Striping(laneCount: 2, blockSize: 4096)
        let offsets: [UInt64] = [0, 1_048_575, 1_048_576, 2_097_152, 3_145_728]
        #expect(offsets.map { two.lane(at: $0) } == [0, 0, 1, 0, 1])
    }

    @Test func whatNoDiskHasGoesToOneLane() {
        let two = Striping(laneCount: 2, blockSize: 512)
        let end = UInt64.max - 511
        #expect(two.stripeCount(end, 4096) == 1)
        #expect(two.stripeCount(0, -512) == 1)
        #expect(two.stripeCount(7, 0) == 1)
        #expect(two.stripeCount(0, Int.max) == 8_796_093_022_208)
        #expect(two.piece(ofLane: 1, from: 0, rest: 1 << 20) == nil)
    }
}
