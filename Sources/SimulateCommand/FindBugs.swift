import ArgumentParser
import Foundation
import Simulation

struct FindBugs: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "find-bugs", abstract: "Show in how many seeds each planted bug is found.",
        discussion: "Prints a table in Markdown. Ends with status 1 where a bug was not found.")

    @Option(help: ArgumentHelp("Give a bug up after so many seeds.", valueName: "n"))
    var limit: UInt64 = 10_000

    @Option(help: ArgumentHelp("The first seed; those that follow are numbered on.", valueName: "seed"))
    var first: UInt64 = 1

    @Option(help: ArgumentHelp("Only this one.", valueName: "name"))
    var bug: PlantedBug?

    @Flag(help: "Print what the oracle said as well.")
    var words = false

    func run() async throws {
        let bugs = bug.map { [$0] } ?? PlantedBug.allCases
        let table = BugTable(bugs: bugs)
        table.printHead()
        var missed = 0
        for bug in bugs {
            let found = PlantedBugSearch.find(bug, first: first, limit: limit)
            if found == nil { missed += 1 }
            table.printRow(bug, oracle: found?.violation.oracle.rawValue, seeds: found?.seeds ?? limit)
            if words, let found { print("  \(found.violation)") }
            fflush(nil)
        }
        print("\(bugs.count - missed) of \(bugs.count) planted bugs found within \(limit) seeds")
        if missed > 0 { throw ExitCode(1) }
    }
}

/// A table whose columns also line up on a terminal.
private struct BugTable {
    private let nameWidth: Int
    private let wordsWidth: Int

    init(bugs: [PlantedBug]) {
        nameWidth = bugs.map(\.rawValue.count).max() ?? 0
        wordsWidth = bugs.map(\.words.count).max() ?? 0
    }

    func printHead() {
        row("planted bug", "what is wrong", "found by", "seeds")
        print("|\(dashes(nameWidth))|\(dashes(wordsWidth))|\(dashes(10))|\(dashes(6))|")
    }

    func printRow(_ bug: PlantedBug, oracle: String?, seeds: UInt64) {
        row(bug.rawValue, bug.words, oracle ?? "NOT FOUND", "\(seeds)")
    }

    private func row(_ name: String, _ words: String, _ oracle: String, _ seeds: String) {
        print("| \(name.padded(to: nameWidth)) | \(words.padded(to: wordsWidth)) | \(oracle.padded(to: 10)) | \(seeds.padded(to: 6)) |")
    }

    private func dashes(_ count: Int) -> String { String(repeating: "-", count: count + 2) }
}

extension String {
    fileprivate func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
