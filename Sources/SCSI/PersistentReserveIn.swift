// The parameter data of PERSISTENT RESERVE IN (SPC-4 clause 6.15). Each begins with PRGENERATION, which
// counts the changes of registrations, and ADDITIONAL LENGTH.

/// READ KEYS.
public struct RegisteredKeys: Hashable, Sendable {
    /// PRGENERATION: counts changes of registrations.
    public var generation: UInt32
    /// A key for each registration; the same one may come several times.
    public var keys: [UInt64]

    /// An answer.
    public init(generation: UInt32, keys: [UInt64]) {
        self.generation = generation
        self.keys = keys
    }

    /// Nil below 8 bytes; of a cut list, the keys that were received whole.
    public init?(parsing bytes: [UInt8]) {
        guard let generation = bytes.uint32(at: 0), let count = bytes.uint32(at: 4) else { return nil }
        let end = min(bytes.count, 8 + Int(count))
        self.init(generation: generation, keys: stride(from: 8, to: end - 7, by: 8).compactMap { bytes.uint64(at: $0) })
    }

    /// Header and keys.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(bigEndian: generation)
        bytes.append(bigEndian: (8 * keys.count).saturated(to: UInt32.self))
        for key in keys { bytes.append(bigEndian: key) }
        return bytes
    }
}

/// READ RESERVATION.
public struct ReservationReport: Hashable, Sendable {
    /// Who reserved the unit, and how.
    public struct Holder: Hashable, Sendable {
        /// 0 where all registrants hold the reservation.
        public var key: UInt64
        /// The kind of reservation.
        public var type: ReservationType
        /// A holder by its key.
        public init(key: UInt64, type: ReservationType) {
            self.key = key
            self.type = type
        }
    }

    /// PRGENERATION: counts changes of registrations.
    public var generation: UInt32
    /// Nil: nothing is reserved.
    public var reservation: Holder?

    /// An answer.
    public init(generation: UInt32, reservation: Holder?) {
        self.generation = generation
        self.reservation = reservation
    }

    /// Nil where the answer ends before it has said whether and by whom.
    public init?(parsing bytes: [UInt8]) {
        guard let generation = bytes.uint32(at: 0), let count = bytes.uint32(at: 4) else { return nil }
        if count == 0 {
            self.init(generation: generation, reservation: nil)
        } else {
            guard count >= 16, let key = bytes.uint64(at: 8), let type = bytes.byte(at: 21) else { return nil }
            self.init(generation: generation, reservation: Holder(key: key, type: ReservationType(rawValue: type)))
        }
    }

    /// 8 bytes, 24 where there is a reservation.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(bigEndian: generation)
        bytes.append(bigEndian: UInt32(reservation == nil ? 0 : 16))
        if let reservation {
            bytes.append(bigEndian: reservation.key)
            bytes += [0, 0, 0, 0, 0, reservation.type.rawValue, 0, 0]
        }
        return bytes
    }
}

/// REPORT CAPABILITIES.
public struct ReservationCapabilities: Hashable, Sendable {
    /// RLR_C: REPLACE LOST RESERVATION.
    public var replacesLostReservation = false
    /// CRH: RESERVE and RELEASE are handled compatibly.
    public var handlesCompatibleReservation = false
    /// SIP_C: registrations may name other initiator ports.
    public var specifiesInitiatorPorts = false
    /// ATP_C: registrations may count for all target ports.
    public var registersAllTargetPorts = false
    /// PTPL_C: reservations can outlive a power loss.
    public var canPersistThroughPowerLoss = false
    /// PTPL_A: they now do.
    public var persistsThroughPowerLoss = false
    /// ALLOW COMMANDS, 0…7.
    public var allowCommands: UInt8 = 0
    /// Which types are served; nil where the device does not say (TMV not set).
    public var types: [ReservationType]?

    /// A device that offers none of it.
    public init() {}

    /// Nil below 6 bytes.
    public init?(parsing bytes: [UInt8]) {
        guard bytes.count >= 6 else { return nil }
        replacesLostReservation = bytes.bit(7, at: 2)
        handlesCompatibleReservation = bytes.bit(4, at: 2)
        specifiesInitiatorPorts = bytes.bit(3, at: 2)
        registersAllTargetPorts = bytes.bit(2, at: 2)
        canPersistThroughPowerLoss = bytes.bit(0, at: 2)
        allowCommands = (bytes[3] >> 4) & 0x07
        persistsThroughPowerLoss = bytes.bit(0, at: 3)
        if bytes.bit(7, at: 3) { types = Self.maskPlaces.filter { bytes.bit($0.bit, at: $0.byte) }.map(\.type) }
    }

