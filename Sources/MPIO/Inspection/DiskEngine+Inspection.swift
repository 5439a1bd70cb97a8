import AsyncIO
import Foundation
import ISCSI
import Multipath
import SCSI
import Timebase

extension DiskEngine {
    /// What the inspector shows of this disk now.
    /// - Parameter isSample: with ``LUNSnapshot/clockSeconds`` and ``PathSnapshot/latencyCounts``.
    func inspect(holder: LUNSnapshot.Holder?, isSample: Bool = false) -> LUNSnapshot {
        let snapshot = lun.snapshot()
        let device = snapshot.device
        var shown = LUNSnapshot(
            name: name, identity: device?.identity?.description ?? lun.pinned?.description,
            vendor: device?.vendor ?? "", product: device?.product ?? "", revision: device?.revision ?? "",
            serial: device?.serial ?? "", capacityBytes: device?.capacity ?? 0,
            blockSize: Int(device?.blockSize ?? 0), policy: snapshot.policy.kind.rawValue, dsm: snapshot.module,
            state: LUNState(rawValue: snapshot.state.rawValue) ?? .failed, fence: snapshot.guardState.words(paths.map(\.name)),
            queued: snapshot.queued + waitingCount, failovers: UInt64(snapshot.failOvers),
            redriven: snapshot.redriven, holder: holder,
            paths: snapshot.paths.map { inspect($0, policy: snapshot.policy.kind, isSample: isSample) })
        if isSample { shown.clockSeconds = (now - .zero) / .seconds(1) }
        shown.reactor = host.reactorNumber
        if let since = snapshot.noPathSince {
            shown.noPathSeconds = (now - since) / .seconds(1)
            if case .after(let period) = lun.settings.timers.pdoRemovePeriod, shown.queued > 0 {
                shown.failsInSeconds = max(0, (since + period - now) / .seconds(1))
            }
        }
        return shown
    }

    private func inspect(_ path: Multipath.PathSnapshot, policy: PolicyKind, isSample: Bool) -> PathSnapshot {
        let diskPath = paths[path.index.index]
        var shown = PathSnapshot(
            id: path.name, transport: path.transport == .iSCSI ? .iscsi : .device, portal: path.name,
            state: PathState(rawValue: path.state.name) ?? .failed, role: path.role.rawValue)
        shown.weight = policy == .weightedPaths ? Int(path.weight) : nil
        shown.inFlight = path.inFlight
        shown.inFlightBlocks = UInt64(max(path.inFlightBlocks, 0))
        shown.requests = path.requests
        shown.bytesRead = path.bytesRead
        shown.bytesWritten = path.bytesWritten
        shown.errors = path.errors
        shown.latency = LatencySummary(diskPath.latency)
        // The lanes' latencies are added up where their paths are.
        if isSample || lane.count > 1 { shown.latencyCounts = diskPath.latency.latencyCounts }
        if let rate = rates.rate(of: path, at: now) {
            shown.requestsPerSecond = rate.requests
            shown.bytesPerSecond = rate.bytes
        }
        if let mark = rates.latencyMark(of: path, at: now), let found = diskPath.latency.percentiles([50, 99, 100], since: mark) {
            shown.recentLatency = LatencySummary(p50: Double(found[0]) / 1000, p99: Double(found[1]) / 1000, max: Double(found[2]) / 1000)
        }
        if path.transport == .iSCSI { shown.isSlow = path.isSlow }
        shown.tpg = path.targetPortGroup.map(Int.init)
        shown.lastError = lastError(of: path)
        if case .failed(_, let nextTry?) = path.state { shown.nextTrySeconds = (nextTry - now) / .seconds(1) }
        diskPath.describeTransport(in: &shown)
        return shown
    }

    private func lastError(of path: Multipath.PathSnapshot) -> LastError? {
        if case .refused(let reason) = path.state {
            return LastError(at: timestamp(path.stateSince), reason: "refused", detail: reason.description)
        }
        if case .stalled(let since) = path.state {
            return LastError(at: timestamp(since), reason: PathFailureReason.silent.rawValue, detail: "TCP answers, the target does not")
        }
        // Out without a next try: by hand. No failure was noted for it, and an older one is not the reason.
        if case .failed(let failure, nil) = path.state {
            return LastError(at: timestamp(path.stateSince), reason: failure.reason.rawValue)
        }
        guard let failure = path.lastFailure, let at = path.lastFailureAt else { return nil }
        return LastError(
            at: timestamp(at), reason: failure.reason.rawValue, detail: failure.detail.isEmpty ? nil : failure.detail)
    }

    /// The reactor's clock counts from boot; people count from midnight.
    private func timestamp(_ instant: Instant) -> String {
        Timestamp.format(Date(timeIntervalSinceNow: -((now - instant) / .seconds(1))))
    }
}

extension DiskPath {
    fileprivate func describeTransport(in shown: inout PathSnapshot) {
        guard case .session(let reference) = transport else { return }
        let path = reference.path
        shown.portal = "\(path.settings.portal)"
        shown.source = (path.localAddress ?? path.settings.source).map { hostText(of: $0) }
        shown.target = path.settings.session.login.targetName
        shown.lun = lun.map { UInt64($0.index ?? Int(truncatingIfNeeded: $0.rawValue)) }
        shown.isid = "\(path.settings.session.login.isid)"
        if let tag = path.login?.portalGroupTag { shown.tpg = Int(tag) }
        let nexus = path.nexus()
        shown.nexus = NexusProof(nexus)
        shown.nexusSharedWith = nexus.sharedWith
        guard let group = path.group else {
            shown.connections = [
                ConnectionSnapshot(
                    cid: 0, portal: "\(path.settings.portal)", source: shown.source, state: path.stateName,
                    inFlight: path.load.counters.requests, requests: shown.requests)
            ]
            return
        }
        shown.connectionPolicy = group.policy.kind.rawValue
        shown.errorRecoveryLevel = path.login?.parameters.errorRecoveryLevel
        shown.connections = group.members.map { member in
            var connection = ConnectionSnapshot(
                cid: Int(path.session.connectionID(of: member.index)), portal: "\(member.settings.portal)",
                source: (member.localAddress ?? member.settings.source).map { hostText(of: $0) },
                state: member.stateName, inFlight: path.session.outstandingCommandCount(on: member.index),
                requests: member.requestCount)
            connection.number = member.number
            connection.role = member.settings.role.rawValue
            connection.weight = group.policy.kind == .weightedPaths ? Int(member.settings.weight) : nil
            if case .failed(let failure) = member.state { connection.reason = "\(failure)" }
            return connection
        }
    }
}

extension NexusProof {
    init(_ knowledge: NexusKnowledge) {
        switch knowledge.reinstates {
        case nil: self = .unproven
        case false?: self = .notReinstated
        case true?: self = knowledge.sharedWith.isEmpty ? .single : .shared
        }
    }
}

extension ISCSIPath {
    var stateName: String {
        switch state {
        case .idle: "idle"
        case .connecting: "connecting"
        case .loggingIn: "logging in"
        case .loggedIn: "logged in"
        case .loggingOut: "logging out"
        case .down: "down"
        }
    }
}

extension GuardState {
    fileprivate func words(_ names: [String]) -> String {
        switch self {
        case .clear: "clear"
        case .raised(let paths):
            paths.map { path in
                "raised by \(names[path.path.index]) (\(path.copies == 1 ? "1 write" : "\(path.copies) writes"), \(path.stage.rawValue))"
            }.joined(separator: "; ")
        }
    }
}
