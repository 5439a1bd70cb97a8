import Foundation
import MPIO

/// Writes SVG: elements, escaped text, short numbers.
struct SVGText {
    private(set) var text = ""
    private var open: [String] = []

    /// An element that others are put into, until ``end()``.
    mutating func begin(_ name: String, _ attributes: KeyValuePairs<String, String> = [:]) {
        text += "<\(name)\(Self.written(attributes))>\n"
        open.append(name)
    }

    mutating func end() {
        guard let name = open.popLast() else { return }
        text += "</\(name)>\n"
    }

    /// An element with nothing in it but a title, which people see when they point at it.
    mutating func add(_ name: String, _ attributes: KeyValuePairs<String, String>, title: String? = nil) {
        guard let title else { return text += "<\(name)\(Self.written(attributes))/>\n" }
        text += "<\(name)\(Self.written(attributes))><title>\(Self.escaped(title))</title></\(name)>\n"
    }

    /// An element with text in it.
    mutating func add(_ name: String, _ attributes: KeyValuePairs<String, String> = [:], text content: String) {
        text += "<\(name)\(Self.written(attributes))>\(Self.escaped(content))</\(name)>\n"
    }

    /// A style sheet of our own making.
    mutating func add(style: String) { text += "<style>\(style)</style>\n" }

    private static func written(_ attributes: KeyValuePairs<String, String>) -> String {
        attributes.map { " \($0)=\"\(escaped($1))\"" }.joined()
    }

    /// Text of a device, a peer or a file as XML may have it: nothing in it is markup, and nothing is a character that XML
    /// forbids or that turns the text around.
    static func escaped(_ text: String) -> String {
        var result = ""
        for character in HumanText.printable(text).unicodeScalars {
            switch character {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "'": result += "&#39;"
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }

    /// With one decimal where it needs one.
    static func number(_ value: Double) -> String { tenths(tenths(of: value)) }

    static func tenths(of value: Double) -> Int { value.isFinite ? Int((max(-1e6, min(1e6, value)) * 10).rounded()) : 0 }

    private static func tenths(_ value: Int) -> String {
        if value % 10 == 0 { return String(value / 10) }
        let whole = abs(value) / 10
        return (value < 0 ? "-" : "") + (whole == 0 ? "" : String(whole)) + "." + String(abs(value) % 10)
    }

    /// A path's data: a line through the points, from one to the next.
    static func line(_ points: [(x: Double, y: Double)]) -> String {
        var data = ""
        var last = (x: 0, y: 0)
        for (index, point) in points.enumerated() {
            let next = (x: tenths(of: point.x), y: tenths(of: point.y))
            if index == 0 {
                data += "M\(tenths(next.x)) \(tenths(next.y))"
            } else {
                let y = tenths(next.y - last.y)
                data += (index == 1 ? "l" : " ") + tenths(next.x - last.x) + (y.hasPrefix("-") ? "" : " ") + y
            }
            last = next
        }
        return data
    }
}

/// How wide text is, as far as that can be said without the font: rather too wide.
enum TextWidth {
    static func of(_ text: String, size: Double) -> Double {
        text.unicodeScalars.reduce(0) { $0 + ($1.value >= 0x1100 ? 1.1 : 0.62) } * size
    }

    /// The text, cut so that it takes no more than `width`.
    static func fitted(_ text: String, size: Double, width: Double) -> String {
        // What is longer than any picture is wide need not be measured.
        var text = String(String.UnicodeScalarView(text.unicodeScalars.prefix(1000)))
        guard of(text, size: size) > width else { return text }
        while !text.isEmpty, of(text + "…", size: size) > width { text.removeLast() }
        return text + "…"
    }
}
