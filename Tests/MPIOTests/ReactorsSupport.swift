import AsyncIO
import Cryptography
import Foundation
import ISCSITarget
import Synchronization
import TestSupport

@testable import MPIO

/// The embedded target with memory units 0… of 4 MiB on a reactor of its own, and the policy file for it: LUNs `a`, `b`, `c` …
final class TargetWithUnits {
    let target: EmbeddedTarget
    let portals: [LoopbackPortal]
    let directory: TemporaryDirectory
    private let reactor: LibaioReactor
    static let name = "iqn.2026-11.test:reactors"
    static let blockCount = 1024
    static let blockByteCount = 4096

    init(units: Int, portals count: Int = 2, size: String = "4M", change: (inout ISCSITarget.TargetConfiguration) -> Void = { _ in }) throws {
        directory = try TemporaryDirectory("reactors")
        portals = try LoopbackPortal.unused(count: count)
        var configuration = ISCSITarget.TargetConfiguration(
            name: Self.name,
            portals: portals.map {
                TargetPortalConfiguration(address: SocketAddress(numericHost: $0.address, port: $0.port)!, groupTag: 1)
            },
            logicalUnits: try (0..<units).map { try LogicalUnitConfiguration(parsing: "\($0)=memory,size=\(size),serial=reactors\($0)") })
        change(&configuration)
        let made = configuration
        // Many tests at once have one each, and the kernel's asynchronous operations are the whole machine's.
        var options = LibaioReactor.Options()
        options.socketCapacity = 512
        options.fileOperationsInFlight = 8
        let reactor = try LibaioReactor(options: options)
        try reactor.start()
        self.reactor = reactor
        target = try reactor.performAndWait {
            let target = try EmbeddedTarget(configuration: made, port: reactor, cryptography: SystemCryptography()) { _ in nil }
            try target.start()
            return target
        }
    }

    func with<Value: Sendable>(_ body: @escaping @Sendable (EmbeddedTarget) throws -> Value) throws -> Value {
        let target = target
        return try reactor.performAndWait { try body(target) }
    }

    func stop() throws {
        try with { $0.stop() }
        reactor.stop()
    }

    static func lunName(_ unit: Int) -> String { String(UnicodeScalar(UInt8(ascii: "a") + UInt8(unit))) }

    /// `paths` gives the portals of a unit's LUN; nil: all.
    /// `lanes` gives the reactors over which a unit's LUN is spread; nil: the file says nothing of them.
    func yaml(
        units: [Int], head: String = "", paths: (Int) -> [Int]? = { _ in nil }, lanes: (Int) -> Int? = { _ in nil }
    ) -> String {
        let listed = portals.map { "      - {address: \"\($0)\"}\n" }.joined()
        var text = """
            initiator: {name: "iqn.2026-11.test:spread"}
            \(head)
            defaults:
              timers: {path-recovery-interval: 50ms, path-recovery-interval-maximum: 200ms}
              marginal-paths: {loss-count: 1000}
            targets:
              - name: "\(Self.name)"
                portals:
            \(listed)
            luns:

            """
        for unit in units {
            text += "  - name: \(Self.lunName(unit))\n    identity: {target: \"\(Self.name)\", lun: \(unit)}\n"
            if let count = lanes(unit) { text += "    reactors: \(count)\n" }
            guard let own = paths(unit) else { continue }
            text += "    paths:\n" + own.map { "      - {portal: \"\(portals[$0])\"}\n" }.joined()
        }
        return text
    }

    var options: PathManager.Options {
        var options = PathManager.Options()
        options.runtimeDirectory = directory.file("run")
        options.command = "test"
        return options
    }

    func manager(
        reactors: Int?, units: [Int], head: String = "", paths: (Int) -> [Int]? = { _ in nil }, lanes: (Int) -> Int? = { _ in nil }
    ) async throws -> PathManager {
        var options = options
        options.reactors = reactors
        let file = try directory.file("mpio.yaml", contents: Array(yaml(units: units, head: head, paths: paths, lanes: lanes).utf8))
        return try await PathManager(configuration: Configuration(contentsOf: file), options: options)
    }

    /// Talks to the manager's control socket from a thread of its own.
    func ask(_ request: ControlRequest) async throws -> ControlResponse {
        let folder = directory.file("run")
        return try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread {
                continuation.resume(
                    with: Result {
                        let name = try FileManager.default.contentsOfDirectory(atPath: folder).first { $0.hasSuffix(".sock") }
                        return try ControlClient(path: folder + "/" + (name ?? "none")).request(request)
                    })
            }
        }
    }
}