    /// 8 bytes.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = [0, 8, 0, 0, 0, 0, 0, 0]
        bytes[2] |= (replacesLostReservation ? 0x80 : 0) | (handlesCompatibleReservation ? 0x10 : 0)
        bytes[2] |= (specifiesInitiatorPorts ? 0x08 : 0) | (registersAllTargetPorts ? 0x04 : 0)
        bytes[2] |= canPersistThroughPowerLoss ? 0x01 : 0
        bytes[3] = (types == nil ? 0 : 0x80) | (allowCommands & 0x07) << 4 | (persistsThroughPowerLoss ? 1 : 0)
        for place in Self.maskPlaces where types?.contains(place.type) == true {
            bytes[place.byte] |= 1 << place.bit
        }
        return bytes
    }

    /// PERSISTENT RESERVATION TYPE MASK (SPC-4 table 221).
    private static let maskPlaces: [(type: ReservationType, byte: Int, bit: UInt8)] = [
        (.writeExclusive, 4, 1), (.exclusiveAccess, 4, 3), (.writeExclusiveRegistrantsOnly, 4, 5),
        (.exclusiveAccessRegistrantsOnly, 4, 6), (.writeExclusiveAllRegistrants, 4, 7),
        (.exclusiveAccessAllRegistrants, 5, 0),
    ]
}

/// READ FULL STATUS.
public struct FullReservationStatus: Hashable, Sendable {
    /// One registered I_T nexus.
    public struct Registration: Hashable, Sendable {
        /// Its key.
        public var key: UInt64
        /// ALL_TG_PT: it counts for all target ports, and `relativeTargetPort` means nothing.
        public var coversAllTargetPorts: Bool
        /// Nil where this nexus does not hold the reservation.
        public var heldType: ReservationType?
        /// The relative identifier of the target port; meaningless where it counts for all.
        public var relativeTargetPort: UInt16
        /// The initiator port.
        public var transportID: TransportID

        /// A registration.
        public init(
            key: UInt64, coversAllTargetPorts: Bool = false, heldType: ReservationType?,
            relativeTargetPort: UInt16, transportID: TransportID
        ) {
            self.key = key
            self.coversAllTargetPorts = coversAllTargetPorts
            self.heldType = heldType
            self.relativeTargetPort = relativeTargetPort
            self.transportID = transportID
        }
    }

    /// PRGENERATION: counts changes of registrations.
    public var generation: UInt32
    /// Every registration.
    public var registrations: [Registration]

    /// An answer.
    public init(generation: UInt32, registrations: [Registration]) {
        self.generation = generation
        self.registrations = registrations
    }

    /// Nil below 8 bytes. A descriptor that is cut, or whose TransportID is none, ends the list.
    public init?(parsing received: [UInt8]) {
        guard let generation = received.uint32(at: 0), let count = received.uint32(at: 4) else { return nil }
        self.init(generation: generation, registrations: [])
        let bytes = received.clamped(0..<(8 + Int(count)))
        var offset = 8
        while let idCount = bytes.uint32(at: offset + 20), let key = bytes.uint64(at: offset),
            let transportID = TransportID(bytes, at: offset + 24), bytes.count - offset - 24 >= Int(idCount)
        {
            registrations.append(
                Registration(
                    key: key, coversAllTargetPorts: bytes.bit(1, at: offset + 12),
                    heldType: bytes.bit(0, at: offset + 12) ? ReservationType(rawValue: bytes[offset + 13]) : nil,
                    relativeTargetPort: bytes.uint16(at: offset + 18) ?? 0, transportID: transportID))
            offset += 24 + Int(idCount)
        }
    }

    /// Header and descriptors.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(bigEndian: generation)
        bytes += [0, 0, 0, 0]
        for registration in registrations {
            let transportID = registration.transportID.encode()
            bytes.append(bigEndian: registration.key)
            bytes += [0, 0, 0, 0]
            bytes.append((registration.coversAllTargetPorts ? 2 : 0) | (registration.heldType == nil ? 0 : 1))
            bytes.append(registration.heldType?.rawValue ?? 0)
            bytes += [0, 0, 0, 0]
            bytes.append(bigEndian: registration.relativeTargetPort)
            bytes.append(bigEndian: UInt32(transportID.count))
            bytes += transportID
        }
        bytes.store(bigEndian: (bytes.count - 8).saturated(to: UInt32.self), at: 4)
        return bytes
    }
}
