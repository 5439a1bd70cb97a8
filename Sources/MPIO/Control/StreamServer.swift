package import AsyncIO
import Foundation

/// What is said on one connection of a ``StreamServer``, on its thread.
package protocol Conversation {
    /// What comes next, after `input` has grown or an answer is out. Takes from the front of `input` what it has
    /// understood; what it leaves there is half a request.
    mutating func next(_ input: inout [UInt8], from descriptor: Int32) -> ConversationStep
}

package enum ConversationStep {
    /// More has to come.
    case listen
    /// Nothing more is read before it is out.
    case answer([UInt8])
    /// The connection ends once it is out.
    case lastAnswer([UInt8])
    /// The same, but the client ends it: what it still sends is thrown away, so that it does not reset the connection
    /// before the answer is read.
    case lastAnswerThenPeerEnds([UInt8])
}

/// Accepts stream connections and answers on them, on a thread of its own: the reactor that carries I/O never sees a
/// client, however slow or hostile. What a client can take is bounded by ``Limits``, and by the ``Conversation``, which
/// ends one that says too much.
package final class StreamServer: Sendable {
    package struct Limits: Sendable {
        package enum Patience: Sendable {
            /// From the connection's begin to its end.
            case whole(Duration)
            /// For half a request or an answer that is not read; who asks nothing may stay.
            case stalled(Duration)
        }

        package enum WhenFull: Sendable {
            /// The one that was idle for longest makes room.
            case idlestLeaves
            /// New ones stay in the kernel's queue.
            case newcomersWait
        }

        package var clientCount: Int
        package var patience: Patience
        package var whenFull: WhenFull

        package init(clientCount: Int, patience: Patience, whenFull: WhenFull) {
            precondition(clientCount > 0)
            self.clientCount = clientCount
            self.patience = patience
            self.whenFull = whenFull
        }
    }

    private let loop: StreamServerLoop
    private let waker: Int32
    private let wake: Int32
    private let lock = NSLock()
    nonisolated(unsafe) private var isStopped = false

    /// - Parameters:
    ///   - listener: a listening socket that does not block; the server closes it.
    ///   - admits: whether who is at the other end of a new connection may stay.
    /// - Throws: where the process has no descriptors left; the listener is then the caller's.
    package init(
        listener: Int32, name: String, limits: Limits, admits: @escaping @Sendable (Int32) -> Bool = { _ in true },
        conversation: @escaping @Sendable () -> any Conversation
    ) throws(IOError) {
        var pipe: [Int32] = [-1, -1]
        guard pipe2(&pipe, O_CLOEXEC) == 0 else { throw IOError(code: errno, operation: "pipe2") }
        (wake, waker) = (pipe[0], pipe[1])
        loop = StreamServerLoop(listener: listener, wake: wake, limits: limits, admits: admits, conversation: conversation)
        let loop = loop
        let thread = Thread { loop.run() }
        thread.name = name
        thread.start()
    }

    deinit { stop() }

    /// Drops every client, closes the listener and waits for the answer under way, if any. Not from a conversation.
    package func stop() {
        lock.lock()
        defer { lock.unlock() }
        guard !isStopped else { return }
        isStopped = true
        // The thread sees the pipe's end.
        close(waker)
        loop.finished.wait()
        close(wake)
    }
}

/// The thread's side.
private final class StreamServerLoop: @unchecked Sendable {
    // Everything but `finished` belongs to the thread once it was started.
    private let listener: Int32
    private let wake: Int32
    private let limits: StreamServer.Limits
    private let admits: @Sendable (Int32) -> Bool
    private let makeConversation: @Sendable () -> any Conversation
    private var clients: [Client] = []
    let finished = DispatchSemaphore(value: 0)

    private struct Client {
        enum End { case none, closes, peerCloses }

        /// -1 once closed; ``StreamServerLoop/dropFinished()`` takes it out of the list.
        var descriptor: Int32
        var conversation: any Conversation
        let acceptedAt: ContinuousClock.Instant
        var lastActivity: ContinuousClock.Instant
        var input: [UInt8] = []
        var output: [UInt8] = []
        var sentCount = 0
        var end = End.none
        /// The last answer is out.
        var isDone = false

        var isBusy: Bool { !output.isEmpty || !input.isEmpty }
    }

    init(
        listener: Int32, wake: Int32, limits: StreamServer.Limits, admits: @escaping @Sendable (Int32) -> Bool,
        conversation: @escaping @Sendable () -> any Conversation
    ) {
        self.listener = listener
        self.wake = wake
        self.limits = limits
        self.admits = admits
        makeConversation = conversation
    }

