import AsyncIO
import Glibc
import Testing
import Timebase

/// Large pieces are waited for in the kernel (SO_RCVLOWAT): what that saves, and that nobody is left waiting for bytes that are there.
@Suite(.serialized, .timeLimit(.minutes(1)))
struct ReceiveThresholdTests {
    @Test("a large piece that comes in many small parts is received in few", arguments: LibaioReactor.Options.transferModes)
    func fewReceives(_ mode: LibaioReactor.TransferMode) throws {
        try withReactor(.with { $0.receives = mode }) { reactor in
            try reactor.performAndWait { reactor.coalesceReceives(nanoseconds: 1) }
            let (descriptor, receiver) = try plainPeer(of: reactor) { FramedReceiver() }
            defer { Glibc.close(descriptor) }
            let frames = 2
            let part = 8192
            let frame = framed(1 << 20, number: 0)
            let (before, start) = try reactor.performAndWait { (reactor.counters, reactor.readClock()) }
            for _ in 0..<frames {
                for offset in stride(from: 0, to: frame.count, by: part) {
                    try send(descriptor, frame[offset..<min(offset + part, frame.count)])
                    // Enough for a loop that takes each part as it comes.
                    usleep(20)
                }
            }
            try reactor.wait(for: "every frame") { receiver.frames.count == frames }
            try reactor.performAndWait {
                let reviews = (reactor.readClock() - start).wholeNanoseconds / 5_000_000
                let receives = Int(reactor.counters.receiveCalls - before.receiveCalls)
                // Eight or so for what is certain, and some at the end, where less than the least threshold is missing;
                // a review and a second look may let one more through, each.
                #expect(receives <= frames * (1 << 20) / part / 2 + 2 * Int(reviews))
                #expect(reactor.counters.thresholdChanges > before.thresholdChanges)
                for received in receiver.frames {
                    // By memcmp: without optimisation a comparison of elements takes seconds.
                    #expect(frame.withUnsafeBytes { sent in
                        received.withUnsafeBytes { equal(UnsafeRawBufferPointer(rebasing: sent[8...]), $0) }
                    })
                }
            }
        }
    }

    @Test("where nothing gathers, every part is taken as it comes")
    func eager() throws {
        try withReactor { reactor in
            let (descriptor, receiver) = try plainPeer(of: reactor) { FramedReceiver() }
            defer { Glibc.close(descriptor) }
            try send(descriptor, framed(1 << 20, number: 0)[...])
            try reactor.wait(for: "the frame") { receiver.frames.count == 1 }
            try reactor.performAndWait { #expect(reactor.counters.thresholdChanges == 0) }
        }
    }

    @Test("what came of a piece is told, although the rest never comes", arguments: LibaioReactor.Options.transferModes)
    func stopsInTheMiddle(_ mode: LibaioReactor.TransferMode) throws {
        try withReactor(.with { $0.receives = mode }) { reactor in
            try reactor.performAndWait { reactor.coalesceReceives(nanoseconds: 1) }
            let (descriptor, receiver) = try plainPeer(of: reactor) { FramedReceiver() }
            defer { Glibc.close(descriptor) }
            let frame = framed(1 << 20, number: 0)
            var sent = 0
            // Each time less than the threshold, and then nothing more.
            for count in [150_008, 100_000, 1, 70_000, 20_000, 3] {
                try send(descriptor, frame[sent..<(sent + count)])
                sent += count
                try reactor.wait(for: "\(sent) bytes") { receiver.byteCount == sent }
            }
            try reactor.performAndWait { #expect(reactor.counters.thresholdChanges > 0) }
            try send(descriptor, frame[sent...])
            try reactor.wait(for: "the frame") { receiver.frames.count == 1 }
            try reactor.performAndWait { #expect(isFrame(receiver.frames[0], 1 << 20, number: 0)) }
        }
    }

    @Test("a piece that drips in arrives, and so do others meanwhile")
    func drips() throws {
        try withReactor { reactor in
            try reactor.performAndWait { reactor.coalesceReceives(nanoseconds: 1) }
            let (slow, slowReceiver) = try plainPeer(of: reactor) { FramedReceiver() }
            defer { Glibc.close(slow) }
            let (fast, fastReceiver) = try plainPeer(of: reactor) { FramedReceiver() }
            defer { Glibc.close(fast) }
            let frame = framed(400_000, number: 3)
            var sent = 0
            var answered = 0
            while sent < frame.count {
                let count = min(sent < 150_000 ? 150_000 : 997, frame.count - sent)
                try send(slow, frame[sent..<(sent + count)])
                sent += count
                try send(fast, framed(100, number: answered)[...])
                answered += 1
            }
            try reactor.wait(for: "all frames") {
                slowReceiver.frames.count == 1 && fastReceiver.frames.count == answered
            }
            try reactor.performAndWait { #expect(isFrame(slowReceiver.frames[0], 400_000, number: 3)) }
        }
    }

    @Test("an end in the middle of a piece comes after its bytes, and at once", arguments: [true, false])
    func ends(orderly: Bool) throws {
        try withReactor { reactor in
            try reactor.performAndWait { reactor.coalesceReceives(nanoseconds: 1) }
            let (descriptor, receiver) = try plainPeer(of: reactor) { FramedReceiver() }
            let frame = framed(1 << 20, number: 0)
            // The first receive takes the header; the second one is told how much is missing.
            try send(descriptor, frame[..<100_000])
            try reactor.wait(for: "the beginning") { receiver.byteCount == 100_000 }
            try send(descriptor, frame[100_000..<200_000])
            try reactor.wait(for: "a threshold") { receiver.byteCount == 200_000 && reactor.counters.thresholdChanges > 0 }
            if orderly {
                try send(descriptor, frame[200_000..<210_000])
            } else {
                var discard = linger(l_onoff: 1, l_linger: 0)
                setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &discard, socklen_t(MemoryLayout<linger>.size))
            }
            Glibc.close(descriptor)
            try reactor.wait(for: "the end") { receiver.reason != nil }
            try reactor.performAndWait {
                if orderly {
                    #expect(receiver.reason == .endOfStream)
                    #expect(receiver.byteCount == 210_000)
                } else if case .failed = receiver.reason {
                } else {
                    Issue.record("ended by \(String(describing: receiver.reason))")
                }
            }
        }
    }

    @Test("after a large piece a single byte is received as ever")
    func backToOneByte() throws {
        try withReactor { reactor in
            try reactor.performAndWait { reactor.coalesceReceives(nanoseconds: 1) }
            let (descriptor, receiver) = try plainPeer(of: reactor) { FramedReceiver() }
            defer { Glibc.close(descriptor) }
            for number in 0..<20 {
                try send(descriptor, framed(300_000, number: number)[...])
                try reactor.wait(for: "a large frame") { receiver.frames.count == 2 * number + 1 }
                try send(descriptor, framed(1, number: number)[...])
                try reactor.wait(for: "a small frame") { receiver.frames.count == 2 * number + 2 }
            }
        }
    }

    @Test("where answers gather, a socket that owes some is read without a POLL")
    func unarmed() throws {
        try withReactor { reactor in
            let (descriptor, recorder, socket) = try plainPeerAndSocket(of: reactor) { Recorder(reactor) }
            let echo = try Echo(descriptor)
            defer { echo.stop() }
            let rounds = 200
            let bytes = pattern(rounds)
            defer { bytes.deallocate() }
            // Each byte that comes back lets the next one go.
            func run(gathering: Duration) throws -> (operations: UInt64, receives: UInt64, inVain: UInt64) {
                let before = try reactor.performAndWait {
                    reactor.coalesceReceives(nanoseconds: UInt64(gathering.wholeNanoseconds))
                    recorder.received = []
                    recorder.sentByteCount = 0
                    recorder.output = UnsafeRawBufferPointer(rebasing: bytes[..<1])
                    recorder.onReceive = { socket, recorder in
                        guard recorder.received.count < rounds else { return }
                        recorder.output = UnsafeRawBufferPointer(rebasing: bytes[...recorder.received.count])
                        reactor.requestSend(socket)
                    }
                    reactor.requestSend(socket)
                    return reactor.counters
                }
                try reactor.wait(for: "\(rounds) answers", seconds: 30) { recorder.received.count == rounds }
                return try reactor.performAndWait {
                    #expect(recorder.received.withUnsafeBytes { equal(UnsafeRawBufferPointer(bytes), $0) })
                    let after = reactor.counters
                    return (
                        after.submittedOperations - before.submittedOperations, after.receiveCalls - before.receiveCalls,
                        after.emptyReceives - before.emptyReceives
                    )
                }
            }
            let eager = try run(gathering: .zero)
            let gathered = try run(gathering: .milliseconds(1))
            #expect(gathered.operations < eager.operations)
            // After a read in vain a POLL is armed, not another read made.
            #expect(gathered.inVain <= gathered.receives / 2 + 2)
            // Nothing gathers any more: the socket is armed again, and bytes are seen.
            _ = try run(gathering: .zero)
        }
    }
}

/// Sends back what comes on a blocking socket, on a thread of its own.
private final class Echo: @unchecked Sendable {
    private let descriptor: Int32
    private var thread = pthread_t()

    init(_ descriptor: Int32) throws {
        self.descriptor = descriptor
        let code = pthread_create(
            &thread, nil,
            { raw in
                let descriptor = Int32(Int(bitPattern: raw!))
                var buffer = [UInt8](repeating: 0, count: 4096)
                while true {
                    let count = read(descriptor, &buffer, buffer.count)
                    guard count > 0, write(descriptor, buffer, count) == count else { return nil }
                }
            }, UnsafeMutableRawPointer(bitPattern: Int(descriptor)))
        guard code == 0 else { throw TimedOut(description: "a thread: errno \(code)") }
    }

    func stop() {
        shutdown(descriptor, Int32(SHUT_RDWR))
        pthread_join(thread, nil)
        Glibc.close(descriptor)
    }
}

/// A length and as many bytes, as ``FramedReceiver`` takes them.
private func framed(_ count: Int, number: Int) -> [UInt8] {
    withUnsafeBytes(of: UInt64(count)) { Array($0) } + (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number) }
}

private func isFrame(_ bytes: [UInt8], _ count: Int, number: Int) -> Bool {
    bytes.count == count && bytes.indices.allSatisfy { bytes[$0] == UInt8(truncatingIfNeeded: $0 &* 7 &+ number) }
}

private func send(_ descriptor: Int32, _ bytes: ArraySlice<UInt8>) throws {
    var rest = bytes
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress!, $0.count) }
        guard count > 0 else { throw TimedOut(description: "write: errno \(errno)") }
        rest = rest.dropFirst(count)
    }
}
