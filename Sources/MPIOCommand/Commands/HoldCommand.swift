import ArgumentParser
import Foundation
import Logging
import MPIO

struct HoldCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hold",
        abstract: "Keep the configured LUNs open, as a service and as NBD exports.",
        discussion: """
            Runs until interrupted, then lets requests end and logs out. A LUN without a usable path is tried again until \
            it has one. SIGHUP takes over the policy file anew, as 'mpio reload' does, and the keys of --nbd-tls-psk; \
            LUNs that it adds are opened.

            Under systemd (Type=notify) it tells when it is ready, reloads and stops, and feeds the watchdog.

            Examples:
              mpio hold & mpio paths --watch
              mpio hold --metrics tcp:127.0.0.1:9464
              mpio hold vm-store --nbd unix:./mpio.sock & nbdinfo --list 'nbd+unix://?socket=mpio.sock'
              psktool -u vm -p keys.psk && mpio hold --nbd tcp:10.0.0.5 --nbd-tls-psk keys.psk
            """)

    @Argument(help: "LUNs by name or identity; all of the policy file's where none is given.", completion: Completions.luns)
    var luns: [String] = []

    @Option(help: ArgumentHelp("Answer GET /metrics with OpenMetrics there: unix:/path or tcp:ADDRESS:PORT.", valueName: "address"))
    var metrics: MetricsAddress?

    @OptionGroup var nbd: NBDOptions
    @OptionGroup var log: LogOptions
    @OptionGroup var policyFile: PolicyFileOptions

    func run() async throws {
        let addresses = try nbd.parsed()
        let security = try nbd.security()
        let policy = try policyFile.load()
        let names = try luns.map { try policy.lunName($0) }
        let logger = log.makeLogger()
        let service = ServiceManager()
        let metrics = metrics
        try await cancelledByInterrupt(signals: [SIGINT, SIGTERM]) {
            try await withManager(policy, subcommand: "hold", hostedSocketCount: nbd.hostedSocketCount) { manager in
                let server = try metrics.map { address in
                    try MetricsServer(address) { manager.inspection().map(MetricsText.render) }
                }
                if let server { logger.info("metrics on \(server.address)") }
                defer { server?.stop() }
                let exporter = try NBDExporter(
                    addresses, security: security, names: names.isEmpty ? policy.luns.map(\.name) : names, manager: manager, logger: logger,
                    readKeys: { [nbd] () throws(CommandFailure) in try nbd.context() })
                await HoldService(manager: manager, names: names, logger: logger, service: service, exporter: exporter).run()
                service.stopping()
                await exporter.stop()
                logger.info("logging out")
            }
        }
    }
}
