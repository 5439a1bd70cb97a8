import Foundation
import MPIO
import Testing
import TestSupport

/// The built `mpio`, run as an administrator runs it, against a real tgtd.
@Suite(.serialized)
struct CommandInteropTests {
    let directory: TemporaryDirectory
    /// No other process on this machine holds a LUN of this name.
    let name = "interop-\(UInt32.random(in: 0 ... .max))"

    init() throws {
        directory = try TemporaryDirectory("command")
    }

    private static let program = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent(".build/debug/mpio").path

    private var environment: [String: String] {
        ["XDG_RUNTIME_DIR": directory.path, "MPIO_CONFIG": directory.file("mpio.yaml"), "NO_COLOR": "1"]
    }

    @discardableResult
    private func mpio(_ arguments: String..., input: [UInt8]? = nil, status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation) async throws -> CommandResult {
        let result = try await CommandRunner.run(
            Self.program, arguments, environment: environment, standardInput: input, timeout: .seconds(30))
        #expect(
            result.exitStatus == status, "mpio \(arguments): \(result.end)\n\(result.standardOutput)\n\(result.standardError)",
            sourceLocation: sourceLocation)
        return result
    }

    private func writePolicy(_ setup: DiskSetup) throws {
        try directory.file("mpio.yaml", contents: Array(setup.yaml.replacing("- name: disk", with: "- name: \(name)").utf8))
    }

    private func paths(_ arguments: String..., status: Int32 = 0) async throws -> LUNSnapshot {
        let result = try await CommandRunner.run(
            Self.program, ["paths", name, "--json"] + arguments, environment: environment)
        #expect(result.exitStatus == status, "\(result.standardError)")
        let report = try JSONDecoder().decode(PathsReport.self, from: Data(result.standardOutputBytes))
        #expect(report.version == 1)
        return try #require(report.luns.first { $0.name == name })
    }

    @Test func looksAtALUNThatNobodyHolds() async throws {
        let (first, second) = try TgtServer.dualController(in: directory)
        try writePolicy(DiskSetup(first, second))
        try await mpio("check")
        let lun = try await paths("--check")
        #expect(lun.state == .optimal && lun.holder == nil && lun.paths.count == 4)
        #expect(lun.capacityBytes == 64 << 20 && lun.blockSize == 512 && lun.policy == "round-robin")
        #expect(lun.paths.allSatisfy { $0.state == .activeOptimized && $0.isid?.count == 12 && $0.tpg == 1 })
        let table = try await mpio("paths", name).standardOutput
        for portal in first.portals + second.portals { #expect(table.contains("\(portal)")) }
        // It logged out again.
        #expect(try await eventually { try first.sessions().isEmpty && second.sessions().isEmpty })

        first.kill9()
        let degraded = try await paths("--check", status: 1)
        #expect(degraded.state == .degraded)
        #expect(degraded.paths.prefix(2).allSatisfy { $0.state == .failed && $0.lastError?.reason == "connection refused" })
        second.kill9()
        #expect(try await paths("--check", status: 2).state == .failed)
        let failure = try await mpio("read", name, "--length", "4k", status: 69)
        #expect(failure.standardError.contains("\(second.portals[1])") && failure.standardError.contains("connection refused"))
    }

    @Test func blocksGoInAndOut() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, in: directory)
        try writePolicy(DiskSetup(server))
        let bytes = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 11) }
        try await mpio("write", name, "--offset", "1M", input: bytes)
        #expect(try await mpio("read", name, "--offset", "1M", "--length", "1M").standardOutputBytes == bytes)
        let file = directory.file("out.img")
        try await mpio("read", name, "--offset", "1M", "--length", "4k", "--output", file)
        #expect(FileManager.default.contents(atPath: file).map(Array.init) == Array(bytes[0..<4096]))

        // All of it, from and to files, LUN by LUN as QEMU sees it.
        let image = (0..<(8 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 40_503 >> 7) }
        let source = try directory.file("source.img", contents: image)
        try await mpio("copy", source, name, "--verify")
        try await QemuIO(server.url()).compare(with: source)
        let copy = directory.file("copy.img")
        try await mpio("copy", name, copy, "--verify")
        try await QemuIO(copy).compare(with: source)

        // What cannot be: status 64, and nothing is written.
        let writes = try server.writeCommandCount()
        try await mpio("read", name, "--offset", "100", "--length", "512", status: 64)
        try await mpio("read", name, "--offset", "8M", "--length", "512", status: 64)
        try await mpio("write", "nobody", input: bytes, status: 64)
        try await mpio("read", status: 64)
        #expect(try server.writeCommandCount() == writes)
    }

    @Test func theHolderIsAskedAndObeys() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, in: directory)
        try writePolicy(DiskSetup(server))
        // Nobody holds it: these have nobody to ask.
        try await mpio("policy", name, status: 1)
        try await mpio("path", "fail", name, "\(server.portals[0])", status: 1)

        let holder = try ChildProcess(
            executable: Self.program, arguments: ["hold"], environment: environment,
            standardError: .file(directory.file("hold.log")))
        #expect(try await eventually { (try? await paths())?.holder?.pid == holder.identifier })
        let lun = try await paths("--check")
        #expect(lun.holder?.command == "mpio hold" && lun.state == .optimal)
        // One more now and then, until the portals are proven to share a nexus.
        #expect(try await eventually { try server.sessions().count == 4 })

        let policy = try await mpio("policy", name, "--json").standardOutputBytes
        #expect(try JSONDecoder().decode(PolicyReport.self, from: Data(policy)).policy == "round-robin")
        try await mpio("policy", name, "lqd")
        #expect(try await paths().policy == "least-queue-depth")
        try await mpio("policy", name, "worst", status: 64)

        let portal = "\(server.portals[0])"
        try await mpio("path", "fail", name, portal)
        let degraded = try await paths("--check", status: 1)
        #expect(degraded.paths[0].state == .failed && degraded.paths[0].lastError?.reason == "taken out by hand")
        try await mpio("path", "restore", name, portal)
        #expect(try await eventually { try await paths().state == .optimal })
        try await mpio("path", "drain", name, portal)
        #expect(try await paths("--check", status: 1).paths[0].state == .drained)
        try await mpio("path", "restore", name, portal)
        #expect(try await eventually { try await paths().state == .optimal })
        try await mpio("path", "fail", name, "127.0.0.1:1", status: 1)

        let explanation = try await mpio("explain", name, "--json").standardOutputBytes
        #expect(try JSONDecoder().decode(ExplanationReport.self, from: Data(explanation)).next != nil)
        let events = try await mpio("events").standardOutput
        #expect(events.contains("taken out by hand") && events.contains(portal), "\(events)")
        #expect(try await mpio("metrics").standardOutput.hasSuffix("# EOF\n"))

        holder.send(signal: SIGINT)
        #expect(holder.wait(timeout: .seconds(5)) != nil)
        #expect(try await eventually { try server.sessions().isEmpty })
        #expect(try await paths().holder == nil)
    }

    @Test func measuresAndVerifies() async throws {
        let server = try TgtServer.withFile(byteCount: 32 << 20, in: directory)
        try writePolicy(DiskSetup(server))
        let output = try await mpio("bench", name, "--write", "--verify", "--time", "300ms", "--json").standardOutputBytes
        let report = try JSONDecoder().decode(BenchReport.self, from: Data(output))
        #expect(report.requests > 100 && report.errors == 0 && report.redriven == 0)
        #expect(report.longestPauseMilliseconds < 300 && report.paths.count == 4)
        #expect(report.paths.map(\.requests).reduce(0, +) >= report.requests)
    }

    @Test func aBadPolicyFileIsNamedByLineAndColumn() async throws {
        try directory.file("mpio.yaml", contents: Array("luns:\n  - name: disk\n    policy: roundrobin\n".utf8))
        let result = try await mpio("check", status: 65)
        #expect((result.standardOutput + result.standardError).contains("mpio.yaml:3:13"), "\(result)")
        try await mpio("paths", status: 65)
        try await mpio("read", "disk", "--length", "4k", status: 65)
    }

    @Test func whatIsDiscoveredOpens() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 2, in: directory)
        let policy = directory.file("mpio.yaml")
        // tgtd names only the portal that was asked.
        try await mpio("discover", "\(server.portals[0])", "\(server.portals[1])", "--write-config", policy)
        try await mpio("check")
        let result = try await mpio("paths", "--json", "--check")
        let report = try JSONDecoder().decode(PathsReport.self, from: Data(result.standardOutputBytes))
        #expect(report.luns.count == 1 && report.luns[0].paths.count == 2, "\(report)")
        #expect(report.luns.first?.capacityBytes == 8 << 20)
    }
}
