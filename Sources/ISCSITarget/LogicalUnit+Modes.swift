import ISCSI
import SCSI

/// The mode parameters that can be changed (SPC-4 clause 7.5.10, the control mode page).
struct ModeParameters {
    /// D_SENSE: sense data in descriptor format.
    var usesDescriptorSense = false
    /// SWP
    var isWriteProtected = false

    mutating func restoreDefaults() { self = ModeParameters() }
}

extension LogicalUnit {
    private enum PageControl: UInt8 {
        case current = 0
        case changeable = 1
        case defaults = 2
        case saved = 3
    }

    // MARK: MODE SENSE

    func modeSense(_ command: DeviceCommand) -> DeviceResult {
        let isShort = command.cdb.operationCode == OperationCode.modeSense6
        let allocation = isShort ? Int(command.cdb.bytes[4]) : Int(command.cdb.field(at: 7, width: 2))
        guard let control = PageControl(rawValue: command.cdb.bytes[2] >> 6) else { return .check(.badCDBField) }
        guard control != .saved else { return .check(.illegalRequest(0x39, 0x00)) }
        let page = command.cdb.bytes[2] & 0x3F
        let subpage = command.cdb.bytes[3]
        guard subpage == 0 || subpage == 0xFF else { return .check(.badCDBField) }
        let disablesDescriptors = command.cdb.bytes[1] & 0x08 != 0
        var pages: [UInt8] = []
        switch page {
        case 0x08: pages = cachingPage(control)
        case 0x0A: pages = controlPage(control)
        case 0x1C: pages = exceptionsPage
        case 0x3F: pages = cachingPage(control) + controlPage(control) + exceptionsPage
        default: return .check(.badCDBField)
        }
        let descriptor = disablesDescriptors ? [] : blockDescriptor
        // WP and DPOFUA
        let specific: UInt8 = (configuration.isReadOnly || modes.isWriteProtected ? 0x80 : 0) | 0x10
        var bytes: [UInt8]
        if isShort {
            bytes = [0, 0, specific, UInt8(descriptor.count)] + descriptor + pages
            bytes[0] = UInt8(bytes.count - 1)
        } else {
            bytes = [0, 0, 0, specific, 0, 0, 0, UInt8(descriptor.count)] + descriptor + pages
            bytes.set16(at: 0, bytes.count - 2)
        }
        return answer(bytes, allocation: allocation)
    }

    /// SBC-3 clause 6.4.2.1, the short form: a count that does not fit is all ones.
    private var blockDescriptor: [UInt8] {
        var bytes: [UInt8] = []
        bytes.append32(UInt32(clamping: blockCount))
        bytes.append32(UInt32(blockSize))
        return bytes
    }

