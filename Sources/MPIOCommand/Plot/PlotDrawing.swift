import Foundation
import MPIO

/// Draws a ``PlotModel`` as one SVG that needs nothing else: three panels over one axis of time, and a line at each event.
struct PlotDrawing {
    private let model: PlotModel
    private var svg = SVGText()

    private static let width = 960.0
    private static let left = 72.0, right = 944.0
    private static let panelHeight = 120.0, panelGap = 38.0
    private static let laneHeight = 16.0, laneCount = 5
    /// How many events are told in full below the panels.
    static let toldEventCount = 12
    private static let textSize = 12.0

    private enum Panel: Int, CaseIterable {
        case requests, bytes, latency
    }

    static func svg(_ model: PlotModel) -> String {
        var drawing = PlotDrawing(model: model)
        return drawing.draw()
    }

    private init(model: PlotModel) {
        self.model = model
    }

    private mutating func draw() -> String {
        let legend = legendRows()
        let groups = PlotMarkGroup.groups(model.marks, distance: 4, x: x)
        let labels = Self.labelled(groups)
        let laneCount = (labels.compactMap { $0?.lane }.max() ?? -1) + 1
        let lanesTop = 64 + Double(legend.count) * 20
        let panelsTop = lanesTop + Double(laneCount) * Self.laneHeight + 26
        let panelsBottom = panelsTop + 3 * Self.panelHeight + 2 * Self.panelGap
        let told = min(model.marks.count, Self.toldEventCount)
        let listTop = panelsBottom + 52
        let height = listTop + (model.marks.isEmpty ? -12 : Double(told) * 17 + (model.marks.count > told ? 17 : 0) + 8)

        begin(height: height)
        drawHead(legend)
        let tops = Panel.allCases.map { panelsTop + Double($0.rawValue) * (Self.panelHeight + Self.panelGap) }
        drawLosses(tops)
        for (panel, top) in zip(Panel.allCases, tops) { draw(panel, top: top) }
        drawTime(panelsBottom: panelsBottom)
        draw(groups, labels, lanesTop: lanesTop, panelsTop: panelsTop, panelsBottom: panelsBottom)
        // Over the lines, which are broken around them.
        for (panel, top) in zip(Panel.allCases, tops) {
            svg.add("text", ["class": "head ink", "x": SVGText.number(Self.left), "y": SVGText.number(top - 9)], text: Self.heading(panel))
        }
        tellEvents(top: listTop, count: told)
        svg.end()
        return svg.text
    }

    /// From seconds to the distance from the left edge.
    private var x: (Double) -> Double {
        let seconds = model.seconds
        return { Self.left + max(0, min(1, $0 / seconds)) * (Self.right - Self.left) }
    }

    // MARK: Around the panels

    private mutating func begin(height: Double) {
        let size = (SVGText.number(Self.width), SVGText.number(height))
        svg.begin(
            "svg",
            [
                "xmlns": "http://www.w3.org/2000/svg", "width": size.0, "height": size.1, "viewBox": "0 0 \(size.0) \(size.1)",
                "role": "img", "aria-labelledby": "title desc",
                "font-family": "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', Arial, sans-serif",
            ])
        svg.add("title", ["id": "title"], text: "\(model.lun): requests, throughput and latency of each path over time")
        svg.add("desc", ["id": "desc"], text: description)
        svg.add(style: PlotStyle.sheet)
        svg.add("rect", ["class": "ground", "width": size.0, "height": size.1])
    }

    /// The picture in words.
    private var description: String {
        var text = "Requests per second, megabytes per second and 99th percentile of latency of "
        text += "\(model.pathCount == 1 ? "1 path" : "\(model.pathCount) paths") (\(model.series.map(\.name).joined(separator: ", "))) "
        text += "of \(model.lun) over \(Self.spanText(model.seconds)) from \(Timestamp.format(model.start))."
        if !model.marks.isEmpty {
            text += " Events: " + model.marks.prefix(50).map { "\(Self.momentText($0.seconds)) \($0.message)" }.joined(separator: "; ") + "."
        }
        return text
    }

