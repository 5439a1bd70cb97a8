// Our own contender: `depth` requests kept under way through an IOQueue, as the C clients do with theirs. The
// operand is a policy file with a LUN "bench". Prints one line of JSON; what the reactor did goes to standard error.
import AllocationCount
import Foundation
import MPIO
import Measuring

/// What ``report(turns:receives:empty:sends:submits:sleeps:polls:_:)`` says of a load.
protocol MeasuredLoad {
    /// Heap allocations of the whole process while it measured.
    var measuredAllocations: UInt64 { get }
    /// Batches of completions meanwhile; 0 where there are none.
    var batchesDelivered: UInt64 { get }
}

/// Runs the requests. After `begin` all of it happens on the reactor's thread, in the queue's handler.
final class Load: MeasuredLoad, @unchecked Sendable {
    private enum Phase { case ramp, measuring, stopping }

    private let options: Measuring.options
    private let buffer: IOBuffer
    private let blockByteCount: Int
    private let slotCount: UInt64
    private let depth: Int
    private let startedAt: UnsafeMutablePointer<UInt64>
    private let batch: UnsafeMutableBufferPointer<IORequest>
    private var batchCount = 0
    private var queue: IOQueue?
    private var phase = Phase.ramp
    private var phaseEnd: UInt64 = 0
    private var outstanding = 0
    private var nextSlot: UInt64 = 0
    private var ended: CheckedContinuation<Void, Never>?
    private(set) var measuredAllocations: UInt64 = 0
    private(set) var batchesDelivered: UInt64 = 0

    init(options: Measuring.options, disk: MultipathDisk) {
        self.options = options
        depth = Int(options.depth)
        blockByteCount = Int(options.block_size)
        slotCount = disk.capacityByteCount / UInt64(options.block_size)
        buffer = IOBuffer(byteCount: depth * blockByteCount)
        for index in 0..<depth {
            memset(buffer.bytes.baseAddress! + index * blockByteCount, Int32(truncatingIfNeeded: index + 1), blockByteCount)
        }
        startedAt = .allocate(capacity: depth)
        batch = .allocate(capacity: depth)
    }

    /// Returns when the last request has come back.
    func run(on disk: MultipathDisk) async {
        // Kept alive by the caller until the last completion; a counted reference would be part of what is measured.
        queue = IOQueue(disk: disk) { [unowned(unsafe) self] in completed($0) }
        await withCheckedContinuation { continuation in
            ended = continuation
            phaseEnd = monotonic_ns() + UInt64(options.ramp_seconds * 1e9)
            for index in 0..<depth { issue(index) }
            flush()
        }
        withExtendedLifetime(self) {}
    }

    private func issue(_ index: Int) {
        var slot = next_random() % slotCount
        if options.sequential {
            slot = nextSlot
            nextSlot = nextSlot + 1 == slotCount ? 0 : nextSlot + 1
        }
        let isWrite = options.write_percent > 0 && next_random() % 100 < UInt64(options.write_percent)
        startedAt[index] = monotonic_ns()
        batch.initializeElement(
            at: batchCount,
            to: IORequest(
                isWrite ? .write : .read, offset: slot * UInt64(blockByteCount), byteCount: blockByteCount,
                memory: buffer.bytes.baseAddress! + index * blockByteCount, token: UInt64(index)))
        batchCount += 1
        outstanding += 1
    }

    private func flush() {
        guard batchCount > 0 else { return }
        let count = batchCount
        batchCount = 0
        queue!.submit(UnsafeBufferPointer(rebasing: batch[..<count]))
    }

    private func completed(_ completions: UnsafeBufferPointer<IORequestCompletion>) {
        outstanding -= completions.count
        if phase == .measuring { batchesDelivered += 1 }
        for completion in completions {
            let index = Int(completion.token)
            if let error = completion.error { FileHandle.standardError.write(Data("mpio-client: \(error)\n".utf8)) }
            if phase == .measuring { measuring_request(startedAt[index], completion.error != nil) }
            if phase != .stopping { issue(index) }
        }
        flush()
        let now = monotonic_ns()
        if now >= phaseEnd { changePhase(now) }
        if outstanding == 0 { ended?.resume() }
    }

