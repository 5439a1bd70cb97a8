public import Foundation

/// How text may look where it goes.
public struct TextStyle: Hashable, Sendable {
    /// Whether escape sequences for colours are understood there.
    public var usesColour: Bool
    /// Columns of the terminal; nil: no limit.
    public var width: Int?

    /// A style; by default plain text of any width.
    public init(usesColour: Bool = false, width: Int? = nil) {
        self.usesColour = usesColour
        self.width = width
    }

    /// What is painted; the raw value is the SGR parameter.
    public enum Colour: String, Sendable {
        /// Well.
        case green = "32"
        /// Worse than it should be.
        case yellow = "33"
        /// Failed.
        case red = "31"
        /// What is looked for first.
        case bold = "1"
        /// What is seldom looked at.
        case dim = "2"
    }

    /// The text in this colour where colours are used; otherwise, and for nil, as it is.
    public func paint(_ text: String, _ colour: Colour?) -> String {
        guard usesColour, let colour, !text.isEmpty else { return text }
        return "\u{1B}[\(colour.rawValue)m\(text)\u{1B}[0m"
    }

    /// `parts` on as few lines as the width allows, all of them indented or, where `hanging`, all but the first. Each line ends
    /// with a line break; no part is cut.
    package func wrapped(_ parts: [String], separator: String, indentation: Int, hanging: Bool = false) -> String {
        let margin = String(repeating: " ", count: indentation)
        var lines: [(text: String, count: Int)] = []
        for part in parts {
            let count = part.count - (usesColour ? escapeCount(part) : 0)
            if let last = lines.last, width.map({ last.count + separator.count + count <= $0 }) ?? true {
                lines[lines.count - 1] = (last.text + separator + part, last.count + separator.count + count)
            } else {
                let isFlush = hanging && lines.isEmpty
                lines.append((isFlush ? part : margin + part, isFlush ? count : indentation + count))
            }
        }
        return lines.map { $0.text + "\n" }.joined()
    }

    private func escapeCount(_ text: String) -> Int {
        text.count - text.replacing(/\u{1B}\[[0-9]*m/, with: "").count
    }
}

/// Writes a ``PathsReport`` as the tables of `mpio paths`.
public struct PathsRenderer {
    /// How it may look.
    public var style: TextStyle
    /// The moment that "12 s ago" counts from.
    public var now: Date

    /// A renderer for a terminal or a file of this style.
    public init(style: TextStyle = TextStyle(), now: Date) {
        self.style = style
        self.now = now
    }

    /// Ends with a line break; empty for a report without LUNs. Many LUNs get a line of sums on top.
    public func render(_ report: PathsReport) -> String {
        let text = report.luns.map { render($0) }.joined(separator: "\n")
        return report.luns.count > Self.fewLUNs ? sums(report) + "\n" + text : text
    }

    private static let fewLUNs = 8

    /// The first part of what is shown piece by piece: what processes hold, while `awaited` others are looked at.
    package func renderHeld(_ report: PathsReport, awaited: Int, isBrief: Bool) -> String {
        if isBrief { return sums(report, awaited: awaited) + briefTable(report) }
        let text = report.luns.map { render($0) }.joined(separator: "\n")
        return report.luns.count + awaited > Self.fewLUNs ? sums(report, awaited: awaited) + "\n" + text : text
    }

    /// The other part: LUNs that nobody holds.
    package func renderLookedAt(_ report: PathsReport, isBrief: Bool) -> String {
        "\n" + (isBrief ? briefTable(report) : report.luns.map { render($0) }.joined(separator: "\n"))
    }

    /// `256 LUNs, 1024 paths: 250 optimal, 6 degraded`.
    private func sums(_ report: PathsReport, awaited: Int = 0) -> String {
        let states = LUNState.allCases.compactMap { state -> String? in
            let count = report.luns.count { $0.state == state }
            return count > 0 ? "\(count) " + style.paint(state.rawValue, state.colour) : nil
        }
        let paths = report.luns.reduce(0) { $0 + $1.paths.count }
        return "\(report.luns.count) LUN\(report.luns.count == 1 ? "" : "s"), \(paths) path\(paths == 1 ? "" : "s"): " + states.joined(separator: ", ")
            + (awaited > 0 ? "; \(awaited) more that nobody holds \(awaited == 1 ? "is" : "are") looked at" : "") + "\n"
    }

