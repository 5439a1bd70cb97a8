import Foundation
import Testing
import TestSupport

/// What the other interop tests stand on: a real tgtd that starts, dies, stalls and comes back when told to, and
/// peers that read and write through it. Nothing of mpio takes part.
@Suite(.serialized)
struct PeerTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory("peers")
    }

    @Test func tgtdListensOnItsPortalsAndNowhereElse() throws {
        let server = try TgtServer.withFile(portalCount: 4, in: directory)
        let identifier = try #require(server.processIdentifier)
        let listening = TCPTableEntry.sockets(of: identifier).filter(\.isListening).map(\.local)
        #expect(Set(listening) == Set(server.portals))
        #expect(server.portals.count == 4)
    }

    @Test func libiscsiFindsTheLUNThroughEveryPortal() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 4, in: directory)
        for portal in server.portals {
            let result = try await CommandRunner.require("iscsi-ls", ["-s", "iscsi://\(portal)"])
            #expect(result.standardOutput.contains("Target:\(server.targetName) Portal:\(portal),1"))
            #expect(result.standardOutput.contains("Lun:1    Type:DIRECT_ACCESS"))
        }
    }

    @Test func qemuReadsThroughOnePortalWhatItWroteThroughAnother() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 2, in: directory)
        try await QemuIO(server.url(portal: 0)).write(pattern: 0xa5, at: 1 << 20, byteCount: 65_536)
        let other = QemuIO(server.url(portal: 1))
        try await other.verify(pattern: 0xa5, at: 1 << 20, byteCount: 65_536)
        try await other.verify(pattern: 0, at: 0, byteCount: 65_536)
        await #expect(throws: CommandFailure.self) {
            try await other.verify(pattern: 0x5a, at: 1 << 20, byteCount: 65_536)
        }
    }

    @Test func qemuCopiesADiskOutAndIn() async throws {
        let server = try TgtServer.withFile(byteCount: 4 << 20, portalCount: 1, in: directory)
        let bytes = (0..<(4 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }
        let source = try directory.file("source.img", contents: bytes)
        let disk = QemuIO(server.url())
        try await disk.copy(fromFile: source)
        try await disk.compare(with: source)
        try await disk.copy(toFile: directory.file("copy.img"))
        #expect(FileManager.default.contents(atPath: directory.file("copy.img")).map(Array.init) == bytes)
    }

    @Test func aKilledServerRefusesAndComesBackWithItsData() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 1, in: directory)
        let disk = QemuIO(server.url())
        try await disk.write(pattern: 0x3c, at: 0, byteCount: 4096)
        let identifier = try #require(server.processIdentifier)
        server.kill9()
        #expect(!server.isRunning)
        #expect(ProcessStat(identifier) == nil)
        #expect(server.portals[0].isFree)
        await #expect(throws: CommandFailure.self) { try await disk.verify(pattern: 0x3c, at: 0, byteCount: 4096) }
        try server.restart()
        #expect(server.processIdentifier != identifier)
        try await disk.verify(pattern: 0x3c, at: 0, byteCount: 4096)
    }

    @Test func aStoppedServerIsSilentUntilItContinues() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 1, in: directory)
        var disk = QemuIO(server.url())
        try server.stop()
        let identifier = try #require(server.processIdentifier)
        #expect(ProcessStat(identifier)?.state == .stopped)
        disk.timeout = .milliseconds(500)
        await #expect {
            try await disk.verify(pattern: 0, at: 0, byteCount: 512)
        } throws: { error in
            if case CommandFailure.timedOut = error { true } else { false }
        }
        try server.cont()
        disk.timeout = .seconds(20)
        try await disk.verify(pattern: 0, at: 0, byteCount: 512)
    }

    @Test func aStoppedServerCanBeKilled() throws {
        let server = try TgtServer.withFile(portalCount: 1, in: directory)
        try server.stop()
        server.kill9()
        #expect(!server.isRunning)
        #expect(throws: TgtFailure.self) { try server.stop() }
    }

    @Test func twoControllersExportOneDisk() async throws {
        let (first, second) = try TgtServer.dualController(byteCount: 8 << 20, serial: "d0a10001", in: directory)
        try await QemuIO(first.url()).write(pattern: 0x77, at: 4096, byteCount: 4096)
        try await QemuIO(second.url()).verify(pattern: 0x77, at: 4096, byteCount: 4096)
        for server in [first, second] {
            let page = try await CommandRunner.require("iscsi-inq", ["-e", "1", "-c", "128", server.url()])
            #expect(page.standardOutput.contains("d0a10001"))
        }
    }

    @Test func onlyTheRightSecretLogsIn() async throws {
        var configuration = TgtConfiguration(
            portals: try LoopbackPortal.unused(),
            logicalUnits: [.init(backing: .file(path: directory.file("chap.img"), byteCount: 1 << 20))])
        configuration.incomingAccount = .init(user: "host-1", password: "open-sesame-17")
        configuration.outgoingAccount = .init(user: "array-1", password: "sesame-open-71")
        let server = try TgtServer(configuration)
        try await QemuIO(server.url()).verify(pattern: 0, at: 0, byteCount: 512)
        let wrong = server.url().replacingOccurrences(of: "open-sesame-17", with: "open-sesame-18")
        await #expect(throws: CommandFailure.self) {
            try await QemuIO(wrong).verify(pattern: 0, at: 0, byteCount: 512)
        }
    }

    @Test func parametersReachTheTarget() throws {
        var configuration = TgtConfiguration(
            portals: try LoopbackPortal.unused(),
            logicalUnits: [
                .init(number: 1, backing: .null),
                .init(
                    number: 2, backing: .file(path: directory.file("4k.img"), byteCount: 8 << 20, engine: .asynchronous),
                    blockByteCount: 4096, scsiID: "ID2", serial: "5a2", vendor: "ACME", product: "RAID"),
            ])
        configuration.parameters = [
            ("MaxRecvDataSegmentLength", "65536"), ("InitialR2T", "No"), ("MaxConnections", "4"),
            ("HeaderDigest", "CRC32C"),
        ]
        let server = try TgtServer(configuration)
        let shown = try server.administer(["--op", "show", "--mode", "target", "--tid", "1"])
        for parameter in configuration.parameters { #expect(shown.contains("\(parameter.name)=\(parameter.value)")) }
        let units = try server.administer(["--op", "show", "--mode", "target"])
        #expect(units.contains("Block size: 4096"))
        #expect(units.contains("SCSI ID: ID2"))
        #expect(units.contains("SCSI SN: 5a2"))
    }

    @Test func countsAreKeptPerSessionAtTheTargetsSide() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 2, in: directory)
        let initiator = try ChildProcess(
            executable: Tool.path("qemu-io"),
            arguments: ["-f", "raw", "-c", "write 0 64k", "-c", "read 0 16k", "-c", "sleep 20000", server.url(portal: 1)])
        let counted = try await eventually {
            let statistic = try server.statisticsByPeer()["127.0.0.1"]
            return statistic?.writeByteCount == 64 << 10 && (statistic?.readByteCount ?? 0) > 16 << 10
        }
        #expect(counted)
        #expect(try server.sessions().map(\.initiatorName) == ["iqn.2008-11.org.linux-kvm"])
        let connections = try server.connections()
        #expect(connections[server.portals[1]]?.count == 1)
        #expect(connections[server.portals[0]] == nil)
        initiator.killAndWait()
    }

    @Test func aPortalThatIsTakenIsNamed() throws {
        let first = try TgtServer.withFile(portalCount: 1, in: directory)
        let unit = TgtConfiguration.LogicalUnit(backing: .null)
        let taken = TgtConfiguration(portals: first.portals, logicalUnits: [unit])
        #expect(throws: TgtFailure.self) { try TgtServer(taken) }
        #expect(throws: TgtFailure.self) {
            try TgtServer(TgtConfiguration(portals: LoopbackPortal.unused(count: 9), logicalUnits: [unit]))
        }
        #expect(first.isRunning)
    }

    @Test func nothingIsLeftBehind() throws {
        let before = ProcessStat.current.openFileCount
        for _ in 0..<10 {
            var server: TgtServer? = try TgtServer.withFile(in: directory)
            let identifier = try #require(server?.processIdentifier)
            try #require(ProcessStat(identifier)?.name == "tgtd")
            try server?.stop()
            server = nil
            #expect(ProcessStat(identifier) == nil)
        }
        // Other suites open and close files meanwhile; what leaks with every server would be more than that.
        #expect(ProcessStat.current.openFileCount < before + 50)
    }

    @Test func aMissingToolSaysHowToGetIt() {
        let error = #expect(throws: MissingTool.self) { try Tool.path("no-such-tool") }
        #expect(error?.description == "no-such-tool is not installed; run: make setup")
    }

    @Test func aProgramThatHangsIsKilled() async throws {
        let start = ContinuousClock.now
        await #expect(throws: CommandFailure.self) {
            try await CommandRunner.run("sleep", ["30"], timeout: .milliseconds(200))
        }
        #expect(ContinuousClock.now - start < .seconds(10))
    }

    @Test func aProgramGetsItsInputAndItsArgumentsAsTheyAre() async throws {
        let text = Array("one $HOME 'two'\n".utf8)
        let echoed = try await CommandRunner.run("cat", ["-"], standardInput: text)
        #expect(echoed.standardOutputBytes == text)
        let argument = try await CommandRunner.run("printf", ["%s", "a b;c"], environment: ["LC_ALL": "C"])
        #expect(argument.standardOutput == "a b;c")
        let status = try await CommandRunner.run("false")
        #expect(status.exitStatus == 1)
    }
}
