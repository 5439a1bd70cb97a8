import Foundation
import Testing

#if canImport(FoundationXML)
    import FoundationXML
#endif

/// An SVG as a reader sees it.
final class Picture: NSObject, XMLParserDelegate {
    struct Element {
        var name: String
        var attributes: [String: String]
        var text = ""
        var parents: [String]
        /// The text of its own `<title>`.
        var title: String?

        func has(class name: String) -> Bool { (attributes["class"] ?? "").split(separator: " ").contains(Substring(name)) }
        func number(_ name: String) -> Double { Double(attributes[name] ?? "") ?? .nan }
    }

    private(set) var elements: [Element] = []
    private var open: [Int] = []
    private(set) var problem: String?
    let text: String

    init(_ text: String) {
        self.text = text
        super.init()
        let parser = XMLParser(data: Data(text.utf8))
        parser.delegate = self
        if !parser.parse() { problem = parser.parserError.map { "\($0)" } ?? "no XML" }
    }

    func parser(
        _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
        attributes: [String: String] = [:]
    ) {
        elements.append(Element(name: name, attributes: attributes, parents: open.map { elements[$0].name }))
        open.append(elements.count - 1)
    }

    func parser(_ parser: XMLParser, foundCharacters string: String) {
        if let last = open.last { elements[last].text += string }
    }

    func parser(_ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?) {
        let ended = open.removeLast()
        if name == "title", let parent = open.last { elements[parent].title = elements[ended].text }
    }

    func all(_ name: String, class className: String? = nil) -> [Element] {
        elements.filter { $0.name == name && (className == nil || $0.has(class: className!)) }
    }

    var texts: [String] { all("text").map(\.text) }

    /// What every picture has to be: well-formed, whole in itself, without anything that runs or is fetched.
    func check(_ comment: Comment? = nil) throws {
        try #require(problem == nil, comment)
        let allowed: Set = ["svg", "title", "desc", "style", "rect", "text", "g", "path", "circle"]
        for element in elements {
            try #require(allowed.contains(element.name), "\(element.name)")
            for (name, value) in element.attributes {
                try #require(!name.lowercased().hasPrefix("on") && !name.contains("href") && name != "style", "\(name)")
                if name != "xmlns" { try #require(!value.contains("url(") && !value.contains("http"), "\(value)") }
            }
        }
        for style in all("style") { try #require(!style.text.contains("url(") && !style.text.contains("@import")) }
        // Numbers that are none would be written so.
        for data in elements.compactMap({ $0.attributes["d"] }) {
            try #require(data.wholeMatch(of: /[MlhvVHz0-9. \-]+/) != nil, "\(data.prefix(200))")
        }
        for element in elements {
            for name in ["x", "y", "cx", "cy", "width", "height"] where element.attributes[name] != nil {
                try #require(element.number(name).isFinite, "\(element)")
            }
        }
    }
}
