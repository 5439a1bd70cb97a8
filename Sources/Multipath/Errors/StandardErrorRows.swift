import SCSI

private func means(
    _ pattern: ErrorPattern, _ name: String, _ disposition: ErrorDisposition, _ why: String
) -> ErrorRow {
    ErrorRow(pattern, disposition, name: name, why: why)
}

private func sense(_ key: SenseKey, _ code: UInt8? = nil, _ qualifier: UInt8? = nil) -> ErrorPattern {
    .sense(key, code: code, qualifier: qualifier)
}

/// Once more at once on the same path, for nothing: the command was refused before it began.
private func again(_ effects: ErrorEffects = [], _ notice: DeviceNotice? = nil) -> ErrorDisposition {
    ErrorDisposition(.retrySamePath, effects: effects, notice: notice)
}

private let surface = ErrorDisposition(.surface, mayHaveRun: true)

/// Once more after `retry-interval`, and it counts.
private let laterCounted = ErrorDisposition(.retrySamePath, usesRetry: true, delay: .retryInterval)
private let elsewhereCounted = ErrorDisposition(.retryOtherPath, usesRetry: true, delay: .retryInterval)

extension ErrorTable {
    static let statusRows: [ErrorRow] = [
        means(.status(.good), "GOOD", ErrorDisposition(.complete), "Done."),
        means(
            .status(.conditionMet), "CONDITION MET", ErrorDisposition(.complete),
            "The answer of PRE-FETCH when all fits; a success."),
        means(
            .status(.busy), "BUSY",
            ErrorDisposition(.retrySamePath, delay: .backOff(milliseconds: 10), effects: .shrinkQueue),
            "Never a path failure: the device asks for less. Linux requeues on the same path; Windows leaves it to its class layer."),
        means(
            .status(.taskSetFull), "TASK SET FULL",
            ErrorDisposition(.retrySamePath, delay: .backOff(milliseconds: 10), effects: .shrinkQueue),
            "As BUSY; the queue of this path was too deep for the device."),
        means(
            .status(.reservationConflict), "RESERVATION CONFLICT", ErrorDisposition(.surface),
            "The path is fine and every other path would say the same; both systems surface it."),
        means(
            .status(.taskAborted), "TASK ABORTED",
            ErrorDisposition(.retrySamePath, usesRetry: true, mayHaveRun: true),
            "Another initiator ended it; counted, so that two hosts which reset in turn do not loop."),
        means(
            .status(.acaActive), "ACA ACTIVE", laterCounted,
            "We never ask for ACA, so some other command's is in force; it clears or the retries end."),
        means(
            .noSenseData, "CHECK CONDITION without sense data",
            ErrorDisposition(.retryOtherPath, usesRetry: true, mayHaveRun: true),
            "Nothing says what happened; another port may say more, and the count bounds it."),
        means(
            .deferred, "deferred error",
            ErrorDisposition(.retrySamePath, usesRetry: true, notice: .deferredError),
            "It is about an earlier command and this one was not executed (SPC-4 clause 4.5.7); told as an event because an acknowledged write may be lost."),
    ]

