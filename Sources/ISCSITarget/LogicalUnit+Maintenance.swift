import ISCSI
import SCSI

// MAINTENANCE IN and OUT: supported operation codes and target port groups (SPC-4 clauses 6.34, 6.36, 6.45).
extension LogicalUnit {
    // MARK: ALUA

    /// The states in which a port serves only what is needed to look at it and to change its state
    /// (SPC-4 clause 5.15.2.4).
    func accessStateRefusal(_ request: SCSICommand, _ portGroup: Int) -> SenseData? {
        let additional: AdditionalSense
        switch node.portGroups[portGroup].state {
        case .optimized, .nonOptimized, .lbaDependent: return nil
        case .standby: additional = .portInStandbyState
        case .unavailable, .offline: additional = .portInUnavailableState
        case .transitioning: additional = .accessStateTransition
        }
        switch request {
        case .inquiry, .reportLUNs, .requestSense, .reportTargetPortGroups, .setTargetPortGroups,
            .reportSupportedOperationCodes:
            return nil
        case .modeSense, .modeSelect, .persistentReserveIn, .persistentReserveOut:
            if additional == .portInStandbyState { return nil }
        default: break
        }
        return SenseData(key: .notReady, additional: additional)
    }

    func portGroupReport(isExtended: Bool) -> TargetPortGroupReport {
        let groups = node.portGroups.map {
            TargetPortGroup(
                identifier: $0.tag, state: $0.state, isPreferred: $0.isPreferred,
                supportedStates: [.optimized, .nonOptimized, .standby, .unavailable, .transitioning],
                status: $0.lastChange, relativePorts: [$0.relativePortIdentifier])
        }
        return TargetPortGroupReport(groups: groups, implicitTransitionSeconds: isExtended ? 60 : nil)
    }

    func setTargetPortGroups(_ command: DeviceCommand, parameterByteCount length: Int) -> DeviceResult {
        guard node.allowsExplicitTransitions else { return .check(.badCDBField) }
        guard length > 0 else { return .status(.good) }
        guard command.dataOut.count >= length else { return .check(.parameterListLength) }
        do {
            let changes = try TargetPortGroupChange.parse(Array(command.dataOut[..<length]))
            for change in changes where node.portGroupIndex(tag: change.identifier) == nil {
                return .check(.badParameterField)
            }
            for change in changes {
                node.setState(
                    change.state, ofGroupTag: change.identifier, status: .alteredExplicitly, except: command.nexus)
            }
            return .status(.good, dataOutByteCount: length)
        } catch {
            return .check(error)
        }
    }

    // MARK: REPORT SUPPORTED OPERATION CODES

    func reportSupportedOperationCodes(
        _ query: OperationQuery, withTimeouts: Bool, allocation: Int
    ) -> DeviceResult {
        do {
            let bytes = try SupportedOperation.answer(query, operations: supportedOperations, withTimeouts: withTimeouts)
            return answer(bytes, allocation: allocation)
        } catch {
            return .check(error)
        }
    }

    /// Of all that is understood, what this unit's backend and configuration can serve.
    private var supportedOperations: [SupportedOperation] {
        SupportedOperation.decodable.filter {
            switch ($0.operationCode, $0.serviceAction) {
            case (OperationCode.unmap, _): backend.isThinlyProvisioned
            case (OperationCode.writeAtomic16, _): maximumAtomicBlocks > 0
            case (OperationCode.serviceActionIn16, UInt16(ServiceAction.getLBAStatus)): backend.isThinlyProvisioned
            case (OperationCode.maintenanceOut, _): node.allowsExplicitTransitions
            case (OperationCode.persistentReserveOut, UInt16(PersistentReserveOutAction.replaceLostReservation.rawValue)):
                false
            default: true
            }
        }
    }
}
