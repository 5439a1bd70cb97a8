import Foundation

/// A page of section 5 from a document of docs/: headings, paragraphs, lists, fenced blocks. What else Markdown can do, the
/// document does not use.
struct MarkdownPage {
    var name: String
    /// What the page is about, in a few words.
    var abstract: String
    var date: Date

    func page(_ markdown: String) -> String {
        var page = Mdoc()
        page.begin(name: name, section: 5, date: date)
        page.section("Name")
        page.macro("Nm \(name)")
        page.macro("Nd \(Mdoc.escaped(abstract))")
        page.section("Description")
        var isFirst = true
        for block in Self.blocks(markdown) {
            switch block {
            case .heading(1, _): continue
            case .heading(2, let text):
                page.section(text)
                isFirst = true
                continue
            case .heading(_, let text):
                page.subsection(text)
                isFirst = true
                continue
            case .paragraph(let text): page.paragraph(text, isFirst: isFirst, markup: true)
            case .list(let items):
                page.macro("Bl -bullet")
                for item in items {
                    page.macro("It")
                    page.paragraph(item, isFirst: true, markup: true)
                }
                page.macro("El")
            case .literal(let lines): page.literal(lines)
            }
            isFirst = false
        }
        page.section("See also")
        page.macro("Xr mpio 1 ,")
        page.macro("Xr mpio-check 1")
        return page.text
    }

    enum Block: Equatable {
        case heading(Int, String)
        case paragraph(String)
        case list([String])
        case literal([String])
    }

    static func blocks(_ markdown: String) -> [Block] {
        var blocks: [Block] = []
        var fence: [String]?
        var paragraph: [String] = []
        var items: [String] = []
        var table: [String] = []
        func finish() {
            if !paragraph.isEmpty { blocks.append(.paragraph(paragraph.joined(separator: "\n"))) }
            if !items.isEmpty { blocks.append(.list(items)) }
            if !table.isEmpty { blocks.append(.literal(table)) }
            table = []
            paragraph = []
            items = []
        }
        for line in markdown.components(separatedBy: "\n") {
            if line.hasPrefix("```") {
                if let lines = fence {
                    blocks.append(.literal(lines))
                    fence = nil
                } else {
                    finish()
                    fence = []
                }
            } else if fence != nil {
                fence?.append(line)
            } else if line.trimmingCharacters(in: .whitespaces).isEmpty {
                finish()
            } else if let heading = line.wholeMatch(of: /(#+) +(.*)/) {
                finish()
                blocks.append(.heading(heading.output.1.count, String(heading.output.2)))
            } else if line.hasPrefix("- ") {
                if !paragraph.isEmpty { finish() }
                items.append(String(line.dropFirst(2)))
            } else if line.hasPrefix("|") {
                // A table is shown as it is written.
                if !paragraph.isEmpty || !items.isEmpty { finish() }
                table.append(line)
            } else if !items.isEmpty {
                items[items.count - 1] += "\n" + line
            } else if !line.hasPrefix("<!--") {
                paragraph.append(line)
            }
        }
        finish()
        return blocks
    }
}
