extension SenseKey: CustomStringConvertible {
    /// As SPC-4 table 48 writes it.
    public var description: String {
        switch self {
        case .noSense: "NO SENSE"
        case .recoveredError: "RECOVERED ERROR"
        case .notReady: "NOT READY"
        case .mediumError: "MEDIUM ERROR"
        case .hardwareError: "HARDWARE ERROR"
        case .illegalRequest: "ILLEGAL REQUEST"
        case .unitAttention: "UNIT ATTENTION"
        case .dataProtect: "DATA PROTECT"
        case .blankCheck: "BLANK CHECK"
        case .vendorSpecific: "VENDOR SPECIFIC"
        case .copyAborted: "COPY ABORTED"
        case .abortedCommand: "ABORTED COMMAND"
        case .reserved: "SENSE KEY Ch"
        case .volumeOverflow: "VOLUME OVERFLOW"
        case .miscompare: "MISCOMPARE"
        case .completed: "COMPLETED"
        }
    }
}

extension SenseData: CustomStringConvertible {
    /// For instance "NOT READY, logical unit not accessible, asymmetric access state transition (04/0A)".
    public var description: String {
        var text = key.description
        if let name = additional.name { text += ", " + name }
        text += " (\(additional))"
        if let information { text += ", information \(information)" }
        if case .fieldPointer(let pointer) = specific { text += ", \(pointer)" }
        return isDeferred ? text + ", deferred" : text
    }
}

extension FieldPointer: CustomStringConvertible {
    /// For instance `byte 2 bit 4 of the CDB`.
    public var description: String {
        "byte \(byte)" + (bit.map { " bit \($0)" } ?? "") + (isInCommand ? " of the CDB" : " of the parameter list")
    }
}

extension AdditionalSense: CustomStringConvertible {
    /// The two bytes in hexadecimal, "04/0A".
    public var description: String {
        DeviceText.hex(code).uppercased() + "/" + DeviceText.hex(qualifier).uppercased()
    }

