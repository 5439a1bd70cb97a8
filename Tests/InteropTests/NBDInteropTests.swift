import Foundation
import MPIO
import Testing
import TestSupport

/// `mpio hold --nbd`, and the clients that people have: libnbd's, QEMU's, fio.
@Suite(.serialized)
struct NBDInteropTests {
    let directory: TemporaryDirectory
    /// No other process on this machine holds a LUN of this name.
    let name = "nbd-\(UInt32.random(in: 0 ... .max))"

    init() throws { directory = try TemporaryDirectory("nbd") }

    /// `MPIO_PROGRAM` names another build of it.
    static let program = ProcessInfo.processInfo.environment["MPIO_PROGRAM"]
        ?? URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent(".build/debug/mpio").path

    private var socketPath: String { directory.file("s") }
    private var uri: String { "nbd+unix:///\(name)?socket=\(socketPath)" }
    private var log: String { (try? String(contentsOfFile: directory.file("hold.log"), encoding: .utf8)) ?? "" }

    /// Starts a holder, and waits until it says that the LUN is exported.
    private func hold(_ servers: [TgtServer], _ arguments: [String] = []) async throws -> ChildProcess {
        var setup = DiskSetup(servers)
        setup.timers["silence-timeout"] = "1s"
        try directory.file("mpio.yaml", contents: Array(setup.yaml.replacing("- name: disk", with: "- name: \(name)").utf8))
        let child = try ChildProcess(
            executable: Self.program, arguments: ["hold", "--nbd", "unix:\(socketPath)"] + arguments,
            environment: ["XDG_RUNTIME_DIR": directory.path, "MPIO_CONFIG": directory.file("mpio.yaml")],
            standardError: .file(directory.file("hold.log")))
        #expect(try await eventually { log.contains(uri) || !child.isRunning }, "\(log)")
        #expect(child.isRunning, "\(log)")
        return child
    }

    /// SIGTERM: it logs out, takes its socket away, and ends with 0.
    private func end(_ child: ChildProcess, _ servers: [TgtServer]) async throws {
        child.send(signal: SIGTERM)
        #expect(child.wait(timeout: .seconds(10)) == .exited(0), "\(log)")
        #expect(access(socketPath, F_OK) != 0)
        #expect(try await eventually { try servers.allSatisfy { try $0.sessions().isEmpty } })
    }

    private func image(_ megabytes: Int) throws -> String {
        var bytes = [UInt8](repeating: 0, count: megabytes << 20)
        // A third is holes, as in most images.
        for index in bytes.indices where index >> 20 % 3 != 1 { bytes[index] = UInt8(truncatingIfNeeded: index &* 2_654_435_761 >> 13) }
        return try directory.file("source.img", contents: bytes)
    }

    @Test func theExportIsWhatTheLUNIs() async throws {
        let server = try TgtServer.withFile(byteCount: 16 << 20, portalCount: 2, in: directory)
        let child = try await hold([server], ["--nbd", "tcp:127.0.0.1:0"])
        let tcp = try #require(log.firstMatch(of: /nbd:\/\/127\.0\.0\.1:[0-9]+\//)).output
        for uri in [uri, "\(tcp)\(name)", "nbd+unix://?socket=\(socketPath)"] {
            let told = try await CommandRunner.require("nbdinfo", ["--json", uri]).standardOutput
            for line in [
                "\"export-name\": \"\(name)\"", "\"export-size\": 16777216", "\"is_read_only\": false", "\"can_flush\": true", "\"can_fua\": true",
                "\"can_multi_conn\": true", "\"can_zero\": true", "\"can_cache\": true", "\"can_df\": true", "\"block_size_minimum\": 512",
                "\"block_size_preferred\": 4096", "\"block_size_maximum\": 33554432", "\"structured\": true", "\"TLS\": false",
            ] { #expect(told.contains(line), "\(uri): \(line)\n\(told)") }
        }
        #expect(try await CommandRunner.require("nbdinfo", ["--list", "nbd+unix://?socket=\(socketPath)"]).standardOutput.contains("export=\"\(name)\""))
        let wrong = try await CommandRunner.run("nbdinfo", ["nbd+unix:///nobody?socket=\(socketPath)"])
        #expect(!wrong.succeeded && wrong.standardError.contains("nobody"), "\(wrong.standardError)")
        #expect(try await CommandRunner.run("nbdinfo", ["nbds+unix:///\(name)?socket=\(socketPath)"]).succeeded == false, "no TLS")

        // A second one on the same socket is told why not.
        let second = try await CommandRunner.run(
            Self.program, ["hold", "--nbd", "unix:\(socketPath)"],
            environment: ["XDG_RUNTIME_DIR": directory.path, "MPIO_CONFIG": directory.file("mpio.yaml")])
        #expect(second.exitStatus == 1 && second.standardError.contains("another process listens there"), "\(second.standardError)")
        try await end(child, [server])
    }

    @Test func copiesInAndOutAreIdentical() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 2, in: directory)
        let child = try await hold([server])
        let source = try image(8)
        try await CommandRunner.require("nbdcopy", ["--flush", "--connections=4", source, uri])
        #expect(FileManager.default.contentsEqual(atPath: source, andPath: server.backingFile))
        try await CommandRunner.require("nbdcopy", [uri, directory.file("out.img")])
        #expect(FileManager.default.contentsEqual(atPath: source, andPath: directory.file("out.img")))

