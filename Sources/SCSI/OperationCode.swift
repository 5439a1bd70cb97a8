/// The operation codes that mpio sends or serves (SPC-4 annex E, SBC-3 table 18).
public enum OperationCode {
    /// TEST UNIT READY.
    @inlinable public static var testUnitReady: UInt8 { 0x00 }
    /// REQUEST SENSE.
    @inlinable public static var requestSense: UInt8 { 0x03 }
    /// READ (6).
    @inlinable public static var read6: UInt8 { 0x08 }
    /// WRITE (6).
    @inlinable public static var write6: UInt8 { 0x0A }
    /// INQUIRY.
    @inlinable public static var inquiry: UInt8 { 0x12 }
    /// MODE SELECT (6).
    @inlinable public static var modeSelect6: UInt8 { 0x15 }
    /// RESERVE (6).
    @inlinable public static var reserve6: UInt8 { 0x16 }
    /// RELEASE (6).
    @inlinable public static var release6: UInt8 { 0x17 }
    /// MODE SENSE (6).
    @inlinable public static var modeSense6: UInt8 { 0x1A }
    /// START STOP UNIT.
    @inlinable public static var startStopUnit: UInt8 { 0x1B }
    /// PREVENT ALLOW MEDIUM REMOVAL.
    @inlinable public static var preventAllowMediumRemoval: UInt8 { 0x1E }
    /// READ CAPACITY (10).
    @inlinable public static var readCapacity10: UInt8 { 0x25 }
    /// READ (10).
    @inlinable public static var read10: UInt8 { 0x28 }
    /// WRITE (10).
    @inlinable public static var write10: UInt8 { 0x2A }
    /// WRITE AND VERIFY (10).
    @inlinable public static var writeAndVerify10: UInt8 { 0x2E }
    /// VERIFY (10).
    @inlinable public static var verify10: UInt8 { 0x2F }
    /// PRE-FETCH (10).
    @inlinable public static var preFetch10: UInt8 { 0x34 }
    /// SYNCHRONIZE CACHE (10).
    @inlinable public static var synchronizeCache10: UInt8 { 0x35 }
    /// READ DEFECT DATA (10).
    @inlinable public static var readDefectData10: UInt8 { 0x37 }
    /// WRITE SAME (10).
    @inlinable public static var writeSame10: UInt8 { 0x41 }
    /// UNMAP.
    @inlinable public static var unmap: UInt8 { 0x42 }
    /// MODE SELECT (10).
    @inlinable public static var modeSelect10: UInt8 { 0x55 }
    /// RESERVE (10).
    @inlinable public static var reserve10: UInt8 { 0x56 }
    /// RELEASE (10).
    @inlinable public static var release10: UInt8 { 0x57 }
    /// MODE SENSE (10).
    @inlinable public static var modeSense10: UInt8 { 0x5A }
    /// PERSISTENT RESERVE IN.
    @inlinable public static var persistentReserveIn: UInt8 { 0x5E }
    /// PERSISTENT RESERVE OUT.
    @inlinable public static var persistentReserveOut: UInt8 { 0x5F }
    /// READ (16).
    @inlinable public static var read16: UInt8 { 0x88 }
    /// COMPARE AND WRITE.
    @inlinable public static var compareAndWrite: UInt8 { 0x89 }
    /// WRITE (16).
    @inlinable public static var write16: UInt8 { 0x8A }
    /// ORWRITE (16).
    @inlinable public static var orWrite16: UInt8 { 0x8B }
    /// WRITE AND VERIFY (16).
    @inlinable public static var writeAndVerify16: UInt8 { 0x8E }
    /// VERIFY (16).
    @inlinable public static var verify16: UInt8 { 0x8F }
    /// PRE-FETCH (16).
    @inlinable public static var preFetch16: UInt8 { 0x90 }
    /// SYNCHRONIZE CACHE (16).
    @inlinable public static var synchronizeCache16: UInt8 { 0x91 }
    /// WRITE SAME (16).
    @inlinable public static var writeSame16: UInt8 { 0x93 }
    /// WRITE ATOMIC (16).
    @inlinable public static var writeAtomic16: UInt8 { 0x9C }
    /// SERVICE ACTION IN (16).
    @inlinable public static var serviceActionIn16: UInt8 { 0x9E }
    /// REPORT LUNS.
    @inlinable public static var reportLUNs: UInt8 { 0xA0 }
    /// MAINTENANCE IN.
    @inlinable public static var maintenanceIn: UInt8 { 0xA3 }
    /// MAINTENANCE OUT.
    @inlinable public static var maintenanceOut: UInt8 { 0xA4 }
    /// READ (12).
    @inlinable public static var read12: UInt8 { 0xA8 }
    /// WRITE (12).
    @inlinable public static var write12: UInt8 { 0xAA }
    /// WRITE AND VERIFY (12).
    @inlinable public static var writeAndVerify12: UInt8 { 0xAE }
    /// VERIFY (12).
    @inlinable public static var verify12: UInt8 { 0xAF }
    /// READ DEFECT DATA (12).
    @inlinable public static var readDefectData12: UInt8 { 0xB7 }
}

/// Service actions of the operation codes that carry several commands.
public enum ServiceAction {
    /// READ CAPACITY (16).
    @inlinable public static var readCapacity16: UInt8 { 0x10 }
    /// GET LBA STATUS.
    @inlinable public static var getLBAStatus: UInt8 { 0x12 }
    /// REPORT TARGET PORT GROUPS.
    @inlinable public static var reportTargetPortGroups: UInt8 { 0x0A }
    /// REPORT SUPPORTED OPERATION CODES.
    @inlinable public static var reportSupportedOperationCodes: UInt8 { 0x0C }
    /// SET TARGET PORT GROUPS.
    @inlinable public static var setTargetPortGroups: UInt8 { 0x0A }
}
