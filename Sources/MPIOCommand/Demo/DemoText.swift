import AsyncIO
import Foundation
import MPIO
import Multipath

/// What `mpio demo` prints.
struct DemoText: Sendable {
    var style = TextStyle()

    static let barWidth = 32

    func heading(_ number: Int, _ text: String) -> String {
        "\n" + style.paint("\(number)  \(text)", .bold) + "\n\n"
    }

    func opening(_ addresses: [SocketAddress]) -> String {
        var text = style.paint("mpio demo", .bold) + "  an iSCSI target in this process, on \(addresses.count) loopback addresses\n"
        text += style.paint("While it runs, 'mpio paths' in another terminal shows the same.", .dim) + "\n"
        return text
    }

    func table(_ report: PathsReport) -> String { PathsRenderer(style: style, now: Date()).render(report) }

    // MARK: Policies

    func policy(_ kind: PolicyKind, _ result: BenchResult, _ paths: [MPIO.PathSnapshot]) -> String {
        let rate = result.seconds > 0 ? Double(result.requests) / result.seconds : 0
        let bytes = result.seconds > 0 ? Double(result.byteCount) / result.seconds : 0
        var title = kind.rawValue + String(repeating: " ", count: max(1, 26 - kind.rawValue.count))
        title = style.paint(title, .bold) + "\(HumanText.rate(rate)) requests/s  \(HumanText.megabytes(bytes)) MB/s  "
        title += result.errors == 0 ? style.paint("verified", .green) : style.paint("\(result.errors) errors", .red)
        var text = "  " + title + "\n"
        let total = paths.reduce(0) { $0 + $1.requests }
        let width = paths.map(\.id.count).max() ?? 0
        for path in paths {
            let share = total > 0 ? Double(path.requests) / Double(total) : 0
            let hasStandby = kind == .failOverOnly || kind == .roundRobinWithSubset
            let role = path.weight.map { "weight \($0)" } ?? (hasStandby && path.role == "standby" ? "standby" : "")
            text += "    \(path.id)" + String(repeating: " ", count: width - path.id.count + 2)
            text += bar(share) + String(format: " %3.0f%%", share * 100) + (role.isEmpty ? "" : "  " + style.paint(role, .dim)) + "\n"
        }
        return text
    }

    /// A bar of eighths of a character, padded to its full width.
    func bar(_ share: Double) -> String {
        let eighths = Int((max(0, min(1, share)) * Double(Self.barWidth * 8)).rounded())
        var text = String(repeating: "█", count: eighths / 8)
        if eighths % 8 > 0 { text += ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8] }
        let rest = Self.barWidth - text.count
        return style.paint(text, .green) + style.paint(String(repeating: "·", count: rest), .dim)
    }

    // MARK: The cut

    func cut(_ path: String, _ notes: [(seconds: Double, text: String)]) -> String {
        "  " + style.paint("✂", .red) + "  the target resets its connections on \(path) and refuses new ones\n" + events(notes)
    }

    func mended(_ path: String, _ isBack: Bool, _ notes: [(seconds: Double, text: String)]) -> String {
        var text = "\n  " + style.paint("↻", .green) + "  \(path) accepts connections again\n" + events(notes)
        if !isBack { text += "     " + style.paint("it did not come back in time", .red) + "\n" }
        return text
    }

    private func events(_ notes: [(seconds: Double, text: String)]) -> String {
        var text = ""
        for note in notes.prefix(12) {
            let time = String(format: "%+7.0f ms", note.seconds * 1000)
            text += "     " + style.paint(time, .dim) + "  \(HumanText.printable(note.text))\n"
        }
        if notes.count > 12 { text += "     … and \(notes.count - 12) more\n" }
        return text + "\n"
    }

    /// A line of blocks, one for each interval, and below it what was done when.
    func curve(_ curve: Curve) -> String {
        let limit = max(20, (style.width ?? 100) - 4)
        let counts = Self.condensed(curve.counts, to: limit)
        let scale = curve.counts.isEmpty ? 1 : Double(counts.count) / Double(curve.counts.count)
        let highest = max(counts.max() ?? 0, 1)
        let blocks = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
        let line = counts.map { count in
            count == 0 ? " " : blocks[min(7, Int(count * 8 / highest))]
        }.joined()
        let every = Double(curve.sample.wholeMilliseconds) / scale
        var text = "\n  requests over time, \(Int(every.rounded())) ms each\n  " + style.paint(line, .green) + "\n"
        var remarks = ""
        for mark in curve.marks {
            let place = Int(Double(mark.place) * scale)
            // Two remarks that would run into each other are parted by a space.
            let gap = max(place - remarks.count, remarks.isEmpty ? 0 : 1)
            remarks += String(repeating: " ", count: gap) + "↑" + mark.text
        }
        text += "  " + style.paint(remarks, .dim) + "\n"
        return text
    }

    /// Neighbours are averaged until there are at most `limit`.
    static func condensed(_ counts: [UInt64], to limit: Int) -> [UInt64] {
        guard counts.count > limit else { return counts }
        return (0..<limit).map { place in
            let range = place * counts.count / limit..<(place + 1) * counts.count / limit
            return range.isEmpty ? 0 : counts[range].reduce(0, +) / UInt64(range.count)
        }
    }

    // MARK: The end

    func closing(_ totals: Demo.Totals, elapsed: Duration) -> String {
        func row(_ name: String, _ value: String, _ remark: String, _ colour: TextStyle.Colour? = nil) -> String {
            let padding = String(repeating: " ", count: max(0, 10 - value.count))
            return "  " + name + String(repeating: " ", count: 18 - name.count) + padding + style.paint(value, colour)
                + (remark.isEmpty ? "" : "  " + style.paint(remark, .dim)) + "\n"
        }
        var text = heading(4, "The count")
        text += row("requests issued", Self.grouped(totals.requests), "4 KiB each, every write read back")
        text += row("re-driven", Self.grouped(totals.redriven), "on another path, when theirs was cut")
        text += row("lost", Self.grouped(totals.lost), "", totals.lost == 0 ? .green : .red)
        text += row("wrong data", Self.grouped(totals.mismatches), "", totals.mismatches == 0 ? .green : .red)
        text += row("longest pause", HumanText.latency(microseconds: Double(totals.longestPauseNanoseconds) / 1000), "in which no request ended")
        let seconds = HumanText.span(seconds: Double(elapsed.wholeMilliseconds) / 1000)
        if totals.isGood {
            text += "\n  " + style.paint("Nothing was lost.", .green) + "  \(seconds). Storage of your own: mpio discover PORTAL --write-config mpio.yaml\n"
        } else if totals.lost == 0, totals.mismatches == 0 {
            text += "\n  " + style.paint("Nothing was lost, but the path did not come back.", .red) + "  \(seconds).\n"
        } else {
            text += "\n  " + style.paint("Requests were lost or their data was wrong: this is a defect of mpio.", .red) + "  \(seconds).\n"
        }
        return text
    }

    /// `1,234,567`
    static func grouped(_ number: UInt64) -> String {
        let digits = Array(String(number))
        var text = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { text += "," }
            text.append(digit)
        }
        return text
    }
}
