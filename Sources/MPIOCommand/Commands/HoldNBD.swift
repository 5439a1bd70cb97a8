import ArgumentParser
import Logging
import MPIO
import NBDServer

/// `mpio hold --nbd`: the held LUNs as NBD exports.
struct NBDOptions: ParsableArguments {
    @Option(
        name: .customLong("nbd"),
        help: ArgumentHelp(
            "Export the LUNs by name over NBD there: unix:/path or tcp:ADDRESS:PORT. Can be given several times.",
            valueName: "address"))
    var addresses: [String] = []

    /// What the manager's reactor needs room for.
    var hostedSocketCount: Int {
        addresses.isEmpty ? 0 : NBDServer.Options().hostedSocketCount(addresses: addresses.count)
    }

    func parsed() throws -> [NBDAddress] {
        do {
            return try addresses.map { try NBDAddress(parsing: $0) }
        } catch {
            throw CommandFailure("\(error)", status: ExitStatus.usage)
        }
    }
}

/// The NBD server of a holder; without `--nbd`, none.
struct NBDExporter: Sendable {
    private let server: NBDServer?
    private let addresses: [NBDAddress]
    private let logger: Logger

    /// How long clients' requests under way may take at the end: what the disks need for a path's fail-over, not more.
    private static let patience = Duration.seconds(5)

    /// Listens already: clients may connect, and find the LUNs as they open.
    init(_ addresses: [NBDAddress], names: [String], manager: PathManager, logger: Logger) throws {
        self.logger = logger
        guard !addresses.isEmpty else {
            server = nil
            self.addresses = []
            return
        }
        do {
            let server = try NBDServer(manager: manager, addresses: addresses, names: names)
            self.addresses = try server.start()
            self.server = server
        } catch {
            throw CommandFailure("NBD: \(error)")
        }
        for address in self.addresses {
            logger.info("NBD: listening on \(address)")
            guard address.isReachableFromElsewhere else { continue }
            logger.warning("NBD: whoever reaches \(address) can read and write the LUNs; there is neither password nor encryption")
        }
    }

    var isExporting: Bool { server != nil }

    func export(_ disk: MultipathDisk) {
        guard let server else { return }
        do {
            try server.export(disk)
            for address in addresses { logger.info("\(disk.name): \(address.uri(export: disk.name))") }
        } catch {
            logger.error("NBD: \(error)")
        }
    }

    func stop() async { await server?.stop(patience: Self.patience) }
}