    func run() {
        var acceptsAgainAt: ContinuousClock.Instant?
        while true {
            let now = ContinuousClock.now
            if let moment = acceptsAgainAt, moment <= now { acceptsAgainAt = nil }
            var polls = [pollfd(fd: wake, events: Int16(POLLIN), revents: 0)]
            polls.append(pollfd(fd: acceptsAgainAt == nil && hasRoom ? listener : -1, events: Int16(POLLIN), revents: 0))
            for client in clients {
                // One request at a time: while an answer is unread nothing more is taken.
                polls.append(pollfd(fd: client.descriptor, events: Int16(client.output.isEmpty ? POLLIN : POLLOUT), revents: 0))
            }
            let count = poll(&polls, nfds_t(polls.count), timeoutMilliseconds(now, acceptsAgainAt))
            if count < 0 && errno != EINTR { break }
            if polls[0].revents != 0 { break }
            for index in clients.indices where polls[index + 2].revents != 0 { serve(&clients[index]) }
            dropFinished()
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

    // MARK: Time

    private func deadline(_ client: Client) -> ContinuousClock.Instant? {
        switch limits.patience {
        case .whole(let limit): client.acceptedAt + limit
        case .stalled(let limit): client.isBusy ? client.lastActivity + limit : nil
        }
    }

    private func timeoutMilliseconds(_ now: ContinuousClock.Instant, _ acceptsAgainAt: ContinuousClock.Instant?) -> Int32 {
        var earliest = acceptsAgainAt
        for client in clients {
            guard let limit = deadline(client) else { continue }
            earliest = min(earliest ?? limit, limit)
        }
        guard let earliest else { return -1 }
        let wait = earliest - now
        return wait <= .zero ? 0 : Int32(clamping: wait.components.seconds * 1000 + wait.components.attoseconds / 1_000_000_000_000_000 + 1)
    }

    private func dropFinished() {
        let now = ContinuousClock.now
        clients.removeAll { client in
            if client.descriptor >= 0 {
                guard let limit = deadline(client), limit <= now else { return false }
                close(client.descriptor)
            }
            return true
        }
    }

    // MARK: Accepting

    private var hasRoom: Bool {
        switch limits.whenFull {
        case .idlestLeaves: true
        case .newcomersWait: clients.count < limits.clientCount
        }
    }

    /// False where the process has no descriptor left.
    private func accept() -> Bool {
        // Bounded, so that a flood of connections can't keep the clients that are there waiting.
        for _ in 0..<16 where hasRoom {
            let descriptor = accept4(listener, __SOCKADDR_ARG(__sockaddr__: nil), nil, Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue))
            if descriptor < 0 { return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM }
            guard admits(descriptor) else {
                close(descriptor)
                continue
            }
            if clients.count >= limits.clientCount, let idlest = clients.indices.min(by: { clients[$0].lastActivity < clients[$1].lastActivity }) {
                close(clients.remove(at: idlest).descriptor)
            }
            let now = ContinuousClock.now
            clients.append(Client(descriptor: descriptor, conversation: makeConversation(), acceptedAt: now, lastActivity: now))
        }
        return true
    }

    // MARK: One client

    private func serve(_ client: inout Client) {
        if client.output.isEmpty { receive(&client) } else { send(&client) }
        // Answer what came in one piece, as far as the client takes the answers.
        while client.descriptor >= 0, client.output.isEmpty, client.end == .none {
            switch client.conversation.next(&client.input, from: client.descriptor) {
            case .listen: return
            case .answer(let bytes): client.output = bytes
            case .lastAnswer(let bytes): (client.output, client.end) = (bytes, .closes)
            case .lastAnswerThenPeerEnds(let bytes): (client.output, client.end) = (bytes, .peerCloses)
            }
            // What ends a request is progress: a byte now and then keeps nobody's place.
            client.lastActivity = .now
            if client.end != .none { client.input = [] }
            send(&client)
        }
        guard client.descriptor >= 0, client.output.isEmpty, !client.isDone else { return }
        switch client.end {
        case .none: break
        case .closes: drop(&client)
        case .peerCloses:
            client.isDone = true
            shutdown(client.descriptor, Int32(SHUT_WR))
        }
    }

    private func receive(_ client: inout Client) {
        var chunk = [UInt8](repeating: 0, count: 16_384)
        let descriptor = client.descriptor
        let count = chunk.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
        if count > 0 {
            guard !client.isDone else { return }
            if client.input.isEmpty { client.lastActivity = .now }
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
        client.output = []
        client.sentCount = 0
    }

    private func drop(_ client: inout Client) {
        if client.descriptor >= 0 { close(client.descriptor) }
        client.descriptor = -1
        client.input = []
        client.output = []
    }
}
