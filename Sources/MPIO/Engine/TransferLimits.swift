import Multipath
import SCSI

/// What one command may carry, in bytes, from the block limits page (SBC-4 clause 6.6.4) and from what keeps a
/// disk responsive.
struct TransferLimits {
    /// A larger request is split: one command of a gigabyte would hold its connection for seconds, and a
    /// re-drive would send all of it again.
    static let largestTransferByteCount = 1 << 20
    /// Deallocating or zeroing moves no data, but targets do it in one go.
    static let largestRangeByteCount = 256 << 20

    private(set) var blockSize = 512
    private var transferByteCount = Self.largestTransferByteCount
    private var unmapByteCount = 0
    private var writeSameByteCount = Self.largestRangeByteCount
    private var compareAndWriteByteCount = 0

    /// How ``IOOperation/writeZeroes`` is carried out: by WRITE SAME, until a path says that it has none.
    enum Zeroing { case writeSame, writes }
    var zeroing = Zeroing.writeSame

    init() {}

    init(_ device: DeviceDescription) {
        blockSize = Int(device.blockSize)
        func bytes(_ blocks: UInt64, cap: Int) -> Int {
            blocks == 0 ? cap : Int(min(blocks.multipliedReportingOverflow(by: UInt64(blockSize)).partialValue, UInt64(cap)))
        }
        guard let limits = device.blockLimits else { return }
        transferByteCount = max(bytes(UInt64(limits.maxTransferBlockCount), cap: Self.largestTransferByteCount), blockSize)
        writeSameByteCount = max(
            bytes(limits.maxWriteSameBlockCount, cap: Self.largestRangeByteCount), blockSize)
        compareAndWriteByteCount = Int(limits.maxCompareAndWriteBlockCount) * blockSize
        guard device.provisioning?.supportsUnmap == true, limits.maxUnmapDescriptorCount > 0 else { return }
        unmapByteCount = limits.maxUnmapBlockCount == 0 ? 0
            : bytes(UInt64(limits.maxUnmapBlockCount), cap: Self.largestRangeByteCount)
    }

    /// The most that one command carries of this operation; a longer request is split.
    func byteCount(for operation: IOOperation) -> Int {
        switch operation {
        case .read, .write: roundedDown(transferByteCount)
        case .flush: .max
        case .unmap: roundedDown(unmapByteCount)
        case .writeZeroes: roundedDown(zeroing == .writeSame ? writeSameByteCount : transferByteCount)
        case .compareAndWrite: .max  // atomic, so never split: see `supports`
        }
    }

    func supports(_ operation: IOOperation, byteCount: Int) -> Bool {
        switch operation {
        case .read, .write, .flush, .writeZeroes: true
        case .unmap: unmapByteCount > 0
        case .compareAndWrite: byteCount <= compareAndWriteByteCount
        }
    }

    private func roundedDown(_ byteCount: Int) -> Int { max(byteCount / blockSize * blockSize, blockSize) }
}

extension IOOperation {
    /// Whether it keeps its order with others that change the same blocks.
    var changesBlocks: Bool {
        switch self {
        case .read, .flush: false
        case .write, .unmap, .writeZeroes, .compareAndWrite: true
        }
    }

    var requestKind: RequestKind {
        switch self {
        case .read: .read
        case .write: .write
        case .flush: .flush
        case .unmap: .unmap
        case .writeZeroes: .writeSame
        case .compareAndWrite: .compareAndWrite
        }
    }
}

extension DiskError {
    /// Nil for a request that was done.
    init?(_ result: RequestResult) {
        switch result {
        case .done: return nil
        case .failed(let failure): self.init(failure)
        }
    }

    private init(_ failure: RequestFailure) {
        switch failure {
        case .status(.reservationConflict, _): self = .reservationConflict
        case .status(let status, let sense):
            if let sense, sense.key == .miscompare {
                self = .miscompare(offset: sense.information)
            } else {
                self = .target(status: status, sense: sense)
            }
        case .targetFailure(let code): self = .targetFailure(responseCode: code)
        case .shortTransfer(let count): self = .shortTransfer(transferredByteCount: Int(count))
        case .noPathsAvailable: self = .noPathsAvailable
        case .timedOut: self = .timedOut
        case .outcomeUnknown: self = .outcomeUnknown
        case .lunFailed: self = .unitFailed
        case .cancelled: self = .cancelled
        case .closed: self = .closed
        }
    }
}