    /// One line for each LUN: how it is and what it carries.
    public func renderBrief(_ report: PathsReport) -> String { sums(report) + briefTable(report) }

    private func briefTable(_ report: PathsReport) -> String {
        var table = TextTable(columns: [
            .init(title: "LUN", alignment: .left, minimumWidth: 8, sacrifice: nil),
            .init(title: "STATE", alignment: .left, minimumWidth: 8, sacrifice: nil),
            .init(title: "PATHS", alignment: .right, minimumWidth: 5, sacrifice: nil),
            .init(title: "QUEUE", alignment: .right, minimumWidth: 5, sacrifice: 2),
            .init(title: "IOPS", alignment: .right, minimumWidth: 6, sacrifice: 3),
            .init(title: "MB/s", alignment: .right, minimumWidth: 6, sacrifice: 4),
            .init(title: "POLICY", alignment: .left, minimumWidth: 6, sacrifice: 5),
            .init(title: "LAST", alignment: .left, minimumWidth: 4, sacrifice: 6),
        ])
        for lun in report.luns {
            let well = lun.paths.count { $0.state.isWell }
            let sick = lun.paths.first { !$0.state.isWell }
            let rate = { (value: (PathSnapshot) -> Double?) in lun.paths.compactMap(value).reduce(0, +) }
            table.rows.append([
                HumanText.printable(lun.name), lun.state.rawValue, "\(well)/\(lun.paths.count)",
                String(lun.queued + lun.paths.reduce(0) { $0 + $1.inFlight }), HumanText.rate(rate { $0.requestsPerSecond }),
                HumanText.megabytes(rate { $0.bytesPerSecond }), lun.policy,
                sick.map(trouble) ?? lun.error.map(HumanText.printable) ?? "",
            ])
        }
        let kept = table.fittingColumns(limit: style.width, indentation: 0)
        var text = style.paint(table.line(table.titles, columns: kept), .dim) + "\n"
        for (lun, row) in zip(report.luns, table.rows) {
            text += table.line(row, columns: kept) { $0 == 1 ? style.paint($1, lun.state.colour) : $1 } + "\n"
        }
        return text
    }

    /// `10.0.2.10:3260 failed: connection reset 12 s ago`.
    private func trouble(_ path: PathSnapshot) -> String {
        let why = last(path)
        return "\(HumanText.printable(path.id)) \(path.state.rawValue)" + (why.isEmpty ? "" : ": " + why)
    }

    /// One LUN: two lines of facts, a heading, and a line for each path.
    public func render(_ lun: LUNSnapshot) -> String {
        var text = heading(lun) + "\n"
        text += style.wrapped(facts(lun), separator: "   ", indentation: 2)
        text += table(lun)
        return text
    }

    private func heading(_ lun: LUNSnapshot) -> String {
        var parts = [style.paint(HumanText.printable(lun.name), .bold), HumanText.printable(lun.identity ?? "identity unknown")]
        let model = [lun.vendor, lun.product].map { trimmed($0) }.filter { !$0.isEmpty }.joined(separator: " ")
        if !model.isEmpty { parts.append(model) }
        if lun.capacityBytes > 0 { parts.append("\(HumanText.size(lun.capacityBytes)), \(lun.blockSize) B blocks") }
        // The first line begins at the margin, those that it needs more stand under it.
        return String(style.wrapped(parts, separator: "  ", indentation: 2, hanging: true).dropLast())
    }

    private func trimmed(_ text: String) -> String {
        HumanText.printable(text).trimmingCharacters(in: .whitespaces)
    }

