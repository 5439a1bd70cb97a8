import CAio
import Glibc

struct FileSlot {
    let descriptor: Int32
    let path: String
    let isDirect: Bool
    let isBlockDevice: Bool
    /// A power of two; 1 without O_DIRECT.
    let alignment: Int
    var operationCount = 0
    var isClosing = false
    /// Whether reads and writes through the page cache may be tried without blocking.
    var triesWithoutBlocking: Bool
    var synchronizesAsynchronously = true
}

struct FileOperationSlot {
    let operation: FileOperation
    let file: UInt64
    let token: UInt64
    let handler: any FileHandler
    var control = iocb()
    /// The error of an operation that was never given to the kernel.
    var refusal: Int32 = 0
}

extension LibaioReactor {
    /// RWF_NOWAIT of linux/fs.h.
    private static var doNotWait: UInt32 { 8 }

    public func openFile(_ path: String, options: FileOptions) throws(IOError) -> FileID {
        checkThread()
        let result = mpio_open(
            path, options.contains(.readOnly), options.contains(.direct), options.contains(.create))
        guard result >= 0 else { throw IOError(code: -result, operation: "open \(path)") }
        var properties = mpio_file_properties()
        let code = mpio_file_properties(result, &properties)
        guard code == 0, properties.is_regular || properties.is_block_device else {
            Glibc.close(result)
            // A directory, a pipe, a terminal: not something to read by offset.
            throw IOError(code: code == 0 ? ENOTBLK : -code, operation: "open \(path)")
        }
        let slot = FileSlot(
            descriptor: result, path: path, isDirect: options.contains(.direct),
            isBlockDevice: properties.is_block_device, alignment: max(1, Int(properties.direct_alignment)),
            triesWithoutBlocking: !options.contains(.direct))
        guard let id = files.allocate(slot) else {
            Glibc.close(result)
            throw IOError(code: EMFILE, operation: "open \(path)")
        }
        return FileID(rawValue: id)
    }

    public func fileProperties(_ file: FileID) throws(IOError) -> FileProperties {
        guard let slot = files[file.rawValue] else {
            throw IOError(code: EBADF, operation: "look at a file that is closed")
        }
        var properties = mpio_file_properties()
        let code = mpio_file_properties(slot.pointee.descriptor, &properties)
        guard code == 0 else { throw IOError(code: -code, operation: "look at \(slot.pointee.path)") }
        return FileProperties(
            byteCount: properties.byte_count, isBlockDevice: properties.is_block_device,
            blockSize: Int(properties.block_size), directAlignment: slot.pointee.alignment,
            deviceNumber: properties.device, fileNumber: properties.inode)
    }

    public func submit(_ operation: FileOperation, on file: FileID, handler: any FileHandler, token: UInt64) {
        checkThread()
        guard
            let id = fileOperations.allocate(
                FileOperationSlot(operation: operation, file: file.rawValue, token: token, handler: handler))
        else { preconditionFailure("more than \(fileOperations.capacity) file operations at once") }
        guard let slot = files[file.rawValue] else { return refuse(id, EBADF) }
        slot.pointee.operationCount += 1
        guard !slot.pointee.isClosing else { return refuse(id, EBADF) }
        guard objection(to: operation, slot.pointee.alignment) == nil else { return refuse(id, EINVAL) }
        switch operation {
        case .deallocate, .findData, .findHole:
            handToWorkers(id, alreadyDone: 0)
        case .read, .write:
            if slot.pointee.isDirect || slot.pointee.triesWithoutBlocking {
                fileQueue.append(id)
            } else {
                handToWorkers(id, alreadyDone: 0)
            }
        case .synchronize:
            if slot.pointee.synchronizesAsynchronously {
                fileQueue.append(id)
            } else {
                handToWorkers(id, alreadyDone: 0)
            }
        }
    }

