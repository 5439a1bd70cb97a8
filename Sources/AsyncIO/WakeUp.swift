import CAio
import Glibc

/// How another thread ends the loop's sleep: it submits a POLL OUT on an eventfd that is always
/// writable, which completes at once; nothing is to be drained or armed again. Where the kernel has no
/// room for that operation, a second eventfd with a POLL IN that is always armed does it.
final class WakeUp: @unchecked Sendable {
    private let writable: Int32
    private let fallback: Int32
    /// Only one thread signals at a time: the one that took the loop's `sleeping` flag.
    private let operation: UnsafeMutablePointer<iocb>
    private let fallbackOperation: UnsafeMutablePointer<iocb>
    private var fallbackIsArmed = false

    init() throws(IOError) {
        writable = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
        guard writable >= 0 else { throw IOError(code: errno, operation: "make an eventfd") }
        fallback = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
        guard fallback >= 0 else {
            let code = errno
            Glibc.close(writable)
            throw IOError(code: code, operation: "make an eventfd")
        }
        operation = .allocate(capacity: 1)
        operation.initialize(to: iocb())
        io_prep_poll(operation, writable, Int32(POLLOUT))
        operation.pointee.data = AioContext.data(OperationKind.wakeUp.tagging(0))
        fallbackOperation = .allocate(capacity: 1)
        fallbackOperation.initialize(to: iocb())
        io_prep_poll(fallbackOperation, fallback, Int32(POLLIN))
        fallbackOperation.pointee.data = AioContext.data(OperationKind.wakeUpFallback.tagging(0))
    }

    deinit {
        Glibc.close(writable)
        Glibc.close(fallback)
        operation.deallocate()
        fallbackOperation.deallocate()
    }

    func signal(_ context: AioContext) {
        if context.submitWakeUp(operation) { return }
        var one: UInt64 = 1
        // EAGAIN means that the counter is full, and so readable.
        _ = write(fallback, &one, 8)
    }

    /// Loop thread: the POLL to add to the next batch, once after each time it fired.
    func fallbackToArm() -> UnsafeMutablePointer<iocb>? {
        guard !fallbackIsArmed else { return nil }
        fallbackIsArmed = true
        return fallbackOperation
    }

    func fallbackFired() {
        var value: UInt64 = 0
        _ = read(fallback, &value, 8)
        fallbackIsArmed = false
    }
}