    private func changePhase(_ now: UInt64) {
        switch phase {
        case .ramp:
            phase = .measuring
            phaseEnd = now + UInt64(options.seconds * 1e9)
            measuredAllocations = allocation_count()
            measuring_begin()
        case .measuring:
            measuring_end()
            measuredAllocations = allocation_count() - measuredAllocations
            phase = .stopping
            phaseEnd = .max
        case .stopping: break
        }
    }
}

nonisolated func measure() async throws {
    let options = parse_options(CommandLine.argc, CommandLine.unsafeArgv, "POLICY-FILE")
    let configuration = try Configuration(contentsOf: String(cString: options.urls.0!))
    let directory = NSTemporaryDirectory() + "mpio-client-\(getpid())"
    defer { try? FileManager.default.removeItem(atPath: directory) }
    var managerOptions = PathManager.Options()
    managerOptions.runtimeDirectory = directory
    managerOptions.isInspectable = false
    if options.busy_poll_us > 0 { managerOptions.busyPoll = .microseconds(options.busy_poll_us) }
    if options.adaptive_poll_us >= 0 { managerOptions.adaptivePolling = .microseconds(options.adaptive_poll_us) }
    if options.coalescing_us >= 0 { managerOptions.receiveCoalescing = .microseconds(options.coalescing_us) }
    let manager = try await PathManager(configuration: configuration, options: managerOptions)
    let disk = try await manager.open("bench")
    let before = await manager.reactorCounters()
    let load: any MeasuredLoad
    switch options.api {
    case api_batch:
        let batches = Load(options: options, disk: disk)
        await batches.run(on: disk)
        load = batches
    case api_async:
        let tasks = TaskLoad(options: options, disk: disk)
        await manager.run { await tasks.run() }
        load = tasks
    default:
        let tasks = TaskLoad(options: options, disk: disk)
        await tasks.run()
        load = tasks
    }
    let after = await manager.reactorCounters()
    measuring_print(options.block_size)
    report(
        turns: after.turns - before.turns, receives: after.receiveCalls - before.receiveCalls,
        empty: after.emptyReceives - before.emptyReceives, sends: after.sendCalls - before.sendCalls,
        submits: after.submitCalls - before.submitCalls, sleeps: after.sleeps - before.sleeps,
        polls: after.pollsThatFound - before.pollsThatFound, load)
    try await manager.shutdown()
    let measured = measuring_requests()
    // A request allocates nothing; logins that are late, and proofs of portal groups, do. Elsewhere than on the reactor's thread,
    // so does what hands tasks from thread to thread.
    guard options.api == api_async_elsewhere || measured < 10_000 || load.measuredAllocations < 2_000 + measured / 100 else {
        throw Failure.allocates(load.measuredAllocations, requests: measured)
    }
}

enum Failure: Error, CustomStringConvertible {
    case allocates(UInt64, requests: UInt64)

    var description: String {
        switch self {
        case .allocates(let count, let requests): "\(count) heap allocations for \(requests) requests; there should be none"
        }
    }
}

/// Rates over ramp and measurement together, which is what the reactor counts.
nonisolated func report(turns: UInt64, receives: UInt64, empty: UInt64, sends: UInt64, submits: UInt64, sleeps: UInt64, polls: UInt64, _ load: any MeasuredLoad) {
    let measured = measuring_requests()
    func text(_ digits: Int, _ number: UInt64, per divisor: UInt64) -> String {
        String(format: "%.\(digits)f", Double(number) / Double(max(divisor, 1)))
    }
    let words = """
        mpio-client: \(text(2, measured, per: load.batchesDelivered)) requests a batch; a turn of the loop: \
        \(text(2, receives, per: turns)) receives (\(text(2, empty, per: turns)) found nothing), \
        \(text(2, sends, per: turns)) sends, \(text(2, submits, per: turns)) submits, \(text(2, sleeps, per: turns)) sleeps, \
        \(text(2, polls, per: turns)) looks that made one needless; \
        \(text(4, load.measuredAllocations, per: measured)) allocations a request

        """
    FileHandle.standardError.write(Data(words.utf8))
}

do {
    try await measure()
} catch {
    FileHandle.standardError.write(Data("mpio-client: \(error)\n".utf8))
    exit(1)
}