    private mutating func drawHead(_ legend: [[(index: Int, name: String, x: Double)]]) {
        let name = TextWidth.fitted(HumanText.printable(model.lun), size: 18, width: 560)
        svg.add("text", ["class": "title ink", "x": "16", "y": "28"], text: name)
        let when = Timestamp.format(model.start).prefix(19).replacing("T", with: " ")
        let facts = "\(model.policy) · \(when) UTC, \(Self.spanText(model.seconds)), a sample every \(Self.spanText(model.samplePeriodSeconds))"
        svg.add("text", ["class": "small pale", "x": "16", "y": "48"], text: TextWidth.fitted(facts, size: Self.textSize, width: Self.right - 16))
        for (row, entries) in legend.enumerated() {
            let y = 70 + Double(row) * 20
            for entry in entries {
                let colour = Self.colour(entry.index)
                svg.add(
                    "rect",
                    ["class": "d\(colour)", "x": SVGText.number(entry.x), "y": SVGText.number(y - 10), "width": "11", "height": "11", "rx": "2"])
                svg.add("text", ["class": "small ink", "x": SVGText.number(entry.x + 17), "y": SVGText.number(y)], text: entry.name)
            }
        }
    }

    private func legendRows() -> [[(index: Int, name: String, x: Double)]] {
        var rows: [[(index: Int, name: String, x: Double)]] = []
        var place = Double.infinity
        for (index, series) in model.series.enumerated() {
            let name = TextWidth.fitted(HumanText.printable(series.name), size: Self.textSize, width: 400)
            let width = 17 + TextWidth.of(name, size: Self.textSize) + 22
            if place + width > Self.right {
                rows.append([])
                place = 16
            }
            rows[rows.count - 1].append((index, name, place))
            place += width
        }
        return rows
    }

    private static func colour(_ index: Int) -> Int { index % PlotStyle.pathColours.count }

    private mutating func drawTime(panelsBottom: Double) {
        for tick in PlotAxis.time(seconds: model.seconds).ticks {
            let place = SVGText.number(x(tick.value))
            // Text at the right edge must not leave the picture.
            let half = TextWidth.of(tick.label, size: Self.textSize) / 2
            let isLast = x(tick.value) + half > Self.width - 4
            svg.add("path", ["class": "axis", "d": "M\(place) \(SVGText.number(panelsBottom))v5"])
            svg.add(
                "text", ["class": "small pale \(isLast ? "end" : "middle")", "x": place, "y": SVGText.number(panelsBottom + 19)],
                text: tick.label)
        }
    }

    // MARK: A panel

    private mutating func draw(_ panel: Panel, top: Double) {
        let axis = axis(of: panel)
        svg.begin("g", ["class": "panel", "aria-label": Self.heading(panel)])
        for tick in axis.ticks {
            let y = top + Self.panelHeight * (1 - axis.share(tick.value))
            svg.add("path", ["class": "grid", "d": "M\(SVGText.number(Self.left)) \(SVGText.number(y))H\(SVGText.number(Self.right))"])
            svg.add("text", ["class": "small pale end", "x": SVGText.number(Self.left - 8), "y": SVGText.number(y + 4)], text: tick.label)
        }
        switch panel {
        case .requests: drawAreas(model.series.map(\.requestsPerSecond), axis, top)
        case .bytes: drawAreas(model.series.map { $0.bytesPerSecond.map { $0.map { $0 / 1e6 } } }, axis, top)
        case .latency: drawLines(axis, top)
        }
        let bottom = SVGText.number(top + Self.panelHeight)
        svg.add("path", ["class": "axis", "d": "M\(SVGText.number(Self.left)) \(bottom)H\(SVGText.number(Self.right))"])
        svg.end()
    }

    private static func heading(_ panel: Panel) -> String {
        switch panel {
        case .requests: "requests/s (stacked)"
        case .bytes: "MB/s (stacked)"
        case .latency: "p99 latency (log scale)"
        }
    }

