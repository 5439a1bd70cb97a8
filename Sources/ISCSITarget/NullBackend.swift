import Glibc

/// Reads as zeroes and forgets what is written: the protocol's cost alone.
final class NullBackend: LogicalUnitBackend {
    let byteCount: UInt64
    weak var client: (any BackendClient)?
    var writesAtOnce: Bool { true }
    var hasVolatileCache: Bool { false }
    var isThinlyProvisioned: Bool { false }

    /// Untouched anonymous memory: every page of it is the kernel's one zero page.
    private static let zeroByteCount = LogicalUnit.maximumTransferByteCount
    private let zeroes: UnsafeMutableRawPointer

    init(byteCount: UInt64) {
        self.byteCount = byteCount
        let memory = mmap(nil, Self.zeroByteCount, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let memory, memory != MAP_FAILED else { preconditionFailure("no address space for a page of zeroes") }
        zeroes = memory
    }

    deinit { munmap(zeroes, Self.zeroByteCount) }

    func lend(offset: UInt64, byteCount: Int) -> UnsafeRawPointer? {
        byteCount <= Self.zeroByteCount ? UnsafeRawPointer(zeroes) : nil
    }

    func read(offset: UInt64, into memory: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress {
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        return .done
    }

    func write(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress { .done }
    func synchronize(token: UInt32) -> BackendProgress { .done }
    func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress { .done }
    func close() {}
}
