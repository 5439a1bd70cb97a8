extension SupportedOperation {
    /// Every command that `CommandDescriptorBlock.decode()` understands, in ascending order. A device server
    /// takes from it what it serves.
    public static let decodable: [SupportedOperation] = [
        plain(OperationCode.testUnitReady, [0, 0, 0, 0, 0]),
        plain(OperationCode.requestSense, [0x01, 0, 0, 0xFF, 0]),
        plain(OperationCode.read6, [0x1F, 0xFF, 0xFF, 0xFF, 0]),
        plain(OperationCode.write6, [0x1F, 0xFF, 0xFF, 0xFF, 0]),
        plain(OperationCode.inquiry, [0x01, 0xFF, 0xFF, 0xFF, 0]),
        plain(OperationCode.modeSelect6, [0x11, 0, 0, 0xFF, 0]),
        plain(OperationCode.reserve6, [0, 0, 0, 0, 0]),
        plain(OperationCode.release6, [0, 0, 0, 0, 0]),
        plain(OperationCode.modeSense6, [0x08, 0xFF, 0xFF, 0xFF, 0]),
        plain(OperationCode.startStopUnit, [0x01, 0, 0x0F, 0xF7, 0]),
        plain(OperationCode.preventAllowMediumRemoval, [0, 0, 0, 0x03, 0]),
        plain(OperationCode.readCapacity10, [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ten(OperationCode.read10, 0xF8),
        ten(OperationCode.write10, 0xF8),
        ten(OperationCode.writeAndVerify10, 0xF6),
        ten(OperationCode.verify10, 0xF6),
        ten(OperationCode.preFetch10, 0x02),
        ten(OperationCode.synchronizeCache10, 0x02),
        plain(OperationCode.readDefectData10, [0, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0]),
        ten(OperationCode.writeSame10, 0xFE),
        plain(OperationCode.unmap, [0x01, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]),
        plain(OperationCode.modeSelect10, [0x11, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0]),
        plain(OperationCode.reserve10, [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        plain(OperationCode.release10, [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        plain(OperationCode.modeSense10, [0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0]),
    ]
        + PersistentReserveInAction.allCases.map {
            action(OperationCode.persistentReserveIn, $0.rawValue, [0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0])
        }
        + PersistentReserveOutAction.allCases.map {
            action(OperationCode.persistentReserveOut, $0.rawValue, [0, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0])
        }
        + [
            sixteen(OperationCode.read16, 0xF8),
            plain(
                OperationCode.compareAndWrite,
                [0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0, 0]),
            sixteen(OperationCode.write16, 0xF8),
            sixteen(OperationCode.orWrite16, 0xF8),
            sixteen(OperationCode.writeAndVerify16, 0xF6),
            sixteen(OperationCode.verify16, 0xF6),
            sixteen(OperationCode.preFetch16, 0x02),
            sixteen(OperationCode.synchronizeCache16, 0x02),
            sixteen(OperationCode.writeSame16, 0xFF),
            sixteen(OperationCode.writeAtomic16, 0xF8),
            action(
                OperationCode.serviceActionIn16, ServiceAction.readCapacity16,
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
            action(
                OperationCode.serviceActionIn16, ServiceAction.getLBAStatus,
                [0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
            plain(OperationCode.reportLUNs, [0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
            action(
                OperationCode.maintenanceIn, ServiceAction.reportTargetPortGroups,
                [0xE0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
            action(
                OperationCode.maintenanceIn, ServiceAction.reportSupportedOperationCodes,
                [0, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
            action(
                OperationCode.maintenanceOut, ServiceAction.setTargetPortGroups,
                [0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
            twelve(OperationCode.read12, 0xF8),
            twelve(OperationCode.write12, 0xF8),
            twelve(OperationCode.writeAndVerify12, 0xF6),
            twelve(OperationCode.verify12, 0xF6),
            plain(OperationCode.readDefectData12, [0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]),
        ]

    /// `mask` covers the bytes after the operation code.
    private static func plain(_ code: UInt8, _ mask: [UInt8]) -> Self {
        Self(operationCode: code, usage: [code] + mask)
    }

    private static func action(_ code: UInt8, _ number: UInt8, _ mask: [UInt8]) -> Self {
        var usage = [code] + mask
        usage[1] |= number
        return Self(operationCode: code, serviceAction: UInt16(number), usage: usage)
    }

    private static func ten(_ code: UInt8, _ flags: UInt8) -> Self {
        plain(code, [flags, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0])
    }

    private static func twelve(_ code: UInt8, _ flags: UInt8) -> Self {
        plain(code, [flags, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0])
    }

    private static func sixteen(_ code: UInt8, _ flags: UInt8) -> Self {
        plain(code, [flags] + [UInt8](repeating: 0xFF, count: 12) + [0, 0])
    }
}
