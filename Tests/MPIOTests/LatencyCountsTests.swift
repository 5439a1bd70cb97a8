import Foundation
import Testing

@testable import MPIO

@Suite struct LatencyCountsTests {
    @Test func theDifferenceOfTwoTellsTheTimeBetween() throws {
        var histogram = LatencyHistogram()
        for _ in 0..<1000 { histogram.record(nanoseconds: 1_000_000) }
        let before = histogram.latencyCounts
        #expect(before.summary(since: before) == nil)
        for _ in 0..<98 { histogram.record(nanoseconds: 100_000) }
        for _ in 0..<2 { histogram.record(nanoseconds: 8_000_000) }
        let summary = try #require(histogram.latencyCounts.summary(since: before))
        func isNear(_ value: Double?, _ expected: Double) -> Bool { abs((value ?? 0) - expected) < expected / 25 }
        #expect(isNear(summary.p50, 100) && isNear(summary.p99, 8000) && isNear(summary.max, 8000), "\(summary)")
        // From the beginning it is what the histogram itself says.
        let all = try #require(histogram.latencyCounts.summary(since: LatencyCounts()))
        #expect(isNear(all.p50, Double(histogram.percentile(50)) / 1000))
    }

    @Test func whatAnotherProcessSendsIsOnlyCounted() {
        // Lists of different lengths, counters that went back, sums that do not fit: no trap, no nonsense.
        let odd = LatencyCounts(nanoseconds: [1, 2, 3], counts: [.max, .max])
        #expect(odd.summary(since: LatencyCounts())?.p99 != nil)
        #expect(LatencyCounts(nanoseconds: [64], counts: [1]).summary(since: LatencyCounts(nanoseconds: [64], counts: [9])) == nil)
        #expect(LatencyCounts(nanoseconds: [], counts: [4]).summary(since: odd) == nil)
    }

    @Test func aSampleHasThemAndAnOrdinaryLookHasNot() throws {
        var path = PathSnapshot(id: "a", transport: .iscsi, portal: "a", state: .activeOptimized)
        #expect(try !String(decoding: JSONEncoder().encode(path), as: UTF8.self).contains("latency_counts"))
        path.latencyCounts = LatencyCounts(nanoseconds: [32, 96], counts: [1, 2])
        let data = try JSONEncoder().encode(path)
        #expect(String(decoding: data, as: UTF8.self).contains("latency_counts"))
        #expect(try JSONDecoder().decode(PathSnapshot.self, from: data) == path)
    }
}
