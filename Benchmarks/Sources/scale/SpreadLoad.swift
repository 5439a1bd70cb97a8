import Foundation
import MPIO
import Measuring

/// 4 KiB random reads, `depth` of them under way over all disks: each disk's next request comes when the disks after it had
/// theirs. All of it happens on the reactor's thread once it has begun.
final class SpreadLoad: @unchecked Sendable {
    private enum Phase { case ramp, measuring, stopping }

    private static let byteCount = 4096
    private let disks: [MultipathDisk]
    private let depth: Int
    private let seconds: Double
    private let buffer: IOBuffer
    private var queues: [IOQueue] = []
    private let slotCount: UInt64
    private var nextDisk = 0
    private var phase = Phase.ramp
    private var phaseEnd: UInt64 = 0
    private var outstanding = 0
    private var ended: CheckedContinuation<Void, Never>?
    private var requests: UInt64 = 0
    private var began: (at: UInt64, cpu: Double) = (0, 0)
    private var finished: (at: UInt64, cpu: Double) = (0, 0)

    init(_ disks: [MultipathDisk], depth: Int, seconds: Double) {
        self.disks = disks
        self.depth = depth
        self.seconds = seconds
        slotCount = disks[0].capacityByteCount / UInt64(Self.byteCount)
        buffer = IOBuffer(byteCount: depth * Self.byteCount)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    func run() async -> (iops: Double, cpuPerRequest: Double) {
        queues = disks.map { disk in IOQueue(disk: disk) { [unowned(unsafe) self] in completed($0) } }
        await disks[0].run {
            await withCheckedContinuation { continuation in
                ended = continuation
                phaseEnd = monotonic_ns() + 200_000_000
                for index in 0..<depth { issue(UInt64(index)) }
            }
        }
        withExtendedLifetime(self) {}
        let count = Double(max(requests, 1))
        return (count / (Double(finished.at - began.at) / 1e9), (finished.cpu - began.cpu) * 1e6 / count)
    }

    private func issue(_ token: UInt64) {
        var request = IORequest(
            .read, offset: next_random() % slotCount * UInt64(Self.byteCount), byteCount: Self.byteCount,
            memory: buffer.bytes.baseAddress! + Int(token) * Self.byteCount, token: token)
        outstanding += 1
        let queue = queues[nextDisk]
        nextDisk = nextDisk + 1 == queues.count ? 0 : nextDisk + 1
        withUnsafePointer(to: &request) { queue.submit(UnsafeBufferPointer(start: $0, count: 1)) }
    }

    private func completed(_ completions: UnsafeBufferPointer<IORequestCompletion>) {
        outstanding -= completions.count
        for completion in completions {
            if let error = completion.error { preconditionFailure("a read failed: \(error)") }
            if phase == .measuring { requests += 1 }
            if phase != .stopping { issue(completion.token) }
        }
        let now = monotonic_ns()
        if now >= phaseEnd { changePhase(now) }
        if outstanding == 0 { ended?.resume() }
    }

    private func changePhase(_ now: UInt64) {
        switch phase {
        case .ramp:
            phase = .measuring
            phaseEnd = now + UInt64(seconds * 1e9)
            began = (now, cpu_seconds())
        case .measuring:
            finished = (now, cpu_seconds())
            phase = .stopping
            phaseEnd = .max
        case .stopping: break
        }
    }
}
