public import ArgumentParser
public import Simulation

struct RunSeed: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "seed", abstract: "Run one seed twice and compare.",
        discussion: "Example: swift run simulate 42 --steps")

    @Argument(help: "What decides everything.")
    var seed: UInt64

    @Flag(help: "Print each step of the first run.")
    var steps = false

    @Flag(help: "Sessions of several connections: another world, and another meaning of the seed.")
    var connections = false

    @Flag(help: "A disk with several lanes: another world, and another meaning of the seed.")
    var lanes = false

    @Option(help: ArgumentHelp("Plant a bug: \(PlantedBug.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "name"))
    var bug: PlantedBug?

    func run() throws {
        let result: RunResult
        if steps {
            result = Simulation(seed: seed, bug: bug, connections: connections, lanes: lanes) { print($0) }.run()
        } else {
            result = Simulation.runTwice(seed: seed, bug: bug, connections: connections, lanes: lanes)
        }
        print(result.summary)
        if result.violation != nil { throw ExitCode(1) }
    }
}

extension PlantedBug: ExpressibleByArgument {}
