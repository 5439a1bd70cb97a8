import ArgumentParser
import Logging
import MPIO
import NBDServer
import TLS

/// `mpio hold --nbd`: the held LUNs as NBD exports.
struct NBDOptions: ParsableArguments {
    @Option(
        name: .customLong("nbd"),
        help: ArgumentHelp(
            "Export the LUNs by name over NBD there: unix:/path or tcp:ADDRESS:PORT. Can be given several times.",
            valueName: "address"))
    var addresses: [String] = []

    @Option(
        name: .customLong("nbd-tls-psk"),
        help: ArgumentHelp("Let NBD clients in by TLS with the pre-shared keys of that file, which psktool writes.", valueName: "file"))
    var keyFile: String?

    @Option(name: .customLong("nbd-tls"), help: "Whether NBD clients have to use TLS. (default: require, with --nbd-tls-psk)")
    var tls: TLSRequirement?

    enum TLSRequirement: String, ExpressibleByArgument, CaseIterable { case require, allow }

    /// What the manager's reactor needs room for.
    var hostedSocketCount: Int {
        addresses.isEmpty ? 0 : NBDServer.Options().hostedSocketCount(addresses: addresses.count)
    }

    func parsed() throws -> [NBDAddress] {
        guard !addresses.isEmpty || keyFile == nil && tls == nil else {
            throw CommandFailure("--nbd-tls-psk and --nbd-tls are for --nbd, which is not given", status: ExitStatus.usage)
        }
        do {
            return try addresses.map { try NBDAddress(parsing: $0) }
        } catch {
            throw CommandFailure("\(error)", status: ExitStatus.usage)
        }
    }

    /// Reads the file of keys.
    func security() throws -> NBDSecurity {
        guard let context = try context() else {
            guard tls == nil else { throw CommandFailure("--nbd-tls needs keys: --nbd-tls-psk FILE", status: ExitStatus.usage) }
            return .none
        }
        return tls == .allow ? .allowed(context) : .required(context)
    }

    /// Reads the file of keys; nil where none is given.
    func context() throws(CommandFailure) -> TLSServerContext? {
        guard let keyFile else { return nil }
        do {
            return try TLSServerContext(keys: try PreSharedKeys(file: keyFile))
        } catch {
            throw CommandFailure("--nbd-tls-psk: \(error)")
        }
    }
}

/// The NBD server of a holder; without `--nbd`, none.
struct NBDExporter: Sendable {
    private let server: NBDServer?
    private let addresses: [NBDAddress]
    private let security: NBDSecurity
    private let readKeys: @Sendable () throws(CommandFailure) -> TLSServerContext?
    private let logger: Logger

    /// How long clients' requests under way may take at the end: what the disks need for a path's fail-over, not more.
    private static let patience = Duration.seconds(5)

    /// Listens already: clients may connect, and find the LUNs as they open.
    init(
        _ addresses: [NBDAddress], security: NBDSecurity, names: [String], manager: PathManager, logger: Logger,
        readKeys: @escaping @Sendable () throws(CommandFailure) -> TLSServerContext?
    ) throws {
        self.logger = logger
        self.security = security
        self.readKeys = readKeys
        guard !addresses.isEmpty else {
            server = nil
            self.addresses = []
            return
        }
        do {
            var options = NBDServer.Options()
            options.security = security
            options.notice = { logger.warning("NBD: \($0)") }
            let server = try NBDServer(manager: manager, addresses: addresses, names: names, options: options)
            self.addresses = try server.start()
            self.server = server
        } catch {
            throw CommandFailure("NBD: \(error)")
        }
        for address in self.addresses {
            logger.info("NBD: listening on \(address)\(security.words)")
            guard let strangers = address.strangers, security.transport != .required else { continue }
            logger.warning("NBD: \(strangers) can read and write the LUNs by \(address), without password and encryption")
        }
    }

    var isExporting: Bool { server != nil }

    func export(_ disk: MultipathDisk) {
        guard let server else { return }
        do {
            try server.export(disk)
            for address in addresses { logger.info("\(disk.name): \(address.uri(export: disk.name, usesTLS: security.transport == .required))") }
        } catch {
            logger.error("NBD: \(error)")
        }
    }

    /// Reads the file of keys anew; one with a mistake changes nothing.
    func renewKeys() {
        do throws(CommandFailure) {
            guard let server, let keys = try readKeys() else { return }
            server.renewKeys(keys)
            logger.notice("NBD: the keys were read anew")
        } catch {
            logger.error("\(error); clients get in by the keys as they were")
        }
    }

    func stop() async { await server?.stop(patience: Self.patience) }
}

extension NBDSecurity {
    fileprivate var words: String {
        switch self {
        case .none: ""
        case .allowed: ", with or without TLS"
        case .required: ", with TLS only"
        }
    }
}

extension NBDAddress {
    /// Who gets in beside this user and root, where nobody has to prove who they are.
    fileprivate var strangers: String? {
        switch self {
        case .unix: nil
        case .tcp: isReachableFromElsewhere ? "whoever reaches it" : "every user of this machine"
        }
    }
}
