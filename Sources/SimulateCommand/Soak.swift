public import ArgumentParser
import Foundation
public import Simulation

struct Soak: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run seed after seed for a time, each twice.",
        discussion: "Example: simulate soak --seconds 3600. Even seeds have sessions of several connections. Ends with status 1 where a seed failed.")

    @Option(help: ArgumentHelp("For how long.", valueName: "seconds"))
    var seconds: Int = 3600

    @Option(help: ArgumentHelp("At most so many seeds.", valueName: "n"))
    var count: UInt64?

    @Option(help: ArgumentHelp("The first seed; those that follow are numbered on.", valueName: "seed"))
    var first: UInt64 = 1

    @Option(help: ArgumentHelp("Seeds at a time.", valueName: "n"))
    var jobs: Int = 2

    @Option(help: "single: sessions of one connection; connections: of several; both: odd seeds and even ones; lanes: a disk with several lanes.")
    var worlds = SeedWorlds.both

    @Option(help: ArgumentHelp("Every so many seeds, one runs twice.", valueName: "n"))
    var repeats: UInt64 = 1

    func run() async throws {
        let summary = await SeedRunner(first: first, count: count, seconds: seconds, jobs: jobs, repeats: repeats, worlds: worlds).run { result in
            print(result.summary)
            fflush(nil)
        }
        print(summary.text)
        if !summary.failures.isEmpty { throw ExitCode(1) }
    }
}

extension SeedWorlds: ExpressibleByArgument {}
