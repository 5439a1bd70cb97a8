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
    private var inventories: [Key: SessionInventory] = [:]

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
        isids = Dictionary(uniqueKeysWithValues: zip(keys, lease.isids(forSessions: names)))
    }

    /// The session's inventory, which holds its path. `timers` are those of the disk that asks first:
    /// disks that share a session share its liveness.
    func inventory(_ key: Key, timers: Timers) -> SessionInventory {
        if let inventory = inventories[key] { return inventory }
        let path = ISCSIPath(settings: settings(key, timers), host: host)
        let inventory = SessionInventory(path: path)
        inventories[key] = inventory
        path.alternatives = { [weak self, weak path] in
            guard let self, let path else { return [] }
            return self.alternatives(to: path, key)
        }
        return inventory
    }

    /// The other portals of the target that lead to the port group of this session, as their own logins showed, and that
    /// work now.
    private func alternatives(to path: ISCSIPath, _ key: Key) -> [ISCSIPathSettings] {
        guard let tag = path.portalGroupTag else { return [] }
        return configuration.targets[key.target].portals.indices.compactMap { portal in
            guard portal != key.portal, let other = inventories[Key(target: key.target, portal: portal)]?.path,
                other.login?.portalGroupTag == tag
            else { return nil }
            return ISCSIPathSettings(
                name: other.settings.name, portal: other.settings.portal, source: other.settings.source,
                session: path.settings.session)
        }
    }

    /// All sessions made so far.
    var paths: [ISCSIPath] { inventories.values.map(\.path) }

    private func settings(_ key: Key, _ timers: Timers) -> ISCSIPathSettings {
        let target = configuration.targets[key.target]
        let portal = target.portals[key.portal]
        var login = LoginSettings(initiatorName: initiatorName, targetName: target.name, isid: isids[key]!)
        login.chap = target.chap.map(CHAPCredentials.init)
        login.operational = OperationalSettings(target)
        login.beginsWithSecurity = true
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