    /// The pair's meaning (SPC-4 annex F, in lower case); nil for pairs that mpio has no text for.
    public var name: String? {
        switch UInt16(code) << 8 | UInt16(qualifier) {
        case 0x0000: "no additional sense information"
        case 0x0017: "cleaning requested"
        case 0x0400: "logical unit not ready, cause not reportable"
        case 0x0401: "logical unit is in process of becoming ready"
        case 0x0402: "logical unit not ready, initializing command required"
        case 0x0403: "logical unit not ready, manual intervention required"
        case 0x0404: "logical unit not ready, format in progress"
        case 0x0405: "logical unit not ready, rebuild in progress"
        case 0x0406: "logical unit not ready, recalculation in progress"
        case 0x0407: "logical unit not ready, operation in progress"
        case 0x0408: "logical unit not ready, long write in progress"
        case 0x0409: "logical unit not ready, self-test in progress"
        case 0x040A: "logical unit not accessible, asymmetric access state transition"
        case 0x040B: "logical unit not accessible, target port in standby state"
        case 0x040C: "logical unit not accessible, target port in unavailable state"
        case 0x0411: "logical unit not ready, notify (enable spinup) required"
        case 0x0414: "logical unit not ready, space allocation in progress"
        case 0x041B: "logical unit not ready, sanitize in progress"
        case 0x0500: "logical unit does not respond to selection"
        case 0x0800: "logical unit communication failure"
        case 0x0801: "logical unit communication time-out"
        case 0x0802: "logical unit communication parity error"
        case 0x0C00: "write error"
        case 0x0C02: "write error, auto reallocation failed"
        case 0x0C03: "write error, recommend reassignment"
        case 0x0C0C: "write error, unexpected unsolicited data"
        case 0x0C0D: "write error, not enough unsolicited data"
        case 0x1001: "logical block guard check failed"
        case 0x1002: "logical block application tag check failed"
        case 0x1003: "logical block reference tag check failed"
        case 0x1100: "unrecovered read error"
        case 0x1101: "read retries exhausted"
        case 0x1104: "unrecovered read error, auto reallocate failed"
        case 0x110B: "unrecovered read error, recommend reassignment"
        case 0x110C: "unrecovered read error, recommend rewrite the data"
        case 0x1113: "read error, failed retransmission request"
        case 0x1114: "read error, LBA marked bad by application client"
        case 0x1300: "address mark not found for data field"
        case 0x1400: "recorded entity not found"
        case 0x1401: "record not found"
        case 0x1700: "recovered data with no error correction applied"
        case 0x1800: "recovered data with error correction applied"
        case 0x1A00: "parameter list length error"
        case 0x1C00: "defect list not found"
        case 0x1D00: "miscompare during verify operation"
        case 0x2000: "invalid command operation code"
        case 0x2100: "logical block address out of range"
        case 0x2200: "illegal function"
        case 0x2400: "invalid field in CDB"
        case 0x2500: "logical unit not supported"
        case 0x2600: "invalid field in parameter list"
        case 0x2601: "parameter not supported"
        case 0x2602: "parameter value invalid"
        case 0x2604: "invalid release of persistent reservation"
        case 0x2608: "too many segment descriptors"
        case 0x2700: "write protected"
        case 0x2701: "hardware write protected"
        case 0x2702: "logical unit software write protected"
        case 0x2707: "space allocation failed, write protect"
        case 0x2800: "not ready to ready change, medium may have changed"
        case 0x2900: "power on, reset, or bus device reset occurred"
        case 0x2901: "power on occurred"
        case 0x2902: "SCSI bus reset occurred"
        case 0x2903: "bus device reset function occurred"
        case 0x2904: "device internal reset"
        case 0x2905: "transceiver mode changed to single-ended"
        case 0x2906: "transceiver mode changed to LVD"
        case 0x2907: "I_T nexus loss occurred"
        case 0x2A00: "parameters changed"
        case 0x2A01: "mode parameters changed"
        case 0x2A02: "log parameters changed"
        case 0x2A03: "reservations preempted"
        case 0x2A04: "reservations released"
        case 0x2A05: "registrations preempted"
        case 0x2A06: "asymmetric access state changed"
        case 0x2A07: "implicit asymmetric access state transition failed"
        case 0x2A08: "priority changed"
        case 0x2A09: "capacity data has changed"
        case 0x2C00: "command sequence error"
        case 0x2F00: "commands cleared by another initiator"
        case 0x2F01: "commands cleared by power loss notification"
        case 0x2F02: "commands cleared by device server"
        case 0x3000: "incompatible medium installed"
        case 0x3100: "medium format corrupted"
        case 0x3700: "rounded parameter"
        case 0x3807: "thin provisioning soft threshold reached"
        case 0x3900: "saving parameters not supported"
        case 0x3A00: "medium not present"
        case 0x3D00: "invalid bits in identify message"
        case 0x3E00: "logical unit has not self-configured yet"
        case 0x3E01: "logical unit failure"
        case 0x3E02: "timeout on logical unit"
        case 0x3F00: "target operating conditions have changed"
        case 0x3F01: "microcode has been changed"
        case 0x3F03: "inquiry data has changed"
        case 0x3F05: "device identifier changed"
        case 0x3F0E: "reported LUNs data has changed"
        case 0x4400: "internal target failure"
        case 0x4700: "SCSI parity error"
        case 0x4701: "data phase CRC error detected"
        case 0x4705: "protocol service CRC error"
        case 0x4800: "initiator detected error message received"
        case 0x4900: "invalid message error"
        case 0x4B00: "data phase error"
        case 0x4B02: "too much write data"
        case 0x4B03: "ACK/NAK timeout"
        case 0x4B05: "data offset error"
        case 0x4B06: "initiator response timeout"
        case 0x4E00: "overlapped commands attempted"
        case 0x5302: "medium removal prevented"
        case 0x5503: "insufficient resources"
        case 0x5504: "insufficient registration resources"
        case 0x5D00: "failure prediction threshold exceeded"
        case 0x5E00: "low power condition on"
        case 0x670A: "set target port groups command failed"
        default: nil
        }
    }
}
