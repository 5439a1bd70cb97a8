import AsyncIO
import Foundation
import ISCSITarget
import MPIO
import NBD
import NBDServer
import SCSI
import Testing
import TestSupport

/// A disk and its NBD server, in this process.
final class RunningServer: Sendable {
    let behind: WatchedDisk
    let server: NBDServer
    let path: String

    init(
        _ array: EmbeddedArray, timers: String = "", options: NBDServer.Options = .init(), in directory: TemporaryDirectory
    ) async throws {
        behind = try await WatchedDisk(over: array.portals, timers: timers, policy: "round-robin", hostsTarget: true, in: directory)
        path = directory.file("nbd-\(UInt32.random(in: 0...(.max)))")
        server = try NBDServer(manager: behind.manager, addresses: [.unix(path: path)], names: ["disk"], options: options)
        _ = try server.start()
        try server.export(behind.disk)
    }

    func client() throws -> NBDClient { try NBDClient(path, export: "disk") }

    func stop() async throws {
        await server.stop(patience: .seconds(5))
        let counters = server.currentCounters()
        #expect(counters.connections == 0 && counters.lentByteCount == 0, "\(counters)")
        try await behind.close()
    }
}

private final class Recorder: CommandFilter, @unchecked Sendable {
    var holdsOutliveSessions: Bool { false }
    var refusesFUA = false
    var commands: [CommandDescriptorBlock] = []
    func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
        if command.cdb.operationCode != 0 { commands.append(command.cdb) }
        guard refusesFUA, [0x2A, 0x8A].contains(command.cdb.operationCode), command.cdb.bytes[1] & 8 != 0 else { return .execute }
        return .answer(.checkCondition, SenseData(key: .illegalRequest, additional: .invalidFieldInCommand))
    }
}

