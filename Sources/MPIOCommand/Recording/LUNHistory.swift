import Foundation
import MPIO

/// What is known of one LUN over time: counters of its paths at moments, and events. Times are seconds of the machine's
/// monotonic clock.
struct LUNHistory: Sendable {
    /// A path's counters at a moment.
    struct Point: Equatable, Sendable {
        var seconds: Double
        var requests: UInt64
        var bytes: UInt64
        /// Since the point before; nil where nothing was carried, or it is not known.
        var p99Microseconds: Double?
    }

    /// What one process says of one path. Two processes that hold a LUN have a curve each of the same path.
    struct Curve: Sendable {
        var path: String
        var holder: Int32
        var points: [Point]
    }

    struct Event: Equatable, Sendable {
        var seconds: Double
        var kind: String
        var path: String?
        var message: String
    }

    let name: String
    /// The policy when it began.
    let policy: String
    /// In the order in which paths were first seen.
    private(set) var curves: [Curve] = []
    var events: [Event] = []
    /// What the wall clock, in seconds since 1970, is ahead of the monotonic one.
    var wallOffset: Double
    private var places: [Key: Int] = [:]

    private struct Key: Hashable {
        var path: String
        var holder: Int32
    }

    init(name: String, policy: String, wallOffset: Double) {
        self.name = name
        self.policy = policy
        self.wallOffset = wallOffset
    }

    /// Adds a point at the end of a path's curve. False, and it is not added: it is older than the curve's last one.
    mutating func add(_ point: Point, path: String, holder: Int32) -> Bool {
        let key = Key(path: path, holder: holder)
        guard let place = places[key] else {
            places[key] = curves.count
            curves.append(Curve(path: path, holder: holder, points: [point]))
            return true
        }
        guard point.seconds >= curves[place].points[curves[place].points.count - 1].seconds else { return false }
        curves[place].points.append(point)
        return true
    }

    /// From the first point to the last; nil where there is no point.
    var span: (start: Double, end: Double)? {
        let starts = curves.compactMap(\.points.first?.seconds), ends = curves.compactMap(\.points.last?.seconds)
        guard let start = starts.min(), let end = ends.max() else { return nil }
        return (start, end)
    }
}
