import AsyncIO
import Foundation
import ISCSI
import SCSI
import TestSupport
import Testing

@testable import ISCSITarget

/// Faults played over real sockets, seen by libiscsi's and QEMU's tools.
@Suite(.serialized) struct FaultTests {
    private func set(_ running: RunningTarget, _ faults: String...) throws {
        for text in faults {
            let fault = try FaultCommand(parsing: text)
            _ = try running.onTarget { try $0.setFault(fault) }
        }
    }

    private func inquire(_ running: RunningTarget, portal: Int = 0, timeout: Duration = .seconds(10)) throws -> Bool {
        try CommandRunner.runBlocking("iscsi-inq", [running.url(0, portal: portal)], timeout: timeout).succeeded
    }

    private func io(_ running: RunningTarget, _ command: String, portal: Int = 0) throws -> String {
        let result = try CommandRunner.runBlocking("qemu-io", ["-f", "raw", "-c", command, running.url(0, portal: portal)])
        return result.standardOutput + result.standardError
    }

    @Test func aMediumErrorStrikesItsBlocksOnly() async throws {
        let running = try RunningTarget(units: ["0=memory,size=16M"])
        try set(running, "sense=03/11/00:lba=2048-4095,op=read")
        #expect(try io(running, "read 0 512k").contains("read 524288/524288"))
        #expect(try io(running, "read 1M 4k").contains("failed"))
        #expect(try io(running, "write 1M 4k").contains("wrote 4096/4096"))
        let status = try running.onTarget { $0.faultStatus }
        #expect(status.count == 1 && status[0].struckCommands > 0)
        try running.onTarget { $0.clearFaults() }
        #expect(try io(running, "read 1M 4k").contains("read 4096/4096"))
        #expect(try running.onTarget { $0.faults == nil }, "nothing is left in the way of commands")
        try running.stop()
    }

    @Test func busyIsAnsweredToSoManyCommandsFromTheNthOn() async throws {
        let running = try RunningTarget(units: ["0=memory,size=16M"])
        try set(running, "busy:op=write,from=2,count=1")
        // QEMU tries again after BUSY.
        #expect(try io(running, "write 0 4k").contains("wrote 4096/4096"))
        #expect(try io(running, "write 0 4k").contains("wrote 4096/4096"))
        let status = try running.onTarget { $0.faultStatus[0] }
        #expect(status.struckCommands == 1 && status.matchedCommands == 3)
        try running.stop()
    }

    @Test func refusedPortalsTakeNoConnectionUntilTheTimeIsOver() async throws {
        let running = try RunningTarget(portalCount: 2, units: ["0=memory,size=16M"])
        try set(running, "refuse:portal=0,for=300ms")
        #expect(try !inquire(running))
        #expect(try inquire(running, portal: 1))
        #expect(try await eventually { try running.onTarget { $0.faultStatus.isEmpty } })
        #expect(try inquire(running))
        try running.stop()
    }

    @Test func loginsHangUntilTheFaultEnds() async throws {
        let running = try RunningTarget(units: ["0=memory,size=16M"])
        try set(running, "hang-in-login")
        let url = running.url(0)
        let client = try ChildProcess(executable: try Tool.path("iscsi-inq"), arguments: [url])
        #expect(client.wait(timeout: .milliseconds(200)) == nil)
        try running.onTarget { $0.clearFaults() }
        #expect(client.wait(timeout: .seconds(10)) == .exited(0))
        try running.stop()
    }

    @Test func aDripIsSlowAndArrives() async throws {
        let running = try RunningTarget(units: ["0=memory,size=16M"])
        try set(running, "slow-drip=2k")
        let url = running.url(0)
        let client = try ChildProcess(executable: try Tool.path("iscsi-inq"), arguments: [url])
        #expect(client.wait(timeout: .milliseconds(200)) == nil, "a login alone has more bytes than two drops")
        #expect(client.wait(timeout: .seconds(10)) == .exited(0))
        try running.stop()
    }

    @Test func aMutePortalExecutesAndSaysNothing() async throws {
        let running = try RunningTarget(portalCount: 2, units: ["0=memory,size=16M"])
        try set(running, "mute:portal=0,op=write,from=1")
        let url = running.url(0)
        let writer = try ChildProcess(
            executable: try Tool.path("qemu-io"), arguments: ["-f", "raw", "-c", "write -P 9 0 4k", url])
        #expect(try await eventually { try running.onTarget { $0.counters(portal: 0).writes } == 1 })
        #expect(writer.wait(timeout: .milliseconds(100)) == nil)
        #expect(try !io(running, "read -P 9 0 4k", portal: 1).contains("verification failed"))
        writer.killAndWait()
        try running.stop()
    }

    @Test func aDeadSessionsWriteLandsLate() async throws {
        let running = try RunningTarget(portalCount: 2, units: ["0=memory,size=16M"])
        try set(running, "late-execution:portal=0,op=write")
        let url = running.url(0)
        let writer = try ChildProcess(
            executable: try Tool.path("qemu-io"), arguments: ["-f", "raw", "-c", "write -P 7 0 4k", url])
        #expect(try await eventually { try running.onTarget { $0.heldTokens.count } == 1 })
        writer.killAndWait()
        #expect(try await eventually { try running.onTarget { $0.connectionCount(portal: 0) } == 0 })
        #expect(try io(running, "write -P 8 0 4k", portal: 1).contains("wrote"))
        try running.onTarget { $0.clearFaults() }
        #expect(try !io(running, "read -P 7 0 4k", portal: 1).contains("verification failed"), "the older data came last")
        try running.stop()
    }

