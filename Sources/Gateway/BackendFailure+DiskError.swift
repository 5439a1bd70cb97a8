package import ISCSITarget
package import MPIO
import SCSI

extension BackendFailure {
    /// A disk's error as an initiator of the gateway must see it. What the target behind said is passed on: a medium error
    /// stays one, with its block. What a later try may mend is told so that initiators try again; what may or may not
    /// have happened is told so that they do not.
    package init(_ error: DiskError) {
        switch error {
        case .target(let status, let sense): self = Self.verdict(status, sense)
        case .reservationConflict: self = .status(.reservationConflict)
        case .miscompare(let offset?): self = .miscompare(offset: Int(clamping: offset))
        case .miscompare(nil): self = Self.sense(.miscompare, .miscompareDuringVerify)
        // Paths are tried all the time.
        case .noPathsAvailable: self = Self.sense(.notReady, .becomingReady)
        case .timedOut: self = Self.sense(.abortedCommand, .communicationTimeout)
        // The request never left: another try is right.
        case .cancelled: self = Self.sense(.abortedCommand, .commandsClearedByDeviceServer)
        // Not to be repeated blindly: HARDWARE ERROR is the key that initiators do not retry.
        case .outcomeUnknown: self = Self.sense(.hardwareError, .internalTargetFailure)
        case .targetFailure, .shortTransfer, .misaligned: self = Self.sense(.hardwareError, .internalTargetFailure)
        case .outOfRange: self = Self.sense(.illegalRequest, .lbaOutOfRange)
        case .unsupported, .crossesStripe: self = Self.sense(.illegalRequest, .invalidOperationCode)
        case .closed: self = Self.sense(.notReady, .notReadyCauseNotReportable)
        case .unitFailed: self = Self.sense(.hardwareError, .logicalUnitFailure)
        }
    }

    private static func sense(_ key: SenseKey, _ additional: AdditionalSense) -> BackendFailure {
        .sense(SenseData(key: key, additional: additional))
    }

    private static func verdict(_ status: SCSIStatus, _ sense: SenseData?) -> BackendFailure {
        if var sense {
            // It points into a CDB that the gateway wrote, not the initiator.
            if case .fieldPointer = sense.specific { sense.specific = nil }
            return .sense(sense)
        }
        switch status {
        case .busy, .taskSetFull, .reservationConflict: return .status(status)
        // Aborted behind the gateway, where this initiator asked for nothing.
        case .taskAborted: return self.sense(.abortedCommand, .commandsClearedByDeviceServer)
        case .acaActive: return .status(.busy)
        default: return self.sense(.hardwareError, .internalTargetFailure)
        }
    }
}
