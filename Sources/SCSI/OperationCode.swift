/// The operation codes that mpio sends or serves (SPC-4 annex E, SBC-3 table 18).
public enum OperationCode {
    @inlinable public static var testUnitReady: UInt8 { 0x00 }
    @inlinable public static var requestSense: UInt8 { 0x03 }
    @inlinable public static var read6: UInt8 { 0x08 }
    @inlinable public static var write6: UInt8 { 0x0A }
    @inlinable public static var inquiry: UInt8 { 0x12 }
    @inlinable public static var modeSelect6: UInt8 { 0x15 }
    @inlinable public static var reserve6: UInt8 { 0x16 }
    @inlinable public static var release6: UInt8 { 0x17 }
    @inlinable public static var modeSense6: UInt8 { 0x1A }
    @inlinable public static var startStopUnit: UInt8 { 0x1B }
    @inlinable public static var preventAllowMediumRemoval: UInt8 { 0x1E }
    @inlinable public static var readCapacity10: UInt8 { 0x25 }
    @inlinable public static var read10: UInt8 { 0x28 }
    @inlinable public static var write10: UInt8 { 0x2A }
    @inlinable public static var writeAndVerify10: UInt8 { 0x2E }
    @inlinable public static var verify10: UInt8 { 0x2F }
    @inlinable public static var preFetch10: UInt8 { 0x34 }
    @inlinable public static var synchronizeCache10: UInt8 { 0x35 }
    @inlinable public static var readDefectData10: UInt8 { 0x37 }
    @inlinable public static var writeSame10: UInt8 { 0x41 }
    @inlinable public static var unmap: UInt8 { 0x42 }
    @inlinable public static var modeSelect10: UInt8 { 0x55 }
    @inlinable public static var reserve10: UInt8 { 0x56 }
    @inlinable public static var release10: UInt8 { 0x57 }
    @inlinable public static var modeSense10: UInt8 { 0x5A }
    @inlinable public static var persistentReserveIn: UInt8 { 0x5E }
    @inlinable public static var persistentReserveOut: UInt8 { 0x5F }
    @inlinable public static var read16: UInt8 { 0x88 }
    @inlinable public static var compareAndWrite: UInt8 { 0x89 }
    @inlinable public static var write16: UInt8 { 0x8A }
    @inlinable public static var orWrite16: UInt8 { 0x8B }
    @inlinable public static var writeAndVerify16: UInt8 { 0x8E }
    @inlinable public static var verify16: UInt8 { 0x8F }
    @inlinable public static var preFetch16: UInt8 { 0x90 }
    @inlinable public static var synchronizeCache16: UInt8 { 0x91 }
    @inlinable public static var writeSame16: UInt8 { 0x93 }
    @inlinable public static var writeAtomic16: UInt8 { 0x9C }
    @inlinable public static var serviceActionIn16: UInt8 { 0x9E }
    @inlinable public static var reportLUNs: UInt8 { 0xA0 }
    @inlinable public static var maintenanceIn: UInt8 { 0xA3 }
    @inlinable public static var maintenanceOut: UInt8 { 0xA4 }
    @inlinable public static var read12: UInt8 { 0xA8 }
    @inlinable public static var write12: UInt8 { 0xAA }
    @inlinable public static var writeAndVerify12: UInt8 { 0xAE }
    @inlinable public static var verify12: UInt8 { 0xAF }
    @inlinable public static var readDefectData12: UInt8 { 0xB7 }
}

/// Service actions of the operation codes that carry several commands.
public enum ServiceAction {
    @inlinable public static var readCapacity16: UInt8 { 0x10 }
    @inlinable public static var getLBAStatus: UInt8 { 0x12 }
    @inlinable public static var reportTargetPortGroups: UInt8 { 0x0A }
    @inlinable public static var reportSupportedOperationCodes: UInt8 { 0x0C }
    @inlinable public static var setTargetPortGroups: UInt8 { 0x0A }
}
