import Testing

@testable import MPIO

/// What has to stay small however many LUNs there are.
@Suite struct ScaleTests {
    @Test func ratesOfManyDisksAreSampledAFewAtATime() {
        #expect(RateSampler.pause(diskCount: 1) == .seconds(1))
        #expect(RateSampler.pause(diskCount: RateSampler.disksAtOnce) == .seconds(1))
        #expect(RateSampler.pause(diskCount: RateSampler.disksAtOnce + 1) == .milliseconds(500))
        #expect(RateSampler.pause(diskCount: 64 * RateSampler.disksAtOnce) * 64 == .seconds(1))
    }

    @Test(arguments: [
        ("a", true), ("0", true), ("vm-store_2.old", true), ("", false), ("-a", false), (".a", false), ("_a", false), ("a b", false),
        ("ä", false), ("a\u{301}", false), ("a/b", false),
    ])
    func namesOfLUNsAreOfPlainCharacters(_ text: String, isName: Bool) {
        #expect(ConfigurationReader.isLUNName(text) == isName)
        #expect(ConfigurationReader.isLUNName(text + String(repeating: "x", count: 64 - text.utf8.count)) == (isName || text.isEmpty))
        #expect(!ConfigurationReader.isLUNName(text + String(repeating: "x", count: 65 - text.utf8.count)))
    }
}
