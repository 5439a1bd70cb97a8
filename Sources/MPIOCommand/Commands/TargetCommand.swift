import ArgumentParser
import AsyncIO
import Foundation
import ISCSI
import ISCSITarget
import MPIO

struct TargetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "target",
        abstract: "Serve LUNs by iSCSI from this process: an embedded target.",
        discussion: """
            Each --lun is N=KIND[:PATH][,option]…: KIND is memory, null (reads zeroes, forgets writes) or file; the options
            are size=1G, block-size=4096, serial=…, identity=naa.6…, read-only, vendor=…, product=…, revision=….
            Runs until interrupted, then asks the initiators to log out. Port 0 takes a free one.

            Examples:
              mpio target --listen 127.0.0.1:3260 --listen 127.0.0.2:3260 --lun 0=memory,size=1G
              mpio target --listen 10.0.1.10 --name iqn.2026-11.org.example:disk --lun 0=file:/srv/disk.img,size=10G \\
                --chap-user host-1 --chap-secret-file chap.secret
            """)

    @Option(help: ArgumentHelp("Where to listen: an IP address, with a port where it is not 3260. Give it once for each portal.", valueName: "addr:port"))
    var listen: [String]

    @Option(help: ArgumentHelp("The target's iSCSI name.", valueName: "iqn"))
    var name = "iqn.2026-11.io.mpio:target"

    @Option(help: ArgumentHelp("A logical unit. Give it once for each.", valueName: "n=kind[:path][,size=1G]…"))
    var lun: [String]

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
        _ = try portals()
        _ = try units()
    }

    /// The connections of one session use portals of one group.
    func groupTag(ofPortal index: Int) -> UInt16 { maxConnections > 1 ? 1 : UInt16(clamping: index + 1) }

    private func portals() throws -> [TargetPortalConfiguration] {
        var seen: Set<SocketAddress> = []
        return try listen.enumerated().map { index, text in
            guard let address = SocketAddress(text, defaultPort: PortalAddress.defaultPort), address.port != nil else {
                throw ValidationError("--listen '\(text)': give an IP address and a port, such as 10.0.1.10:3260 or [2001:db8::1]:3260.")
            }
            // Several portals may each ask for any free port of one address.
            if address.port != 0, !seen.insert(address).inserted { throw ValidationError("--listen \(text) is given twice.") }
            return TargetPortalConfiguration(address: address, groupTag: groupTag(ofPortal: index))
        }
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

    func run() async throws {
        var configuration = ISCSITarget.TargetConfiguration(name: name, portals: try portals(), logicalUnits: try units())
        configuration.allowsHeaderDigest = digests.header
        configuration.allowsDataDigest = digests.data
        configuration.maximumConnectionsPerSession = maxConnections
        configuration.errorRecoveryLevel = errorRecoveryLevel
        configuration.authentication = try authentication()
        let host = try TargetHost(configuration)
        do {
            if !quiet { try StandardOutput.write(TargetText(style: Terminal.style()).serving(self, host.addresses, units: configuration.logicalUnits)) }
        } catch {
            await host.stop(patience: .zero)
            throw error
        }
        try await cancelledByInterrupt {
            while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
        }
        if !quiet, host.connectionCount > 0 { StandardError.write("asking the initiators to log out\n") }
        await host.stop(patience: .seconds(2))
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

/// What `mpio target` prints.
struct TargetText {
    var style = TextStyle()

    func serving(_ command: TargetCommand, _ addresses: [SocketAddress], units: [LogicalUnitConfiguration]) -> String {
        var text = style.paint(command.name, .bold) + "\n"
        for (index, address) in addresses.enumerated() { text += "  portal \(address)  group \(command.groupTag(ofPortal: index))\n" }
        for unit in units {
            let size = unit.byteCount.map { "  \(HumanText.size($0))" } ?? ""
            text += "  lun \(unit.number)  \(unit.storage.words)\(size), \(unit.blockSize) B blocks\(unit.isReadOnly ? ", read-only" : "")\n"
        }
        text += "\nTo use it, as mpio.yaml:\n\n" + policy(command, addresses, units: units)
        text += "\nOr: mpio discover \(addresses[0])\(discoverFlags(command)) --write-config mpio.yaml\nCtrl-C ends it.\n"
        return text
    }

    private func discoverFlags(_ command: TargetCommand) -> String {
        guard let user = command.chapUser, let file = command.chapSecretFile else { return "" }
        var text = " --user \(user) --secret-file \(file)"
        if let user = command.mutualUser, let file = command.mutualSecretFile {
            text += " --mutual-user \(user) --mutual-secret-file \(file)"
        }
        return text
    }

    /// A policy file for the target.
    private func policy(_ command: TargetCommand, _ addresses: [SocketAddress], units: [LogicalUnitConfiguration]) -> String {
        var text = "targets:\n  - name: \(command.name)\n    portals:\n"
        for address in addresses { text += "      - {address: \"\(address)\"}\n" }
        if let user = command.chapUser, let file = command.chapSecretFile {
            text += "    chap: {user: \"\(user)\", secret-file: \"\(file)\""
            if let user = command.mutualUser, let file = command.mutualSecretFile {
                text += ", mutual-user: \"\(user)\", mutual-secret-file: \"\(file)\""
            }
            text += "}\n"
        }
        text += "luns:\n"
        for unit in units { text += "  - {name: lun-\(unit.number), identity: {target: \"\(command.name)\", lun: \(unit.number)}}\n" }
        return text
    }
}

extension LogicalUnitConfiguration.Storage {
    fileprivate var words: String {
        switch self {
        case .memory: "memory"
        case .null: "null"
        case .file(let path): HumanText.printable(path)
        }
    }
}