    private func facts(_ lun: LUNSnapshot) -> [String] {
        var state = style.paint(lun.state.rawValue, lun.state.colour)
        if let words = lun.troubles { state += " (\(words))" }
        var facts = ["policy \(lun.policy)", "dsm \(lun.dsm)", "state \(state)", "fence \(lun.fence)"].map { $0 }
        if let seconds = lun.noPathSeconds {
            var words = "no path for \(HumanText.span(seconds: seconds))"
            if lun.queued > 0 {
                words += ", \(lun.queued) \(lun.queued == 1 ? "request waits" : "requests wait")"
                words += lun.failsInSeconds.map { $0 > 0 ? " and \(lun.queued == 1 ? "fails" : "fail") in \(HumanText.span(seconds: $0))" : "" } ?? " for ever"
            }
            facts.append(style.paint(words, .red))
        } else if lun.queued > 0 {
            facts.append("queued \(lun.queued)")
        }
        if let lanes = lun.lanes, let count = lun.holder?.reactors {
            facts.append("\(lanes.count) lanes on reactors \(lanes.map { $0.reactor.map(String.init) ?? "?" }.joined(separator: ", ")) of \(count)")
        } else if let reactor = lun.reactor, let count = lun.holder?.reactors { facts.append("reactor \(reactor) of \(count)") }
        if let holder = lun.holder { facts.append("held by pid \(holder.pid) (\(HumanText.printable(holder.command)))") }
        return facts
    }

    // MARK: The table

    private static let stateColumn = 3
    private static let lastColumn = 12

    private static let columns: [TextTable.Column] = [
        .init(title: "PATH", alignment: .left, minimumWidth: 16, sacrifice: nil),
        .init(title: "FROM", alignment: .left, minimumWidth: 4, sacrifice: 7),
        .init(title: "TPG", alignment: .right, minimumWidth: 3, sacrifice: 8),
        .init(title: "STATE", alignment: .left, minimumWidth: 16, sacrifice: nil),
        .init(title: "ROLE", alignment: .left, minimumWidth: 7, sacrifice: 6),
        .init(title: "WEIGHT", alignment: .right, minimumWidth: 6, sacrifice: 5),
        .init(title: "QUEUE", alignment: .right, minimumWidth: 5, sacrifice: nil),
        .init(title: "IOPS", alignment: .right, minimumWidth: 6, sacrifice: 1),
        .init(title: "MB/s", alignment: .right, minimumWidth: 6, sacrifice: 4),
        .init(title: "p50", alignment: .right, minimumWidth: 5, sacrifice: 3),
        .init(title: "p99", alignment: .right, minimumWidth: 5, sacrifice: 2),
        .init(title: "ERRORS", alignment: .right, minimumWidth: 6, sacrifice: 0),
        .init(title: "LAST", alignment: .left, minimumWidth: 4, sacrifice: 9),
    ]

    private struct Row {
        var cells: [String]
        var colour: TextStyle.Colour?
    }

    private func table(_ lun: LUNSnapshot) -> String {
        let rows = lun.paths.flatMap(tableRows)
        if rows.isEmpty, let error = lun.error { return style.wrapped(HumanText.printable(error).components(separatedBy: " "), separator: " ", indentation: 2) }
        guard !rows.isEmpty else { return "  no paths: no target that answers has this LUN; 'mpio discover PORTAL' tells what one has\n" }
        let table = TextTable(columns: Self.columns, rows: rows.map(\.cells))
        let kept = table.fittingColumns(limit: style.width, indentation: 2)
        // Why a path failed matters more than any column: without room beside it, it goes below.
        let lastBelow = !kept.contains(Self.lastColumn)
        var text = "  " + style.paint(table.line(table.titles, columns: kept), .dim) + "\n"
        for row in rows {
            text += "  " + table.line(row.cells, columns: kept) { column, cell in
                column == Self.stateColumn ? style.paint(cell, row.colour) : cell
            } + "\n"
            if lastBelow, !row.cells[Self.lastColumn].isEmpty {
                text += style.wrapped(row.cells[Self.lastColumn].components(separatedBy: " "), separator: " ", indentation: 6)
            }
        }
        return text
    }

