import Foundation
import MPIO

/// What `mpio bench` does.
struct BenchPlan: Sendable {
    var isWrite: Bool
    var isVerified: Bool
    /// Bytes of one request.
    var blockSize: Int
    var depth: Int
    var isSequential: Bool
    /// Of `blockSize` bytes, on the LUN, or in the part of it that is measured; at least `depth`.
    var blockCount: UInt64
    /// The part of the LUN: one lane's; nil: all of it.
    var part: LanePart?

    /// A lane's blocks: stripes in turn.
    struct LanePart: Sendable {
        var lane: UInt64
        var laneCount: UInt64
        var blocksPerStripe: UInt64

        /// How many of so many blocks are the lane's.
        func count(of total: UInt64) -> UInt64 {
            let round = blocksPerStripe * laneCount
            let rest = total % round
            let before = lane * blocksPerStripe
            return total / round * blocksPerStripe + (rest > before ? min(rest - before, blocksPerStripe) : 0)
        }

        /// The lane's block number `index`, on the LUN.
        func block(_ index: UInt64) -> UInt64 {
            (index / blocksPerStripe * laneCount + lane) * blocksPerStripe + index % blocksPerStripe
        }
    }

    /// The plans for the lanes of a LUN, each with its share of the depth, so that what a lane's reactor carries stays on its thread. Nil:
    /// it has one lane, or requests do not fit into stripes, or are too few to go round.
    func split(laneCount: Int, stripeByteCount: Int) -> [BenchPlan]? {
        guard laneCount > 1, depth >= laneCount, stripeByteCount % blockSize == 0 else { return nil }
        let plans = (0..<laneCount).map { lane in
            var plan = self
            let part = LanePart(lane: UInt64(lane), laneCount: UInt64(laneCount), blocksPerStripe: UInt64(stripeByteCount / blockSize))
            plan.part = part
            plan.blockCount = part.count(of: blockCount)
            plan.depth = depth / laneCount + (lane < depth % laneCount ? 1 : 0)
            return plan
        }
        return plans.allSatisfy { $0.blockCount >= UInt64($0.depth) } ? plans : nil
    }

    /// The block of slot `slot`'s request number `number`. Slots have blocks of their own (those with their remainder), so
    /// that two requests under way never touch the same one: only so can what is read back be told.
    func block(slot: Int, number: UInt64) -> UInt64 {
        let own = (blockCount - UInt64(slot) + UInt64(depth) - 1) / UInt64(depth)
        let step: UInt64
        if isSequential {
            step = number % own
        } else {
            // SplitMix64: scattered, and the same in every run.
            var value = (UInt64(slot) << 40 &+ number) &* 0x9E37_79B9_7F4A_7C15
            value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
            step = (value ^ (value >> 31)) % own
        }
        let index = step * UInt64(depth) + UInt64(slot)
        return part?.block(index) ?? index
    }
}

/// The content by which a block is known again: every eight bytes say where they belong and when they were written.
enum BenchPattern {
    static func fill(_ memory: UnsafeMutableRawBufferPointer, block: UInt64, generation: UInt64) {
        for offset in stride(from: 0, to: memory.count - 7, by: 8) {
            memory.storeBytes(of: word(block, generation, offset), toByteOffset: offset, as: UInt64.self)
        }
    }

    static func matches(_ memory: UnsafeRawBufferPointer, block: UInt64, generation: UInt64) -> Bool {
        for offset in stride(from: 0, to: memory.count - 7, by: 8)
        where memory.load(fromByteOffset: offset, as: UInt64.self) != word(block, generation, offset) {
            return false
        }
        return true
    }

    private static func word(_ block: UInt64, _ generation: UInt64, _ offset: Int) -> UInt64 {
        (block &* 0x9E37_79B9_7F4A_7C15) ^ (generation &* 0xD1B5_4A32_D192_ED03) ^ UInt64(offset)
    }
}

/// Keeps `depth` requests under way for a time, and counts.
///
/// After `measure` has submitted the first batch, everything happens on the reactor's thread, in the queue's handler. Where requests go to
/// several lanes, the handler may be called by several threads at once, and a lock keeps them apart.
final class BenchRun: @unchecked Sendable {
    private let plan: BenchPlan
    private let disk: MultipathDisk
    private let buffer: IOBuffer
    private var queue: IOQueue?
    private var slots: [Slot]
    private var batch: [IORequest] = []
    private var histogram = LatencyHistogram()
    private var result = BenchResult()
    private var outstanding = 0
    private var consecutiveErrors = 0
    private var deadline: UInt64 = 0
    private var lastCompletion: UInt64 = 0
    private var continuation: CheckedContinuation<BenchResult, Never>?
    private let cancellation = CancelFlag()
    private let lock: NSLock?

