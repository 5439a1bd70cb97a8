import ArgumentParser
import Foundation
import Simulation

struct Soak: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run seed after seed for a time, each twice.",
        discussion: "Example: simulate soak --seconds 3600. Ends with status 1 where a seed failed.")

    @Option(help: ArgumentHelp("For how long.", valueName: "seconds"))
    var seconds: Int = 3600

    @Option(help: ArgumentHelp("At most so many seeds.", valueName: "n"))
    var count: UInt64?

    @Option(help: ArgumentHelp("The first seed; those that follow are numbered on.", valueName: "seed"))
    var first: UInt64 = 1

    @Option(help: ArgumentHelp("Seeds at a time.", valueName: "n"))
    var jobs: Int = 2

    func run() async throws {
        let summary = await SeedRunner(first: first, count: count, seconds: seconds, jobs: jobs).run { result in
            print(result.summary)
            fflush(nil)
        }
        print(summary.text)
        if !summary.failures.isEmpty { throw ExitCode(1) }
    }
}

struct FindBugs: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "find-bugs", abstract: "Show in how many seeds each planted bug is found.")

    @Option(help: ArgumentHelp("Give a bug up after so many seeds.", valueName: "n"))
    var limit: UInt64 = 10_000

    @Option(help: ArgumentHelp("Only this one.", valueName: "name"))
    var bug: PlantedBug?

    func run() async throws {
        print("planted bug                         seeds  found by")
        var missed = 0
        for candidate in bug.map({ [$0] }) ?? PlantedBug.allCases {
            let found = PlantedBugSearch.find(candidate, limit: limit)
            if found == nil { missed += 1 }
            let name = candidate.rawValue.padded(to: 34)
            let seeds = String(found.map { $0.seeds } ?? limit)
            print("\(name)\(String(repeating: " ", count: max(0, 7 - seeds.count)))\(seeds)  \(found.map { "\($0.violation)" } ?? "NOT FOUND")")
        }
        if missed > 0 { throw ExitCode(1) }
    }
}

extension String {
    func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
