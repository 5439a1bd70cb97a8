import AsyncIO
import CAio
import Glibc
import Testing
import Timebase

@Suite(.serialized, .timeLimit(.minutes(1)))
struct SocketTests {
    private func options(_ mode: LibaioReactor.TransferMode) -> LibaioReactor.Options {
        .with {
            $0.sends = mode
            $0.receives = mode
        }
    }

    @Test("1 MiB vectored sends arrive whole in both directions at once", arguments: LibaioReactor.Options.transferModes)
    func bulkBothWays(mode: LibaioReactor.TransferMode) throws {
        try withReactor(options(mode)) { reactor in
            let pair = try connectPair(reactor)
            let byteCount = 8 << 20
            let fromClient = pattern(byteCount, seed: 3)
            let fromServer = pattern(byteCount, seed: 5)
            let window = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
            defer {
                fromClient.deallocate()
                fromServer.deallocate()
                window.deallocate()
            }
            try reactor.performAndWait {
                // 1000 segments of 1 KiB: about 1 MiB per send. The client places directly, the server spills.
                pair.client.segmentByteCount = 1049
                pair.server.segmentByteCount = 1 << 20
                pair.client.output = UnsafeRawBufferPointer(fromClient)
                pair.server.output = UnsafeRawBufferPointer(fromServer)
                pair.client.window = window
                reactor.requestSend(pair.clientSocket)
                reactor.requestSend(pair.clientSocket)
                reactor.requestSend(pair.serverSocket)
            }
            try reactor.wait(for: "8 MiB each way") {
                pair.client.receivedByteCount == byteCount && pair.server.receivedByteCount == byteCount
            }
            try reactor.performAndWait {
                #expect(pair.client.placed == byteCount)
                #expect(equal(UnsafeRawBufferPointer(window), UnsafeRawBufferPointer(fromServer)))
                pair.server.received.withUnsafeBytes {
                    #expect(equal($0, UnsafeRawBufferPointer(fromClient)))
                }
                #expect(pair.client.sentByteCount == byteCount && pair.server.sentByteCount == byteCount)
            }
        }
    }

    @Test("a kernel with an unknown completion ring is served by io_getevents")
    func withoutMappedRing() throws {
        try withReactor(.with { $0.usesMappedRing = false }) { reactor in
            let pair = try connectPair(reactor)
            let bytes = pattern(4 << 20)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                pair.client.output = UnsafeRawBufferPointer(bytes)
                reactor.requestSend(pair.clientSocket)
            }
            try reactor.wait(for: "4 MiB") { pair.server.receivedByteCount == bytes.count }
            try reactor.performAndWait {
                pair.server.received.withUnsafeBytes { #expect(equal($0, UnsafeRawBufferPointer(bytes))) }
            }
        }
    }

    @Test("a send cut short resumes when the peer takes bytes again", arguments: LibaioReactor.Options.transferModes)
    func shortSendsResume(mode: LibaioReactor.TransferMode) throws {
        try withReactor(options(mode)) { reactor in
            let pair = try connectPair(reactor)
            let byteCount = 24 << 20
            let bytes = pattern(byteCount)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                reactor.setReceiving(false, on: pair.serverSocket)
                pair.client.output = UnsafeRawBufferPointer(bytes)
                pair.client.segmentByteCount = 100_003
                reactor.requestSend(pair.clientSocket)
            }
            try reactor.wait(for: "the peer's window to fill") {
                pair.client.sentByteCount > 0 && reactor.transportHealth(of: pair.clientSocket)!.unacknowledgedByteCount > 0
            }
            usleep(20_000)
            try reactor.performAndWait {
                #expect(pair.server.receivedByteCount == 0)
                #expect(pair.client.sentByteCount < byteCount, "the kernel buffered all of it: make it larger")
                reactor.setReceiving(true, on: pair.serverSocket)
            }
            try reactor.wait(for: "the rest") { pair.server.receivedByteCount == byteCount }
            try reactor.performAndWait {
                pair.server.received.withUnsafeBytes { #expect(equal($0, UnsafeRawBufferPointer(bytes))) }
            }
        }
    }

