import Foundation
import TestSupport
import Testing

@testable import MPIO

private final class Recorder: ControlHandler, @unchecked Sendable {
    private let lock = NSLock()
    private var requests: [ControlRequest] = []
    let answer: ControlResponse

    init(answer: ControlResponse = .done("fine")) {
        self.answer = answer
    }

    var seen: [ControlRequest] { lock.withLock { requests } }

    func handle(_ request: ControlRequest) -> ControlResponse {
        lock.withLock { requests.append(request) }
        return answer
    }
}

/// A client without manners.
final class RawClient {
    let descriptor: Int32

    init(_ path: String) throws {
        descriptor = try UnixSocket.make()
        let code = try UnixSocket.connect(descriptor, to: path)
        guard code == 0 else { throw ControlSocketError.system(operation: "connect", code: code) }
    }

    deinit { close(descriptor) }

    /// What was taken before the other side closed, or before it took no more for a while.
    @discardableResult
    func send(_ bytes: [UInt8], patience: Int32 = 1000) -> Int {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes { Foundation.send(descriptor, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL)) }
            if count > 0 {
                sent += count
            } else {
                guard errno == EAGAIN, wait(POLLOUT, patience) else { return sent }
            }
        }
        return sent
    }

    func send(_ text: String) { send(Array(text.utf8)) }

    func wait(_ event: Int32, _ milliseconds: Int32) -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(event), revents: 0)
        return poll(&entry, 1, milliseconds) > 0
    }

    /// All until the other side closes or says nothing for two seconds; nil at the end means that it closed.
    func receiveAll() -> (text: String, closed: Bool) {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while wait(POLLIN, 20_000) {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count <= 0 { return (String(decoding: bytes, as: UTF8.self), true) }
            bytes.append(contentsOf: chunk[..<count])
        }
        return (String(decoding: bytes, as: UTF8.self), false)
    }

    func receiveLine() -> String {
        var bytes: [UInt8] = []
        var byte: UInt8 = 0
        while wait(POLLIN, 20_000), recv(descriptor, &byte, 1, 0) == 1, byte != 0x0A { bytes.append(byte) }
        return String(decoding: bytes, as: UTF8.self)
    }
}

@Suite struct ControlTests {
    static let requests: [ControlRequest] = [
        .identify, .paths(luns: []), .paths(luns: ["a", "naa.6"]), .sample(luns: []), .sample(luns: ["a"]), .policy(lun: "a"), .setPolicy(lun: "a", policy: "LQD"),
        .path(.fail, lun: "a", path: "10.0.0.1:3260"), .path(.restore, lun: "a", path: "p"), .path(.drain, lun: "a", path: "p"),
        .connection(.drain, lun: "a", path: "p", number: 2),
        .explain(lun: "a", last: nil), .explain(lun: "a", last: 5), .events(after: nil), .events(after: .max), .metrics,
        .reload(file: nil, isDryRun: true), .reload(file: "/etc/mpio.yaml", expecting: "1f", isDryRun: false),
        .edit(.setPath(lun: "a", path: "p", role: .standby)), .edit(.setPath(lun: "a", path: "p", weight: 9)),
        .edit(.addPath(lun: "a", .init(address: "10.0.0.1", source: "10.0.0.2", target: "iqn.x", role: "standby", weight: 2))),
        .edit(.removePath(lun: "a", path: "p")),
    ]

    static let responses: [ControlResponse] = [
        .holder(HolderReport(pid: 1, command: "mpio hold", luns: ["a"])),
        .paths(PathsReport(luns: [SnapshotRendererTests.sample])),
        .policy(PolicyReport(lun: "a", policy: "round-robin", options: ["switch-after": "8"])),
        .explanation(ExplanationReport(lun: "a", policy: "round-robin", next: nil, reason: "no path", paths: [.init(id: "p", isUsed: false, reason: "failed")])),
        .events([EventRecord(serial: 1, at: "2026-11-21T10:00:00.000Z", lun: "a", kind: "path-lost", message: "gone")], next: 1),
        .changes(ChangesReport(file: "/f", fingerprint: "1", isApplied: true, changes: [ConfigurationChange(lun: "a", key: "policy", old: "x", new: "y", effect: .left, note: "n")])),
        .failed(ControlFailure(.badPolicyFile, "bad", mistakes: ["f:1:1: x"])),
        .metrics("# EOF\n"), .done("drained"), .failed(ControlFailure(.noSuchLUN, "no LUN 'x'")),
    ]

