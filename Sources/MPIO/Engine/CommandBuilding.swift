import ISCSI
import Multipath
import SCSI

/// A command ready for a session.
struct BuiltCommand {
    var cdb: CommandDescriptorBlock
    var direction: DataDirection
    var buffer: UnsafeMutableRawPointer?
    var byteCount: Int
}

/// A megabyte of zeroes that anything may be sent from and nobody writes to.
enum ZeroBuffer {
    static let byteCount = TransferLimits.largestTransferByteCount
    nonisolated(unsafe) static let start: UnsafeMutableRawPointer = {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
        return memory
    }()
}

extension RequestRecord {
    /// The SCSI command for this request. The first call for an UNMAP allocates its parameter list.
    @inline(__always)
    mutating func command(limits: TransferLimits) -> BuiltCommand {
        let blockSize = UInt64(limits.blockSize)
        let lba = submission.offset / blockSize
        let blockCount = UInt32(truncatingIfNeeded: submission.byteCount / Int(blockSize))
        let options: TransferOptions = submission.forceUnitAccess ? .forceUnitAccess : []
        switch submission.operation {
        case .read:
            return BuiltCommand(
                cdb: .read(lba: lba, blockCount: blockCount, options: options), direction: .read,
                buffer: submission.memory, byteCount: submission.byteCount)
        case .write:
            return BuiltCommand(
                cdb: .write(lba: lba, blockCount: blockCount, options: options), direction: .write,
                buffer: submission.memory, byteCount: submission.byteCount)
        default:
            return rareCommand(lba: lba, blockCount: blockCount, limits: limits)
        }
    }

    private mutating func rareCommand(lba: UInt64, blockCount: UInt32, limits: TransferLimits) -> BuiltCommand {
        switch submission.operation {
        case .read, .write: preconditionFailure("built by the caller")
        case .flush:
            return BuiltCommand(cdb: .synchronizeCache(), direction: .none, buffer: nil, byteCount: 0)
        case .unmap:
            let list = unmapParameters(lba: lba, blockCount: blockCount)
            return BuiltCommand(
                cdb: .unmap(parameterByteCount: UInt16(list.count)), direction: .write, buffer: list.baseAddress,
                byteCount: list.count)
        case .writeZeroes:
            switch zeroing {
            case .writeSame:
                return BuiltCommand(
                    cdb: .writeSame16(lba: lba, blockCount: blockCount), direction: .write, buffer: ZeroBuffer.start,
                    byteCount: limits.blockSize)
            case .writes:
                return BuiltCommand(
                    cdb: .write(lba: lba, blockCount: blockCount), direction: .write, buffer: ZeroBuffer.start,
                    byteCount: submission.byteCount)
            }
        case .compareAndWrite:
            return BuiltCommand(
                cdb: .compareAndWrite(lba: lba, blockCount: UInt8(blockCount)), direction: .write,
                buffer: submission.memory, byteCount: 2 * submission.byteCount)
        }
    }

    private mutating func unmapParameters(lba: UInt64, blockCount: UInt32) -> UnsafeMutableRawBufferPointer {
        if let parameters { return parameters }
        let bytes = UnmapList(ranges: [BlockRange(lba: lba, blockCount: blockCount)]).encode()
        let list = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        list.copyBytes(from: bytes)
        parameters = list
        return list
    }
}

extension IOOperation {
    /// Bytes that one request of this kind puts on the wire.
    func transferByteCount(of byteCount: Int, blockSize: Int) -> UInt32 {
        switch self {
        case .read, .write: UInt32(truncatingIfNeeded: byteCount)
        case .compareAndWrite: UInt32(truncatingIfNeeded: 2 * byteCount)
        case .writeZeroes: UInt32(truncatingIfNeeded: blockSize)
        case .flush, .unmap: 0
        }
    }
}
