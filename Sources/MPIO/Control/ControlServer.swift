import Foundation

/// Listens on a control socket and hands requests to a ``ControlHandler``, on a thread of its own: the reactor
/// that carries I/O never sees a client, however slow or hostile.
///
/// What a client can take is bounded: 64 KiB of one line, one request at a time, ``maximumClientCount`` connections of
/// which the one idle for longest makes room, and a time limit (`stallLimit`) for half a request or an answer that is not read.
public final class ControlServer: Sendable {
    /// Where it listens.
    public let path: String
    private let loop: ControlServerLoop

    /// A line longer than this is refused, and its client let go.
    public static var maximumLineByteCount: Int { 65_536 }
    /// With more clients, the one that was idle for longest makes room.
    public static var maximumClientCount: Int { 64 }

    /// Listens in `directory`, which is made where it is missing, as `PID-N.sock`, mode 0600.
    /// `stallLimit` is how long a client may take over half a request or an unread answer.
    public convenience init(
        handler: any ControlHandler, directory: String = RuntimeDirectory.defaultPath(), stallLimit: Duration = .seconds(5)
    ) throws(ControlSocketError) {
        try self.init(lines: HolderLines(handler), suffix: Self.holderSuffix, directory: directory, stallLimit: stallLimit)
    }

    /// How the sockets' names end of processes that hold LUNs.
    package static let holderSuffix = ".sock"

    /// For another language of lines; `suffix` tells its sockets from those of holders.
    package init(
        lines: any ControlLines, suffix: String, directory: String = RuntimeDirectory.defaultPath(),
        stallLimit: Duration = .seconds(5)
    ) throws(ControlSocketError) {
        do throws(RuntimeDirectoryError) {
            try RuntimeDirectory.prepare(directory)
        } catch {
            throw .directory(error)
        }
        let (listener, path) = try Self.listen(in: directory, suffix: suffix)
        var wake: [Int32] = [-1, -1]
        guard pipe2(&wake, O_CLOEXEC) == 0 else {
            let code = errno
            close(listener)
            unlink(path)
            throw .system(operation: "pipe2", code: code)
        }
        self.path = path
        loop = ControlServerLoop(listener: listener, wake: wake[0], waker: wake[1], lines: lines, stallLimit: stallLimit)
        loop.start()
    }

    deinit { stop() }

    /// Removes the socket, drops every client and waits for the request under way, if any. Not from the handler.
    public func stop() {
        unlink(path)
        loop.stop()
    }

    /// Bound and listening under a name that no client looks for, then renamed: so a socket that clients find and that
    /// refuses them is a dead process's, never one that is about to listen.
    private static func listen(in directory: String, suffix: String) throws(ControlSocketError) -> (Int32, String) {
        let descriptor = try UnixSocket.make()
        func fail(_ operation: String) -> ControlSocketError {
            let error = ControlSocketError.system(operation: operation, code: errno)
            close(descriptor)
            return error
        }
        let hidden = "\(directory)/.\(getpid())-\(String(UInt32.random(in: 0 ... .max), radix: 16))"
        let bound: Int32
        do throws(ControlSocketError) {
            bound = try UnixSocket.bind(descriptor, to: hidden)
        } catch {
            close(descriptor)
            throw error
        }
        guard bound == 0 else {
            close(descriptor)
            throw .system(operation: "bind", code: bound)
        }
        defer { unlink(hidden) }
        guard chmod(hidden, 0o600) == 0 else { throw fail("chmod") }
        guard Foundation.listen(descriptor, 64) == 0 else { throw fail("listen") }
        for number in 0..<10_000 {
            // link(2), unlike rename(2), never takes the name of a live socket.
            let path = "\(directory)/\(getpid())-\(number)\(suffix)"
            if link(hidden, path) == 0 { return (descriptor, path) }
            guard errno == EEXIST else { throw fail("link") }
            // A dead process had our process id.
            if ControlClient.removeIfStale(path), link(hidden, path) == 0 { return (descriptor, path) }
        }
        throw fail("link")
    }
}

/// Answers lines. Called on the control server's thread, one request at a time.
package protocol ControlLines: AnyObject, Sendable {
    /// One line of JSON for one line; without its end, both.
    func answer(to line: [UInt8]) -> [UInt8]
    /// The same, where it matters who asks.
    func answer(to line: [UInt8], from peer: () -> ChangeActor) -> [UInt8]
}

