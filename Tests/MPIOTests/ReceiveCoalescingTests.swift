import Testing

@testable import MPIO

@Suite struct ReceiveCoalescingTests {
    /// Runs a closed loop of `depth` requests against a model that gives a request's latency, in
    /// nanoseconds, while answers may gather for `wait`; returns the share it came to.
    private func settledShare(latency: (_ wait: UInt64, _ number: Int) -> UInt64) -> ReceiveCoalescing {
        var coalescing = ReceiveCoalescing(limitNanoseconds: 100_000, stretch: 32)
        for number in 0..<(32 * (ReceiveCoalescing.longestPeriod * 12 + 5)) {
            coalescing.finished(latency: latency(coalescing.nanoseconds(inFlight: 32), number))
        }
        // Past an eager stretch, if it is in one.
        for number in 0..<32 where coalescing.nanoseconds(inFlight: 32) == 0 { coalescing.finished(latency: latency(0, number)) }
        return coalescing
    }

    @Test func aTargetWithAQueueIsLeftToWorkForHalfARequestsTime() {
        // One answer every 8 µs, whatever we do: 32 under way take 256 µs each.
        let coalescing = settledShare { _, number in 256_000 &+ UInt64(number % 97) * 50 }
        #expect(coalescing.share == ReceiveCoalescing.largestShare)
        #expect(coalescing.nanoseconds(inFlight: 32) == 100_000)
    }

    @Test func whereEachAnswerTakesItsTimeRequestsBecomeHardlySlower() {
        let coalescing = settledShare { wait, number in 200_000 &+ wait / 2 &+ UInt64(number % 97) * 50 }
        #expect(coalescing.nanoseconds(inFlight: 32) <= 35_000)
    }

    @Test func whatIsMuchSlowerIsGivenUpWithinTenStretches() {
        var coalescing = ReceiveCoalescing(limitNanoseconds: 200_000, stretch: 32)
        for _ in 0..<(32 * 10) { coalescing.finished(latency: 150_000 + 2 * coalescing.nanoseconds(inFlight: 8)) }
        #expect(coalescing.share <= 4)
    }

    @Test func itComesBackWhenTheTargetGetsAQueue() {
        var coalescing = settledShare { wait, _ in 200_000 &+ wait }
        let slow = coalescing.share
        for _ in 0..<(32 * ReceiveCoalescing.longestPeriod * 8) { coalescing.finished(latency: 256_000) }
        #expect(coalescing.share > slow)
    }

    @Test func fewRequestsAreNeverMadeToWait() {
        let coalescing = settledShare { _, _ in 256_000 }
        #expect(coalescing.nanoseconds(inFlight: ReceiveCoalescing.leastInFlight - 1) == 0)
    }

    @Test func largeAnswersGatherAlreadyWhereTwoAreUnderWay() {
        let coalescing = settledShare { _, _ in 256_000 }
        #expect(coalescing.nanoseconds(inFlight: 2, arePiecesLarge: true) == 100_000)
        #expect(coalescing.nanoseconds(inFlight: 1, arePiecesLarge: true) == 0)
    }

    @Test func nothingWaitsWhereNoSecondAnswerCouldCome() {
        let coalescing = settledShare { _, _ in 1_500_000 }
        // 100 µs are a fifteenth of a request's time.
        #expect(coalescing.nanoseconds(inFlight: 16) == 0)
        #expect(coalescing.nanoseconds(inFlight: 32) > 0)
        #expect(coalescing.nanoseconds(inFlight: 16, arePiecesLarge: true) > 0)
    }

    @Test func oneThatWasHeldUpDoesNotStretchTheWait() {
        var coalescing = ReceiveCoalescing(limitNanoseconds: .max / 128)
        for _ in 0..<1000 { coalescing.finished(latency: 100_000) }
        let before = coalescing.nanoseconds(inFlight: 32)
        coalescing.finished(latency: 60_000_000_000)
        #expect(coalescing.nanoseconds(inFlight: 32) < before * 2)
    }

    @Test func zeroTurnsItOff() {
        var coalescing = ReceiveCoalescing(limitNanoseconds: 0)
        for _ in 0..<1000 { coalescing.finished(latency: 256_000) }
        #expect(coalescing.nanoseconds(inFlight: 32) == 0)
    }
}
