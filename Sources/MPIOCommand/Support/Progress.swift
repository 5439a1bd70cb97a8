import Foundation
import MPIO

/// One line of progress on a terminal's standard error, and nothing anywhere else.
struct Progress {
    let total: UInt64
    private let start = ContinuousClock.now
    private var lastDrawn: ContinuousClock.Instant?
    private let isShown: Bool

    init(total: UInt64, isShown: Bool = StandardError.isTerminal) {
        self.total = total
        self.isShown = isShown
    }

    /// Draws at most ten times a second.
    mutating func update(_ done: UInt64) {
        guard isShown else { return }
        let now = ContinuousClock.now
        if let lastDrawn, now - lastDrawn < .milliseconds(100) { return }
        lastDrawn = now
        let width = Terminal.size(STDERR_FILENO)?.columns ?? 80
        StandardError.write("\r\u{1B}[K" + Self.line(done: done, total: total, elapsed: now - start, width: width))
    }

    /// Takes the line away.
    mutating func finish() {
        guard isShown, lastDrawn != nil else { return }
        lastDrawn = nil
        StandardError.write("\r\u{1B}[K")
    }

    /// `████████░░░░  62%  6.2 GiB of 10.0 GiB  812.0 MB/s  5 s left`, as much of it as fits.
    static func line(done: UInt64, total: UInt64, elapsed: Duration, width: Int) -> String {
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
        let rate = seconds > 0 ? Double(done) / seconds : 0
        let share = total > 0 ? min(1, Double(done) / Double(total)) : 1
        var parts = [
            String(format: "%3d%%", Int(share * 100)), "\(HumanText.size(done)) of \(HumanText.size(total))",
            "\(HumanText.megabytes(rate)) MB/s",
        ]
        if rate > 0, done < total { parts.append("\(HumanText.span(seconds: Double(total - done) / rate)) left") }
        while parts.count > 1, parts.joined(separator: "  ").count >= width { parts.removeLast() }
        let text = parts.joined(separator: "  ")
        let room = min(30, width - text.count - 3)
        guard room >= 8 else { return text }
        let filled = Int((share * Double(room)).rounded(.down))
        return String(repeating: "█", count: filled) + String(repeating: "░", count: room - filled) + "  " + text
    }
}
