/// What is known of the portals of one target: which of them lead to the same sessions, so that a login through the one
/// ends what the same ISID began through the other (RFC 7143 section 6.3.5).
///
/// The same target name and portal group tag only claim it: two processes that share no session may both say them.
/// Bookkeeping alone; ``PortalGroupProof`` finds it out. A portal's number is its place in the configuration.
struct NexusGroups {
    private struct Place {
        var tag: UInt16
        /// Portals with the same number are proven to share sessions.
        var group: Int
    }

    private struct Pair: Hashable {
        let low, high: Int
        init(_ a: Int, _ b: Int) { (low, high) = (min(a, b), max(a, b)) }
    }

    private var places: [Int: Place] = [:]
    /// Groups that are proven to share none.
    private var apart: Set<Pair> = []
    /// Whether a second login by one ISID through the portal ended the first.
    private var verdicts: [Int: Bool] = [:]
    /// The portals whose verdict is newer than their last login.
    private var judged: Set<Int> = []
    private var nextGroup = 0

    /// The portal was logged in to. What answers there may be another process than before, so it has to prove itself anew.
    mutating func enter(_ portal: Int, tag: UInt16) {
        places[portal] = Place(tag: tag, group: nextGroup)
        nextGroup += 1
        judged.remove(portal)
        // That it did not reinstate is believed until it does.
        if verdicts[portal] == true { verdicts[portal] = nil }
        let inUse = Set(places.values.map(\.group))
        apart = apart.filter { inUse.contains($0.low) && inUse.contains($0.high) }
    }

    /// A login through the one ended a session through the other. Twice the same portal: it reinstates.
    mutating func share(_ a: Int, _ b: Int) {
        guard let first = places[a], let second = places[b], first.tag == second.tag else { return }
        for portal in [a, b] {
            verdicts[portal] = true
            judged.insert(portal)
        }
        guard first.group != second.group else { return }
        for (portal, place) in places where place.group == second.group { places[portal]?.group = first.group }
        apart = Set(
            apart.map { Pair($0.low == second.group ? first.group : $0.low, $0.high == second.group ? first.group : $0.high) })
    }

    /// A session through the one outlived a login through the other. Twice the same portal: it does not reinstate.
    mutating func separate(_ a: Int, _ b: Int) {
        guard let first = places[a], let second = places[b] else { return }
        if a == b {
            verdicts[a] = false
            judged.insert(a)
        } else if first.group != second.group {
            apart.insert(Pair(first.group, second.group))
        }
    }

    /// Whether a login by an ISID in use ends the older session; nil: not known.
    func reinstates(_ portal: Int) -> Bool? { verdicts[portal] }

    /// The other portals that are proven to share this one's sessions, in ascending order.
    func sharing(with portal: Int) -> [Int] {
        guard let group = places[portal]?.group else { return [] }
        return places.filter { $0.key != portal && $0.value.group == group }.keys.sorted()
    }

    func areApart(_ a: Int, _ b: Int) -> Bool {
        guard let first = places[a], let second = places[b] else { return false }
        return apart.contains(Pair(first.group, second.group))
    }

    /// The portals that must be logged in to, one after the other, to learn what is unknown among those of one portal
    /// group tag: one for each group. Empty: nothing is. `portals` are those that work now.
    func unproven(among portals: [Int]) -> [Int] {
        for tag in Set(portals.compactMap { places[$0]?.tag }).sorted() {
            let members = portals.filter { places[$0]?.tag == tag }.sorted()
            guard members.count > 1 else { continue }
            var groups: Set<Int> = []
            let heads = members.filter { groups.insert(places[$0]!.group).inserted }
            let unknown = heads.filter { head in
                isUnjudged(head) || heads.contains { $0 != head && !areApart(head, $0) }
            }
            if !unknown.isEmpty { return unknown }
        }
        return []
    }

    /// Alone in its group, and not yet seen to end its own older session.
    func isUnjudged(_ portal: Int) -> Bool { !judged.contains(portal) && sharing(with: portal).isEmpty }
}
