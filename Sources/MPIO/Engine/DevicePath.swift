package import AsyncIO
import Foundation
import Glibc
package import Multipath
package import SCSI

/// A kernel block device, or a file in a test, as one path of a disk: block I/O through libaio with
/// O_DIRECT.
///
/// The kernel keeps the caller's memory until an operation ends, and cannot be made to let go: a
/// withdrawn request is lent to it (``DiskEngine/lend(_:)``).
package final class DevicePath {
    private enum State {
        case closed
        case open(FileID, FileProperties)
    }

    /// One request under way, which may take several operations.
    private struct Task {
        var request: RequestIndex
        var operation: IOOperation
        var forceUnitAccess: Bool
        var memory: UnsafeMutableRawPointer?
        var offset: UInt64
        var byteCount: Int
        var doneByteCount = 0
        var isSynchronizing = false
        /// Given up: what the kernel has of it goes on, the rest must not follow.
        var isWithdrawn = false
    }

    package let path: String
    /// What the user vouches for, where the device itself names no identity (a file).
    private let vouchedIdentity: LogicalUnitIdentity?
    private let port: any IOPort
    package let load = PathLoad()
    weak var owner: DiskPath?

    private var state = State.closed
    private var tasks: [UInt64: Task] = [:]
    private var nextToken: UInt64 = 0
    private var isConnecting = false
    /// COMPARE AND WRITE: no system call does it. Answered in the next step, as a unit without it would.
    private var refused: [RequestIndex] = []

    package init(path: String, vouchedIdentity: LogicalUnitIdentity?, port: any IOPort) {
        self.path = path
        self.vouchedIdentity = vouchedIdentity
        self.port = port
    }

    // MARK: Life

    func connect() {
        guard !isConnecting else { return }
        isConnecting = true
        // Its answer must not come from inside the pseudo-LUN's own step.
        port.schedule(self)
    }

    func disconnect() {
        isConnecting = false
        guard case .open(let file, _) = state else { return }
        port.close(file)
        state = .closed
    }

    private func open() {
        if case .open = state { return owner?.transportUp() ?? () }
        do throws(IOError) {
            let file = try port.openFile(path, options: .direct)
            state = .open(file, try port.fileProperties(file))
            owner?.transportUp()
        } catch {
            owner?.transportLost(PathFailure(.other, detail: "\(error)"))
        }
    }

    func probe(_ reason: ProbeReason) -> ProbeResult {
        guard case .open(let file, _) = state else { return .failed(PathFailure(.connectionClosed)) }
        switch reason {
        case .connected, .recheck:
            do throws(IOError) {
                let properties = try port.fileProperties(file)
                state = .open(file, properties)
                return .usable(PathReport(device: description(properties)))
            } catch {
                return .failed(PathFailure(.verificationFailed, detail: "\(error)"))
            }
        case .verify: return .verified(nil, unitAttentions: [])
        case .accessStates: return .accessStates([], unitAttentions: [])
        }
    }

    private func description(_ properties: FileProperties) -> DeviceDescription {
        let sysfs = SysfsBlockDevice(deviceNumber: properties.isBlockDevice ? properties.fileNumber : nil)
        return DeviceDescription(
            identity: sysfs.identity ?? vouchedIdentity, vendor: sysfs.vendor, product: sysfs.product,
            revision: sysfs.revision, serial: sysfs.serial, blockSize: UInt32(properties.blockSize),
            blockCount: properties.byteCount / UInt64(properties.blockSize))
    }

    // MARK: Requests

    func issue(
        _ request: RequestIndex, _ record: UnsafeMutablePointer<RequestRecord>, limits: TransferLimits
    ) -> PathFailureReason? {
        guard case .open(let file, _) = state else { return .connectionClosed }
        guard record.pointee.submission.operation != .compareAndWrite else {
            refused.append(request)
            port.schedule(self)
            return nil
        }
        let submission = record.pointee.submission
        nextToken += 1
        let task = Task(
            request: request, operation: submission.operation, forceUnitAccess: submission.forceUnitAccess,
            memory: submission.memory, offset: submission.offset, byteCount: submission.byteCount)
        tasks[nextToken] = task
        proceed(nextToken, task, on: file)
        return nil
    }

    /// Its end is told as ``PathFailureReason/taskLost``, once the kernel has let go of it: how much of it was done is of no use.
    func withdraw(_ request: RequestIndex) {
        guard let token = tasks.first(where: { $0.value.request == request })?.key else { return }
        tasks[token]?.isWithdrawn = true
    }

    /// Submits the next operation of a task.
    private func proceed(_ token: UInt64, _ task: Task, on file: FileID) {
        let rest = task.byteCount - task.doneByteCount
        let offset = task.offset + UInt64(task.doneByteCount)
        let operation: FileOperation
        switch task.operation {
        case _ where task.isSynchronizing: operation = .synchronize
        case .flush: operation = .synchronize
        case .unmap: operation = .deallocate(offset: offset, byteCount: UInt64(rest))
        case .read:
            operation = .read(into: UnsafeMutableRawBufferPointer(start: task.memory! + task.doneByteCount, count: rest), at: offset)
        case .write:
            operation = .write(from: UnsafeRawBufferPointer(start: task.memory! + task.doneByteCount, count: rest), at: offset)
        case .writeZeroes:
            let count = min(rest, ZeroBuffer.byteCount)
            operation = .write(from: UnsafeRawBufferPointer(start: ZeroBuffer.start, count: count), at: offset)
        case .compareAndWrite: preconditionFailure("refused before it became a task")
        }
        port.submit(operation, on: file, handler: self, token: token)
    }

    private func end(_ token: UInt64, _ outcome: PathOutcome) {
        guard let task = tasks.removeValue(forKey: token) else { return }
        owner?.ended(task.request, outcome)
    }
}

