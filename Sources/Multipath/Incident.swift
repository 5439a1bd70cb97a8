public import Timebase

/// One request that did not go as it was meant to, for `mpio explain --last`.
@frozen
public struct Incident: Hashable, Sendable {
    /// What happened to the attempt.
    @frozen
    public enum Kind: Hashable, Sendable {
        /// An attempt ended like this, and the request was retried, or failed.
        case error(PathOutcome)
        /// Its path was lost or taken out: it goes elsewhere.
        case redriven
        /// Its path is stalled: it goes elsewhere, and the old attempt is abandoned.
        case redrivenFromStall
    }

    /// When.
    public var at: Instant
    /// The request.
    public var request: RequestDescriptor
    /// The attempt's number, from 1.
    public var tries: UInt16
    /// The path that had the attempt.
    public var path: PathIndex
    /// What happened.
    public var kind: Kind
}

/// The last incidents, apart from the decisions, which at full speed would push them out within a millisecond. Plain
/// stores into preallocated memory; a request that goes well does not come here.
struct IncidentRing {
    static let capacity = 256
    private let storage = UnsafeMutablePointer<Incident>.allocate(capacity: Self.capacity)
    private var total = 0

    func deallocate() { storage.deallocate() }

    mutating func record(_ incident: Incident) {
        (storage + total % Self.capacity).initialize(to: incident)
        total &+= 1
    }

    /// At most `count`, the newest last.
    func last(_ count: Int) -> [Incident] {
        let available = min(total, Self.capacity, max(count, 0))
        return ((total - available)..<total).map { storage[$0 % Self.capacity] }
    }
}

extension PseudoLUN {
    /// The last requests that did not go well, the newest last; at most 256 are kept.
    public func lastIncidents(_ count: Int) -> [Incident] { incidents.last(count) }

    /// Notes what happened to the attempt that is in a slot.
    func note(_ kind: Incident.Kind, _ slot: Int32, at now: Instant) {
        let entry = slots[Int(slot)]
        incidents.record(
            Incident(
                at: now, request: entry.descriptor, tries: 1 &+ entry.retries &+ entry.freeRetries,
                path: PathIndex(rawValue: entry.path), kind: kind))
    }
}