    /// SBC-3 clause 6.4.5. WCE: a file's writes may sit in the device's cache until SYNCHRONIZE CACHE.
    private func cachingPage(_ control: PageControl) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 20)
        page[0] = 0x08
        page[1] = 18
        if control != .changeable, case .file = configuration.storage { page[2] = 0x04 }
        return page
    }

    private func controlPage(_ control: PageControl) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 12)
        page[0] = 0x0A
        page[1] = 10
        switch control {
        case .changeable:
            page[2] = 0x04
            page[4] = 0x08
        case .current:
            page[2] = modes.usesDescriptorSense ? 0x04 : 0
            page[4] = modes.isWriteProtected ? 0x08 : 0
        case .defaults, .saved: break
        }
        // QUEUE ALGORITHM MODIFIER 1: the initiator orders what must be ordered.
        if control != .changeable { page[3] = 0x10 }
        return page
    }

    /// SBC-3 clause 6.4.8: nothing is reported by itself.
    private var exceptionsPage: [UInt8] { [0x1C, 10] + [UInt8](repeating: 0, count: 10) }

    // MARK: MODE SELECT

    func modeSelect(_ command: DeviceCommand) -> DeviceResult {
        let isShort = command.cdb.operationCode == OperationCode.modeSelect6
        // PF must be set; SP needs saved pages.
        guard command.cdb.bytes[1] & 0x10 != 0, command.cdb.bytes[1] & 0x01 == 0 else { return .check(.badCDBField) }
        let length = isShort ? Int(command.cdb.bytes[4]) : Int(command.cdb.field(at: 7, width: 2))
        guard length > 0 else { return .status(.good) }
        let headerLength = isShort ? 4 : 8
        guard length >= headerLength, command.dataOut.count >= length else { return .check(.parameterListLength) }
        let list = UnsafeRawBufferPointer(rebasing: command.dataOut[..<length])
        let descriptorLength = isShort ? Int(list[3]) : Int(list.field(at: 6, width: 2))
        var offset = headerLength + descriptorLength
        guard offset <= length, descriptorLength == 0 || descriptorLength == 8 else { return .check(.parameterListLength) }
        var changed = modes
        while offset < length {
            guard offset + 2 <= length else { return .check(.parameterListLength) }
            let pageLength = Int(list[offset + 1]) + 2
            guard offset + pageLength <= length else { return .check(.parameterListLength) }
            let page = Array(list[offset..<offset + pageLength])
            guard let sense = apply(page, to: &changed) else {
                offset += pageLength
                continue
            }
            return .check(sense)
        }
        let isChange =
            changed.usesDescriptorSense != modes.usesDescriptorSense || changed.isWriteProtected != modes.isWriteProtected
        modes = changed
        if isChange { raise(.modeParametersChanged, except: command.nexus) }
        return .status(.good, dataOutByteCount: length)
    }

    /// Only what the changeable mask shows may differ from what is.
    private func apply(_ page: [UInt8], to modes: inout ModeParameters) -> SenseData? {
        let current: [UInt8]
        let mask: [UInt8]
        switch page[0] & 0x7F {
        case 0x08: (current, mask) = (cachingPage(.current), cachingPage(.changeable))
        case 0x0A: (current, mask) = (controlPage(.current), controlPage(.changeable))
        case 0x1C: (current, mask) = (exceptionsPage, [UInt8](repeating: 0, count: 12))
        default: return .badParameterField
        }
        guard page.count == current.count else { return .badParameterField }
        for index in 2..<page.count where (page[index] ^ current[index]) & ~mask[index] != 0 { return .badParameterField }
        if page[0] & 0x7F == 0x0A {
            modes.usesDescriptorSense = page[2] & 0x04 != 0
            modes.isWriteProtected = page[4] & 0x08 != 0
        }
        return nil
    }

    // MARK: REQUEST SENSE, START STOP UNIT, PREVENT ALLOW

    /// The waiting unit attention, or nothing to report (SPC-4 clause 6.39).
    func requestSense(_ command: DeviceCommand) -> DeviceResult {
        let sense = attentions[command.nexus.rawValue].takeFirst()
            ?? SenseData(key: .noSense, additional: AdditionalSense(0, 0))
        let format: SenseFormat = command.cdb.bytes[1] & 1 != 0 ? .descriptor : .fixed
        return answer(sense.encode(format: format), allocation: Int(command.cdb.bytes[4]))
    }

    /// SBC-3 clause 5.25: the medium is not removable, so LOEJ means nothing; a power condition other
    /// than active is accepted and ended by the next command.
    func startStopUnit(_ command: DeviceCommand) -> DeviceResult {
        let flags = command.cdb.bytes[4]
        guard flags & 0x02 == 0 else { return .check(.badCDBField) }
        if flags >> 4 == 0 { isStopped = flags & 0x01 == 0 }
        return .status(.good)
    }

    func preventAllow(_ command: DeviceCommand) -> DeviceResult {
        switch command.cdb.bytes[4] & 0x03 {
        case 0: removalPreventers.removeAll { $0 == command.nexus }
        case 1:
            if !removalPreventers.contains(command.nexus) { removalPreventers.append(command.nexus) }
        default: return .check(.badCDBField)
        }
        return .status(.good)
    }

    // MARK: RESERVE, RELEASE

    /// SPC-2 clause 7.21: the whole unit. Refused beside persistent reservations, but for what CRH allows.
    func reserve(_ command: DeviceCommand) -> DeviceResult {
        guard command.cdb.bytes[1] & 0x11 == 0 else { return .check(.badCDBField) }
        if reservationHolder != nil, reservationHolder != command.nexus { return .status(.reservationConflict) }
        reservationHolder = command.nexus
        return .status(.good)
    }

    /// A release by somebody else is no error and changes nothing.
    func release(_ command: DeviceCommand) -> DeviceResult {
        guard command.cdb.bytes[1] & 0x11 == 0 else { return .check(.badCDBField) }
        if reservationHolder == command.nexus { reservationHolder = nil }
        return .status(.good)
    }
}
