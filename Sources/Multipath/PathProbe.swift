public import SCSI

/// How a probe of one path ended. ``PseudoLUN/probeFinished(_:_:_:at:)`` takes it.
public enum ProbeResult: Hashable, Sendable {
    /// All was asked and the path leads to a disk.
    case usable(PathReport)
    /// The verification command was answered well. Groups are nil where the device has no access states.
    case verified([TargetPortGroup]?, unitAttentions: [SenseData])
    /// The target port groups, as the path describes them.
    case accessStates([TargetPortGroup], unitAttentions: [SenseData])
    /// The path can't be used, and why.
    case failed(PathFailure)
}

/// Asks one path what is behind it, one SCSI command at a time: who it is, how large, in which state.
///
/// Pure: the owner sends what ``start()`` and ``answered(_:data:)`` ask for, over the path's transport, and
/// hands each answer in. Only what is needed is sent; unit attentions are swallowed (so many at most) and
/// reported, because what they tell must not get lost. A device that is busy (SAM-5 clause 5.3.1) is asked again a
/// few seconds long: BUSY and TASK SET FULL say nothing against a path.
public struct PathProbe {
    /// What the probe wants next.
    public enum Step {
        /// Send this and call ``answered(_:data:)`` with what came; up to so many bytes of data come in.
        case send(CommandDescriptorBlock, dataInByteCount: Int)
        /// Call ``resumed()`` after so long.
        case wait(Duration)
        /// The probe is over.
        case finished(ProbeResult)
    }

    /// Beyond this many unit attentions in one probe the device is not sane.
    public static let unitAttentionLimit = 16

    /// So often a busy device is asked again: for 5.55 s in all.
    public static let busyLimit = 10

    private enum Stage {
        case inquiry
        case page(VPDPage)
        case ready
        case groups
        case capacity16
        case capacity10
        case verify
    }

    private let reason: ProbeReason
    private let targetName: String?
    private let known: DeviceDescription?
    private let dsm: any DeviceSpecificModule

    private var stage = Stage.inquiry
    private var allocation = 0
    private var sent = CommandDescriptorBlock.testUnitReady()
    private var unitAttentions: [SenseData] = []
    private var busyCount = 0
    private var inquiry: InquiryData?
    private var pages: [VPDPage] = []
    private var designators: [DesignationDescriptor] = []
    private var device = DeviceDescription(identity: nil, blockSize: 512, blockCount: 1)
    private var impliedState: AccessState?
    private var groups: [TargetPortGroup]?
    private var isCapacityVerified = true
    private var asksExtended = false
    private var transitionTime: Duration?

    /// A probe for a reason. `targetName` is the iSCSI name, which a locally assigned identity needs; `known` is what the LUN or
    /// the path is known to be, if anything; `dsm` says how a path is verified.
    public init(
        reason: ProbeReason, targetName: String?, known: DeviceDescription?, dsm: any DeviceSpecificModule
    ) {
        self.reason = reason
        self.targetName = targetName
        self.known = known
        self.dsm = dsm
    }

    /// The first command.
    public mutating func start() -> Step {
        switch reason {
        case .connected, .recheck: send(.inquiry, .inquiry(allocationByteCount: 96), 96)
        case .verify: send(.verify, dsm.verificationCommand, 0)
        case .accessStates: askGroups(byteCount: 4096)
        }
    }

    /// The answer to the last command, with the data that came with it. Fewer bytes than asked for are
    /// normal here.
    public mutating func answered(_ outcome: PathOutcome, data: [UInt8]) -> Step {
        switch outcome {
        case .returned(_, let failure): return .finished(.failed(PathFailure(failure)))
        case .status(.checkCondition, let sense?) where sense.key == .unitAttention:
            guard unitAttentions.count < Self.unitAttentionLimit else {
                return fail(.verificationFailed, "unit attentions without end, the last: \(sense)")
            }
            unitAttentions.append(sense)
            return .send(sent, dataInByteCount: allocation)
        case .status(.busy, _), .status(.taskSetFull, _):
            if busyCount < Self.busyLimit { return waitForBusyDevice() }
            // The path answers; nothing new is known of it.
            if reason == .verify || reason == .accessStates {
                return .finished(.accessStates([], unitAttentions: unitAttentions))
            }
        default: break
        }
        switch stage {
        case .inquiry: return inquired(outcome, data)
        case .page(let page): return paged(page, outcome, data)
        case .ready: return readied(outcome)
        case .groups: return grouped(outcome, data)
        case .capacity16: return sized16(outcome, data)
        case .capacity10: return sized10(outcome, data)
        case .verify: return verified(outcome)
        }
    }

