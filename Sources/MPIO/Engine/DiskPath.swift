import AsyncIO
package import ISCSI
package import Multipath
package import SCSI
import Timebase

/// One path of one disk: turns the pseudo-LUN's wishes into commands on a transport, and a transport's
/// news into the pseudo-LUN's events. Keeps the path's latencies; ``PseudoLUN`` counts the rest.
package final class DiskPath {
    enum Transport {
        /// A session, shared with other disks; `lun` is nil until the inventory has found the unit by its identity.
        case session(SessionReference)
        case device(DevicePath)

        var kind: TransportKind {
            switch self {
            case .session: .iSCSI
            case .device: .kernelDevice
            }
        }
    }

    /// A disk's place on a session.
    struct SessionReference {
        let path: ISCSIPath
        let inventory: SessionInventory
        /// As configured; nil: to be found by identity.
        let configuredLUN: LogicalUnitNumber?
        let identity: LogicalUnitIdentity?
        /// Nobody said that the unit is here: a session without it is no path, rather than a broken one.
        let isCandidate: Bool
    }

    let index: PathIndex
    var name: String
    let transport: Transport
    /// The disk owns its paths, and has them ``leave()`` before it goes. Counting references for each
    /// request would cost more than choosing its path.
    private let owner: Unmanaged<DiskEngine>
    var disk: DiskEngine { owner.takeUnretainedValue() }
    /// Of requests that ended well, from issue to completion, since the disk was opened.
    @exclusivity(unchecked) var latency = LatencyHistogram()
    /// The session of ``transport``, which keeps it alive.
    private let session: Unmanaged<ISCSIPath>?

    /// Where the unit is on the session, once known.
    @exclusivity(unchecked) private(set) var lun: LogicalUnitNumber?
    @exclusivity(unchecked) private var client = PathClientID(rawValue: 0)
    private var needsTransport = false
    /// A login is under way for the stale-write guard.
    private var isReinstating = false
    private var hasLeft = false
    /// The pseudo-LUN knows of the session that there is.
    private var isToldUp = false
    /// Counts connections; the answer to a question of an earlier one is of no use.
    private var epoch = 0
    private var prober: PathProber?

    init(index: PathIndex, name: String, transport: Transport, disk: DiskEngine) {
        self.index = index
        self.name = name
        self.transport = transport
        owner = .passUnretained(disk)
        switch transport {
        case .session(let reference): session = .passUnretained(reference.path)
        case .device: session = nil
        }
        switch transport {
        case .session(let reference):
            lun = reference.configuredLUN
            client = reference.path.addClient(self)
        case .device(let device): device.owner = self
        }
    }

    /// What its session chooses from for each command; nil where there is one connection only.
    var connections: ConnectionGroup? {
        if case .session(let reference) = transport { reference.path.group } else { nil }
    }

    private var now: Instant { disk.now }
    private var pseudoLUN: PseudoLUN { disk.lun }

    // MARK: Requests

    /// Sends a request. Nil: it is on its way, and exactly one completion or abandonment follows.
    @inline(__always)
    func issue(
        _ request: RequestIndex, _ record: UnsafeMutablePointer<RequestRecord>, limits: TransferLimits
    ) -> PathFailureReason? {
        guard let session else { return issueToDevice(request, record, limits: limits) }
        guard let lun else { return .logicalUnitMissing }
        let command = record.pointee.command(limits: limits)
        let sent = session._withUnsafeGuaranteedRef {
            $0.submit(
                SCSICommandRequest(
                    token: client.token(Self.token(of: request)), lun: lun, cdb: command.cdb,
                    direction: command.direction, buffer: command.buffer, byteCount: command.byteCount))
        }
        return sent ? nil : refusal
    }

    /// Why the session takes no command.
    private var refusal: PathFailureReason {
        if case .session(let reference) = transport, reference.path.isAskedToLogOut { return .logoutRequested }
        return .connectionClosed
    }

    private func issueToDevice(
        _ request: RequestIndex, _ record: UnsafeMutablePointer<RequestRecord>, limits: TransferLimits
    ) -> PathFailureReason? {
        guard case .device(let device) = transport else { return .connectionClosed }
        return device.issue(request, record, limits: limits)
    }

    /// Sees to it that the path touches the caller's memory no more, or that the disk waits for it.
    func withdraw(_ request: RequestIndex, _ record: UnsafeMutablePointer<RequestRecord>) {
        switch transport {
        case .session where pseudoLUN.plantedMistake == .bufferReleasedEarly: break
        case .session(let reference): reference.path.detach(client.token(Self.token(of: request)))
        case .device(let device):
            disk.lend(request)
            device.withdraw(request)
        }
    }

    // A session's token has 48 bits for us: 24 of the slot, 24 of the attempt. An answer 16 million
    // attempts late would be mistaken; a session that old has long been dropped.

    private static func token(of request: RequestIndex) -> UInt64 {
        UInt64(request.attempt & 0xFF_FFFF) << 24 | UInt64(request.slot & 0xFF_FFFF)
    }

    /// The request that a token names: the slot's current attempt, or an earlier one.
    @inline(__always)
    private func request(of token: UInt64) -> (RequestIndex, UnsafeMutablePointer<RequestRecord>)? {
        let slot = UInt32(truncatingIfNeeded: token & 0xFF_FFFF)
        guard let record = owner._withUnsafeGuaranteedRef({ $0.record(slot: slot) }) else { return nil }
        let current = record.pointee.index.attempt
        let behind = (current &- UInt32(truncatingIfNeeded: token >> 24)) & 0xFF_FFFF
        return (RequestIndex(slot: slot, attempt: current &- behind), record)
    }

    /// Ends an attempt that a device carried.
    func ended(_ request: RequestIndex, _ outcome: PathOutcome) {
        guard let record = disk.record(slot: request.slot) else { return }
        ended(request, record, outcome: outcome)
        disk.returned(request)
        settleSoon()
    }

    @inline(__always)
    private func ended(_ request: RequestIndex, _ record: UnsafeMutablePointer<RequestRecord>, outcome: PathOutcome) {
        owner._withUnsafeGuaranteedRef { disk in
            if request == record.pointee.index, case .good = outcome {
                let taken = disk.now.nanoseconds &- record.pointee.issuedAt
                latency.record(nanoseconds: taken)
                disk.host.finished(latency: taken)
            }
            disk.completed(request, on: index, outcome: outcome)
        }
    }

    // MARK: What the pseudo-LUN wishes

    func connect() {
        guard !hasLeft else { return }
        needsTransport = true
        isToldUp = false
        switch transport {
        case .session(let reference):
            if reference.path.isLoggedIn { located() }
            reference.path.connect(for: client)
        case .device(let device): device.connect()
        }
    }

    /// The session stays while another disk needs it.
    func disconnect() {
        // A client's number may be another disk's by now.
        guard !hasLeft else { return }
        needsTransport = false
        switch transport {
        case .session(let reference): reference.path.release(client)
        case .device(let device): device.disconnect()
        }
    }

    /// Gives up what is outstanding on the path by ending its session.
    func drop(_ failure: PathFailure) {
        guard !hasLeft else { return }
        if case .session(let reference) = transport { reference.path.fail(failure) }
    }

    /// A device's request can't be called back.
    func abort(_ request: RequestIndex) {
        guard !hasLeft, case .session(let reference) = transport, let lun else { return }
        reference.inventory.channel.abort(client.token(Self.token(of: request)), lun: lun)
    }

    /// The disk is closed; nothing may be outstanding that touches its memory.
    func leave() {
        guard !hasLeft else { return }
        disconnect()
        hasLeft = true
        epoch += 1
        prober = nil
        if case .session(let reference) = transport { reference.path.removeClient(client) }
    }

    func probe(_ reason: ProbeReason) {
        guard !hasLeft else { return }
        switch transport {
        case .device(let device): probed(reason, device.probe(reason))
        case .session(let reference):
            guard let lun else { return probed(reason, .failed(PathFailure(.logicalUnitMissing))) }
            let probe = PathProbe(
                reason: reason, targetName: reference.path.settings.session.login.targetName,
                known: disk.device, dsm: pseudoLUN.dsm)
            let epoch = epoch
            prober = PathProber(probe, channel: reference.inventory.channel, lun: lun) { [weak self] result in
                guard let self, self.epoch == epoch, !self.hasLeft else { return }
                self.probed(reason, result)
            }
            prober?.start()
        }
    }

    private func probed(_ reason: ProbeReason, _ result: ProbeResult) {
        pseudoLUN.probeFinished(index, reason, result, at: now)
        settleSoon()
    }

    func fence(_ step: FenceStep) {
        guard !hasLeft else { return }
        switch (transport, step) {
        case (.device, _): fenced(step, .unsupported)
        // The target keeps a session whose ISID logs in again: the new one reaches nothing of the old.
        case (.session(let reference), .reinstateNexus) where reference.path.nexus().reinstates == false,
            (.session(let reference), .abortTaskSet) where reference.path.nexus().reinstates == false:
            fenced(step, .unsupported)
        case (.session(let reference), .reinstateNexus):
            // The login itself reinstates: the same ISID through the path's own portal. That it came about
            // is told as for any other login.
            guard !reference.path.isLoggedIn else { return fenced(step, .done) }
            if reference.path.isOwnPortalUnreachable, reinstateElsewhere(reference) { return }
            isReinstating = true
            reference.path.connect(for: client)
        case (.session, .abortTaskSet) where pseudoLUN.plantedMistake == .fenceWithoutAbort: fenced(step, .done)
        case (.session(let reference), .abortTaskSet):
            manage(.abortTaskSet, reference, step)
        case (.session, .logicalUnitReset(let via)):
            disk.paths[via.index].resetLogicalUnit(for: self, step)
        }
    }

    /// False: there is no other portal of the target port group.
    private func reinstateElsewhere(_ reference: SessionReference) -> Bool {
        guard let lun else { return false }
        return reference.path.abortTaskSetElsewhere(of: lun, for: client) { [weak self] isDone in
            self?.fenced(.reinstateNexus, isDone ? .taskSetAborted : .failed)
        }
    }

    private func resetLogicalUnit(for path: DiskPath, _ step: FenceStep) {
        guard case .session(let reference) = transport, let lun else { return path.fenced(step, .unsupported) }
        reference.inventory.channel.manage(.logicalUnitReset, lun: lun) { response in
            // Whatever was answered, or not: it may have ended what the disk's other lanes have under way.
            if !path.hasLeft { path.disk.tellOtherLanes?(.unitWasReset) }
            path.fenced(step, response == .functionComplete ? .done : .failed)
        }
    }

    private func manage(_ function: TaskManagementFunction, _ reference: SessionReference, _ step: FenceStep) {
        guard let lun else { return fenced(step, .failed) }
        let epoch = epoch
        reference.inventory.channel.manage(function, lun: lun) { [weak self] response in
            guard let self, self.epoch == epoch else { return }
            self.fenced(step, response == .functionComplete ? .done : .failed)
        }
    }

    /// Asks the array for an explicit ALUA transition.
    func setTargetPortGroup(_ change: TargetPortGroupChange) {
        guard !hasLeft else { return }
        guard case .session(let reference) = transport, let lun else {
            return transitionFinished(change, .returned(wasSent: false, .logicalUnitMissing))
        }
        let parameters = TargetPortGroupChange.encode([change])
        let epoch = epoch
        reference.inventory.channel.execute(
            .setTargetPortGroups(parameterByteCount: UInt32(parameters.count)), lun: lun, parameters: parameters
        ) { [weak self] answer in
            guard let self, self.epoch == epoch, !self.hasLeft else { return }
            self.transitionFinished(change, answer.outcome)
        }
    }

    private func transitionFinished(_ change: TargetPortGroupChange, _ outcome: PathOutcome) {
        pseudoLUN.transitionFinished(index, change, outcome, at: now)
        settleSoon()
    }

    func fenced(_ step: FenceStep, _ result: FenceResult) {
        guard !hasLeft else { return }
        pseudoLUN.fenceResult(index, step, result, at: now)
        settleSoon()
    }

    // MARK: What the transport reports

    func transportUp() {
        // A session that comes up while it is being asked for is heard of twice.
        guard !isToldUp else { return }
        isToldUp = true
        isReinstating = false
        pseudoLUN.pathLoggedIn(index, at: now)
        settleSoon()
    }

    func transportLost(_ failure: PathFailure) {
        epoch += 1
        isToldUp = false
        prober = nil
        pseudoLUN.pathFailed(index, failure, at: now)
        if isReinstating {
            isReinstating = false
            if case .session(let reference) = transport, reinstateElsewhere(reference) { return settleSoon() }
            pseudoLUN.fenceResult(index, .reinstateNexus, .failed, at: now)
        }
        settleSoon()
    }

    private func settleSoon() {
        disk.touch()
        disk.host.runDirtyDisks()
    }

    /// The session is up: finds the unit on it where only its identity is configured.
    private func located() {
        guard case .session(let reference) = transport else { return }
        guard reference.configuredLUN == nil, let identity = reference.identity else { return transportUp() }
        let epoch = epoch
        reference.inventory.locate(identity) { [weak self] lun in
            guard let self, self.epoch == epoch, !self.hasLeft else { return }
            self.lun = lun
            if lun == nil, reference.isCandidate {
                self.pseudoLUN.removePath(self.index, at: self.now)
                return self.settleSoon()
            }
            // A path without its unit is up, but its probe will say what is missing.
            self.transportUp()
        }
    }
}

