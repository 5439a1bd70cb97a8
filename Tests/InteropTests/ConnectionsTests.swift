import Foundation
import MPIO
import Multipath
import Testing
import TestSupport

/// Several connections in one session to a real tgtd: who carries what, and what the loss of one is like.
@Suite(.serialized)
struct ConnectionsTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory("mcs")
    }

    private func server(maxConnections: Int = 4) throws -> TgtServer {
        let unit = TgtConfiguration.LogicalUnit(
            backing: .file(path: directory.file("mcs.img"), byteCount: 64 << 20), scsiID: "beef0004", serial: "beef0004")
        return try TgtServer(
            TgtConfiguration(
                portals: LoopbackPortal.unused(count: 4), targetName: "iqn.2026-11.org.example:array-1",
                logicalUnits: [unit], parameters: [("MaxConnections", "\(maxConnections)")]))
    }

    /// One session of a connection to each of the portals.
    private func setup(
        _ server: TgtServer, _ portals: [LoopbackPortal]? = nil, policy: String = "round-robin", keys: [String] = []
    ) -> DiskSetup {
        let portals = portals ?? server.portals
        var setup = DiskSetup(server)
        setup.paths = [.init(target: server.targetName, portal: portals[0])]
        setup.paths[0].connections = portals.enumerated().map { index, portal in
            let more = keys.indices.contains(index) ? ", \(keys[index])" : ""
            return "{address: \"\(portal)\"\(more)}"
        }
        setup.targetKeys[server.targetName] = "connection-policy: \(policy)"
        return setup
    }

    private func waitForConnections(_ disk: MultipathDisk, _ count: Int) async throws -> Bool {
        try await eventually { try await disk.paths[0].connections.count { $0.state == "logged in" } == count }
    }

    // MARK: Policies

    /// Runs verified requests; how many each connection carried, as mpio and as the target counted them.
    private func spread(
        _ count: Int, depth: Int = 16, policy: String, keys: [String] = []
    ) async throws -> [UInt64] {
        let server = try server()
        return try await setup(server, policy: policy, keys: keys).withDisk(in: directory) { disk in
            #expect(try await waitForConnections(disk, 4))
            func counts() async throws -> (own: [UInt64], target: [UInt64]) {
                let connections = try await disk.paths[0].connections
                let commands = try server.commandsByConnection()
                return (connections.map(\.requests), connections.map { commands[$0.cid] ?? 0 })
            }
            let load = VerifiedLoad(disk, .init(depth: depth))
            let before = try await counts()
            try await load.run(requestCount: count)
            let after = try await counts()
            expectClean(load)
            #expect(try server.sessions().count == 1)
            let carried = differences(after.own, before.own)
            #expect(differences(after.target, before.target) == carried)
            #expect(carried.reduce(0, +) == UInt64(count))
            return carried
        }
    }

    @Test func roundRobinGivesEveryConnectionTheSame() async throws {
        #expect(try await spread(4000, policy: "round-robin") == [1000, 1000, 1000, 1000])
    }

    @Test func aSubsetRotatesAndStandbysWait() async throws {
        let keys = ["", "role: standby", "role: primary", "role: standby"].map { $0.isEmpty ? "role: primary" : $0 }
        #expect(try await spread(2000, policy: "round-robin-with-subset", keys: keys) == [1000, 0, 1000, 0])
    }

    @Test func failOverOnlyUsesOneConnection() async throws {
        #expect(try await spread(1000, policy: "fail-over-only") == [1000, 0, 0, 0])
    }

    @Test func theShortestQueueIsFilledFirst() async throws {
        let carried = try await spread(4000, policy: "least-queue-depth")
        for count in carried { #expect(count > 600, "\(carried)") }
    }

    @Test func weightsShareInProportion() async throws {
        let weights = [5, 3, 1, 1]
        let carried = try await spread(10_000, depth: 32, policy: "weighted-paths", keys: weights.map { "weight: \($0)" })
        for (count, weight) in zip(carried, weights) {
            #expect(abs(Double(count) - 1000 * Double(weight)) <= 20 * Double(weight), "\(carried)")
        }
    }

    @Test func theConnectionPolicyChangesUnderLoad() async throws {
        let server = try server()
        let setup = setup(server)
        let manager = try await setup.manager(in: directory)
        let disk = try await manager.open("disk")
        #expect(try await waitForConnections(disk, 4))
        let load = VerifiedLoad(disk)
        load.start()
        try await load.proceed(400)
        let path = setup.paths[0].portal.description
        #expect(try await disk.setConnectionPolicy(PolicySettings(.failOverOnly), ofPath: path))
        let before = try await disk.paths[0].connections.map(\.requests)
        try await load.proceed(400)
        let carried = differences(try await disk.paths[0].connections.map(\.requests), before)
        // What was chosen before the first count was taken is in it already.
        #expect(carried[0] >= 400 && carried[1...].allSatisfy { $0 == 0 }, "\(carried)")
        #expect(try await disk.paths[0].connectionPolicy == "fail-over-only")
        try await load.stop()
        expectClean(load)
        try await manager.shutdown()
    }

    // MARK: Loss

    /// Every kind of loss, of every connection in turn, the leading one included. tgtd keeps its session.
    @Test func aConnectionThatIsCutUnderLoadLosesNothing() async throws {
        let server = try server()
        let links = try server.portals.map { try FaultyLink(to: $0) }
        try await setup(server, links.map(\.portal)).withDisk(in: directory) { disk in
            #expect(try await waitForConnections(disk, 4))
            let session = try server.sessions().map(\.session)
            let load = VerifiedLoad(disk, .init(depth: 32, blockCount: 512))
            load.start()
            var pauses: [Duration] = []
            for round in 0..<12 {
                try await load.proceed(300)
                _ = load.takeLongestPause()
                links[round % 4].reset()
                try await load.proceed(600)
                pauses.append(load.takeLongestPause())
                #expect(try await disk.paths[0].state == .activeOptimized)
                #expect(try await waitForConnections(disk, 4))
            }
            try await load.stop()
            print("one of four connections reset under load, 12 times: longest pause \(pauses.max()!), "
                + "\(try await disk.redrivenCount) requests done again")
            for pause in pauses { #expect(pause < .milliseconds(100), "\(pauses)") }
            #expect(try await disk.redrivenCount > 0)
            #expect(try server.sessions().map(\.session) == session)
            #expect(try await disk.paths[0].lastError == nil)
            expectClean(load)
            try await load.verifyDisk()
            try load.verify(file: server.backingFile)
            expectClean(load)
        }
    }

    /// Refused for a while: the others carry on, and it comes back by itself.
    @Test func aPortalThatIsGoneCostsOneConnection() async throws {
        let server = try server()
        let links = try server.portals.map { try FaultyLink(to: $0) }
        try await setup(server, links.map(\.portal)).withDisk(in: directory) { disk in
            #expect(try await waitForConnections(disk, 4))
            let load = VerifiedLoad(disk, .init(depth: 32))
            load.start()
            try await load.proceed(500)
            _ = load.takeLongestPause()
            links[2].cut()
            try await load.proceed(1000)
            let pause = load.takeLongestPause()
            print("one of four portals gone under load: longest pause \(pause)")
            #expect(pause < .milliseconds(500))
            #expect(try await disk.paths[0].state == .activeOptimized)
            #expect(try await eventually { try await disk.paths[0].connections[2].state == "failed" })
            #expect(try await disk.paths[0].connections[2].reason == "connection refused")
            #expect(try await waitForConnections(disk, 3))
            try links[2].restore()
            #expect(try await waitForConnections(disk, 4))
            try await load.stop()
            expectClean(load)
            try await load.verifyDisk()
            expectClean(load)
        }
    }

    @Test func allConnectionsGoneIsAPathLost() async throws {
        let server = try server()
        try await setup(server).withDisk(in: directory) { disk in
            #expect(try await waitForConnections(disk, 4))
            let load = VerifiedLoad(disk, .init(depth: 32))
            load.start()
            try await load.proceed(500)
            server.kill9()
            #expect(try await disk.waitForPath(0, .failed))
            try server.restart()
            #expect(try await disk.waitForPath(0, .activeOptimized))
            #expect(try await waitForConnections(disk, 4))
            try await load.proceed(500)
            try await load.stop()
            expectClean(load)
            try await load.verifyDisk()
            expectClean(load)
        }
    }

    /// The first of the configured connections cannot be made: another one leads.
    @Test func anotherConnectionLeadsWhereTheFirstCannot() async throws {
        let server = try server()
        let links = try server.portals.map { try FaultyLink(to: $0) }
        links[0].cut()
        try await setup(server, links.map(\.portal)).withDisk(in: directory) { disk in
            #expect(try await waitForConnections(disk, 3))
            #expect(try await disk.paths[0].connections[0].state == "failed")
            try links[0].restore()
            #expect(try await waitForConnections(disk, 4))
        }
    }

    // MARK: The embedded target

    /// With task reassignment (level 2) nothing is done again: the commands of the lost connection go on elsewhere.
    @Test(arguments: [0, 1, 2]) func aCutConnectionOfTheEmbeddedTarget(level: Int) async throws {
        let array = try EmbeddedArray(tags: [1, 1, 1, 1], change: {
            $0.maximumConnectionsPerSession = 4
            $0.errorRecoveryLevel = level
            $0.defaultTime2Wait = 0
        })
        let links = try array.portals.map { try FaultyLink(to: $0) }
        var setup = DiskSetup()
        setup.identity = "{target: \"\(EmbeddedArray.name)\", lun: 0}"
        setup.paths = [.init(target: EmbeddedArray.name, portal: links[0].portal)]
        setup.paths[0].connections = links.map { "{address: \"\($0.portal)\"}" }
        setup.targetKeys[EmbeddedArray.name] = "iscsi: {error-recovery-level: \(level)}"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await waitForConnections(disk, 4))
            #expect(try await disk.paths[0].errorRecoveryLevel == level)
            let load = VerifiedLoad(disk, .init(depth: 32, blockCount: 512))
            load.start()
            var pauses: [Duration] = []
            for round in 0..<12 {
                try await load.proceed(300)
                _ = load.takeLongestPause()
                links[round % 4].reset()
                try await load.proceed(600)
                pauses.append(load.takeLongestPause())
                #expect(try await waitForConnections(disk, 4))
            }
            // Refused for a while: level 2 needs no transport for its recovery, and the others log it out below.
            links[1].cut()
            try await load.proceed(1000)
            pauses.append(load.takeLongestPause())
            try links[1].restore()
            #expect(try await waitForConnections(disk, 4))
            try await load.stop()
            let redriven = try await disk.redrivenCount
            print("embedded target, level \(level): longest pause \(pauses.max()!), \(redriven) requests done again")
            for pause in pauses { #expect(pause < .milliseconds(100), "\(pauses)") }
            #expect(level == 2 ? redriven == 0 : redriven > 0)
            #expect(try await disk.paths[0].lastError == nil)
            #expect(try await disk.paths[0].state == .activeOptimized)
            #expect(try array.with { $0.sessionCount } == 1)
            expectClean(load)
            try await load.verifyDisk()
            expectClean(load)
        }
        try array.stop()
    }

    // MARK: Fewer than asked

    /// As `mpio events` gets them.
    private func recentEvents() throws -> [String] {
        let client = try #require(
            ControlClient.discover(directories: [directory.file("run")], timeout: .seconds(2)).first)
        guard case .events(let events, _) = try client.request(.events(after: nil)) else { return [] }
        return events.map(\.message)
    }

    @Test func aTargetThatGrantsFewerIsUsedWithThose() async throws {
        let server = try server(maxConnections: 1)
        try await setup(server).withDisk(in: directory) { disk in
            let load = VerifiedLoad(disk)
            try await load.run(requestCount: 500)
            expectClean(load)
            let connections = try await disk.paths[0].connections
            #expect(connections.map(\.state) == ["logged in", "not granted", "not granted", "not granted"])
            #expect(try await disk.paths[0].state == .activeOptimized)
            let events = try recentEvents()
            #expect(events.contains { $0.contains("as many as the target grants of 4") }, "\(events)")
            #expect(try server.connections().values.reduce(0) { $0 + $1.count } == 1)
        }
    }
}

extension TgtServer {
    /// SCSI Command PDUs of the only session so far, by connection ID.
    fileprivate func commandsByConnection() throws -> [Int: UInt64] {
        let session = try sessions()[0].session
        let text = try administer(["--op", "stat", "--mode", "session", "--tid", "1", "--sid", "\(session)"])
        // sid cid rxdata_octets txdata_octets dataout_pdus datain_pdus cmd_pdus rsp_pdus
        var counts: [Int: UInt64] = [:]
        for line in text.split(separator: "\n") {
            let numbers = line.split(separator: " ").compactMap { UInt64($0) }
            if numbers.count == 8 { counts[Int(numbers[1])] = numbers[6] }
        }
        return counts
    }
}
