import CAio

// How many bytes must be there before the kernel completes a POLL (SO_RCVLOWAT). A large piece arrives in parts of a few
// tens of KiB, and to be woken for each costs more than the copy of it; so while a handler waits for much of one, which
// it says by its window, the threshold is raised; but only where answers may gather at all, since taking the first part while
// the last is on its way is what makes a single request fast.
//
// No socket stays deaf for it: only bytes of a piece that has begun are waited for, the kernel completes the POLL all
// the same at the end of the stream, on an error and with a full window, and a review takes the threshold back where
// nothing was received since the one before.
extension LibaioReactor {
    /// With less to come the threshold is one byte: two more calls would cost as much as is saved.
    static let leastRaisedThreshold = 128 * 1024
    /// Nor more than this: what is there can be taken while the rest is on its way.
    static let largestThreshold = 192 * 1024
    /// Longer than the tick of most kernels: a sleep until the review then costs no timer of its own.
    static let thresholdReviewInterval: UInt64 = 5_000_000

    /// Fits the threshold to what the socket waits for; to be called before its POLL is armed.
    @inline(__always)
    func fitReceiveThreshold(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        guard slot.pointee.isBulk || slot.pointee.receiveThreshold > 1 else { return }
        fitBulkThreshold(id, slot)
    }

    @inline(never)
    private func fitBulkThreshold(_ id: UInt64, _ slot: UnsafeMutablePointer<SocketSlot>) {
        guard slot.pointee.isTCP, slot.pointee.isReceiving, let handler = slot.pointee.handler else { return }
        let missing = handler.socketInput(SocketID(rawValue: id)).count
        guard sockets.contains(id) else { return }
        let isRaised = coalescing > 0 && slot.pointee.isFlowing && missing >= Self.leastRaisedThreshold
        changeThreshold(slot, to: isRaised ? min(missing, Self.largestThreshold) : 1)
        guard slot.pointee.receiveThreshold > 1, !slot.pointee.isRaisedQueued else { return }
        slot.pointee.isRaisedQueued = true
        raisedQueue.append(id)
        if thresholdReviewAt == .max { thresholdReviewAt = now.nanoseconds &+ Self.thresholdReviewInterval }
    }

    private func changeThreshold(_ slot: UnsafeMutablePointer<SocketSlot>, to byteCount: Int) {
        guard byteCount != slot.pointee.receiveThreshold else { return }
        counts.thresholdChanges += 1
        if mpio_set_receive_threshold(slot.pointee.descriptor, Int32(clamping: byteCount)) == 0 {
            slot.pointee.receiveThreshold = byteCount
        }
    }

    /// Takes thresholds back that nothing reached since the last review. The kernel completes a POLL at once where bytes are there.
    func reviewThresholds() {
        var remaining = raisedQueue.count
        while remaining > 0, let id = raisedQueue.popFirst() {
            remaining -= 1
            guard let slot = sockets[id] else { continue }
            let isFlowing = slot.pointee.isFlowing
            slot.pointee.isFlowing = false
            if !isFlowing { changeThreshold(slot, to: 1) }
            slot.pointee.isRaisedQueued = slot.pointee.receiveThreshold > 1
            if slot.pointee.isRaisedQueued { raisedQueue.append(id) }
        }
        thresholdReviewAt = raisedQueue.isEmpty ? .max : now.nanoseconds &+ Self.thresholdReviewInterval
    }
}