    private func tableRows(_ path: PathSnapshot) -> [Row] {
        let latency: (Double?) -> String = { $0.map { HumanText.latency(microseconds: $0) } ?? "–" }
        // What was measured in the last seconds, where it was watched for so long.
        let measured = path.recentLatency ?? (path.requestsPerSecond == 0 ? LatencySummary() : path.latency)
        var rows = [
            Row(
                cells: [
                    HumanText.printable(path.id), HumanText.printable(path.source ?? "–"), path.tpg.map(String.init) ?? "–",
                    path.state.rawValue, HumanText.printable(path.role), path.weight.map(String.init) ?? "–", String(path.inFlight),
                    path.requestsPerSecond.map(HumanText.rate) ?? "–", path.bytesPerSecond.map(HumanText.megabytes) ?? "–",
                    latency(measured.p50), latency(measured.p99), String(path.errors), last(path),
                ],
                colour: path.isSlow == true && path.state.isUsable ? .yellow : path.state.colour)
        ]
        guard path.connections.count > 1 else { return rows }
        for connection in path.connections {
            var cells = [String](repeating: "", count: Self.columns.count)
            let number = connection.number.map { "\($0): " } ?? ""
            cells[0] = "  \(number)cid \(connection.cid) \(HumanText.printable(connection.portal))"
            cells[1] = HumanText.printable(connection.source ?? "–")
            cells[Self.stateColumn] = HumanText.printable(connection.state)
            if let role = connection.role { cells[4] = HumanText.printable(role) }
            if let weight = connection.weight { cells[5] = String(weight) }
            cells[6] = String(connection.inFlight)
            if let reason = connection.reason { cells[Self.lastColumn] = HumanText.printable(reason) }
            rows.append(Row(cells: cells, colour: connection.state == "failed" ? .red : nil))
        }
        return rows
    }

    /// `connection reset 12 s ago, next try in 3 s`.
    private func last(_ path: PathSnapshot) -> String {
        var parts: [String] = []
        if path.connections.count > 1, let policy = path.connectionPolicy {
            let open = path.connections.count { $0.state == "logged in" }
            parts.append("\(open) of \(path.connections.count) connections, \(HumanText.printable(policy))")
        }
        if let words = path.laneWords { parts.append(words) }
        if path.isSlow == true { parts.append("slow: it answers NOP-Out, but not commands") }
        if path.state == .connecting, path.lastError == nil { parts.append("no answer yet") }
        if let error = path.lastError { parts.append(words(error, goesOn: path.state == .stalled)) }
        if let seconds = path.nextTrySeconds { parts.append("next try in " + HumanText.span(seconds: seconds)) }
        return parts.joined(separator: ", ")
    }
}

extension PathsRenderer {
    /// `connection reset 12 s ago`, `silent for 12 s: …`. What has just been seen is no time ago.
    private func words(_ error: LastError, goesOn: Bool) -> String {
        let reason = HumanText.printable(error.reason)
        let detail = error.detail.flatMap { $0.isEmpty ? nil : ": " + HumanText.printable($0) } ?? ""
        guard let seconds = Timestamp.parse(error.at).map({ now.timeIntervalSince($0) }), seconds >= 0.05 else { return reason + detail }
        let span = HumanText.span(seconds: seconds)
        return goesOn ? "\(reason) for \(span)\(detail)" : "\(reason)\(detail) \(span) ago"
    }
}

extension LUNSnapshot {
    /// `1 of 4 paths failed`, `1 failed, 1 stalled of 4 paths`; nil where all are as a LUN that is optimal has them.
    package var troubles: String? {
        let counts = PathState.allCases.filter { !$0.isWell }.compactMap { state -> (PathState, Int)? in
            let count = paths.count { $0.state == state }
            return count > 0 ? (state, count) : nil
        }
        guard let (state, count) = counts.first else { return nil }
        if counts.count == 1 { return "\(count) of \(paths.count) paths \(state.rawValue)" }
        return counts.map { "\($0.1) \($0.0.rawValue)" }.joined(separator: ", ") + " of \(paths.count) paths"
    }
}

extension PathState {
    /// Whether the path is as it should be: it carries requests, or the array keeps it in reserve. A LUN of which every path is
    /// so is ``LUNState/optimal``.
    public var isWell: Bool {
        switch self {
        case .activeOptimized, .activeNonOptimized, .standby: true
        case .unavailable, .transitioning, .stalled, .failed, .marginal, .drained, .refused, .connecting: false
        }
    }

    var colour: TextStyle.Colour {
        switch self {
        case .activeOptimized, .activeNonOptimized: .green
        case .standby, .transitioning, .stalled, .marginal, .drained, .connecting: .yellow
        case .unavailable, .failed, .refused: .red
        }
    }
}

extension LUNState {
    var colour: TextStyle.Colour {
        switch self {
        case .optimal: .green
        case .degraded: .yellow
        case .failed: .red
        }
    }
}