    private struct Slot {
        var number: UInt64 = 0
        var block: UInt64 = 0
        var isReadingBack = false
        var startedAt: UInt64 = 0
    }

    init(plan: BenchPlan, disk: MultipathDisk) {
        self.plan = plan
        self.disk = disk
        lock = disk.laneCount > 1 && plan.part == nil ? NSLock() : nil
        buffer = IOBuffer(byteCount: plan.blockSize * plan.depth)
        slots = Array(repeating: Slot(), count: plan.depth)
    }

    var name: String { disk.name }

    /// Measures LUNs at the same time; the results in their order.
    static func measure(_ runs: [BenchRun], for duration: Duration) async throws -> [BenchResult] {
        try await withThrowingTaskGroup(of: (Int, BenchResult).self) { group in
            for (index, run) in runs.enumerated() { group.addTask { (index, try await run.measure(for: duration)) } }
            var results = Array(repeating: BenchResult(), count: runs.count)
            for try await (index, result) in group { results[index] = result }
            return results
        }
    }

    /// What several that ran at the same time did together.
    static func sum(_ runs: [BenchRun], _ results: [BenchResult]) -> BenchResult {
        var total = BenchResult()
        var latency = LatencyHistogram()
        for (run, result) in zip(runs, results) {
            total.requests += result.requests
            total.errors += result.errors
            total.mismatches += result.mismatches
            total.byteCount += result.byteCount
            total.seconds = max(total.seconds, result.seconds)
            // Each counted the process's.
            total.processorMicroseconds = max(total.processorMicroseconds, result.processorMicroseconds)
            total.longestPauseNanoseconds = max(total.longestPauseNanoseconds, result.longestPauseNanoseconds)
            total.lastError = total.lastError ?? result.lastError
            latency.merge(run.histogram)
        }
        total.latency = LatencySummary(latency)
        return total
    }

    func measure(for duration: Duration) async throws -> BenchResult {
        let usage = processorMicroseconds()
        let start = monotonicNanoseconds()
        deadline = start &+ UInt64(max(0, duration.wholeMilliseconds)) &* 1_000_000
        lastCompletion = start
        var result = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                self.continuation = continuation
                let queue = IOQueue(disk: disk) { [self] completions in completed(completions) }
                self.queue = queue
                for slot in slots.indices { begin(slot, at: start) }
                outstanding = batch.count
                let first = batch
                batch.removeAll(keepingCapacity: true)
                queue.submit(first)
            }
        } onCancel: {
            cancellation.set()
        }
        // The handler holds this object, and this object the queue.
        queue = nil
        result.processorMicroseconds = processorMicroseconds() - usage
        result.seconds = Double(monotonicNanoseconds() - start) / 1e9
        return result
    }

    /// Begins nothing new; ``measure(for:)`` returns when what is under way has ended. From any thread.
    func stop() { cancellation.set() }

    private func memory(_ slot: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[slot * plan.blockSize..<(slot + 1) * plan.blockSize])
    }

    /// The slot's next request, appended to the batch.
    private func begin(_ slot: Int, at now: UInt64) {
        slots[slot].startedAt = now
        if slots[slot].isReadingBack { return append(.read, slot) }
        slots[slot].block = plan.block(slot: slot, number: slots[slot].number)
        slots[slot].number += 1
        if plan.isVerified { BenchPattern.fill(memory(slot), block: slots[slot].block, generation: slots[slot].number) }
        append(plan.isWrite ? .write : .read, slot)
    }

    private func append(_ operation: IORequest.Operation, _ slot: Int) {
        batch.append(
            IORequest(
                operation, offset: slots[slot].block * UInt64(plan.blockSize), byteCount: plan.blockSize,
                memory: memory(slot).baseAddress, token: UInt64(slot)))
    }

    private func completed(_ completions: UnsafeBufferPointer<IORequestCompletion>) {
        guard let lock else { return take(completions) }
        lock.withLock { take(completions) }
    }

    private func take(_ completions: UnsafeBufferPointer<IORequestCompletion>) {
        let now = monotonicNanoseconds()
        result.longestPauseNanoseconds = max(result.longestPauseNanoseconds, now &- lastCompletion)
        lastCompletion = now
        let isOver = now >= deadline || cancellation.isSet
        for completion in completions {
            let slot = Int(completion.token)
            outstanding -= 1
            count(completion, slot, now)
            // A write that was acknowledged is read back even when the time is over.
            if (isOver && !slots[slot].isReadingBack) || consecutiveErrors > 1000 { continue }
            begin(slot, at: now)
            outstanding += 1
        }
        if !batch.isEmpty {
            queue?.submit(batch)
            batch.removeAll(keepingCapacity: true)
        }
        if outstanding == 0 { finish() }
    }

    private func count(_ completion: IORequestCompletion, _ slot: Int, _ now: UInt64) {
        if let error = completion.error {
            result.errors += 1
            result.lastError = error
            consecutiveErrors += 1
            slots[slot].isReadingBack = false
            return
        }
        consecutiveErrors = 0
        result.requests += 1
        result.byteCount += UInt64(plan.blockSize)
        histogram.record(nanoseconds: now &- slots[slot].startedAt)
        guard plan.isVerified else { return }
        if slots[slot].isReadingBack {
            let isGood = BenchPattern.matches(UnsafeRawBufferPointer(memory(slot)), block: slots[slot].block, generation: slots[slot].number)
            if !isGood {
                result.errors += 1
                result.mismatches += 1
            }
        } else {
            // What is read back must come from the LUN, not be left over in memory.
            memory(slot).initializeMemory(as: UInt8.self, repeating: 0)
        }
        slots[slot].isReadingBack.toggle()
    }

    private func finish() {
        result.latency = LatencySummary(histogram)
        continuation?.resume(returning: result)
        continuation = nil
    }
}

