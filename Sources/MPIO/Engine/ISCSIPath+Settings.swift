import ISCSI
import Multipath

// What may change about a session while the process lives.

extension ISCSIPath {
    /// Nobody needs the session.
    var isUnused: Bool { users.isEmpty }

    /// Takes over new settings: timers and the connection policy at once, what is said in the login with the next one.
    /// Which connections it consists of stays.
    func adopt(_ new: ISCSIPathSettings) {
        settings.timers = new.timers
        if new.connectionPolicy != settings.connectionPolicy {
            settings.connectionPolicy = new.connectionPolicy
            group?.setPolicy(new.connectionPolicy)
        }
        var next = new.session
        next.login.isid = settings.session.login.isid
        next.login.operational.maxConnections = settings.session.login.operational.maxConnections
        next.login.operational.errorRecoveryLevel = settings.session.login.operational.errorRecoveryLevel
        next.login.operational.defaultTime2Wait = settings.session.login.operational.defaultTime2Wait
        session.adoptTimers(of: next)
        group?.adoptTimers(new.timers)
        nextSession = next
    }

    /// A session for a new login, with the old one's memory unless its size may have changed.
    func renewSession() {
        guard let next = nextSession else { return session.renew() }
        nextSession = nil
        settings.session = next
        session = InitiatorSession(settings: next, cryptography: host.cryptography, crc32c: host.crc32c)
    }
}

extension ISCSIPathSettings {
    func hasSameConnections(as other: ISCSIPathSettings) -> Bool {
        connections == other.connections && connectionPolicy == other.connectionPolicy
            && session.login.operational.errorRecoveryLevel == other.session.login.operational.errorRecoveryLevel
    }
}
