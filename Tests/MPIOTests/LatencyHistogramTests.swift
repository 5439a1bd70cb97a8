import Testing

@testable import MPIO

@Suite struct LatencyHistogramTests {
    @Test func anEmptyHistogramAnswersZero() {
        let histogram = LatencyHistogram()
        #expect(histogram.percentile(50) == 0)
        #expect(histogram.maximum == 0)
        #expect(histogram.count == 0)
    }

    @Test func everyBucketHoldsItsMiddleAndNeighboursMeet() {
        var previous = -1
        for index in 0..<896 {
            #expect(LatencyHistogram.bucket(of: LatencyHistogram.middle(ofBucket: index)) == index)
        }
        var value: UInt64 = 0
        while value < 200_000_000_000 {
            let bucket = LatencyHistogram.bucket(of: value)
            #expect(bucket >= previous && bucket < 896)
            previous = bucket
            value += value / 100 + 1
        }
        #expect(LatencyHistogram.bucket(of: .max) == 895)
    }

    @Test func percentilesAreWithinOneThirtySecond() {
        var histogram = LatencyHistogram()
        for value in 1...100_000 as ClosedRange<UInt64> { histogram.record(nanoseconds: value * 1000) }
        for percent in [1.0, 25, 50, 90, 99, 99.9] {
            let exact = percent / 100 * 100_000_000
            let measured = Double(histogram.percentile(percent))
            #expect(abs(measured - exact) <= exact / 32, "p\(percent): \(measured) for \(exact)")
        }
        #expect(histogram.percentile(100) == 100_000_000)
        #expect(histogram.percentile(200) == 100_000_000)
        #expect(histogram.percentile(.nan) <= 1100)
        #expect(histogram.maximum == 100_000_000)
    }

    @Test func aPercentileNeverExceedsTheMaximum() {
        var histogram = LatencyHistogram()
        histogram.record(nanoseconds: 1_000_001)
        #expect(histogram.percentile(50) <= 1_000_001)
        histogram.record(nanoseconds: .max)
        #expect(histogram.maximum == .max)
        #expect(histogram.percentile(100) == .max)
    }

    @Test func mergingAddsAndResettingForgets() {
        var first = LatencyHistogram()
        var second = LatencyHistogram()
        for _ in 0..<10 { first.record(nanoseconds: 10_000) }
        for _ in 0..<90 { second.record(nanoseconds: 50_000_000) }
        first.merge(second)
        #expect(first.count == 100)
        #expect(first.percentile(5) < 11_000)
        #expect(first.percentile(50) > 48_000_000)
        first.reset()
        #expect(first.count == 0 && first.maximum == 0 && first.percentile(99) == 0)
    }
}
