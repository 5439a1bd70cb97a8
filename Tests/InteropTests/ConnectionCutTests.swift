import Foundation
import ISCSITarget
import MPIO
import Multipath
import Testing
import TestSupport

/// The loss of connections of one session under verified load, tgtd's and the embedded target's.
@Suite(.serialized)
struct ConnectionCutTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("mcs-cut") }

    /// Resets each of the four connections in turn, the leading one included, three times; the pauses that it made.
    private func cutInTurn(
        _ links: [FaultyLink], _ disk: MultipathDisk, _ load: VerifiedLoad, around: (Int, () -> Void) async throws -> Void
    ) async throws -> [Duration] {
        var pauses: [Duration] = []
        for round in 0..<12 {
            try await load.proceed(300)
            _ = load.takeLongestPause()
            try await around(round % 4) { links[round % 4].reset() }
            try await load.proceed(600)
            pauses.append(load.takeLongestPause())
            #expect(try await disk.paths[0].state == .activeOptimized)
            #expect(try await disk.waitForConnections(4))
        }
        return pauses
    }

    private func finish(_ load: VerifiedLoad, file: String? = nil) async throws {
        try await load.stop()
        expectClean(load)
        try await load.verifyDisk()
        if let file { try load.verify(file: file) }
        expectClean(load)
    }

    // MARK: tgtd, which keeps its session

    /// A pause is the longest time in which no request of the disk completed. For how long at most: `expectBrief`.
    @Test func aConnectionThatIsCutUnderLoadLosesNothing() async throws {
        let server = try TgtServer.withConnections(in: directory)
        let links = try server.portals.map { try FaultyLink(to: $0) }
        try await DiskSetup(session: server, through: links.map(\.portal)).withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            let session = try server.sessions().map(\.session)
            let load = VerifiedLoad(disk, .init(depth: 32, blockCount: 512))
            load.start()
            let pauses = try await cutInTurn(links, disk, load) { $1() }
            print("tgtd, one of four connections reset under load: \(summary(pauses)); "
                + "\(try await disk.redrivenCount) requests done again")
            expectBrief(pauses)
            #expect(try await disk.redrivenCount > 0)
            #expect(try server.sessions().map(\.session) == session)
            #expect(try await disk.paths[0].lastError == nil)
            try await finish(load, file: server.backingFile)
        }
    }

    /// Refused for a while: the others carry on, and it comes back by itself.
    @Test func aPortalThatIsGoneCostsOneConnection() async throws {
        let server = try TgtServer.withConnections(in: directory)
        let links = try server.portals.map { try FaultyLink(to: $0) }
        try await DiskSetup(session: server, through: links.map(\.portal)).withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            let load = VerifiedLoad(disk, .init(depth: 32))
            load.start()
            try await load.proceed(500)
            _ = load.takeLongestPause()
            links[2].cut()
            try await load.proceed(1000)
            let pause = load.takeLongestPause()
            print("tgtd, one of four portals gone under load: longest pause \(pause)")
            #expect(pause < .seconds(2))
            #expect(try await disk.paths[0].state == .activeOptimized)
            #expect(try await eventually { try await disk.paths[0].connections[2].state == "failed" })
            #expect(try await disk.paths[0].connections[2].reason == "connection refused")
            #expect(try await disk.waitForConnections(3))
            try links[2].restore()
            #expect(try await disk.waitForConnections(4))
            try await finish(load)
        }
    }

    @Test func allConnectionsGoneIsAPathLost() async throws {
        let server = try TgtServer.withConnections(in: directory)
        try await DiskSetup(session: server).withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            let load = VerifiedLoad(disk, .init(depth: 32))
            load.start()
            try await load.proceed(500)
            server.kill9()
            #expect(try await disk.waitForPath(0, .failed))
            try server.restart()
            #expect(try await disk.waitForPath(0, .activeOptimized))
            #expect(try await disk.waitForConnections(4))
            try await load.proceed(500)
            try await finish(load)
        }
    }

    /// The first of the configured connections cannot be made: another one leads.
    @Test func anotherConnectionLeadsWhereTheFirstCannot() async throws {
        let server = try TgtServer.withConnections(in: directory)
        let links = try server.portals.map { try FaultyLink(to: $0) }
        links[0].cut()
        try await DiskSetup(session: server, through: links.map(\.portal)).withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(3))
            #expect(try await disk.paths[0].connections[0].state == "failed")
            try links[0].restore()
            #expect(try await disk.waitForConnections(4))
        }
    }

    // MARK: the embedded target

    /// With task reassignment (level 2) nothing is done again: the commands of the lost connection go on elsewhere, and
    /// the others never stop.
    @Test(arguments: [0, 1, 2]) func aCutConnectionOfTheEmbeddedTarget(level: Int) async throws {
        let array = try EmbeddedArray.withConnections(level: level)
        let links = try array.portals.map { try FaultyLink(to: $0) }
        try await DiskSetup(session: array, through: links.map(\.portal), level: level).withDisk(in: directory) { disk in
            #expect(try await disk.waitForConnections(4))
            #expect(try await disk.paths[0].errorRecoveryLevel == level)
            let session = try array.with { $0.service.sessions.map(\.tsih) }
            let recorder = GapRecorder()
            try array.with { $0.filter = recorder }
            let load = VerifiedLoad(disk, .init(depth: 32, blockCount: 512))
            load.start()
            var gaps: [Duration] = []
            var pauses = try await cutInTurn(links, disk, load) { index, reset in
                try array.with { _ in recorder.begin(sparing: index) }
                let identifiers = try await disk.paths[0].connections.map(\.cid)
                reset()
                try await load.proceed(400)
                gaps.append(try array.with { _ in recorder.longestGap })
                let later = try await disk.paths[0].connections
                for other in 0..<4 where other != index {
                    #expect(later[other].state == "logged in" && later[other].cid == identifiers[other])
                }
            }
            // Refused for a while: level 2 needs no transport for its recovery, and the others log it out below.
            links[1].cut()
            try await load.proceed(1000)
            pauses.append(load.takeLongestPause())
            try links[1].restore()
            #expect(try await disk.waitForConnections(4))
            let redriven = try await disk.redrivenCount
            print("embedded target, level \(level): \(summary(pauses)); none of the other three without a command: "
                + "\(summary(gaps)); \(redriven) requests done again")
            expectBrief(pauses)
            expectBrief(gaps)
            #expect(level == 2 ? redriven == 0 : redriven > 0)
            #expect(try await disk.paths[0].lastError == nil)
            #expect(try await disk.paths[0].state == .activeOptimized)
            #expect(try array.with { $0.service.sessions.map(\.tsih) } == session, "one session all the time")
            try array.with { $0.filter = nil }
            try await finish(load)
        }
        try array.stop()
    }
}

/// How long each portal but one was without a command, as the target's device server sees it.
private final class GapRecorder: CommandFilter, @unchecked Sendable {
    // On the target's thread.
    private var last: [Int: ContinuousClock.Instant] = [:]
    private var spared = 0
    private var longest = Duration.zero
    var holdsOutliveSessions: Bool { false }

    func begin(sparing portal: Int) {
        spared = portal
        longest = .zero
        last = Dictionary(uniqueKeysWithValues: (0..<4).filter { $0 != portal }.map { ($0, .now) })
    }

    /// Of any of them since the beginning, one that still lasts included.
    var longestGap: Duration { last.values.reduce(longest) { max($0, $1.duration(to: .now)) } }

    func decide(_ command: DeviceCommand, unit: Int, portal: Int) -> CommandDecision {
        guard let since = last[portal] else { return .execute }
        longest = max(longest, since.duration(to: .now))
        last[portal] = .now
        return .execute
    }
}
