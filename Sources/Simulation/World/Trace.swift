import CAio
import Timebase

/// What happened, as a running hash: two runs of one seed that differ anywhere differ here.
final class Trace {
    private var state: UInt64 = 0xCBF2_9CE4_8422_2325
    private(set) var count = 0
    /// Gets each step as a line of text.
    var print: ((String) -> Void)?
    var now = Instant.zero

    var hash: UInt64 { state }

    func record(_ kind: Kind, _ a: UInt64, _ b: UInt64 = 0, _ c: UInt64 = 0) {
        count += 1
        mix(UInt64(kind.rawValue) << 56 ^ now.nanoseconds)
        mix(a)
        mix(b)
        mix(c)
        if let print { print("\(Self.time(now)) \(kind) \(a) \(b) \(c)") }
    }

    /// A line for the reader; its text counts as well.
    func note(_ text: @autoclosure () -> String) {
        count += 1
        mix(now.nanoseconds)
        guard let print else { return }
        print("\(Self.time(now)) \(text())")
    }

    /// A line for the reader alone.
    func show(_ text: String) { print?("\(Self.time(now)) \(text)") }

    func record(_ kind: Kind, _ a: UInt64, bytes: UnsafeRawBufferPointer) {
        let check = bytes.isEmpty ? 0 : mpio_crc32c(0xFFFF_FFFF, bytes.baseAddress, bytes.count)
        record(kind, a, UInt64(bytes.count), UInt64(check))
    }

    enum Kind: UInt8 {
        case connect, connected, accepted, refused, segment, lost, received, sent, closed, reset, timer
        case submit, complete, choose, pathLost, pathRegained, targetCommand, store, fault, phase
    }

    private func mix(_ value: UInt64) {
        state = (state ^ value) &* 0x0000_0100_0000_01B3
        state ^= state >> 29
    }

    private static func time(_ instant: Instant) -> String {
        let micros = instant.nanoseconds / 1000
        let fraction = String(micros % 1_000_000)
        return "\(micros / 1_000_000)." + String(repeating: "0", count: 6 - fraction.count) + fraction
    }
}
