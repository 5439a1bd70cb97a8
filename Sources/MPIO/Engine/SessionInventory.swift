import ISCSI
import Multipath
package import SCSI

/// One logical unit that a session's target reported.
package struct InventoryEntry: Sendable {
    package var lun: LogicalUnitNumber
    /// Nil where it could not be asked.
    package var device: DeviceDescription?
    /// False where the port, being in standby, tells who the unit is but not how large.
    package var isCapacityKnown = true
}

/// What logical units a session leads to: REPORT LUNS, then each unit's description. Taken once for each
/// login, and only if somebody asks.
package final class SessionInventory: SessionObserver {
    private enum State {
        case unknown
        case taking([(Result<[InventoryEntry], InventoryFailure>) -> Void])
        case known([InventoryEntry])
    }

    let channel: ControlChannel
    let path: ISCSIPath
    private var state = State.unknown
    /// Counts logins; answers of an earlier one are dropped.
    private var epoch = 0
    private var prober: PathProber?

    package init(path: ISCSIPath) {
        self.path = path
        channel = ControlChannel(path: path)
        channel.owner = self
    }

    /// The unit with this identity, or nil where the target has none such or cannot be asked.
    func locate(_ identity: LogicalUnitIdentity, found: @escaping (LogicalUnitNumber?) -> Void) {
        take { result in
            let entries = (try? result.get()) ?? []
            found(entries.first { $0.device?.identity == identity }?.lun)
        }
    }

    /// All units; the session must be logged in.
    package func take(_ answer: @escaping (Result<[InventoryEntry], InventoryFailure>) -> Void) {
        switch state {
        case .known(let entries): answer(.success(entries))
        case .taking(let waiting): state = .taking(waiting + [answer])
        case .unknown:
            state = .taking([answer])
            reportLUNs(allocationByteCount: 4096)
        }
    }

    /// Each login may be greeted by a few unit attentions; one that never ends them is not asked for ever.
    private static let attemptLimit = 16

    private func reportLUNs(allocationByteCount: Int, attempt: Int = 1) {
        let epoch = epoch
        channel.execute(
            .reportLUNs(allocationByteCount: UInt32(allocationByteCount)), lun: LogicalUnitNumber(rawValue: 0),
            byteCount: allocationByteCount
        ) { [weak self] answer in
            guard let self, self.epoch == epoch else { return }
            self.reported(answer, allocationByteCount: allocationByteCount, attempt: attempt)
        }
    }

    /// 16,383 one-level LUNs and a header; a target that declares more is cut there.
    private static let longestReport = 8 + 8 * 16_384

    private func reported(_ answer: ControlAnswer, allocationByteCount: Int, attempt: Int) {
        switch answer.outcome {
        case .good, .short:
            guard let list = LUNList(parsing: answer.data) else {
                return finish(.failure(InventoryFailure(PathFailure(.verificationFailed, detail: "REPORT LUNS was answered with \(answer.data.count) bytes"))))
            }
            if list.declaredByteCount > allocationByteCount, allocationByteCount < Self.longestReport {
                return reportLUNs(
                    allocationByteCount: min(list.declaredByteCount, Self.longestReport), attempt: attempt + 1)
            }
            describe(list.luns, done: [])
        case .status(.checkCondition, let sense?) where sense.key == .unitAttention && attempt < Self.attemptLimit:
            reportLUNs(allocationByteCount: allocationByteCount, attempt: attempt + 1)
        case .status(.busy, _) where attempt < Self.attemptLimit, .status(.taskSetFull, _) where attempt < Self.attemptLimit:
            let epoch = epoch
            channel.after(PathProbe.busyWait(attempt - 1)) { [weak self] in
                guard let self, self.epoch == epoch else { return }
                self.reportLUNs(allocationByteCount: allocationByteCount, attempt: attempt + 1)
            }
        default:
            finish(.failure(InventoryFailure(PathFailure(.verificationFailed, detail: "REPORT LUNS: \(answer.outcome)"))))
        }
    }

    private func describe(_ luns: [LogicalUnitNumber], done: [InventoryEntry]) {
        guard done.count < luns.count else { return finish(.success(done)) }
        let lun = luns[done.count]
        let epoch = epoch
        let probe = PathProbe(
            reason: .connected, targetName: path.settings.session.login.targetName, known: nil,
            dsm: DefaultDSM(policy: PolicySettings(.failOverOnly)))
        prober = PathProber(probe, channel: channel, lun: lun) { [weak self] result in
            guard let self, self.epoch == epoch else { return }
            var entry = InventoryEntry(lun: lun, device: nil)
            if case .usable(let report) = result {
                entry.device = report.device
                entry.isCapacityKnown = report.isCapacityVerified
            }
            self.describe(luns, done: done + [entry])
        }
        prober?.start()
    }

    private func finish(_ result: Result<[InventoryEntry], InventoryFailure>) {
        guard case .taking(let waiting) = state else { return }
        prober = nil
        if case .success(let entries) = result { state = .known(entries) } else { state = .unknown }
        for answer in waiting { answer(result) }
    }

    // MARK: The session

    func sessionLoggedIn() {
        epoch += 1
        state = .unknown
    }

    func sessionLost(_ failure: PathFailure) {
        epoch += 1
        finish(.failure(InventoryFailure(failure)))
        state = .unknown
    }
}