/// Set from any thread.
private final class CancelFlag: @unchecked Sendable {
    private let lock = NSLock()
    private var value = false
    var isSet: Bool { lock.withLock { value } }
    func set() { lock.withLock { value = true } }
}

/// What was counted.
struct BenchResult: Sendable {
    var requests: UInt64 = 0
    var errors: UInt64 = 0
    var mismatches: UInt64 = 0
    var byteCount: UInt64 = 0
    var seconds = 0.0
    var processorMicroseconds = 0.0
    var longestPauseNanoseconds: UInt64 = 0
    var latency = LatencySummary()
    var lastError: DiskError?

    func report(paths: [PathSnapshot], redriven: UInt64) -> BenchReport {
        BenchReport(
            requests: requests, errors: errors, redriven: redriven, seconds: seconds,
            iops: seconds > 0 ? Double(requests) / seconds : 0,
            megabytesPerSecond: seconds > 0 ? Double(byteCount) / seconds / 1e6 : 0,
            cpuMicrosecondsPerRequest: requests > 0 ? processorMicroseconds / Double(requests) : 0, latency: latency,
            longestPauseMilliseconds: Double(longestPauseNanoseconds) / 1e6, paths: paths)
    }

    /// What the paths did between two looks at the LUN.
    static func difference(before: LUNSnapshot?, after: LUNSnapshot?) -> [PathSnapshot] {
        (after?.paths ?? []).map { path in
            var path = path
            guard let old = before?.paths.first(where: { $0.id == path.id }) else { return path }
            path.requests = path.requests &- min(path.requests, old.requests)
            path.bytesRead = path.bytesRead &- min(path.bytesRead, old.bytesRead)
            path.bytesWritten = path.bytesWritten &- min(path.bytesWritten, old.bytesWritten)
            path.errors = path.errors &- min(path.errors, old.errors)
            return path
        }
    }
}

enum BenchText {
    static func render(_ report: BenchReport, name: String, style: TextStyle) -> String {
        let latency: (Double?) -> String = { $0.map { HumanText.latency(microseconds: $0) } ?? "–" }
        var text = """
            \(name)  \(HumanText.rate(report.iops)) requests/s  \(HumanText.megabytes(report.megabytesPerSecond * 1e6)) MB/s  \
            CPU \(HumanText.latency(microseconds: report.cpuMicrosecondsPerRequest)) per request
              \(report.requests) requests in \(HumanText.span(seconds: report.seconds)), \(report.errors) errors, \(report.redriven) re-driven
              latency p50 \(latency(report.latency.p50))  p99 \(latency(report.latency.p99))  max \(latency(report.latency.max))  \
            longest pause \(HumanText.latency(microseconds: report.longestPauseMilliseconds * 1000))

            """
        for lun in report.luns ?? [] {
            text += "  \(HumanText.printable(lun.lun ?? "?"))  \(HumanText.rate(lun.iops)) requests/s  \(lun.errors) errors\n"
            for path in lun.paths { text += "    \(line(path))\n" }
        }
        for path in report.paths { text += "  \(line(path))\n" }
        return text
    }

    private static func line(_ path: PathSnapshot) -> String {
        "\(HumanText.printable(path.id))  \(path.state.rawValue)  \(path.requests) requests, \(path.errors) errors"
    }
}

func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// User and system time of this process.
func processorMicroseconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) * 1e6 + Double(time.tv_nsec) / 1e3
}
