import Foundation

/// Panels of lines over a common legend, written as SVG. Colours can be told apart by people who see them differently,
/// and every line has a mark of its own besides.
struct LinePlot {
    struct Point {
        var x: Double
        var y: Spread
    }

    struct Line {
        /// Equal names look alike in all panels and stand once in the legend.
        var name: String
        var look: Look
        var points: [Point]
    }

    struct Look {
        var color: String
        var mark: Mark
        var isDashed = false
        var width = 2.0
    }

    enum Mark { case circle, square, triangle, diamond, cross, none }

    struct Panel {
        var title: String
        var xTitle: String
        /// Where ticks stand, ascending, and what they say. Distances are those of the logarithms.
        var xTicks: [(value: Double, label: String)]
        var isLogarithmic: Bool
        var lines: [Line]
    }

    var title: String
    var subtitle: String
    /// Rows of panels.
    var panels: [[Panel]]

    private static let panelWidth = 400.0
    private static let panelHeight = 210.0
    private static let left = 62.0
    private static let gapBetweenPanels = 76.0
    private static let gapBetweenRows = 84.0
    private static let right = 26.0

    // MARK: the whole

    func svg() -> String {
        let columns = Double(panels.map(\.count).max() ?? 1)
        let width = Self.left + columns * Self.panelWidth + (columns - 1) * Self.gapBetweenPanels + Self.right
        let legend = legend(width: width)
        let top = 66 + Double(legend.rowCount) * 20 + 34
        let height = top + Double(panels.count) * (Self.panelHeight + Self.gapBetweenRows) - 26
        var text = """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(number(width)) \(number(height))" \
            width="\(number(width))" height="\(number(height))" role="img" font-family="system-ui, 'DejaVu Sans', sans-serif">
            <title>\(escaped(title))</title>
            <rect width="100%" height="100%" rx="6" fill="#ffffff"/>
            <text x="20" y="32" font-size="18" font-weight="600" fill="#1b1b1b">\(escaped(title))</text>
            <text x="20" y="52" font-size="12" fill="#666666">\(escaped(subtitle))</text>
            \(legend.svg)

            """
        for (row, panels) in panels.enumerated() {
            for (column, panel) in panels.enumerated() {
                let x = Self.left + Double(column) * (Self.panelWidth + Self.gapBetweenPanels)
                let y = top + Double(row) * (Self.panelHeight + Self.gapBetweenRows)
                text += draw(panel, x, y)
            }
        }
        return text + "</svg>\n"
    }

    private func legend(width: Double) -> (svg: String, rowCount: Int) {
        var seen: [String] = []
        var text = ""
        var (x, row) = (20.0, 0)
        for line in panels.flatMap({ $0 }).flatMap(\.lines) where !seen.contains(line.name) {
            seen.append(line.name)
            let entryWidth = 58 + Double(line.name.count) * 6.9
            if x + entryWidth > width, x > 20 { (x, row) = (20, row + 1) }
            let y = 76 + Double(row) * 20
            text += stroke(line.look, "M\(number(x)) \(number(y - 4))h30") + mark(line.look, x + 15, y - 4)
            text += "<text x=\"\(number(x + 37))\" y=\"\(number(y))\" font-size=\"12\" fill=\"#1b1b1b\">\(escaped(line.name))</text>\n"
            x += entryWidth
        }
        return (text, row + 1)
    }

    // MARK: a panel

    private func draw(_ panel: Panel, _ x: Double, _ y: Double) -> String {
        let (width, height) = (Self.panelWidth, Self.panelHeight)
        let values = panel.lines.flatMap(\.points).flatMap { [$0.y.least, $0.y.most] }
        guard let first = panel.xTicks.first?.value, let last = panel.xTicks.last?.value, !values.isEmpty else { return "" }
        let scale = Scale(values, isLogarithmic: panel.isLogarithmic)
        func across(_ value: Double) -> Double {
            last > first ? x + 12 + (width - 24) * log(value / first) / log(last / first) : x + width / 2
        }
        func up(_ value: Double) -> Double { y + height * (1 - scale.fraction(value)) }

        var text = "<text x=\"\(number(x))\" y=\"\(number(y - 12))\" font-size=\"13\" font-weight=\"600\" fill=\"#1b1b1b\">\(escaped(panel.title))</text>\n"
        for tick in scale.ticks {
            let at = number(up(tick))
            text += "<path d=\"M\(number(x)) \(at)h\(number(width))\" stroke=\"#e4e4e4\"/>"
            text += "<text x=\"\(number(x - 7))\" y=\"\(number(up(tick) + 4))\" font-size=\"11\" text-anchor=\"end\" fill=\"#555555\">\(label(tick))</text>\n"
        }
        for tick in panel.xTicks {
            text += "<path d=\"M\(number(across(tick.value))) \(number(y + height))v4\" stroke=\"#999999\"/>"
            text += "<text x=\"\(number(across(tick.value)))\" y=\"\(number(y + height + 18))\" font-size=\"11\" text-anchor=\"middle\" fill=\"#555555\">\(escaped(tick.label))</text>\n"
        }
        text += "<path d=\"M\(number(x)) \(number(y + height))h\(number(width))\" stroke=\"#999999\"/>\n"
        text += "<text x=\"\(number(x + width / 2))\" y=\"\(number(y + height + 36))\" font-size=\"11\" text-anchor=\"middle\" fill=\"#555555\">\(escaped(panel.xTitle))</text>\n"
        for line in panel.lines {
            let upper = line.points.map { (across($0.x), up($0.y.most)) }
            let lower = line.points.map { (across($0.x), up($0.y.least)) }.reversed()
            text += "<path d=\"\(path(upper + lower))z\" fill=\"\(line.look.color)\" fill-opacity=\"0.13\"/>"
        }
        for line in panel.lines {
            let points = line.points.map { (across($0.x), up($0.y.median)) }
            text += stroke(line.look, path(points)) + points.map { mark(line.look, $0.0, $0.1) }.joined() + "\n"
        }
        return text
    }

