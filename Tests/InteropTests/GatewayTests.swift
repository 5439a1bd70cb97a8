import AsyncIO
import Cryptography
import Foundation
import Gateway
import ISCSI
import ISCSITarget
import MPIO
import Multipath
import SCSI
import Testing
import TestSupport

/// An embedded target whose LUN 0 is a disk over several paths.
final class RunningGateway: Sendable {
    static let name = "iqn.2026-11.org.example:gateway"
    let behind: WatchedDisk
    let portals: [LoopbackPortal]
    let target: EmbeddedTarget

    /// - Parameter portals: of the storage behind, one path each.
    init(
        to portals: [LoopbackPortal], of name: String = EmbeddedArray.name, lun: Int = 0, timers: String = "",
        policy: String = "round-robin", in directory: TemporaryDirectory
    ) async throws {
        let behind = try await WatchedDisk(
            over: portals, of: name, lun: lun, timers: timers, policy: policy, hostsTarget: true, in: directory)
        let own = try LoopbackPortal.unused(count: 2)
        var unit = LogicalUnitConfiguration(number: 0, storage: .disk(name: "disk"), blockSize: behind.disk.blockSize)
        unit.byteCount = behind.disk.capacityByteCount
        let configuration = TargetConfiguration(name: Self.name, on: own, tags: [1, 2], unit: unit)
        target = try behind.manager.reactor.performAndWait {
            let target = try EmbeddedTarget(
                configuration: configuration, port: behind.manager.reactor, cryptography: SystemCryptography()
            ) { _ in DiskBackend(disk: behind.disk, manager: behind.manager) }
            try target.start()
            return target
        }
        self.behind = behind
        self.portals = own
    }

    func with<Value: Sendable>(_ body: @escaping @Sendable (EmbeddedTarget) throws -> Value) throws -> Value {
        let target = target
        return try behind.manager.reactor.performAndWait { try body(target) }
    }

    func url(_ portal: Int = 0) -> String { "iscsi://\(portals[portal])/\(Self.name)/0" }

    func stop() async throws {
        try with { $0.stop() }
        try await behind.close()
        #expect(target.lentByteCount == 0, "no buffer is lost")
    }
}

/// Notes the commands that come, and what they ask.
private final class Recorder: CommandFilter, @unchecked Sendable {
    var holdsOutliveSessions: Bool { false }
    // On the target's thread.
    var commands: [CommandDescriptorBlock] = []
    func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
        commands.append(command.cdb)
        return .execute
    }
}