    public func close(_ file: FileID) {
        checkThread()
        guard let slot = files[file.rawValue] else { return }
        slot.pointee.isClosing = true
        closeIfIdle(file.rawValue, slot)
    }

    private func closeIfIdle(_ id: UInt64, _ slot: UnsafeMutablePointer<FileSlot>) {
        guard slot.pointee.isClosing, slot.pointee.operationCount == 0 else { return }
        Glibc.close(slot.pointee.descriptor)
        files.release(id)
    }

    /// Why the kernel would refuse the operation, or nil.
    private func objection(to operation: FileOperation, _ alignment: Int) -> String? {
        let (address, count, offset): (UnsafeRawPointer?, UInt64, UInt64)
        switch operation {
        case .read(let buffer, let start): (address, count, offset) = (.init(buffer.baseAddress), UInt64(buffer.count), start)
        case .write(let buffer, let start): (address, count, offset) = (buffer.baseAddress, UInt64(buffer.count), start)
        case .synchronize: return nil
        case .deallocate(let start, let byteCount): (address, count, offset) = (nil, byteCount, start)
        case .findData(let start), .findHole(let start): (address, count, offset) = (nil, 0, start)
        }
        let largest = UInt64(Int64.max)
        if offset > largest || count > largest - offset { return "past the largest offset" }
        switch operation {
        case .deallocate, .findData, .findHole: return nil
        default: break
        }
        if (UInt64(UInt(bitPattern: address)) | count | offset) & (UInt64(alignment) - 1) == 0 { return nil }
        return "memory, offset and length must be multiples of \(alignment) bytes"
    }

    // MARK: To the kernel

    func addFileOperations() {
        var remaining = options.fileOperationsPerTurn
        while remaining > 0, fileOperationsInKernel < options.fileOperationsInFlight, !context.batchIsFull,
            let id = fileQueue.popFirst()
        {
            remaining -= 1
            fileOperationsInKernel += 1
            let slot = fileOperations[id]!
            let file = files[slot.pointee.file]!
            withUnsafeMutablePointer(to: &slot.pointee.control) { control in
                prepare(control, slot.pointee.operation, file)
                control.pointee.data = AioContext.data(OperationKind.file.tagging(id))
                context.add(control)
            }
        }
    }

    private func prepare(
        _ control: UnsafeMutablePointer<iocb>, _ operation: FileOperation, _ file: UnsafeMutablePointer<FileSlot>
    ) {
        let descriptor = file.pointee.descriptor
        switch operation {
        case .read(let buffer, let offset):
            io_prep_pread(control, descriptor, buffer.baseAddress, buffer.count, Int64(offset))
        case .write(let buffer, let offset):
            io_prep_pwrite(
                control, descriptor, UnsafeMutableRawPointer(mutating: buffer.baseAddress), buffer.count, Int64(offset))
        case .synchronize:
            io_prep_fdsync(control, descriptor)
            return
        case .deallocate, .findData, .findHole:
            preconditionFailure("the kernel has no asynchronous way to do it")
        }
        if !file.pointee.isDirect { control.pointee.aio_rw_flags = Self.doNotWait }
    }

    // MARK: Results

    func fileOperationCompleted(_ id: UInt64, result: Int) {
        fileOperationsInKernel -= 1
        guard let slot = fileOperations[id], let file = files[slot.pointee.file] else { return }
        switch slot.pointee.operation {
        case .synchronize where result == -Int(EINVAL):
            file.pointee.synchronizesAsynchronously = false
            handToWorkers(id, alreadyDone: 0)
        case .read(let buffer, _) where !file.pointee.isDirect:
            bufferedCompleted(id, file, result, buffer.count, endsAtZero: true)
        case .write(let buffer, _) where !file.pointee.isDirect:
            bufferedCompleted(id, file, result, buffer.count, endsAtZero: false)
        default:
            complete(id, result)
        }
    }

    func fileOperationRefused(_ id: UInt64, _ code: Int32) { fileOperationCompleted(id, result: -Int(code)) }

