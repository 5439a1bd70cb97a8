import Foundation
import MPIO
import Synchronization
import TestSupport
import Testing

/// Requests in batches over four sessions of a real tgtd: a small run of what `make bench` measures.
@Suite(.serialized)
struct QueueTests {
    @Test func aDepthOf32OverFourSessionsBringsEachBlockBackAndGathersAnswers() async throws {
        let directory = try TemporaryDirectory("queue")
        let server = try TgtServer.withFile(byteCount: 16 << 20, portalCount: 4, in: directory)
        let portals = server.portals.map { "      - {address: \"\($0)\"}" }.joined(separator: "\n")
        let configuration = try Configuration(
            yaml: """
                initiator: {name: "iqn.2026-11.test:queue"}
                targets:
                  - name: \(server.targetName)
                    portals:
                \(portals)
                luns:
                  - name: disk
                    identity: {target: \(server.targetName), lun: 1}
                    policy: round-robin
                """)
        var options = PathManager.Options()
        options.runtimeDirectory = directory.path + "/run"
        let manager = try await PathManager(configuration: configuration, options: options)
        let disk = try await manager.open("disk")
        let before = await manager.reactorCounters()
        let load = QueueLoad(disk: disk, blockCount: 4096, passes: 3)
        await load.run()
        let after = await manager.reactorCounters()
        #expect(load.failures == 0)
        #expect(load.requests == 4096 * 4)
        #expect(after.receiveCalls - before.receiveCalls < load.requests, "several answers a receive")
        for path in try await disk.paths { #expect(path.requests > 3000, "\(path)") }
        try await manager.shutdown()
    }
}

/// Writes every 4 KiB block once and then reads all of them a few times, scattered, 32 at a time.
private final class QueueLoad: @unchecked Sendable {
    private static let depth = 32
    private let disk: MultipathDisk
    private let blockCount: Int
    private let total: Int
    private let buffer = IOBuffer(byteCount: depth * 4096)
    private var queue: IOQueue?
    private var blocks = Array(repeating: 0, count: depth)
    private var next = 0
    private var outstanding = 0
    private var ended: CheckedContinuation<Void, Never>?
    private(set) var requests: UInt64 = 0
    private(set) var failures = 0

    init(disk: MultipathDisk, blockCount: Int, passes: Int) {
        self.disk = disk
        self.blockCount = blockCount
        total = blockCount * (passes + 1)
    }

    func run() async {
        queue = IOQueue(disk: disk) { [unowned self] in completed($0) }
        await withCheckedContinuation { continuation in
            ended = continuation
            queue!.submit((0..<Self.depth).map(request))
        }
        withExtendedLifetime(self) {}
    }

    private func words(_ slot: Int) -> UnsafeMutableBufferPointer<UInt64> {
        UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[slot * 4096..<(slot + 1) * 4096]).bindMemory(to: UInt64.self)
    }

    private func request(_ slot: Int) -> IORequest {
        let isWrite = next < blockCount
        // 1597 is prime to the number of blocks, so each pass meets every block once.
        let block = next * 1597 % blockCount
        next += 1
        outstanding += 1
        blocks[slot] = isWrite ? -1 : block
        for index in words(slot).indices { words(slot)[index] = isWrite ? UInt64(block) << 16 | UInt64(index) : .max }
        return IORequest(
            isWrite ? .write : .read, offset: UInt64(block) * 4096, byteCount: 4096, memory: words(slot).baseAddress,
            token: UInt64(slot))
    }

    private func completed(_ completions: UnsafeBufferPointer<IORequestCompletion>) {
        var batch: [IORequest] = []
        for completion in completions {
            let slot = Int(completion.token)
            outstanding -= 1
            requests += 1
            let isRight = completion.error == nil
                && (blocks[slot] < 0 || words(slot).indices.allSatisfy { words(slot)[$0] == UInt64(blocks[slot]) << 16 | UInt64($0) })
            if !isRight { failures += 1 }
            // Blocks are read once every write has come back.
            if next < total, next != blockCount { batch.append(request(slot)) }
        }
        if next == blockCount, outstanding == 0 { batch = (0..<Self.depth).map(request) }
        if !batch.isEmpty { queue!.submit(batch) }
        if outstanding == 0 { ended?.resume() }
    }
}