extension ControlLines {
    package func answer(to line: [UInt8], from peer: () -> ChangeActor) -> [UInt8] { answer(to: line) }
}

/// The language of ``ControlRequest`` and ``ControlResponse``.
private final class HolderLines: ControlLines {
    private let handler: any ControlHandler
    init(_ handler: any ControlHandler) { self.handler = handler }

    func answer(to line: [UInt8]) -> [UInt8] { answer(to: line) { ChangeActor.own("") } }

    func answer(to line: [UInt8], from peer: () -> ChangeActor) -> [UInt8] {
        let request: ControlRequest
        do {
            request = try JSONDecoder().decode(ControlRequest.self, from: Data(line))
        } catch {
            return ControlServer.encode(
                ControlResponse.failed(ControlFailure(.malformed, "not a request: one JSON object per line, with a 'request'")))
        }
        return ControlServer.encode(handler.handle(request, from: request.isChange ? peer() : nil))
    }
}

extension ControlServer {
    /// An answer as JSON, without the line's end.
    package static func encode(_ response: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return Array(try encoder.encode(response))
        } catch {
            // Infinite or NaN numbers, which JSON does not have.
            return Array(#"{"error":{"code":"unavailable","message":"the answer can't be written as JSON"}}"#.utf8)
        }
    }
}

/// The thread's side of a ``ControlServer``.
private final class ControlServerLoop: @unchecked Sendable {
    // Everything but `waker` and `finished` belongs to the thread once it was started.
    private let listener: Int32
    private let wake: Int32
    private let waker: Int32
    private let lines: any ControlLines
    private let stallLimit: Duration
    private var clients: [Client] = []
    private let finished = DispatchSemaphore(value: 0)
    private let stopLock = NSLock()
    private var isStopped = false

    private struct Client {
        var descriptor: Int32
        var input: [UInt8] = []
        var output: [UInt8] = []
        var sentCount = 0
        var lastActivity: ContinuousClock.Instant
        var closesAfterOutput = false

        var isBusy: Bool { !output.isEmpty || !input.isEmpty }
    }

    init(listener: Int32, wake: Int32, waker: Int32, lines: any ControlLines, stallLimit: Duration) {
        self.listener = listener
        self.wake = wake
        self.waker = waker
        self.lines = lines
        self.stallLimit = stallLimit
    }

    func start() {
        let thread = Thread { self.run() }
        thread.name = "mpio-control"
        thread.start()
    }

    func stop() {
        stopLock.lock()
        defer { stopLock.unlock() }
        guard !isStopped else { return }
        isStopped = true
        // The thread sees the pipe's end.
        close(waker)
        finished.wait()
        close(wake)
    }

    private func run() {
        var acceptsAgainAt: ContinuousClock.Instant?
        while true {
            var polls = [pollfd(fd: wake, events: Int16(POLLIN), revents: 0)]
            let now = ContinuousClock.now
            if let moment = acceptsAgainAt, moment <= now { acceptsAgainAt = nil }
            polls.append(pollfd(fd: acceptsAgainAt == nil ? listener : -1, events: Int16(POLLIN), revents: 0))
            for client in clients {
                // One request at a time: while an answer is unread nothing more is taken.
                polls.append(pollfd(fd: client.descriptor, events: Int16(client.output.isEmpty ? POLLIN : POLLOUT), revents: 0))
            }
            let count = poll(&polls, nfds_t(polls.count), timeoutMilliseconds(now, acceptsAgainAt))
            if count < 0 && errno != EINTR { break }
            if polls[0].revents != 0 { break }
            for index in clients.indices where polls[index + 2].revents != 0 { serve(&clients[index]) }
            dropStalled()
            if polls[1].revents != 0, !accept() {
                // Out of descriptors: the waiting connection would wake us again and again.
                acceptsAgainAt = ContinuousClock.now + .milliseconds(100)
            }
        }
        for client in clients where client.descriptor >= 0 { close(client.descriptor) }
        clients.removeAll()
        close(listener)
        finished.signal()
    }

    private func timeoutMilliseconds(_ now: ContinuousClock.Instant, _ acceptsAgainAt: ContinuousClock.Instant?) -> Int32 {
        var deadline = acceptsAgainAt
        for client in clients where client.isBusy {
            let limit = client.lastActivity + stallLimit
            deadline = min(deadline ?? limit, limit)
        }
        guard let deadline else { return -1 }
        let wait = deadline - now
        return wait <= .zero ? 0 : Int32(clamping: wait.components.seconds * 1000 + wait.components.attoseconds / 1_000_000_000_000_000 + 1)
    }

