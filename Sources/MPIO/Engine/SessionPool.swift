import AsyncIO
import ISCSI
import Multipath

/// The sessions of a configuration, made when a disk first needs them. Confined to the reactor's thread.
final class SessionPool {
    struct Key: Hashable {
        var target: Int
        var portal: Int
    }

    private let configuration: Configuration
    private let initiatorName: String
    private let isids: [Key: ISID]
    private let host: EngineHost
    /// For each target one that carries no data (``NexusSurvey``).
    private let spareISIDs: [ISID]
    private var inventories: [Key: SessionInventory] = [:]
    private lazy var survey = NexusSurvey(host: host) { [unowned self] in spareSettings($0) }

    init(configuration: Configuration, initiatorName: String, lease: ISIDLease, host: EngineHost) {
        self.configuration = configuration
        self.initiatorName = initiatorName
        self.host = host
        var keys: [Key] = []
        var names: [String] = []
        for (target, settings) in configuration.targets.enumerated() {
            for (portal, entry) in settings.portals.enumerated() {
                keys.append(Key(target: target, portal: portal))
                names.append("\(settings.name) \(entry.name)")
            }
        }
        // Last, so that they take no ISID from a session that had it before.
        names += configuration.targets.map { "\($0.name) spare" }
        let leased = lease.isids(forSessions: names)
        isids = Dictionary(uniqueKeysWithValues: zip(keys, leased))
        spareISIDs = Array(leased[keys.count...])
    }

    /// The session's inventory, which holds its path. `timers` are those of the disk that asks first:
    /// disks that share a session share its liveness.
    func inventory(_ key: Key, timers: Timers) -> SessionInventory {
        if let inventory = inventories[key] { return inventory }
        let path = ISCSIPath(settings: settings(key, timers), host: host)
        let inventory = SessionInventory(path: path)
        inventories[key] = inventory
        survey.watch(inventory, key)
        path.nexus = { [weak self] in self?.knowledge(of: key) ?? NexusKnowledge() }
        path.alternatives = { [weak self, weak path] in
            guard let self, let path else { return [] }
            return self.alternatives(to: path, key)
        }
        return inventory
    }

    /// The other portals that were proven to lead to this session's nexus, and work now. They have not been logged in to
    /// anew since, so it is still the same process that answers there.
    private func alternatives(to path: ISCSIPath, _ key: Key) -> [ISCSIPathSettings] {
        survey.groups(ofTarget: key.target).sharing(with: key.portal).compactMap { portal in
            guard let other = inventories[Key(target: key.target, portal: portal)]?.path, other.isLoggedIn else { return nil }
            var session = path.settings.session
            // It carries nothing but task management.
            session.commandCapacity = 2
            return ISCSIPathSettings(
                name: other.settings.name, portal: other.settings.portal, source: other.settings.source,
                session: session)
        }
    }

    private func knowledge(of key: Key) -> NexusKnowledge {
        let groups = survey.groups(ofTarget: key.target)
        let portals = configuration.targets[key.target].portals
        return NexusKnowledge(
            reinstates: groups.reinstates(key.portal), sharedWith: groups.sharing(with: key.portal).map { portals[$0].name })
    }

    private func spareSettings(_ key: Key) -> ISCSIPathSettings? {
        guard var settings = inventories[key]?.path.settings else { return nil }
        settings.session.login.isid = spareISIDs[key.target]
        settings.session.commandCapacity = 2
        return settings
    }

    /// No more proofs; those that are under way log out.
    func stopProofs() { survey.stop() }

    /// All sessions made so far, those of a proof included.
    var paths: [ISCSIPath] { inventories.values.map(\.path) + survey.paths }

    private func settings(_ key: Key, _ timers: Timers) -> ISCSIPathSettings {
        let target = configuration.targets[key.target]
        let portal = target.portals[key.portal]
        var login = LoginSettings(initiatorName: initiatorName, targetName: target.name, isid: isids[key]!)
        login.chap = target.chap.map(CHAPCredentials.init)
        login.operational = OperationalSettings(target)
        var session = SessionSettings(login: login)
        session.loginTimeout = timers.loginTimeout
        session.commandTimeout = timers.commandTimeout
        session.silenceTimeout = timers.silenceTimeout
        session.verifyPeriod = timers.pathVerifyPeriod
        session.commandCapacity = target.iscsi.queueDepth
        session.connectionRecoveryTimeout = timers.silenceTimeout / 2
        let count = portal.connections.count
        session.login.operational.maxConnections = count
        session.login.operational.errorRecoveryLevel = target.iscsi.errorRecoveryLevel
        // What is lost with a connection is to go on at once; a target that needs time says so by its own value.
        if count > 1 || target.iscsi.errorRecoveryLevel > 0 { session.login.operational.defaultTime2Wait = 0 }
        var settings = ISCSIPathSettings(
            name: portal.name, portal: portal.address.socketAddress, source: portal.source?.socketAddress,
            session: session)
        settings.connections = portal.connections.map {
            ISCSIConnectionSettings(
                portal: $0.address.socketAddress, source: $0.source?.socketAddress, role: $0.role, weight: $0.weight)
        }
        settings.connectionPolicy = target.connectionPolicy
        settings.timers = timers
        return settings
    }
}

extension OperationalSettings {
    init(_ target: TargetConfiguration) {
        self.init()
        headerDigest = target.headerDigests.map { $0 == .crc32c ? .crc32c : .none }
        dataDigest = target.dataDigests.map { $0 == .crc32c ? .crc32c : .none }
        immediateData = target.iscsi.immediateData
        initialR2T = target.iscsi.initialR2T
        maxRecvDataSegmentByteCount = target.iscsi.maxReceiveDataSegment
        maxBurstByteCount = target.iscsi.maxBurst
        firstBurstByteCount = target.iscsi.firstBurst
        maxOutstandingR2T = target.iscsi.maxOutstandingR2T
    }
}

extension CHAPCredentials {
    init(_ configuration: CHAPConfiguration) {
        self.init(
            identity: CHAPIdentity(name: configuration.user, secret: CHAPSecret(configuration.secret.bytes)),
            mutual: configuration.mutual.map { CHAPIdentity(name: $0.user, secret: CHAPSecret($0.secret.bytes)) },
            algorithms: configuration.algorithms.map { name in
                switch name {
                case .sha3_256: .sha3_256
                case .sha256: .sha256
                case .sha1: .sha1
                case .md5: .md5
                }
            })
    }
}
