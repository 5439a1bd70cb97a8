/// The operation codes that mpio sends or serves (SPC-4 annex E, SBC-3 table 18).
enum OperationCode {
    static let testUnitReady: UInt8 = 0x00
    static let requestSense: UInt8 = 0x03
    static let read6: UInt8 = 0x08
    static let write6: UInt8 = 0x0A
    static let inquiry: UInt8 = 0x12
    static let modeSelect6: UInt8 = 0x15
    static let reserve6: UInt8 = 0x16
    static let release6: UInt8 = 0x17
    static let modeSense6: UInt8 = 0x1A
    static let startStopUnit: UInt8 = 0x1B
    static let preventAllowMediumRemoval: UInt8 = 0x1E
    static let readCapacity10: UInt8 = 0x25
    static let read10: UInt8 = 0x28
    static let write10: UInt8 = 0x2A
    static let writeAndVerify10: UInt8 = 0x2E
    static let verify10: UInt8 = 0x2F
    static let preFetch10: UInt8 = 0x34
    static let synchronizeCache10: UInt8 = 0x35
    static let readDefectData10: UInt8 = 0x37
    static let writeSame10: UInt8 = 0x41
    static let unmap: UInt8 = 0x42
    static let modeSelect10: UInt8 = 0x55
    static let reserve10: UInt8 = 0x56
    static let release10: UInt8 = 0x57
    static let modeSense10: UInt8 = 0x5A
    static let persistentReserveIn: UInt8 = 0x5E
    static let persistentReserveOut: UInt8 = 0x5F
    static let read16: UInt8 = 0x88
    static let compareAndWrite: UInt8 = 0x89
    static let write16: UInt8 = 0x8A
    static let orWrite16: UInt8 = 0x8B
    static let writeAndVerify16: UInt8 = 0x8E
    static let verify16: UInt8 = 0x8F
    static let preFetch16: UInt8 = 0x90
    static let synchronizeCache16: UInt8 = 0x91
    static let writeSame16: UInt8 = 0x93
    static let serviceActionIn16: UInt8 = 0x9E
    static let reportLUNs: UInt8 = 0xA0
    static let maintenanceIn: UInt8 = 0xA3
    static let maintenanceOut: UInt8 = 0xA4
    static let read12: UInt8 = 0xA8
    static let write12: UInt8 = 0xAA
    static let writeAndVerify12: UInt8 = 0xAE
    static let verify12: UInt8 = 0xAF
    static let readDefectData12: UInt8 = 0xB7
}

/// Service actions of the operation codes that carry several commands.
enum ServiceAction {
    static let readCapacity16: UInt8 = 0x10
    static let getLBAStatus: UInt8 = 0x12
    static let reportTargetPortGroups: UInt8 = 0x0A
    static let reportSupportedOperationCodes: UInt8 = 0x0C
    static let setTargetPortGroups: UInt8 = 0x0A
}
