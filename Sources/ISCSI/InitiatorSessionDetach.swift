// Letting go of a command's memory while the command itself goes on.
extension InitiatorSession {
    /// Frees the caller's memory from a command that stays outstanding: after this, nothing that the
    /// session receives lands in it and nothing it still sends comes from it.
    ///
    /// For a path that is silent while the same request is carried out elsewhere. A read's late data goes
    /// to a private buffer. A write's data is copied first, because the target may still ask for it, and
    /// what it gets must be what was written then: whatever the caller puts there next would be a
    /// write that nobody asked for. The command's completion or abandonment comes as ever.
    ///
    /// A token that is not outstanding is ignored. Control path: it allocates.
    public mutating func detach(_ token: UInt64) {
        guard let slot = table.slot(forToken: token, includingDraining: true) else { return }
        let task = table.slots + slot
        guard let buffer = task.pointee.buffer, task.pointee.byteCount > 0, task.pointee.ownBuffer == nil else { return }
        let connection = connections + Int(task.pointee.connection)
        let own = UnsafeMutableRawPointer.allocate(byteCount: task.pointee.byteCount, alignment: 64)
        switch task.pointee.direction {
        case .write:
            own.copyMemory(from: buffer, byteCount: task.pointee.byteCount)
            let end = connection.pointee.output.relocate(
                UnsafeRawBufferPointer(start: buffer, count: task.pointee.byteCount), to: own)
            // The copy must outlive another command's segments that lay in the same memory.
            task.pointee.dataEndPosition = max(task.pointee.dataEndPosition, end)
        case .read:
            own.initializeMemory(as: UInt8.self, repeating: 0, count: task.pointee.byteCount)
            if connection.pointee.placingSlot == slot { connection.pointee.decoder.discard() }
        case .none: break
        }
        task.pointee.buffer = own
        task.pointee.ownBuffer = own
    }
}