/// Writes blocks and reads them back, several at a time, each checked against what was last written there and against which
/// LUN it is: a block of another LUN, a late write and a lost one each show. Everything after `start` happens on the
/// threads of the disk's reactors.
final class CheckedLoad: @unchecked Sendable {
    struct Report: Sendable {
        var requests = 0
        /// By their words.
        var errors: [String] = []
        var mismatches = 0
        var threads: Set<UInt> = []
        var longestPause = Duration.zero
    }

    private let disk: MultipathDisk
    private let seed: UInt64
    private let depth: Int
    private let memory: IOBuffer
    private var queue: IOQueue?
    private var generations: [UInt64]
    private var slots: [(block: Int, isRead: Bool)]
    private var next = 0
    private var underWay = 0
    private var lastCompletion = ContinuousClock.now
    private let lock = NSLock()
    private var report = Report()
    private let isStopping = Atomic<Bool>(false)
    private let isOver = DispatchSemaphore(value: 0)

    init(_ disk: MultipathDisk, depth: Int = 16) {
        self.disk = disk
        self.depth = depth
        seed = disk.name.utf8.reduce(7) { $0 &* 1_099_511_628_211 &+ UInt64($1) }
        memory = IOBuffer(byteCount: depth * TargetWithUnits.blockByteCount)
        generations = Array(repeating: 0, count: TargetWithUnits.blockCount)
        slots = Array(repeating: (0, false), count: depth)
    }

    func start() {
        // From here on this object belongs to the reactors' threads; the handler keeps it.
        let queue = IOQueue(disk: disk) { [self] in completed($0) }
        self.queue = queue
        underWay = depth
        let first = lock.withLock { (0..<depth).map(begin) }
        queue.submit(first)
    }

    /// Ends when all that is under way has; the report.
    func stop() async -> Report {
        isStopping.store(true, ordering: .relaxed)
        await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                self.isOver.wait()
                continuation.resume()
            }
        }
        queue = nil
        return soFar
    }

    var soFar: Report { lock.withLock { report } }

    func takeLongestPause() -> Duration {
        lock.withLock {
            defer { report.longestPause = .zero }
            return report.longestPause
        }
    }

    private func words(_ slot: Int) -> UnsafeMutableBufferPointer<UInt64> {
        let size = TargetWithUnits.blockByteCount
        return UnsafeMutableRawBufferPointer(rebasing: memory.bytes[slot * size..<(slot + 1) * size]).bindMemory(to: UInt64.self)
    }

    private func pattern(_ block: Int, _ generation: UInt64) -> UInt64 {
        generation == 0 ? 0 : seed &+ UInt64(block) &* 0x9E37_79B9_7F4A_7C15 &+ generation << 40
    }

    /// Blocks of one slot are its own, so that no two requests under way touch one.
    private func begin(_ slot: Int) -> IORequest {
        next += 1
        let block = (next &* 389 % (TargetWithUnits.blockCount / depth)) * depth + slot
        let isRead = next % 2 == 0
        slots[slot] = (block, isRead)
        if isRead {
            words(slot).update(repeating: 0xDEAD)
        } else {
            generations[block] += 1
            words(slot).update(repeating: pattern(block, generations[block]))
        }
        return IORequest(
            isRead ? .read : .write, offset: UInt64(block * TargetWithUnits.blockByteCount),
            byteCount: TargetWithUnits.blockByteCount, memory: words(slot).baseAddress, token: UInt64(slot))
    }

    private func completed(_ completions: UnsafeBufferPointer<IORequestCompletion>) {
        var batch: [IORequest] = []
        let now = ContinuousClock.now
        lock.withLock {
            report.longestPause = max(report.longestPause, lastCompletion.duration(to: now))
            report.threads.insert(UInt(pthread_self()))
            for completion in completions {
                let slot = Int(completion.token)
                report.requests += 1
                let (block, isRead) = slots[slot]
                if let error = completion.error {
                    report.errors.append("\(error)")
                } else if isRead, words(slot).contains(where: { $0 != pattern(block, generations[block]) }) {
                    report.mismatches += 1
                }
                if isStopping.load(ordering: .relaxed) || completion.error != nil { underWay -= 1 } else { batch.append(begin(slot)) }
            }
            lastCompletion = now
            if underWay == 0 { isOver.signal() }
        }
        if !batch.isEmpty { queue?.submit(batch) }
    }
}
