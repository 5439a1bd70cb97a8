package import AsyncIO
package import ISCSI
package import Multipath
package import SCSI

/// Who has commands on an ``ISCSIPath``: the paths of disks that it leads to, and its own inventory.
///
/// Calls come on the reactor's thread, never from inside ``ISCSIPath/submit(_:)``.
package protocol ISCSIPathClient: AnyObject {
    /// Logged in: commands may be submitted.
    func pathLoggedIn(_ path: ISCSIPath)
    /// One command ended; `completion.token` is as it was submitted.
    func path(_ path: ISCSIPath, completed completion: borrowing CommandCompletion)
    /// The session ended with this command open. In the order of submission, after ``pathLost(_:failure:)``.
    func path(_ path: ISCSIPath, abandoned token: UInt64, wasSent: Bool)
    /// A task management function ended; nil where the session ended first or the target rejected it.
    func path(_ path: ISCSIPath, taskManagement token: UInt64, answered response: TaskManagementResponse?)
    /// The session is gone, or could not be made. ``ISCSIPath/connect()`` tries again.
    func pathLost(_ path: ISCSIPath, failure: PathFailure)
    func path(_ path: ISCSIPath, liveness: PathLiveness)
    /// The target says that something about its logical units changed.
    func path(_ path: ISCSIPath, asyncSense sense: SenseData?)
    /// A command was lost with one connection of the session, which goes on. Nothing of it can land any
    /// more, but where `wasSent` it may have been carried out.
    func path(_ path: ISCSIPath, lost token: UInt64, wasSent: Bool)
    /// A task management request was lost in the same way.
    func path(_ path: ISCSIPath, lostTaskManagement token: UInt64)
    /// Something happened to one connection of the session.
    func path(_ path: ISCSIPath, connection change: ConnectionChange)
}

extension ISCSIPathClient {
    package func path(_ path: ISCSIPath, lost token: UInt64, wasSent: Bool) {
        self.path(path, abandoned: token, wasSent: wasSent)
    }
    package func path(_ path: ISCSIPath, lostTaskManagement token: UInt64) {
        self.path(path, taskManagement: token, answered: nil)
    }
    package func path(_ path: ISCSIPath, connection change: ConnectionChange) {}
}

/// What a session's silence means while it is kept.
package enum PathLiveness: Hashable, Sendable {
    case stalled, resumed
    case slow(Bool)
}

/// Which client of a path a command belongs to: the top 16 bits of its token.
package struct PathClientID: Hashable, Sendable {
    package var rawValue: UInt16
    static let lowMask: UInt64 = 0x0000_FFFF_FFFF_FFFF
    @inline(__always) func token(_ low: UInt64) -> UInt64 { UInt64(rawValue) << 48 | low & Self.lowMask }
}

/// What is fixed about one session for as long as it is configured.
package struct ISCSIPathSettings: Sendable {
    /// As the inspector names it: the portal's address.
    package var name: String
    package var portal: SocketAddress
    package var source: SocketAddress?
    package var session: SessionSettings
    /// All connections of the session, the leading one first. With a single one there is nothing to choose.
    package var connections: [ISCSIConnectionSettings]
    /// How a connection is chosen for each command.
    package var connectionPolicy = PolicySettings(.roundRobin)
    /// When a lost connection is tried again: the path recovery intervals.
    package var timers = Timers()

    package init(name: String, portal: SocketAddress, source: SocketAddress?, session: SessionSettings) {
        self.name = name
        self.portal = portal
        self.source = source
        self.session = session
        connections = [ISCSIConnectionSettings(portal: portal, source: source)]
    }
}
