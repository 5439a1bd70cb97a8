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
}
