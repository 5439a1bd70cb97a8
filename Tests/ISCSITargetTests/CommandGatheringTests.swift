import Testing

@testable import ISCSITarget

@Suite struct CommandGatheringTests {
    /// Stretches against a model of an initiator that says how long one command takes with a wait, in nanoseconds.
    private func run(_ gathering: inout CommandGathering, stretches: Int, at now: inout UInt64, perCommand: (UInt64) -> UInt64) {
        for _ in 0..<(stretches * CommandGathering.stretch / 4) {
            now += 4 * perCommand(gathering.nanoseconds)
            _ = gathering.received(4, byteCount: 4 * 4096, at: now)
        }
    }

    private func settled(perCommand: (UInt64) -> UInt64) -> CommandGathering {
        var gathering = CommandGathering()
        var now: UInt64 = 1_000_000
        // To just before a trial, so that the wait is the usual one.
        run(&gathering, stretches: 4 * CommandGathering.longestPeriod, at: &now, perCommand: perCommand)
        return gathering
    }

    @Test func whereTheInitiatorGoesOnCommandsGather() {
        let gathering = settled { _ in 15_000 }
        #expect(gathering.level == CommandGathering.highestLevel)
    }

    @Test func whereItIsFasterForItCommandsGather() {
        #expect(settled { 20_000 - $0 / 20 }.level == CommandGathering.highestLevel)
    }

    @Test func anInitiatorThatWaitsForEachAnswerIsNotKeptWaiting() {
        #expect(settled { 20_000 + $0 }.level == 0)
    }

    /// Four initiators with one command each: none can send before its answer.
    @Test func norAreFewThatDo() {
        #expect(settled { 15_000 + $0 / 4 }.level == 0)
    }

    @Test func fewCommandsASecondDoNotGather() {
        #expect(settled { _ in 41_000 }.level == 0)
    }

    @Test func theWaitEndsWhenTheInitiatorChanges() {
        var gathering = CommandGathering()
        var now: UInt64 = 0
        run(&gathering, stretches: 20, at: &now) { _ in 10_000 }
        #expect(gathering.level == CommandGathering.highestLevel)
        run(&gathering, stretches: 20 * CommandGathering.longestPeriod, at: &now) { 10_000 + $0 / 4 }
        #expect(gathering.level == 0)
    }

    @Test func aPauseEndsIt() {
        var gathering = CommandGathering()
        var now: UInt64 = 0
        run(&gathering, stretches: 20, at: &now) { _ in 10_000 }
        now += 60_000_000_000
        run(&gathering, stretches: 1, at: &now) { _ in 10_000 }
        #expect(gathering.level == 0)
    }

    @Test func aClockThatStandsStillDoesNoHarm() {
        var gathering = CommandGathering()
        for _ in 0..<100_000 { _ = gathering.received(3, byteCount: 0, at: 5) }
        #expect(gathering.nanoseconds <= 160_000)
    }

    /// A program that asks in bursts does not begin anew with each.
    @Test func whatProvedBestIsTriedFirstAfterAPause() {
        var gathering = CommandGathering()
        var now: UInt64 = 0
        run(&gathering, stretches: 20, at: &now) { _ in 10_000 }
        #expect(gathering.level == CommandGathering.highestLevel)
        now += 60_000_000_000
        run(&gathering, stretches: 4, at: &now) { _ in 10_000 }
        #expect(gathering.level == CommandGathering.highestLevel)
    }

    @Test func whatProvedBestIsForgottenWhereItNoLongerIs() {
        var gathering = CommandGathering()
        var now: UInt64 = 0
        run(&gathering, stretches: 20, at: &now) { _ in 10_000 }
        now += 60_000_000_000
        run(&gathering, stretches: 8 * CommandGathering.longestPeriod, at: &now) { 10_000 + $0 / 4 }
        #expect(gathering.level == 0)
    }

    @Test func largeTransfersDoNotGather() {
        var gathering = CommandGathering()
        for turn in 1...UInt64(100 * CommandGathering.stretch) {
            _ = gathering.received(1, byteCount: 64 << 10, at: turn * 10_000)
            #expect(gathering.nanoseconds == 0)
        }
    }

    /// A machine with other programs: stretches differ by up to a tenth whatever the wait. In 60 of them, half a second, most
    /// connections have come to gather.
    @Test func noiseDoesNotKeepCommandsFromGathering() {
        var levels: [Int] = []
        for seed in 1...40 {
            var gathering = CommandGathering()
            var now: UInt64 = 0
            var random = UInt64(seed) &* 0x9E37_79B9_7F4A_7C15
            for _ in 0..<60 {
                random ^= random >> 12
                random ^= random << 25
                random ^= random >> 27
                now += UInt64(CommandGathering.stretch) * (13_500 + (random &* 0x2545_F491_4F6C_DD1D) >> 33 % 1500)
                _ = gathering.received(CommandGathering.stretch, byteCount: 0, at: now)
            }
            levels.append(gathering.level)
        }
        #expect(levels.count { $0 >= 2 } >= 30, "\(levels)")
    }
}
