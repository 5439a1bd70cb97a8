import AsyncIO
import Glibc
import Synchronization
import Testing
import Timebase

/// Runs `body` with a started reactor and stops it afterwards.
func withReactor(
    _ options: LibaioReactor.Options = .init(), _ body: (LibaioReactor) throws -> Void
) throws {
    let reactor = try LibaioReactor(options: options)
    try reactor.start(threadName: "test-io")
    defer { reactor.stop() }
    try body(reactor)
}

struct TimedOut: Error, CustomStringConvertible {
    var description: String
}

extension LibaioReactor {
    /// Waits until `condition`, looked at on the loop's thread, holds.
    func wait(
        for what: String, seconds: Double = 10, until condition: @escaping () -> Bool
    ) throws {
        let end = readClock() + .seconds(seconds)
        while true {
            if try performAndWait(condition) { return }
            if readClock() > end { throw TimedOut(description: "waiting for \(what)") }
            usleep(500)
        }
    }
}

/// A socket's handler that records everything, sends what it is given and checks nothing by itself.
/// Used on the loop's thread only.
final class Recorder: SocketHandler, @unchecked Sendable {
    let port: LibaioReactor
    var isConnected = false
    var received: [UInt8] = []
    var receivedByteCount = 0
    var keepsBytes = true
    var closeReason: SocketCloseReason?
    var closeCount = 0
    var sentByteCount = 0
    var onReceive: ((SocketID, Recorder) -> Void)?
    var onConnect: ((SocketID, Recorder) -> Void)?

    /// Output, cut into segments of this many bytes.
    var output: UnsafeRawBufferPointer = .init(start: nil, count: 0)
    var segmentByteCount = 64 * 1024
    var outputCalls = 0

    /// Where bytes are placed directly, as far as it goes.
    var window: UnsafeMutableRawBufferPointer = .init(start: nil, count: 0)
    var placed = 0

    init(_ port: LibaioReactor) { self.port = port }

    func socketConnected(_ socket: SocketID) {
        isConnected = true
        onConnect?(socket, self)
    }

    func socketOutput(
        _ socket: SocketID, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>
    ) -> Int {
        outputCalls += 1
        var offset = sentByteCount
        var count = 0
        while offset < output.count, count < segments.count {
            // Odd cuts at first, so that a resumed send starts inside a segment.
            let end = min(output.count, (offset / segmentByteCount + 1) * segmentByteCount)
            segments[count] = UnsafeRawBufferPointer(rebasing: output[offset..<end])
            offset = end
            count += 1
        }
        return count
    }

    func socketSent(_ socket: SocketID, byteCount: Int) { sentByteCount += byteCount }

    func socketInput(_ socket: SocketID) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: window[placed...])
    }

    func socketReceived(_ socket: SocketID, placedByteCount: Int, spill: UnsafeRawBufferPointer) {
        placed += placedByteCount
        receivedByteCount += placedByteCount + spill.count
        if keepsBytes { received.append(contentsOf: spill) }
        onReceive?(socket, self)
    }

    func socketClosed(_ socket: SocketID, reason: SocketCloseReason) {
        closeReason = reason
        closeCount += 1
    }
}

final class Acceptor: ListenerHandler {
    let make: (SocketID, SocketAddress) -> (any SocketHandler)?
    var accepted: [SocketID] = []

    init(_ make: @escaping (SocketID, SocketAddress) -> (any SocketHandler)?) { self.make = make }

    func listener(
        _ listener: ListenerID, accepted socket: SocketID, from peer: SocketAddress
    ) -> (any SocketHandler)? {
        accepted.append(socket)
        return make(socket, peer)
    }
}

final class TimerRecorder: TimerHandler {
    var fired: [UInt64] = []
    var moments: [Instant] = []
    var onFire: ((UInt64) -> Void)?
    private let clock: () -> Instant

    init(clock: @escaping () -> Instant) { self.clock = clock }

    func timerFired(_ timer: TimerID, token: UInt64) {
        fired.append(token)
        moments.append(clock())
        onFire?(token)
    }
}

final class FileRecorder: FileHandler {
    var results: [UInt64: Result<Int, IOError>] = [:]
    func fileCompleted(_ file: FileID, token: UInt64, result: Result<Int, IOError>) {
        results[token] = result
    }
}

func openDescriptorCount() -> Int {
    guard let directory = opendir("/proc/self/fd") else { return -1 }
    defer { closedir(directory) }
    var count = 0
    while readdir(directory) != nil { count += 1 }
    return count
}

let loopback = SocketAddress.ipv4(address: 0x7F00_0001, port: 0)

/// A connected pair of handlers on one reactor, the listener closed again.
struct Pair {
    let client: Recorder
    let server: Recorder
    let clientSocket: SocketID
    let serverSocket: SocketID
}

func connectPair(
    _ reactor: LibaioReactor, on address: SocketAddress = loopback
) throws -> Pair {
    let client = Recorder(reactor)
    let server = Recorder(reactor)
    let acceptor = Acceptor { _, _ in server }
    let (listener, clientSocket) = try reactor.performAndWait {
        let listener = try reactor.listen(on: address, handler: acceptor)
        let socket = reactor.connect(to: reactor.localAddress(of: listener)!, from: nil, handler: client)
        return (listener, socket)
    }
    try reactor.wait(for: "a connected pair") { client.isConnected && acceptor.accepted.count == 1 }
    let serverSocket = try reactor.performAndWait {
        reactor.close(listener)
        return acceptor.accepted[0]
    }
    return Pair(client: client, server: server, clientSocket: clientSocket, serverSocket: serverSocket)
}

func pattern(_ count: Int, seed: UInt64 = 1) -> UnsafeMutableRawBufferPointer {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 4096)
    var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    for position in 0..<count {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        buffer[position] = UInt8(truncatingIfNeeded: state >> 33)
    }
    return buffer
}

func equal(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
    left.count == right.count && (left.isEmpty || memcmp(left.baseAddress!, right.baseAddress!, left.count) == 0)
}

extension LibaioReactor.Options {
    static func with(_ change: (inout Self) -> Void) -> Self {
        var options = Self()
        change(&options)
        return options
    }
    /// Both ways of moving bytes; each socket test runs in both.
    static let transferModes: [LibaioReactor.TransferMode] = [.systemCalls, .submitted]
}
