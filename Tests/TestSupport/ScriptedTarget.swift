import Foundation

/// A listening socket that pretends to be a target for as long as the script says: it waits for the first bytes of an
/// initiator, answers each with the same bytes, and then closes, resets or stays silent.
public final class ScriptedTarget: Sendable {
    public enum Ending: Sendable {
        case close
        case reset
        case silence
    }

    public let portal: LoopbackPortal
    private let accepted = Locked(0)
    private let state: Locked<(listener: Int32, open: [Int32])>

    /// - Parameter answer: sent once the initiator has said something.
    public init(answering answer: [UInt8] = [], then ending: Ending) throws {
        portal = try LoopbackPortal.unused()[0]
        let listener = try Socket.listen(on: portal)
        state = Locked((listener, []))
        // The loop must not keep its owner alive, which ends it by closing the socket.
        let (state, accepted) = (state, accepted)
        Thread.detachNewThread {
            while Self.serve(listener, answer, ending, state, accepted) {}
        }
    }

    deinit {
        state.withLock { state in
            shutdown(state.listener, Int32(SHUT_RDWR))
            state.listener = -1
            for descriptor in state.open { close(descriptor) }
        }
    }

    /// The connections that were accepted, ever.
    public var acceptedCount: Int { accepted.withLock { $0 } }

    private static func serve(
        _ listener: Int32, _ answer: [UInt8], _ ending: Ending, _ state: Locked<(listener: Int32, open: [Int32])>,
        _ accepted: Locked<Int>
    ) -> Bool {
        var entry = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
        poll(&entry, 1, 1000)
        guard state.withLock({ $0.listener >= 0 }) else {
            close(listener)
            return false
        }
        let connection = accept4(listener, .init(__sockaddr__: nil), nil, Int32(SOCK_CLOEXEC.rawValue))
        guard connection >= 0 else { return true }
        accepted.withLock { $0 += 1 }
        // A peer that says nothing must not hold the others up for long.
        var patience = timeval(tv_sec: 2, tv_usec: 0)
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        var bytes = [UInt8](repeating: 0, count: 65_536)
        _ = recv(connection, &bytes, bytes.count, 0)
        if !answer.isEmpty { _ = send(connection, answer, answer.count, Int32(MSG_NOSIGNAL)) }
        switch ending {
        case .close: close(connection)
        case .reset: Socket.reset(connection)
        case .silence: state.withLock { $0.open.append(connection) }
        }
        return true
    }
}