        // The other way round, so that nothing is left of the first.
        let bytes = try #require(FileManager.default.contents(atPath: source)).reversed()
        let other = try directory.file("other.img", contents: Array(bytes))
        try await CommandRunner.require("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", other, uri])
        try await CommandRunner.require("qemu-img", ["compare", "-f", "raw", "-F", "raw", other, uri])
        #expect(FileManager.default.contentsEqual(atPath: other, andPath: server.backingFile))
        try await CommandRunner.require("qemu-img", ["convert", "-f", "raw", "-O", "raw", uri, directory.file("back.img")])
        #expect(FileManager.default.contentsEqual(atPath: other, andPath: directory.file("back.img")))
        try await CommandRunner.require(
            "qemu-io", ["-f", "raw", "-c", "write -P 7 -f 4096 65536", "-c", "write -z 8192 4096", "-c", "flush", "-c", "read -P 0 8192 4096", "-c", "read -P 7 4096 4096", uri])
        try await end(child, [server])
    }

    /// An ext4 file system written through the export is one in the array's own file.
    @Test func aFileSystemArrivesWhole() async throws {
        let server = try TgtServer.withFile(byteCount: 32 << 20, portalCount: 2, in: directory)
        let child = try await hold([server])
        let folder = directory.file("tree")
        try FileManager.default.createDirectory(atPath: folder + "/sub", withIntermediateDirectories: true)
        let contents = Data((0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 40_503 >> 7) })
        try contents.write(to: URL(fileURLWithPath: folder + "/sub/large"))
        let image = try directory.sparseFile("ext4.img", byteCount: 32 << 20)
        try await CommandRunner.require("mkfs.ext4", ["-q", "-F", "-d", folder, image])
        try await CommandRunner.require("nbdcopy", ["--flush", image, uri])

        try await CommandRunner.require("e2fsck", ["-f", "-n", server.backingFile])
        try await CommandRunner.require("debugfs", ["-R", "dump /sub/large \(directory.file("dumped"))", server.backingFile])
        #expect(FileManager.default.contents(atPath: directory.file("dumped")) == contents)
        #expect(FileManager.default.contentsEqual(atPath: image, andPath: server.backingFile))
        try await end(child, [server])
    }

    /// One controller after the other is killed; fio, at depth 32, sees no error and reads what it wrote.
    /// `MPIO_NBD_SECONDS=60` runs it for longer.
    @Test func fioVerifiesWhileControllersDie() async throws {
        let seconds = ProcessInfo.processInfo.environment["MPIO_NBD_SECONDS"].flatMap { Int($0) } ?? 10
        let servers = try TgtServer.controllers(2, in: directory)
        let child = try await hold(servers)
        let began = ContinuousClock.now
        let fio = Task { [uri, directory] in
            try await CommandRunner.run(
                "fio",
                [
                    "--name=verify", "--ioengine=nbd", "--uri=\(uri)", "--rw=randwrite", "--bs=4k", "--size=32M", "--iodepth=32",
                    "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--verify_backlog=512", "--time_based", "--runtime=\(seconds)", "--output-format=json",
                    "--output=\(directory.file("fio.json"))",
                ], timeout: .seconds(seconds + 60))
        }
        // Five seconds apart, or twice where the run is short.
        var kills = 0
        while true {
            let next = Duration.seconds(min(5 * (kills + 1), 3 * (kills + 1) + max(0, seconds - 10)))
            guard next < .seconds(seconds - 2) else { break }
            try await Task.sleep(until: began + next, clock: .continuous)
            let server = servers[kills % 2]
            server.kill9()
            try await Task.sleep(for: .milliseconds(500))
            try server.restart()
            kills += 1
        }
        let result = try await fio.value
        #expect(result.succeeded, "\(result.standardError)\(result.standardOutput)")
        let report = try #require(FileManager.default.contents(atPath: directory.file("fio.json")))
        let numbers = try JSONDecoder().decode(FioReport.self, from: report).jobs[0]
        print("fio: \(numbers.write.total_ios) writes, \(numbers.read.total_ios) verified, \(kills) controllers killed, \(numbers.error) errors")
        #expect(numbers.error == 0 && numbers.write.total_ios > 1000 && numbers.read.total_ios > 1000 && kills >= 2)
        #expect(child.isRunning)
        #expect(try await eventually { try servers.allSatisfy { try !$0.sessions().isEmpty } }, "both are back")
        try await end(child, servers)
    }

    private struct FioReport: Decodable {
        struct Direction: Decodable { var total_ios: Int }
        struct Job: Decodable {
            var error: Int
            var read: Direction
            var write: Direction
        }
        var jobs: [Job]
    }
}
