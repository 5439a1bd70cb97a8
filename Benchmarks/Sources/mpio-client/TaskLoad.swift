import AllocationCount
import MPIO
import Measuring
import Synchronization

/// The async API's load: as many tasks as requests may be under way, each of which waits for its request's end before the
/// next one. They run where ``run()`` is called: on the reactor's thread or on Swift concurrency's own.
final class TaskLoad: MeasuredLoad, @unchecked Sendable {
    private enum Phase: Int { case ramp, measuring, stopping }

    private let options: Measuring.options
    private let disk: MultipathDisk
    private let buffer: IOBuffer
    private let blockByteCount: Int
    private let slotCount: UInt64
    private let phase = Atomic<Int>(Phase.ramp.rawValue)
    private let nextSlot = Atomic<UInt64>(0)
    /// Tasks may run on several threads; what they measure is one table.
    private let table = Mutex<Void>(())
    private(set) var measuredAllocations: UInt64 = 0
    let batchesDelivered: UInt64 = 0

    init(options: Measuring.options, disk: MultipathDisk) {
        self.options = options
        self.disk = disk
        blockByteCount = Int(options.block_size)
        slotCount = disk.capacityByteCount / UInt64(options.block_size)
        buffer = IOBuffer(byteCount: Int(options.depth) * blockByteCount)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: 0x5A)
    }

    func run() async {
        await withTaskGroup(of: Void.self) { group in
            for index in 0..<Int(options.depth) { group.addTask { await self.requests(index) } }
            try? await Task.sleep(for: .seconds(options.ramp_seconds))
            measuredAllocations = allocation_count()
            table.withLock { _ in measuring_begin() }
            phase.store(Phase.measuring.rawValue, ordering: .relaxed)
            try? await Task.sleep(for: .seconds(options.seconds))
            phase.store(Phase.stopping.rawValue, ordering: .relaxed)
            table.withLock { _ in measuring_end() }
            measuredAllocations = allocation_count() - measuredAllocations
        }
    }

    private func requests(_ index: Int) async {
        let range = index * blockByteCount..<(index + 1) * blockByteCount
        var random = UInt64(index + 1) &* 0x9E37_79B9_7F4A_7C15
        while phase.load(ordering: .relaxed) != Phase.stopping.rawValue {
            let started = monotonic_ns()
            random ^= random >> 12
            random ^= random << 25
            random ^= random >> 27
            let slot = options.sequential
                ? nextSlot.wrappingAdd(1, ordering: .relaxed).oldValue % slotCount
                : (random &* 0x2545_F491_4F6C_DD1D) % slotCount
            let isWrite = options.write_percent > 0 && random >> 32 % 100 < UInt64(options.write_percent)
            var hasFailed = false
            do {
                if isWrite {
                    try await disk.write(buffer, range: range, at: slot * UInt64(blockByteCount))
                } else {
                    try await disk.read(into: buffer, range: range, at: slot * UInt64(blockByteCount))
                }
            } catch {
                hasFailed = true
            }
            if phase.load(ordering: .relaxed) == Phase.measuring.rawValue {
                table.withLock { _ in measuring_request(started, hasFailed) }
            }
        }
    }
}
