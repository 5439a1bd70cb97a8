import ISCSI
import SCSI

// MAINTENANCE IN and OUT: supported operation codes and target port groups (SPC-4 clauses 6.34, 6.36, 6.45).
extension LogicalUnit {
    func maintenanceIn(_ command: DeviceCommand) -> DeviceResult {
        let allocation = Int(command.cdb.field(at: 6, width: 4))
        switch command.cdb.bytes[1] & 0x1F {
        case 0x0A:
            return answer(portGroupReport(isExtended: command.cdb.bytes[1] & 0xE0 == 0x20).encode(), allocation: allocation)
        case 0x0C: return reportSupportedOperationCodes(command, allocation: allocation)
        default: return .check(.badCDBField)
        }
    }

    func maintenanceOut(_ command: DeviceCommand) -> DeviceResult {
        guard command.cdb.bytes[1] & 0x1F == 0x0A, node.allowsExplicitTransitions else { return .check(.badCDBField) }
        return setTargetPortGroups(command)
    }

    // MARK: ALUA

    /// The states in which a port serves only what is needed to look at it and to change its state
    /// (SPC-4 clause 5.15.2.4).
    func accessStateRefusal(_ command: DeviceCommand) -> SenseData? {
        let qualifier: UInt8
        switch node.portGroups[command.portGroup].state {
        case .optimized, .nonOptimized, .lbaDependent: return nil
        case .standby: qualifier = 0x0B
        case .unavailable, .offline: qualifier = 0x0C
        case .transitioning: qualifier = 0x0A
        }
        switch command.cdb.operationCode {
        case OperationCode.inquiry, OperationCode.reportLUNs, OperationCode.requestSense, OperationCode.maintenanceIn,
            OperationCode.maintenanceOut:
            return nil
        case OperationCode.modeSense6, OperationCode.modeSense10, OperationCode.modeSelect6, OperationCode.modeSelect10,
            OperationCode.persistentReserveIn, OperationCode.persistentReserveOut:
            if qualifier == 0x0B { return nil }
        default: break
        }
        return SenseData(key: .notReady, additional: AdditionalSense(0x04, qualifier))
    }

    private func portGroupReport(isExtended: Bool) -> TargetPortGroupReport {
        let groups = node.portGroups.map {
            TargetPortGroup(
                identifier: $0.tag, state: $0.state, isPreferred: $0.isPreferred,
                supportedStates: [.optimized, .nonOptimized, .standby, .unavailable, .transitioning],
                status: $0.lastChange, relativePorts: [$0.relativePortIdentifier])
        }
        return TargetPortGroupReport(groups: groups, implicitTransitionSeconds: isExtended ? 60 : nil)
    }

    private func setTargetPortGroups(_ command: DeviceCommand) -> DeviceResult {
        let length = Int(command.cdb.field(at: 6, width: 4))
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
            return .check(error.sense)
        }
    }

    // MARK: REPORT SUPPORTED OPERATION CODES

    private func reportSupportedOperationCodes(_ command: DeviceCommand, allocation: Int) -> DeviceResult {
        let wantsTimeouts = command.cdb.bytes[2] & 0x80 != 0
        let code = command.cdb.bytes[3]
        let action = Int(command.cdb.field(at: 4, width: 2))
        let ofCode = supportedCommands.filter { $0.code == code }
        switch command.cdb.bytes[2] & 0x07 {
        case 0: return answer(allCommands(wantsTimeouts), allocation: allocation)
        case 1:
            // Service actions exist: they must be asked for.
            if ofCode.contains(where: { $0.action != nil }) { return .check(.badCDBField) }
            return answer(oneCommand(ofCode.first, wantsTimeouts), allocation: allocation)
        case 2:
            if !ofCode.isEmpty, ofCode.allSatisfy({ $0.action == nil }) { return .check(.badCDBField) }
            return answer(oneCommand(ofCode.first { $0.action == action }, wantsTimeouts), allocation: allocation)
        case 3:
            let found = ofCode.first { ($0.action ?? 0) == action }
            return answer(oneCommand(found, wantsTimeouts), allocation: allocation)
        default: return .check(.badCDBField)
        }
    }

    /// Those of the table that this unit's backend can serve.
    private var supportedCommands: [SupportedCommand] {
        SupportedCommand.all.filter {
            switch ($0.code, $0.action) {
            case (OperationCode.unmap, _): backend.isThinlyProvisioned
            case (OperationCode.writeAtomic16, _): maximumAtomicBlocks > 0
            case (OperationCode.serviceActionIn16, 0x12): backend.isThinlyProvisioned
            case (OperationCode.maintenanceOut, _): node.allowsExplicitTransitions
            default: true
            }
        }
    }

    private func allCommands(_ wantsTimeouts: Bool) -> [UInt8] {
        var list: [UInt8] = []
        for command in supportedCommands {
            list += [command.code, 0]
            list.append16(command.action ?? 0)
            list += [0, (command.action != nil ? 1 : 0) | (wantsTimeouts ? 2 : 0)]
            list.append16(command.usage.count)
            if wantsTimeouts { list += Self.timeouts }
        }
        var bytes: [UInt8] = []
        bytes.append32(UInt32(list.count))
        return bytes + list
    }

    private func oneCommand(_ command: SupportedCommand?, _ wantsTimeouts: Bool) -> [UInt8] {
        guard let command else { return [0, 1, 0, 0] }
        var bytes: [UInt8] = [0, (wantsTimeouts ? 0x80 : 0) | 3]
        bytes.append16(command.usage.count)
        return bytes + command.usage + (wantsTimeouts ? Self.timeouts : [])
    }

    /// A command timeouts descriptor (SPC-4 table 252) that gives no times.
    private static let timeouts: [UInt8] = [0, 10] + [UInt8](repeating: 0, count: 10)
}