    private func axis(of panel: Panel) -> PlotAxis {
        func highestSum(_ values: [[Double?]]) -> Double {
            (0..<model.stepCount).map { step in values.reduce(0) { $0 + ($1[step] ?? 0) } }.max() ?? 0
        }
        switch panel {
        case .requests: return .linear(maximum: highestSum(model.series.map(\.requestsPerSecond)), label: PlotAxis.countText)
        case .bytes: return .linear(maximum: highestSum(model.series.map(\.bytesPerSecond)) / 1e6, label: PlotAxis.countText)
        case .latency:
            let values = model.series.flatMap { $0.p99Microseconds.compactMap { $0 } }
            return .latency(minimum: values.min() ?? 100, maximum: values.max() ?? 1000)
        }
    }

    /// The middle of a step.
    private func middle(_ step: Int) -> Double { x((Double(step) + 0.5) * model.stepSeconds) }

    /// The areas on top of one another: each reaches from the ground up to the sum of the paths to there, and those of lower
    /// sums are drawn over it.
    private mutating func drawAreas(_ values: [[Double?]], _ axis: PlotAxis, _ top: Double) {
        let ground = top + Self.panelHeight
        let known = (0..<model.stepCount).map { step in values.contains { $0[step] != nil } }
        var sums = [Double](repeating: 0, count: model.stepCount)
        var edges: [[Double]] = []
        for path in values {
            for step in sums.indices { sums[step] += path[step] ?? 0 }
            edges.append(sums)
        }
        for (index, edge) in edges.enumerated().reversed() {
            var data = ""
            for run in Self.runs(known) {
                let first = x(Double(run.lowerBound) * model.stepSeconds), last = x(Double(run.upperBound) * model.stepSeconds)
                func height(_ step: Int) -> Double { ground - Self.panelHeight * axis.share(edge[step]) }
                var points = [(first, ground), (first, height(run.lowerBound))]
                points += run.map { (middle($0), height($0)) }
                points += [(last, height(run.upperBound - 1)), (last, ground)]
                data += SVGText.line(points.map { (x: $0.0, y: $0.1) }) + "z"
            }
            guard !data.isEmpty else { continue }
            let colour = Self.colour(index)
            svg.add("path", ["class": "area f\(colour) s\(colour)", "d": data], title: model.series[index].name)
        }
    }

    private mutating func drawLines(_ axis: PlotAxis, _ top: Double) {
        for (index, series) in model.series.enumerated() {
            var data = ""
            for run in Self.runs(series.p99Microseconds.map { $0 != nil }) {
                func height(_ step: Int) -> Double { top + Self.panelHeight * (1 - axis.share(series.p99Microseconds[step] ?? 0)) }
                let points = run.map { (x: middle($0), y: height($0)) }
                // One point alone is a dot: a line of no length with round ends.
                data += points.count == 1 ? SVGText.line(points) + "h.01" : SVGText.line(points)
            }
            guard !data.isEmpty else { continue }
            svg.add("path", ["class": "line s\(Self.colour(index))", "d": data], title: series.name)
        }
    }