@Suite(.serialized)
struct GatewayTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("gateway") }

    /// Two tgtd before one file, with UNMAP.
    private func controllers() throws -> [TgtServer] {
        let unit = TgtConfiguration.LogicalUnit(
            backing: .file(path: directory.file("disk.img"), byteCount: 64 << 20), scsiID: "beef0001", serial: "beef0001",
            parameters: [("thin_provisioning", "1")])
        return try (0..<2).map { _ in try TgtServer(TgtConfiguration(portals: LoopbackPortal.unused(), logicalUnits: [unit])) }
    }

    /// The peer's conformance suite through the gateway. Of what tgtd itself fails, the gateway passes GetLBAStatus,
    /// PrinServiceactionRange, ProutReserve and ProutPreempt; in the one test of MultipathIO that is left out, tgtd answers
    /// ILLEGAL REQUEST to COMPARE AND WRITE. Left out as well is what is slow (Unmap, OrWrite, and those that wait for answers that
    /// must not come), what the embedded target does not have (Sanitize), and the iSCSI families, which never get to a
    /// disk.
    @Test func thePeersConformanceSuitePassesThroughTwoTgtd() async throws {
        let servers = try controllers()
        let gateway = try await RunningGateway(
            to: servers.flatMap(\.portals), of: servers[0].targetName, lun: 1, in: directory)
        let left = ["ALL.Reserve6", "ALL.MultipathIO", "ALL.Unmap", "ALL.OrWrite", "ALL.Sanitize"]
        let list = try await CommandRunner.require("iscsi-test-cu", ["-l"]).standardOutput.split(separator: "\n")
        var suites = list.filter { $0.hasPrefix("ALL.") && $0.filter { $0 == "." }.count == 1 }.map(String.init)
        #expect(suites.count > 40)
        suites.removeAll { left.contains($0) || $0.hasPrefix("ALL.iSCSI") }
        // First: CompareAndWrite clears 256 blocks, and expects zeroes in one more.
        suites = ["ALL.MultipathIO.Simple", "ALL.MultipathIO.Reset", "ALL.MultipathIO.CompareAndWrite"] + suites
        var passed = 0
        for suite in suites {
            let result = try await CommandRunner.run(
                "iscsi-test-cu", ["-d", "-S", "-n", "-t", suite, gateway.url(0), gateway.url(1)], timeout: .seconds(60))
            let summary = result.standardOutput.split(separator: "\n").first { $0.contains(" tests ") }
            let numbers = summary.map { $0.split(separator: " ").compactMap { Int($0) } } ?? []
            guard numbers.count >= 4, numbers[3] == 0, numbers[0] > 0 else {
                Issue.record("\(suite): \(result.standardOutput.suffix(4000))\(result.standardError.suffix(4000))")
                continue
            }
            passed += numbers[2]
        }
        #expect(passed >= 185)
        print("through the gateway: \(passed) tests of \(suites.count) families passed")
        #expect(!gateway.behind.events.contains { if case .pathLost = $0 { true } else { false } }, "\(gateway.behind.events)")
        try await gateway.stop()
    }

    @Test func anInitiatorDoesNotSeeThatAPathBehindIsLost() async throws {
        let servers = try controllers()
        let gateway = try await RunningGateway(
            to: servers.flatMap(\.portals), of: servers[0].targetName, lun: 1,
            timers: "path-recovery-interval: 50ms, path-recovery-interval-maximum: 200ms", in: directory)
        let front = try await WatchedDisk(over: gateway.portals, of: RunningGateway.name, policy: "round-robin", in: directory)
        let load = VerifiedLoad(front.disk, .init(depth: 16))
        load.start()
        for index in [0, 1] {
            try await load.proceed(300)
            servers[index].kill9()
            try await load.proceed(100)
            try servers[index].restart()
            #expect(try await gateway.behind.disk.waitForPath(index, .activeOptimized))
        }
        try await load.proceed(300)
        try await load.stop()
        let result = load.soFar
        #expect(result.errorCount == 0 && result.mismatchCount == 0, "\(result.complaints)")
        #expect(!front.events.contains { if case .pathLost = $0 { true } else { false } }, "\(front.events)")
        try await front.close()
        try await gateway.stop()
    }

    /// What initiators ask arrives behind as what it is.
    @Test func eachOperationReachesTheDiskAsItself() async throws {
        let array = try EmbeddedArray(tags: [1])
        let recorder = Recorder()
        let gateway = try await RunningGateway(to: array.portals, in: directory)
        let front = try await WatchedDisk(over: gateway.portals, of: RunningGateway.name, in: directory)
        try array.with { $0.filter = recorder }
        func commands(_ body: () async throws -> Void) async throws -> [CommandDescriptorBlock] {
            try array.with { _ in recorder.commands = [] }
            try await body()
            // TEST UNIT READY and the like are the engine's own.
            return try array.with { _ in recorder.commands.filter { [0x2A, 0x8A, 0x35, 0x91, 0x42, 0x93, 0x89].contains($0.operationCode) } }
        }
        let buffer = IOBuffer(byteCount: 4096)
        memset(buffer.bytes.baseAddress!, 5, 4096)
        let plain = try await commands { try await front.disk.write(buffer, at: 0) }
        #expect(plain.count == 1 && plain[0].bytes[1] & 0x08 == 0)
        let forced = try await commands { try await front.disk.write(buffer, at: 0, options: .forceUnitAccess) }
        #expect(forced.count == 1 && forced[0].bytes[1] & 0x08 != 0, "FUA: \(forced)")
        let flushed = try await commands { try await front.disk.flush() }
        #expect(flushed.map(\.operationCode) == [0x35] || flushed.map(\.operationCode) == [0x91])
        let unmapped = try await commands { try await front.disk.unmap(at: 1 << 20, byteCount: 1 << 20) }
        #expect(unmapped.map(\.operationCode) == [0x42])
        let zeroed = try await commands { try await front.disk.writeZeroes(at: 0, byteCount: 8192) }
        #expect(zeroed.map(\.operationCode) == [0x93])
        #expect(try await front.pattern() == 0)

        let pair = IOBuffer(byteCount: 1024)
        memset(pair.bytes.baseAddress! + 512, 9, 512)
        let swapped = try await commands { try await front.disk.compareAndWrite(pair, at: 512) }
        #expect(swapped.map(\.operationCode) == [0x89])
        #expect(try await front.pattern(byteCount: 512, at: 512) == 9)
        await #expect(throws: DiskError.miscompare(offset: 0)) { try await front.disk.compareAndWrite(pair, at: 512) }
        try await front.close()
        try await gateway.stop()
        try array.stop()
    }

    /// FUA is optional: an array that refuses it gets a flush instead.
    @Test func whereTheDiskRefusesForceUnitAccessAFlushFollows() async throws {
        final class RefusesFUA: CommandFilter, @unchecked Sendable {
            var holdsOutliveSessions: Bool { false }
            var writes = 0
            var flushes = 0
            func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
                let code = command.cdb.operationCode
                if code == 0x35 || code == 0x91 { flushes += 1 }
                guard code == 0x2A || code == 0x8A else { return .execute }
                writes += 1
                guard command.cdb.bytes[1] & 0x08 != 0 else { return .execute }
                return .answer(.checkCondition, SenseData(key: .illegalRequest, additional: .invalidFieldInCommand))
            }
        }
        let array = try EmbeddedArray(tags: [1])
        let filter = RefusesFUA()
        let gateway = try await RunningGateway(to: array.portals, in: directory)
        let front = try await WatchedDisk(over: gateway.portals, of: RunningGateway.name, in: directory)
        try array.with { $0.filter = filter }
        let buffer = IOBuffer(byteCount: 4096)
        memset(buffer.bytes.baseAddress!, 5, 4096)
        try await front.disk.write(buffer, at: 0, options: .forceUnitAccess)
        #expect(try array.with { _ in (filter.writes, filter.flushes) } == (2, 1))
        try await front.disk.write(buffer, at: 4096, options: .forceUnitAccess)
        #expect(try array.with { _ in (filter.writes, filter.flushes) } == (3, 2), "it is remembered")
        #expect(try await front.pattern(byteCount: 8192) == 5)
        try await front.close()
        try await gateway.stop()
        try array.stop()
    }

    @Test func aMediumErrorBehindIsAMediumErrorInFront() async throws {
        let array = try EmbeddedArray(tags: [1])
        let gateway = try await RunningGateway(to: array.portals, in: directory)
        let front = try await WatchedDisk(over: gateway.portals, of: RunningGateway.name, in: directory)
        let fault = try FaultCommand(parsing: "sense=03/11/00:lba=2048-2055,op=read")
        _ = try array.with { try $0.setFault(fault) }
        do {
            _ = try await front.pattern(at: 1 << 20)
            Issue.record("the blocks cannot be read")
        } catch let DiskError.target(status, sense) {
            #expect(status == .checkCondition && sense?.key == .mediumError && sense?.additional == .unrecoveredReadError)
        }
        #expect(try await front.pattern(at: 0) == 0)
        try await front.close()
        try await gateway.stop()
        try array.stop()
    }

    @Test func withoutAPathBehindTheUnitIsNotReadyAndTheWriteIsDoneWhenOneIsBack() async throws {
        let array = try EmbeddedArray(tags: [1])
        let gateway = try await RunningGateway(
            to: array.portals, timers: "pdo-remove-period: 500ms, path-recovery-interval: 50ms, path-recovery-interval-maximum: 200ms",
            in: directory)
        let front = try await WatchedDisk(over: gateway.portals, of: RunningGateway.name, in: directory)
        try array.setPortal(0, enabled: false)
        #expect(try await eventually { try await gateway.behind.disk.paths[0].state == .failed })
        async let written: Void = front.write(3)
        try await Task.sleep(for: .seconds(2))
        #expect(!front.events.contains { if case .pathLost = $0 { true } else { false } }, "\(front.events)")
        try array.setPortal(0, enabled: true)
        try await written
        #expect(try await front.pattern() == 3)
        try await front.close()
        try await gateway.stop()
        try array.stop()
    }

    @Test func aDiskThatGrowsIsAUnitThatGrows() async throws {
        let array = try EmbeddedArray(tags: [1])
        let fault = try FaultCommand(parsing: "capacity=16384:lun=0")
        _ = try array.with { try $0.setFault(fault) }
        let gateway = try await RunningGateway(to: array.portals, in: directory)
        let front = try await WatchedDisk(over: gateway.portals, of: RunningGateway.name, in: directory)
        #expect(front.disk.capacityByteCount == 8 << 20)
        try array.with { $0.clearFaults() }
        // The array says so with the next command.
        try await front.write(1)
        #expect(try await eventually { try gateway.with { $0.node.units[0].blockCount } == 32_768 })
        try await front.write(2)
        #expect(try await front.first { if case .capacityChanged(_, 16_384, 32_768) = $0 { true } else { false } } != nil)
        try await front.write(3, at: 15 << 20)
        #expect(try await front.pattern(at: 15 << 20) == 3)
        try await front.close()
        try await gateway.stop()
        try array.stop()
    }

    @Test func errorsAreToldAsWhatTheyAre() {
        func sense(_ error: DiskError) -> SenseData? {
            if case .sense(let sense) = BackendFailure(error) { sense } else { nil }
        }
        let medium = SenseData(key: .mediumError, additional: .unrecoveredReadError, information: 77)
        #expect(sense(.target(status: .checkCondition, sense: medium)) == medium)
        let field = SenseData(
            key: .illegalRequest, additional: .invalidFieldInCommand,
            specific: .fieldPointer(FieldPointer(isInCommand: true, byte: 1, bit: 3)))
        #expect(sense(.target(status: .checkCondition, sense: field))?.specific == nil, "it is another CDB's")
        #expect(BackendFailure(.target(status: .busy, sense: nil)) == .status(.busy))
        #expect(BackendFailure(.reservationConflict) == .status(.reservationConflict))
        #expect(BackendFailure(.miscompare(offset: 12)) == .miscompare(offset: 12))
        #expect(sense(.miscompare(offset: nil))?.key == .miscompare)
        // Tried again by initiators.
        #expect(sense(.noPathsAvailable) == SenseData(key: .notReady, additional: .becomingReady))
        #expect(sense(.timedOut)?.key == .abortedCommand && sense(.cancelled)?.key == .abortedCommand)
        // Not tried again: it may have been done.
        #expect(sense(.outcomeUnknown)?.key == .hardwareError)
        #expect(sense(.unitFailed)?.additional == .logicalUnitFailure)
        #expect(sense(.outOfRange(offset: 0, byteCount: 1, capacityByteCount: 0))?.additional == .lbaOutOfRange)
        #expect(sense(.unsupported)?.additional == .invalidOperationCode)
        #expect(sense(.closed)?.key == .notReady)
    }
}
