import CAio
import Glibc
import Testing
import Timebase

@testable import AsyncIO

/// Past what there is room for, and connections whose peer is gone.
@Suite(.serialized, .timeLimit(.minutes(2))) struct SocketLimitTests {
    @Test("any number of connections past the capacity are refused in one turn, each told once")
    func refusals() throws {
        try withReactor(.with { $0.socketCapacity = 4 }) { reactor in
            let clients = (0..<40).map { _ in Recorder(reactor) }
            let acceptor = Acceptor { _, _ in Recorder(reactor) }
            let sockets = try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: acceptor)
                let address = reactor.localAddress(of: listener)!
                let sockets = clients.map { reactor.connect(to: address, from: nil, handler: $0) }
                // All that may be asked of a socket may be asked of one that is about to be refused.
                reactor.requestSend(sockets[38])
                reactor.setReceiving(false, on: sockets[38])
                #expect(reactor.localAddress(of: sockets[38]) == nil && reactor.transportHealth(of: sockets[38]) == nil)
                reactor.close(sockets[39], mode: .reset)
                return sockets
            }
            #expect(Set(sockets).count == sockets.count)
            try reactor.wait(for: "four connections and the refusals") {
                clients.filter(\.isConnected).count == 4 && clients.filter { $0.closeCount == 1 }.count == 35
            }
            try reactor.performAndWait {
                #expect(clients[39].closeCount == 0 && clients[39].outputCalls == 0)
                for client in clients[4..<39] {
                    guard case .connectFailed(let error) = client.closeReason else {
                        Issue.record("\(String(describing: client.closeReason))")
                        continue
                    }
                    #expect(error.code == ENOBUFS)
                }
                // A place that is given back is the next one's.
                reactor.close(sockets[0], mode: .reset)
            }
        }
    }

    @Test("handlers of connections that nobody was told about are let go")
    func refusedAtTheEnd() throws {
        let kept = Kept()
        let reactor = try LibaioReactor(options: .with { $0.socketCapacity = 1 })
        try reactor.start(threadName: "test-io")
        reactor.enqueue {
            let client = CountingHandler()
            kept.handler = client
            for _ in 0..<8 { _ = reactor.connect(to: .ipv4(address: 0x7F00_0001, port: 9), from: nil, handler: client) }
            // The reactor is stopped meanwhile, mostly.
            usleep(100_000)
        }
        reactor.stop()
        #expect(kept.handler == nil)
    }

    private final class Kept: @unchecked Sendable {
        weak var handler: CountingHandler?
    }

    @Test("the kernel asks after an accepted connection that is idle")
    func keepAlive() throws {
        try withReactor(.with { $0.socketCapacity = 8 }) { reactor in
            let pair = try connectPair(reactor)
            try reactor.performAndWait {
                let descriptor = reactor.sockets[pair.serverSocket.rawValue]!.pointee.descriptor
                func option(_ level: Int32, _ name: Int32) -> Int32 {
                    var value: Int32 = -1
                    var count = socklen_t(MemoryLayout<Int32>.size)
                    #expect(getsockopt(descriptor, level, name, &value, &count) == 0)
                    return value
                }
                #expect(option(SOL_SOCKET, SO_KEEPALIVE) == 1)
                let (idle, interval, count) = (option(Int32(IPPROTO_TCP), 4), option(Int32(IPPROTO_TCP), 5), option(Int32(IPPROTO_TCP), 6))
                #expect(idle + interval * count <= 180, "\(idle) s, then \(count) times \(interval) s")
            }
        }
    }

    /// Hears of every question, also of one that should not come.
    private final class Questioned: SocketHandler {
        var questions = 0
        func socketConnected(_ socket: SocketID) {}
        func socketOutput(_: SocketID, into _: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int { 0 }
        func socketSent(_: SocketID, byteCount _: Int) {}
        func socketInput(_: SocketID) -> UnsafeMutableRawBufferPointer {
            questions += 1
            return .init(start: nil, count: 0)
        }
        func socketReceived(_: SocketID, placedByteCount _: Int, spill _: UnsafeRawBufferPointer) {}
        func socketClosed(_ socket: SocketID, reason: SocketCloseReason) {}
    }

    private final class Closer: FileHandler {
        var close: (() -> Void)?
        func fileCompleted(_ file: FileID, token: UInt64, result: Result<Int, IOError>) { close?() }
    }

    @Test("a socket that is closed while its turn's full batch is submitted is left alone")
    func closedInsideOfSubmitting() throws {
        try withReactor(.with { $0.socketCapacity = 600 }) { reactor in
            let acceptor = Acceptor { _, _ in nil }
            let last = Questioned()
            let closer = Closer()
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 16)
            defer { memory.deallocate() }
            // Each socket that connects needs one POLL, the file's operation is before them: the batch has no room for two with the last.
            let before = AioContext.batchCapacity - 2
            try reactor.performAndWait {
                let listener = try reactor.listen(on: loopback, handler: acceptor)
                let address = reactor.localAddress(of: listener)!
                let file = try reactor.openFile("/proc/self/exe", options: .readOnly)
                reactor.submit(.read(into: memory, at: 0), on: file, handler: closer, token: 0)
                reactor.addFileOperations()
                #expect(reactor.context.batchCount == 1)
                // The kernel refuses what is about no file.
                reactor.fileOperations.forEach { _, slot in slot.pointee.control.aio_fildes = -1 }
                for _ in 0..<before { _ = reactor.connect(to: address, from: nil, handler: CountingHandler()) }
                let socket = reactor.connect(to: address, from: nil, handler: last)
                reactor.sockets[socket.rawValue]!.pointee.isBulk = true
                closer.close = { reactor.close(socket, mode: .reset) }
            }
            try reactor.wait(for: "the connections' ends") { reactor.counters.openSockets == 0 }
            try reactor.performAndWait { #expect(last.questions == 0) }
        }
    }
}