    /// False where the process has no descriptor left.
    private func accept() -> Bool {
        // Bounded, so that a flood of connections can't keep the clients that are there waiting.
        for _ in 0..<16 {
            let descriptor = accept4(listener, __SOCKADDR_ARG(__sockaddr__: nil), nil, Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue))
            if descriptor < 0 { return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM }
            guard UnixSocket.isTrusted(descriptor) else {
                close(descriptor)
                continue
            }
            if clients.count >= ControlServer.maximumClientCount,
                let idlest = clients.indices.min(by: { clients[$0].lastActivity < clients[$1].lastActivity })
            {
                close(clients.remove(at: idlest).descriptor)
            }
            clients.append(Client(descriptor: descriptor, lastActivity: .now))
        }
        return true
    }

    private func dropStalled() {
        let now = ContinuousClock.now
        clients.removeAll { client in
            if client.descriptor >= 0 {
                guard client.isBusy, now - client.lastActivity >= stallLimit else { return false }
                close(client.descriptor)
            }
            return true
        }
    }

    private func serve(_ client: inout Client) {
        if client.output.isEmpty { receive(&client) } else { send(&client) }
        // Answer what came in one piece, as far as the client takes the answers.
        while client.descriptor >= 0, client.output.isEmpty, !client.closesAfterOutput, let line = nextLine(&client) {
            let descriptor = client.descriptor
            client.output = lines.answer(to: line) { Self.actor(descriptor) } + [0x0A]
            send(&client)
        }
        if client.descriptor >= 0, client.output.isEmpty, client.input.count > ControlServer.maximumLineByteCount {
            refuse(&client)
        }
        if client.closesAfterOutput && client.output.isEmpty { drop(&client) }
    }

    /// Who is at the other end. The process that connected may have ended since; its number is what the kernel noted.
    private static func actor(_ descriptor: Int32) -> ChangeActor {
        guard let peer = UnixSocket.peer(descriptor) else { return ChangeActor(pid: 0, uid: .max, command: "?") }
        return ChangeActor(pid: peer.pid, uid: peer.uid, command: ChangeActor.command(ofProcess: peer.pid))
    }

    private func refuse(_ client: inout Client) {
        client.input.removeAll()
        client.closesAfterOutput = true
        let failure = ControlFailure(.tooLong, "a request is at most \(ControlServer.maximumLineByteCount) bytes")
        client.output = ControlServer.encode(ControlResponse.failed(failure)) + [0x0A]
        send(&client)
    }

    private func nextLine(_ client: inout Client) -> [UInt8]? {
        guard let end = client.input.firstIndex(of: 0x0A), end <= ControlServer.maximumLineByteCount else { return nil }
        let line = Array(client.input[..<end])
        client.input.removeSubrange(...end)
        return line
    }

    private func receive(_ client: inout Client) {
        var chunk = [UInt8](repeating: 0, count: 16_384)
        let descriptor = client.descriptor
        let count = chunk.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
        if count > 0 {
            // Only what ends a line is progress: a byte now and then keeps nobody's place.
            if client.input.isEmpty || chunk[..<count].contains(0x0A) { client.lastActivity = .now }
            client.input.append(contentsOf: chunk[..<count])
        } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
            drop(&client)
        }
    }

    private func send(_ client: inout Client) {
        while client.sentCount < client.output.count {
            let descriptor = client.descriptor
            let start = client.sentCount
            let count = client.output.withUnsafeBytes {
                Foundation.send(descriptor, $0.baseAddress! + start, $0.count - start, Int32(MSG_NOSIGNAL))
            }
            if count > 0 {
                client.sentCount += count
                client.lastActivity = .now
            } else if errno == EINTR {
                continue
            } else {
                if errno != EAGAIN { drop(&client) }
                return
            }
        }
        client.output.removeAll()
        client.sentCount = 0
    }

    /// Closes; ``dropStalled()`` takes it out of the list.
    private func drop(_ client: inout Client) {
        if client.descriptor >= 0 { close(client.descriptor) }
        client.descriptor = -1
        client.input.removeAll()
        client.output.removeAll()
    }
}