extension DiskPath: ISCSIPathClient {
    package func pathLoggedIn(_ path: ISCSIPath) {
        guard needsTransport else { return }
        located()
    }

    package func path(_ path: ISCSIPath, completed completion: borrowing CommandCompletion) {
        completed(completion)
    }

    /// As the session hands them out, one after the other.
    @inline(__always)
    func completed(_ completion: borrowing CommandCompletion) {
        guard let (request, record) = request(of: completion.token) else { return }
        ended(request, record, outcome: outcome(completion, record))
    }

    @inline(__always)
    private func outcome(
        _ completion: borrowing CommandCompletion, _ record: UnsafeMutablePointer<RequestRecord>
    ) -> PathOutcome {
        let outcome = PathOutcome(completion.outcome)
        // UNMAP's parameter list is no data of the disk's: tgtd calls it untouched and has done its work.
        guard outcome == .good, record.pointee.submission.operation != .unmap, case .underflow = completion.residual else { return outcome }
        return .short(transferredByteCount: UInt32(truncatingIfNeeded: completion.transferredByteCount))
    }

    package func path(_ path: ISCSIPath, abandoned token: UInt64, wasSent: Bool) {
        guard let (request, record) = request(of: token) else { return }
        if pseudoLUN.plantedMistake == .doubleCompletion, wasSent { disk.completeTwice(record.pointee) }
        ended(request, record, outcome: .returned(wasSent: wasSent, .connectionClosed))
    }

