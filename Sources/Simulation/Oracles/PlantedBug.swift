import ISCSI
import MPIO
import Multipath
import SCSI
import Timebase

/// A mistake put in on purpose, to show that the oracles would find it. Most are planted from outside (by settings, by a
/// device-specific module that judges wrongly, by a port or a workload that misbehaves), the rest by a ``PlantedMistake``.
public enum PlantedBug: String, CaseIterable, Sendable {
    case guardOff = "guard-off"
    case fenceWithoutAbort = "fence-without-abort"
    case deliveredStatusRetried = "delivered-status-retried"
    case lostCommandCountsAsDone = "lost-command-counts-as-done"
    case lostReDrive = "lost-re-drive"
    case reDriveForgotten = "re-drive-forgotten"
    case wrongCmdSN = "wrong-cmdsn-after-reconnect"
    case standbyUsedEarly = "standby-used-early"
    case policyIgnored = "policy-ignored"
    case doubleCompletion = "double-completion"
    case bufferReleasedEarly = "buffer-released-early"
    case identityUnchecked = "identity-unchecked"
    case busyFailsPath = "busy-fails-path"
    case pathNeverRetried = "path-never-retried"
    case silenceIgnored = "silence-ignored"
    case sharedISID = "shared-isid"
    case socketLeaked = "socket-leaked"
    case writesSwapped = "overlapping-writes-swapped"
    case reassignWithoutLogout = "reassign-without-logout"
    case gapUnfilled = "cmdsn-gap-unfilled"
    case dataElsewhere = "data-on-wrong-connection"
    case statusConfirmedEarly = "status-confirmed-early"
    case handedBackEarly = "lost-connection-handed-back-early"
    case connectionNeverRetried = "connection-never-retried"
    case stripesShared = "stripes-shared"

    /// What is wrong with it, in a few words.
    public var words: String {
        switch self {
        case .guardOff: "overlapping writes do not wait for what a lost nexus may still do"
        case .fenceWithoutAbort: "the old task set is taken for aborted without asking"
        case .deliveredStatusRetried: "what a delivered status says is final is tried again"
        case .lostCommandCountsAsDone: "a command lost with its path counts as done"
        case .lostReDrive: "a command lost with its path fails rather than being driven elsewhere"
        case .reDriveForgotten: "the youngest command of a lost path is forgotten when the rest is driven elsewhere"
        case .wrongCmdSN: "CmdSN is off by one after a reconnect"
        case .standbyUsedEarly: "round robin with subset uses a standby while its primaries are well"
        case .policyIgnored: "the first usable path is chosen, whatever the policy says"
        case .doubleCompletion: "a command lost with its path ends, and is driven elsewhere as well"
        case .bufferReleasedEarly: "the caller gets its memory back while a session still sends from it"
        case .identityUnchecked: "another unit behind a known address is taken for the disk"
        case .busyFailsPath: "BUSY fails the path"
        case .pathNeverRetried: "a lost path is not tried again"
        case .silenceIgnored: "silence is never judged and nothing times out"
        case .sharedISID: "two sessions to one portal group have one ISID"
        case .socketLeaked: "a connection that is dropped keeps its socket"
        case .writesSwapped: "of two overlapping writes the second is submitted first"
        case .reassignWithoutLogout: "tasks are reassigned though their connection was not logged out"
        case .gapUnfilled: "a CmdSN that was lost with its connection is not filled"
        case .dataElsewhere: "a reassigned write sends its data on another connection"
        case .statusConfirmedEarly: "recovery confirms a status that did not come"
        case .handedBackEarly: "commands of a lost connection are driven elsewhere before the target has ended it"
        case .connectionNeverRetried: "a lost connection of a session is not tried again"
        case .stripesShared: "requests for one stripe go to several lanes"
        }
    }

    /// It shows only where the disk has several lanes.
    public var needsLanes: Bool { self == .stripesShared }

    /// It shows only where sessions have several connections.
    public var needsConnections: Bool { connectionMistake != nil || self == .connectionNeverRetried }

