import Foundation
import MPIO
import TestSupport
import Testing

@testable import MPIOCommand

/// The service manager's side of sd_notify.
private final class NotifySocket {
    let path: String
    private let descriptor: Int32
    private var seen: [String] = []

    init(in folder: Folder) throws {
        path = folder.path + "/notify"
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        guard bound == 0 else { throw CommandFailure("bind: \(errno)") }
    }

    deinit { close(descriptor) }

    /// All that came so far.
    var messages: [String] {
        var bytes = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(descriptor, &bytes, bytes.count, 0)
            guard count > 0 else { return seen }
            seen.append(String(decoding: bytes[..<count], as: UTF8.self))
        }
    }
}

@Suite(.serialized) struct HoldServiceTests {
    @Test func theServiceManagerIsToldOfEveryTurn() async throws {
        let array = try HeldArray()
        let notify = try NotifySocket(in: array.folder)
        try await array.hold(["--log-format", "journal"], environment: ["NOTIFY_SOCKET": notify.path, "WATCHDOG_USEC": "400000"])
        let holder = try #require(array.holder)
        #expect(try await eventually(within: .seconds(60)) { notify.messages.contains("READY=1") })
        #expect(try await eventually(within: .seconds(60)) { notify.messages.contains("STATUS=vm-store optimal") }, "\(notify.messages)")
        #expect(try await eventually(within: .seconds(60)) { notify.messages.filter { $0 == "WATCHDOG=1" }.count > 3 })

        try array.write(array.policy(used: 3, lun: "    policy: LB\n"))
        holder.send(signal: SIGHUP)
        #expect(try await eventually(within: .seconds(60)) { try await array.paths().count == 3 })
        let reloading = try #require(notify.messages.firstIndex { $0.hasPrefix("RELOADING=1\nMONOTONIC_USEC=") }, "\(notify.messages)")
        #expect(try await eventually(within: .seconds(60)) { notify.messages[reloading...].contains("READY=1") })
        let moment = Int64(notify.messages[reloading].split(separator: "=").last ?? "")
        #expect(moment.map { $0 > 0 } == true)

        // A bad file is said, and changes nothing.
        try array.write("nonsense: [\n")
        holder.send(signal: SIGHUP)
        #expect(try await eventually(within: .seconds(60)) { array.log.contains("<3>") && array.log.contains("nothing was changed") }, "\(array.log)")
        #expect(try await array.paths().count == 3)

        // The socket takes only so many messages that nobody reads.
        _ = notify.messages
        holder.send(signal: SIGTERM)
        #expect(try await eventually { _ = notify.messages; return holder.poll() != nil }, "\(array.log)")
        #expect(holder.poll() == .exited(0), "\(array.log)")
        #expect(notify.messages.contains("STOPPING=1"))
        #expect(array.log.split(separator: "\n").allSatisfy { $0.wholeMatch(of: /<[2-7]>.*/) != nil }, "\(array.log)")
        #expect(try await array.events(afterEnd: true).isEmpty)
    }

    /// The policy file's default for a logout's answer is five seconds; twenty would be a login or an opening waited for as well.
    @Test func aStoppedTargetDoesNotHoldUpTheEnd() async throws {
        let array = try HeldArray()
        try array.write(array.policy(used: 2, lun: "    timers: {login-timeout: 1s}\n"))
        try await array.hold()
        array.target.process.send(signal: SIGSTOP)
        defer { array.target.process.send(signal: SIGCONT) }
        let started = ContinuousClock.now
        array.holder?.send(signal: SIGINT)
        #expect(array.holder?.wait(timeout: .seconds(30)) == .exited(0), "\(array.log)")
        #expect(ContinuousClock.now - started < .seconds(15))
    }

    @Test func aLUNThatIsBeingOpenedDoesNotHoldUpTheEnd() async throws {
        let array = try HeldArray()
        array.target.process.send(signal: SIGSTOP)
        defer { array.target.process.send(signal: SIGCONT) }
        try array.write(array.policy(used: 2, lun: "    timers: {login-timeout: 10m}\n"))
        try await array.hold()
        #expect(try await eventually(within: .seconds(60)) { try await array.paths().count == 2 })
        array.holder?.send(signal: SIGINT)
        // Not for the twenty minutes that an opening may take by these timers.
        #expect(array.holder?.wait(timeout: .seconds(60)) == .exited(0), "\(array.log)")
    }

    // MARK: Metrics

    private func ask(_ address: MetricsAddress, _ request: String, patience: Int = 8) throws -> String {
        let client = try MetricsClient(address)
        client.send(request)
        return client.receiveAll(seconds: patience)
    }

    @Test func metricsAreServedOverBothKindsOfSocket() async throws {
        let array = try HeldArray()
        let path = array.folder.path + "/metrics.sock"
        try await array.hold(["--metrics", "unix:\(path)"])
        let address = try #require(MetricsAddress(argument: "unix:\(path)"))
        let answer = try ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"))
        #expect(answer.contains("mpio_lun_state{lun=\"vm-store\"") && answer.hasSuffix("# EOF\n"))
        var status = stat()
        #expect(lstat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        array.holder?.send(signal: SIGTERM)
        #expect(array.holder?.wait(timeout: .seconds(10)) == .exited(0))
        #expect(access(path, F_OK) != 0)
    }