    /// Without waiting the page cache gives what it has: the rest is for a thread that may block.
    private func bufferedCompleted(
        _ id: UInt64, _ file: UnsafeMutablePointer<FileSlot>, _ result: Int, _ byteCount: Int, endsAtZero: Bool
    ) {
        if result == byteCount || (result == 0 && endsAtZero) { return complete(id, result) }
        if result >= 0 { return handToWorkers(id, alreadyDone: result) }
        switch Int32(clamping: -result) {
        case EAGAIN: handToWorkers(id, alreadyDone: 0)
        case EOPNOTSUPP, EINVAL:
            file.pointee.triesWithoutBlocking = false
            handToWorkers(id, alreadyDone: 0)
        default: complete(id, result)
        }
    }

    private func handToWorkers(_ id: UInt64, alreadyDone: Int) {
        let slot = fileOperations[id]!
        let file = files[slot.pointee.file]!
        let kind: BlockingWorkers.Operation.Kind =
            switch slot.pointee.operation {
            case .read(let buffer, let offset):
                .read(UnsafeMutableRawBufferPointer(rebasing: buffer[alreadyDone...]), offset + UInt64(alreadyDone))
            case .write(let buffer, let offset):
                .write(UnsafeRawBufferPointer(rebasing: buffer[alreadyDone...]), offset + UInt64(alreadyDone))
            case .synchronize: .synchronize
            case .deallocate(let offset, let count): .deallocate(offset, count)
            case .findData(let offset): .find(hole: false, offset)
            case .findHole(let offset): .find(hole: true, offset)
            }
        workers.submit(
            BlockingWorkers.Operation(
                id: id, descriptor: file.pointee.descriptor, isBlockDevice: file.pointee.isBlockDevice, kind: kind,
                alreadyDone: alreadyDone))
    }

    func workerCompleted(_ id: UInt64, result: Int) { complete(id, result) }

    private func refuse(_ id: UInt64, _ code: Int32) {
        fileOperations[id]!.pointee.refusal = code
        refusedFileQueue.append(id)
    }

    func deliverRefusedFileOperations() {
        var remaining = refusedFileQueue.count
        while remaining > 0, let id = refusedFileQueue.popFirst() {
            remaining -= 1
            guard let slot = fileOperations[id] else { continue }
            complete(id, -Int(slot.pointee.refusal))
        }
    }

    private func complete(_ id: UInt64, _ result: Int) {
        guard let slot = fileOperations[id] else { return }
        let handler = slot.pointee.handler
        let fileID = slot.pointee.file
        let token = slot.pointee.token
        let outcome: Result<Int, IOError> =
            result >= 0 ? .success(result) : .failure(fileError(slot, Int32(clamping: -result)))
        fileOperations.release(id)
        if let file = files[fileID] {
            file.pointee.operationCount -= 1
            closeIfIdle(fileID, file)
        }
        handler.fileCompleted(FileID(rawValue: fileID), token: token, result: outcome)
    }

    private func fileError(_ slot: UnsafeMutablePointer<FileOperationSlot>, _ code: Int32) -> IOError {
        let file = files[slot.pointee.file]
        let path = file?.pointee.path ?? "a closed file"
        let text =
            switch slot.pointee.operation {
            case .read(let buffer, let offset): "read \(buffer.count) bytes at \(offset) of \(path)"
            case .write(let buffer, let offset): "write \(buffer.count) bytes at \(offset) of \(path)"
            case .synchronize: "synchronize \(path)"
            case .deallocate(let offset, let count): "deallocate \(count) bytes at \(offset) of \(path)"
            case .findData(let offset), .findHole(let offset): "look for holes from \(offset) of \(path)"
            }
        guard code == EINVAL, let file, let why = objection(to: slot.pointee.operation, file.pointee.alignment) else {
            return IOError(code: code, operation: text)
        }
        return IOError(code: code, operation: "\(text) (\(why))")
    }
}