    /// Where one true follows another.
    static func runs(_ values: [Bool]) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        var start: Int?
        for (index, value) in (values + [false]).enumerated() {
            if value {
                start = start ?? index
            } else if let first = start {
                runs.append(first..<index)
                start = nil
            }
        }
        return runs
    }

    // MARK: Events

    /// Where a path was lost, until it was back.
    private mutating func drawLosses(_ tops: [Double]) {
        var lost: [String: Double] = [:]
        var spans: [(Double, Double)] = []
        for mark in model.marks {
            guard let path = mark.path else { continue }
            if mark.label == "path lost" { lost[path] = lost[path] ?? mark.seconds }
            if mark.label == "path back", let since = lost.removeValue(forKey: path) { spans.append((since, mark.seconds)) }
        }
        spans += lost.values.map { ($0, model.seconds) }
        guard !spans.isEmpty else { return }
        // One shape, so that two losses at a time are no darker than one.
        let data = spans.sorted(by: { $0 < $1 }).flatMap { start, end in
            let (from, width) = (SVGText.number(x(start)), SVGText.number(max(0.1, x(end) - x(start))))
            return tops.map { "M\(from) \(SVGText.number($0))h\(width)v\(SVGText.number(Self.panelHeight))h-\(width)z" }
        }
        svg.add("path", ["class": "down", "d": data.joined()])
    }

    private static func width(_ group: PlotMarkGroup) -> Double { 24 + TextWidth.of(group.label, size: textSize) }

    /// Nil for those that have no room.
    private static func labelled(_ groups: [PlotMarkGroup]) -> [PlotLabels.Place?] {
        PlotLabels.places(groups.map { ($0.x, width($0)) }, within: left...(width - 8), laneCount: laneCount)
    }

    private mutating func draw(
        _ groups: [PlotMarkGroup], _ labels: [PlotLabels.Place?], lanesTop: Double, panelsTop: Double, panelsBottom: Double
    ) {
        for (group, label) in zip(groups, labels) {
            let y = label.map { lanesTop + (Double($0.lane) + 1) * Self.laneHeight }
            let message = group.marks.map { "\(Self.momentText($0.seconds)) \($0.message)" }.joined(separator: "\n")
            let from = y.map { $0 - 10 } ?? panelsTop
            svg.begin("g", ["class": "mark"])
            svg.add(
                "path", ["class": "event \(group.meaning)", "d": "M\(SVGText.number(group.x)) \(SVGText.number(from))V\(SVGText.number(panelsBottom))"],
                title: message)
            if let label, let y { draw(group, label, y) }
            svg.end()
        }
    }

    private mutating func draw(_ group: PlotMarkGroup, _ label: PlotLabels.Place, _ y: Double) {
        let start = label.isLeft ? group.x - Self.width(group) : group.x + 5
        var text = start
        if let index = group.path.flatMap({ path in model.series.firstIndex { $0.name == path } }) {
            svg.add("circle", ["class": "d\(Self.colour(index))", "cx": SVGText.number(start + 4), "cy": SVGText.number(y - 4), "r": "4"])
            text += 13
        }
        svg.add("text", ["class": "small ink", "x": SVGText.number(text), "y": SVGText.number(y)], text: group.label)
    }

    /// The first events in full, with their moments.
    private mutating func tellEvents(top: Double, count: Int) {
        for (row, mark) in model.marks.prefix(count).enumerated() {
            let y = SVGText.number(top + Double(row) * 17)
            svg.add("text", ["class": "small pale end", "x": SVGText.number(Self.left + 18), "y": y], text: Self.momentText(mark.seconds))
            let room = Self.right - Self.left - 46
            let message = TextWidth.fitted(HumanText.printable(mark.message), size: Self.textSize, width: room)
            if let index = mark.path.flatMap({ path in model.series.firstIndex { $0.name == path } }) {
                svg.add(
                    "circle",
                    ["class": "d\(Self.colour(index))", "cx": SVGText.number(Self.left + 32), "cy": SVGText.number(top + Double(row) * 17 - 4), "r": "4"])
            }
            svg.add("text", ["class": "small ink", "x": SVGText.number(Self.left + 42), "y": y], text: message)
        }
        guard model.marks.count > count else { return }
        let y = SVGText.number(top + Double(count) * 17)
        svg.add("text", ["class": "small pale", "x": SVGText.number(Self.left + 42), "y": y], text: "… and \(model.marks.count - count) more")
    }

    // MARK: Words

    /// `2.251 s`.
    static func momentText(_ seconds: Double) -> String {
        seconds < 600 ? String(format: "%.3f s", seconds) : PlotAxis.timeText(seconds, step: 60)
    }

    /// `25 ms`, `7.1 s`, `3 min`.
    static func spanText(_ seconds: Double) -> String {
        if seconds < 0.0995 { return String(format: "%.0f ms", seconds * 1000) }
        if seconds < 9.95 { return String(format: "%.1f s", seconds) }
        return HumanText.span(seconds: seconds)
    }
}
