import Foundation
import ISCSITarget
import MPIO
import Multipath
import Testing
import TestSupport

/// Sessions of several connections: what they may consist of, what is shown of them, and how one is taken out.
@Suite(.serialized)
struct ConnectionsTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("mcs") }

    private func shownPaths() async throws -> [MPIO.PathSnapshot] {
        let result = try await mpio(in: directory, "paths", "disk", "--json")
        return try JSONDecoder().decode(PathsReport.self, from: Data(result.standardOutputBytes)).luns[0].paths
    }

    // MARK: Shapes

    /// Each connection from an address of its own to an address of its own; tgtd has them all in one session.
    @Test func aListOfAddressPairsJoinsOneSession() async throws {
        let server = try TgtServer.withConnections(in: directory)
        let sources = server.portals.indices.map { DiskSetup.source(number: $0, for: server.portals[$0])! }
        let setup = DiskSetup(session: server, keys: sources.map { "from: \($0)" })
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            let connections = try await disk.paths[0].connections
            #expect(connections.map(\.portal) == server.portals.map(\.description))
            #expect(connections.map(\.source) == sources)
            #expect(connections.map(\.number) == [1, 2, 3, 4] && Set(connections.map(\.cid)).count == 4)
            #expect(try server.sessions().count == 1)
            let peers = try server.connections()
            for (portal, source) in zip(server.portals, sources) {
                #expect(peers[portal]?.map(\.address) == [source], "\(peers)")
            }
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            try await load.run(requestCount: 400)
            expectClean(load)
        }
    }

    /// A portal of another target port group is no part of the session: a session does not span them.
    @Test func aConnectionThatCannotJoinIsTriedAndSaidToFail() async throws {
        let array = try EmbeddedArray.withConnections(tags: [1, 1, 2])
        try await DiskSetup(session: array).withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(2))
            #expect(try await eventually { try await disk.paths[0].connections[2].reason != nil })
            let stranger = try await disk.paths[0].connections[2]
            #expect(stranger.reason?.contains("login") == true, "\(stranger)")
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            try await load.run(requestCount: 400)
            expectClean(load)
            #expect(try await disk.paths[0].state == .activeOptimized)
        }
        try array.stop()
    }

    /// Two tgtd before one file, a session of two connections to each: cut one connection, then a whole session.
    @Test func twoSessionsOfTwoConnectionsEach() async throws {
        let servers = try (0..<2).map { _ in try TgtServer.withConnections(2, portalCount: 2, in: directory) }
        let links = try servers.map { try $0.portals.map { try FaultyLink(to: $0) } }
        let setup = DiskSetup(
            sessions: links.map { $0.map(\.portal) }, of: servers[0].targetName, lun: 1, keys: ["weight: 2", "weight: 1"])
        try await setup.withDisk(in: directory) { disk in
            for path in 0..<2 { #expect(try await disk.waitForConnections(2, ofPath: path)) }
            let load = VerifiedLoad(disk, .init(depth: 32, blockCount: 2048))
            load.start()
            try await load.proceed(1000)
            let name = links[0][0].portal.description
            _ = try await mpio(in: directory, "policy", "disk", "weighted-paths", "--session", name)

            // All that belongs to a connection is shown under its path.
            let before = try await shownPaths()
            try await load.proceed(2000)
            let paths = try await shownPaths()
            #expect(paths.map(\.state) == [.activeOptimized, .activeOptimized])
            #expect(paths.map(\.connectionPolicy) == ["weighted-paths", "round-robin"])
            for index in 0..<2 {
                #expect(paths[index].connections.map(\.portal) == links[index].map(\.portal.description))
                #expect(paths[index].connections.map(\.state) == ["logged in", "logged in"])
                #expect(paths[index].connections.map(\.weight) == (index == 0 ? [2, 1] : [nil, nil]))
                let carried = differences(paths[index].connections.map(\.requests), before[index].connections.map(\.requests))
                let all = Double(carried[0] + carried[1])
                #expect(all > 500 && abs(Double(carried[0]) / all - (index == 0 ? 2.0 / 3 : 0.5)) < 0.02, "\(carried)")
            }
            let table = try await mpio(in: directory, "paths", "disk").standardOutput
            let lines = table.split(separator: "\n").drop { !$0.contains("PATH") }.dropFirst().map(String.init)
            #expect(lines.count == 6, "\(table)")
            for index in 0..<2 {
                #expect(lines[3 * index].hasPrefix("  \(links[index][0].portal)") && lines[3 * index].contains("2 of 2 connections"))
                for number in 1...2 {
                    let line = lines[3 * index + number]
                    #expect(line.hasPrefix("    \(number): cid ") && line.contains("\(links[index][number - 1].portal)"), "\(line)")
                    #expect(line.contains("logged in"), "\(line)")
                }
            }

            // One connection: its session, and the other session, go on.
            links[0][1].cut()
            try await load.proceed(2000)
            #expect(try await eventually { try await disk.paths[0].connections[1].state == "failed" })
            #expect(try await disk.paths.map(\.state) == [.activeOptimized, .activeOptimized])
            #expect(try await mpio(in: directory, "paths", "disk").standardOutput.contains("1 of 2 connections"))
            #expect(try await disk.paths[1].connections.map(\.state) == ["logged in", "logged in"])

            // All of one session: a path is lost, and the other carries it all.
            links[0][0].cut()
            #expect(try await disk.waitForPath(0, .failed))
            _ = load.takeLongestPause()
            try await load.proceed(2000)
            #expect(try await disk.paths[1].state == .activeOptimized)
            for link in links[0] { try link.restore() }
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            for path in 0..<2 { #expect(try await disk.waitForConnections(2, ofPath: path)) }
            try await load.proceed(1000)
            try await load.stop()
            expectClean(load)
            try await load.verifyDisk()
            try load.verify(file: servers[0].backingFile)
            expectClean(load)
            // The proof of what portals share may have its spare session under way.
            for server in servers { #expect(try await eventually { try server.sessions().count == 1 }) }
        }
    }

    @Test func aTargetThatGrantsFewerIsUsedWithThose() async throws {
        let server = try TgtServer.withConnections(1, in: directory)
        try await DiskSetup(session: server).withDisk(in: directory) { disk in
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            try await load.run(requestCount: 500)
            expectClean(load)
            let connections = try await disk.paths[0].connections
            #expect(connections.map(\.state) == ["logged in", "not granted", "not granted", "not granted"])
            #expect(try await disk.paths[0].state == .activeOptimized)
            #expect(try await disk.status.state == .optimal, "it is no failure")
            let events = try recentEvents(in: directory).filter { $0.kind == "connections-limited" }
            #expect(events.count == 1 && events[0].message.contains("as many as the target grants of 4"), "\(events)")
            let table = try await mpio(in: directory, "paths", "disk").standardOutput
            #expect(table.contains("1 of 4 connections") && table.split(separator: "\n").count { $0.contains("not granted") } == 3, "\(table)")
            #expect(try server.connections().values.reduce(0) { $0 + $1.count } == 1)
        }
    }

    // MARK: One connection out and back

    /// By hand, under load: logged out when its commands have ended (nothing is done again), and back.
    @Test(arguments: ConnectionPolicyTests.Target.allCases) func aDrainedConnectionLeavesInGoodOrder(
        _ target: ConnectionPolicyTests.Target
    ) async throws {
        let server = target == .tgtd ? try TgtServer.withConnections(in: directory) : nil
        let array = server == nil ? try EmbeddedArray.withConnections() : nil
        let setup = try server.map { DiskSetup(session: $0) } ?? DiskSetup(session: #require(array))
        func transports() throws -> Int {
            if let server { return try server.connections().values.reduce(0) { $0 + $1.count } }
            return try array?.with { target in (0..<4).reduce(0) { $0 + target.connectionCount(portal: $1) } } ?? 0
        }
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            let path = setup.paths[0].portal.description
            let load = VerifiedLoad(disk, .init(depth: 32, blockCount: 512))
            load.start()
            // The leading one as well: a session does not depend on it.
            for number in 1...4 {
                try await load.proceed(300)
                let said = try await mpio(in: directory, "path", "drain", "disk", path, "--connection", "\(number)")
                #expect(said.standardOutput.contains("connection \(number) of \(path) drains"))
                #expect(try await eventually { try await disk.paths[0].connections[number - 1].state == "taken out" })
                #expect(try await eventually { try transports() == 3 })
                let before = try await disk.paths[0].connections[number - 1].requests
                try await load.proceed(500)
                #expect(try await disk.paths[0].connections[number - 1].requests == before)
                #expect(try await disk.paths[0].state == .activeOptimized)
                #expect(try await disk.redrivenCount == 0)
                _ = try await mpio(in: directory, "path", "restore", "disk", path, "--connection", "\(number)")
                #expect(try await disk.waitForConnections(4))
            }
            // At once: what it had under way is done again, and nothing is lost.
            _ = load.takeLongestPause()
            _ = try await mpio(in: directory, "path", "fail", "disk", path, "--connection", "3")
            #expect(try await eventually { try await disk.paths[0].connections[2].state == "taken out" })
            try await load.proceed(500)
            #expect(load.takeLongestPause() < .seconds(2))
            #expect(try await disk.paths[0].connections[2].reason == nil)
            // It stays out when the session is made anew.
            #expect(try await disk.changePath(path, .fail))
            #expect(try await disk.waitForPath(0, .failed))
            #expect(try await disk.changePath(path, .restore))
            #expect(try await disk.waitForConnections(3))
            #expect(try await disk.paths[0].connections[2].state == "taken out")
            #expect(try await disk.changeConnection(3, ofPath: path, .restore))
            #expect(try await disk.waitForConnections(4))
            try await load.proceed(300)
            try await load.stop()
            expectClean(load)
            try await load.verifyDisk()
            expectClean(load)
            let events = try recentEvents(in: directory).map(\.message)
            #expect(events.contains { $0.contains("connection 2 of \(path) lost: taken out by hand") }, "\(events)")
            #expect(events.contains { $0.contains("connection 2 of \(path) is back") })
        }
        try array?.stop()
    }

    @Test func theLastConnectionIsNotTakenOut() async throws {
        let array = try EmbeddedArray.withConnections(tags: [1, 1])
        try await DiskSetup(session: array).withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(2))
            let path = array.portals[0].description
            #expect(try await disk.changeConnection(1, ofPath: path, .drain))
            #expect(try await eventually { try await disk.paths[0].connections[0].state == "taken out" })
            let refused = try await mpio(in: directory, "path", "drain", "disk", path, "--connection", "2", status: 64)
            #expect(refused.standardError.contains("the session's only one"), "\(refused.standardError)")
            let unknown = try await mpio(in: directory, "path", "drain", "disk", path, "--connection", "3", status: 1)
            #expect(unknown.standardError.contains("has no connection 3; it has 1 to 2"), "\(unknown.standardError)")
            #expect(try await disk.changeConnection(0, ofPath: path, .drain) == false)
            #expect(try await disk.paths[0].connections[1].state == "logged in")
            // The other leads the next session.
            #expect(try await disk.changePath(path, .fail))
            #expect(try await disk.waitForPath(0, .failed))
            #expect(try await disk.changePath(path, .restore))
            #expect(try await disk.waitForPath(0, .activeOptimized))
            #expect(try await disk.paths[0].connections.map(\.state) == ["taken out", "logged in"])
        }
        try array.stop()
    }

    // MARK: What a target asks

    /// Under load, played by the faults of the embedded target; the connections by their CIDs.
    @Test(arguments: [0, 2]) func oneConnectionGoesAtTheTargetsWish(level: Int) async throws {
        let array = try EmbeddedArray.withConnections(level: level)
        try await DiskSetup(session: array, level: level).withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            let load = VerifiedLoad(disk, .init(depth: 32, blockCount: 512))
            load.start()
            let session = try array.with { $0.service.sessions.map(\.tsih) }
            for round in 0..<8 {
                try await load.proceed(300)
                let connection = try await disk.paths[0].connections[round % 4]
                let isLogout = round < 4
                let redriven = try await disk.redrivenCount
                let fault = try FaultCommand(parsing: "\(isLogout ? "async-logout=2s" : "async-drop"):connection=\(connection.cid)")
                _ = try array.with { try $0.setFault(fault) }
                // It comes back under another CID, or the same where a login with it is what ends the old one.
                #expect(try await eventually { try recentEvents(in: directory).count { $0.kind == "connection-regained" } == round + 1 })
                #expect(try await disk.waitForConnections(4))
                #expect(try await disk.paths[0].state == .activeOptimized)
                if isLogout || level == 2 { #expect(try await disk.redrivenCount == redriven, "its commands ended first") }
            }
            try await load.stop()
            expectClean(load)
            #expect(try array.with { $0.service.sessions.map(\.tsih) } == session, "one session all the time")
            let lost = try recentEvents(in: directory).filter { $0.kind == "connection-lost" }.map(\.message)
            #expect(lost.count == 8 && lost.prefix(4).allSatisfy { $0.contains("logout") } && lost.suffix(4).allSatisfy { $0.contains("drop") }, "\(lost)")
            try await load.verifyDisk()
            expectClean(load)
        }
        try array.stop()
    }

    @Test func aSessionThatTheTargetDropsComesBack() async throws {
        let array = try EmbeddedArray.withConnections()
        try await DiskSetup(session: array).withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            load.start()
            try await load.proceed(300)
            try array.with { $0.sendAsyncMessage(.sessionDrops(time2Wait: 0, time2Retain: 0), portal: 2) }
            #expect(try await eventually { try await disk.paths[0].lastError != nil })
            #expect(try await disk.waitForPath(0, .activeOptimized))
            #expect(try await disk.waitForConnections(4))
            try await load.proceed(300)
            // And one that only wants to negotiate is answered, while everything goes on.
            for portal in 0..<4 {
                try array.with { $0.sendAsyncMessage(.negotiationRequested(withinSeconds: 3), portal: portal) }
                try await load.proceed(100)
            }
            try await load.stop()
            expectClean(load)
            #expect(try await disk.waitForConnections(4))
        }
        try array.stop()
    }

    /// PREEMPT AND ABORT ends commands without a word; ABORT TASK finds that out, in a session of several connections as well.
    @Test func aWriteThatWasEndedWithoutAWordBarsNoLaterOne() async throws {
        let array = try EmbeddedArray.withConnections(tags: [1, 1])
        var setup = DiskSetup(session: array)
        setup.timers["silence-timeout"] = "500ms"
        setup.timers["command-timeout"] = "1s"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(2))
            try array.hold(Hold(Hold.writes))
            let lost = Task { try await disk.write(IOBuffer(byteCount: 4096), at: 0) }
            #expect(try await eventually { try array.heldCount == 1 })
            try array.with { target in
                target.filter = nil
                for nexus in 0..<4 { target.nexusPreempted(NexusIndex(rawValue: nexus), unit: target.node.units[0]) }
            }
            #expect(try array.heldCount == 0)
            await #expect(throws: DiskError.timedOut) { try await lost.value }
            let start = ContinuousClock.now
            try await disk.write(IOBuffer(byteCount: 4096), at: 0)
            #expect(start.seconds < 5, "\(start.seconds) s")
            #expect(try await disk.paths[0].lastError == nil)
        }
        try array.stop()
    }
}
