import AsyncIO
import Glibc

/// Blocks in a file or block device, through the target's `IOPort`; with O_DIRECT where the unit's block
/// size allows it and the file system offers it.
final class FileBackend: LogicalUnitBackend, FileHandler {
    let byteCount: UInt64
    weak var client: (any BackendClient)?
    var isThinlyProvisioned: Bool { true }
    var writesZeroes: Bool { true }

    private let port: any IOPort
    private let file: FileID
    private var operations: [Operation] = []
    private var freeOperations: [Int] = []
    /// Source of zeroes where the file system cannot punch holes; as long as the largest single write of them.
    private let zeroes: UnsafeMutableRawBufferPointer
    private var punchesHoles = true

    private enum Kind { case read, write, zero, deallocate, synchronize, idle }

    /// One operation under way; several steps where the file transfers less than asked.
    private struct Operation {
        var kind: Kind
        var token: UInt32
        var offset: UInt64
        var memory: UnsafeMutableRawPointer?
        var byteCount: Int
        var done: Int
    }

    private static let extendToken = UInt32.max

    /// Opens `path`. Where `byteCount` is given, a regular file is created or extended to it; otherwise
    /// the unit is as large as the file, rounded down to whole blocks.
    init(path: String, byteCount wanted: UInt64?, blockSize: Int, isReadOnly: Bool, port: any IOPort) throws(IOError) {
        self.port = port
        var options: FileOptions = isReadOnly ? .readOnly : (wanted == nil ? [] : .create)
        let opened = try Self.open(path, options: &options, blockSize: blockSize, port: port)
        file = opened.file
        let whole = opened.properties.byteCount - opened.properties.byteCount % UInt64(blockSize)
        byteCount = wanted ?? whole
        zeroes = .allocate(byteCount: 1 << 20, alignment: 4096)
        zeroes.initializeMemory(as: UInt8.self, repeating: 0)
        guard byteCount >= UInt64(blockSize), byteCount % UInt64(blockSize) == 0 else {
            port.close(file)
            throw IOError(code: EINVAL, operation: "use \(path): \(byteCount) bytes is not a whole number of blocks")
        }
        guard byteCount > opened.properties.byteCount else { return }
        guard !opened.properties.isBlockDevice, !isReadOnly else {
            port.close(file)
            throw IOError(code: ENOSPC, operation: "use \(path): it holds \(opened.properties.byteCount) bytes")
        }
        // The last block makes the file as long as the unit; until it lands, reads past the end are zeroes.
        _ = begin(
            .zero, Self.extendToken, offset: byteCount - UInt64(blockSize), memory: nil, byteCount: blockSize)
    }

    deinit { zeroes.deallocate() }

    private static func open(
        _ path: String, options: inout FileOptions, blockSize: Int, port: any IOPort
    ) throws(IOError) -> (file: FileID, properties: FileProperties) {
        do {
            let file = try port.openFile(path, options: options.union(.direct))
            let properties = try port.fileProperties(file)
            if blockSize % max(1, properties.directAlignment) == 0 {
                options.insert(.direct)
                return (file, properties)
            }
            port.close(file)
        } catch let error where error.code == EINVAL || error.code == EOPNOTSUPP {
            // The file system has no O_DIRECT (tmpfs).
        }
        let file = try port.openFile(path, options: options)
        return (file, try port.fileProperties(file))
    }

    func read(offset: UInt64, into memory: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress {
        begin(.read, token, offset: offset, memory: memory.baseAddress, byteCount: memory.count)
    }

    func write(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress {
        begin(
            .write, token, offset: offset, memory: UnsafeMutableRawPointer(mutating: memory.baseAddress),
            byteCount: memory.count)
    }

    func synchronize(token: UInt32) -> BackendProgress {
        begin(.synchronize, token, offset: 0, memory: nil, byteCount: 1)
    }

    func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        begin(punchesHoles ? .deallocate : .zero, token, offset: offset, memory: nil, byteCount: Int(byteCount))
    }

    // GET LBA STATUS says "mapped" of every block, holes too: an `IOPort` has no SEEK_HOLE, and SBC-3 clause 4.7.3.1
    // lets a unit say so of what it does not track.

    func writeZeroes(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        begin(.zero, token, offset: offset, memory: nil, byteCount: Int(byteCount))
    }
    func close() { port.close(file) }

    private func begin(
        _ kind: Kind, _ token: UInt32, offset: UInt64, memory: UnsafeMutableRawPointer?, byteCount: Int
    ) -> BackendProgress {
        guard byteCount > 0 else { return .done }
        let operation = Operation(
            kind: kind, token: token, offset: offset, memory: memory, byteCount: byteCount, done: 0)
        let index: Int
        if let free = freeOperations.popLast() {
            index = free
            operations[index] = operation
        } else {
            index = operations.count
            operations.append(operation)
        }
        submit(index)
        return .pending
    }

    private func submit(_ index: Int) {
        let operation = operations[index]
        let offset = operation.offset + UInt64(operation.done)
        let remaining = operation.byteCount - operation.done
        let next: FileOperation
        switch operation.kind {
        case .read:
            next = .read(
                into: UnsafeMutableRawBufferPointer(start: operation.memory! + operation.done, count: remaining),
                at: offset)
        case .write:
            next = .write(
                from: UnsafeRawBufferPointer(start: operation.memory! + operation.done, count: remaining), at: offset)
        case .zero:
            next = .write(from: UnsafeRawBufferPointer(rebasing: zeroes[..<min(remaining, zeroes.count)]), at: offset)
        case .deallocate: next = .deallocate(offset: offset, byteCount: UInt64(remaining))
        case .synchronize: next = .synchronize
        case .idle: preconditionFailure("operation \(index) is not under way")
        }
        port.submit(next, on: file, handler: self, token: UInt64(index))
    }

    func fileCompleted(_ file: FileID, token: UInt64, result: Result<Int, IOError>) {
        let index = Int(token)
        var operation = operations[index]
        switch result {
        case .failure(let error):
            if operation.kind == .deallocate, error.code == EOPNOTSUPP || error.code == ENOSYS || error.code == EINVAL {
                punchesHoles = false
                operations[index].kind = .zero
                return submit(index)
            }
            return finish(index, error.code == ENOSPC ? .noSpace : .io(error))
        case .success(let count):
            switch operation.kind {
            case .synchronize, .deallocate, .idle: return finish(index, nil)
            case .read where count == 0:
                // Past the end of a file that is still shorter than the unit.
                let rest = UnsafeMutableRawBufferPointer(
                    start: operation.memory! + operation.done, count: operation.byteCount - operation.done)
                rest.initializeMemory(as: UInt8.self, repeating: 0)
                return finish(index, nil)
            case .write where count == 0, .zero where count == 0:
                return finish(index, .short(expected: operation.byteCount, transferred: operation.done))
            case .read, .write, .zero: break
            }
            operation.done += count
            operations[index] = operation
            if operation.done >= operation.byteCount { finish(index, nil) } else { submit(index) }
        }
    }

    private func finish(_ index: Int, _ failure: BackendFailure?) {
        let token = operations[index].token
        operations[index].kind = .idle
        freeOperations.append(index)
        guard token != Self.extendToken else { return }
        client?.backendCompleted(token: token, failure: failure)
    }
}
