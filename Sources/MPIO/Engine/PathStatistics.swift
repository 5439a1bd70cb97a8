import Multipath
import Timebase

/// What one path of one disk has done, since the disk was opened. Counters only grow; rates are
/// differences that whoever looks takes.
struct PathStatistics: ~Copyable {
    var requests: UInt64 = 0
    var bytesRead: UInt64 = 0
    var bytesWritten: UInt64 = 0
    var errors: UInt64 = 0
    var inFlight = 0
    var inFlightBytes = 0
    var latency = LatencyHistogram()
    var lastError: (at: Instant, failure: PathFailure)?
}
