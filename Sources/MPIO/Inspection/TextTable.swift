/// A table of text: columns as wide as their widest cell, two spaces between them.
struct TextTable {
    enum Alignment { case left, right }

    struct Column {
        var title: String
        var alignment: Alignment
        var minimumWidth: Int
        /// Columns with a higher number go first where there is no room; nil: never.
        var sacrifice: Int?
    }

    var columns: [Column]
    /// Each as long as `columns`.
    var rows: [[String]] = []

    private func width(_ index: Int) -> Int {
        max(columns[index].minimumWidth, columns[index].title.count, rows.map { $0[index].count }.max() ?? 0)
    }

    /// The indices of the columns that fit into `limit` characters after `indentation`.
    func fittingColumns(limit: Int?, indentation: Int) -> [Int] {
        var kept = Array(columns.indices)
        guard let limit else { return kept }
        func total() -> Int { indentation + kept.map { width($0) }.reduce(0, +) + 2 * max(0, kept.count - 1) }
        while total() > limit,
            let victim = kept.filter({ columns[$0].sacrifice != nil })
                .max(by: { (columns[$0].sacrifice ?? 0) < (columns[$1].sacrifice ?? 0) })
        {
            kept.removeAll { $0 == victim }
        }
        return kept
    }

    /// One line, without trailing spaces. `decorate` colours a padded cell of a column.
    func line(_ cells: [String], columns kept: [Int], decorate: (Int, String) -> String = { $1 }) -> String {
        var line = ""
        for (place, index) in kept.enumerated() {
            let cell = cells[index]
            let padding = String(repeating: " ", count: max(0, width(index) - cell.count))
            if place > 0 { line += "  " }
            let isLast = place == kept.count - 1
            switch columns[index].alignment {
            case .left: line += decorate(index, cell) + (isLast ? "" : padding)
            case .right: line += padding + decorate(index, cell)
            }
        }
        while line.last == " " { line.removeLast() }
        return line
    }

    var titles: [String] { columns.map(\.title) }
}
