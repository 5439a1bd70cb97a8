import AsyncIO
import Cryptography
import Foundation
import ISCSI
import Multipath
import Timebase

/// Finds what portals offer: SendTargets at each of them, then a session to every portal that a target named, for its
/// logical units. What it finds is ready to become a policy file (``DiscoveryReport/storage(source:chap:)``).
public struct Discovery: Sendable {
    /// The portals to ask, in order; at least one.
    public var portals: [PortalAddress]
    /// Where connections leave from; nil: as the routing table says.
    public var source: SourceAddress?
    /// Nil: as ``PathManager`` takes it where the policy file names none.
    public var initiatorName: String?
    /// Used in the discovery sessions (without asking the target for its own proof) and in the normal ones.
    public var chap: CHAPConfiguration?
    /// The bound on each login, and on the answer.
    public var loginTimeout: Duration = .seconds(5)
    /// Where lock files are.
    public var runtimeDirectory = RuntimeDirectory.defaultPath()

    /// A question to these portals, at least one; everything else by default.
    public init(portals: [PortalAddress]) {
        precondition(!portals.isEmpty, "somebody has to be asked")
        self.portals = portals
    }

    /// Asks, logs in everywhere, looks, logs out. Portals that do not answer are in the report, with their reason.
    /// - Throws: ``PathManagerError`` where nothing could be started.
    public func run() async throws(PathManagerError) -> DiscoveryReport {
        let name = try name()
        let answers = try await ask(as: name)
        var report = DiscoveryReport(initiator: name)
        var addresses: [String: [PortalAddress]] = [:]
        for (portal, answer) in zip(portals, answers) {
            switch answer {
            case .success(let targets):
                report.portals.append(.init(portal: portal.description))
                merge(targets, askedAt: portal, into: &report, &addresses)
            case .failure(let failure):
                report.portals.append(.init(portal: portal.description, error: "\(failure)"))
            }
        }
        try await look(&report, addresses, as: name)
        return report
    }

    private func name() throws(PathManagerError) -> String {
        if let name = initiatorName ?? InitiatorNameSource.defaultName() { return name }
        throw .cannotStart("this machine has no name to derive an initiator name from; give one")
    }

    // MARK: SendTargets

    private func ask(as name: String) async throws(PathManagerError) -> [Result<[DiscoveredTarget], InventoryFailure>] {
        let lease: ISIDLease
        let reactor: LibaioReactor
        do {
            lease = try ISIDLease.acquire(initiatorName: name, directory: runtimeDirectory)
            reactor = try LibaioReactor(options: LibaioReactor.Options())
            try reactor.start()
        } catch {
            throw .cannotStart("\(error)")
        }
        let answers = await withTaskGroup(of: (Int, Result<[DiscoveredTarget], InventoryFailure>).self) { group in
            for (index, portal) in portals.enumerated() {
                // One ISID each: two sessions with one at the same target would throw each other out.
                let settings = settings(name, isid: lease.isid(forSessionIndex: UInt16(truncatingIfNeeded: index)))
                group.addTask { (index, await ask(portal, settings, on: reactor)) }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                reactor.stop()
                continuation.resume()
            }
        }
        withExtendedLifetime(lease) {}
        return portals.indices.map { answers[$0] ?? .failure(InventoryFailure(PathFailure(.other))) }
    }

    private func ask(
        _ portal: PortalAddress, _ settings: SessionSettings, on reactor: LibaioReactor
    ) async -> Result<[DiscoveredTarget], InventoryFailure> {
        let source = source
        return await withCheckedContinuation { continuation in
            let isQueued = reactor.enqueue {
                let host = EngineHost(port: reactor, cryptography: SystemCryptography(), crc32c: systemCRC32C)
                let from = source.flatMap { $0.socketAddress.hasSameFamily(as: portal.socketAddress) ? $0.socketAddress : nil }
                DiscoverySession(portal: portal.socketAddress, source: from, settings: settings, host: host) {
                    continuation.resume(returning: $0)
                }.start()
            }
            if !isQueued { continuation.resume(returning: .failure(InventoryFailure(PathFailure(.takenOut)))) }
        }
    }

