import ISCSI
import MPIO
import Multipath
import SCSI
import Timebase

/// A mistake put in on purpose, to show that the oracles would find it. Nearly all are planted from outside:
/// by settings, by a device-specific module that judges wrongly, by a port that misbehaves.
public enum PlantedBug: String, CaseIterable, Sendable {
    /// Overlapping writes do not wait for what a dead nexus may still do.
    case guardOff = "guard-off"
    /// The fence takes the old task set for aborted without asking.
    case fenceWithoutAbort = "fence-without-abort"
    /// What a delivered status says is final is tried again.
    case deliveredStatusRetried = "delivered-status-retried"
    /// A command lost with its path counts as done.
    case lostCommandCountsAsDone = "lost-command-counts-as-done"
    /// A command lost with its path fails rather than being driven elsewhere.
    case lostReDrive = "lost-re-drive"
    /// CmdSN is off by one after a reconnect.
    case wrongCmdSN = "wrong-cmdsn-after-reconnect"
    /// Round robin with subset takes a standby while its primaries are well.
    case standbyUsedEarly = "standby-used-early"
    /// The first usable path is chosen, whatever the policy says.
    case policyIgnored = "policy-ignored"
    case doubleCompletion = "double-completion"
    /// The caller gets its memory back while the session still sends from it.
    case bufferReleasedEarly = "buffer-released-early"
    /// Another unit behind a known address is taken for the disk.
    case identityUnchecked = "identity-unchecked"
    /// BUSY fails the path.
    case busyFailsPath = "busy-fails-path"
    /// A lost path is not tried again.
    case pathNeverRetried = "path-never-retried"
    /// Silence is never judged and nothing times out.
    case silenceIgnored = "silence-ignored"
    /// Two sessions to one portal group have the same ISID.
    case sharedISID = "shared-isid"
    /// A connection that is dropped keeps its socket.
    case socketLeaked = "socket-leaked"
    /// Of two overlapping writes the second is submitted first.
    case writesSwapped = "overlapping-writes-swapped"

    var engineBug: PlantedEngineBug? {
        switch self {
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
        case .deliveredStatusRetried, .lostCommandCountsAsDone, .lostReDrive, .busyFailsPath, .identityUnchecked:
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
        case (.lostCommandCountsAsDone, .returned(wasSent: true, _), _): return ErrorDisposition(.complete)
        case (.lostReDrive, .returned(wasSent: true, _), _): return ErrorDisposition(.surface)
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
