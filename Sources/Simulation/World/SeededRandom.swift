import Timebase

/// A stream of numbers that a seed decides (SplitMix64). A class: everything in a world draws from one of a
/// few streams, in the order in which the world runs.
final class SeededRandom {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    /// A stream of its own, so that more draws in one place do not change what happens in another.
    func fork() -> SeededRandom { SeededRandom(seed: next()) }

    func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// 0..<bound
    func below(_ bound: Int) -> Int { Int(next() % UInt64(max(bound, 1))) }

    func within(_ range: ClosedRange<Int>) -> Int { range.lowerBound + below(range.upperBound - range.lowerBound + 1) }

    /// True so many times in a million.
    func chance(perMillion: Int) -> Bool { below(1_000_000) < perMillion }
    func chance(percent: Int) -> Bool { below(100) < percent }

    func pick<Element>(_ elements: [Element]) -> Element { elements[below(elements.count)] }

    func duration(_ range: ClosedRange<Duration>) -> Duration {
        let low = range.lowerBound.wholeNanoseconds
        let span = UInt64(range.upperBound.wholeNanoseconds - low) + 1
        return .nanoseconds(low + Int64(next() % span))
    }

    /// As ``duration(_:)``, each order of magnitude as likely as another.
    func spreadDuration(_ range: ClosedRange<Duration>) -> Duration {
        var high = range.upperBound
        while high / 2 > range.lowerBound, chance(percent: 50) { high = high / 2 }
        return duration(range.lowerBound...max(high, range.lowerBound))
    }
}
