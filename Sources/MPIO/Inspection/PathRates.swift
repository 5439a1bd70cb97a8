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
        /// By path index; nil where nothing was carried since the sample before, so that idle paths cost nothing.
        var latencies: [LatencyMark?]
    }

    /// Oldest first.
    private var samples: [Sample] = []

    /// `paths` may leave removed ones out; `latency` gives what a path, by its index, has recorded.
    mutating func add(_ paths: [Multipath.PathSnapshot], at now: Instant, latency: (Int) -> LatencyMark) {
        let previous = samples.last
        if samples.count == Self.capacity { samples.removeFirst() }
        let count = (paths.map(\.index.index).max() ?? -1) + 1
        var sample = Sample(at: now, counts: Array(repeating: (0, 0), count: count), latencies: Array(repeating: nil, count: count))
        for path in paths {
            let index = path.index.index
            sample.counts[index] = (path.requests, path.byteCount)
            guard let previous, previous.counts.indices.contains(index), previous.counts[index].requests == path.requests else {
                sample.latencies[index] = latency(index)
                continue
            }
            sample.latencies[index] = previous.latencies[index]
        }
        samples.append(sample)
    }

    /// What a path had recorded when the present rates begin; nil where that is too short a time ago.
    func latencyMark(of path: Multipath.PathSnapshot, at now: Instant) -> LatencyMark? {
        guard let oldest = oldest(path), now - oldest.at >= Self.shortestSpan else { return nil }
        return oldest.latencies[path.index.index]
    }

    private func oldest(_ path: Multipath.PathSnapshot) -> Sample? {
        samples.first { $0.counts.indices.contains(path.index.index) }
    }

    /// Requests and bytes per second from the oldest sample until now; nil where that is too short a time.
    func rate(of path: Multipath.PathSnapshot, at now: Instant) -> (requests: Double, bytes: Double)? {
        guard let oldest = oldest(path), now - oldest.at >= Self.shortestSpan else { return nil }
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

/// Samples every open disk once a second, as long as there is one: a few at a time, because requests wait meanwhile.
final class RateSampler: TimerHandler {
    static let disksAtOnce = 16

    private let port: any IOPort
    private var timer: TimerID?
    /// The disks that are open now.
    private let disks: () -> [DiskEngine]
    /// The place of the disk that is next.
    private var next = 0

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
        guard !open.isEmpty else {
            timer = nil
            return
        }
        if next >= open.count { next = 0 }
        let portion = open[next..<min(next + Self.disksAtOnce, open.count)]
        next = portion.endIndex
        for disk in portion { disk.rates.add(disk.lun.snapshot().paths, at: port.now) { disk.paths[$0].latency.marked() } }
        timer = port.setTimer(at: port.now + Self.pause(diskCount: open.count), handler: self, token: 0)
    }

    /// From one portion to the next, so that each disk's turn comes once in ``PathRates/interval``.
    static func pause(diskCount: Int) -> Duration {
        PathRates.interval / max(1, (diskCount + disksAtOnce - 1) / disksAtOnce)
    }

    func timerFired(_ timer: TimerID, token: UInt64) {
        self.timer = nil
        sample()
    }
}
