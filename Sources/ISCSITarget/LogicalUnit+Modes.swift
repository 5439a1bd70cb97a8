import ISCSI
import SCSI

/// The mode parameters that can be changed (SPC-4 clause 7.5.10, the control mode page).
struct ModeState {
    /// D_SENSE: sense data in descriptor format.
    var usesDescriptorSense = false
    /// SWP
    var isWriteProtected = false

    mutating func restoreDefaults() { self = ModeState() }
}

extension LogicalUnit {
    // MARK: MODE SENSE

    func modeSense(_ request: ModeSenseRequest) -> DeviceResult {
        let control = request.control
        guard control != .saved else {
            return .check(SenseData(key: .illegalRequest, additional: .savingParametersNotSupported))
        }
        guard request.subpage == 0 || request.subpage == 0xFF else { return .check(.badCDBField) }
        var pages: [UInt8] = []
        switch request.page {
        case 0x08: pages = cachingPage(control)
        case 0x0A: pages = controlPage(control)
        case 0x1C: pages = exceptionsPage
        case 0x3F: pages = cachingPage(control) + controlPage(control) + exceptionsPage
        default: return .check(.badCDBField)
        }
        let descriptor = request.disableBlockDescriptors ? [] : blockDescriptor
        // WP and DPOFUA
        let specific: UInt8 = (configuration.isReadOnly || modes.isWriteProtected ? 0x80 : 0) | 0x10
        var bytes: [UInt8]
        if request.format == .six {
            bytes = [0, 0, specific, UInt8(descriptor.count)] + descriptor + pages
            bytes[0] = UInt8(bytes.count - 1)
        } else {
            bytes = [0, 0, 0, specific, 0, 0, 0, UInt8(descriptor.count)] + descriptor + pages
            bytes.set16(at: 0, bytes.count - 2)
        }
        return answer(bytes, allocation: Int(request.allocationByteCount))
    }

    /// SBC-3 clause 6.4.2.1, the short form: a count that does not fit is all ones.
    private var blockDescriptor: [UInt8] {
        var bytes: [UInt8] = []
        bytes.append32(UInt32(clamping: blockCount))
        bytes.append32(UInt32(blockSize))
        return bytes
    }

    /// SBC-3 clause 6.4.5. WCE: writes may sit in a cache of the backend until SYNCHRONIZE CACHE.
    private func cachingPage(_ control: ModePageControl) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 20)
        page[0] = 0x08
        page[1] = 18
        if control != .changeable, backend.hasVolatileCache { page[2] = 0x04 }
        return page
    }

    private func controlPage(_ control: ModePageControl) -> [UInt8] {
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
        case .default, .saved: break
        }
        // QUEUE ALGORITHM MODIFIER 1: the initiator orders what must be ordered.
        if control != .changeable { page[3] = 0x10 }
        return page
    }

    /// SBC-3 clause 6.4.8: nothing is reported by itself.
    private var exceptionsPage: [UInt8] { [0x1C, 10] + [UInt8](repeating: 0, count: 10) }

    // MARK: MODE SELECT

    func modeSelect(_ command: DeviceCommand, _ request: ModeSelectRequest) -> DeviceResult {
        let isShort = request.format == .six
        guard request.isPageFormat, !request.savesPages else { return .check(.badCDBField) }
        let length = Int(request.parameterByteCount)
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
    private func apply(_ page: [UInt8], to modes: inout ModeState) -> SenseData? {
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
    func requestSense(_ nexus: NexusIndex, _ format: SenseFormat, allocation: Int) -> DeviceResult {
        let sense = attentions[nexus.rawValue].takeFirst() ?? SenseData(key: .noSense, additional: .none)
        return answer(sense.encode(format: format), allocation: allocation)
    }

    /// SBC-3 clause 5.25: the medium is not removable, so LOEJ means nothing; a power condition other
    /// than active is accepted and ended by the next command.
    func startStopUnit(_ request: StartStopRequest) -> DeviceResult {
        guard !request.loadEject else { return .check(.badCDBField) }
        if request.powerCondition == 0 { isStopped = !request.start }
        return .status(.good)
    }

    func preventAllow(_ nexus: NexusIndex, _ removal: MediumRemoval) -> DeviceResult {
        removalPreventers.removeAll { $0 == nexus }
        if removal == .prevent { removalPreventers.append(nexus) }
        return .status(.good)
    }

    // MARK: RESERVE, RELEASE

    /// SPC-2 clause 7.21: the whole unit. Refused beside persistent reservations, but for what CRH allows.
    func reserve(_ nexus: NexusIndex) -> DeviceResult {
        if reservationHolder != nil, reservationHolder != nexus { return .status(.reservationConflict) }
        reservationHolder = nexus
        return .status(.good)
    }

    /// A release by somebody else is no error and changes nothing.
    func release(_ nexus: NexusIndex) -> DeviceResult {
        if reservationHolder == nexus { reservationHolder = nil }
        return .status(.good)
    }
}
