import AsyncIO
import ISCSI
import Multipath

/// The sessions of a configuration, made when a disk first needs them. The configuration may change: a session keeps
/// its key and its ISID for as long as the process lives, also while it is not configured. Confined to the reactor's thread.
final class SessionPool {
    struct Key: Hashable {
        var target: Int
        var portal: Int
    }

    /// A target that is or was configured, with all the portals that it ever had.
    private struct Target {
        var settings: TargetConfiguration
        var portals: [PortalConfiguration] = []
    }

    private let initiatorName: String
    private let lease: ISIDLease
    private let host: EngineHost
    private var targets: [Target] = []
    private var targetNumbers: [String: Int] = [:]
    private var keys: [SessionPlace: Key] = [:]
    /// What the ISIDs are made from, in the order in which they were first needed.
    private var isidNames: [String] = []
    private var isids: [Key: ISID] = [:]
    /// For each target one that carries no data (``NexusSurvey``).
    private var spareISIDs: [ISID] = []
    private var inventories: [Key: SessionInventory] = [:]
    private lazy var survey = NexusSurvey(host: host) { [unowned self] in spareSettings($0) }

    init(configuration: Configuration, initiatorName: String, lease: ISIDLease, host: EngineHost) {
        self.initiatorName = initiatorName
        self.lease = lease
        self.host = host
        adopt(configuration)
    }

    /// Takes over what a configuration says of targets and portals. Sessions that exist go on with what they have;
    /// ``settings(_:_:)`` is what they should have.
    func adopt(_ configuration: Configuration) {
        var newKeys: [Key] = []
        let firstNewTarget = targets.count
        for settings in configuration.targets {
            let target = number(of: settings)
            targets[target].settings = settings
            for portal in settings.portals {
                let place = SessionPlace(target: settings.name, portal)
                if let key = keys[place] {
                    targets[target].portals[key.portal] = portal
                    continue
                }
                let key = Key(target: target, portal: targets[target].portals.count)
                targets[target].portals.append(portal)
                keys[place] = key
                newKeys.append(key)
                isidNames.append("\(settings.name) \(portal.name)")
            }
        }
        // Those of the spares last, so that they take no ISID from a session that had it before.
        isidNames += targets[firstNewTarget...].map { "\($0.settings.name) spare" }
        let leased = lease.isids(forSessions: isidNames)
        let first = leased.count - newKeys.count - (targets.count - firstNewTarget)
        for (number, key) in newKeys.enumerated() { isids[key] = leased[first + number] }
        spareISIDs += leased[(first + newKeys.count)...]
    }

    private func number(of target: TargetConfiguration) -> Int {
        if let known = targetNumbers[target.name.lowercased()] { return known }
        targetNumbers[target.name.lowercased()] = targets.count
        targets.append(Target(settings: target))
        return targets.count - 1
    }

    /// The key of a session that is, or was, configured.
    func key(_ place: SessionPlace) -> Key? { keys[place] }

    /// The session, where a disk has needed it.
    func session(_ key: Key) -> ISCSIPath? { inventories[key]?.path }

    /// The session's inventory, which holds its path. `timers` are those of the disk that asks first:
    /// disks that share a session share its liveness.
    func inventory(_ key: Key, timers: Timers) -> SessionInventory {
        if let inventory = inventories[key] {
            // Nobody uses it now: whoever comes next gets what the file says by now, connections included.
            guard inventory.path.isOver, inventory.path.isUnused, !inventory.path.settings.hasSameConnections(as: settings(key, timers)) else { return inventory }
        }
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
        let portals = targets[key.target].portals
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

    /// What a session should be made from, by what is configured now.
    func settings(_ key: Key, _ timers: Timers) -> ISCSIPathSettings {
        let target = targets[key.target].settings
        let portal = targets[key.target].portals[key.portal]
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
