import CAio
import Glibc

// Transfers by PWRITEV and PREADV. On a non-blocking socket both are done when io_submit returns, so the
// memory they name is never the kernel's between two turns.
extension LibaioReactor {
    func addSend(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        if context.batchIsFull || Self.partsPerBatch - partsUsed < 64 { flush() }
        // Who is told there what the kernel refused may have closed it.
        guard sockets.contains(id) else { return }
        let room = min(Self.partsPerBatch - partsUsed, Self.maximumParts)
        guard !context.batchIsFull, room >= 64 else {
            // The kernel took nothing: ask again in the next turn.
            requestSend(SocketID(rawValue: id))
            return
        }
        let handler = slot.pointee.handler!
        let first = parts + partsUsed
        let output = collectOutput(id, handler, into: first, limit: room)
        guard output.byteCount > 0 else { return }
        partsUsed += output.partCount
        slot.pointee.isSendSubmitted = true
        slot.pointee.submittedByteCount = output.byteCount
        withUnsafeMutablePointer(to: &slot.pointee.transmit) {
            io_prep_pwritev($0, slot.pointee.descriptor, first, Int32(output.partCount), 0)
            $0.pointee.data = AioContext.data(OperationKind.send.tagging(id))
            context.add($0)
        }
        counts.sendCalls += 1
    }

    func sendCompleted(_ id: UInt64, result: Int) {
        guard let slot = sockets[id] else { return }
        slot.pointee.isSendSubmitted = false
        let byteCount = slot.pointee.submittedByteCount
        if sent(id, slot, slot.pointee.handler!, result: result, of: byteCount) {
            // All of it went: there may be more.
            requestSend(SocketID(rawValue: id))
        }
    }

    func sendRefused(_ id: UInt64, _ code: Int32) { sendCompleted(id, result: -Int(code)) }

    /// Reads from every socket that is known to be readable, a few per io_submit: each has its own spill.
    func submitReceives() {
        while !submittedReceiveQueue.isEmpty {
            var place = 0
            while place < Self.submittedReceiveBatch, !context.batchIsFull,
                let id = submittedReceiveQueue.popFirst()
            {
                guard let operation = prepareReceive(id, place: place) else { continue }
                context.add(operation)
                place += 1
            }
            submittedReceivesOutstanding = place
            flush()
            while submittedReceivesOutstanding > 0 {
                let count = context.harvest()
                if count == 0 {
                    // No room in the kernel for them: read by calls instead.
                    abandonSubmittedReceives()
                    break
                }
                for position in 0..<count { dispatch(context.events[position]) }
            }
            if context.batchIsFull, !submittedReceiveQueue.isEmpty { return }
        }
    }

    private func prepareReceive(_ id: UInt64, place: Int) -> UnsafeMutablePointer<iocb>? {
        guard let slot = sockets[id], !slot.pointee.isReceiveSubmitted else { return nil }
        let window = slot.pointee.handler!.socketInput(SocketID(rawValue: id))
        guard sockets.contains(id) else { return nil }
        let spill = submittedSpills[place]
        let first = submittedReceiveParts + 2 * place
        var partCount: Int32 = 0
        if window.count > 0 {
            first[0] = iovec(iov_base: window.baseAddress, iov_len: window.count)
            partCount = 1
        }
        first[Int(partCount)] = iovec(iov_base: spill.baseAddress, iov_len: spill.count)
        partCount += 1
        slot.pointee.submittedWindow = window
        slot.pointee.submittedSpill = place
        slot.pointee.isReceiveSubmitted = true
        counts.receiveCalls += 1
        return withUnsafeMutablePointer(to: &slot.pointee.receive) {
            io_prep_preadv($0, slot.pointee.descriptor, first, partCount, 0)
            $0.pointee.data = AioContext.data(OperationKind.receive.tagging(id))
            return $0
        }
    }

    func submittedReceiveCompleted(_ id: UInt64, result: Int) {
        submittedReceivesOutstanding -= 1
        guard let slot = sockets[id] else { return }
        slot.pointee.isReceiveSubmitted = false
        received(
            id, slot, slot.pointee.handler!, result, slot.pointee.submittedWindow,
            submittedSpills[slot.pointee.submittedSpill])
    }

    func submittedReceiveRefused(_ id: UInt64) {
        submittedReceivesOutstanding -= 1
        guard let slot = sockets[id] else { return }
        slot.pointee.isReceiveSubmitted = false
        receiveByCall(id, slot)
    }

    private func abandonSubmittedReceives() {
        submittedReceivesOutstanding = 0
        var abandoned: [UInt64] = []
        context.withdraw { operation in
            let tag = AioContext.tag(operation.pointee.data)
            guard tag & 0xF == UInt64(OperationKind.receive.rawValue) else { return false }
            abandoned.append(tag >> OperationKind.bits)
            return true
        }
        for id in abandoned {
            guard let slot = sockets[id] else { continue }
            slot.pointee.isReceiveSubmitted = false
            receiveByCall(id, slot)
        }
    }
}