    /// The wait that was asked for is over.
    public func resumed() -> Step { .send(sent, dataInByteCount: allocation) }

    private mutating func waitForBusyDevice() -> Step {
        let wait = Self.busyWait(busyCount)
        busyCount += 1
        return .wait(wait)
    }

    /// How long to leave a busy device alone before it is asked for the `count`th time again, counted from 0.
    public static func busyWait(_ count: Int) -> Duration { .milliseconds(50 << min(max(count, 0), 4)) }

    private mutating func send(_ stage: Stage, _ command: CommandDescriptorBlock, _ byteCount: Int) -> Step {
        self.stage = stage
        sent = command
        allocation = byteCount
        return .send(command, dataInByteCount: byteCount)
    }

    private func fail(_ reason: PathFailureReason, _ detail: String) -> Step {
        .finished(.failed(PathFailure(reason, detail: detail)))
    }

    private static func isGood(_ outcome: PathOutcome) -> Bool {
        switch outcome {
        case .good, .short: true
        case .status(.checkCondition, let sense?): sense.key == .recoveredError
        default: false
        }
    }

    private static func words(_ outcome: PathOutcome) -> String {
        switch outcome {
        case .status(let status, let sense): sense.map { "\($0)" } ?? status.description
        case .targetFailure(let code): "iSCSI response code \(code)"
        case .good, .short, .returned: ""
        }
    }

    private static func isIllegalRequest(_ outcome: PathOutcome) -> Bool {
        guard case .status(.checkCondition, let sense?) = outcome else { return false }
        return sense.key == .illegalRequest && sense.additional.code != 0x25
    }

    // MARK: Who

    private mutating func inquired(_ outcome: PathOutcome, _ data: [UInt8]) -> Step {
        guard Self.isGood(outcome) else {
            return fail(.verificationFailed, "INQUIRY: \(Self.words(outcome))")
        }
        guard let inquiry = InquiryData(parsing: data) else {
            return fail(.verificationFailed, "INQUIRY gave \(data.count) bytes, too few")
        }
        guard inquiry.isBlockDevice else {
            return fail(
                .logicalUnitMissing,
                inquiry.peripheralQualifier == 0
                    ? "device type \(inquiry.deviceType) is no disk" : "no unit of that number at this port")
        }
        self.inquiry = inquiry
        device.vendor = inquiry.vendor
        device.product = inquiry.product
        device.revision = inquiry.revision
        device.targetPortGroupSupport = inquiry.targetPortGroupSupport
        return askPage(.supportedPages)
    }

    private mutating func askPage(_ page: VPDPage, byteCount: UInt16 = 1024) -> Step {
        send(.page(page), .inquiry(page: page, allocationByteCount: byteCount), Int(byteCount))
    }

    private mutating func paged(_ page: VPDPage, _ outcome: PathOutcome, _ data: [UInt8]) -> Step {
        guard Self.isGood(outcome) else {
            // A page that is refused is as good as not there; anything else is no answer.
            guard Self.isIllegalRequest(outcome) else {
                return fail(.verificationFailed, "INQUIRY page \(page.rawValue): \(Self.words(outcome))")
            }
            if page == .supportedPages { pages = [.deviceIdentification, .unitSerialNumber] }
            return nextPage()
        }
        if let declared = VPDPage.declaredByteCount(data), declared > allocation, allocation < 65_535 {
            return askPage(page, byteCount: UInt16(min(declared, 65_535)))
        }
        take(page, data)
        return nextPage()
    }

