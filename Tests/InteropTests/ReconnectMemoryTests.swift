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

    /// More for a closer look: each 1000 left 1.5 MiB resident where the sessions' tables were allocated anew.
    private let wanted = ProcessInfo.processInfo.environment["MPIO_RECONNECTS"].flatMap(Int.init) ?? 2600

    /// Strikes again and again under load, from the first thousand reconnects on with samples. `strike` is told the round,
    /// and returns how many reconnects it brought.
    private func watch(
        _ disk: MultipathDisk, _ manager: PathManager, _ array: EmbeddedArray, strike: (Int) async throws -> Int
    ) async throws {
        let load = VerifiedLoad(disk, .init(blockCount: 4096))
        load.start()
        var samples: [Sample] = []
        // The log of events is full by the first sample.
        var (round, count, next) = (0, 0, 1000)
        while count < wanted {
            count += try await strike(round)
            round += 1
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

    /// Of portals that share their sessions, or may, others log in as well: to prove it, and to end a lost nexus's commands.
    @Test(arguments: [false, true])
    func sessionsMadeAnewTakeNoMoreMemory(sharingNexuses: Bool) async throws {
        let array = try EmbeddedArray(tags: (1...UInt16(Self.portalCount)).map { sharingNexuses ? 1 : $0 })
        var options = PathManager.Options()
        options.runtimeDirectory = directory.file("run")
        let manager = try await PathManager(configuration: try Configuration(yaml: yaml(array)), options: options)
        let disk = try await manager.open("disk")
        #expect(try await disk.waitForStates(Array(repeating: .activeOptimized, count: Self.portalCount)))
        try await watch(disk, manager, array) { round in
            try await strike(array, sparing: round % Self.portalCount, disk)
            return Self.portalCount - 1
        }
    }

    /// Connections of one session: at level 2 their tasks move, at level 0 they are done again. Now and then the session
    /// itself is made anew.
    @Test(arguments: [0, 2])
    func connectionsMadeAnewTakeNoMoreMemory(level: Int) async throws {
        let array = try EmbeddedArray.withConnections(level: level, tags: Array(repeating: 1, count: Self.portalCount))
        var setup = DiskSetup(session: array, level: level)
        setup.timers["path-recovery-interval"] = "10ms"
        setup.timers["path-recovery-interval-maximum"] = "10ms"
        setup.lunKeys = "marginal-paths: {loss-count: 1000, window: 100ms}"
        let manager = try await setup.manager(in: directory)
        let disk = try await manager.open("disk")
        #expect(try await disk.waitForConnections(Self.portalCount))
        try await watch(disk, manager, array) { round in
            let spared = round % 40 == 39 ? nil : round % Self.portalCount
            let struck = (0..<Self.portalCount).filter { $0 != spared }
            try array.with { target in for portal in struck { try target.setPortal(portal, enabled: false) } }
            #expect(try await disk.waitForConnections(spared == nil ? 0 : 1))
            try array.with { target in for portal in struck { try target.setPortal(portal, enabled: true) } }
            #expect(try await disk.waitForConnections(Self.portalCount))
            return struck.count
        }
    }

    private func expectNoGrowth(_ samples: [Sample]) {
        #expect(samples.count >= 8)
        // What is under way at the moment of a sample comes and goes: the least of each half is compared.
        let inUse = samples.map(\.heap.inUseByteCount)
        let half = inUse.count / 2
        #expect((inUse[half...].min() ?? 0) - (inUse[..<half].min() ?? 0) < 128 << 10, "\(inUse)")
        let resident = samples.map(\.residentByteCount)
        #expect((resident.last ?? 0) - (resident.first ?? 0) < 2 << 20, "\(resident)")
    }
}
