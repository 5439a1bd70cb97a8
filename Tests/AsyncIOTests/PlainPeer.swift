import AsyncIO
import Glibc

/// A blocking socket that is connected to a handler on the reactor.
func plainPeer<Handler: SocketHandler>(
    of reactor: LibaioReactor, _ make: @escaping () -> Handler
) throws -> (Int32, Handler) {
    let (descriptor, handler, _) = try plainPeerAndSocket(of: reactor, make)
    return (descriptor, handler)
}

/// The same, and what the reactor calls its end.
func plainPeerAndSocket<Handler: SocketHandler>(
    of reactor: LibaioReactor, _ make: @escaping () -> Handler
) throws -> (Int32, Handler, SocketID) {
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
    return (descriptor, handler!, try reactor.performAndWait { acceptor.accepted[0] })
}

/// Takes frames of an eight-byte length and as many bytes, which it wants placed.
final class FramedReceiver: SocketHandler {
    var frames: [[UInt8]] = []
    /// All that came, headers included.
    var byteCount = 0
    var reason: SocketCloseReason?
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
    func socketClosed(_ socket: SocketID, reason: SocketCloseReason) { self.reason = reason }

    func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: memory[filled..<max(frameByteCount, filled)])
    }

    func socketReceived(_ socket: SocketID, placedByteCount placed: Int, spill: UnsafeRawBufferPointer) {
        byteCount += placed + spill.count
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
