public import SCSI

/// Why a request on a ``MultipathDisk`` did not succeed. Never a path's failure as such: those are
/// dealt with below, and only what no path could mend arrives here.
public enum DiskError: Error, Hashable, Sendable {
    /// Offset or length is not a multiple of the block size, in bytes. Nothing was sent.
    case misaligned(offset: UInt64, byteCount: Int, blockSize: Int)
    /// The range does not lie within the disk. Nothing was sent.
    case outOfRange(offset: UInt64, byteCount: Int, capacityByteCount: UInt64)
    /// No path was usable for `pdo-remove-period`.
    case noPathsAvailable
    /// The target's own verdict, which another path would not change: a medium error, write
    /// protection, an illegal request.
    case target(status: SCSIStatus, sense: SenseData?)
    /// A persistent reservation of another initiator forbids the request.
    case reservationConflict
    /// COMPARE AND WRITE found other data than expected; `offset` is that of the first difference, in
    /// bytes from the start of the buffer, where the target named it.
    case miscompare(offset: UInt64?)
    /// The path was lost while the command, which must not be repeated blindly, was under way: it may
    /// or may not have been carried out. Read the blocks to find out.
    case outcomeUnknown
    /// The iSCSI target itself failed, with this response code (RFC 7143 section 11.4.3), on every try.
    case targetFailure(responseCode: UInt8)
    /// The logical unit does not offer this command (UNMAP on a thick one, say). Nothing was sent.
    case unsupported
    /// A ``MultipathDisk/compareAndWrite(_:at:)`` that reaches over the end of a stripe of a disk with several lanes
    /// (``MultipathDisk/stripeByteCount``), so that no one command can do it. In bytes. Nothing was sent.
    case crossesStripe(offset: UInt64, byteCount: Int, stripeByteCount: Int)
    /// The target moved fewer bytes than it was asked for, and called that success.
    case shortTransfer(transferredByteCount: Int)
    /// Not answered within `command-timeout` on any path.
    case timedOut
    /// The task was cancelled before the request was sent.
    case cancelled
    /// The disk was closed or the manager shut down.
    case closed
    /// The device-specific module declared the whole logical unit failed.
    case unitFailed
}

extension DiskError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .misaligned(let offset, let byteCount, let blockSize):
            "offset \(offset) and length \(byteCount) must be multiples of the block size, \(blockSize) bytes"
        case .outOfRange(let offset, let byteCount, let capacity):
            "\(byteCount) bytes at offset \(offset) reach past the end of the disk, \(capacity) bytes"
        case .noPathsAvailable: "no path is available"
        case .target(let status, let sense): Self.words(status, sense)
        case .reservationConflict: "the disk is reserved by another initiator"
        case .miscompare(let offset):
            offset.map { "the blocks hold other data than expected, first at byte \($0)" }
                ?? "the blocks hold other data than expected"
        case .outcomeUnknown:
            "the path was lost before the answer: the command may or may not have been carried out"
        case .targetFailure(let code): "the iSCSI target failed (response 0x\(String(code, radix: 16)))"
        case .unsupported: "the logical unit does not offer this command"
        case .crossesStripe(let offset, let byteCount, let stripeByteCount):
            "\(byteCount) bytes at offset \(offset) cross a stripe of \(stripeByteCount) bytes, and a LUN with several lanes can compare and write within one stripe only"
        case .shortTransfer(let transferred):
            "the target moved only \(transferred) bytes and called that success"
        case .timedOut: "no answer within command-timeout"
        case .cancelled: "cancelled before it was sent"
        case .closed: "the disk is closed"
        case .unitFailed: "the device-specific module gave the logical unit up"
        }
    }

    private static func words(_ status: SCSIStatus, _ sense: SenseData?) -> String {
        guard let sense else { return "\(status)" }
        return "\(status), \(sense)"
    }
}
