import AsyncIO
import Foundation
import Synchronization

/// Listens on a control socket and hands requests to a ``ControlHandler``, on a thread of its own (`StreamServer`).
///
/// What a client can take is bounded: 64 KiB of one line, one request at a time, ``maximumClientCount`` connections of
/// which the one idle for longest makes room, and a time limit (`stallLimit`) for half a request or an answer that is not read.
public final class ControlServer: Sendable {
    /// Where it listens.
    public let path: String
    private let server: StreamServer
    /// Its name may be another server's by now.
    private let isUnlinked = Atomic<Bool>(false)

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
        do throws(IOError) {
            server = try StreamServer(
                listener: listener, name: "mpio-control",
                limits: .init(clientCount: Self.maximumClientCount, patience: .stalled(stallLimit), whenFull: .idlestLeaves),
                admits: UnixSocket.isTrusted
            ) { LineConversation(lines: lines) }
        } catch {
            close(listener)
            unlink(path)
            throw .system(operation: error.operation, code: error.code)
        }
        self.path = path
    }

    deinit { stop() }

    /// Removes the socket, drops every client and waits for the request under way, if any. Not from the handler.
    public func stop() {
        if !isUnlinked.exchange(true, ordering: .relaxed) { unlink(path) }
        server.stop()
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

/// A line of JSON, its answer, the next.
private struct LineConversation: Conversation {
    let lines: any ControlLines

    func next(_ input: inout [UInt8], from descriptor: Int32) -> ConversationStep {
        if let end = input.firstIndex(of: 0x0A), end <= ControlServer.maximumLineByteCount {
            let line = Array(input[..<end])
            input.removeSubrange(...end)
            return .answer(lines.answer(to: line) { Self.actor(descriptor) } + [0x0A])
        }
        guard input.count > ControlServer.maximumLineByteCount else { return .listen }
        let failure = ControlFailure(.tooLong, "a request is at most \(ControlServer.maximumLineByteCount) bytes")
        return .lastAnswer(ControlServer.encode(ControlResponse.failed(failure)) + [0x0A])
    }

    /// Who is at the other end. The process that connected may have ended since; its number is what the kernel noted.
    private static func actor(_ descriptor: Int32) -> ChangeActor {
        guard let peer = UnixSocket.peer(descriptor) else { return ChangeActor(pid: 0, uid: .max, command: "?") }
        return ChangeActor(pid: peer.pid, uid: peer.uid, command: ChangeActor.command(ofProcess: peer.pid))
    }
}
