import AsyncIO
import Glibc
import Testing
import Timebase

// Not declared without _GNU_SOURCE.
@_silgen_name("unshare") private func systemUnshare(_ flags: Int32) -> Int32
private let cloneFiles: Int32 = 0x400

@Suite(.serialized, .timeLimit(.minutes(1)))
struct ListenerTests {
    /// Gives the loop's thread a descriptor table of its own, so that a test may fill it, or count in it,
    /// while others run. What is opened there is another file, or none, for every other thread.
    private func unshareDescriptors(_ reactor: LibaioReactor) throws {
        try reactor.performAndWait { #expect(systemUnshare(cloneFiles) == 0) }
    }

    private func descriptorsOfThread() -> Int {
        guard let directory = opendir("/proc/thread-self/fd") else { return -1 }
        defer { closedir(directory) }
        var count = 0
        while readdir(directory) != nil { count += 1 }
        return count
    }

    @Test("a thousand connections at once are all accepted, more than one turn takes")
    func acceptMany() throws {
        let options = LibaioReactor.Options.with {
            $0.acceptsPerTurn = 7
            $0.socketCapacity = 2048
        }
        try withReactor(options) { reactor in
            let clients = (0..<1000).map { _ in Recorder(reactor) }
            var servers: [Recorder] = []
            let acceptor = Acceptor { _, _ in
                let server = Recorder(reactor)
                servers.append(server)
                return server
            }
            let sockets = try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: acceptor)
                let address = reactor.localAddress(of: listener)!
                return clients.map { reactor.connect(to: address, from: nil, handler: $0) }
            }
            try reactor.wait(for: "all of them") { servers.count == 1000 && clients.allSatisfy(\.isConnected) }
            try reactor.performAndWait {
                #expect(Set(sockets).count == 1000 && Set(acceptor.accepted).count == 1000)
                for socket in sockets { reactor.close(socket, mode: .reset) }
            }
            try reactor.wait(for: "their ends") { servers.allSatisfy { $0.closeCount == 1 } }
        }
    }

    @Test("without a free descriptor a listener pauses, and goes on when there is one")
    func outOfDescriptors() throws {
        try withReactor { reactor in
            try unshareDescriptors(reactor)
            let client = Recorder(reactor)
            let acceptor = Acceptor { _, _ in Recorder(reactor) }
            var held: [Int32] = []
            let (listener, socket) = try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: acceptor)
                let socket = reactor.connect(to: reactor.localAddress(of: listener)!, from: nil, handler: client)
                while true {
                    let copy = dup(0)
                    guard copy >= 0 else { break }
                    held.append(copy)
                }
                return (listener, socket)
            }
            // The kernel completes the handshake; only accept lacks a descriptor.
            try reactor.wait(for: "the connection") { client.isConnected }
            usleep(20_000)
            let turns = try reactor.performAndWait {
                #expect(acceptor.accepted.isEmpty)
                let refused = Recorder(reactor)
                _ = reactor.connect(to: loopback.withPort(9), from: nil, handler: refused)
                return (reactor.counters.turns, refused)
            }
            usleep(50_000)
            try reactor.performAndWait {
                #expect(reactor.counters.turns - turns.0 < 10, "a paused listener keeps the loop busy")
                guard case .connectFailed(let error) = turns.1.closeReason else {
                    Issue.record("no failure")
                    return
                }
                #expect(error.code == EMFILE)
                for descriptor in held { Glibc.close(descriptor) }
            }
            try reactor.wait(for: "the accept") { acceptor.accepted.count == 1 }
            try reactor.performAndWait {
                reactor.close(listener)
                reactor.close(socket, mode: .reset)
                for accepted in acceptor.accepted { reactor.close(accepted, mode: .reset) }
            }
        }
    }

    @Test("past the capacity a connection is refused and a listener waits")
    func capacity() throws {
        try withReactor(.with { $0.socketCapacity = 4 }) { reactor in
            let clients = (0..<6).map { _ in Recorder(reactor) }
            let acceptor = Acceptor { _, _ in Recorder(reactor) }
            let sockets = try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: acceptor)
                let address = reactor.localAddress(of: listener)!
                return clients.map { reactor.connect(to: address, from: nil, handler: $0) }
            }
            try reactor.wait(for: "four connections and two refusals") {
                clients.filter(\.isConnected).count == 4 && clients.filter { $0.closeCount == 1 }.count == 2
            }
            try reactor.performAndWait {
                #expect(acceptor.accepted.isEmpty)
                for socket in sockets[..<2] { reactor.close(socket, mode: .graceful) }
            }
            try reactor.wait(for: "the accepts") { acceptor.accepted.count >= 2 }
        }
    }

    @Test("10,000 connections leave no descriptor, no slot and no operation behind")
    func churn() throws {
        // Far fewer operations than connections: a POLL that stayed behind would use them up.
        try withReactor(.with { $0.socketCapacity = 300 }) { reactor in
            try unshareDescriptors(reactor)
            var serversClosed = 0
            var clientsClosed = 0
            let acceptor = Acceptor { _, _ in
                let server = CountingHandler()
                server.onClose = { serversClosed += 1 }
                return server
            }
            let (listener, address, before) = try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: acceptor)
                return (listener, reactor.localAddress(of: listener)!, self.descriptorsOfThread())
            }
            for round in 0..<100 {
                var connected: [SocketID] = []
                try reactor.performAndWait {
                    for number in 0..<100 {
                        let client = CountingHandler()
                        client.onConnect = { connected.append($0) }
                        client.onClose = { clientsClosed += 1 }
                        let socket = reactor.connect(to: address, from: nil, handler: client)
                        // Some are given up before they are connected.
                        if number % 10 == 9 {
                            reactor.close(socket, mode: .reset)
                            clientsClosed += 1
                        }
                    }
                }
                try reactor.wait(for: "round \(round) to connect") { connected.count == 90 }
                try reactor.performAndWait {
                    for (number, socket) in connected.enumerated() {
                        reactor.close(socket, mode: number % 30 == 0 ? .graceful : .reset)
                    }
                }
                try reactor.wait(for: "round \(round) to end") { reactor.counters.openSockets == 0 }
            }
            try reactor.performAndWait {
                #expect(self.descriptorsOfThread() == before)
                #expect(serversClosed == acceptor.accepted.count && serversClosed >= 9000)
                #expect(clientsClosed == 1000)
                reactor.close(listener)
            }
            // The context still has all of its room: a full house of new connections works.
            let pair = try connectPair(reactor)
            try reactor.performAndWait {
                #expect(reactor.counters.openListeners == 0)
                reactor.close(pair.clientSocket, mode: .graceful)
            }
            try reactor.wait(for: "its end") { pair.server.closeReason == .endOfStream }
        }
    }
}

final class CountingHandler: SocketHandler {
    var onConnect: ((SocketID) -> Void)?
    var onClose: (() -> Void)?
    func socketConnected(_ socket: SocketID) { onConnect?(socket) }
    func socketOutput(_: SocketID, into _: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int { 0 }
    func socketSent(_: SocketID, byteCount _: Int) {}
    func socketInput(_: SocketID) -> UnsafeMutableRawBufferPointer { .init(start: nil, count: 0) }
    func socketReceived(_: SocketID, placedByteCount _: Int, spill _: UnsafeRawBufferPointer) {}
    func socketClosed(_: SocketID, reason _: SocketCloseReason) { onClose?() }
}
