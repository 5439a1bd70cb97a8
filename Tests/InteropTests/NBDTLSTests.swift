import Foundation
import MPIO
import NBDServer
import TLS
import Testing
import TestSupport

/// TLS by pre-shared key with the clients that people have, which have GnuTLS.
@Suite(.serialized)
struct NBDTLSTests {
    let directory: TemporaryDirectory
    let keys: String
    /// The same user with another key.
    let wrongKeys: String

    init() async throws {
        directory = try TemporaryDirectory("nbd")
        for folder in ["keys", "wrong"] {
            let path = directory.file(folder)
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
            try await CommandRunner.require("psktool", ["-u", "vm", "-p", path + "/keys.psk"])
        }
        (keys, wrongKeys) = (directory.file("keys/keys.psk"), directory.file("wrong/keys.psk"))
    }

    private func server(
        over array: EmbeddedArray, required: Bool = true, notices: Locked<[TLSFailure]> = Locked([]),
        _ change: (inout NBDServer.Options) -> Void = { _ in }
    ) async throws -> RunningServer {
        let context = try TLSServerContext(keys: try PreSharedKeys(file: keys))
        var options = NBDServer.Options()
        options.security = required ? .required(context) : .allowed(context)
        options.notice = { if case .tlsFailed(let failure, _, _) = $0 { notices.withLock { $0.append(failure) } } }
        change(&options)
        return try await RunningServer(array, options: options, in: directory)
    }

    private func uri(_ running: RunningServer, user: String = "vm", keys: String) -> String {
        "nbds+unix://\(user)@/disk?socket=\(running.path)&tls-psk-file=\(keys)"
    }

    /// What keeps GnuTLS to one version.
    private func environment(_ version: String) throws -> [String: String] {
        // It leaves 1.3 out where 1.2 is disabled and older ones are not.
        let others = version == "1.2" ? ["tls1.3"] : ["tls1.0", "tls1.1", "tls1.2"]
        let text = "[overrides]\n" + others.map { "disabled-version = \($0)\n" }.joined()
        let path = try directory.file("gnutls-\(version)", contents: Array(text.utf8))
        return ["GNUTLS_SYSTEM_PRIORITY_FILE": path]
    }

