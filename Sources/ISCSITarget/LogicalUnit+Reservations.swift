import ISCSI
import SCSI

extension LogicalUnit {
    var hasReservation: Bool { reservationHolder != nil || !persistentReservations.registrations.isEmpty }

    // MARK: what others may do

    private enum Access {
        case always, read, write, reserve, other
    }

    /// SPC-4 table 66 and SBC-3 table 13, and SPC-2 table 10 for RESERVE.
    func isReservationConflict(_ command: DeviceCommand) -> Bool {
        let access = self.access(command.cdb)
        if let holder = reservationHolder, holder != command.nexus {
            switch command.cdb.operationCode {
            case OperationCode.inquiry, OperationCode.reportLUNs, OperationCode.requestSense, OperationCode.release6,
                OperationCode.release10:
                return false
            default: return true
            }
        }
        // RESERVE and RELEASE do not mix with registrations (SPC-4 clause 5.13.3, CRH 0).
        if access == .reserve { return !persistentReservations.registrations.isEmpty }
        guard persistentReservations.reservation != nil else { return false }
        switch access {
        case .always, .reserve: return false
        case .read: return persistentReservations.excludes(command.nexus, writing: false)
        case .write, .other: return persistentReservations.excludes(command.nexus, writing: true)
        }
    }

    private func access(_ cdb: CommandDescriptorBlock) -> Access {
        switch cdb.operationCode {
        case OperationCode.testUnitReady, OperationCode.requestSense, OperationCode.inquiry, OperationCode.reportLUNs,
            OperationCode.readCapacity10, OperationCode.persistentReserveIn, OperationCode.persistentReserveOut,
            OperationCode.maintenanceIn:
            .always
        case OperationCode.serviceActionIn16: cdb.bytes[1] & 0x1F == 0x10 ? .always : .read
        case OperationCode.startStopUnit: cdb.bytes[4] & 0xF1 == 0x01 ? .always : .other
        case OperationCode.preventAllow: cdb.bytes[4] & 0x03 == 0 ? .always : .other
        case OperationCode.reserve6, OperationCode.reserve10, OperationCode.release6, OperationCode.release10: .reserve
        case OperationCode.read6, OperationCode.read10, OperationCode.read12, OperationCode.read16,
            OperationCode.verify10, OperationCode.verify12, OperationCode.verify16, OperationCode.prefetch10,
            OperationCode.prefetch16, OperationCode.readDefectData10, OperationCode.readDefectData12:
            .read
        default: .write
        }
    }

    // MARK: PERSISTENT RESERVE IN

    func persistentReserveIn(_ command: DeviceCommand) -> DeviceResult {
        let allocation = Int(command.cdb.field(at: 7, width: 2))
        guard let action = PersistentReserveInAction(rawValue: command.cdb.bytes[1] & 0x1F) else {
            return .check(.badCDBField)
        }
        let state = persistentReservations
        switch action {
        case .readKeys:
            let keys = RegisteredKeys(generation: state.generation, keys: state.registrations.map(\.key))
            return answer(keys.encode(), allocation: allocation)
        case .readReservation:
            let holder = state.reservation.map {
                ReservationReport.Holder(
                    key: $0.type.isAllRegistrants ? 0 : state.key(of: $0.maker) ?? 0, type: $0.type)
            }
            return answer(
                ReservationReport(generation: state.generation, reservation: holder).encode(), allocation: allocation)
        case .reportCapabilities:
            var capabilities = ReservationCapabilities()
            capabilities.types = [
                .writeExclusive, .exclusiveAccess, .writeExclusiveRegistrantsOnly, .exclusiveAccessRegistrantsOnly,
                .writeExclusiveAllRegistrants, .exclusiveAccessAllRegistrants,
            ]
            return answer(capabilities.encode(), allocation: allocation)
        case .readFullStatus:
            let list = state.registrations.map { registration in
                let port = node.nexusPort(registration.nexus)
                return FullReservationStatus.Registration(
                    key: registration.key, heldType: state.holds(registration.nexus) ? state.reservation?.type : nil,
                    relativeTargetPort: node.portGroups[port.portGroup].relativePortIdentifier,
                    transportID: TransportID(iSCSIName: port.initiatorName, isid: port.isid.rawValue))
            }
            return answer(
                FullReservationStatus(generation: state.generation, registrations: list).encode(), allocation: allocation)
        }
    }

