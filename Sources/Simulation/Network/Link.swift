import Timebase

/// The way between an address of the initiator and a portal, both directions: what is slow, silent or
/// corrupt about it.
final class Link {
    let index: Int
    /// The path whose connections use it.
    let path: Int
    var directions: [LinkDirection]
    /// Largest number of bytes that travel as one.
    var segmentByteCount: Int
    /// Bytes that one end's kernel holds for the other.
    var bufferByteCount: Int
    /// Connections over it that have not ended, in the order of their making.
    var connections: [Endpoint] = []
    /// Whether bytes may be changed on the way: both digests are on, and login, which has none, is over.
    var mayCorrupt: (Endpoint) -> Bool = { _ in false }

    init(index: Int, path: Int, directions: [LinkDirection], segmentByteCount: Int, bufferByteCount: Int) {
        self.index = index
        self.path = path
        self.directions = directions
        self.segmentByteCount = segmentByteCount
        self.bufferByteCount = bufferByteCount
    }

    static let toTarget = 0
    static let toInitiator = 1
}

struct LinkDirection {
    var latency: Duration
    /// So much more for a while.
    var extraLatency = Duration.zero
    var jitter: Duration
    var bytesPerSecond: Int
    /// Slow drip: this rate instead.
    var dripBytesPerSecond: Int?
    /// Everything sent this way is lost.
    var isSilent = false
    /// This many segments to come have a byte changed.
    var corruptions = 0
    /// When the last byte so far has left.
    var busyUntil = Instant.zero

    var rate: Int { dripBytesPerSecond ?? bytesPerSecond }
}
