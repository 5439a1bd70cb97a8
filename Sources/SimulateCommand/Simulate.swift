import ArgumentParser
import Simulation

@main
struct Simulate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run the shipped code over a simulated network and clock.",
        discussion: "A seed decides everything; the same seed does the same again.",
        subcommands: [RunSeed.self, Soak.self, FindBugs.self], defaultSubcommand: RunSeed.self)
}
