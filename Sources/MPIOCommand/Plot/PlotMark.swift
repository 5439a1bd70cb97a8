import MPIO

/// An event, as a vertical line in the picture.
struct PlotMark: Equatable, Sendable {
    enum Meaning: Int, Sendable, CaseIterable {
        /// Something was lost.
        case loss
        /// Somebody or something changed what goes where.
        case change
        /// Something is back.
        case gain
    }

    /// Since the picture begins.
    var seconds: Double
    var meaning: Meaning
    /// A few words.
    var label: String
    var path: String?
    /// All of it.
    var message: String

    /// Nil for events that do not show: remarks, and kinds that are not known.
    init?(_ event: LUNHistory.Event, seconds: Double) {
        guard let (meaning, label) = Self.words(event.kind, event.message) else { return nil }
        self.init(seconds: seconds, meaning: meaning, label: label, path: event.path, message: event.message)
    }

    init(seconds: Double, meaning: Meaning, label: String, path: String? = nil, message: String) {
        self.seconds = seconds
        self.meaning = meaning
        self.label = label
        self.path = path
        self.message = message
    }

    private static func words(_ kind: String, _ message: String) -> (Meaning, String)? {
        switch kind {
        case "path-lost": (.loss, "path lost")
        case "path-regained": (.gain, "path back")
        case "path-refused": (.loss, "path refused")
        case "path-marginal": (.loss, "marginal")
        case "path-no-longer-marginal": (.gain, "trusted again")
        case "path-stalled": (.loss, "path stalled")
        case "path-resumed": (.gain, "path speaks again")
        case "path-slow": message.contains("no longer") ? (.gain, "no longer slow") : (.loss, "path slow")
        case "path-drained": (.change, "drained")
        case "path-taken-out": (.change, "taken out")
        case "path-restored": (.change, "taken back in")
        case "path-added": (.change, "path added")
        case "path-removed": (.change, "path removed")
        case "access-state-changed": (.change, "ALUA state")
        case "fail-over": (.change, "fail-over")
        case "fail-back": (.change, "fail-back")
        case "all-paths-lost": (.loss, "all paths lost")
        case "paths-available-again": (.gain, "a path again")
        case "remove-period-expired": (.loss, "requests failed")
        case "guard-raised": (.change, "guard raised")
        case "guard-cleared": (.gain, "guard cleared")
        case "policy-changed": (.change, "policy changed")
        case "settings-changed": (.change, "settings changed")
        case "role-changed": (.change, "role changed")
        case "weight-changed": (.change, "weight changed")
        case "connection-policy-changed": (.change, "connection policy changed")
        case "capacity-changed": (.change, "capacity changed")
        case "connection-lost": (.loss, "connection lost")
        case "connection-regained": (.gain, "connection back")
        case "request-timed-out": (.loss, "request timed out")
        case "lun-failed": (.loss, "LUN given up")
        default: nil
        }
    }
}

/// Marks that would be drawn on one another, and so share a line and a label.
struct PlotMarkGroup: Equatable {
    /// Where its line is, from the left edge of the picture.
    var x: Double
    var marks: [PlotMark]

    /// The gravest.
    var meaning: PlotMark.Meaning { marks.map(\.meaning).min { $0.rawValue < $1.rawValue } ?? .change }
    /// The first path that is named.
    var path: String? { marks.lazy.compactMap(\.path).first }

    /// `path lost · fail-over`; `path lost ×3`.
    var label: String {
        var words: [(text: String, count: Int)] = []
        for mark in marks {
            if let place = words.firstIndex(where: { $0.text == mark.label }) {
                words[place].count += 1
            } else {
                words.append((mark.label, 1))
            }
        }
        return words.map { $0.count > 1 ? "\($0.text) ×\($0.count)" : $0.text }.joined(separator: " · ")
    }

    /// Groups marks, in the order of their moments, whose lines would be nearer than `distance`.
    static func groups(_ marks: [PlotMark], distance: Double, x: (Double) -> Double) -> [PlotMarkGroup] {
        var groups: [PlotMarkGroup] = []
        for mark in marks {
            let place = x(mark.seconds)
            if let last = groups.last, place - last.x < distance {
                groups[groups.count - 1].marks.append(mark)
            } else {
                groups.append(PlotMarkGroup(x: place, marks: [mark]))
            }
        }
        return groups
    }
}

/// Where the labels of lines go, so that no two overlap and no line goes through a label.
enum PlotLabels {
    struct Place: Equatable {
        /// From 0, the topmost.
        var lane: Int
        /// The label is to the left of its line rather than to the right.
        var isLeft: Bool
    }

    /// - Parameters:
    ///   - lines: where each line is, ascending, and how wide its label, which hangs to the right of it.
    ///   - limits: where labels may be.
    /// - Returns: a place for each, nil where there is none. A line begins in its label's lane, or below all lanes, and goes down.
    static func places(_ lines: [(x: Double, width: Double)], within limits: ClosedRange<Double>, laneCount: Int) -> [Place?] {
        var places: [Place?] = Array(repeating: nil, count: lines.count)
        // What each lane is taken by so far, by its right end, and the end of the last line to the left.
        var ends = [Double](repeating: limits.lowerBound, count: laneCount)
        for (index, line) in lines.enumerated() {
            // Under every label that reaches this far: so its line goes through none.
            let lane = (ends.lastIndex { $0 > line.x } ?? -1) + 1
            if lane < laneCount, line.x + line.width <= limits.upperBound {
                places[index] = Place(lane: lane, isLeft: false)
                ends[lane] = line.x + line.width
                continue
            }
            // To the left where nothing at all is in the way.
            let left = line.x - line.width
            let lastLine = index > 0 ? lines[index - 1].x : -.infinity
            if left >= limits.lowerBound, left > lastLine, ends.allSatisfy({ $0 <= left }) {
                places[index] = Place(lane: 0, isLeft: true)
                ends[0] = line.x
            }
        }
        return places
    }
}
