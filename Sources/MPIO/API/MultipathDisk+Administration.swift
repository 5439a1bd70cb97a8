import AsyncIO
public import Multipath

extension MultipathDisk {
    /// The disk as the inspector shows it: state, policy, paths with their counters.
    public var status: LUNSnapshot {
        get async throws(DiskError) { .joined(try await onAllLanes { $0.inspect(holder: nil) }, isSample: false) }
    }

    /// The same with what ``ControlRequest/sample(luns:)`` adds.
    package var sample: LUNSnapshot {
        get async throws(DiskError) { .joined(try await onAllLanes { $0.inspect(holder: nil, isSample: true) }, isSample: true) }
    }

    /// The paths, in configured order, with their states and counters.
    public var paths: [PathSnapshot] {
        get async throws(DiskError) { try await status.paths }
    }

    /// What happens from now on: paths lost and regained, fail-overs, policy changes. Each access starts
    /// a new stream; it ends when the disk is closed. A reader that falls more than 1024 events
    /// behind loses the oldest.
    public var events: AsyncStream<DiskEvent> { engine.engine.events.stream() }

    /// Changes the load-balance policy. Requests in flight stay where they are; from the next one on the
    /// new policy chooses.
    public func setPolicy(_ policy: PolicySettings) async throws(DiskError) {
        _ = try await onAllLanes { $0.setPolicy(policy) }
    }

    /// Changes the load-balance policy, with its default options.
    public func setPolicy(_ kind: PolicyKind) async throws(DiskError) {
        try await setPolicy(PolicySettings(kind))
    }

    /// Changes how the connections of a path's session are chosen, from the next command on and for every
    /// disk that uses the session. False, and nothing is changed: there is no path of this name, its session has one connection
    /// only, or the policy (``/Multipath/PolicyKind/leastBlocks``) is none for connections.
    @discardableResult
    public func setConnectionPolicy(_ policy: PolicySettings, ofPath name: String) async throws(DiskError) -> Bool {
        guard policy.kind.appliesToConnections else { return false }
        return try await onAllLanes { engine in
            guard let path = engine.lun.path(named: name), let group = engine.paths[path.index].connections else { return false }
            group.setPolicy(policy)
            return true
        }.allSatisfy { $0 }
    }

    /// Takes a path out of use (`.fail`: at once; `.drain`: no new requests) or back (`.restore`). False:
    /// there is no path of this name.
    @discardableResult
    public func changePath(_ name: String, _ action: ControlRequest.PathAction) async throws(DiskError) -> Bool {
        try await onAllLanes { engine in
            guard let path = engine.lun.path(named: name) else { return false }
            engine.change(path, action)
            return true
        }.allSatisfy { $0 }
    }

    /// Takes one connection of a path's session out of use (`.fail`: at once, its commands are done again over the
    /// others; `.drain`: when they have ended) or back (`.restore`), for every disk that uses the session. It is logged out in
    /// good order, and stays out when the session is made anew. Connections are numbered from 1, as configured. False,
    /// and nothing is changed: there is no such path or connection, or no other connection is logged in; on a disk with several lanes
    /// another lane may have been able to.
    @discardableResult
    public func changeConnection(
        _ number: Int, ofPath name: String, _ action: ControlRequest.PathAction
    ) async throws(DiskError) -> Bool {
        try await onAllLanes { engine in
            guard let path = engine.lun.path(named: name), let group = engine.paths[path.index].connections else { return false }
            do throws(ControlFailure) {
                try group.change(number, action)
            } catch {
                return false
            }
            engine.host.runDirtyDisks()
            return true
        }.allSatisfy { $0 }
    }

    /// Why the next request goes where it goes.
    public func explain() async throws(DiskError) -> ExplanationReport {
        .joined(try await onAllLanes { $0.explain(last: nil) })
    }

    /// How many requests were sent a second time because their path was lost.
    public var redrivenCount: UInt64 {
        get async throws(DiskError) { try await onAllLanes { $0.lun.redrivenCount }.reduce(0, &+) }
    }

    /// Runs `body` on each lane's thread, one after the other, and returns what it returned, in the order of the lanes.
    private func onAllLanes<Value: Sendable>(
        _ body: @escaping @Sendable (DiskEngine) -> Value
    ) async throws(DiskError) -> [Value] {
        var values: [Value] = []
        for gate in gates { values.append(try await gate.reference.call(body)) }
        return values
    }
}