    @Test func everyRequestAndResponseArrivesAsItWasSent() throws {
        let folder = TemporaryFolder()
        for response in Self.responses {
            let recorder = Recorder(answer: response)
            let server = try ControlServer(handler: recorder, directory: folder.path)
            let client = try ControlClient(path: server.path)
            for request in Self.requests { #expect(try client.request(request) == response) }
            #expect(recorder.seen == Self.requests)
            server.stop()
            #expect(access(server.path, F_OK) != 0)
        }
    }

    /// Stopped, and then let go: its name is another's by then.
    @Test func aStoppedServerLeavesTheNextOneItsName() throws {
        let folder = TemporaryFolder()
        var first: ControlServer? = try ControlServer(handler: Recorder(answer: .done("1")), directory: folder.path)
        let path = first!.path
        first!.stop()
        let second = try ControlServer(handler: Recorder(answer: .done("2")), directory: folder.path)
        #expect(second.path == path)
        first!.stop()
        first = nil
        #expect(try ControlClient(path: path).request(.identify) == .done("2"))
        second.stop()
        #expect(access(path, F_OK) != 0)
    }

    @Test func theSocketIsTheOwnersAlone() throws {
        let folder = TemporaryFolder()
        let server = try ControlServer(handler: Recorder(), directory: folder.path + "/mpio")
        var status = stat()
        #expect(lstat(server.path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        #expect(lstat(folder.path + "/mpio", &status) == 0 && status.st_mode & 0o777 == 0o700)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path + "/mpio").count == 1)
    }

    @Test func holdersAreFoundAndDeadSocketsRemoved() throws {
        let folder = TemporaryFolder()
        #expect(ControlClient.discover(directories: [folder.path, "/nonexistent"]).isEmpty)
        let first = try ControlServer(handler: Recorder(answer: .done("1")), directory: folder.path)
        let second = try ControlServer(handler: Recorder(answer: .done("2")), directory: folder.path)
        // What a killed process leaves: bound, nobody listening.
        let dead = folder.path + "/999999-0.sock"
        let descriptor = try UnixSocket.make()
        #expect(try UnixSocket.bind(descriptor, to: dead) == 0)
        close(descriptor)
        // No socket, and not ours to touch.
        try "x".write(toFile: folder.path + "/file.sock", atomically: false, encoding: .utf8)

        let found = ControlClient.discover(directories: [folder.path])
        #expect(Set(found.map(\.path)) == [first.path, second.path])
        #expect(try Set(found.map { try $0.request(.identify) }) == [.done("1"), .done("2")])
        #expect(access(dead, F_OK) != 0)
        #expect(access(folder.path + "/file.sock", F_OK) == 0)
        withExtendedLifetime((first, second)) {}
    }

    @Test func aFolderThatOthersCouldWriteIsNotRead() throws {
        let folder = TemporaryFolder()
        let server = try ControlServer(handler: Recorder(), directory: folder.path)
        #expect(chmod(folder.path, 0o722) == 0)
        #expect(ControlClient.discover(directories: [folder.path]).isEmpty)
        withExtendedLifetime(server) {}
    }

    @Test(arguments: ["garbage", "{}", "[]", "{\"request\":\"format-disk\"}", "{\"request\":\"policy\"}", "{\"request\":\"path\",\"action\":\"burn\",\"lun\":\"a\",\"path\":\"b\"}", "\u{0}\u{1}", "", String(repeating: "[", count: 60_000)])
    func garbageGetsAnErrorAndTheConnectionLivesOn(_ line: String) throws {
        let folder = TemporaryFolder()
        let server = try ControlServer(handler: Recorder(), directory: folder.path)
        let client = try RawClient(server.path)
        client.send(line + "\n")
        #expect(client.receiveLine().contains("\"code\":\"malformed\""))
        client.send("{\"request\":\"metrics\"}\n{\"request\":\"identify\"}\n")
        #expect(client.receiveLine() == "{\"done\":\"fine\"}")
        #expect(client.receiveLine() == "{\"done\":\"fine\"}")
        withExtendedLifetime(server) {}
    }

    @Test func aLineWithoutEndIsCutOffEarly() throws {
        let folder = TemporaryFolder()
        let server = try ControlServer(handler: Recorder(), directory: folder.path)
        let client = try RawClient(server.path)
        // A gibibyte would be sent, if anybody took it.
        let chunk = [UInt8](repeating: 0x41, count: 1 << 20)
        var sent = 0
        for _ in 0..<1024 {
            let taken = client.send(chunk, patience: 500)
            sent += taken
            if taken < chunk.count { break }
        }
        #expect(sent < 4 << 20, "\(sent) bytes were taken")
        #expect(try ControlClient(path: server.path).request(.metrics) == .done("fine"))
    }

    @Test func aRequestOfTheAllowedLengthIsRead() throws {
        let folder = TemporaryFolder()
        let recorder = Recorder()
        let server = try ControlServer(handler: recorder, directory: folder.path)
        let client = try ControlClient(path: server.path)
        let name = String(repeating: "x", count: 60_000)
        #expect(try client.request(.policy(lun: name)) == .done("fine"))
        #expect(recorder.seen == [.policy(lun: name)])
        let long = try client.request(.policy(lun: name + name))
        guard case .failed(let failure) = long else {
            Issue.record("\(long)")
            return
        }
        #expect(failure.code == .tooLong)
    }

    @Test func halfALineIsDroppedAfterAWhileAndHoldsUpNobody() throws {
        let folder = TemporaryFolder()
        let server = try ControlServer(handler: Recorder(), directory: folder.path, stallLimit: .seconds(4))
        let client = try RawClient(server.path)
        let idle = try RawClient(server.path)
        client.send("{\"request\":")
        let clock = ContinuousClock.now
        #expect(try ControlClient(path: server.path).request(.metrics) == .done("fine"))
        #expect(ContinuousClock.now - clock < .milliseconds(3900))
        #expect(client.receiveAll().closed)
        // Who asks nothing may stay.
        idle.send("{\"request\":\"metrics\"}\n")
        #expect(idle.receiveLine() == "{\"done\":\"fine\"}")
    }

    @Test func aClientThatReadsNothingIsDropped() throws {
        let folder = TemporaryFolder()
        let server = try ControlServer(
            handler: Recorder(answer: .metrics(String(repeating: "m", count: 4 << 20))), directory: folder.path,
            stallLimit: .milliseconds(150))
        let client = try RawClient(server.path)
        client.send(String(repeating: "{\"request\":\"metrics\"}\n", count: 100))
        #expect(client.wait(0, 20_000), "hung up, though nothing was taken")
        let (text, closed) = client.receiveAll()
        #expect(closed && text.utf8.count < 4 << 20)
    }

    @Test func aFloodOfConnectionsLeavesRoomForTheNextOne() throws {
        let folder = TemporaryFolder()
        let server = try ControlServer(handler: Recorder(), directory: folder.path)
        var flood: [RawClient] = []
        for _ in 0..<300 { if let client = try? RawClient(server.path) { flood.append(client) } }
        #expect(try ControlClient(path: server.path).request(.metrics) == .done("fine"))
        #expect(flood.count >= 64)
        flood.removeAll()
        #expect(try ControlClient(path: server.path).request(.metrics) == .done("fine"))
    }

    /// Descriptors are what the sessions need too.
    @Test func tenThousandConnectionsTakeNoMoreThanTheirShare() async throws {
        var limits = rlimit()
        #expect(getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limits) == 0)
        let folder = TemporaryFolder()
        let server = try ControlServer(handler: Recorder(), directory: folder.path)
        // The server's ends have its name; other tests open descriptors at the same time.
        let opened = {
            try String(contentsOfFile: "/proc/net/unix", encoding: .utf8).split(separator: "\n").count { $0.contains(folder.path) }
        }
        // The kernel tells them piece by piece, and forgets some while others come and go.
        #expect(try await eventually { try opened() == 1 }, "the listener")
        var made = 0
        var held: [RawClient] = []
        while made < 10_000 {
            if let client = try? RawClient(server.path) {
                held.append(client)
                made += 1
            }
            // Our own ends count as well: as many as a process may usually have.
            if held.count == 400 { held.removeAll() }
        }
        // Those that it has not accepted yet are the kernel's.
        let deadline = ContinuousClock.now + .seconds(60)
        while try opened() > 1 + ControlServer.maximumClientCount, ContinuousClock.now < deadline { usleep(10_000) }
        #expect(try opened() <= 1 + ControlServer.maximumClientCount)
        #expect(try ControlClient(path: server.path).request(.metrics) == .done("fine"))
    }

    @Test func whoIsNotKnownIsNotTrusted() throws {
        // Without a peer.
        let socket = try UnixSocket.make()
        defer { close(socket) }
        #expect(UnixSocket.peerUserID(socket) == nil || !UnixSocket.isTrusted(socket))
    }

    /// What file modes keep out is asked for again: a folder may have been opened by mistake.
    @Test(.enabled(if: Privileges.canBecomeOthers, "only root can be somebody else, to be turned away"))
    func anotherUsersProcessIsTurnedAway() async throws {
        let folder = TemporaryFolder()
        let recorder = Recorder()
        let server = try ControlServer(handler: recorder, directory: folder.path)
        func asNobody() async throws -> CommandResult {
            try await CommandRunner.run(
                "setpriv",
                [
                    "--reuid", "65534", "--regid", "65534", "--clear-groups", "perl", "-MIO::Socket::UNIX", "-e",
                    """
                    my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or exit 1;
                    syswrite $s, "{\\"request\\":\\"metrics\\"}\\n" or exit 4;
                    exit(sysread($s, my $answer, 100) ? 3 : 4);
                    """, server.path,
                ])
        }
        // The mode of the folder, and that of the socket.
        #expect(try await asNobody().exitStatus == 1)
        chmod(folder.path, 0o755)
        #expect(try await asNobody().exitStatus == 1)
        chmod(server.path, 0o666)
        // It is let in by the file system, and closed without an answer; a write to it then may end by SIGPIPE.
        let end = try await asNobody().end
        #expect(end == .exited(4) || end == .signalled(SIGPIPE), "\(end)")
        #expect(recorder.seen.isEmpty)
    }

    @Test func aHolderThatDoesNotAnswerIsNotWaitedForForever() throws {
        let folder = TemporaryFolder()
        let path = folder.path + "/1-0.sock"
        let listener = try UnixSocket.make()
        defer { close(listener) }
        #expect(try UnixSocket.bind(listener, to: path) == 0)
        #expect(listen(listener, 1) == 0)
        let client = try ControlClient(path: path, timeout: .milliseconds(100))
        #expect(throws: ControlSocketError.timedOut) { try client.request(.metrics) }
    }
}
