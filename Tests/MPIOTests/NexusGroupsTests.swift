import Testing

@testable import MPIO

struct NexusGroupsTests {
    private func groups(_ tags: [UInt16]) -> NexusGroups {
        var groups = NexusGroups()
        for (portal, tag) in tags.enumerated() { groups.enter(portal, tag: tag) }
        return groups
    }

    @Test func aChainProvesAllOfItsPortals() {
        var groups = groups([1, 1, 1, 1])
        #expect(groups.unproven(among: [0, 1, 2, 3]) == [0, 1, 2, 3])
        for portal in 0..<3 { groups.share(portal, portal + 1) }
        #expect(groups.sharing(with: 0) == [1, 2, 3] && groups.sharing(with: 2) == [0, 1, 3])
        #expect(groups.reinstates(3) == true)
        #expect(groups.unproven(among: [0, 1, 2, 3]).isEmpty)
    }

    @Test func whatIsApartFromOneIsApartFromAllOfItsGroup() {
        var groups = groups([1, 1, 1, 1])
        groups.share(0, 1)
        groups.separate(1, 2)
        #expect(groups.areApart(0, 2) && !groups.areApart(0, 3))
        groups.share(2, 3)
        #expect(groups.areApart(0, 3) && groups.sharing(with: 3) == [2])
        #expect(groups.unproven(among: [0, 1, 2, 3]).isEmpty)
    }

    @Test func aPortalThatIsLoggedInToAgainHasToBeProvenAgainAndNoOther() {
        var groups = groups([1, 1, 1])
        groups.share(0, 1)
        groups.share(1, 2)
        groups.enter(1, tag: 1)
        #expect(groups.sharing(with: 0) == [2] && groups.sharing(with: 1).isEmpty && groups.reinstates(1) == nil)
        #expect(groups.unproven(among: [0, 1, 2]) == [0, 1])
        // While it is the only one that works there is nothing to compare it with.
        #expect(groups.unproven(among: [1]).isEmpty)
    }

    @Test func anAloneOneIsAskedWhetherItReinstates() {
        var groups = groups([1, 1])
        groups.separate(0, 1)
        #expect(groups.isUnjudged(0) && groups.unproven(among: [0, 1]) == [0, 1])
        groups.share(0, 0)
        groups.separate(1, 1)
        #expect(groups.reinstates(0) == true && groups.reinstates(1) == false)
        #expect(groups.unproven(among: [0, 1]).isEmpty)
        // The bad word is believed until the contrary is shown; the good one only of what answered.
        groups.enter(0, tag: 1)
        groups.enter(1, tag: 1)
        #expect(groups.reinstates(0) == nil && groups.reinstates(1) == false)
        groups.share(0, 1)
        #expect(groups.reinstates(1) == true)
    }

    @Test func portalGroupsAreNeverCompared() {
        var groups = groups([1, 2, 2])
        #expect(groups.unproven(among: [0, 1, 2]) == [1, 2])
        groups.share(0, 1)
        #expect(groups.sharing(with: 0).isEmpty)
    }
}