    static let notReadyRows: [ErrorRow] = [
        means(
            sense(.notReady, 0x04, 0x0A), "ALUA transitioning",
            ErrorDisposition(.retryOtherPath, effects: [.transitioning, .refreshAccessStates]),
            "Waited for, never a path failure. Linux retries after 1 s and asks RTPG every 2 s; Windows tries the other group at once and asks RTPG: we do both. Answering \"again\" on every path made dm-multipath fail them all."),
        means(
            sense(.notReady, 0x04, 0x0B), "ALUA standby",
            ErrorDisposition(.retryOtherPath, effects: [.standby, .refreshAccessStates]),
            "The path works but must not carry data. Linux fails it; Windows retries and counts unless another is active. Marked standby it is not chosen again, so no count is needed."),
        means(
            sense(.notReady, 0x04, 0x0C), "ALUA unavailable",
            ErrorDisposition(.retryOtherPath, effects: [.unavailable, .refreshAccessStates]),
            "As standby; Linux fails the path, Windows retries for nothing."),
        means(
            sense(.notReady, 0x04, 0x12), "logical unit offline",
            ErrorDisposition(.retryOtherPath, effects: [.unavailable, .refreshAccessStates]),
            "The port group is offline (SPC-4 clause 5.15.2.4); others need not be."),
        means(
            sense(.notReady, 0x04, 0x01), "becoming ready",
            ErrorDisposition(.retrySamePath, delay: .retryInterval),
            "It says that it will be ready; both systems wait. Bounded by command-timeout."),
        means(
            sense(.notReady, 0x04, 0x03), "manual intervention required", elsewhereCounted,
            "Linux fails it, Windows retries because a controller in a firmware upgrade says so: a counted try elsewhere serves both."),
        means(
            sense(.notReady, 0x04, 0x02), "initializing command required", elsewhereCounted,
            "We do not start units; another controller may have it running."),
        means(sense(.notReady, 0x04, 0x04), "format in progress", laterCounted, "May be nearly over; counted, since it may take hours."),
        means(sense(.notReady, 0x04, 0x05), "rebuild in progress", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x06), "recalculation in progress", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x07), "operation in progress", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x08), "long write in progress", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x09), "self-test in progress", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x11), "enable spinup required", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x14), "space allocation in progress", laterCounted, "A thin pool is growing; as Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x1A), "start-stop in progress", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x1B), "sanitize in progress", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x1D), "configuration in progress", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x04, 0x24), "depopulation in progress", laterCounted, "As Linux: later, counted."),
        means(sense(.notReady, 0x3A), "medium not present", surface, "A property of the unit, the same on all paths."),
        means(
            sense(.notReady), "not ready", elsewhereCounted,
            "A controller may be unready alone; a counted try elsewhere tells."),
    ]

    static let unitAttentionRows: [ErrorRow] = [
        means(
            sense(.unitAttention, 0x29), "power on or reset",
            again(.refreshAccessStates, .reset),
            "The command was not executed. A controller that restarted may have another ALUA state."),
        means(
            sense(.unitAttention, 0x2A, 0x06), "ALUA state changed",
            again([.refreshAccessStates], .accessStateChanged),
            "Retried for nothing with a fresh RTPG, as both systems do."),
        means(
            sense(.unitAttention, 0x2A, 0x07), "implicit ALUA transition failed",
            again([.refreshAccessStates], .accessStateChanged), "As 2A/06."),
        means(
            sense(.unitAttention, 0x2A, 0x09), "capacity changed",
            again(.reprobe, .capacityChanged),
            "Linux retries with an event, Windows surfaces it: the caller asked for blocks, not for news, so it is an event and the path shows itself anew."),
        means(
            sense(.unitAttention, 0x3F, 0x0E), "LUN inventory changed", again(.reprobe, .inventoryChanged),
            "As Linux; and the path must prove that the unit behind it is still the same."),
        means(
            sense(.unitAttention, 0x3F, 0x03), "inquiry data changed",
            again([.reprobe, .refreshAccessStates], .inquiryChanged),
            "As Linux; and the path must prove its identity."),
        means(
            sense(.unitAttention, 0x3F, 0x05), "device identifier changed", again(.reprobe, .identifierChanged),
            "The identity itself is in question."),
        means(
            sense(.unitAttention, 0x28), "medium may have changed", again(.reprobe, .mediumChanged),
            "Another unit may be behind the number now."),
        means(
            sense(.unitAttention, 0x3F, 0x01), "microcode changed", again(.reprobe, .microcodeChanged),
            "A firmware upgrade ended; limits may differ."),
        means(
            sense(.unitAttention, 0x2A, 0x01), "mode parameters changed",
            again(.refreshAccessStates, .parametersChanged),
            "Linux retries (its ALUA handler knows arrays that mean a state change by it), Windows surfaces."),
        means(
            sense(.unitAttention, 0x2A, 0x03), "reservations preempted", again([], .reservationsChanged),
            "Linux retries, Windows surfaces; where we lost the right, the retry says RESERVATION CONFLICT, which surfaces."),
        means(
            sense(.unitAttention, 0x2A, 0x04), "reservations released", again([], .reservationsChanged),
            "Both systems retry on the same path."),
        means(
            sense(.unitAttention, 0x2A, 0x05), "registrations preempted", again([], .reservationsChanged),
            "As 2A/03."),
        means(
            sense(.unitAttention, 0x2A), "parameters changed", again([], .parametersChanged),
            "News only; the command was not executed."),
        means(
            sense(.unitAttention, 0x2F), "commands cleared by another initiator",
            again([], .commandsCleared), "Linux retries, Windows surfaces; nothing was executed of this one."),
        means(
            sense(.unitAttention, 0x38, 0x07), "thin provisioning soft threshold",
            again([], .thinProvisioningThreshold),
            "A warning. Windows surfaces it; the write can still be done, so it is an event, as in Linux."),
        means(
            sense(.unitAttention), "unit attention",
            ErrorDisposition(.retrySamePath, usesRetry: true),
            "Not executed. Counted, since we do not know what it is about."),
    ]

    static let mediumAndHardwareRows: [ErrorRow] = [
        means(sense(.mediumError, 0x11), "unrecovered read error", surface, "The blocks are gone on every path."),
        means(sense(.mediumError, 0x13), "address mark not found (data)", surface, "As 11."),
        means(sense(.mediumError, 0x14), "record not found", surface, "As 11."),
        means(
            sense(.mediumError), "medium error", surface,
            "Linux retries what is not 11, 13 or 14; an array has retried already, and the caller should hear at once."),
        means(
            sense(.hardwareError, 0x67, 0x0A), "set target port groups failed",
            ErrorDisposition(.retryOtherPath, usesRetry: true, effects: .refreshAccessStates, mayHaveRun: true),
            "Windows fails over on it; the state of the groups must be read anew."),
        means(
            sense(.hardwareError, 0x3E, 0x02), "timeout on logical unit",
            ErrorDisposition(.retrySamePath, usesRetry: true, delay: .retryInterval, mayHaveRun: true),
            "As Windows; a back end that was slow once."),
        means(
            sense(.hardwareError, 0x4B, 0x06), "initiator response timeout",
            ErrorDisposition(.retryOtherPath, usesRetry: true, mayHaveRun: true),
            "As Windows; the transfer broke down between us and the port, so another port."),
        means(
            sense(.hardwareError), "hardware error", surface,
            "The unit's own fault, the same on all paths; both systems surface it."),
    ]

    static let illegalRequestRows: [ErrorRow] = [
        means(
            sense(.illegalRequest, 0x25), "logical unit not supported",
            ErrorDisposition(.failPath(.logicalUnitMissing)),
            "Behind this port the unit is not there; both systems fail the path."),
        means(
            sense(.illegalRequest, 0x94, 0x01), "not the owning controller",
            ErrorDisposition(.retryOtherPath, effects: [.standby, .refreshAccessStates]),
            "RDAC arrays answer this on the controller that does not own the unit."),
        means(
            sense(.illegalRequest), "illegal request", surface,
            "The request is wrong (20, 21, 22, 24, 26, 27 and the rest); no path would better it."),
    ]

    static let abortedCommandRows: [ErrorRow] = [
        means(
            sense(.abortedCommand, 0x10), "protection information", surface,
            "A block guard does not match; a repetition must not hide it."),
        means(
            sense(.abortedCommand, 0x47), "transfer error",
            ErrorDisposition(.retryOtherPath, usesRetry: true, mayHaveRun: true),
            "The data was damaged between the port and us."),
        means(
            sense(.abortedCommand, 0x4B), "data phase error",
            ErrorDisposition(.retryOtherPath, usesRetry: true, mayHaveRun: true), "As 47."),
        means(
            sense(.abortedCommand), "aborted command",
            ErrorDisposition(.retrySamePath, usesRetry: true, mayHaveRun: true),
            "Linux retries; Windows does not after a reset, because each layer's retries multiply. Here one layer retries, and it counts."),
    ]

    static let otherSenseRows: [ErrorRow] = [
        means(
            sense(.noSense), "no sense",
            ErrorDisposition(.retrySamePath, usesRetry: true, mayHaveRun: true),
            "A false CHECK CONDITION; how much was transferred is unknown, so it is done again."),
        means(
            sense(.recoveredError, 0x5D), "failure predicted",
            ErrorDisposition(.complete, notice: .failurePredicted), "Done, with a warning."),
        means(sense(.recoveredError), "recovered error", ErrorDisposition(.complete), "Done; the device helped itself."),
        means(sense(.completed), "completed", ErrorDisposition(.complete), "Done."),
        means(
            sense(.dataProtect, 0x27, 0x07), "no space in the pool",
            ErrorDisposition(.surface, notice: .outOfSpace),
            "Both systems surface it; retries would only hold the pool's pressure up."),
        means(sense(.dataProtect), "write protected", ErrorDisposition(.surface), "The same on all paths."),
        means(sense(.blankCheck), "blank check", surface, "The caller's business."),
        means(sense(.copyAborted), "copy aborted", surface, "The caller's business."),
        means(sense(.volumeOverflow), "volume overflow", surface, "The same on all paths."),
        means(
            sense(.miscompare), "miscompare", ErrorDisposition(.surface),
            "The answer that COMPARE AND WRITE was sent for."),
        means(sense(.vendorSpecific), "vendor specific", surface, "Only a vendor's module knows."),
        means(sense(.reserved), "reserved sense key", surface, "No meaning is defined."),
    ]

    static let transportRows: [ErrorRow] = [
        means(
            .targetFailure(nil), "iSCSI target failure",
            ErrorDisposition(.retryOtherPath, usesRetry: true, mayHaveRun: true),
            "The port failed, not the unit (RFC 7143 section 11.4.3)."),
        means(
            .short, "short transfer",
            ErrorDisposition(.retrySamePath, usesRetry: true, mayHaveRun: true),
            "GOOD without all the data; as Linux, done again and counted."),
        means(
            .returned(.inputOutputError), "I/O error of a kernel device",
            ErrorDisposition(.retryOtherPath, usesRetry: true, effects: .verify, mayHaveRun: true),
            "The kernel hides whether medium or path failed: try elsewhere, counted, and ask the path."),
        means(
            .returned(.taskLost), "lost with one connection of its session",
            ErrorDisposition(.retrySamePath, mayHaveRun: true),
            "The session goes on and has ended the task: done again at once, over another connection."),
        means(
            .returned(.digestError), "digest error",
            ErrorDisposition(.failPath(.digestError), mayHaveRun: true),
            "What passed is not known any more."),
        means(
            .returned(nil), "transport loss",
            ErrorDisposition(.failPath(.other), mayHaveRun: true),
            "The path is lost; the request goes to another at once."),
        means(.any, "unknown", surface, "An answer that nobody knows is the caller's to judge."),
    ]
}
