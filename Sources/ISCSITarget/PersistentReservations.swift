import SCSI

/// Registrations and the reservation of one logical unit (SPC-4 clause 5.13). Knows nothing of commands:
/// it answers who holds what and which other nexuses a change concerns.
struct PersistentReservations: Equatable {
    struct Registration: Equatable {
        var nexus: NexusIndex
        var key: UInt64
    }

    struct Reservation: Equatable {
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
    /// APTPL of the last registration: all of it outlives a loss of power.
    var persistsThroughPowerLoss = false

    init() {}

    /// As they were before a loss of power, which counts PRGENERATION from 0 again (SPC-4 clause 6.15.2).
    init(registrations: [Registration], reservation: Reservation?) {
        self.registrations = registrations
        self.reservation = reservation
        persistsThroughPowerLoss = true
    }

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

    /// REGISTER with the present key already checked; key 0 ends the registration. `others` are registered with
    /// the same key where they are not yet (SPEC_I_PT, ALL_TG_PT). nil: no room.
    mutating func register(_ nexus: NexusIndex, key: UInt64, others: [NexusIndex] = []) -> Notices? {
        let known = registrations.firstIndex { $0.nexus == nexus }
        if let known, key == 0 {
            generation &+= 1
            return unregister(known)
        }
        guard key != 0 else { return [] }
        let added = ((known == nil ? [nexus] : []) + others.filter { $0 != nexus && !isRegistered($0) })
        guard registrations.count + added.count <= Self.capacity else { return nil }
        generation &+= 1
        if let known { registrations[known].key = key }
        for nexus in added where !isRegistered(nexus) { registrations.append(Registration(nexus: nexus, key: key)) }
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

    /// REGISTER AND MOVE by the holder of a reservation that is not one of all registrants. False: no room.
    mutating func move(from nexus: NexusIndex, to target: NexusIndex, key: UInt64, unregisters: Bool) -> Bool {
        if let known = registrations.firstIndex(where: { $0.nexus == target }) {
            registrations[known].key = key
        } else {
            guard registrations.count < Self.capacity else { return false }
            registrations.append(Registration(nexus: target, key: key))
        }
        generation &+= 1
        reservation?.maker = target
        if unregisters { registrations.removeAll { $0.nexus == nexus } }
        return true
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