    var connectionMistake: PlantedConnectionMistake? {
        switch self {
        case .reassignWithoutLogout: .reassignsWithoutLogout
        case .gapUnfilled: .leavesGap
        case .dataElsewhere: .sendsDataElsewhere
        case .statusConfirmedEarly: .confirmsStatusEarly
        case .handedBackEarly: .handsBackEarly
        default: nil
        }
    }

    var mistake: PlantedMistake? {
        switch self {
        case .lostCommandCountsAsDone: .lostCommandCountsAsDone
        case .lostReDrive: .lostCommandFails
        case .reDriveForgotten: .lostCommandForgotten
        case .fenceWithoutAbort: .fenceWithoutAbort
        case .doubleCompletion: .doubleCompletion
        case .bufferReleasedEarly: .bufferReleasedEarly
        default: nil
        }
    }

    func change(_ settings: inout LUNSettings) {
        switch self {
        case .guardOff: settings.staleWriteGuard.isEnabled = false
        case .pathNeverRetried:
            settings.timers.pathRecoveryInterval = .seconds(100_000)
            settings.timers.pathRecoveryIntervalMaximum = .seconds(100_000)
        case .silenceIgnored:
            settings.timers.silenceTimeout = .seconds(100_000)
            settings.timers.commandTimeout = .zero
        default: break
        }
    }

    func makeModule(_ policy: PolicySettings) -> DefaultDSM {
        switch self {
        case .deliveredStatusRetried, .busyFailsPath, .identityUnchecked:
            let module = MisjudgingDSM(policy: policy)
            module.bug = self
            return module
        case .standbyUsedEarly, .policyIgnored:
            let module = MischoosingDSM(policy: policy)
            module.bug = self
            return module
        default: return DefaultDSM(policy: policy)
        }
    }
}

private final class MisjudgingDSM: DefaultDSM {
    var bug = PlantedBug.busyFailsPath

    override func mismatch(known: DeviceDescription, found: DeviceDescription) -> DeviceMismatch? {
        bug == .identityUnchecked ? nil : super.mismatch(known: known, found: found)
    }

    override func disposition(
        of outcome: PathOutcome, for request: RequestDescriptor, on path: PathIndex
    ) -> ErrorDisposition {
        let right = super.disposition(of: outcome, for: request, on: path)
        switch (bug, outcome, right.action) {
        case (.deliveredStatusRetried, .status, .surface): return ErrorDisposition(.retryOtherPath, usesRetry: true)
        case (.busyFailsPath, .status(.busy, _), _): return ErrorDisposition(.failPath(.other))
        default: return right
        }
    }
}

private final class MischoosingDSM: DefaultDSM {
    var bug = PlantedBug.policyIgnored

    override func selectPath(for request: PolicyRequest, from table: CandidateTable, at now: Instant) -> Selection {
        let right = super.selectPath(for: request, from: table, at: now)
        guard right.isChosen else { return right }
        if bug == .standbyUsedEarly, policy.kind != .roundRobinWithSubset { return right }
        let wanted: PathRole? = bug == .standbyUsedEarly ? .standby : nil
        let wrong = table.eligible().first { table[$0].hasRoom && (wanted == nil || table[$0].role == wanted) }
        return wrong.map { Selection(index: $0, reason: .deviceRule) } ?? right
    }
}

/// What a port does wrong.
struct PortMisbehaviour {
    var leaksSockets = false
    var breaksCmdSN = false
    private var framers: [UInt64: PDUFramer] = [:]

    mutating func keepsSocket(_ endpoint: Endpoint) -> Bool {
        guard leaksSockets, endpoint.direction == Link.toTarget, endpoint.phase == .open else { return false }
        endpoint.isLeaked = true
        return true
    }

    /// The bytes with a CmdSN too high by one in the second and later connections; nil: unchanged.
    mutating func changed(_ bytes: UnsafeRawBufferPointer, on endpoint: Endpoint) -> [UInt8]? {
        guard breaksCmdSN, endpoint.local.port.map({ $0 > 40_000 + 6 }) == true else { return nil }
        var changed: [UInt8]?
        framers[endpoint.id, default: PDUFramer()].feed(bytes) { start, header in
            guard header.opcode == .scsiCommand, start >= 0, start + 48 <= bytes.count else { return }
            if changed == nil { changed = Array(bytes) }
            changed![start + 27] &+= 1
        }
        return changed
    }
}
