import ArgumentParser
import Foundation
import MPIO

struct HoldCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hold",
        abstract: "Keep the configured LUNs open, for inspection and as NBD exports.",
        discussion: """
            Runs until interrupted, then logs out. A LUN without a usable path is tried again until it has one.

            Examples:
              mpio hold & mpio paths --watch
              mpio hold vm-store --nbd unix:./mpio.sock & nbdinfo --list 'nbd+unix://?socket=mpio.sock'
            """)

    @Argument(help: "LUNs by name or identity; all of the policy file's where none is given.")
    var luns: [String] = []

    @OptionGroup var nbd: NBDOptions
    @OptionGroup var policyFile: PolicyFileOptions

    func run() async throws {
        let addresses = try nbd.parsed()
        let policy = try policyFile.load()
        let names = try luns.isEmpty ? policy.luns.map(\.name) : luns.map { try policy.lunName($0) }
        try await cancelledByInterrupt {
            try await withManager(policy, subcommand: "hold", hostedSocketCount: nbd.hostedSocketCount) { manager in
                let exporter = try NBDExporter(addresses, names: names, manager: manager)
                await withTaskGroup(of: Void.self) { group in
                    for name in names { group.addTask { await Self.hold(name, manager, exporter) } }
                }
                await exporter.stop()
            }
        }
    }

    /// Returns when the task is cancelled.
    private static func hold(_ name: String, _ manager: PathManager, _ exporter: NBDExporter) async {
        var complaint = ""
        while !Task.isCancelled {
            do {
                let disk = try await manager.open(name)
                StandardError.write("\(name): open, \(HumanText.size(disk.capacityByteCount))\n")
                exporter.export(disk)
                return await untilCancelled()
            } catch {
                // Once for each new reason, not once for each try.
                let words = HumanText.printable("\(error)".replacing("\n", with: ";"))
                if words != complaint { StandardError.write("\(name): \(words)\n") }
                complaint = words
                try? await Task.sleep(for: .seconds(2))
            }
        }
    }

    private static func untilCancelled() async {
        while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
    }
}