extension DevicePath: FileHandler, TurnHandler {
    package func turn() {
        let requests = refused
        refused.removeAll()
        let sense = SenseData(key: .illegalRequest, additional: .invalidOperationCode)
        for request in requests { owner?.ended(request, .status(.checkCondition, sense)) }
        guard isConnecting else { return }
        isConnecting = false
        open()
    }

    package func fileCompleted(_ file: FileID, token: UInt64, result: Result<Int, IOError>) {
        guard var task = tasks[token] else { return }
        switch result {
        case .failure(let error):
            end(token, .returned(wasSent: true, task.isWithdrawn ? .taskLost : .inputOutputError))
            owner?.transportLost(PathFailure(.inputOutputError, detail: errorText(error.code)))
        case .success where task.isWithdrawn:
            end(token, .returned(wasSent: true, .taskLost))
        case .success(let count):
            if task.isSynchronizing || task.operation == .flush || task.operation == .unmap { return end(token, .good) }
            guard count > 0 else { return end(token, .short(transferredByteCount: UInt32(task.doneByteCount))) }
            task.doneByteCount += count
            if task.doneByteCount >= task.byteCount {
                guard task.forceUnitAccess, task.operation == .write else { return end(token, .good) }
                task.isSynchronizing = true
            }
            tasks[token] = task
            // A closed file's operation under way still counts; the rest of it cannot follow.
            guard case .open(file, _) = state else { return end(token, .returned(wasSent: true, .connectionClosed)) }
            proceed(token, task, on: file)
        }
    }
}

/// What the kernel knows of a SCSI disk, from sysfs. Everything is empty for other devices.
struct SysfsBlockDevice {
    var identity: LogicalUnitIdentity?
    var vendor = ""
    var product = ""
    var revision = ""
    var serial = ""

    /// `deviceNumber` as in st_rdev; nil for a file.
    init(deviceNumber: UInt64?) {
        guard let deviceNumber else { return }
        let folder = "/sys/dev/block/\(Self.major(deviceNumber)):\(Self.minor(deviceNumber))/device/"
        vendor = Self.text(folder + "vendor")
        product = Self.text(folder + "model")
        revision = Self.text(folder + "rev")
        serial = UnitSerialNumber(parsing: Self.bytes(folder + "vpd_pg80"))?.serial ?? ""
        identity = LogicalUnitIdentity.best(
            designators: DeviceIdentification(parsing: Self.bytes(folder + "vpd_pg83"))?.descriptors ?? [],
            unitSerial: serial, vendor: vendor, product: product, targetName: nil)
    }

    // glibc's dev_t: 12 bits of major around 8 of minor, then 20 more of each (gnu_dev_major is a macro).
    static func major(_ number: UInt64) -> UInt64 { (number >> 8) & 0xFFF | (number >> 32) & ~0xFFF }
    static func minor(_ number: UInt64) -> UInt64 { number & 0xFF | (number >> 12) & ~0xFF }

    private static func text(_ path: String) -> String {
        String(decoding: bytes(path), as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private static func bytes(_ path: String) -> [UInt8] {
        guard let file = fopen(path, "r") else { return [] }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        return Array(bytes.prefix(fread(&bytes, 1, bytes.count, file)))
    }
}
