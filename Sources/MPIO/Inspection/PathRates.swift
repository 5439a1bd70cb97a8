import AsyncIO
import Multipath
import Timebase

/// How fast each path of a disk was over the last one to two seconds, from samples of its counters.
struct PathRates {
    /// One sample in this time.
    static let interval = Duration.seconds(1)
    /// Samples that are kept: the rate is over as many intervals at most.
    static let capacity = 2
    /// Over less than this a rate says nothing.
    private static let shortestSpan = Duration.milliseconds(500)

    private struct Sample {
        var at: Instant
        /// By path index.
        var counts: [(requests: UInt64, bytes: UInt64)]
    }

    /// Oldest first.
    private var samples: [Sample] = []

    mutating func add(_ paths: [Multipath.PathSnapshot], at now: Instant) {
        if samples.count == Self.capacity { samples.removeFirst() }
        samples.append(Sample(at: now, counts: paths.map { ($0.requests, $0.byteCount) }))
    }

    /// Requests and bytes per second from the oldest sample until now; nil where that is too short a time.
    func rate(of path: Multipath.PathSnapshot, at now: Instant) -> (requests: Double, bytes: Double)? {
        guard let oldest = samples.first(where: { $0.counts.indices.contains(path.index.index) }), now - oldest.at >= Self.shortestSpan
        else { return nil }
        let count = oldest.counts[path.index.index]
        let seconds = (now - oldest.at) / .seconds(1)
        // Counters only grow; were one set back, no rate is better than an absurd one.
        guard path.requests >= count.requests, path.byteCount >= count.bytes else { return nil }
        return (Double(path.requests - count.requests) / seconds, Double(path.byteCount - count.bytes) / seconds)
    }
}

extension Multipath.PathSnapshot {
    fileprivate var byteCount: UInt64 { bytesRead &+ bytesWritten }
}

/// Samples every open disk once a second, as long as there is one.
final class RateSampler: TimerHandler {
    private let port: any IOPort
    private var timer: TimerID?
    /// The disks that are open now.
    private let disks: () -> [DiskEngine]

    init(port: any IOPort, disks: @escaping () -> [DiskEngine]) {
        self.port = port
        self.disks = disks
    }

    /// To be called when a disk was added.
    func start() {
        guard timer == nil else { return }
        sample()
    }

    func stop() {
        if let timer { port.cancelTimer(timer) }
        timer = nil
    }

    private func sample() {
        let open = disks()
        for disk in open { disk.rates.add(disk.lun.snapshot().paths, at: port.now) }
        timer = open.isEmpty ? nil : port.setTimer(at: port.now + PathRates.interval, handler: self, token: 0)
    }

    func timerFired(_ timer: TimerID, token: UInt64) {
        self.timer = nil
        sample()
    }
}
