import Glibc
import ISCSI
import SCSI

// Operations advance by steps, each at most one call into the backend. A backend that finishes within
// the call is driven on in a loop, not by recursion: a WRITE SAME may have thousands of steps.
extension LogicalUnit {
    private enum Step {
        case again
        case end(DeviceResult)
    }

    func drive(_ index: Int) {
        while true {
            switch beginStep(index) {
            case .pending:
                operations[index].isPending = true
                return
            case .failed(let failure):
                return end(index, failed(index, failure))
            case .done:
                guard case .end(let result) = endStep(index) else { continue }
                return end(index, result)
            }
        }
    }

    public func backendCompleted(token: UInt32, failure: BackendFailure?) {
        let index = Int(token)
        precondition(operations[index].isUsed && operations[index].isPending, "completion of no operation")
        operations[index].isPending = false
        if let failure { return end(index, failed(index, failure)) }
        // An aborted operation does nothing more to the medium.
        if operations[index].isAborted { return end(index, .status(.taskAborted)) }
        switch endStep(index) {
        case .again: drive(index)
        case .end(let result): end(index, result)
        }
    }

    private func end(_ index: Int, _ result: DeviceResult) {
        let operation = operations[index]
        let keepsBuffer = result.buffer.base != nil && !operation.isAborted
        if !keepsBuffer { pool.release(operation.buffer) }
        if operation.isAborted {
            client?.commandAborted(token: operation.command.token)
        } else {
            finish(operation.command, result)
        }
        operationEnded(index)
    }

    private func failed(_ index: Int, _ failure: BackendFailure) -> DeviceResult {
        let sense: SenseData
        switch (failure, operations[index].kind) {
        case (.noSpace, _):
            sense = SenseData(key: .dataProtect, additional: AdditionalSense(0x27, 0x07))
        case (.miscompare(let offset), _): sense = .miscompare(at: offset)
        case (.sense(let own), _): sense = own
        case (.status(let status), _): return .status(status)
        case (_, .read), (_, .compare), (_, .synchronize):
            sense = SenseData(key: .mediumError, additional: AdditionalSense(0x11, 0x00))
        default:
            sense = SenseData(key: .mediumError, additional: AdditionalSense(0x0C, 0x00))
        }
        return .check(sense)
    }

    private func beginStep(_ index: Int) -> BackendProgress {
        let operation = operations[index]
        let token = UInt32(index)
        let memory = UnsafeMutableRawBufferPointer(
            start: operation.buffer.base, count: operation.buffer.base == nil ? 0 : Int(operation.byteCount))
        switch (operation.kind, operation.step) {
        case (.read, _), (.compare, _), (.compareAndWrite, 0), (.orWrite, 0):
            return backend.read(offset: operation.offset, into: memory, token: token)
        case (.write, 0):
            let data = UnsafeRawBufferPointer(rebasing: operation.command.dataOut[..<Int(operation.byteCount)])
            return operation.synchronizes && backend.writesThrough
                ? backend.writeThrough(offset: operation.offset, from: data, token: token)
                : backend.write(offset: operation.offset, from: data, token: token)
        case (.compareAndWrite, 1):
            let length = Int(operation.byteCount)
            let data = UnsafeRawBufferPointer(rebasing: operation.command.dataOut[length..<2 * length])
            return backend.write(offset: operation.offset, from: data, token: token)
        case (.orWrite, 1):
            return backend.write(offset: operation.offset, from: UnsafeRawBufferPointer(memory), token: token)
        case (.swap, 0):
            let length = Int(operation.byteCount)
            return backend.compareAndWrite(
                offset: operation.offset, expected: UnsafeRawBufferPointer(rebasing: operation.command.dataOut[..<length]),
                new: UnsafeRawBufferPointer(rebasing: operation.command.dataOut[length..<2 * length]), token: token)
        case (.write, _), (.compareAndWrite, _), (.orWrite, _), (.swap, _), (.synchronize, _):
            return backend.synchronize(token: token)
        case (.listExtents, _):
            let list = UnsafeMutableRawBufferPointer(start: operation.buffer.base, count: Int(operation.byteCount))
            return backend.listExtents(
                from: operation.offset, into: list.bindMemory(to: BackendExtent.self), token: token)
        case (.fill, _):
            let length = fillByteCount(operation)
            return backend.write(
                offset: operation.offset + operation.done,
                from: UnsafeRawBufferPointer(start: operation.buffer.base, count: length), token: token)
        case (.unmap, _):
            let descriptor = 8 + 16 * Int(operation.done)
            let list = operation.command.dataOut
            return backend.deallocate(
                offset: list.field(at: descriptor, width: 8) * UInt64(blockSize),
                byteCount: list.field(at: descriptor + 8, width: 4) * UInt64(blockSize), token: token)
        case (.deallocate, _):
            return backend.deallocate(offset: operation.offset, byteCount: operation.byteCount, token: token)
        case (.zero, _):
            return backend.writeZeroes(offset: operation.offset, byteCount: operation.byteCount, token: token)
        }
    }

