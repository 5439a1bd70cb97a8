/// Which part of a disk one engine is: its number among those that share the disk's blocks.
///
/// A disk that is spread over reactors has several lanes, each an engine of its own with sessions of its own. A block belongs to one
/// lane for as long as the disk is open, so that requests which overlap always meet in one engine: the order of
/// writes, their repetition and the stale-write guard stay what they are with one.
package struct Lane: Hashable, Sendable {
    /// From 0.
    package var number: Int
    /// How many there are.
    package var count: Int
    /// The most bytes of a stripe, of which a disk takes the whole blocks.
    package var stripeLimitByteCount: Int

    /// What lies in one piece on one lane: as much as one command carries, so that splitting costs nothing more.
    package static let stripeByteCount = TransferLimits.largestTransferByteCount
    /// The only one of its disk.
    package static let only = Lane(number: 0, count: 1)

    package init(number: Int, count: Int, stripeLimitByteCount: Int = Self.stripeByteCount) {
        precondition(count > 0 && (0..<count).contains(number), "a lane is one of its disk's")
        self.number = number
        self.count = count
        self.stripeLimitByteCount = stripeLimitByteCount
    }
}

/// How a disk's blocks are dealt to its lanes: in stripes, in turn.
package struct Striping: Hashable, Sendable {
    package let laneCount: Int
    /// A multiple of the block size.
    package let stripeByteCount: Int

    package init(laneCount: Int, blockSize: Int, stripeLimitByteCount: Int = Lane.stripeByteCount) {
        precondition(laneCount > 0 && blockSize > 0, "a disk has lanes and blocks")
        self.laneCount = laneCount
        stripeByteCount = max(stripeLimitByteCount / blockSize, 1) * blockSize
    }

    /// The lane of the byte at `offset`.
    @inline(__always)
    package func lane(at offset: UInt64) -> Int { Int(offset / UInt64(stripeByteCount) % UInt64(laneCount)) }

    /// How many stripes a range touches. A range that no disk has counts as one: whichever lane gets it refuses it.
    @inline(__always)
    package func stripeCount(_ offset: UInt64, _ byteCount: Int) -> UInt64 {
        guard byteCount > 0 else { return 1 }
        let (last, overflow) = offset.addingReportingOverflow(UInt64(byteCount) - 1)
        guard !overflow else { return 1 }
        return last / UInt64(stripeByteCount) - offset / UInt64(stripeByteCount) + 1
    }

    /// The first piece of `rest` bytes from `offset` that lies on a lane: bytes to skip, and bytes from there in one stripe. Nil: none does.
    package func piece(ofLane lane: Int, from offset: UInt64, rest: Int) -> (skipped: Int, byteCount: Int)? {
        guard rest > 0 else { return nil }
        let stripe = UInt64(stripeByteCount)
        let number = offset / stripe
        let behind = (lane - Int(number % UInt64(laneCount)) + laneCount) % laneCount
        let start = behind == 0 ? offset : (number + UInt64(behind)) * stripe
        guard start - offset < UInt64(rest) else { return nil }
        let skipped = Int(start - offset)
        return (skipped, min(rest - skipped, Int(stripe - start % stripe)))
    }
}

/// What one lane has to tell the others.
package enum LaneNews: Sendable {
    /// It had the unit reset, which ended the commands of all nexuses.
    case unitWasReset
    /// It has seen another capacity.
    case capacityChanged
}
