import CAio
import Glibc

/// A few threads for the file operations that libaio would carry out inside `io_submit`, and so would
/// stop the loop: cold reads through the page cache, punching and looking for holes, fdatasync where the file has no
/// asynchronous one. Threads start when the first operation needs them.
final class BlockingWorkers: @unchecked Sendable {
    struct Operation {
        enum Kind {
            case read(UnsafeMutableRawBufferPointer, UInt64)
            case write(UnsafeRawBufferPointer, UInt64)
            case synchronize
            case deallocate(UInt64, UInt64)
            case find(hole: Bool, UInt64)
        }

        var id: UInt64
        var descriptor: Int32
        var isBlockDevice: Bool
        var kind: Kind
        /// Bytes that were already transferred, added to a successful result.
        var alreadyDone: Int
    }

    static let maximumThreadCount = 4

    private let lock = Lock()
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private let completed: @Sendable (UInt64, Int) -> Void
    // Guarded by `lock`.
    private var waiting: [Operation] = []
    private var threads: [pthread_t] = []
    private var idleCount = 0
    private var isStopping = false

    init(completed: @escaping @Sendable (UInt64, Int) -> Void) {
        self.completed = completed
        condition = .allocate(capacity: 1)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        condition.deallocate()
    }

    func submit(_ operation: Operation) {
        let refused: Int32 = lock.withLock {
            waiting.append(operation)
            if idleCount >= waiting.count || threads.count == Self.maximumThreadCount {
                pthread_cond_signal(condition)
                return 0
            }
            let code = startThread()
            if code != 0, threads.isEmpty {
                waiting.removeLast()
                return code
            }
            return 0
        }
        if refused != 0 { completed(operation.id, -Int(refused)) }
    }

    /// Ends the threads once nothing waits, and joins them. Later submissions are not allowed.
    func stop() {
        let joining = lock.withLock {
            isStopping = true
            pthread_cond_broadcast(condition)
            defer { threads = [] }
            return threads
        }
        for thread in joining { pthread_join(thread, nil) }
    }

    private func startThread() -> Int32 {
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { context in
                mpio_prepare_loop_thread("mpio-file")
                Unmanaged<BlockingWorkers>.fromOpaque(context!).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
        if code == 0 {
            threads.append(thread)
        } else {
            Unmanaged.passUnretained(self).release()
        }
        return code
    }

    private func run() {
        while let operation = next() {
            completed(operation.id, Self.perform(operation))
        }
    }

    private func next() -> Operation? {
        lock.withLock {
            while waiting.isEmpty {
                if isStopping { return nil }
                idleCount += 1
                pthread_cond_wait(condition, lock.systemMutex)
                idleCount -= 1
            }
            return waiting.removeFirst()
        }
    }

    private static func perform(_ operation: Operation) -> Int {
        let result: Int
        switch operation.kind {
        case .read(let buffer, let offset):
            result = Int(mpio_read_fully(operation.descriptor, buffer.baseAddress, buffer.count, offset))
        case .write(let buffer, let offset):
            result = Int(mpio_write_fully(operation.descriptor, buffer.baseAddress, buffer.count, offset))
        case .synchronize:
            result = Int(mpio_sync_data(operation.descriptor))
        case .deallocate(let offset, let count):
            result = Int(mpio_deallocate(operation.descriptor, operation.isBlockDevice, offset, count))
        case .find(let hole, let offset):
            result = Int(mpio_find_extent(operation.descriptor, hole, offset))
        }
        return result < 0 ? result : result + operation.alreadyDone
    }
}