    private func settings(_ name: String, isid: ISID) -> SessionSettings {
        var login = LoginSettings(initiatorName: name, targetName: nil, isid: isid)
        login.sessionType = .discovery
        // Many targets answer SendTargets without any proof, and refuse to be asked for one. Those that carry data are asked:
        // the sessions that come next.
        login.chap = chap.map(CHAPCredentials.init)
        login.chap?.mutual = nil
        var settings = SessionSettings(login: login)
        settings.loginTimeout = loginTimeout
        settings.commandTimeout = loginTimeout
        settings.commandCapacity = 1
        return settings
    }

    /// Several portals may tell of the same target, and then mostly the same of it.
    private func merge(
        _ targets: [DiscoveredTarget], askedAt asked: PortalAddress, into report: inout DiscoveryReport,
        _ addresses: inout [String: [PortalAddress]]
    ) {
        for target in targets {
            // The name goes into a file and into a login: what is no name is no target.
            guard ISCSINameProblem.find(in: target.name) == nil else { continue }
            let index = report.targets.firstIndex { $0.name == target.name } ?? report.targets.endIndex
            if index == report.targets.endIndex { report.targets.append(.init(name: target.name)) }
            // Without an address the target is where it was asked for (RFC 7143 appendix C).
            let offered = target.addresses.isEmpty ? [TargetAddress(host: asked.bareHost, port: asked.port)] : target.addresses
            for address in offered {
                let text = address.host.contains(":") ? "[\(address.host)]:\(address.port)" : "\(address.host):\(address.port)"
                let parsed = try? PortalAddress(parsing: text)
                let shown = parsed?.description ?? text
                guard !report.targets[index].portals.contains(where: { $0.portal == shown }) else { continue }
                var portal = DiscoveryReport.Portal(portal: shown, tpg: address.portalGroupTag.map(Int.init))
                if let parsed {
                    addresses[target.name, default: []].append(parsed)
                } else {
                    portal.error = "not an IP address that can be used"
                }
                report.targets[index].portals.append(portal)
            }
        }
    }

    // MARK: Logical units

    private func look(
        _ report: inout DiscoveryReport, _ addresses: [String: [PortalAddress]], as name: String
    ) async throws(PathManagerError) {
        var configuration = Configuration(initiatorName: name)
        for target in report.targets {
            guard let portals = addresses[target.name] else { continue }
            var entry = TargetConfiguration(
                name: target.name,
                portals: portals.map { portal in
                    let from = source.flatMap { $0.socketAddress.hasSameFamily(as: portal.socketAddress) ? $0 : nil }
                    return PortalConfiguration(
                        name: portal.description, connections: [ConnectionConfiguration(address: portal, source: from)])
                })
            entry.chap = chap
            configuration.targets.append(entry)
        }
        guard !configuration.targets.isEmpty else { return }
        var options = PathManager.Options()
        options.runtimeDirectory = runtimeDirectory
        options.isInspectable = false
        let manager = try await PathManager(configuration: configuration, options: options)
        let inventories = await manager.inventory()
        try await manager.shutdown()
        for inventory in inventories { add(inventory, to: &report) }
    }

    private func add(_ inventory: TargetInventory, to report: inout DiscoveryReport) {
        guard let target = report.targets.firstIndex(where: { $0.name == inventory.target }),
            let portal = report.targets[target].portals.firstIndex(where: { $0.portal == inventory.portal })
        else { return }
        switch inventory.units {
        case .failure(let error): report.targets[target].portals[portal].error = error.trouble.words
        case .success(let units):
            for unit in units {
                let number = unit.lun.index ?? Int(truncatingIfNeeded: unit.lun.rawValue)
                let path = DiscoveryReport.Path(portal: inventory.portal, target: inventory.target, lun: number)
                guard let device = unit.device else { continue }
                guard let identity = device.identity else {
                    report.unidentified.append(path)
                    continue
                }
                if let known = report.luns.firstIndex(where: { $0.logicalUnitIdentity == identity }) {
                    report.luns[known].paths.append(path)
                } else {
                    report.luns.append(DiscoveryReport.LUN(identity, device, firstPath: path))
                }
            }
        }
    }
}

extension PortalAddress {
    /// Without port and brackets.
    fileprivate var bareHost: String { socketAddress.host }
    fileprivate var port: UInt16 { socketAddress.port ?? Self.defaultPort }
}

extension Configuration {
    /// Why a text is no iSCSI name (RFC 7143 section 4.2.7), in words; nil where it is one.
    public static func problem(ofName name: String) -> String? { ISCSINameProblem.find(in: name).map { "\($0)" } }
}