    @Test func identityAndCapacityChangeAndComeBack() async throws {
        let running = try RunningTarget(units: ["0=memory,size=16M"])
        let before = try running.onTarget { ($0.node.units[0].identity, $0.node.units[0].blockCount) }
        try set(running, "identity:lun=0", "capacity=1000:lun=0")
        let during = try running.onTarget { ($0.node.units[0].identity, $0.node.units[0].blockCount) }
        #expect(during.0 != before.0 && during.1 == 1000)
        try running.onTarget { $0.clearFaults() }
        #expect(try running.onTarget { ($0.node.units[0].identity, $0.node.units[0].blockCount) } == before)
        let reply = try running.onTarget { target in
            try target.perform(.set([FaultCommand(parsing: "busy"), FaultCommand(parsing: "capacity=1T:lun=0")]))
        }
        guard case .refused = reply else {
            Issue.record("more blocks than there are")
            return
        }
        #expect(try running.onTarget { $0.faultStatus.isEmpty }, "all or none")
        try running.stop()
    }

    /// The same seed and the same commands, the same faults; another seed, others.
    @Test func chancesFollowFromTheSeed() throws {
        func struck(seed: UInt64, interrupted: Bool = false) throws -> [Bool] {
            let running = try RunningTarget(units: ["0=memory,size=16M"]) { $0.faultSeed = seed }
            defer { try? running.stop() }
            return try running.onTarget { target in
                let fault = try FaultCommand(parsing: "busy:chance=0.3,op=read")
                var id = try target.setFault(fault)
                return try (0..<400).map { number in
                    if interrupted, number == 200 {
                        // The sequence goes on where it was.
                        target.clearFault(id)
                        id = try target.setFault(fault)
                    }
                    let command = DeviceCommand(token: 1, nexus: NexusIndex(rawValue: 0), cdb: .read(lba: UInt64(number), blockCount: 1))
                    if case .answer(.busy, nil) = target.faults!.decide(command, unit: 0, portal: 0, group: 1, node: RunningTarget.name, connection: nil) {
                        return true
                    }
                    return false
                }
            }
        }
        let first = try struck(seed: 7)
        #expect(try struck(seed: 7) == first)
        #expect(try struck(seed: 7, interrupted: true) == first)
        #expect(try struck(seed: 8) != first)
        #expect((80...160).contains(first.count { $0 }), "\(first.count { $0 }) of 400 by a chance of 0.3")
    }

    @Test func aRestartTellsOfReservationsThatCannotBeRead() async throws {
        let folder = try TemporaryDirectory("restart")
        let file = folder.file("reservations")
        let running = try RunningTarget(units: ["0=memory,size=16M,reservations=\(file)"])
        let problems = Locked<[TargetProblem]>([])
        try running.onTarget { $0.onProblem = { problem in problems.withLock { $0.append(problem) } } }
        #expect(try io(running, "write 0 4k").contains("wrote"))
        try folder.file("reservations", contents: Array("nonsense\n".utf8))
        try set(running, "restart=100ms")
        #expect(try await eventually { try running.onTarget { $0.faultStatus.isEmpty } })
        guard case .reservationsUnreadable(unit: 0, let error)? = problems.withLock({ $0.first }) else {
            Issue.record("nothing was told: \(problems.withLock { $0 })")
            return
        }
        #expect(error.operation.contains("line 1"))
        #expect(try running.onTarget { $0.node.units[0].lacksReservations })
        unlink(file)
        // An initiator's TEST UNIT READY finds it well.
        #expect(try await eventually { try io(running, "write 0 4k").contains("wrote") })
        try running.stop()
    }

    @Test func aRestartedControllerComesBackAndItsPeerKeepsTheReservation() async throws {
        let peer = try LoopbackPortal.unused(count: 1)[0]
        let name = "iqn.2026-11.org.example:peer"
        let running = try RunningTarget(units: ["0=memory,size=16M"]) { configuration in
            configuration.furtherNodes = [
                TargetNodeConfiguration(
                    name: name,
                    portals: [.init(address: SocketAddress(numericHost: peer.address, port: peer.port)!, groupTag: 2)],
                    units: .sharedWith(node: RunningTarget.name))
            ]
        }
        let url = "iscsi://\(peer)/\(name)/0"
        #expect(try io(running, "write -P 5 0 4k").contains("wrote"))
        let read = try CommandRunner.requireBlocking("qemu-io", ["-f", "raw", "-c", "read -P 5 0 4k", url])
        #expect(!read.standardOutput.contains("verification failed"))
        #expect(try !CommandRunner.runBlocking("iscsi-inq", ["iscsi://\(peer)/\(RunningTarget.name)/0"]).succeeded, "not through the peer's portal")
        let found = try CommandRunner.requireBlocking("iscsi-ls", ["iscsi://\(peer)"]).standardOutput
        #expect(found.contains(name) && found.contains(RunningTarget.name))

        try running.onTarget { target in
            target.node.units[0].modes.isWriteProtected = true
            try target.setFault(FaultCommand(parsing: "restart=300ms:node=\(RunningTarget.name)"))
        }
        #expect(try await eventually { try !inquire(running) })
        #expect(try CommandRunner.runBlocking("iscsi-inq", [url]).succeeded, "the other controller works on")
        #expect(try await eventually { try inquire(running) })
        #expect(try running.onTarget { $0.node.units[0].modes.isWriteProtected }, "the peer kept what the unit has")
        try running.onTarget { $0.restart() }
        #expect(try !running.onTarget { $0.node.units[0].modes.isWriteProtected }, "nobody kept it")
        try running.stop()
    }
}