    private mutating func take(_ page: VPDPage, _ data: [UInt8]) {
        switch page {
        case .supportedPages:
            let supported = SupportedVPDPages(parsing: data)?.pages ?? []
            let wanted: [VPDPage] = [
                .deviceIdentification, .unitSerialNumber, .blockLimits, .blockDeviceCharacteristics,
                .logicalBlockProvisioning,
            ]
            pages = wanted.filter(supported.contains)
        case .deviceIdentification:
            guard let identification = DeviceIdentification(parsing: data) else { return }
            designators = identification.descriptors
            device.targetPortGroup = identification.targetPortGroup
            device.relativeTargetPort = identification.relativeTargetPort
        case .unitSerialNumber: device.serial = UnitSerialNumber(parsing: data)?.serial ?? ""
        case .blockLimits: device.blockLimits = BlockLimits(parsing: data)
        case .blockDeviceCharacteristics:
            device.isNonRotating = BlockDeviceCharacteristics(parsing: data)?.isNonRotating ?? false
        case .logicalBlockProvisioning: device.provisioning = LogicalBlockProvisioning(parsing: data)
        default: break
        }
    }

    private mutating func nextPage() -> Step {
        if !pages.isEmpty { return askPage(pages.removeFirst()) }
        device.identity = LogicalUnitIdentity.best(
            designators: designators, unitSerial: device.serial.isEmpty ? nil : device.serial,
            vendor: device.vendor, product: device.product, targetName: targetName)
        return send(.ready, .testUnitReady(), 0)
    }

    // MARK: In which state

    private mutating func readied(_ outcome: PathOutcome) -> Step {
        switch outcome {
        case .status(.checkCondition, let sense?) where sense.key == .notReady:
            guard let state = Self.accessState(in: sense) else { return fail(.notReady, "\(sense)") }
            impliedState = state
        case .status(.reservationConflict, _): break
        case _ where Self.isGood(outcome): break
        default:
            if let failure = dsm.verificationFailure(outcome) { return .finished(.failed(failure)) }
            return fail(.notReady, "TEST UNIT READY: \(Self.words(outcome))")
        }
        guard !device.targetPortGroupSupport.isEmpty else { return askCapacity() }
        // Only the extended header tells how long a transition may take; asked once, and not by those who lack it.
        asksExtended = device.targetPortGroupSupport.contains(.implicit)
        return askGroups(byteCount: 4096)
    }

    private static func accessState(in sense: SenseData) -> AccessState? {
        guard sense.additional.code == 0x04 else { return nil }
        switch sense.additional.qualifier {
        case 0x0A: return .transitioning
        case 0x0B: return .standby
        case 0x0C: return .unavailable
        case 0x12: return .offline
        default: return nil
        }
    }

    private mutating func askGroups(byteCount: Int) -> Step {
        send(
            .groups, .reportTargetPortGroups(extendedHeader: asksExtended, allocationByteCount: UInt32(byteCount)),
            byteCount)
    }

    private mutating func grouped(_ outcome: PathOutcome, _ data: [UInt8]) -> Step {
        if Self.isGood(outcome) {
            guard let report = TargetPortGroupReport(parsing: data) else {
                return fail(.verificationFailed, "REPORT TARGET PORT GROUPS gave \(data.count) bytes, too few")
            }
            if report.declaredByteCount > allocation, allocation < 1 << 20 {
                return askGroups(byteCount: min(report.declaredByteCount, 1 << 20))
            }
            groups = report.groups
            if let seconds = report.implicitTransitionSeconds, seconds > 0 { transitionTime = .seconds(Int(seconds)) }
        } else if asksExtended, Self.isIllegalRequest(outcome) {
            asksExtended = false
            return askGroups(byteCount: 4096)
        } else if !Self.isIllegalRequest(outcome), impliedState == nil {
            return fail(.verificationFailed, "REPORT TARGET PORT GROUPS: \(Self.words(outcome))")
        }
        switch reason {
        case .connected, .recheck: return askCapacity()
        case .verify: return .finished(.verified(groups ?? [], unitAttentions: unitAttentions))
        case .accessStates: return .finished(.accessStates(groups ?? [], unitAttentions: unitAttentions))
        }
    }

