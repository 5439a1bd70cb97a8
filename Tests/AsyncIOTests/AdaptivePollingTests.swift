import Testing

@testable import AsyncIO

@Suite struct AdaptivePollingTests {
    /// A loop at depth 1: each wait moves 4 KiB and costs what `wait` says, given whether it polled.
    private struct Loop {
        var polling = AdaptivePolling(limitNanoseconds: 50_000)
        var used: UInt64 = 0
        var bytes: UInt64 = 0
        var polledWaits = 0
        var waits = 0

        mutating func run(_ count: Int, wait: (_ polls: Bool) -> (found: Bool, cost: UInt64), disturbing: Bool = false) {
            for _ in 0..<count {
                let polls = polling.polls
                let outcome = wait(polls)
                used += outcome.cost
                bytes += 4096
                waits += 1
                if polls { polledWaits += 1 }
                if disturbing { polling.disturb() }
                if polling.waited(found: polls && outcome.found) { polling.endStretch(used: used, bytes: bytes) }
            }
        }
    }

    @Test func anAnswerThatComesSoonIsLookedFor() {
        var loop = Loop()
        loop.run(20_000) { $0 ? (true, 26_000) : (false, 30_000) }
        #expect(loop.polling.prefersPolling)
        #expect(loop.polledWaits > loop.waits * 9 / 10)
    }

    @Test func alsoWhereThatCostsALittleMore() {
        var loop = Loop()
        loop.run(20_000) { $0 ? (true, 32_000) : (false, 30_000) }
        #expect(loop.polling.prefersPolling)
    }

    @Test func notWhereSleepingIsClearlyCheaper() {
        var loop = Loop()
        loop.run(20_000) { $0 ? (true, 45_000) : (false, 30_000) }
        #expect(!loop.polling.prefersPolling)
        #expect(loop.polledWaits < loop.waits / 30)
    }

    @Test func aSlowTargetIsWaitedForAsleep() {
        var loop = Loop()
        loop.run(50_000) { $0 ? (false, 80_000) : (false, 30_000) }
        #expect(!loop.polling.prefersPolling)
        // Trials that find nothing end early.
        #expect(loop.polledWaits <= loop.waits * AdaptivePolling.patience / (AdaptivePolling.period * AdaptivePolling.stretch) + 50)
    }

    @Test func aTargetThatBecomesSlowIsNoLongerLookedFor() {
        var loop = Loop()
        loop.run(5_000) { $0 ? (true, 26_000) : (false, 30_000) }
        #expect(loop.polling.prefersPolling)
        loop.run(AdaptivePolling.stretch) { $0 ? (false, 80_000) : (false, 30_000) }
        #expect(!loop.polling.prefersPolling)
        loop.run(20_000) { $0 ? (true, 26_000) : (false, 30_000) }
        #expect(loop.polling.prefersPolling)
    }

    @Test func nothingIsJudgedByStretchesOfOtherWork() {
        var loop = Loop()
        loop.run(20_000, wait: { $0 ? (true, 26_000) : (false, 30_000) }, disturbing: true)
        #expect(!loop.polling.prefersPolling)
        loop.run(2_000) { $0 ? (true, 26_000) : (false, 30_000) }
        #expect(loop.polling.prefersPolling)
    }

    @Test func waitsThatMoveNothingSpeakAgainstLooking() {
        var polling = AdaptivePolling(limitNanoseconds: 50_000)
        var used: UInt64 = 0
        for _ in 0..<5_000 {
            used += 1_000
            if polling.waited(found: polling.polls) { polling.endStretch(used: used, bytes: 0) }
        }
        #expect(!polling.prefersPolling)
    }

    @Test func zeroTurnsItOff() {
        var polling = AdaptivePolling(limitNanoseconds: 0)
        for number in 0..<5_000 {
            #expect(!polling.polls)
            if polling.waited(found: false) { polling.endStretch(used: UInt64(number), bytes: UInt64(number)) }
        }
    }
}
