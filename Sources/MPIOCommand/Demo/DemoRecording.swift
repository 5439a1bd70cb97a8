import Foundation
import MPIO

/// The demo's disk over time, in steps short enough to see a fail-over in.
final class DemoRecording: Sendable {
    static let period = Duration.milliseconds(25)

    private let samples: Task<LUNHistory?, Never>
    private let events: Task<[DiskEvent], Never>

    init(_ disk: MultipathDisk) {
        let stream = disk.events
        events = Task {
            var found: [DiskEvent] = []
            for await event in stream { found.append(event) }
            return found
        }
        samples = Task { await Self.follow(disk) }
    }

    /// Ends it without a result.
    func end() {
        samples.cancel()
        events.cancel()
    }

    /// What happened until now. Ends it.
    func history() async -> LUNHistory? {
        end()
        guard var history = await samples.value else { return nil }
        history.events = await events.value.map { event in
            .init(
                seconds: event.at.timeIntervalSince1970 - history.wallOffset, kind: event.kind, path: event.path,
                message: event.description)
        }
        return history
    }

    /// Until the task is cancelled, or the disk is closed. Nil where there was not one sample.
    private static func follow(_ disk: MultipathDisk) async -> LUNHistory? {
        var intervals = LatencyIntervals()
        var history: LUNHistory?
        var due = ContinuousClock.now
        while !Task.isCancelled, var lun = try? await disk.sample {
            intervals.take(&lun)
            let seconds = lun.clockSeconds ?? MonotonicClock.seconds()
            var known = history ?? LUNHistory(
                name: lun.name, policy: lun.policy, wallOffset: Date().timeIntervalSince1970 - MonotonicClock.seconds())
            for path in lun.paths {
                let point = LUNHistory.Point(
                    seconds: seconds, requests: path.requests, bytes: path.bytesRead &+ path.bytesWritten,
                    p99Microseconds: path.intervalLatency?.p99)
                _ = known.add(point, path: path.id, holder: getpid())
            }
            history = known
            due = max(due + period, .now)
            try? await Task.sleep(until: due, clock: .continuous)
        }
        return history
    }
}
