import AsyncIO
import Glibc
import ISCSI
import SCSI

// PERSISTENT RESERVE OUT (SPC-4 clauses 5.13.5 to 5.13.11 and 6.16). Each action changes a copy of the state, which
// takes effect when it was saved, where it is to be saved.
extension LogicalUnit {
    private enum Outcome {
        case done(PersistentReservations.Notices)
        /// PREEMPT AND ABORT: the commands of these nexuses are to end first.
        case aborting([NexusIndex], PersistentReservations.Notices)
        case refused(DeviceResult)

        static func refused(_ sense: SenseData) -> Outcome { .refused(.check(sense)) }
        static var conflict: Outcome { .refused(.status(.reservationConflict)) }
    }

    func persistentReserveOut(
        _ command: DeviceCommand, _ action: PersistentReserveOutAction, _ type: ReservationType, parameterByteCount length: Int
    ) {
        guard length >= 24, command.dataOut.count >= length else { return finish(command, .check(.parameterListLength)) }
        let list = Array(command.dataOut[..<length])
        var state = persistentReservations
        let outcome: Outcome
        do throws(IllegalRequest) {
            switch action {
            case .replaceLostReservation: outcome = .refused(.badCDBField)
            case .registerAndMove: outcome = move(try RegisterAndMoveParameters(parsing: list), command.nexus, &state)
            case .register, .registerAndIgnoreExistingKey:
                outcome = register(action, try ReservationParameters(parsing: list), command.nexus, &state)
            default:
                let parameters = try ReservationParameters(parsing: list)
                guard parameters.initiatorPorts == nil else { throw .fieldInParameterList(byte: 20, bit: 3) }
                outcome = perform(action, parameters, type, command.nexus, &state)
            }
        } catch {
            return finish(command, .check(error))
        }
        switch outcome {
        case .refused(let result): finish(command, result)
        case .done(let notices):
            guard commit(state) else { return finish(command, .check(.internalTargetFailure)) }
            tell(notices)
            finish(command, .status(.good, dataOutByteCount: length))
        case .aborting(let nexuses, let notices):
            guard commit(state) else { return finish(command, .check(.internalTargetFailure)) }
            tell(notices)
            abort(nexuses, then: command, .status(.good, dataOutByteCount: length))
        }
    }

    private func tell(_ notices: PersistentReservations.Notices) {
        for notice in notices { raise(notice.attention, for: notice.nexus) }
    }

    // MARK: actions

    private func register(
        _ action: PersistentReserveOutAction, _ parameters: ReservationParameters, _ nexus: NexusIndex,
        _ state: inout PersistentReservations
    ) -> Outcome {
        let key = state.key(of: nexus)
        // An unregistered nexus says 0 (REGISTER) or anything (REGISTER AND IGNORE EXISTING KEY).
        if action == .register, parameters.key != key ?? 0 { return .conflict }
        if parameters.persistsThroughPowerLoss, reservationStore == nil {
            return .refused(IllegalRequest.fieldInParameterList(byte: 20, bit: 0).sense)
        }
        // SPEC_I_PT comes with a first registration by REGISTER only (SPC-4 table 223).
        if parameters.initiatorPorts != nil, action != .register || key != nil || parameters.actionKey == 0 {
            return .refused(IllegalRequest.fieldInParameterList(byte: 20, bit: 3).sense)
        }
        // Nothing is registered and nothing is to be: no registration that could say what outlives a loss of power.
        if key == nil, parameters.actionKey == 0 { return .done([]) }
        guard let others = registrants(parameters, nexus) else { return .refused(.badParameterField) }
        // Asked before they are remembered: what an initiator names must not grow without bound.
        guard state.registrations.count + others.count <= PersistentReservations.capacity,
            let notices = state.register(nexus, key: parameters.actionKey, others: node.remember(others))
        else { return .refused(.insufficientRegistrationResources) }
        state.persistsThroughPowerLoss = parameters.persistsThroughPowerLoss
        return .done(notices)
    }

    /// The nexuses that a REGISTER names beside its own: other initiator ports (SPEC_I_PT), the same through other
    /// target ports (ALL_TG_PT), or both. nil: a port that is none.
    private func registrants(_ parameters: ReservationParameters, _ nexus: NexusIndex) -> [NexusIdentity]? {
        let own = node.nexusPort(nexus)
        guard parameters.actionKey != 0 else { return [] }
        var ports = [own]
        for transportID in parameters.initiatorPorts ?? [] {
            guard let port = transportID.iSCSIPort else { return nil }
            if let isid = port.isid {
                ports.append(NexusIdentity(initiatorName: port.name, isid: ISID(rawValue: isid), portGroup: own.portGroup))
            } else {
                // A device without a port stands for all its ports that are known (SPC-4 clause 7.6.4.6).
                ports += node.identities.filter { $0.initiatorName == port.name }
            }
        }
        let groups = parameters.coversAllTargetPorts ? Array(node.portGroups.indices) : [own.portGroup]
        return ports.flatMap { port in
            groups.map { NexusIdentity(initiatorName: port.initiatorName, isid: port.isid, portGroup: $0) }
        }
    }