    package func path(_ path: ISCSIPath, lost token: UInt64, wasSent: Bool) {
        guard let (request, record) = request(of: token) else { return }
        ended(request, record, outcome: .returned(wasSent: wasSent, .taskLost))
    }

    package func path(_ path: ISCSIPath, connection change: ConnectionChange) {
        guard needsTransport else { return }
        switch change {
        case .limited(let asked, let granted): disk.report(.connectionsLimited(index, asked: asked, granted: granted))
        case .lost(let number, let failure): disk.report(.connectionLost(index, number, failure))
        case .regained(let number): disk.report(.connectionRegained(index, number))
        }
    }

    package func path(_ path: ISCSIPath, taskManagement token: UInt64, answered response: TaskManagementResponse?) {}

    package func pathLost(_ path: ISCSIPath, failure: PathFailure) {
        // Also where it is needed no longer: old writes wait for its end.
        guard !hasLeft else { return }
        transportLost(failure)
    }

    package func path(_ path: ISCSIPath, liveness: PathLiveness) {
        guard needsTransport else { return }
        switch liveness {
        case .stalled: pseudoLUN.pathStalled(index, at: now)
        case .resumed: pseudoLUN.pathResumed(index, at: now)
        case .slow(let isSlow): pseudoLUN.pathSlow(index, isSlow, at: now)
        }
        settleSoon()
    }

    package func path(_ path: ISCSIPath, asyncSense sense: SenseData?) {
        guard needsTransport, let sense else { return }
        pseudoLUN.reported(sense, on: index, at: now)
        settleSoon()
    }
}