    // MARK: PERSISTENT RESERVE OUT

    func persistentReserveOut(_ command: DeviceCommand) -> DeviceResult {
        guard let action = PersistentReserveOutAction(rawValue: command.cdb.bytes[1] & 0x1F),
            action != .registerAndMove, action != .replaceLostReservation
        else { return .check(.badCDBField) }
        let length = Int(command.cdb.field(at: 5, width: 4))
        guard length >= 24, command.dataOut.count >= length else { return .check(.parameterListLength) }
        let parameters: ReservationParameters
        do {
            parameters = try ReservationParameters(parsing: Array(command.dataOut[..<length]))
        } catch {
            return .check(error.sense)
        }
        guard parameters.initiatorPorts == nil, !parameters.coversAllTargetPorts, !parameters.persistsThroughPowerLoss
        else { return .check(.badParameterField) }
        let result = perform(action, parameters, command)
        return result.status == .good ? .status(.good, dataOutByteCount: length) : result
    }

    private func perform(
        _ action: PersistentReserveOutAction, _ parameters: ReservationParameters, _ command: DeviceCommand
    ) -> DeviceResult {
        let nexus = command.nexus
        let key = persistentReservations.key(of: nexus)
        if action == .register || action == .registerAndIgnoreExistingKey {
            // An unregistered nexus says 0 (REGISTER) or anything (REGISTER AND IGNORE EXISTING KEY).
            if action == .register, parameters.key != key ?? 0 { return .status(.reservationConflict) }
            guard let notices = persistentReservations.register(nexus, key: parameters.actionKey) else {
                return .check(.insufficientRegistrationResources)
            }
            return tell(notices)
        }
        guard let key, key == parameters.key else { return .status(.reservationConflict) }
        let type = ReservationType(rawValue: command.cdb.bytes[2])
        let scope = command.cdb.bytes[2] >> 4
        switch action {
        case .clear: return tell(persistentReservations.clear(by: nexus))
        case .reserve:
            guard scope == 0, type.isDefined else { return .check(.badCDBField) }
            return persistentReservations.reserve(nexus, type: type) ? .status(.good) : .status(.reservationConflict)
        case .release:
            // A wrong scope is as wrong as a wrong type.
            guard let notices = persistentReservations.release(nexus, type: scope == 0 ? type : .init(rawValue: 0)) else {
                return .check(.invalidRelease)
            }
            return tell(notices)
        case .preempt, .preemptAndAbort:
            guard scope == 0, type.isDefined || persistentReservations.reservation == nil else { return .check(.badCDBField) }
            switch persistentReservations.preempt(by: nexus, key: parameters.actionKey, type: type) {
            case .conflict: return .status(.reservationConflict)
            case .badKey: return .check(.badParameterField)
            case .done(let preempted, let notices):
                if action == .preemptAndAbort {
                    for other in preempted { _ = abort(.nexus(other), managementToken: Self.nobodyWaits) }
                }
                return tell(notices)
            }
        case .register, .registerAndIgnoreExistingKey, .registerAndMove, .replaceLostReservation:
            return .check(.badCDBField)
        }
    }

    /// A management token whose end nobody is told.
    static let nobodyWaits = UInt64.max

    private func tell(_ notices: PersistentReservations.Notices) -> DeviceResult {
        for notice in notices { raise(notice.attention, for: notice.nexus) }
        return .status(.good)
    }
}
