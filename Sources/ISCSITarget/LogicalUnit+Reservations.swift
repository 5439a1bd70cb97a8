import ISCSI
import SCSI

extension LogicalUnit {
    var hasReservation: Bool { reservationHolder != nil || !persistentReservations.registrations.isEmpty }

    // MARK: what others may do

    private enum Access {
        case always, read, write, reserve
    }

    /// SPC-4 table 66 and SBC-3 table 13, and SPC-2 table 10 for RESERVE.
    func isReservationConflict(_ request: SCSICommand, _ nexus: NexusIndex) -> Bool {
        if let holder = reservationHolder, holder != nexus {
            switch request {
            case .inquiry, .reportLUNs, .requestSense, .release: return false
            default: return true
            }
        }
        let access = self.access(request)
        // RESERVE and RELEASE do not mix with registrations (SPC-4 clause 5.13.3, CRH 0).
        if access == .reserve { return !persistentReservations.registrations.isEmpty }
        guard persistentReservations.reservation != nil else { return false }
        switch access {
        case .always, .reserve: return false
        case .read: return persistentReservations.excludes(nexus, writing: false)
        case .write: return persistentReservations.excludes(nexus, writing: true)
        }
    }

    private func access(_ request: SCSICommand) -> Access {
        switch request {
        case .testUnitReady, .requestSense, .inquiry, .reportLUNs, .readCapacity10, .readCapacity16, .persistentReserveIn,
            .persistentReserveOut, .reportTargetPortGroups, .reportSupportedOperationCodes:
            .always
        // Becoming ready and allowing removal are for everybody, the opposite is not.
        case .startStopUnit(let request): request.start && request.powerCondition == 0 ? .always : .write
        case .preventAllowMediumRemoval(let removal): removal == .allow ? .always : .write
        case .reserve, .release: .reserve
        case .read, .verify, .preFetch, .readDefectData, .getLBAStatus: .read
        case .write, .writeAndVerify, .writeAtomic, .writeSame, .unmap, .compareAndWrite, .orWrite, .synchronizeCache,
            .modeSense, .modeSelect, .setTargetPortGroups:
            .write
        }
    }

    // MARK: PERSISTENT RESERVE IN

    func persistentReserveIn(_ action: PersistentReserveInAction, allocation: Int) -> DeviceResult {
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
            capabilities.specifiesInitiatorPorts = true
            capabilities.registersAllTargetPorts = true
            capabilities.canPersistThroughPowerLoss = reservationStore != nil
            capabilities.persistsThroughPowerLoss = state.persistsThroughPowerLoss
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

}
