package import MPIO
package import NBD
import SCSI

extension ReplyError {
    /// A disk's error in the few numbers that NBD has. `docs/nbd.md` has this as a table.
    package init(_ error: DiskError, to command: CommandCode) {
        switch error {
        case .target(let status, let sense): self = Self.verdict(status, sense, to: command)
        case .reservationConflict: self = .notPermitted
        case .outOfRange: self = Self.outOfRange(command)
        case .misaligned, .unsupported, .crossesStripe: self = .invalid
        case .closed: self = .shutdown
        case .noPathsAvailable, .timedOut, .cancelled, .outcomeUnknown, .targetFailure, .shortTransfer, .miscompare, .unitFailed:
            self = .inputOutput
        }
    }

    /// The protocol wants writes past the end told from other mistakes.
    private static func outOfRange(_ command: CommandCode) -> ReplyError {
        command == .write || command == .writeZeroes ? .noSpace : .invalid
    }

    private static func verdict(_ status: SCSIStatus, _ sense: SenseData?, to command: CommandCode) -> ReplyError {
        guard let sense else { return .inputOutput }
        switch (sense.key, sense.additional) {
        case (.dataProtect, .spaceAllocationFailedWriteProtect): return .noSpace
        case (.dataProtect, _): return .notPermitted
        case (.illegalRequest, .lbaOutOfRange): return outOfRange(command)
        case (.illegalRequest, _): return .invalid
        default: return .inputOutput
        }
    }
}
