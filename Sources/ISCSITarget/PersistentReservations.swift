import SCSI

/// Registrations and the reservation of one logical unit (SPC-4 clause 5.13). Knows nothing of commands:
/// it answers who holds what and which other nexuses a change concerns.
struct PersistentReservations {
    struct Registration {
        var nexus: NexusIndex
        var key: UInt64
    }

    struct Reservation {
        var type: ReservationType
        /// Who made it. Where the type is one of all registrants, every one of them holds it.
        var maker: NexusIndex
    }

    /// Registrations a unit has room for.
    static let capacity = 1024

    /// PRGENERATION
    private(set) var generation: UInt32 = 0
    /// In the order of registration.
    private(set) var registrations: [Registration] = []
    private(set) var reservation: Reservation?

    func key(of nexus: NexusIndex) -> UInt64? { registrations.first { $0.nexus == nexus }?.key }
    func isRegistered(_ nexus: NexusIndex) -> Bool { registrations.contains { $0.nexus == nexus } }

    func holds(_ nexus: NexusIndex) -> Bool {
        guard let reservation else { return false }
        return reservation.type.isAllRegistrants ? isRegistered(nexus) : reservation.maker == nexus
    }

    /// Whether the reservation keeps a command from this nexus that reads, or writes, the medium.
    func excludes(_ nexus: NexusIndex, writing: Bool) -> Bool {
        guard let reservation, !holds(nexus) else { return false }
        if reservation.type.admitsRegistrants, isRegistered(nexus) { return false }
        return writing || reservation.type.excludesReads
    }

    /// Nexuses that must be told, and what of.
    typealias Notices = [(nexus: NexusIndex, attention: UnitAttentions)]

    /// REGISTER with the present key already checked; key 0 ends the registration. nil: no room.
    mutating func register(_ nexus: NexusIndex, key: UInt64) -> Notices? {
        if let index = registrations.firstIndex(where: { $0.nexus == nexus }) {
            generation &+= 1
            if key != 0 {
                registrations[index].key = key
                return []
            }
            return unregister(index)
        }
        guard key != 0 else { return [] }
        guard registrations.count < Self.capacity else { return nil }
        generation &+= 1
        registrations.append(Registration(nexus: nexus, key: key))
        return []
    }

    private mutating func unregister(_ index: Int) -> Notices {
        let nexus = registrations.remove(at: index).nexus
        guard let held = reservation else { return [] }
        if held.type.isAllRegistrants {
            if registrations.isEmpty { reservation = nil }
            return []
        }
        guard held.maker == nexus else { return [] }
        reservation = nil
        return held.type.admitsRegistrants ? others(than: nexus, .reservationsReleased) : []
    }

    /// False: another reservation exists.
    mutating func reserve(_ nexus: NexusIndex, type: ReservationType) -> Bool {
        if let reservation { return holds(nexus) && reservation.type == type }
        reservation = Reservation(type: type, maker: nexus)
        return true
    }

    /// nil: the type is not that of the reservation.
    mutating func release(_ nexus: NexusIndex, type: ReservationType) -> Notices? {
        guard let held = reservation, holds(nexus) else { return [] }
        guard held.type == type else { return nil }
        reservation = nil
        return held.type.admitsRegistrants ? others(than: nexus, .reservationsReleased) : []
    }

    mutating func clear(by nexus: NexusIndex) -> Notices {
        let notices = others(than: nexus, .reservationsPreempted)
        generation &+= 1
        registrations = []
        reservation = nil
        return notices
    }

    enum PreemptResult {
        case done(preempted: [NexusIndex], notices: Notices)
        case conflict
        /// A key of 0 where not all registrants hold the reservation.
        case badKey
    }

    mutating func preempt(by nexus: NexusIndex, key: UInt64, type: ReservationType) -> PreemptResult {
        let held = reservation
        let preemptsAll = key == 0
        if preemptsAll, held?.type.isAllRegistrants != true { return .badKey }
        let takesOver: Bool
        if let held {
            takesOver = held.type.isAllRegistrants ? preemptsAll : self.key(of: held.maker) == key
        } else {
            takesOver = false
        }
        guard preemptsAll || registrations.contains(where: { $0.key == key }) else { return .conflict }
        // A preemptor that names its own key keeps its registration only where it takes a reservation over.
        let preempted = registrations.filter {
            ($0.nexus != nexus || !(takesOver || $0.key != key)) && (preemptsAll || $0.key == key)
        }.map(\.nexus)
        registrations.removeAll { preempted.contains($0.nexus) }
        generation &+= 1
        var notices: Notices = preempted.filter { $0 != nexus }.map { ($0, .registrationsPreempted) }
        if takesOver, let held {
            reservation = Reservation(type: type, maker: nexus)
            if held.type != type, held.type.admitsRegistrants { notices += others(than: nexus, .reservationsReleased) }
        } else if held != nil, !registrations.contains(where: { holds($0.nexus) }) {
            reservation = nil
        }
        return .done(preempted: preempted.filter { $0 != nexus }, notices: notices)
    }

    private func others(than nexus: NexusIndex, _ attention: UnitAttentions) -> Notices {
        registrations.filter { $0.nexus != nexus }.map { ($0.nexus, attention) }
    }
}
