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
    private let blockSize: UInt64
    private var operations: [Operation] = []
    private var freeOperations: [Int] = []
    /// Source of zeroes where the file system cannot punch holes; as long as the largest single write of them.
    private let zeroes: UnsafeMutableRawBufferPointer
    private var punchesHoles = true

    private enum Kind { case read, write, zero, deallocate, synchronize, findData, findHole, idle }

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
        self.blockSize = UInt64(blockSize)
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

    /// By SEEK_DATA and SEEK_HOLE, one after the other. `done` counts bytes, and `memory` is where the next extent goes.
    func listExtents(
        from offset: UInt64, into list: UnsafeMutableBufferPointer<BackendExtent>, token: UInt32
    ) -> BackendProgress {
        begin(
            .findData, token, offset: offset, memory: UnsafeMutableRawPointer(list.baseAddress),
            byteCount: MemoryLayout<BackendExtent>.stride * list.count)
    }

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
        case .findData: next = .findData(from: operation.offset)
        case .findHole: next = .findHole(from: operation.offset)
        case .idle: preconditionFailure("operation \(index) is not under way")
        }
        port.submit(next, on: file, handler: self, token: UInt64(index))
    }

    func fileCompleted(_ file: FileID, token: UInt64, result: Result<Int, IOError>) {
        let index = Int(token)
        var operation = operations[index]
        if operation.kind == .findData || operation.kind == .findHole { return found(index, result) }
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
            case .read, .write, .zero, .findData, .findHole: break
            }
            operation.done += count
            operations[index] = operation
            if operation.done >= operation.byteCount { finish(index, nil) } else { submit(index) }
        }
    }

    /// An extent ends where the other kind begins. A block with both is mapped.
    private func found(_ index: Int, _ result: Result<Int, IOError>) {
        let operation = operations[index]
        let isHole = operation.kind == .findData
        var end: UInt64
        switch result {
        case .success(let offset): end = UInt64(offset)
        // None up to the end: the file ends here, or, where it has no such answer (a device), all is mapped.
        case .failure(let error) where error.code == ENXIO: end = byteCount
        case .failure: return append(index, BackendExtent(byteCount: byteCount - operation.offset, isMapped: true), .idle)
        }
        end = isHole ? end / blockSize * blockSize : (end + blockSize - 1) / blockSize * blockSize
        end = min(max(end, operation.offset + (isHole ? 0 : blockSize)), byteCount)
        append(
            index, BackendExtent(byteCount: end - operation.offset, isMapped: !isHole), isHole ? .findHole : .findData)
    }

    private func append(_ index: Int, _ extent: BackendExtent, _ next: Kind) {
        let size = MemoryLayout<BackendExtent>.stride
        if extent.byteCount > 0 {
            operations[index].memory!.storeBytes(of: extent, toByteOffset: operations[index].done, as: BackendExtent.self)
            operations[index].done += size
            operations[index].offset += extent.byteCount
        }
        let isDone = operations[index].offset >= byteCount || operations[index].done >= operations[index].byteCount
        guard !isDone, next != .idle else { return finish(index, nil) }
        operations[index].kind = next
        submit(index)
    }

    private func finish(_ index: Int, _ failure: BackendFailure?) {
        let token = operations[index].token
        operations[index].kind = .idle
        freeOperations.append(index)
        guard token != Self.extendToken else { return }
        client?.backendCompleted(token: token, failure: failure)
    }
}
