/// What each reactor of a manager has room for: fixed when the manager is made, because the kernel reserves asynchronous operations for
/// every socket that there may be.
struct SessionRoom: Hashable, Sendable {
    /// Sessions.
    let sessionCount: Int
    /// Connections of sessions, and of what is done beside them.
    let socketCount: Int

    /// Room for a configuration's sessions, and for `spareSessionCount` more that have as many connections as its largest one.
    init(for configuration: Configuration, spareSessionCount: Int) {
        let spares = min(max(spareSessionCount, 0), 1 << 16)
        let largest = configuration.targets.lazy.flatMap(\.portals).map(\.connections.count).max() ?? 1
        sessionCount = configuration.sessionPlaces.count + spares
        // A spare session may be one of the target that is proven: it then has its connections once more.
        socketCount = Self.socketCount(of: configuration) + spares * (2 * largest + 1)
    }

    /// The sockets that a configuration's sessions may have at once. Each has a socket for each connection, and one for the session that
    /// reinstates its nexus through another portal (``NexusReinstatement``). One target at a time has its portals proven
    /// (``PortalGroupProof``), with a session like the portal's own at each, and one that logs in a second time.
    static func socketCount(of configuration: Configuration) -> Int {
        var count = 0
        var largestProof = 0
        for target in configuration.targets {
            let connections = target.portals.reduce(0) { $0 + $1.connections.count }
            count += connections + target.portals.count
            largestProof = max(largestProof, connections + (target.portals.map(\.connections.count).max() ?? 0))
        }
        return count + largestProof
    }

    /// Why a configuration that a manager is to change to does not fit, in words; nil: it does.
    func objection(to configuration: Configuration) -> String? {
        let sessions = Set(configuration.sessionPlaces).count
        guard sessions <= sessionCount else {
            return "\(sessions) sessions are more than the \(sessionCount) that this process has room for; it takes a restart"
        }
        guard Self.socketCount(of: configuration) <= socketCount else {
            return "the sessions have more connections than this process has room for; it takes a restart"
        }
        return nil
    }
}
