import Foundation
import MPIO

// What `mpio paths --record` writes: one JSON object per line. The first is a header; samples and events follow as they
// came. A sample is what `mpio paths --json` prints, with its moment and each path's latency since the sample before; an
// event is what `mpio events --json` prints. Names may be added, none renamed.

/// The first line of a recording.
struct RecordingHeader: Codable, Equatable {
    static let currentVersion = 1

    /// The version of the format.
    var recording = Self.currentVersion
    /// When it began, in RFC 3339.
    var at: String
    /// How often samples were to be taken.
    var everySeconds: Double
    /// Which LUNs were asked for; empty: all.
    var luns: [String]
    /// Who wrote it.
    var command: String

    enum CodingKeys: String, CodingKey {
        case recording, at, luns, command
        case everySeconds = "every_s"
    }
}

/// A line that says how LUNs of one process were at a moment.
struct RecordedSample: Encodable {
    /// The moment on two clocks, read one after the other: RFC 3339, and seconds of the machine's monotonic clock. The
    /// LUNs have theirs on the latter (``LUNSnapshot/clockSeconds``), events theirs on the former.
    var at: String
    var clockSeconds: Double
    var version = PathsReport.currentVersion
    var luns: [LUNSnapshot]

    enum CodingKeys: String, CodingKey {
        case at, version, luns
        case clockSeconds = "clock_s"
    }

    init(luns: [LUNSnapshot]) {
        at = Timestamp.format(Date())
        clockSeconds = MonotonicClock.seconds()
        self.luns = luns
    }
}

enum MonotonicClock {
    /// As the reactor counts.
    static func seconds() -> Double {
        var moment = timespec()
        clock_gettime(CLOCK_MONOTONIC, &moment)
        return Double(moment.tv_sec) + Double(moment.tv_nsec) / 1e9
    }
}

/// Turns the latencies that paths have counted so far into those of the time between two samples.
struct LatencyIntervals {
    private struct Key: Hashable {
        var lun: String
        var path: String
    }

    private var last: [Key: LatencyCounts] = [:]

    /// Fills ``PathSnapshot/intervalLatency``, from the second sample of a path on, and takes the counts out.
    mutating func take(_ lun: inout LUNSnapshot) {
        for index in lun.paths.indices {
            guard let counts = lun.paths[index].latencyCounts else { continue }
            lun.paths[index].latencyCounts = nil
            let key = Key(lun: lun.name, path: lun.paths[index].id)
            if let earlier = last.updateValue(counts, forKey: key) {
                lun.paths[index].intervalLatency = counts.summary(since: earlier)
            }
        }
    }
}
