import AsyncIO
import Foundation
import ISCSITarget
import MPIO
import Multipath
import SCSI
import Testing
import TestSupport

/// An embedded target on a reactor of its own, each portal with an address of its own.
final class EmbeddedArray: Sendable {
    static let name = "iqn.2026-11.org.example:array-1"
    let reactor: LibaioReactor
    let portals: [LoopbackPortal]
    let target: EmbeddedTarget

    /// One portal for each of `tags`, its target port group.
    init(
        tags: [UInt16], portals: [LoopbackPortal]? = nil, explicit: Bool = false,
        prepare: @escaping @Sendable () -> Void = {}, change: (inout ISCSITarget.TargetConfiguration) -> Void = { _ in }
    ) throws {
        let portals = try portals ?? LoopbackPortal.unused(count: tags.count)
        var configuration = TargetConfiguration(
            name: Self.name, on: portals, tags: tags,
            unit: LogicalUnitConfiguration(number: 0, storage: .memory, byteCount: 16 << 20))
        configuration.allowsExplicitTransitions = explicit
        change(&configuration)
        let final = configuration
        let reactor = try LibaioReactor()
        try reactor.start()
        target = try reactor.performAndWait {
            prepare()
            let target = try EmbeddedTarget(configuration: final, port: reactor)
            try target.start()
            return target
        }
        self.portals = portals
        self.reactor = reactor
    }

    func with<Value: Sendable>(_ body: @escaping @Sendable (EmbeddedTarget) throws -> Value) throws -> Value {
        let target = target
        return try reactor.performAndWait { try body(target) }
    }

    func hold(_ hold: Hold) throws { try with { $0.filter = hold } }
    var heldCount: Int { get throws { try with { $0.heldTokens.count } } }
    func releaseAll() throws {
        try with { target in
            target.filter = nil
            for token in target.heldTokens { target.release(token) }
        }
    }

    /// Refuses and resets, or accepts again.
    func setPortal(_ index: Int, enabled: Bool) throws { try with { try $0.setPortal(index, enabled: enabled) } }

    func stop() throws {
        try with { target in
            target.filter = nil
            for token in target.heldTokens { target.release(token) }
            target.stop()
        }
        reactor.stop()
    }
}

extension ISCSITarget.TargetConfiguration {
    /// A portal for each of `tags`, its target port group, before one unit.
    init(name: String, on portals: [LoopbackPortal], tags: [UInt16], unit: LogicalUnitConfiguration) {
        self.init(
            name: name,
            portals: zip(portals, tags).map {
                TargetPortalConfiguration(address: SocketAddress(numericHost: $0.address, port: $0.port)!, groupTag: $1)
            }, logicalUnits: [unit])
    }
}

/// Keeps commands of some kinds that come through one portal (nil: any); what it keeps outlives its session.
final class Hold: CommandFilter, Sendable {
    private let operations: Set<UInt8>
    private let portal: Int?
    var holdsOutliveSessions: Bool { true }

    static let writes: Set<UInt8> = [0x2A, 0x8A]
    static let reads: Set<UInt8> = [0x28, 0x88]
    static let compareAndWrite: Set<UInt8> = [0x89]

    init(_ operations: Set<UInt8>, portal: Int? = nil) {
        self.operations = operations
        self.portal = portal
    }

    func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
        operations.contains(command.cdb.bytes[0]) && (self.portal == nil || self.portal == portal) ? .hold : .execute
    }
}

/// A disk of a manager of its own, and all that happened to it with the time.
final class WatchedDisk: Sendable {
    let manager: PathManager
    let disk: MultipathDisk
    private let log: Locked<[(at: ContinuousClock.Instant, event: MultipathEvent)]>
    private let watcher: Task<Void, Never>

    /// - Parameters:
    ///   - targetKeys: more keys of the target, as one line of YAML.
    ///   - prepare: run on the manager's thread before anything is opened.
    init(
        over portals: [LoopbackPortal], of target: String = EmbeddedArray.name, lun: Int = 0, timers: String = "",
        isGuarded: Bool = true, policy: String = "fail-over-only", targetKeys: String = "", hostsTarget: Bool = false,
        in directory: TemporaryDirectory, prepare: @escaping @Sendable () -> Void = {}
    ) async throws {
        var configuration = try Configuration(
            yaml: """
                initiator: {name: "iqn.2026-11.test:seen"}
                defaults:
                  policy: \(policy)
                  timers: {\(timers)}
                targets:
                  - name: \(target)
                    \(targetKeys)
                    portals:
                \(portals.map { "      - {address: \"\($0)\"}" }.joined(separator: "\n"))
                luns:
                  - name: disk
                    identity: {target: "\(target)", lun: \(lun)}
                """)
        configuration.luns[0].settings.staleWriteGuard.isEnabled = isGuarded
        var options = PathManager.Options()
        options.runtimeDirectory = directory.path + "/run-\(UInt32.random(in: 0...(.max)))"
        options.hostsTarget = hostsTarget
        manager = try await PathManager(configuration: configuration, options: options)
        await manager.run { prepare() }
        disk = try await manager.open("disk")
        let log = Locked<[(at: ContinuousClock.Instant, event: MultipathEvent)]>([])
        self.log = log
        let events = disk.events
        watcher = Task {
            for await event in events { log.withLock { $0.append((ContinuousClock.now, event.event)) } }
        }
    }

    var events: [MultipathEvent] { log.withLock { $0.map(\.event) } }

    /// When the first event that matches came; nil where none did within `limit`.
    func first(
        within limit: Duration = .seconds(10), _ matches: @escaping @Sendable (MultipathEvent) -> Bool
    ) async throws -> ContinuousClock.Instant? {
        _ = try await eventually(within: limit) { self.events.contains(where: matches) }
        return log.withLock { $0.first { matches($0.event) }?.at }
    }

    func write(_ pattern: UInt8, byteCount: Int = 4096, at offset: UInt64 = 0) async throws {
        let buffer = IOBuffer(byteCount: byteCount)
        memset(buffer.bytes.baseAddress!, Int32(pattern), byteCount)
        try await disk.write(buffer, at: offset)
    }

    /// The byte of which all of the range consists; nil where it is mixed.
    func pattern(byteCount: Int = 4096, at offset: UInt64 = 0) async throws -> UInt8? {
        let buffer = IOBuffer(byteCount: byteCount)
        try await disk.read(into: buffer, at: offset)
        return buffer.bytes.allSatisfy { $0 == buffer[0] } ? buffer[0] : nil
    }

    /// What is known of the nexus of each path.
    var nexuses: [NexusProof?] {
        get async { await manager.report().luns.first?.paths.map(\.nexus) ?? [] }
    }

    /// Waits until it is known of every path, and returns it.
    func provenNexuses(within limit: Duration = .seconds(10)) async throws -> [NexusProof?] {
        _ = try await eventually(within: limit) {
            let nexuses = await self.nexuses
            return !nexuses.isEmpty && !nexuses.contains(.unproven)
        }
        return await nexuses
    }

    func close() async throws {
        try await manager.shutdown()
        watcher.cancel()
    }
}

extension ContinuousClock.Instant {
    var seconds: Double { Double((ContinuousClock.now - self).wholeMilliseconds) / 1000 }
}

extension Duration {
    var wholeMilliseconds: Int64 { components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000 }
}