    @Test("closing with a POLL pending delivers what was sent and then a FIN", arguments: LibaioReactor.Options.transferModes)
    func gracefulCloseSendsFIN(mode: LibaioReactor.TransferMode) throws {
        try withReactor(options(mode)) { reactor in
            let pair = try connectPair(reactor)
            let bytes = pattern(100_000)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                pair.client.output = UnsafeRawBufferPointer(bytes)
                reactor.requestSend(pair.clientSocket)
            }
            // Both ends have their POLL IN armed by now.
            try reactor.wait(for: "the send") { pair.client.sentByteCount == bytes.count }
            try reactor.performAndWait { reactor.close(pair.clientSocket, mode: .graceful) }
            try reactor.wait(for: "the end") { pair.server.closeCount > 0 }
            try reactor.performAndWait {
                #expect(pair.server.closeReason == .endOfStream)
                #expect(pair.server.receivedByteCount == bytes.count)
                #expect(pair.client.closeCount == 0)
                #expect(reactor.counters.openSockets == 0)
            }
        }
    }

    @Test("unread input does not turn a graceful close into a reset")
    func gracefulCloseWithUnreadInput() throws {
        try withReactor { reactor in
            let pair = try connectPair(reactor)
            let bytes = pattern(50_000)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                reactor.setReceiving(false, on: pair.clientSocket)
                pair.server.output = UnsafeRawBufferPointer(rebasing: bytes[..<1000])
                pair.client.output = UnsafeRawBufferPointer(bytes)
                reactor.requestSend(pair.serverSocket)
            }
            try reactor.wait(for: "the peer's bytes") { pair.server.sentByteCount == 1000 }
            try reactor.performAndWait {
                reactor.setReceiving(false, on: pair.serverSocket)
                reactor.requestSend(pair.clientSocket)
            }
            try reactor.wait(for: "our bytes") { pair.client.sentByteCount == bytes.count }
            try reactor.performAndWait {
                reactor.close(pair.clientSocket, mode: .graceful)
                reactor.setReceiving(true, on: pair.serverSocket)
            }
            try reactor.wait(for: "the end") { pair.server.closeCount == 1 }
            try reactor.performAndWait {
                #expect(pair.server.closeReason == .endOfStream)
                #expect(pair.server.receivedByteCount == bytes.count)
            }
        }
    }

    @Test("a reset discards queued bytes at once and the peer sees it", arguments: LibaioReactor.Options.transferModes)
    func resetDiscards(mode: LibaioReactor.TransferMode) throws {
        try withReactor(options(mode)) { reactor in
            let pair = try connectPair(reactor)
            let bytes = pattern(24 << 20)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                reactor.setReceiving(false, on: pair.serverSocket)
                pair.client.output = UnsafeRawBufferPointer(bytes)
                reactor.requestSend(pair.clientSocket)
            }
            try reactor.wait(for: "bytes queued in our kernel") {
                reactor.transportHealth(of: pair.clientSocket)!.unacknowledgedByteCount > 0
            }
            let sent = try reactor.performAndWait {
                reactor.close(pair.clientSocket, mode: .reset)
                let sent = pair.client.sentByteCount
                pair.client.output = UnsafeRawBufferPointer(start: nil, count: 0)
                reactor.setReceiving(true, on: pair.serverSocket)
                return sent
            }
            try reactor.wait(for: "the reset") { pair.server.closeCount == 1 }
            try reactor.performAndWait {
                guard case .failed(let error) = pair.server.closeReason else {
                    Issue.record("not a reset: \(String(describing: pair.server.closeReason))")
                    return
                }
                #expect(error.code == ECONNRESET)
                #expect(pair.server.receivedByteCount < sent, "queued bytes arrived after a reset")
                #expect(pair.client.closeCount == 0)
            }
        }
    }

    @Test("a closed port is connection refused, and names the address")
    func refused() throws {
        try withReactor { reactor in
            let handler = Recorder(reactor)
            let address = try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: Acceptor { _, _ in nil })
                let address = reactor.localAddress(of: listener)!
                reactor.close(listener)
                _ = reactor.connect(to: address, from: nil, handler: handler)
                return address
            }
            try reactor.wait(for: "the refusal") { handler.closeCount > 0 }
            try reactor.performAndWait {
                #expect(handler.closeReason == .connectFailed(IOError(code: ECONNREFUSED, operation: "connect to \(address)")))
                #expect(!handler.isConnected)
                #expect(reactor.counters.openSockets == 0)
            }
        }
    }

    @Test("impossible connections fail later, never inside the call")
    func impossibleConnections() throws {
        try withReactor { reactor in
            let handlers = (0..<3).map { _ in Recorder(reactor) }
            try reactor.performAndWait {
                let long = SocketAddress.unix(path: String(repeating: "x", count: 200))
                _ = reactor.connect(to: long, from: nil, handler: handlers[0])
                _ = reactor.connect(to: .unix(path: "/nonexistent/socket"), from: nil, handler: handlers[1])
                // An address that this machine does not have.
                let foreign = SocketAddress("192.0.2.7", defaultPort: 0)!
                _ = reactor.connect(to: loopback.withPort(9), from: foreign, handler: handlers[2])
                #expect(handlers.allSatisfy { $0.closeCount == 0 })
            }
            try reactor.wait(for: "three failures") { handlers.allSatisfy { $0.closeCount == 1 } }
            try reactor.performAndWait {
                let codes = handlers.map { handler -> Int32? in
                    guard case .connectFailed(let error) = handler.closeReason else { return nil }
                    return error.code
                }
                #expect(codes == [ENAMETOOLONG, ENOENT, EADDRNOTAVAIL])
            }
        }
    }

    @Test("a socket closed before its connection was made is never heard of again")
    func closeWhileConnecting() throws {
        try withReactor { reactor in
            let handler = Recorder(reactor)
            let acceptor = Acceptor { _, _ in Recorder(reactor) }
            try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: acceptor)
                for mode in [CloseMode.graceful, .reset] {
                    let socket = reactor.connect(to: reactor.localAddress(of: listener)!, from: nil, handler: handler)
                    reactor.requestSend(socket)
                    reactor.close(socket, mode: mode)
                    #expect(reactor.localAddress(of: socket) == nil)
                }
            }
            usleep(30_000)
            try reactor.performAndWait {
                #expect(!handler.isConnected && handler.closeCount == 0 && handler.outputCalls == 0)
            }
        }
    }

    @Test("output requested before the connection is there leaves once it is")
    func earlyRequestSend() throws {
        try withReactor { reactor in
            let client = Recorder(reactor)
            let server = Recorder(reactor)
            let bytes = pattern(5000)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: Acceptor { _, _ in server })
                client.output = UnsafeRawBufferPointer(bytes)
                let socket = reactor.connect(to: reactor.localAddress(of: listener)!, from: nil, handler: client)
                reactor.requestSend(socket)
            }
            try reactor.wait(for: "the bytes") { server.receivedByteCount == bytes.count }
        }
    }

    @Test("the source address is the one asked for, also on IPv6 and Unix sockets")
    func families() throws {
        try withReactor { reactor in
            let path = "/tmp/mpio-test-\(getpid()).sock"
            unlink(path)
            defer { unlink(path) }
            for (listening, source) in [
                (loopback, SocketAddress("127.0.0.9", defaultPort: 0)),
                (SocketAddress("[::1]:0")!, SocketAddress("::1", defaultPort: 0)),
                (.unix(path: path), nil),
            ] {
                var peers: [SocketAddress] = []
                let client = Recorder(reactor)
                let server = Recorder(reactor)
                let bytes = pattern(300_000)
                defer { bytes.deallocate() }
                let acceptor = Acceptor { _, peer in
                    peers.append(peer)
                    return server
                }
                let (listener, socket) = try reactor.performAndWait {
                    let listener = try reactor.listen(on: listening, handler: acceptor)
                    client.output = UnsafeRawBufferPointer(bytes)
                    let socket = reactor.connect(
                        to: reactor.localAddress(of: listener)!, from: source, handler: client)
                    reactor.requestSend(socket)
                    return (listener, socket)
                }
                try reactor.wait(for: "the bytes over \(listening)") { server.receivedByteCount == bytes.count }
                try reactor.performAndWait {
                    if let source {
                        #expect(peers[0].host == source.host)
                        #expect(peers[0] == reactor.localAddress(of: socket))
                    }
                    #expect(reactor.transportHealth(of: socket) != nil)
                    reactor.close(socket, mode: .graceful)
                    reactor.close(listener)
                }
                try reactor.wait(for: "the end over \(listening)") { server.closeReason == .endOfStream }
            }
        }
    }

    @Test("the peer's last words are delivered although our send failed")
    func lastWordsBeforeFailure() throws {
        try withReactor { reactor in
            let pair = try connectPair(reactor)
            let words = pattern(3000)
            let bytes = pattern(24 << 20)
            defer {
                words.deallocate()
                bytes.deallocate()
            }
            try reactor.performAndWait {
                reactor.setReceiving(false, on: pair.clientSocket)
                reactor.setReceiving(false, on: pair.serverSocket)
                pair.server.output = UnsafeRawBufferPointer(words)
                reactor.requestSend(pair.serverSocket)
                pair.client.output = UnsafeRawBufferPointer(bytes)
                reactor.requestSend(pair.clientSocket)
            }
            try reactor.wait(for: "both sends") {
                pair.server.sentByteCount == words.count && pair.client.sentByteCount > 0
            }
            try reactor.performAndWait {
                reactor.setReceiving(true, on: pair.clientSocket)
                reactor.close(pair.serverSocket, mode: .reset)
            }
            try reactor.wait(for: "the end") { pair.client.closeCount == 1 }
            try reactor.performAndWait {
                #expect(pair.client.receivedByteCount == words.count)
                guard case .failed(let error) = pair.client.closeReason else {
                    Issue.record("\(String(describing: pair.client.closeReason))")
                    return
                }
                #expect(error.code == ECONNRESET || error.code == EPIPE)
            }
        }
    }

    @Test("a handler may close its own or another socket in any callback")
    func closeInsideCallbacks() throws {
        try withReactor { reactor in
            let pair = try connectPair(reactor)
            let other = try connectPair(reactor)
            let bytes = pattern(10_000)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                pair.server.onReceive = { socket, _ in
                    reactor.close(socket, mode: .graceful)
                    reactor.close(other.serverSocket, mode: .reset)
                }
                for end in [pair.client, other.client] { end.output = UnsafeRawBufferPointer(bytes) }
                reactor.requestSend(pair.clientSocket)
                reactor.requestSend(other.clientSocket)
            }
            try reactor.wait(for: "both ends") { pair.client.closeCount == 1 && other.client.closeCount == 1 }
            try reactor.performAndWait {
                #expect(pair.server.closeCount == 0 && other.server.closeCount == 0)
                #expect(reactor.counters.openSockets == 0)
            }
        }
    }

    @Test("transport health sees a peer that takes nothing")
    func transportHealth() throws {
        try withReactor { reactor in
            let pair = try connectPair(reactor)
            let bytes = pattern(24 << 20)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                let idle = reactor.transportHealth(of: pair.clientSocket)!
                #expect(idle.unacknowledgedByteCount == 0 && idle.unansweredRetransmissions == 0)
                reactor.setReceiving(false, on: pair.serverSocket)
                pair.client.output = UnsafeRawBufferPointer(bytes)
                reactor.requestSend(pair.clientSocket)
            }
            try reactor.wait(for: "a closed window") {
                reactor.transportHealth(of: pair.clientSocket)!.unacknowledgedByteCount > 10_000
            }
            try reactor.performAndWait {
                reactor.close(pair.clientSocket, mode: .reset)
                #expect(reactor.transportHealth(of: pair.clientSocket) == nil)
            }
        }
    }

    @Test("a refused acceptance resets the connection")
    func refusedAcceptance() throws {
        try withReactor { reactor in
            let client = Recorder(reactor)
            try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: Acceptor { _, _ in nil })
                _ = reactor.connect(to: reactor.localAddress(of: listener)!, from: nil, handler: client)
            }
            try reactor.wait(for: "the reset") { client.closeCount == 1 }
            try reactor.performAndWait { #expect(reactor.counters.openSockets == 0) }
        }
    }

    @Test("an address in use is an error that names it")
    func addressInUse() throws {
        try withReactor { reactor in
            try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: Acceptor { _, _ in nil })
                let address = reactor.localAddress(of: listener)!
                #expect(throws: IOError(code: EADDRINUSE, operation: "listen on \(address)")) {
                    try reactor.listen(on: address, handler: Acceptor { _, _ in nil })
                }
            }
        }
    }
}