@Suite(.serialized)
struct NBDServerTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("nbd") }

    @Test func eachCommandReachesTheDiskAsItself() async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await RunningServer(array, in: directory)
        let recorder = Recorder()
        try array.with { $0.filter = recorder }
        let client = try running.client()
        /// What the array is asked for one request of the client's.
        func commands(
            _ command: CommandCode, offset: UInt64 = 0, _ count: Int = 0, flags: CommandFlags = [], payload: [UInt8] = []
        ) throws -> [UInt8] {
            try array.with { _ in recorder.commands = [] }
            let error = try client.perform(command, offset: offset, count, flags: flags, payload: payload)
            #expect(error == 0, "\(command)")
            return try array.with { _ in recorder.commands.map(\.operationCode) }
        }
        func hasFUA() throws -> Bool { try array.with { _ in recorder.commands[0].bytes[1] & 8 != 0 } }
        let block = [UInt8](repeating: 5, count: 4096)
        #expect(try commands(.write, 4096, payload: block) == [0x2A])
        #expect(try !hasFUA())
        #expect(try commands(.write, 4096, flags: .forceUnitAccess, payload: block) == [0x2A])
        #expect(try hasFUA())
        #expect(try commands(.flush) == [0x35])
        #expect(try commands(.trim, offset: 1 << 20, 1 << 20) == [0x42])
        #expect(try commands(.trim, offset: 1 << 20, 1 << 20, flags: .forceUnitAccess) == [0x42, 0x35])
        #expect(try commands(.writeZeroes, 8192) == [0x93])
        #expect(try commands(.writeZeroes, 8192, flags: [.forceUnitAccess, .noHole]) == [0x93, 0x35])
        #expect(try commands(.cache, 8192) == [0x28])
        #expect(try await running.behind.pattern() == 0)

        // An array without FUA gets a flush, and is not asked again.
        try array.with { _ in recorder.refusesFUA = true }
        #expect(try commands(.write, 4096, flags: .forceUnitAccess, payload: block) == [0x2A, 0x2A, 0x35])
        #expect(try commands(.write, 4096, flags: .forceUnitAccess, payload: block) == [0x2A, 0x35])
        #expect(try await running.behind.pattern() == 5)
        try await running.stop()
        try array.stop()
    }

    @Test func theArraysErrorsAreTold() async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await RunningServer(
            array, timers: "pdo-remove-period: 300ms, path-recovery-interval: 50ms, path-recovery-interval-maximum: 100ms", in: directory)
        let client = try running.client()
        let block = [UInt8](repeating: 5, count: 512)
        for (sense, command, error) in [
            ("03/11/00", CommandCode.read, ReplyError.inputOutput), ("07/27/00", .write, .notPermitted), ("07/27/07", .write, .noSpace),
        ] {
            let fault = try FaultCommand(parsing: "sense=\(sense):op=\(command == .read ? "read" : "write")")
            _ = try array.with { try $0.setFault(fault) }
            #expect(try client.perform(command, 512, payload: command == .write ? block : []) == error.rawValue, "\(sense)")
            try array.with { $0.clearFaults() }
        }
        #expect(try client.perform(.read, 512) == 0, "the connection goes on")
        try array.setPortal(0, enabled: false)
        #expect(try client.perform(.write, 512, payload: block) == ReplyError.inputOutput.rawValue, "no path")
        try array.setPortal(0, enabled: true)
        #expect(try await eventually { try client.perform(.write, 512, payload: block) == 0 })
        try await running.stop()
        try array.stop()
    }

    @Test func eachErrorHasItsNumber() {
        func reply(_ key: SenseKey, _ additional: AdditionalSense, to command: CommandCode = .write) -> ReplyError {
            ReplyError(.target(status: .checkCondition, sense: SenseData(key: key, additional: additional)), to: command)
        }
        #expect(reply(.mediumError, .unrecoveredReadError, to: .read) == .inputOutput)
        #expect(reply(.dataProtect, .writeProtected) == .notPermitted)
        #expect(reply(.dataProtect, .spaceAllocationFailedWriteProtect) == .noSpace)
        #expect(reply(.illegalRequest, .lbaOutOfRange) == .noSpace)
        #expect(reply(.illegalRequest, .lbaOutOfRange, to: .read) == .invalid)
        #expect(reply(.illegalRequest, .invalidOperationCode, to: .flush) == .invalid)
        #expect(ReplyError(.target(status: .busy, sense: nil), to: .read) == .inputOutput)
        #expect(ReplyError(.reservationConflict, to: .write) == .notPermitted)
        #expect(ReplyError(.noPathsAvailable, to: .write) == .inputOutput)
        #expect(ReplyError(.timedOut, to: .write) == .inputOutput)
        #expect(ReplyError(.closed, to: .write) == .shutdown)
        #expect(ReplyError(.outOfRange(offset: 0, byteCount: 1, capacityByteCount: 0), to: .trim) == .invalid)
        #expect(ReplyError(.unsupported, to: .trim) == .invalid)
    }

    /// Garbage, half requests, answers that nobody reads: whoever behaves does not notice.
    @Test func hostileClientsHarmNobody() async throws {
        var options = NBDServer.Options()
        options.maximumConnectionCount = 40
        options.memoryByteCount = 64 << 20
        options.session.memoryByteCount = 32 << 20
        options.stallLimit = .milliseconds(500)
        let array = try EmbeddedArray(tags: [1])
        let running = try await RunningServer(array, options: options, in: directory)
        let good = try running.client()

        // Not the protocol.
        let garbage = try NBDClient(running.path)
        try garbage.send([UInt8](repeating: 0xA5, count: 100))
        #expect(garbage.isClosed())
        let late = try running.client()
        try late.send([UInt8](repeating: 0xA5, count: 1000))
        #expect(late.isClosed())
        // More that connect than may, and say nothing: each makes room for the next.
        let silent = try (0..<60).map { _ in try NBDClient(running.path) }
        #expect(try good.perform(.read, 512) == 0)
        #expect(try running.client().perform(.read, 512) == 0, "a newcomer gets in")
        // Three that ask for all memory there is and read nothing.
        let greedy = try (0..<3).map { _ in try running.client() }
        for client in greedy {
            for cookie in 0..<64 as Range<UInt64> { try client.request(.read, cookie: cookie, 1 << 20) }
        }
        // Half a write, and gone.
        try {
            let half = try running.client()
            try half.send(NBDClient.message(.write, 1 << 20) + [UInt8](repeating: 1, count: 1000))
        }()
        // One that never stops to ask, and reads nothing: the server stops to listen.
        let talker = try running.client()
        let flood = (0..<50_000).flatMap { NBDClient.message(.read, cookie: $0, 4096) }
        #expect(try talker.send(flood, flags: Int32(MSG_DONTWAIT)) < flood.count)
        #expect(running.server.currentCounters().lentByteCount <= options.memoryByteCount)
        let began = ContinuousClock.now
        #expect(try good.perform(.write, 1 << 20, payload: [UInt8](repeating: 1, count: 1 << 20)) == 0)
        #expect(ContinuousClock.now - began < .seconds(5), "those that hold memory and do not read are dropped")
        #expect(running.server.currentCounters().refused > 20)
        withExtendedLifetime((silent, greedy, talker)) {}
        try await running.stop()
        try array.stop()
    }

    /// A client is cut off while the disk has its writes: they end, and their memory is the pool's again only then.
    @Test func theDiskFinishesWhatAGoneClientAsked() async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await RunningServer(array, in: directory)
        let hold = Hold(Hold.writes)
        try array.hold(hold)
        try {
            let client = try running.client()
            for index in 0..<8 {
                try client.send(
                    NBDClient.message(.write, offset: UInt64(index) << 16, 65_536) + [UInt8](repeating: UInt8(index + 1), count: 65_536))
            }
            while try array.heldCount < 8 { usleep(1000) }
        }()
        #expect(try await eventually { running.server.currentCounters().connections == 1 })
        #expect(running.server.currentCounters().lentByteCount == 8 * 65_536)
        try array.releaseAll()
        #expect(try await eventually { running.server.currentCounters().connections == 0 })
        #expect(running.server.currentCounters().lentByteCount == 0)
        #expect(try await running.behind.pattern(byteCount: 65_536, at: 7 << 16) == 8)
        try await running.stop()
        try array.stop()
    }

    /// SIGTERM's half of the work: what was asked is answered, then the connection ends.
    @Test func stoppingAnswersWhatIsUnderWay() async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await RunningServer(array, in: directory)
        try array.hold(Hold(Hold.writes))
        let client = try running.client()
        try client.send(NBDClient.message(.write, 4096) + [UInt8](repeating: 3, count: 4096))
        while try array.heldCount < 1 { usleep(1000) }
        async let stopped: Void = running.server.stop(patience: .seconds(5))
        #expect(try await eventually { (try? NBDClient(running.path)) == nil }, "nobody gets in any more")
        try array.releaseAll()
        #expect(try client.error() == 0)
        #expect(client.isClosed())
        await stopped
        try await running.stop()
        try array.stop()
    }

    @Test func aDiskThatGrowsIsToldToNewClients() async throws {
        let array = try EmbeddedArray(tags: [1])
        let fault = try FaultCommand(parsing: "capacity=16384:lun=0")
        _ = try array.with { try $0.setFault(fault) }
        let running = try await RunningServer(array, in: directory)
        func size() throws -> UInt64 {
            let client = try NBDClient(running.path)
            try client.send(NBDClient.number(UInt32(3)) + NBDClient.option(1, Array("disk".utf8)))
            return try client.receive(28)[18..<26].reduce(0) { $0 << 8 | UInt64($1) }
        }
        #expect(try size() == 8 << 20)
        let old = try running.client()
        try array.with { $0.clearFaults() }
        #expect(try old.perform(.write, 512, payload: [UInt8](repeating: 1, count: 512)) == 0)
        #expect(try await eventually { try size() == 16 << 20 })
        #expect(try old.perform(.read, offset: 12 << 20, 512) == ReplyError.invalid.rawValue, "it was told another size")
        #expect(try running.client().perform(.read, offset: 12 << 20, 512) == 0)
        try await running.stop()
        try array.stop()
    }

    @Test func onlyADeadSocketIsReplaced() async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await RunningServer(array, in: directory)
        var status = stat()
        #expect(lstat(running.path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        func start(_ path: String) throws {
            let server = try NBDServer(manager: running.behind.manager, addresses: [.unix(path: path)], names: ["disk"])
            _ = try server.start()
        }
        #expect(throws: NBDServerError.inUse(.unix(path: running.path))) { try start(running.path) }
        let file = try directory.file("file", contents: [1])
        #expect(throws: NBDServerError.notASocket(path: file)) { try start(file) }
        #expect(FileManager.default.contents(atPath: file) == Data([1]))
        #expect(throws: NBDServerError.path(directory.file("none"), code: ENOENT)) { try start(directory.file("none") + "/x") }

        // What a killed process leaves.
        let dead = directory.file("dead")
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: dead.utf8) }
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, .init(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        close(listener)
        #expect(bound == 0 && access(dead, F_OK) == 0)
        let second = try NBDServer(manager: running.behind.manager, addresses: [.unix(path: dead)], names: ["disk"])
        _ = try second.start()
        try second.export(running.behind.disk)
        #expect(try NBDClient(dead, export: "").perform(.read, 512) == 0, "the only disk is the default")
        await second.stop(patience: .seconds(1))
        #expect(access(dead, F_OK) != 0)
        try await running.stop()
        #expect(access(running.path, F_OK) != 0)
        try array.stop()
    }

    @Test func addressesAreReadAndShown() throws {
        #expect(try NBDAddress(parsing: "unix:/run/a b.sock").uri(export: "vm/1") == "nbd+unix:///vm%2F1?socket=/run/a%20b.sock")
        #expect(try NBDAddress(parsing: "tcp:127.0.0.1").description == "tcp:127.0.0.1:10809")
        #expect(try NBDAddress(parsing: "tcp:[::1]:5").uri(export: "x") == "nbd://[::1]:5/x")
        #expect(try !NBDAddress(parsing: "tcp:127.9.9.9").isReachableFromElsewhere)
        #expect(try NBDAddress(parsing: "tcp:0.0.0.0").isReachableFromElsewhere)
        #expect(try NBDAddress(parsing: "tcp:10.0.0.1").isReachableFromElsewhere)
        for bad in ["", "/run/x", "unix:", "tcp:", "tcp:host", "tcp:1.2.3.4:x", "tcp:unix:/x", "unix:" + String(repeating: "x", count: 108)] {
            #expect(throws: NBDServerError.self, "\(bad)") { try NBDAddress(parsing: bad) }
        }
    }
}