    private func fillByteCount(_ operation: Operation) -> Int {
        // The buffer may be larger than the pattern in it, but is a whole number of blocks all the same.
        let pattern = min(UInt64(operation.buffer.capacity), 256 << 10)
        return Int(min(pattern, operation.byteCount - operation.done))
    }

    private func endStep(_ index: Int) -> Step {
        let operation = operations[index]
        let length = Int(operation.byteCount)
        switch (operation.kind, operation.step) {
        case (.read, _):
            var result = DeviceResult.status(.good)
            result.buffer = operation.buffer
            result.data = UnsafeRawBufferPointer(start: operation.buffer.base, count: length)
            return .end(result)
        case (.write, 0) where backend.writesThrough: return .end(writeDone(operation))
        case (.write, 0), (.swap, 0):
            operations[index].step = 1
            return operation.synchronizes ? .again : .end(writeDone(operation))
        case (.listExtents, _): return .end(extentsListed(operation))
        case (.compare, _):
            return .end(compared(operation))
        case (.compareAndWrite, 0):
            if let offset = firstDifference(operation.buffer.base!, operation.command.dataOut.baseAddress!, length) {
                return .end(.check(.miscompare(at: offset)))
            }
            operations[index].step = 1
            return .again
        case (.orWrite, 0):
            or(operation.buffer.base!, operation.command.dataOut.baseAddress!, length)
            operations[index].step = 1
            return .again
        case (.compareAndWrite, 1), (.orWrite, 1):
            operations[index].step = 2
            return operation.synchronizes ? .again : .end(writeDone(operation))
        case (.write, _), (.compareAndWrite, _), (.orWrite, _), (.swap, _):
            return .end(writeDone(operation))
        case (.fill, _):
            operations[index].done += UInt64(fillByteCount(operation))
            return operations[index].done < operation.byteCount ? .again : .end(writeDone(operation))
        case (.unmap, _):
            operations[index].done += 1
            return operations[index].done < operation.byteCount ? .again : .end(writeDone(operation))
        case (.deallocate, _), (.zero, _), (.synchronize, _):
            return .end(writeDone(operation))
        }
    }

    /// GOOD, with what the CDB asked of data-out, which residuals are counted against.
    private func writeDone(_ operation: Operation) -> DeviceResult {
        .status(.good, dataOutByteCount: operation.wantedByteCount)
    }

    /// The medium with data-out, which repeats where it is one block for all (BYTCHK 11b).
    private func compared(_ operation: Operation) -> DeviceResult {
        let piece = operation.wantedByteCount
        for start in stride(from: 0, to: Int(operation.byteCount), by: piece) {
            if let offset = firstDifference(
                operation.buffer.base! + start, operation.command.dataOut.baseAddress!, piece)
            {
                return .check(.miscompare(at: start + offset))
            }
        }
        return writeDone(operation)
    }

    // Lengths are whole blocks, so whole words.

    private func or(_ medium: UnsafeMutableRawPointer, _ data: UnsafeRawPointer, _ count: Int) {
        for offset in stride(from: 0, to: count, by: 8) {
            let word = medium.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            medium.storeBytes(
                of: word | data.loadUnaligned(fromByteOffset: offset, as: UInt64.self), toByteOffset: offset, as: UInt64.self)
        }
    }

    private func firstDifference(_ a: UnsafeRawPointer, _ b: UnsafeRawPointer, _ count: Int) -> Int? {
        guard memcmp(a, b, count) != 0 else { return nil }
        for offset in stride(from: 0, to: count, by: 8) {
            let left = a.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            let difference = left ^ b.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            if difference != 0 { return offset + difference.littleEndian.trailingZeroBitCount / 8 }
        }
        return nil
    }
}
