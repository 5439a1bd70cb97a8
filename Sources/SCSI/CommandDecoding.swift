extension CommandDescriptorBlock {
    /// What a received CDB asks.
    ///
    /// Reserved bits are not looked at, as SPC-4 clause 4.2.1 allows. NACA is refused: no device here keeps
    /// an ACA condition.
    /// - Parameter supportsProtection: whether RDPROTECT, WRPROTECT and VRPROTECT may be other than 0.
    /// - Throws: what to answer by CHECK CONDITION.
    public func decode(supportsProtection: Bool = false) throws(IllegalRequest) -> SCSICommand {
        // Nearly all commands are one of these four, and nearly all of them have nothing to refuse.
        if bytes[1] & 0xE0 == 0 || supportsProtection {
            switch operationCode {
            case OperationCode.read10 where !bit(2, at: 9): return .read(range10, transferOptions)
            case OperationCode.write10 where !bit(2, at: 9): return .write(range10, transferOptions)
            case OperationCode.read16 where !bit(2, at: 15): return .read(range16, transferOptions)
            case OperationCode.write16 where !bit(2, at: 15): return .write(range16, transferOptions)
            default: break
            }
        }
        let command = try decodeCommand()
        if operationCode >> 5 < 6, operationCode >> 5 != 3, bit(2, at: Int(count) - 1) {
            throw .fieldInCommand(byte: UInt16(count) - 1, bit: 2)
        }
        if !supportsProtection, command.protection != 0 { throw .fieldInCommand(byte: 1, bit: 7) }
        return command
    }

    private func decodeCommand() throws(IllegalRequest) -> SCSICommand {
        if let command = try decodeTransfer() { return command }
        if let command = try decodeProvisioning() { return command }
        if let command = try decodeDevice() { return command }
        if let command = try decodeMode() { return command }
        if let command = try decodeReservation() { return command }
        if let command = try decodeServiceAction() { return command }
        throw .operationCode(operationCode)
    }

    // Each family answers nil for operation codes that are not its own.

    private func decodeTransfer() throws(IllegalRequest) -> SCSICommand? {
        switch operationCode {
        case OperationCode.read6: .read(range6, [])
        case OperationCode.write6: .write(range6, [])
        case OperationCode.read10, OperationCode.read12, OperationCode.read16: .read(range, transferOptions)
        case OperationCode.write10, OperationCode.write12, OperationCode.write16: .write(range, transferOptions)
        case OperationCode.writeAndVerify10, OperationCode.writeAndVerify12, OperationCode.writeAndVerify16:
            .writeAndVerify(range, verifyOptions, try verifyMode())
        case OperationCode.verify10, OperationCode.verify12, OperationCode.verify16:
            .verify(range, verifyOptions, try verifyMode())
        case OperationCode.synchronizeCache10, OperationCode.synchronizeCache16:
            .synchronizeCache(range, isImmediate: bit(1, at: 1))
        case OperationCode.preFetch10, OperationCode.preFetch16: .preFetch(range, isImmediate: bit(1, at: 1))
        case OperationCode.compareAndWrite:
            .compareAndWrite(BlockRange(lba: uint64(at: 2), blockCount: UInt32(bytes[13])), transferOptions)
        case OperationCode.orWrite16: .orWrite(range, transferOptions)
        case OperationCode.writeAtomic16:
            .writeAtomic(
                BlockRange(lba: uint64(at: 2), blockCount: UInt32(uint16(at: 12))), transferOptions,
                boundaryBlockCount: uint16(at: 10))
        default: nil
        }
    }

    private func decodeProvisioning() throws(IllegalRequest) -> SCSICommand? {
        switch operationCode {
        case OperationCode.unmap: return .unmap(anchor: bit(0, at: 1), parameterByteCount: uint16(at: 7))
        case OperationCode.writeSame10, OperationCode.writeSame16:
            // NDOB's bit is obsolete in the 10-byte form.
            let mask: UInt8 = operationCode == OperationCode.writeSame16 ? 0xF9 : 0xF8
            // LBDATA and PBDATA are obsolete; a device that ignored them would write other data than was asked.
            if bit(2, at: 1) { throw .fieldInCommand(byte: 1, bit: 2) }
            if bit(1, at: 1) { throw .fieldInCommand(byte: 1, bit: 1) }
            let options = WriteSameOptions(rawValue: bytes[1] & mask)
            if options.contains(.anchor), !options.contains(.unmap) { throw .fieldInCommand(byte: 1, bit: 4) }
            return .writeSame(range, options)
        default: return nil
        }
    }

    private func decodeDevice() throws(IllegalRequest) -> SCSICommand? {
        switch operationCode {
        case OperationCode.testUnitReady: return .testUnitReady
        case OperationCode.requestSense:
            return .requestSense(bit(0, at: 1) ? .descriptor : .fixed, allocationByteCount: bytes[4])
        case OperationCode.inquiry: return try decodeInquiry()
        case OperationCode.reportLUNs:
            guard uint32(at: 6) >= 16 else { throw .fieldInCommand(byte: 6) }
            return .reportLUNs(LUNReportSelection(rawValue: bytes[2]), allocationByteCount: uint32(at: 6))
        case OperationCode.readCapacity10: return .readCapacity10
        case OperationCode.startStopUnit:
            return .startStopUnit(
                StartStopRequest(
                    start: bit(0, at: 4), loadEject: bit(1, at: 4), isImmediate: bit(0, at: 1),
                    skipsFlush: bit(2, at: 4), powerCondition: bytes[4] >> 4, powerConditionModifier: bytes[3]))
        case OperationCode.preventAllowMediumRemoval:
            guard let removal = MediumRemoval(rawValue: bytes[4] & 0x03) else {
                throw .fieldInCommand(byte: 4, bit: 1)
            }
            return .preventAllowMediumRemoval(removal)
        case OperationCode.readDefectData10:
            return .readDefectData(defectRequest(flags: bytes[2], isTwelve: false, UInt32(uint16(at: 7))))
        case OperationCode.readDefectData12:
            return .readDefectData(defectRequest(flags: bytes[1], isTwelve: true, uint32(at: 6)))
        default: return nil
        }
    }

    private func decodeInquiry() throws(IllegalRequest) -> SCSICommand {
        // CMDDT is obsolete; a device that took it for 0 would answer with something else than was asked.
        if bit(1, at: 1) { throw .fieldInCommand(byte: 1, bit: 1) }
        let allocationByteCount = uint16(at: 3)
        if bit(0, at: 1) {
            return .inquiry(page: VPDPage(rawValue: bytes[2]), allocationByteCount: allocationByteCount)
        }
        guard bytes[2] == 0 else { throw .fieldInCommand(byte: 2) }
        return .inquiry(page: nil, allocationByteCount: allocationByteCount)
    }

    private func defectRequest(flags: UInt8, isTwelve: Bool, _ allocationByteCount: UInt32) -> DefectDataRequest {
        DefectDataRequest(
            isTwelve: isTwelve, primaryList: flags & 0x10 != 0, grownList: flags & 0x08 != 0, format: flags,
            allocationByteCount: allocationByteCount)
    }

    private func decodeMode() throws(IllegalRequest) -> SCSICommand? {
        switch operationCode {
        case OperationCode.modeSense6, OperationCode.modeSense10:
            let isSix = operationCode == OperationCode.modeSense6
            return .modeSense(
                ModeSenseRequest(
                    format: isSix ? .six : .ten, page: bytes[2], subpage: bytes[3],
                    control: ModePageControl(rawValue: bytes[2] >> 6) ?? .current,
                    disableBlockDescriptors: bit(3, at: 1), acceptsLongLBA: bit(4, at: 1),
                    allocationByteCount: isSix ? UInt16(bytes[4]) : uint16(at: 7)))
        case OperationCode.modeSelect6, OperationCode.modeSelect10:
            let isSix = operationCode == OperationCode.modeSelect6
            return .modeSelect(
                ModeSelectRequest(
                    format: isSix ? .six : .ten, isPageFormat: bit(4, at: 1), savesPages: bit(0, at: 1),
                    parameterByteCount: isSix ? UInt16(bytes[4]) : uint16(at: 7)))
        default: return nil
        }
    }

    private func decodeReservation() throws(IllegalRequest) -> SCSICommand? {
        switch operationCode {
        case OperationCode.reserve6, OperationCode.reserve10:
            try refuseThirdParty()
            return .reserve
        case OperationCode.release6, OperationCode.release10:
            try refuseThirdParty()
            return .release
        case OperationCode.persistentReserveIn:
            guard let action = PersistentReserveInAction(rawValue: serviceAction) else { throw unknownAction }
            return .persistentReserveIn(action, allocationByteCount: uint16(at: 7))
        case OperationCode.persistentReserveOut: return try decodePersistentReserveOut()
        default: return nil
        }
    }

    /// Reservations for third parties and of extents are SPC-2's and were dropped; a device that ignored
    /// them would reserve for the wrong initiator.
    private func refuseThirdParty() throws(IllegalRequest) {
        if bit(4, at: 1) { throw .fieldInCommand(byte: 1, bit: 4) }
        if bit(0, at: 1) { throw .fieldInCommand(byte: 1, bit: 0) }
    }

    private func decodePersistentReserveOut() throws(IllegalRequest) -> SCSICommand {
        guard let action = PersistentReserveOutAction(rawValue: serviceAction) else { throw unknownAction }
        let type = ReservationType(rawValue: bytes[2])
        switch action {
        case .reserve, .release, .preempt, .preemptAndAbort, .replaceLostReservation:
            guard bytes[2] >> 4 == 0 else { throw .fieldInCommand(byte: 2, bit: 7) }
        default: break
        }
        return .persistentReserveOut(action, type, parameterByteCount: uint32(at: 5))
    }

    private func decodeServiceAction() throws(IllegalRequest) -> SCSICommand? {
        switch (operationCode, serviceAction) {
        case (OperationCode.serviceActionIn16, ServiceAction.readCapacity16):
            return .readCapacity16(allocationByteCount: uint32(at: 10))
        case (OperationCode.serviceActionIn16, ServiceAction.getLBAStatus):
            return .getLBAStatus(startingLBA: uint64(at: 2), allocationByteCount: uint32(at: 10))
        case (OperationCode.maintenanceIn, ServiceAction.reportTargetPortGroups):
            guard bytes[1] >> 5 <= 1 else { throw .fieldInCommand(byte: 1, bit: 7) }
            return .reportTargetPortGroups(extendedHeader: bytes[1] >> 5 == 1, allocationByteCount: uint32(at: 6))
        case (OperationCode.maintenanceIn, ServiceAction.reportSupportedOperationCodes):
            return .reportSupportedOperationCodes(
                try operationQuery(), withTimeouts: bit(7, at: 2), allocationByteCount: uint32(at: 6))
        case (OperationCode.maintenanceOut, ServiceAction.setTargetPortGroups):
            return .setTargetPortGroups(parameterByteCount: uint32(at: 6))
        case (OperationCode.serviceActionIn16, _), (OperationCode.maintenanceIn, _), (OperationCode.maintenanceOut, _):
            throw unknownAction
        default: return nil
        }
    }

    private func operationQuery() throws(IllegalRequest) -> OperationQuery {
        switch bytes[2] & 0x07 {
        case 0: return .all
        case 1: return .code(bytes[3])
        case 2: return .serviceAction(bytes[3], uint16(at: 4))
        case 3: return .either(bytes[3], uint16(at: 4))
        default: throw .fieldInCommand(byte: 2, bit: 2)
        }
    }

    // Fields that several commands share.

    private var serviceAction: UInt8 { bytes[1] & 0x1F }
    private var unknownAction: IllegalRequest { .fieldInCommand(byte: 1, bit: 4) }

    /// 21 bits of address; a count of 0 stands for 256.
    private var range6: BlockRange {
        BlockRange(lba: field(at: 1, width: 3) & 0x1F_FFFF, blockCount: bytes[4] == 0 ? 256 : UInt32(bytes[4]))
    }

    /// The address and count of the 10, 12 and 16-byte layouts.
    private var range: BlockRange {
        switch count {
        case 10: range10
        case 12: BlockRange(lba: UInt64(uint32(at: 2)), blockCount: uint32(at: 6))
        default: range16
        }
    }

    private var range10: BlockRange { BlockRange(lba: UInt64(uint32(at: 2)), blockCount: UInt32(uint16(at: 7))) }
    private var range16: BlockRange { BlockRange(lba: uint64(at: 2), blockCount: uint32(at: 10)) }

    private var transferOptions: TransferOptions { TransferOptions(rawValue: bytes[1] & 0xF8) }
    private var verifyOptions: TransferOptions { TransferOptions(rawValue: bytes[1] & 0xF0) }

    private func verifyMode() throws(IllegalRequest) -> VerifyMode {
        guard let mode = VerifyMode(rawValue: (bytes[1] >> 1) & 0x03) else { throw .fieldInCommand(byte: 1, bit: 2) }
        return mode
    }
}

extension SCSICommand {
    /// The RDPROTECT, WRPROTECT or VRPROTECT field; 0 for commands that have none.
    var protection: UInt8 {
        switch self {
        case .read(_, let options), .write(_, let options), .writeAndVerify(_, let options, _),
            .verify(_, let options, _), .compareAndWrite(_, let options), .orWrite(_, let options),
            .writeAtomic(_, let options, _):
            options.protection
        case .writeSame(_, let options): options.protection
        default: 0
        }
    }
}