    private func move(
        _ parameters: RegisterAndMoveParameters, _ nexus: NexusIndex, _ state: inout PersistentReservations
    ) -> Outcome {
        guard state.key(of: nexus) == parameters.key else { return .conflict }
        guard let held = state.reservation else { return .refused(.badCDBField) }
        guard !held.type.isAllRegistrants, held.maker == nexus else { return .conflict }
        if parameters.persistsThroughPowerLoss, reservationStore == nil {
            return .refused(IllegalRequest.fieldInParameterList(byte: 17, bit: 0).sense)
        }
        guard parameters.actionKey != 0 else { return .refused(IllegalRequest.fieldInParameterList(byte: 8).sense) }
        guard let group = node.portGroups.firstIndex(where: { $0.relativePortIdentifier == parameters.relativeTargetPort })
        else { return .refused(IllegalRequest.fieldInParameterList(byte: 18).sense) }
        // A device name is no port: there would be no one to hold the reservation.
        guard let port = parameters.initiatorPort.iSCSIPort, let isid = port.isid else {
            return .refused(IllegalRequest.fieldInParameterList(byte: 24).sense)
        }
        let target = node.remember([
            NexusIdentity(initiatorName: port.name, isid: ISID(rawValue: isid), portGroup: group)
        ])[0]
        guard target != nexus else { return .refused(IllegalRequest.fieldInParameterList(byte: 24).sense) }
        guard state.move(from: nexus, to: target, key: parameters.actionKey, unregisters: parameters.unregisters) else {
            return .refused(.insufficientRegistrationResources)
        }
        state.persistsThroughPowerLoss = parameters.persistsThroughPowerLoss
        return .done([])
    }

    private func perform(
        _ action: PersistentReserveOutAction, _ parameters: ReservationParameters, _ type: ReservationType,
        _ nexus: NexusIndex, _ state: inout PersistentReservations
    ) -> Outcome {
        guard let key = state.key(of: nexus), key == parameters.key else { return .conflict }
        switch action {
        case .clear: return .done(state.clear(by: nexus))
        case .reserve:
            guard type.isDefined else { return .refused(.badCDBField) }
            return state.reserve(nexus, type: type) ? .done([]) : .conflict
        case .release:
            guard let notices = state.release(nexus, type: type) else { return .refused(.invalidRelease) }
            return .done(notices)
        case .preempt, .preemptAndAbort:
            guard type.isDefined || state.reservation == nil else { return .refused(.badCDBField) }
            switch state.preempt(by: nexus, key: parameters.actionKey, type: type) {
            case .conflict: return .conflict
            case .badKey: return .refused(.badParameterField)
            case .done(let preempted, let notices):
                return action == .preemptAndAbort ? .aborting(preempted, notices) : .done(notices)
            }
        case .register, .registerAndIgnoreExistingKey, .registerAndMove, .replaceLostReservation:
            return .refused(.badCDBField)
        }
    }

    // MARK: loss of power

    /// Takes a change over, once it is safe. False: it cannot be saved, and nothing has changed.
    private func commit(_ state: PersistentReservations) -> Bool {
        guard state != persistentReservations else { return true }
        if let reservationStore, state.persistsThroughPowerLoss || persistentReservations.persistsThroughPowerLoss {
            do throws(IOError) {
                try reservationStore.save(state.persistsThroughPowerLoss ? image(of: state).encode() : nil)
            } catch {
                return false
            }
        }
        persistentReservations = state
        return true
    }

    private func image(of state: PersistentReservations) -> ReservationImage {
        var image = ReservationImage()
        image.registrations = state.registrations.map { registration in
            let port = node.nexusPort(registration.nexus)
            return ReservationImage.Entry(
                key: registration.key, isid: port.isid, groupTag: node.portGroups[port.portGroup].tag,
                initiatorName: port.initiatorName)
        }
        if let held = state.reservation,
            let maker = state.registrations.firstIndex(where: { $0.nexus == held.maker })
                ?? (state.registrations.isEmpty ? nil : 0)
        {
            image.reservation = (held.type, maker)
        }
        return image
    }

    /// What a loss of power leaves: the reservations that were to outlive it, or none.
    func restoreReservations() throws(IOError) {
        persistentReservations = PersistentReservations()
        guard let reservationStore, let bytes = try reservationStore.load() else { return }
        let image: ReservationImage
        do {
            image = try ReservationImage(parsing: bytes)
        } catch {
            throw IOError(code: EBADMSG, operation: "read the reservations, line \(error.number)")
        }
        // A port group that no longer exists has no nexus.
        let entries = image.registrations.enumerated().compactMap { number, entry in
            node.portGroupIndex(tag: entry.groupTag).map {
                (number: number, key: entry.key, nexus: NexusIdentity(initiatorName: entry.initiatorName, isid: entry.isid, portGroup: $0))
            }
        }
        let registrations = zip(entries, node.remember(entries.map(\.nexus))).map {
            PersistentReservations.Registration(nexus: $1, key: $0.key)
        }
        var reservation: PersistentReservations.Reservation?
        if let held = image.reservation {
            // Any registrant holds one of all registrants; no one else can take the place of the holder of another.
            let place = entries.firstIndex { $0.number == held.maker } ?? (held.type.isAllRegistrants ? registrations.indices.first : nil)
            guard let place else { throw IOError(code: EXDEV, operation: "restore a reservation through a port group that is gone") }
            reservation = .init(type: held.type, maker: registrations[place].nexus)
        }
        persistentReservations = PersistentReservations(registrations: registrations, reservation: reservation)
    }
}