    @Test func requestsThatAreNoneAreAnsweredAndDropped() throws {
        let server = try MetricsServer(#require(MetricsAddress(argument: "tcp:127.0.0.1:0")), patience: .milliseconds(300)) { "# EOF\n" }
        defer { server.stop() }
        #expect(try ask(server.address, "GET /metrics HTTP/1.0\n\n").hasSuffix("\r\n\r\n# EOF\n"))
        #expect(try ask(server.address, "HEAD /metrics HTTP/1.1\r\n\r\n").hasSuffix("Connection: close\r\n\r\n"))
        #expect(try ask(server.address, "GET / HTTP/1.1\r\n\r\n").hasPrefix("HTTP/1.1 404"))
        #expect(try ask(server.address, "POST /metrics HTTP/1.1\r\n\r\n").hasPrefix("HTTP/1.1 405"))
        #expect(try ask(server.address, "garbage\r\n\r\n").hasPrefix("HTTP/1.1 400"))
        #expect(try ask(server.address, "GET /metrics HTTP/1.1\r\nX: " + String(repeating: "x", count: 100_000)).hasPrefix("HTTP/1.1 431"))
        // Half a request, and nothing at all.
        let started = ContinuousClock.now
        #expect(try ask(server.address, "GET /met") == "" && ask(server.address, "") == "")
        #expect(ContinuousClock.now - started < .seconds(5))
    }

    @Test func manyClientsThatSayNothingKeepNobodyOut() throws {
        let server = try MetricsServer(#require(MetricsAddress(argument: "tcp:127.0.0.1:0")), patience: .milliseconds(300)) { "# EOF\n" }
        defer { server.stop() }
        let idle = try (0..<30).map { _ in try MetricsClient(server.address) }
        #expect(try ask(server.address, "GET /metrics HTTP/1.1\r\n\r\n").hasSuffix("# EOF\n"))
        withExtendedLifetime(idle) {}
    }

    @Test func floodsLeaveRoomForTheNextOne() throws {
        let folder = Folder()
        let server = try MetricsServer(.unix(path: folder.path + "/m"), patience: .milliseconds(300)) { "# EOF\n" }
        defer { server.stop() }
        // A gibibyte, if anybody took it for so long.
        let started = ContinuousClock.now
        let endless = try MetricsClient(server.address)
        let chunk = String(repeating: "x", count: 1 << 20)
        for _ in 0..<1024 where ContinuousClock.now - started < .seconds(20) {
            guard endless.send(chunk) else { break }
        }
        #expect(ContinuousClock.now - started < .seconds(20), "it is dropped, or all of it was thrown away")
        for _ in 0..<10_000 { _ = try MetricsClient(server.address) }
        #expect(try ask(server.address, "GET /metrics HTTP/1.1\r\n\r\n").hasSuffix("# EOF\n"))
    }

    @Test(arguments: ["", "tcp:", "tcp:127.0.0.1", "tcp:host:80", "tcp:127.0.0.1:99999", "unix:", "127.0.0.1:80", "tcp:::1:80"])
    func anAddressThatIsNoneIsRefused(_ text: String) { #expect(MetricsAddress(argument: text) == nil) }

    @Test func addressesAreWrittenAsTheyAreRead() {
        for text in ["tcp:127.0.0.1:9464", "tcp:[::1]:9464", "unix:/run/x.sock"] {
            #expect(MetricsAddress(argument: text)?.description == text)
        }
    }

    @Test func whatADeviceSaysCanNotFakeALogLine() {
        #expect(StandardErrorLog.line(.error, "a\n<0>b\u{1B}[2J", .journal) == "<3>a; <0>b?[2J\n")
        #expect(StandardErrorLog.line(.warning, "x", .text) == "warning: x\n" && StandardErrorLog.line(.info, "x", .text) == "x\n")
    }
}

extension HeldArray {
    /// Nobody holds anything any more.
    func events(afterEnd: Bool) async throws -> [EventRecord] {
        try await run("events", "--json").exitStatus == 1 ? [] : try await events()
    }
}

/// A client of the metrics server.
private final class MetricsClient {
    private let descriptor: Int32

    init(_ address: MetricsAddress) throws {
        switch address {
        case .unix(let path):
            descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            var name = sockaddr_un()
            name.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: path.utf8) }
            try Self.check(withUnsafePointer(to: &name) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
            })
        case .tcp(_, let port):
            descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var name = sockaddr_in()
            name.sin_family = sa_family_t(AF_INET)
            name.sin_port = port.bigEndian
            inet_pton(AF_INET, "127.0.0.1", &name.sin_addr)
            try Self.check(withUnsafePointer(to: &name) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
            })
        }
    }

    private static func check(_ result: Int32) throws {
        if result != 0 { throw CommandFailure("connect: \(errno)") }
    }

    deinit { close(descriptor) }

    /// False where not all of it was taken.
    @discardableResult
    func send(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        return Foundation.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count
    }

    func receiveAll(seconds: Int) -> String {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while poll(&entry, 1, Int32(seconds * 1000)) > 0 {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