    private func path(_ points: [(Double, Double)]) -> String {
        points.enumerated().map { ($0.offset == 0 ? "M" : "L") + number($0.element.0) + " " + number($0.element.1) }.joined()
    }

    private func stroke(_ look: Look, _ path: String) -> String {
        let dashes = look.isDashed ? " stroke-dasharray=\"5 4\"" : ""
        return "<path d=\"\(path)\" fill=\"none\" stroke=\"\(look.color)\" stroke-width=\"\(number(look.width))\" stroke-linejoin=\"round\"\(dashes)/>"
    }

    private func mark(_ look: Look, _ x: Double, _ y: Double) -> String {
        let r = 3.6
        func filled(_ path: String) -> String { "<path d=\"\(path)\" fill=\"\(look.color)\" stroke=\"#ffffff\" stroke-width=\"0.8\"/>" }
        switch look.mark {
        case .circle: return "<circle cx=\"\(number(x))\" cy=\"\(number(y))\" r=\"\(r)\" fill=\"\(look.color)\" stroke=\"#ffffff\" stroke-width=\"0.8\"/>"
        case .square: return filled("M\(number(x - 3.2)) \(number(y - 3.2))h6.4v6.4h-6.4z")
        case .triangle: return filled("M\(number(x)) \(number(y - 4.4))l4.2 7.2h-8.4z")
        case .diamond: return filled("M\(number(x)) \(number(y - 4.8))l4.4 4.8l-4.4 4.8l-4.4 -4.8z")
        case .cross: return "<path d=\"M\(number(x - 3)) \(number(y - 3))l6 6m0 -6l-6 6\" stroke=\"\(look.color)\" stroke-width=\"1.8\"/>"
        case .none: return ""
        }
    }

    // MARK: words

    private func number(_ value: Double) -> String {
        let text = String(format: "%.1f", value)
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }

    private func label(_ value: Double) -> String {
        value == value.rounded() ? String(format: "%.0f", value) : String(format: "%.4g", value)
    }

    private func escaped(_ text: String) -> String {
        text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
            .replacingOccurrences(of: ">", with: "&gt;").replacingOccurrences(of: "\"", with: "&quot;")
    }
}

/// The vertical axis of a panel: whole steps of 1, 2 and 5 around what has to be shown.
private struct Scale {
    let ticks: [Double]
    private let low: Double
    private let high: Double
    private let isLogarithmic: Bool

    init(_ values: [Double], isLogarithmic: Bool) {
        let most = max(values.max() ?? 1, 1e-9)
        let least = max(values.min() ?? 0, most / 1e6)
        self.isLogarithmic = isLogarithmic
        if isLogarithmic {
            low = least / 1.15
            high = most * 1.15
            let decades = Int(floor(log10(low)))...Int(ceil(log10(high)))
            let all = decades.flatMap { decade in [1.0, 2, 5].map { $0 * pow(10, Double(decade)) } }
            let (low, high) = (low, high)
            let shown = all.filter { $0 >= low && $0 <= high }
            // Over many decades the 2s and 5s crowd.
            ticks = shown.count <= 9 ? shown : shown.filter { abs(log10($0) - log10($0).rounded()) < 1e-9 }
        } else {
            low = 0
            high = most * 1.08
            let rough = high / 7
            let power = pow(10, floor(log10(rough)))
            let step = [1.0, 2, 5, 10].map { $0 * power }.first { $0 >= rough } ?? rough
            ticks = stride(from: 0, through: high, by: step).map { $0 }
        }
    }

    /// 0 at the bottom, 1 at the top.
    func fraction(_ value: Double) -> Double {
        isLogarithmic ? log(max(value, low) / low) / log(high / low) : value / high
    }
}
