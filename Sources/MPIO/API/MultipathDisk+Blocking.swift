import Glibc

extension MultipathDisk {
    func perform(
        _ operation: IOOperation, offset: UInt64, memory: UnsafeMutableRawBufferPointer, forceUnitAccess: Bool = false
    ) async throws(DiskError) {
        try await perform(
            operation, offset: offset, byteCount: memory.count, memory: memory.baseAddress,
            forceUnitAccess: forceUnitAccess)
    }

    func perform(
        _ operation: IOOperation, offset: UInt64, byteCount: Int, memory: UnsafeMutableRawPointer? = nil,
        forceUnitAccess: Bool = false
    ) async throws(DiskError) {
        if Task.isCancelled { throw .cancelled }
        if let router {
            let lane = router.lane(of: operation, offset, byteCount)
            let error =
                if let lane {
                    await router.gates[lane].perform(
                        operation, offset: offset, byteCount: byteCount, memory: memory, forceUnitAccess: forceUnitAccess)
                } else {
                    await router.perform(
                        operation, offset: offset, byteCount: byteCount, memory: memory, forceUnitAccess: forceUnitAccess)
                }
            if let error { throw error }
            return
        }
        let error = await gate.perform(
            operation, offset: offset, byteCount: byteCount, memory: memory, forceUnitAccess: forceUnitAccess)
        if let error { throw error }
    }

    // MARK: For threads outside Swift concurrency

    /// Reads and waits, blocking the calling thread, which must be neither the reactor's nor one of Swift
    /// concurrency's pool.
    public func readBlocking(into buffer: IOBuffer, range: Range<Int>? = nil, at offset: UInt64) throws(DiskError) {
        let part = Self.part(of: buffer, range)
        try wait(IORequest(.read, offset: offset, byteCount: part.count, memory: part.baseAddress, token: 0))
        withExtendedLifetime(buffer) {}
    }

    /// Writes and waits, as ``readBlocking(into:range:at:)`` does.
    public func writeBlocking(
        _ buffer: IOBuffer, range: Range<Int>? = nil, at offset: UInt64, options: WriteOptions = []
    ) throws(DiskError) {
        let part = Self.part(of: buffer, range)
        try wait(
            IORequest(.write, offset: offset, byteCount: part.count, memory: part.baseAddress, token: 0, options: options))
        withExtendedLifetime(buffer) {}
    }

    /// Flushes and waits, as ``readBlocking(into:range:at:)`` does.
    public func flushBlocking() throws(DiskError) {
        try wait(IORequest(.flush, offset: 0, byteCount: 0, token: 0))
    }

    private func wait(_ request: IORequest) throws(DiskError) {
        precondition(
            !gates.contains { $0.reference.reactor.isOnReactorThread }, "a blocking call on the reactor's thread would wait for itself")
        let waiter = BlockingWaiter()
        var gate = gate
        if let router {
            let submission = IOSubmission(request, sink: Unmanaged<CompletionSink>.passUnretained(waiter))
            guard let lane = router.lane(of: submission.operation, submission.offset, submission.byteCount) else {
                router.submit(submission) { waiter.end($0) }
                if let error = waiter.wait() { throw error }
                return
            }
            gate = router.gates[lane]
        }
        gate.enqueue(
            CollectionOfOne(IOSubmission(request, sink: Unmanaged<CompletionSink>.passRetained(waiter))))
        if let error = waiter.wait() { throw error }
    }
}

/// One blocking request: completes on the reactor's thread, wakes the one that waits.
private final class BlockingWaiter: CompletionSink, @unchecked Sendable {
    private let semaphore: UnsafeMutablePointer<sem_t>
    private var error: DiskError?

    override init() {
        semaphore = .allocate(capacity: 1)
        sem_init(semaphore, 0, 0)
    }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    override func deliver(_ completions: UnsafeBufferPointer<IOCompletion>) {
        end(completions.first?.error)
        // The submission's own reference: nothing names this sink any more.
        Unmanaged.passUnretained(self).release()
    }

    func end(_ error: DiskError?) {
        self.error = error
        sem_post(semaphore)
    }

    func wait() -> DiskError? {
        while sem_wait(semaphore) != 0 {}
        return error
    }
}
