import AsyncIO
import Glibc
import ISCSITarget
import Timebase

/// The blocks of one unit, which several targets may share, as the controllers of an array do.
final class BackingStore {
    let bytes: UnsafeMutableRawBufferPointer
    private(set) var writeCount = 0

    init(byteCount: Int) {
        bytes = .allocate(byteCount: byteCount, alignment: 4096)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { bytes.deallocate() }

    func write(_ source: UnsafeRawBufferPointer, at offset: Int) {
        writeCount += 1
        UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<offset + source.count]).copyMemory(from: source)
    }

    func clear(_ offset: Int, _ count: Int) {
        writeCount += 1
        memset(bytes.baseAddress! + offset, 0, count)
    }
}

/// One target process's way to a ``BackingStore``: operations take time, overlap, and end in any order; a
/// write reaches the store in two parts.
final class SimulatedBackend: LogicalUnitBackend {
    private let store: BackingStore
    private let blockSize: Int
    private let port: SimulatedIO
    private let random: SeededRandom
    weak var client: (any BackendClient)?
    /// How long operations take.
    var delay: () -> Duration
    /// It does not: but were the target to wait for a former session's writes, as ours does, no login without ABORT TASK SET
    /// could be seen to be too little, as it is for arrays.
    var keepsWriteOrder: Bool { true }
    private var pending: [Operation] = []
    private var nextNumber: UInt64 = 0

    private struct Operation {
        var number: UInt64
        var token: UInt32
        var apply: () -> Void
    }

    init(
        store: BackingStore, blockSize: Int, port: SimulatedIO, random: SeededRandom, delay: @escaping () -> Duration
    ) {
        self.store = store
        self.blockSize = blockSize
        self.port = port
        self.random = random
        self.delay = delay
    }

    var byteCount: UInt64 { UInt64(store.bytes.count) }
    var isThinlyProvisioned: Bool { true }

    func lend(offset: UInt64, byteCount: Int) -> UnsafeRawPointer? { nil }

    func read(offset: UInt64, into memory: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress {
        run(token) { [store] in
            memory.copyMemory(from: UnsafeRawBufferPointer(rebasing: store.bytes[Int(offset)..<Int(offset) + memory.count]))
        }
    }

    func write(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress {
        let blocks = memory.count / blockSize
        let first = random.below(blocks + 1) * blockSize
        if first > 0 { store.write(UnsafeRawBufferPointer(rebasing: memory[..<first]), at: Int(offset)) }
        return run(token) { [store] in
            if first < memory.count {
                store.write(UnsafeRawBufferPointer(rebasing: memory[first...]), at: Int(offset) + first)
            }
        }
    }

    func synchronize(token: UInt32) -> BackendProgress { run(token) {} }

    func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        run(token) { [store] in store.clear(Int(offset), Int(byteCount)) }
    }

    func mapping(at offset: UInt64) -> (isMapped: Bool, byteCount: UInt64) { (true, byteCount - offset) }

    func close() {}

    private func run(_ token: UInt32, _ apply: @escaping () -> Void) -> BackendProgress {
        if random.chance(percent: 25) {
            apply()
            return .done
        }
        nextNumber += 1
        let number = nextNumber
        pending.append(Operation(number: number, token: token, apply: apply))
        port.world.after(delay()) { [weak self] in self?.port.perform { [weak self] in self?.finish(number) } }
        return .pending
    }

    private func finish(_ number: UInt64) {
        guard let index = pending.firstIndex(where: { $0.number == number }) else { return }
        let operation = pending.remove(at: index)
        operation.apply()
        client?.backendCompleted(token: operation.token, failure: nil)
    }

    /// The process is killed: what the disk had is done or not, now, and nothing comes later. (A write that
    /// a restarted target could neither see nor abort is beyond any fence.)
    func kill() {
        for operation in pending where random.chance(percent: 50) { operation.apply() }
        pending.removeAll()
    }
}
