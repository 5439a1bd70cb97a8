import ArgumentParser
import AsyncIO
import Foundation
import Gateway
import ISCSI
import ISCSITarget
import MPIO
import SCSI
import Synchronization

struct TargetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "target",
        abstract: "Serve LUNs by iSCSI from this process: an embedded target.",
        usage: """
            mpio target --listen <addr:port> ... --lun <n=kind[:path][,size=1G]...> ... [options]
            mpio target fault <subcommand>
            """,
        discussion: """
            Each --lun is N=KIND[:PATH][,option]…: KIND is memory, null (reads zeroes, forgets writes), file, or mpio with the \
            name of a LUN of the policy file (a gateway: --lun 0=mpio:vm-store); the options are size=1G, block-size=4096 \
            (not with mpio), serial=…, identity=naa.6…, reservations=FILE, read-only, vendor=…, product=…, revision=….
            Runs until interrupted, then asks the initiators to log out. Port 0 takes a free one.

            With --peer a second controller stands before the same LUNs: a target of its own name, with a port group (2) \
            and access state of its own, as arrays with two controllers have it.

            Examples:
              mpio target --listen 127.0.0.1:3260 --listen 127.0.0.2:3260 --lun 0=memory,size=1G
              mpio target --listen 10.0.1.10 --name iqn.2026-11.org.example:disk --lun 0=file:/srv/disk.img,size=10G \\
                --chap-user host-1 --chap-secret-file chap.secret
              mpio target --listen 10.0.1.10 --lun 0=mpio:vm-store
              mpio target --listen 127.0.0.1 --peer 127.0.0.2 --peer-state standby --explicit-alua --lun 0=memory,size=1G
            """,
        subcommands: [TargetFaultCommand.self])

    @Option(help: ArgumentHelp("Where to listen: an IP address, with a port where it is not 3260. Give it once for each portal.", valueName: "addr:port"))
    var listen: [String] = []

    @Option(help: ArgumentHelp("The target's iSCSI name.", valueName: "iqn"))
    var name = "iqn.2026-11.io.mpio:target"

    @Option(help: ArgumentHelp("A logical unit. Give it once for each.", valueName: "n=kind[:path][,size=1G]…"))
    var lun: [String] = []

    @OptionGroup var policyFile: PolicyFileOptions

    @Option(help: ArgumentHelp("Where a second controller before the same LUNs listens. Give it once for each portal.", valueName: "addr:port"))
    var peer: [String] = []

    @Option(help: ArgumentHelp("The second controller's iSCSI name. (default: that of the first, with -peer)", valueName: "iqn"))
    var peerName: String?

    @Option(help: "The second controller's access state (ALUA) at the start.")
    var peerState: PeerState?

    @Flag(help: "Initiators may change access states (SET TARGET PORT GROUPS).")
    var explicitAlua = false

    @Option(help: ArgumentHelp("Initiators have to prove to be this CHAP user.", valueName: "name"))
    var chapUser: String?

    @Option(help: ArgumentHelp("The file with its secret: one line, readable by you alone.", valueName: "file"), completion: .file())
    var chapSecretFile: String?

    @Option(help: ArgumentHelp("The CHAP user that the target proves to be, where an initiator asks.", valueName: "name"))
    var mutualUser: String?

    @Option(help: ArgumentHelp("The file with the target's secret.", valueName: "file"), completion: .file())
    var mutualSecretFile: String?

    @Option(help: ArgumentHelp("CRC32C digests that initiators may have: header, data, header,data or none.", valueName: "which"), completion: .list(["none", "header", "data", "header,data"]))
    var digests = Digests(header: true, data: true)

    @Option(help: ArgumentHelp("Connections that one session may have (MaxConnections), 1 to 64. More than one puts all portals into one portal group.", valueName: "n"))
    var maxConnections = 1

    @Option(help: ArgumentHelp("The highest ErrorRecoveryLevel that initiators get: 0, 1 or 2.", valueName: "level"))
    var errorRecoveryLevel = 0

    @Flag(help: "Say nothing but errors.")
    var quiet = false

    enum PeerState: String, CaseIterable, ExpressibleByArgument {
        case optimized
        case nonOptimized = "non-optimized"
        case standby, unavailable

        var accessState: AccessState {
            switch self {
            case .optimized: .optimized
            case .nonOptimized: .nonOptimized
            case .standby: .standby
            case .unavailable: .unavailable
            }
        }
    }

    struct Digests: ExpressibleByArgument, Equatable {
        var header: Bool
        var data: Bool

        init(header: Bool, data: Bool) {
            self.header = header
            self.data = data
        }

        init?(argument: String) {
            switch argument {
            case "none": self.init(header: false, data: false)
            case "header": self.init(header: true, data: false)
            case "data": self.init(header: false, data: true)
            case "header,data", "data,header": self.init(header: true, data: true)
            default: return nil
            }
        }

        var defaultValueDescription: String { "header,data" }
    }

    func validate() throws {
        if let problem = Configuration.problem(ofName: name) { throw ValidationError("'\(name)' is no iSCSI name: \(problem).") }
        guard (chapUser == nil) == (chapSecretFile == nil) else { throw ValidationError("--chap-user and --chap-secret-file go together.") }
        guard (mutualUser == nil) == (mutualSecretFile == nil) else { throw ValidationError("--mutual-user and --mutual-secret-file go together.") }
        guard mutualUser == nil || chapUser != nil else { throw ValidationError("--mutual-user needs --chap-user: the target proves itself to a user.") }
        guard (1...64).contains(maxConnections) else { throw ValidationError("--max-connections \(maxConnections): give 1 to 64.") }
        guard (0...2).contains(errorRecoveryLevel) else { throw ValidationError("--error-recovery-level \(errorRecoveryLevel): give 0, 1 or 2.") }
        guard !peer.isEmpty || (peerName == nil && peerState == nil) else {
            throw ValidationError("--peer-name and --peer-state need --peer.")
        }
        if let problem = Configuration.problem(ofName: nameOfPeer) { throw ValidationError("'\(nameOfPeer)' is no iSCSI name: \(problem).") }
        guard peer.isEmpty || nameOfPeer != name else { throw ValidationError("--peer-name has to differ from --name.") }
        _ = try addresses()
        _ = try units()
    }

    var nameOfPeer: String { peerName ?? name + "-peer" }

    private func addresses() throws -> (own: [SocketAddress], peer: [SocketAddress]) {
        var seen: Set<SocketAddress> = []
        func parse(_ texts: [String], _ option: String) throws -> [SocketAddress] {
            try texts.map { text in
                guard let address = SocketAddress(text, defaultPort: PortalAddress.defaultPort), address.port != nil else {
                    throw ValidationError("\(option) '\(text)': give an IP address and a port, such as 10.0.1.10:3260 or [2001:db8::1]:3260.")
                }
                // Several portals may each ask for any free port of one address.
                if address.port != 0, !seen.insert(address).inserted { throw ValidationError("\(option) \(text) is given twice.") }
                return address
            }
        }
        return (try parse(listen, "--listen"), try parse(peer, "--peer"))
    }

    private func units() throws -> [LogicalUnitConfiguration] {
        var seen: Set<Int> = []
        return try lun.map { text in
            do {
                let unit = try LogicalUnitConfiguration(parsing: text)
                guard seen.insert(unit.number).inserted else { throw ValidationError("--lun \(unit.number) is given twice.") }
                return unit
            } catch let error as LogicalUnitParseError {
                throw ValidationError("--lun \(text): \(error).")
            }
        }
    }

    func configuration() throws -> ISCSITarget.TargetConfiguration {
        // Not in `validate`, which the parser runs for `mpio target fault` as well.
        guard !listen.isEmpty else { throw CommandFailure("mpio target needs --listen ADDR:PORT; see mpio target --help", status: ExitStatus.usage) }
        guard !lun.isEmpty else { throw CommandFailure("mpio target needs a --lun; see mpio target --help", status: ExitStatus.usage) }
        let (own, other) = try addresses()
        let portals = own.enumerated().map { index, address in
            // A controller's ports are one target port group, as in arrays; alone, each port is one, unless the connections
            // of a session are to use several.
            TargetPortalConfiguration(
                address: address, groupTag: other.isEmpty && maxConnections == 1 ? UInt16(clamping: index + 1) : 1)
        }
        var configuration = ISCSITarget.TargetConfiguration(name: name, portals: portals, logicalUnits: try units())
        configuration.allowsHeaderDigest = digests.header
        configuration.allowsDataDigest = digests.data
        configuration.maximumConnectionsPerSession = maxConnections
        configuration.errorRecoveryLevel = errorRecoveryLevel
        configuration.allowsExplicitTransitions = explicitAlua
        configuration.authentication = try authentication()
        guard !other.isEmpty else { return configuration }
        configuration.furtherNodes = [
            TargetNodeConfiguration(
                name: nameOfPeer, portals: other.map { TargetPortalConfiguration(address: $0, groupTag: 2) },
                units: .sharedWith(node: name), authentication: configuration.authentication)
        ]
        if let peerState { configuration.accessStates = [2: peerState.accessState] }
        return configuration
    }

    func run() async throws {
        let configuration = try configuration()
        try await cancelledByInterrupt { [self] in
            let names = configuration.logicalUnits.compactMap(\.diskName)
            guard !names.isEmpty else { return try await serve(configuration, disks: nil) }
            let policy = try policyFile.load()
            let luns = try names.map { ($0, try policy.lunName($0)) }
            // Disks may still have the memory of the target's commands until the manager is shut down.
            let keeper = Keeper()
            defer { keeper.host.withLock { $0 = nil } }
            try await withManager(policy, subcommand: "target", hostsTarget: true) { manager in
                var disks = TargetHost.Disks(manager: manager)
                for (name, lun) in luns { disks.disks[name] = try await manager.open(lun) }
                try await serve(disks.applied(to: configuration), disks: disks) { host in keeper.host.withLock { $0 = host } }
            }
        }
    }

    /// Until the task is cancelled.
    private func serve(
        _ configuration: ISCSITarget.TargetConfiguration, disks: TargetHost.Disks?, keep: (TargetHost) -> Void = { _ in }
    ) async throws {
        let host = try TargetHost(configuration, disks: disks)
        keep(host)
        let control = startControl(of: host, configuration)
        defer { control?.stop() }
        do {
            if !quiet {
                try StandardOutput.write(TargetText(style: Terminal.style()).serving(self, host, configuration))
            }
        } catch {
            await host.stop(patience: .zero)
            throw error
        }
        while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
        control?.stop()
        if !quiet, host.connectionCount > 0 { StandardError.write("asking the initiators to log out\n") }
        await host.stop(patience: .seconds(2))
    }

    /// For `mpio target fault`. A target without it is a target all the same.
    private func startControl(of host: TargetHost, _ configuration: ISCSITarget.TargetConfiguration) -> ControlServer? {
        let control = TargetControl(names: [configuration.name] + configuration.furtherNodes.map(\.name)) { try host.perform($0) }
        do throws(ControlSocketError) {
            return try ControlServer(lines: control, suffix: TargetControl.suffix)
        } catch {
            StandardError.write("mpio: 'mpio target fault' will not reach this target: \(error)\n")
            return nil
        }
    }

    private func authentication() throws -> TargetAuthentication {
        guard let chapUser, let chapSecretFile else { return .none }
        let secret = try readSecret(chapSecretFile)
        var own: CHAPIdentity?
        if let mutualUser, let mutualSecretFile {
            let mutual = try readSecret(mutualSecretFile)
            // Else an initiator could answer with what the target itself computed (RFC 7143 section 9.2.1).
            guard mutual.bytes != secret.bytes else { throw CommandFailure("the two secrets have to differ", status: ExitStatus.usage) }
            own = CHAPIdentity(name: mutualUser, secret: CHAPSecret(mutual.bytes))
        }
        return .chap(initiators: [CHAPIdentity(name: chapUser, secret: CHAPSecret(secret.bytes))], own: own)
    }
}

private final class Keeper: Sendable {
    let host = Mutex<TargetHost?>(nil)
}
