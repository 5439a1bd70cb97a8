import Foundation
import MPIO
import Testing
import TestSupport

/// Sessions that end and are made anew thousands of times take no more memory than the first few.
@Suite(.serialized)
struct ReconnectMemoryTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("reconnect") }

    private struct Sample {
        var heap: HeapUsage
        var residentByteCount: Int
    }

    private static let portalCount = 8

    private func yaml(_ array: EmbeddedArray) -> String {
        """
        initiator: {name: "iqn.2026-11.test:reconnect"}
        targets:
          - name: \(EmbeddedArray.name)
            portals:
        \(array.portals.map { "      - {address: \"\($0)\"}" }.joined(separator: "\n"))
        luns:
          - name: disk
            identity: {target: "\(EmbeddedArray.name)", lun: 0}
            policy: round-robin
            timers: {path-recovery-interval: 10ms, path-recovery-interval-maximum: 10ms}
            marginal-paths: {loss-count: 1000, window: 100ms}
        """
    }

    private func sample(_ reconnectCount: Int) throws -> Sample {
        let sample = Sample(
            heap: try #require(HeapUsage.current),
            residentByteCount: ProcessStat.current.residentByteCount)
        print(
            "\(reconnectCount) reconnects: \(sample.heap.inUseByteCount >> 10) KiB of heap in use, "
                + "\(sample.heap.heldByteCount >> 10) KiB held, \(sample.residentByteCount >> 10) KiB resident")
        fflush(nil)
        return sample
    }

    /// Ends all sessions but one, which carries the load meanwhile, and waits until they are back.
    private func strike(_ array: EmbeddedArray, sparing spared: Int, _ disk: MultipathDisk) async throws {
        try array.with { target in
            for portal in 0..<Self.portalCount where portal != spared { try target.setPortal(portal, enabled: false) }
            for portal in 0..<Self.portalCount where portal != spared { try target.setPortal(portal, enabled: true) }
        }
        let lost = try await eventually { try await disk.paths.count { $0.state == .activeOptimized } <= 1 }
        let back = try await disk.waitForStates(Array(repeating: .activeOptimized, count: Self.portalCount))
        #expect(back, "lost: \(lost)")
    }

    /// Of portals that share their sessions, or may, others log in as well: to prove it, and to end a lost nexus's commands.
    @Test(arguments: [false, true])
    func sessionsMadeAnewTakeNoMoreMemory(sharingNexuses: Bool) async throws {
        // More for a closer look: each 1000 left 1.5 MiB resident where the sessions' tables were allocated anew.
        let wanted = ProcessInfo.processInfo.environment["MPIO_RECONNECTS"].flatMap(Int.init) ?? 2600
        let array = try EmbeddedArray(tags: (1...UInt16(Self.portalCount)).map { sharingNexuses ? 1 : $0 })
        var options = PathManager.Options()
        options.runtimeDirectory = directory.file("run")
        let manager = try await PathManager(configuration: try Configuration(yaml: yaml(array)), options: options)
        let disk = try await manager.open("disk")
        #expect(try await disk.waitForStates(Array(repeating: .activeOptimized, count: Self.portalCount)))
        let load = VerifiedLoad(disk, .init(blockCount: 4096))
        load.start()
        var samples: [Sample] = []
        // The log of events is full by the first sample.
        var (round, count, next) = (0, 0, 1000)
        while count < wanted {
            try await strike(array, sparing: round % Self.portalCount, disk)
            (round, count) = (round + 1, count + Self.portalCount - 1)
            guard count >= next else { continue }
            samples.append(try sample(count))
            next += max((wanted - 1000) / 8, 100)
        }
        try await load.stop()
        #expect(load.soFar.errorCount == 0 && load.soFar.mismatchCount == 0, "\(load.soFar.complaints)")
        try await manager.shutdown()
        try array.stop()
        expectNoGrowth(samples)
    }

    private func expectNoGrowth(_ samples: [Sample]) {
        #expect(samples.count >= 8)
        let inUse = samples.map(\.heap.inUseByteCount)
        #expect((inUse.max() ?? 0) - (inUse.min() ?? 0) < 128 << 10, "\(inUse)")
        let resident = samples.map(\.residentByteCount)
        #expect((resident.last ?? 0) - (resident.first ?? 0) < 2 << 20, "\(resident)")
    }
}
