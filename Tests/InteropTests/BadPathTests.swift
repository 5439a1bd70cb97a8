import Foundation
import MPIO
import Testing
import TestSupport

/// Paths that cannot be: each is named with its reason, and the others carry on.
@Suite(.serialized)
struct BadPathTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory("bad")
    }

    enum Fault: CaseIterable {
        case closedPort, wrongName, wrongSecret, noSecret, wrongMutualSecret, proofNotGiven, initiatorNotAllowed
        case closesInLogin, resetsInLogin, silentInLogin, absurdLength, notATarget, noSuchUnit
    }

    /// A path that cannot be, what it needs to live on, and what must be said of it.
    private struct BadPath {
        var path: DiskSetup.Path
        var targetKeys: String?
        var reason: String
        var detail: String
        var owners: [AnyObject] = []
    }

    private static let name = "iqn.2026-11.org.example:array-2"

    private func make(_ fault: Fault) throws -> BadPath {
        switch fault {
        case .closedPort:
            return bad(try LoopbackPortal.unused()[0], "connection refused", "")
        case .wrongName:
            let server = try otherServer()
            var made = bad(server.portals[0], "login rejected", "not found", server)
            made.path.target = "iqn.2026-11.org.example:array-3"
            return made
        case .wrongSecret: return try chap(secret: "open-sesame-18", "authentication failed", "refused the login")
        case .noSecret:
            let server = try otherServer(incoming: .init(user: "host-1", password: "open-sesame-17"))
            return bad(server.portals[0], "authentication failed", "", server)
        case .wrongMutualSecret:
            return try chap(mutual: "sesame-open-72", "authentication failed", "wrong response")
        case .proofNotGiven:
            let server = try otherServer()
            var made = bad(server.portals[0], "authentication failed", "refused the login", server)
            made.targetKeys = try chapKeys("open-sesame-17", mutual: "sesame-open-71")
            return made
        case .initiatorNotAllowed:
            let server = try otherServer()
            try server.administer(["--op", "unbind", "--mode", "target", "--tid", "1", "-I", "ALL"])
            try server.administer(["--op", "bind", "--mode", "target", "--tid", "1", "-Q", "iqn.2026-11.test:somebody"])
            return bad(server.portals[0], "", "refused the login", server)
        case .closesInLogin: return try scripted([], .close, "connection closed by target", "")
        case .resetsInLogin: return try scripted([], .reset, "connection reset", "")
        case .silentInLogin: return try scripted([], .silence, "login timed out", "")
        case .absurdLength:
            var header = [UInt8](repeating: 0, count: 48)
            header[0] = 0x23
            header.replaceSubrange(5...7, with: [0xFF, 0xFF, 0xFF])
            return try scripted(header, .silence, "protocol error", "16777215")
        case .notATarget:
            let words = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis is no iSCSI target.\r\n"
            return try scripted(Array(words.utf8), .close, "protocol error", "")
        case .noSuchUnit:
            let server = try otherServer()
            var made = bad(server.portals[0], "no such logical unit", "", server)
            made.path.keys = "lun: 7"
            return made
        }
    }

    private func bad(_ portal: LoopbackPortal, _ reason: String, _ detail: String, _ owners: AnyObject...) -> BadPath {
        BadPath(
            path: .init(target: Self.name, portal: portal, keys: "lun: 1"), targetKeys: nil, reason: reason,
            detail: detail, owners: owners)
    }

    private func otherServer(
        incoming: TgtConfiguration.Account? = nil, outgoing: TgtConfiguration.Account? = nil
    ) throws -> TgtServer {
        let unit = TgtConfiguration.LogicalUnit(
            backing: .file(path: directory.file("beef0001.img"), byteCount: 64 << 20), scsiID: "beef0001",
            serial: "beef0001")
        var configuration = TgtConfiguration(
            portals: try LoopbackPortal.unused(), targetName: Self.name, logicalUnits: [unit])
        configuration.incomingAccount = incoming
        configuration.outgoingAccount = outgoing
        return try TgtServer(configuration)
    }

    private func chapKeys(_ secret: String, mutual: String?) throws -> String {
        func file(_ name: String, _ text: String) throws {
            chmod(try directory.file(name, contents: Array((text + "\n").utf8)), 0o600)
        }
        try file("chap.secret", secret)
        guard let mutual else { return "chap: {user: host-1, secret-file: chap.secret}" }
        try file("mutual.secret", mutual)
        return "chap: {user: host-1, secret-file: chap.secret, mutual-user: array-1, mutual-secret-file: mutual.secret}"
    }

    private func chap(
        secret: String = "open-sesame-17", mutual: String? = nil, _ reason: String, _ detail: String
    ) throws -> BadPath {
        let server = try otherServer(
            incoming: .init(user: "host-1", password: "open-sesame-17"),
            outgoing: mutual.map { _ in .init(user: "array-1", password: "sesame-open-71") })
        var made = bad(server.portals[0], reason, detail, server)
        made.targetKeys = try chapKeys(secret, mutual: mutual)
        return made
    }

    private func scripted(
        _ answer: [UInt8], _ ending: ScriptedTarget.Ending, _ reason: String, _ detail: String
    ) throws -> BadPath {
        let target = try ScriptedTarget(answering: answer, then: ending)
        return bad(target.portal, reason, detail, target)
    }

    @Test(arguments: Fault.allCases)
    func isNamedWithItsReasonAndHarmsNoOther(fault: Fault) async throws {
        let good = try TgtServer.withFile(portalCount: 2, in: directory)
        let made = try make(fault)
        var setup = DiskSetup(good)
        setup.identity = nil
        for index in 0..<2 { setup.paths[index].keys = "lun: 1" }
        setup.paths.append(made.path)
        setup.targetKeys[made.path.target] = made.targetKeys
        setup.timers["login-timeout"] = "400ms"
        let name = "\(made.path.portal)"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized, .failed]))
            let load = VerifiedLoad(disk)
            try await load.run(requestCount: 500)
            expectClean(load)
            let path = try await disk.paths[2]
            #expect(path.id == name && path.requests == 0)
            let error = try #require(path.lastError)
            print("\(fault): \(path.id): \(error.reason) (\(error.detail ?? ""))")
            if !made.reason.isEmpty { #expect(error.reason == made.reason) }
            if !made.detail.isEmpty { #expect(error.detail?.contains(made.detail) == true, "\(error)") }
            #expect(try await disk.status.state == .degraded)
        }
        // Alone, it is the reason why the disk cannot be opened.
        setup.paths = [made.path]
        let alone = setup
        do {
            try await alone.withDisk(in: directory) { _ in }
            Issue.record("opened over \(fault)")
        } catch PathManagerError.noUsablePath(let lun, let paths) {
            #expect(lun == "disk" && paths.count == 1 && paths[0].name == name)
            for part in [made.reason, made.detail] where !part.isEmpty {
                #expect(paths[0].words.contains(part), "\(paths)")
            }
        }
        withExtendedLifetime(made) {}
    }

    // MARK: What works

    @Test func provesItselfByCHAPAndAsksTheTargetToo() async throws {
        for mutual in [nil, "sesame-open-71"] {
            let server = try otherServer(
                incoming: .init(user: "host-1", password: "open-sesame-17"),
                outgoing: mutual.map { .init(user: "array-1", password: $0) })
            var setup = DiskSetup(server)
            setup.targetKeys[server.targetName] = try chapKeys("open-sesame-17", mutual: mutual)
            try await setup.withDisk(in: directory) { disk in
                let load = VerifiedLoad(disk)
                try await load.run(requestCount: 100)
                expectClean(load)
                try await load.verifyDisk()
            }
            try FileManager.default.removeItem(atPath: server.backingFile)
        }
    }

    private func digestServer() throws -> TgtServer {
        let unit = TgtConfiguration.LogicalUnit(
            backing: .file(path: directory.file("digest.img"), byteCount: 64 << 20), serial: "d16e57")
        return try TgtServer(
            TgtConfiguration(
                portals: LoopbackPortal.unused(count: 2), logicalUnits: [unit],
                parameters: [("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")]))
    }

    @Test(arguments: [FaultyLink.Direction.fromTarget, .toTarget])
    func aDigestThatIsWrongCostsThePathAndNoData(direction: FaultyLink.Direction) async throws {
        let server = try digestServer()
        let link = try FaultyLink(to: server.portals[0])
        var setup = DiskSetup(server)
        setup.paths[0] = .init(target: server.targetName, portal: link.portal)
        setup.targetKeys[server.targetName] = "digests: {header: crc32c, data: crc32c}"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            let load = VerifiedLoad(disk)
            load.start()
            for _ in 0..<5 {
                let redriven = try await disk.redrivenCount
                link.corrupt(direction)
                #expect(try await eventually { try await disk.redrivenCount > redriven })
                let error = try #require(try await disk.paths[0].lastError)
                // Its own check shows what came wrong; of what went wrong tgtd closes the connection.
                #expect(direction == .toTarget || error.reason == "digest error", "\(error)")
                #expect(try await disk.waitForPath(0, .activeOptimized))
                try await load.proceed(100)
            }
            try await load.stop()
            #expect(try await disk.paths[1].errors == 0)
            expectClean(load)
            try await load.verifyDisk()
            try load.verify(file: server.backingFile)
            expectClean(load)
        }
    }

    @Test func aPDUOfAbsurdLengthInFullFlightCostsThePathOnly() async throws {
        let server = try TgtServer.withFile(portalCount: 2, in: directory)
        let link = try FaultyLink(to: server.portals[0])
        var setup = DiskSetup(server)
        setup.paths[0] = .init(target: server.targetName, portal: link.portal)
        setup.timers["path-recovery-interval"] = "300ms"
        setup.timers["path-recovery-interval-maximum"] = "300ms"
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            // Data-In with 16 MiB of data and 1020 bytes of additional headers.
            var header = [UInt8](repeating: 0, count: 48)
            header[0] = 0x25
            header.replaceSubrange(4...7, with: [0xFF, 0xFF, 0xFF, 0xFF])
            link.inject(header, .fromTarget)
            #expect(try await disk.waitForPath(0, .failed))
            let error = try #require(try await disk.paths[0].lastError)
            print("absurd length in full flight: \(error.reason) (\(error.detail ?? ""))")
            #expect(error.reason == "protocol error")
            let load = VerifiedLoad(disk)
            try await load.run(requestCount: 200)
            expectClean(load)
            #expect(try await disk.waitForPath(0, .activeOptimized))
        }
    }

    // MARK: Other units

    /// - Parameter withNAA: whether page 83h says more than tgtd's default, which is the same for unrelated units.
    private func server(
        _ serial: String, name: String, byteCount: UInt64 = 4 << 20, withNAA: Bool = true,
        portals: [LoopbackPortal]? = nil
    ) throws -> TgtServer {
        let unit = TgtConfiguration.LogicalUnit(
            backing: .file(path: directory.file("\(serial)-\(byteCount).img"), byteCount: byteCount),
            scsiID: withNAA ? "6001405\(String(repeating: "0", count: 20))\(serial)" : nil, serial: serial)
        return try TgtServer(
            TgtConfiguration(
                portals: portals ?? LoopbackPortal.unused(count: 1), targetName: name, logicalUnits: [unit]))
    }

    private func isUntouched(_ server: TgtServer) throws -> Bool {
        let bytes = try #require(FileManager.default.contents(atPath: server.backingFile))
        return try server.writeCommandCount() == 0 && bytes.allSatisfy { $0 == 0 }
    }

    @Test(arguments: [nil, "600140500000000000000000000b0002"])
    func twoUnitsAsPathsOfOneAreRefusedAndNamed(pinned: String?) async throws {
        let units = try [
            server("a0001", name: "iqn.2026-11.org.example:array-1"),
            server("b0002", name: "iqn.2026-11.org.example:array-2"),
        ]
        var setup = DiskSetup(units[0], units[1])
        for index in 0..<2 { setup.paths[index].keys = "lun: 1" }
        setup.identity = pinned.map { "naa.\($0)" }
        try await setup.withDisk(in: directory) { disk in
            #expect(try await eventually { try await disk.paths.contains { $0.state == .refused } })
            let paths = try await disk.paths
            let refused = try #require(paths.firstIndex { $0.state == .refused })
            if pinned != nil { #expect(refused == 0) }
            #expect(paths[1 - refused].state == .activeOptimized)
            let words = try #require(paths[refused].lastError?.detail)
            print("two units as one: \(paths[refused].id): \(words)")
            #expect(words.contains("a0001") && words.contains("b0002"))
            let load = VerifiedLoad(disk, .init(blockCount: 512, writePercent: 100))
            try await load.run(requestCount: 500)
            expectClean(load)
            #expect(try isUntouched(units[refused]))
            #expect(try units[1 - refused].writeCommandCount() == 500)
            #expect(try await disk.paths.map(\.state) == paths.map(\.state))
        }
    }

    /// As tgtd makes them where nobody configures an identity: alike but for the serial number.
    @Test func twoUnitsThatDifferInSerialNumberOnlyAreRefusedAndNamed() async throws {
        let units = try [
            server("a0001", name: "iqn.2026-11.org.example:array-1", withNAA: false),
            server("b0002", name: "iqn.2026-11.org.example:array-2", withNAA: false),
        ]
        var setup = DiskSetup(units[0], units[1])
        for index in 0..<2 { setup.paths[index].keys = "lun: 1" }
        setup.identity = nil
        try await setup.withDisk(in: directory) { disk in
            #expect(try await eventually { try await disk.paths.contains { $0.state == .refused } })
            let refused = try #require(try await disk.paths.firstIndex { $0.state == .refused })
            let words = try #require(try await disk.paths[refused].lastError?.detail)
            #expect(words.contains("a0001") && words.contains("b0002"), "\(words)")
            let load = VerifiedLoad(disk, .init(blockCount: 512, writePercent: 100))
            try await load.run(requestCount: 100)
            expectClean(load)
            #expect(try isUntouched(units[refused]))
        }
    }

    @Test func aUnitOfAnotherSizeUnderTheSameIdentityIsRefused() async throws {
        let units = try [
            server("a0001", name: "iqn.2026-11.org.example:array-1"),
            server("a0001", name: "iqn.2026-11.org.example:array-2", byteCount: 8 << 20),
        ]
        var setup = DiskSetup(units[0], units[1])
        for index in 0..<2 { setup.paths[index].keys = "lun: 1" }
        setup.identity = nil
        try await setup.withDisk(in: directory) { disk in
            #expect(try await eventually { try await disk.paths.contains { $0.state == .refused } })
            let words = try #require(try await disk.paths.first { $0.state == .refused }?.lastError?.detail)
            #expect(words.contains("8192") && words.contains("16384"), "\(words)")
        }
    }

    /// Swapped under us while we were away: never a write.
    @Test func aUnitThatWasSwappedWhileItsTargetWasDownIsRefused() async throws {
        let first = try server("a0001", name: "iqn.2026-11.org.example:array-1")
        let second = try server("a0001", name: "iqn.2026-11.org.example:array-2")
        var setup = DiskSetup(first, second)
        for index in 0..<2 { setup.paths[index].keys = "lun: 1" }
        setup.identity = nil
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            let load = VerifiedLoad(disk, .init(blockCount: 512, writePercent: 100))
            load.start()
            try await load.proceed(200)
            first.kill9()
            #expect(try await disk.waitForPath(0, .failed))
            let other = try server(
                "b0002", name: first.targetName, portals: first.portals)
            #expect(try await disk.waitForPath(0, .refused))
            let words = try #require(try await disk.paths[0].lastError?.detail)
            #expect(words.contains("a0001") && words.contains("b0002"), "\(words)")
            // Its own unit comes back.
            #expect(try isUntouched(other))
            other.kill9()
            try first.restart()
            #expect(try await disk.waitForPath(0, .activeOptimized))
            try await load.proceed(200)
            try await load.stop()
            expectClean(load)
        }
    }
}
