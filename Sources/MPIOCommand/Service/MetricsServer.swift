import Foundation

/// Answers `GET /metrics` over HTTP/1.1, one request to a connection, on a thread of its own.
///
/// What a client can take is bounded: ``maximumClientCount`` connections, 4 KiB of a request, and ``patience`` from the
/// first byte to the last. Whoever is slower, or sends something else, is dropped.
final class MetricsServer: Sendable {
    static let maximumClientCount = 16
    static let maximumRequestByteCount = 4096

    /// Where it listens.
    let address: MetricsAddress
    private let loop: MetricsLoop

    /// - Parameter text: called on the server's thread for each request; nil where there is nothing to say.
    init(_ address: MetricsAddress, patience: Duration = .seconds(5), text: @escaping @Sendable () -> String?) throws {
        let (listener, bound) = try address.listen()
        var wake: [Int32] = [-1, -1]
        guard pipe2(&wake, O_CLOEXEC) == 0 else {
            close(listener)
            throw CommandFailure("--metrics: pipe2: \(String(cString: strerror(errno)))")
        }
        self.address = bound
        loop = MetricsLoop(listener: listener, wake: wake[0], waker: wake[1], patience: patience, text: text)
        loop.start()
    }

    func stop() {
        if case .unix(let path) = address { unlink(path) }
        loop.stop()
    }

    /// The whole answer to a request's head.
    static func response(to head: String, text: () -> String?) -> String {
        let words = head.prefix { $0 != "\r\n" && $0 != "\n" }.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 3, words[2].hasPrefix("HTTP/1.") else { return plain("400 Bad Request", "not an HTTP request\n") }
        guard words[0] == "GET" || words[0] == "HEAD" else { return plain("405 Method Not Allowed", "only GET\n", more: "Allow: GET, HEAD\r\n") }
        let path = words[1].prefix { $0 != "?" }
        guard path == "/metrics" else { return plain("404 Not Found", "there is /metrics and nothing else\n") }
        guard let body = text() else { return plain("503 Service Unavailable", "the process is ending\n") }
        let head = answerHead("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", body.utf8.count)
        return words[0] == "HEAD" ? head : head + body
    }

    fileprivate static func plain(_ status: String, _ body: String, more: String = "") -> String {
        answerHead(status, "text/plain; charset=utf-8", body.utf8.count, more: more) + body
    }

    private static func answerHead(_ status: String, _ type: String, _ count: Int, more: String = "") -> String {
        "HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nContent-Length: \(count)\r\n\(more)Connection: close\r\n\r\n"
    }
}

/// The thread's side.
private final class MetricsLoop: @unchecked Sendable {
    private struct Client {
        var descriptor: Int32
        var deadline: ContinuousClock.Instant
        var input: [UInt8] = []
        var output: [UInt8] = []
        var sentCount = 0
        /// The answer is out; what still comes in is thrown away, so that it does not reset the connection.
        var isDone = false
    }

    private let listener: Int32
    private let wake: Int32
    private let waker: Int32
    private let patience: Duration
    private let text: @Sendable () -> String?
    private var clients: [Client] = []
    private let finished = DispatchSemaphore(value: 0)
    private let lock = NSLock()
    private var isStopped = false

    init(listener: Int32, wake: Int32, waker: Int32, patience: Duration, text: @escaping @Sendable () -> String?) {
        self.listener = listener
        self.wake = wake
        self.waker = waker
        self.patience = patience
        self.text = text
    }

    func start() {
        let thread = Thread { self.run() }
        thread.name = "mpio-metrics"
        thread.start()
    }

    func stop() {
        lock.lock()
        defer { lock.unlock() }
        guard !isStopped else { return }
        isStopped = true
        close(waker)
        finished.wait()
        close(wake)
    }

    private func run() {
        var pausesUntil: ContinuousClock.Instant?
        while true {
            let now = ContinuousClock.now
            if let until = pausesUntil, until <= now { pausesUntil = nil }
            // With all places taken the next ones wait in the kernel's queue.
            let accepts = clients.count < MetricsServer.maximumClientCount && pausesUntil == nil
            var polls = [pollfd(fd: wake, events: Int16(POLLIN), revents: 0), pollfd(fd: accepts ? listener : -1, events: Int16(POLLIN), revents: 0)]
            for client in clients {
                polls.append(pollfd(fd: client.descriptor, events: Int16(client.output.isEmpty || client.isDone ? POLLIN : POLLOUT), revents: 0))
            }
            let deadline = (clients.map(\.deadline) + [pausesUntil].compactMap { $0 }).min()
            let wait = deadline.map { deadline in
                let left = max(deadline - now, .zero)
                return Int32(clamping: left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000 + 1)
            }
            if poll(&polls, nfds_t(polls.count), wait ?? -1) < 0, errno != EINTR { break }
            if polls[0].revents != 0 { break }
            for index in clients.indices where polls[index + 2].revents != 0 { serve(&clients[index]) }
            dropFinished()
            if polls[1].revents != 0, !accept() { pausesUntil = ContinuousClock.now + .milliseconds(100) }
        }
        for client in clients where client.descriptor >= 0 { close(client.descriptor) }
        close(listener)
        finished.signal()
    }

    /// False where the process has no descriptor left.
    private func accept() -> Bool {
        let descriptor = accept4(listener, __SOCKADDR_ARG(__sockaddr__: nil), nil, Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue))
        guard descriptor >= 0 else { return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM }
        clients.append(Client(descriptor: descriptor, deadline: .now + patience))
        return true
    }

    private func dropFinished() {
        let now = ContinuousClock.now
        clients.removeAll { client in
            if client.descriptor >= 0 {
                guard client.deadline <= now else { return false }
                close(client.descriptor)
            }
            return true
        }
    }

    private func serve(_ client: inout Client) {
        if client.output.isEmpty || client.isDone { receive(&client) }
        if client.descriptor >= 0, !client.output.isEmpty, !client.isDone { send(&client) }
    }

    private func receive(_ client: inout Client) {
        var chunk = [UInt8](repeating: 0, count: 4096)
        let descriptor = client.descriptor
        let count = chunk.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
        if count < 0, errno == EAGAIN || errno == EINTR { return }
        guard count > 0 else { return drop(&client) }
        if client.isDone { return }
        client.input.append(contentsOf: chunk[..<count])
        let head = String(decoding: client.input, as: UTF8.self)
        if head.contains("\r\n\r\n") || head.contains("\n\n") {
            client.output = Array(MetricsServer.response(to: head, text: text).utf8)
        } else if client.input.count > MetricsServer.maximumRequestByteCount {
            client.output = Array(MetricsServer.plain("431 Request Header Fields Too Large", "too long\n").utf8)
        }
        client.input = client.output.isEmpty ? client.input : []
    }

    private func send(_ client: inout Client) {
        while client.sentCount < client.output.count {
            let (descriptor, start) = (client.descriptor, client.sentCount)
            let count = client.output.withUnsafeBytes {
                Foundation.send(descriptor, $0.baseAddress! + start, $0.count - start, Int32(MSG_NOSIGNAL))
            }
            if count > 0 {
                client.sentCount += count
            } else if errno != EINTR {
                if errno != EAGAIN { drop(&client) }
                return
            }
        }
        shutdown(client.descriptor, Int32(SHUT_WR))
        client.isDone = true
        client.output = []
    }

    private func drop(_ client: inout Client) {
        if client.descriptor >= 0 { close(client.descriptor) }
        client.descriptor = -1
    }
}