    private mutating func verified(_ outcome: PathOutcome) -> Step {
        if let failure = dsm.verificationFailure(outcome) { return .finished(.failed(failure)) }
        if let known, !known.targetPortGroupSupport.isEmpty { return askGroups(byteCount: 4096) }
        guard Self.isGood(outcome) || outcome == .status(.reservationConflict, nil) else {
            // The path answers, the unit is not ready: nothing new is known of its state.
            return .finished(.accessStates([], unitAttentions: unitAttentions))
        }
        return .finished(.verified(nil, unitAttentions: unitAttentions))
    }

    // MARK: How large

    /// What one command carries at most, so that a block always fits.
    static let largestBlockByteCount: UInt32 = 1 << 20

    private mutating func askCapacity() -> Step { send(.capacity16, .readCapacity16(), 32) }

    private mutating func sized16(_ outcome: PathOutcome, _ data: [UInt8]) -> Step {
        if Self.isIllegalRequest(outcome) { return send(.capacity10, .readCapacity10(), 8) }
        guard Self.isGood(outcome) else { return unsized(outcome, "READ CAPACITY (16)") }
        guard let capacity = ReadCapacity16Data(parsing: data) else {
            return fail(.verificationFailed, "READ CAPACITY (16) gave nothing that can be")
        }
        guard capacity.blockSize <= Self.largestBlockByteCount else { return blocksTooLarge(capacity.blockSize) }
        device.blockSize = capacity.blockSize
        device.blockCount = capacity.blockCount
        device.physicalBlockExponent = capacity.physicalBlockExponent
        device.lowestAlignedLBA = capacity.lowestAlignedLBA
        device.isProtectionEnabled = capacity.isProtectionEnabled
        device.isThinlyProvisioned = capacity.isThinlyProvisioned
        device.unmappedReadsZero = capacity.unmappedReadsZero
        return finish()
    }

    private mutating func sized10(_ outcome: PathOutcome, _ data: [UInt8]) -> Step {
        guard Self.isGood(outcome) else { return unsized(outcome, "READ CAPACITY (10)") }
        guard case .capacity(let count, let size)? = ReadCapacity10Data(parsing: data) else {
            return fail(.verificationFailed, "READ CAPACITY (10) does not tell the capacity")
        }
        guard size <= Self.largestBlockByteCount else { return blocksTooLarge(size) }
        device.blockSize = size
        device.blockCount = count
        return finish()
    }

    private mutating func blocksTooLarge(_ byteCount: UInt32) -> Step {
        fail(.verificationFailed, "blocks of \(byteCount) bytes: at most \(Self.largestBlockByteCount) are supported")
    }

    /// A port in standby need not tell the capacity (SPC-4 clause 5.15.2.4.4); what other paths showed, if any, is
    /// taken until the port is active and can be asked.
    private mutating func unsized(_ outcome: PathOutcome, _ command: String) -> Step {
        guard case .status(.checkCondition, let sense?) = outcome, let state = Self.accessState(in: sense),
            known == nil || known?.identity == device.identity
        else { return fail(.verificationFailed, "\(command): \(Self.words(outcome))") }
        impliedState = impliedState ?? state
        if let known {
            device.blockSize = known.blockSize
            device.blockCount = known.blockCount
        }
        isCapacityVerified = false
        return finish()
    }

    private func finish() -> Step {
        .finished(
            .usable(
                PathReport(
                    device: device, accessState: impliedState ?? .optimized, targetPortGroups: groups ?? [],
                    isCapacityVerified: isCapacityVerified, unitAttentions: unitAttentions,
                    implicitTransitionTime: transitionTime)))
    }
}

extension PseudoLUN {
    /// The probe that a `.probe` action asks for. `targetName` is the path's target's iSCSI name.
    public func makeProbe(_ path: PathIndex, _ reason: ProbeReason, targetName: String?) -> PathProbe {
        let own = path.index >= 0 && path.index < paths.count ? paths[path.index].device : nil
        return PathProbe(reason: reason, targetName: targetName, known: own ?? device, dsm: dsm)
    }
}
