import AsyncIO
import Glibc
import Testing
import Timebase

/// When the loop receives, and into what.
@Suite(.serialized, .timeLimit(.minutes(1)))
struct ReceivingTests {
    @Test("what arrives within the coalescing time is received together")
    func coalescing() throws {
        try withReactor { reactor in
            let (descriptor, recorder) = try plainPeer(of: reactor) { Recorder(reactor) }
            defer { Glibc.close(descriptor) }
            let spacing = Duration.milliseconds(50)
            let (before, start) = try reactor.performAndWait {
                reactor.coalesceReceives(nanoseconds: UInt64(spacing.wholeNanoseconds))
                return (reactor.counters.receiveCalls, reactor.readClock())
            }
            for byte in UInt8(0)..<20 {
                var byte = byte
                #expect(write(descriptor, &byte, 1) == 1)
                usleep(1000)
            }
            try reactor.wait(for: "twenty bytes") { recorder.received.count == 20 }
            try reactor.performAndWait {
                let receives = reactor.counters.receiveCalls - before
                let spacings = (reactor.readClock() - start).wholeNanoseconds / spacing.wholeNanoseconds
                #expect(receives <= UInt64(spacings) + 2)
                #expect(recorder.received == Array(0..<20))
            }
        }
    }

    @Test("large pieces in a row are placed and hardly spilled, small ones between them are not lost")
    func bulk() throws {
        try withReactor { reactor in
            let (descriptor, receiver) = try plainPeer(of: reactor) { FramedReceiver() }
            defer { Glibc.close(descriptor) }
            let counts = [200_000, 200_000, 100, 300_000, 5, 5, 5, 250_000] + Array(repeating: 40, count: 500) + [1 << 18, 1 << 18, 7]
            for (number, count) in counts.enumerated() {
                var frame = withUnsafeBytes(of: UInt64(count)) { Array($0) }
                frame += (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number) }
                var sent = 0
                while sent < frame.count {
                    let result = frame.withUnsafeBytes { write(descriptor, $0.baseAddress! + sent, $0.count - sent) }
                    #expect(result > 0)
                    guard result > 0 else { return }
                    sent += result
                }
            }
            try reactor.wait(for: "every frame") { receiver.frames.count == counts.count }
            try reactor.performAndWait {
                for (number, frame) in receiver.frames.enumerated() {
                    let isWhole = frame.count == counts[number] && frame.indices.allSatisfy {
                        frame[$0] == UInt8(truncatingIfNeeded: $0 &* 7 &+ number)
                    }
                    #expect(isWhole, "frame \(number)")
                }
                #expect(receiver.placedByteCount > receiver.spilledByteCount)
            }
        }
    }

    /// A blocking socket that is connected to a handler on the reactor.
    private func plainPeer<Handler: SocketHandler>(
        of reactor: LibaioReactor, _ make: @escaping () -> Handler
    ) throws -> (Int32, Handler) {
        var handler: Handler?
        let acceptor = Acceptor { _, _ in
            handler = make()
            return handler
        }
        let address = try reactor.performAndWait {
            reactor.localAddress(of: try reactor.listen(on: loopback, handler: acceptor))!
        }
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var peer = sockaddr_in()
        peer.sin_family = sa_family_t(AF_INET)
        peer.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        guard case .ipv4(_, let port) = address else { throw TimedOut(description: "an IPv4 loopback address") }
        peer.sin_port = port.bigEndian
        let code = withUnsafePointer(to: &peer) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard code == 0 else { throw TimedOut(description: "connect: errno \(errno)") }
        var one: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        try reactor.wait(for: "the connection") { handler != nil }
        return (descriptor, handler!)
    }
}

/// Takes frames of an eight-byte length and as many bytes, which it wants placed.
private final class FramedReceiver: SocketHandler {
    var frames: [[UInt8]] = []
    var placedByteCount = 0
    var spilledByteCount = 0
    private var header: [UInt8] = []
    private let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    private var filled = 0
    private var frameByteCount = 0

    deinit { memory.deallocate() }

    func socketConnected(_ socket: SocketID) {}
    func socketOutput(_ socket: SocketID, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int { 0 }
    func socketSent(_ socket: SocketID, byteCount: Int) {}
    func socketClosed(_ socket: SocketID, reason: SocketCloseReason) {}

    func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: memory[filled..<max(frameByteCount, filled)])
    }

    func socketReceived(_ socket: SocketID, placedByteCount placed: Int, spill: UnsafeRawBufferPointer) {
        placedByteCount += placed
        spilledByteCount += spill.count
        filled += placed
        endFrame()
        var rest = spill[...]
        while let byte = rest.first {
            if header.count < 8 {
                header.append(byte)
                rest = rest.dropFirst()
                if header.count == 8 { frameByteCount = header.reversed().reduce(0) { $0 << 8 | Int($1) } }
            } else {
                let count = min(frameByteCount - filled, rest.count)
                UnsafeMutableRawBufferPointer(rebasing: memory[filled..<(filled + count)])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: rest.prefix(count)))
                filled += count
                rest = rest.dropFirst(count)
            }
            endFrame()
        }
    }

    private func endFrame() {
        guard header.count == 8, filled == frameByteCount else { return }
        frames.append(Array(memory[..<filled]))
        header = []
        filled = 0
        frameByteCount = 0
    }
}