    private func image(_ megabytes: Int) throws -> String {
        let bytes = (0..<megabytes << 20).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }
        return try directory.file("source.img", contents: bytes)
    }

    @Test(arguments: ["1.2", "1.3"])
    func libnbdGetsInWithTheKey(_ version: String) async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await server(over: array)
        let environment = try environment(version)
        let uri = uri(running, keys: keys)
        let told = try await CommandRunner.require("nbdinfo", ["--json", uri], environment: environment).standardOutput
        for line in ["\"TLS\": true", "\"export-name\": \"disk\"", "\"structured\": true"] { #expect(told.contains(line), "\(line)\n\(told)") }
        #expect(try await CommandRunner.require("nbdinfo", ["--list", uri], environment: environment).standardOutput.contains("export=\"disk\""))

        let source = try image(16)
        try await CommandRunner.require("nbdcopy", ["--flush", source, uri], environment: environment)
        try await CommandRunner.require("nbdcopy", [uri, directory.file("out.img")], environment: environment)
        #expect(FileManager.default.contentsEqual(atPath: source, andPath: directory.file("out.img")))
        #expect(running.server.currentCounters().tlsFailures == 0)
        try await running.stop()
        try array.stop()
    }

    @Test(arguments: ["1.2", "1.3"])
    func qemuGetsInWithTheKey(_ version: String) async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await server(over: array)
        let object = "tls-creds-psk,id=tls0,endpoint=client,dir=\(directory.file("keys")),username=vm,priority=NORMAL:-VERS-ALL:+VERS-TLS\(version)"
        let there = "driver=nbd,server.type=unix,server.path=\(running.path),export=disk,tls-creds=tls0"
        let source = try image(16)
        try await CommandRunner.require(
            "qemu-img", ["convert", "-n", "--object", object, "--target-image-opts", "-f", "raw", source, "driver=raw,file.\(there.replacing(",", with: ",file."))"])
        try await CommandRunner.require(
            "qemu-img", ["convert", "--object", object, "--image-opts", "-O", "raw", "driver=raw,file.\(there.replacing(",", with: ",file."))", directory.file("out.img")])
        #expect(FileManager.default.contentsEqual(atPath: source, andPath: directory.file("out.img")))
        let wrong = object.replacing(directory.file("keys"), with: directory.file("wrong"))
        #expect(try await !CommandRunner.run("qemu-img", ["info", "--object", wrong, "--image-opts", there]).succeeded)
        #expect(running.server.currentCounters().tlsFailures == 1)
        try await running.stop()
        try array.stop()
    }

    @Test(arguments: ["1.2", "1.3"])
    func nobodyGetsInWithout(_ version: String) async throws {
        let array = try EmbeddedArray(tags: [1])
        let notices = Locked<[TLSFailure]>([])
        let running = try await server(over: array, notices: notices)
        let environment = try environment(version)
        let wrong = try await CommandRunner.run("nbdinfo", [uri(running, keys: wrongKeys)], environment: environment)
        #expect(!wrong.succeeded && wrong.standardError.contains("handshake"), "\(wrong.standardError)")
        #expect(notices.withLock { $0 } == [.wrongKey(user: "vm")])
        // One notice a second.
        try await Task.sleep(for: .milliseconds(1100))
        let strangers = try directory.file("strangers.psk", contents: Array("eve:\(String(repeating: "ab", count: 32))\n".utf8))
        let stranger = try await CommandRunner.run("nbdinfo", [uri(running, user: "eve", keys: strangers)], environment: environment)
        #expect(!stranger.succeeded)
        #expect(notices.withLock { $0 } == [.wrongKey(user: "vm"), .unknownUser("eve")])
        let plain = try await CommandRunner.run("nbdinfo", ["nbd+unix:///disk?socket=\(running.path)"], environment: environment)
        // How libnbd reads TLS_REQD.
        #expect(!plain.succeeded && plain.standardError.contains("not supported"), "\(plain.standardError)")
        let text = "\(notices.withLock { $0 })" + wrong.standardError
        let secret = try String(contentsOfFile: keys, encoding: .utf8).split(separator: ":")[1].prefix(16)
        #expect(!text.contains(secret))
        #expect(running.server.currentCounters().tlsFailures == 2 && running.server.currentCounters().requests == 0)
        try await running.stop()
        try array.stop()
    }

    @Test func newKeysAreForThoseWhoComeLater() async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await server(over: array)
        #expect(try await CommandRunner.run("nbdinfo", [uri(running, keys: keys)]).succeeded)
        running.server.renewKeys(try TLSServerContext(keys: try PreSharedKeys(file: wrongKeys)))
        #expect(!(try await CommandRunner.run("nbdinfo", [uri(running, keys: keys)]).succeeded))
        #expect(try await CommandRunner.run("nbdinfo", [uri(running, keys: wrongKeys)]).succeeded)
        #expect(running.server.currentCounters().tlsFailures == 1)
        try await running.stop()
        try array.stop()
    }

    @Test func whatIsAllowedIsLeftToTheClient() async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await server(over: array, required: false)
        #expect(try await CommandRunner.require("nbdinfo", ["--json", "nbd+unix:///disk?socket=\(running.path)"]).standardOutput.contains("\"TLS\": false"))
        #expect(try await CommandRunner.require("nbdinfo", ["--json", uri(running, keys: keys)]).standardOutput.contains("\"TLS\": true"))
        try await running.stop()
        try array.stop()
    }

    /// What a stranger can do before there is a key: nothing that others notice.
    @Test func hostileClientsHarmNobody() async throws {
        let array = try EmbeddedArray(tags: [1])
        let running = try await server(over: array) { $0.negotiationLimit = .milliseconds(500) }
        func starting(_ more: [UInt8] = []) throws -> NBDClient {
            let client = try NBDClient(running.path)
            _ = try client.receive(18)
            try client.send(NBDClient.number(UInt32(3)) + NBDClient.option(5) + more)
            return client
        }
        func started() throws -> NBDClient {
            let client = try starting()
            #expect(try client.receive(20).suffix(8) == NBDClient.number(UInt32(1)) + NBDClient.number(UInt32(0)), "acknowledged")
            return client
        }
        // Behind STARTTLS in one packet: an option in the clear, a greeting too early.
        #expect(try starting(NBDClient.option(7, NBDClient.number(UInt32(4)) + Array("disk".utf8) + [0, 0])).isClosed())
        #expect(try starting([22, 3, 1, 0, 100]).isClosed())
        // Instead of a greeting: the protocol in the clear, HTTP, noise, a record of the wrong kind, a message without end.
        let noise = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 9) }
        let record: [UInt8] = [22, 3, 1, 0x40, 0] + [1, 0xFF, 0xFF, 0xFF] + [UInt8](repeating: 0, count: 16_380)
        for bytes in [
            NBDClient.option(7, NBDClient.number(UInt32(4)) + Array("disk".utf8) + [0, 0]), Array("GET / HTTP/1.1\r\n\r\n".utf8), noise,
            [23, 3, 3, 0, 32] + [UInt8](repeating: 1, count: 32), (0..<20).flatMap { _ in record },
        ] {
            let client = try started()
            // It may hang up before it has it all.
            _ = try? client.send(bytes)
            #expect(client.isClosed())
        }
        // Nothing, and half a greeting: until their time is over.
        let silent = try (0..<30).map { _ in try started() }
        let half = try started()
        try half.send([22, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3])
        #expect(half.isClosed() && silent.allSatisfy { $0.isClosed() })
        #expect(try await eventually { running.server.currentCounters().connections == 0 })
        let counters = running.server.currentCounters()
        #expect(counters.lentByteCount == 0 && counters.tlsFailures >= 5 && counters.refused >= 31, "\(counters)")
        #expect(try await CommandRunner.run("nbdinfo", [uri(running, keys: keys)]).succeeded, "who has the key gets in")
        try await running.stop()
        try array.stop()
    }

    /// The command, from the file to the disk.
    @Test func theHolderTakesTheFile() async throws {
        let name = "nbd-\(UInt32.random(in: 0 ... .max))"
        let server = try TgtServer.withFile(byteCount: 16 << 20, portalCount: 2, in: directory)
        let yaml = DiskSetup([server]).yaml.replacing("- name: disk", with: "- name: \(name)")
        let environment = ["XDG_RUNTIME_DIR": directory.path, "MPIO_CONFIG": try directory.file("mpio.yaml", contents: Array(yaml.utf8))]
        let (socket, log) = (directory.file("s"), directory.file("hold.log"))
        func said() -> String { (try? String(contentsOfFile: log, encoding: .utf8)) ?? "" }

        // A file that others can read.
        #expect(chmod(keys, 0o644) == 0)
        let refused = try await CommandRunner.run(
            NBDInteropTests.program, ["hold", "--nbd", "unix:\(socket)", "--nbd-tls-psk", keys], environment: environment)
        #expect(refused.exitStatus == 1 && refused.standardError.contains("chmod 600"), "\(refused.standardError)")
        #expect(chmod(keys, 0o600) == 0)
        for arguments in [["--nbd-tls-psk", keys], ["--nbd", "unix:\(socket)", "--nbd-tls", "allow"], ["--nbd", "unix:\(socket)", "--nbd-tls-psk", keys, "--nbd-tls", "never"]] {
            let wrong = try await CommandRunner.run(NBDInteropTests.program, ["hold"] + arguments, environment: environment)
            #expect(wrong.exitStatus == 64, "\(arguments): \(wrong.standardError)")
        }

        let child = try ChildProcess(
            executable: NBDInteropTests.program,
            arguments: ["hold", "--nbd", "unix:\(socket)", "--nbd", "tcp:127.0.0.1:0", "--nbd-tls-psk", keys],
            environment: environment, standardError: .file(log))
        #expect(try await eventually(within: .seconds(60)) { said().contains("nbds+unix:///\(name)?socket=\(socket)") || !child.isRunning }, "\(said())")
        let source = try image(16)
        try await CommandRunner.require("nbdcopy", ["--flush", source, "nbds+unix://vm@/\(name)?socket=\(socket)&tls-psk-file=\(keys)"])
        #expect(FileManager.default.contentsEqual(atPath: source, andPath: server.backingFile))
        let port = try #require(said().firstMatch(of: /nbds:\/\/127\.0\.0\.1:([0-9]+)\//)).output.1
        try await CommandRunner.require("nbdcopy", ["nbds://vm@127.0.0.1:\(port)/\(name)?tls-psk-file=\(keys)", directory.file("out.img")])
        #expect(FileManager.default.contentsEqual(atPath: source, andPath: directory.file("out.img")))
        _ = try await CommandRunner.run("nbdinfo", ["nbds+unix://vm@/\(name)?socket=\(socket)&tls-psk-file=\(wrongKeys)"])
        #expect(try await eventually { said().contains("the client has another key than 'vm' has") }, "\(said())")
        #expect(!said().contains("without password"))
        child.send(signal: SIGTERM)
        #expect(child.wait(timeout: .seconds(10)) == .exited(0), "\(said())")
    }
}
